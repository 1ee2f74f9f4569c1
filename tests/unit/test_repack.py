"""A zip written out of another one while both are on their way."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatctl.endpoints.repack import as_zip
from xnatctl.zipstream import Event, ZipReader

NAMES = st.text("abü/", min_size=1, max_size=6).filter(
    lambda name: not name.startswith("/") and not name.endswith("/") and "//" not in name
)


class Unseekable(io.RawIOBase):
    """Where a writer of zips cannot go back, it puts sizes behind the bodies."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]
        self.data += part
        return len(part)


def packed(files: dict[str, bytes], method: int, *, streamed: bool) -> bytes:
    made = Unseekable() if streamed else io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as writer:
        for name, body in files.items():
            writer.writestr(name, body)
    return made.data if isinstance(made, Unseekable) else made.getvalue()


async def events_of(archive: bytes, size: int) -> AsyncIterator[Event]:
    reader = ZipReader()
    for start in range(0, len(archive), size):
        for event in reader.feed(archive[start : start + size]):
            yield event
    reader.close()


async def repacked(archive: bytes, size: int = 700) -> bytes:
    return b"".join([chunk async for chunk in as_zip(events_of(archive, size))])


FILES = {"a.txt": b"first", "sub/b.bin": bytes(range(256)) * 500, "empty": b"", "ü.txt": b"x"}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
async def test_every_member_comes_out_as_it_went_in(method: int, streamed: bool) -> None:
    out = await repacked(packed(FILES, method, streamed=streamed))

    with zipfile.ZipFile(io.BytesIO(out)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == FILES


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
async def test_no_stored_member_has_its_sizes_behind_its_body(method: int, streamed: bool) -> None:
    # Java's forward-only reader cannot find the end of such a member.
    out = await repacked(packed(FILES, method, streamed=streamed))

    with zipfile.ZipFile(io.BytesIO(out)) as archive:
        for one in archive.infolist():
            assert not (one.compress_type == zipfile.ZIP_STORED and one.flag_bits & 0x08)


async def test_compressed_bytes_pass_as_they_are() -> None:
    body = b"compress me " * 20_000
    source = packed({"a": body}, zipfile.ZIP_DEFLATED, streamed=False)

    out = await repacked(source)

    assert len(out) < len(body) / 20
    with zipfile.ZipFile(io.BytesIO(source)) as one, zipfile.ZipFile(io.BytesIO(out)) as other:
        assert one.getinfo("a").compress_size == other.getinfo("a").compress_size


async def test_equal_members_give_equal_bytes() -> None:
    source = packed(FILES, zipfile.ZIP_STORED, streamed=False)

    assert await repacked(source, 100) == await repacked(source, 100_000)


@given(
    st.dictionaries(NAMES, st.binary(max_size=300), max_size=5),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    st.booleans(),
    st.integers(1, 400),
)
async def test_any_archive_survives_in_pieces_of_any_size(
    files: dict[str, bytes], method: int, streamed: bool, size: int
) -> None:
    out = await repacked(packed(files, method, streamed=streamed), size)

    with zipfile.ZipFile(io.BytesIO(out)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
