"""Reading archives as bytes: every dialect, every cut, every flipped byte, every trick."""

from __future__ import annotations

import hashlib
import io
import itertools
import random
import stat
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xnatctl import zipstream
from xnatctl.errors import Corrupt
from xnatctl.zipstream import (
    End,
    Limits,
    MemberData,
    MemberEnd,
    MemberStart,
    ZipReader,
    ZipWriter,
    crc32,
    why_unsafe,
)

Members = dict[str, bytes]

NOISE = random.Random(1).randbytes(3000)
SMALL: Members = {
    "S/scans/1-T1/resources/DICOM/files/1.dcm": NOISE[:37],
    "S/scans/1-T1/resources/DICOM/files/grüße.txt": b"hello hello hello hello",
    "S/empty": b"",
}


class Unseekable(io.RawIOBase):
    """A pipe: `zipfile` then writes sizes behind the bodies."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += data
        return len(data)


def by_zipfile(
    members: Members, *, method: int = 0, piped: bool = False, zip64: bool = False
) -> bytes:
    pipe = Unseekable()
    file = cast(IO[bytes], pipe) if piped else io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, body in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(body)
    return bytes(pipe.data) if piped else cast(io.BytesIO, file).getvalue()


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(pieces: Iterable[bytes], **options: Any) -> Members:
    """The members, after checking what every event claims."""
    reader = ZipReader(digest=True, **options)
    found: Members = {}
    start: MemberStart | None = None
    raw = plain = b""
    for piece in pieces:
        for event in reader.feed(piece):
            match event:
                case MemberStart():
                    assert start is None
                    start, raw, plain = event, b"", b""
                case MemberData():
                    assert start is not None
                    raw += event.raw
                    plain += event.plain
                case MemberEnd():
                    assert start is not None and start.name == event.name
                    unpacked = zlib.decompress(raw, -15) if start.method == 8 else raw
                    assert unpacked == plain
                    assert (len(plain), len(raw)) == (event.size, event.csize)
                    assert event.crc == zlib.crc32(plain)
                    assert event.md5 == hashlib.md5(plain).hexdigest()
                    found[event.name] = plain
                    start = None
    assert reader.close() == End(len(found), sum(map(len, found.values())))
    return found


@pytest.fixture(params=["isal", "zlib"])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both decoders: they differ in how far they read ahead."""
    if request.param == "isal":
        pytest.importorskip("isal")
    else:
        monkeypatch.setattr(zipstream, "_codec", zlib)
        monkeypatch.setattr(zipstream, "crc32", zlib.crc32)


@pytest.mark.usefixtures("codec")
@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("size", [1, 7, 31, 1000, 10**6])
def test_an_archive_of_zipfile_is_read_in_chunks_of_any_size(
    method: int, piped: bool, zip64: bool, size: int
) -> None:
    members = SMALL | {"S/noise": NOISE, "S/zeros": bytes(5000)}
    data = by_zipfile(members, method=method, piped=piped, zip64=zip64)
    assert read(chunks(data, size)) == members


@pytest.mark.usefixtures("codec")
@settings(max_examples=150, deadline=None)
@given(
    bodies=st.lists(st.binary(max_size=400), max_size=5),
    method=st.sampled_from([0, 8]),
    piped=st.booleans(),
    zip64=st.booleans(),
    cuts=st.lists(st.integers(0, 3000)),
)
def test_how_an_archive_is_cut_into_chunks_does_not_matter(
    bodies: list[bytes], method: int, piped: bool, zip64: bool, cuts: list[int]
) -> None:
    members = {f"m{number}": body for number, body in enumerate(bodies)}
    data = by_zipfile(members, method=method, piped=piped, zip64=zip64)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert read(data[a:b] for a, b in itertools.pairwise(edges)) == members


@pytest.mark.parametrize("flags", ["-0", "-6", "-0 -fd", "-9 -fd"])
def test_an_archive_of_info_zip_is_read(flags: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "noise").write_bytes(NOISE)
    (tmp_path / "zeros").write_bytes(bytes(9000))
    try:
        command = ["zip", "-q", "-r", *flags.split(), "-", "."]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("Info-ZIP's zip is not installed")
    assert read(chunks(done.stdout, 100)) == {"sub/noise": NOISE, "zeros": bytes(9000)}


def test_an_archive_without_members_is_whole() -> None:
    assert read([by_zipfile({})]) == {}


