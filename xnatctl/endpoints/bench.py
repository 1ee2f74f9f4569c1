"""What benchmarks move: bodies that come again and again, and a sink that keeps nothing."""

from __future__ import annotations

import hashlib
import io
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import Protocol

from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.types import Container, Item, Selection, Stamp, Unit
from xnatctl.model import Ref
from xnatctl.zipstream import Event as ZipEvent
from xnatctl.zipstream import MemberEnd

from .bodies import Body, Pulled, archive
from .catalogue import container_key

BLOCK = 1024 * 1024
MOST_FILES = 256
UNITS_KEPT = 1024


class Bodies(Protocol):
    """Where bodies are read; any source is one."""

    name: str

    def open(self, unit: Unit, item: Item) -> AbstractAsyncContextManager[Chunks]: ...

    def member_path(self, item: Item, name: str) -> str: ...


class Repeated:
    """A source that never ends: the same sets of files, each time as another resource.

    `target` says where the nth one goes. The items are known, so describing costs no request. With
    `times` it ends after so many.
    """

    def __init__(
        self,
        bodies: Bodies,
        sets: Sequence[tuple[Item, ...]],
        target: Callable[[int], Ref],
        *,
        times: int | None = None,
    ) -> None:
        self.name = bodies.name
        self._bodies = bodies
        self._sets = sets
        self._target = target
        self._times = times

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        for number in count() if self._times is None else range(self._times):
            target = self._target(number)
            lane = container_key((None, None, None), target.resource or "")
            items = tuple(
                replace(one, key=f"{lane}/files/{one.path}", lane=lane)
                for one in self._sets[number % len(self._sets)]
            )
            yield Unit(
                str(target),
                "resource",
                items[0].ref,
                target,
                target.resource or "",
                containers=(Container(lane, target),),
                items=items,
                fingerprint=str(number),
            )

    async def describe(self, unit: Unit) -> Unit:
        return unit

    def open(self, unit: Unit, item: Item) -> AbstractAsyncContextManager[Chunks]:
        return self._bodies.open(unit, item)

    def member_path(self, item: Item, name: str) -> str:
        return self._bodies.member_path(item, name)


class MadeUp:
    """Files of one size, all with the same bytes, which no compression makes smaller."""

    name = "made-up"

    def __init__(self, size: int) -> None:
        self.size = size
        self._block = random.Random(size).randbytes(min(size, BLOCK))

    def files(self) -> tuple[Item, ...]:
        """What one resource holds: one block of files, or one that is larger."""
        md5 = hashlib.md5(usedforsecurity=False)
        for piece in self._pieces():
            md5.update(piece)
        many = max(1, min(MOST_FILES, BLOCK // self.size))
        return tuple(
            Item(
                "",
                "file",
                "",
                Ref(self.name),
                path=f"{number:04d}.bin",
                size=self.size,
                digest=md5.hexdigest(),
            )
            for number in range(many)
        )

    @asynccontextmanager
    async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
        if item.kind == "file":
            yield _each(self._pieces())
            return
        members = [(one.path, self._body(one.path)) for one in item.members]
        async with aclosing(Pulled(archive(members))) as body:
            yield body

    def member_path(self, item: Item, name: str) -> str:
        return name

    def _body(self, name: str) -> Body:
        return Body(name, self.size, lambda: io.BytesIO(self._block))

    def _pieces(self) -> list[bytes]:
        whole, rest = divmod(self.size, len(self._block))
        return [self._block] * whole + ([self._block[:rest]] if rest else [])


class DiscardSink:
    """Takes everything and keeps sizes and digests only, of the latest units."""

    name = "nowhere"
    accepts_zip = True
    holds_digests = True
    may_rewrite = False

    def __init__(self) -> None:
        self._seen: OrderedDict[str, dict[str, Stamp]] = OrderedDict()

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        return unit

    async def inventory(self, unit: Unit) -> Inventory:
        return dict(self._seen.get(unit.key, {}))

    async def begin(self, unit: Unit) -> None:
        self._seen[unit.key] = {}
        while len(self._seen) > UNITS_KEPT:
            self._seen.popitem(last=False)

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
        self._seen[unit.key][item.key] = Stamp(size, item.digest)

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        async for event in events:
            if isinstance(event, MemberEnd):
                key = f"{item.lane}/files/{event.name}"
                self._seen[unit.key][key] = Stamp(event.size, event.md5 or "")

    async def seal(self, unit: Unit, stage: int) -> None:
        pass

    async def abandon(self, unit: Unit) -> None:
        self._seen.pop(unit.key, None)


async def _each(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
