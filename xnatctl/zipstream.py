"""Zip archives as streams of bytes: read members while they arrive, write them while they leave.

Pure and without I/O, in the manner of h11: bytes go in, events come out (`ZipReader`); members go
in, the bytes between their bodies come out (`ZipWriter`). Neither ever holds a member. What may not
live here: files, sockets, awaits, and any knowledge of what the members are.

Reading. XNAT answers a request for many files with an archive that it writes while sending, without
a length; if it fails half-way, the body just ends, after a 200 and sometimes quite politely. So an
archive counts only when its central directory has arrived and agrees with every member that was
read: `close` is where a cut body is found. The steps:

1. A local header gives name, method and, if the writer knew them, CRC and sizes. The name is judged
   before anything else (`why_unsafe`).
2. The body is passed on as it comes: stored bytes as they are, deflated bytes with their inflated
   form in pieces of at most 256 KiB, whatever the size of the chunk that was fed.
3. Where sizes follow in a descriptor, a deflated body ends itself. A stored body does not: its end
   is the first place where a header signature is preceded by a descriptor whose size *and* CRC are
   those of the bytes read so far. An archive inside the archive cannot imitate that, since its
   sizes count from its own start; a forger could, but then step 5 finds members that the central
   directory does not know.
4. CRC and size must agree; then `MemberEnd`. Whoever commits on `MemberEnd` commits proven bytes.
5. Each central directory entry is compared with the member that was read under its name, the
   counts, sizes and offsets of the trailer with what was passed, and nothing may follow.

Writing. XNAT unpacks uploads with Java's forward-only `ZipInputStream`, which cannot read a stored
member whose sizes follow its body; so stored members need CRC and size beforehand, and only
deflated ones may carry a descriptor. Time stamps are fixed: equal members give equal bytes.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple, TypeAlias

from xnatctl.errors import Corrupt

Chunk: TypeAlias = bytes | memoryview

STORED = 0
DEFLATED = 8

_codec: ModuleType = zlib
with suppress(ImportError):  # the extra `speed`
    from isal import isal_zlib

    _codec = isal_zlib

crc32: Callable[..., int] = _codec.crc32
"""`crc32(data, value=0) -> int`: the fastest CRC-32 of this installation."""

_LOCAL, _CENTRAL, _DESCRIPTOR = b"PK\x03\x04", b"PK\x01\x02", b"PK\x07\x08"
_END, _END64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_LOCAL_FORM = struct.Struct("<4s5H3I2H")
_CENTRAL_FORM = struct.Struct("<4s6H3I5H2I")
_END_FORM = struct.Struct("<4s4H2IH")
_END64_FORM = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_FORM = struct.Struct("<4sIQI")
_DESCRIPTOR_32 = struct.Struct("<3I")
_DESCRIPTOR_64 = struct.Struct("<I2Q")
_READ_FORM = struct.Struct("<2H4Q")

_BIT_DESCRIPTOR, _BIT_UTF8 = 0x0008, 0x0800
_BITS_REFUSED = 0x2061  # encrypted, patch data, strong encryption, masked header
_BITS_COMPARED = _BIT_UTF8 | _BITS_REFUSED
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFFFFFF
_DESCRIPTOR_ROOM = 4 + _DESCRIPTOR_64.size + 4  # the longest descriptor and the signature after it
_PIECE = 256 * 1024
_MAX_NAME = 4096  # bytes, as PATH_MAX
_ISAL_READS_AHEAD = 8  # bytes; igzip keeps up to 64 bits of its input in a register


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader refuses to swallow. Sizes are bytes.

    A deflated member may grow to `free` bytes whatever its compressed size, and beyond that to
    `ratio` times the compressed bytes that were read: empty masks of a few hundred MB compress a
    thousandfold and are honest. Who knows the sum of the listed sizes gives it as `total`.
    """

    members: int = 1_000_000
    total: int | None = None
    ratio: int = 200
    free: int = 512 * 1024 * 1024


