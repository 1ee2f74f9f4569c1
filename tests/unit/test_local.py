"""Folders as a sink: names, part files, what is in the way, and what is on the disk for good."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatctl.endpoints.catalogue import (
    Catalogue,
    Place,
    container_key,
    free_key,
    label_of,
    parse_key,
)
from xnatctl.endpoints.local import LocalSink
from xnatctl.endpoints.names import path_below
from xnatctl.endpoints.parts import hold
from xnatctl.engine.copy import proven_members
from xnatctl.engine.memory import MemorySource, md5
from xnatctl.engine.types import Item, Member, Unit
from xnatctl.errors import LocalFault, Unreachable
from xnatctl.model import File, Ref
from xnatctl.zipstream import Event as ZipEvent
from xnatctl.zipstream import MemberStart, ZipWriter, crc32

REF = Ref("P", "S", "E")


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100_000):
        yield body[start : start + 100_000]


def item(key: str, body: bytes) -> Item:
    lane, _, path = key.partition("/files/")
    return Item(key, "file", lane, REF, path, len(body), md5(body))


def unit(*items: Item) -> Unit:
    return Unit("U", "session", REF, REF, items=items)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", ".", "..", "a/../b", "../a", "a//b", "/a", "a/", "a\0b"])
def test_a_place_that_is_none_below_the_root_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(LocalFault):
        path_below(tmp_path, place)


async def test_a_file_and_a_folder_of_one_name_are_both_written(tmp_path: Path) -> None:
    sink = LocalSink(tmp_path)
    both = {"r/files/a": b"the file", "r/files/a/b": b"below the folder"}
    whole = unit(*(item(key, body) for key, body in both.items()))

    prepared = sink.prepare(whole, await sink.inventory(whole))
    await sink.begin(prepared)
    for one in prepared.items:
        await sink.put(prepared, one, pieces(both[one.key]))
    await sink.seal(prepared, 2)

    assert prepared.mapped == {"r/files/a": "U/r/files/@~@~a"}
    found = {path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)}
    assert found == {"U/r/files/@~@~a", "U/r/files/a/b"}
    assert {key: stamp.digest for key, stamp in (await sink.inventory(whole)).items()} == {
        key: md5(body) for key, body in both.items()
    }


# --- keys ------------------------------------------------------------------------------------

LABELS = st.text(st.characters(codec="utf-8", exclude_characters="%"), min_size=1, max_size=8)
PLACES = st.one_of(
    st.just((None, None, None)),
    st.tuples(st.just("scans"), LABELS, st.just(None)),
    st.tuples(
        st.sampled_from(["assessors", "reconstructions"]), LABELS, st.sampled_from(["in", "out"])
    ),
)


@given(PLACES, LABELS, LABELS)
def test_a_key_says_where_a_file_hangs(place: Place, label: str, path: str) -> None:
    lane = container_key(place, label)

    assert parse_key(f"{lane}/files/{path}") == (lane, place, path)
    assert label_of(lane) == label


@given(PLACES, LABELS, PLACES, LABELS)
def test_two_resources_never_share_a_key(one: Place, label: str, other: Place, name: str) -> None:
    same = (one, label) == (other, name)

    assert (container_key(one, label) == container_key(other, name)) is same
    taken = {container_key(one, label)}
    assert free_key(taken, other, name) not in taken


@pytest.mark.parametrize("key", ["", "a", "resources/R", "resources/R/files/", "x/R/files/a"])
def test_what_is_no_key_of_a_file_is_none(key: str) -> None:
    assert parse_key(key) is None


def test_a_second_resource_of_one_label_has_a_key_of_its_own() -> None:
    def row(number: str, name: str) -> File:
        uri = f"/data/experiments/E/scans/3/resources/{number}/files/{name}"
        return File(name, 1, "d", uri, number, "DICOM")

    catalogue = Catalogue([row("7", "a"), row("8", "a"), row("7", "b")])

    assert set(catalogue.inventory()) == {
        "scans/3/resources/DICOM",
        "scans/3/resources/DICOM/files/a",
        "scans/3/resources/DICOM/files/b",
        "scans/3/resources/DICOM_2",
        "scans/3/resources/DICOM_2/files/a",
    }
    assert catalogue.ids["scans/3/resources/DICOM_2"] == "8"


# --- writing ---------------------------------------------------------------------------------


async def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    body = os.urandom(3_000_000)
    one = item("resources/R/files/a", body)
    seen: list[list[str]] = []

    async def watched() -> AsyncIterator[bytes]:
        async for chunk in pieces(body):
            folder = tmp_path / "U/resources/R/files"
            seen.append([path.name for path in folder.iterdir()])
            yield chunk

    await LocalSink(tmp_path).put(unit(one), one, watched())

    assert seen and all("a" not in names for names in seen)
    assert all(name.startswith(".xnatctl-") for names in seen for name in names)
    (path,) = (tmp_path / "U/resources/R/files").iterdir()
    assert (path.name, path.read_bytes()) == ("a", body)


async def test_no_part_file_stays_after_a_failure(tmp_path: Path) -> None:
    one = item("resources/R/files/a", b"x" * 5_000_000)

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000
        raise Unreachable("gone")

    with pytest.raises(Unreachable):
        await LocalSink(tmp_path).put(unit(one), one, broken())

    assert files_below(tmp_path) == []


async def test_every_folder_that_was_made_is_synced_when_its_unit_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def note(handle: int) -> None:
        synced.append(os.path.realpath(f"/proc/self/fd/{handle}"))
        real(handle)

    root = (tmp_path / "out").resolve()
    sink = LocalSink(root)
    one = item("resources/R/files/a/b", b"x")
    other = Unit("V", "session", REF, REF, items=(one,))
    await sink.put(unit(one), one, pieces(b"x"))
    await sink.put(other, one, pieces(b"x"))
    monkeypatch.setattr(os, "fsync", note)

    await sink.seal(unit(one), 2)

    inside = ["U", "U/resources", "U/resources/R", "U/resources/R/files", "U/resources/R/files/a"]
    assert set(synced) == {str(root), *(str(root / place) for place in inside)}


@pytest.mark.parametrize("place", ["U", "U/resources/R", "U/resources/R/files/a"])
async def test_what_stands_in_the_way_is_named(tmp_path: Path, place: str) -> None:
    one = item("resources/R/files/a", b"x")
    blocker = tmp_path / place
    blocker.parent.mkdir(parents=True, exist_ok=True)
    if place.endswith("/a"):
        (blocker / "folder").mkdir(parents=True)
    else:
        blocker.write_bytes(b"a file")

    with pytest.raises(LocalFault) as caught:
        sink = LocalSink(tmp_path)
        await sink.begin(unit(one))
        await sink.inventory(unit(one))
        await sink.put(unit(one), one, pieces(b"x"))
    assert str(tmp_path) in caught.value.message
    assert "move it away" in caught.value.hint


async def test_a_full_disk_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    one = item("resources/R/files/a", b"x")

    with pytest.raises(LocalFault) as caught:
        await LocalSink(tmp_path).put(unit(one), one, pieces(b"x"))

    assert "No space left" in caught.value.why
    assert "free some space" in caught.value.hint
    assert caught.value.message.startswith(f"{tmp_path}/U/resources/R/files/a ")
    assert files_below(tmp_path) == []


async def test_members_that_were_proven_before_a_failure_are_kept(tmp_path: Path) -> None:
    bodies = {f"{number:03}": bytes([number]) * 5000 for number in range(100)}
    members = tuple(
        Member(f"resources/R/files/{name}", name, len(body), md5(body))
        for name, body in bodies.items()
    )
    archive = Item("resources/R", "zip", "resources/R", REF, members=members)

    async def cut() -> AsyncIterator[bytes]:
        data = b"".join(archive_of(bodies.items()))
        async for chunk in pieces(data[: len(data) // 2]):
            yield chunk
        raise Unreachable("gone")

    class Flat(MemorySource):
        def member_path(self, item: Item, name: str) -> str:
            return name

    sink = LocalSink(tmp_path)
    events = proven_members(Flat({}), archive, cut(), lambda count: None)
    with pytest.raises(Unreachable):
        await sink.put_many(unit(archive), archive, events)

    found = sorted((tmp_path / "U/resources/R/files").iterdir())
    assert 40 < len(found) < 60
    assert all(path.read_bytes() == bodies[path.name] for path in found)


def archive_of(files: Iterable[tuple[str, bytes]]) -> Iterable[bytes]:
    writer = ZipWriter()
    for name, body in files:
        yield writer.start(name, crc=crc32(body), size=len(body))
        writer.note(len(body))
        yield body
        yield writer.end(crc32(body), len(body))
    yield writer.finish()


async def test_a_member_without_an_end_is_not_kept(tmp_path: Path) -> None:
    members = (Member("resources/R/files/a", "a", 5, ""),)
    archive = Item("resources/R", "zip", "resources/R", REF, members=members)

    async def events() -> AsyncIterator[ZipEvent]:
        yield MemberStart("a", 0, 0, None, None, None, False)
        raise Unreachable("gone")

    with pytest.raises(Unreachable):
        await LocalSink(tmp_path).put_many(unit(archive), archive, events())
    assert files_below(tmp_path) == []


async def test_what_a_dead_run_left_is_swept_away_and_what_another_one_writes_is_not(
    tmp_path: Path,
) -> None:
    one = item("resources/N/files/a", b"body")
    folder = tmp_path / "U/resources/N/files"
    folder.mkdir(parents=True)
    for name in (".xnatctl-00.part", ".xnatctl-11.part", "mine.part"):
        (folder / name).write_bytes(b"half")
    with (folder / ".xnatctl-11.part").open("rb") as another:
        hold(another.fileno())
        await LocalSink(tmp_path).begin(unit(one))

    assert sorted(path.name for path in folder.iterdir()) == [".xnatctl-11.part", "mine.part"]


# --- what is there ---------------------------------------------------------------------------


class Memory:
    """MD5s by path, size and time, and how often they were asked for and told."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int, int], str] = {}

    async def local_digests(self, files: Iterable[tuple[str, int, int]]) -> dict[str, str]:
        return {file[0]: self.rows[file] for file in files if file in self.rows}

    async def keep_local_digests(self, rows: Iterable[tuple[str, int, int, str]]) -> None:
        self.rows.update({row[:3]: row[3] for row in rows})


async def test_a_digest_is_read_again_only_when_size_or_time_have_changed(tmp_path: Path) -> None:
    memory = Memory()
    sink = LocalSink(tmp_path, digests=memory)
    one = item("resources/R/files/a", b"body")
    await sink.put(unit(one), one, pieces(b"body"))
    path = tmp_path / "U/resources/R/files/a"
    times = path.stat()

    path.write_bytes(b"BODY")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (await sink.inventory(unit(one)))[one.key].digest == md5(b"body")
    reread = LocalSink(tmp_path, digests=memory, reread=True)
    assert (await reread.inventory(unit(one)))[one.key].digest == md5(b"BODY")

    path.write_bytes(b"other")
    assert (await sink.inventory(unit(one)))[one.key].digest == md5(b"other")
