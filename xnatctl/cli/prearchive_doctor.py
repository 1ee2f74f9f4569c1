"""`xnatctl prearchive doctor`: what is wrong with each entry, what can be done, and doing it.

An entry belongs to the first class that fits:

1. `unassigned`: the server found no project for it;
2. `stuck`: an operation holds it, and nothing changed between two looks (`--look-again`); without
   a second look it is `busy`;
3. `several-studies`: its objects are of several studies (`--deep` reads their headers);
4. `split`: the study arrived in several entries of one label, split by time;
5. `same-uid`: the study arrived under several labels or in several projects;
6. `label-clash`: the label is that of an archived session, or of another entry, of another study;
7. `in-archive`: the study is archived under this label already, with all of these objects (then
   the entry is superfluous) or without some;
8. `failed`: CONFLICT or ERROR for a reason that its log names;
9. `waiting`: it is still being received, by an upload or a scanner;
10. `ready`: nothing stands in the way of archiving it.

Only `ready` is ever archived, `stuck` rebuilt, and a superfluous `in-archive` deleted, and only
with `--apply`. Nothing is merged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import asyncclick as click

from xnatctl.errors import NotFound, XnatctlError
from xnatctl.model import PrearchiveEntry

from .entries import do_each, entries_of, path_of
from .group import command, option
from .options import SELECTION, TRANSFER, list_options, project_option, yes_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.routes import Entries
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.client import Xnat

UNASSIGNED = "Unassigned"
DOES = {"ready": "archive", "stuck": "rebuild", "superfluous": "delete"}


@dataclass(frozen=True, slots=True)
class Archived:
    """A session of the archive with the label of an entry. `lacks` counts the entry's objects
    that are not in it; None where that was not looked at.
    """

    uid: str
    lacks: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that is known of the prearchive at one moment, by path of the entry."""

    entries: Mapping[str, PrearchiveEntry]
    unchanged: frozenset[str] = frozenset()
    archived: Mapping[str, Archived] = field(default_factory=dict)
    studies: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """The class of an entry, what it means, and what would be done (empty: a person decides)."""

    path: str
    kind: str
    says: str
    advice: str
    action: str = ""


def diagnose(seen: Seen) -> list[Finding]:
    """A finding for every entry. Pure."""
    by_study: dict[str, list[str]] = defaultdict(list)
    by_label: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, one in seen.entries.items():
        if one.study_uid:
            by_study[one.study_uid].append(path)
        by_label[one.project, one.name].append(path)
    return [
        _judge(
            seen,
            path,
            same_study=[other for other in by_study[entry.study_uid] if other != path],
            same_label=[other for other in by_label[entry.project, entry.name] if other != path],
        )
        for path, entry in seen.entries.items()
    ]


def _judge(seen: Seen, path: str, *, same_study: list[str], same_label: list[str]) -> Finding:
    entry, archived = seen.entries[path], seen.archived.get(path)
    if entry.project == UNASSIGNED:
        return Finding(
            path,
            "unassigned",
            "the server found no project for it",
            f"xnatctl prearchive move {_typed(entry)} PROJECT",
        )
    if entry.status.startswith(("_", "QUEUED")) or (entry.status.endswith("ING") and (
        entry.status != "RECEIVING"
    )):  # fmt: skip
        if path in seen.unchanged:
            says = f"it is {entry.status}, and nothing has changed"
            return Finding(path, "stuck", says, _line("rebuild", entry), DOES["stuck"])
        return Finding(path, "busy", f"it is {entry.status}", "look again with --look-again 60")
    if (many := seen.studies.get(path, 1)) > 1:
        says = f"its objects are of {many} studies"
        return Finding(path, "several-studies", says, "delete it, and upload each study by itself")
    if twins := [one for one in same_study if seen.entries[one].name == entry.name and (
        seen.entries[one].project == entry.project
    )]:  # fmt: skip
        says = f"the study arrived in {len(twins) + 1} entries, also {twins[0]}"
        advice = "archive the oldest, then merge the others with --overwrite, or delete them"
        return Finding(path, "split", says, advice)
    if same_study:
        says = f"the same study is in {same_study[0]}"
        return Finding(path, "same-uid", says, "decide which label is right; delete the other")
    return _against_archive(seen, path, entry, archived, same_label)


