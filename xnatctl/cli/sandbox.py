"""`xnatctl sandbox`: a practice server on this machine. The only commands that know the sandbox."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import LocalFault, UsageError

from .group import Group, Lazy, option
from .options import workers_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.sandbox.settings import Settings

_WINDOW = "xnatctl.cli.sandbox_window"
sandbox = Group(
    "sandbox",
    help="A practice server on this machine: no Docker, ready in a second.",
    lazy={
        "fault": Lazy(f"{_WINDOW}:fault", "Let things go wrong in a running one."),
        "inspect": Lazy(f"{_WINDOW}:inspect", "Print all that a running one holds."),
    },
)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Serve:
    """How a sandbox is served. `users` are logins with their passwords."""

    root: Path
    host: str = "127.0.0.1"
    port: int = 8080
    seeds: tuple[str, ...] = ()
    users: Mapping[str, str] = field(default_factory=lambda: {"admin": "admin"}, repr=False)
    discard_bodies: bool = False
    switches: Mapping[str, Any] = field(default_factory=dict)


@sandbox.command("serve")
@option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    metavar="N",
    help="Where to listen; 0 takes any free port.",
)
@option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@option(
    "--root",
    default="xnat-sandbox",
    show_default=True,
    metavar="DIR",
    help="Folder of its data, which a restart finds again.",
)
@option(
    "--seed",
    "seeds",
    multiple=True,
    metavar="SEED",
    help="Data to begin with: demo, nasty, or large:10x2x5x100@500k. May be repeated.",
)
@option(
    "--user",
    "users",
    multiple=True,
    metavar="NAME:PASSWORD",
    help="A login.  [default: admin:admin]",
)
@option(
    "--set",
    "switches",
    metavar="NAME=VALUE",
    multiple=True,
    help="Where servers differ: a setting such as require_login=no or archive_s=5.",
)
@option(
    "--discard-bodies", is_flag=True, help="Keep sizes and digests of uploads, not their bytes."
)
async def serve(
    app: App,
    *,
    port: int,
    host: str,
    root: str,
    seeds: tuple[str, ...],
    users: tuple[str, ...],
    switches: tuple[str, ...],
    discard_bodies: bool,
) -> None:
    """Serve a sandbox until Ctrl-C.

    \b
    Examples:
      xnatctl sandbox serve --seed demo
      xnatctl sandbox serve --port 0 --root /tmp/xnat --user me:secret
      xnatctl sandbox serve --set silent_refusal=no --set idle_build_s=30
    """
    logins = dict(_login(text) for text in users) or {"admin": "admin"}
    chosen = dict(_switch(text) for text in switches)
    await run_serve(app, Serve(Path(root), host, port, seeds, logins, discard_bodies, chosen))


async def run_serve(app: App, options: Serve) -> None:
    """Plant what is missing, then serve. Raises LocalFault for a folder or port that is no use."""
    from anyio import to_thread

    from xnatctl.sandbox import server
    from xnatctl.sandbox.settings import Settings

    if options.host not in LOOPBACK:
        app.console.warn(f"anybody who reaches {options.host} can use this sandbox: it has no TLS")
    settings = Settings(
        users=options.users, discard_bodies=options.discard_bodies, **options.switches
    )
    with _told():
        await to_thread.run_sync(_plant, options, settings)
        await server.run(
            options.root,
            host=options.host,
            port=options.port,
            settings=settings,
            announce=lambda running: _announce(app, options, running.url),
        )
    app.console.say("Stopped")


def _plant(options: Serve, settings: Settings) -> None:
    """Write the seeds whose projects are not there yet."""
    from xnatctl.sandbox.seed import parse, seed
    from xnatctl.sandbox.store import Store

    # All are read before anything is written.
    plans = [(text, parse(text)) for text in options.seeds]
    if not plans:
        return
    store = Store(options.root, site_id=settings.site_id, discard_bodies=settings.discard_bodies)
    try:
        for text, plan in plans:
            project = plan.upper() if isinstance(plan, str) else plan.project
            if store.find_project(project) is None:
                seed(store, text)
    finally:
        store.close()


def _announce(app: App, options: Serve, url: str) -> None:
    console = app.console
    if console.quiet:
        console.write(f"{url}\n")
    elif console.is_machine:
        root = str(options.root.resolve())
        console.document({"url": url, "root": root, "users": list(options.users)})
    else:
        console.write(f"Sandbox at {url}\n")
        logins = ", ".join(f"{name} / {secret}" for name, secret in options.users.items())
        console.say(f"Login: {logins}")
        console.say(f"Data:  {options.root.resolve()}")
        console.say("Ctrl-C stops it")


def _login(text: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise UsageError("--user cannot be understood", why="it is NAME:PASSWORD")
    return name, password


def _switch(text: str) -> tuple[str, Any]:
    """A setting of the sandbox by name. Raises UsageError with the names or the form."""
    import dataclasses

    from xnatctl.sandbox.settings import Settings

    own = {"users", "discard_bodies"}  # options of their own
    known: dict[str, Any] = {
        one.name: one.default for one in dataclasses.fields(Settings) if one.name not in own
    }
    name, _, value = text.partition("=")
    if name not in known:
        raise UsageError(f"--set {name}: no such setting", why=f"there are {', '.join(known)}")
    words = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
    default = known[name]
    try:
        if isinstance(default, bool):
            return name, words[value.lower()]
        if isinstance(default, tuple):
            return name, tuple(value.split(","))
        return name, int(value) if default is None else type(default)(value)
    except (KeyError, ValueError) as error:
        form = "yes or no" if isinstance(default, bool) else f"like {default}"
        raise UsageError(
            f"--set {name}={value} cannot be understood", why=f"it is {form}"
        ) from error


@contextmanager
def _told() -> Iterator[None]:
    """The sandbox's own errors as ours: it imports nothing of the rest of the program."""
    from xnatctl.sandbox.database import SandboxError
    from xnatctl.sandbox.seed_parts import SeedError

    try:
        yield
    except SeedError as error:
        raise UsageError(error.what, why=error.why, hint=error.fix) from error
    except SandboxError as error:
        raise LocalFault(error.what, why=error.why, hint=error.fix) from error


