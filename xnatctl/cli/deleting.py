"""`subject delete`, `session delete` and `scan delete`, with all that they hold.

Through the address of a project that something is only shared into, XNAT takes the share back and
answers as if it had deleted; through the primary one it deletes. So the primary project is read
first, and a command that names another one is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import asyncclick as click

from xnatctl.errors import Conflict, NotFound, UsageError

from .changes import Change, Consent, batch_option, carry_out, consent_options, named
from .group import command, option
from .lookup import find_session, find_subject
from .options import (
    BY_ID_OR_LABEL,
    SELECTION,
    project_option,
    session_option,
    sessions_option,
    subject_option,
    workers_option,
)

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.model import Session
    from xnatctl.xnat.client import Xnat
    from xnatctl.xnat.edits import Edits


@command("delete")
@click.argument("subjects", metavar="SUBJECT...", nargs=-1)
@project_option
@batch_option
@consent_options
async def subject_delete(
    app: App, *, subjects: tuple[str, ...], project: str | None, batch: str | None, consent: Consent
) -> int:
    """Delete subjects with all their sessions and files.

    \b
    Examples:
      xnatctl subject delete SUB001 -P STUDY --dry-run
      xnatctl subject delete SUB001 SUB002 -P STUDY --yes
      xnatctl subject delete -P STUDY --batch withdrawn.txt --yes
    """
    from xnatctl.xnat.edits import Edits

    labels, home = named(subjects, batch, what="subject"), app.project(project)
    async with app.xnat() as xnat:
        edits = Edits(xnat)
        changes = [await _subject(xnat, edits, home, label) for label in labels]
        return await carry_out(app, changes, question=_question(labels, "subject"), consent=consent)


async def _subject(xnat: Xnat, edits: Edits, project: str, label: str) -> Change:
    from xnatctl.xnat import paths

    found = await find_subject(xnat, project, label)
    _refuse_shared("subject", found.label, found.project, project)
    sessions = await xnat.list_experiments(found.project, found.id)
    return Change(
        "delete",
        f"subject {found.label}",
        lambda: edits.delete(paths.subject(found.project, found.id)),
        f"{found.id}, with {len(sessions)} experiments",
    )


@command("delete")
@sessions_option(BY_ID_OR_LABEL)
@project_option
@batch_option
@consent_options
async def session_delete(
    app: App, *, sessions: tuple[str, ...], project: str | None, batch: str | None, consent: Consent
) -> int:
    """Delete sessions with their scans, assessors and files.

    \b
    Examples:
      xnatctl session delete -P STUDY -E SUB001_MR1 --dry-run
      xnatctl session delete -E XNAT_E00001 -E XNAT_E00002 --yes
    """
    from xnatctl.xnat.edits import Edits

    names = named(sessions, batch, what="session")
    async with app.xnat() as xnat:
        edits = Edits(xnat)
        found = [await find_session(app, xnat, name, project=project) for name in names]
        changes = [await _session(xnat, edits, one, project) for one in found]
        return await carry_out(app, changes, question=_question(names, "session"), consent=consent)


async def _session(xnat: Xnat, edits: Edits, found: Session, project: str | None) -> Change:
    from xnatctl.xnat import paths

    _refuse_shared("session", found.label, found.project, project or found.project)
    scans = await xnat.list_scans(found.id)
    return Change(
        "delete",
        f"session {found.label}",
        lambda: edits.delete(paths.experiment(found.id)),
        f"{found.id} of {found.project}, with {len(scans)} scans",
    )


@command("delete")
@session_option
@project_option
@subject_option
@option(
    "-s",
    "--scans",
    metavar="IDS",
    multiple=True,
    group=SELECTION,
    help="Scan IDs: 1,2,3, or '*' for all. May be repeated.",
)
@batch_option
@workers_option
@consent_options
async def scan_delete(
    app: App,
    *,
    session: str,
    project: str | None,
    subject: str | None,
    scans: tuple[str, ...],
    batch: str | None,
    workers: int | None,
    consent: Consent,
) -> int:
    """Delete scans of a session with their files.

    They go one after another, whatever -w says: XNAT keeps the scans of a session in one document.

    \b
    Examples:
      xnatctl scan delete -E XNAT_E00001 --scans 1,2 --dry-run
      xnatctl scan delete -P STUDY -E SUB001_MR1 --scans '*' --yes
    """
    from xnatctl.xnat import paths
    from xnatctl.xnat.edits import Edits

    del workers
    asked = [part.strip() for text in scans for part in text.split(",") if part.strip()]
    wanted = named(asked, batch, what="scan")
    async with app.xnat() as xnat:
        found = await find_session(app, xnat, session, project=project, subject=subject)
        _refuse_shared("session", found.label, found.project, project or found.project)
        known = [one.id for one in await xnat.list_scans(found.id)]
        picked = _picked(wanted, known, found.label)
        edits = Edits(xnat)

        def change(scan: str) -> Change:
            place = paths.scan(found.id, scan)
            return Change("delete", f"scan {scan}", lambda: edits.delete(place), found.label)

        changes = [change(one) for one in picked]
        question = f"Delete {len(picked)} of the {len(known)} scans of {found.label}?"
        return await carry_out(app, changes, question=question, consent=consent)


def _picked(wanted: Iterable[str], known: Sequence[str], label: str) -> list[str]:
    """The scans that were meant. Raises NotFound before anything is deleted."""
    wanted = list(wanted)
    if "*" in wanted:
        if wanted != ["*"]:
            raise UsageError("--scans '*' means all, so nothing can be named beside it")
        return list(known)
    absent = [one for one in wanted if one not in known]
    if absent:
        raise NotFound(
            f"no scan {', '.join(absent)} in session {label}",
            why=f"its scans are {', '.join(known) or 'none'}; nothing was deleted",
        )
    return wanted


def _refuse_shared(what: str, label: str, own: str, asked: str) -> None:
    if own.casefold() != asked.casefold():
        raise Conflict(
            f"{what} {label} was not deleted",
            why=f"it belongs to project {own} and is only shared into {asked}",
            hint=f"xnatctl {what} unshare … --from {asked}, or name -P {own}",
        )


def _question(names: Sequence[str], what: str) -> str:
    if len(names) == 1:
        return f"Delete {what} {names[0]} with everything in it?"
    return f"Delete {len(names)} {what}s with everything in them?"