def _against_archive(
    seen: Seen,
    path: str,
    entry: PrearchiveEntry,
    archived: Archived | None,
    same_label: list[str],
) -> Finding:
    relabel = f"{_line('archive', entry)} --label OTHER"
    if same_label:
        says = f"another study waits under the same label in {same_label[0]}"
        return Finding(path, "label-clash", says, relabel)
    if archived is not None and archived.uid and archived.uid != entry.study_uid:
        says = "the archive has another study under this label"
        return Finding(path, "label-clash", says, relabel)
    if archived is not None:
        if archived.lacks == 0:
            says = "all of it is in the archive already"
            return Finding(path, "in-archive", says, _line("delete", entry), DOES["superfluous"])
        says = f"the archived session lacks {archived.lacks or 'some'} of its objects"
        return Finding(path, "in-archive", says, f"{_line('archive', entry)} --overwrite")
    if entry.status in ("CONFLICT", "ERROR"):
        says = seen.reasons.get(path) or f"it is {entry.status}, and its log says nothing"
        return Finding(path, "failed", says, f"{_line('rebuild', entry)}, or delete it")
    if entry.status != "READY":
        ours = "an upload that did not end" if entry.is_ours else "something that still sends"
        advice = "run that upload again, or delete it" if entry.is_ours else "wait"
        return Finding(path, "waiting", f"it is being received from {ours}", advice)
    return Finding(path, "ready", "nothing is wrong", _line("archive", entry), DOES["ready"])


def _typed(entry: PrearchiveEntry) -> str:
    return f"{entry.project} {entry.timestamp} {entry.folder}"


def _line(verb: str, entry: PrearchiveEntry) -> str:
    return f"xnatctl prearchive {verb} {_typed(entry)}"


@command("doctor")
@project_option
@option(
    "--look-again",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    group=SELECTION,
    help="Look twice: what is busy and did not change meanwhile is stuck.",
)
@option("--deep", is_flag=True, group=SELECTION, help="Read every object, to find mixed studies.")
@option(
    "--apply",
    is_flag=True,
    group=TRANSFER,
    help="Archive what is ready, rebuild what is stuck, delete what the archive has.",
)
@yes_option
@list_options
async def doctor(
    app: App,
    *,
    project: str | None,
    look_again: float,
    deep: bool,
    apply: bool,
    yes: bool,
    shape: Shape,
) -> int:
    """Say what is wrong with each entry of the prearchive, and what can be done.

    Nothing is changed without --apply, and nothing is merged even then.

    \b
    Examples:
      xnatctl prearchive doctor -P STUDY
      xnatctl prearchive doctor -P STUDY --look-again 60 -o json
      xnatctl prearchive doctor -P STUDY --apply --yes
    """
    from xnatctl.ui.console import Column
    from xnatctl.ui.shape import shaped

    async with app.xnat() as xnat:
        rows, seen = await _look(xnat, project, look_again=look_again, deep=deep)
        found = [
            {
                "path": one.path,
                "status": seen.entries[one.path].status,
                "class": one.kind,
                "says": one.says,
                "advice": one.advice,
                "action": one.action,
            }
            for one in diagnose(seen)
        ]
        failed: list[XnatctlError] = []
        if apply:
            chosen = (
                [dict(one) for one in shaped(found, (), shape) if one["action"]] if found else []
            )
            if chosen and not yes:
                app.console.confirm(f"Do what is proposed for {len(chosen)} entries?")
            failed = await _apply(app, xnat, chosen, rows)
            done = {one["path"]: one for one in chosen}
            found = [{**one, **done.get(one["path"], {"done": ""})} for one in found]
    columns = [Column("path", "Entry"), Column("class"), Column("says"), Column("advice")]
    app.console.rows(found, columns, key="path", shape=shape)
    return 1 if failed else 0


