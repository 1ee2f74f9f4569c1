"""The data of a sandbox: the items of the tree; what hangs on them is kept by `catalog.py`.

Seeds and tests write through this class directly; the server uses nothing else. All calls are
synchronous and quick. Many writes at once belong inside `with store.transaction():`.

Words: an *item* is a project, subject, experiment, scan, assessor or reconstruction. Its `code` is
the ID (project ID, accession ID, scan ID), its `label` what people call it. An item's `doc` is its
own XML without scans, assessors, reconstructions, shares and resource entries: those are rows.

On disk, below `root/archive`:
`P/arc001/SESSION/SCANS/ID/LABEL/…`, `P/arc001/SESSION/RESOURCES/LABEL/…`,
`P/arc001/SESSION/ASSESSORS/A/out/LABEL/…`, `P/arc001/SESSION/PROCESSED/R/out/LABEL/…`,
`P/subjects/SUBJECT/LABEL/…`, `P/resources/LABEL/…`. Names are mapped by `bodies.safe_segment`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec

from . import documents
from .bodies import safe_segment
from .catalog import Catalog
from .vocabulary import KIND_TYPES, XSI_TYPE, root_of

_ITEM = (
    "id, kind, code, project, parent, label, xsi, doc, folder, inserted, modified, author, status"
)
_ITEM_I = ", ".join(f"i.{name}" for name in _ITEM.split(", "))
_OWN_FOLDER = {"scan": "SCANS", "assessor": "ASSESSORS", "reconstruction": "PROCESSED"}


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the tree. `project` and `parent` are row ids; a project's own is its project."""

    id: int
    kind: str
    code: str
    project: int
    parent: int | None
    label: str
    xsi: str
    doc: str
    folder: str
    inserted: str
    modified: str
    author: str
    status: str

    def element(self) -> ET.Element:
        """The item's own document as an element that the caller may change."""
        return documents.parse(self.doc)


def now() -> str:
    """The time as XNAT's tables write it: local, without zone, tenths of a second."""
    return timestamp(time.time())


