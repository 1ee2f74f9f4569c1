"""The prearchive: sessions that have arrived and are not archived yet.

An `Entry` is one session in a time-stamped folder of a project (or of `Unassigned`), its objects
are rows beside files in `root/prearchive/PROJECT/TIMESTAMP/FOLDER/SCANS/ID/DICOM/`. This module
keeps rows and files and builds a session's document; who may do what, and when, is decided in
`importing.py`, `archiving.py` and `prearchive_api.py`.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec

from . import documents
from .bodies import Digests, safe_path, safe_segment
from .dicom import Facts, iso_date, iso_time, timestamp
from .receiving import files_below
from .settings import Settings
from .store import Item, Store, now
from .vocabulary import XNAT, XSI_TYPE, session_type_for

UNASSIGNED = "Unassigned"
RECEIVING = ("RECEIVING", "_RECEIVING", "RECEIVING_INTERRUPT")
# Data that arrives while a session is being archived still enters its folder: a known defect of
# the status check, kept.
OPEN = (*RECEIVING, "ARCHIVING", "_ARCHIVING")
_AUTO = {"4": "AutoArchive", "5": "AutoArchiveOverwrite"}
_ENTRY = (
    "id, project, timestamp, folder, name, subject, tag, status, uploaded, lastmod, touched, "
    "scan_date, scan_time, options, doc, log"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One session of the prearchive. `touched` is the time of the last arrival."""

    id: int
    project: str
    timestamp: str
    folder: str
    name: str
    subject: str
    tag: str
    status: str
    uploaded: str
    lastmod: str
    touched: float
    scan_date: str
    scan_time: str
    options: dict[str, str]
    doc: str
    log: list[str]

    @property
    def url(self) -> str:
        """The address without `/data`, as the table gives it."""
        return f"/prearchive/projects/{self.project}/{self.timestamp}/{self.folder}"

    @property
    def busy(self) -> bool:
        """Whether an operation holds the session."""
        return self.status.startswith(("_", "QUEUED"))

    def option(self, name: str) -> str:
        """An option of the import, empty when it was not given."""
        return self.options.get(name, "")


@dataclass(frozen=True, slots=True)
class Stored:
    """One received object."""

    scan: str
    name: str
    size: int
    md5: str
    crc: int
    uid: str
    series: str
    body: str


