"""What a source promises, of those with one unit: a resource's files, an exam with its DICOM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from tests.contract.rigs import BIG, ODD_NAMES
from xnatctl.endpoints.dicom_folder import DicomSource, Exam
from xnatctl.endpoints.folder import FolderSource
from xnatctl.engine.memory import md5
from xnatctl.engine.plan import zip_of
from xnatctl.engine.ports import Source
from xnatctl.engine.types import Item, Selection, Unit
from xnatctl.errors import LocalFault, NotFound
from xnatctl.model import Ref
from xnatctl.sandbox.phantom import Series, Study, series_files
from xnatctl.zipstream import MemberData, MemberEnd, MemberStart, ZipReader

FILES = {
    "a.txt": b"the first\n",
    "sub/b.txt": b"the second\n",
    "empty.txt": b"",
    "body.bin": BIG,
    **{name: f"this is {name}".encode() for name in ODD_NAMES},
}
OBJECTS = dict(series_files(Series(Study("MR1", "SUBJ", "Doe^Jane"), "3", 3, columns=8, rows=8)))


@dataclass(frozen=True, slots=True)
class Rig:
    """A source over `FILES` as the resource NOTES, made afresh by `source`."""

    source: Callable[[], Source]
    empty: Source
    folder: Path
    target: Ref

    async def described(self) -> tuple[Source, Unit]:
        source = self.source()
        (unit,) = [one async for one in source.units(Selection(self.target))]
        return source, await source.describe(unit)


@pytest.fixture(params=["folder", "exam"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    target = Ref("P", "SUBJ", "U1")
    root = tmp_path / "in"
    folder = root / "NOTES"
    for name, body in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    (root / "dicom").mkdir()
    for name, body in OBJECTS.items():
        (root / "dicom" / name).write_bytes(body)
    with ExitStack() as kept:
        if request.param == "folder":
            target = target.in_resource("NOTES")
            yield Rig(
                lambda: FolderSource(folder, target=target),
                FolderSource(tmp_path / "missing", target=target),
                folder,
                target,
            )
        else:
            yield Rig(
                lambda: DicomSource(root, kept, target=target, exam=Exam()),
                DicomSource(tmp_path / "missing", kept, target=target),
                folder,
                target,
            )


def key(name: str) -> str:
    return f"resources/NOTES/files/{name}"


def item_of(unit: Unit, name: str) -> Item:
    (found,) = [one for one in unit.items if one.key == key(name)]
    return found


async def read(source: Source, unit: Unit, item: Item) -> bytes:
    async with source.open(unit, item) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def members(source: Source, unit: Unit, item: Item) -> dict[str, bytes]:
    reader = ZipReader()
    found: dict[str, bytes] = {}
    parts: list[bytes] = []
    async with source.open(unit, item) as chunks:
        async for chunk in chunks:
            for event in reader.feed(chunk):
                if isinstance(event, MemberStart):
                    parts = []
                elif isinstance(event, MemberData):
                    parts.append(bytes(event.plain))
                elif isinstance(event, MemberEnd):
                    found[source.member_path(item, event.name)] = b"".join(parts)
    reader.close()
    return found


async def test_the_unit_is_light_until_it_is_described_and_comes_again(rig: Rig) -> None:
    source = rig.source()
    first = [unit async for unit in source.units(Selection(rig.target))]
    again = [unit async for unit in source.units(Selection(rig.target))]
    assert first == again
    assert [unit.items for unit in first] == [()]


async def test_a_missing_root_is_not_found(rig: Rig) -> None:
    with pytest.raises(NotFound):
        async for _ in rig.empty.units(Selection(rig.target)):
            pass


async def test_every_file_is_named_with_size_and_digest(rig: Rig) -> None:
    _, unit = await rig.described()
    found = {one.key: (one.size, one.digest) for one in unit.items if one.kind == "file"}
    assert found == {key(name): (len(body), md5(body)) for name, body in FILES.items()}
    assert not unit.left


async def test_every_file_lies_in_a_container_that_is_described(rig: Rig) -> None:
    _, unit = await rig.described()
    (box,) = unit.containers
    assert box.ref.resource == "NOTES"
    for item in unit.items:
        if item.kind == "file":
            assert (item.lane, item.key) == (box.key, f"{box.key}/files/{item.path}")


async def test_the_fingerprint_stays_until_a_file_changes(rig: Rig) -> None:
    _, first = await rig.described()
    _, again = await rig.described()
    assert again == first and first.fingerprint
    (rig.folder / "a.txt").write_bytes(b"THE FIRST\n")
    _, changed = await rig.described()
    assert changed.fingerprint != first.fingerprint


async def test_a_file_is_read_whole_and_from_its_first_byte_each_time(rig: Rig) -> None:
    source, unit = await rig.described()
    item = item_of(unit, "body.bin")
    async with source.open(unit, item) as chunks:
        async for chunk in chunks:
            assert BIG.startswith(chunk)
            break
    assert await read(source, unit, item) == BIG
    assert await read(source, unit, item_of(unit, "empty.txt")) == b""


async def test_many_tasks_read_at_once(rig: Rig) -> None:
    source, unit = await rig.described()
    bodies: list[bytes] = []

    async def one() -> None:
        bodies.append(await read(source, unit, item_of(unit, "body.bin")))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(one)
    assert bodies == [BIG] * 5


@pytest.mark.parametrize("what", ["gone", "longer"])
async def test_a_file_that_is_another_one_by_now_is_an_error_of_ours(rig: Rig, what: str) -> None:
    source, unit = await rig.described()
    path = rig.folder / "a.txt"
    path.unlink() if what == "gone" else path.write_bytes(b"the first and more\n")
    with pytest.raises(LocalFault):
        await read(source, unit, item_of(unit, "a.txt"))


async def test_an_archive_holds_the_members_that_were_asked_for(rig: Rig) -> None:
    source, unit = await rig.described()
    some = [item_of(unit, name) for name in FILES]
    assert await members(source, unit, zip_of(some[0].lane, some)) == FILES
    few = some[:2]
    assert set(await members(source, unit, zip_of(few[0].lane, few))) == {"a.txt", "sub/b.txt"}


async def test_a_series_is_an_archive_of_its_objects_named_by_their_uids(tmp_path: Path) -> None:
    for name, body in OBJECTS.items():
        (tmp_path / name).write_bytes(body)
    with ExitStack() as kept:
        target = Ref("P", "SUBJ", "U1")
        source = DicomSource(tmp_path, kept, target=target)
        (unit,) = [one async for one in source.units(Selection(target))]
        (item,) = (await source.describe(unit)).items
        held = await members(source, unit, item)
    assert {one.path: one.size for one in item.members} == {
        name: len(body) for name, body in held.items()
    }
    assert sorted(held.values()) == sorted(OBJECTS.values())
