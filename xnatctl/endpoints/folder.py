"""Files of a folder, or one file, as the content of one resource of an archive.

Nothing is left out but litter of operating systems, which is named. The files are hashed before
anything is sent, so what is there and equal stays, and what arrived is proven by MD5.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import anyio.to_thread

from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.types import Container, Item, Left, Selection, Unit
from xnatctl.errors import NotFound
from xnatctl.model import Ref
from xnatctl.xnat.parse import digest_of

from .archive import ArchiveSink
from .bodies import Body, Unread, files_of, hashed, is_litter, opened
from .catalogue import container_key

FileStamp = tuple[str, int, int]
BATCH_BYTES = 64 * 1024 * 1024
BATCH_FILES = 500


class Digests(Protocol):
    """A memory of the MD5s of local files, valid while size and modification time stay."""

    async def local_digests(self, files: Iterable[FileStamp]) -> dict[str, str]: ...

    async def keep_local_digests(self, rows: Iterable[tuple[str, int, int, str]]) -> None: ...


class FolderSource:
    """One unit: the resource that `target` names, with the files of `path`.

    A folder's files keep their paths below it; a single file keeps its name. `made` has the format,
    content, description and tags of a resource that is created.
    """

    def __init__(
        self,
        path: Path,
        *,
        target: Ref,
        digests: Digests | None = None,
        made: dict[str, str] | None = None,
    ) -> None:
        self.name = f"file://{path.absolute()}"
        self._path = path
        self._target = target
        self._digests = digests
        self._made = made or {}
        self._bodies: dict[str, Body] = {}

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        """The resource. Raises NotFound where there is no path."""
        if not await anyio.Path(self._path).exists():
            raise NotFound(f"there is nothing at {self._path}")
        target = self._target
        yield Unit(str(target), "resource", target, target, label=target.resource or "")

    async def describe(self, unit: Unit) -> Unit:
        found = await anyio.to_thread.run_sync(lambda: list(files_of(self._path)))
        ref = unit.target
        lane = container_key((ref.level, ref.item, ref.side), ref.resource or "")
        items: list[Item] = []
        left: list[Left] = []
        digests = await self._digests_of(
            [one for one in found if isinstance(one, Body) and not is_litter(one.name)]
        )
        for one in found:
            if isinstance(one, Unread):
                left.append(Left(one.name, one.code, one.reason))
            elif is_litter(one.name):
                left.append(Left(one.name, "junk", "it is litter of an operating system"))
            else:
                key = f"{lane}/files/{one.name}"
                self._bodies[key] = one
                items.append(
                    Item(
                        key,
                        "file",
                        lane,
                        ref,
                        path=one.name,
                        size=one.size,
                        digest=digests[one.name],
                    )
                )
        return replace(
            unit,
            items=tuple(items),
            containers=(Container(lane, ref, **self._made),),
            left=tuple(left),
            fingerprint=digest_of(*sorted(f"{one.key} {one.digest}" for one in items)),
        )

    async def _digests_of(self, bodies: list[Body]) -> dict[str, str]:
        """The MD5 of each file by its name; one that is remembered is not read again.

        Read and remembered in batches: a thread and a commit for each file would cost more than
        the small ones among them.
        """
        is_folder = await anyio.Path(self._path).is_dir()
        stamps = {one.name: self._stamp(one, is_folder) for one in bodies}
        known: dict[str, str] = {}
        if self._digests is not None:
            known = await self._digests.local_digests(stamps.values())
        made = {one.name: known.get(stamps[one.name][0], "") for one in bodies}
        for batch in _batches([one for one in bodies if not made[one.name]]):
            read = await anyio.to_thread.run_sync(lambda some: [hashed(one) for one in some], batch)
            made.update((one.name, digest) for one, digest in zip(batch, read, strict=True))
            if self._digests is not None:
                rows = [(*stamps[one.name], made[one.name]) for one in batch]
                await self._digests.keep_local_digests(rows)
        return made

    def _stamp(self, body: Body, is_folder: bool) -> FileStamp:
        size, _, changed = body.stamp.partition(" ")
        path = self._path / body.name if is_folder else self._path
        return str(path.absolute()), int(size), int(changed)

    def open(self, unit: Unit, item: Item) -> AbstractAsyncContextManager[Chunks]:
        return opened(item, self._bodies)

    def member_path(self, item: Item, name: str) -> str:
        return name


def _batches(bodies: list[Body]) -> Iterator[list[Body]]:
    batch: list[Body] = []
    size = 0
    for one in bodies:
        batch.append(one)
        size += one.size
        if size >= BATCH_BYTES or len(batch) >= BATCH_FILES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class AddingSink(ArchiveSink):
    """An archive in which files that exist stay as they are, whatever is in them."""

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        there = [item for item in unit.items if item.key in inventory]
        left = [Left(one.key, "exists", "a file of this name is there") for one in there]
        rest = tuple(item for item in unit.items if item.key not in inventory)
        return replace(unit, items=rest, left=(*unit.left, *left))
