"""An account of a sandbox without the code under test: it walks the folders on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

Where = tuple[str, str, str, str, str]
"""Session or own level, what the resource hangs on, resource, path, MD5."""


def files_of(root: Path, project: str) -> set[Where]:
    """Every file of a project's archive with the MD5 of the bytes on disk."""
    found: set[Where] = set()
    archive = root / "archive" / project
    for path in archive.rglob("*"):
        if path.is_file():
            parts = path.relative_to(archive).parts
            found.add((*_place(parts), _md5(path)))
    return found


def instances_of(root: Path, project: str) -> dict[tuple[str, str], list[str]]:
    """SOP Instance UIDs by (session, scan), sorted, doubles included."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in (root / "archive" / project).glob("arc001/*/SCANS/*/*/**/*"):
        if path.is_file():
            parts = path.relative_to(root / "archive" / project / "arc001").parts
            try:
                header = pydicom.dcmread(path, stop_before_pixels=True)
            except InvalidDicomError:
                continue
            found.setdefault((parts[0], parts[2]), []).append(str(header.SOPInstanceUID))
    return {place: sorted(uids) for place, uids in found.items()}


def is_imported_dicom(where: Where) -> bool:
    return where[1].startswith("SCANS/") and where[2] == "DICOM"


def leftovers(root: Path) -> list[str]:
    """What a finished transfer must not leave: prearchive entries, part files, empty tries."""
    waiting = [str(path) for path in (root / "prearchive").rglob("*") if path.is_file()]
    return waiting + [str(path) for path in root.rglob("*.part")]


def _place(parts: tuple[str, ...]) -> tuple[str, str, str, str]:
    if parts[0] == "arc001":
        session, level, *rest = parts[1:]
        if level == "SCANS":
            return session, f"SCANS/{rest[0]}", rest[1], "/".join(rest[2:])
        if level in ("ASSESSORS", "PROCESSED"):
            return session, f"{level}/{rest[0]}/{rest[1]}", rest[2], "/".join(rest[3:])
        return session, level, rest[0], "/".join(rest[1:])
    if parts[0] == "subjects":
        return parts[1], "subject", parts[2], "/".join(parts[3:])
    return "", "project", parts[1], "/".join(parts[2:])


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
