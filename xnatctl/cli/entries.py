"""Which entries of the prearchive a command means, and doing something to each of them."""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import asyncclick as click

from xnatctl.errors import NotFound, UsageError, XnatctlError

from .group import option
from .options import SELECTION, Function, project_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.model import PrearchiveEntry
    from xnatctl.routes import Entries
    from xnatctl.xnat.client import Xnat

COLUMNS = ("project", "timestamp", "name", "status", "scan_date", "subject")
ENTRY = "PROJECT TIMESTAMP NAME"
Work = Callable[["Xnat", dict[str, str]], Awaitable[dict[str, Any]]]
"""What is done to the row of one entry; the result is added to what is reported of it."""


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


def path_of(row: dict[str, str]) -> str:
    name = row.get("folderName") or row.get("name", "")
    return f"{row.get('project', '')}/{row.get('timestamp', '')}/{name}"


async def each(
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


def parsed(row: dict[str, str]) -> PrearchiveEntry:
    from xnatctl.xnat.parse import parse_entry

    return parse_entry(row)


def entries_of(xnat: Xnat, waiting: Any = None) -> Entries:
    from xnatctl.routes import Entries

    return Entries(xnat, waiting=waiting)
