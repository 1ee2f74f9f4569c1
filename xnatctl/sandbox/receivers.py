"""DICOM receivers as `/xapi/dicomscp` shows them: kept and edited, nothing listens."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .web import Call, Refusal, json

_FIRST: dict[str, Any] = {
    "id": 1, "aeTitle": "XNAT", "port": 8104, "identifier": "dicomObjectIdentifier",
    "fileNamer": "", "enabled": False, "customProcessing": False, "directArchive": False,
    "anonymizationEnabled": True, "whitelistEnabled": False, "whitelist": [],
}  # fmt: skip


async def handle(call: Call, rest: list[str]) -> web.Response:
    """Answer a path below /xapi/dicomscp; all but the list is the administrators'."""
    held = {int(n): one for n, one in (call.store.record("site", "receivers") or {}).items()}
    held = held or {1: _FIRST}
    if rest == ["identifiers"]:
        return json({"dicomObjectIdentifier": "Default DICOM object identifier"})
    if (rest and not call.user.admin) or (call.method != "GET" and not call.user.admin):
        raise Refusal(403, "Only administrators may do this")
    match call.method, rest:
        case "GET", []:
            return json(list(held.values()))
        case "POST", []:
            number = max(held, default=0) + 1
            return _kept(call, held, {**_FIRST, **await _given(call), "id": number})
        case "PUT", ["start" | "stop" as word]:
            for number in held:
                held[number] = {**held[number], "enabled": word == "start"}
            _keep(call, held)
            return json(list(held.values()))
    number = int(rest[0]) if rest[0].isdigit() else 0
    if number not in held:
        raise Refusal(404, f"Could not find a DICOM SCP instance with the ID {rest[0]}")
    match call.method, rest[1:]:
        case "GET", []:
            return json(held[number])
        case "PUT", []:
            return _kept(call, held, {**held[number], **await _given(call), "id": number})
        case "DELETE", []:
            del held[number]
            _keep(call, held)
            return json(True)
        case "GET", ["enabled"]:
            return json(held[number]["enabled"])
        case "PUT", ["enabled", "true" | "false" as flag]:
            return _kept(call, held, {**held[number], "enabled": flag == "true"})
    raise Refusal(404, "")


async def _given(call: Call) -> dict[str, Any]:
    given = await call.json(dict[str, Any])
    unknown = set(given) - set(_FIRST)
    if unknown:
        raise Refusal(400, f"A receiver has no {', '.join(sorted(unknown))}")
    return given


def _kept(call: Call, held: dict[int, dict[str, Any]], fresh: dict[str, Any]) -> web.Response:
    """Keep one; two of the same title and port are refused."""
    for other in held.values():
        same = (other["aeTitle"], other["port"]) == (fresh["aeTitle"], fresh["port"])
        if other["id"] != fresh["id"] and same:
            raise Refusal(409, f"There is a receiver {fresh['aeTitle']}:{fresh['port']}")
    held[fresh["id"]] = fresh
    _keep(call, held)
    return json(fresh)


def _keep(call: Call, held: dict[int, dict[str, Any]]) -> None:
    call.store.set_record("site", "receivers", {str(number): one for number, one in held.items()})
