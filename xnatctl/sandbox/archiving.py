"""From the prearchive into the archive: conflicts, merging, and the locks around them.

1. Lock the entry and the destination session; a second comer is refused with 423.
2. Look for conflicts: an existing session without leave to merge, another subject, UID or type,
   a scan of that ID with another series, files of the same name without leave to replace.
3. Wait (`archive_s`): the real thing copies the whole destination session first.
4. Make subject, session and scans, move the files, write catalogs, drop the entry.

A conflict leaves the entry as CONFLICT with the reason in its log.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from . import documents
from .bodies import Digests, Hasher, digest_file, move_file, safe_path
from .catalog import Resource
from .dicom import anonymise
from .prearchive import UNASSIGNED, Entry, Stored
from .store import Item
from .web import pause

if TYPE_CHECKING:
    from .server import Sandbox


class ArchiveRefused(Exception):
    """Archiving was refused: `status` is what the cause deserves, callers often answer another."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Wish:
    """How a session is to be archived.

    `merge` allows an existing session, `replace` files of the same names and scans of the same
    ID; `prune` drops archived files that the new data lack. Empty names keep the entry's own.
    """

    login: str
    project: str = ""
    subject: str = ""
    label: str = ""
    merge: bool = False
    replace: bool = False
    prune: bool = False
    quarantine: bool = False
    trigger: bool = True
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a session becomes: its project, names, document and the existing session."""

    project: Item
    subject: str
    label: str
    element: ET.Element
    session: Item | None


async def archive(sandbox: Sandbox, entry: Entry, wish: Wish) -> str:
    """Archive an entry; returns the archive URI with labels. Raises ArchiveRefused."""
    if entry.busy:
        raise ArchiveRefused(423, "Session processing in progress: duplicate archive attempt")
    project = wish.project or entry.project
    destination = f"{project}/{wish.label or entry.name}"
    if destination in sandbox.locks:
        raise ArchiveRefused(423, "Destination session in use: another archive is running")
    sandbox.locks.add(destination)
    try:
        return await _archive(sandbox, entry, wish)
    finally:
        sandbox.locks.discard(destination)


async def _archive(sandbox: Sandbox, entry: Entry, wish: Wish) -> str:
    prearchive = sandbox.prearchive
    if not entry.doc:
        entry = prearchive.build(entry)
    entry = prearchive.set_status(entry, "_ARCHIVING")
    try:
        plan = _plan(sandbox, entry, wish)
        _refuse_conflicts(sandbox, entry, plan, wish)
        await pause(sandbox.settings.archive_s + _backup_s(sandbox, plan.session))
        session = await _move(sandbox, entry, plan, wish)
    except ArchiveRefused as refused:
        prearchive.set_status(entry, "CONFLICT", refused.message)
        raise
    except BaseException as error:
        if prearchive.get(entry.id) is not None:
            prearchive.set_status(entry, "ERROR", f"archiving failed: {error}")
        raise
    prearchive.delete(entry)
    sandbox.archived(session, plan.project, wish)
    return (
        f"/data/archive/projects/{plan.project.code}/subjects/{plan.subject}"
        f"/experiments/{plan.label}"
    )


def _backup_s(sandbox: Sandbox, session: Item | None) -> float:
    """How long the copy of the destination session takes that precedes every merge."""
    rate = sandbox.settings.merge_rate
    if session is None or not rate:
        return 0.0
    row = sandbox.store.row(
        "SELECT coalesce(sum(f.size), 0) FROM files f JOIN resources r ON r.id=f.resource "
        "JOIN items i ON i.id=r.item WHERE i.id=? OR i.parent=?",
        session.id, session.id,
    )  # fmt: skip
    return float(row[0]) / rate


def _plan(sandbox: Sandbox, entry: Entry, wish: Wish) -> _Plan:
    store = sandbox.store
    code = wish.project or entry.project
    project = None if code == UNASSIGNED else store.find_project(code)
    if project is None:
        raise ArchiveRefused(400, "unable to identify destination project")
    subject = wish.subject or entry.subject
    if not subject:
        raise ArchiveRefused(409, "unable to identify subject")
    label = wish.label or entry.name
    element = documents.parse(entry.doc)
    for key, value in wish.fields.items():
        path = documents.resolve_path("experiment", documents.xsi_of(element), key)
        if path:
            documents.put(element, "experiment", path, value)
    for name in ("label", "project", "ID"):
        element.attrib.pop(name, None)
    documents.take(element, "subject_ID")
    return _Plan(project, subject, label, element, store.find_experiment(label, project))


def _refuse_conflicts(sandbox: Sandbox, entry: Entry, plan: _Plan, wish: Wish) -> None:
    found = conflicts(sandbox, entry, plan, wish)
    if found:
        raise ArchiveRefused(409, found[0][1])


def validate(sandbox: Sandbox, entry: Entry, wish: Wish) -> list[tuple[int, str]]:
    """(code, message) of everything that stands in the way of archiving an entry."""
    if not entry.doc:
        entry = sandbox.prearchive.build(entry)
    try:
        plan = _plan(sandbox, entry, wish)
    except ArchiveRefused as refused:
        return [(6 if refused.status == 400 else 11, refused.message)]
    found = conflicts(sandbox, entry, plan, wish)
    if sandbox.store.find_subject(plan.subject, plan.project) is None:
        found.append((12, f"Subject {plan.subject} will be created"))
    return found


def conflicts(sandbox: Sandbox, entry: Entry, plan: _Plan, wish: Wish) -> list[tuple[int, str]]:
    """The conflicts between an entry and what the archive holds, worst first."""
    store, session = sandbox.store, plan.session
    if session is None:
        if store.label_taken(plan.project, "experiment", plan.label):
            return [(2, "Invalid modification of session label via archive process")]
        return []
    found: list[tuple[int, str]] = []
    owner = store.item(session.parent or 0)
    if owner.label.lower() != plan.subject.lower() and owner.code != plan.subject:
        found.append((4, "Invalid modification of session subject via archive process"))
    if session.project != plan.project.id:
        found.append((3, "Invalid modification of session project via archive process"))
    uid = store.fields(session).get("UID", "")
    if uid and entry.tag and uid != entry.tag:
        found.append((5, "Invalid modification of session UID via archive process"))
    if session.xsi != documents.xsi_of(plan.element):
        found.append((19, "Invalid modification of session modality via archive process"))
    if store.row(
        "SELECT 1 FROM workflows WHERE item=? AND status IN ('Queued','Running','In Progress')",
        session.code,
    ):
        found.append((10, "Session processing in progress: a workflow is open"))
    if not wish.merge:
        found.append((1, "Session already exists, retry with overwrite enabled"))
    if not wish.replace:
        found += _clashes(sandbox, entry, session)
    return found


def _clashes(sandbox: Sandbox, entry: Entry, session: Item) -> list[tuple[int, str]]:
    store = sandbox.store
    for code, (facts, _, _) in sandbox.prearchive.facts(entry).items():
        scan = store.find_child(session, "scan", code)
        if scan is None:
            continue
        uid = store.fields(scan).get("UID", "")
        if uid and uid != facts.series:
            return [(16, f"Session already contains a scan ({code}) with another UID")]
        resource = _dicom(sandbox, scan)
        names = {file.path for file in store.files(resource)} if resource else set()
        if any(one.name in names for one in sandbox.prearchive.objects(entry, code)):
            return [(17, f"Session already exists with matching files in scan {code}")]
    return []


def _dicom(sandbox: Sandbox, scan: Item) -> Resource | None:
    return next((r for r in sandbox.store.resources(scan) if r.label == "DICOM"), None)


async def _move(sandbox: Sandbox, entry: Entry, plan: _Plan, wish: Wish) -> Item:
    store = sandbox.store
    session = plan.session
    names = _scan_names(sandbox, entry, session, plan.element)
    with store.transaction():
        if session is None:
            subject = store.find_subject(plan.subject, plan.project) or store.create_subject(
                plan.project, plan.subject, author=wish.login
            )
            session = store.create_experiment(
                subject, plan.label, doc=plan.element, author=wish.login, project=plan.project
            )
        else:
            base = session.element()
            documents.merge(base, _bare(plan.element))
            session = store.update(session, element=base)
            store.store_children(session, plan.element, author=wish.login)
        quarantined = store.setting(plan.project.code, "quarantine_code", "0") == "1"
        if wish.quarantine or quarantined:
            store.update(session, status="quarantine")
    script = sandbox.script(plan.project.code)
    variables = {"project": plan.project.code, "subject": plan.subject, "session": plan.label}
    for code, target in names.items():
        scan = store.find_child(session, "scan", target)
        if scan is None:
            raise ArchiveRefused(500, f"scan {target} was not created")
        resource = _dicom(sandbox, scan) or store.create_resource(
            scan, "DICOM", format="DICOM", content="RAW"
        )
        objects = sandbox.prearchive.objects(entry, code)
        if wish.prune:
            new = {one.name for one in objects}
            for file in store.files(resource):
                if file.path not in new:
                    store.remove_file(resource, file)
        await _move_objects(sandbox, entry, objects, resource, script, variables)
    await _move_resources(sandbox, entry, session)
    return session


async def _move_resources(sandbox: Sandbox, entry: Entry, session: Item) -> None:
    """Move what was uploaded beside the scans into resources of the session."""
    store = sandbox.store
    for label, files in sandbox.prearchive.resources(entry).items():
        resource = next(
            (r for r in store.resources(session) if r.label == label), None
        ) or store.create_resource(session, label)
        for name, file in files:
            digests = await asyncio.to_thread(digest_file, file)
            store.catalog(resource, name, digests, body=store.adopt(resource, name, file))


def _bare(element: ET.Element) -> ET.Element:
    bare = ET.Element(element.tag, dict(element.attrib))
    bare.text = element.text
    bare.extend([sub for sub in element if documents.local(sub.tag) != "scans"])
    return bare


def _scan_names(
    sandbox: Sandbox, entry: Entry, session: Item | None, element: ET.Element
) -> dict[str, str]:
    """The archive's scan ID for each scan; one whose ID another series holds becomes 3-MR1."""
    names = {}
    wrapper = documents.child(element, "scans")
    for code, (facts, _, _) in sandbox.prearchive.facts(entry).items():
        name, count = code, 0
        while session is not None:
            held = sandbox.store.find_child(session, "scan", name)
            uid = sandbox.store.fields(held).get("UID", "") if held is not None else ""
            if held is None or not uid or uid == facts.series:
                break
            count += 1
            name = f"{code}-{facts.modality or 'OT'}{count}"
        names[code] = name
        for scan in wrapper if wrapper is not None else ():
            if scan.get("ID") == code:
                scan.set("ID", name)
    return names


async def _move_objects(
    sandbox: Sandbox,
    entry: Entry,
    objects: list[Stored],
    resource: Resource,
    script: str,
    variables: dict[str, str],
) -> None:
    """Move a scan's objects into its resource, through the project's script if there is one."""
    store = sandbox.store
    folder = store.resource_folder(resource)
    rows: list[tuple[Stored, Digests]] = []
    for count, one in enumerate(objects):
        digests = Digests(one.size, one.md5, one.crc)
        if one.body == "disk":
            source = sandbox.prearchive.object_path(entry, one.scan, one.name)
            target = folder / safe_path(one.name)
            if script:
                data = await asyncio.to_thread(anonymise, source.read_bytes(), script, variables)
                hasher = Hasher()
                hasher.feed(data)
                digests = hasher.digests()
                source.write_bytes(data)
            move_file(source, target)
        rows.append((one, digests))
        if count % 200 == 199:
            await asyncio.sleep(0)
    with store.transaction():
        store.catalog_all(resource, ((one.name, digests, one.body) for one, digests in rows))
        store.refresh_stats(resource)
