"""`xnatctl prearchive`: sessions that have arrived and are not archived yet."""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
import asyncclick as click

from xnatctl.errors import Conflict, NotFound, PermissionDenied, UsageError, XnatctlError

from .group import Group, Lazy, option
from .options import (
    OUTPUT,
    SELECTION,
    TRANSFER,
    Function,
    dry_run_option,
    list_options,
    project_option,
    workers_option,
    yes_option,
)

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.model import PrearchiveEntry
    from xnatctl.routes import Entries
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.client import Xnat

prearchive = Group(
    "prearchive",
    help="Sessions that have arrived and wait to be archived.",
    lazy={
        "doctor": Lazy(
            "xnatctl.cli.prearchive_doctor:doctor", "Say what is wrong with entries, and why."
        )
    },
)

COLUMNS = ("project", "timestamp", "name", "status", "scan_date", "subject")
MODES = {"manual": "0", "auto-archive": "4", "auto-archive-overwrite": "5"}
ENTRY = "PROJECT TIMESTAMP NAME"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which entries a command means: typed ones, or those of a project that match filters."""

    words: tuple[str, ...]
    project: str | None = None
    filters: tuple[str, ...] = ()

    @property
    def is_one(self) -> bool:
        return len(self.words) == 3 and not any("/" in word for word in self.words)


def entries_option(function: Function) -> Function:
    """`PROJECT TIMESTAMP NAME`, several `PROJECT/TIMESTAMP/NAME`, or `-P` with `--filter`."""

    @click.argument("words", nargs=-1, metavar=f"[{ENTRY} | PATH...]")
    @project_option
    @option(
        "--filter",
        "filters",
        metavar="FIELD:GLOB",
        multiple=True,
        group=SELECTION,
        help="Entries whose field matches, such as status:READY. May be repeated.",
    )
    @functools.wraps(function)
    def wrapped(
        app: App,
        *,
        words: tuple[str, ...],
        project: str | None,
        filters: tuple[str, ...],
        **rest: Any,
    ) -> Any:
        if words == ("-",):
            words = tuple(line.strip() for line in sys.stdin if line.strip())
        return function(app, chosen=Chosen(words, project, filters), **rest)

    return wrapped


@prearchive.command("list")
@project_option
@list_options
async def list_(app: App, *, project: str | None, shape: Shape) -> None:
    """List the sessions that wait, those of one project or all that you may see.

    With -q each is one path, which the other prearchive commands take.

    \b
    Examples:
      xnatctl prearchive list -P STUDY
      xnatctl prearchive list --project STUDY -o json | jq -r '.[].name'
      xnatctl prearchive list --filter status:CONFLICT -q
    """
    from xnatctl.ui.console import Column
    from xnatctl.xnat import paths

    async with app.xnat() as xnat:
        rows = await xnat.rows(paths.prearchive(project) if project else paths.PREARCHIVE)
    key = "name"
    if app.console.quiet:
        rows = [{**row, "path": path_of(row)} for row in rows]
        key = "path"
    app.console.rows(rows, [Column(name) for name in COLUMNS], key=key, shape=shape)


def path_of(row: dict[str, str]) -> str:
    name = row.get("folderName") or row.get("name", "")
    return f"{row.get('project', '')}/{row.get('timestamp', '')}/{name}"


@prearchive.command("show")
@click.argument("words", nargs=-1, required=True, metavar=ENTRY)
async def show(app: App, *, words: tuple[str, ...]) -> None:
    """Show one entry: its row, its scans, and the last words of its log.

    \b
    Examples:
      xnatctl prearchive show STUDY 20260114_101112345 SUB001_MR1
      xnatctl prearchive show STUDY/20260114_101112345/SUB001_MR1 -o json
    """
    from xnatctl.xnat import paths

    async with app.xnat() as xnat:
        (row,) = await find_rows(xnat, Chosen(words))
        entry = _parsed(row)
        here = paths.prearchive_entry(entry)
        scans = await xnat.rows(f"{here}/scans")
        counts = {}
        for scan in scans:
            files = await xnat.rows(f"{here}/scans/{paths.segment(scan.get('ID', ''))}/resources")
            counts[scan.get("ID", "")] = sum(int(one.get("file_count") or 0) for one in files)
        reason = await _entries(xnat).reason(entry)
    found = [{**scan, "files": counts[scan.get("ID", "")]} for scan in scans]
    document = {**row, "scans": found, "log": reason}
    if app.console.is_machine:
        app.console.document(document)
        return
    app.console.record({**{key: row.get(key, "") for key in COLUMNS}, "log": reason}, key="name")
    if found:
        from xnatctl.ui.console import Column

        app.console.heading(f"Scans ({len(found)})")
        titles = {"ID": "ID", "series_description": "Series"}
        columns = [
            Column(one, titles.get(one, "")) for one in ("ID", "series_description", "files")
        ]
        app.console.rows(found, columns, key="ID")


@prearchive.command("archive")
@entries_option
@option("--subject", metavar="LABEL", group=TRANSFER, help="Subject to archive it under.")
@option("--label", metavar="LABEL", group=TRANSFER, help="Label to archive it under.")
@option("--overwrite", is_flag=True, group=TRANSFER, help="Merge into a session that exists.")
@option(
    "--wait",
    type=click.FloatRange(min=0),
    default=10800.0,
    metavar="SECONDS",
    show_default=True,
    group=TRANSFER,
    help="How long archiving may take.",
)
@workers_option
@dry_run_option
async def archive(
    app: App,
    *,
    chosen: Chosen,
    subject: str | None,
    label: str | None,
    overwrite: bool,
    wait: float,
    workers: int | None,
    dry_run: bool,
) -> int:
    """Archive entries, each once, and wait until the server has done it.

    An archive request that times out is never sent again: the entry is watched instead. A session
    that exists is a conflict, unless --overwrite merges the two.

    \b
    Examples:
      xnatctl prearchive archive STUDY 20260114_101112345 SUB001_MR1 --subject SUB001 --label MR1
      xnatctl prearchive archive -P STUDY --filter status:READY
    """
    from xnatctl.retry import Waiting
    from xnatctl.routes import Slot

    if (subject or label) and not chosen.is_one and len(chosen.words) != 1:
        raise UsageError("--subject and --label are for one entry", hint=f"name it as {ENTRY}")

    async def work(xnat: Xnat, row: dict[str, str]) -> dict[str, Any]:
        entries, entry = _entries(xnat, Waiting(archive=wait)), _parsed(row)
        place = Slot(entry.project, subject or entry.subject, label or entry.name)
        if not overwrite and await entries.find_session(place):
            raise Conflict(
                f"{place.project} has a session {place.session} already",
                hint="name another with --label, or merge the two with --overwrite",
            )
        uri = await entries.archive(entry, place, overwrite="delete" if overwrite else "")
        return {"session": place.session, "experiment_uri": uri, "result": uri}

    return await _each(app, chosen, work, word="archived", workers=workers, dry_run=dry_run)


@prearchive.command("delete")
@entries_option
@workers_option
@yes_option
@dry_run_option
async def delete(app: App, *, chosen: Chosen, workers: int | None, yes: bool, dry_run: bool) -> int:
    """Delete entries with everything in them.

    \b
    Examples:
      xnatctl prearchive delete STUDY 20260114_101112345 SUB001_MR1 --yes
      xnatctl prearchive delete -P STUDY --filter status:ERROR --yes
    """

    async def work(xnat: Xnat, row: dict[str, str]) -> dict[str, Any]:
        from xnatctl.xnat.imports import Imports

        await Imports(xnat).delete(_parsed(row))
        if not await _entries(xnat).wait_until_gone(_parsed(row)):
            raise Conflict(f"{xnat.name} did not delete {path_of(row)}")
        return {"result": "deleted"}

    confirm = "" if yes or dry_run else "Delete {} from the prearchive?"
    return await _each(
        app, chosen, work, word="deleted", workers=workers, dry_run=dry_run, confirm=confirm
    )


@prearchive.command("move")
@entries_option
@option("--to", "target", metavar="PROJECT", group=TRANSFER, help="Project to move them to.")
@workers_option
@dry_run_option
async def move(
    app: App, *, chosen: Chosen, target: str | None, workers: int | None, dry_run: bool
) -> int:
    """Move entries into the prearchive of another project.

    The target may also stand behind the entry: PROJECT TIMESTAMP NAME TARGET.

    \b
    Examples:
      xnatctl prearchive move Unassigned 20260114_101112345 SUB001_MR1 STUDY
      xnatctl prearchive move -P Unassigned --filter 'name:SUB*' --to STUDY
    """
    if target is None and chosen.words:
        target = chosen.words[-1]
        chosen = replace(chosen, words=chosen.words[:-1])
    if not target or "/" in target:
        raise UsageError("no project to move to was named", hint="add --to PROJECT")

    async def work(xnat: Xnat, row: dict[str, str]) -> dict[str, Any]:
        from xnatctl.routes import check_editable
        from xnatctl.xnat.imports import Imports

        await check_editable(xnat, target)
        await Imports(xnat).move(_parsed(row), target)
        if not await _entries(xnat).wait_until_gone(_parsed(row)):
            raise Conflict(f"{xnat.name} did not move {path_of(row)}")
        return {"result": f"moved to {target}", "target": target}

    return await _each(app, chosen, work, word="moved", workers=workers, dry_run=dry_run)


@prearchive.command("rebuild")
@entries_option
@workers_option
@dry_run_option
async def rebuild(app: App, *, chosen: Chosen, workers: int | None, dry_run: bool) -> int:
    """Build entries anew out of their files, and wait until they are ready.

    \b
    Examples:
      xnatctl prearchive rebuild STUDY 20260114_101112345 SUB001_MR1
      xnatctl prearchive rebuild -P STUDY --filter status:ERROR
    """

    async def work(xnat: Xnat, row: dict[str, str]) -> dict[str, Any]:
        from xnatctl.xnat.imports import Imports

        await Imports(xnat).rebuild(_parsed(row))
        await _entries(xnat).wait_until_ready(_parsed(row))
        return {"result": "READY"}

    return await _each(app, chosen, work, word="rebuilt", workers=workers, dry_run=dry_run)


@prearchive.command("settings")
@project_option
@option(
    "--set",
    "mode",
    type=click.Choice(list(MODES)),
    group=OUTPUT,
    help="What becomes of sessions that arrive.",
)
@yes_option
@dry_run_option
async def settings(
    app: App, *, project: str | None, mode: str | None, yes: bool, dry_run: bool
) -> None:
    """Show or change what becomes of sessions that arrive in a project.

    \b
    Examples:
      xnatctl prearchive settings -P STUDY
      xnatctl prearchive settings -P STUDY --set manual --yes
    """
    project = app.project(project)
    async with app.xnat() as xnat:
        before = await xnat.get_prearchive_code(project)
        if mode and MODES[mode] != before and not dry_run:
            if not yes:
                app.console.confirm(f"Set the prearchive of {project} to {mode}?")
            await _set_mode(xnat, project, mode)
        code = MODES[mode] if mode and not dry_run else before
    names = {code: name for name, code in MODES.items()}
    known = names.get(code, f"{code} (no mode that XNAT knows)")
    app.console.record({"project": project, "mode": known, "code": code}, key="mode")


async def _set_mode(xnat: Xnat, project: str, mode: str) -> None:
    try:
        await xnat.put_setting(project, "prearchive_code", MODES[mode])
    except PermissionDenied as error:
        if mode == "manual":
            raise
        raise PermissionDenied(
            f"{xnat.name} does not let {project} archive by itself",
            why=error.why,
            hint="it is the site's policy, or you do not own the project",
        ) from error
    if await xnat.get_prearchive_code(project) != MODES[mode]:
        raise Conflict(f"{xnat.name} answered well and kept its setting for {project}")


# --- several at once -------------------------------------------------------------------------

Work = Callable[["Xnat", dict[str, str]], Awaitable[dict[str, Any]]]


async def _each(
    app: App,
    chosen: Chosen,
    work: Work,
    *,
    word: str,
    workers: int | None,
    dry_run: bool,
    confirm: str = "",
) -> int:
    """Do something to every entry that is meant, and report what became of each."""
    async with app.xnat() as xnat:
        rows = await find_rows(xnat, chosen)
        if confirm:
            app.console.confirm(confirm.format(_named(rows)))
        done = await do_each(xnat, rows, work, at_once=workers or 4, dry_run=dry_run)
    return _account(app, chosen, done, word=word, dry_run=dry_run)


async def do_each(
    xnat: Xnat, rows: list[dict[str, str]], work: Work, *, at_once: int, dry_run: bool = False
) -> list[tuple[dict[str, Any], XnatctlError | None]]:
    """The result of each entry and its error; entries of one label come one after another."""
    limiter = anyio.CapacityLimiter(at_once)
    locks: dict[str, anyio.Lock] = defaultdict(anyio.Lock)
    done: dict[int, tuple[dict[str, Any], XnatctlError | None]] = {}

    async def one(at: int, row: dict[str, str]) -> None:
        head = {"success": True, "project": row.get("project", ""), "session": row.get("name", "")}
        head |= {"timestamp": row.get("timestamp", "")}
        async with locks[f"{row.get('project')}/{row.get('name')}"], limiter:
            try:
                result = {"result": "dry run"} if dry_run else await work(xnat, row)
                done[at] = ({**head, **result}, None)
            except XnatctlError as error:
                done[at] = ({**head, "success": False, "result": str(error)}, error)

    async with anyio.create_task_group() as tasks:
        for at, row in enumerate(rows):
            tasks.start_soon(one, at, row)
    return [done[at] for at in sorted(done)]


def _account(
    app: App,
    chosen: Chosen,
    done: list[tuple[dict[str, Any], XnatctlError | None]],
    *,
    word: str,
    dry_run: bool,
) -> int:
    errors = [error for _, error in done if error is not None]
    if chosen.is_one and errors:
        raise errors[0]
    if app.console.is_machine:
        rows = [row for row, _ in done]
        app.console.document(rows[0] if chosen.is_one else rows)
    for row, error in done:
        if error is not None:
            app.console.fail(f"{row['project']}/{row['session']}: {error}", hint=error.hint)
        elif dry_run:
            app.console.say(f"{row['session']} would be {word}")
        elif word == "deleted":
            app.console.say(f"Deleted {row['session']} from prearchive")
        else:
            app.console.say(f"{row['session']} {word}: {row['result']}")
    if not errors:
        return 0
    return errors[0].exit_code if len(done) == 1 else 1


async def find_rows(xnat: Xnat, chosen: Chosen) -> list[dict[str, str]]:
    """The rows of the entries that are meant. Raises NotFound, UsageError."""
    from xnatctl.ui.shape import Shape, shaped
    from xnatctl.xnat import paths

    if not chosen.words:
        if not chosen.filters:
            raise UsageError(
                "no entry was named", hint=f"name {ENTRY}, or choose with -P and --filter"
            )
        place = paths.prearchive(chosen.project) if chosen.project else paths.PREARCHIVE
        rows = await xnat.rows(place)
        found = shaped(rows, COLUMNS, Shape(filters=chosen.filters)) if rows else []
        if not found:
            raise NotFound(f"no entry matches {', '.join(chosen.filters)}")
        return [dict(row) for row in found]
    rows_of: dict[str, list[dict[str, str]]] = {}
    found_rows = []
    for project, timestamp, name in _addresses(chosen):
        if project not in rows_of:
            rows_of[project] = await xnat.rows(paths.prearchive(project))
        found_rows.append(_row(xnat, rows_of[project], project, timestamp, name))
    return found_rows


def _addresses(chosen: Chosen) -> list[tuple[str, str, str]]:
    if chosen.is_one:
        return [(chosen.words[0], chosen.words[1], chosen.words[2])]
    found = []
    for word in chosen.words:
        parts = word.removeprefix("/data").removeprefix("/prearchive/projects/").split("/")
        if len(parts) != 3 or not all(parts):
            raise UsageError(
                f"{word!r} is no entry of the prearchive",
                hint=f"name it as {ENTRY}, or as PROJECT/TIMESTAMP/NAME",
            )
        found.append((parts[0], parts[1], parts[2]))
    return found


def _row(
    xnat: Xnat, rows: list[dict[str, str]], project: str, timestamp: str, name: str
) -> dict[str, str]:
    for row in rows:
        if row.get("timestamp") == timestamp and name in (row.get("folderName"), row.get("name")):
            return row
    raise NotFound(
        f"no entry {project}/{timestamp}/{name} in the prearchive of {xnat.name}",
        hint=f"xnatctl prearchive list -P {project}",
    )


def _named(rows: list[dict[str, str]]) -> str:
    return path_of(rows[0]) if len(rows) == 1 else f"{len(rows)} entries"


def _parsed(row: dict[str, str]) -> PrearchiveEntry:
    from xnatctl.xnat.parse import parse_entry

    return parse_entry(row)


def _entries(xnat: Xnat, waiting: Any = None) -> Entries:
    from xnatctl.routes import Entries

    return Entries(xnat, waiting=waiting)
