"""From the segments of an archive path to the place it names.

Routes match by prefix: a path that goes on with segments nobody registered stops at the longest
known route, and the segments left over stay in `Place.rest`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_NEXT: dict[str, dict[str, str]] = {
    "root": {"projects": "project", "subjects": "flat_subject", "experiments": "experiment"},
    "project": {"subjects": "subject", "experiments": "short", "resources": "resource"},
    "subject": {"experiments": "experiment", "resources": "resource"},
    "flat_subject": {"resources": "resource"},
    "experiment": {
        "scans": "scan",
        "assessors": "assessor",
        "reconstructions": "reconstruction",
        "resources": "resource",
    },
    "short": {"resources": "resource"},
    "scan": {"resources": "resource"},
    "assessor": {"resources": "resource"},
    "reconstruction": {"resources": "resource"},
    "bucket": {"resources": "resource"},
}
_FILES = {"project", "subject", "flat_subject", "experiment", "scan", "assessor", "reconstruction"}
_KIND = {"flat_subject": "subject", "short": "experiment"}


@dataclass(slots=True)
class Place:
    """What a path names.

    `node` is an item's kind when it is named (`project` … `resource`), its plural when the list
    is meant, or `files` with the path below in `file`; `ids` has what each level was called;
    `short` marks `/projects/P/experiments/E`, `template` is the route for counting.
    """

    node: str = "root"
    ids: dict[str, str] = field(default_factory=dict)
    file: str = ""
    rest: list[str] = field(default_factory=list)
    template: str = "/data"
    short: bool = False

    @property
    def deepest(self) -> str:
        """The kind of the item that lists, resources and files hang on."""
        for kind in ("reconstruction", "assessor", "scan", "experiment", "subject", "project"):
            if kind in self.ids:
                return kind
        return "root"


def parse(segments: list[str]) -> Place:
    """The place that the segments after `/data` name; empty trailing segments do not count."""
    parts = list(segments)
    while parts and parts[-1] == "":
        parts.pop()
    place = Place()
    node = "root"
    index = 0
    while index < len(parts):
        word = parts[index]
        if word == "files" and (node in _FILES or node in ("resource", "bucket")):
            place.node = "files"
            place.file = "/".join(parts[index + 1 :])
            if segments[-1:] == [""] and place.file:
                place.file += "/"
            place.template += "/files" + ("/…" if place.file else "")
            return place
        if word in ("in", "out") and node in ("assessor", "reconstruction"):
            place.ids["bucket"] = word
            place.template += f"/{word}"
            node = "bucket"
            index += 1
            continue
        follower = _NEXT.get(node, {}).get(word)
        if follower is None:
            break
        place.template += f"/{word}"
        index += 1
        if index == len(parts):
            place.node = word
            return place
        kind = _KIND.get(follower, follower)
        place.ids[kind] = parts[index]
        place.short = follower == "short"
        place.template += f"/{{{kind}}}"
        place.node = kind
        node = follower
        index += 1
    place.rest = parts[index:]
    return place
