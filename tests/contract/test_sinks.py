"""What every sink promises, the one in memory included."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from tests.contract.rigs import BIG, ODD_NAMES, SINKS, SinkRig, chunks_of, files_in
from xnatctl.engine.copy import proven, proven_members
from xnatctl.engine.memory import MemorySource, md5
from xnatctl.engine.ports import Chunks
from xnatctl.engine.types import Item, Stamp, Unit, Verdict
from xnatctl.errors import Corrupt, XnatctlError
from xnatctl.zipstream import Event as ZipEvent

FILES = {
    ("NOTES", "a.txt"): b"the first\n",
    ("NOTES", "sub/b.txt"): b"the second\n",
    ("BIG", "body.bin"): BIG,
}
MANY = {f"{number:02}.bin": bytes([number]) * (number * 7 + 1) for number in range(30)}


@pytest.fixture(params=SINKS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SinkRig]:
    async with SINKS[request.param](tmp_path) as rig:
        yield rig


class Broken(XnatctlError):
    """What a source that dies in the middle raises."""

    retryable = True


async def breaking_off(body: bytes, after: int) -> AsyncIterator[bytes]:
    """The first `after` bytes of a body, and then nothing but an error."""
    async for chunk in chunks_of(body[:after]):
        yield chunk
    raise Broken("the source broke off")


def zip_bytes(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as writer:
        for name, body in files.items():
            writer.writestr(name, body)
    return archive.getvalue()


class _Flat(MemorySource):
    """A source whose archives name members by their path in the resource."""

    def member_path(self, item: Item, name: str) -> str:
        return name


def events_of(item: Item, chunks: Chunks) -> AsyncIterator[ZipEvent]:
    return proven_members(_Flat({}), item, chunks, lambda count: None)


async def write(rig: SinkRig, unit: Unit) -> None:
    """Bring every file of a unit, one by one."""
    await rig.sink.begin(unit)
    bodies = {rig.key_of(box, name): body for (box, name), body in FILES.items()}
    for item in unit.items:
        await rig.sink.put(
            unit, item, proven(item, chunks_of(bodies[item.key]), lambda count: None)
        )
    await rig.sink.seal(unit, 2)


def stamps(rig: SinkRig, files: Mapping[tuple[str, str], bytes]) -> dict[str, Stamp]:
    return {
        rig.key_of(box, name): Stamp(len(body), md5(body)) for (box, name), body in files.items()
    }


async def files_of(rig: SinkRig, unit: Unit) -> dict[str, Stamp]:
    inventory = await rig.sink.inventory(unit)
    return {key: inventory[key] for key in files_in(inventory)}


async def test_an_empty_sink_lists_no_file(rig: SinkRig) -> None:
    assert await files_of(rig, rig.unit(FILES)) == {}


async def test_a_unit_that_the_sink_has_never_seen_lists_no_file(rig: SinkRig) -> None:
    unit = rig.unit(FILES)
    elsewhere = replace(rig.target, project="NO_SUCH_PROJECT", session="NONE")

    stranger = replace(unit, key="NONE", target=elsewhere, ref=elsewhere)
    assert await files_of(rig, stranger) == {}


async def test_what_was_put_is_listed_under_the_same_key_with_size_and_digest(
    rig: SinkRig,
) -> None:
    unit = rig.unit(FILES)
    await write(rig, unit)

    assert rig.sink.holds_digests
    assert await files_of(rig, unit) == stamps(rig, FILES)
    assert rig.stored() == FILES


async def test_beginning_twice_changes_nothing(rig: SinkRig) -> None:
    unit = rig.unit(FILES)
    await rig.sink.begin(unit)
    await write(rig, unit)
    await rig.sink.begin(unit)

    assert await files_of(rig, unit) == stamps(rig, FILES)


async def test_sealing_twice_changes_nothing(rig: SinkRig) -> None:
    unit = rig.unit(FILES)
    await write(rig, unit)
    await rig.sink.seal(unit, 2)

    assert await files_of(rig, unit) == stamps(rig, FILES)


async def test_a_unit_without_files_can_be_sealed(rig: SinkRig) -> None:
    unit = rig.unit({})
    await rig.sink.begin(unit)
    for stage in (0, 1, 2):
        await rig.sink.seal(unit, stage)

    assert await files_of(rig, unit) == {}


async def test_a_replaced_file_has_its_new_body(rig: SinkRig) -> None:
    unit = rig.unit(FILES)
    await write(rig, unit)

    new = replace(rig.item("NOTES", "a.txt", b"another\n"), verdict=Verdict.REPLACE)
    await rig.sink.put(unit, new, chunks_of(b"another\n"))

    changed = {**FILES, ("NOTES", "a.txt"): b"another\n"}
    assert await files_of(rig, unit) == stamps(rig, changed)
    assert rig.stored() == changed


async def test_an_inventory_is_never_remembered(rig: SinkRig) -> None:
    unit = rig.unit(FILES)
    await write(rig, unit)
    await rig.sink.inventory(unit)

    rig.tamper("NOTES", "a.txt", b"changed behind its back")

    changed = {**FILES, ("NOTES", "a.txt"): b"changed behind its back"}
    assert await files_of(rig, unit) == stamps(rig, changed)


@pytest.mark.parametrize("after", [0, 1, 1000, 150_000, len(BIG)])
async def test_a_body_that_breaks_off_leaves_nothing_that_counts_as_whole(
    rig: SinkRig, after: int
) -> None:
    unit = rig.unit({("BIG", "body.bin"): BIG})
    (item,) = unit.items
    await rig.sink.begin(unit)

    # The last piece is held back from a sink until the body is proven, here as in a run.
    with pytest.raises(XnatctlError):
        await rig.sink.put(unit, item, proven(item, breaking_off(BIG, after), lambda count: None))

    assert await files_of(rig, unit) == {}
    assert rig.stored() == {}


async def test_the_error_of_a_body_comes_out_as_it_is(rig: SinkRig) -> None:
    unit = rig.unit({("BIG", "body.bin"): BIG})
    await rig.sink.begin(unit)

    with pytest.raises(Broken):
        await rig.sink.put(unit, unit.items[0], breaking_off(BIG, 200_000))


async def test_a_replacement_that_breaks_off_leaves_the_old_body(rig: SinkRig) -> None:
    unit = rig.unit({("BIG", "body.bin"): BIG})
    old = b"the old body"
    await rig.sink.begin(unit)
    await rig.sink.put(unit, rig.item("BIG", "body.bin", old), chunks_of(old))

    new = replace(unit.items[0], verdict=Verdict.REPLACE)
    with pytest.raises(XnatctlError):
        await rig.sink.put(unit, new, proven(new, breaking_off(BIG, 200_000), lambda count: None))

    assert rig.stored() == {("BIG", "body.bin"): old}


async def test_a_body_that_broke_off_can_be_put_again(rig: SinkRig) -> None:
    unit = rig.unit({("BIG", "body.bin"): BIG})
    (item,) = unit.items
    await rig.sink.begin(unit)
    with pytest.raises(Broken):
        await rig.sink.put(unit, item, breaking_off(BIG, 200_000))

    await rig.sink.put(unit, replace(item, verdict=Verdict.REPLACE), chunks_of(BIG))
    await rig.sink.seal(unit, 2)

    assert rig.stored() == {("BIG", "body.bin"): BIG}


async def test_an_abandoned_unit_can_be_finished_by_a_later_run(rig: SinkRig) -> None:
    unit = rig.unit(FILES)
    big = next(item for item in unit.items if item.path == "body.bin")
    await rig.sink.begin(unit)
    with pytest.raises(Broken):
        await rig.sink.put(unit, big, breaking_off(BIG, 200_000))
    await rig.sink.abandon(unit)
    await rig.sink.abandon(unit)

    await write(rig, unit)

    assert await files_of(rig, unit) == stamps(rig, FILES)
    assert rig.stored() == FILES


async def test_a_unit_that_was_never_begun_can_be_abandoned(rig: SinkRig) -> None:
    await rig.sink.abandon(rig.unit(FILES))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
async def test_the_members_of_an_archive_arrive_whole(rig: SinkRig, method: int) -> None:
    files = {**MANY, "empty.txt": b"", "large.bin": BIG * 5}
    unit = rig.unit({("BOX", name): body for name, body in files.items()})
    item = rig.archive("BOX", files)
    await rig.sink.begin(unit)

    await rig.sink.put_many(unit, item, events_of(item, chunks_of(zip_bytes(files, method))))
    await rig.sink.seal(unit, 2)

    wanted = {("BOX", name): body for name, body in files.items()}
    assert await files_of(rig, unit) == stamps(rig, wanted)
    assert rig.stored() == wanted


async def test_odd_names_arrive_as_they_are(rig: SinkRig) -> None:
    files = {name: f"this is {name}".encode() for name in ODD_NAMES}
    unit = rig.unit({("ODD", name): body for name, body in files.items()})
    item = rig.archive("ODD", files)
    await rig.sink.begin(unit)

    await rig.sink.put_many(unit, item, events_of(item, chunks_of(zip_bytes(files))))

    wanted = {("ODD", name): body for name, body in files.items()}
    assert await files_of(rig, unit) == stamps(rig, wanted)
    assert rig.stored() == wanted


async def test_members_that_were_not_asked_for_stay_behind(rig: SinkRig) -> None:
    files = {name: MANY[name] for name in ("03.bin", "07.bin")}
    unit = rig.unit({("BOX", name): body for name, body in files.items()})
    item = rig.archive("BOX", files)
    await rig.sink.begin(unit)

    await rig.sink.put_many(unit, item, events_of(item, chunks_of(zip_bytes(MANY))))

    assert rig.stored() == {("BOX", name): body for name, body in files.items()}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
async def test_an_archive_that_breaks_off_leaves_whole_members_or_none(
    rig: SinkRig, share: float
) -> None:
    files = {**MANY, "large.bin": BIG * 5, "last.bin": BIG}
    unit = rig.unit({("BOX", name): body for name, body in files.items()})
    item = rig.archive("BOX", files)
    body = zip_bytes(files)
    await rig.sink.begin(unit)

    with pytest.raises(Broken):
        await rig.sink.put_many(
            unit, item, events_of(item, breaking_off(body, int(len(body) * share)))
        )

    assert await files_of(rig, unit) == stamps(rig, rig.stored())
    for (_, name), found in rig.stored().items():
        assert found == files[name]
    assert ("BOX", "last.bin") not in rig.stored()


async def test_a_damaged_member_is_not_stored(rig: SinkRig) -> None:
    files = {"a.bin": b"a" * 5000, "b.bin": b"b" * 5000, "c.bin": b"c" * 5000}
    unit = rig.unit({("BOX", name): body for name, body in files.items()})
    item = rig.archive("BOX", files)
    body = bytearray(zip_bytes(files))
    body[body.index(b"b" * 5000) + 4000] ^= 1
    await rig.sink.begin(unit)

    with pytest.raises(Corrupt):
        await rig.sink.put_many(unit, item, events_of(item, chunks_of(bytes(body))))

    assert ("BOX", "b.bin") not in rig.stored()
    assert ("BOX", "c.bin") not in rig.stored()


async def test_an_archive_that_lacks_a_member_raises_and_keeps_only_whole_ones(
    rig: SinkRig,
) -> None:
    unit = rig.unit({("BOX", name): body for name, body in MANY.items()})
    item = rig.archive("BOX", MANY)
    short = {name: body for name, body in MANY.items() if name != "11.bin"}
    await rig.sink.begin(unit)

    with pytest.raises(Corrupt):
        await rig.sink.put_many(unit, item, events_of(item, chunks_of(zip_bytes(short))))

    for (_, name), found in rig.stored().items():
        assert found == MANY[name]


async def test_an_archive_that_broke_off_can_be_put_again(rig: SinkRig) -> None:
    unit = rig.unit({("BOX", name): body for name, body in MANY.items()})
    item = replace(rig.archive("BOX", MANY), verdict=Verdict.REPLACE)
    body = zip_bytes(MANY)
    await rig.sink.begin(unit)
    with pytest.raises(Broken):
        await rig.sink.put_many(unit, item, events_of(item, breaking_off(body, len(body) // 2)))

    await rig.sink.put_many(unit, item, events_of(item, chunks_of(body)))

    assert rig.stored() == {("BOX", name): body for name, body in MANY.items()}


async def test_different_resources_are_written_side_by_side(rig: SinkRig) -> None:
    files = {(f"BOX{number}", "body.bin"): BIG[number:] for number in range(6)}
    unit = rig.unit(files)
    await rig.sink.begin(unit)

    async def put(item: Item, body: bytes) -> None:
        await rig.sink.put(unit, item, chunks_of(body))

    async with anyio.create_task_group() as tasks:
        for item, body in zip(unit.items, files.values(), strict=True):
            tasks.start_soon(put, item, body)
    await rig.sink.seal(unit, 2)

    assert rig.stored() == files


async def test_a_put_that_is_cancelled_leaves_nothing_that_counts_as_whole(rig: SinkRig) -> None:
    unit = rig.unit({("BIG", "body.bin"): BIG})
    await rig.sink.begin(unit)
    half_way = anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield BIG[:200_000]
        half_way.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.sink.put, unit, unit.items[0], endless())
        await half_way.wait()
        tasks.cancel_scope.cancel()

    assert await files_of(rig, unit) == {}
    assert rig.stored() == {}


async def test_preparing_a_unit_loses_none_of_its_files(rig: SinkRig) -> None:
    unit = rig.unit(FILES)

    prepared = rig.sink.prepare(unit, await rig.sink.inventory(unit))

    keys = {one.key for item in prepared.items for one in (item.members or (item,))}
    assert files_in(keys) == {item.key for item in unit.items}
