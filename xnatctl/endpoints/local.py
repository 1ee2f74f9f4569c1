"""Folders as a sink. The key of a body is its path below the unit's folder.

A file is written beside its place as `.xnatctl-<16 hex>.part`, proven, synced, and renamed; folders
are synced when a stage is sealed. So a file under its final name is whole, at any moment. Nothing
is renamed to make room.

A name that this file system does not take is written as another one; `names` says how.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import aiofiles
import anyio
import anyio.to_thread
from aiofiles.threadpool.binary import AsyncFileIO

from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.types import Item, Member, Stamp, Unit
from xnatctl.errors import Conflict, LocalFault
from xnatctl.zipstream import Chunk, MemberData, MemberEnd, MemberStart
from xnatctl.zipstream import Event as ZipEvent

from .disk import flush, flush_folders, spare_handles
from .names import Names, check_place, fold, look
from .parts import hold, part_beside, part_name, sweep

BLOCK = 1024 * 1024
BATCH_FILES = 256
BATCH_BYTES = 2 * BLOCK
HELD_AS_IT_IS = 64 * 1024
PIECES_AT_ONCE = 256
"""Pieces of a file that are given to the system in one call."""

FileStamp = tuple[str, int, int]
"""Path, size in bytes, modification time in nanoseconds."""


Place = Callable[[Unit, str], str]
"""Where below the root the body of a key lies, as a relative path with slashes."""


class Written(NamedTuple):
    """A file as it was written or read: its stamp on disk, MD5, and SHA-256 where that is asked
    for.
    """

    path: str
    size: int
    mtime_ns: int
    digest: str
    sha256: str = ""


class Digests(Protocol):
    """A memory of the MD5s of local files, valid while size and modification time stay."""

    async def local_digests(self, files: Iterable[FileStamp]) -> dict[str, str]: ...

    async def keep_local_digests(self, rows: Iterable[tuple[str, int, int, str]]) -> None: ...


def below_unit(unit: Unit, key: str) -> str:
    """The place of a key in the folder that is named as its unit is."""
    return f"{unit.key}/{key}"


def keys_of(items: Iterable[Item]) -> list[str]:
    """The keys of all bodies that items carry."""
    return [key for item in items for key in [one.key for one in item.members] or [item.key]]


@contextmanager
def _words(path: Path, verb: str = "written") -> Iterator[None]:
    """Failures of the disk in words a person can act on."""
    try:
        yield
    except OSError as error:
        raise fault(error, path, verb) from error


def fault(error: OSError, path: Path, verb: str = "written") -> LocalFault:
    blocked = path
    with suppress(OSError):
        blocked = next((one for one in (path, *path.parents) if one.is_file()), path)
    hints = {
        errno.ENOSPC: "free some space and run the same command again",
        errno.EDQUOT: "your quota is used up; free some space and run the same command again",
        errno.EROFS: "choose a folder that can be written with --out",
        errno.EACCES: "choose a folder that can be written with --out",
        errno.ENOTDIR: f"a folder is needed in the place of the file {blocked}; move it away",
        errno.EEXIST: f"a folder is needed in the place of the file {blocked}; move it away",
        errno.EISDIR: "a folder stands where a file is needed; move it away",
    }
    return LocalFault(
        f"{path} cannot be {verb}",
        why=error.strerror or str(error),
        hint=hints.get(error.errno or 0, ""),
    )


def check_room(folder: Path, unit: Unit) -> None:
    """Raises LocalFault when what has to move of a unit cannot fit into what is free on the disk.

    Called as each unit begins, so that a disk that others fill is noticed before it is full.
    """
    needed = sum(item.bytes for item in unit.to_move)
    with _words(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise LocalFault(
            f"{folder} has no room for {unit.label or unit.key}",
            why=f"{needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free",
            hint="free some space and run the same command again",
        )


_Small = tuple[str, list[Chunk], str]
"""A file in memory, in pieces, with the MD5 that was listed and proven; empty where none was."""


@dataclass(slots=True)
class _Batch:
    """Small files gathered in memory, so that one hop to a thread writes many."""

    most: int
    files: list[_Small] = field(default_factory=list)
    size: int = 0

    def add(self, path: str, pieces: list[Chunk], digest: str) -> bool:
        """Whether there is enough for a hop."""
        self.files.append((path, pieces, digest))
        self.size += sum(map(len, pieces))
        return self.size >= BATCH_BYTES or len(self.files) >= self.most

    def take(self) -> list[_Small]:
        files, self.files, self.size = self.files, [], 0
        return files


class LocalSink:
    """Writes units into folders below `root`; `place` says where in it the body of a key goes."""

    accepts_zip = True
    holds_digests = True
    may_rewrite = False

    def __init__(
        self,
        root: Path,
        *,
        place: Place = below_unit,
        digests: Digests | None = None,
        reread: bool = False,
        sha256: bool = False,
        bag: bool = False,
    ) -> None:
        """With `reread` every MD5 is read from the disk, whatever is remembered of it. `bag`: the
        names are those of a BagIt bag.
        """
        self.name = f"file://{root.absolute()}"
        self._root = root
        self._base = f"{root / '_'}"[:-1]
        self._place = place
        self._digests = digests
        self._reread = reread
        self._sha256 = sha256
        self._folders: dict[str, set[Path]] = defaultdict(set)
        # One is written while another is flushed.
        self._batches = anyio.CapacityLimiter(2)
        self._batch_files = spare_handles(2 * BATCH_FILES) // 2
        self._names, self._has_looked = Names(bag=bag), False
        self._odd: dict[str, str] = {}  # paths that depend on what else there is
        self._owned: dict[str, str] = {}  # the folders of units, whatever their case

    def where(self, unit: Unit, key: str) -> str:
        """The path of a key below the root, as it is on this file system."""
        place = self._place(unit, key)
        return self._odd.get(place) or self._names.place(place)

    def path(self, unit: Unit, key: str) -> Path:
        return Path(self._path(unit, key))

    def _path(self, unit: Unit, key: str) -> str:
        """As text: there are thousands of them, and a `Path` costs ten times as much."""
        where = self.where(unit, key)
        check_place(where)
        return f"{self._base}{where}"

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        """The unit with the paths of what cannot have its own name here."""
        named = {}
        for key in keys_of(unit.items):
            if (where := self.where(unit, key)) != self._place(unit, key):
                named[key] = where
        return replace(unit, mapped=named) if named else unit

    async def inventory(self, unit: Unit, former: Iterable[str] = ()) -> Inventory:
        """Size and MD5 of what is there of the unit's files; MD5s are read again where unknown.

        `former` are paths that may still be on the disk and have to stay. Raises Conflict where
        another unit has the same folder here.
        """
        if not self._has_looked:
            found = await anyio.to_thread.run_sync(look, self._root)
            self._names = replace(found, bag=self._names.bag)
            self._has_looked = True
        folder = self._place(unit, "")
        if self._names.folds and self._owned.setdefault(fold(folder), folder) != folder:
            raise Conflict(
                f"{unit.label} would lie in the folder of another one",
                why=f"here {folder} and {self._owned[fold(folder)]} are the same",
                hint="write to a file system that tells upper from lower case",
            )
        keys = keys_of(unit.items)
        self._odd |= self._names.clashes({*former, *(self._place(unit, key) for key in keys)})
        wanted = {key: self._path(unit, key) for key in keys}
        stamps = await anyio.to_thread.run_sync(_stat_all, wanted)
        known: dict[str, str] = {}
        if self._digests is not None and not self._reread:
            known = await self._digests.local_digests(stamps.values())
        fresh = [one for one in stamps.values() if one[0] not in known]
        if fresh:
            read = await anyio.to_thread.run_sync(_hash_all, fresh, self._sha256)
            known |= {one.path: one.digest for one in read}
            await self._keep(read)
        return {key: Stamp(one[1], known.get(one[0], "")) for key, one in stamps.items()}

    async def begin(self, unit: Unit) -> None:
        """Make the root, and sweep away what a killed run left where this one is going to write."""
        folders = {Path(_folder(self._path(unit, key))) for key in keys_of(unit.to_move)}
        with _words(self._root):
            await anyio.to_thread.run_sync(_make_folders, self._root)
        await anyio.to_thread.run_sync(sweep, folders)
        await anyio.to_thread.run_sync(check_room, self._root, unit)

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        path = self.path(unit, item.key)
        # The digest of a document is that of its meaning, not of its bytes.
        proven = item.digest if item.kind == "file" else ""
        with _words(path):
            row = await _write(path, chunks, _Hashes(self._sha256, proven))
        self._folders[unit.key].add(path.parent)
        await self._keep([row])

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        """Unpack while it arrives: small members in batches, large ones through a part file."""
        members = {member.path: member for member in item.members}
        batch = _Batch(self._batch_files)
        member, held, size = item.members[0], list[Chunk](), 0
        try:
            async for event in events:
                if isinstance(event, MemberStart):
                    member, held, size = members[event.name], [], 0
                elif isinstance(event, MemberData):
                    held.append(_to_hold(event.plain))
                    size += len(event.plain)
                    if size > BLOCK:
                        await self._large(unit, member, _rest_of_member(held, events))
                elif batch.add(self._path(unit, member.key), held, member.digest):
                    await self._flush(unit, batch)
        finally:
            # What is gathered was proven member by member, so it is kept even when the rest fails.
            with anyio.CancelScope(shield=True):
                await self._flush(unit, batch)

    async def _large(self, unit: Unit, member: Member, chunks: AsyncIterator[Chunk]) -> None:
        path = self.path(unit, member.key)
        with _words(path):
            row = await _write(path, chunks, _Hashes(self._sha256, member.digest))
        self._folders[unit.key].add(path.parent)
        await self._keep([row])

    async def _flush(self, unit: Unit, batch: _Batch) -> None:
        files = batch.take()
        if files:
            with _words(Path(files[0][0])):
                rows = await anyio.to_thread.run_sync(
                    _write_batch, files, self._sha256, limiter=self._batches
                )
            self._folders[unit.key].update(Path(one) for one in _folders(files))
            await self._keep(rows)

    async def _keep(self, rows: list[Written]) -> None:
        """Remember what was written or read."""
        if self._digests is not None:
            await self._digests.keep_local_digests([row[:4] for row in rows])

    async def seal(self, unit: Unit, stage: int) -> None:
        """Sync the folders of what was written, and those above them: they may be new too."""
        folders = self._folders.pop(unit.key, set())
        folders |= {above for one in folders for above in one.parents if self._holds(above)}
        with _words(self._root):
            await anyio.to_thread.run_sync(flush_folders, folders)

    def _holds(self, folder: Path) -> bool:
        return folder == self._root or self._root in folder.parents

    async def abandon(self, unit: Unit) -> None:
        """Nothing half written stays: part files are removed where they were made."""


# --- files, asynchronously ---------------------------------------------------------------------


@asynccontextmanager
async def _part(path: Path) -> AsyncIterator[tuple[Path, AsyncFileIO]]:
    """A file beside `path` for what is not proven yet; removed unless it was renamed away."""
    part = part_beside(path)
    with anyio.CancelScope(shield=True):
        file = await aiofiles.open(part, "xb", buffering=0)
    try:
        hold(file.fileno())
        yield part, file
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(OSError):
                part.unlink(missing_ok=True)
            await file.close()


class _Hashes:
    """The digests of one body while it passes. An MD5 that the engine proves is not made twice."""

    def __init__(self, sha256: bool, proven: str = "") -> None:
        self._proven = proven
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256() if sha256 else None

    def update(self, data: Chunk) -> None:
        if not self._proven:
            self._md5.update(data)
        if self._sha256 is not None:
            self._sha256.update(data)

    @property
    def digest(self) -> str:
        return self._proven or self._md5.hexdigest()

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest() if self._sha256 is not None else ""


async def _write(path: Path, chunks: AsyncIterator[Chunk], hashes: _Hashes) -> Written:
    """A whole file, in blocks of 1 MiB, each one hop to a thread."""
    held: list[Chunk] = []
    size = 0
    await anyio.to_thread.run_sync(_make_folders, path.parent)
    async with _part(path) as (part, file):
        async for chunk in chunks:
            hashes.update(chunk)
            held.append(chunk)
            size += len(chunk)
            if size >= BLOCK:
                await _write_all(file, b"".join(held))
                held, size = [], 0
        await _write_all(file, b"".join(held))
        return await anyio.to_thread.run_sync(_commit, file.fileno(), part, path, hashes)


async def _write_all(file: AsyncFileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[await file.write(view) :]


async def _rest_of_member(
    held: list[Chunk], events: AsyncIterator[ZipEvent]
) -> AsyncIterator[Chunk]:
    for chunk in held:
        yield chunk
    async for event in events:
        if isinstance(event, MemberEnd):
            return
        if isinstance(event, MemberData):
            yield event.plain


# --- files, on a thread ------------------------------------------------------------------------


def _make_folders(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _commit(handle: int, part: Path, path: Path, hashes: _Hashes) -> Written:
    """Flush the part file and give it its name; in this order a crash leaves no short file."""
    flush([handle])
    return _named(handle, str(part), str(path), hashes)


def _named(handle: int, part: str, path: str, hashes: _Hashes) -> Written:
    facts = os.fstat(handle)
    os.rename(part, path)  # noqa: PTH104
    return Written(path, facts.st_size, facts.st_mtime_ns, hashes.digest, hashes.sha256)


def _write_batch(files: list[_Small], sha256: bool) -> list[Written]:
    """Small files: all are written, then all are flushed, then each gets its name."""
    written: list[tuple[int, str, str, _Hashes]] = []
    named: list[Written] = []
    try:
        for folder in _folders(files):
            _make_folders(Path(folder))
        for path, pieces, digest in files:
            part = f"{_folder(path)}/{part_name()}"
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            hashes = _Hashes(sha256, digest)
            written.append((handle, part, path, hashes))
            hold(handle)
            for piece in pieces:
                hashes.update(piece)
            _write_pieces(handle, pieces)
        flush([handle for handle, *_ in written])
        for one in written:
            named.append(_named(*one))
        return named
    finally:
        for handle, *_ in written:
            os.close(handle)
        for _, part, _, _ in written[len(named) :]:
            Path(part).unlink(missing_ok=True)


def _write_pieces(handle: int, pieces: list[Chunk]) -> None:
    """All of them, whatever the system takes at once."""
    rest = [memoryview(piece) for piece in pieces if len(piece)]
    while rest:
        taken = os.writev(handle, rest[:PIECES_AT_ONCE])
        while taken:
            first = rest[0]
            if taken < len(first):
                rest[0], taken = first[taken:], 0
            else:
                rest, taken = rest[1:], taken - len(first)


def _to_hold(data: Chunk) -> Chunk:
    """A copy of a small piece: a view would hold all of the chunk that it came in."""
    return data if len(data) >= HELD_AS_IT_IS else bytes(data)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _folders(files: list[_Small]) -> set[str]:
    return {_folder(path) for path, _, _ in files}


def _stat_all(paths: dict[str, str]) -> dict[str, FileStamp]:
    found = {}
    for key, path in paths.items():
        try:
            facts = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise fault(error, Path(path)) from error
        if not stat.S_ISREG(facts.st_mode):
            raise LocalFault(
                f"{path} is in the way",
                why="it is not a file",
                hint="move it away and run the same command again",
            )
        found[key] = (path, facts.st_size, facts.st_mtime_ns)
    return found


def _hash_all(files: list[FileStamp], sha256: bool = False) -> list[Written]:
    rows = []
    for path, size, mtime_ns in files:
        hashes = _Hashes(sha256)
        with _words(Path(path), "read"), Path(path).open("rb") as file:
            while block := file.read(BLOCK):
                hashes.update(block)
        rows.append(Written(path, size, mtime_ns, hashes.digest, hashes.sha256))
    return rows
