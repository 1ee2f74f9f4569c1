"""The records that flow through the engine. Frozen, picklable, free of URLs and of behaviour.

A *key* is the address of one body inside its unit, a path such as
`scans/3/resources/DICOM/files/a/b.dcm`; both ends build the same keys, so two inventories can be
compared line by line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from xnatctl.model import Ref


@dataclass(frozen=True, slots=True)
class Rule:
    """One include or exclude rule: glob patterns over one property of a thing.

    `type` is that of an imaging session (or its modality), `experiment-type` of other experiments,
    `assessor-type` of assessors. `level` narrows a rule on resources to what hangs there: project,
    subject, own (the session itself), scans, assessors, reconstructions; `within` narrows a rule to
    sessions of one type.
    """

    what: Literal[
        "subject",
        "session",
        "type",
        "experiment-type",
        "assessor-type",
        "scan",
        "scan-type",
        "resource",
    ]
    patterns: tuple[str, ...]
    include: bool = True
    level: str = ""
    within: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for. `ref` is the root; rules narrow it.

    `since` keeps sessions dated on or after it (ISO date). `levels` are where resources hang whose
    files are wanted; `own` stands for the thing itself.
    """

    ref: Ref
    rules: tuple[Rule, ...] = ()
    since: str = ""
    levels: frozenset[str] = frozenset({"own", "scans", "assessors", "reconstructions"})


class Stamp(NamedTuple):
    """What an inventory knows of one key. `digest` is MD5 hex or empty.

    Where the key stands for a whole scan that an import re-creates, `objects` is the number of its
    DICOM objects and `uid` its series UID.
    """

    size: int | None = None
    digest: str = ""
    objects: int = 1
    uid: str = ""


class Member(NamedTuple):
    """A file inside an archive item: its key, and its path inside the archive's resource."""

    key: str
    path: str
    size: int | None
    digest: str


@dataclass(frozen=True, slots=True)
class Container:
    """A resource that must exist before its files: its key is theirs before `/files/`.

    In `ref` the resource is a label; what hangs where on the source is all that a sink reads of it.
    """

    key: str
    ref: Ref
    format: str = ""
    content: str = ""
    description: str = ""
    tags: str = ""


class Verdict(StrEnum):
    """The planner's decision on one item."""

    COPY = "copy"
    KEEP = "keep"
    REPLACE = "replace"
    CONFLICT = "conflict"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Item:
    """One body that moves in one request.

    `kind` is `file` (one file), `zip` (one resource, or the files of one that are missing, as an
    archive), `import` (the DICOM of one scan, as an archive that the sink takes apart) or
    `document` (metadata as XML; `path` is its kind). `stage` orders what a unit does: one stage is
    sealed before the next begins. Items of one `lane` are written one after another: XNAT keeps
    one catalog a resource and loses entries when two requests write it at once. The lane of a file
    is the key of its container.
    """

    key: str
    kind: Literal["file", "zip", "import", "document"]
    lane: str
    ref: Ref
    path: str = ""
    size: int | None = None
    digest: str = ""
    members: tuple[Member, ...] = ()
    stage: int = 2
    uid: str = ""
    body: bytes = b""
    verdict: Verdict = Verdict.COPY
    reason: str = ""

    @property
    def files(self) -> int:
        """How many files of a user's this item carries; a document is none of them."""
        if self.kind == "document":
            return 0
        return len(self.members) if self.members else 1

    @property
    def bytes(self) -> int:
        if self.kind == "document":
            return 0
        if self.members:
            return sum(member.size or 0 for member in self.members)
        return self.size or 0


@dataclass(frozen=True, slots=True)
class Left:
    """Something that was not carried, and why. `code` is accepted by name on the command line.

    `key` is its address inside a unit; in the report of a run `unit` is that unit's label.
    """

    key: str
    code: str
    reason: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Unit:
    """What is committed as a whole: a project's own things, a subject's own, or one session.

    A source yields it light (key, refs, `after`); `Source.describe` fills in the rest.
    `fingerprint` is a digest of everything the source said of it, so that an unchanged unit is
    recognised by one comparison. `after` names units that must have ended, `*` all before this one.
    `conflict` says why nothing of it may be written. `facts` is what is remembered of it from one
    run to the next. `aside` are containers that the source has and the selection leaves out,
    `extra` the keys of what only the sink has, `mapped` by their keys the paths of files that the
    sink cannot write under their own names.
    """

    key: str
    kind: Literal["project", "subject", "session", "experiment", "resource"]
    ref: Ref
    target: Ref
    label: str = ""
    after: tuple[str, ...] = ()
    containers: tuple[Container, ...] = ()
    items: tuple[Item, ...] = ()
    left: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()
    conflict: str = ""
    fingerprint: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    aside: frozenset[str] = frozenset()
    extra: tuple[str, ...] = ()
    mapped: Mapping[str, str] = field(default_factory=dict)

    @property
    def to_move(self) -> tuple[Item, ...]:
        return tuple(one for one in self.items if one.verdict in (Verdict.COPY, Verdict.REPLACE))


Became = Literal["copied", "kept", "left", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item. `bytes` are those of the files that arrived, not of headers or
    retries.
    """

    key: str
    became: Became
    files: int = 1
    bytes: int = 0
    attempts: int = 0
    seconds: float = 0.0
    verified: str = ""
    error: str = ""
    error_kind: str = ""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A key on which the sink's own listing disagrees with what was read from the source."""

    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class UnitOutcome:
    """What became of one unit. `mismatches` were found by the last listing, after everything was
    written; `blocks` says that it failed before it existed, so that what depends on it cannot go
    on.
    """

    key: str
    kind: str
    label: str
    became: Became
    outcomes: tuple[Outcome, ...] = ()
    left: tuple[Left, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()
    files: int = 0
    bytes: int = 0
    files_kept: int = 0
    bytes_kept: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str = ""
    error_kind: str = ""
    hint: str = ""
    blocks: bool = False


@dataclass(frozen=True, slots=True)
class Remark:
    """What is worth knowing of a unit and no fault: its key, its label, one sentence."""

    key: str
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """The run: what became of every unit that did not simply stay as it was, and the totals.

    `gone` is what earlier runs put at the sink and the source has no more: `deleted` or `stays`.
    """

    run_id: str
    verb: str
    source: str
    sink: str
    started: float
    seconds: float = 0.0
    units_done: int = 0
    units_kept: int = 0
    units_failed: int = 0
    files: int = 0
    bytes: int = 0
    files_kept: int = 0
    bytes_kept: int = 0
    retries: int = 0
    verified: Mapping[str, int] = field(default_factory=dict)
    by_kind: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    problems: tuple[UnitOutcome, ...] = ()
    left: tuple[Left, ...] = ()
    gone: tuple[Left, ...] = ()
    remarks: tuple[Remark, ...] = ()
    interrupted: str = ""
    dry_run: bool = False
    exit_code: int = 0

    @property
    def success(self) -> bool:
        return self.exit_code == 0
