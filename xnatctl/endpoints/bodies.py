"""Files of this machine as bodies to be sent, wherever they lie: in folders, zips, tars, on a list.

Everything here is plain blocking code that runs on a thread: `find` looks, `archive` makes the
bytes of a zip while they are asked for, `Pulled` hands them to the event loop a block at a time.
Nothing is unpacked to disk, but for a compressed tar, which can only be read from its start.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import anyio
import anyio.to_thread

from xnatctl.engine.ports import Chunks
from xnatctl.engine.types import Item
from xnatctl.errors import LocalFault, NotFound, UsageError
from xnatctl.zipstream import ZipWriter, crc32

BLOCK = 1024 * 1024
START = 512
"""So many first bytes tell what a file is."""
_LITTER = frozenset({".ds_store", "thumbs.db", "desktop.ini", ".directory"})
_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


@dataclass(frozen=True, slots=True)
class Body:
    """One file: its name below what was searched, its size, and how to read it from the start.

    What `open` gives can be sought in. `stamp` changes when the file does.
    """

    name: str
    size: int
    open: Callable[[], BinaryIO]
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Unread:
    """Something that was found and cannot be read as a file: a code, and why in words."""

    name: str
    code: str
    reason: str


Found = Body | Unread


def find(path: Path, kept: ExitStack) -> Iterator[Found]:
    """Every file that a path stands for, in the order of their names.

    Archives stay open, for their members to be read, until `kept` is closed.

    A path is a folder, a zip, a tar (compressed or not), one file, or a list: a text with a path a
    line. Raises NotFound, LocalFault for a damaged archive, UsageError for a list that is none.
    """
    if not path.exists():
        raise NotFound(f"there is nothing at {path}")
    if path.is_dir():
        yield from _below(path)
        return
    try:
        with path.open("rb") as file:
            start = file.read(START)
    except OSError as error:
        raise LocalFault(f"{path} cannot be read", why=error.strerror or str(error)) from error
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _in_zip(path, kept)
    elif start[257:262] == b"ustar" or _is_compressed(start):
        yield from _in_tar(path, start, kept)
    elif start[128:132] == b"DICM" or b"\0" in start:
        yield _file(path, path.name)
    else:
        yield from _on_list(path)


def files_of(path: Path) -> Iterator[Found]:
    """The files below a folder, or the one file; archives among them are files like any other."""
    if path.is_dir():
        yield from _below(path)
    else:
        yield _file(path, path.name)


def is_litter(name: str) -> bool:
    """Whether a file of this name was left by an operating system and holds nobody's data."""
    last = name.rpartition("/")[2]
    return last.lower() in _LITTER or last.startswith("._") or "__MACOSX/" in name


def _below(root: Path) -> Iterator[Found]:
    faults: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=faults.append):
        folders.sort()
        for name in folders:
            if os.path.islink(place := os.path.join(folder, name)):  # noqa: PTH114, PTH118
                reason = "it is a link to a folder, and those are not followed"
                yield Unread(os.path.relpath(place, root), "link", reason)
        for name in sorted(names):
            path = Path(folder, name)
            yield _file(path, path.relative_to(root).as_posix())
    for fault in faults:
        yield Unread(str(fault.filename), "unreadable", fault.strerror or str(fault))


def _file(path: Path, name: str) -> Found:
    try:
        facts = path.stat()
        if not path.is_file():
            return Unread(name, "special", "it is no file but a device or a socket")
        with path.open("rb"):
            pass
    except OSError as error:
        return Unread(name, "unreadable", error.strerror or str(error))
    return Body(
        name,
        facts.st_size,
        lambda: path.open("rb"),
        f"{facts.st_size} {facts.st_mtime_ns}",
    )


