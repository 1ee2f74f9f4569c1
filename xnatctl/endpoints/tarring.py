"""A tar written from the members of a zip while they are on their way; its length is known before.

Plain USTAR: names of up to 100 characters, which `SCAN/UID.dcm` always are.
"""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator, Iterable

from xnatctl.zipstream import Event, MemberData, MemberEnd, MemberStart

RECORD = 512
_END = bytes(2 * RECORD)


async def as_tar(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    """The tar of the members in `events`, whose sizes must stand in their headers."""
    size = 0
    async for event in events:
        if isinstance(event, MemberStart):
            assert event.size is not None, "a tar names the size before the body"
            size = event.size
            info = tarfile.TarInfo(event.name)
            info.size = size
            yield info.tobuf(tarfile.GNU_FORMAT)
        elif isinstance(event, MemberData):
            yield bytes(event.plain)
        elif isinstance(event, MemberEnd) and (rest := -size % RECORD):
            yield bytes(rest)
    yield _END


def tar_length(members: Iterable[tuple[str, int]]) -> int:
    """The exact length of the tar of these (name, size) members."""
    return sum(RECORD + size + -size % RECORD for _, size in members) + len(_END)
