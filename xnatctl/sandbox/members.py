"""The members of an archive as it arrives, whatever its form; what is a zip and what is a tar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from .untar import TarStream, gunzip
from .unzip import ZipStream

ZIPS = (".zip", ".zar", ".xar")
TARS = (".tar", ".tgz", ".tar.gz")
ARCHIVES = (*ZIPS, *TARS)


async def members(name: str, source: AsyncIterator[Any]) -> AsyncIterator[tuple[str, Any]]:
    """Name and bytes of every file of an archive, in order; `name` tells its form.

    Bytes that are not taken before the next member are skipped. Raises BadZip where the archive
    breaks off or is none.
    """
    if name.endswith(TARS):
        tar = TarStream(source if name.endswith(".tar") else gunzip(source))
        async for entry in tar.members():
            yield entry, tar.data()
        return
    stream = ZipStream(source)
    async for member in stream.members():
        if not member.is_folder:
            yield member.name, stream.data(member)
