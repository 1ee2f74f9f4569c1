"""The archive's items: listing, showing, sharing and deleting them; `creating.py` makes them.

`handle` takes any /data path of projects, subjects, experiments, scans, assessors and
reconstructions; resources and files are answered by `files.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from . import documents, exports, files, listing, project_settings
from .accounts import DELETE, EDIT, READ
from .assembly import assemble
from .creating import PUT, create_by_post, refuse_open_workflow
from .finding import locate, project_of, require, require_project
from .routing import Place, parse
from .store import Item
from .web import Call, Refusal, empty, json, table, text

_EXTRAS = {"projects", "status", "history"}


def _extras(place: Place) -> set[str]:
    """The suffixes of an item: a session's folder is routed on its short addresses only."""
    if place.node == "scan":
        return _EXTRAS | {"DICOMDIR"}
    if place.node == "experiment" and "subject" not in place.ids:
        return _EXTRAS | {"DIR", "XAR"}
    return _EXTRAS


async def handle(call: Call) -> web.StreamResponse:
    """Answer a request below /data/projects, /data/subjects or /data/experiments."""
    parts = call.path[1:]
    if parts[:1] == ["archive"]:
        parts = parts[1:]
    place = parse(parts)
    call.route = place.template
    if place.node == "root":
        raise Refusal(404, "The server has not found anything matching the request URI")
    if place.node in ("files", "resource", "resources"):
        return await files.handle(call, place)
    _require_reason(call, place)
    if place.node == "project" and place.rest:
        answer = await project_settings.handle(call, place)
        if answer is not None:
            return answer
    if place.rest and place.rest[0] not in _extras(place):
        if call.method != "GET":
            raise Refusal(400, f"Illegal file path: {'/'.join(place.rest)}")
        if not call.settings.prefix_routing:
            raise Refusal(404, "no such route")
    elif place.rest:
        call.route += "/" + place.rest[0]
    if place.node in _LISTS:
        if call.method == "GET":
            return list_items(call, place)
        if call.method == "POST":
            return await create_by_post(call, place)
        raise Refusal(405, "The method is not allowed for a list")
    if place.rest[:1] == ["projects"]:
        return await _share(call, place)
    verbs: dict[str, Callable[[Call, Place], Awaitable[web.StreamResponse]]] = {
        "GET": _show,
        "PUT": PUT[place.node],
        "DELETE": _delete,
    }
    if place.node == "project":
        verbs["POST"] = PUT["project"]  # As xnatctl 0.6 makes its projects.
    if call.method not in verbs:
        raise Refusal(405, "The method specified is not allowed for this resource")
    return await verbs[call.method](call, place)


def _require_reason(call: Call, place: Place) -> None:
    """Where the site wants changes to be justified, what comes without a reason is refused."""
    if not call.settings.require_reason or call.param("event_reason"):
        return
    if call.method == "DELETE":
        raise Refusal(403, "A justification is required")
    if call.method == "PUT" and place.node in ("subject", "experiment"):
        raise Refusal(500, "EventRequirementAbsent: a justification is required")


# ---- lists ---------------------------------------------------------------------------------

_LISTS = {"projects", "subjects", "experiments", "scans", "assessors", "reconstructions"}


def list_items(call: Call, place: Place) -> web.Response:
    """A table of projects, subjects, experiments, scans, assessors or reconstructions."""
    if place.node == "projects":
        return project_settings.list_projects(call)
    if place.node in ("scans", "reconstructions", "assessors"):
        session = locate(call, place)
        kind = place.node[:-1]
        return listing.answer(
            call, kind, listing.own_rows(call, "i.parent=? AND i.kind=?", session.id, kind)
        )
    kind = place.node[:-1]
    kinds = "('subject')" if kind == "subject" else "('experiment','assessor')"
    if "project" in place.ids:
        project = project_of(call, place)
        if call.accounts.rights(call.user, project) < READ:
            raise Refusal(403, "unable to read " + place.node + " of this project")
        if "subject" in place.ids:
            subject = call.store.find_subject(place.ids["subject"], project)
            if subject is None:
                raise Refusal(404, f"Unable to identify subject: {place.ids['subject']}")
            where, values = "i.parent=? AND i.kind='experiment'", (subject.id,)
            rows = listing.own_rows(call, where, *values)
        else:
            where = f"i.kind IN {kinds}"
            rows = listing.own_rows(call, f"i.project=? AND {where}", project.id)
            rows += listing.shared_rows(call, project, where)
        return listing.answer(call, kind, rows)
    readable = [p.id for p in call.accounts.visible(call.user)]
    if not readable and kind == "subject":
        raise Refusal(500, "Unable to query subjects: no readable project")
    marks = ",".join(map(str, readable)) or "0"
    return listing.answer(
        call, kind, listing.own_rows(call, f"i.kind IN {kinds} AND i.project IN ({marks})")
    )


# ---- show ----------------------------------------------------------------------------------