def test_a_comment_is_part_of_the_archive() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"1")
        archive.comment = b"made by hand"
    assert read(chunks(file.getvalue(), 3)) == {"a": b"1"}
    with pytest.raises(Corrupt, match="stops after"):
        read([file.getvalue()[:-1]])


def test_a_chunk_may_be_a_view_or_a_bytearray() -> None:
    data = by_zipfile(SMALL)
    for piece in (memoryview(data), bytearray(data)):
        reader = ZipReader()
        ends = [event.name for event in reader.feed(piece) if isinstance(event, MemberEnd)]
        assert ends == list(SMALL)
        assert reader.close().members == 3


def test_stored_bodies_are_passed_on_without_a_copy() -> None:
    data = by_zipfile({"a": NOISE})
    events = [event for event in ZipReader().feed(data) if isinstance(event, MemberData)]
    assert [event.raw is event.plain for event in events] == [True]
    assert isinstance(events[0].raw, memoryview) and events[0].raw.obj is data


def test_a_small_chunk_that_inflates_to_megabytes_comes_in_small_pieces() -> None:
    data = by_zipfile({"zeros": bytes(20_000_000)}, method=8)
    sizes = [len(e.plain) for e in ZipReader().feed(data) if isinstance(e, MemberData)]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= 256 * 1024


def test_digests_are_made_only_when_asked_for() -> None:
    ends = [e for e in ZipReader().feed(by_zipfile(SMALL)) if isinstance(e, MemberEnd)]
    assert [end.md5 for end in ends] == [None, None, None]


def test_an_archive_inside_a_stored_member_of_unknown_length_does_not_end_it() -> None:
    inner = by_zipfile({"inner": NOISE, "empty": b""}, piped=True)
    members = {"archive.zip": inner, "after": b"x", "again.zip": inner + inner}
    data = by_zipfile(members, piped=True)
    for size in (1, 50, 10**6):
        assert read(chunks(data, size)) == members


# --- archives made field by field ---------------------------------------------------------------


def member(name: bytes, body: bytes, **fields: Any) -> dict[str, Any]:
    """The fields of a stored member; `fields` replaces any, those named `c_…` in the directory."""
    base = {
        "name": name,
        "body": body,
        "flags": 0,
        "method": 0,
        "crc": zlib.crc32(body),
        "csize": len(body),
        "size": len(body),
        "after": b"",
        "attributes": 0,
    }
    return base | fields


def build(*members: dict[str, Any], entries: int | None = None, tail: bytes = b"") -> bytes:
    out = directory = b""
    for fields in members:
        listed = fields | {key[2:]: value for key, value in fields.items() if key[:2] == "c_"}
        name = listed["name"]
        directory += struct.pack(
            "<4s6H3I5H2I",
            b"PK\x01\x02",
            0x031E,
            20,
            listed["flags"],
            listed["method"],
            0,
            33,
            listed["crc"],
            listed["csize"],
            listed["size"],
            len(name),
            0,
            0,
            0,
            0,
            listed["attributes"],
            listed.get("offset", len(out)),
        )
        directory += name
        name, later = fields["name"], fields["flags"] & 8
        out += struct.pack(
            "<4s5H3I2H",
            b"PK\x03\x04",
            20,
            fields["flags"],
            fields["method"],
            0,
            33,
            0 if later else fields["crc"],
            0 if later else fields["csize"],
            0 if later else fields["size"],
            len(name),
            0,
        )
        out += name + fields["body"] + fields["after"]
    count = len(members) if entries is None else entries
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(out), 0)
    return out + directory + end + tail


def packed(body: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-15)
    return machine.compress(body) + machine.flush()


@pytest.mark.usefixtures("codec")
@pytest.mark.parametrize("signature", [b"", b"PK\x07\x08"])
@pytest.mark.parametrize("form", ["<3I", "<I2Q"])
@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("body", [b"", b"\0", NOISE, b"PK\x07\x08PK\x03\x04PK\x01\x02" * 9])
def test_each_form_of_descriptor_is_understood(
    body: bytes, method: int, form: str, signature: bytes
) -> None:
    raw = packed(body) if method else body
    after = signature + struct.pack(form, zlib.crc32(body), len(raw), len(body))
    shared = {"flags": 8, "method": method, "after": after, "csize": len(raw)}
    one = member(b"one", raw, **shared, crc=zlib.crc32(body), size=len(body))
    data = build(one, one | {"name": b"two"}, member(b"three", b"3"))
    for size in (1, 30, 10**6):
        assert read(chunks(data, size)) == {"one": body, "two": body, "three": b"3"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"/etc/passwd", "absolute"),
        (b"../up", "out of its folder"),
        (b"a/../../up", "out of its folder"),
        (b"a/..", "out of its folder"),
        (b"..\\up", "backslash"),
        (b"a\\b", "backslash"),
        (b"C:evil", "drive letter"),
        (b"c:/evil", "drive letter"),
        (b"a\0b", "NUL"),
        (b"", "empty"),
        (b"/", "absolute"),
        (b"//etc/./passwd", "absolute"),
        (b".", "empty"),
        (b"./", "empty"),
        (b"n" * 5000, "5000 bytes"),
    ],
)
def test_a_name_that_could_do_harm_is_refused(name: bytes, reason: str) -> None:
    with pytest.raises(Corrupt, match=reason):
        read([build(member(name, b"x"))])


