"""DICOM by import: a sink in front of another one, which takes everything that is not imported.

The steps for one session, chosen so that nothing half done can archive itself:

1. scans go one after another into one prearchive entry, opened with `SOURCE=uploader` and
   `prevent_auto_commit=true`, which keep the server's idle-session job away; both are read back;
2. a DICOM object leaves this process only after its CRC and MD5 have agreed, since an importer
   stores entries as they arrive; it is held in memory to 16 MiB, beyond that on disk;
3. objects are named by their SOP Instance UID, so that the entry's listing proves each of them;
4. the entry is built, listed, compared, and archived once, under a label that must be free;
5. the archived scans are found again by series UID, and the map is remembered.

A session that cannot be completed has its entry deleted: by the address in the first answer, and
where none came, because it carries our marks and was not there before. Entries that are not ours
are never touched. A scan that import could not keep as it is goes by copy, and the unit says so.

A server may ignore the flags of step 1. Then the project's routing is manual while the run lasts
(`routing`), and an entry is known to be ours by its address alone.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Literal

import anyio
import anyio.to_thread

from xnatctl.engine import crash
from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.types import Item, Stamp, Unit, Verdict
from xnatctl.errors import (
    Conflict,
    Corrupt,
    Lacking,
    LocalFault,
    PermissionDenied,
    Refused,
    Replan,
    ServerFault,
)
from xnatctl.model import PrearchiveEntry
from xnatctl.retry import Sleep, Waiting
from xnatctl.xnat.imports import Imports, StillArchiving, entry_of
from xnatctl.xnat.parse import digest_of
from xnatctl.zipstream import Event as ZipEvent
from xnatctl.zipstream import MemberData, MemberEnd, MemberStart, ZipWriter

from .archive import ArchiveSink, Remember, known_session
from .catalogue import SETTINGS
from .importable import read_header, scan_of, with_imports
from .routing import Routing

IN_MEMORY = 16 * 1024 * 1024
PIECE = 256 * 1024
ROUTE = f"{SETTINGS}/prearchive_code"
_DICOM_KEY = re.compile(r"scans/[^/]+/resources/DICOM")


@dataclass(slots=True)
class _Intake:
    """A session on its way in: its entry, the objects sent by scan, and what each was called."""

    entry: PrearchiveEntry | None = None
    before: frozenset[tuple[str, str]] | None = None
    sent: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    state: Literal["open", "asked", "archived"] = "open"
    """From `asked` on nothing is sent again: the server archives, whatever becomes of answers."""


class PrearchiveSink:
    """Imports the DICOM of imaging sessions, and hands the rest to `archive`."""

    accepts_zip = True
    holds_digests = True
    may_rewrite = True

    def __init__(
        self,
        archive: ArchiveSink,
        imports: Imports,
        *,
        remember: Remember,
        waiting: Waiting | None = None,
        routing: Routing | None = None,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self.name = archive.name
        self._routing = routing
        self._archive = archive
        self._imports = imports
        self._remember = remember
        self._waiting = waiting or Waiting()
        self._sleep = sleep
        self._intakes: dict[str, _Intake] = {}
        self._lacked: set[tuple[str, str]] = set()

    # --- the plan ------------------------------------------------------------------------------

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        return with_imports(self._archive.prepare(unit, inventory), inventory)

    async def inventory(self, unit: Unit) -> Inventory:
        found = dict(await self._archive.inventory(unit))
        routing = self._routing if ROUTE in found else None
        if routing is not None and (code := await routing.before()):
            found[ROUTE] = Stamp(digest=digest_of(code))
        scans = (
            [key for key in found if _DICOM_KEY.fullmatch(key)] if unit.kind == "session" else []
        )
        if not scans:
            return found
        if not known_session(unit):
            # No run of ours made this session, as far as we know: the series has to be the same.
            series = await self._archive.series(unit)
        else:
            series = {item.key: item.uid for item in unit.items if item.kind == "import"}
        for key in scans:
            found[key] = Stamp(objects=found[key].objects, uid=series.get(key, ""))
        return found

    # --- writing -------------------------------------------------------------------------------

    async def begin(self, unit: Unit) -> None:
        importing = [item for item in unit.to_move if item.kind == "import"]
        if importing:
            # An import would merge with what came since the inventory: look once more.
            self._archive.seat(unit).is_new = False
        await self._archive.begin(unit)
        if importing:
            await self._drop_leftover(unit)
            fresh = any(item.verdict is Verdict.COPY for item in importing)
            if fresh and self._archive.seat(unit).session_id:
                raise Conflict(
                    f"the destination already has a session {unit.target.session}",
                    why="its scans differ from the source's, and importing would merge the two",
                    hint="use --dicom copy, or rename or remove the session there",
                )
            self._intakes[unit.key] = _Intake()

    async def _drop_leftover(self, unit: Unit) -> None:
        """Delete the entry of an earlier run that died; its address was stored before it was
        used. One that the server is archiving is waited for: then the session is there.
        """
        address, before = unit.facts.get("entry", ""), unit.facts.get("before")
        was_archived = False
        if address:
            left = await self._imports.find_entry(entry_of(address))
            if left is not None and "ARCHIVING" in left.status:
                await self._wait_until_archived(unit, left)
                was_archived = True
            elif left is not None and (left.is_ours or unit.facts.get("unmarked")):
                await self._imports.delete(left)
            elif left is None:
                was_archived = bool(self._archive.seat(unit).session_id)
        elif before is not None:
            for one in await self._imports.list_entries(unit.target.project):
                new = _marks({(one.timestamp, one.folder)}) not in before.split(" ")
                if new and one.is_ours and one.name == unit.target.session:
                    await self._imports.delete(one)
        if address or before is not None:
            await self._remember(unit.key, {"entry": None, "unmarked": None, "before": None})
        if was_archived and any(item.verdict is Verdict.COPY for item in unit.to_move):
            raise Replan("what an earlier run had sent has been archived meanwhile")

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        if self._routing is not None and item.key == ROUTE:
            code = b"".join([chunk async for chunk in chunks])
            if not await self._routing.wish(code.decode()):
                await self._archive.put(unit, item, _once(code))
            return
        await self._archive.put(unit, item, chunks)

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        if item.kind != "import":
            await self._archive.put_many(unit, item, events)
            return
        intake = self._intakes[unit.key]
        if intake.state != "open":
            return
        if intake.before is None:
            entries = await self._imports.list_entries(unit.target.project)
            intake.before = frozenset((one.timestamp, one.folder) for one in entries)
            # Who dies before the first answer leaves an entry of which only this is known.
            await self._remember(unit.key, {"before": _marks(intake.before)})
        target = unit.target
        params = {
            "project": target.project,
            "subject": target.subject or "",
            "session": target.session or "",
            "SOURCE": "uploader",
            "prevent_auto_commit": "true",
            "dest": _destination(unit, intake.entry),
        }
        try:
            objects = self._objects(unit, item, events)
            answer = await self._imports.import_zip(objects, params=params)
        except Lacking as short:
            # Once may be chance; a server whose disk has lost files never sends them.
            if (unit.key, item.key) in self._lacked:
                await self._by_copy(unit, item, short.why)
            self._lacked.add((unit.key, item.key))
            raise
        if not answer:
            raise Refused(f"{self.name} took the archive of {item.key} and imported nothing of it")
        await self._take_entry(unit, intake, [entry_of(uri) for uri in answer])

    async def _take_entry(
        self, unit: Unit, intake: _Intake, entries: list[PrearchiveEntry]
    ) -> None:
        """Keep the entry that the import made, after a look at whether it is where it should be."""
        first = entries[0]
        if (first.timestamp, first.folder) in (intake.before or ()):
            raise Refused(
                f"{self.name} put {unit.key} into an entry of its prearchive that was there before",
                why="somebody else sends the same session, or left it unfinished",
                hint=f"look with `xnatctl prearchive list -P {unit.target.project}`",
            )
        if intake.entry is None:
            crash.at("entry-made")
            await self._remember(unit.key, {"entry": first.url})
            crash.at("entry-remembered")
            intake.entry = first
        if first.project != unit.target.project:
            raise PermissionDenied(
                f"the import went to project {first.project} instead of {unit.target.project}",
                why=f"{self.name} ignores a project that it does not let us import into",
            )
        same = {(one.timestamp, one.folder) for one in (*entries, intake.entry)}
        if len(same) > 1:
            raise Corrupt(
                f"{unit.key} was split over {len(same)} prearchive entries",
                why="another import of the same study may be under way",
            )
        found = await self._imports.find_entry(first)
        if found is None or found.status not in ("RECEIVING", "_RECEIVING"):
            state = found.status if found else "gone"
            raise Corrupt(f"the prearchive entry of {unit.key} did not wait: it is {state}")
        if not found.is_ours:
            await self._make_wait(unit)

    async def _make_wait(self, unit: Unit) -> None:
        """On a server that ignores the marks of an import, have nothing archived by itself."""
        if self._routing is None:
            raise Refused(
                f"{self.name} does not keep imports waiting until they are complete",
                why="it ignores SOURCE and prevent_auto_commit",
                hint="set the project's prearchive to manual, or use --dicom copy",
            )
        await self._remember(unit.key, {"unmarked": "1"})
        if not self._routing.is_held:
            await self._routing.hold()
            # What became of an entry was decided when it was made.
            raise Replan(
                f"{self.name} does not keep imports waiting, so the prearchive of "
                f"{unit.target.project} is manual until this run ends: other arrivals wait in it"
            )

    async def _objects(
        self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]
    ) -> AsyncIterator[bytes]:
        """A zip of the proven objects of one scan, each sent only when it is whole."""
        intake = self._intakes[unit.key]
        scan = scan_of(item)
        intake.sent[scan] = set()
        writer = ZipWriter()
        with _spool() as held:
            async for event in events:
                if isinstance(event, MemberStart):
                    held.seek(0)
                    held.truncate()
                elif isinstance(event, MemberData):
                    held.write(event.plain)
                elif isinstance(event, MemberEnd):
                    held.seek(0)
                    uid = await self._checked_uid(unit, item, event.name, held)
                    intake.sent[scan].add(uid)
                    yield writer.start(f"{scan}/{uid}.dcm", crc=event.crc, size=event.size)
                    held.seek(0)
                    while piece := held.read(PIECE):
                        writer.note(len(piece))
                        yield piece
                    if after := writer.end(event.crc, event.size):
                        yield after
        yield writer.finish()

    async def _checked_uid(self, unit: Unit, item: Item, name: str, held: IO[bytes]) -> str:
        """The SOP Instance UID of an object that an import will keep where it belongs."""
        scan = scan_of(item)
        header = read_header(held)
        problem = ""
        if header is None:
            problem = f"not-dicom:{name} is not DICOM"
        elif header["SOPInstanceUID"] in self._intakes[unit.key].sent[scan]:
            problem = f"twice:{name} has the SOP Instance UID of another object"
        elif unit.facts.get("uid") and header["StudyInstanceUID"] != unit.facts["uid"]:
            problem = f"other-study:{name} belongs to another study"
        elif header["SeriesNumber"] != scan:
            problem = f"series-number:its series number is {header['SeriesNumber'] or 'missing'}"
        if problem or header is None:
            await self._by_copy(unit, item, problem.partition(":")[2])
        assert header is not None
        return header["SOPInstanceUID"]

    async def _by_copy(self, unit: Unit, item: Item, reason: str) -> None:
        await self._remember(unit.key, {f"copy:{item.key}": reason})
        raise Replan(f"scan {scan_of(item)} cannot be imported as it is: {reason}")

    # --- completion ----------------------------------------------------------------------------

    async def seal(self, unit: Unit, stage: int) -> None:
        if stage == 0 and unit.key in self._intakes:
            await self._archive_once(unit, self._intakes[unit.key])
        await self._archive.seal(unit, stage)

    async def _archive_once(self, unit: Unit, intake: _Intake) -> None:
        entry = intake.entry
        if entry is None:
            return
        if intake.state == "open":
            overwrite = await self._make_ready(unit, intake, entry)
            target = unit.target
            crash.at("entry-archive")
            try:
                await self._imports.archive(
                    entry,
                    project=target.project,
                    subject=target.subject or "",
                    session=target.session or "",
                    overwrite=overwrite,
                )
                intake.state = "archived"
            except StillArchiving:
                intake.state = "asked"
        try:
            if intake.state == "asked":
                await self._wait_until_archived(unit, entry)
                intake.state = "archived"
            crash.at("entry-archived")
            await self._map_scans(unit)
        except (Conflict, Corrupt):
            intake.state = "open"
            raise
        crash.at("scans-mapped")
        del self._intakes[unit.key]

    async def _make_ready(self, unit: Unit, intake: _Intake, entry: PrearchiveEntry) -> str:
        """Build the entry, compare it, and see that its place is free; how it is to overwrite."""
        await self._imports.build(entry)
        await self._wait_until_built(unit, entry)
        crash.at("entry-built")
        await self._compare(unit, intake, entry)
        replaced = [item for item in unit.to_move if item.verdict is Verdict.REPLACE]
        replaced = [item for item in replaced if item.kind == "import"]
        if replaced:
            for item in replaced:
                await self._archive.drop_resource(unit, item.key)
        elif await self._archive.find_session(unit) is not None:
            raise Conflict(
                f"the destination got a session {unit.target.session} while this one was sent",
                hint="rename or remove one of them",
            )
        return "append" if replaced else ""

    async def _wait_until_built(self, unit: Unit, entry: PrearchiveEntry) -> None:
        async for found in self._looks(entry, self._waiting.build):
            if found is None:
                raise Corrupt(f"the prearchive entry of {unit.key} is gone before it was archived")
            if found.status == "READY":
                return
            if found.status in ("ERROR", "CONFLICT"):
                raise ServerFault(f"{self.name} could not build {unit.key}: it is {found.status}")
        raise ServerFault(
            f"{self.name} did not build {unit.key} within {self._waiting.build:.0f} s"
        )

    async def _wait_until_archived(self, unit: Unit, entry: PrearchiveEntry) -> None:
        """The answer was lost while the server may go on: look until it has ended, never resend."""
        async for found in self._looks(entry, self._waiting.archive):
            if found is None:
                if await self._archive.find_session(unit) is not None:
                    return
                raise Corrupt(f"{unit.key} is neither in the prearchive nor in the archive")
            if found.status in ("ERROR", "CONFLICT"):
                raise Conflict(f"{self.name} could not archive {unit.key}: it is {found.status}")
        raise StillArchiving(f"{self.name} is still archiving {unit.key}")

    async def _looks(
        self, entry: PrearchiveEntry, most: float
    ) -> AsyncIterator[PrearchiveEntry | None]:
        pause, waited = self._waiting.poll, 0.0
        while waited <= most:
            yield await self._imports.find_entry(entry)
            await self._sleep(pause)
            waited += pause
            pause = min(pause * 1.5, self._waiting.poll_most)

    async def _compare(self, unit: Unit, intake: _Intake, entry: PrearchiveEntry) -> None:
        """Every object sent must be listed in the entry, by name. A second shortfall is a
        refusal.
        """
        listed: set[str] = set()
        for scan in await self._imports.list_entry_scans(entry):
            for file in await self._imports.list_entry_files(entry, scan):
                listed.add(file.path.rpartition("/")[2].removesuffix(".dcm"))
        for item in unit.to_move:
            if item.kind != "import":
                continue
            missing = intake.sent[scan_of(item)] - listed
            if not missing:
                continue
            said = f"{len(missing)} of {len(item.members)} objects did not arrive"
            if unit.facts.get(f"short:{item.key}"):
                await self._by_copy(
                    unit, item, f"the destination's rules refuse {len(missing)} objects"
                )
            await self._remember(unit.key, {f"short:{item.key}": said})
            raise Replan(f"{item.key}: {said}; sending the session once more")

    async def _map_scans(self, unit: Unit) -> None:
        """Find the source's scans again by series UID, and remember where each one went."""
        session = await self._archive.find_session(unit)
        if session is None:
            raise Corrupt(f"{self.name} archived {unit.key} and does not have it")
        seat = self._archive.seat(unit)
        seat.session_id = session.id
        there = await self._archive.list_scans(session.id)
        by_uid = {scan.uid: scan.id for scan in there if scan.uid}
        ids = {scan.id for scan in there}
        facts: dict[str, str | None] = {"session_id": session.id, "entry": None, "unmarked": None}
        facts["before"] = None
        for item in unit.items:
            if item.kind != "import":
                continue
            scan = scan_of(item)
            found = by_uid.get(item.uid) or (scan if scan in ids else "")
            if not found:
                raise Corrupt(f"scan {scan} of {unit.key} is not in the archived session")
            seat.scans[scan] = found
            facts[f"scan:{scan}"] = found
            facts[f"imported:{item.key}"] = item.digest
        await self._remember(unit.key, facts)

    async def abandon(self, unit: Unit) -> None:
        """Delete our entry, so that nothing incomplete can be archived by anybody later.

        One that the server was asked to archive is complete, and stays.
        """
        intake = self._intakes.get(unit.key)
        if intake is not None and intake.state != "open":
            await self._archive.abandon(unit)
            return
        if intake is not None and intake.before is not None:
            for found in await self._made(unit, intake, intake.before):
                if "ARCHIVING" not in found.status:
                    await self._imports.delete(found)
            await self._remember(unit.key, {"entry": None, "unmarked": None, "before": None})
        self._intakes[unit.key] = _Intake()
        await self._archive.abandon(unit)

    async def _made(
        self, unit: Unit, intake: _Intake, before: frozenset[tuple[str, str]]
    ) -> list[PrearchiveEntry]:
        """The entries that this attempt made.

        An import that broke off never told where its objects are, and the server may still be
        busy with them: then the marks tell that an entry is ours.
        """
        found: list[PrearchiveEntry] = []
        for pause in (0.0, self._waiting.poll, 4 * self._waiting.poll):
            await self._sleep(pause)
            found = [
                one
                for one in await self._imports.list_entries(unit.target.project)
                if one.is_ours
                and one.name == unit.target.session
                and (one.timestamp, one.folder) not in before
            ]
            if found or not any(intake.sent.values()):
                break
        known = intake.entry
        if known is not None and known.url not in [one.url for one in found]:
            other = await self._imports.find_entry(known)
            found += [other] if other is not None else []
        return found


@contextmanager
def _spool() -> Iterator[IO[bytes]]:
    """Room for one object, on disk where it is large. Raises LocalFault where there is none."""
    try:
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as held:
            yield held
    except OSError as error:
        raise LocalFault(
            f"{tempfile.gettempdir()} cannot hold an object on its way",
            why=error.strerror or str(error),
            hint="free some space, or name another folder with TMPDIR",
        ) from error


def _marks(entries: Iterable[tuple[str, str]]) -> str:
    """Entries as one fact: a timestamp and a folder each, neither of which holds a blank."""
    return " ".join(sorted(f"{timestamp}/{folder}" for timestamp, folder in entries))


def _destination(unit: Unit, entry: PrearchiveEntry | None) -> str:
    if entry is None:
        return f"/prearchive/projects/{unit.target.project}"
    return f"/prearchive/projects/{entry.project}/{entry.timestamp}/{entry.folder}"


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
