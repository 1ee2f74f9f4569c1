"""Archives on disk as a source: each zip is a unit, its members are files beside it.

An archive is read through before anything is written: that proves it whole and gives the MD5s by
which what is there already is compared. XNAT puts everything below a folder named after the
session; where the zip lies in a folder of that name, it is left out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread

from xnatctl.engine.ports import Chunks
from xnatctl.engine.types import Container, Item, Selection, Unit
from xnatctl.errors import NotFound
from xnatctl.model import Ref
from xnatctl.xnat.parse import digest_of
from xnatctl.zipstream import MemberData, MemberEnd, MemberStart, ZipReader

from .bodies import Pulled, blocks, file_body

LANE = "archive"


class ZipSource:
    """Reads the archives of a folder, those of the folders below it too if `deep`."""

    def __init__(self, root: Path, *, deep: bool) -> None:
        self.name = f"file://{root.absolute()}"
        self._root = root
        self._deep = deep

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        """A unit an archive; its key is the archive's path below the root."""
        found = await anyio.to_thread.run_sync(self._find)
        if not found:
            raise NotFound(
                f"no archive in {self._root}", hint="" if self._deep else "--recursive looks deeper"
            )
        for path in found:
            key = path.relative_to(self._root).as_posix()
            yield Unit(key, "resource", Ref(key), Ref(key), label=key)

    def _find(self) -> list[Path]:
        pattern = "**/*.zip" if self._deep else "*.zip"
        return sorted(path for path in self._root.glob(pattern) if path.is_file())

    async def describe(self, unit: Unit) -> Unit:
        """Every member with its size and MD5. Raises Corrupt for what is no whole archive."""
        path = self._root / unit.key
        members = await anyio.to_thread.run_sync(_members, path)
        wrapper = _wrapper(path)
        items = []
        for end in members:
            inside = end.name.removeprefix(wrapper)
            items.append(
                Item(
                    key=inside,
                    kind="file",
                    lane=LANE,
                    ref=unit.ref,
                    path=inside,
                    size=end.size,
                    digest=end.md5 or "",
                )
            )
        stamps = sorted(f"{one.key}\t{one.size}\t{one.digest}" for one in items)
        container = Container(LANE, unit.ref)
        return replace(
            unit, items=tuple(items), containers=(container,), fingerprint=digest_of(*stamps)
        )

    @asynccontextmanager
    async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
        path = self._root / unit.key
        chunks = blocks(file_body(path)) if item.kind == "zip" else _member(path, item)
        async with aclosing(Pulled(chunks)) as body:
            yield body

    def member_path(self, item: Item, name: str) -> str:
        return name.removeprefix(_wrapper(self._root / item.ref.project))


def _wrapper(path: Path) -> str:
    """The folder inside an archive that stands for the one in which it lies."""
    return f"{path.parent.absolute().name}/"


def _member(path: Path, item: Item) -> Generator[bytes, None, None]:
    """One member of an archive, for what has to be written again alone."""
    reader = ZipReader()
    current = ""
    for block in blocks(file_body(path)):
        for event in reader.feed(block):
            if isinstance(event, MemberStart):
                current = event.name
            elif isinstance(event, MemberData) and current in (
                item.path,
                _wrapper(path) + item.path,
            ):
                yield bytes(event.plain)


def _members(path: Path) -> list[MemberEnd]:
    reader = ZipReader(digest=True)
    found = [
        event
        for block in blocks(file_body(path))
        for event in reader.feed(block)
        if isinstance(event, MemberEnd)
    ]
    reader.close()
    return found
