"""The scratch space of a user, `/data/user/cache/resources/X/files/F`, and moving out of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from . import finding
from .accounts import EDIT
from .bodies import digest_file, safe_path, safe_segment
from .catalog import Resource
from .receiving import Spool, files_below
from .routing import Place, parse
from .sending import Body, send_file
from .web import Call, Refusal, empty, table


def folder_of(call: Call) -> Path:
    """Where the caller's scratch files lie."""
    return call.store.root / "cache" / safe_segment(call.user.login)


def located(call: Call, address: str) -> Path | None:
    """The file or folder of the caller's cache that an address names; None for another address."""
    parts = [part for part in address.split("/") if part]
    while parts and parts[0] in ("data", "REST"):
        parts.pop(0)
    if parts[:3] != ["user", "cache", "resources"] or parts[4:5] not in ([], ["files"]):
        return None
    below = [*parts[3:4], *parts[5:]]
    return folder_of(call) / safe_path("/".join(below)) if below else folder_of(call)


async def handle(call: Call, rest: list[str]) -> web.StreamResponse:
    """Answer `resources[/X[/files[/F]]]`: upload, list, send and delete."""
    path = located(call, "/user/cache/resources/" + "/".join(rest))
    if path is None:
        raise Refusal(404, "Unable to find file.")
    if call.method in ("PUT", "POST") and rest:
        await _take(call, path, named=len(rest) > 2)
        return empty()
    if not path.exists() and len(rest) != 0:
        raise Refusal(404, "Unable to find file.")
    if call.method == "DELETE":
        for _, file in files_below(path):
            file.unlink()
        return empty()
    if path.is_file():
        stat = path.stat()
        return await send_file(call, Body(path.name, stat.st_size, 0, stat.st_mtime, path))
    rows = []
    for _, file in files_below(path):
        name, _, below = file.relative_to(folder_of(call)).as_posix().partition("/")
        uri = f"/data/user/cache/resources/{name}/files/{below}"
        rows.append({"Name": file.name, "Size": file.stat().st_size, "URI": uri})
    return table(call, ("Name", "Size", "URI"), rows)


async def _take(call: Call, path: Path, *, named: bool) -> None:
    if not call.media.startswith("multipart/"):
        spool = Spool(call.store)
        await spool.fill(call.chunks())
        spool.keep_at(path if named else path / "upload")
        return
    async for part in call.parts():
        if part.filename:
            data = bytes(await part.read())
            spool = Spool(call.store)
            await spool.feed(data)
            await spool.finish()
            spool.keep_at(path if named else path / safe_segment(part.filename))


async def move_files(call: Call) -> web.Response:
    """POST /data/services/move-files: out of the cache into resources.

    `src` and `dest`, or any number of pairs whose name is the source. What is there already is
    left alone with 409 unless `overwrite=true`; then nothing of that pair has moved.
    """
    if call.method != "POST":
        raise Refusal(405, "The service takes POST")
    await call.form()
    pairs = [(key, value) for key, value in call.params if "/" in key]
    if call.has("src"):
        if not call.param("dest"):
            raise Refusal(400, "Missing dest path")
        pairs.append((call.param("src"), call.param("dest")))
    if not pairs:
        raise Refusal(400, "Missing src and dest path")
    for source, destination in pairs:
        path = located(call, source)
        if path is None:
            raise Refusal(400, f"Invalid Source:{source}")
        await _move(call, path, destination)
    return empty()


async def _move(call: Call, path: Path, destination: str) -> None:
    parts = [part for part in destination.split("/") if part]
    while parts and parts[0] in ("data", "REST", "archive"):
        parts.pop(0)
    place = parse(parts)
    if place.rest or "resource" not in place.ids:
        raise Refusal(400, f"Invalid Destination:{destination}")
    item = finding.locate(call, Place(place.deepest, place.ids))
    finding.require(call, item, EDIT)
    wanted = _targets(path, place.file)
    if not wanted:
        raise Refusal(404, f"Unable to find {path.name}")
    label, bucket = place.ids["resource"], place.ids.get("bucket", "")
    store = call.store
    resource = next(
        (r for r in store.resources(item) if label in (r.label, str(r.id))), None
    ) or store.create_resource(item, label, bucket=bucket)
    known = {file.path for file in store.files(resource)}
    if clash := sorted(known & set(wanted)) if call.param("overwrite") != "true" else []:
        raise Refusal(409, f"{clash[0]} already exists")
    for name, file in wanted.items():
        await _adopt(call, resource, name, file)
    store.refresh_stats(resource)


def _targets(path: Path, below: str) -> dict[str, Path]:
    """The path inside the resource for each file that is moved."""
    parts = [(inner, file) for inner, file in files_below(path)]
    return {"/".join(p for p in (below, inner) if p) or file.name: file for inner, file in parts}


async def _adopt(call: Call, resource: Resource, name: str, file: Path) -> None:
    digests = await asyncio.to_thread(digest_file, file)
    body = call.store.adopt(resource, name, file)
    call.store.catalog(resource, name, digests, body=body, stats=False)
