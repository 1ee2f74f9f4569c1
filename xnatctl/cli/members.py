"""`xnatctl project users|grant|revoke|requests|access`: who may see and change a project."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncclick as click

from xnatctl.errors import NotFound, PermissionDenied, Refused

from .changes import Change, Consent, carry_out, consent_options
from .group import command, option
from .names import PROJECT, project_at
from .options import list_options

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.client import Xnat
    from xnatctl.xnat.members import Member, Members

ROLES = ("owner", "member", "collaborator")
LEVELS = ("public", "protected", "private")


@command("users")
@click.argument("project_id", metavar="PROJECT", type=PROJECT)
@list_options
async def users(app: App, *, project_id: str, shape: Shape) -> None:
    """List the users of a project with their roles.

    \b
    Examples:
      xnatctl project users STUDY
      xnatctl project users STUDY --filter 'role:owner' -q
    """
    from xnatctl.ui.console import Column

    async with app.xnat() as xnat:
        found = await _members(xnat, project_id)
    rows = [
        {
            "username": one.login,
            "role": one.role,
            "email": one.email,
            "firstname": one.firstname,
            "lastname": one.lastname,
            "group": one.group,
        }
        for one in found
    ]
    app.console.rows(
        rows, [Column("username", "User"), "role", "email"], key="username", shape=shape
    )


@command("grant")
@click.argument("project_id", metavar="PROJECT", type=PROJECT)
@click.argument("username", metavar="USER")
@option("--role", type=click.Choice(ROLES), required=True, help="What the user may do.")
@option("--invite", is_flag=True, help="Let the server mail somebody that it does not know.")
@consent_options
async def grant(
    app: App, *, project_id: str, username: str, role: str, invite: bool, consent: Consent
) -> int:
    """Give a user a role in a project.

    XNAT takes a name that it does not know for an e-mail address and sends an invitation, so the
    name is looked up first.

    \b
    Examples:
      xnatctl project grant STUDY smith --role member --yes
      xnatctl project grant STUDY smith --role owner --dry-run
    """
    from xnatctl.xnat.members import Members

    project, login = project_id, username
    async with app.xnat() as xnat:
        members = Members(xnat)
        held = [one.role for one in await _members(xnat, project) if one.login == login]
        if role in held:
            app.console.say(f"{login} is {role} of {project} already")
            return await carry_out(app, [], consent=consent)
        if not invite:
            await _must_be_known(xnat, login)

        async def do() -> None:
            await xnat.add_member(project, login, role)
            found = [one.role for one in await members.list(project) if one.login == login]
            if role not in found and not invite:
                raise Refused(f"{xnat.name} answered that {login} is {role}, and does not list it")

        change = Change("grant", f"{login} {role} of {project}", do, ", ".join(held))
        question = f"Make {login} {role} of {project}?"
        return await carry_out(app, [change], question=question, consent=consent)


async def _must_be_known(xnat: Xnat, login: str) -> None:
    try:
        known = await xnat.list_logins()
    except PermissionDenied as error:
        raise PermissionDenied(
            f"whether {login} exists at {xnat.name} cannot be looked up",
            why=f"{error.why}; a name that it does not know would be mailed an invitation",
            hint="add --invite if that may happen",
        ) from error
    if login not in known:
        raise NotFound(
            f"no user {login} at {xnat.name}",
            why="XNAT would mail an invitation to that name",
            hint="xnatctl admin user list",
        )


@command("revoke")
@click.argument("project_id", metavar="PROJECT", type=PROJECT)
@click.argument("username", metavar="USER")
@consent_options
async def revoke(app: App, *, project_id: str, username: str, consent: Consent) -> int:
    """Take a user's roles in a project away, all of them.

    \b
    Examples:
      xnatctl project revoke STUDY smith --yes
    """
    return await run_revoke(app, project_id, username, consent=consent)


async def run_revoke(app: App, project: str, login: str, *, consent: Consent) -> int:
    from xnatctl.xnat.members import Members

    async with app.xnat() as xnat:
        everybody = await _members(xnat, project)
        held = [one for one in everybody if one.login == login]
        if not held:
            raise NotFound(
                f"{login} has no role in {project}", hint=f"xnatctl project users {project}"
            )
        owners = {one.login for one in everybody if one.role == "owner"}
        last = " Nobody would own it." if owners == {login} else ""
        members = Members(xnat)
        changes = [_revoked(members, project, one) for one in held]
        question = f"Take {login} out of {project}?{last}"
        return await carry_out(app, changes, question=question, consent=consent)


def _revoked(members: Members, project: str, one: Member) -> Change:
    async def do() -> None:
        await members.remove(project, one.group, one.login)
        if one in await members.list(project):
            raise Refused(f"{one.login} is still {one.role} of {project}")

    return Change("revoke", f"{one.login} {one.role} of {project}", do)


@command("requests")
@click.argument("project_id", metavar="PROJECT", type=PROJECT)
@list_options
async def requests(app: App, *, project_id: str, shape: Shape) -> None:
    """List a project's requests for access, open and answered.

    XNAT lets nobody but the asked person answer one, so there is no command that does.

    \b
    Examples:
      xnatctl project requests STUDY -o json
    """
    from xnatctl.xnat.members import Members

    async with app.xnat() as xnat, project_at(xnat, project_id):
        rows = await Members(xnat).requests(project_id)
    keys = list(rows[0]) if rows else ["par_id", "proj_id", "level", "create_date"]
    app.console.rows(rows, keys, key="par_id", shape=shape)


@command("access")
@click.argument("project_id", metavar="PROJECT", type=PROJECT)
@option("--set", "level", type=click.Choice(LEVELS), help="Change who may read it.")
@consent_options
async def access(app: App, *, project_id: str, level: str | None, consent: Consent) -> int:
    """Show or change who may read a project.

    \b
    Examples:
      xnatctl project access STUDY
      xnatctl project access STUDY --set protected --yes
    """
    async with app.xnat() as xnat:
        async with project_at(xnat, project_id):
            now = await xnat.accessibility(project_id)
        if level is None:
            record = {"project": project_id, "accessibility": now}
            app.console.record(record, key="accessibility")
            return 0
        if level == now:
            app.console.say(f"{project_id} is {now} already")
            return await carry_out(app, [], consent=consent)
        wanted = level

        async def do() -> None:
            await xnat.put_setting(project_id, "accessibility", wanted)
            if (kept := await xnat.accessibility(project_id)) != wanted:
                raise Refused(f"{xnat.name} answered well, and {project_id} is still {kept}")

        change = Change("set", f"{project_id} accessibility {level}", do, f"was {now}")
        question = f"Make {project_id} {level} (it is {now})?"
        return await carry_out(app, [change], question=question, consent=consent)


async def _members(xnat: Xnat, project: str) -> list[Member]:
    from xnatctl.xnat.members import Members

    async with project_at(xnat, project):
        return await Members(xnat).list(project)
