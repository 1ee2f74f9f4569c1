"""The XAR importer: documents with their files, straight into the archive.

As the server's importer reads one:

1. The archive is unpacked. A single folder at its top is entered.
2. Every `.xml` at the top is an item's document; no document, two kinds of them, or two sessions
   are 400. A session's document must name a project and a subject, others must name their session.
3. The other folders and files go into the session's folder. A lone folder without files beside
   it only contains them.
4. The items are stored: a known ID or label is updated, resources that exist get the files added.

A resource's files are those of the catalog that its `URI` points at (seen from the session's
folder), or all beside it where the archive holds no catalog.
"""

from __future__ import annotations

import posixpath
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from aiohttp import web

from . import documents
from .accounts import EDIT
from .bodies import Digests, safe_path
from .creating import LEGAL
from .finding import find_experiment
from .members import members
from .receiving import Spool
from .store import Item
from .vocabulary import KIND_TYPES, is_session
from .web import Call, Refusal, text

_CHILDREN = {"scans": "scan", "reconstructions": "reconstruction", "assessors": "assessor"}


@dataclass(slots=True)
class _Unpacked:
    """What was in a XAR: documents and catalogs as bytes, the other files on disk."""

    folder: Path
    papers: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, Digests] = field(default_factory=dict)

    def enter(self, top: str) -> None:
        """Leave out a folder that all names begin with."""
        cut = len(top) + 1
        self.papers = {_cut(name, top, cut): data for name, data in self.papers.items()}
        files = {}
        for name, digests in self.files.items():
            files[_cut(name, top, cut)] = digests
            if self.path(name).exists() and _cut(name, top, cut) != name:
                target = self.path(_cut(name, top, cut))
                target.parent.mkdir(parents=True, exist_ok=True)
                self.path(name).rename(target)
        self.files = files

    def path(self, name: str) -> Path:
        return self.folder / safe_path(name)

    def tops(self) -> tuple[set[str], set[str]]:
        """The folders and the files at the top, documents left out."""
        names = [name.partition("/") for name in (*self.papers, *self.files)]
        folders = {head for head, slash, _ in names if slash}
        return folders, {head for head, slash, _ in names if not slash and head in self.files}


def _cut(name: str, top: str, count: int) -> str:
    return name[count:] if name.startswith(f"{top}/") else name


async def receive(call: Call, name: str, pieces: AsyncIterator[Any]) -> web.Response:
    """Import a XAR. Answers the address of the session (by its ID), raises Refusal or BadZip."""
    folder = call.store.root / "tmp" / f"xar-{secrets.token_hex(8)}"
    try:
        found = await _unpack(call, name, pieces, folder)
        items = _documents(found)
        folders, extra = found.tops()
        if len(folders) == 1 and not extra:
            found.enter(folders.pop())
        with call.store.transaction():
            codes = [_store(call, found, element) for element in items]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    lines = [f"/data/archive/experiments/{code}\r\n" for code in dict.fromkeys(codes)]
    return text("".join(lines), media="text/uri-list")


