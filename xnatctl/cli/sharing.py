"""`share` and `unshare` of subjects and sessions: a second place in another project, no copy.

XNAT answers a request to unshare from the primary project by deleting the thing itself, so the
primary project is looked up first and such a request is never sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncclick as click

from xnatctl.errors import Conflict, NotFound, Refused

from .changes import Change, Consent, carry_out, consent_options
from .group import command, option
from .lookup import find_session, find_subject
from .options import SELECTION, project_option, session_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.xnat.client import Xnat

INTO = option("--into", metavar="PROJECT", required=True, group=SELECTION, help="Share it here.")
FROM = option(
    "--from", "source", metavar="PROJECT", required=True, group=SELECTION, help="Take it out here."
)
LABEL = option("--label", metavar="LABEL", help="Its label there.  [default: the same]")


@dataclass(frozen=True, slots=True)
class Thing:
    """What is shared: its words, its address, its own label and its primary project."""

    what: str
    path: str
    label: str
    project: str


@dataclass(frozen=True, slots=True)
class Wish:
    project: str
    consent: Consent
    label: str | None = None


@command("share")
@click.argument("subject", metavar="SUBJECT")
@INTO
@project_option
@LABEL
@consent_options
async def subject_share(
    app: App, *, subject: str, into: str, project: str | None, label: str | None, consent: Consent
) -> int:
    """Share a subject into another project; it stays where it is.

    \b
    Examples:
      xnatctl subject share SUB001 -P STUDY --into OTHER
      xnatctl subject share SUB001 -P STUDY --into OTHER --label O-17 --yes
    """
    async with app.xnat() as xnat:
        thing = await _subject(xnat, app.project(project), subject)
        return await share(app, xnat, thing, Wish(into, consent, label))


@command("unshare")
@click.argument("subject", metavar="SUBJECT")
@FROM
@project_option
@consent_options
async def subject_unshare(
    app: App, *, subject: str, source: str, project: str | None, consent: Consent
) -> int:
    """Take a subject out of a project that it is shared into.

    \b
    Examples:
      xnatctl subject unshare SUB001 -P STUDY --from OTHER --yes
    """
    async with app.xnat() as xnat:
        thing = await _subject(xnat, app.project(project), subject)
        return await unshare(app, xnat, thing, Wish(source, consent))


@command("share")
@session_option
@INTO
@project_option
@LABEL
@consent_options
async def session_share(
    app: App, *, session: str, into: str, project: str | None, label: str | None, consent: Consent
) -> int:
    """Share a session into another project; it stays where it is.

    \b
    Examples:
      xnatctl session share -E XNAT_E00001 --into OTHER
      xnatctl session share -P STUDY -E SUB001_MR1 --into OTHER --label O-17_MR1 --yes
    """
    async with app.xnat() as xnat:
        thing = await _session(app, xnat, session, project)
        return await share(app, xnat, thing, Wish(into, consent, label))


@command("unshare")
@session_option
@FROM
@project_option
@consent_options
async def session_unshare(
    app: App, *, session: str, source: str, project: str | None, consent: Consent
) -> int:
    """Take a session out of a project that it is shared into.

    \b
    Examples:
      xnatctl session unshare -E XNAT_E00001 --from OTHER --yes
    """
    async with app.xnat() as xnat:
        thing = await _session(app, xnat, session, project)
        return await unshare(app, xnat, thing, Wish(source, consent))


async def share(app: App, xnat: Xnat, thing: Thing, wish: Wish) -> int:
    """Share, and look whether it is shared. Once there under the same label, nothing is done."""
    from xnatctl.xnat.edits import Edits

    target = await _other_project(xnat, thing, wish.project)
    label = wish.label or thing.label
    edits = Edits(xnat)
    there = dict(await edits.list_shares(thing.path)).get(target)
    if there == label:
        app.console.say(f"{thing.what} is in {target} already")
        return await carry_out(app, [], consent=wish.consent)
    if there is not None:
        raise Conflict(
            f"{thing.what} is in {target} already, as {there}",
            hint="unshare it first to give it another label there",
        )

    async def do() -> None:
        if not await xnat.share(thing.path, target, label):
            raise Conflict(f"the label {label} is in use in {target}", hint="add --label OTHER")
        if (target, label) not in await edits.list_shares(thing.path):
            raise Refused(f"{xnat.name} took the share into {target} and does not list it")

    change = Change("share", thing.what, do, f"into {target} as {label}")
    question = f"Share {thing.what} into {target}?"
    return await carry_out(app, [change], question=question, consent=wish.consent)


async def unshare(app: App, xnat: Xnat, thing: Thing, wish: Wish) -> int:
    """Take the share back. Raises Refused for the primary project, NotFound where none is."""
    from xnatctl.xnat.edits import Edits

    edits = Edits(xnat)
    places = await edits.list_shares(thing.path)
    found = next((one for one, _ in places if one.casefold() == wish.project.casefold()), None)
    if wish.project.casefold() == thing.project.casefold():
        raise Refused(
            f"{thing.what} was not taken out of {thing.project}",
            why="that is its own project: XNAT would delete it with all its data",
            hint=f"xnatctl {thing.what.split()[0]} delete, if that is what you want",
        )
    if found is None:
        others = ", ".join(one for one, _ in places if one != thing.project)
        raise NotFound(
            f"{thing.what} is not shared into {wish.project}",
            why=f"it is shared into {others or 'no project'}",
        )

    async def do() -> None:
        await edits.unshare(thing.path, found)
        if found in dict(await edits.list_shares(thing.path)):
            raise Refused(f"{xnat.name} answered well, and {thing.what} is still in {found}")

    change = Change("unshare", thing.what, do, f"from {found}")
    question = f"Take {thing.what} out of {found}?"
    return await carry_out(app, [change], question=question, consent=wish.consent)


async def _subject(xnat: Xnat, project: str, label: str) -> Thing:
    from xnatctl.xnat import paths

    found = await find_subject(xnat, project, label)
    path = paths.subject_by_id(found.id)
    return Thing(f"subject {found.label}", path, found.label, found.project)


async def _session(app: App, xnat: Xnat, session: str, project: str | None) -> Thing:
    from xnatctl.xnat import paths

    found = await find_session(app, xnat, session, project=project)
    path = paths.experiment(found.id)
    return Thing(f"session {found.label}", path, found.label, found.project)


async def _other_project(xnat: Xnat, thing: Thing, project: str) -> str:
    target = await xnat.find_project(project)
    if target is None:
        raise NotFound(f"no project {project} at {xnat.name}", hint="xnatctl project list")
    if target == thing.project:
        raise Conflict(f"{target} is the own project of {thing.what}")
    return target