@sandbox.command("demo")
@option(
    "--root", metavar="DIR", help="Folder for all that it writes.  [default: a new temporary one]"
)
@workers_option
async def demo(app: App, *, root: str | None, workers: int | None) -> int:
    """Move a project between two sandboxes, and see that a second run moves nothing.

    Starts two servers, writes two profiles, and runs the very commands that you would type. All of
    it happens in one folder, and no server is left running.

    \b
    Examples:
      xnatctl sandbox demo
    """
    import tempfile

    folder = Path(root) if root else Path(tempfile.mkdtemp(prefix="xnatctl-demo-"))
    return await run_demo(app, folder.resolve(), workers)


async def run_demo(app: App, folder: Path, workers: int | None = None) -> int:
    """Returns the exit code of the first command that failed, else 0."""
    environ = {
        **{key: value for key, value in app.environ.items() if not key.startswith("XNAT")},
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    transfer = "project transfer -p prod -P DEMO --dest-profile dev --dest-project DEMO --yes"
    command = [*transfer.split(), *(["--workers", str(workers)] if workers else [])]
    async with (
        _served(folder / "prod", environ, "--seed", "demo") as prod,
        _served(folder / "dev", environ) as dev,
    ):
        _write_profiles(folder / "config", environ, {"prod": prod, "dev": dev})
        app.console.say(f"Two sandboxes are running: prod at {prod}, dev at {dev}")
        for words in ("Move the project", "The same again: nothing is left to move"):
            app.console.say("")
            app.console.say(f"# {words}")
            app.console.say(f"$ xnatctl {' '.join(command)}")
            if code := await _run(command, environ):
                return code
    app.console.say("")
    app.console.say(f"Everything is in {folder}: data of both servers, profiles, state")
    return 0


def _write_profiles(folder: Path, environ: Mapping[str, str], urls: Mapping[str, str]) -> None:
    from xnatctl.config import Config

    config = Config(path=folder / "xnatctl" / "config.yaml", environ=environ)
    for name, url in urls.items():
        config = config.with_profile(name, {"url": url, "username": "admin", "password": "admin"})
    config.with_default("prod").save()


@asynccontextmanager
async def _served(root: Path, environ: Mapping[str, str], *more: str) -> AsyncIterator[str]:
    """A sandbox in a process of its own; yields its address, and ends it at the end."""
    import anyio

    command = ["sandbox", "serve", "-q", "--port", "0", "--root", str(root), *more]
    process = await anyio.open_process(_ours(command), stderr=None, env=dict(environ))
    try:
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            try:
                line += await process.stdout.receive()
            except anyio.EndOfStream:
                raise LocalFault(
                    "a sandbox did not start", why=f"its process ended; its folder is {root}"
                ) from None
        yield line.decode().strip()
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
            with anyio.move_on_after(10) as late:
                await process.wait()
            if late.cancelled_caught:
                process.kill()
            await process.aclose()


async def _run(command: list[str], environ: Mapping[str, str]) -> int:
    """Run one of our commands on this terminal and return its exit code."""
    import anyio

    process = await anyio.open_process(
        _ours(command), stdin=None, stdout=None, stderr=None, env=dict(environ)
    )
    async with process:
        return await process.wait()


def _ours(command: list[str]) -> list[str]:
    """The command line of this same program."""
    return [sys.executable, "-m", "xnatctl", *command]
