"""`xnatctl admin user`: the accounts of a site."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import asyncclick as click

from xnatctl.errors import Refused, UsageError

from .changes import Change, Consent, carry_out, consent_options
from .group import Group, option
from .lookup import missing
from .members import ROLES, run_revoke
from .options import list_options, project_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.admin import Admin
    from xnatctl.xnat.client import Xnat

user = Group("user", help="Accounts of the site: list, show and change them.")


@user.command("list")
@option("--active", is_flag=True, help="Those that are logged in, with their sessions.")
@list_options
async def list_(app: App, *, active: bool, shape: Shape) -> None:
    """List the accounts of the site.

    \b
    Examples:
      xnatctl admin user list --filter 'enabled:false'
      xnatctl admin user list --active -o json
    """
    from xnatctl.xnat.admin import Admin

    async with app.xnat() as xnat:
        admin = Admin(xnat)
        profiles = await admin.profiles()
        sessions = await admin.active() if active else {}
    rows = [
        {
            "username": one.get("username", ""),
            "email": one.get("email", ""),
            "enabled": one.get("enabled"),
            "verified": one.get("verified"),
            "last_login": one.get("lastSuccessfulLogin") or one.get("lastLogin") or "",
        }
        for one in profiles
    ]
    names = ["username", "email", "enabled", "verified", "last_login"]
    if active:
        rows = [row | {"sessions": sessions.get(str(row["username"]), 0)} for row in rows]
        rows = [row for row in rows if row["sessions"]]
        names.append("sessions")
    app.console.rows(rows, names, key="username", shape=shape)


@user.command("show")
@click.argument("username", metavar="USER")
async def show(app: App, *, username: str) -> None:
    """Show one account.

    \b
    Examples:
      xnatctl admin user show smith
    """
    from xnatctl.xnat.admin import Admin

    async with app.xnat() as xnat:
        with _known(xnat, username):
            record = await Admin(xnat).profile(username)
    app.console.record(record, key="username")


@user.command("groups")
@click.argument("username", metavar="USER")
@list_options
async def groups(app: App, *, username: str, shape: Shape) -> None:
    """List the groups of an account, such as STUDY_member.

    \b
    Examples:
      xnatctl admin user groups smith
    """
    from xnatctl.xnat.admin import Admin

    async with app.xnat() as xnat:
        with _known(xnat, username):
            found = await Admin(xnat).groups(username)
    rows = [{"group": one} for one in found]
    app.console.rows(rows, ["group"], key="group", shape=shape)


@user.command("add")
@click.argument("username", metavar="USER")
@click.argument("groups_", metavar="GROUP...", nargs=-1)
@option("--projects", metavar="A,B", help="Projects whose group is meant.")
@option("--role", type=click.Choice(ROLES), default="member", help="Which group of --projects.")
@consent_options
async def add(
    app: App,
    *,
    username: str,
    groups_: tuple[str, ...],
    projects: str | None,
    role: str,
    consent: Consent,
) -> int:
    """Put an account into groups.

    \b
    Examples:
      xnatctl admin user add smith STUDY_member OTHER_owner
      xnatctl admin user add smith --projects STUDY,OTHER --role collaborator
    """
    from xnatctl.xnat.admin import Admin

    listed = [one.strip() for one in (projects or "").split(",") if one.strip()]
    wanted = list(dict.fromkeys([*groups_, *(f"{one}_{role}" for one in listed)]))
    if not wanted:
        raise UsageError("no group was named", hint="name groups, or --projects A,B --role member")
    async with app.xnat() as xnat:
        admin = Admin(xnat)
        with _known(xnat, username):
            held = await admin.groups(username)
        lacking = [one for one in wanted if one not in held]

        async def do() -> None:
            await admin.add_groups(username, lacking)
            if absent := set(lacking) - set(await admin.groups(username)):
                raise Refused(
                    f"{xnat.name} answered well, and {username} is not in {', '.join(absent)}"
                )

        changes = [Change("add", f"user {username}", do, ", ".join(lacking))] if lacking else []
        return await carry_out(app, changes, consent=consent)


@user.command("remove")
@click.argument("username", metavar="USER")
@project_option
@consent_options
async def remove(app: App, *, username: str, project: str | None, consent: Consent) -> int:
    """Take an account out of a project's groups.

    \b
    Examples:
      xnatctl admin user remove smith -P STUDY --yes
    """
    if project is None:
        raise UsageError("no project was named", hint="add -P PROJECT")
    return await run_revoke(app, project, username, consent=consent)


@user.command("roles")
@click.argument("username", metavar="USER")
@option("--grant", metavar="ROLE", help="Give this role, such as Administrator.")
@option("--revoke", metavar="ROLE", help="Take this role away.")
@consent_options
async def roles(
    app: App, *, username: str, grant: str | None, revoke: str | None, consent: Consent
) -> int:
    """List the site-wide roles of an account, or change them.

    \b
    Examples:
      xnatctl admin user roles smith
      xnatctl admin user roles smith --grant Administrator --yes
    """
    from xnatctl.xnat.admin import Admin

    async with app.xnat() as xnat:
        admin = Admin(xnat)
        with _known(xnat, username):
            held = await admin.roles(username)
        changes = []
        if grant and grant not in held:
            changes.append(_role(admin, xnat, username, grant, wanted=True))
        if revoke and revoke in held:
            changes.append(_role(admin, xnat, username, revoke, wanted=False))
        if grant or revoke:
            question = f"Change the roles of {username}?"
            return await carry_out(app, changes, question=question, consent=consent)
    app.console.rows([{"role": one} for one in held], ["role"], key="role")
    return 0


def _role(admin: Admin, xnat: Xnat, login: str, role: str, *, wanted: bool) -> Change:
    async def do() -> None:
        await (admin.grant_role(login, role) if wanted else admin.revoke_role(login, role))
        if (role in await admin.roles(login)) != wanted:
            raise Refused(f"{xnat.name} answered well, and the roles of {login} are as before")

    return Change("grant" if wanted else "revoke", f"user {login}", do, role)


@user.command("enable")
@click.argument("username", metavar="USER")
@consent_options
async def enable(app: App, *, username: str, consent: Consent) -> int:
    """Let an account log in.

    \b
    Examples:
      xnatctl admin user enable smith --yes
    """
    return await _set_enabled(app, username, enabled=True, consent=consent)


@user.command("disable")
@click.argument("username", metavar="USER")
@consent_options
async def disable(app: App, *, username: str, consent: Consent) -> int:
    """Keep an account from logging in.

    \b
    Examples:
      xnatctl admin user disable smith --yes
    """
    return await _set_enabled(app, username, enabled=False, consent=consent)


async def _set_enabled(app: App, login: str, *, enabled: bool, consent: Consent) -> int:
    async def do(admin: Admin) -> None:
        await admin.enable(login, enabled=enabled)
        if (await admin.profile(login)).get("enabled") is not enabled:
            raise Refused(f"the server answered well, and {login} is as before")

    action = "enable" if enabled else "disable"
    return await _one(app, login, action, do, consent=consent)


@user.command("kill-sessions")
@click.argument("username", metavar="USER")
@consent_options
async def kill_sessions(app: App, *, username: str, consent: Consent) -> int:
    """End all sessions of an account, such as one that has used up how many it may have.

    \b
    Examples:
      xnatctl admin user kill-sessions robot --yes
    """

    async def do(admin: Admin) -> None:
        await admin.kill_sessions(username)

    return await _one(app, username, "end sessions of", do, consent=consent)


async def _one(
    app: App, login: str, action: str, do: Callable[[Admin], Awaitable[None]], *, consent: Consent
) -> int:
    from xnatctl.xnat.admin import Admin

    async with app.xnat() as xnat:
        admin = Admin(xnat)
        with _known(xnat, login):
            await admin.profile(login)
        change = Change(action, f"user {login}", lambda: do(admin))
        question = f"{action.capitalize()} {login}?"
        return await carry_out(app, [change], question=question, consent=consent)


def _known(xnat: Xnat, login: str) -> AbstractContextManager[None]:
    return missing(f"no user {login} at {xnat.name}", "xnatctl admin user list")
