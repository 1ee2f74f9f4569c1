"""`xnatctl resource show`, `upload`, `delete` and `refresh`, at every level that has resources."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import BadReply, NotFound, UsageError

from .changes import Change, Consent, carry_out, consent_options, planned
from .endurance import endurance_options
from .group import command, option
from .options import REFRESHES, TRANSFER, USUAL_REFRESHES, dry_run_option, workers_option
from .resource import FIELDS, Where, resources_of, where_options

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.engine.types import Report
    from xnatctl.model import Ref
    from xnatctl.xnat.client import Xnat


def _split(words: tuple[str, ...], *names: str) -> tuple[str | None, tuple[str, ...]]:
    """`[SESSION] NAMES…` → the session or None, and the words for the names."""
    if len(words) == len(names):
        return None, words
    if len(words) == len(names) + 1:
        return words[0], words[1:]
    raise UsageError(
        f"{len(words)} words were given", hint=f"[SESSION] {' '.join(names)} are what is needed"
    )


async def _find(xnat: Xnat, owner: Ref, label: str) -> dict[str, str]:
    """The row of a resource. Raises NotFound."""
    for row in await resources_of(xnat, owner):
        if label in (row.get("label"), row.get("xnat_abstractresource_id")):
            return row
    raise NotFound(f"no resource {label} of {owner}", hint="see `xnatctl resource list`")


@command("show")
@click.argument("words", nargs=-1, required=True, metavar="[SESSION] LABEL")
@where_options
async def show(app: App, *, words: tuple[str, ...], where: Where) -> None:
    """Show a resource and list its files.

    \b
    Examples:
      xnatctl resource show XNAT_E00001 NIFTI --scan 3
      xnatctl resource show -P STUDY -S SUB001 QC -o json
    """
    from xnatctl.ui.console import Column
    from xnatctl.ui.render import size

    session, (label,) = _split(words, "LABEL")
    async with app.xnat() as xnat:
        owner = await where.find(app, xnat, session)
        row = await _find(xnat, owner, label)
        files = await xnat.list_files(owner.in_resource(label))
    facts = {key: row.get(key, "") for key in FIELDS}
    rows = [{"path": one.path, "size": one.size, "digest": one.digest} for one in files]
    if app.console.is_machine:
        app.console.document({**facts, "files": rows})
        return
    app.console.record(facts, key="label")
    if rows and not app.console.quiet:
        app.console.heading(f"Files ({len(rows)})")
        columns = [Column("path"), Column("size", right=True, show=size), Column("digest", "MD5")]
        app.console.rows(rows, columns, key="path")


@command("upload")
@click.argument("words", nargs=-1, required=True, metavar="[SESSION] LABEL PATH")
@where_options
@option("--format", "format_", metavar="FORMAT", group=TRANSFER, help="Format, such as NIFTI.")
@option("--content", metavar="CONTENT", group=TRANSFER, help="What is in it, such as RAW.")
@option("--tags", metavar="TAGS", group=TRANSFER, help="Tags, separated by commas.")
@option("--overwrite", is_flag=True, group=TRANSFER, help="Replace files that differ.")
@option("--skip-existing", is_flag=True, group=TRANSFER, help="Leave those that differ.")
@workers_option
@endurance_options
@dry_run_option
async def upload(app: App, *, words: tuple[str, ...], where: Where, **values: Any) -> int:
    """Upload a file, or everything below a folder, into a resource; each file is verified.

    The resource is created when it is missing. Files that are there and equal are not sent; one
    that differs is a conflict, unless it is what was uploaded from here before. DICOM that goes
    this way passes no anonymisation of the server.

    \b
    Examples:
      xnatctl resource upload XNAT_E00001 NIFTI nifti --scan 3 --format NIFTI
      xnatctl resource upload -P STUDY -S SUB001 QC qc.json --overwrite
      xnatctl resource upload -P STUDY PROTOCOLS protocols
    """
    session, (label, path) = _split(words, "LABEL", "PATH")
    return await run_upload(app, where, session, label, Path(path), **values)


async def run_upload(
    app: App,
    where: Where,
    session: str | None,
    label: str,
    path: Path,
    *,
    format_: str | None,
    content: str | None,
    tags: str | None,
    overwrite: bool,
    skip_existing: bool,
    workers: int | None,
    dry_run: bool,
) -> int:
    from xnatctl import routes
    from xnatctl.engine.runner import Options

    from .runs import command_line, desk
    from .runs import workers as at_once
    from .upload import Watched, exit_code

    if overwrite and skip_existing:
        raise UsageError("--overwrite and --skip-existing say opposite things")
    server = app.server()
    how = Options(
        verb="resource upload",
        command=command_line(app),
        workers=at_once(workers, server),
        overwrite=overwrite,
        dry_run=dry_run,
    )
    made = {"format": format_, "content": content, "tags": tags}
    watched, started = Watched(), time.monotonic()
    async with app.xnat(server) as xnat, desk(app, how) as work:
        owner = await where.find(app, xnat, session)
        work.bus.add(watched)
        report = await routes.upload_resource(
            work,
            path,
            xnat,
            owner.in_resource(label),
            made={name: value for name, value in made.items() if value},
            skip_existing=skip_existing,
        )
    _show_report(app, report, watched.mismatches, owner.in_resource(label), started)
    return exit_code(report)


def _show_report(
    app: App, report: Report, mismatches: list[str], target: Ref, started: float
) -> None:
    from xnatctl.ui.report import print_report

    if not app.console.is_machine:
        print_report(report, app.console)
        return
    failed = bool(report.units_failed or report.interrupted)
    files = report.files + report.files_kept
    app.console.document(
        {
            "operation": "upload",
            "session_id": target.session_id or "",
            "project": target.project,
            "output_dir": None,
            "source": report.source.removeprefix("file://"),
            "scans": 0,
            "files": files,
            "bytes": report.bytes + report.bytes_kept,
            "duration_seconds": round(time.monotonic() - started, 3),
            "status": ("partial" if files else "failed") if failed else "success",
            "items": [
                {
                    "id": target.resource,
                    "status": "failed" if failed else "success",
                    "error": report.problems[0].error if report.problems else None,
                }
            ],
            "verification": {
                "matched": 0 if report.dry_run else files - len(mismatches),
                "mismatched": mismatches,
            },
            "skipped_unsafe_entries": [],
            "files_sent": report.files,
            "bytes_sent": report.bytes,
            "left_out": [
                {"file": one.key, "code": one.code, "reason": one.reason} for one in report.left
            ],
            "dry_run": report.dry_run,
            "run_id": report.run_id,
        }
    )


@command("delete")
@click.argument("words", nargs=-1, required=True, metavar="[SESSION] LABEL")
@where_options
@consent_options
async def delete(app: App, *, words: tuple[str, ...], where: Where, consent: Consent) -> int:
    """Delete a resource with its files.

    \b
    Examples:
      xnatctl resource delete XNAT_E00001 NIFTI --scan 3 --dry-run
      xnatctl resource delete -P STUDY -S SUB001 QC --yes
    """
    from xnatctl.routes import check_editable

    session, (label,) = _split(words, "LABEL")
    async with app.xnat() as xnat:
        owner = await where.find(app, xnat, session)
        row = await _find(xnat, owner, label)
        await check_editable(xnat, owner.project)
        number = row.get("xnat_abstractresource_id") or label

        async def do() -> None:
            await xnat.delete_resource(owner.in_resource(number))
            left = await resources_of(xnat, owner)
            if any(one.get("xnat_abstractresource_id") == number for one in left):
                raise BadReply(f"{xnat.name} answered well and still has resource {label}")

        what = f"resource {label} of {owner}"
        change = Change("delete", what, do, f"{row.get('file_count') or 0} files")
        question = f"Delete {what} with its files?"
        return await carry_out(app, [change], question=question, consent=consent)


@command("refresh")
@click.argument("words", nargs=-1, required=True, metavar="URI | [SESSION] LABEL")
@where_options
@option(
    "--options",
    "given",
    type=click.Choice(REFRESHES),
    multiple=True,
    group=TRANSFER,
    help=f"What is done; may be repeated.  [default: {', '.join(USUAL_REFRESHES)}]",
)
@dry_run_option
async def refresh(
    app: App, *, words: tuple[str, ...], where: Where, given: tuple[str, ...], dry_run: bool
) -> int:
    """Have the server look through the files of a resource and mend its catalog.

    \b
    Examples:
      xnatctl resource refresh XNAT_E00001 DICOM --scan 3 --options checksum
      xnatctl resource refresh /archive/experiments/XNAT_E00001/scans/3/resources/DICOM
    """
    from xnatctl.xnat import paths

    options = ",".join(given or USUAL_REFRESHES)
    async with app.xnat() as xnat:
        if len(words) == 1 and words[0].startswith("/"):
            uri = words[0].removeprefix("/data")
        else:
            session, (label,) = _split(words, "LABEL")
            owner = await where.find(app, xnat, session)
            await _find(xnat, owner, label)
            uri = paths.resource(owner.in_resource(label)).replace("/data/", "/archive/", 1)
        if dry_run:
            return await planned(app, "refresh", uri, options)
        await xnat.refresh_catalog(uri, options=options)
    app.console.say(f"refreshed {uri} ({options})")
    if app.console.is_machine:
        app.console.document({"success": True, "uri": uri, "options": options.split(",")})
    return 0
