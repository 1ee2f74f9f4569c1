"""`xnatctl project transfer-check`: both ends looked at before anything is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xnatctl.errors import Refused, XnatctlError

from .group import command, option
from .options import SELECTION, Destination, destination_options, project_option
from .transfer import ends

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.model import Session
    from xnatctl.xnat.client import Xnat

Row = dict[str, str]

CLOCK_TOLERANCE_S = 60.0
LARGE_BODY = 64 * 1024**3
ROUTING = {"0": "manual", "4": "auto-archive", "5": "auto-archive, overwriting"}


@command("transfer-check")
@project_option
@option("--dest-project", metavar="PROJECT", group=SELECTION, help="Where it would go.")
@destination_options
async def transfer_check(
    app: App, *, project: str | None, dest_project: str | None, destination: Destination
) -> int:
    """Look at both ends of a transfer before anything is written.

    Each line is OK, WARN or FAIL. Rights are asked for, never assumed: XNAT answers 200 to uploads
    that it drops.

    \b
    Examples:
      xnatctl project transfer-check -p prod -P STUDY --dest-profile dev --dest-project STUDY
    """
    from xnatctl.ui.console import Column

    source, sink = ends(app, destination)
    name = app.project(project)
    rows: list[Row] = []
    async with app.xnat(source) as here, app.xnat(sink) as there:
        both = await _server(rows, "source", here)
        both &= await _server(rows, "destination", there)
        if both:
            await _pair(rows, here, there, name, dest_project or name)
    columns = [Column(one) for one in ("check", "status", "detail")]
    app.console.rows(rows, columns, key="check")
    return int(any(row["status"] == "FAIL" for row in rows))


async def _server(rows: list[Row], role: str, xnat: Xnat) -> bool:
    """Reachable, logged in, and on time; False when nothing else can be asked."""
    try:
        who = await xnat.whoami()
    except XnatctlError as error:
        rows.append(_row(f"{role}: login", "FAIL", str(error)))
        return False
    version = await xnat.version()
    rows.append(_row(f"{role}: reachable", "OK", f"{xnat.url}, XNAT {version or 'unknown'}"))
    rows.append(_row(f"{role}: login", "OK", who))
    clock = await xnat.clock()
    if clock is not None:
        apart = abs((datetime.now(UTC) - clock).total_seconds())
        status = "OK" if apart <= CLOCK_TOLERANCE_S else "WARN"
        rows.append(_row(f"{role}: clock", status, f"{apart:.0f} s apart"))
    return True


async def _pair(rows: list[Row], here: Xnat, there: Xnat, source: str, target: str) -> None:
    sessions: list[Session] = []

    async def readable() -> Row:
        if await here.find_project(source) is None:
            return _row("", "FAIL", f"{source} is missing, or this login may not read it")
        sessions.extend(await here.list_experiments(source))
        imaging = sum(one.is_imaging for one in sessions)
        return _row("", "OK", f"{source}, {imaging} sessions")

    exists = await there.find_project(target) is not None
    checks: list[tuple[str, Callable[[], Awaitable[Row]]]] = [
        ("source: project", readable),
        ("destination: project", lambda: _editable(there, target, exists)),
        ("destination: data types", lambda: _types(there, sessions)),
        ("destination: plugins", lambda: _plugins(here, there)),
        ("destination: anonymisation", lambda: _anonymisation(there, target, exists)),
        ("destination: prearchive", lambda: _routing(there, target, exists)),
        ("destination: labels", lambda: _labels(there, sessions, target, exists)),
        ("destination: body limit", lambda: _body_limit(there)),
    ]
    for name, check in checks:
        try:
            rows.append({**await check(), "check": name})
        except XnatctlError as error:
            rows.append(_row(name, "WARN", f"could not be looked at: {error}"))


async def _editable(there: Xnat, target: str, exists: bool) -> Row:
    if not exists:
        return _row("", "OK", f"{target} will be created")
    if target not in {one.id for one in await there.list_projects(editable=True)}:
        return _row("", "FAIL", f"this login may not edit {target}")
    return _row("", "OK", f"{target} exists and can be edited")


async def _types(there: Xnat, sessions: list[Session]) -> Row:
    known = await there.list_elements()
    missing = sorted({one.xsi_type for one in sessions if one.xsi_type} - known)
    if missing:
        return _row("", "FAIL", f"unknown there: {', '.join(missing)}")
    return _row("", "OK", f"all of {len({one.xsi_type for one in sessions})} known")


async def _plugins(here: Xnat, there: Xnat) -> Row:
    missing = sorted(set(await here.list_plugins()) - set(await there.list_plugins()))
    if missing:
        return _row("", "WARN", f"only at the source: {', '.join(missing)}")
    return _row("", "OK", "none is missing")


async def _anonymisation(there: Xnat, target: str, exists: bool) -> Row:
    where = ["the site's script"] if await there.site_anonymises() else []
    if exists and "anonymisation" in await there.get_settings(target):
        where.append("the project's script")
    if where:
        said = " and ".join(where)
        return _row("", "WARN", f"{said} will change imported DICOM; --dicom copy keeps the bytes")
    return _row("", "OK", "no script is active")


async def _routing(there: Xnat, target: str, exists: bool) -> Row:
    if not exists:
        return _row("", "OK", "a new project")
    code = (await there.get_settings(target)).get("prearchive_code", "")
    return _row("", "OK", ROUTING.get(code, code or "unknown"))


async def _labels(there: Xnat, sessions: list[Session], target: str, exists: bool) -> Row:
    if not exists:
        return _row("", "OK", "a new project")
    taken = {one.label: one.subject for one in await there.list_experiments(target)}
    clashes = sorted(
        one.label
        for one in sessions
        if one.label in taken and taken[one.label].lower() != one.subject.lower()
    )
    if clashes:
        return _row("", "FAIL", f"held by another subject there: {', '.join(clashes[:5])}")
    return _row("", "OK", "no clash")


async def _body_limit(there: Xnat) -> Row:
    """Announce a large body, and take back the announcement: nothing is sent, nothing stored."""
    from xnatctl.xnat import paths

    async def nothing() -> AsyncIterator[bytes]:
        raise _Welcome("the server is ready for the body")
        yield b""

    try:
        await there.transport.send(
            "PUT", paths.SCRATCH, nothing(), params={"inbody": "true"}, length=LARGE_BODY
        )
    except _Welcome:
        return _row("", "OK", "none found")
    except Refused as error:
        if error.status == 413:
            return _row("", "FAIL", "a proxy in front refuses large bodies (HTTP 413)")
        return _row("", "WARN", f"not known: {error.why}")
    return _row("", "WARN", "not known: the server answered before it saw a body")


class _Welcome(XnatctlError):
    """The server asked for the body, which is all that was to be learned."""


def _row(check: str, status: str, detail: str) -> Row:
    return {"check": check, "status": status, "detail": detail}
