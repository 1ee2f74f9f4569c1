"""The window into a sandbox: `/sandbox/inspect`, `/sandbox/counters`, `/sandbox/faults`.

Open to whoever reaches the port, without a login: so that a test or a person can compare two
servers without the code under test, and spoil requests from a shell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from .faults import KINDS, from_json
from .store import Item, Store
from .web import Call, Refusal, empty, json


async def handle(call: Call) -> web.StreamResponse:
    """Answer a path below /sandbox."""
    path = [part for part in call.path[1:] if part]
    call.route = "/sandbox/" + (path[0] if path else "")
    match call.method, path:
        case "GET", ["inspect"]:
            return await _inspect(call)
        case "GET", ["counters"]:
            return json(counters(call))
        case "DELETE", ["counters"]:
            call.sandbox.counters.reset()
            return empty()
        case "GET", ["faults"]:
            return json([armed.describe() for armed in call.sandbox.faults.armed()])
        case "GET", ["faults", "kinds"]:
            return json(KINDS)
        case "POST", ["faults"]:
            return await _add_faults(call)
        case "DELETE", ["faults"]:
            call.sandbox.faults.clear()
            return empty()
        case "DELETE", ["faults", number] if number.isdigit():
            if not call.sandbox.faults.remove(int(number)):
                raise Refusal(404, f"There is no fault {number}")
            return empty()
        case "DELETE", ["sessions"]:
            return json({"ended": call.accounts.end_all(call.param("user") or None)})
    raise Refusal(404, "The sandbox has inspect, counters, faults and sessions")


async def _add_faults(call: Call) -> web.Response:
    try:
        given = msgspec.json.decode(await call.body())
        faults = [from_json(one) for one in (given if isinstance(given, list) else [given])]
    except (msgspec.DecodeError, ValueError) as error:
        raise Refusal(400, str(error)) from error
    return json({"ids": [call.sandbox.faults.add(fault) for fault in faults]}, 201)


def counters(call: Call) -> dict[str, Any]:
    """What `/sandbox/counters` answers."""
    seen = call.sandbox.counters
    return {
        "since": seen.began, "requests": seen.table(), "bytes_in": seen.bytes_in,
        "bytes_out": seen.bytes_out, "active": seen.active, "peak": seen.peak,
        "logins": call.accounts.logins, "sessions": len(call.accounts.sessions),
    }  # fmt: skip


# ---- the tree ------------------------------------------------------------------------------


async def _inspect(call: Call) -> web.StreamResponse:
    """The whole tree, written project by project and subject by subject."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(call.request)
    for piece in inspect(call.store, call.sandbox, call.param("project")):
        await response.write(piece)
    await response.write_eof()
    return response


def inspect(store: Store, sandbox: Any, only: str = "") -> Iterator[bytes]:
    """The JSON of the whole tree (or of one project) in pieces."""
    encode = msgspec.json.encode
    yield b'{"projects":['
    for index, project in enumerate(store.find("kind='project'")):
        if only not in ("", project.code):
            continue
        head = {
            "id": project.code, "accessibility": store.setting(
                project.code, "accessibility", "private"
            ),
            "prearchive_code": store.prearchive_code(project.code),
            "fields": store.fields(project),
            "resources": _resources(store, project),
        }  # fmt: skip
        yield (b"," if index and not only else b"") + encode(head)[:-1] + b',"subjects":['
        for number, subject in enumerate(store.children(project, "subject")):
            yield (b"," if number else b"") + encode(_subject(store, subject))
        yield b"]}"
    yield b'],"prearchive":'
    yield encode([_entry(sandbox, entry) for entry in sandbox.prearchive.entries()
                  if only in ("", entry.project)])  # fmt: skip
    yield b"}"


def _subject(store: Store, subject: Item) -> dict[str, Any]:
    return {
        "id": subject.code, "label": subject.label, "fields": store.fields(subject),
        "shares": dict(store.shares(subject)), "resources": _resources(store, subject),
        "sessions": [_session(store, item) for item in store.children(subject, "experiment")],
    }  # fmt: skip


def _session(store: Store, session: Item) -> dict[str, Any]:
    return {
        "id": session.code, "label": session.label, "xsi_type": session.xsi,
        "project": store.item(session.project).code, "status": session.status,
        "fields": store.fields(session), "shares": dict(store.shares(session)),
        "resources": _resources(store, session),
        "scans": [_child(store, item) for item in store.children(session, "scan")],
        "assessors": [_child(store, item) for item in store.children(session, "assessor")],
        "reconstructions": [
            _child(store, item) for item in store.children(session, "reconstruction")
        ],
    }  # fmt: skip


def _child(store: Store, item: Item) -> dict[str, Any]:
    return {
        "id": item.code, "label": item.label, "xsi_type": item.xsi,
        "fields": store.fields(item), "resources": _resources(store, item),
    }  # fmt: skip


def _resources(store: Store, item: Item) -> list[dict[str, Any]]:
    return [
        {
            "id": resource.id, "label": resource.label, "bucket": resource.bucket,
            "format": resource.format, "content": resource.content, "tags": resource.tags,
            "description": resource.description, "file_count": resource.file_count,
            "files": [
                {"path": file.path, "size": file.size, "md5": file.md5}
                for file in store.files(resource)
            ],
        }
        for resource in store.resources(item)
    ]  # fmt: skip


def _entry(sandbox: Any, entry: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict(sandbox.prearchive.row(entry))
    row["objects"] = [
        {"scan": one.scan, "name": one.name, "size": one.size, "md5": one.md5, "uid": one.uid}
        for one in sandbox.prearchive.objects(entry)
    ]
    return row
