"""`xnatctl project transfer` and `transfer-plan`."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import ConfigError, Declined, LocalFault, UsageError

from .cluster import cluster_option, fewest, helped
from .endurance import endurance_options
from .group import command, option
from .options import (
    OUTPUT,
    SELECTION,
    TRANSFER,
    Destination,
    Function,
    destination_options,
    dry_run_option,
    project_option,
    workers_option,
    yes_option,
)
from .selection import (
    Narrowed,
    TransferFile,
    load_labels,
    load_transfer_file,
    selection_options,
)

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.cluster.crew import Spec
    from xnatctl.config import Server
    from xnatctl.engine.gone import Gone
    from xnatctl.engine.plan import OnConflict
    from xnatctl.engine.runner import Options
    from xnatctl.engine.state import StateStore
    from xnatctl.engine.types import Report, Selection
    from xnatctl.model import Dicom, SharedIn
    from xnatctl.retry import Waiting
    from xnatctl.routes import Allowed
    from xnatctl.ui.plan import Planned


@dataclass(frozen=True, slots=True)
class TransferOptions:
    project: str
    dest_project: str
    destination: Destination
    narrowed: Narrowed
    file: TransferFile
    workers: int | None = None
    dicom: Dicom = "import"
    on_conflict: OnConflict = "fail"
    shared_in: SharedIn = "skip"
    settings: bool = False
    users: bool = False
    relabel: Path | None = None
    provenance: bool = False
    delete_extra: bool = False
    delete_extra_max: int = 10
    accept: tuple[str, ...] = ()
    plan: Path | None = None
    cluster: Spec | None = None
    yes: bool = False
    dry_run: bool = False


def transfer_options(function: Function) -> Function:
    """What `transfer` and `transfer-plan` both take, passed as `options: TransferOptions`."""

    @functools.wraps(function)
    def wrapped(app: App, **values: Any) -> Any:
        known = {one.name for one in fields(TransferOptions)}
        path, project = values.pop("config"), values.pop("project")
        mine = {name: values.pop(name) for name in list(values) if name in known}
        file = load_transfer_file(path) if path else TransferFile()
        project = app.project(project or file.source_project)
        mine["dest_project"] = mine["dest_project"] or file.dest_project
        if not mine["dest_project"]:
            raise UsageError("no destination project was named", hint="add --dest-project PROJECT")
        mine["accept"] = tuple(code for one in mine["accept"] for code in one.split(","))
        options = TransferOptions(project=project, file=file, **mine)
        return function(app, options=options, **values)

    for decorate in reversed(_TRANSFER_OPTIONS):
        wrapped = decorate(wrapped)
    return wrapped


_TRANSFER_OPTIONS = (
    project_option,
    option("--dest-project", metavar="PROJECT", group=SELECTION, help="Where it goes."),
    selection_options,
    option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="YAML",
        group=SELECTION,
        help="A file that says the same, see `transfer-init`.",
    ),
    destination_options,
    option(
        "--dicom",
        type=click.Choice(["import", "copy"]),
        default="import",
        show_default=True,
        group=TRANSFER,
        help="import: the destination's rules act on the data. copy: the same bytes and names.",
    ),
    option(
        "--on-conflict",
        type=click.Choice(["fail", "skip", "merge", "replace"]),
        default="fail",
        show_default=True,
        group=TRANSFER,
        help="What becomes of a session that exists differently at the destination.",
    ),
    option(
        "--shared-in",
        type=click.Choice(["skip", "share", "copy"]),
        default="skip",
        show_default=True,
        group=TRANSFER,
        help="What becomes of things that other projects share into this one.",
    ),
    option(
        "--settings",
        is_flag=True,
        group=TRANSFER,
        help="Change the settings of a destination project that exists.",
    ),
    option(
        "--users",
        is_flag=True,
        group=TRANSFER,
        help="Users and roles too, of logins that the destination knows.",
    ),
    option(
        "--relabel",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="YAML",
        group=TRANSFER,
        help="New labels: `subjects: {OLD: NEW}`, `sessions: {OLD: NEW}`.",
    ),
    option(
        "--provenance",
        is_flag=True,
        group=TRANSFER,
        help="Write into each session where it comes from.",
    ),
    option(
        "--delete-extra",
        is_flag=True,
        group=TRANSFER,
        help="Delete at the destination what earlier runs put there and the source has no more.",
    ),
    option(
        "--delete-extra-max",
        type=click.IntRange(0, 100),
        metavar="PERCENT",
        default=10,
        show_default=True,
        group=TRANSFER,
        help="How much of a project's sessions or subjects that may touch.",
    ),
    option(
        "--accept",
        multiple=True,
        metavar="CODE[,CODE]",
        group=TRANSFER,
        help="Reasons for leaving something behind that are no failure.",
    ),
    endurance_options,
    workers_option,
)


@command("transfer")
@transfer_options
@option(
    "--plan",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    group=TRANSFER,
    help="Execute exactly a plan that `transfer-plan --save` wrote.",
)
@cluster_option
@yes_option
@dry_run_option
async def transfer(app: App, *, options: TransferOptions) -> int:
    """Copy a project to another server, verified; run again, it copies what is missing.

    -p names the source, --dest-profile the destination. Everything that the project owns goes
    along, and what could not is listed with its reason. Ends with 0 only if all of it arrived.

    \b
    Examples:
      xnatctl project transfer -p prod -P STUDY --dest-profile dev --dest-project STUDY
      xnatctl project transfer -p prod -P STUDY --dest-profile dev --dest-project STUDY --dry-run
      xnatctl project transfer -p prod -P STUDY --dest-profile dev --dest-project COPY --dicom copy
    """
    return await run_transfer(app, options)


@command("transfer-plan")
@transfer_options
@option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    group=OUTPUT,
    help="Write the plan, for `transfer --plan FILE`.",
)
async def transfer_plan(app: App, *, options: TransferOptions, save: Path | None) -> int:
    """Show what a transfer would do with each subject and session, and do nothing.

    \b
    Examples:
      xnatctl project transfer-plan -P STUDY --dest-profile dev --dest-project STUDY
      xnatctl project transfer-plan -P STUDY --dest-profile dev --dest-project NEW --save plan.json
    """
    return await run_transfer(app, replace(options, dry_run=True), save=save)


async def run_transfer(app: App, options: TransferOptions, *, save: Path | None = None) -> int:
    from xnatctl import routes
    from xnatctl.ui.plan import Planned

    from .runs import command_line, desk

    source, sink = ends(app, options.destination)
    if (source.url, options.project) == (sink.url, options.dest_project):
        raise UsageError(
            f"{options.project} at {source.url} is source and destination at once",
            hint="name another server with --dest-profile, or another --dest-project",
        )
    how = _how(app, options, source, sink)
    selection = _selection(options)
    if options.delete_extra and (selection.rules or selection.since or options.plan):
        raise UsageError(
            "--delete-extra needs the whole project: what was not looked at cannot be missed",
            hint="leave out the selection or --plan, or leave out --delete-extra",
        )
    if not (options.yes or options.dry_run):
        app.console.confirm(
            f"Copy project {options.project} from {source.name} ({source.url}) "
            f"to {options.dest_project} at {sink.name} ({sink.url})?"
        )
    planned = Planned()
    async with (
        app.xnat(source) as here,
        app.xnat(sink) as there,
        desk(app, how) as work,
        helped(app, options.cluster, work, (source, here), (sink, there)) as helped_desk,
    ):
        if options.dry_run:
            work.bus.add(planned)
        report = await routes.transfer(
            helped_desk,
            here,
            there,
            selection,
            project=options.dest_project,
            dicom=options.dicom,
            shared_in=options.shared_in,
            settings=options.settings,
            users=options.users,
            relabel=load_labels(options.relabel) if options.relabel else None,
            provenance=_provenance() if options.provenance else None,
            waiting=_waiting(options),
            deletions=_deletions(app, options) if options.delete_extra else None,
        )
        if options.dry_run:
            rate = await _last_rate(work.state, report)
    if options.dry_run:
        return _show_plan(app, options, planned, report, rate=rate, save=save)
    _show_report(app, options, report, source, sink)
    if selection.rules and report.by_kind.keys() <= {"project"} and not report.interrupted:
        app.console.warn(f"the selection fits no subject and no session of {options.project}")
    if report.units_failed and not report.interrupted:  # an interruption said so at once
        app.console.say(f"to go on: {command_line(app)}")
    return report.exit_code


def _how(app: App, options: TransferOptions, source: Server, sink: Server) -> Options:
    from xnatctl.engine.runner import Options
    from xnatctl.retry import Backoff

    from .runs import command_line, workers

    retries = options.file.retries
    return Options(
        verb="transfer",
        command=command_line(app),
        workers=workers(
            options.workers or options.file.workers, source, sink, fewest=fewest(options.cluster)
        ),
        on_conflict=options.on_conflict,
        dry_run=options.dry_run,
        max_failures=options.file.max_failures,
        policy=Backoff() if retries is None else Backoff(attempts=retries + 1),
        accept=frozenset(options.accept),
        plan=_load_plan(options) if options.plan else None,
    )


def _selection(options: TransferOptions) -> Selection:
    from xnatctl.engine.types import Selection
    from xnatctl.model import Ref

    rules = options.file.rules + options.narrowed.rules()
    return Selection(Ref(options.project), rules=rules, since=options.narrowed.since)


def _provenance() -> dict[str, str]:
    from datetime import UTC, datetime

    from xnatctl._version import __version__

    return {
        "copied": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool": f"xnatctl {__version__}",
    }


def _deletions(app: App, options: TransferOptions) -> Allowed:
    """Shows what would go, refuses more than the limit, and asks unless `--yes` was given."""
    from xnatctl.ui.render import count

    most = options.delete_extra_max

    def allowed(found: Sequence[Gone], share: float) -> bool:
        going = [one for one in found if not one.why_not]
        if not going:
            return False
        if share * 100 > most:
            percent = math.ceil(share * 100)
            app.console.fail(
                f"nothing is deleted: that would touch {percent} % of {options.dest_project}",
                hint=f"if that is right: --delete-extra-max {percent}",
            )
            return False
        if options.yes:
            return True
        for one in going:
            files = f" with {count(one.files, 'file')}" if one.files else ""
            app.console.say(f"gone at the source: {one}{files}")
        try:
            app.console.confirm(f"Delete {count(len(going), 'thing')} at the destination?")
        except Declined:
            return False
        return True

    return allowed


def _waiting(options: TransferOptions) -> Waiting | None:
    from xnatctl.retry import Waiting

    if options.file.archive_wait is None:
        return None
    return Waiting(archive=options.file.archive_wait, build=options.file.archive_wait)


def _show_report(
    app: App, options: TransferOptions, report: Report, source: Server, sink: Server
) -> None:
    from xnatctl.ui.report import print_report, transfer_json

    if not app.console.is_machine:
        print_report(report, app.console)
        return
    app.console.document(
        transfer_json(
            report,
            source=source.url,
            destination=sink.url,
            source_project=options.project,
            dest_project=options.dest_project,
        )
    )


async def _last_rate(state: StateStore, report: Report) -> float:
    """Bytes a second of the latest run between the same ends that moved enough to tell."""
    for run in await state.runs(verb="transfer"):
        if (run.source, run.sink) == (report.source, report.sink):
            seconds, moved = run.report.get("seconds", 0.0), run.report.get("bytes", 0)
            if seconds > 0 and moved > 0:
                return float(moved / seconds)
    return 0.0


def _show_plan(
    app: App,
    options: TransferOptions,
    planned: Planned,
    report: Report,
    *,
    rate: float,
    save: Path | None,
) -> int:
    from xnatctl.ui.plan import document, print_plan

    data = document(
        planned,
        report,
        rate=rate,
        source=report.source,
        destination=report.sink,
        source_project=options.project,
        dest_project=options.dest_project,
    )
    data |= {"dry_run": True, "success": report.exit_code == 0, "subjects_synced": 0}
    if save is not None:
        import json

        try:
            save.write_text(json.dumps(data, indent=1), "utf-8")
        except OSError as error:
            raise LocalFault(f"{save} cannot be written", why=error.strerror or "") from error
        app.console.say(f"plan of {len(planned.rows)} units in {save}")
    if app.console.is_machine:
        app.console.document(data)
    else:
        print_plan(planned, data, app.console)
    return report.exit_code


def _load_plan(options: TransferOptions) -> dict[str, str]:
    """The signatures of a saved plan. Raises ConfigError for what is none, or is of other ends."""
    import json

    path = options.plan
    assert path is not None
    try:
        data = json.loads(path.read_text("utf-8"))
        units = {one["unit"]: one["signature"] for one in data["units"] if "signature" in one}
        ends_ = (data["source_project"], data["dest_project"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a plan", why=str(error)) from error
    if ends_ != (options.project, options.dest_project):
        raise ConfigError(f"{path} is a plan of {ends_[0]} to {ends_[1]}")
    return units


def ends(app: App, destination: Destination) -> tuple[Server, Server]:
    """Source and destination; the source's credentials never serve for the destination."""
    source = app.server()
    if not (destination.profile or destination.url or app.environ.get("XNAT_DEST_URL")):
        raise UsageError(
            "no destination was named", hint="add --dest-profile NAME, or set XNAT_DEST_URL"
        )
    return source, destination.server(app)
