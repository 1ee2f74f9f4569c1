"""Ends for `benchmarks/cluster.py` that cost next to nothing, so that what is between them shows.

They stand in a file of their own because worker processes import them by name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from xnatctl.cluster.wire import Letter, MakeSink, packed
from xnatctl.engine.events import BytesMoved
from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.types import Container, Item, Member, Selection, Stamp, Unit
from xnatctl.model import Ref
from xnatctl.zipstream import Event as ZipEvent

PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Given:
    """`count` units. Each holds the same archive, deflated beforehand, or nothing; each takes
    `nap_s` seconds to be described.
    """

    count: int
    archive: Path | None = None
    members: tuple[Member, ...] = ()
    nap_s: float = 0.0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[GivenSource, MakeSink]]:
        yield GivenSource(self), lambda remember: Discard()


class GivenSource:
    """Reads the archive from memory; inflating and proving it is the engine's work."""

    name = "given:source"

    def __init__(self, given: Given) -> None:
        self._given = given
        self._body = given.archive.read_bytes() if given.archive else b""

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        for number in range(self._given.count):
            ref = Ref("P", session=f"S{number:05}")
            yield Unit(f"S{number:05}", "session", ref, ref, f"S{number:05}")

    async def describe(self, unit: Unit) -> Unit:
        await anyio.sleep(self._given.nap_s)
        if not self._body:
            return unit
        box = Container("box", replace(unit.ref, resource="box"))
        # A whole scan is taken apart as it is; files would be packed by other rules.
        item = Item("box", "import", "import", box.ref, members=self._given.members, stage=0)
        return replace(unit, containers=(box,), items=(item,))

    @asynccontextmanager
    async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
        yield self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._body), PIECE):
            yield self._body[at : at + PIECE]

    def member_path(self, item: Item, name: str) -> str:
        return name


class Discard:
    """Takes everything, and lists what it took."""

    name = "discard:sink"
    accepts_zip = True
    holds_digests = True
    may_rewrite = False

    def __init__(self) -> None:
        self._taken: dict[str, Stamp] = {}

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        return unit

    async def inventory(self, unit: Unit) -> Inventory:
        return self._taken

    async def begin(self, unit: Unit) -> None: ...

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        raise LookupError(f"{item.key} is no archive")

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        async for _ in events:
            pass
        self._taken = {item.key: Stamp(objects=len(item.members))}

    async def seal(self, unit: Unit, stage: int) -> None: ...

    async def abandon(self, unit: Unit) -> None: ...


async def write_letters(count: int, dask_worker: Any) -> None:
    """So many letters from a worker, as it writes them while bytes move."""
    for number in range(count):
        events = tuple(BytesMoved("unit", f"key-{one}", number) for one in range(8))
        dask_worker.log_event("letters", packed(Letter("seat", events)))
        await anyio.sleep(0.005)
