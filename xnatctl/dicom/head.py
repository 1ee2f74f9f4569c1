"""What a file is, by its content alone: the identifying elements of a DICOM object, or why not.

1. The first bytes say whether it can be DICOM: `DICM` behind a preamble, or a data set that begins
   with an element of group 2 or 8, as some scanners write.
2. pydicom reads the header up to the pixel data, and only the elements that are asked for.
3. The pixel data must be there to its last byte: a length that leads out of the file, or fragments
   without their end, is a truncated object. Nothing of the pixels is read for that.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

PREAMBLE = 132
_DIRECTORY = "1.2.840.10008.1.3.10"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_IMPLICIT = "1.2.840.10008.1.2"
_EXPLICIT = "1.2.840.10008.1.2.1"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_LONG = (b"OB", b"OW", b"OF", b"OD", b"UN", b"OL", b"OV")
_UNDEFINED = 0xFFFFFFFF
_TAGS = (
    "SOPInstanceUID",
    "SOPClassUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "Rows",
)


class Unfit(Exception):
    """A file that is no whole DICOM object: `code` for programs, `reason` for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@contextmanager
def quiet() -> Iterator[None]:
    """pydicom warns of every odd value of a header; what matters is said by `Unfit`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True, slots=True)
class Head:
    """What identifies a DICOM object. `syntax` is its transfer syntax, `number` the series'."""

    uid: str
    study: str
    series: str
    number: str
    sop_class: str
    syntax: str
    modality: str
    description: str


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file that begins with these 132 bytes can be a DICOM object."""
    if start[128:PREAMBLE] == b"DICM":
        return True
    if len(start) < 16 or start[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    # Without a preamble: a low element number, then a VR in letters or a short length.
    element, length = struct.unpack_from("<H", start, 2)[0], struct.unpack_from("<L", start, 4)[0]
    return element <= 0x0100 and ((start[4:6].isalpha() and start[4:6].isupper()) or length < 256)


def read_head(file: BinaryIO, size: int) -> Head:
    """The head of the object in `file`, which has `size` bytes. Raises Unfit."""
    if not size:
        raise Unfit("empty", "it is empty")
    start = file.read(PREAMBLE)
    if not looks_like_dicom(start):
        raise Unfit("not-dicom", "it is not DICOM")
    file.seek(0)
    values, syntax = _elements(file)
    if values["SOPClassUID"] == _DIRECTORY or not values["SOPInstanceUID"]:
        if _is_directory(file):
            raise Unfit("dicomdir", "it is a DICOMDIR, an index of other files")
        raise Unfit("no-uid", "it has no SOP Instance UID")
    if not values["StudyInstanceUID"] or not values["SeriesInstanceUID"]:
        raise Unfit("no-uid", "it has no Study or Series Instance UID")
    if syntax != _DEFLATED:
        _check_whole(file, size, syntax, is_image=bool(values["Rows"]))
    return Head(
        uid=values["SOPInstanceUID"],
        study=values["StudyInstanceUID"],
        series=values["SeriesInstanceUID"],
        number=values["SeriesNumber"],
        sop_class=values["SOPClassUID"],
        syntax=syntax,
        modality=values["Modality"],
        description=values["SeriesDescription"],
    )


def _elements(file: BinaryIO) -> tuple[dict[str, str], str]:
    """The wanted elements as text, and the transfer syntax; `file` is left before the pixels."""
    from pydicom import dcmread

    try:
        with quiet():
            data = dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
        values = {name: str(data.get(name, "") or "").strip() for name in _TAGS}
    except Exception as error:
        # pydicom raises a dozen kinds of exceptions for damaged headers, some of them by accident.
        raise Unfit("unreadable", f"its DICOM header cannot be read: {error}") from error
    syntax = str(getattr(data.file_meta, "TransferSyntaxUID", "") or "")
    if not syntax:
        is_implicit, is_little = data.original_encoding
        syntax = _IMPLICIT if is_implicit else _EXPLICIT if is_little else _BIG_ENDIAN
    return values, syntax


def _is_directory(file: BinaryIO) -> bool:
    file.seek(0)
    return _DIRECTORY.encode() in file.read(1024)


def _check_whole(file: BinaryIO, size: int, syntax: str, *, is_image: bool) -> None:
    """See that the pixel data reach their end inside the file. Raises Unfit."""
    order = ">" if syntax == _BIG_ENDIAN else "<"
    at = file.tell()
    head = file.read(12)
    if at > size:
        raise Unfit("truncated", f"it is cut off: {at} bytes were announced, {size} are there")
    if len(head) < 8 or struct.unpack_from(order + "H", head)[0] != 0x7FE0:
        if is_image:
            raise Unfit("truncated", "it is an image without pixel data")
        return
    start, length = at + 8, struct.unpack_from(order + "L", head, 4)[0]
    if syntax != _IMPLICIT:
        is_long = head[4:6] in _LONG
        start = at + 12 if is_long else at + 8
        length = struct.unpack_from(order + ("L" if is_long else "H"), head, 8 if is_long else 6)[0]
    if length == _UNDEFINED:
        _check_fragments(file, start, size)
    elif start + length > size:
        missing = start + length - size
        raise Unfit("truncated", f"it is cut off: the last {missing} bytes of its pixels are gone")


def _check_fragments(file: BinaryIO, position: int, size: int) -> None:
    """Follow the fragments of encapsulated pixel data to the delimiter behind the last one."""
    while position + 8 <= size:
        file.seek(position)
        item = file.read(8)
        if item[:4] == b"\xfe\xff\xdd\xe0":
            return
        if item[:4] != b"\xfe\xff\x00\xe0":
            raise Unfit("truncated", "its compressed pixels are damaged")
        position += 8 + struct.unpack_from("<L", item, 4)[0]
    raise Unfit("truncated", "it is cut off in its compressed pixels")