@pytest.mark.parametrize(
    "name",
    ["a", "a..b/..c/d..", "ab:c", "a/b:c", "...", "dir/.hidden", "a b/+%#;[],&'.dcm", "é" * 2048],
)
def test_a_name_that_only_looks_odd_is_read(name: str) -> None:
    assert why_unsafe(name) is None
    assert read([build(member(name.encode(), b"x", flags=0x800))]) == {name: b"x"}


def test_empty_parts_and_dots_are_dropped_from_names() -> None:
    data = build(member(b"./a//b", b"1"), member(b"c/./d", b"2"))
    assert read([data]) == {"a/b": b"1", "c/d": b"2"}


@pytest.mark.parametrize("twin", [b"a/b", b"a//b", b"./a/b"])
def test_a_name_that_comes_twice_is_refused(twin: bytes) -> None:
    with pytest.raises(Corrupt, match="'a/b' is twice"):
        read([build(member(b"a/b", b"1"), member(twin, b"2"))])


def test_case_twins_are_two_members() -> None:
    assert read([build(member(b"A", b"1"), member(b"a", b"2"))]) == {"A": b"1", "a": b"2"}


def test_a_name_that_is_not_marked_as_utf_8_is_read_as_cp437_and_flagged() -> None:
    data = build(member(b"gr\x81n", b"1"), member("grün".encode(), b"2"), member(b"plain", b"3"))
    starts = [event for event in ZipReader().feed(data) if isinstance(event, MemberStart)]
    assert [(start.name, start.cp437) for start in starts] == [
        ("grün", True),
        ("gr├╝n", True),
        ("plain", False),
    ]
    assert starts[1].name.encode("cp437").decode() == "grün"


def test_a_name_that_is_marked_as_utf_8_and_is_not_is_refused() -> None:
    with pytest.raises(Corrupt, match="marked as UTF-8"):
        read([build(member(b"gr\x81n", b"1", flags=0x800))])


@pytest.mark.parametrize("body", [b"", packed(b"")])
def test_folders_give_no_events(body: bytes) -> None:
    folder = member(b"dir/", body, method=8 if body else 0, size=0, crc=0)
    data = build(folder | {"attributes": stat.S_IFDIR << 16}, member(b"dir/a", b"1"))
    assert read([data]) == {"dir/a": b"1"}


@pytest.mark.parametrize("flags", [0, 8])
@pytest.mark.parametrize("method", [0, 8])
def test_a_folder_that_holds_data_is_refused(method: int, flags: int) -> None:
    raw = packed(b"data") if method else b"data"
    after = b"PK\x07\x08" + struct.pack("<3I", zlib.crc32(b"data"), len(raw), 4) if flags else b""
    fields = {"crc": zlib.crc32(b"data"), "size": 4, "after": after}
    with pytest.raises(Corrupt, match="folder and holds data"):
        read([build(member(b"dir/", raw, method=method, flags=flags, **fields))])


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_a_link_or_a_device_is_refused(kind: int) -> None:
    with pytest.raises(Corrupt, match="link or a device"):
        read([build(member(b"a", b"/etc/passwd", attributes=(kind | 0o777) << 16))])


