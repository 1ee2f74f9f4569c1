"""`xnatctl run`: every run that was made from this machine, whatever it moved."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import asyncclick as click

from xnatctl.errors import LocalFault, NotFound

from .group import Group, option
from .options import OUTPUT, list_options

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.engine.state import RunRow
    from xnatctl.ui.shape import Shape

run = Group("run", help="Runs made from this machine: list, show, resume.")

RUN = click.argument("run_id", metavar="[RUN]", required=False)
FIGURES = ("copied", "kept", "failed")


@run.command("list")
@option("--verb", metavar="VERB", help="Runs of one kind, such as transfer or download.")
@list_options
async def list_(app: App, *, verb: str | None, shape: Shape) -> None:
    """List the runs made from this machine, newest first.

    \b
    Examples:
      xnatctl run list
      xnatctl run list --filter status:interrupted
      xnatctl run list --verb transfer -o json
    """
    from xnatctl.ui.account import account_json
    from xnatctl.ui.console import Column
    from xnatctl.ui.render import size

    from .runs import open_state

    async with open_state(app) as state:
        runs = await state.runs(verb=verb or "", limit=shape.limit or 1000)
    rows = []
    for one in runs:
        data = account_json(one)
        units = data.get("by_kind", {}).values()
        rows.append(
            {
                "id": one.id,
                "verb": one.verb,
                "status": one.status,
                "started": data["started"],
                **{name: sum(kind.get(name, 0) for kind in units) for name in FIGURES},
                "files": data.get("files", 0),
                "bytes": data.get("bytes", 0),
                "exit_code": data.get("exit_code"),
                "source": one.source,
                "destination": one.sink,
            }
        )
    columns = [Column("id"), Column("verb"), Column("status"), Column("started")]
    columns += [Column(name, right=True) for name in (*FIGURES, "files")]
    columns += [Column("bytes", right=True, show=size), Column("source"), Column("destination")]
    app.console.rows(rows, columns, shape=shape)


@run.command("show")
@RUN
async def show(app: App, *, run_id: str | None) -> None:
    """Show what happened in a run: what moved, what failed and why, what was left behind.

    RUN is an ID of `run list`, or nothing for the latest.

    \b
    Examples:
      xnatctl run show
      xnatctl run show 20260301-101112-1a2b3c -o json
    """
    from xnatctl.ui.account import account_json, print_account

    found = await _find(app, run_id)
    data = {**account_json(found), "folder": found.folder}
    if app.console.is_machine:
        app.console.document(data)
        return
    app.console.say(f"{found.verb} {found.source} → {found.sink}")
    print_account(data, app.console)
    app.console.say(f"it was: {found.command}")
    if found.status in ("failed", "interrupted"):
        app.console.say(f"to go on: xnatctl run resume {found.id}")


@run.command("resume")
@RUN
@option("--dry-run", is_flag=True, group=OUTPUT, help="Print the command and the folder only.")
async def resume(app: App, *, run_id: str | None, dry_run: bool) -> int:
    """Run the command of an earlier run again, in its folder: it does what is missing.

    RUN is an ID of `run list`, or nothing for the latest. Passwords are never remembered: they come
    from where they came then, such as the environment or a profile.

    \b
    Examples:
      xnatctl run resume
      xnatctl run resume 20260301-101112-1a2b3c
    """
    from .main import parse

    found = await _find(app, run_id)
    argv = shlex.split(found.command)[1:]
    if not argv:
        raise NotFound(
            f"the command of run {found.id} is not known",
            why="it was not made on the command line",
        )
    app.console.say(f"{found.command}    (in {found.folder or '.'})")
    if dry_run:
        return 0
    try:
        os.chdir(found.folder or ".")
    except OSError as error:
        raise LocalFault(
            f"the folder {found.folder} of that run cannot be entered", why=error.strerror or ""
        ) from error
    app.argv = tuple(argv)
    job = parse(argv, app)
    return (await job.call() or 0) if job is not None else 0


async def _find(app: App, run_id: str | None) -> RunRow:
    from .runs import open_state

    async with open_state(app) as state:
        found = await state.runs(run=run_id or "", limit=1)
    if not found:
        raise NotFound(
            f"no run {run_id} is remembered here" if run_id else "no run is remembered here",
            hint="xnatctl run list",
        )
    return found[0]