async def _apply(
    app: App, xnat: Xnat, chosen: list[dict[str, Any]], rows: Mapping[str, dict[str, str]]
) -> list[XnatctlError]:
    """Do what is proposed, note it in each row as `done`, and return what went wrong."""
    actions = {one["path"]: one["action"] for one in chosen}

    async def work(xnat: Xnat, row: dict[str, str]) -> dict[str, Any]:
        return {"result": await _act(xnat, actions[path_of(row)], row)}

    results = await do_each(xnat, [rows[one["path"]] for one in chosen], work, at_once=4)
    for one, (result, error) in zip(chosen, results, strict=True):
        one["done"] = result["result"]
        if error is not None:
            app.console.fail(f"{one['path']}: {error}", hint=error.hint)
    return [error for _, error in results if error is not None]


async def _act(xnat: Xnat, action: str, row: dict[str, str]) -> str:
    from xnatctl.routes import Slot
    from xnatctl.xnat.imports import Imports
    from xnatctl.xnat.parse import parse_entry

    entry, entries, imports = parse_entry(row), entries_of(xnat), Imports(xnat)
    if action == DOES["ready"]:
        return await entries.archive(entry, Slot(entry.project, entry.subject, entry.name))
    if action == DOES["superfluous"]:
        await imports.delete(entry)
        await entries.wait_until_gone(entry)
        return "deleted"
    await imports.rebuild(entry, override_lock=True)
    await entries.wait_until_ready(entry)
    return "rebuilt"


async def _look(
    xnat: Xnat, project: str | None, *, look_again: float, deep: bool
) -> tuple[dict[str, dict[str, str]], Seen]:
    from xnatctl.xnat import paths
    from xnatctl.xnat.parse import parse_entry

    place = paths.prearchive(project) if project else paths.PREARCHIVE
    before = {path_of(row): row for row in await xnat.rows(place)}
    rows, unchanged = before, frozenset[str]()
    if look_again:
        await anyio.sleep(look_again)
        rows = {path_of(row): row for row in await xnat.rows(place)}
        unchanged = frozenset(path for path, row in rows.items() if row == before.get(path))
    entries, parsed = entries_of(xnat), {path: parse_entry(row) for path, row in rows.items()}
    quiet = {path: one for path, one in parsed.items() if one.status in _AT_REST}
    studies = {path: len(await entries.studies(one)) for path, one in quiet.items()} if deep else {}
    failed = [path for path, one in parsed.items() if one.status in ("CONFLICT", "ERROR")]
    return rows, Seen(
        entries=parsed,
        unchanged=unchanged,
        archived=await _archived(xnat, entries, quiet),
        studies=studies,
        reasons={path: await entries.reason(parsed[path]) for path in failed},
    )


_AT_REST = ("READY", "CONFLICT", "ERROR")


async def _archived(
    xnat: Xnat, entries: Entries, parsed: Mapping[str, PrearchiveEntry]
) -> dict[str, Archived]:
    """What the archive has under the labels of the entries."""
    found: dict[str, Archived] = {}
    projects = {one.project for one in parsed.values()} - {UNASSIGNED}
    labels = {(name, one.label): one.id for name in projects for one in await _sessions(xnat, name)}
    for path, entry in parsed.items():
        session_id = labels.get((entry.project, entry.name))
        if session_id is None:
            continue
        detail = await xnat.get_session(session_id)
        lacks = None
        if detail.uid in ("", entry.study_uid):
            lacks = len(await entries.uids(entry) - await entries.archived_uids(session_id))
        found[path] = Archived(detail.uid, lacks)
    return found


async def _sessions(xnat: Xnat, project: str) -> Iterable[Any]:
    try:
        return await xnat.list_experiments(project)
    except NotFound:
        return []
