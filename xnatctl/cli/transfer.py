"""`xnatctl project transfer` and its relatives: check, status, history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import NotFound, UsageError, XnatctlError

from .group import command, option
from .options import (
    SELECTION,
    TRANSFER,
    Destination,
    destination_options,
    dry_run_option,
    list_options,
    project_option,
    workers_option,
    yes_option,
)

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.config import Server
    from xnatctl.engine.state import RunRow
    from xnatctl.routes import Dicom
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.client import Xnat


@dataclass(frozen=True, slots=True)
class TransferOptions:
    project: str
    dest_project: str
    destination: Destination
    workers: int | None
    dicom: Dicom
    yes: bool
    dry_run: bool


@command("transfer")
@project_option
@option("--dest-project", metavar="PROJECT", required=True, group=SELECTION, help="Where it goes.")
@destination_options
@option(
    "--dicom",
    type=click.Choice(["import", "copy"]),
    default="import",
    show_default=True,
    group=TRANSFER,
    help="import: the destination's rules act on the data. copy: the same bytes and names.",
)
@workers_option
@yes_option
@dry_run_option
async def transfer(
    app: App,
    *,
    project: str | None,
    dest_project: str,
    destination: Destination,
    dicom: Dicom,
    workers: int | None,
    yes: bool,
    dry_run: bool,
) -> int:
    """Copy a project to another server, verified; run again, it copies what is missing.

    -p names the source, --dest-profile the destination. Everything that the project owns goes
    along, and what could not is listed with its reason. Ends with 0 only if all of it arrived.

    \b
    Examples:
      xnatctl project transfer -p prod -P STUDY --dest-profile dev --dest-project STUDY
      xnatctl project transfer -p prod -P STUDY --dest-profile dev --dest-project STUDY --dry-run
      xnatctl project transfer -p prod -P STUDY --dest-profile dev --dest-project COPY --dicom copy
    """
    options = TransferOptions(
        app.project(project), dest_project, destination, workers, dicom, yes, dry_run
    )
    return await run_transfer(app, options)


async def run_transfer(app: App, options: TransferOptions) -> int:
    from xnatctl import routes
    from xnatctl.engine.runner import Options
    from xnatctl.engine.types import Selection
    from xnatctl.model import Ref
    from xnatctl.ui.report import print_report, transfer_json

    from .runs import command_line, desk, workers

    source, sink = ends(app, options.destination)
    if (source.url, options.project) == (sink.url, options.dest_project):
        raise UsageError(
            f"{options.project} at {source.url} is source and destination at once",
            hint="name another server with --dest-profile, or another --dest-project",
        )
    if not (options.yes or options.dry_run):
        app.console.confirm(
            f"Copy project {options.project} from {source.name} ({source.url}) "
            f"to {options.dest_project} at {sink.name} ({sink.url})?"
        )
    how = Options(
        verb="transfer",
        command=command_line(app),
        workers=workers(options.workers, source, sink),
        dry_run=options.dry_run,
    )
    async with app.xnat(source) as here, app.xnat(sink) as there, desk(app, how) as work:
        report = await routes.transfer(
            work,
            here,
            there,
            Selection(Ref(options.project)),
            project=options.dest_project,
            dicom=options.dicom,
        )
    if app.console.is_machine:
        summary = transfer_json(
            report,
            source=source.url,
            destination=sink.url,
            source_project=options.project,
            dest_project=options.dest_project,
        )
        app.console.document(summary)
    else:
        print_report(report, app.console)
    if report.interrupted or report.units_failed:
        app.console.say(f"to go on: {command_line(app)}")
    return report.exit_code


def ends(app: App, destination: Destination) -> tuple[Server, Server]:
    """Source and destination; the source's credentials never serve for the destination."""
    source = app.server()
    if not (destination.profile or destination.url or app.environ.get("XNAT_DEST_URL")):
        raise UsageError(
            "no destination was named", hint="add --dest-profile NAME, or set XNAT_DEST_URL"
        )
    return source, destination.server(app)


@command("transfer-check")
@project_option
@option("--dest-project", metavar="PROJECT", group=SELECTION, help="Where it would go.")
@destination_options
async def transfer_check(
    app: App, *, project: str | None, dest_project: str | None, destination: Destination
) -> int:
    """Look at both ends of a transfer before anything is written.

    \b
    Examples:
      xnatctl project transfer-check -p prod -P STUDY --dest-profile dev --dest-project STUDY
    """
    from xnatctl.ui.console import Column

    source, sink = ends(app, destination)
    name = app.project(project)
    rows: list[dict[str, str]] = []
    for role, server, check in (
        ("source", source, _check_source),
        ("destination", sink, _check_destination),
    ):
        try:
            async with app.xnat(server) as xnat:
                rows += await _check_server(role, xnat)
                rows += await check(xnat, name if role == "source" else dest_project or name)
        except XnatctlError as error:
            rows.append(_row(f"{role}: {server.url}", "FAIL", str(error)))
    columns = [Column(name) for name in ("check", "status", "detail")]
    app.console.rows(rows, columns, key="check")
    return int(any(row["status"] == "FAIL" for row in rows))


async def _check_server(role: str, xnat: Xnat) -> list[dict[str, str]]:
    who = await xnat.whoami()
    version = await xnat.version()
    return [
        _row(f"{role}: reachable", "OK", f"{xnat.url}, XNAT {version or 'of unknown version'}"),
        _row(f"{role}: login", "OK", who),
    ]


async def _check_source(xnat: Xnat, project: str) -> list[dict[str, str]]:
    if await xnat.find_project(project) is None:
        return [_row("source: project", "FAIL", f"{project} is missing, or not readable")]
    experiments = await xnat.list_experiments(project)
    sessions = sum(one.is_imaging for one in experiments)
    return [_row("source: project", "OK", f"{project}, {sessions} sessions")]


async def _check_destination(xnat: Xnat, project: str) -> list[dict[str, str]]:
    """Edit right is asked for, never assumed: XNAT answers 200 to uploads that it drops."""
    if await xnat.find_project(project) is None:
        return [_row("destination: project", "OK", f"{project} will be created")]
    editable = {one.id for one in await xnat.list_projects(editable=True)}
    if project not in editable:
        return [_row("destination: project", "FAIL", f"no right to edit {project}")]
    return [_row("destination: project", "OK", f"{project} exists and can be edited")]


def _row(check: str, status: str, detail: str) -> dict[str, str]:
    return {"check": check, "status": status, "detail": detail}


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
async def transfer_history(app: App, *, project: str | None, shape: Shape) -> None:
    """List the transfers that were run from this machine, newest first.

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
