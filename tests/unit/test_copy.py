"""One item, one attempt: what is proven before a sink may take it for whole."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatctl.engine.copy import copy_item, proven, proven_members
from xnatctl.engine.memory import MemorySink, MemorySource, md5
from xnatctl.engine.ports import Chunks
from xnatctl.engine.types import Item, Member, Selection, Unit
from xnatctl.errors import Corrupt, Unreachable, XnatctlError
from xnatctl.model import Ref
from xnatctl.zipstream import MemberData, MemberEnd, MemberStart

REF = Ref("P", "S", "E", resource="R")
BODY = bytes(range(256)) * 40


def file(size: int | None = len(BODY), digest: str = md5(BODY)) -> Item:
    return Item("R/files/a", "file", "R", REF, path="a", size=size, digest=digest)


async def pieces(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def cut(body: bytes, size: int = 1000) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


async def released(item: Item, chunks: Chunks) -> tuple[bytes, XnatctlError | None]:
    """What a sink was given, and what was raised instead of the rest."""
    got = b""
    try:
        async for chunk in proven(item, chunks, lambda count: None):
            got += chunk
    except XnatctlError as error:
        return got, error
    return got, None


# --- files -----------------------------------------------------------------------------------


async def test_a_body_as_it_was_listed_goes_through() -> None:
    assert await released(file(), pieces(cut(BODY))) == (BODY, None)


async def test_the_bytes_that_came_are_told() -> None:
    told: list[int] = []
    async for _ in proven(file(), pieces(cut(BODY)), told.append):
        pass

    assert sum(told) == len(BODY)


@pytest.mark.parametrize("lost", [1, 999, 1000, 1001, len(BODY)])
async def test_a_body_that_is_short_is_never_given_whole(lost: int) -> None:
    got, error = await released(file(), pieces(cut(BODY[: len(BODY) - lost])))

    assert isinstance(error, Corrupt)
    assert len(got) < len(BODY)


async def test_a_body_that_is_long_is_never_given_whole() -> None:
    got, error = await released(file(), pieces([*cut(BODY), b"more"]))

    assert isinstance(error, Corrupt)
    assert len(got) < len(BODY)


@pytest.mark.parametrize("position", [0, 5000, len(BODY) - 1])
async def test_a_flipped_bit_is_found_before_the_last_piece_is_given(position: int) -> None:
    spoiled = bytearray(BODY)
    spoiled[position] ^= 1

    got, error = await released(file(), pieces(cut(bytes(spoiled))))

    assert isinstance(error, Corrupt)
    assert "MD5" in error.why
    assert len(got) == len(BODY) - len(cut(BODY)[-1])


async def test_a_body_in_one_piece_is_proven_before_it_is_given() -> None:
    got, error = await released(file(), pieces([BODY[:-1] + b"!"]))

    assert isinstance(error, Corrupt)
    assert got == b""


async def test_empty_pieces_do_not_let_the_last_one_go_unproven() -> None:
    spoiled = BODY[:-1] + b"!"

    got, error = await released(file(), pieces([spoiled, b"", b""]))

    assert isinstance(error, Corrupt)
    assert got == b""


async def test_without_a_digest_the_size_still_counts() -> None:
    item = file(digest="")

    assert await released(item, pieces(cut(BODY))) == (BODY, None)
    got, error = await released(item, pieces(cut(BODY[:-1])))
    assert isinstance(error, Corrupt)
    assert len(got) < len(BODY) - 1


async def test_without_a_size_the_digest_still_counts() -> None:
    item = file(size=None)

    assert await released(item, pieces(cut(BODY))) == (BODY, None)
    assert isinstance((await released(item, pieces(cut(BODY[:-1]))))[1], Corrupt)


async def test_an_empty_file_is_proven_like_any_other() -> None:
    assert await released(file(0, md5(b"")), pieces([])) == (b"", None)
    assert isinstance((await released(file(), pieces([])))[1], Corrupt)


async def test_what_breaks_off_raises_its_own_error_and_keeps_the_last_piece() -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield BODY[:1000]
        yield BODY[1000:2000]
        raise Unreachable("the source broke off")

    got, error = await released(file(), breaking())

    assert isinstance(error, Unreachable)
    assert got == BODY[:1000]


@given(st.lists(st.binary(max_size=20), max_size=8), st.lists(st.binary(max_size=20), max_size=8))
async def test_whatever_comes_only_the_listed_body_is_given_whole(
    listed: list[bytes], came: list[bytes]
) -> None:
    body = b"".join(listed)
    got, error = await released(file(len(body), md5(body)), pieces(came))

    if b"".join(came) == body:
        assert (got, error) == (body, None)
    else:
        assert isinstance(error, Corrupt)
        assert len(got) < len(body) or not body


# --- archives --------------------------------------------------------------------------------


class Flat(MemorySource):
    """Names in its archives are paths in the resource."""

    def member_path(self, item: Item, name: str) -> str:
        return name


FILES = {"a.bin": b"a" * 3000, "sub/b.bin": bytes(range(256)) * 9, "empty": b"", "c.bin": b"c"}


def archive(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as writer:
        for name, body in files.items():
            writer.writestr(name, body)
    return made.getvalue()


def zip_item(files: dict[str, bytes]) -> Item:
    members = tuple(
        Member(f"R/files/{name}", name, len(body), md5(body)) for name, body in files.items()
    )
    return Item("R", "zip", "R", REF, members=members)


async def unpacked(
    item: Item, chunks: Chunks
) -> tuple[dict[str, bytes], dict[str, bytes], XnatctlError | None]:
    """Members that ended, what was given of others, and what was raised."""
    done: dict[str, bytes] = {}
    name, parts = "", b""
    try:
        async for event in proven_members(Flat({}), item, chunks, lambda count: None):
            if isinstance(event, MemberStart):
                name, parts = event.name, b""
            elif isinstance(event, MemberData):
                parts += bytes(event.plain)
            elif isinstance(event, MemberEnd):
                assert event.name == name
                done[name], name = parts, ""
    except XnatctlError as error:
        return done, {name: parts} if name else {}, error
    return done, {}, None


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [1, 100, 100_000])
async def test_the_members_that_were_listed_go_through(method: int, size: int) -> None:
    done, _, error = await unpacked(zip_item(FILES), pieces(cut(archive(FILES, method), size)))

    assert error is None
    assert done == FILES


async def test_members_that_were_not_asked_for_are_left_out() -> None:
    wanted = {name: FILES[name] for name in ("a.bin", "c.bin")}

    assert (await unpacked(zip_item(wanted), pieces([archive(FILES)])))[0] == wanted


async def test_a_missing_member_is_named() -> None:
    short = {name: body for name, body in FILES.items() if name != "sub/b.bin"}

    done, _, error = await unpacked(zip_item(FILES), pieces([archive(short)]))

    assert isinstance(error, Corrupt)
    assert "sub/b.bin" in str(error)
    assert "1 of 4" in str(error)
    assert done == short


async def test_an_archive_that_stops_politely_between_two_members_is_cut() -> None:
    whole = archive(FILES)
    second = whole.index(b"PK\x03\x04", 10)

    done, _, error = await unpacked(zip_item(FILES), pieces([whole[:second]]))

    assert isinstance(error, XnatctlError)
    assert done == {"a.bin": FILES["a.bin"]}


async def test_an_archive_without_its_end_is_cut_even_when_all_members_came() -> None:
    whole = archive(FILES)

    done, _, error = await unpacked(zip_item(FILES), pieces([whole[:-22]]))

    assert done == FILES
    assert isinstance(error, XnatctlError)


@pytest.mark.parametrize("size", [500, 100_000])
async def test_a_member_that_is_not_what_was_listed_is_never_given_whole(size: int) -> None:
    changed = {**FILES, "a.bin": b"A" * 3000}

    done, begun, error = await unpacked(zip_item(FILES), pieces(cut(archive(changed), size)))

    assert isinstance(error, Corrupt)
    assert "a.bin" in error.message
    assert "a.bin" not in done
    assert len(begun["a.bin"]) < 3000


@pytest.mark.parametrize("size", [500, 100_000])
async def test_a_member_of_another_size_is_never_given_whole(size: int) -> None:
    changed = {**FILES, "a.bin": b"a" * 2999}

    done, begun, error = await unpacked(zip_item(FILES), pieces(cut(archive(changed), size)))

    assert isinstance(error, Corrupt)
    assert "a.bin" not in done
    assert len(begun["a.bin"]) < 2999


async def test_a_flipped_bit_in_a_member_is_found_by_its_crc() -> None:
    body = bytearray(archive(FILES))
    body[body.index(b"a" * 3000) + 2999] ^= 1
    unlisted = Item("R", "zip", "R", REF, members=(Member("R/files/a.bin", "a.bin", 3000, ""),))

    done, begun, error = await unpacked(unlisted, pieces(cut(bytes(body), 500)))

    assert isinstance(error, Corrupt)
    assert done == {}
    assert len(begun["a.bin"]) < 3000


async def test_what_is_no_archive_is_refused() -> None:
    page = b"<html><body>login</body></html>"

    assert isinstance((await unpacked(zip_item(FILES), pieces([page])))[2], Corrupt)
    assert isinstance((await unpacked(zip_item(FILES), pieces([])))[2], Corrupt)


@given(st.data())
async def test_whatever_is_cut_or_flipped_no_wrong_member_is_given_whole(
    data: st.DataObject,
) -> None:
    body = bytearray(archive(FILES))
    if data.draw(st.booleans()):
        body = body[: data.draw(st.integers(0, len(body) - 1))]
    elif body:
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    size = data.draw(st.integers(1, 4000))

    done, _, _ = await unpacked(zip_item(FILES), pieces(cut(bytes(body), size)))

    assert all(FILES[name] == found for name, found in done.items())


# --- the whole attempt -----------------------------------------------------------------------


async def test_an_item_is_carried_from_source_to_sink() -> None:
    source = MemorySource({"u/R/a": BODY, "u/R/b": b"b", "u/Q/c": b"c"})
    sink = MemorySink()
    (light,) = [unit async for unit in source.units(Selection(Ref("u")))]
    unit = await source.describe(light)
    told: list[int] = []

    for item in unit.items:
        await copy_item(source, sink, unit, item, told.append)

    assert sink.files == {"u/R/files/a": BODY, "u/R/files/b": b"b", "u/Q/files/c": b"c"}
    assert sum(told) == len(BODY) + 2


async def test_a_document_goes_through_as_it_is() -> None:
    class Documents(MemorySource):
        @asynccontextmanager
        async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
            yield pieces([item.body])

    item = Item("d.xml", "document", "d.xml", REF, body=b"<xml/>", size=99, digest="other")
    sink = MemorySink()

    await copy_item(Documents({}), sink, Unit("u", "session", REF, REF), item, lambda count: None)

    assert sink.files == {"u/d.xml": b"<xml/>"}


async def test_the_source_is_closed_when_the_sink_fails() -> None:
    closed = []

    class Watched(MemorySource):
        @asynccontextmanager
        async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
            try:
                yield pieces(cut(BODY))
            finally:
                closed.append(item.key)

    class Full(MemorySink):
        async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
            async for _ in chunks:
                raise Unreachable("the sink broke off")

    with pytest.raises(Unreachable):
        await copy_item(
            Watched({}), Full(), Unit("u", "session", REF, REF), file(), lambda count: None
        )
    assert closed == ["R/files/a"]
