"""`project export` and `project import`: a project to disk, and from disk into an XNAT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import asyncclick as click

from xnatctl.errors import UsageError

from .cluster import cluster_option, fewest, helped
from .download import check_folder, print_dry_run
from .endurance import endurance_options
from .group import command, option
from .lookup import missing
from .options import (
    SELECTION,
    TRANSFER,
    dry_run_option,
    project_option,
    workers_option,
    yes_option,
)
from .selection import Narrowed, load_transfer_file, load_yaml, selection_options
from .unattended import Unattended, unattended_options

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.cluster.crew import Spec
    from xnatctl.engine.plan import OnConflict
    from xnatctl.engine.runner import Options
    from xnatctl.engine.types import Report, Rule
    from xnatctl.model import Dicom
    from xnatctl.routes import Exported
    from xnatctl.ui.download import Renamed
    from xnatctl.ui.plan import Planned

Kinds = Literal["all", "dicom", "nifti"]

# Labels of scan resources by what they hold.
LABELS = {
    "dicom": ("DICOM*", "dicom*", "secondary", "SECONDARY"),
    "nifti": ("NIFTI*", "nifti*", "NIfTI*", "NII*", "nii*"),
}
SHOWN = 20


@dataclass(frozen=True, slots=True)
class ExportOptions:
    project: str
    out: Path
    narrowed: Narrowed
    config: Path | None
    kinds: Kinds
    snapshot: bool
    deletions: Literal["report", "trash", "delete"]
    bagit: bool
    bids: Path | None
    workers: int | None
    accept: tuple[str, ...]
    unattended: Unattended
    cluster: Spec | None
    dry_run: bool

    def rules(self) -> tuple[Rule, ...]:
        from xnatctl.engine.types import Rule

        rules = _rules(self.narrowed, self.config)
        if self.kinds != "all":
            rules += (Rule("resource", LABELS[self.kinds], level="scans"),)
        return rules


def _rules(narrowed: Narrowed, config: Path | None) -> tuple[Rule, ...]:
    return narrowed.rules() + (load_transfer_file(config).rules if config else ())


config_option = option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="YAML",
    group=SELECTION,
    help="The `filtering:` of a file of `project transfer`, see `transfer-init`.",
)
accept_option = option(
    "--accept",
    multiple=True,
    metavar="CODE[,CODE]",
    group=TRANSFER,
    help="Reasons for being left behind that are no failure.",
)


@command("export")
@project_option
@option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder of the export; an empty one, or its own from the last time.",
)
@selection_options
@config_option
@option(
    "--format",
    "kinds",
    type=click.Choice(["all", "dicom", "nifti"]),
    default="all",
    show_default=True,
    group=SELECTION,
    help="What of the scans comes, by the labels of their resources.",
)
@option("--mirror", is_flag=True, help="One tree that is kept up to date.  [default]")
@option("--snapshot", is_flag=True, help="A folder run-DATE a run; unchanged files are links.")
@option(
    "--deletions",
    type=click.Choice(["report", "trash", "delete"]),
    default="report",
    show_default=True,
    help="What becomes of files in a mirror that the server does not have any more.",
)
@option("--bagit", is_flag=True, help="Write a BagIt bag; the files lie below data/.")
@option(
    "--bids",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="RULES.yaml",
    help="Write NIfTI files in the layout of BIDS instead, named by these rules.",
)
@accept_option
@workers_option
@endurance_options
@unattended_options
@cluster_option
@dry_run_option
async def project_export(
    app: App, *, project: str | None, mirror: bool, accept: tuple[str, ...], **values: Any
) -> int:
    """Export all a project owns into a folder that a second run brings up to date.

    Sessions lie in DIR/subjects/S/sessions/E/scans/ID/resources/LABEL/files/, their XML and JSON
    beside them, and manifest.jsonl names every file with its digests. An unchanged file is not read
    again.

    \b
    Examples:
      xnatctl project export -P STUDY --out /data/study
      xnatctl project export -P STUDY --out /data/study --snapshot
      xnatctl project export -P STUDY --out /data/study --deletions trash --format nifti
      xnatctl project export -P STUDY --out /data/bids --bids rules.yaml
    """
    if values["bids"] and (values["snapshot"] or values["bagit"] or values["kinds"] != "all"):
        raise UsageError(
            "--bids is one tree of NIfTI files",
            why="it goes with none of --snapshot, --bagit and --format",
        )
    if values["bids"] and values["cluster"]:
        raise UsageError(
            "--bids works in this process alone",
            why="which files a dataset holds is known only where the state store is",
            hint="leave --cluster out",
        )
    if mirror and values["snapshot"]:
        raise UsageError("--mirror and --snapshot exclude each other")
    if values["snapshot"] and values["deletions"] != "report":
        raise UsageError(
            "--deletions is for a mirror", hint="a snapshot never has what the server has not"
        )
    codes = tuple(code for one in accept for code in one.split(","))
    return await run_export(
        app, ExportOptions(project=app.project(project), accept=codes, **values)
    )


async def run_export(app: App, options: ExportOptions) -> int:
    from xnatctl import routes
    from xnatctl.engine.types import Selection
    from xnatctl.model import Ref
    from xnatctl.ui.download import Renamed
    from xnatctl.ui.plan import Planned

    from .runs import desk

    selection = Selection(Ref(options.project), rules=options.rules(), since=options.narrowed.since)
    into: routes.Export | routes.Dataset
    if options.bids is not None:
        rules = routes.Rules.parse(load_yaml(options.bids)[0], str(options.bids))
        into = routes.Dataset(options.out, rules, deletions=options.deletions)
    else:
        into = routes.Export(
            options.out,
            snapshot=options.snapshot,
            deletions=options.deletions,
            bag=options.bagit,
        )
    check_folder(options.out, dry_run=options.dry_run)
    server = app.server()
    how = _how(
        app,
        "export",
        options.workers,
        accept=options.accept,
        dry_run=options.dry_run,
        cluster=options.cluster,
    )
    planned, renamed = Planned(), Renamed()
    async with desk(app, how) as work:
        work.bus.add(renamed)
        if options.dry_run:
            work.bus.add(planned)
        with options.unattended.over(work) as paced:
            async with (
                app.xnat(server) as xnat,
                helped(
                    app, options.cluster, paced, (server, xnat), folder=options.out
                ) as helped_desk,
            ):
                listed = "xnatctl project list shows those that this login may read"
                with missing(f"no project {options.project} at {xnat.name}", listed):
                    await xnat.get_project(options.project)
                done = await routes.export(helped_desk, xnat, selection, into=into)
    if options.dry_run:
        head = {"operation": "export", "project": options.project, "output_dir": str(options.out)}
        _show_plan(app, planned, done.report, head)
    else:
        _show(app, options, done, renamed)
    return done.report.exit_code


def _show_plan(app: App, planned: Planned, report: Report, head: dict[str, str]) -> None:
    """What a dry run found: a row a unit, and how much would move."""
    from xnatctl.ui.plan import document

    if app.console.is_machine:
        plan = document(planned, report, rate=0.0, **head)
        app.console.document({**plan, "dry_run": True, "success": report.success})
    else:
        print_dry_run(app, planned, report)


def _how(
    app: App,
    verb: str,
    workers: int | None,
    *,
    accept: tuple[str, ...],
    dry_run: bool,
    on_conflict: OnConflict = "merge",
    cluster: Spec | None = None,
) -> Options:
    from xnatctl.engine.runner import Options

    from .runs import command_line
    from .runs import workers as most

    return Options(
        verb=verb,
        command=command_line(app),
        workers=most(workers, app.server(), fewest=fewest(cluster)),
        on_conflict=on_conflict,
        dry_run=dry_run,
        accept=frozenset(accept),
    )


def _show(app: App, options: ExportOptions, done: Exported, renamed: Renamed) -> None:
    from xnatctl.ui.report import print_report, to_json

    console = app.console
    if console.is_machine:
        summary = {
            "operation": "export",
            "project": options.project,
            "output_dir": str(done.folder),
            "mode": "bids" if options.bids else "snapshot" if options.snapshot else "mirror",
            "finished": done.finished,
            "only_here": list(done.only_here),
            "deletions": options.deletions,
            "mapped": renamed.rows,
        }
        console.document(summary | to_json(done.report))
        return
    print_report(done.report, console)
    words = {"report": "only here", "trash": "moved to the trash", "delete": "deleted"}
    for path in done.only_here[:SHOWN]:
        console.say(f"{words[options.deletions]}: {path}")
    if len(done.only_here) > SHOWN:
        console.say(f"… {len(done.only_here) - SHOWN} more {words[options.deletions]}")
    renamed.tell(console)
    if not done.finished:
        console.say("not finished: the same command goes on where this one ended")
    console.say(f"in {done.folder}")


@command("import")
@option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    metavar="DIR",
    help="What `project export` wrote: a mirror, a snapshot, a folder of them, or a bag.",
)
@option("-P", "--project", metavar="PROJECT", help="Where it goes.  [default: as it was called]")
@selection_options
@config_option
@option(
    "--dicom",
    type=click.Choice(["import", "copy"]),
    default="import",
    show_default=True,
    group=TRANSFER,
    help="import: the server's rules act on the data. copy: the same bytes and names.",
)
@option(
    "--on-conflict",
    type=click.Choice(["fail", "skip", "merge", "replace"]),
    default="fail",
    show_default=True,
    group=TRANSFER,
    help="What becomes of a session that exists differently at the server.",
)
@option("--settings", is_flag=True, group=TRANSFER, help="Change the settings of a known project.")
@accept_option
@workers_option
@endurance_options
@unattended_options
@cluster_option
@yes_option
@dry_run_option
async def project_import(
    app: App,
    *,
    folder: Path,
    project: str | None,
    narrowed: Narrowed,
    config: Path | None,
    dicom: Dicom,
    on_conflict: OnConflict,
    settings: bool,
    accept: tuple[str, ...],
    workers: int | None,
    unattended: Unattended,
    cluster: Spec | None,
    yes: bool,
    dry_run: bool,
) -> int:
    """Bring an exported project into an XNAT, as a transfer from its server would have.

    \b
    Examples:
      xnatctl project import --from /data/study -p other --yes
      xnatctl project import --from /data/study -P STUDY2 --dicom copy --dry-run
    """
    from xnatctl import routes
    from xnatctl.engine.types import Selection
    from xnatctl.model import Ref
    from xnatctl.ui.plan import Planned
    from xnatctl.ui.report import print_report, transfer_json

    from .runs import desk

    source = routes.open_bundle(folder)
    target = project or source.project
    server = app.server()
    if not (yes or dry_run):
        app.console.confirm(
            f"Import {source.project} from {folder} into {target} at {server.name} ({server.url})?"
        )
    codes = tuple(code for one in accept for code in one.split(","))
    how = _how(
        app,
        "import",
        workers,
        accept=codes,
        dry_run=dry_run,
        on_conflict=on_conflict,
        cluster=cluster,
    )
    rules = _rules(narrowed, config)
    selection = Selection(Ref(source.project), rules=rules, since=narrowed.since)
    planned = Planned()
    async with desk(app, how) as work:
        if dry_run:
            work.bus.add(planned)
        with unattended.over(work) as paced:
            async with (
                app.xnat(server) as xnat,
                helped(app, cluster, paced, (server, xnat), folder=folder) as helped_desk,
            ):
                report = await routes.transfer(
                    helped_desk,
                    source,
                    xnat,
                    selection,
                    project=target,
                    dicom=dicom,
                    settings=settings,
                )
    if dry_run:
        head = {"operation": "import", "source_project": source.project, "dest_project": target}
        _show_plan(app, planned, report, head)
    elif app.console.is_machine:
        app.console.document(
            transfer_json(
                report,
                source=source.url,
                destination=server.url,
                source_project=source.project,
                dest_project=target,
            )
        )
    else:
        print_report(report, app.console)
    return report.exit_code
