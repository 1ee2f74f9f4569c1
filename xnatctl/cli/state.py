"""`xnatctl state`: the file that remembers runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import asyncclick as click

from .group import Group, option

if TYPE_CHECKING:
    from xnatctl.cli.app import App

state = Group("state", help="The file that remembers runs: where it is, is it sound.")


@state.command("path")
async def path_(app: App) -> None:
    """Show where the state store is, and how much is in it.

    \b
    Examples:
      xnatctl state path
      cp "$(xnatctl state path -q)" backup.db
    """
    from anyio import to_thread

    from xnatctl.engine import upkeep

    from .runs import state_path

    path = state_path(app.environ)
    if app.settings.quiet:
        app.console.write(f"{path}\n")
        return
    found = await to_thread.run_sync(upkeep.contents, path)
    app.console.record({"path": str(path), **asdict(found)})


@state.command("check")
async def check(app: App) -> int:
    """Read the whole state store and say whether it is sound.

    Ends with 1 when it is not. A store that is moved away costs time, never data: the next run
    compares both ends afresh.

    \b
    Examples:
      xnatctl state check
    """
    from anyio import to_thread

    from xnatctl.engine import upkeep

    from .runs import state_path

    path = state_path(app.environ)
    found = await to_thread.run_sync(upkeep.problems, path)
    if app.console.is_machine:
        app.console.document({"path": str(path), "sound": not found, "problems": found})
    else:
        for one in found:
            app.console.fail(one)
        app.console.say(f"{path} is damaged" if found else f"{path} is sound")
    return int(bool(found))


@state.command("vacuum")
@option(
    "--older-than",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Forget runs that ended so long ago, too.",
)
async def vacuum(app: App, *, older_than: float | None) -> None:
    """Give room that the state store does not need back to the disk.

    \b
    Examples:
      xnatctl state vacuum
      xnatctl state vacuum --older-than 90
    """
    from functools import partial

    from anyio import to_thread

    from xnatctl.engine import upkeep

    from .runs import state_path

    work = partial(upkeep.vacuum, state_path(app.environ), older_than_days=older_than)
    done = await to_thread.run_sync(work)
    app.console.record({"runs_forgotten": done.runs, "before": done.before, "after": done.after})
