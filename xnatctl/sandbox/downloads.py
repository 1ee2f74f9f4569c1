"""Downloads prepared by catalog: `/xapi/archive/download…`.

An id is made of the user's name and the time in whole seconds, so two that are prepared in one
second are one. Ids live in memory and are lost on a restart.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from .accounts import READ
from .files import Held, archive_bodies
from .routing import Place
from .sending import Body, send_archive
from .web import Call, Refusal, empty, json, text


async def handle(call: Call, rest: list[str]) -> web.StreamResponse:
    """Answer a path below /xapi/archive."""
    match rest:
        case ["download" | "downloadwithsize" as name] if call.method == "POST":
            call.route = f"/xapi/archive/{name}"
            return await _prepare(call, sized=name == "downloadwithsize")
        case ["download", ident, form]:
            call.route = f"/xapi/archive/download/{{id}}/{form}"
            return await _fetch(call, ident, form)
    raise Refusal(404, "")


async def _prepare(call: Call, *, sized: bool) -> web.Response:
    asked = await call.json(dict[str, Any])
    chosen = list(_chosen(call, asked))
    if not chosen:
        return empty(204)
    ident = f"{call.user.login}-{time.strftime('%Y%m%d_%H%M%S')}"
    call.sandbox.downloads[ident] = (call.user.login, asked)
    if not sized:
        return text(ident)
    size = sum(file.size for one in chosen for file in call.store.files(one.resource))
    return json({"id": ident, "size": str(size), "resourcesOfUnknownSize": "0"})


def _chosen(call: Call, asked: dict[str, Any]) -> Iterator[Held]:
    """The resources that a selection means; what may not be read is left out."""
    kinds = {"assessor": "assessors", "reconstruction": "reconstructions"}
    for token in asked.get("sessions", []):
        session = call.store.find_experiment(str(token).rpartition(":")[2])
        if session is None or call.accounts.item_rights(call.user, session) < READ:
            continue
        types, formats = asked.get("scan_types", []), asked.get("scan_formats", [])
        for scan in call.store.children(session, "scan"):
            if types and call.store.fields(scan).get("type", "") not in types:
                continue
            for resource in call.store.resources(scan):
                if (types or formats) and (not formats or resource.label in formats):
                    yield Held(scan, resource)
        for kind, name in kinds.items():
            for item in call.store.children(session, kind):
                if {item.xsi, item.code, item.label} & set(asked.get(name, [])):
                    for resource in call.store.resources(item, "out"):
                        yield Held(item, resource)
        for resource in call.store.resources(session):
            if resource.label in asked.get("resources", []):
                yield Held(session, resource)


async def _fetch(call: Call, ident: str, form: str) -> web.StreamResponse:
    login, asked = call.sandbox.downloads.get(ident, ("", {}))
    if login != call.user.login:
        raise Refusal(403, "")
    options = asked.get("options", [])
    bodies: list[Body] = []
    for one in _chosen(call, asked):
        inner = one.item.kind != "experiment"
        session = call.store.item(one.item.parent or 0) if inner else one.item
        head = ""
        if "projectIncludedInPath" in options:
            head += call.store.item(session.project).code + "/"
        if "subjectIncludedInPath" in options:
            head += call.store.item(session.parent or 0).label + "/"
        place = Place("files", {"scan": one.item.code} if one.item.kind == "scan" else {})
        structure = "simplified" if "simplified" in options else ""
        for body in archive_bodies(call, place, [one], structure=structure):
            bodies.append(Body(head + body.name, body.size, body.crc, body.mtime, body.source))
    if form == "zip":
        return await send_archive(call, bodies, ident, "zip", deflate=True)
    if form == "test":
        return text(f"{len(bodies)} files")
    entries = "".join(f'<cat:entry name="{body.name}"/>' for body in bodies)
    return text(
        f'<cat:Catalog ID="{ident}" xmlns:cat="http://nrg.wustl.edu/catalog"><cat:entries>'
        f"{entries}</cat:entries></cat:Catalog>",
        media="application/xml",
    )
