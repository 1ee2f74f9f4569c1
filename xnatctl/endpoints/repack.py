"""A zip written from the members of another one while both are on their way. Nothing is
recompressed.

XNAT unpacks with Java's forward-only reader, which cannot read a stored member whose size and CRC
follow its body. Such members are wrapped into deflate blocks of kind `stored` as they pass: five
bytes per 64 KiB, and no member has to be kept until its CRC is known.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

from xnatctl.zipstream import DEFLATED, STORED, Event, MemberData, MemberEnd, MemberStart, ZipWriter

_BLOCK, _LARGE = 128 * 1024, 16 * 1024


async def as_zip(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    """The archive of the members in `events`, under the names that these carry."""
    writer = ZipWriter()
    async for block in _gathered(members_of(writer, events)):
        yield block
    yield writer.finish()


async def _gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Small pieces in blocks, since a write to a socket costs as much as packing a member; large
    ones as they are, since a copy costs more.
    """
    held: list[bytes] = []
    size = 0
    async for piece in pieces:
        is_large = len(piece) >= _LARGE
        if not is_large:
            held.append(piece)
            size += len(piece)
        if held and (is_large or size >= _BLOCK):
            yield b"".join(held)
            held, size = [], 0
        if is_large:
            yield piece
    if held:
        yield b"".join(held)


async def members_of(writer: ZipWriter, events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    """The members alone, as they stand in the archive that `writer` writes."""
    wrap: zlib._Compress | None = None
    async for event in events:
        if isinstance(event, MemberStart):
            wrap = None
            if event.method == STORED and (event.crc is None or event.size is None):
                wrap = zlib.compressobj(0, zlib.DEFLATED, -15)
                yield writer.start(event.name, method=DEFLATED)
            else:
                yield writer.start(
                    event.name,
                    method=event.method,
                    crc=event.crc,
                    size=event.size,
                    csize=event.csize,
                )
        elif isinstance(event, MemberData):
            raw = event.raw if wrap is None else wrap.compress(event.plain)
            if raw:
                writer.note(len(raw))
                yield bytes(raw)
        elif isinstance(event, MemberEnd):
            if wrap is not None:
                rest = wrap.flush()
                writer.note(len(rest))
                yield rest
            if after := writer.end(event.crc, event.size, None if wrap else event.csize):
                yield after
