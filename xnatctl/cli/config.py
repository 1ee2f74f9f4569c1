"""`xnatctl config`: the profiles, which are named servers."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import ConfigError, Conflict, LocalFault, UsageError, XnatctlError

from .changes import Change, Consent, carry_out, consent_options
from .group import Group, option
from .names import PROFILE
from .options import CONNECTION, read_secret

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.config import Config, Profile

config = Group("config", help="Profiles: named servers, kept in a file.")


@dataclass(frozen=True, slots=True)
class NewProfile:
    """A profile as flags describe it."""

    name: str
    url: str
    project: str | None = None
    username: str | None = None
    timeout: float | None = None
    verify_ssl: bool = True
    ca_bundle: str | None = None

    def values(self) -> dict[str, Any]:
        """What the file gets; nothing that was not said."""
        from xnatctl.config import check_url

        said = {
            "url": check_url(self.url, "--url"),
            "username": self.username,
            "default_project": self.project,
            "timeout": self.timeout,
            "ca_bundle": self.ca_bundle,
        }
        values: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
        values["verify_ssl"] = self.verify_ssl
        return values


@config.command("init")
@option("--url", metavar="URL", help="Address of the server; asked for when it is missing.")
@option("--profile", "name", metavar="NAME", help="Name of the profile.  [default: default]")
@option("--project", metavar="PROJECT", help="Project that commands use when none is named.")
@option("--username", "-u", metavar="USER", help="User name at the server.")
@option("--force", is_flag=True, help="Replace what is there, even a file that cannot be read.")
@option("--login/--no-login", default=None, help="Log in afterwards.  [default: ask]")
async def init(
    app: App,
    *,
    url: str | None,
    name: str | None,
    project: str | None,
    username: str | None,
    force: bool,
    login: bool | None,
) -> None:
    """Write a first profile, and log in if you like.

    \b
    Examples:
      xnatctl config init --url https://xnat.example.org
      xnatctl config init --url https://xnat.example.org --profile prod --no-login
    """
    name = name or app.settings.profile or "default"
    url = url or app.console.ask("XNAT server URL", hint="add --url https://xnat.example.org")
    new = NewProfile(name, url, project, username)
    changed = run_init(app, new, force=force)
    app.console.say(f"Configuration saved to {changed.path}")
    record = {"profile": name, "url": new.values()["url"], "default_project": project or "-"}
    app.console.record(record, key="profile")
    if login is None:
        login = sys.stdin.isatty() and await _wants_login(app)
    if not login:
        app.console.say(f"Next: xnatctl auth login -p {name}")
        return
    from .auth import run_login

    app.use(changed, name)
    await run_login(app, username=username, password=None)


def run_init(app: App, new: NewProfile, *, force: bool) -> Config:
    """The configuration with the profile in it, saved. A file that `force` replaces is kept."""
    from xnatctl import config as files

    values = new.values()
    try:
        known = files.load(environ=app.environ)
    except XnatctlError:
        if not force:
            raise
        path = files.path_of(app.environ)
        path.replace(path.with_name(f"{path.name}.bak"))
        app.console.warn(f"the old file is now {path}.bak")
        known = files.Config(path=path, environ=app.environ)
    if new.name in known.profiles and not force:
        raise Conflict(
            f"there is a profile {new.name!r} already",
            why=f"it is {known.profiles[new.name].url}",
            hint="add --force to replace it",
        )
    changed = known.with_profile(new.name, values, default=not known.profiles)
    changed.save()
    return changed


async def _wants_login(app: App) -> bool:
    from xnatctl.errors import Declined

    try:
        app.console.confirm("Log in now?")
    except Declined:
        return False
    return True


@config.command("add-profile")
@click.argument("name")
@option("--url", metavar="URL", required=True, help="Address of the server.")
@option("--project", metavar="PROJECT", help="Project that commands use when none is named.")
@option("--username", "-u", metavar="USER", help="User name at the server.")
@option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    group=CONNECTION,
    help="Silence after which a transfer counts as stalled.",
)
@option("--no-verify-ssl", is_flag=True, group=CONNECTION, help="Accept any certificate: unsafe.")
@option("--ca-bundle", metavar="FILE", group=CONNECTION, help="Trust the authorities in this file.")
async def add_profile(
    app: App,
    *,
    name: str,
    url: str,
    project: str | None,
    username: str | None,
    timeout: float | None,
    no_verify_ssl: bool,
    ca_bundle: str | None,
) -> None:
    """Add a profile; the first one becomes the default.

    \b
    Examples:
      xnatctl config add-profile dev --url https://xnat-dev.example.org
      xnatctl config add-profile lab --url https://xnat.lab --ca-bundle ~/lab-ca.pem
    """
    new = NewProfile(name, url, project, username, timeout, not no_verify_ssl, ca_bundle)
    values = new.values()
    known = app.config
    if name in known.profiles:
        raise Conflict(
            f"there is a profile {name!r} already",
            why=f"it is {known.profiles[name].url}",
            hint=f"xnatctl config remove-profile {name}",
        )
    known.with_profile(name, values, default=not known.profiles).save()
    app.console.say(f"Profile {name!r} added")


@config.command("remove-profile")
@click.argument("name", metavar="PROFILE", type=PROFILE)
@consent_options
async def remove_profile(app: App, *, name: str, consent: Consent) -> int:
    """Remove a profile; not the default one.

    \b
    Examples:
      xnatctl config remove-profile dev --yes
    """
    known = app.config
    changed = known.without_profile(name)
    if name == known.default_profile:
        raise UsageError(
            f"{name!r} is the default profile and was not removed",
            hint="xnatctl config use-context OTHER",
        )
    url = known.profiles[name].url

    async def do() -> None:
        changed.save()
        app.logins.forget(url)

    change = Change("remove", f"profile {name}", do, url)
    question = f"Remove profile {name!r}?"
    return await carry_out(app, [change], question=question, consent=consent)


@config.command("use-context")
@click.argument("name", metavar="PROFILE", type=PROFILE)
async def use_context(app: App, *, name: str) -> None:
    """Make a profile the default one.

    \b
    Examples:
      xnatctl config use-context prod
    """
    app.config.with_default(name).save()
    app.console.say(f"Switched to profile {name!r}")
    if other := app.environ.get("XNAT_PROFILE"):
        app.console.warn(f"XNAT_PROFILE is set, so commands still use {other!r}")


@config.command("current-context")
async def current_context(app: App) -> None:
    """Print the name of the profile that commands use."""
    known = app.config
    if not known.profiles and not app.environ.get("XNAT_URL"):
        raise no_profiles(known)
    app.console.write(f"{known.current}\n")


@config.command("show")
async def show(app: App) -> None:
    """Show the profiles, or with -p one of them; passwords are not shown.

    \b
    Examples:
      xnatctl config show
      xnatctl config show -p prod -o json
    """
    from xnatctl.ui.console import Column

    known = app.config
    if not known.profiles:
        raise no_profiles(known)
    wanted = app.settings.profile
    shown = [known.profile(wanted)] if wanted else list(known.profiles.values())
    console = app.console
    if console.format in ("json", "jsonl", "yaml") and not console.quiet:
        console.document(
            {
                "config_file": str(known.path),
                "default_profile": known.default_profile,
                "output_format": known.output_format or "table",
                "profiles": [one.name for one in shown],
                "profile_details": {one.name: _details(one) for one in shown},
            }
        )
        return
    rows = [
        {
            "profile": one.name,
            "default": one.name == known.default_profile,
            "url": one.url,
            "username": one.username,
            "verify_ssl": one.verify_ssl is not False,
            "timeout": one.timeout,
            "default_project": one.default_project,
        }
        for one in shown
    ]
    titles = {"verify_ssl": "Verify TLS", "default_project": "Project"}
    console.say(f"Configuration: {known.path}")
    console.rows(rows, [Column(key, titles.get(key, "")) for key in rows[0]], key="profile")


def _details(one: Profile) -> dict[str, Any]:
    """The profile's keys as they are in the file, without its password."""
    known = {field.name: getattr(one, field.name) for field in fields(one)}
    del known["name"]
    details = {key: value for key, value in known.items() if value is not None}
    details.setdefault("verify_ssl", True)
    details.setdefault("default_project", None)
    if "password" in details:
        details["password"] = "***"
    return details