class Prearchive:
    """Rows and files of the prearchive."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings

    def _entries(self, where: str, *values: Any) -> list[Entry]:
        rows = self.store.rows(
            f"SELECT {_ENTRY} FROM prearchive WHERE {where} ORDER BY id", *values
        )
        found = []
        for row in rows:
            options = msgspec.json.decode(row[13], type=dict[str, str])
            columns: list[Any] = [*row[:13], options, row[14], msgspec.json.decode(row[15])]
            found.append(Entry(*columns))
        return found

    def get(self, number: int) -> Entry | None:
        """An entry by its row id; None when it is gone."""
        found = self._entries("id=?", number)
        return found[0] if found else None

    def find(self, project: str, stamp: str, folder: str) -> Entry | None:
        """An entry by project, timestamp and folder name."""
        found = self._entries("project=? AND timestamp=? AND folder=?", project, stamp, folder)
        return found[0] if found else None

    def entries(self, *, project: str | None = None, tag: str | None = None) -> list[Entry]:
        """Entries of a project, of a StudyInstanceUID, or all."""
        if tag is not None:
            return self._entries("tag=?", tag)
        if project is not None:
            return self._entries("project=?", project)
        return self._entries("1")

    def receiving(self, project: str, tag: str, name: str) -> Entry | None:
        """The entry into which more objects of a study go, if there is one."""
        marks = ",".join("?" * len(OPEN))
        found = self._entries(
            f"project=? AND tag=? AND name=? AND status IN ({marks})", project, tag, name, *OPEN
        )
        return found[-1] if found else None

    def create(
        self,
        project: str,
        name: str,
        *,
        subject: str,
        tag: str,
        options: dict[str, str],
        stamp: str = "",
        folder: str = "",
    ) -> Entry:
        """A new entry, RECEIVING; the timestamp is made unique."""
        moment = time.time()
        folder = folder or name
        chosen = stamp or timestamp(moment)
        while not stamp and self.find(project, chosen, folder) is not None:
            moment += 0.001
            chosen = timestamp(moment)
        stored = now()
        self.store.db.execute(
            "INSERT INTO prearchive(project, timestamp, folder, name, subject, tag, status, "
            "uploaded, lastmod, touched, scan_date, scan_time, options, doc, log) "
            "VALUES(?,?,?,?,?,?,'RECEIVING',?,?,?,'','',?,'','[]')",
            (
                project, chosen, folder, name, subject, tag, stored, stored, time.time(),
                msgspec.json.encode(options).decode(),
            ),
        )  # fmt: skip
        found = self.find(project, chosen, folder)
        if found is None:
            raise KeyError(folder)
        return found

    def change(self, entry: Entry, **columns: str) -> Entry:
        """Set columns of an entry (status, doc, name, subject, project …) and its lastmod."""
        columns = {**columns, "lastmod": now()}
        names = ", ".join(f"{name}=?" for name in columns)
        self.store.db.execute(
            f"UPDATE prearchive SET {names} WHERE id=?", (*columns.values(), entry.id)
        )
        return self.get(entry.id) or entry

    def set_status(self, entry: Entry, status: str, note: str = "") -> Entry:
        """Change the status; a note goes to the log."""
        log = [*entry.log, f"{now()} {status}: {note}"] if note else entry.log
        return self.change(entry, status=status, log=msgspec.json.encode(log).decode())

    def recover(self) -> None:
        """After a start: operations that a stop has broken off have failed."""
        for entry in self.entries():
            if entry.busy:
                self.set_status(entry, "ERROR", f"{entry.status} was interrupted")

    def touch(self, entry: Entry) -> None:
        """Objects have arrived: the idle time begins anew."""
        self.store.db.execute(
            "UPDATE prearchive SET touched=?, lastmod=? WHERE id=?",
            (time.time(), now(), entry.id),
        )

    def delete(self, entry: Entry) -> None:
        """Remove an entry with its files."""
        with self.store.transaction():
            self.store.db.execute("DELETE FROM objects WHERE entry=?", (entry.id,))
            self.store.db.execute("DELETE FROM prearchive WHERE id=?", (entry.id,))
        shutil.rmtree(self.path(entry), ignore_errors=True)

    def move(self, entry: Entry, project: str) -> Entry:
        """Put an entry into another project."""
        old = self.path(entry)
        moved = self.change(entry, project=project, status="READY")
        target = self.path(moved)
        if old.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            old.rename(target)
        return moved

    # ---- objects -------------------------------------------------------------------------

    def path(self, entry: Entry) -> Path:
        """The folder of an entry."""
        below = f"{safe_segment(entry.project)}/{entry.timestamp}/{safe_segment(entry.folder)}"
        return self.store.root / "prearchive" / below

    def object_path(self, entry: Entry, scan: str, name: str) -> Path:
        """Where an object lies."""
        return self.path(entry) / f"SCANS/{safe_segment(scan)}/DICOM/{safe_path(name)}"

    def resource_path(self, entry: Entry, label: str) -> Path:
        """Where the files of a session's own resource lie."""
        return self.path(entry) / "RESOURCES" / safe_segment(label)

    def resources(self, entry: Entry) -> dict[str, list[tuple[str, Path]]]:
        """The session's own resources: paths and files by label."""
        home = self.path(entry) / "RESOURCES"
        folders = sorted(home.iterdir()) if home.is_dir() else []
        return {folder.name: files_below(folder) for folder in folders}

    def scan_for(self, entry: Entry, facts: Facts) -> str:
        """The scan ID of an object: its series number; another series of that number becomes
        `3-MR1`."""
        row = self.store.row(
            "SELECT scan FROM objects WHERE entry=? AND series=? LIMIT 1", entry.id, facts.series
        )
        if row is not None:
            return str(row[0])
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", facts.number) or facts.series
        scan, count = plain, 0
        while self.store.row("SELECT 1 FROM objects WHERE entry=? AND scan=?", entry.id, scan):
            count += 1
            scan = f"{plain}-{facts.modality or 'OT'}{count}"
        return scan

    def free_name(self, entry: Entry, scan: str, name: str, uid: str) -> str:
        """The name under which an object is kept.

        Entry names lose their folders. Where that makes two different objects meet, the second is
        named by its UID (what a server does then is not documented).
        """
        row = self.store.row(
            "SELECT uid FROM objects WHERE entry=? AND scan=? AND name=?", entry.id, scan, name
        )
        return name if row is None or row[0] == uid else f"{uid}.dcm"

    def add(
        self, entry: Entry, scan: str, name: str, digests: Digests, facts: Facts, body: str
    ) -> None:
        """Record an object whose bytes are in place."""
        self.store.db.execute(
            "INSERT OR REPLACE INTO objects VALUES(?,?,?,?,?,?,?,?,?,?)",
            (
                entry.id, scan, name, digests.size, digests.md5, digests.crc, facts.uid,
                facts.series, body, msgspec.json.encode(facts).decode(),
            ),
        )  # fmt: skip

    def objects(self, entry: Entry, scan: str | None = None) -> list[Stored]:
        """The objects of an entry (or of one scan), by scan and name."""
        sql = "SELECT scan, name, size, md5, crc, uid, series, body FROM objects WHERE entry=?"
        rows = (
            self.store.rows(sql, entry.id)
            if scan is None
            else self.store.rows(sql + " AND scan=?", entry.id, scan)
        )
        return [Stored(*row) for row in rows]

    def facts(self, entry: Entry) -> dict[str, tuple[Facts, int, int]]:
        """The first object's facts, the number of objects and their bytes for each scan."""
        rows = self.store.rows(
            "SELECT scan, facts, count(*), sum(size), min(name) FROM objects WHERE entry=? "
            "GROUP BY scan",
            entry.id,
        )
        found = {
            row[0]: (msgspec.json.decode(row[1], type=Facts), int(row[2]), int(row[3]))
            for row in rows
        }
        return dict(sorted(found.items(), key=lambda pair: _natural(pair[0])))

    # ---- building ------------------------------------------------------------------------

    def build(self, entry: Entry) -> Entry:
        """Write the session document from the objects; the entry is READY, or ERROR without any."""
        scans = self.facts(entry)
        if not scans:
            return self.set_status(entry, "ERROR", "no scan could be found")
        first = next(iter(scans.values()))[0]
        root = session_document(entry, scans)
        for name in ("VISIT", "PROTOCOL"):
            if entry.option(name):
                root.set("visit" if name == "VISIT" else "protocol", entry.option(name))
        date = iso_date(first.date)
        return self.change(
            entry,
            doc=documents.write(root),
            status="READY",
            scan_date=f"{date} 00:00:00.0" if date else "",
            scan_time=iso_time(first.time),
        )

    # ---- tables --------------------------------------------------------------------------

    def auto(self, entry: Entry) -> str:
        """The project's archiving rule as the table words it."""
        code = self.store.prearchive_code(entry.project)
        return "Manual" if entry.project == UNASSIGNED else _AUTO.get(code, "Manual")

    def row(self, entry: Entry) -> dict[str, str]:
        """The table row of an entry."""
        return {
            "project": entry.project, "timestamp": entry.timestamp, "lastmod": entry.lastmod,
            "uploaded": entry.uploaded, "scan_date": entry.scan_date,
            "scan_time": entry.scan_time, "subject": entry.subject, "folderName": entry.folder,
            "name": entry.name, "tag": entry.tag, "status": entry.status, "url": entry.url,
            "autoarchive": self.auto(entry),
            "prevent_anon": entry.option("prevent_anon") or "false",
            "prevent_auto_commit": entry.option("prevent_auto_commit") or "false",
            "SOURCE": entry.option("SOURCE"), "VISIT": entry.option("VISIT"),
            "PROTOCOL": entry.option("PROTOCOL"), "TIMEZONE": entry.option("TIMEZONE"),
        }  # fmt: skip


