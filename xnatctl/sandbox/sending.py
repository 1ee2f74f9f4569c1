"""Bytes on their way out: single files and archives made while they are sent.

The server's Python must not shuffle bytes: a body of 256 KiB or more goes from its file to the
socket by sendfile, also inside a stored zip, whose member headers (size and CRC are known) are
written between. Smaller bodies are gathered into writes of some 256 KiB. The chunked framing of
archives is written here, one HTTP chunk a write.

An `Outlet` is the only way to the socket; a fault that cuts, flips, delays or throttles a body
is an outlet of another kind (`faults.py`), which sees every byte.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
import time
import zlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from mimetypes import guess_type
from pathlib import Path
from typing import BinaryIO

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from . import zipout
from .bodies import Generated, chunks, noise_file, windows
from .web import Call, Refusal

SMALL = 1 << 18
_INLINE = ("text/", "image/", "application/pdf", "application/xml")


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes to be sent: a file on disk or a recipe, with what is known of them."""

    name: str
    size: int
    crc: int
    mtime: float
    source: Path | Generated

    def present(self) -> bool:
        """Whether the bytes are there to be sent."""
        return isinstance(self.source, Generated) or self.source.is_file()

    def open(self) -> BinaryIO:
        """The bytes as a file that is open for reading."""
        if isinstance(self.source, Generated):
            return io.BytesIO(self.read())
        return self.source.open("rb")

    def read(self) -> bytes:
        """The bytes whole; for small bodies."""
        if isinstance(self.source, Generated):
            return b"".join(chunks(self.source))
        return self.source.read_bytes()


class Outlet:
    """The way to the client's socket, plain bytes and parts of files."""

    def __init__(self, call: Call, writer: AbstractStreamWriter) -> None:
        transport = call.request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self.transport = transport
        self.writer = writer
        self.counters = call.sandbox.counters

    async def write(
        self, data: bytes | memoryview, *, before: bytes = b"", after: bytes = b""
    ) -> None:
        """Send bytes of a body, with the framing around them.

        Waits while the client reads slower than we write.
        """
        if self.transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self.transport.write(b"".join((before, data, after)) if before or after else data)
        self.counters.sent(len(data))
        await self.writer.drain()

    async def pour(self, file: BinaryIO, offset: int, count: int) -> None:
        """Send part of an open file without reading it."""
        if self.transport.is_closing():
            raise ConnectionResetError("the client is gone")
        loop = asyncio.get_running_loop()
        try:
            await loop.sendfile(self.transport, file, offset, count)
        except RuntimeError as error:
            raise ConnectionResetError("the client is gone") from error
        self.counters.sent(count)

    async def body(self, body: Body) -> None:
        """Send a large body."""
        if isinstance(body.source, Generated):
            if body.source.prefix:
                await self.write(body.source.prefix)
            for offset, length in windows(body.source):
                await self.pour(noise_file(), offset, length)
            return
        with body.source.open("rb") as file:
            await self.pour(file, 0, body.size)