@pytest.mark.parametrize("bit", [0x1, 0x20, 0x40, 0x2000])
def test_an_encrypted_member_is_refused(bit: int) -> None:
    with pytest.raises(Corrupt, match="encrypted"):
        read([build(member(b"a", b"1", flags=bit))])


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(Corrupt, match="method 12"):
        read([by_zipfile({"a": NOISE}, method=zipfile.ZIP_BZIP2)])


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("method", [0, 8])
def test_more_bytes_than_allowed_are_refused_before_they_come_out(method: int, piped: bool) -> None:
    data = by_zipfile({"a": bytes(5000), "b": bytes(5000)}, method=method, piped=piped)
    assert read([data], limits=Limits(total=10_000))
    reader = ZipReader(limits=Limits(total=9_999))
    out = 0
    with pytest.raises(Corrupt, match="more than 9999 bytes"):
        for event in reader.feed(data):
            out += len(event.plain) if isinstance(event, MemberData) else 0
    assert out == 5000


@pytest.mark.parametrize("piped", [False, True])
def test_a_bomb_is_refused_by_its_ratio(piped: bool) -> None:
    data = by_zipfile({"a": bytes(3_000_000)}, method=8, piped=piped)
    assert read([data], limits=Limits(ratio=1100, free=1000))
    assert read([data], limits=Limits(ratio=10, free=3_000_000))
    with pytest.raises(Corrupt, match="100 times its packed size"):
        read([data], limits=Limits(ratio=100, free=1000))


def test_too_many_members_are_refused() -> None:
    data = by_zipfile(SMALL)
    assert read([data], limits=Limits(members=3)) == SMALL
    with pytest.raises(Corrupt, match="more than 2 members"):
        read([data], limits=Limits(members=2))


GOOD = member(b"a", b"body")
OTHER = member(b"b", b"more")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<!DOCTYPE html><title>Login</title>", "not a zip archive: it begins with b'<!DO'"),
        (b"x" + build(GOOD), "not a zip archive"),
        (build(GOOD, tail=b"\n"), "bytes follow"),
        (build(GOOD) + build(GOOD), "bytes follow"),
        (build(GOOD, entries=2), "end record"),
        (build(GOOD, member(b"b", b"", c_name=b"c")), "'c' is in the central directory and not"),
        (build(GOOD | {"c_crc": 1}), "'a' was read otherwise"),
        (build(GOOD | {"c_size": 5}), "'a' was read otherwise"),
        (build(GOOD | {"c_csize": 5}), "'a' was read otherwise"),
        (build(GOOD | {"c_method": 8}), "'a' was read otherwise"),
        (build(GOOD | {"c_offset": 1}), "'a' was read otherwise"),
        (build(GOOD | {"crc": 1}), "'a' is damaged"),
        (build(GOOD | {"size": 5}), "gives two sizes"),
        (build(GOOD | {"csize": 9, "size": 9}), "'a' is damaged"),
        (build(GOOD | {"csize": 0xFFFFFFFF}), "zip64 sizes of 'a' are missing"),
        (build(member(b"a", b"\xff\xff\xff", method=8)), "packed data of 'a' is damaged"),
        (build(member(b"a", packed(b"x")[:-1], method=8, size=1)), "'a' has no end"),
        (build(member(b"a", packed(b"x") + b"y", method=8, size=1)), "ends before its 4 bytes"),
        (build(member(b"a", packed(b"xyz"), method=8, size=2)), "more than its 2 bytes"),
        (build(GOOD | {"flags": 8, "after": b"PK\x07\x08" + bytes(12)}), "stops after"),
        (
            build(member(b"a", packed(b"x"), method=8, flags=8, after=b"PK\x07\x08" + bytes(12))),
            "not what follows its body",
        ),
        (build(GOOD).replace(b"PK\x05\x06", b"PK\x05\x05"), "unknown record"),
        (build(GOOD, OTHER).replace(b"PK\x01\x02", b"PK\x05\x05", 1), "not in its central"),
    ],
)
def test_a_damaged_or_forged_archive_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Corrupt, match=reason):
        read([data])


def test_a_member_that_was_cut_out_of_the_directory_is_missed() -> None:
    both, one = build(GOOD, OTHER), build(GOOD)
    members = both[: both.index(b"PK\x01\x02")]
    entry = one[one.index(b"PK\x01\x02") : one.index(b"PK\x05\x06")]
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(members), 0)
    with pytest.raises(Corrupt, match="'b' is in the archive and not in its central directory"):
        read([members + entry + end])


def with_wide_trailer() -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)
        return by_zipfile(SMALL)


