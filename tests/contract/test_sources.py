"""What every source promises, the one in memory included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from tests.contract.rigs import BIG, ODD_NAMES, SOURCES, TREE, SourceRig
from xnatctl.engine.memory import md5
from xnatctl.engine.plan import zip_of
from xnatctl.engine.types import Item, Selection, Unit
from xnatctl.errors import NotFound, Vanished, XnatctlError
from xnatctl.model import Ref
from xnatctl.zipstream import MemberData, MemberEnd, MemberStart, ZipReader


@pytest.fixture(params=SOURCES)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SourceRig]:
    async with SOURCES[request.param](tmp_path) as rig:
        yield rig


def item_of(rig: SourceRig, unit: Unit, box: str, name: str) -> Item:
    (found,) = [one for one in unit.items if one.key == rig.key_of(box, name)]
    return found


async def read(rig: SourceRig, unit: Unit, item: Item) -> bytes:
    async with rig.source.open(unit, item) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def members(rig: SourceRig, unit: Unit, item: Item) -> dict[str, bytes]:
    """What the archive of an item holds, by path in the resource."""
    reader = ZipReader()
    found: dict[str, bytes] = {}
    parts: list[bytes] = []
    async with rig.source.open(unit, item) as chunks:
        async for chunk in chunks:
            for event in reader.feed(chunk):
                if isinstance(event, MemberStart):
                    parts = []
                elif isinstance(event, MemberData):
                    parts.append(bytes(event.plain))
                elif isinstance(event, MemberEnd):
                    found[rig.source.member_path(item, event.name)] = b"".join(parts)
    reader.close()
    return found


async def test_every_unit_comes_once_and_after_those_it_names(rig: SourceRig) -> None:
    seen: list[str] = []
    async for unit in rig.source.units(rig.root):
        assert unit.key not in seen
        assert set(unit.after) - {"*"} <= set(seen)
        seen.append(unit.key)
    assert {rig.unit_of(session) for session in TREE} <= set(seen)


async def test_units_are_light_until_they_are_described(rig: SourceRig) -> None:
    async for unit in rig.source.units(rig.root):
        assert not unit.items


async def test_units_may_be_left_early_and_asked_for_again(rig: SourceRig) -> None:
    async def first() -> str:
        async for unit in rig.source.units(rig.root):
            return unit.key
        return ""

    assert await first() == await first() != ""


async def test_a_missing_root_is_not_found(rig: SourceRig) -> None:
    with pytest.raises(NotFound):
        async for _ in rig.empty.units(Selection(Ref("NO_SUCH_PROJECT"))):
            pass


async def test_a_described_unit_names_every_file_with_size_and_digest(rig: SourceRig) -> None:
    unit = await rig.unit("S1")

    found = {one.key: (one.size, one.digest) for one in unit.items if one.kind == "file"}
    assert found == {
        rig.key_of(box, name): (len(body), md5(body)) for (box, name), body in TREE["S1"].items()
    }
    assert not unit.left


async def test_every_file_lies_in_a_container_that_is_described(rig: SourceRig) -> None:
    unit = await rig.unit("S1")

    boxes = {one.key for one in unit.containers}
    for item in unit.items:
        if item.kind == "file":
            assert item.lane in boxes
            assert item.key == f"{item.lane}/files/{item.path}"
    assert {one.ref.resource for one in unit.containers} == {"NOTES", "BIG", "ODD"}


async def test_a_unit_keeps_its_fingerprint_until_something_changes(rig: SourceRig) -> None:
    first = await rig.unit("S1")
    again = await rig.unit("S1")
    assert first.fingerprint
    assert again.fingerprint == first.fingerprint
    assert again == first

    rig.write("S1", "NOTES", "a.txt", b"THE FIRST\n")
    assert (await rig.unit("S1")).fingerprint != first.fingerprint


async def test_a_unit_that_is_gone_has_vanished(rig: SourceRig) -> None:
    units = [unit async for unit in rig.source.units(rig.root)]
    (unit,) = [one for one in units if one.key == rig.unit_of("S2")]
    rig.remove("S2")

    with pytest.raises(Vanished):
        await rig.source.describe(unit)


async def test_a_file_is_read_whole(rig: SourceRig) -> None:
    unit = await rig.unit("S1")

    assert await read(rig, unit, item_of(rig, unit, "BIG", "body.bin")) == BIG
    assert await read(rig, unit, item_of(rig, unit, "NOTES", "sub/b.txt")) == b"the second\n"


async def test_a_file_that_was_left_early_starts_again_at_its_first_byte(rig: SourceRig) -> None:
    unit = await rig.unit("S1")
    item = item_of(rig, unit, "BIG", "body.bin")

    async with rig.source.open(unit, item) as chunks:
        async for chunk in chunks:
            assert BIG.startswith(chunk)
            break

    assert await read(rig, unit, item) == BIG


async def test_a_body_may_be_left_while_a_task_waits_for_its_next_piece(rig: SourceRig) -> None:
    unit = await rig.unit("S1")
    item = item_of(rig, unit, "BIG", "body.bin")

    async with rig.source.open(unit, item) as chunks:
        await anext(chunks)
        waiting = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError, StopAsyncIteration, XnatctlError):
        await waiting

    assert await read(rig, unit, item) == BIG


async def test_many_tasks_read_at_once(rig: SourceRig) -> None:
    unit = await rig.unit("S1")
    item = item_of(rig, unit, "BIG", "body.bin")
    bodies: list[bytes] = []

    async def one() -> None:
        bodies.append(await read(rig, unit, item))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(one)
    assert bodies == [BIG] * 5


async def test_a_file_that_is_gone_raises_one_of_our_errors(rig: SourceRig) -> None:
    unit = await rig.unit("S2")
    item = item_of(rig, unit, "NOTES", "a.txt")
    rig.remove("S2")

    with pytest.raises(Vanished):
        await read(rig, unit, item)


@pytest.mark.parametrize("box", ["NOTES", "ODD"])
async def test_an_archive_holds_the_members_that_were_asked_for(rig: SourceRig, box: str) -> None:
    unit = await rig.unit("S1")
    lane = rig.key_of(box, "x").rpartition("/files/")[0]
    wanted = {name: body for (place, name), body in TREE["S1"].items() if place == box}
    item = zip_of(lane, [one for one in unit.items if one.lane == lane])

    held = await members(rig, unit, item)

    assert {name: held[name] for name in wanted} == wanted


async def test_an_archive_of_some_files_may_be_asked_for(rig: SourceRig) -> None:
    unit = await rig.unit("S1")
    some = [item_of(rig, unit, "ODD", name) for name in ODD_NAMES[:2]]

    held = await members(rig, unit, zip_of(some[0].lane, some))

    for one in some:
        assert md5(held[one.path]) == one.digest


async def test_a_changed_file_is_read_as_it_is_now(rig: SourceRig) -> None:
    unit = await rig.unit("S1")
    rig.write("S1", "NOTES", "a.txt", b"another\n")

    changed = replace(item_of(rig, unit, "NOTES", "a.txt"), size=None, digest="")
    assert await read(rig, unit, changed) == b"another\n"
