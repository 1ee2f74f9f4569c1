"""`session download`, `scan download` and `subject download`; what every download does.

Each finds out what is meant, makes a selection of it and hands it to the one route for downloads.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import Conflict, LocalFault, NotFound, UsageError

from .endurance import endurance_options
from .group import command, option
from .lookup import find_session, missing
from .options import (
    SELECTION,
    TRANSFER,
    Function,
    dry_run_option,
    project_option,
    session_option,
    subject_option,
    workers_option,
)
from .unattended import Unattended, unattended_options

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.engine.types import Report, Rule, Selection, Unit
    from xnatctl.model import Session
    from xnatctl.routes import Folder, Zip
    from xnatctl.ui.plan import Planned
    from xnatctl.xnat.client import Xnat


@dataclass(frozen=True, slots=True)
class Manner:
    """How a download behaves, whatever it brings."""

    out: Path
    workers: int | None
    overwrite: bool
    verify: bool
    unattended: Unattended
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Narrow:
    """Which resources of sessions come."""

    resources: tuple[str, ...]
    without: tuple[str, ...]
    session_resources: bool
    assessors: bool

    def rules(self) -> tuple[Rule, ...]:
        from xnatctl.engine.types import Rule

        found = []
        if self.resources:
            found.append(Rule("resource", self.resources))
        if self.without:
            found.append(Rule("resource", self.without, include=False))
        return tuple(found)

    def levels(self) -> frozenset[str]:
        levels = {"scans"} | ({"own"} if self.session_resources else set())
        return frozenset(levels | ({"assessors", "reconstructions"} if self.assessors else set()))


@dataclass(frozen=True, slots=True)
class Errand:
    """What is to be fetched, to where, and how the summary calls it."""

    selection: Selection
    into: Folder | Zip
    shown: Path
    ids: dict[str, str]
    own: bool = False
    several: bool = False


_MANNER = (
    option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder to write into."),
    option("--overwrite", is_flag=True, group=TRANSFER, help="Replace what differs."),
    option("--verify", is_flag=True, group=TRANSFER, help="Read everything on disk again too."),
    workers_option,
    endurance_options,
    unattended_options,
    dry_run_option,
    option("--keep-zips", is_flag=True, hidden=True, expose_value=False),
)
_NARROW = (
    option(
        "-r",
        "--resource",
        "resources",
        multiple=True,
        metavar="LABEL",
        group=SELECTION,
        help="Only resources of this label (a pattern); may be repeated.",
    ),
    option(
        "--exclude-resource",
        "without",
        multiple=True,
        metavar="LABEL",
        group=SELECTION,
        help="No resources of this label; may be repeated.",
    ),
    option("--session-resources", is_flag=True, group=SELECTION, help="A session's own too."),
    option("--assessors", is_flag=True, group=SELECTION, help="Those of its assessors too."),
)


def _gathered(name: str, record: type, options: tuple[Any, ...]) -> Callable[[Function], Function]:
    """A decorator that passes `options` as one record under `name`."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def wrapped(app: App, **values: Any) -> Any:
            mine = {one.name: values.pop(one.name) for one in fields(record)}
            return function(app, **{name: record(**mine)}, **values)

        for one in reversed(options):
            wrapped = one(wrapped)
        return wrapped

    return decorate


manner_options = _gathered("manner", Manner, _MANNER)
narrow_options = _gathered("narrow", Narrow, _NARROW)
extract_option = option(
    "--extract/--no-extract",
    default=True,
    group=TRANSFER,
    help="A tree of files, or one scans.zip that is proven whole.  [default: extract]",
)
name_option = option("--name", hidden=True)


@command("download")
@session_option
@project_option
@narrow_options
@manner_options
@extract_option
@name_option
async def session_download(
    app: App,
    *,
    session: str,
    project: str | None,
    narrow: Narrow,
    manner: Manner,
    extract: bool,
    name: str | None,
) -> int:
    """Download a session into OUT/LABEL/scans/ID/resources/LABEL/files/, every file proven.

    What is there already and equal is kept; what differs is replaced only with --overwrite.

    \b
    Examples:
      xnatctl session download -E XNAT_E00001 --out data
      xnatctl session download -P STUDY -E SUB001_MR1 --out data -r NIFTI
      xnatctl session download -P STUDY -E SUB001_MR1 --out data --session-resources
      xnatctl session download -P STUDY -E SUB001_MR1 --out data --no-extract
    """

    async def errand(xnat: Xnat) -> Errand:
        found = await find_session(app, xnat, session, project=project)
        return _of_session(found, narrow, manner, extract=extract, name=name)

    return await run_download(app, manner, errand)