@config.command("set-password")
@click.argument("name", metavar="PROFILE", type=PROFILE)
@option("--password-stdin", is_flag=True, help="Read the password from a pipe.")
async def set_password(app: App, *, name: str, password_stdin: bool) -> None:
    """Store a profile's password in the keychain, and drop it from the file.

    \b
    Examples:
      xnatctl config set-password prod
    """
    from xnatctl.credentials import KEYCHAIN, keychain, keychain_name

    known = app.config
    profile = known.profile(name)
    chain = keychain()
    if password_stdin:
        password = read_secret("--password-stdin")
    else:
        password = app.console.secret("Password", hint="add --password-stdin")
    try:
        chain.set_password(KEYCHAIN, keychain_name(profile), password)
    except Exception as error:  # every keychain has errors of its own
        raise LocalFault("the keychain refused the password", why=str(error)) from error
    known.with_profile(name, {"password_source": "keyring"}, without=("password",)).save()
    app.console.say(f"The password of profile {name!r} is in the keychain")


@config.command("explain")
async def explain(app: App) -> None:
    """Show every setting of a connection and where it comes from.

    \b
    Examples:
      xnatctl config explain -p prod
    """
    from xnatctl.ui.console import Column

    server = app.server()
    names = ("url", "username", "verify_ssl", "ca_bundle", "timeout", "default_project", "workers")
    rows = [
        {"setting": name, "value": getattr(server, name), "origin": server.origin.get(name, "")}
        for name in names
    ]
    for name in ("password", "token"):
        if origin := server.origin.get(name):
            rows.append({"setting": name, "value": "***", "origin": origin})
    app.console.rows(rows, ["setting", "value", Column("origin", "Comes from")], key="setting")


def no_profiles(known: Config) -> ConfigError:
    return ConfigError(
        "no profile is configured",
        why=f"{known.path} has none",
        hint="xnatctl config init --url https://xnat.example.org",
    )
