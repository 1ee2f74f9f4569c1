"""DICOM out of files into a prearchive, and from there into the archive: a sink in front of an
`ArchiveSink`, which takes the files of resources.

The steps for one session:

1. series go one after another into one prearchive entry, opened with `SOURCE=uploader` and
   `prevent_auto_commit=true`, so that nothing half done archives itself; the address of the entry
   and each series that was answered for are stored;
2. an interrupted upload goes on in its entry: a series that was answered for is not sent again,
   one that was cut off is sent whole, over the same names;
3. objects are named by their SOP Instance UIDs; when all are sent the entry is built, and its
   listing compared with what was read: nothing may lack, nothing be there that was not read;
4. what lacks is sent once more; what lacks again was refused by the server's rules;
5. the entry stays (`prearchive`), or is archived once, under a label that is free (`archive`).

A failed upload leaves its entry where it is, named; half a session never reaches the archive. With
`direct` there is no prearchive: the server collects the session and archives it when told, and what
arrived is compared afterwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Literal

from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.types import Item, Stamp, Unit
from xnatctl.errors import (
    Conflict,
    Corrupt,
    NotFound,
    PermissionDenied,
    Refused,
    ServerFault,
)
from xnatctl.model import PrearchiveEntry
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.imports import Imports, entry_of
from xnatctl.xnat.parse import digest_of
from xnatctl.zipstream import Event as ZipEvent
from xnatctl.zipstream import MemberData, MemberEnd, MemberStart, archive_length

from .archive import ArchiveSink, Remember
from .catalogue import SESSION_XML
from .entries import Entries, Slot
from .repack import as_zip
from .tarring import as_tar, tar_length

Goal = Literal["archive", "prearchive", "direct"]
Mode = Literal["zip", "tar", "gradual"]
Overwrite = Literal["none", "append", "delete"]
DIRECT = "/xapi/direct-archive/"


@dataclass(frozen=True, slots=True)
class Intent:
    """What an upload is to lead to, in which form it travels, and what an existing session means.

    `none`: a conflict. `append`: what is not there yet is added. `delete`: what is there is
    replaced.
    """

    goal: Goal = "archive"
    mode: Mode = "zip"
    overwrite: Overwrite = "none"


@dataclass(slots=True)
class _Intake:
    """A session on its way in: its entry, the series answered for, objects sent one by one."""

    entry: PrearchiveEntry | None = None
    direct: str = ""
    sent: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    short: bool = False
    fresh: bool = False
    is_safe: bool = False


class UploadSink:
    """Imports the DICOM of one session, and hands files to `archive`."""

    accepts_zip = True
    holds_digests = True
    may_rewrite = True

    def __init__(
        self,
        archive: ArchiveSink,
        xnat: Xnat,
        entries: Entries,
        *,
        remember: Remember,
        intent: Intent,
    ) -> None:
        self.name = archive.name
        self.uri = ""
        """Where the session is now: its address in the archive, or its prearchive entry."""
        self.sent_files = 0
        self.sent_bytes = 0
        self._archive = archive
        self._xnat = xnat
        self._imports = Imports(xnat)
        self._entries = entries
        self._remember = remember
        self._intent = intent
        self._intakes: dict[str, _Intake] = defaultdict(_Intake)
        self._sealed: set[str] = set()
        self._there: dict[str, set[str]] = {}

    # --- the plan ------------------------------------------------------------------------------

    async def inventory(self, unit: Unit) -> Inventory:
        """Files as the archive lists them; a series when all of it is where it is to end."""
        found = dict(await self._archive.inventory(unit))
        series = [item for item in unit.items if item.kind == "import"]
        if not series:
            return found
        there = self._there[unit.key] = await self._arrived(unit, found)
        for item in series:
            if all(one.key in there for one in item.members):
                found[item.key] = Stamp(objects=len(item.members), uid=item.uid)
        return found

    async def _arrived(self, unit: Unit, files: Inventory) -> set[str]:
        """The SOP Instance UIDs that have reached the goal."""
        sealed = unit.key in self._sealed
        if self._intent.goal == "prearchive":
            entry = self._intakes[unit.key].entry or _remembered(unit)
            row = await self._entries.find(entry) if entry else None
            if row is None or row.status != "READY":
                return set()
            self.uri = row.url
            return await self._entries.uids(row)
        # What is replaced counts as missing until it was.
        if self._intent.overwrite == "delete" and not sealed:
            return set()
        if SESSION_XML not in files:
            return set()
        session = await self._archive.find_session(unit)
        return await self._entries.archived_uids(session.id) if session is not None else set()

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        """What of each series has to go. Raises Conflict where a session must not be touched."""
        series = [item for item in unit.items if item.kind == "import"]
        if self._intent.goal == "prearchive" or SESSION_XML not in inventory or not series:
            return unit
        missing = [item for item in series if item.key not in inventory]
        if missing and self._intent.overwrite == "none":
            raise Conflict(
                f"{unit.target.project} has a session {unit.target.session} already",
                why=f"series {missing[0].key.partition('/')[2]} is not, or not whole, in it",
                hint="upload under another label, or see --overwrite append and delete",
            )
        if self._intent.overwrite == "none" or not missing:
            return unit
        there = self._there.get(unit.key, set())
        return replace(
            unit,
            items=tuple(
                replace(item, members=tuple(one for one in item.members if one.key not in there))
                if item.kind == "import" and item.key not in inventory
                else item
                for item in unit.items
            ),
        )

    # --- writing -------------------------------------------------------------------------------

    async def begin(self, unit: Unit) -> None:
        """Look for what an interrupted upload has left, by the address that it stored."""
        if self._intent.goal != "prearchive":
            await self._archive.begin(unit)
        if not any(item.kind == "import" for item in unit.items):
            self._see_that_it_exists(unit)
        if not any(item.kind == "import" for item in unit.to_move):
            return
        intake = self._intakes[unit.key] = _Intake()
        entry = _remembered(unit)
        row = await self._entries.find(entry) if entry else None
        if row is not None and row.is_ours:
            intake.entry = row
            intake.sent = {
                item.key for item in unit.items if unit.facts.get(f"sent:{item.key}") == _mark(item)
            }

    def _see_that_it_exists(self, unit: Unit) -> None:
        if not self._archive.seat(unit).session_id:
            raise NotFound(
                f"{unit.target.project} has no session {unit.label} that files could be added to",
                hint="upload its DICOM first, without --attach-only",
            )

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        await self._archive.put(unit, item, chunks)

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        """Send one series, unless it was answered for."""
        if item.kind != "import":
            await self._archive.put_many(unit, item, events)
            return
        intake = self._intakes[unit.key]
        if item.key in intake.sent:
            return
        if self._intent.mode == "gradual":
            await self._send_each(unit, item, events)
        else:
            await self._take(unit, await self._send_archive(unit, item, events))
        intake.fresh = True
        intake.sent.add(item.key)
        self.sent_files += item.files
        self.sent_bytes += item.bytes
        await self._remember(unit.key, {f"sent:{item.key}": _mark(item)})

    async def _send_archive(
        self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]
    ) -> list[str]:
        scan = item.key.split("/")[1]
        members = [(f"{scan}/{one.path}", one.size or 0) for one in item.members]
        named = _in_folder(scan, events)
        if self._intent.mode == "tar":
            body, length, media = as_tar(named), tar_length(members), "application/x-tar"
        else:
            body, length, media = as_zip(named), archive_length(members), "application/zip"
        return await self._imports.import_archive(
            body, params=self._params(unit), length=length, media=media
        )

    async def _send_each(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        """One request an object; what was answered for is not sent again."""
        intake = self._intakes[unit.key]
        async for start in events:
            assert isinstance(start, MemberStart)
            body = _body_of(events)
            if start.name in intake.objects:
                async for _ in body:
                    pass
                continue
            answer = await self._imports.import_object(
                body, params=self._params(unit), length=start.size or 0
            )
            await self._take(unit, answer)
            intake.objects.add(start.name)

    def _params(self, unit: Unit) -> dict[str, str]:
        target, entry = unit.target, self._intakes[unit.key].entry
        project, subject, session = target.project, target.subject or "", target.session or ""
        # gradual-DICOM reads other names than DICOM-zip (XNAT 1.8).
        params = {"project": project, "PROJECT_ID": project, "subject": subject}
        params |= {"SUBJECT_ID": subject, "session": session, "EXPT_LABEL": session}
        if self._intent.goal == "direct":
            params["Direct-Archive"] = "true"
            if self._intent.overwrite != "none":
                params["overwrite"] = self._intent.overwrite
            return params
        folder = f"/{entry.timestamp}/{entry.folder}" if entry else ""
        params |= {"SOURCE": "uploader", "prevent_auto_commit": "true"}
        return {**params, "dest": f"/prearchive/projects/{project}{folder}"}

    async def _take(self, unit: Unit, answer: list[str]) -> None:
        """See that the import went where it was sent: XNAT ignores a project it does not like."""
        if not answer:
            raise Refused(
                f"{self.name} took the objects and kept none of them",
                why="a series filter or an anonymisation script of the site may refuse them",
            )
        intake, project = self._intakes[unit.key], unit.target.project
        if self._intent.goal == "direct" and answer[0].startswith(DIRECT):
            if answer[0].split("/")[3] != project:
                raise _astray(self.name, project, answer[0].split("/")[3])
            intake.direct = answer[0]
            return
        entries = [entry_of(uri) for uri in answer]
        if intake.entry is None:
            intake.entry = entries[0]
            self.uri = entries[0].url
            await self._remember(unit.key, {"entry": entries[0].url})
        if entries[0].project != project:
            raise _astray(self.name, project, entries[0].project)
        here = (intake.entry.timestamp, intake.entry.folder)
        if other := [one for one in entries if (one.timestamp, one.folder) != here]:
            raise Refused(
                f"{unit.label} was split over several prearchive entries",
                why=f"{other[0].url} beside {intake.entry.url}",
                hint="another upload of this study may be under way; see `xnatctl prearchive list`",
            )
        if not intake.is_safe:
            await self._see_that_it_waits(intake.entry)
            intake.is_safe = True

    async def _see_that_it_waits(self, entry: PrearchiveEntry) -> None:
        """The server must not archive the entry by itself while it is incomplete."""
        row = await self._entries.find(entry)
        if row is None or row.is_ours:
            return
        if await self._xnat.get_prearchive_code(entry.project) != "0":
            raise Refused(
                f"{self.name} does not keep uploads waiting until they are complete",
                why="it ignores SOURCE and prevent_auto_commit",
                hint=f"xnatctl prearchive settings -P {entry.project} --set manual",
            )

    # --- completion ----------------------------------------------------------------------------

    async def seal(self, unit: Unit, stage: int) -> None:
        if stage == 0 and any(item.kind == "import" for item in unit.to_move):
            intake = self._intakes[unit.key]
            if intake.direct:
                await self._imports.archive_direct(intake.direct)
            elif intake.entry is not None:
                await self._finish(unit, intake, intake.entry)
            self._sealed.add(unit.key)
            if self._intent.goal != "prearchive":
                await self._settle(unit)
        await self._archive.seal(unit, stage)

    async def _finish(self, unit: Unit, intake: _Intake, entry: PrearchiveEntry) -> None:
        """Build, compare, archive once: each only if it has not been done before."""
        target = unit.target
        place = Slot(target.project, target.subject or "", target.session or "")
        row = await self._entries.find(entry)
        self.uri = entry.url
        if row is None:
            # An earlier request may have archived it meanwhile; what is there is compared anyway.
            if self._intent.goal == "prearchive" or not await self._entries.find_session(place):
                raise Corrupt(f"the prearchive entry {entry.url} is gone before it was archived")
            return
        if "ARCHIVING" in row.status:
            await self._entries.wait_until_archived(row, place)
            return
        if intake.fresh or row.status not in ("READY", "CONFLICT"):
            try:
                await self._entries.build(row)
            except ServerFault:
                # An entry of which the server kept nothing cannot be built: that is the reason.
                await self._compare(unit, intake, row)
                raise
        await self._compare(unit, intake, row)
        if self._intent.goal == "prearchive":
            return
        if self._intent.overwrite == "none" and await self._entries.find_session(place):
            raise Conflict(
                f"{target.project} has a session {target.session} already",
                why=f"what was uploaded waits in {entry.url}",
                hint="archive it from there under another label, or delete it",
            )
        overwrite = "" if self._intent.overwrite == "none" else self._intent.overwrite
        await self._entries.archive(row, place, overwrite=overwrite)

    async def _compare(self, unit: Unit, intake: _Intake, entry: PrearchiveEntry) -> None:
        """Every object that was read is in the entry, and no other."""
        there = await self._entries.uids(entry)
        series = [item for item in unit.to_move if item.kind == "import"]
        wanted = {one.key for item in series for one in item.members}
        if extra := there - wanted:
            raise Conflict(
                f"the prearchive entry {entry.url} holds {len(extra)} objects of another upload",
                why=f"such as {min(extra)}",
                hint="archive or delete that entry, then upload again",
            )
        lacking = wanted - there
        if not lacking:
            return
        said = f"{len(lacking)} of {len(wanted)} objects did not arrive in {entry.url}"
        if intake.short:
            raise Refused(
                said,
                why=f"{min(lacking)} was sent twice, so the server's rules refuse it",
                hint="ask for the series filter and the anonymisation script of the project",
            )
        intake.short = True
        for item in series:
            if any(one.key in lacking for one in item.members):
                intake.sent.discard(item.key)
                intake.objects -= {one.path for one in item.members}
                await self._remember(unit.key, {f"sent:{item.key}": None})
        raise ServerFault(f"{said}; they are sent once more")

    async def _settle(self, unit: Unit) -> None:
        """Take the seat of the archived session, and forget the way that led there."""
        session = await self._archive.find_session(unit)
        if session is None:
            raise Corrupt(f"{self.name} archived {unit.label} and does not have it")
        target = unit.target
        self._archive.seat(unit).session_id = session.id
        self.uri = (
            f"/data/archive/projects/{target.project}/subjects/{target.subject}"
            f"/experiments/{target.session}"
        )
        facts: dict[str, str | None] = {name: None for name in unit.facts if _is_of_way(name)}
        facts |= {f"sent:{item.key}": None for item in unit.items if item.kind == "import"}
        await self._remember(unit.key, {**facts, "entry": None, "session_id": session.id})

    async def abandon(self, unit: Unit) -> None:
        """Leave the entry where it is: the next run goes on in it."""
        intake = self._intakes[unit.key]
        if intake.entry is not None:
            self.uri = intake.entry.url
        await self._archive.abandon(unit)


def _is_of_way(fact: str) -> bool:
    return fact == "entry" or fact.startswith("sent:")


def _remembered(unit: Unit) -> PrearchiveEntry | None:
    address = unit.facts.get("entry", "")
    return entry_of(address) if address else None


def _mark(item: Item) -> str:
    """What a series was when it was sent: its objects and their sizes."""
    return digest_of(*sorted(f"{one.key} {one.size}" for one in item.members))


def _astray(name: str, wanted: str, got: str) -> PermissionDenied:
    return PermissionDenied(
        f"the upload went to project {got} instead of {wanted}",
        why=f"{name} ignores a project that is unknown or that it does not let us import into",
        hint="see `xnatctl project list`; what was sent can be deleted from that prearchive",
    )


async def _in_folder(folder: str, events: AsyncIterator[ZipEvent]) -> AsyncIterator[ZipEvent]:
    async for event in events:
        yield (
            event
            if isinstance(event, MemberData)
            else event._replace(name=f"{folder}/{event.name}")
        )


async def _body_of(events: AsyncIterator[ZipEvent]) -> AsyncIterator[bytes]:
    """The bytes of the member that has just begun."""
    async for event in events:
        if isinstance(event, MemberEnd):
            return
        if isinstance(event, MemberData):
            yield bytes(event.plain)
