"""Seeds: what a sandbox holds before anybody uses it, written by one line.

    demo                                                       a small tidy study, project DEMO
    nasty                                                      everything unpleasant, NASTY, NASTY2
    large:SUBJECTSxSESSIONSxSCANSxFILES@SIZE[,dicom][,…]       load, project LARGE

`large` makes SESSIONS sessions for each subject, SCANS scans for each session and FILES files of
SIZE bytes (`8k`, `500k`, `1M`, `2G`; k is 1,000) for each scan. Bodies are generated while they
are sent, from at most 256 contents, so a hundred GB need no disk and a million files little
memory. Options: `dicom` gives every file a DICOM header of its own (each then costs one MD5 at
seeding time, some 500 MB/s), `resource=LABEL` (default DATA, or DICOM), `project=ID`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .bodies import NUMBERS, Generated
from .phantom import Envelope, Series, Study
from .seed_demo import seed_demo
from .seed_nasty import seed_nasty
from .seed_parts import SeedError, new_project
from .store import Item, Store

_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)x(\d+)@(\d+)([kMG]?)", re.ASCII)
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}
_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_HASHED = 2_000_000_000  # bytes that are hashed at most, but two contents in any case
_BATCH = 20_000  # rows that are held in memory
_FIX = (
    "Write demo, nasty, or for example large:10x2x5x100@500k[,dicom][,resource=DATA][,project=BIG]"
)


@dataclass(frozen=True, slots=True)
class Large:
    """A parsed `large:` seed; `size` in bytes."""

    subjects: int
    sessions: int
    scans: int
    files: int
    size: int
    dicom: bool
    resource: str
    project: str


def seed(store: Store, spec: str) -> None:
    """Write a seed into a store, all or nothing.

    Raises SeedError for a spec that cannot be parsed and for a project that exists already.
    """
    plan = parse(spec)
    with store.transaction():
        if isinstance(plan, Large):
            _seed_large(store, plan)
        else:
            {"demo": seed_demo, "nasty": seed_nasty}[plan](store)


def parse(spec: str) -> Large | str:
    """`demo`, `nasty`, or what a `large:` spec asks for. Raises SeedError."""
    if spec in ("demo", "nasty"):
        return spec
    kind, _, rest = spec.partition(":")
    if kind != "large":
        raise _unreadable(spec, f"there is no seed named {kind!r}")
    shape, *options = rest.split(",")
    found = _SHAPE.fullmatch(shape)
    if found is None:
        raise _unreadable(spec, f"{shape!r} is not SUBJECTSxSESSIONSxSCANSxFILES@SIZE")
    chosen: dict[str, str] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in ("dicom", "resource", "project") or (name == "dicom") != (value == ""):
            raise _unreadable(spec, f"the option {option!r} is unknown")
        if value and not _NAME.fullmatch(value):
            raise _unreadable(spec, f"{value!r} may hold letters, digits, _ and - only")
        chosen[name] = value
    size = int(found[5]) * _UNITS[found[6]]
    dicom = "dicom" in chosen
    if dicom and (size % 2 or not Envelope.SMALLEST <= size <= Envelope.LARGEST):
        low, high = Envelope.SMALLEST, Envelope.LARGEST
        raise _unreadable(spec, f"DICOM files are of an even size from {low} to {high} bytes")
    resource = chosen.get("resource", "DICOM" if dicom else "DATA")
    subjects, sessions, scans, files = (int(found[number]) for number in range(1, 5))
    return Large(
        subjects=subjects,
        sessions=sessions,
        scans=scans,
        files=files,
        size=size,
        dicom=dicom,
        resource=resource,
        project=chosen.get("project", "LARGE"),
    )


def _unreadable(spec: str, why: str) -> SeedError:
    return SeedError(f"the seed {spec!r} cannot be read", why, _FIX)


def _seed_large(store: Store, plan: Large) -> None:
    project = new_project(store, plan.project, {"description": "Generated load."})
    contents = max(2, min(NUMBERS, _HASHED // max(1, plan.size)))
    serial = 0
    for subject_number in range(1, plan.subjects + 1):
        label = f"{plan.project}_{subject_number:05d}"
        subject = store.create_subject(project, label)
        for session_number in range(1, plan.sessions + 1):
            study = Study(f"{label}_MR{session_number}", label, f"Large^{subject_number:05d}")
            fields = {"date": "2024-03-01", "UID": study.uid, "modality": "MR"}
            session = store.create_experiment(subject, study.label, fields=fields)
            for number in range(1, plan.scans + 1):
                series = Series(study, str(number), number, "MR", f"load {number}")
                scan = _large_scan(store, session, series, plan)
                _large_files(store, scan, series, plan, serial, contents)
                serial += plan.files


def _large_scan(store: Store, session: Item, series: Series, plan: Large) -> Item:
    fields = {
        "type": series.description,
        "series_description": series.description,
        "quality": "usable",
        "UID": series.uid,
        "frames": str(plan.files),
    }
    return store.create_scan(session, series.scan, fields=fields)


def _large_files(
    store: Store, scan: Item, series: Series, plan: Large, serial: int, contents: int
) -> None:
    """One scan's files; `serial` counts files over the whole seed and chooses their contents."""
    kind = ("DICOM", "RAW") if plan.dicom else ("", "")
    resource = store.create_resource(scan, plan.resource, format=kind[0], content=kind[1])
    envelope = Envelope.of(series, plan.size) if plan.dicom else None

    def entries(first: int, last: int) -> Iterator[tuple[str, Generated]]:
        for number in range(first, last + 1):
            prefix = envelope.header(number) if envelope else b""
            body = Generated(plan.size, (serial + number) % contents, prefix)
            yield f"{number:06d}.{'dcm' if envelope else 'dat'}", body

    for first in range(1, plan.files + 1, _BATCH):
        store.add_generated(resource, entries(first, min(first + _BATCH - 1, plan.files)))
