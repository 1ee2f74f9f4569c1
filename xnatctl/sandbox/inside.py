"""A look into zips that are stored as files: what is in them, and single members."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator

from .sending import Body

_INNER = re.compile(r"(.+?\.(?:zip|xar|zar))(?:!/|/)(.+)$")


def split(name: str) -> tuple[str, str] | None:
    """The archive and the member of `a.zip!/b/c` (or `a.zip/b/c`), None for other names."""
    found = _INNER.match(name)
    return (found[1], found[2]) if found else None


def members(body: Body) -> Iterator[tuple[str, int]]:
    """Names and sizes of what a stored archive holds; nothing for what is none."""
    try:
        with body.open() as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size
    except zipfile.BadZipFile:
        return


def member(body: Body, name: str) -> bytes | None:
    """One member's bytes; None where there is none of that name."""
    try:
        with body.open() as file, zipfile.ZipFile(file) as archive:
            return archive.read(name)
    except (KeyError, zipfile.BadZipFile):
        return None