def _natural(text: str) -> tuple[int, str]:
    match = re.match(r"\d+", text)
    return (int(match[0]) if match else 1 << 30, text)


def session_document(entry: Entry, scans: dict[str, tuple[Facts, int, int]]) -> ET.Element:
    """The document that a build makes of a session's objects."""
    first = next(iter(scans.values()))[0]
    modalities = {facts.modality for facts, _, _ in scans.values()}
    root = documents.new("experiment", session_type_for(modalities))
    main = documents.xsi_of(root).removeprefix("xnat:").removesuffix("SessionData")
    values = {
        "UID": entry.tag, "label": entry.name, "date": iso_date(first.date),
        "time": iso_time(first.time), "dcmAccessionNumber": first.accession,
        "dcmPatientId": first.patient_id, "dcmPatientName": first.patient_name,
        "session_type": first.study_description, "scanner": first.station,
        "operator": first.operator, "scanner/manufacturer": first.manufacturer,
        "scanner/model": first.model, "subject_ID": entry.subject,
        "modality": {"pet": "PT", "petmr": "PT"}.get(main, first.modality),
        "fieldStrength": first.field_strength if main == "mr" else "",
    }  # fmt: skip
    if entry.project != UNASSIGNED:
        values["project"] = entry.project
    for path, value in values.items():
        if value:
            documents.put(root, "experiment", path, value)
    documents.container(
        root,
        "scans",
        [_scan(entry, code, *facts) for code, facts in scans.items()],
    )
    return root