def _on_list(path: Path) -> Iterator[Found]:
    """The files and folders that a text names, a line each, relative to where the text is."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is neither an archive nor DICOM nor a list") from error
    for line in filter(None, map(str.strip, lines)):
        if line.startswith("#"):
            continue
        place = path.parent / line
        if not place.exists():
            raise UsageError(
                f"{path} names {line[:200]!r}, which is not there",
                why="a text is taken for a list of paths, one a line",
            )
        if place.is_dir():
            for one in _below(place):
                name = f"{line.rstrip('/')}/{one.name}"
                yield (
                    Body(name, one.size, one.open, one.stamp)
                    if isinstance(one, Body)
                    else Unread(name, one.code, one.reason)
                )
        else:
            yield _file(place, line)


def _in_zip(path: Path, kept: ExitStack) -> Iterator[Found]:
    try:
        archive = kept.enter_context(zipfile.ZipFile(path))
        members = sorted(archive.infolist(), key=lambda one: one.filename)
    except (zipfile.BadZipFile, OSError) as error:
        raise LocalFault(f"{path} is no whole zip archive", why=str(error)) from error
    for one in members:
        if one.is_dir():
            continue
        if one.flag_bits & 1:
            yield Unread(one.filename, "encrypted", "it is encrypted")
        elif one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            yield Unread(one.filename, "unreadable", "its compression is not known here")
        else:
            yield Body(one.filename, one.file_size, _opener(archive, one), f"{one.CRC:08x}")


def _opener(archive: zipfile.ZipFile, one: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    return lambda: cast("BinaryIO", archive.open(one))


def _is_compressed(start: bytes) -> bool:
    return any(start.startswith(mark) for mark in _COMPRESSED)


def _in_tar(path: Path, start: bytes, kept: ExitStack) -> Iterator[Found]:
    try:
        plain = kept.enter_context(_plain_tar(path, start))
        archive = kept.enter_context(tarfile.open(fileobj=plain, mode="r:"))  # noqa: SIM115
        members = sorted(archive.getmembers(), key=lambda one: one.name)
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise LocalFault(f"{path} is no whole tar archive", why=str(error)) from error
    for one in members:
        if one.isdir():
            continue
        if not one.isreg():
            yield Unread(one.name, "link", "it is a link or a device, not a file")
        else:
            yield Body(one.name, one.size, _window(archive, one), f"{one.size} {one.mtime}")


def _plain_tar(path: Path, start: bytes) -> BinaryIO:
    for mark, unpack in _COMPRESSED.items():
        if start.startswith(mark):
            with ExitStack() as stack:
                plain = stack.enter_context(tempfile.TemporaryFile())
                with unpack(path, "rb") as packed:
                    shutil.copyfileobj(packed, plain, BLOCK)
                plain.seek(0)
                stack.pop_all()
            return cast("BinaryIO", plain)
    return path.open("rb")


def _window(archive: tarfile.TarFile, one: tarfile.TarInfo) -> Callable[[], BinaryIO]:
    def open_() -> BinaryIO:
        file = archive.extractfile(one)
        assert file is not None, "only regular members are opened"
        return cast("BinaryIO", file)

    return open_


def file_body(path: Path) -> Body:
    """A file under its whole path. Raises LocalFault."""
    try:
        return Body(str(path), path.stat().st_size, lambda: path.open("rb"))
    except OSError as error:
        raise LocalFault(f"{path} cannot be read", why=error.strerror or str(error)) from error


# --- sending ---------------------------------------------------------------------------------


def blocks(body: Body) -> Generator[bytes, None, None]:
    """The bytes of a file. Raises LocalFault when it cannot be read, or is another one by now."""
    size = 0
    try:
        with body.open() as file:
            while block := file.read(BLOCK):
                size += len(block)
                yield block
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise LocalFault(f"{body.name} cannot be read", why=why) from error
    if size != body.size:
        raise LocalFault(
            f"{body.name} changed while it was being sent",
            why=f"it had {body.size} bytes, and {size} were read",
        )


def archive(members: Iterable[tuple[str, Body]]) -> Generator[bytes, None, None]:
    """A stored zip of the files under these names. A large file is read twice, for its CRC."""
    writer = ZipWriter()
    for name, body in members:
        small = b"".join(blocks(body)) if body.size <= BLOCK else None
        crc = 0
        for block in [small] if small is not None else blocks(body):
            crc = crc32(block, crc)
        yield writer.start(name, crc=crc, size=body.size)
        for block in [small] if small is not None else blocks(body):
            writer.note(len(block))
            yield block
        if after := writer.end(crc, body.size):
            yield after
    yield writer.finish()


class Pulled:
    """The pieces of a blocking generator, gathered into blocks, each one hop to a thread.

    No async generator, since one cannot be closed while it runs: a request that breaks off leaves
    its writer waiting for the next block for a moment. `aclose` waits for the read under way.
    """

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces = pieces
        self._reading = anyio.Lock()

    def __aiter__(self) -> Pulled:
        return self

    async def __anext__(self) -> bytes:
        async with self._reading:
            block = await anyio.to_thread.run_sync(_gather, self._pieces)
        if not block:
            raise StopAsyncIteration
        return block

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            async with self._reading:
                self._pieces.close()


@asynccontextmanager
async def opened(item: Item, bodies: Mapping[str, Body]) -> AsyncIterator[Chunks]:
    """The file of an item, or a zip of its members as it is made; `bodies` are by key."""
    if item.kind == "file":
        pieces = blocks(bodies[item.key])
    else:
        pieces = archive((one.path, bodies[one.key]) for one in item.members)
    async with aclosing(Pulled(pieces)) as body:
        yield body


def _gather(pieces: Iterator[bytes]) -> bytes:
    held = io.BytesIO()
    for piece in pieces:
        held.write(piece)
        if held.tell() >= BLOCK:
            break
    return held.getvalue()


def hashed(body: Body) -> str:
    """The MD5 of a file, in hex. Blocking."""
    md5 = hashlib.md5(usedforsecurity=False)
    for block in blocks(body):
        md5.update(block)
    return md5.hexdigest()
