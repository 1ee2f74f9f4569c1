"""Bytes on their way in: request bodies hashed and put aside without being held in memory.

A `Spool` keeps up to 1 MiB in memory and goes on in a temporary file, written a MiB at a time in
a worker thread; hashing small pieces happens in the loop.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import BinaryIO

from .bodies import Digests, Hasher, safe_path, write_bytes
from .store import Resource, Store
from .web import Call, Refusal

BATCH = 1 << 20
_PIECES = 512


def inbox_path(call: Call, named: str) -> Path:
    """A place of the server's disk that a request names, below `ROOT/inbox`; 400, or 404."""
    home = call.store.root / "inbox"
    wanted = Path(named)
    path = (wanted if wanted.is_relative_to(home) else home / named.lstrip("/")).resolve()
    if not named or not path.is_relative_to(home.resolve()):
        raise Refusal(400, f"The path must be below the inbox: {named}")
    if not path.exists():
        raise Refusal(404, f"There is nothing at {named}")
    return path


def files_below(path: Path) -> list[tuple[str, Path]]:
    """The files of a folder with their paths in it; a file is itself, with no path."""
    if path.is_file():
        return [("", path)]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return [(file.relative_to(path).as_posix(), file) for file in files]


async def read_file(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a file of this disk."""
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, 1 << 20):
            yield data


class Spool:
    """One body that is being received."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.hasher = Hasher()
        self._pending: list[bytes | memoryview] = []
        self._size = 0
        self._file: BinaryIO | None = None
        self._path: Path | None = None

    async def feed(self, data: bytes | memoryview) -> None:
        """Take bytes in."""
        if self.store.discard_bodies:
            self.hasher.feed(data)
            return
        self._pending.append(data)
        self._size += len(data)
        if self._size >= BATCH or len(self._pending) >= _PIECES:
            await self._spill()

    async def _spill(self) -> None:
        if self._file is None:
            if self._size < BATCH:
                self._pending = [b"".join(self._pending)]
                return
            self._path = self.store.root / "tmp" / secrets.token_hex(8)
            self._file = self._path.open("wb", buffering=0)
        batch, self._pending, self._size = self._pending, [], 0
        await asyncio.to_thread(self._digest_and_write, self._file, batch)

    def _digest_and_write(self, file: BinaryIO, batch: list[bytes | memoryview]) -> None:
        for piece in batch:
            self.hasher.feed(piece)
        written = os.writev(file.fileno(), batch)
        if written < sum(map(len, batch)):
            rest = b"".join(batch)[written:]
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]

    async def fill(self, pieces: AsyncIterable[bytes | memoryview]) -> Digests:
        """Take everything in; what was received is dropped when the source breaks."""
        try:
            async for piece in pieces:
                await self.feed(piece)
        except BaseException:
            self.drop()
            raise
        return await self.finish()

    async def finish(self) -> Digests:
        """No more bytes come; what is recorded of them."""
        if self._file is not None:
            if self._pending:
                await self._spill()
            self._file.close()
        else:
            for piece in self._pending:
                self.hasher.feed(piece)
        return self.hasher.digests()

    def keep(self, resource: Resource, path: str) -> str:
        """Put the bytes where a file of a resource lies; returns the body kind."""
        return self.keep_at(self.store.resource_folder(resource) / safe_path(path))

    def keep_at(self, target: Path) -> str:
        """Put the bytes at a path, making its folders; returns the body kind."""
        if self.store.discard_bodies:
            return "none"
        if self._path is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(target)
            self._path = None
        else:
            write_bytes(target, b"".join(self._pending))
        return "disk"

    def drop(self) -> None:
        """Forget the bytes."""
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
