"""One archive on disk as a sink: a unit becomes a zip that is proven whole before it gets its name.

1. `begin` opens a part file beside the archive's place.
2. Each member is appended as it arrives. One that breaks off is cut away again, so that the part
   file holds whole members at any time, and the next attempt goes on behind them.
3. `seal` writes the directory of the archive, reads the file again from the disk, compares every
   member with what the source listed, and only then renames it.

An archive that is there already stays if it holds exactly the files of the unit; otherwise it is a
conflict unless it may be overwritten. Nothing is added to an archive that has its name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread

from xnatctl.engine.plan import expected, same
from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.types import Item, Left, Stamp, Unit
from xnatctl.errors import Conflict, Corrupt, Incomplete, LocalFault
from xnatctl.xnat.parse import digest_of
from xnatctl.zipstream import (
    STORED,
    Event,
    MemberData,
    MemberEnd,
    MemberStart,
    ZipReader,
    ZipWriter,
    crc32,
    why_unsafe,
)

from .disk import flush_folders
from .local import Digests, Place, below_unit, check_room, fault
from .parts import hold, part_beside, sweep
from .repack import members_of

BLOCK = 1024 * 1024


class ZipSink:
    """Writes one unit into the archive `path`; `place` gives the name of a member.

    Items come one after another: there is one place where the archive grows.
    """

    accepts_zip = True
    holds_digests = True
    may_rewrite = False

    def __init__(
        self,
        path: Path,
        *,
        place: Place = below_unit,
        digests: Digests | None = None,
        overwrite: bool = False,
        reread: bool = False,
    ) -> None:
        self.name = f"file://{path.absolute()}"
        self._path = path
        self._place = place
        self._digests = digests
        self._overwrite = overwrite
        self._reread = reread
        self._file: BinaryIO | None = None
        self._part = part_beside(path)
        self._writer = ZipWriter()
        self._held: list[bytes] = []
        self._size = 0
        self._there: dict[str, Stamp] = {}
        self._one = anyio.Lock()

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        reasons = {item.key: why_unsafe(self._place(unit, item.key)) for item in unit.items}
        left = tuple(Left(key, "unsafe-name", reason) for key, reason in reasons.items() if reason)
        items = tuple(item for item in unit.items if not reasons[item.key])
        return replace(unit, items=items, left=(*unit.left, *left)) if left else unit

    # --- what is there -------------------------------------------------------------------------

    async def inventory(self, unit: Unit) -> Inventory:
        """The members written so far; else those of the archive, if it holds just this unit."""
        if self._file is not None:
            return dict(self._there)
        wanted = {key: stamp for item in unit.items for key, stamp in expected(item).items()}
        names = {self._place(unit, key): stamp for key, stamp in wanted.items()}
        found = await self._archive(names)
        if found is None or not _agree(names, found):
            return {}
        return {key: found[self._place(unit, key)] for key in wanted}

    async def _archive(self, wanted: dict[str, Stamp]) -> dict[str, Stamp] | None:
        """What the archive holds by name, None without one; not read if it is known to fit."""
        try:
            facts = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise fault(error, self._path) from error
        stamp = (f"{self._path}!", facts.st_size, facts.st_mtime_ns)
        if self._digests is not None and not self._reread:
            known = (await self._digests.local_digests([stamp])).get(stamp[0])
            if known == _digest(wanted):
                return wanted
        try:
            found = await anyio.to_thread.run_sync(_read_archive, self._path)
        except Corrupt:
            return {}
        except OSError as error:
            raise fault(error, self._path, "read") from error
        if self._digests is not None:
            await self._digests.keep_local_digests([(*stamp, _digest(found))])
        return found

    # --- writing -------------------------------------------------------------------------------

    async def begin(self, unit: Unit) -> None:
        if self._file is not None:
            return
        if self._path.exists() and not self._overwrite:
            raise Conflict(
                f"{self._path} is there already and holds something else",
                hint="move it away, or add --overwrite to replace it",
            )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            await anyio.to_thread.run_sync(sweep, [self._path.parent])
            await anyio.to_thread.run_sync(check_room, self._path.parent, unit)
            self._file = await anyio.to_thread.run_sync(_open_new, self._part)
        except OSError as error:
            raise fault(error, self._path) from error

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        await self._append(unit, {item.path: item.key}, _as_member(item.path, chunks))

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[Event]) -> None:
        await self._append(unit, {one.path: one.key for one in item.members}, events)

    async def _append(self, unit: Unit, keys: dict[str, str], events: AsyncIterator[Event]) -> None:
        async with self._one:
            try:
                named = self._named(unit, keys, events)
                async for data in members_of(self._writer, named):
                    await self._write(data)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._rewind()
                raise

    async def _named(
        self, unit: Unit, keys: dict[str, str], events: AsyncIterator[Event]
    ) -> AsyncIterator[Event]:
        """The events under the names of this archive; a member counts when what follows it is
        asked for: it has been written by then.
        """
        async for event in events:
            if isinstance(event, MemberStart):
                yield event._replace(name=self._place(unit, keys[event.name]))
            else:
                yield event
            if isinstance(event, MemberEnd):
                self._there[keys[event.name]] = Stamp(event.size, event.md5 or "")

    async def _write(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        if self._size >= BLOCK:
            await self._flush()

    async def _flush(self) -> None:
        assert self._file is not None
        data, self._held, self._size = b"".join(self._held), [], 0
        try:
            await anyio.to_thread.run_sync(_write_all, self._file, data)
        except OSError as error:
            raise fault(error, self._path) from error

    async def _rewind(self) -> None:
        """Cut away the member that broke off."""
        offset = self._writer.drop()
        if self._file is not None:
            try:
                await self._flush()
                await anyio.to_thread.run_sync(self._file.truncate, offset)
                self._file.seek(offset)
            except (OSError, LocalFault):
                self._there.clear()  # the disk failed: nothing of this part counts

    # --- the end -------------------------------------------------------------------------------

    async def seal(self, unit: Unit, stage: int) -> None:
        """Finish, prove and name the archive. Raises Incomplete while files are missing."""
        if stage != 2 or self._file is None:
            return
        wanted = {key: stamp for item in unit.items for key, stamp in expected(item).items()}
        if missing := [key for key in wanted if key not in self._there]:
            raise Incomplete(
                f"{self._path.name} would lack {len(missing)} of {len(wanted)} files",
                why=f"{missing[0]} did not arrive",
                hint="run the same command again; nothing was written under the archive's name",
            )
        await self._write(self._writer.finish())
        await self._flush()
        names = {self._place(unit, key): stamp for key, stamp in wanted.items()}
        try:
            row = await anyio.to_thread.run_sync(
                _prove_and_name, self._file, self._part, self._path, names
            )
        except OSError as error:
            raise fault(error, self._path) from error
        self._file = None
        if self._digests is not None:
            await self._digests.keep_local_digests([row])

    async def abandon(self, unit: Unit) -> None:
        """Remove the part file."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._there.clear()
            self._part.unlink(missing_ok=True)


