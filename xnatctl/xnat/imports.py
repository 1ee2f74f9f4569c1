"""The import service, the prearchive and the archive service: one method is one request, no policy.

The status of a failure depends on the handler that met it (400, 409, 423 or 500 for the same
conflict), so what to make of one is read from its message (XNAT 1.8).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager

from xnatctl.errors import (
    BadReply,
    Busy,
    Conflict,
    NotFound,
    Refused,
    ServerFault,
    XnatctlError,
)
from xnatctl.model import File, PrearchiveEntry
from xnatctl.transport import Reply, first_words

from . import paths
from .client import Xnat
from .parse import cell, parse_entry, parse_files, parse_rows

_ENTRY = re.compile(r"/prearchive/projects/([^/]+)/([^/]+)/([^/?\s]+)")

_PASSING = re.compile(
    r"(?i)session processing in progress|concurrent modification is discouraged"
    r"|duplicate archive attempt|destination session in use"
    r"|concurrent file sends of the same data|prearc destination is locked"
)
_TAKEN = re.compile(r"(?i)already exists|session already contains a scan|with the same resources")
_TIMED_OUT = re.compile(r"(?i)did not complete within")

# The archive service answers 500 for all of these; sending again cannot change the answer.
_FINAL = re.compile(
    r"(?i)invalid modification of session|unable to (?:deduce|identify)"
    r"|did not include parsable files|multiple imaging sessions|unable to read (?:dicom|data)"
)


class StillArchiving(ServerFault):
    """The answer was lost or timed out while the server may go on: look, never send again."""

    retryable = False


class Imports:
    """Getting DICOM into a server, and from the prearchive into the archive."""

    def __init__(self, xnat: Xnat) -> None:
        self._xnat = xnat
        self._transport = xnat.transport

    async def import_zip(
        self, chunks: AsyncIterator[bytes], *, params: Mapping[str, str]
    ) -> list[str]:
        """Send one DICOM zip and return the URIs of the answer; never replayed.

        Entries are stored as they arrive: a body that ends early leaves what came before. A project
        that is unknown or closed to us is ignored in silence, so the caller compares the URI with
        what it asked for.
        """
        try:
            reply = await self._transport.send(
                "POST",
                paths.IMPORT,
                chunks,
                params={"import-handler": "DICOM-zip", "inbody": "true", **params},
                content_type="application/zip",
                slow=True,
            )
        except XnatctlError as error:
            raise classify(error) from error
        return uris(reply)

    async def import_archive(
        self,
        chunks: AsyncIterator[bytes],
        *,
        params: Mapping[str, str],
        length: int,
        media: str = "application/zip",
    ) -> list[str]:
        """The same with a body of known length, a zip or a tar; a chunked tar would be refused."""
        params = {"import-handler": "DICOM-zip", "inbody": "true", **params}
        return await self._import(chunks, params=params, length=length, media=media)

    async def import_object(
        self, chunks: AsyncIterator[bytes], *, params: Mapping[str, str], length: int
    ) -> list[str]:
        """Send one DICOM object. The server gives it a name of its own."""
        params = {"import-handler": "gradual-DICOM", "inbody": "true", **params}
        return await self._import(chunks, params=params, length=length, media="application/dicom")

    async def _import(
        self, chunks: AsyncIterator[bytes], *, params: Mapping[str, str], length: int, media: str
    ) -> list[str]:
        try:
            reply = await self._transport.send(
                "POST",
                paths.IMPORT,
                chunks,
                params=params,
                length=length,
                content_type=media,
                slow=True,
            )
        except XnatctlError as error:
            raise classify(error) from error
        return uris(reply)

    async def archive_direct(self, uri: str) -> None:
        """Have a session that was sent with `Direct-Archive` archived now. Raises Conflict."""
        try:
            await self._transport.request("POST", uri, replay=False, slow=True)
        except XnatctlError as error:
            raise classify(error) from error

    async def list_entries(self, project: str) -> list[PrearchiveEntry]:
        rows = await self._xnat.rows(paths.prearchive(project))
        return [parse_entry(row) for row in rows]

    async def find_entry(self, entry: PrearchiveEntry) -> PrearchiveEntry | None:
        """The entry as it is now; None when it is gone (archived or deleted)."""
        path = paths.prearchive_entry(entry)
        try:
            reply = await self._transport.request(
                "GET", path, params={"format": "json"}, expect="json"
            )
        except NotFound:
            return None
        rows = parse_rows(reply.body, path)
        return parse_entry(rows[0]) if rows else None

    async def list_entry_scans(self, entry: PrearchiveEntry) -> list[str]:
        rows = await self._xnat.rows(paths.prearchive_entry(entry) + "/scans")
        return [cell(row, "ID") for row in rows]

    async def list_entry_files(self, entry: PrearchiveEntry, scan: str) -> list[File]:
        """The DICOM files of one scan in the prearchive. No digests there."""
        path = f"{paths.prearchive_entry(entry)}/scans/{paths.segment(scan)}/resources/DICOM/files"
        reply = await self._transport.request("GET", path, params={"format": "json"}, expect="json")
        return parse_files(reply.body, path)

    async def build(self, entry: PrearchiveEntry) -> None:
        """Write the session document of the entry: afterwards it is READY."""
        await self._transport.request(
            "POST", paths.prearchive_entry(entry), params={"action": "build"}, slow=True
        )

    async def delete(self, entry: PrearchiveEntry) -> None:
        """Delete the entry with its files. Gone already is deleted."""
        try:
            await self._transport.request("DELETE", paths.prearchive_entry(entry), slow=True)
        except NotFound:
            return

    async def last_log(self, entry: PrearchiveEntry) -> str:
        """The last entry of its log, where the reason of a conflict stands."""
        path = paths.prearchive_entry(entry) + "/logs/last"
        reply = await self._transport.request("GET", path)
        if not reply.body.lstrip().startswith(b"{"):
            return first_words(reply.text)
        rows = parse_rows(reply.body, path)
        return first_words(rows[-1].get("entry", "")) if rows else ""

    def open_entry_zip(
        self, entry: PrearchiveEntry
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """All files of an entry as a zip."""
        path = paths.prearchive_entry(entry)
        return self._transport.stream(path, params={"format": "zip"}, slow=True)

    async def move(self, entry: PrearchiveEntry, project: str) -> None:
        """Queue moving an entry into the prearchive of another project."""
        await self._queue("move", entry, newProject=project)

    async def rebuild(self, entry: PrearchiveEntry, *, override_lock: bool = False) -> None:
        """Queue building an entry anew, out of its files; also one that an operation holds."""
        more = {"overrideLock": "true"} if override_lock else {}
        await self._queue("rebuild", entry, **more)

    async def _queue(self, action: str, entry: PrearchiveEntry, **more: str) -> None:
        params = {"src": paths.prearchive_src(entry), **more}
        await self._transport.request(
            "POST", f"{paths.PREARCHIVE_SERVICES}/{action}", params=params, replay=False, slow=True
        )

    async def archive(
        self,
        entry: PrearchiveEntry,
        *,
        project: str,
        subject: str,
        session: str,
        overwrite: str = "",
    ) -> str:
        """Archive one entry and return the URI of the session; never replayed.

        The service merges into an existing session in any case; with `overwrite` it replaces files
        that are there. Names that are empty stay those of the entry.
        Raises Conflict where the session exists, StillArchiving where only polling can tell.
        """
        names = {"subject": subject, "session": session, "overwrite": overwrite}
        params = {
            "src": paths.prearchive_src(entry),
            "project": project,
            **{name: value for name, value in names.items() if value},
            "auto-archive": "false",
            "triggerPipelines": "false",
        }
        try:
            reply = await self._transport.request(
                "POST", paths.ARCHIVE, params=params, replay=False, slow=True, allow=(301, 303)
            )
        except XnatctlError as error:
            raise classify(error, archiving=True) from error
        if reply.status == 303:
            return reply.headers.get("Location", "")
        return next(iter(uris(reply)), "")


def uris(reply: Reply) -> list[str]:
    """The lines of a `text/uri-list`, which end in CRLF; an empty body is an empty list."""
    return [line.strip() for line in reply.text.splitlines() if line.strip()]


def entry_of(uri: str) -> PrearchiveEntry:
    """The prearchive entry that an import answered with."""
    found = _ENTRY.search(uri)
    if not found:
        raise BadReply(f"the import answered {uri!r}, which is no prearchive entry")
    project, timestamp, folder = found.groups()
    return PrearchiveEntry(project, timestamp, folder, folder, "RECEIVING", url=uri)


def classify(error: XnatctlError, *, archiving: bool = False) -> XnatctlError:
    """What a failed import or archive request means, by its message rather than its status."""
    text = f"{error.message} {error.why}"
    if error.status is None or error.status in (401, 403, 404):
        if archiving and error.retryable and getattr(error, "sent", False):
            return StillArchiving(error.message, why=error.why)
        return error
    if _PASSING.search(text):
        return Busy(error.message, why=error.why, status=error.status)
    if _TAKEN.search(text):
        return Conflict(error.message, why=error.why, status=error.status)
    if _FINAL.search(text):
        return Refused(error.message, why=error.why, status=error.status)
    if archiving and (error.status in (502, 504) or _TIMED_OUT.search(text)):
        return StillArchiving(error.message, why=error.why, status=error.status)
    if archiving and error.status == 500:
        return Refused(error.message, why=error.why, status=error.status)
    return error
