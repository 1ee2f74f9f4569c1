"""Which scans an import keeps as they are: of the plan, and of each object by its header. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import IO

from xnatctl.engine.ports import Inventory
from xnatctl.engine.types import Container, Item, Member, Unit, Verdict
from xnatctl.xnat.parse import digest_of

from .catalogue import SESSION_XML, label_of

DICOM_TAGS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber")


def with_imports(unit: Unit, inventory: Inventory) -> Unit:
    """The unit with the files of each importable scan as one import item, and a note why others
    are copied.
    """
    if unit.kind != "session":
        return unit
    files: dict[str, list[Item]] = defaultdict(list)
    for item in unit.items:
        if item.kind == "file":
            files[item.lane].append(item)
    imported, notes = {}, list(unit.notes)
    for container in unit.containers:
        some = files.get(container.key, [])
        if not some or container.ref.level != "scans" or not _is_dicom(container):
            continue
        reason = _why_copy(unit, container, some, inventory)
        if reason:
            if any(one.key not in inventory for one in some):
                notes.append(f"scan {container.ref.item} goes by copy: {reason}")
        else:
            imported[container.key] = _import_item(unit, container, some)
    if not imported:
        return replace(unit, notes=tuple(notes))
    items = [
        replace(one, stage=1) if one.kind == "document" else one
        for one in unit.items
        if one.kind != "file" or one.lane not in imported
    ]
    return replace(unit, items=(*imported.values(), *items), notes=tuple(notes))


def _is_dicom(container: Container) -> bool:
    return label_of(container.key) == "DICOM" or container.format == "DICOM"


def _why_copy(unit: Unit, container: Container, files: list[Item], inventory: Inventory) -> str:
    """Why a scan is not imported; empty when it is."""
    key, scan = container.key, container.ref.item or ""
    if reason := unit.facts.get(f"copy:{key}", ""):
        return reason
    if unit.facts.get(f"imported:{key}") and (key in inventory or SESSION_XML not in inventory):
        return ""
    if label_of(key) != "DICOM":
        return "its DICOM is not in a resource called DICOM"
    if not (scan.isascii() and scan.isdigit()):
        return "its ID is not a series number"
    if SESSION_XML not in inventory:
        return ""
    if any(item.key in inventory for item in files):
        return "some of its files are there as a copy already"
    if key in inventory:
        return ""
    return "the session is archived already, and importing into it would merge"


def _import_item(unit: Unit, container: Container, files: list[Item]) -> Item:
    scan = container.ref.item or ""
    stamps = sorted(f"{one.path}\t{one.size}\t{one.digest}" for one in files)
    return Item(
        key=container.key,
        kind="import",
        lane="import",
        ref=files[0].ref,
        members=tuple(Member(one.key, one.path, one.size, one.digest) for one in files),
        digest=digest_of(*stamps),
        uid=unit.facts.get(f"series:{scan}", ""),
        stage=0,
        verdict=Verdict.COPY,
    )


def scan_of(item: Item) -> str:
    return (item.ref.item or "").strip()


def read_header(body: IO[bytes]) -> dict[str, str] | None:
    """The identifying elements of a DICOM object; None for what is no DICOM with an instance
    UID.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        header = dcmread(body, stop_before_pixels=True, specific_tags=list(DICOM_TAGS))
    except (InvalidDicomError, EOFError, ValueError, NotImplementedError, AttributeError):
        return None
    found = {name: str(header.get(name, "") or "").strip() for name in DICOM_TAGS}
    return found if found["SOPInstanceUID"] else None
