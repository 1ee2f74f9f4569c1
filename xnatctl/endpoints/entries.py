"""What can be done with one prearchive entry, with patience: build, archive, wait, list, look in.

A request that archives may take longer than the server or a proxy waits, and then its answer is a
failure while the work goes on (XNAT answers 500 after 600 s). So the answer is not believed: the
entry is looked at until it has gone or says that it failed, and nothing is ever sent twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

import anyio
import anyio.to_thread

from xnatctl.dicom.head import Head, Unfit, read_head
from xnatctl.errors import Conflict, Corrupt, NotFound, ServerFault
from xnatctl.model import PrearchiveEntry, Ref, Session
from xnatctl.retry import Sleep, Waiting
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.imports import Imports, StillArchiving
from xnatctl.zipstream import MemberData, MemberEnd, MemberStart, ZipReader

HEAD_BYTES = 1024 * 1024
"""So much of an object in an archive is kept for its header; private elements can be long."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an entry is archived: labels of the destination."""

    project: str
    subject: str
    session: str


class Entries:
    """The prearchive of a server, used with patience."""

    def __init__(
        self, xnat: Xnat, *, waiting: Waiting | None = None, sleep: Sleep = anyio.sleep
    ) -> None:
        self._xnat = xnat
        self._imports = Imports(xnat)
        self._waiting = waiting or Waiting()
        self._sleep = sleep

    async def find(self, entry: PrearchiveEntry) -> PrearchiveEntry | None:
        return await self._imports.find_entry(entry)

    async def find_session(self, place: Slot) -> Session | None:
        try:
            return await self._xnat.resolve_session(place.session, project=place.project)
        except NotFound:
            return None

    async def looks(
        self, entry: PrearchiveEntry, most: float
    ) -> AsyncIterator[PrearchiveEntry | None]:
        """The entry as it is now, again and again for `most` seconds; None once it has gone."""
        pause, waited = self._waiting.poll, 0.0
        while waited <= most:
            yield await self._imports.find_entry(entry)
            await self._sleep(pause)
            waited += pause
            pause = min(pause * 1.5, self._waiting.poll_most)

    async def build(self, entry: PrearchiveEntry) -> None:
        """Have the entry built and wait until it is READY. Raises ServerFault, Corrupt."""
        await self._imports.build(entry)
        await self.wait_until_ready(entry)

    async def wait_until_ready(self, entry: PrearchiveEntry) -> None:
        async for found in self.looks(entry, self._waiting.build):
            if found is None:
                raise Corrupt(f"the prearchive entry {entry.url} is gone")
            if found.status == "READY":
                return
            if found.status in ("ERROR", "CONFLICT"):
                raise ServerFault(
                    f"{self._xnat.name} could not build {entry.url}: it is {found.status}",
                    why=await self.reason(entry),
                )
        raise ServerFault(
            f"{self._xnat.name} did not build {entry.url} within {self._waiting.build:.0f} s"
        )

    async def archive(self, entry: PrearchiveEntry, place: Slot, *, overwrite: str = "") -> str:
        """Archive the entry once, and return the address of the session. Raises Conflict."""
        names = {"project": place.project, "subject": place.subject, "session": place.session}
        try:
            return await self._imports.archive(entry, **names, overwrite=overwrite)
        except StillArchiving:
            return await self.wait_until_archived(entry, place)

    async def wait_until_archived(self, entry: PrearchiveEntry, place: Slot) -> str:
        async for found in self.looks(entry, self._waiting.archive):
            if found is None:
                session = await self.find_session(place)
                if session is None:
                    raise Corrupt(f"{entry.url} is neither in the prearchive nor in the archive")
                return f"/data/experiments/{session.id}"
            if found.status in ("ERROR", "CONFLICT"):
                raise Conflict(
                    f"{self._xnat.name} could not archive {entry.url}: it is {found.status}",
                    why=await self.reason(entry),
                )
        raise StillArchiving(
            f"{self._xnat.name} is still archiving {entry.url}",
            hint="look again later with `xnatctl prearchive list`; do not upload it twice",
        )

    async def wait_until_gone(self, entry: PrearchiveEntry) -> bool:
        """Whether the entry left its place (it was moved or deleted) while it was waited for."""
        async for found in self.looks(entry, self._waiting.build):
            if found is None:
                return True
            if found.status in ("ERROR", "CONFLICT"):
                return False
        return False

    async def reason(self, entry: PrearchiveEntry) -> str:
        """Why an entry failed, in the last words of its log."""
        try:
            return await self._imports.last_log(entry)
        except NotFound:
            return ""

    async def uids(self, entry: PrearchiveEntry) -> set[str]:
        """The SOP Instance UIDs in an entry: by name where names are UIDs, else by content."""
        names = []
        for scan in await self._imports.list_entry_scans(entry):
            for file in await self._imports.list_entry_files(entry, scan):
                names.append(file.path)
        found = uids_by_name(names)
        if found is not None:
            return found
        async with self._imports.open_entry_zip(entry) as chunks:
            return {head.uid for head in await heads(chunks)}

    async def studies(self, entry: PrearchiveEntry) -> set[str]:
        """The Study Instance UIDs of its objects, each read."""
        async with self._imports.open_entry_zip(entry) as chunks:
            return {head.study for head in await heads(chunks)}

    async def archived_uids(self, session_id: str) -> set[str]:
        """The SOP Instance UIDs in the DICOM resources of an archived session's scans."""
        every = Ref("", session_id=session_id)
        files = await self._xnat.list_files(every, deep=True)
        names = [one.path for one in files if one.resource == "DICOM" and "/scans/" in one.uri]
        found = uids_by_name(names)
        if found is not None:
            return found
        async with self._xnat.open_zip(every.at("scans", "ALL").in_resource("DICOM")) as chunks:
            return {head.uid for head in await heads(chunks)}


def uids_by_name(names: list[str]) -> set[str] | None:
    """The UIDs that the files are named by; None when a name is none."""
    found = set()
    for name in names:
        uid = name.rpartition("/")[2].removesuffix(".dcm")
        if not uid or uid.strip("0123456789."):
            return None
        found.add(uid)
    return found


async def heads(chunks: AsyncIterator[bytes]) -> list[Head]:
    """The heads of the DICOM objects in a zip, read while it arrives."""
    found: list[Head] = []
    reader = ZipReader()
    held, size = BytesIO(), 0
    async for chunk in chunks:
        for event in reader.feed(chunk):
            if isinstance(event, MemberStart):
                held, size = BytesIO(), 0
            elif isinstance(event, MemberData):
                size += len(event.plain)
                if held.tell() < HEAD_BYTES:
                    held.write(event.plain)
            elif isinstance(event, MemberEnd):
                held.seek(0)
                with suppress(Unfit):
                    found.append(await anyio.to_thread.run_sync(read_head, held, size))
    reader.close()
    return found