def timestamp(moment: float) -> str:
    """A moment in the form of `now`."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) + f".{int(moment * 10) % 10}"


class Store(Catalog):
    """A sandbox's data below one folder. See the module's docstring for the words."""

    def __init__(
        self, root: Path, *, site_id: str = "SANDBOX", discard_bodies: bool = False
    ) -> None:
        super().__init__(root, discard_bodies=discard_bodies)
        self.site_id = site_id

    def next_id(self, letter: str) -> str:
        """A fresh accession ID: `SITE_S00001` (subjects) or `SITE_E00001` (experiments)."""
        while True:
            number = self.next_number(letter)
            code = f"{self.site_id.replace('-', '_')}_{letter}{number:05d}"
            if self.row("SELECT 1 FROM items WHERE code=?", code) is None:
                return code

    # ---- creating ------------------------------------------------------------------------

    def create_project(
        self,
        code: str,
        doc: str | ET.Element | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        author: str = "admin",
    ) -> Item:
        """A new project; name and secondary ID default to its ID; its author becomes owner.

        `fields` are short names or paths (`{"description": "…", "keywords": "a b"}`); `doc` is
        a whole `xnat:Project` document. New projects have prearchive code 4 and are private.
        """
        element = self._document("project", doc, fields, KIND_TYPES["project"])
        for name in ("secondary_ID",):
            if not element.get(name):
                element.set(name, code)
        if documents.child(element, "name") is None:
            documents.put(element, "project", "name", code)
        item = self._insert("project", code, code, element, author=author)
        self.db.execute("UPDATE items SET project=id WHERE id=?", (item.id,))
        self.db.execute("INSERT OR REPLACE INTO members VALUES(?,?,?)", (item.id, author, "owner"))
        return self.item(item.id)

    def create_subject(
        self,
        project: Item,
        label: str,
        doc: str | ET.Element | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        code: str | None = None,
        author: str = "admin",
    ) -> Item:
        """A new subject: `create_subject(p, "S1", fields={"gender": "female", "yob": "1980"})`.

        Custom variables: `fields={"fields/field[name=cohort]/field": "A"}`.
        """
        element = self._document("subject", doc, fields, KIND_TYPES["subject"])
        return self._insert(
            "subject", code or self.next_id("S"), label, element, parent=project, author=author
        )

    def create_experiment(
        self,
        subject: Item,
        label: str,
        xsi: str = "xnat:mrSessionData",
        doc: str | ET.Element | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        code: str | None = None,
        author: str = "admin",
        project: Item | None = None,
    ) -> Item:
        """A new session or other subject assessor in the subject's project (or in `project`).

        A `doc` may hold scans, reconstructions and assessors: they become items of their own.
        """
        element = self._document("experiment", doc, fields, xsi)
        owner = project or self.item(subject.project)
        item = self._insert(
            "experiment",
            code or self.next_id("E"),
            label,
            element,
            parent=subject,
            project=owner,
            author=author,
        )
        self.store_children(item, element, author=author)
        return item

    def create_scan(
        self,
        session: Item,
        code: str,
        xsi: str = "xnat:mrScanData",
        doc: str | ET.Element | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        author: str = "admin",
    ) -> Item:
        """A new scan: `create_scan(s, "3", fields={"type": "T1w", "quality": "usable"})`."""
        element = self._document("scan", doc, fields, xsi)
        element.set("ID", code)
        return self._insert("scan", code, code, element, parent=session, author=author)

    def create_assessor(
        self,
        session: Item,
        label: str,
        xsi: str = "xnat:qcManualAssessorData",
        doc: str | ET.Element | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        code: str | None = None,
        author: str = "admin",
    ) -> Item:
        """A new image assessor of a session."""
        element = self._document("assessor", doc, fields, xsi)
        return self._insert(
            "assessor", code or self.next_id("E"), label, element, parent=session, author=author
        )

    def create_reconstruction(
        self,
        session: Item,
        code: str,
        doc: str | ET.Element | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        author: str = "admin",
    ) -> Item:
        """A new reconstruction of a session."""
        element = self._document("reconstruction", doc, fields, "")
        element.set("ID", code)
        return self._insert("reconstruction", code, code, element, parent=session, author=author)

    def _document(
        self,
        kind: str,
        doc: str | ET.Element | None,
        fields: Mapping[str, str] | None,
        xsi: str,
    ) -> ET.Element:
        element = documents.parse(doc) if isinstance(doc, str) else doc
        if element is None:
            element = documents.new(kind, xsi)
        for key, value in (fields or {}).items():
            path = documents.resolve_path(kind, documents.xsi_of(element), key)
            if path:
                documents.put(element, kind, path, value)
        return element

    def _insert(
        self,
        kind: str,
        code: str,
        label: str,
        element: ET.Element,
        *,
        parent: Item | None = None,
        project: Item | None = None,
        author: str,
    ) -> Item:
        owner = project.id if project else parent.project if parent else None
        folder = self._folder_for(kind, label, parent, project)
        xsi = KIND_TYPES.get(kind) or documents.xsi_of(element)
        doc, fields = self._split(kind, element)
        stamp = now()
        cursor = self.db.execute(
            "INSERT INTO items(kind, code, project, parent, label, xsi, doc, folder, inserted, "
            "modified, author, status, fields) VALUES(?,?,?,?,?,?,?,?,?,?,?,'active',?)",
            (
                kind, code, owner, parent.id if parent else None, label, xsi, doc, folder, stamp,
                stamp, author, fields,
            ),
        )  # fmt: skip
        item = self.item(int(cursor.lastrowid or 0))
        self._store_entries(item, element, replace=False)
        return item

    def _store_entries(self, item: Item, element: ET.Element, *, replace: bool) -> None:
        """Make or change the resources that a document's catalog entries name.

        With `replace`, resources without an entry are dropped (their files stay on disk).
        """
        entries: list[tuple[str, ET.Element]] = []
        if item.kind == "scan":
            entries = [("", e) for e in element if documents.local(e.tag) == "file"]
        elif item.kind in ("assessor", "reconstruction"):
            for bucket in ("in", "out"):
                entries += [(bucket, e) for e in documents.child(element, bucket) or ()]
        else:
            entries = [("", e) for e in documents.child(element, "resources") or ()]
        mine = {(r.bucket, r.label): r for r in reversed(self.resources(item))}
        kept = set()
        for bucket, entry in entries:
            label = entry.get("label", "")
            tags = ",".join(e.text or "" for e in entry.iter() if documents.local(e.tag) == "tag")
            columns = {
                name: value
                for name in ("format", "content", "description")
                if (value := entry.get(name)) is not None
            } | ({"tags": tags} if tags else {})
            found = mine.get((bucket, label))
            if found is None:
                found = self.create_resource(item, label, bucket=bucket, **columns)
            else:
                self.update_resource(found, **columns)
            kept.add(found.id)
        if replace:
            for resource in mine.values():
                if resource.id not in kept:
                    self.delete_resource(resource, remove_files=False)

    def _folder_for(
        self, kind: str, label: str, parent: Item | None, project: Item | None = None
    ) -> str:
        name = safe_segment(label)
        if kind == "project" or parent is None:
            return name
        if kind == "subject":
            return f"{parent.folder}/subjects/{name}"
        if kind == "experiment":
            owner = project or self.item(parent.project)
            return f"{owner.folder}/arc001/{name}"
        return f"{parent.folder}/{_OWN_FOLDER[kind]}/{name}"

    @staticmethod
    def _split(kind: str, element: ET.Element) -> tuple[str, str]:
        """The stored text of a document and its flat fields as JSON; rows are taken out of it."""
        own = deepcopy(element)
        taken = {
            "project": ("sharing", "resources"),
            "subject": ("sharing", "resources"),
            "experiment": ("sharing", "resources", "scans", "reconstructions", "assessors"),
            "assessor": ("sharing",),
            "scan": ("sharing", "file"),
        }
        for name in taken.get(kind, ()):
            documents.take(own, name)
        if kind in ("assessor", "reconstruction"):
            documents.take(own, "in")
            documents.take(own, "out")
        if kind == "subject":
            documents.take(own, "experiments")
        flat = documents.flatten(own)
        return documents.write(own), msgspec.json.encode(flat).decode()

    def store_children(
        self, session: Item, element: ET.Element, *, author: str, replace: bool = False
    ) -> None:
        """Make or merge the scans, reconstructions and assessors that a session document holds.

        With `replace`, children that the document lacks are deleted with their resources.
        """
        for name, kind in (
            ("scans", "scan"), ("reconstructions", "reconstruction"), ("assessors", "assessor"),
        ):  # fmt: skip
            wrapper = documents.child(element, name)
            seen = set()
            for sub in wrapper if wrapper is not None else ():
                seen.add(self.store_child(session, kind, sub, author=author, replace=replace))
            if replace:
                for item in self.children(session, kind):
                    if item.id not in seen:
                        self.delete(item, remove_files=False)

    def store_child(
        self, session: Item, kind: str, sub: ET.Element, *, author: str, replace: bool = False
    ) -> int:
        """Make or change one scan, reconstruction or assessor of a session; returns its row id."""
        ident = sub.get("label") if kind == "assessor" else sub.get("ID")
        found = self.find_child(session, kind, ident or sub.get("ID") or "")
        if found is None:
            if kind == "scan":
                code = ident or str(len(self.children(session, "scan")) + 1)
                return self.create_scan(session, code, doc=sub, author=author).id
            if kind == "reconstruction":
                return self.create_reconstruction(session, ident or "1", sub, author=author).id
            root = ET.Element(documents.qualified(root_of(documents.xsi_of(sub))))
            root.attrib = {k: v for k, v in sub.attrib.items() if k not in (XSI_TYPE, "ID")}
            root.extend(list(sub))
            label = ident or sub.get("ID") or self.next_id("E")
            return self.create_assessor(
                session, label, documents.xsi_of(sub), root, author=author
            ).id
        base = sub if replace else found.element()
        if not replace:
            documents.merge(base, sub)
        self.update(found, element=base, replace=replace)
        return found.id

    # ---- finding -------------------------------------------------------------------------

    def item(self, number: int) -> Item:
        """The item of a row id; KeyError when there is none."""
        row = self.row(f"SELECT {_ITEM} FROM items WHERE id=?", number)
        if row is None:
            raise KeyError(number)
        return Item(*row)

    def find(self, where: str, *values: Any) -> list[Item]:
        """Items by an SQL condition on `items AS i`, in order of creation."""
        return [
            Item(*row)
            for row in self.rows(
                f"SELECT {_ITEM_I} FROM items i WHERE {where} ORDER BY i.id", *values
            )
        ]

    def find_project(self, ident: str) -> Item | None:
        """A project by its ID (exact case), else by alias."""
        found = self.find("kind='project' AND code=?", ident)
        if not found:
            found = [
                item
                for item in self.find("kind='project' AND doc LIKE ?", "%alias>%")
                if ident
                in (e.text for e in item.element().iter() if documents.local(e.tag) == "alias")
            ]
        return found[0] if found else None

    def find_subject(self, ident: str, project: Item | None = None) -> Item | None:
        """A subject by label in a project (any case, shared ones too), else by accession ID."""
        return self._labelled("subject", ident, project, nocase=True)

    def find_experiment(
        self, ident: str, project: Item | None = None, kind: str = "experiment"
    ) -> Item | None:
        """An experiment by label in a project (shared ones too), else by accession ID."""
        return self._labelled(kind, ident, project, nocase=False)

    def _labelled(self, kind: str, ident: str, project: Item | None, nocase: bool) -> Item | None:
        how = "COLLATE NOCASE" if nocase else ""
        if project is not None:
            found = self.find(f"kind=? AND project=? AND label=? {how}", kind, project.id, ident)
            if not found:
                found = self.find(
                    "kind=? AND EXISTS(SELECT 1 FROM shares s WHERE s.item=i.id AND s.project=? "
                    f"AND (s.label=? {how} OR i.code=?))",
                    kind, project.id, ident, ident,
                )  # fmt: skip
            if not found:
                found = self.find("kind=? AND code=? AND project=?", kind, ident, project.id)
            return found[0] if found else None
        found = self.find("kind=? AND code=?", kind, ident)
        return found[0] if found else None

    def children(self, parent: Item, kind: str) -> list[Item]:
        """Items below another one, in order of creation."""
        return self.find("parent=? AND kind=?", parent.id, kind)

    def find_child(self, parent: Item, kind: str, ident: str) -> Item | None:
        """A scan or reconstruction by ID, an assessor by ID or label."""
        found = self.find(
            "parent=? AND kind=? AND (code=? OR label=?)", parent.id, kind, ident, ident
        )
        return found[0] if found else None

    def fields(self, item: Item) -> dict[str, str]:
        """The flat fields of an item, by path."""
        row = self.row("SELECT fields FROM items WHERE id=?", item.id)
        return msgspec.json.decode(row[0], type=dict[str, str])

    def label_taken(self, project: Item, kind: str, label: str, but: int = 0) -> bool:
        """Whether a label is used in a project; experiments and assessors share one name space."""
        kinds = "('experiment','assessor')" if kind != "subject" else "('subject')"
        how = "COLLATE NOCASE" if kind == "subject" else ""
        own = self.row(
            f"SELECT 1 FROM items WHERE project=? AND kind IN {kinds} AND label=? {how} AND id<>?",
            project.id, label, but,
        )  # fmt: skip
        shared = self.row(
            f"SELECT 1 FROM shares s JOIN items i ON i.id=s.item WHERE s.project=? "
            f"AND i.kind IN {kinds} AND s.label=? {how} AND i.id<>?",
            project.id, label, but,
        )  # fmt: skip
        return bool(own or shared)

    # ---- changing ------------------------------------------------------------------------

    def update(
        self,
        item: Item,
        *,
        element: ET.Element | None = None,
        fields: Mapping[str, str] | None = None,
        status: str | None = None,
        replace: bool = False,
    ) -> Item:
        """Store a new own document, fields of it, or a status; catalog entries change resources.

        With `replace`, resources that the document does not name are dropped.
        """
        if fields:
            base = item.doc if element is None else element
            element = self._document(item.kind, base, fields, item.xsi)
        if element is not None:
            self._store_entries(item, element, replace=replace)
            doc, flat = self._split(item.kind, element)
            xsi = KIND_TYPES.get(item.kind) or documents.xsi_of(element)
            self.db.execute(
                "UPDATE items SET doc=?, fields=?, xsi=?, modified=? WHERE id=?",
                (doc, flat, xsi, now(), item.id),
            )
        if status is not None:
            self.db.execute("UPDATE items SET status=? WHERE id=?", (status, item.id))
        return self.item(item.id)

    def touch(self, item: Item) -> None:
        """Note that something of an item has changed that its document does not hold."""
        self.db.execute("UPDATE items SET modified=? WHERE id=?", (now(), item.id))

    def relocate(
        self,
        item: Item,
        *,
        label: str | None = None,
        parent: Item | None = None,
        project: Item | None = None,
    ) -> Item:
        """Rename an item and/or move it below another parent or project, folders included."""
        with self.transaction():
            self.db.execute(
                "UPDATE items SET label=?, parent=?, project=? WHERE id=?",
                (
                    item.label if label is None else label,
                    item.parent if parent is None else parent.id,
                    item.project if project is None else project.id,
                    item.id,
                ),
            )
            if project is not None and item.kind == "experiment":
                self.db.execute("UPDATE items SET project=? WHERE parent=?", (project.id, item.id))
            moved = self.item(item.id)
            if moved.kind in ("experiment", "subject", "assessor"):
                above = self.item(moved.parent or 0)
                owner = self.item(moved.project)
                folder = self._folder_for(
                    moved.kind, moved.label, owner if moved.kind == "subject" else above, owner
                )
                self._move_folder(moved, folder)
        return self.item(item.id)

    def _move_folder(self, item: Item, folder: str) -> None:
        if folder == item.folder:
            return
        self.db.execute(
            "UPDATE items SET folder=? || substr(folder, ?) WHERE id=? OR parent=?",
            (folder, len(item.folder) + 1, item.id, item.id),
        )
        old, new = self.archive / item.folder, self.archive / folder
        if old.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)

    def share(self, item: Item, project: Item, label: str) -> None:
        """Share an item into another project under a label."""
        self.db.execute("INSERT OR REPLACE INTO shares VALUES(?,?,?)", (item.id, project.id, label))

    def unshare(self, item: Item, project: Item) -> bool:
        """Remove a share; whether there was one."""
        cursor = self.db.execute(
            "DELETE FROM shares WHERE item=? AND project=?", (item.id, project.id)
        )
        return cursor.rowcount > 0

    def shares(self, item: Item) -> list[tuple[str, str]]:
        """(project ID, label) of each share of an item."""
        return self.rows(
            "SELECT p.code, s.label FROM shares s JOIN items p ON p.id=s.project WHERE s.item=? "
            "ORDER BY p.code",
            item.id,
        )

    def delete(self, item: Item, *, remove_files: bool) -> None:
        """Delete an item with all below it; its folder too where `remove_files` says so.

        A deleted project's ID stays reserved.
        """
        with self.transaction():
            numbers = [item.id]
            level = [item.id]
            while level:
                marks = ",".join("?" * len(level))
                level = [
                    row[0]
                    for row in self.rows(f"SELECT id FROM items WHERE parent IN ({marks})", *level)
                ]
                numbers += level
            if item.kind == "project":
                numbers += [
                    r[0] for r in self.rows("SELECT id FROM items WHERE project=?", item.id)
                ]
                self.db.execute("INSERT OR IGNORE INTO used_codes VALUES(?)", (item.code,))
                self.db.execute("DELETE FROM settings WHERE scope=?", (item.code,))
                self.db.execute("DELETE FROM members WHERE project=?", (item.id,))
            for number in set(numbers):
                self.db.execute(
                    "DELETE FROM files WHERE resource IN (SELECT id FROM resources WHERE item=?)",
                    (number,),
                )
                self.db.execute("DELETE FROM resources WHERE item=?", (number,))
                self.db.execute("DELETE FROM shares WHERE item=? OR project=?", (number, number))
                self.db.execute("DELETE FROM items WHERE id=?", (number,))
        if remove_files:
            shutil.rmtree(self.archive / item.folder, ignore_errors=True)

    def folder_taken(self, project: Item, label: str) -> bool:
        """Whether files of a former session still lie where a new one of this label would go."""
        folder = self.archive / project.folder / "arc001" / safe_segment(label)
        return folder.is_dir() and any(path.is_file() for path in folder.rglob("*"))
