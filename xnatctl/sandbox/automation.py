"""Automation: scripts of the site, the triggers that start them, and the events there are.

Scripts and triggers are kept and shown; nothing is run. `triggers` are all of them, `handlers`
those of one scope: the site's, or a project's below `/projects/P/automation`. Scripts are the
site administrators' business, triggers of a project its owners'.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from . import finding
from .accounts import DELETE, READ
from .store import Item
from .web import Call, Refusal, empty, json, table, text

_SCRIPTS = {
    "Script ID": "scriptId", "Script Label": "scriptLabel", "Language": "language",
    "Description": "description",
}  # fmt: skip
_TRIGGERS = (
    "id", "triggerId", "scope", "entityId", "srcEventClass", "event", "eventFilters", "scriptId",
    "description",
)  # fmt: skip


async def handle(call: Call, project: Item | None, rest: list[str]) -> web.Response:
    """Answer a path below `automation` of the site or of a project."""
    match rest:
        case ["scripts", *named] if project is None:
            return await _scripts(call, named)
        case ["triggers" | "handlers" as word, *named]:
            return await _triggers(call, project, named, everything=word == "triggers")
        case ["events"]:
            rows = call.store.rows("SELECT DISTINCT pipeline FROM workflows ORDER BY pipeline")
            events = [{"event_id": name, "event_label": name} for (name,) in rows]
            return table(call, ("event_id", "event_label"), events)
    raise Refusal(404, "The server has not found anything matching the request URI")


async def _given(call: Call, *, forms: bool) -> dict[str, Any]:
    """The properties in a body: JSON, for scripts a form too."""
    if not call.request.content_length:
        raise Refusal(400, "Unable to find script parameters: no data sent?")
    if forms and call.media == "application/x-www-form-urlencoded":
        before = len(call.params)
        await call.form()
        return dict(call.params[before:])
    if call.media != "application/json":
        raise Refusal(415, "This function currently only supports application/json")
    return await call.json(dict[str, Any])


async def _scripts(call: Call, named: list[str]) -> web.Response:
    """The list, and PUT, GET and DELETE of one; older versions of it by their number."""
    store = call.store
    if not call.user.admin and (call.method != "GET" or named):
        raise Refusal(403, "Only site admins can view or update script resources.")
    if not named:
        if call.method != "GET":
            raise Refusal(405, "You must specify a specific script ID to update or delete a script")
        rows = [
            {column: versions[-1].get(key) for column, key in _SCRIPTS.items()}
            for versions in store.records("script").values()
        ]
        return table(call, tuple(_SCRIPTS), rows)
    ident, versions = named[0], store.record("script", named[0]) or []
    if call.method == "PUT":
        fresh = {**(versions[-1] if versions else {}), **await _given(call, forms=True)}
        fresh |= {"scriptId": ident, "scriptVersion": str(len(versions) + 1)}
        fresh = {"scriptLabel": ident, "language": "groovy", "description": "", **fresh}
        store.set_record("script", ident, [*versions, fresh])
        return empty()
    if call.method == "DELETE":
        store.set_record("script", ident, None)
        for number, trigger in store.records("trigger").items():
            if trigger["scriptId"] == ident:
                store.set_record("trigger", number, None)
        return empty()
    wanted = named[1] if len(named) > 1 else str(len(versions))
    found = next((one for one in versions if one["scriptVersion"] == wanted), None)
    if found is None:
        raise Refusal(404, f"There is no script {'/'.join(named)}")
    return json(found)


async def _triggers(
    call: Call, project: Item | None, named: list[str], *, everything: bool
) -> web.Response:
    """The list, and PUT, GET and DELETE; one is named by its trigger ID or its number."""
    if project is not None:
        finding.require_project(call, project, DELETE if call.method != "GET" else READ)
    elif call.method != "GET" and not call.user.admin:
        raise Refusal(403, "Only site admins can change triggers of the site")
    entity = project.code if project is not None else ""
    mine = {
        number: one
        for number, one in call.store.records("trigger").items()
        if one["entityId"] == entity or (everything and not entity)
    }
    number = next((n for n, one in mine.items() if named and named[0] in (n, one["triggerId"])), "")
    if named and not number and call.method != "DELETE":
        raise Refusal(404, f"Can't find script trigger with ID: {named[0]}")
    if call.method == "GET":
        return json(mine[number]) if number else table(call, _TRIGGERS, mine.values())
    if call.method == "DELETE":
        if not number:
            raise Refusal(405, "You must specify a trigger ID to delete a script trigger.")
        call.store.set_record("trigger", number, None)
        return empty()
    given = {**mine.get(number, {}), **await _given(call, forms=False)}
    for name, word in (("event", "event"), ("scriptId", "script ID")):
        if not given.get(name):
            raise Refusal(400, f"You must specify the {word} for your new script trigger.")
    ident = f"{entity or 'site'}-{given['scriptId']}-{given['event']}"
    number = number or str(call.store.next_number("trigger"))
    record = {
        "id": number, "triggerId": ident, "scope": "prj" if entity else "site",
        "entityId": entity, "event": given["event"], "scriptId": given["scriptId"],
        "srcEventClass": given.get("eventClass", given.get("srcEventClass", "")),
        "eventFilters": str(given.get("filters", given.get("eventFilters", ""))),
        "description": given.get("description", ""),
    }  # fmt: skip
    call.store.set_record("trigger", number, record)
    return text(ident)