class MemberStart(NamedTuple):
    """A file begins. `crc`, `size`, `csize` are None where they follow the body.

    `cp437` says that the name was not marked as UTF-8 and holds more than ASCII: it was read by the
    zip rule, and `name.encode("cp437")` gives the bytes back.
    """

    name: str
    method: int
    flags: int
    crc: int | None
    size: int | None
    csize: int | None
    cp437: bool


class MemberData(NamedTuple):
    """A part of the body: `raw` as it stands in the archive, `plain` as it stands in the file.

    For stored members both are one object, a view of the chunk that was fed; for deflated ones
    either may be empty.
    """

    raw: Chunk
    plain: Chunk


class MemberEnd(NamedTuple):
    """The file is whole: CRC and size agree. `md5` is hex, None unless digests were asked for."""

    name: str
    crc: int
    size: int
    csize: int
    md5: str | None


@dataclass(frozen=True, slots=True)
class End:
    """The archive is whole: `members` files (folders are not counted) of `size` plain bytes."""

    members: int
    size: int


Event: TypeAlias = MemberStart | MemberData | MemberEnd
_Steps: TypeAlias = Generator[Event | None, None, None]


def why_unsafe(name: str) -> str | None:
    """The reason why a member of this name is refused, or None: for planners, before they send."""
    if not name:
        return "it is empty"
    if "\0" in name:
        return "it holds a NUL"
    if "\\" in name:
        return "it holds a backslash"
    if name.startswith("/"):
        return "it is an absolute path"
    if name[1:2] == ":" and name[0].isascii() and name[0].isalpha():
        return "it begins with a drive letter"
    if name[0] == "." or "/." in name or "//" in name:
        parts = name.removesuffix("/").split("/")
        if ".." in parts:
            return "it leads out of its folder"
        if "." in parts or "" in parts:
            return "a part of it is empty or a dot"
    if len(name) > _MAX_NAME // 4 and len(name.encode(errors="replace")) > _MAX_NAME:
        return f"it is longer than {_MAX_NAME} bytes"
    return None


# --- reading ------------------------------------------------------------------------------------


class _Member:
    """One member while it is read: what its header said and what was counted."""

    __slots__ = ("crc", "csize", "flags", "header", "md5", "method", "name", "offset", "size")

    def __init__(self, header: MemberStart, offset: int, *, digest: bool) -> None:
        self.header = header
        self.name = header.name
        self.offset = offset
        self.crc = self.size = self.csize = 0
        self.md5 = hashlib.md5(usedforsecurity=False) if digest else None


