"""Creating and changing items: what a PUT or POST stores, and who wins over whom.

The order of checks is XNAT's: what the URL names, then rights, then labels, then contents.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from xml.etree import ElementTree as ET

from aiohttp import web

from . import documents
from .accounts import DELETE, EDIT
from .finding import locate, project_of, require
from .routing import Place
from .store import Item
from .vocabulary import KIND_TYPES, SCAN_TYPES, is_session
from .web import Call, Refusal, empty, text

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
    refuse_open_workflow(call, item)
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


def refuse_open_workflow(call: Call, item: Item) -> None:
    """409 while a workflow of the item is open."""
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


PUT: dict[str, Callable[[Call, Place], Awaitable[web.StreamResponse]]] = {
    "project": _put_project,
    "subject": _put_subject,
    "experiment": _put_experiment,
    "scan": _put_scan,
    "assessor": _put_assessor,
    "reconstruction": _put_reconstruction,
}


async def create_by_post(call: Call, place: Place) -> web.StreamResponse:
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
    ids = dict(place.ids)
    if kind == "subject" and "project" not in ids:
        ids["project"] = call.param("project") or (
            element.get("project", "") if element is not None else ""
        )
    target = Place(kind, {**ids, kind: ident})
    try:
        locate(call, target)
    except Refusal as refusal:
        if refusal.status != 404:
            raise
    else:
        raise Refusal(409, f"The {kind} {ident} exists")
    call.params = [pair for pair in call.params if pair[0] != "label"]
    answer = await PUT[kind](call, target)
    if answer.status not in (200, 201):
        return answer
    uri = f"/data/{'/'.join(p for p in call.path[1:] if p)}/{ident}"
    return text(uri, answer.status, Location=uri)
