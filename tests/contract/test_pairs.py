"""Sources and sinks agree on keys: what one describes, the other lists after it has arrived."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.contract.rigs import SINKS, SOURCES, TREE, SinkRig, SourceRig, files_in
from xnatctl.engine.copy import proven, proven_members
from xnatctl.engine.plan import decide, pack
from xnatctl.engine.types import Item, Unit, Verdict
from xnatctl.engine.verify import compare, level

# Memory has a layout of its own; all others use XNAT's.
PAIRS = [
    ("memory", "memory"),
    ("bundle", "local"),
    ("bundle", "archive"),
    ("xnat", "local"),
    ("xnat", "bundle"),
    ("xnat", "archive"),
    ("xnat", "prearchive"),
]


@dataclass(frozen=True, slots=True)
class Pair:
    source: SourceRig
    sink: SinkRig

    async def described(self) -> tuple[Unit, Unit]:
        """The files of a session as the source names it, and as the sink is told of it."""
        unit = await self.source.unit("S1")
        unit = replace(unit, items=tuple(one for one in unit.items if one.kind == "file"))
        return unit, replace(unit, key="U1", target=self.sink.target)

    async def copy(self, unit: Unit, there: Unit, item: Item) -> None:
        source, sink = self.source.source, self.sink.sink
        async with source.open(unit, item) as chunks:
            if item.kind == "zip":
                events = proven_members(source, item, chunks, lambda count: None)
                await sink.put_many(there, item, events)
            else:
                await sink.put(there, item, proven(item, chunks, lambda count: None))


@pytest.fixture(params=PAIRS, ids="-".join)
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    source, sink = request.param
    async with AsyncExitStack() as stack:
        yield Pair(
            await stack.enter_async_context(SOURCES[source](tmp_path)),
            await stack.enter_async_context(SINKS[sink](tmp_path)),
        )


async def test_what_has_arrived_is_listed_under_the_keys_of_the_source(pair: Pair) -> None:
    unit, there = await pair.described()
    sink = pair.sink.sink
    there = decide(there, await sink.inventory(there), known={}, overwrite=False)
    packed = pack(there, accepts_zip=sink.accepts_zip)
    assert {item.kind for item in packed.items} == {"file", "zip"}

    await sink.begin(packed)
    for item in packed.items:
        await pair.copy(unit, packed, item)
    await sink.seal(packed, 2)

    inventory = await sink.inventory(packed)
    assert files_in(inventory) == {item.key for item in there.items}
    assert compare(there.items, inventory) == []
    assert {level(item, inventory) for item in there.items} == {"digest"}
    assert pair.sink.stored() == TREE["S1"]


async def test_a_second_look_finds_nothing_to_move(pair: Pair) -> None:
    unit, there = await pair.described()
    sink = pair.sink.sink
    await sink.begin(there)
    for item in pack(there, accepts_zip=True).items:
        await pair.copy(unit, there, item)

    again = decide(there, await sink.inventory(there), known={}, overwrite=False)

    assert {item.verdict for item in again.items} == {Verdict.KEEP}


async def test_a_change_at_the_source_is_seen(pair: Pair) -> None:
    unit, there = await pair.described()
    sink = pair.sink.sink
    await sink.begin(there)
    for item in pack(there, accepts_zip=True).items:
        await pair.copy(unit, there, item)
    pair.source.write("S1", "NOTES", "a.txt", b"The First\n")

    _, there = await pair.described()
    again = decide(there, await sink.inventory(there), known={}, overwrite=True)

    changed = [item.path for item in again.items if item.verdict is not Verdict.KEEP]
    assert changed == ["a.txt"]
