"""A session as one thing: its folder (`DIR`) and its XAR.

A XAR is a zip of the session's document beside its folder, with the catalog of every resource, in
the layout that the importer takes back (`xar.py`): `LABEL.xml`, `LABEL/SCANS/3/DICOM/…`. The
document gives the catalogs' places from that folder on.
"""

from __future__ import annotations

import fnmatch
import zlib
from collections.abc import Iterator

from aiohttp import web

from . import documents
from .assembly import assemble, catalog_name, catalog_text
from .bodies import Generated
from .catalog import Resource
from .files import body_of
from .sending import Body, send_archive, send_file
from .store import Item
from .web import Call, Refusal, table

_DIR = ("Name", "DIR", "Size", "URI")


async def export(call: Call, item: Item, rest: list[str]) -> web.StreamResponse:
    """Answer `DIR[/path]`, `XAR`, or `DICOMDIR` (a zip of the scan's files, without one)."""
    match rest:
        case ["XAR", *_]:
            return await send_archive(call, list(_xar(call, item)), item.label, "zip")
        case ["DICOMDIR", *_]:
            return await send_archive(call, _files(call, item), item.code, "zip")
    return await _folder(call, item, [part for part in rest[1:] if part])


def _folders(call: Call, item: Item) -> Iterator[tuple[Item, Resource, str]]:
    """Every resource of an item and of what it holds, with its folder below the item's."""
    for child in (item, *call.store.find("parent=?", item.id)):
        below = child.folder.removeprefix(item.folder).strip("/")
        for resource in call.store.resources(child):
            yield child, resource, "/".join(part for part in (below, resource.folder) if part)


def _files(call: Call, item: Item) -> Iterator[Body]:
    for _, resource, folder in _folders(call, item):
        for file in call.store.files(resource):
            yield body_of(call, resource, file, f"{folder}/{file.path}")


async def _folder(call: Call, item: Item, path: list[str]) -> web.StreamResponse:
    """A folder of the session: its entries as a table, all below it as a zip, or one file."""
    if ".." in path:
        raise Refusal(400, "'..' is not allowed in this resource URI.")
    chosen = [body for body in _files(call, item) if _below(body.name, path)]
    if not chosen:
        raise Refusal(404, "Specified request didn't match any stored files.")
    if call.param("format").lower() in ("zip", "tar", "tar.gz"):
        return await send_archive(call, chosen, item.label, call.param("format").lower())
    if path and len(chosen) == 1 and len(chosen[0].name.split("/")) == len(path):
        return await send_file(call, chosen[0])
    rows: dict[str, dict[str, object]] = {}
    for body in chosen:
        parts = body.name.split("/")
        deep = len(parts) if call.flag("recursive") else len(path) + 1
        name, uri = "/".join(parts[len(path) : deep]), "/".join(parts[:deep])
        size = body.size if deep == len(parts) else 0
        rows[uri] = {
            "Name": name, "DIR": str(deep < len(parts)).lower(), "Size": size,
            "URI": f"/data/experiments/{item.code}/DIR/{uri}",
        }  # fmt: skip
    return table(call, _DIR, rows.values(), title="Files", described=True, counted=False)


def _below(name: str, path: list[str]) -> bool:
    parts = name.split("/")
    return len(parts) >= len(path) and all(map(fnmatch.fnmatchcase, parts, path))


def _made(name: str, text: str) -> Body:
    data = text.encode()
    return Body(name, len(data), zlib.crc32(data), 0.0, Generated(len(data), prefix=data))


def _xar(call: Call, item: Item) -> Iterator[Body]:
    whole = assemble(call.store, item, hidden=False)
    root = f"/data/xnat/archive/{item.folder}/"
    for element in whole.iter():
        if element.get("URI", "").startswith(root):
            element.set("URI", element.get("URI", "").removeprefix(root))
    yield _made(f"{item.label}.xml", documents.write(whole, declaration=True))
    for child, resource, folder in _folders(call, item):
        place = f"{item.label}/{folder}"
        text = catalog_text(call.store, resource, call.user.login)
        yield _made(f"{place}/{catalog_name(child, resource)}", text)
        for file in call.store.files(resource):
            yield body_of(call, resource, file, f"{place}/{file.path}")
