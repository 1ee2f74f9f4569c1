"""The archive's items: listing, showing, creating, changing, sharing and deleting them.

`handle` takes any /data path of projects, subjects, experiments, scans, assessors and
reconstructions; resources and files are answered by `files.py`. The order of checks is XNAT's:
what the URL names, then rights, then labels, then contents.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from xml.etree import ElementTree as ET

from aiohttp import web

from . import documents, files, listing, project_settings
from .accounts import DELETE, EDIT, READ
from .assembly import assemble
from .routing import Place, parse
from .store import Item
from .vocabulary import KIND_TYPES, SCAN_TYPES, is_session
from .web import Call, Refusal, empty, json, table, text

LEGAL = re.compile(r"[A-Za-z0-9_-]+$")
_RESERVED = {
    "format", "xsiType", "label", "req_format", "inbody", "allowDataDeletion", "accessibility",
    "event_type", "event_action", "event_reason", "event_comment", "event_id", "XNAT_CSRF",
    "activate", "quarantine", "_lock", "_unlock", "_obsolete", "fixScanTypes", "removeFiles",
    "pullDataFromHeaders", "triggerPipelines", "supressEmail", "primary", "moveAssessors",
    "concealHiddenFields", "includeHistory", "includeHeaders",
}  # fmt: skip
_STATES = {
    "activate": "active", "quarantine": "quarantine", "_lock": "locked", "_unlock": "active",
    "_obsolete": "obsolete",
}  # fmt: skip
_EXTRAS = {"DIR", "XAR", "DICOMDIR", "projects", "status", "history"}


async def handle(call: Call) -> web.StreamResponse:
    """Answer a request below /data/projects, /data/subjects or /data/experiments."""
    parts = call.path[1:]
    if parts[:1] == ["archive"]:
        parts = parts[1:]
    place = parse(parts)
    call.route = place.template
    if place.node in ("files", "resource", "resources"):
        return await files.handle(call, place)
    if place.node == "project" and place.rest:
        answer = await project_settings.handle(call, place)
        if answer is not None:
            return answer
    if place.rest and place.rest[0] not in _EXTRAS:
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
            return await _create_by_post(call, place)
        raise Refusal(405, "The method is not allowed for a list")
    if place.rest[:1] == ["projects"]:
        return await _share(call, place)
    verbs: dict[str, Callable[[Call, Place], Awaitable[web.StreamResponse]]] = {
        "GET": _show,
        "PUT": _PUT[place.node],
        "DELETE": _delete,
    }
    if call.method not in verbs:
        raise Refusal(405, "The method specified is not allowed for this resource")
    return await verbs[call.method](call, place)


# ---- what the URL names --------------------------------------------------------------------


def project_of(call: Call, place: Place, need: int = READ) -> Item:
    """The project of the URL; 404 when missing or unreadable, 403 without the needed right."""
    project = call.store.find_project(place.ids["project"])
    if project is None:
        raise Refusal(404, f"Unable to identify project: {place.ids['project']}")
    rights = call.accounts.rights(call.user, project)
    if rights < READ and not (need == READ and call.accounts.access(project) == "protected"):
        raise Refusal(404, f"Unable to identify project: {place.ids['project']}")
    if rights < need:
        raise Refusal(403, "Specified user account has insufficient privileges for this project")
    return project


def locate(call: Call, place: Place) -> Item:
    """The deepest item of the URL (project … scan); 404 when missing or unreadable.

    On subject-scoped paths the subject must exist in the project, but the session need not be
    its own; accession IDs are looked up before labels below the flat form.
    """
    item = _locate(call, place)
    if item.kind != "project" and call.accounts.item_rights(call.user, item) < READ:
        raise Refusal(404, "Unable to find the specified item")
    return item


def _locate(call: Call, place: Place) -> Item:
    ids = place.ids
    project = project_of(call, place) if "project" in ids else None
    item: Item | None = project
    if "subject" in ids and "experiment" not in ids:
        item = call.store.find_subject(ids["subject"], project)
    if "experiment" in ids:
        lists = place.node in ("scans", "assessors", "reconstructions") or place.deepest != (
            "experiment"
        )
        scoped = project is not None and "subject" in ids and lists
        if scoped and call.store.find_subject(ids["subject"], project) is None:
            raise Refusal(404, f"Unable to identify subject: {ids['subject']}")
        item = find_experiment(call, ids["experiment"], project)
    for kind in ("scan", "assessor", "reconstruction"):
        if kind in ids and item is not None:
            item = call.store.find_child(item, kind, ids[kind])
    if item is None:
        raise Refusal(404, "Unable to find the specified " + place.deepest)
    return item


def find_experiment(call: Call, ident: str, project: Item | None) -> Item | None:
    """A session, other subject assessor or image assessor by label (in a project) or ID."""
    found = call.store.find_experiment(ident, project)
    return found or call.store.find_experiment(ident, project, "assessor")


def require(call: Call, item: Item, need: int) -> None:
    """403 without the right on an item."""
    if call.accounts.item_rights(call.user, item) < need:
        raise Refusal(403, "Specified user account has insufficient privileges for this item")


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
    if extra in ("DIR", "XAR", "DICOMDIR"):
        return await files.export(call, item, place.rest)
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
    if wanted == "json":
        return json({"items": [documents.to_json(whole, {"start_date": item.inserted})]})
    if wanted in ("xml", "text/xml") or (
        not wanted and ("text/xml" in accept or "application/xml" in accept) and
        "text/html" not in accept
    ):  # fmt: skip
        return text(documents.write(whole, declaration=True), media="text/xml")
    return text(f"<html><body><h3>{item.label}</h3></body></html>", media="text/html")


# ---- create and change ---------------------------------------------------------------------


def apply_fields(call: Call, kind: str, element: ET.Element) -> None:
    """Write the request's field parameters into a document, as XNAT stores them.

    Keys of another type are ignored; so are classic custom variables of scans.
    """
    xsi = KIND_TYPES.get(kind) or documents.xsi_of(element)
    for key, value in call.params:
        if key in _RESERVED:
            continue
        path = documents.resolve_path(kind, xsi, key)
        if path is None or path in ("ID", "label", "project"):
            continue
        if kind == "scan" and path.startswith("fields/"):
            continue
        documents.put(element, kind, path, call.stored(value))


def _apply_state(call: Call, item: Item) -> None:
    for name, status in _STATES.items():
        if call.param(name) == "true":
            require(call, item, DELETE)
            call.store.update(item, status=status)


def _check_root(element: ET.Element | None, kind: str) -> None:
    if element is None:
        return
    xsi = documents.xsi_of(element)
    wrong = {
        "project": xsi != "xnat:projectData",
        "subject": xsi != "xnat:subjectData",
        "experiment": xsi in KIND_TYPES.values() or xsi in SCAN_TYPES,
        "assessor": xsi in KIND_TYPES.values() or is_session(xsi),
        "scan": not xsi.endswith("ScanData"),
        "reconstruction": False,
    }[kind]
    if wrong:
        raise Refusal(422, f"The document is a {xsi}, not a {kind}")


async def _put_project(call: Call, place: Place) -> web.StreamResponse:
    store, code = call.store, place.ids["project"]
    if call.user.guest:
        raise Refusal(403, "Guests may not create projects")
    element = await call.document()
    _check_root(element, "project")
    if element is not None and element.get("ID") not in (None, code):
        raise Refusal(417, "The project ID of the document is not that of the URL")
    existing = store.find_project(code)
    if existing is not None:
        if call.accounts.rights(call.user, existing) < EDIT:
            raise Refusal(
                403, "Specified user account has insufficient privileges for this project"
            )
        merged = _merged(call, existing, element)
        apply_fields(call, "project", merged)
        _check_project_names(call, merged, existing.code)
        with store.transaction():
            store.update(existing, element=merged, replace=call.flag("allowDataDeletion"))
        return empty()
    if not LEGAL.match(code):
        raise Refusal(417, f"Invalid character in project ID {code}")
    if store.row("SELECT 1 FROM used_codes WHERE code=?", code):
        raise Refusal(403, f"The project ID {code} was used in a previously deleted project")
    fresh = element if element is not None else documents.new("project")
    apply_fields(call, "project", fresh)
    _check_project_names(call, fresh, code)
    with store.transaction():
        project = store.create_project(code, fresh, author=call.user.login)
        if call.has("accessibility"):
            store.set_setting(code, "accessibility", call.param("accessibility"))
    call.accounts.touch(project)
    return empty()


def _check_project_names(call: Call, element: ET.Element, code: str) -> None:
    """409 where an ID, name, secondary ID or alias is in use elsewhere, whatever its case."""

    def names(ident: str, doc: ET.Element) -> set[str]:
        found = {ident, doc.get("secondary_ID", "")}
        for sub in doc.iter():
            if documents.local(sub.tag) in ("name", "alias"):
                found.add(sub.text or "")
        return {name.lower() for name in found if name}

    wanted = names(code, element)
    for other in call.store.find("kind='project' AND code<>?", code):
        if wanted & names(other.code, other.element()):
            raise Refusal(409, f"A project of this ID, name or alias exists: {other.code}")


def _merged(call: Call, item: Item, element: ET.Element | None) -> ET.Element:
    """The stored document with the sent one laid over it (or in its place)."""
    if element is not None and call.flag("allowDataDeletion"):
        return element
    base = item.element()
    if element is not None:
        documents.merge(base, element)
    return base


async def _put_subject(call: Call, place: Place) -> web.StreamResponse:
    store = call.store
    element = await call.document()
    _check_root(element, "subject")
    if "project" not in place.ids:
        item = locate(call, place)
        project = store.item(item.project)
    else:
        project = project_of(call, place, EDIT)
    label = (element.get("label") if element is not None else None) or place.ids["subject"]
    ident = element.get("ID") if element is not None else None
    existing = store.find_subject(place.ids["subject"], project)
    existing = existing or store.find_subject(label, project)
    if ident:
        existing = store.find_subject(ident) or existing
    if existing is None:
        other = store.find_subject(place.ids["subject"])
        if other is not None:
            raise Refusal(403, "The subject belongs to another project")
        if not label:
            raise Refusal(417, "The subject has no usable identifier")
        with store.transaction():
            fresh = element if element is not None else documents.new("subject")
            apply_fields(call, "subject", fresh)
            code = ident if ident and LEGAL.match(ident) else None
            name = call.param("label") or label
            if store.label_taken(project, "subject", name):
                raise Refusal(409, f"The subject label {name} is in use")
            item = store.create_subject(project, name, fresh, code=code, author=call.user.login)
        _apply_state(call, item)
        return text(item.code, 201)
    require(call, existing, EDIT)
    if call.has("project") and call.param("project") != store.item(existing.project).code:
        raise Refusal(409, "The primary project of a subject cannot be changed by a field")
    if call.has("label"):
        return _rename(call, existing)
    merged = _merged(call, existing, element)
    apply_fields(call, "subject", merged)
    with store.transaction():
        item = store.update(existing, element=merged, replace=call.flag("allowDataDeletion"))
    _apply_state(call, item)
    return text(item.code)


def _rename(call: Call, item: Item) -> web.Response:
    """`label=` on an existing item: rename and return, whatever else was sent."""
    new = call.param("label")
    _refuse_open_workflow(call, item)
    if new == item.label:
        return empty()
    project = call.store.item(item.project)
    if call.store.label_taken(project, item.kind, new, but=item.id):
        raise Refusal(409, f"The label {new} is in use")
    if item.kind == "experiment" and call.store.folder_taken(project, new):
        raise Refusal(409, f"An archive folder of the name {new} exists")
    call.store.relocate(item, label=new)
    call.sandbox.workflow(item, project.code, "Rename", "Complete", call.user.login)
    return empty()


def _refuse_open_workflow(call: Call, item: Item) -> None:
    if call.store.row(
        "SELECT 1 FROM workflows WHERE item=? AND status NOT LIKE 'Complete%' "
        "AND status NOT LIKE 'Failed%' AND status NOT LIKE 'Killed%'",
        item.code,
    ):
        raise Refusal(409, "The item is being processed by an open workflow")


async def _put_experiment(call: Call, place: Place) -> web.StreamResponse:
    """Create or change a session: see the module of the reference for who wins over whom.

    1. attributes of the document (label, project, ID) beat the URL;
    2. `label=` on an existing session renames it and drops the rest of the request;
    3. the URL's subject becomes the session's subject;
    4. visit and protocol are cleared unless this request fills an empty one.
    """
    element = await call.document()
    if "project" not in place.ids or "subject" not in place.ids:
        return _put_flat(call, place, element)
    store = call.store
    project = project_of(call, place, EDIT)
    _check_root(element, "experiment")
    label, also = place.ids["experiment"], None
    if element is not None:
        label = element.get("label") or label
        other = element.get("project")
        if other and other != project.code:
            primary = store.find_project(other)
            if primary is None or call.accounts.rights(call.user, primary) < EDIT:
                raise Refusal(403, f"The document's project {other} cannot be written")
            project, also = primary, project
    existing = _target_experiment(call, project, label, element)
    if existing is not None and call.has("label"):
        require(call, existing, EDIT)
        return _rename(call, existing)
    subject = store.find_subject(place.ids["subject"], project)
    with store.transaction():
        if existing is None:
            return _create_experiment(call, place, project, label, element, subject, also)
        require(call, existing, EDIT)
        if subject is None:
            subject = store.create_subject(project, place.ids["subject"], author=call.user.login)
        item = _update_experiment(call, existing, element, subject)
    _apply_state(call, item)
    if store.setting(project.code, "quarantine_code", "0") == "1":
        store.update(item, status="quarantine")
    return text(item.code)


def _put_flat(call: Call, place: Place, element: ET.Element | None) -> web.Response:
    """PUT at /experiments/ID or /projects/P/experiments/E: rename and state; fields get lost."""
    item = locate(call, place)
    require(call, item, EDIT)
    if call.has("label"):
        raise Refusal(400, "The label must be modified through the project and subject URI")
    _apply_state(call, item)
    if not call.settings.flat_put_ignored:
        merged = _merged(call, item, element)
        apply_fields(call, item.kind, merged)
        call.store.update(item, element=merged)
    return text(item.code)


def _target_experiment(
    call: Call, project: Item, label: str, element: ET.Element | None
) -> Item | None:
    store = call.store
    existing = store.find_experiment(label, project)
    ident = element.get("ID") if element is not None else None
    if not ident:
        return existing
    if not LEGAL.match(ident):
        raise Refusal(417, f"Invalid character in experiment ID {ident}")
    other = store.find_experiment(ident)
    if other is not None and other.project != project.id:
        raise Refusal(409, "The project must be modified through the share service")
    if other is None and existing is not None:
        raise Refusal(400, "ID cannot be modified")
    return other or existing


def _create_experiment(
    call: Call,
    place: Place,
    project: Item,
    label: str,
    element: ET.Element | None,
    subject: Item | None,
    also: Item | None,
) -> web.Response:
    store = call.store
    xsi = call.param("xsiType") or next(
        (key.partition("/")[0] for key, _ in call.params if re.match(r"\w+:\w+Data/", key)), ""
    )
    if element is None and not xsi:
        raise Refusal(417, "Need PUT Contents")
    if store.label_taken(project, "experiment", label):
        raise Refusal(409, f"The label {label} is in use")
    if store.folder_taken(project, label):
        raise Refusal(409, f"An archive folder of the name {label} exists")
    if subject is None:
        subject = store.create_subject(project, place.ids["subject"], author=call.user.login)
    fresh = element if element is not None else documents.new("experiment", xsi)
    apply_fields(call, "experiment", fresh)
    name = call.param("label") or label
    item = store.create_experiment(
        subject, name, doc=fresh, code=fresh.get("ID"), author=call.user.login, project=project
    )
    if also is not None:
        store.share(item, also, label)
    if store.setting(project.code, "quarantine_code", "0") == "1":
        store.update(item, status="quarantine")
    _apply_state(call, item)
    return text(item.code, 201)


def _update_experiment(
    call: Call, existing: Item, element: ET.Element | None, subject: Item
) -> Item:
    store = call.store
    replace = call.flag("allowDataDeletion") and element is not None
    if replace and element is not None and not element.get("project"):
        raise Refusal(409, "The project must be given when data deletion is allowed")
    before = existing.element()
    merged = _merged(call, existing, element)
    apply_fields(call, "experiment", merged)
    for name in ("visit", "visit_id", "protocol"):
        if before.get(name):
            merged.attrib.pop(name, None)
    item = store.update(existing, element=merged, replace=replace)
    if element is not None:
        store.store_children(item, element, author=call.user.login, replace=replace)
    if item.parent != subject.id:
        item = store.relocate(item, parent=subject)
    return item


async def _put_scan(call: Call, place: Place) -> web.StreamResponse:
    store = call.store
    session = _parent_session(call, place)
    element = await call.document()
    _check_root(element, "scan")
    code = place.ids["scan"]
    existing = store.find_child(session, "scan", code)
    xsi = call.param("xsiType") or (documents.xsi_of(element) if element is not None else "")
    if xsi in ("xnat:imageScanData",):
        raise Refusal(400, "xnat:imageScanData is abstract")
    if existing is None:
        if not xsi:
            raise Refusal(417, "Need PUT Contents")
        fresh = element if element is not None else documents.new("scan", xsi)
        apply_fields(call, "scan", fresh)
        with store.transaction():
            store.create_scan(session, code, doc=fresh, author=call.user.login)
        return empty()
    if xsi and xsi != existing.xsi:
        raise Refusal(409, f"The scan {code} exists with type {existing.xsi}")
    merged = _merged(call, existing, element)
    apply_fields(call, "scan", merged)
    with store.transaction():
        store.update(existing, element=merged, replace=call.flag("allowDataDeletion"))
    return empty()


def _parent_session(call: Call, place: Place) -> Item:
    """The session that a scan, assessor or reconstruction is put into; edit right needed."""
    above = Place("scans", {k: v for k, v in place.ids.items() if k not in (place.deepest,)})
    session = locate(call, above)
    require(call, session, EDIT)
    return session


async def _put_reconstruction(call: Call, place: Place) -> web.StreamResponse:
    store = call.store
    session = _parent_session(call, place)
    element = await call.document()
    code = place.ids["reconstruction"]
    existing = store.find_child(session, "reconstruction", code)
    with store.transaction():
        if existing is None:
            fresh = element if element is not None else documents.new("reconstruction")
            apply_fields(call, "reconstruction", fresh)
            store.create_reconstruction(session, code, fresh, author=call.user.login)
        else:
            merged = _merged(call, existing, element)
            apply_fields(call, "reconstruction", merged)
            store.update(existing, element=merged)
    return empty()


async def _put_assessor(call: Call, place: Place) -> web.StreamResponse:
    store = call.store
    session = _parent_session(call, place)
    element = await call.document()
    _check_root(element, "assessor")
    label = (element.get("label") if element is not None else None) or place.ids["assessor"]
    existing = store.find_child(session, "assessor", label)
    if existing is not None:
        if call.has("label"):
            raise Refusal(400, "The label must be modified through another URI")
        merged = _merged(call, existing, element)
        apply_fields(call, "assessor", merged)
        with store.transaction():
            store.update(existing, element=merged, replace=call.flag("allowDataDeletion"))
        return text(existing.code)
    xsi = call.param("xsiType")
    if element is None and not xsi:
        raise Refusal(417, "Need PUT Contents")
    if store.label_taken(store.item(session.project), "assessor", label):
        raise Refusal(409, f"The label {label} is in use")
    fresh = element if element is not None else documents.new("assessor", xsi)
    apply_fields(call, "assessor", fresh)
    ident = fresh.get("ID")
    code = ident if ident and store.find_experiment(ident, kind="assessor") is None else None
    with store.transaction():
        item = store.create_assessor(session, label, doc=fresh, code=code, author=call.user.login)
    return text(item.code, 201)


_PUT: dict[str, Callable[[Call, Place], Awaitable[web.StreamResponse]]] = {
    "project": _put_project,
    "subject": _put_subject,
    "experiment": _put_experiment,
    "scan": _put_scan,
    "assessor": _put_assessor,
    "reconstruction": _put_reconstruction,
}


async def _create_by_post(call: Call, place: Place) -> web.StreamResponse:
    """POST to a list: like PUT with the identifier from the fields; answers the URL's text."""
    await call.form()
    kind = place.node[:-1]
    element = await call.document() if call.media.endswith("xml") else None
    ident = call.param("ID" if kind in ("project", "scan", "reconstruction") else "label")
    if element is not None:
        ident = ident or element.get("label") or element.get("ID") or ""
    if not ident and kind == "scan":
        ident = str(len(call.store.children(locate(call, place), "scan")) + 1)
    if not ident:
        raise Refusal(417, f"The {kind} has no identifier")
    target = Place(kind, {**place.ids, kind: ident})
    try:
        locate(call, target)
    except Refusal as refusal:
        if refusal.status != 404:
            raise
    else:
        raise Refusal(409, f"The {kind} {ident} exists")
    call.params = [pair for pair in call.params if pair[0] != "label"]
    answer = await _PUT[kind](call, target)
    if answer.status not in (200, 201):
        return answer
    uri = f"/data/{'/'.join(p for p in call.path[1:] if p)}/{ident}"
    return text(uri, answer.status, Location=uri)


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


def require_project(call: Call, project: Item, need: int) -> None:
    """403 without the right in a project."""
    if call.accounts.rights(call.user, project) < need:
        raise Refusal(403, "Specified user account has insufficient privileges for this project")


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
            store.relocate(item, label=name, project=target)
    return empty(409 if clash else 200)


async def _delete(call: Call, place: Place) -> web.StreamResponse:
    item = locate(call, place)
    store = call.store
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
    _refuse_open_workflow(call, item)
    store.delete(item, remove_files=call.flag("removeFiles"))
    return empty()