def _scan(entry: Entry, code: str, facts: Facts, count: int, size: int) -> ET.Element:
    scan = documents.new("scan", facts.xsi)
    frames = int(facts.frames) if facts.frames.isdigit() else 1
    spacing = facts.spacing.split("\\")
    values = {
        "ID": code, "UID": facts.series, "type": facts.description or facts.modality,
        "series_description": facts.description, "quality": "usable",
        "modality": facts.modality, "frames": str(max(count, frames)),
        "startTime": iso_time(facts.time), "scanner/manufacturer": facts.manufacturer,
        "parameters/voxelRes/x": spacing[0] if len(spacing) == 2 else "",
        "parameters/voxelRes/y": spacing[1] if len(spacing) == 2 else "",
        "parameters/voxelRes/z": facts.thickness, "parameters/fov/x": facts.columns,
        "parameters/fov/y": facts.rows, "parameters/tr": facts.tr, "parameters/te": facts.te,
        "parameters/ti": facts.ti, "parameters/flip": facts.flip,
        "fieldStrength": facts.field_strength,
    }  # fmt: skip
    for path, value in values.items():
        if value:
            documents.put(scan, "scan", path, value)
    file = ET.SubElement(
        scan,
        f"{{{XNAT}}}file",
        {
            "label": "DICOM", "format": "DICOM", "content": "RAW", "file_count": str(count),
            "file_size": str(size), "URI": f"SCANS/{code}/DICOM/scan_{code}_catalog.xml",
        },
    )  # fmt: skip
    file.set(XSI_TYPE, "xnat:resourceCatalog")
    return scan


def target_project(store: Store, entry: Entry) -> Item | None:
    """The project of an entry, None for Unassigned."""
    return None if entry.project == UNASSIGNED else store.find_project(entry.project)
