"""The inbox: an import of files that lie on the server already, below `ROOT/inbox`.

The answer comes before the work. Every file below the given path is taken like an entry of an
archive, what is no DICOM is left where it is; then the entries are built. With
`cleanupAfterImport` what was taken is deleted. A progress listener hears of the end.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from . import prearchive_api
from .importing import Destination, Import
from .receiving import files_below, inbox_path, read_file
from .web import Call, Refusal, text


def run(call: Call, destination: Destination, options: dict[str, str]) -> web.Response:
    """Begin the import of `path`: 400 outside of the inbox, 404 where there is nothing."""
    path = inbox_path(call, call.param("path"))
    work = Import(call, "inbox", destination, options, ignore=True)
    files = [file for _, file in files_below(path)]
    call.sandbox.spawn(_take_all(work, files, delete=call.flag("cleanupAfterImport")))
    return text(f"The import of {path.name} was submitted")


async def _take_all(work: Import, files: list[Path], *, delete: bool) -> None:
    try:
        for file in files:
            skipped = work.skipped
            await work.take(file.name, read_file(file))
            if delete and work.skipped == skipped:
                file.unlink()
        for entry in work.entries.values():
            await prearchive_api.build(work.sandbox, entry)
    except Refusal as refusal:
        work.sandbox.listened(work.call, "FAILED", refusal.message)
        return
    work.sandbox.listened(work.call, "COMPLETED", f"{len(work.entries)} session(s)")
