"""Reading a zip as it arrives, the way a forward-only Java stream reader does.

Only local headers are looked at, the central directory is skipped unread. Deflated members may
use a trailing data descriptor; stored ones may not (their end cannot be found). Lengths and CRCs
are checked at the end of each member.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_ENDS = (b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06")
_STREAMED = 0x08


class BadZip(ValueError):
    """The archive cannot be read on; the message says where it broke."""


@dataclass(frozen=True, slots=True)
class Member:
    """The head of a member; `size` is -1 where only the trailing descriptor will tell."""

    name: str
    method: int
    flags: int
    crc: int
    packed: int
    size: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


class ZipStream:
    """Members of a zip whose bytes come from an async iterator.

    `async for member in stream:` and inside it `async for data in stream.data(member):`. Data that
    the caller does not take is skipped.
    """

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._buffer = b""
        self._at = 0
        self._iterator: AsyncIterator[bytes | memoryview] | None = None

    async def _need(self, count: int) -> bool:
        """Have `count` bytes ahead in the buffer; False when the source ends before."""
        have = len(self._buffer) - self._at
        if have >= count:
            return True
        parts = [self._buffer[self._at :]] if have else []
        async for chunk in self._source:
            parts.append(chunk)
            have += len(chunk)
            if have >= count:
                break
        self._buffer = parts[0] if len(parts) == 1 else b"".join(parts)
        self._at = 0
        return have >= count

    def _take(self, count: int) -> bytes:
        self._at += count
        return self._buffer[self._at - count : self._at]

    def _peek(self, start: int, end: int) -> bytes:
        return self._buffer[self._at + start : self._at + end]

    async def members(self) -> AsyncIterator[Member]:
        """Every member in order; BadZip where the archive breaks off or is none."""
        first = True
        while True:
            if self._iterator is not None:
                async for _ in self._iterator:
                    pass
                self._iterator = None
            if not await self._need(4):
                if first:
                    raise BadZip("the body is not a zip archive")
                raise BadZip("the archive ends before its central directory")
            if self._peek(0, 4) in _ENDS:
                async for _ in self._source:
                    pass
                return
            member = await self._head()
            first = False
            self._iterator = self._data(member)
            yield member

    async def _head(self) -> Member:
        if self._peek(0, 4) != b"PK\x03\x04":
            raise BadZip("the body is not a zip archive")
        if not await self._need(_LOCAL.size):
            raise BadZip("the archive is truncated in a header")
        values = _LOCAL.unpack(self._take(_LOCAL.size))
        flags, method, crc, packed, size, name_len, extra_len = (
            values[2], values[3], values[6], values[7], values[8], values[9], values[10],
        )  # fmt: skip
        if not await self._need(name_len + extra_len):
            raise BadZip("the archive is truncated in a header")
        name = self._take(name_len).decode("utf-8" if flags & 0x800 else "cp437", "replace")
        extra = self._take(extra_len)
        if 0xFFFFFFFF in (packed, size):
            packed, size = _zip64(extra, packed, size)
        if flags & 1:
            raise BadZip("encrypted members cannot be read")
        if method not in (0, 8):
            raise BadZip(f"unsupported compression method {method}")
        if flags & _STREAMED:
            if method == 0:
                raise BadZip("only DEFLATED entries can have EXT descriptor")
            packed = size = -1
        return Member(name, method, flags, crc, packed, size)

    def data(self, member: Member) -> AsyncIterator[bytes | memoryview]:
        """The bytes of the member that `members` has just given."""
        if self._iterator is None:
            raise BadZip(f"{member.name} has been read already")
        return self._iterator

    async def _data(self, member: Member) -> AsyncIterator[bytes | memoryview]:
        crc = size = 0
        pieces = self._stored(member) if member.method == 0 else self._inflated(member)
        async for piece in pieces:
            crc = zlib.crc32(piece, crc)
            size += len(piece)
            yield piece
        wanted = member.crc
        if member.flags & _STREAMED:
            wanted = await self._descriptor(size)
        elif size != member.size:
            raise BadZip(f"{member.name} has {size} bytes, its header says {member.size}")
        if crc != wanted:
            raise BadZip(f"invalid entry CRC of {member.name}")

    async def _stored(self, member: Member) -> AsyncIterator[memoryview]:
        left = member.packed
        while left:
            if not await self._need(1):
                raise BadZip(f"the archive is truncated in {member.name}")
            piece = memoryview(self._buffer)[self._at : self._at + left]
            self._at += len(piece)
            left -= len(piece)
            yield piece

    async def _inflated(self, member: Member) -> AsyncIterator[bytes]:
        inflater = zlib.decompressobj(-15)
        # Where the packed length is not known, small steps keep little from being handed back.
        left = member.packed if member.packed >= 0 else -1
        while not inflater.eof:
            if not await self._need(1):
                raise BadZip(f"the archive is truncated in {member.name}")
            step = left if left >= 0 else 1 << 14
            data: bytes | memoryview = memoryview(self._buffer)[self._at : self._at + step]
            if not data:
                raise BadZip(f"{member.name} is longer than its header says")
            self._at += len(data)
            left -= len(data) if left >= 0 else 0
            try:
                while data and not inflater.eof:
                    piece = inflater.decompress(data, 1 << 20)
                    data = inflater.unconsumed_tail
                    if piece:
                        yield piece
            except zlib.error as error:
                raise BadZip(f"{member.name} cannot be inflated: {error}") from error
        rest = inflater.flush()
        if rest:
            yield rest
        self._at -= len(inflater.unused_data)

    async def _descriptor(self, size: int) -> int:
        if not await self._need(16):
            raise BadZip("the archive is truncated in a data descriptor")
        if self._peek(0, 4) == b"PK\x07\x08":
            self._take(4)
        crc: int = struct.unpack("<L", self._take(4))[0]
        # A zip64 descriptor has lengths of eight bytes: the next signature tells which it is.
        await self._need(20)
        wide = size > 0xFFFFFFFF or (self._peek(8, 10) != b"PK" and self._peek(16, 18) == b"PK")
        self._take(16 if wide else 8)
        return crc


def _zip64(extra: bytes, packed: int, size: int) -> tuple[int, int]:
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind == 1:
            at = position + 4
            if size == 0xFFFFFFFF:
                size = struct.unpack_from("<Q", extra, at)[0]
                at += 8
            if packed == 0xFFFFFFFF:
                packed = struct.unpack_from("<Q", extra, at)[0]
            break
        position += 4 + length
    return packed, size
