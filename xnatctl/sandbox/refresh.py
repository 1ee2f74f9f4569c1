"""Refreshing catalogs: what is on disk against what is catalogued."""

from __future__ import annotations

from . import finding
from .bodies import digest_file
from .catalog import Resource
from .files import held
from .routing import Place, parse
from .store import Item
from .web import Call, Refusal

_ALL = {"append", "checksum", "delete", "populateStats"}


def refresh(call: Call, address: str, options: set[str], *, need: int) -> None:
    """Run the options over one address (`/archive/experiments/E`, … down to one resource).

    `append` catalogues files that lie on disk without an entry, `delete` drops entries without a
    file, `checksum` fills missing digests, `populateStats` recounts; none given means all. A
    project's sessions are not refreshed with it. 400 for an address that names nothing of ours,
    403 without the right.
    """
    parts = [part for part in address.split("/") if part]
    while parts and parts[0] in ("data", "REST", "archive"):
        parts.pop(0)
    place = parse(parts)
    if place.deepest == "root" or place.rest:
        raise Refusal(400, f"{address} is not a resource path")
    label = place.ids.pop("resource", None)
    item = finding.locate(call, Place(place.deepest, place.ids))
    finding.require(call, item, need)
    wanted = options or _ALL
    for resource in _resources(call, place, item):
        if label in (None, resource.label, str(resource.id)):
            _refresh_one(call, resource, wanted)


def _resources(call: Call, place: Place, item: Item) -> list[Resource]:
    found = [one.resource for one in held(call, place)]
    if item.kind == "experiment":
        for child in call.store.find("parent=?", item.id):
            found += call.store.resources(child)
    return found


def _refresh_one(call: Call, resource: Resource, options: set[str]) -> None:
    store = call.store
    folder = store.resource_folder(resource)
    files = store.files(resource)
    with store.transaction():
        if "delete" in options:
            for file in files:
                if file.body == "disk" and not store.file_path(resource, file).is_file():
                    store.remove_file(resource, file, remove_bytes=False)
        if "append" in options and folder.is_dir():
            known = {store.file_path(resource, file) for file in files}
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path not in known:
                    name = path.relative_to(folder).as_posix()
                    store.catalog(resource, name, digest_file(path), stats=False)
        if "checksum" in options:
            for file in files:
                if not file.md5 and file.body == "disk":
                    found = digest_file(store.file_path(resource, file))
                    store.db.execute("UPDATE files SET md5=? WHERE id=?", (found.md5, file.id))
        if "populateStats" in options:
            store.refresh_stats(resource)
