"""`xnatctl admin`: catalogs, the record of what was done, the site. Users have a file of their
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import asyncclick as click

from xnatctl.errors import NotFound, Refused, UsageError, XnatctlError

from .changes import Change, Consent, carry_out, consent_options
from .fallback import Fallback
from .group import Group, Lazy, option
from .lookup import missing
from .names import PROJECT, project_at
from .options import (
    NATURAL,
    REFRESHES,
    SELECTION,
    USUAL_REFRESHES,
    dry_run_option,
    list_options,
    project_option,
    sessions_option,
    workers_option,
)

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.client import Xnat

admin = Group(
    "admin",
    help="The site: catalogs, users, plugins, settings.",
    lazy={"user": Lazy("xnatctl.cli.users:user", "Accounts: list, show and change them.")},
)


@dataclass(frozen=True, slots=True)
class Refresh:
    project: str
    options: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    limit: int | None = None
    workers: int | None = None
    dry_run: bool = False


@admin.command("refresh-catalogs")
@click.argument("project", metavar="PROJECT", type=PROJECT)
@option(
    "-O",
    "--option",
    "options",
    type=click.Choice(REFRESHES),
    multiple=True,
    help="What to do. May be repeated.  [default: checksum, append and populateStats]",
)
@sessions_option("These alone.")
@option("-e", "old_sessions", multiple=True, hidden=True)
@option("--limit", type=NATURAL, metavar="N", group=SELECTION, help="At most N of them.")
@workers_option
@dry_run_option
async def refresh_catalogs(
    app: App,
    *,
    project: str,
    options: tuple[str, ...],
    sessions: tuple[str, ...],
    old_sessions: tuple[str, ...],
    limit: int | None,
    workers: int | None,
    dry_run: bool,
) -> int:
    """Have the server compare its catalogs of files with what is on its disk.

    checksum fills in missing checksums, append adds files that no catalog has, populateStats counts
    again; delete forgets files that are gone, so it is not done unless it is named.

    \b
    Examples:
      xnatctl admin refresh-catalogs STUDY
      xnatctl admin refresh-catalogs STUDY -O checksum -O delete -E SUB001_MR1
    """
    wanted = Refresh(project, options, sessions + old_sessions, limit, workers, dry_run)
    return await run_refresh(app, wanted)


async def run_refresh(app: App, wanted: Refresh) -> int:
    from xnatctl.model import Ref
    from xnatctl.xnat import paths

    chosen = ",".join(wanted.options or USUAL_REFRESHES)
    refreshed: list[str] = []
    failed: list[dict[str, str]] = []
    server = app.server()
    at_once = anyio.CapacityLimiter(wanted.workers or server.workers or 4)
    async with app.xnat(server) as xnat:
        ids = await _experiments(xnat, wanted)

        async def one(number: str) -> None:
            uri = paths.archive_uri(Ref(wanted.project, session_id=number))
            async with at_once:
                try:
                    await xnat.refresh_catalog(uri, options=chosen)
                except XnatctlError as error:
                    failed.append({"id": number, "error": str(error)})
                    app.console.fail(f"{number}: {error}")
                else:
                    refreshed.append(number)

        if not wanted.dry_run:
            async with anyio.create_task_group() as tasks:
                for number in ids:
                    tasks.start_soon(one, number)
    if wanted.dry_run:
        _list_ids(app, ids, chosen)
        return 0
    refreshed.sort()
    app.console.say(f"{len(refreshed)} of {len(ids)} experiments refreshed ({chosen})")
    if app.console.is_machine:
        app.console.document(
            {
                "project": wanted.project,
                "refreshed": refreshed,
                "failed": failed,
                "count": len(refreshed),
            }
        )
    return int(bool(failed))


def _list_ids(app: App, ids: Sequence[str], options: str) -> None:
    rows = [{"action": "refresh", "target": one, "detail": options} for one in ids]
    app.console.rows(rows, ["action", "target", "detail"], key="target")


async def _experiments(xnat: Xnat, wanted: Refresh) -> list[str]:
    async with project_at(xnat, wanted.project):
        found = await xnat.list_experiments(wanted.project)
    names = {name: one.id for one in found for name in (one.id, one.label)}
    ids = list(dict.fromkeys(one.id for one in found))
    if wanted.sessions:
        if absent := [one for one in wanted.sessions if one not in names]:
            raise NotFound(f"no experiment {', '.join(absent)} in project {wanted.project}")
        ids = list(dict.fromkeys(names[one] for one in wanted.sessions))
    return ids if wanted.limit is None else ids[: wanted.limit]


@admin.command("audit")
@project_option
@option("--user", metavar="USER", group=SELECTION, help="What one user did.")
@option("-u", "old_user", hidden=True)
@option("--action", metavar="WORDS", group=SELECTION, help="Actions that hold these words.")
@option("--since", metavar="7d|DATE", group=SELECTION, help="Days back, or a date.")
@list_options
async def audit(
    app: App,
    *,
    project: str | None,
    user: str | None,
    old_user: str | None,
    action: str | None,
    since: str | None,
    shape: Shape,
) -> None:
    """List what was done at the server, out of the workflows that it records.

    \b
    Examples:
      xnatctl admin audit -P STUDY --limit 20
      xnatctl admin audit --user smith --since 7d -o json
    """
    from xnatctl.xnat.admin import Admin

    first = oldest(since) if since else ""
    async with app.xnat() as xnat:
        found = await Admin(xnat).workflows(project=project or "")
    rows = [_audited(row) for row in found]
    user, words = user or old_user, (action or "").casefold()
    rows = [
        row
        for row in rows
        if (not user or row["user"] == user)
        and words in row["action"].casefold()
        and row["timestamp"] >= first
    ]
    if user and rows == [] and found and not any(_audited(row)["user"] for row in found):
        app.console.warn("this server does not say who did what")
    columns = ["timestamp", "user", "action", "resource", "project"]
    app.console.rows(rows, columns, key="timestamp", shape=shape)


def oldest(since: str, now: datetime | None = None) -> str:
    """The first moment that counts, in the form in which the server writes its times."""
    text = since.strip().lower()
    units = {"d": "days", "h": "hours", "m": "minutes", "w": "weeks"}
    if text[:-1].isdigit() and text[-1:] in units:
        back = timedelta(**{units[text[-1]]: int(text[:-1])})
        return ((now or datetime.now(UTC)) - back).strftime("%Y-%m-%d %H:%M:%S")
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        raise UsageError(
            f"--since {since!r} cannot be understood", hint="--since 7d, or --since 2024-01-31"
        ) from None


def _audited(row: dict[str, str]) -> dict[str, str]:
    from xnatctl.xnat.parse import cell

    return {
        "timestamp": cell(row, "launch_time"),
        "user": cell(row, "create_user", "insert_user", "username", "user"),
        "action": cell(row, "pipeline_name"),
        "resource": cell(row, "label") or cell(row, "id"),
        "project": cell(row, "externalid"),
        "status": cell(row, "status"),
        "id": cell(row, "jobid", "wrk_workflowdata_id"),
    }


@admin.command("version")
async def version(app: App) -> None:
    """Show the server's version and build.

    \b
    Examples:
      xnatctl admin version -q
    """
    from xnatctl.xnat.admin import Admin

    server = app.server()
    async with app.stranger(server) as xnat:
        info = await Admin(xnat).build_info()
    app.console.record(info, key="version")


plugins = Fallback("plugins", usual="list", help="Plugins of the server: list and show them.")
admin.add_command(plugins)


@plugins.command("list")
@list_options
async def plugins_list(app: App, *, shape: Shape) -> None:
    """List the plugins of the server.

    \b
    Examples:
      xnatctl admin plugins list -o json
    """
    from xnatctl.xnat.admin import Admin

    async with app.xnat() as xnat:
        found = await Admin(xnat).plugins()
    rows = [
        {"id": name, "name": info.get("name", ""), "version": info.get("version", "")}
        for name, info in sorted(found.items())
    ]
    app.console.rows(rows, ["id", "name", "version"], shape=shape)


@plugins.command("show")
@click.argument("plugin", metavar="PLUGIN")
async def plugins_show(app: App, *, plugin: str) -> None:
    """Show what the server knows of a plugin.

    \b
    Examples:
      xnatctl admin plugins show containers
    """
    from xnatctl.xnat.admin import Admin

    async with app.xnat() as xnat:
        found = await Admin(xnat).plugins()
    if plugin not in found:
        names = ", ".join(sorted(found)) or "none"
        raise NotFound(f"no plugin {plugin} at {xnat.name}", why=f"its plugins are {names}")
    app.console.record({"id": plugin, **found[plugin]})


site_config = Group("site-config", help="Settings of the site: get and set them.")
admin.add_command(site_config)


@site_config.command("get")
@click.argument("key", required=False)
async def site_config_get(app: App, *, key: str | None) -> None:
    """Show one site setting, or all of them.

    \b
    Examples:
      xnatctl admin site-config get siteId
      xnatctl admin site-config get -o json
    """
    from xnatctl.xnat.admin import Admin

    async with app.xnat() as xnat:
        if key is None:
            app.console.record(await Admin(xnat).site_config(), key="siteId")
            return
        with missing(f"no site setting {key} at {xnat.name}", "xnatctl admin site-config get"):
            value = await Admin(xnat).site_setting(key)
    app.console.record({"key": key, "value": value}, key="value")


@site_config.command("set")
@click.argument("key")
@click.argument("value")
@consent_options
async def site_config_set(app: App, *, key: str, value: str, consent: Consent) -> int:
    """Change a site setting.

    \b
    Examples:
      xnatctl admin site-config set siteId MYXNAT --yes
    """
    from xnatctl.xnat.admin import Admin

    async with app.xnat() as xnat:
        site = Admin(xnat)
        with missing(f"no site setting {key} at {xnat.name}", "xnatctl admin site-config get"):
            before = _text(await site.site_setting(key))

        async def do() -> None:
            await site.set_site_setting(key, value)
            if (kept := _text(await site.site_setting(key))) != value:
                raise Refused(f"{xnat.name} answered well, and {key} is {kept!r}")

        change = Change("set", key, do, f"{before!r} becomes {value!r}")
        question = f"Change {key} of the whole site?"
        return await carry_out(app, [change], question=question, consent=consent)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
