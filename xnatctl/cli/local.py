"""`xnatctl local`: what lies on this disk. Needs no server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncclick as click

from .group import Group, option
from .options import TRANSFER, dry_run_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App

local = Group("local", help="Exports and archives on this disk: verify and unpack them.")

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@local.command("verify")
@click.argument("folder", metavar="DIR", type=FOLDER)
async def verify(app: App, *, folder: Path) -> int:
    """Read every file of an export again and compare it with manifest.jsonl.

    Prints a line for each file that is MISSING, a MISMATCH or EXTRA, and ends with 1 if there is
    any.

    \b
    Examples:
      xnatctl local verify /data/study
      xnatctl local verify /data/study/latest -o json | jq '.wrong'
    """
    from anyio import to_thread

    from xnatctl import routes

    checked = await to_thread.run_sync(routes.verify_export, folder)
    if app.console.is_machine:
        app.console.document(
            {
                "operation": "verify",
                "folder": str(folder),
                "files": checked.good + len(checked.wrong),
                "good": checked.good,
                "wrong": checked.wrong,
            }
        )
    else:
        for one in checked.wrong:
            name = f" ({one['name']})" if "name" in one else ""
            why = f": {one['why']}" if one["why"] else ""
            app.console.write(f"{one['status']} {one['path']}{name}{why}\n")
        app.console.say(f"{checked.good} files as listed, {len(checked.wrong)} not")
    return int(bool(checked.wrong))


@local.command("extract")
@click.argument("folder", metavar="DIR", type=FOLDER)
@option("--recursive", is_flag=True, help="Archives in folders below it too.")
@option("-r", "deep", is_flag=True, hidden=True)
@option(
    "--cleanup/--no-cleanup",
    default=False,
    help="Remove each archive when all of it is on the disk, or keep it (default).",
)
@option("--overwrite", is_flag=True, group=TRANSFER, help="Replace files that differ.")
@dry_run_option
async def extract(
    app: App,
    *,
    folder: Path,
    recursive: bool,
    deep: bool,
    cleanup: bool,
    overwrite: bool,
    dry_run: bool,
) -> int:
    """Unpack the archives in a folder beside them, each proven whole before.

    \b
    Examples:
      xnatctl local extract data/SUB001_MR1
      xnatctl local extract data --recursive --cleanup
    """
    from xnatctl import routes
    from xnatctl.engine.runner import Options
    from xnatctl.ui.download import Renamed
    from xnatctl.ui.report import print_report, to_json

    from .runs import command_line, desk

    how = Options(
        verb="extract",
        command=command_line(app),
        workers=2,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    renamed = Renamed()
    async with desk(app, how) as work:
        work.bus.add(renamed)
        report, removed = await routes.extract(
            work, folder, deep=recursive or deep, cleanup=cleanup
        )
    if app.console.is_machine:
        done: dict[str, Any] = {"operation": "extract", "folder": str(folder), "removed": removed}
        app.console.document(done | to_json(report) | {"mapped": renamed.rows})
    else:
        print_report(report, app.console)
        renamed.tell(app.console)
        for name in removed:
            app.console.say(f"removed {name}")
    return report.exit_code