class ZipReader:
    """Reads one archive from its first to its last byte.

        for event in reader.feed(chunk): ...
        end = reader.close()

    `feed` takes the chunk at once and returns an iterator of what it brought; exhaust it before the
    next call, and do not change the chunk while views of it are in use. Folders give no events.
    Memory: the chunk, a header, 256 KiB of inflated bytes, and about 250 bytes a member.

    Raises `Corrupt` from the iterator and from `close`: cut, damaged, trailing bytes, encrypted,
    unknown method, unsafe or repeated name, link, beyond `limits`. After that it stays broken.
    """

    def __init__(self, *, digest: bool = False, limits: Limits | None = None) -> None:
        self._digest = digest
        self._limits = limits or Limits()
        self._view = memoryview(b"")
        self._pos = 0
        self._base = 0  # of the first byte of the view, in the archive
        self._read: dict[str, bytes] = {}
        self._count = self._total = 0
        self._where = "before its first member"
        self._complete = False
        self._failure: Corrupt | None = None
        self._steps = self._archive()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """The events that end in `data`: bytes of the archive, in order, any number."""
        rest = self._view[self._pos :]
        self._base += self._pos
        self._pos = 0
        self._view = memoryview(b"".join((rest, data))) if len(rest) else memoryview(data)
        return self._drain()

    def close(self) -> End:
        """Say that no more bytes come. Raises `Corrupt` unless the archive was complete."""
        if self._failure is not None:
            raise self._failure
        if not self._complete:
            fed = self._base + len(self._view)
            raise Corrupt(f"the archive stops after {fed} bytes, {self._where}")
        return End(self._count, self._total)

    def _drain(self) -> Iterator[Event]:
        if self._failure is not None:
            raise self._failure
        try:
            for event in self._steps:
                if event is None:
                    return
                yield event
        except Corrupt as failure:
            self._failure = failure
            raise

    def _archive(self) -> _Steps:
        """The whole grammar: members, central directory, trailer, end. Yields None for "more"."""
        signature = yield from self._peek(4)
        if signature not in (_LOCAL, _END):
            raise Corrupt(f"this is not a zip archive: it begins with {signature!r}")
        while signature == _LOCAL:
            yield from self._member()
            self._where = "before its central directory"
            signature = yield from self._peek(4)
        start = self._offset
        entries = 0
        while signature == _CENTRAL:
            yield from self._central()
            entries += 1
            signature = yield from self._peek(4)
        if self._read:
            missing = next(iter(self._read))
            raise Corrupt(f"{missing!r} is in the archive and not in its central directory")
        yield from self._trailer(entries, start, signature)
        self._complete = True
        self._where = ""
        while self._pos == len(self._view):
            yield None
        raise Corrupt(f"bytes follow the end of the archive at {self._offset}")

    @property
    def _offset(self) -> int:
        return self._base + self._pos

    def _peek(self, length: int) -> Generator[None, None, bytes]:
        while len(self._view) - self._pos < length:
            yield None
        return self._view[self._pos : self._pos + length].tobytes()

    def _take(self, length: int) -> Generator[None, None, bytes]:
        while len(self._view) - self._pos < length:
            yield None
        start = self._pos
        self._pos += length
        return self._view[start : self._pos].tobytes()

    def _member(self) -> _Steps:
        """A local header, its body, its descriptor: steps 1 to 4 above."""
        offset = self._offset
        fields = _LOCAL_FORM.unpack((yield from self._take(_LOCAL_FORM.size)))
        _, _, flags, method, _, _, crc, csize, size, name_length, extra_length = fields
        _refuse_long_name(name_length)
        rest = yield from self._take(name_length + extra_length)
        name, cp437 = _decode(rest[:name_length], flags)
        self._where = f"inside {name!r}"
        self._refuse(name, method=method, flags=flags)
        size, csize = _widen(rest[name_length:], (size, csize), name)
        # Info-ZIP writes sizes of stored members into the header, even if the CRC is to follow.
        later = flags & _BIT_DESCRIPTOR
        known = not later or (method == STORED and csize > 0)
        if known and method == STORED and size != csize:
            raise Corrupt(f"the header of {name!r} gives two sizes, {size} and {csize} bytes")
        if known and size:
            self._refuse_growth(name, size, csize)
        start = MemberStart(
            name,
            method,
            flags,
            None if later else crc,
            size if known else None,
            csize if known else None,
            cp437,
        )
        member = _Member(start, offset, digest=self._digest)
        folder = name.endswith("/")
        if not folder:
            yield start
        if method == DEFLATED:
            yield from self._inflated(member)
        elif known:
            yield from self._stored(member, csize)
        else:
            yield from self._stored_until_descriptor(member)
        yield from self._proven(member)
        if not folder:
            self._count += 1
            md5 = member.md5.hexdigest() if member.md5 else None
            yield MemberEnd(name, member.crc, member.size, member.csize, md5)

    def _refuse(self, name: str, *, method: int, flags: int) -> None:
        if flags & _BITS_REFUSED:
            raise Corrupt(f"{name!r} is encrypted or patched, which is not read here")
        if method not in (STORED, DEFLATED):
            raise Corrupt(f"{name!r} is packed by method {method}; only 0 and 8 are read here")
        if name in self._read:
            raise Corrupt(f"{name!r} is twice in the archive")
        if len(self._read) >= self._limits.members:
            raise Corrupt(f"the archive has more than {self._limits.members} members")

    def _refuse_growth(self, name: str, size: int, csize: int) -> None:
        """Judge `size` plain bytes of a member, announced or counted, against the limits."""
        limits = self._limits
        if name.endswith("/"):
            raise Corrupt(f"{name!r} is a folder and holds data")
        if limits.total is not None and self._total + size > limits.total:
            raise Corrupt(f"the archive unpacks to more than {limits.total} bytes")
        if size > limits.free and size > limits.ratio * csize:
            raise Corrupt(f"{name!r} unpacks to more than {limits.ratio} times its packed size")

    def _stored(self, member: _Member, left: int) -> _Steps:
        while left:
            piece = self._view[self._pos : self._pos + left]
            if not len(piece):
                yield None
                continue
            left -= len(piece)
            yield self._pass(member, piece)

    def _pass(self, member: _Member, piece: memoryview) -> MemberData:
        """Count a piece of a stored body and let it go."""
        self._pos += len(piece)
        member.crc = crc32(piece, member.crc)
        member.size += len(piece)
        member.csize = member.size
        if member.md5:
            member.md5.update(piece)
        return MemberData(piece, piece)

    def _stored_until_descriptor(self, member: _Member) -> _Steps:
        """Step 3 for stored bodies. What could still be part of a descriptor is held back."""
        while True:
            window = self._view[self._pos :].tobytes()
            end = _find_descriptor(window, member)
            sure = len(window) - _DESCRIPTOR_ROOM + 1 if end is None else end
            if sure > 0:
                self._refuse_growth(member.name, member.size + sure, member.csize + sure)
                yield self._pass(member, self._view[self._pos : self._pos + sure])
            if end is not None:
                return
            yield None

    def _inflated(self, member: _Member) -> _Steps:
        """A deflated body. It ends itself, and must end where a known size says.

        Igzip reads ahead into a register: at the end of the body it gives back bytes that an
        earlier call has swallowed. So the last eight are held until it is certain whose they are.
        """
        inflater = _codec.decompressobj(-15)
        csize, size = member.header.csize, member.header.size
        folder = member.name.endswith("/")
        fed, held = 0, b""
        while not inflater.eof:
            stop = len(self._view) if csize is None else self._pos + csize - fed
            piece = self._view[self._pos : stop]
            try:
                plain = inflater.decompress(piece, _PIECE)
            except _codec.error as error:
                raise Corrupt(f"the packed data of {member.name!r} is damaged") from error
            used = len(piece) - len(inflater.unconsumed_tail)
            if not used and not plain and not inflater.eof:
                if fed == csize:
                    raise Corrupt(f"the packed data of {member.name!r} has no end")
                yield None
                continue
            self._pos += used
            fed += used
            held += piece[:used]
            back = len(inflater.unused_data) if inflater.eof else _ISAL_READS_AHEAD
            raw, held = held[: max(0, len(held) - back)], held[max(0, len(held) - back) :]
            member.csize += len(raw)
            if plain:
                self._count_plain(member, plain, packed=fed)
            if size is not None and member.size > size:
                raise Corrupt(f"{member.name!r} unpacks to more than its {size} bytes")
            if (raw or plain) and not folder:
                yield MemberData(raw, plain)
        if held:
            self._give_back(held)
        if csize is not None and member.csize != csize:
            raise Corrupt(f"the packed data of {member.name!r} ends before its {csize} bytes")

    def _count_plain(self, member: _Member, plain: bytes, *, packed: int) -> None:
        member.size += len(plain)
        self._refuse_growth(member.name, member.size, packed)
        member.crc = crc32(plain, member.crc)
        if member.md5:
            member.md5.update(plain)

    def _give_back(self, held: bytes) -> None:
        """Return bytes that belong to what follows; some may come from an earlier chunk."""
        if self._pos >= len(held):
            self._pos -= len(held)
        else:
            self._base += self._pos - len(held)
            self._view = memoryview(held + self._view[self._pos :])
            self._pos = 0

    def _proven(self, member: _Member) -> _Steps:
        """Step 4: compare with the header or the descriptor, and remember for step 5."""
        header = member.header
        if header.crc is not None and (member.crc, member.size) != (header.crc, header.size):
            raise Corrupt(
                f"{member.name!r} is damaged: its size or CRC is not what its header says"
            )
        if header.flags & _BIT_DESCRIPTOR:
            # A central directory must follow, so there is always room for the longest form.
            following = yield from self._peek(_DESCRIPTOR_ROOM)
            self._pos += _descriptor_length(following, member)
        self._total += member.size
        flags = header.flags & _BITS_COMPARED
        self._read[member.name] = _READ_FORM.pack(
            header.method, flags, member.crc, member.size, member.csize, member.offset
        )

    def _central(self) -> _Steps:
        """Step 5 for one entry of the central directory."""
        fields = _CENTRAL_FORM.unpack((yield from self._take(_CENTRAL_FORM.size)))
        _, _, _, flags, method, _, _, crc, csize, size, *lengths = fields[:13]
        disk, _, attributes, offset = fields[13:]
        _refuse_long_name(lengths[0])
        rest = yield from self._take(sum(lengths))
        name, _ = _decode(rest[: lengths[0]], flags)
        extra = rest[lengths[0] : lengths[0] + lengths[1]]
        size, csize, offset = _widen(extra, (size, csize, offset), name)
        was_read = self._read.pop(name, None)
        if was_read is None:
            raise Corrupt(f"{name!r} is in the central directory and not, or not once, before it")
        listed = (method, flags & _BITS_COMPARED, crc, size, csize, offset)
        if disk or was_read != _READ_FORM.pack(*listed):
            raise Corrupt(f"{name!r} was read otherwise than the central directory lists it")
        kind = stat.S_IFMT(attributes >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR and size):
            raise Corrupt(f"{name!r} is a link or a device, not a file")

    def _trailer(self, entries: int, start: int, signature: bytes) -> _Steps:
        """Step 5 for the end records: `entries` central entries began at offset `start`."""
        size = self._offset - start
        actual = (entries, entries, size, start)
        wide = signature == _END64
        if wide:
            record_at = self._offset
            record = _END64_FORM.unpack((yield from self._take(_END64_FORM.size)))
            extensible = record[1] + 12 - _END64_FORM.size
            if record[4:] != (0, 0, *actual) or not 0 <= extensible <= _MAX_16:
                raise Corrupt("the zip64 end record does not fit the archive")
            yield from self._take(extensible)
            locator = _LOCATOR_FORM.unpack((yield from self._take(_LOCATOR_FORM.size)))
            if locator != (_LOCATOR, 0, record_at, 1):
                raise Corrupt("the zip64 end locator does not fit the archive")
            signature = yield from self._peek(4)
        if signature != _END:
            raise Corrupt(f"unknown record {signature!r} at {self._offset} in the archive")
        end = _END_FORM.unpack((yield from self._take(_END_FORM.size)))
        sentinels = (_MAX_16, _MAX_16, _MAX_32, _MAX_32)
        for found, expected, sentinel in zip(end[3:7], actual, sentinels, strict=True):
            if found != expected and not (wide and found == sentinel):
                raise Corrupt("the end record of the archive does not fit its members")
        if end[1] not in (0, _MAX_16 * wide) or end[2] not in (0, _MAX_16 * wide):
            raise Corrupt("the archive is one part of several")
        yield from self._take(end[7])


