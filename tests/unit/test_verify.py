"""A fresh inventory against what was read."""

from __future__ import annotations

import pytest

from xnatctl.engine.types import Item, Member, Mismatch, Stamp
from xnatctl.engine.verify import compare, level
from xnatctl.model import Ref

REF = Ref("P", "S", "E", resource="R")
A, B = "a" * 32, "b" * 32

FILE = Item("R/files/a", "file", "R", REF, path="a", size=10, digest=A)
BARE = Item("R/files/a", "file", "R", REF, path="a", size=10)
UNKNOWN = Item("R/files/a", "file", "R", REF, path="a")
ARCHIVE = Item(
    "R", "zip", "R", REF, members=(Member("R/files/a", "a", 10, A), Member("R/files/b", "b", 20, B))
)
SCAN = Item(
    "scans/1/resources/DICOM",
    "import",
    "import",
    REF,
    members=(Member("x", "x", 1, A), Member("y", "y", 1, A)),
    uid="1.2",
)
DOCUMENT = Item("session.xml", "document", "session.xml", REF, digest=A)


@pytest.mark.parametrize(
    ("item", "there", "problems"),
    [
        (FILE, {"R/files/a": Stamp(10, A)}, {}),
        (FILE, {"R/files/a": Stamp(10, "")}, {}),
        (FILE, {}, {"R/files/a": "missing"}),
        (FILE, {"R/files/a": Stamp(9, A)}, {"R/files/a": "10 bytes here, 9 there"}),
        (FILE, {"R/files/a": Stamp(10, B)}, {"R/files/a": "another digest"}),
        (ARCHIVE, {"R/files/a": Stamp(10, A), "R/files/b": Stamp(20, B)}, {}),
        (ARCHIVE, {"R/files/a": Stamp(10, A)}, {"R/files/b": "missing"}),
        (ARCHIVE, {}, {"R/files/a": "missing", "R/files/b": "missing"}),
        (SCAN, {"scans/1/resources/DICOM": Stamp(objects=2, uid="1.2")}, {}),
        (
            SCAN,
            {"scans/1/resources/DICOM": Stamp(objects=1, uid="1.2")},
            {"scans/1/resources/DICOM": "2 objects here, 1 there"},
        ),
        (
            SCAN,
            {"scans/1/resources/DICOM": Stamp(objects=2, uid="1.3")},
            {"scans/1/resources/DICOM": "another series has this scan ID"},
        ),
        (DOCUMENT, {}, {}),
    ],
)
def test_every_key_that_is_missing_or_unequal_is_named(
    item: Item, there: dict[str, Stamp], problems: dict[str, str]
) -> None:
    assert compare([item], there) == [Mismatch(key, why) for key, why in problems.items()]


def test_files_that_nobody_asked_for_are_no_mismatch() -> None:
    assert compare([FILE], {"R/files/a": Stamp(10, A), "R/files/more": Stamp(1, B)}) == []


@pytest.mark.parametrize(
    ("item", "there", "proven"),
    [
        (FILE, {"R/files/a": Stamp(10, A)}, "digest"),
        (FILE, {"R/files/a": Stamp(10, "")}, "size"),
        (BARE, {"R/files/a": Stamp(10, A)}, "size"),
        (UNKNOWN, {"R/files/a": Stamp(10, A)}, "count"),
        (FILE, {"R/files/a": Stamp(None, "")}, "count"),
        (ARCHIVE, {"R/files/a": Stamp(10, A), "R/files/b": Stamp(20, B)}, "digest"),
        (ARCHIVE, {"R/files/a": Stamp(10, A), "R/files/b": Stamp(20, "")}, "size"),
        (ARCHIVE, {"R/files/a": Stamp(10, A), "R/files/b": Stamp(None, "")}, "count"),
        (SCAN, {"scans/1/resources/DICOM": Stamp(objects=2)}, "count"),
    ],
)
def test_an_item_is_proven_as_far_as_its_weakest_file(
    item: Item, there: dict[str, Stamp], proven: str
) -> None:
    assert level(item, there) == proven