async def _unpack(
    call: Call, name: str, pieces: AsyncIterator[Any], folder: Path
) -> _Unpacked:  # fmt: skip
    found = _Unpacked(folder)
    async for entry, data in members(name, pieces):
        parts = [part for part in entry.split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            continue
        path = "/".join(parts)
        if path.lower().endswith(".xml") and (len(parts) < 3 or path.endswith("_catalog.xml")):
            found.papers[path] = b"".join([bytes(piece) async for piece in data])
            continue
        spool = Spool(call.store)
        found.files[path] = await spool.fill(data)
        spool.keep_at(found.path(path))
    folders, extra = found.tops()
    if not any("/" not in paper for paper in found.papers) and len(folders) == 1 and not extra:
        found.enter(folders.pop())
    return found


def _kind(xsi: str) -> str:
    if xsi.endswith("ScanData"):
        return "scan"
    if xsi == KIND_TYPES["reconstruction"]:
        return "reconstruction"
    return "session" if is_session(xsi) else "assessor"


def _documents(found: _Unpacked) -> list[ET.Element]:
    items = []
    for name in [name for name in found.papers if "/" not in name]:
        try:
            items.append(documents.parse(found.papers[name]))
        except documents.BadXml as error:
            raise Refusal(400, f"{name} cannot be read: {error}") from error
    kinds = {_kind(documents.xsi_of(element)) for element in items}
    if not kinds:
        raise Refusal(400, "Unable to locate XNAT xml document.")
    if len(kinds) > 1:
        raise Refusal(400, "Multiple data types cannot share a single XAR.")
    if kinds == {"session"} and len(items) > 1:
        raise Refusal(400, "XAR can only include data for one imaging session.")
    return items


def _text(element: ET.Element, *names: str) -> str:
    found = (documents.child(element, name) for name in names)
    return next((one.text or "" for one in found if one is not None), "")


def _store(call: Call, found: _Unpacked, element: ET.Element) -> str:
    """Store one document with its files; returns the ID of the session."""
    kind = _kind(documents.xsi_of(element))
    if kind == "session":
        session = _session(call, element)
        _add_files(call, found, session, element)
        return session.code
    ident = _text(element, "image_session_ID", "imageSession_ID")
    parent = find_experiment(call, ident, None) if ident else None
    if parent is None:
        raise Refusal(400, "All XNAT xml documents must reference a valid Imaging Session.")
    if call.accounts.item_rights(call.user, parent) < EDIT:
        raise Refusal(403, "Specified user account has insufficient privileges")
    number = call.store.store_child(parent, kind, element, author=call.user.login)
    _add_files(call, found, call.store.item(number), element)
    return parent.code


def _session(call: Call, element: ET.Element) -> Item:
    store = call.store
    project = store.find_project(element.get("project", ""))
    if project is None:
        raise Refusal(400, "Could not process XAR file - Invalid project tag.")
    if call.accounts.rights(call.user, project) < EDIT:
        raise Refusal(403, "Specified user account has insufficient privileges")
    ident = _text(element, "subject_ID")
    subject = store.find_subject(ident, project) if ident else None
    if subject is None:
        raise Refusal(400, "Could not process XAR file - Invalid subject.")
    code, label = element.get("ID", ""), element.get("label", "")
    existing = store.find_experiment(code) if code else None
    existing = existing or store.find_experiment(label, project)
    if existing is None:
        if not label or store.label_taken(project, "experiment", label):
            raise Refusal(409, f"The label {label!r} cannot be used")
        return store.create_experiment(
            subject, label, doc=element, code=code if LEGAL.match(code) else None,
            author=call.user.login, project=project,
        )  # fmt: skip
    if call.accounts.item_rights(call.user, existing) < EDIT:
        raise Refusal(403, "Specified user account has insufficient privileges")
    base = existing.element()
    documents.merge(base, element)
    updated = store.update(existing, element=base)
    store.store_children(updated, element, author=call.user.login)
    return updated


def _add_files(call: Call, found: _Unpacked, item: Item, element: ET.Element) -> None:
    store = call.store
    for entry, owner in _entries(call, item, element):
        resource = next(
            (r for r in store.resources(owner) if r.label == entry.get("label", "")), None
        )
        uri = entry.get("URI", "").lstrip("/")
        if resource is None or not uri:
            continue
        for path, name in _listed(found, uri):
            body = "none" if store.discard_bodies else store.adopt(resource, path, found.path(name))
            store.catalog(resource, path, found.files[name], body=body, stats=False)
        store.refresh_stats(resource)


def _entries(call: Call, item: Item, element: ET.Element) -> Iterator[tuple[ET.Element, Item]]:
    """The catalog entries of a document, each with the item that it belongs to."""
    for sub in element:
        name = documents.local(sub.tag)
        if name == "file":
            yield sub, item
        elif name in ("resources", "in", "out"):
            yield from ((entry, item) for entry in sub)
        elif name in _CHILDREN:
            for inner in sub:
                ident = inner.get("label") or inner.get("ID") or ""
                child = call.store.find_child(item, _CHILDREN[name], ident)
                if child is not None:
                    yield from _entries(call, child, inner)


def _listed(found: _Unpacked, uri: str) -> list[tuple[str, str]]:
    """(path inside the resource, name in the XAR) of the files of a catalog."""
    folder = posixpath.dirname(uri)
    paper = found.papers.get(uri)
    if paper is None:
        names = [name for name in found.files if name.startswith(f"{folder}/")]
        return [(name.removeprefix(f"{folder}/"), name) for name in names]
    try:
        catalog = documents.parse(paper)
    except documents.BadXml as error:
        raise Refusal(400, f"{uri} cannot be read: {error}") from error
    paths = [one.get("URI", "") for one in catalog.iter() if documents.local(one.tag) == "entry"]
    return [(path, f"{folder}/{path}") for path in paths if f"{folder}/{path}" in found.files]