@pytest.mark.parametrize(
    ("record", "at", "reason"),
    [
        (b"PK\x06\x06", 4, "zip64 end"),  # its own length
        (b"PK\x06\x06", 11, "zip64 end record"),
        (b"PK\x06\x06", 16, "zip64 end record"),  # disks
        (b"PK\x06\x06", 24, "zip64 end record"),  # entries
        (b"PK\x06\x06", 32, "zip64 end record"),
        (b"PK\x06\x06", 40, "zip64 end record"),  # size and place of the directory
        (b"PK\x06\x06", 48, "zip64 end record"),
        (b"PK\x06\x07", 4, "zip64 end locator"),
        (b"PK\x06\x07", 8, "zip64 end locator"),
        (b"PK\x06\x07", 16, "zip64 end locator"),
        (b"PK\x05\x06", 4, "one part of several"),
        (b"PK\x05\x06", 6, "one part of several"),
        (b"PK\x05\x06", 8, "end record of the archive"),
        (b"PK\x05\x06", 10, "end record of the archive"),
        (b"PK\x05\x06", 12, "end record of the archive"),
        (b"PK\x05\x06", 16, "end record of the archive"),
    ],
)
def test_each_figure_of_the_trailer_is_checked(record: bytes, at: int, reason: str) -> None:
    data = bytearray(with_wide_trailer())
    assert read([bytes(data)]) == SMALL
    data[data.index(record) + at] ^= 1
    with pytest.raises(Corrupt, match=f"{reason}|stops after"):
        read([bytes(data)])


def test_a_reader_that_has_failed_stays_broken() -> None:
    reader = ZipReader()
    for attempt in range(3):
        with pytest.raises(Corrupt, match="not a zip archive"):
            list(reader.feed(b"nonsense" if attempt == 0 else by_zipfile(SMALL)))
    with pytest.raises(Corrupt, match="not a zip archive"):
        reader.close()


DIALECTS = [
    by_zipfile(SMALL, method=method, piped=piped, zip64=zip64)
    for method in (0, 8)
    for piped in (False, True)
    for zip64 in (False, True)
] + [with_wide_trailer()]


@pytest.mark.parametrize("data", DIALECTS)
def test_an_archive_that_is_cut_anywhere_is_never_taken_for_whole(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(Corrupt, match=f"stops after {length} bytes"):
            read([data[:length]])


def test_a_cut_archive_says_where_it_stops() -> None:
    reader = ZipReader()
    list(reader.feed(by_zipfile({"a/b": NOISE})[:500]))
    with pytest.raises(Corrupt, match=r"^the archive stops after 500 bytes, inside 'a/b'$"):
        reader.close()


@pytest.mark.parametrize("data", DIALECTS)
def test_a_flipped_bit_is_found_or_does_no_harm(data: bytes) -> None:
    found = 0
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            try:
                assert read([bytes(damaged)]) == SMALL
            except Corrupt:
                found += 1
    assert found > 4 * len(data)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=60))
def test_arbitrary_bytes_give_corrupt_and_nothing_else(noise: bytes, more: bytes) -> None:
    for start in (b"", b"PK\x03\x04", b"PK\x05\x06"):
        with pytest.raises(Corrupt):
            read([start + noise + b"!", more])


@settings(max_examples=400, deadline=None)
@given(
    data=st.sampled_from(DIALECTS),
    at=st.integers(0, 700),
    drop=st.integers(0, 50),
    put=st.binary(max_size=50),
)
def test_a_patched_archive_gives_its_contents_or_corrupt(
    data: bytes, at: int, drop: int, put: bytes
) -> None:
    try:
        assert read([data[:at] + put + data[at + drop :]]) == SMALL
    except Corrupt:
        pass


def test_a_member_of_more_than_four_gibibytes_is_read() -> None:
    size, block = (1 << 32) + 12345, bytes(1 << 26)
    pieces = [block] * (size // len(block)) + [block[: size % len(block)]]
    crc = 0
    for piece in pieces:
        crc = crc32(piece, crc)
    writer, reader = ZipWriter(), ZipReader()
    events = list(reader.feed(writer.start("huge", crc=crc, size=size)))
    for piece in pieces:
        writer.note(len(piece))
        events += [e for e in reader.feed(piece) if not isinstance(e, MemberData)]
    small = writer.end(crc, size) + writer.start("small", crc=zlib.crc32(b"x"), size=1) + b"x"
    writer.note(1)
    events += reader.feed(small + writer.end(zlib.crc32(b"x"), 1) + writer.finish())
    ends = [event for event in events if isinstance(event, MemberEnd)]
    assert [(end.name, end.size, end.crc) for end in ends] == [
        ("huge", size, crc),
        ("small", 1, zlib.crc32(b"x")),
    ]
    assert reader.close() == End(2, size + 1)
