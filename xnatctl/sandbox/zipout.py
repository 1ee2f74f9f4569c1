"""The headers of a zip that is written as a stream: pure functions from facts to bytes."""

from __future__ import annotations

import struct
import time

_MAX = 0xFFFFFFFF
_UTF8 = 0x800
STREAMED = 0x08


def _stamp(mtime: float) -> tuple[int, int]:
    year, month, day, hour, minute, second = time.localtime(mtime)[:6]
    year = max(year, 1980)
    return (hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)


def local_header(name: str, *, size: int, crc: int, mtime: float, streamed: bool = False) -> bytes:
    """A member's head. Stored members carry size and CRC; `streamed` ones are deflated and
    followed by `descriptor`."""
    clock, date = _stamp(mtime)
    encoded = name.encode()
    flags = _UTF8 | (STREAMED if streamed else 0)
    extra = b""
    shown = size
    if streamed:
        crc = shown = 0
    elif size >= _MAX:
        extra = struct.pack("<HHQQ", 1, 16, size, size)
        shown = _MAX
    return (
        struct.pack(
            "<4sHHHHHLLLHH", b"PK\x03\x04", 45 if extra else 20, flags, 8 if streamed else 0,
            clock, date, crc, shown, shown, len(encoded), len(extra),
        )
        + encoded
        + extra
    )  # fmt: skip


def descriptor(crc: int, packed: int, size: int) -> bytes:
    """What follows a streamed member; lengths of eight bytes where four do not do."""
    form = "<4sLQQ" if max(packed, size) >= _MAX else "<4sLLL"
    return struct.pack(form, b"PK\x07\x08", crc, packed, size)


def central_header(
    name: str, *, size: int, packed: int, crc: int, mtime: float, offset: int, streamed: bool
) -> bytes:
    """A member's entry in the central directory."""
    clock, date = _stamp(mtime)
    encoded = name.encode()
    wide = b""
    for value in (size, packed, offset):
        if value >= _MAX:
            wide += struct.pack("<Q", value)
    extra = struct.pack("<HH", 1, len(wide)) + wide if wide else b""
    flags = _UTF8 | (STREAMED if streamed else 0)
    return (
        struct.pack(
            "<4sHHHHHHLLLHHHHHLL", b"PK\x01\x02", 45, 45 if extra else 20, flags,
            8 if streamed else 0, clock, date, crc, min(packed, _MAX), min(size, _MAX),
            len(encoded), len(extra), 0, 0, 0, 0, min(offset, _MAX),
        )
        + encoded
        + extra
    )  # fmt: skip


def end(count: int, length: int, offset: int) -> bytes:
    """The end of the archive, in its zip64 form where the plain one does not do."""
    out = b""
    if count >= 0xFFFF or length >= _MAX or offset >= _MAX:
        out = struct.pack(
            "<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, offset
        )
        out += struct.pack("<4sLQL", b"PK\x06\x07", 0, offset + length, 1)
    return out + struct.pack(
        "<4sHHHHLLH", b"PK\x05\x06", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF),
        min(length, _MAX), min(offset, _MAX), 0,
    )  # fmt: skip
