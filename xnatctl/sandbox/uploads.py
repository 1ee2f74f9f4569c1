"""Uploads into resources: what counts as a body, what is stored, what is answered.

1. Without edit right the answer is 200 and nothing is stored (a switch makes it 403).
2. A body is in-body (`inbody=true` or a known media type) or the file parts of a multipart form;
   anything else is 400. In-body needs a declared length of at least one byte unless it is
   `application/zip`; otherwise 500.
3. The bytes are put where they belong as they arrive; a zip is unpacked entry by entry at the
   resource's root, the folder of the URL is ignored.
4. Only at the end is the catalog written. If somebody else has written it meanwhile, the answer is
   500 and the files lie on disk without an entry.
5. Names that exist are left alone without `overwrite` and reported as `duplicates` with 200.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_plus

import msgspec
from aiohttp import web

from .accounts import EDIT
from .bodies import Digests, safe_path
from .catalog import Resource
from .members import ARCHIVES, members
from .receiving import Shelf, Spool, files_below, inbox_path, read_file
from .routing import Place
from .store import Item
from .untar import gunzip
from .unzip import BadZip
from .web import Call, Refusal, empty, json, text

_KNOWN = (
    "application/octet-stream", "application/zip", "application/x-zip-compressed",
    "application/gzip", "application/x-gzip", "application/x-tar", "application/x-gtar",
    "application/xml", "application/pdf", "application/dicom", "application/msword",
    "application/postscript", "application/vnd.ms-excel", "image/", "video/", "audio/", "text/",
)  # fmt: skip
_NAMES = {"application/zip": "upload.zip", "application/x-tar": "upload.tar",
          "application/x-gtar": "upload.tar.gz"}  # fmt: skip


def file_name(call: Call, path: str) -> str:
    """The file that a URL's last part names, after the second decoding that some handlers do."""
    if not call.settings.mangle_paths:
        return path
    return unquote_plus(path.partition(";")[0]) if "%" in path or "+" in path else (
        unquote(path.partition(";")[0])
    )  # fmt: skip


@dataclass(slots=True)
class _Intake:
    """One upload while it is being stored."""

    call: Call
    resource: Resource
    folder: Path
    shelf: Shelf = field(default_factory=Shelf)
    stored: dict[str, tuple[Digests, str]] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)

    async def put(self, path: str, pieces: AsyncIterator[bytes | memoryview]) -> None:
        """Store one file, or note it as a duplicate (its bytes are read and dropped)."""
        if not self.call.flag("overwrite") and self._is_there(path):
            self.duplicates.append(path)
            async for _ in pieces:
                pass
            return
        spool = Spool(self.call.store)
        digests = await spool.fill(pieces)
        try:
            body = await self.shelf.put(spool, self.folder / safe_path(path))
        except OSError as error:
            spool.drop()
            raise Refusal(500, f"Unable to store {path}: {error.strerror}") from error
        self.stored[path] = (digests, body)

    def _is_there(self, path: str) -> bool:
        return path in self.stored or self.call.store.has_file(self.resource, path)

    async def commit(self) -> None:
        """Write the catalog; 500 if somebody else has done so meanwhile."""
        call, store = self.call, self.call.store
        try:
            await self.shelf.finish()
        except OSError as error:
            raise Refusal(500, f"Unable to store the files: {error.strerror}") from error
        if call.settings.catalog_race:
            try:
                now = store.resource(self.resource.id).version
            except KeyError:
                raise Refusal(500, "The resource was deleted during the upload") from None
            if now != self.resource.version:
                raise Refusal(
                    500, "ConcurrentModificationException: the catalog was modified meanwhile"
                )
        with store.transaction():
            store.catalog_all(
                self.resource,
                ((path, digests, body) for path, (digests, body) in self.stored.items()),
                format=call.stored(call.param("format")),
                content=call.stored(call.param("content")),
                tags=call.stored(call.param("tags")),
            )
            if self.stored and call.param("update-stats", "true") in ("true", "1"):
                store.refresh_stats(self.resource)


async def upload(call: Call, place: Place, item: Item) -> web.StreamResponse:
    """PUT or POST to a `files` URL."""
    if call.accounts.item_rights(call.user, item) < EDIT:
        if not call.settings.silent_refusal:
            raise Refusal(403, "Specified user account has insufficient privileges")
        async for _ in call.chunks():
            pass
        return empty()
    multipart = call.media.startswith("multipart/")
    if call.has("reference") and not multipart:
        return await _refer(call, place, item)
    if call.flag("inbody") and multipart:
        raise Refusal(406, "A multipart body cannot be in-body")
    if not multipart and not call.flag("inbody") and not call.media.startswith(_KNOWN):
        raise Refusal(400, "No data was found in the request")
    if not multipart:
        length = call.request.content_length
        if not length and not (length is None and call.media == "application/zip"):
            raise Refusal(500, "The uploaded body has no size")
    limit = call.settings.max_body
    if limit is not None and (call.request.content_length or 0) > limit:
        raise Refusal(413, "Request Entity Too Large")
    name = file_name(call, place.file)
    return await _stored(call, place, item, lambda intake: _receive(intake, name))