@command("download")
@session_option
@project_option
@option(
    "-s",
    "--scans",
    required=True,
    multiple=True,
    metavar="IDS",
    group=SELECTION,
    help="IDs or types of scans: 1,2,3, a pattern such as 't1*', '*' for all. May be repeated.",
)
@subject_option
@narrow_options
@manner_options
@extract_option
@name_option
async def scan_download(
    app: App,
    *,
    session: str,
    project: str | None,
    subject: str | None,
    scans: tuple[str, ...],
    narrow: Narrow,
    manner: Manner,
    extract: bool,
    name: str | None,
) -> int:
    """Download some scans of a session, in the layout of `session download`.

    \b
    Examples:
      xnatctl scan download -E XNAT_E00001 -s 1,2 --out data
      xnatctl scan download -P STUDY -E SUB001_MR1 -s 'T1w,t2*' --out data -r NIFTI
      xnatctl scan download -P STUDY -E SUB001_MR1 -s '*' --out data
    """
    wanted = tuple(part.strip() for text in scans for part in text.split(",") if part.strip())
    if not wanted:
        raise UsageError("--scans names no scan", hint="-s 1,2 or -s '*'")

    async def errand(xnat: Xnat) -> Errand:
        found = await find_session(app, xnat, session, project=project, subject=subject)
        await _check_scans(xnat, found, wanted)
        return _of_session(found, narrow, manner, extract=extract, name=name, scans=wanted)

    return await run_download(app, manner, errand)


@command("download")
@click.argument("subject_label", metavar="SUBJECT")
@project_option
@narrow_options
@option("--subject-resources", is_flag=True, group=SELECTION, help="The subject's own too.")
@manner_options
async def subject_download(
    app: App,
    *,
    subject_label: str,
    project: str | None,
    narrow: Narrow,
    subject_resources: bool,
    manner: Manner,
) -> int:
    """Download all sessions of a subject into OUT/SUBJECT/LABEL/scans/ and so on.

    \b
    Examples:
      xnatctl subject download SUB001 -P STUDY --out data
      xnatctl subject download SUB001 -P STUDY --out data -r NIFTI --subject-resources
    """
    owner = app.project(project)

    async def errand(xnat: Xnat) -> Errand:
        from xnatctl.engine.types import Selection
        from xnatctl.model import Ref
        from xnatctl.routes import Folder

        hint = f"xnatctl subject list -P {owner}"
        with missing(f"no subject {subject_label} in project {owner}", hint):
            known = (await xnat.get_subject(owner, subject_label)).get("data_fields", {})
        label = str(known.get("label") or subject_label)
        levels = narrow.levels() | ({"subject"} if subject_resources else set())
        selection = Selection(Ref(owner, label), rules=narrow.rules(), levels=levels)
        ids = {"session_id": "", "project": owner, "subject": label}
        into = Folder(manner.out, below_subject, manner.verify)
        return Errand(selection, into, manner.out / label, ids, own=subject_resources, several=True)

    return await run_download(app, manner, errand)