async def _show(call: Call, place: Place) -> web.StreamResponse:
    item = locate(call, place)
    extra = place.rest[0] if place.rest else ""
    if extra in _extras(place) - _EXTRAS:
        return await exports.export(call, item, place.rest)
    if extra == "status":
        return text(item.status)
    if extra == "history":
        return table(call, ("ID", "modified"), [{"ID": item.code, "modified": item.modified}])
    return show(call, item)


def show(call: Call, item: Item) -> web.Response:
    """An item's document as JSON, XML or a page, by `format` and then by Accept."""
    wanted = call.param("format").lower()
    accept = call.request.headers.get("Accept", "")
    whole = assemble(call.store, item, hidden=not call.flag("concealHiddenFields"))
    if wanted in ("json", "application/json"):
        return json({"items": [documents.to_json(whole, {"start_date": item.inserted})]})
    if wanted in ("xml", "text/xml", "application/xml") or (
        not wanted and ("text/xml" in accept or "application/xml" in accept) and
        "text/html" not in accept
    ):  # fmt: skip
        return text(documents.write(whole, declaration=True), media="text/xml")
    return text(f"<html><body><h3>{item.label}</h3></body></html>", media="text/html")


# ---- share and delete ----------------------------------------------------------------------


async def _share(call: Call, place: Place) -> web.StreamResponse:
    """`…/projects[/P2]`: list, share, move (`primary=true`), unshare."""
    item = locate(call, place)
    store = call.store
    primary = store.item(item.project)
    if len(place.rest) == 1 or call.method == "GET":
        rows = [{"label": item.label, "ID": primary.code, "project": primary}]
        rows += [
            {"label": label, "ID": code, "project": store.find_project(code)}
            for code, label in store.shares(item)
        ]
        cells = []
        for row in rows:
            project = row["project"]
            doc = project.element() if isinstance(project, Item) else None
            name = documents.child(doc, "name") if doc is not None else None
            cells.append(
                {
                    "label": row["label"],
                    "ID": row["ID"],
                    "Secondary_ID": doc.get("secondary_ID") if doc is not None else "",
                    "Name": name.text if name is not None else "",
                }
            )
        return table(call, ("label", "ID", "Secondary_ID", "Name"), cells)
    target = store.find_project(place.rest[1])
    if target is None:
        raise Refusal(404, f"Unable to identify project: {place.rest[1]}")
    if call.method == "DELETE":
        if target.id == item.project:
            return await _delete(call, place)
        require_project(call, target, EDIT)
        if not store.unshare(item, target) and item.kind == "subject":
            raise Refusal(403, "The subject is not shared into this project")
        return empty()
    require_project(call, target, EDIT)
    label = call.param("label") or item.code
    shared = any(code == target.code for code, _ in store.shares(item))
    clash = store.label_taken(target, item.kind, label, but=item.id)
    if call.flag("primary"):
        return _move(call, item, target, label, clash)
    if shared or target.id == item.project or clash:
        raise Refusal(409, "The item is shared into this project, or its label is in use there")
    if call.accounts.item_rights(call.user, item) < READ:
        raise Refusal(403, "Specified user account has insufficient privileges for this item")
    store.share(item, target, label)
    return empty()


def _move(call: Call, item: Item, target: Item, label: str, clash: bool) -> web.Response:
    """Make another project the primary one; a label clash answers 409 and moves all the same."""
    require(call, item, DELETE)
    store = call.store
    name = label if call.has("label") else item.label
    with store.transaction():
        store.unshare(item, target)
        if item.kind == "experiment" and clash:
            store.db.execute(
                "UPDATE items SET project=?, label=? WHERE id=?", (target.id, name, item.id)
            )
        elif item.kind == "subject":
            store.relocate(item, label=name, project=target, parent=target)
        else:
            taken = call.param("moveAssessors").split(",")
            left = [] if item.kind != "experiment" else [
                one for one in store.children(item, "assessor")
                if not {one.code, one.label} & set(taken)
            ]  # fmt: skip
            store.relocate(item, label=name, project=target)
            for one in left:
                store.db.execute("UPDATE items SET project=? WHERE id=?", (one.project, one.id))
    return empty(409 if clash else 200)


async def _delete(call: Call, place: Place) -> web.StreamResponse:
    store = call.store
    if place.deepest == "project" and store.find_project(place.ids["project"]) is None:
        raise Refusal(400, f"Unable to identify project: {place.ids['project']}")
    item = locate(call, place)
    if item.kind == "project" and "project" in place.ids and place.deepest == "project":
        if call.accounts.rights(call.user, item) < DELETE:
            raise Refusal(403, "Specified user account has insufficient privileges")
        store.delete(item, remove_files=call.flag("removeFiles"))
        return empty()
    if "project" in place.ids and item.kind in ("subject", "experiment", "assessor"):
        url_project = store.find_project(place.ids["project"])
        if url_project is not None and url_project.id != item.project:
            require_project(call, url_project, EDIT)
            store.unshare(item, url_project)
            return empty()
    require(call, item, DELETE)
    refuse_open_workflow(call, item)
    store.delete(item, remove_files=call.flag("removeFiles"))
    return empty()
