"""Reading a tar as it arrives: members in order, long names of both kinds understood."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import AsyncIterator

from .unzip import BadZip

_BLOCK = tarfile.BLOCKSIZE


async def gunzip(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Inflate a gzip stream; BadZip where it is broken or cut."""
    inflater = zlib.decompressobj(31)
    try:
        async for chunk in source:
            data = chunk
            while data:
                piece = inflater.decompress(data, 1 << 20)
                if piece:
                    yield piece
                data = inflater.unconsumed_tail
                if inflater.eof:
                    data = b""
    except zlib.error as error:
        raise BadZip(f"the gzip stream cannot be inflated: {error}") from error
    if not inflater.eof:
        raise BadZip("the gzip stream is truncated")


class TarStream:
    """Regular files of a tar whose bytes come from an async iterator."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._buffer = b""
        self._left = 0
        self._padding = 0

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            chunk = await anext(self._source, b"")
            if not chunk:
                raise BadZip("the tar archive is truncated")
            self._buffer += chunk
        head, self._buffer = self._buffer[:count], self._buffer[count:]
        return head

    async def members(self) -> AsyncIterator[str]:
        """The name of each regular file; its bytes come from `data` before the next name."""
        name = ""
        while True:
            async for _ in self.data():
                pass
            block = await self._exactly(_BLOCK)
            if block.count(0) == _BLOCK:
                async for _ in self._source:
                    pass
                return
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise BadZip(f"the body is not a tar archive: {error}") from error
            self._left = info.size
            self._padding = -info.size % _BLOCK
            if info.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE):
                text = b"".join([piece async for piece in self.data()])
                if info.type == tarfile.XHDTYPE:
                    name = _pax_path(text) or name
                elif info.type == tarfile.GNUTYPE_LONGNAME:
                    name = text.rstrip(b"\0").decode("utf-8", "replace")
                continue
            if info.isreg():
                yield name or info.name
            name = ""

    async def data(self) -> AsyncIterator[bytes]:
        """The bytes of the current member."""
        while self._left:
            if not self._buffer:
                self._buffer = await anext(self._source, b"")
                if not self._buffer:
                    raise BadZip("the tar archive is truncated")
            piece = self._buffer[: self._left]
            self._buffer = self._buffer[len(piece) :]
            self._left -= len(piece)
            yield piece
        padding, self._padding = self._padding, 0
        if padding:
            await self._exactly(padding)


def _pax_path(text: bytes) -> str:
    while text:
        length, _, rest = text.partition(b" ")
        record = rest[: int(length) - len(length) - 2]
        key, _, value = record.partition(b"=")
        if key == b"path":
            return value.decode("utf-8", "replace")
        text = text[int(length) :]
    return ""