class _Chunked:
    """Chunked framing over an outlet: gathers small writes, passes large bodies through."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.pending = bytearray()
        self.offset = 0

    async def add(self, data: bytes) -> None:
        self.pending += data
        self.offset += len(data)
        if len(self.pending) >= SMALL:
            await self.flush()

    async def flush(self) -> None:
        if self.pending:
            data, self.pending = bytes(self.pending), bytearray()
            await self.outlet.write(data, before=b"%x\r\n" % len(data), after=b"\r\n")

    async def body(self, body: Body) -> None:
        """One chunk holding what is pending and the whole body."""
        head, self.pending = bytes(self.pending), bytearray()
        await self.outlet.write(head, before=b"%x\r\n" % (len(head) + body.size))
        await self.outlet.body(body)
        await self.outlet.write(b"", after=b"\r\n")
        self.offset += body.size


async def _start(call: Call, response: web.StreamResponse) -> Outlet:
    writer = await response.prepare(call.request)
    if writer is None:
        raise ConnectionResetError("the client is gone")
    writer.send_headers()
    return call.sandbox.outlet(call, writer)


async def send_file(call: Call, body: Body) -> web.StreamResponse:
    """Answer one file: exact length, its time, no ranges; 304 where it has not changed."""
    since = call.request.headers.get("If-Modified-Since")
    if since:
        try:
            if int(body.mtime) <= parsedate_to_datetime(since).timestamp():
                return web.Response(status=304)
        except ValueError:
            pass
    base = body.name.rpartition("/")[2]
    media = guess_type(base)[0] or "application/octet-stream"
    headers = {
        "Content-Type": media,
        "Last-Modified": formatdate(body.mtime, usegmt=True),
        "Cache-Control": "must-revalidate",
    }
    if not media.startswith(_INLINE):
        headers["Content-Disposition"] = f'attachment; filename="{_quoted(base)}"'
    if body.size < SMALL:
        return web.Response(body=body.read(), headers=headers)
    response = web.StreamResponse(headers=headers)
    response.content_length = body.size
    call.sandbox.cookies(response, call.session)
    outlet = await _start(call, response)
    if call.request.method != "HEAD":
        await outlet.body(body)
    await response.write_eof()
    return response


def _quoted(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"').encode("ascii", "replace").decode()


async def send_archive(
    call: Call, bodies: Iterable[Body], name: str, form: str, *, deflate: bool = False
) -> web.StreamResponse:
    """Answer many files as `zip`, `tar` or `tar.gz`, chunked and made while it is sent.

    Bodies that are missing on disk are skipped without a word; nothing at all to send is 404.
    """
    present = (body for body in bodies if body.present())
    first = next(present, None)
    if first is None:
        raise Refusal(404, "There are no files to send")
    media = {"zip": "application/zip", "tar": "application/x-tar"}.get(form, "application/x-gtar")
    response = web.StreamResponse(
        headers={
            "Content-Type": media,
            "Content-Disposition": f'attachment; filename="{_quoted(name)}.{form}"',
        }
    )
    response.enable_chunked_encoding()
    call.sandbox.cookies(response, call.session)
    out = _Chunked(await _start(call, response))

    def all_bodies() -> Iterable[Body]:
        yield first
        yield from present

    skip = call.sandbox.short_archive(call)
    if call.request.method == "HEAD":
        pass
    elif form == "zip":
        await _zip(out, all_bodies(), deflate or call.param("compression") == "8", skip)
    else:
        await _tar(out, all_bodies(), packed=form == "tar.gz", skip=skip)
    await out.flush()
    await response.write_eof()
    return response


async def _zip(out: _Chunked, bodies: Iterable[Body], deflate: bool, skip: int) -> None:
    central = bytearray()
    count = 0
    for index, body in enumerate(bodies):
        if index < skip:
            continue
        at = out.offset
        await out.add(
            zipout.local_header(
                body.name, size=body.size, crc=body.crc, mtime=body.mtime, streamed=deflate
            )
        )
        packed = body.size
        if deflate:
            packed = await _deflated(out, body)
        elif body.size < SMALL:
            await out.add(body.read())
        else:
            await out.body(body)
        central += zipout.central_header(
            body.name, size=body.size, packed=packed, crc=body.crc, mtime=body.mtime, offset=at,
            streamed=deflate,
        )  # fmt: skip
        count += 1
    start = out.offset
    await out.add(bytes(central))
    await out.add(zipout.end(count, len(central), start))


async def _pieces(body: Body) -> AsyncIterator[bytes | memoryview]:
    if isinstance(body.source, Generated):
        for piece in chunks(body.source):
            yield piece
        return
    with body.source.open("rb") as file:
        while data := await asyncio.to_thread(file.read, 1 << 20):
            yield data


async def _deflated(out: _Chunked, body: Body) -> int:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    total = 0
    async for piece in _pieces(body):
        small = len(piece) < SMALL
        data = packer.compress(piece) if small else await asyncio.to_thread(packer.compress, piece)
        total += len(data)
        await out.add(data)
    data = packer.flush()
    total += len(data)
    await out.add(data)
    await out.add(zipout.descriptor(body.crc, total, body.size))
    return total


async def _tar(out: _Chunked, bodies: Iterable[Body], *, packed: bool, skip: int) -> None:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31) if packed else None

    async def add(data: bytes | memoryview) -> None:
        if packer is not None:
            data = await asyncio.to_thread(packer.compress, data)
        await out.add(bytes(data))

    for index, body in enumerate(bodies):
        if index < skip:
            continue
        info = tarfile.TarInfo(body.name)
        info.size = body.size
        info.mtime = int(body.mtime or time.time())
        await add(info.tobuf(tarfile.PAX_FORMAT))
        if packer is None and body.size >= SMALL:
            await out.body(body)
        else:
            async for piece in _pieces(body):
                await add(piece)
        if body.size % tarfile.BLOCKSIZE:
            await add(b"\0" * (tarfile.BLOCKSIZE - body.size % tarfile.BLOCKSIZE))
    await add(b"\0" * tarfile.BLOCKSIZE * 2)
    if packer is not None:
        await out.add(packer.flush())
