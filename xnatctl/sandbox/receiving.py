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

from .bodies import Digests, Hasher, move_file, write_bytes
from .store import Store
from .web import Call, Refusal

BATCH = 1 << 20
_PIECES = 512
_BATCH = 64


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


class Shelf:
    """Many bodies on their way to the disk.

    Small ones are written in a worker thread, a batch at a time, while the next ones arrive: it
    is making files that takes its time. Nothing is there for certain before `finish`.
    """

    def __init__(self) -> None:
        self._batch: list[tuple[Path, bytes]] = []
        self._size = 0
        self._writing: asyncio.Task[None] | None = None

    async def put(self, spool: Spool, target: Path) -> str:
        """Take over a finished body; returns its kind. Raises OSError, also of an earlier one."""
        data = None if spool.store.discard_bodies else spool.small()
        if data is None:
            return spool.keep_at(target)
        self._batch.append((target, data))
        self._size += len(data)
        if len(self._batch) >= _BATCH or self._size >= BATCH:
            batch, self._batch, self._size = self._batch, [], 0
            await self._written()
            self._writing = asyncio.create_task(asyncio.to_thread(_write_all, batch))
        return "disk"

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def finish(self) -> None:
        """Have everything on the disk."""
        await self._written()
        batch, self._batch = self._batch, []
        if len(batch) > 1:
            await asyncio.to_thread(_write_all, batch)
        else:
            _write_all(batch)


def _write_all(batch: list[tuple[Path, bytes]]) -> None:
    for target, data in batch:
        write_bytes(target, data)


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

    def keep_at(self, target: Path) -> str:
        """Put the bytes at a path, making its folders; returns the body kind."""
        if self.store.discard_bodies:
            return "none"
        if self._path is not None:
            move_file(self._path, target)
            self._path = None
        else:
            write_bytes(target, b"".join(self._pending))
        return "disk"

    def small(self) -> bytes | None:
        """The bytes where they are still in memory."""
        return b"".join(self._pending) if self._path is None else None

    def drop(self) -> None:
        """Forget the bytes."""
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
