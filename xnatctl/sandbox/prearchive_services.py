"""The services that work on sessions of the prearchive: archive, validate, move, delete, rebuild.

A single session is archived while the caller waits, as long as the site allows; several are queued
and answered with a table, as the other services do it. A conflict is 500 here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from .archiving import ArchiveRefused, Wish, archive, validate
from .prearchive import UNASSIGNED, Entry
from .prearchive_api import COLUMNS, build, may, sources
from .web import Call, Refusal, pause, table, text

if TYPE_CHECKING:
    from .server import Sandbox


async def archive_service(call: Call) -> web.StreamResponse:
    """POST /data/services/archive.

    Merging is always allowed; any `overwrite` but `none` replaces files. A conflict is 500. A
    single source is waited for as long as the site says, then 500 while the work goes on.
    """
    await call.form()
    if call.method != "POST":
        raise Refusal(405, "The archive service takes POST")
    entries = sources(call)
    if call.settings.require_reason and not call.param("event_reason"):
        raise Refusal(403, "A justification is required")
    for entry in entries:
        if entry.project == UNASSIGNED and not call.param("project"):
            raise Refusal(400, "Unassigned sessions cannot be archived without a project")
        if entry.busy:
            raise Refusal(403, "Operation already in progress on this prearchive entry")
    overwrite = call.param("overwrite")
    wish = Wish(
        login=call.user.login,
        project=call.param("project"),
        subject=call.param("subject"),
        label=call.param("session"),
        merge=True,
        replace=overwrite in ("append", "delete", "override"),
        quarantine=call.flag("quarantine"),
        trigger=call.flag("triggerPipelines", True),
        fields={k: call.stored(v) for k, v in call.params if ":" in k and "/" in k},
    )
    if wish.project and not may(call, wish.project):
        raise Refusal(403, "Invalid permissions for the destination project")
    if len(entries) > 1:
        prearchive = call.sandbox.prearchive
        queued = [prearchive.set_status(entry, "QUEUED_ARCHIVING") for entry in entries]
        for entry in queued:
            call.sandbox.spawn(_archive_queued(call.sandbox, entry, wish))
        return table(call, COLUMNS, [prearchive.row(entry) for entry in queued])
    auto = call.sandbox.prearchive.auto(entries[0]) != "Manual"
    call.sandbox.listened(call, "PROCESSING", f"Archiving {entries[0].name}")
    uri = await _archive_waiting(call, entries[0], wish)
    call.sandbox.listened(call, "COMPLETED", uri)
    if call.has("auto-archive"):
        auto = call.flag("auto-archive")
    if auto:
        base = str(call.request.url.origin()) + call.settings.context
        raise Refusal(303, "", {"Location": base + uri})
    return text(uri + "\r\n", media="text/uri-list")


async def _archive_queued(sandbox: Sandbox, entry: Entry, wish: Wish) -> None:
    await pause(sandbox.settings.queue_s)
    entry = sandbox.prearchive.set_status(entry, "READY")
    try:
        await archive(sandbox, entry, Wish(wish.login, merge=True, replace=wish.replace))
    except ArchiveRefused:
        return  # the entry is in CONFLICT and says why


async def _archive_waiting(call: Call, entry: Entry, wish: Wish) -> str:
    task = call.sandbox.spawn(archive(call.sandbox, entry, wish))
    done, _ = await asyncio.wait({task}, timeout=call.settings.archive_timeout_s)
    if not done:
        raise Refusal(500, "The archive operation did not complete within the configured timeout")
    try:
        return task.result()
    except ArchiveRefused as refused:
        call.sandbox.listened(call, "FAILED", refused.message)
        if refused.status in (400, 423):
            raise Refusal(refused.status, refused.message) from refused
        raise Refusal(500, f"Operation Failed: Unable to archive: {refused.message}") from refused


async def validate_service(call: Call) -> web.StreamResponse:
    """POST /data/services/validate-archive: what stands in the way."""
    await call.form()
    rows = []
    overwrite = call.param("overwrite")
    for entry in sources(call):
        wish = Wish(
            call.user.login, call.param("project"), call.param("subject"), call.param("session"),
            merge=bool(overwrite), replace=overwrite in ("append", "delete"),
        )  # fmt: skip
        rows += [
            {"code": code, "type": "WARN" if code == 12 else (
                "CONFLICT" if code in (1, 16, 17) else "FAIL"), "message": message}
            for code, message in validate(call.sandbox, entry, wish)
        ]  # fmt: skip
    return table(call, ("code", "type", "message"), rows)


async def queue_service(call: Call, action: str) -> web.StreamResponse:
    """POST /data/services/prearchive/move|delete|rebuild: queued, answered with a table."""
    await call.form()
    if call.method != "POST":
        raise Refusal(405, "The prearchive services take POST")
    if action not in ("move", "delete", "rebuild"):
        raise Refusal(404, f"There is no prearchive service {action}")
    entries = sources(call)
    project = call.param("newProject")
    if action == "move" and not may(call, project):
        raise Refusal(403, f"Invalid permissions for project {project}")
    for entry in entries:
        if entry.busy and not call.flag("overrideLock"):
            raise Refusal(409, "The session is locked")
    word = {"move": "MOVING", "delete": "DELETING", "rebuild": "BUILDING"}[action]
    prearchive = call.sandbox.prearchive
    queued = [prearchive.set_status(entry, f"QUEUED_{word}") for entry in entries]
    for entry in queued:
        call.sandbox.spawn(_do_queued(call.sandbox, entry, action, project))
    return table(call, COLUMNS, [prearchive.row(entry) for entry in queued])


async def _do_queued(sandbox: Sandbox, entry: Entry, action: str, project: str) -> None:
    await pause(sandbox.settings.queue_s)
    if action == "delete":
        sandbox.prearchive.delete(entry)
    elif action == "move":
        sandbox.prearchive.move(entry, project)
    else:
        await build(sandbox, entry)