async def run_download(
    app: App, manner: Manner, errand: Callable[[Xnat], Awaitable[Errand]]
) -> int:
    """Fetch what `errand` finds to be meant, and give the account of it."""
    from xnatctl import routes
    from xnatctl.engine.runner import Options
    from xnatctl.ui.download import Renamed, Watched, summary
    from xnatctl.ui.plan import Planned
    from xnatctl.ui.report import print_report

    from .runs import command_line, desk, workers

    check_folder(manner.out, dry_run=manner.dry_run)
    server = app.server()
    how = Options(
        verb="download",
        command=command_line(app),
        workers=workers(manner.workers, server),
        overwrite=manner.overwrite,
        dry_run=manner.dry_run,
    )
    planned, renamed = Planned(), Renamed()
    async with desk(app, how) as work:
        with manner.unattended.over(work) as paced:
            async with app.xnat(server) as xnat:
                asked = await errand(xnat)
                watched = Watched(within=asked.several)
                work.bus.add(watched)
                work.bus.add(planned)
                work.bus.add(renamed)
                report = await routes.download(
                    paced, xnat, asked.selection, into=asked.into, own=asked.own
                )
    is_archive = isinstance(asked.into, routes.Zip)
    if app.console.is_machine:
        ids = {**asked.ids, "output_dir": str(asked.shown)}
        archive = asked.ids.get("resource", "archive") if is_archive else ""
        found = summary(report, watched, archive=archive, **ids)
        app.console.document({**found, "mapped": renamed.rows})
    elif report.dry_run:
        print_dry_run(app, planned, report)
        app.console.say(f"in {asked.shown}")
    else:
        print_report(report, app.console)
        if any(item.error_kind == "conflict" for one in report.problems for item in one.outcomes):
            app.console.say("add --overwrite to replace what differs")
        elif not watched.items and not report.problems:
            app.console.say("nothing of it is selected, or it holds no file")
        renamed.tell(app.console)
        app.console.say(f"in {asked.shown}")
    if is_archive and any(one.error_kind == "conflict" for one in report.problems):
        return Conflict.exit_code
    return report.exit_code


def print_dry_run(app: App, planned: Planned, report: Report) -> None:
    """What would move, and what stands in its way."""
    from xnatctl.ui.plan import document, print_plan
    from xnatctl.ui.report import sentence

    for one in report.problems:
        app.console.fail(sentence(one), hint=one.hint)
    print_plan(planned, document(planned, report, rate=0.0), app.console)


def _of_session(
    found: Session,
    narrow: Narrow,
    manner: Manner,
    *,
    extract: bool,
    name: str | None,
    scans: tuple[str, ...] = (),
) -> Errand:
    from xnatctl.engine.types import Rule, Selection
    from xnatctl.model import Ref
    from xnatctl.routes import Folder, Zip

    label = name or found.label
    if "/" in label or label in (".", ".."):
        raise UsageError(f"--name {label} is not the name of one folder")
    rules = narrow.rules() + ((Rule("scan", scans),) if scans else ())
    levels = narrow.levels()
    selection = Selection(
        Ref(found.project, found.subject, found.label, found.id), rules=rules, levels=levels
    )

    def place(unit: Unit, key: str) -> str:
        return f"{label}/{key}"

    into: Folder | Zip = Folder(manner.out, place, manner.verify)
    if not extract:
        into = Zip(manner.out / label / "scans.zip", place, manner.verify)
    ids = {"session_id": found.id, "project": found.project}
    return Errand(selection, into, manner.out / label, ids)


def below_subject(unit: Unit, key: str) -> str:
    """SUBJECT/LABEL/… for a session, SUBJECT/resources/… for the subject's own."""
    subject = unit.ref.subject or ""
    return f"{subject}/{unit.label}/{key}" if unit.ref.session else f"{subject}/{key}"


async def _check_scans(xnat: Xnat, session: Session, wanted: tuple[str, ...]) -> None:
    """Every name has to mean a scan. Raises NotFound for the first that means none."""
    scans = await xnat.list_scans(session.id)
    names = [name for one in scans for name in (one.id, one.type)]
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in names):
            known = ", ".join(f"{one.id} ({one.type})" if one.type else one.id for one in scans)
            raise NotFound(
                f"no scan {pattern} in session {session.label}",
                why=f"its scans are {known or 'none'}",
            )


def check_folder(out: Path, *, dry_run: bool = False) -> None:
    """Refuse a target that cannot be a folder before anything is asked of the server.

    It is tried, and not left behind: whatever is asked for may not exist.
    """
    try:
        missing = [one for one in (out, *out.parents) if not one.exists()]
        if not dry_run or not missing:
            out.mkdir(parents=True, exist_ok=True)
            for one in missing:
                one.rmdir()
    except OSError as error:
        is_file = isinstance(error, FileExistsError)
        raise LocalFault(
            f"{out} cannot be used as a folder",
            why="it is a file" if is_file else error.strerror or str(error),
            hint="name another one with --out",
        ) from error