def _refuse_long_name(length: int) -> None:
    if length > _MAX_NAME:
        raise Corrupt(f"a member has a name of {length} bytes; at most {_MAX_NAME} are read here")


def _decode(raw: bytes, flags: int) -> tuple[str, bool]:
    """A member's name, without empty and "." parts, and whether it had to be read as cp437."""
    try:
        ascii_only = raw.isascii()
        name = raw.decode("utf-8" if ascii_only or flags & _BIT_UTF8 else "cp437")
    except UnicodeDecodeError:
        raise Corrupt(f"the name {raw[:80]!r} is marked as UTF-8 and is not") from None
    if name[:1] == "." or "/." in name or "//" in name:
        name = _tidy(name)
    if reason := why_unsafe(name):
        raise Corrupt(f"the name {name[:80]!r} is refused: {reason}")
    return name, not (ascii_only or flags & _BIT_UTF8)


def _tidy(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    folder = "/" if parts and name.endswith(("/", "/.")) else ""
    return ("/" if name.startswith("/") else "") + "/".join(parts) + folder


def _widen(extra: bytes, values: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Replace the values that are all ones by their 64-bit forms in the zip64 extra field."""
    if _MAX_32 not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == 1:
            missing = values.count(_MAX_32)
            if length < 8 * missing or at + length > len(extra):
                break
            wide = iter(struct.unpack_from(f"<{missing}Q", extra, at))
            return tuple(next(wide) if value == _MAX_32 else value for value in values)
        at += length
    raise Corrupt(f"the zip64 sizes of {name!r} are missing")


def _find_descriptor(window: bytes, member: _Member) -> int | None:
    """Where in `window` the body of a stored member ends, or None if not in it."""
    at = -1
    while True:
        places = [window.find(mark, at + 1) for mark in (_LOCAL, _CENTRAL)]
        at = min((place for place in places if place >= 0), default=-1)
        if at < 0:
            return None
        for form in (_DESCRIPTOR_32, _DESCRIPTOR_64):
            for signature in (b"", _DESCRIPTOR):
                end = at - form.size - len(signature)
                if end < 0 or not window.startswith(signature, end):
                    continue
                crc, csize, size = form.unpack_from(window, at - form.size)
                if csize == size == member.size + end and crc == crc32(window[:end], member.crc):
                    return end


def _descriptor_length(following: bytes, member: _Member) -> int:
    """The length of the descriptor at the start of `following`, in whichever of its four forms.

    The signature of the next record decides between forms that look alike.
    """
    values = (member.crc, member.csize, member.size)
    forms = [_DESCRIPTOR_64.pack(*values)]
    if max(values) <= _MAX_32:
        forms.append(_DESCRIPTOR_32.pack(*values))
    for form in forms:
        for descriptor in (_DESCRIPTOR + form, form):
            length = len(descriptor)
            if following.startswith(descriptor) and following[length : length + 4] in (
                _LOCAL,
                _CENTRAL,
            ):
                return length
    raise Corrupt(f"{member.name!r} is damaged: its size or CRC is not what follows its body")


# --- writing ------------------------------------------------------------------------------------

_TIME, _DATE = 0, (1 << 5) | 1  # 1980-01-01 00:00, the first moment that a zip knows
_MADE_BY_UNIX = 3 << 8
_FILE_MODE = (stat.S_IFREG | 0o644) << 16


class _Written(NamedTuple):
    name: bytes
    flags: int
    method: int
    crc: int
    size: int
    csize: int
    offset: int

    def local_header(self) -> bytes:
        extra = b""
        size, csize = self.size, self.csize
        if max(size, csize) >= _MAX_32:
            extra = struct.pack("<2H2Q", 1, 16, size, csize)
            size = csize = _MAX_32
        need = 45 if extra else 20
        fixed = (_LOCAL, need, self.flags, self.method, _TIME, _DATE, self.crc, csize, size)
        return _LOCAL_FORM.pack(*fixed, len(self.name), len(extra)) + self.name + extra

    def central_entry(self) -> bytes:
        values = (self.size, self.csize, self.offset)
        wide = [value for value in values if value >= _MAX_32]
        extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        size, csize, offset = (min(value, _MAX_32) for value in values)
        need = 45 if wide else 20
        fixed = (_CENTRAL, _MADE_BY_UNIX | 45, need, self.flags, self.method, _TIME, _DATE)
        lengths = (len(self.name), len(extra), 0)
        tail = (0, 0, _FILE_MODE, offset)
        return (
            _CENTRAL_FORM.pack(*fixed, self.crc, csize, size, *lengths, *tail) + self.name + extra
        )


def _end_records(count: int, size: int, start: int) -> bytes:
    """The trailer after `count` central entries of `size` bytes that began at offset `start`."""
    records = b""
    if count >= _MAX_16 or max(size, start) >= _MAX_32:
        made, at = _MADE_BY_UNIX | 45, start + size
        records = _END64_FORM.pack(_END64, 44, made, 45, 0, 0, count, count, size, start)
        records += _LOCATOR_FORM.pack(_LOCATOR, 0, at, 1)
    short = min(count, _MAX_16)
    return records + _END_FORM.pack(
        _END, 0, 0, short, short, min(size, _MAX_32), min(start, _MAX_32), 0
    )


class ZipWriter:
    """Writes one archive: gives the bytes that stand around the bodies, which the caller sends.

        send(writer.start("a/b.dcm", crc=crc, size=size))
        for chunk in body: send(chunk); writer.note(len(chunk))
        send(writer.end(crc, size))
        send(writer.finish())

    `offset` is the number of bytes so far, bodies included. Raises `ValueError` for wrong use: a
    repeated or unsafe name, a stored member without CRC and size, a call out of turn; `Corrupt`
    where a body was not what its header announced.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._open: _Written | None = None
        self._noted = 0
        self._central: list[bytes] = []
        self._names: set[bytes] = set()

    def start(
        self,
        name: str,
        *,
        method: int = STORED,
        crc: int | None = None,
        size: int | None = None,
        csize: int | None = None,
    ) -> bytes:
        """The local header of a file, complete if `crc` and the sizes are given.

        For a stored member `csize` may be left out. A deflated one without any of the three gets a
        descriptor after its body.
        """
        if self._open is not None:
            raise ValueError(f"{name!r} starts before {self._open.name.decode()!r} has ended")
        if method == STORED and csize is None:
            csize = size
        if crc is None or size is None or csize is None:
            if method != DEFLATED:
                raise ValueError(f"{name!r} is stored and needs its CRC and size beforehand")
            crc = size = csize = 0
            flags = _BIT_DESCRIPTOR
        else:
            flags = 0
        raw = _encode(name)
        if raw in self._names:
            raise ValueError(f"{name!r} is twice in one archive")
        self._names.add(raw)
        flags |= 0 if raw.isascii() else _BIT_UTF8
        self._open = _Written(raw, flags, method, crc, size, csize, self.offset)
        self._noted = 0
        return self._count(self._open.local_header())

    def note(self, length: int) -> None:
        """Say that `length` bytes of the open member's body, as they stand in it, were sent."""
        self._noted += length
        self.offset += length

    def end(self, crc: int, size: int, csize: int | None = None) -> bytes:
        """Close the member whose body turned out like this: its descriptor, or nothing."""
        member = self._open
        if member is None:
            raise ValueError("no member is open")
        name = member.name.decode()
        csize = self._noted if csize is None else csize
        if csize != self._noted:
            raise Corrupt(f"{self._noted} bytes were sent for {name!r}, and {csize} were read")
        after = b""
        if member.flags & _BIT_DESCRIPTOR:
            # Java's reader takes the wide form exactly where a size does not fit into 32 bits.
            form = _DESCRIPTOR_32 if max(size, csize) <= _MAX_32 else _DESCRIPTOR_64
            after = _DESCRIPTOR + form.pack(crc, csize, size)
        elif (crc, size, csize) != (member.crc, member.size, member.csize):
            raise Corrupt(f"{name!r} was sent otherwise than its header announced it")
        done = _Written(member.name, member.flags, member.method, crc, size, csize, member.offset)
        self._central.append(done.central_entry())
        self._open = None
        return self._count(after)

    def drop(self) -> int:
        """Forget the member that is open, if one is: `offset` is where it began, or would have."""
        if self._open is not None:
            self._names.discard(self._open.name)
            self.offset = self._open.offset
            self._open = None
        return self.offset

    def finish(self) -> bytes:
        """The central directory and the trailer: the last bytes of the archive."""
        if self._open is not None:
            raise ValueError(f"{self._open.name.decode()!r} has not ended")
        directory = b"".join(self._central)
        trailer = _end_records(len(self._central), len(directory), self.offset)
        return self._count(directory + trailer)

    def _count(self, data: bytes) -> bytes:
        self.offset += len(data)
        return data


def _encode(name: str) -> bytes:
    if reason := why_unsafe(name):
        raise ValueError(f"the name {name[:80]!r} cannot stand in an archive: {reason}")
    if name.endswith("/"):
        raise ValueError(f"{name[:80]!r} names a folder")
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name {name[:80]!r} cannot be written as UTF-8") from None


def archive_length(members: Iterable[tuple[str, int]]) -> int:
    """The exact length of the archive in which these (name, size) members are stored, in order."""
    offset = directory = count = 0
    for name, size in members:
        member = _Written(_encode(name), 0, STORED, 0, size, size, offset)
        offset += len(member.local_header()) + size
        directory += len(member.central_entry())
        count += 1
    return offset + directory + len(_end_records(count, directory, offset))
