"""Keys out of XNAT's file listings; the same on both ends, so that inventories can be compared.

Keys follow XNAT's own URIs: `resources/R/files/…` for what hangs on the thing itself,
`scans/3/resources/R/files/…`, `assessors/LABEL/out/resources/R/files/…`. A second resource of one
label (XNAT allows that) is `R_2`. Rows of a listing carry numeric resource IDs and accession IDs,
which mean nothing on another server.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping

from xnatctl.engine.types import Stamp
from xnatctl.model import File, Level, Resource, Side
from xnatctl.xnat.parse import place_of

Place = tuple[Level | None, str | None, Side | None]

PROJECT = "project"
SETTINGS = "settings"
"""Keys of the units of the project itself: its own things first, its settings after all else."""

USERS, GROUPS = f"{SETTINGS}/users", f"{SETTINGS}/groups"
"""Who has a role in the project, and who is in a group of its own: a line `ROLE LOGIN` each, a
line without a login for the group itself."""
ROLES = frozenset({"Owners", "Members", "Collaborators"})

SESSION_XML = "session.xml"
SUBJECT_XML = "subject.xml"
PROJECT_XML = "project.xml"
FIELDS = "fields.json"
"""The key of a unit's JSON custom fields: an object by `scans/3`, `assessors/L`, or nothing."""
NO_FIELDS = "0"
"""The digest of fields that were not looked at yet, or that were not there when they were."""


def container_key(place: Place, label: str) -> str:
    """The key of a resource: where it hangs, and its label. A slash inside a scan ID is escaped."""
    level, item, side = place
    parts = [level, (item or "").replace("/", "%2F")] if level else []
    if side:
        parts.append(side)
    return "/".join([*filter(None, parts), "resources", label.replace("/", "%2F")])


_KEY = re.compile(
    r"(?P<lane>(?:(?P<level>scans|assessors|reconstructions)/(?P<item>[^/]+)/"
    r"(?:(?P<side>in|out)/)?)?resources/[^/]+)/files/(?P<path>.+)",
    re.DOTALL,
)


def parse_key(key: str) -> tuple[str, Place, str] | None:
    """The container key, the place and the path in the resource that make up a file's key."""
    found = _KEY.fullmatch(key)
    if not found:
        return None
    item = found["item"].replace("%2F", "/") if found["item"] else None
    return found["lane"], (found["level"], item, found["side"]), found["path"]  # type: ignore[return-value]


def document_key(assessor: str) -> str:
    return f"assessors/{assessor.replace('/', '%2F')}/assessor.xml"


def free_key(taken: Container[str], place: Place, label: str) -> str:
    """The key of a resource; the second of one label in one place gets a number."""
    key = first = container_key(place, label)
    number = 1
    while key in taken:
        number += 1
        key = f"{first}_{number}"
    return key


class Catalogue:
    """File rows sorted into containers; the same on both ends, so that keys agree.

    `names` translates the item in a URI (accession ID of an assessor, scan ID of this server) into
    the one that keys use.
    """

    def __init__(
        self, files: Iterable[File], names: Mapping[tuple[Level, str], str] | None = None
    ) -> None:
        names = names or {}
        self.files: dict[str, list[File]] = defaultdict(list)
        self.ids: dict[str, str] = {}
        self.places: dict[str, Place] = {}
        keys: dict[tuple[Place, str], str] = {}
        for file in files:
            level, item, side = place_of(file.uri)
            if level and item:
                item = names.get((level, item), item)
            place: Place = (level, item, side or default_side(level))
            known = keys.get((place, file.resource_id))
            if known is None:
                known = free_key(self.ids, place, file.resource or file.resource_id)
                keys[place, file.resource_id] = known
                self.ids[known] = file.resource_id
                self.places[known] = place
            self.files[known].append(file)

    def inventory(self) -> dict[str, Stamp]:
        """A stamp for every file, and one with the count for every container."""
        found = {}
        for key, files in self.files.items():
            found[key] = Stamp(objects=len(files))
            for file in files:
                found[f"{key}/files/{file.path}"] = Stamp(file.size, file.digest)
        return found


def default_side(level: Level | None) -> Side | None:
    return "out" if level in ("assessors", "reconstructions") else None


def label_of(key: str) -> str:
    """The label of the resource that a container key ends in."""
    return key.rpartition("/")[2].replace("%2F", "/")


def described(resources: Iterable[Resource]) -> dict[str, tuple[Place, Resource]]:
    """Resources out of item XML by the keys that a `Catalogue` gives them."""
    found: dict[str, tuple[Place, Resource]] = {}
    for one in resources:
        ref = one.ref
        place: Place = (ref.level, ref.item, ref.side or default_side(ref.level))
        found[free_key(found, place, one.label)] = (place, one)
    return found
