"""The inbox: an import of files that lie on the server already, below `ROOT/inbox`.

The answer comes before the work. Every file below the given path is taken like an entry of an
archive, what is no DICOM is left where it is; then the entries are built. With
`cleanupAfterImport` what was taken is deleted. A progress listener hears of the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from . import prearchive_api
from .importing import Destination, Import
from .web import Call, Refusal, text


def run(call: Call, destination: Destination, options: dict[str, str]) -> web.Response:
    """Begin the import of `path`: 400 outside of the inbox, 404 where there is nothing."""
    home = call.store.root / "inbox"
    wanted = Path(call.param("path"))
    path = (wanted if wanted.is_relative_to(home) else home / str(wanted).lstrip("/")).resolve()
    if not call.param("path") or not path.is_relative_to(home.resolve()):
        raise Refusal(400, f"The path must be below the inbox: {call.param('path')}")
    if not path.exists():
        raise Refusal(404, f"There is nothing at {call.param('path')}")
    work = Import(call, "inbox", destination, options, ignore=True)
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    call.sandbox.spawn(_take_all(work, files, delete=call.flag("cleanupAfterImport")))
    return text(f"The import of {path.name} was submitted")


async def _take_all(work: Import, files: list[Path], *, delete: bool) -> None:
    try:
        for file in files:
            skipped = work.skipped
            await work.take(file.name, _read(file))
            if delete and work.skipped == skipped:
                file.unlink()
        for entry in work.entries.values():
            await prearchive_api.build(work.sandbox, entry)
    except Refusal as refusal:
        work.sandbox.listened(work.call, "FAILED", refusal.message)
        return
    work.sandbox.listened(work.call, "COMPLETED", f"{len(work.entries)} session(s)")


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, 1 << 20):
            yield data
