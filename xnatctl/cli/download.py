"""`xnatctl session download` and `xnatctl resource download`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import LocalFault

from .group import command, option
from .lookup import find_session
from .options import (
    SELECTION,
    TRANSFER,
    dry_run_option,
    project_option,
    session_option,
    workers_option,
)

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.engine.events import Event
    from xnatctl.engine.types import Outcome, Report, Rule


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    session: str
    project: str | None
    out: Path
    workers: int | None
    resources: tuple[str, ...]
    without: tuple[str, ...]
    session_resources: bool
    assessors: bool
    overwrite: bool
    verify: bool
    name: str | None
    dry_run: bool


@dataclass(slots=True)
class Watched:
    """What the summary needs of a run: its items and what the listing found."""

    outcomes: list[Outcome] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        from xnatctl.engine.events import UnitDone

        if isinstance(event, UnitDone):
            self.outcomes += event.outcome.outcomes
            self.mismatches += [one.key for one in event.outcome.mismatches]


@command("download")
@session_option
@project_option
@option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder to write into.")
@option(
    "-r",
    "--resource",
    "resources",
    multiple=True,
    metavar="LABEL",
    group=SELECTION,
    help="Only resources of this label (a pattern); may be repeated.",
)
@option(
    "--exclude-resource",
    "without",
    multiple=True,
    metavar="LABEL",
    group=SELECTION,
    help="No resources of this label; may be repeated.",
)
@option("--session-resources", is_flag=True, group=SELECTION, help="The session's own too.")
@option("--assessors", is_flag=True, group=SELECTION, help="Those of its assessors too.")
@option("--overwrite", is_flag=True, group=TRANSFER, help="Replace files that differ.")
@option("--verify", is_flag=True, group=TRANSFER, help="Read everything on disk again at the end.")
@option("--extract/--no-extract", default=True, hidden=True)
@option("--name", hidden=True)
@workers_option
@dry_run_option
async def session_download(app: App, *, extract: bool, **values: Any) -> int:
    """Download a session into OUT/LABEL/scans/ID/resources/LABEL/files/, every file proven.

    What is there already and equal is kept; what differs is replaced only with --overwrite.

    \b
    Examples:
      xnatctl session download -E XNAT_E00001 --out data
      xnatctl session download -P STUDY -E SUB001_MR1 --out data -r NIFTI
      xnatctl session download -P STUDY -E SUB001_MR1 --out data --session-resources
    """
    return await run_session_download(app, DownloadOptions(**values))


async def run_session_download(app: App, options: DownloadOptions) -> int:
    from xnatctl import routes
    from xnatctl.engine.runner import Options
    from xnatctl.engine.types import Selection
    from xnatctl.model import Ref
    from xnatctl.ui.report import print_report

    from .runs import command_line, desk, workers

    check_folder(options.out)
    server = app.server()
    how = Options(
        verb="download",
        command=command_line(app),
        workers=workers(options.workers, server),
        overwrite=options.overwrite,
        dry_run=options.dry_run,
    )
    levels = {"scans"} | ({"own"} if options.session_resources else set())
    levels |= {"assessors", "reconstructions"} if options.assessors else set()
    watched = Watched()
    started = time.monotonic()
    async with app.xnat(server) as xnat, desk(app, how) as work:
        found = await find_session(app, xnat, options.session, project=options.project)
        folder = options.name or found.label
        work.bus.add(watched)
        selection = Selection(
            Ref(found.project, found.subject, found.label, found.id),
            rules=_rules(options),
            levels=frozenset(levels),
        )
        report = await routes.download(
            work, xnat, selection, out=options.out, folder=folder, reread=options.verify
        )
    summary = _summary(report, watched, time.monotonic() - started)
    summary |= {"session_id": found.id, "project": found.project}
    summary |= {"output_dir": str(options.out / folder)}
    if app.console.is_machine:
        app.console.document(summary)
    else:
        print_report(report, app.console)
        app.console.say(f"in {options.out / folder}")
    return report.exit_code


def check_folder(out: Path) -> None:
    """Refuse a target that cannot be a folder before anything is asked of the server."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalFault(
            f"{out} cannot be used as a folder",
            why=error.strerror or str(error),
            hint="name another one with --out",
        ) from error


def _rules(options: DownloadOptions) -> tuple[Rule, ...]:
    from xnatctl.engine.types import Rule

    rules = []
    if options.resources:
        rules.append(Rule("resource", options.resources))
    if options.without:
        rules.append(Rule("resource", options.without, include=False))
    return tuple(rules)


def _summary(report: Report, watched: Watched, seconds: float) -> dict[str, Any]:
    """The JSON that scripts read; `files` and `bytes` are all that is in place now."""
    items: dict[str, dict[str, Any]] = {}
    for one in watched.outcomes:
        name = _item_name(one.key)
        row = items.setdefault(name, {"id": name, "status": "success", "error": None})
        if one.became == "failed":
            row |= {"status": "failed", "error": one.error}
    failed = bool(report.units_failed or report.interrupted)
    some = report.files + report.files_kept
    return {
        "operation": "download",
        "session_id": "",
        "project": "",
        "output_dir": "",
        "source": report.source,
        "scans": len([name for name in items if not name.startswith("resource:")]),
        "files": report.files + report.files_kept,
        "bytes": report.bytes + report.bytes_kept,
        "duration_seconds": round(seconds, 3),
        "status": ("partial" if some else "failed") if failed else "success",
        "items": list(items.values()),
        "verification": {
            "matched": report.files + report.files_kept - len(watched.mismatches),
            "mismatched": watched.mismatches,
            "missing_local": [],
            "missing_remote": [],
            "unverifiable": [],
            "collisions": [],
        },
        "skipped_unsafe_entries": [one.key for one in report.left if one.code == "unsafe-name"],
        "files_moved": report.files,
        "bytes_moved": report.bytes,
        "errors": [one.error for one in report.problems if one.error],
        "run_id": report.run_id,
    }


def _item_name(key: str) -> str:
    """The scan's ID, or `resource:LABEL` for what hangs elsewhere."""
    parts = key.split("/")
    if parts[0] == "scans":
        return parts[1]
    place = parts.index("resources") if "resources" in parts else -1
    return f"resource:{parts[place + 1]}" if place >= 0 else key
