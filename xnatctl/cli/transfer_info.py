"""What there is to know of past transfers: status, history, map and report; a starter file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import LocalFault, NotFound, UsageError

from .group import command, option
from .options import (
    OUTPUT,
    SELECTION,
    list_options,
    project_option,
)
from .selection import STARTER

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.engine.state import RunRow
    from xnatctl.ui.shape import Shape


@command("transfer-status")
@project_option
async def transfer_status(app: App, *, project: str | None) -> None:
    """Show the latest transfer of a project.

    \b
    Examples:
      xnatctl project transfer-status -P STUDY
    """
    name = app.project(project)
    runs = await _runs(app, name)
    if not runs:
        raise NotFound(f"no transfer of {name} was run from here")
    app.console.record(_status(runs[0]))


@command("transfer-history")
@project_option
@list_options
async def transfer_history(app: App, *, project: str | None, shape: Shape) -> int:
    """List the transfers that were run from this machine, newest first.

    Without any the list is empty, and the exit code 1.

    \b
    Examples:
      xnatctl project transfer-history -P STUDY
    """
    from xnatctl.ui.console import Column

    rows = []
    for run in await _runs(app, project):
        status = _status(run)
        rows.append(
            {
                "id": run.id,
                "status": run.status,
                "started": status["started"],
                "dest": run.sink,
                "synced": status["subjects_synced"],
                "failed": status["subjects_failed"],
                "files": status["files"],
                "bytes": status["bytes"],
            }
        )
    names = ("id", "status", "started", "dest", "synced", "failed", "files", "bytes")
    app.console.rows(rows, [Column(name) for name in names], shape=shape)
    if not rows:
        app.console.say(f"no transfer{f' of {project}' if project else ''} was run from here")
    return 0 if rows else 1


async def _runs(app: App, project: str | None) -> list[RunRow]:
    from .runs import open_state

    async with open_state(app) as state:
        runs = await state.runs(verb="transfer")
    return [one for one in runs if project is None or one.source.endswith(f"/{project}")]


def _status(run: RunRow) -> dict[str, Any]:
    from datetime import UTC, datetime

    def at(moment: float | None) -> str:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds") if moment else ""

    kinds = run.report.get("by_kind", {})
    subjects = kinds.get("subject", {})
    destination, _, project = run.sink.rpartition("/")
    return {
        "sync_id": run.id,
        "status": run.status,
        "started": at(run.started),
        "ended": at(run.ended),
        "subjects_synced": subjects.get("copied", 0),
        "subjects_failed": subjects.get("failed", 0),
        "subjects_skipped": subjects.get("kept", 0),
        "destination": destination,
        "dest_project": project,
        "sessions_synced": kinds.get("session", {}).get("copied", 0),
        "files": run.report.get("files", 0),
        "bytes": run.report.get("bytes", 0),
        "verified": run.report.get("verified", {}),
    }


@command("transfer-init")
@project_option
@option("--dest-project", metavar="PROJECT", group=SELECTION, help="Where it goes.")
@option(
    "-f",
    "--output-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("transfer.yaml"),
    show_default=True,
    group=OUTPUT,
    help="File to write.",
)
async def transfer_init(
    app: App, *, project: str | None, dest_project: str | None, output_file: Path
) -> None:
    """Write a commented starter file for `project transfer --config`.

    \b
    Examples:
      xnatctl project transfer-init -P STUDY --dest-project STUDY -f study.yaml
    """
    source = project or "STUDY"
    text = STARTER.format(source=source, destination=dest_project or source)
    try:
        with output_file.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(
            f"{output_file} exists already", hint="name another one with --output-file"
        ) from error
    except OSError as error:
        raise LocalFault(f"{output_file} cannot be written", why=error.strerror or "") from error
    app.console.say(f"written: {output_file}")


@command("transfer-map")
@project_option
@list_options
async def transfer_map(app: App, *, project: str | None, shape: Shape) -> None:
    """List what the source's accession IDs and scans became at the destination.

    A second resource of one label is there too, with its new one.

    \b
    Examples:
      xnatctl project transfer-map -P STUDY -o csv
    """
    from xnatctl.engine.state import Pair
    from xnatctl.ui.console import Column

    from .runs import open_state

    name = app.project(project)
    rows = []
    async with open_state(app) as state:
        pairs = {(one.source, one.sink) for one in await _runs(app, name)}
        for source, sink in sorted(pairs):
            for unit, facts in sorted((await state.facts(Pair(source, sink))).items()):
                rows += _mapped(unit, sink, facts)
    names = ("destination", "unit", "what", "source", "became")
    app.console.rows(rows, [Column(one) for one in names], key="became", shape=shape)


def write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise LocalFault(f"{path} cannot be written", why=error.strerror or str(error)) from error


def _mapped(unit: str, sink: str, facts: Mapping[str, str]) -> list[dict[str, str]]:
    head = {"destination": sink, "unit": unit}
    facts = {name.removeprefix("keep:"): value for name, value in facts.items()}
    rows = []
    for what in ("subject", "session"):
        if facts.get(f"{what}_id"):
            source = facts.get("source_id", "")
            rows.append({**head, "what": what, "source": source, "became": facts[f"{what}_id"]})
    for name, value in sorted(facts.items()):
        what, found, source = name.partition(":")
        if found and what in ("scan", "assessor"):
            rows.append({**head, "what": what, "source": source, "became": value})
        elif what == "resource":
            rows.append({**head, "what": what, "source": value, "became": source})
    return rows


@command("transfer-report")
@click.argument("run", required=False)
@project_option
@option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    group=OUTPUT,
    help="Write a page that opens offline.",
)
async def transfer_report(
    app: App, *, run: str | None, project: str | None, html: Path | None
) -> None:
    """Show the account of a transfer: what was carried, what was left behind and why.

    RUN is the ID that a run prints, or nothing for the latest of the project.

    \b
    Examples:
      xnatctl project transfer-report -P STUDY
      xnatctl project transfer-report 20260301-101112-1a2b3c --html report.html
    """
    from xnatctl.ui.account import account_json, print_account, to_html

    runs = await _runs(app, None if run else app.project(project))
    found = next((one for one in runs if run is None or one.id == run), None)
    if found is None:
        raise NotFound(
            f"no transfer {run or project} is remembered here",
            hint="xnatctl project transfer-history",
        )
    data = account_json(found)
    if html is not None:
        write_text(html, to_html(data))
        app.console.say(f"written: {html}")
    elif app.console.is_machine:
        app.console.document(data)
    else:
        print_account(data, app.console)
