"""`xnatctl prearchive`: sessions that have arrived and are not archived yet."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import Conflict, NotFound, PermissionDenied, UsageError

from .entries import (
    COLUMNS,
    ENTRY,
    Chosen,
    each,
    entries_of,
    entries_option,
    find_rows,
    parsed,
    path_of,
)
from .group import Group, Lazy, option
from .options import (
    OUTPUT,
    TRANSFER,
    dry_run_option,
    list_options,
    project_option,
    workers_option,
    yes_option,
)

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.client import Xnat

prearchive = Group(
    "prearchive",
    help="Sessions that have arrived and wait to be archived.",
    lazy={
        "doctor": Lazy(
            "xnatctl.cli.prearchive_doctor:doctor", "Say what is wrong with entries, and why."
        )
    },
)

MODES = {"manual": "0", "auto-archive": "4", "auto-archive-overwrite": "5"}


@prearchive.command("list")
@project_option
@list_options
async def list_(app: App, *, project: str | None, shape: Shape) -> None:
    """List the sessions that wait, those of one project or all that you may see.

    With -q each is one path, which the other prearchive commands take.

    \b
    Examples:
      xnatctl prearchive list -P STUDY
      xnatctl prearchive list --project STUDY -o json | jq -r '.[].name'
      xnatctl prearchive list --filter status:CONFLICT -q
    """
    from xnatctl.ui.console import Column
    from xnatctl.xnat import paths

    async with app.xnat() as xnat:
        rows = await xnat.rows(paths.prearchive(project) if project else paths.PREARCHIVE)
    key = "name"
    if app.console.quiet:
        rows = [{**row, "path": path_of(row)} for row in rows]
        key = "path"
    app.console.rows(rows, [Column(name) for name in COLUMNS], key=key, shape=shape)


@prearchive.command("show")
@click.argument("words", nargs=-1, required=True, metavar=ENTRY)
async def show(app: App, *, words: tuple[str, ...]) -> None:
    """Show one entry: its row, its scans, and the last words of its log.

    \b
    Examples:
      xnatctl prearchive show STUDY 20260114_101112345 SUB001_MR1
      xnatctl prearchive show STUDY/20260114_101112345/SUB001_MR1 -o json
    """
    from xnatctl.xnat import paths

    async with app.xnat() as xnat:
        (row,) = await find_rows(xnat, Chosen(words))
        entry = parsed(row)
        here = paths.prearchive_entry(entry)
        scans = await xnat.rows(f"{here}/scans")
        counts = {}
        for scan in scans:
            files = await xnat.rows(f"{here}/scans/{paths.segment(scan.get('ID', ''))}/resources")
            counts[scan.get("ID", "")] = sum(int(one.get("file_count") or 0) for one in files)
        reason = await entries_of(xnat).reason(entry)
    found = [{**scan, "files": counts[scan.get("ID", "")]} for scan in scans]
    document = {**row, "scans": found, "log": reason}
    if app.console.is_machine:
        app.console.document(document)
        return
    app.console.record({**{key: row.get(key, "") for key in COLUMNS}, "log": reason}, key="name")
    if found:
        from xnatctl.ui.console import Column

        app.console.heading(f"Scans ({len(found)})")
        titles = {"ID": "ID", "series_description": "Series"}
        columns = [
            Column(one, titles.get(one, "")) for one in ("ID", "series_description", "files")
        ]
        app.console.rows(found, columns, key="ID")


@prearchive.command("archive")
@entries_option
@option("--subject", metavar="LABEL", group=TRANSFER, help="Subject to archive it under.")
@option("--label", metavar="LABEL", group=TRANSFER, help="Label to archive it under.")
@option("--overwrite", is_flag=True, group=TRANSFER, help="Merge into a session that exists.")
@option(
    "--wait",
    type=click.FloatRange(min=0),
    default=10800.0,
    metavar="SECONDS",
    show_default=True,
    group=TRANSFER,
    help="How long archiving may take.",
)
@workers_option
@dry_run_option
async def archive(
    app: App,
    *,
    chosen: Chosen,
    subject: str | None,
    label: str | None,
    overwrite: bool,
    wait: float,
    workers: int | None,
    dry_run: bool,
) -> int:
    """Archive entries, each once, and wait until the server has done it.

    An archive request that times out is never sent again: the entry is watched instead. A session
    that exists is a conflict, unless --overwrite merges the two.

    \b
    Examples:
      xnatctl prearchive archive STUDY 20260114_101112345 SUB001_MR1 --subject SUB001 --label MR1
      xnatctl prearchive archive -P STUDY --filter status:READY
    """
    from xnatctl.retry import Waiting
    from xnatctl.routes import Slot

    if (subject or label) and not chosen.is_one and len(chosen.words) != 1:
        raise UsageError("--subject and --label are for one entry", hint=f"name it as {ENTRY}")

    async def work(xnat: Xnat, row: dict[str, str]) -> dict[str, Any]:
        entries, entry = entries_of(xnat, Waiting(archive=wait)), parsed(row)
        place = Slot(entry.project, subject or entry.subject, label or entry.name)
        if not overwrite and await entries.find_session(place):
            raise Conflict(
                f"{place.project} has a session {place.session} already",
                hint="name another with --label, or merge the two with --overwrite",
            )
        uri = await entries.archive(entry, place, overwrite="delete" if overwrite else "")
        return {"session": place.session, "experiment_uri": uri, "result": uri}

    return await each(app, chosen, work, word="archived", workers=workers, dry_run=dry_run)


@prearchive.command("delete")
@entries_option
@workers_option
@yes_option
@dry_run_option
async def delete(app: App, *, chosen: Chosen, workers: int | None, yes: bool, dry_run: bool) -> int:
    """Delete entries with everything in them.

    \b
    Examples:
      xnatctl prearchive delete STUDY 20260114_101112345 SUB001_MR1 --yes
      xnatctl prearchive delete -P STUDY --filter status:ERROR --yes
    """

    async def work(xnat: Xnat, row: dict[str, str]) -> dict[str, Any]:
        from xnatctl.xnat.imports import Imports

        await Imports(xnat).delete(parsed(row))
        if not await entries_of(xnat).wait_until_gone(parsed(row)):
            raise Conflict(f"{xnat.name} did not delete {path_of(row)}")
        return {"result": "deleted"}

    confirm = "" if yes or dry_run else "Delete {} from the prearchive?"
    return await each(
        app, chosen, work, word="deleted", workers=workers, dry_run=dry_run, confirm=confirm
    )


@prearchive.command("move")
@entries_option
@option("--to", "target", metavar="PROJECT", group=TRANSFER, help="Project to move them to.")
@workers_option
@dry_run_option
async def move(
    app: App, *, chosen: Chosen, target: str | None, workers: int | None, dry_run: bool
) -> int:
    """Move entries into the prearchive of another project.

    The target may also stand behind the entry: PROJECT TIMESTAMP NAME TARGET.

    \b
    Examples:
      xnatctl prearchive move Unassigned 20260114_101112345 SUB001_MR1 STUDY
      xnatctl prearchive move -P Unassigned --filter 'name:SUB*' --to STUDY
    """
    if target is None and chosen.words:
        target = chosen.words[-1]
        chosen = replace(chosen, words=chosen.words[:-1])
    if not target or "/" in target:
        raise UsageError("no project to move to was named", hint="add --to PROJECT")

    async def work(xnat: Xnat, row: dict[str, str]) -> dict[str, Any]:
        from xnatctl.routes import check_editable
        from xnatctl.xnat.imports import Imports

        await check_editable(xnat, target)
        await Imports(xnat).move(parsed(row), target)
        if not await entries_of(xnat).wait_until_gone(parsed(row)):
            raise Conflict(f"{xnat.name} did not move {path_of(row)}")
        return {"result": f"moved to {target}", "target": target}

    return await each(app, chosen, work, word="moved", workers=workers, dry_run=dry_run)


@prearchive.command("rebuild")
@entries_option
@workers_option
@dry_run_option
async def rebuild(app: App, *, chosen: Chosen, workers: int | None, dry_run: bool) -> int:
    """Build entries anew out of their files, and wait until they are ready.

    \b
    Examples:
      xnatctl prearchive rebuild STUDY 20260114_101112345 SUB001_MR1
      xnatctl prearchive rebuild -P STUDY --filter status:ERROR
    """

    async def work(xnat: Xnat, row: dict[str, str]) -> dict[str, Any]:
        from xnatctl.xnat.imports import Imports

        await Imports(xnat).rebuild(parsed(row))
        await entries_of(xnat).wait_until_ready(parsed(row))
        return {"result": "READY"}

    return await each(app, chosen, work, word="rebuilt", workers=workers, dry_run=dry_run)


@prearchive.command("settings")
@project_option
@option(
    "--set",
    "mode",
    type=click.Choice(list(MODES)),
    group=OUTPUT,
    help="What becomes of sessions that arrive.",
)
@option(
    "--restore",
    is_flag=True,
    group=OUTPUT,
    help="Put back what it was before the first --set, or a run that died.",
)
@yes_option
@dry_run_option
async def settings(
    app: App, *, project: str | None, mode: str | None, restore: bool, yes: bool, dry_run: bool
) -> None:
    """Show or change what becomes of sessions that arrive in a project.

    What it was before the first --set, or before a transfer that died, is kept in the project's
    configuration, until --restore puts it back, from whatever machine.

    \b
    Examples:
      xnatctl prearchive settings -P STUDY
      xnatctl prearchive settings -P STUDY --set manual --yes
      xnatctl prearchive settings -P STUDY --restore --yes
    """
    from xnatctl import routes

    if mode and restore:
        raise UsageError("--set and --restore contradict each other")
    project = app.project(project)
    async with app.xnat() as xnat:
        routing = routes.routing_by_hand(xnat, project)
        code = before = await xnat.get_prearchive_code(project)
        if mode:
            code = MODES[mode]
        elif restore and not (code := (await routing.free()).code):
            raise NotFound(
                f"nothing is known of what the prearchive of {project} was before",
                why="no run and no `prearchive settings --set` has changed it, or it was restored",
            )
        if (mode or restore) and not dry_run:
            if code != before and not yes:
                app.console.confirm(f"Set the prearchive of {project} to {_mode(code)}?")
            change = routing.restore() if restore else routing.set_by_hand(code)
            await _checked(change, xnat, project, code)
    app.console.record({"project": project, "mode": _mode(code), "code": code}, key="mode")


def _mode(code: str) -> str:
    names = {code: name for name, code in MODES.items()}
    return names.get(code, f"{code} (no mode that XNAT knows)")


async def _checked(change: Awaitable[None], xnat: Xnat, project: str, code: str) -> None:
    try:
        await change
    except PermissionDenied as error:
        if code == MODES["manual"]:
            raise
        raise PermissionDenied(
            f"{xnat.name} does not let {project} archive by itself",
            why=error.why,
            hint="it is the site's policy, or you do not own the project",
        ) from error
    if await xnat.get_prearchive_code(project) != code:
        raise Conflict(f"{xnat.name} answered well and kept its setting for {project}")