async def _stored(
    call: Call, place: Place, item: Item, receive: Callable[[_Intake], Awaitable[None]]
) -> web.Response:
    """Let an upload be received into its resource, made if it must be; the answer to it."""
    if any(part in (".", "..") for part in place.file.split("/")):
        raise Refusal(400, "Invalid file path")
    existing = _existing(call, item, place)
    resource = existing or _create(call, item, place)
    intake = _Intake(
        call,
        resource,
        call.store.resource_folder(resource),
    )
    try:
        await receive(intake)
    finally:
        await intake.shelf.finish()
        call.sandbox.creating.discard(resource.id)
        if existing is None and not intake.stored:
            call.store.delete_resource(resource, remove_files=False)
    if existing is not None:
        _rewrite_metadata(call, existing)
    if intake.duplicates:
        body = msgspec.json.encode({"duplicates": intake.duplicates}).decode()
        return text(body, media="text/html")
    return empty()


async def _refer(call: Call, place: Place, item: Item) -> web.StreamResponse:
    """`reference=/path`: files of the server's own disk, here of the inbox alone.

    `delete=true` removes them there; with `async=true` the answer is a workflow to follow.
    """
    name = file_name(call, place.file)
    source = inbox_path(call, call.param("reference"))

    async def receive(intake: _Intake) -> None:
        for path, file in files_below(source):
            below = "/".join(part for part in (name, path) if part)
            await intake.put(below or file.name, read_file(file))
            if call.flag("delete"):
                file.unlink()
        await intake.commit()

    if not call.flag("async"):
        return await _stored(call, place, item, receive)
    project = call.store.item(item.project).code
    number = call.sandbox.workflow(item, project, "Upload files", "Running", call.user.login)

    async def behind() -> None:
        status = "Failed"
        try:
            await _stored(call, place, item, receive)
            status = "Complete"
        finally:
            call.store.db.execute("UPDATE workflows SET status=? WHERE id=?", (status, number))

    call.sandbox.spawn(behind())
    return json({"workflowId": str(number)})


async def _receive(intake: _Intake, name: str) -> None:
    """Take the body in and write the catalog, also of what came before an archive broke off."""
    call = intake.call
    try:
        if call.media.startswith("multipart/"):
            await _multipart(intake, name)
        else:
            await _one(intake, name or _NAMES.get(call.media, "upload"), call.chunks())
    except BadZip as error:
        await intake.commit()
        raise Refusal(500, f"Unable to read the archive: {error}") from error
    await intake.commit()


def _existing(call: Call, item: Item, place: Place) -> Resource | None:
    label = place.ids.get("resource", "")
    bucket = place.ids.get("bucket", "out" if item.kind in ("assessor", "reconstruction") else "")
    own = call.store.resources(item, bucket)
    if label.isdigit():
        found = next((r for r in own if r.id == int(label)), None)
        if found is None:
            raise Refusal(404, f"Unable to find resource {label}")
        return found
    # A resource whose first upload still runs is not there yet: two of them make two resources.
    return next((r for r in own if r.label == label and r.id not in call.sandbox.creating), None)


def _create(call: Call, item: Item, place: Place) -> Resource:
    made = call.store.create_resource(
        item,
        place.ids.get("resource", ""),
        bucket=place.ids.get("bucket", ""),
        format=call.stored(call.param("format")),
        content=call.stored(call.param("content")),
        description=call.stored(call.param("description")),
        tags=call.stored(call.param("tags")),
    )
    call.sandbox.creating.add(made.id)
    return made


def _rewrite_metadata(call: Call, resource: Resource) -> None:
    """The upload's format, content, tags and description become the resource's own, too."""
    columns = {
        name: call.stored(call.param(name))
        for name in ("format", "content", "tags", "description")
        if call.param(name)
    }
    if columns:
        call.store.update_resource(resource, **columns)


async def _multipart(intake: _Intake, name: str) -> None:
    found = False
    async for part in intake.call.parts():
        filename = part.filename
        if filename is None:
            if part.name == "reference":
                raise Refusal(400, "A reference cannot be given in a form")
            continue
        found = True
        await _one(intake, name or str(filename), _part(part))
    if not found:
        raise Refusal(400, "No data was found in the request")


async def _part(part: Any) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(1 << 17):
        yield chunk


async def _one(intake: _Intake, name: str, pieces: AsyncIterator[bytes]) -> None:
    """Store one uploaded body: as a file, or what it holds with `extract`."""
    base = name.rpartition("/")[2]
    if not intake.call.flag("extract") or not base.endswith((*ARCHIVES, ".gz")):
        if base.endswith("_catalog.xml"):
            raise Refusal(500, "A catalog cannot be uploaded as a file")
        await intake.put(name, pieces)
    elif base.endswith(ARCHIVES):
        async for entry, data in members(base, pieces):
            if (path := member_path(entry)) is not None:
                await intake.put(path, data)
    else:
        await intake.put(base.removesuffix(".gz"), gunzip(pieces))


def member_path(name: str) -> str | None:
    """Where an archive's member goes; None for what is skipped (catalogs, ways out)."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts or parts[-1].endswith("_catalog.xml"):
        return None
    return "/".join(parts)
