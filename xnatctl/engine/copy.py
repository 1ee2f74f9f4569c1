"""One item, one attempt: open at the source, prove on the way, put into the sink.

What is proven before the sink may take it for whole:

- a file: its size and MD5, as listed by the source; the last chunk is held back until they agree,
  so that a short or altered body leaves the sink's request incomplete;
- an archive: each member's CRC, size and MD5, that every listed member was in it, and that it ends
  as an archive ends. The last piece of each member is held back in the same way.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from xnatctl.errors import Corrupt, Lacking, XnatctlError
from xnatctl.zipstream import Event as ZipEvent
from xnatctl.zipstream import MemberData, MemberStart, ZipReader

from . import crash
from .ports import Chunks, Sink, Source
from .types import Item, Member, Unit

Moved = Callable[[int], None]


async def copy_item(source: Source, sink: Sink, unit: Unit, item: Item, moved: Moved) -> None:
    """Move the body of one item once. `moved` is told the bytes that came from the source.

    An error carries the end that failed in `blame`: a relay's source often dies inside the sink's
    request.
    """
    async with _opened(source, unit, item) as body:
        crash.at("item-opened")
        chunks = _blamed(body, "source")
        if item.kind in ("zip", "import"):
            await sink.put_many(unit, item, proven_members(source, item, chunks, moved))
        elif item.kind == "document":
            await sink.put(unit, item, chunks)
        else:
            await sink.put(unit, item, proven(item, chunks, moved))


@asynccontextmanager
async def _opened(source: Source, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
    async with AsyncExitStack() as stack:
        try:
            chunks = await stack.enter_async_context(source.open(unit, item))
        except XnatctlError as error:
            error.blame = "source"
            raise
        try:
            yield chunks
        except XnatctlError as error:
            error.blame = error.blame or "sink"
            raise


async def _blamed(chunks: Chunks, end: str) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except XnatctlError as error:
        error.blame = end
        raise


async def proven(item: Item, chunks: Chunks, moved: Moved) -> AsyncIterator[bytes]:
    """The chunks of a file; raises Corrupt instead of the last one when size or MD5 differ."""
    md5 = hashlib.md5(usedforsecurity=False) if item.digest else None
    size = 0
    held = b""
    async for chunk in chunks:
        moved(len(chunk))
        crash.at("file-moving")
        size += len(chunk)
        if item.size is not None and size > item.size:
            raise Corrupt(f"{item.key} is longer than the {item.size} bytes that were listed")
        if md5 is not None:
            md5.update(chunk)
        if held and chunk:
            yield held
        held = chunk or held
    _check(item.key, (item.size, item.digest), size, md5.hexdigest() if md5 else "")
    crash.at("file-proven")
    if held:
        yield held


async def proven_members(
    source: Source, item: Item, chunks: Chunks, moved: Moved
) -> AsyncIterator[ZipEvent]:
    """The events of the wanted members of an archive, each named by its path in the resource."""
    wanted = {member.path: member for member in item.members}
    reader = ZipReader(digest=any(member.digest for member in item.members))
    current: Member | None = None
    held: MemberData | None = None
    async for chunk in chunks:
        moved(len(chunk))
        crash.at("archive-moving")
        for event in reader.feed(chunk):
            if isinstance(event, MemberStart):
                path = source.member_path(item, event.name)
                current = wanted.pop(path, None)
                if current is not None:
                    yield event._replace(name=path)
            elif current is None:
                continue
            elif isinstance(event, MemberData):
                if held is not None:
                    yield held
                held = event
            else:
                _check(current.key, (current.size, current.digest), event.size, event.md5 or "")
                if held is not None:
                    yield held
                    held = None
                crash.at("member-proven")
                yield event._replace(name=current.path)
                current = None
    reader.close()
    if wanted:
        raise Lacking(
            f"the archive of {item.key} lacks {len(wanted)} of {len(item.members)} listed files",
            why=f"{next(iter(wanted))} is not in it",
        )
    crash.at("archive-proven")


def _check(key: str, listed: tuple[int | None, str], size: int, digest: str) -> None:
    if listed[0] is not None and size != listed[0]:
        raise Corrupt(f"{key} has {size} bytes, but {listed[0]} were listed")
    if listed[1] and digest and digest != listed[1]:
        raise Corrupt(
            f"{key} is not what was listed",
            why=f"MD5 {digest}, listed {listed[1]}",
            hint="refresh the catalog of its resource on the source, or look at the file there",
        )
