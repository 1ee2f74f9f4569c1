"""`xnatctl session upload` and `session upload-exam`: from files to a session."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import asyncclick as click

from xnatctl.errors import UsageError

from .endurance import endurance_options
from .group import command, option
from .options import (
    SELECTION,
    TRANSFER,
    Function,
    dry_run_option,
    project_option,
    read_secret,
    refuse_secret,
    workers_option,
)

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.config import Server
    from xnatctl.engine.events import Event
    from xnatctl.engine.types import Outcome, Report
    from xnatctl.routes import Dicoms, Uploaded

SHOWN = 20


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """What both commands take. `wait` are the seconds that archiving may take, `interval` those
    between two looks at it, at most.
    """

    project: str | None
    subject: str
    session: str
    goal: Literal["archive", "prearchive", "direct"]
    mode: Literal["zip", "tar", "gradual"]
    overwrite: Literal["none", "append", "delete"]
    study: str
    lenient: bool
    workers: int | None
    wait: float
    dry_run: bool
    interval: float = 5.0
    username: str | None = None
    password_stdin: bool = False

    def server(self, app: App) -> Server:
        """The server, with the login that was named for this command."""
        from xnatctl.config import Overrides

        password = read_secret("--password-stdin") if self.password_stdin else None
        return app.server(flags=Overrides(username=self.username, password=password))


@dataclass(slots=True)
class Watched:
    """What the summary needs of a run: what became of each series, and what did not arrive."""

    outcomes: list[Outcome] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        from xnatctl.engine.events import UnitDone

        if isinstance(event, UnitDone):
            self.outcomes += event.outcome.outcomes
            self.mismatches += [one.key for one in event.outcome.mismatches]


_OPTIONS = (
    project_option,
    option(
        "-S", "--subject", metavar="LABEL", required=True, group=SELECTION, help="Subject label."
    ),
    option(
        "-E",
        "--experiment",
        "session",
        metavar="LABEL",
        required=True,
        group=SELECTION,
        help="Label of the session.",
    ),
    option(
        "--study",
        metavar="UID",
        default="",
        group=SELECTION,
        help="The one study to upload, where there are several.",
    ),
    option(
        "--prearchive",
        "goal",
        flag_value="prearchive",
        group=TRANSFER,
        help="Leave it in the prearchive, complete and built.",
    ),
    option(
        "--direct-archive",
        "goal",
        flag_value="direct",
        group=TRANSFER,
        help="Pass the prearchive by, on servers that can.",
    ),
    option(
        "--mode",
        type=click.Choice(["zip", "tar", "gradual"]),
        default="zip",
        show_default=True,
        group=TRANSFER,
        help="A series as one zip or tar, or one request a file.",
    ),
    option(
        "--overwrite",
        type=click.Choice(["none", "append", "delete"]),
        default="none",
        show_default=True,
        group=TRANSFER,
        help="A session that exists is a conflict, gets what it lacks, or is replaced.",
    ),
    option(
        "--ignore-unparsable/--no-ignore-unparsable",
        "lenient",
        default=False,
        group=TRANSFER,
        help="Leave out files that cannot be explained instead of refusing them all.",
    ),
    option(
        "--wait",
        type=click.FloatRange(min=0),
        default=14400.0,
        metavar="SECONDS",
        show_default=True,
        group=TRANSFER,
        help="How long archiving may take.",
    ),
    workers_option,
    endurance_options,
    dry_run_option,
    option("-u", "--username", hidden=True),
    option("--password-stdin", is_flag=True, hidden=True),
    option("--zip-to-tar/--no-zip-to-tar", default=False, hidden=True, expose_value=False),
    option("--password", hidden=True, expose_value=False, callback=refuse_secret),
)


def upload_options(function: Function) -> Function:
    """What `upload` and `upload-exam` both take, passed as `options: UploadOptions`."""

    @functools.wraps(function)
    def wrapped(app: App, *, goal: str | None, **values: Any) -> Any:
        mine = {name: values.pop(name) for name in UploadOptions.__slots__ if name in values}
        return function(app, options=UploadOptions(goal=goal or "archive", **mine), **values)  # type: ignore[arg-type]

    for decorate in reversed(_OPTIONS):
        wrapped = decorate(wrapped)
    return wrapped


@command("upload")
@click.argument("path", type=click.Path(path_type=Path))
@upload_options
async def session_upload(app: App, *, path: Path, options: UploadOptions) -> int:
    """Upload DICOM as one session, verified object by object before it is archived.

    PATH is a folder, a zip, a tar, or a text that lists files. DICOM is recognised by its content,
    whatever it is called, and what is left out is named. The same command again goes on where the
    last one ended. A session that exists is a conflict.

    \b
    Examples:
      xnatctl session upload export -P STUDY -S SUB001 -E SUB001_MR1
      xnatctl session upload export.zip -P STUDY -S SUB001 -E SUB001_MR1 --prearchive
      xnatctl session upload export -P STUDY -S SUB001 -E SUB001_MR1 --dry-run -o json
    """
    from xnatctl.routes import Dicoms

    dicoms = Dicoms(path, study=options.study, lenient=options.lenient)
    return await run_upload(app, dicoms, options)


@command("upload-exam")
@click.argument("root", type=click.Path(path_type=Path))
@upload_options
@option(
    "--misc-label",
    default="MISC",
    show_default=True,
    metavar="LABEL",
    group=SELECTION,
    help="Resource for files that lie beside DICOM.",
)
@option("--attach-only", is_flag=True, group=SELECTION, help="The resources, to a session there.")
@option("--skip-resources", is_flag=True, group=SELECTION, help="The DICOM alone.")
@option("--wait-interval", "interval", type=click.FloatRange(min=1), default=5.0, hidden=True)
@option("--wait-timeout", type=click.FloatRange(min=0), hidden=True)
@option("--wait-for-archive/--no-wait-for-archive", "patient", default=True, hidden=True)
async def session_upload_exam(
    app: App,
    *,
    root: Path,
    options: UploadOptions,
    misc_label: str,
    attach_only: bool,
    skip_resources: bool,
    wait_timeout: float | None,
    patient: bool,
) -> int:
    """Upload an exam: its DICOM as a session, its other folders as resources of that session.

    DICOM may lie anywhere below ROOT. A folder right below ROOT without any becomes a resource of
    its name; files beside DICOM go to the one of --misc-label. Waits until the session is archived.

    \b
    Examples:
      xnatctl session upload-exam exam -P STUDY -S SUB001 -E SUB001_MR1
      xnatctl session upload-exam exam -P STUDY -S SUB001 -E SUB001_MR1 --attach-only
    """
    from xnatctl.routes import Dicoms, Exam

    if attach_only and skip_resources:
        raise UsageError("--attach-only and --skip-resources together leave nothing to do")
    if options.goal == "prearchive" and not skip_resources:
        raise UsageError(
            "--prearchive has no place for resources",
            why="they hang on the archived session",
            hint="add --skip-resources now, and run it with --attach-only later",
        )
    wait = options.wait if wait_timeout is None else wait_timeout
    options = replace(options, wait=wait if patient else 0.0)
    exam = Exam(misc=misc_label, dicom=not attach_only, resources=not skip_resources)
    dicoms = Dicoms(root, study=options.study, lenient=options.lenient, exam=exam)
    return await run_upload(app, dicoms, options)


async def run_upload(app: App, dicoms: Dicoms, options: UploadOptions) -> int:
    from xnatctl import routes
    from xnatctl.engine.runner import Options
    from xnatctl.model import Ref
    from xnatctl.retry import Waiting
    from xnatctl.ui.report import print_report

    from .runs import command_line, desk, workers

    server = options.server(app)
    how = Options(
        verb="upload",
        command=command_line(app),
        workers=workers(options.workers, server),
        dry_run=options.dry_run,
    )
    target = Ref(app.project(options.project), options.subject, options.session)
    watched = Watched()
    started = time.monotonic()
    async with app.xnat(server) as xnat, desk(app, how) as work:
        work.bus.add(watched)
        done = await routes.upload(
            work,
            dicoms,
            xnat,
            target,
            intent=routes.Intent(options.goal, options.mode, options.overwrite),
            waiting=Waiting(archive=options.wait, poll_most=options.interval),
        )
    if app.console.is_machine:
        summary = _summary(done, watched, time.monotonic() - started)
        summary |= {"session_id": options.session, "project": target.project}
        app.console.document(summary)
    else:
        print_report(done.report, app.console)
        if done.uri:
            app.console.say(f"in {done.uri}")
    if done.report.units_failed and not done.report.interrupted:  # an interruption said so at once
        app.console.say(f"to go on: {command_line(app)}")
    return exit_code(done.report)


def exit_code(report: Report) -> int:
    """That of the run; of a single session that was refused as a whole, that of its error."""
    refused = {"conflict": 9, "locked": 9, "permission-denied": 6, "not-found": 5}
    refused |= dict.fromkeys(
        ("unreachable", "untrusted", "server-fault", "busy", "still-archiving"), 4
    )
    if report.exit_code == 1 and len(report.problems) == 1 and not report.interrupted:
        one = report.problems[0]
        if not one.files:
            kinds = {one.error_kind} if one.error_kind else {
                item.error_kind for item in one.outcomes if item.became == "failed"
            }  # fmt: skip
            return refused.get(kinds.pop(), 1) if len(kinds) == 1 else 1
    return report.exit_code


def _summary(done: Uploaded, watched: Watched, seconds: float) -> dict[str, Any]:
    """The JSON that scripts read. `files` and `bytes` are what is in place, or was sent at least.

    `files_sent` and `bytes_sent` are what went over the wire in this run.
    """
    report = done.report
    items: dict[str, dict[str, Any]] = {}
    for one in watched.outcomes:
        name = _item_name(one.key)
        row = items.setdefault(name, {"id": name, "status": "success", "error": None})
        if one.became == "failed":
            row |= {"status": "failed", "error": one.error}
    failed = bool(report.units_failed or report.interrupted)
    files = report.files + report.files_kept
    return {
        "operation": "upload",
        "session_id": "",
        "project": "",
        "output_dir": None,
        "source": report.source.removeprefix("file://"),
        "scans": len([name for name in items if not name.startswith("resource:")]),
        "files": files or done.files_sent,
        "bytes": (report.bytes + report.bytes_kept) if files else done.bytes_sent,
        "duration_seconds": round(seconds, 3),
        "status": ("partial" if done.files_sent else "failed") if failed else "success",
        "items": list(items.values()),
        "verification": {
            "matched": 0 if failed or report.dry_run else files - len(watched.mismatches),
            "mismatched": watched.mismatches,
        },
        "skipped_unsafe_entries": [],
        "uri": done.uri,
        "files_sent": done.files_sent,
        "bytes_sent": done.bytes_sent,
        "left_out": [
            {"file": one.key, "code": one.code, "reason": one.reason} for one in report.left
        ],
        "errors": [one.error for one in report.problems if one.error],
        "dry_run": report.dry_run,
        "run_id": report.run_id,
    }


def _item_name(key: str) -> str:
    """The scan's number, or `resource:LABEL` for files of a resource."""
    parts = key.split("/")
    return parts[1] if parts[0] == "scans" else f"resource:{parts[1]}"
