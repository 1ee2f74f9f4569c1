"""What the sandbox reads from DICOM objects, and how an import changes them.

Only the head of an object is parsed, by a small reader of little-endian elements; pydicom is loaded
for other encodings, and where an anonymisation script asks for an object to be encoded anew.
"""

from __future__ import annotations

import io
import re
import struct
import time
from dataclasses import dataclass
from typing import Any

from .vocabulary import scan_type_for

HEAD = 1 << 16
_TAGS = {
    0x0020000D: "study", 0x0020000E: "series", 0x00080018: "uid", 0x00080060: "modality",
    0x00200011: "number", 0x00200013: "instance", 0x0008103E: "description",
    0x00100010: "patient_name", 0x00100020: "patient_id", 0x00104000: "comments",
    0x00324000: "study_comments", 0x001021B0: "history", 0x00081030: "study_description",
    0x00080050: "accession", 0x00080020: "date", 0x00080030: "time",
    0x00080070: "manufacturer", 0x00081090: "model", 0x00081010: "station",
    0x00081070: "operator", 0x00280008: "frames", 0x00180080: "tr", 0x00180081: "te",
    0x00180082: "ti", 0x00181314: "flip", 0x00180087: "field_strength",
    0x00280030: "spacing", 0x00180050: "thickness", 0x00280010: "rows", 0x00280011: "columns",
}  # fmt: skip
_LAST = 0x00330000
_UNDEFINED = 0xFFFFFFFF
_FOREIGN = (b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")
_IMPLEMENTATION = b"1.2.826.0.1.3680043.10.511.3.1"
_VERSION = b"XNAT_SANDBOX"
_LONG = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN", b"SV", b"UV"}


class NotDicom(ValueError):
    """The bytes are no DICOM object that can be read."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The attributes of one object that routing, building and naming need; missing ones are ''."""

    study: str = ""
    series: str = ""
    uid: str = ""
    modality: str = ""
    number: str = ""
    instance: str = ""
    description: str = ""
    patient_name: str = ""
    patient_id: str = ""
    comments: str = ""
    study_comments: str = ""
    history: str = ""
    study_description: str = ""
    accession: str = ""
    date: str = ""
    time: str = ""
    manufacturer: str = ""
    model: str = ""
    station: str = ""
    operator: str = ""
    frames: str = ""
    tr: str = ""
    te: str = ""
    ti: str = ""
    flip: str = ""
    field_strength: str = ""
    spacing: str = ""
    thickness: str = ""
    rows: str = ""
    columns: str = ""

    @property
    def xsi(self) -> str:
        """The scan type of the object's series."""
        return scan_type_for(self.modality)

    def routing(self) -> dict[str, str]:
        """`Project:X Subject:Y Session:Z` from comments and history, lower-case keys."""
        for place in (self.comments, self.study_comments, self.history):
            found = re.findall(r"\b(Project|Subject|Session)\s*:\s*([^\s,;]+)", place, re.I)
            if found:
                return {key.lower(): value for key, value in found}
        return {}


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes are those of a DICOM object (with or without a preamble)."""
    return head[128:132] == b"DICM" or (
        len(head) > 8 and head[1] == 0 and head[0] in (2, 8) and head[3] == 0
    )


def read_facts(head: bytes) -> Facts:
    """The attributes of an object from its first bytes. Raises NotDicom."""
    if not looks_like_dicom(head):
        raise NotDicom("unable to read DICOM object")
    start, explicit, syntax = _syntax(head)
    if syntax in _FOREIGN:
        values = _foreign(head)
    else:
        raw: dict[str, bytes] = {}
        _walk(head, start, len(head), explicit=explicit, found=raw)
        values = {name: _decode(name, value) for name, value in raw.items()}
    if not values.get("uid") or not values.get("study"):
        raise NotDicom("unable to read DICOM object: no instance or study UID")
    return Facts(**values)


def _syntax(head: bytes) -> tuple[int, bool, bytes]:
    """Where the data set begins, whether it looks explicit, and its declared transfer syntax."""
    position = 132 if head[128:132] == b"DICM" else 0
    found: dict[str, bytes] = {}
    if head[position : position + 2] == b"\x02\x00":
        position = _walk(head, position, len(head), explicit=True, found=found, meta=True)
    first = bytes(head[position + 4 : position + 6])
    return position, first.isalpha() and first.isupper(), found.get("syntax", b"").rstrip(b"\0 ")


def _walk(
    head: bytes,
    position: int,
    end: int,
    *,
    explicit: bool,
    found: dict[str, bytes] | None,
    meta: bool = False,
) -> int:
    """Go through little-endian elements, noting wanted values; returns where it stopped.

    It stops behind the groups of interest, behind the meta group (`meta`), at the end of an item,
    or where an element's value is not in the buffer.
    """
    while position + 8 <= end:
        group, element, short = struct.unpack_from("<HH2xH", head, position)
        tag = group << 16 | element
        if (meta and group != 2) or _LAST < tag < 0xFFFE0000:
            return position
        if group == 0xFFFE:
            return position + 8
        if explicit and head[position + 4 : position + 6] not in _LONG:
            length, start = int(short), position + 8
        elif explicit:
            if position + 12 > end:
                return end
            length, start = int(struct.unpack_from("<L", head, position + 8)[0]), position + 12
        else:
            length, start = int(struct.unpack_from("<L", head, position + 4)[0]), position + 8
        if length == _UNDEFINED:
            position = _skip_sequence(head, start, end, explicit=explicit)
            continue
        position = start + length
        if position > end:
            return end
        if found is not None:
            name = "syntax" if tag == 0x00020010 else _TAGS.get(tag)
            if name is not None:
                found[name] = bytes(head[start:position])
    return position


def _skip_sequence(head: bytes, position: int, end: int, *, explicit: bool) -> int:
    """The position behind a sequence of undefined length."""
    while position + 8 <= end:
        group, element, length = struct.unpack_from("<HHL", head, position)
        position += 8
        if (group, element) != (0xFFFE, 0xE000):
            return position
        if length == _UNDEFINED:
            position = _skip_item(head, position, end, explicit=explicit)
        else:
            position += length
    return end


def _skip_item(head: bytes, position: int, end: int, *, explicit: bool) -> int:
    """The position behind an item of undefined length; its elements may be of any group."""
    while position + 8 <= end:
        group, _, short = struct.unpack_from("<HH2xH", head, position)
        if group == 0xFFFE:
            return position + 8
        if explicit and head[position + 4 : position + 6] not in _LONG:
            position += 8 + short
            continue
        offset = 8 if explicit else 4
        if position + offset + 4 > end:
            return end
        (length,) = struct.unpack_from("<L", head, position + offset)
        position += offset + 4
        if length == _UNDEFINED:
            position = _skip_sequence(head, position, end, explicit=explicit)
        else:
            position += length
    return end


def _decode(name: str, value: bytes) -> str:
    if name in ("rows", "columns"):
        return str(struct.unpack("<H", value)[0]) if len(value) == 2 else ""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text.strip(" \0")


def _foreign(head: bytes) -> dict[str, str]:
    """Values of big-endian and deflated objects, which pydicom reads."""
    import pydicom

    dataset = _read(head, pixels=False)
    return {
        name: "\\".join(map(str, value)) if isinstance(value, pydicom.multival.MultiValue) else (
            str(value)
        )
        for tag, name in _TAGS.items()
        if tag in dataset and (value := dataset[tag].value) is not None
    }  # fmt: skip


def _read(data: bytes, *, pixels: bool) -> Any:
    import pydicom

    try:
        return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=not pixels, force=True)
    except Exception as error:
        raise NotDicom(f"unable to read DICOM object: {error}") from error


def meta_end(head: bytes) -> int:
    """Where the file meta information ends; 0 where there is none or it is not all in `head`."""
    if head[128:132] != b"DICM" or head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return 0
    if len(head) < 144:
        return 0
    end = 144 + int(struct.unpack_from("<L", head, 140)[0])
    return end if end <= len(head) else 0


def rewrite_meta(head: bytes) -> bytes:
    """The head of an object with the importer's own file meta information; data set untouched.

    An importer writes its implementation UID and version, so an imported object's size and MD5
    differ from those of what was sent.
    """
    end = meta_end(head)
    if not end:
        return bytes(head)
    kept = bytearray()
    position = 144
    while position + 8 <= end:
        element = head[position : position + 4]
        if head[position + 4 : position + 6] in _LONG:
            length = 12 + int(struct.unpack_from("<L", head, position + 8)[0])
        else:
            length = 8 + int(struct.unpack_from("<H", head, position + 6)[0])
        if element[:2] != b"\x02\x00" or position + length > end:
            return bytes(head)
        if element not in (b"\x02\x00\x12\x00", b"\x02\x00\x13\x00"):
            kept += head[position : position + length]
        position += length
    kept += _short(0x12, b"UI", _IMPLEMENTATION, b"\0") + _short(0x13, b"SH", _VERSION, b" ")
    start = b"\0" * 128 + b"DICM" + _short(0, b"UL", struct.pack("<L", len(kept)), b"")
    return start + bytes(kept) + bytes(head[end:])


def _short(element: int, vr: bytes, value: bytes, pad: bytes) -> bytes:
    if len(value) % 2:
        value += pad
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def file_name(facts: Facts) -> str:
    """The name that the importer's template gives: study, series, instance and a hash."""
    mark = f"{abs(hash_text(facts.uid)):x}"
    return f"{facts.study}-{facts.number or '0'}-{facts.instance or '0'}-{mark}.dcm"


def hash_text(text: str) -> int:
    """A small stable hash, the one Java's strings use."""
    out = 0
    for char in text:
        out = (31 * out + ord(char)) & 0xFFFFFFFF
    return out


def iso_date(text: str) -> str:
    """`20240228` → `2024-02-28`; empty for anything else."""
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if re.match(r"\d{8}$", text) else ""


def iso_time(text: str) -> str:
    """`093000.12` → `09:30:00`; empty for anything else."""
    return f"{text[:2]}:{text[2:4]}:{text[4:6]}" if re.match(r"\d{6}", text) else ""


# ---- anonymisation -------------------------------------------------------------------------

_LINE = re.compile(
    r"(?P<minus>-)?\s*\((?P<group>[0-9A-Fa-f]{4}),(?P<element>[0-9A-Fa-f]{4})\)\s*"
    r"(?::=\s*(?P<value>.+))?$"
)


def anonymise(data: bytes, script: str, names: dict[str, str]) -> bytes:
    """Apply a small part of DicomEdit to an object: `(gggg,eeee) := "value"` and `- (gggg,eeee)`.

    A value may be a quoted text or one of the variables `project`, `subject`, `session`. Lines
    that are comments, `version` and `describe` are passed over, so is what is not understood.
    """
    import pydicom

    dataset = _read(data, pixels=True)
    changed = False
    for raw in script.splitlines():
        line = raw.partition("//")[0].strip()
        match = _LINE.match(line)
        if not match:
            continue
        tag = pydicom.tag.Tag(int(match["group"], 16), int(match["element"], 16))
        if match["minus"]:
            changed |= tag in dataset
            if tag in dataset:
                del dataset[tag]
            continue
        value = (match["value"] or "").strip()
        value = names.get(value, value.strip('"'))
        if tag in dataset:
            dataset[tag].value = value
        else:
            dataset.add_new(tag, pydicom.datadict.dictionary_VR(tag), value)
        changed = True
    if not changed:
        return data
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def timestamp(moment: float) -> str:
    """A prearchive folder's name: local time to the millisecond."""
    return (
        time.strftime("%Y%m%d_%H%M%S", time.localtime(moment)) + f"{int(moment * 1000) % 1000:03d}"
    )
