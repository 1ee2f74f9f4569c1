"""Writing archives as bytes: what other readers make of them, their length, and what is refused."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xnatctl import zipstream
from xnatctl.errors import Corrupt
from xnatctl.zipstream import (
    DEFLATED,
    MemberData,
    MemberEnd,
    MemberStart,
    ZipReader,
    ZipWriter,
    archive_length,
)

Members = dict[str, bytes]

SOME: Members = {
    "scans/1/DICOM/1.dcm": bytes(range(256)) * 40,
    "grüße/日本.txt": b"hello",
    "a b/+%#;[],&'": b"odd",
    "empty": b"",
}
NAMES = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda name: zipstream.why_unsafe(name) is None and not name.endswith("/")
)


def packed(body: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-15)
    return machine.compress(body) + machine.flush()


def write(members: Members, *, method: int = 0, known: bool = True) -> bytes:
    writer = ZipWriter()
    out = b""
    for name, body in members.items():
        raw = packed(body) if method else body
        facts = (zlib.crc32(body), len(body), len(raw))
        if known:
            crc, size, csize = facts
            out += writer.start(name, method=method, crc=crc, size=size, csize=csize)
        else:
            out += writer.start(name, method=method)
        out += raw
        writer.note(len(raw))
        out += writer.end(*facts)
    out += writer.finish()
    assert writer.offset == len(out)
    return out


def read_by_zipfile(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def read(data: bytes) -> Members:
    reader = ZipReader()
    found: Members = {}
    body = b""
    for event in reader.feed(data):
        match event:
            case MemberStart():
                body = b""
            case MemberData():
                body += event.plain
            case MemberEnd():
                found[event.name] = body
    reader.close()
    return found


@pytest.mark.parametrize(("method", "known"), [(0, True), (8, True), (8, False)])
def test_what_is_written_is_read_by_zipfile_and_by_our_reader(method: int, known: bool) -> None:
    data = write(SOME, method=method, known=known)
    assert read_by_zipfile(data) == SOME
    assert read(data) == SOME


@settings(max_examples=100, deadline=None)
@given(
    members=st.dictionaries(NAMES, st.binary(max_size=100), max_size=6),
    way=st.sampled_from([(0, True), (8, True), (8, False)]),
)
def test_any_members_survive_the_round_trip(members: Members, way: tuple[int, bool]) -> None:
    data = write(members, method=way[0], known=way[1])
    assert read(data) == members
    assert read_by_zipfile(data) == members


@pytest.mark.parametrize(("method", "known"), [(0, True), (8, True), (8, False)])
def test_what_is_written_passes_the_test_of_info_zip(
    method: int, known: bool, tmp_path: Path
) -> None:
    unzip = shutil.which("unzip")
    if unzip is None:
        pytest.skip("Info-ZIP's unzip is not installed")
    file = tmp_path / "made.zip"
    file.write_bytes(write(SOME, method=method, known=known))
    done = subprocess.run([unzip, "-tq", file], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_equal_members_give_equal_bytes() -> None:
    assert write(SOME) == write(SOME)


def test_members_are_plain_files_for_unix_tools() -> None:
    with zipfile.ZipFile(io.BytesIO(write(SOME))) as archive:
        assert {oct(info.external_attr >> 16) for info in archive.infolist()} == {"0o100644"}


@settings(max_examples=100, deadline=None)
@given(
    members=st.dictionaries(NAMES, st.binary(max_size=100), max_size=6),
    limit=st.sampled_from([20, 60, 300, 0xFFFFFFFF]),
)
def test_the_length_is_known_before_a_byte_is_written(members: Members, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipstream, "_MAX_32", limit)
        listed = [(name, len(body)) for name, body in members.items()]
        assert archive_length(listed) == len(write(members))


@pytest.mark.parametrize("size", [0xFFFFFFFE, 0xFFFFFFFF, 0x100000000, 60_000_000_000])
def test_sizes_and_offsets_beyond_four_gibibytes_are_written_wide(size: int) -> None:
    writer = ZipWriter()
    first = writer.start("huge", crc=1, size=size)
    writer.note(size)
    assert writer.end(1, size) == b""
    second = writer.start("after", crc=zlib.crc32(b"x"), size=1)
    writer.note(1)
    trailer = writer.end(zlib.crc32(b"x"), 1) + writer.finish()
    assert writer.offset == archive_length([("huge", size), ("after", 1)])

    sparse = Sparse([(0, first), (len(first) + size, second + b"x" + trailer)])
    with zipfile.ZipFile(sparse) as archive:
        assert [info.file_size for info in archive.infolist()] == [size, 1]
        assert archive.infolist()[1].header_offset == len(first) + size
        assert archive.read("after") == b"x"


class Sparse(io.RawIOBase):
    """A file of zeros with some pieces in it."""

    def __init__(self, pieces: list[tuple[int, bytes]]) -> None:
        self.pieces = pieces
        self.at = 0
        self.length = max(start + len(piece) for start, piece in pieces)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, self.length)[whence]
        return self.at

    def read(self, size: int = -1) -> bytes:
        size = min(self.length - self.at, size if size >= 0 else self.length)
        for start, piece in self.pieces:
            if start <= self.at < start + len(piece):
                found = piece[self.at - start :][:size]
                self.at += len(found)
                return found
        raise AssertionError(f"nobody should read the zeros at {self.at}")


def test_seventy_thousand_members_are_counted_in_the_wide_trailer() -> None:
    writer = ZipWriter()
    out = [writer.start(f"{n}", crc=0, size=0) + writer.end(0, 0) for n in range(70_000)]
    data = b"".join(out) + writer.finish()
    assert archive_length((f"{n}", 0) for n in range(70_000)) == len(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.infolist()) == 70_000
    reader = ZipReader()
    assert sum(isinstance(event, MemberEnd) for event in reader.feed(data)) == 70_000
    assert reader.close().members == 70_000


def test_a_stored_member_needs_its_size_and_crc_beforehand() -> None:
    for facts in ({}, {"crc": 1}, {"size": 1}):
        with pytest.raises(ValueError, match="needs its CRC and size beforehand"):
            ZipWriter().start("a", **facts)


def test_a_name_is_written_once() -> None:
    writer = ZipWriter()
    writer.start("a", crc=0, size=0)
    writer.end(0, 0)
    with pytest.raises(ValueError, match="'a' is twice"):
        writer.start("a", crc=0, size=0)


@pytest.mark.parametrize(
    "name", ["", "/a", "../a", "a/./b", "a//b", "./a", "a\\b", "C:a", "a\0", "a/", "\ud800"]
)
def test_a_name_that_readers_would_refuse_is_not_written(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        ZipWriter().start(name, crc=0, size=0)
    with pytest.raises(ValueError, match="name"):
        archive_length([(name, 0)])


def test_a_body_that_is_not_what_its_header_announced_is_corrupt() -> None:
    for crc, size in ((1, 4), (zlib.crc32(b"body"), 3)):
        writer = ZipWriter()
        writer.start("a", crc=zlib.crc32(b"body"), size=4)
        writer.note(size)
        with pytest.raises(Corrupt, match="'a' was sent otherwise"):
            writer.end(crc, size)


def test_bytes_that_were_read_and_not_sent_are_missed() -> None:
    writer = ZipWriter()
    writer.start("a", method=DEFLATED)
    writer.note(5)
    with pytest.raises(Corrupt, match="5 bytes were sent for 'a', and 6 were read"):
        writer.end(1, 20, 6)


def test_calls_out_of_turn_are_refused() -> None:
    writer = ZipWriter()
    with pytest.raises(ValueError, match="no member is open"):
        writer.end(0, 0)
    writer.start("a", crc=0, size=0)
    with pytest.raises(ValueError, match="'b' starts before 'a' has ended"):
        writer.start("b", crc=0, size=0)
    with pytest.raises(ValueError, match="'a' has not ended"):
        writer.finish()


def test_members_are_renamed_on_the_way_through_without_unpacking() -> None:
    """What a relay does: the bodies go from reader to writer as they stand in the archive."""
    for known in (True, False):
        source = write(SOME, method=8, known=known)
        reader, writer = ZipReader(), ZipWriter()
        out = b""
        for event in reader.feed(source):
            match event:
                case MemberStart(name, method, _, crc, size, csize):
                    new = f"moved/{name}"
                    out += writer.start(new, method=method, crc=crc, size=size, csize=csize)
                case MemberData(raw):
                    out += raw
                    writer.note(len(raw))
                case MemberEnd(_, crc, size, csize):
                    out += writer.end(crc, size, csize)
        out += writer.finish()
        reader.close()
        assert read_by_zipfile(out) == {f"moved/{name}": body for name, body in SOME.items()}
