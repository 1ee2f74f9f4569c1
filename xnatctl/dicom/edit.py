"""Headers of DICOM files: shown, judged, changed, and made anonymous. One file at a time.

A changed file is written beside its place, synced and renamed, so a file is the old one or the new
one and never half of either. The pixel data are carried along as they are.

Rules, in the order in which they act on an object:

1. `remove`: elements go, in nested items too; `empty`: their values go;
2. `private="remove"`: every element of an odd group goes;
3. `shift_days`: every date and date-time moves, in nested items too;
4. `hash_uids`: every UID of this study, its series and its objects is replaced by one that follows
   from the old one and the salt, so that references between files still hold;
5. `set`: values are written last, and win.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xnatctl.errors import LocalFault, UsageError

from .head import Unfit, quiet, read_head

if TYPE_CHECKING:
    from pydicom import Dataset


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SUMMARY = _words(
    """
    PatientID PatientName PatientBirthDate PatientSex StudyInstanceUID StudyDate StudyTime
    StudyDescription SeriesInstanceUID SeriesNumber SeriesDescription SOPInstanceUID SOPClassUID
    Modality Manufacturer ManufacturerModelName InstitutionName StationName AccessionNumber
    """
)

# Who the patient is, who was there, and where: what goes when nothing else is said.
IDENTIFYING = _words(
    """
    PatientName PatientID
    PatientBirthDate PatientBirthTime PatientAddress PatientTelephoneNumbers OtherPatientIDs
    OtherPatientIDsSequence OtherPatientNames PatientBirthName PatientMotherBirthName
    PatientComments PatientInsurancePlanCodeSequence MedicalRecordLocator EthnicGroup Occupation
    MilitaryRank CountryOfResidence RegionOfResidence ResponsiblePerson AdditionalPatientHistory
    InstitutionName InstitutionAddress InstitutionalDepartmentName ReferringPhysicianName
    ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers PhysiciansOfRecord
    PerformingPhysicianName NameOfPhysiciansReadingStudy OperatorsName RequestingPhysician
    ScheduledPerformingPhysicianName StationName AccessionNumber RequestAttributesSequence
    DeviceSerialNumber IssuerOfPatientID
    """
)

_UIDS = _words(
    """
    StudyInstanceUID SeriesInstanceUID SOPInstanceUID MediaStorageSOPInstanceUID FrameOfReferenceUID
    ReferencedSOPInstanceUID SynchronizationFrameOfReferenceUID ConcatenationUID IrradiationEventUID
    ReferencedFrameOfReferenceUID
    """
)
MANY_PRIVATE = 100


@dataclass(frozen=True, slots=True)
class Rules:
    """What is done to an object. Names are DICOM keywords or tags as `(0010,0010)`."""

    set: Mapping[str, str] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    private: str = "keep"
    shift_days: int = 0
    hash_uids: bool = False
    salt: str = ""

    @classmethod
    def parse(cls, data: object) -> Rules:
        """The rules of a file. Raises UsageError for what is none."""
        if not isinstance(data, Mapping):
            raise UsageError("the rule file is not a mapping", hint="set: {PatientID: ANON}")
        known = {"set", "remove", "empty", "private", "shift_days", "hash_uids", "salt"}
        if unknown := set(map(str, data)) - known:
            raise UsageError(
                f"the rule file has an unknown rule {sorted(unknown)[0]!r}",
                hint=f"rules are {', '.join(sorted(known))}",
            )
        private, days = data.get("private", "keep"), data.get("shift_days", 0)
        if private not in ("keep", "remove"):
            raise UsageError(f"private: {private!r} is neither keep nor remove")
        if not isinstance(days, int):
            raise UsageError(f"shift_days: {days!r} is not a number of days")
        values = data.get("set") or {}
        if not isinstance(values, Mapping):
            raise UsageError("set: is not a mapping", hint="set: {PatientID: ANON}")
        rules = cls(
            set={str(name): "" if one is None else str(one) for name, one in values.items()},
            remove=_names(data, "remove"),
            empty=_names(data, "empty"),
            private=str(private),
            shift_days=days,
            hash_uids=bool(data.get("hash_uids", False)),
            salt=str(data.get("salt", "")),
        )
        for name in (*rules.set, *rules.remove, *rules.empty):
            tag_of(name)
        return rules


def _names(data: Mapping[Any, Any], rule: str) -> tuple[str, ...]:
    names = data.get(rule) or []
    if not isinstance(names, list):
        raise UsageError(f"{rule}: is not a list", hint=f"{rule}: [PatientBirthDate]")
    return tuple(map(str, names))


@dataclass(frozen=True, slots=True)
class Change:
    """One element that became another. An empty `new` is an element that is gone or empty."""

    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.name}: {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a file is a whole, consistent DICOM object."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    patient_id: str = ""
    patient_name: str = ""
    modality: str = ""


def tag_of(name: str) -> int:
    """The tag of a keyword, or of `(gggg,eeee)` or `ggggeeee`. Raises UsageError."""
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(name)
    if tag is None:
        digits = name.strip("()").replace(",", "").replace(" ", "")
        try:
            tag = int(digits, 16) if len(digits) == 8 else None
        except ValueError:
            tag = None
    if tag is None:
        raise UsageError(
            f"{name!r} is no DICOM element",
            hint="use a keyword such as PatientID, or a tag such as (0010,0020)",
        )
    return int(tag)


def read_file(path: Path, *, pixels: bool = False) -> Dataset:
    """The object in a file. Raises Unfit for what is none, LocalFault where it cannot be read."""
    from pydicom import dcmread

    try:
        with path.open("rb") as file, quiet():
            read_head(file, path.stat().st_size)
            file.seek(0)
            return dcmread(file, stop_before_pixels=not pixels, force=True)
    except OSError as error:
        raise LocalFault(f"{path} cannot be read", why=error.strerror or str(error)) from error


def inspect(path: Path, names: tuple[str, ...] = (), *, private: bool = False) -> dict[str, str]:
    """Elements of a file by keyword: the usual ones, or those that are named."""
    data = read_file(path)
    if not names:
        found = {name: text_of(data.get(name)) for name in SUMMARY if name in data}
    else:
        found = {name: text_of(data[tag].value) if (tag := tag_of(name)) in data else ""
                 for name in names}  # fmt: skip
    if private:
        found |= {str(one.tag): text_of(one.value) for one in data if one.tag.is_private}
    return found


def list_tags(path: Path, *, private: bool = False) -> list[dict[str, str]]:
    """Every element of a file but its pixels: tag, VR, name, value; nested ones by their depth."""
    return [
        {
            "tag": _spelled(one.tag),
            "vr": str(one.VR),
            "name": ">" * depth + (one.keyword or one.name),
            "value": f"{len(one.value)} items" if one.VR == "SQ" else text_of(one.value),
        }
        for depth, one in _walk(read_file(path))
        if private or not one.tag.is_private
    ]


def validate(path: Path) -> Judgement:
    """Errors (it is not a whole DICOM object) and warnings (it is an odd one)."""
    try:
        data = read_file(path)
    except Unfit as unfit:
        return Judgement(errors=(unfit.reason,))
    except LocalFault as fault:
        return Judgement(errors=(fault.why or fault.message,))
    errors, warnings = [], []
    for name in ("SOPClassUID", "Modality"):
        if not data.get(name):
            errors.append(f"{name} is missing")
    for name in ("PatientID", "StudyDate", "SeriesNumber"):
        if not data.get(name):
            warnings.append(f"{name} is missing")
    if not getattr(data, "file_meta", None):
        warnings.append("it has no file meta information")
    if "SOPInstanceUID" in data.file_meta or "MediaStorageSOPInstanceUID" in data.file_meta:
        stored = str(data.file_meta.get("MediaStorageSOPInstanceUID", ""))
        if stored and stored != str(data.SOPInstanceUID):
            errors.append("its meta information names another SOP Instance UID")
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if name in data and not data[name].value.is_valid:
            warnings.append(f"{name} {data[name].value} is no valid UID")
    private = sum(1 for one in data if one.tag.is_private)
    if private > MANY_PRIVATE:
        warnings.append(f"High number of private tags: {private}")
    return Judgement(
        tuple(errors),
        tuple(warnings),
        patient_id=str(data.get("PatientID", "")),
        patient_name=str(data.get("PatientName", "")),
        modality=str(data.get("Modality", "")),
    )


def change_file(
    path: Path,
    rules: Rules,
    *,
    out: Path | None = None,
    backup: bool = False,
    dry_run: bool = False,
) -> list[Change]:
    """Apply rules to a file, in place or into `out`, and say what became of what.

    Raises Unfit and LocalFault. `backup` keeps the old file as `NAME.bak`, unless there is one.
    """
    data = read_file(path, pixels=True)
    with quiet():
        changes = apply(data, rules)
    target = out or path
    if dry_run or (not changes and target == path):
        return changes
    try:
        if backup and target == path:
            kept = path.with_name(f"{path.name}.bak")
            if not kept.exists():
                shutil.copy2(path, kept)
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(data, target)
    except OSError as error:
        raise LocalFault(f"{target} cannot be written", why=error.strerror or str(error)) from error
    return changes


def _write(data: Dataset, target: Path) -> None:
    part = target.with_name(f".xnatctl-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file, quiet():
            data.save_as(file)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def apply(data: Dataset, rules: Rules) -> list[Change]:
    """Change an object in memory by the rules; the steps are those of the module."""
    before = {place: (name, text) for place, name, text in _texts(data)}
    for level in list(_levels(data)):
        for name in rules.remove:
            if (tag := tag_of(name)) in level:
                del level[tag]
        for name in rules.empty:
            if (tag := tag_of(name)) in level:
                level[tag].value = [] if level[tag].VR == "SQ" else None
    if rules.private == "remove":
        data.remove_private_tags()
    for level in list(_levels(data)):
        if rules.shift_days:
            _shift(level, rules.shift_days)
        if rules.hash_uids:
            _hash_uids(level, rules.salt)
    for name, value in rules.set.items():
        _set(data, name, value)
    _agree(data)
    after = {place: (name, text) for place, name, text in _texts(data)}
    return [
        Change(
            (after.get(place) or before[place])[0],
            before.get(place, ("", ""))[1],
            after.get(place, ("", ""))[1],
        )
        for place in dict.fromkeys([*before, *after])
        if before.get(place) != after.get(place)
    ]


def _set(data: Dataset, name: str, value: str) -> None:
    from pydicom import DataElement
    from pydicom.datadict import dictionary_VR

    tag = tag_of(name)
    if tag in data:
        vr = data[tag].VR
    else:
        try:
            vr = dictionary_VR(tag)
        except KeyError as error:
            raise UsageError(f"{name} is a private element that is not there to be set") from error
    if vr in ("SQ", "OB", "OW", "OF", "OD", "UN") or len(vr) != 2:
        raise UsageError(f"{name} cannot be set", why=f"it holds {vr}, not text")
    values: Any = value.split("\\") if "\\" in value else value
    try:
        if vr in ("US", "SS", "UL", "SL", "FL", "FD", "UV", "SV") and value:
            number = float if vr in ("FL", "FD") else int
            values = [number(one) for one in value.split("\\")]
            values = values[0] if len(values) == 1 else values
        data[tag] = DataElement(tag, vr, values)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"{name} cannot be {value!r}", why=str(error)) from error


def _agree(data: Dataset) -> None:
    """The meta information names the same object as the data set."""
    meta = getattr(data, "file_meta", None)
    if meta and "MediaStorageSOPInstanceUID" in meta and "SOPInstanceUID" in data:
        meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID


def _shift(level: Dataset, days: int) -> None:
    for one in level:
        if one.VR in ("DA", "DT") and one.value:
            many = one.value if one.VM > 1 else [one.value]
            moved = [_moved(str(value), days) for value in many]
            one.value = moved if one.VM > 1 else moved[0]


def _moved(text: str, days: int) -> str:
    try:
        date = datetime.strptime(text[:8], "%Y%m%d")
    except ValueError:
        return ""
    return (date + timedelta(days=days)).strftime("%Y%m%d") + text[8:]


def _hash_uids(level: Dataset, salt: str) -> None:
    for name in _UIDS:
        if name in level and level[name].value:
            level[name].value = hashed_uid(str(level[name].value), salt)


def hashed_uid(uid: str, salt: str) -> str:
    """A UID below 2.25, the arc for numbers that nobody registers, that follows from another."""
    number = int.from_bytes(hashlib.sha256(f"{salt}\0{uid}".encode()).digest()[:16], "big")
    return f"2.25.{number}"


def _levels(data: Dataset) -> Iterator[Dataset]:
    """The data set and every item nested in it."""
    yield data
    for one in data:
        if one.VR == "SQ":
            for item in one.value:
                yield from _levels(item)


def _walk(data: Dataset, depth: int = 0) -> Iterator[tuple[int, Any]]:
    for one in data:
        yield depth, one
        if one.VR == "SQ":
            for item in one.value:
                yield from _walk(item, depth + 1)


def _texts(data: Dataset, place: str = "") -> Iterator[tuple[str, str, str]]:
    """Where an element is, its name and its text, for comparing before with after."""
    for one in data:
        here = f"{place}{int(one.tag):08x}"
        name = one.keyword or _spelled(one.tag)
        if one.VR == "SQ":
            for number, item in enumerate(one.value):
                yield from _texts(item, f"{here}.{number}.")
            yield here, name, f"{len(one.value)} items"
        elif one.tag.group != 0x7FE0:
            yield here, name, text_of(one.value)


def _spelled(tag: Any) -> str:
    return f"({tag.group:04x},{tag.element:04x})"


def text_of(value: object) -> str:
    """A value as one line: several joined by a backslash as in the file, bytes by their number."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        return "\\".join(str(one) for one in value)  # type: ignore[attr-defined]
    return str(value)