async def _as_member(name: str, chunks: Chunks) -> AsyncIterator[Event]:
    """One file as the only member of an archive."""
    md5 = hashlib.md5(usedforsecurity=False)
    crc = size = 0
    yield MemberStart(name, STORED, 0, None, None, None, False)
    async for chunk in chunks:
        crc = crc32(chunk, crc)
        size += len(chunk)
        md5.update(chunk)
        yield MemberData(chunk, chunk)
    yield MemberEnd(name, crc, size, size, md5.hexdigest())


def _agree(wanted: dict[str, Stamp], found: dict[str, Stamp]) -> bool:
    return wanted.keys() == found.keys() and all(
        same(stamp, found[name]) for name, stamp in wanted.items()
    )


def _digest(members: dict[str, Stamp]) -> str:
    """A digest of what an archive holds, independent of the order."""
    return digest_of(*sorted(f"{name}\t{one.size}\t{one.digest}" for name, one in members.items()))


# --- on a thread -------------------------------------------------------------------------------


def _open_new(path: Path) -> BinaryIO:
    file = path.open("xb", buffering=0)
    hold(file.fileno())
    return file


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read_archive(path: Path) -> dict[str, Stamp]:
    """The members of an archive, each read and checked. Raises Corrupt."""
    reader = ZipReader(digest=True)
    found = {}
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(_ended(reader.feed(block)))
    reader.close()
    return found


def _ended(events: Iterable[Event]) -> dict[str, Stamp]:
    return {
        event.name: Stamp(event.size, event.md5 or "")
        for event in events
        if isinstance(event, MemberEnd)
    }


def _prove_and_name(
    file: BinaryIO, part: Path, path: Path, wanted: dict[str, Stamp]
) -> tuple[str, int, int, str]:
    """Sync the part file, read it back, compare, rename. In this order a crash leaves no half."""
    os.fsync(file.fileno())
    facts = os.fstat(file.fileno())
    found = _read_archive(part)
    if not _agree(wanted, found):
        raise Corrupt(
            f"{path.name} did not come back from the disk as it was written",
            hint="look at the disk; nothing was written under the archive's name",
        )
    part.replace(path)
    file.close()
    flush_folders([path.parent])
    return f"{path}!", facts.st_size, facts.st_mtime_ns, _digest(wanted)
