"""The things an XNAT holds, as frozen records in XNAT's own words. No behaviour, no I/O.

A `Ref` is the address of one thing. Where the accession ID of a session is known it is preferred: a
label is unique in its project only, and `/data/experiments/{label}` does not resolve (XNAT 1.8).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Level = Literal["scans", "assessors", "reconstructions"]
Side = Literal["in", "out"]

Dicom = Literal["import", "copy"]
"""How DICOM is written: through the import service, or verbatim."""
SharedIn = Literal["skip", "share", "copy"]
"""What becomes of things that other projects share into the one at hand."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Where a thing is. The deepest field that is set says what it is.

    `session_id` is the accession ID; with it the session is addressed flat, without it by label
    below project and subject. `level`/`item` name a scan, an assessor or a reconstruction of the
    session, `side` the inputs or outputs of the latter two, and `resource` a resource by label or
    by numeric ID.
    """

    project: str
    subject: str | None = None
    session: str | None = None
    session_id: str | None = None
    level: Level | None = None
    item: str | None = None
    side: Side | None = None
    resource: str | None = None

    def at(self, level: Level, item: str, side: Side | None = None) -> Ref:
        """The scan, assessor or reconstruction `item` of this session."""
        return replace(self, level=level, item=item, side=side, resource=None)

    def in_resource(self, resource: str) -> Ref:
        return replace(self, resource=resource)

    def __str__(self) -> str:
        parts = [self.project]
        if self.subject:
            parts.append(self.subject)
        if self.session or self.session_id:
            parts.append(self.session or self.session_id or "")
        if self.level and self.item:
            parts += [self.level, self.item]
        if self.resource:
            parts += ["resources", self.resource]
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    name: str = ""
    description: str = ""
    secondary_id: str = ""
    pi: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    id: str
    label: str
    project: str


@dataclass(frozen=True, slots=True)
class Session:
    """An experiment. `project` is where it was listed; a shared one is primary elsewhere.

    `parent` is the accession ID of the session that an assessor belongs to; `modified` the moment
    of its last change, in the server's own words and time zone.
    """

    id: str
    label: str
    project: str
    subject: str = ""
    subject_id: str = ""
    xsi_type: str = ""
    date: str = ""
    modality: str = ""
    parent: str = ""
    modified: str = ""

    @property
    def is_imaging(self) -> bool:
        return self.xsi_type.endswith("SessionData")


@dataclass(frozen=True, slots=True)
class Resource:
    """A folder of files with a label. `id` is the number; labels may repeat in one parent."""

    id: str
    label: str
    ref: Ref
    format: str = ""
    content: str = ""
    description: str = ""
    tags: str = ""
    file_count: int | None = None
    file_size: int | None = None


@dataclass(frozen=True, slots=True)
class File:
    """One file as a listing shows it. `path` is relative to the resource, `digest` MD5 or empty."""

    path: str
    size: int | None
    digest: str
    uri: str
    resource_id: str
    resource: str
    format: str = ""
    content: str = ""
    tags: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    id: str
    xsi_type: str = ""
    type: str = ""
    uid: str = ""
    quality: str = ""
    note: str = ""
    series_description: str = ""
    frames: str = ""
    resources: tuple[Resource, ...] = ()


@dataclass(frozen=True, slots=True)
class Assessor:
    """An assessor or reconstruction of a session with its resources (their refs carry the side)."""

    id: str
    label: str
    xsi_type: str
    level: Level = "assessors"
    resources: tuple[Resource, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionDetail:
    """What the XML of a session says of its structure; `xml` is the document as it came."""

    session: Session
    uid: str
    xml: bytes
    scans: tuple[Scan, ...] = ()
    assessors: tuple[Assessor, ...] = ()
    reconstructions: tuple[Assessor, ...] = ()
    resources: tuple[Resource, ...] = ()
    shares: tuple[tuple[str, str], ...] = ()
    visit: str = ""
    protocol: str = ""
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PrearchiveEntry:
    """One row of the prearchive. `name` is the session label, `folder` the address below the
    timestamp.
    """

    project: str
    timestamp: str
    folder: str
    name: str
    status: str
    subject: str = ""
    study_uid: str = ""
    url: str = ""
    source: str = ""
    prevent_auto_commit: bool = False

    @property
    def is_ours(self) -> bool:
        return self.source == "uploader" and self.prevent_auto_commit
