"""`xnatctl auth`, `whoami` and `health`: who we are at a server, and whether it answers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xnatctl.errors import AuthError, NotFound, PermissionDenied

from .group import Command, Group, Lazy, option
from .options import CONNECTION, read_secret, refuse_secret

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.config import Server
    from xnatctl.xnat.client import Xnat

auth = Group(
    "auth",
    help="Log in and out, and see which login is used.",
    lazy={"token": Lazy("xnatctl.cli.tokens:token", "Alias tokens: a login for scripts.")},
)
health = Group("health", help="Check that the server answers.")


@auth.command("login")
@option("-u", "--username", metavar="USER", group=CONNECTION, help="User name at the server.")
@option("--password", expose_value=False, callback=refuse_secret, hidden=True)
@option("--password-stdin", is_flag=True, group=CONNECTION, help="Read the password from a pipe.")
async def login(app: App, *, username: str | None, password_stdin: bool) -> None:
    """Log in and keep the session for the next commands.

    The password is asked for, unless a pipe, XNAT_PASS, netrc, the profile or the keychain has it.

    \b
    Examples:
      xnatctl auth login -p prod
      pass show xnat | xnatctl auth login -u smith --password-stdin
    """
    password = read_secret("--password-stdin") if password_stdin else None
    await run_login(app, username=username, password=password)


async def run_login(app: App, *, username: str | None, password: str | None) -> None:
    from anyio import to_thread

    from xnatctl.config import Overrides
    from xnatctl.credentials import complete

    server = app.server(flags=Overrides(username=username, password=password))
    server = replace(server, token=None)
    server = await to_thread.run_sync(complete, server, app.environ)
    server = _asked(app, server)
    app.console.say(f"Logging in at {server.url} …")
    async with app.xnat(server, keep=True) as xnat:
        name = await xnat.whoami()
    kept = app.logins.find(server.url, server.username)
    expires = kept.expires.isoformat() if kept else None
    if app.console.is_machine:
        app.console.document(
            {
                "status": "authenticated",
                "username": name,
                "requested_username": server.username,
                "url": server.url,
                "profile": server.name,
                "expires_at": expires,
            }
        )
        return
    app.console.say(f"Logged in at {server.url} as {name}")
    if expires:
        app.console.say(f"The session is kept until {expires[11:16]}, and longer while it is used")


def _asked(app: App, server: Server) -> Server:
    """The server with what was missing asked for at the terminal."""
    hint = "add -u USER --password-stdin, or set XNAT_USER and XNAT_PASS"
    if not server.username:
        server = replace(server, username=app.console.ask("User name", hint=hint))
    if server.password is None:
        server = replace(server, password=app.console.secret("Password", hint=hint))
    return server


@auth.command("logout")
async def logout(app: App) -> None:
    """End the kept session, here and at the server.

    \b
    Examples:
      xnatctl auth logout -p prod
    """
    server = app.server()
    known = app.logins.forget(server.url)
    if known is None:
        app.console.warn(f"no session is kept for {server.url}")
        return
    ended = replace(server, token=known.token, username=known.username)
    async with app.xnat(ended, keep=False):
        pass
    app.console.say(f"Logged out at {server.url}")


@auth.command("status")
async def status(app: App) -> None:
    """Show which login would be used; asks no server.

    \b
    Examples:
      xnatctl auth status -p prod -o json
    """
    from datetime import datetime

    server = app.server()
    kept = app.logins.find(server.url)
    environ = app.environ
    record: dict[str, Any] = {
        "url": server.url,
        "env_username": environ.get("XNAT_USER") or "(not set)",
        "env_password": "(set)" if environ.get("XNAT_PASS") else "(not set)",
        "env_token": "(set)" if environ.get("XNAT_TOKEN") else "(not set)",
        "session_cached": kept is not None,
    }
    if kept is not None:
        record |= {
            "session_username": kept.username,
            "session_created": kept.created.isoformat(),
            "session_expires": kept.expires.isoformat(),
            "session_expired": datetime.now() >= kept.expires,
        }
    app.console.record(record, key="url", titles={"url": "Server"})


@auth.command("test")
async def test(app: App) -> None:
    """Try the login at the server.

    \b
    Examples:
      xnatctl auth test -p prod
    """
    async with app.xnat() as xnat:
        name = await _name(xnat)
        facts = await _account(xnat, name)
    if app.console.is_machine:
        login = {"status": "authenticated", "url": xnat.url, "username": name}
        app.console.document({**login, **facts})
        return
    app.console.say(f"The login at {xnat.url} works")
    app.console.record({"username": name}, key="username", titles={"username": "User"})


async def _account(xnat: Xnat, name: str) -> dict[str, Any]:
    """Name, mail and state of an account; null where the server keeps them to itself."""
    from xnatctl.xnat.admin import Admin

    try:
        found = await Admin(xnat).profile(name)
    except (NotFound, PermissionDenied):
        found = {}
    keys = {"firstname": "firstName", "lastname": "lastName", "email": "email"}
    facts = {ours: found.get(theirs) for ours, theirs in keys.items()}
    return {**facts, "enabled": found.get("enabled")}


async def _whoami(app: App) -> None:
    """Show the user name, server and profile that commands use.

    \b
    Examples:
      xnatctl whoami
      xnatctl -p prod whoami -o json
    """
    server = app.server()
    async with app.xnat(server) as xnat:
        name = await _name(xnat)
    record = {
        "username": name,
        "server": server.url,
        "profile": server.name,
        "default_project": server.default_project or "-",
        "auth_mode": "session",
    }
    app.console.record(record, key="username", titles={"username": "User"})


whoami = Command(
    "whoami", callback=_whoami, help=_whoami.__doc__, short_help="Show who you are at the server."
)


async def _name(xnat: Any) -> str:
    """Our name at the server. Raises AuthError where it takes us for a guest."""
    name: str = await xnat.whoami()
    if name.lower() == "guest":
        raise AuthError(f"{xnat.name} takes us for a guest", why="the login is not valid any more")
    return name


@health.command("ping")
async def ping(app: App) -> None:
    """Measure how fast the server answers; a login is tried if one is known.

    \b
    Examples:
      xnatctl health ping -p prod
    """
    server = app.server()
    version, latency = await _first_answer(app, server)
    record = {
        "url": server.url,
        "status": "ok",
        "version": version,
        "latency_ms": latency,
        "authenticated": await _is_known(app, server),
    }
    app.console.say(f"Server reachable: {server.url}")
    app.console.record(record, key="url", titles={"url": "Server", "latency_ms": "Latency (ms)"})


async def _first_answer(app: App, server: Server) -> tuple[str, int]:
    """The version that the server tells strangers, and the milliseconds until it did."""
    async with app.stranger(server) as xnat:
        started = time.monotonic()
        try:
            version = await xnat.version()
        except AuthError:
            version = ""  # it answered: it tells nobody but its users
        return version, round((time.monotonic() - started) * 1000)


async def _is_known(app: App, server: Server) -> bool:
    try:
        async with app.xnat(server) as xnat:
            await _name(xnat)
    except AuthError:
        return False
    return True
