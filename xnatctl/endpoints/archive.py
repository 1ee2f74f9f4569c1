"""An XNAT archive as a sink: documents as XML, files verbatim into resources."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import anyio

from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.types import Container, Item, Stamp, Unit, Verdict
from xnatctl.errors import BadReply, Conflict, LeftBehind, NotFound
from xnatctl.model import File, Level, Ref, Scan, Session
from xnatctl.xnat import metadata, paths
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.edits import Edits
from xnatctl.xnat.fields import Fields, Values
from xnatctl.xnat.parse import cell, digest_of
from xnatctl.xnat.xmldoc import Document
from xnatctl.zipstream import Event as ZipEvent

from .catalogue import (
    FIELDS,
    GROUPS,
    NO_FIELDS,
    PROJECT,
    PROJECT_XML,
    SESSION_XML,
    SETTINGS,
    SUBJECT_XML,
    USERS,
    Catalogue,
    Place,
    container_key,
    document_key,
    label_of,
)
from .repack import as_zip

Remember = Callable[[str, Mapping[str, str | None]], Awaitable[None]]
"""Keeps facts of a unit durably: key of the unit, facts (None removes one)."""


@dataclass(slots=True)
class Seat:
    """What the sink knows of a unit while it runs: the accession ID there, scans and assessors
    by source name.
    """

    session_id: str = ""
    scans: dict[str, str] = field(default_factory=dict)
    assessors: dict[str, str] = field(default_factory=dict)
    ensured: dict[str, Ref] = field(default_factory=dict)
    series: dict[str, str] = field(default_factory=dict)
    recognised: dict[str, str] = field(default_factory=dict)
    """Facts of a session that was there before this state store knew of it."""
    is_new: bool = False
    """Whether the last inventory found nothing of this label."""
    is_written: bool = False
    """Whether the session's document was written in this run, so that nobody need look for it."""


def known_session(unit: Unit) -> str:
    """The accession ID that is remembered of a session, by a run that wrote or recognised it."""
    return unit.facts.get("session_id") or unit.facts.get("keep:session_id") or ""


def _is_described(unit: Unit) -> bool:
    return unit.target.session is not None and any(one.key == SESSION_XML for one in unit.items)


def place_in(key: str) -> Place:
    """Where `scans/3` or `assessors/LABEL` is in its unit; nothing stands for the unit itself."""
    level, _, item = key.partition("/")
    return (level or None, item.replace("%2F", "/") or None, None)  # type: ignore[return-value]


def _owner(ref: Ref) -> Ref:
    return replace(ref, resource=None)


class ArchiveSink:
    """Writes into an archive: documents as XML, files verbatim into resources.

    Requests that write into one resource come one after another (the runner's lanes); first
    creation is serial per label, since two creators of one label can make two.
    """

    accepts_zip = True
    holds_digests = True
    may_rewrite = False

    def __init__(
        self, xnat: Xnat, *, remember: Remember, name: str = "", settings: bool = False
    ) -> None:
        self.name = name or xnat.url
        self._settings = settings
        self._xnat = xnat
        self._remember = remember
        self._seats: dict[str, Seat] = {}
        self._creating: dict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._ids: dict[str, str] = {}
        self._edits = Edits(xnat)
        self._fields = Fields(xnat)

    def seat(self, unit: Unit) -> Seat:
        if unit.key not in self._seats:
            there = known_session(unit) or unit.target.session_id or ""
            seat = Seat(session_id=there)
            for fact, value in unit.facts.items():
                name = fact.removeprefix("keep:")
                what, _, source = name.partition(":")
                if what == "scan":
                    seat.scans[source] = value
                elif what == "assessor":
                    seat.assessors[source] = value
            self._learn(unit.facts.get("source_id", ""), there)
            self._learn(unit.facts.get("source_id", ""), unit.facts.get("subject_id", ""))
            self._seats[unit.key] = seat
        return self._seats[unit.key]

    def _learn(self, source: str, there: str) -> None:
        """Keep what an accession ID of the source became here, for documents that name it."""
        if source and there:
            self._ids[source] = there

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        """What a project says that was here before is compared and named, not changed."""
        if recognised := self.seat(unit).recognised:
            unit = replace(unit, facts={**unit.facts, **recognised})
        ours = self._settings or unit.facts.get("created")
        if unit.key == PROJECT and inventory and not ours:
            return _without_document(unit, inventory)
        if unit.key != SETTINGS or ours:
            return unit
        members = tuple(one for one in unit.items if one.key in (USERS, GROUPS))
        differing = [
            one.key.rpartition("/")[2]
            for one in unit.items
            if one not in members and inventory.get(one.key, Stamp()).digest != one.digest
        ]
        note = f"settings kept as they are here: {', '.join(differing)} (--settings copies them)"
        return replace(unit, items=members, notes=(*unit.notes, note) if differing else unit.notes)

    async def inventory(self, unit: Unit) -> Inventory:
        seat = self.seat(unit)
        if unit.key == SETTINGS:
            return await self._settings_here(unit)
        alike: dict[str, Stamp] = {}
        if _is_described(unit) and not known_session(unit) and not seat.is_written:
            existing = await self.find_session(unit)
            if existing is None:
                seat.session_id, seat.is_new = "", True
                return {}
            alike = await self._recognise(unit, existing.id)
        try:
            found = (await self.catalogue(unit)).inventory()
        except NotFound:
            seat.session_id = ""
            seat.is_new = True
            return {}
        seat.is_new = False
        for key in (PROJECT_XML, SUBJECT_XML, SESSION_XML):
            found[key] = Stamp()
        for label in seat.assessors:
            found[document_key(label)] = Stamp()
        if unit.key == PROJECT and not unit.facts.get("created"):
            xml = await self._xnat.xml(paths.project(unit.target.project))
            found[PROJECT_XML] = Stamp(digest=metadata.project_fingerprint(xml))
        if unit.facts.get("fields"):
            found[FIELDS] = Stamp(digest=unit.facts["fields"])
        elif unit.target.session is not None and not unit.facts.get("session_id"):
            found[FIELDS] = Stamp(digest=NO_FIELDS)
        for name in unit.facts:
            if name.startswith("share:"):
                key = name.removeprefix("share:")
                found[key if "/" in key else f"shares/{key}"] = Stamp()
        return found | alike | _incomplete(unit, found)

    async def _recognise(self, unit: Unit, session_id: str) -> dict[str, Stamp]:
        """Compare the documents of a session that nothing is remembered of with the source's.

        One that says all that the source's says needs not be written again.
        """
        seat, target = self.seat(unit), unit.target
        detail = await self._xnat.get_session(session_id)
        seat.session_id = session_id
        seat.assessors = {one.label: one.id for one in detail.assessors}
        seat.series = {
            container_key(("scans", one.id, None), "DICOM"): one.uid for one in detail.scans
        }
        source_id = unit.facts.get("source_id", "")
        seat.recognised = {"keep:session_id": session_id, "keep:source_id": source_id}
        for label, assessor in seat.assessors.items():
            seat.recognised[f"keep:assessor:{label}"] = assessor
        self._learn(source_id, session_id)
        documents = {one.key: one for one in unit.items if one.kind == "document"}
        mine = documents[SESSION_XML]
        project, label = target.project, target.session or ""
        said = [
            metadata.for_session(xml, project=project, label=label, scans=seat.scans, ids=self._ids)
            for xml in (detail.xml, mine.body)
        ]
        visit = (unit.facts.get("visit", ""), unit.facts.get("protocol", ""))
        same = visit == (detail.visit, detail.protocol) and metadata.covers(
            *(Document(one).root for one in said)
        )
        found = {SESSION_XML: Stamp(digest=mine.digest if same else "differs")}
        here = metadata.inner_assessors(mine.body, ids=self._ids)
        there = metadata.inner_assessors(detail.xml, ids={})
        for name, text in here.items():
            key = document_key(name)
            if key in documents and name in there:
                same = metadata.covers(there[name], text)
                found[key] = Stamp(digest=documents[key].digest if same else "differs")
        for project, label in detail.shares:
            found[f"shares/{project}"] = Stamp(digest=digest_of(project, label))
        return found

    async def catalogue(self, unit: Unit) -> Catalogue:
        """The files that are there, under the names that the source has for what they hang on."""
        seat, target = self.seat(unit), unit.target
        files = await self._xnat.list_files(target, deep=target.session is not None)
        for inputs in {_owner(one.ref) for one in unit.containers if one.ref.side == "in"}:
            files += await self._inputs(unit, inputs)
        names: dict[tuple[Level, str], str] = {}
        for source, there in seat.scans.items():
            names["scans", there] = source
        for label, there in seat.assessors.items():
            names["assessors", there] = label
        if any("/assessors/" in file.uri for file in files) and not seat.assessors:
            names.update(await self._assessor_names(files))
        return Catalogue(files, names)

    async def _settings_here(self, unit: Unit) -> Inventory:
        try:
            found = await self._xnat.get_settings(unit.target.project)
            listed = [one for one in unit.items if one.key in (USERS, GROUPS)]
            members = await self._xnat.list_members(unit.target.project) if listed else []
            groups = await self._xnat.list_groups(unit.target.project) if listed else []
        except NotFound:
            return {}
        stamps = {f"{SETTINGS}/{name}": Stamp(digest=digest_of(v)) for name, v in found.items()}
        there = {f"{role} {login}" for login, role in [*members, *(("", one) for one in groups)]}
        # Nobody loses a role here, so what is there besides is no difference.
        same = [one for one in listed if there.issuperset(one.body.decode().splitlines())]
        return stamps | {one.key: Stamp(digest=one.digest) for one in same}

    async def _inputs(self, unit: Unit, inputs: Ref) -> list[File]:
        """Files of the inputs of an assessor or a reconstruction, which no deep listing has."""
        there = replace(unit.target, level=inputs.level, item=inputs.item, side="in")
        try:
            return await self._xnat.list_files(there)
        except NotFound:
            return []

    async def series(self, unit: Unit) -> dict[str, str]:
        """Series UIDs of the scans of a session that is there, by the key of their DICOM."""
        if self.seat(unit).series:
            return self.seat(unit).series
        session_id = self.seat(unit).session_id
        if not session_id and (found := await self.find_session(unit)) is not None:
            session_id = found.id
        scans = await self._xnat.list_scans(session_id) if session_id else []
        return {container_key(("scans", one.id, None), "DICOM"): one.uid for one in scans}

    async def _assessor_names(self, files: list[File]) -> dict[tuple[Level, str], str]:
        session_id = files[0].uri.partition("/experiments/")[2].partition("/")[0]
        rows = await self._xnat.rows(f"/data/experiments/{paths.segment(session_id)}/assessors")
        return {("assessors", cell(row, "ID")): cell(row, "label") for row in rows}

    # --- creation ------------------------------------------------------------------------------

    async def begin(self, unit: Unit) -> None:
        """See that the project exists; a session label held by another subject is a conflict."""
        seat = self.seat(unit)
        if unit.key == PROJECT:
            await self._ensure_project(unit)
        elif unit.target.session is not None:
            existing = None if seat.is_new else await self.find_session(unit)
            if existing is None:
                await self._remember(unit.key, {"made": "1"})
            else:
                seat.session_id = existing.id
                await self._check_subject(unit, existing)
        elif unit.kind == "subject" and seat.is_new:
            await self._remember(unit.key, {"made": "1"})

    async def _ensure_project(self, unit: Unit) -> None:
        project = unit.target.project
        if await self._xnat.find_project(project) is not None:
            return
        for key in (SETTINGS, PROJECT):
            await self._remember(key, {"created": "1"})
        await self._put_project(project, next(i.body for i in unit.items if i.key == PROJECT_XML))

    async def _put_project(self, project: str, xml: bytes) -> None:
        await self._edits.introduce(metadata.people(xml))
        path = paths.project(project)
        try:
            await self._xnat.put_xml(path, metadata.for_project(xml, project=project))
        except Conflict:
            # Names and aliases are unique on a site: a copy beside its original gets its own.
            alone = metadata.for_project(xml, project=project, unnamed=True)
            await self._xnat.put_xml(path, alone)

    async def find_session(self, unit: Unit) -> Session | None:
        try:
            return await self._xnat.resolve_session(
                unit.target.session or "", project=unit.target.project
            )
        except NotFound:
            return None

    async def list_scans(self, session_id: str) -> list[Scan]:
        return await self._xnat.list_scans(session_id)

    async def _check_subject(self, unit: Unit, existing: Session) -> None:
        subject = await self._xnat.get_subject(unit.target.project, existing.subject_id)
        label = str(subject.get("data_fields", {}).get("label", ""))
        if label.lower() != (unit.target.subject or "").lower():
            raise Conflict(
                f"the destination has a session {unit.target.session} of another subject, {label}",
                hint=f"rename one of them; the source's belongs to {unit.target.subject}",
            )

    # --- writing -------------------------------------------------------------------------------

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        if item.kind == "document":
            xml = b"".join([chunk async for chunk in chunks])
            async with self._creating[f"{unit.target.project}/{unit.target.subject}"]:
                await self._put_document(unit, item, xml)
            return
        ref = await self._ensure(unit, item.lane)
        kept = await self._xnat.put_file(
            ref,
            item.path,
            chunks,
            size=item.size or 0,
            overwrite=item.verdict is Verdict.REPLACE,
        )
        if kept:
            raise BadReply(
                f"{self.name} had {item.key} already and kept its own",
                why="it was not listed when this run looked",
            )

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        ref = await self._ensure(unit, item.lane)
        await self._xnat.put_archive(
            ref, f"{digest_of(unit.key, item.key)[:16]}.zip", as_zip(events)
        )

    async def _put_document(self, unit: Unit, item: Item, xml: bytes) -> None:
        target = unit.target
        if item.path == "project":
            if not self.seat(unit).is_new:
                await self._put_project(target.project, xml)
            return
        if item.path == "subject":
            xml = metadata.for_subject(xml, project=target.project, label=target.subject or "")
            path = paths.subject(target.project, target.subject or "")
            facts = {"source_id": Document(item.body).root.get("ID", "")}
            if subject_id := await self._xnat.put_xml(path, xml):
                facts["subject_id"] = subject_id
                self._learn(facts["source_id"], subject_id)
            await self._remember(unit.key, facts)
        elif item.path == "session":
            await self._put_session(unit, xml)
        elif item.path == "setting":
            if item.key in (USERS, GROUPS):
                await self._add_members(target.project, xml.decode())
            else:
                name = item.key.rpartition("/")[2]
                await self._xnat.put_setting(target.project, name, xml.decode())
        elif item.path == "fields":
            await self._put_fields(unit, item, json.loads(xml))
        elif item.path == "share":
            await self._put_share(unit, item, xml.decode())
        else:
            await self._put_assessor(unit, item, xml)

    async def _put_session(self, unit: Unit, xml: bytes) -> None:
        target, seat = unit.target, self.seat(unit)
        path = paths.session(replace(target, session_id=None))
        label = target.session or ""
        body = metadata.for_session(
            xml, project=target.project, label=label, scans=seat.scans, ids=self._ids
        )
        seat.session_id = await self._xnat.put_xml(path, body) or seat.session_id
        if not seat.session_id:
            existing = await self.find_session(unit)
            if existing is None:
                raise BadReply(f"{self.name} took {unit.key} and does not have it")
            seat.session_id = existing.id
        # XNAT clears both on every PUT of an existing session, unless it sets one that was empty
        # (1.8).
        again = {
            name: value
            for name, value in (
                ("visit", unit.facts.get("visit", "")),
                ("protocol", unit.facts.get("protocol", "")),
            )
            if value
        }
        if again:
            again["xsiType"] = unit.facts.get("xsi_type", "")
            await self._xnat.put_item(path, again)
        seat.is_written = True
        facts = {"session_id": seat.session_id, "source_id": unit.facts.get("source_id", "")}
        self._learn(facts["source_id"], seat.session_id)
        await self._remember(unit.key, dict(facts))

    async def _put_assessor(self, unit: Unit, item: Item, xml: bytes) -> None:
        seat = self.seat(unit)
        label = item.key.split("/")[1].replace("%2F", "/")
        ids = {unit.ref.session_id or "": seat.session_id}
        ids.update({item.ref.session_id or "": seat.assessors.get(label, "")})
        ids = self._ids | {old: new for old, new in ids.items() if old and new}
        body = metadata.for_assessor(
            xml,
            project=unit.target.project,
            label=label,
            session_id=seat.session_id,
            ids=ids,
        )
        path = (
            f"/data/experiments/{paths.segment(seat.session_id)}/assessors/{paths.segment(label)}"
        )
        seat.assessors[label] = await self._xnat.put_xml(path, body)
        self._learn(item.ref.session_id or "", seat.assessors[label])
        await self._remember(unit.key, {f"assessor:{label}": seat.assessors[label]})

    async def _add_members(self, project: str, text: str) -> None:
        """Give roles to the logins that this server knows, in groups that it has; the others are
        named.
        """
        known = await self._xnat.list_logins()
        there = set(await self._xnat.list_members(project))
        groups = await self._xnat.list_groups(project)
        unknown, missing = [], set()
        for line in text.splitlines():
            role, _, login = line.rpartition(" ")
            if role not in groups:
                missing.add(role)
            elif login and login not in known:
                unknown.append(login)
            elif login and (login, role) not in there:
                await self._xnat.add_member(project, login, role)
        if missing:
            names = ", ".join(sorted(missing))
            raise LeftBehind(
                f"the destination's {project} has no group {names}, and no request tells a group's "
                "rights: make it with those that it should have, and run this again",
                code="custom-group",
            )
        if unknown:
            names = ", ".join(unknown)
            raise LeftBehind(f"{self.name} does not know the users {names}", code="unknown-user")

    async def _put_fields(self, unit: Unit, item: Item, found: dict[str, Values]) -> None:
        """Set custom fields, and remember what they were: the server lists them nowhere."""
        for place, values in found.items():
            try:
                await self._fields.write(paths.owner(self.at(unit, place_in(place))), values)
            except NotFound as error:
                raise LeftBehind(
                    f"{self.name} has no JSON custom fields", code="custom-fields"
                ) from error
        text = json.dumps(found, sort_keys=True)
        await self._remember(unit.key, {"fields": digest_of(text) if found else NO_FIELDS})

    async def _put_share(self, unit: Unit, item: Item, text: str) -> None:
        project, _, label = text.partition("\n")
        if await self._xnat.find_project(project) is None:
            raise LeftBehind(
                f"the destination has no project {project} to share into", code="share-target"
            )
        seat = self.seat(unit)
        if unit.target.session is not None and not seat.session_id:
            existing = await self.find_session(unit)
            if existing is None:
                raise LeftBehind(
                    f"{unit.target.project} has no session {unit.target.session} here",
                    code="share-source",
                )
            seat.session_id = existing.id
        above = item.key.rpartition("shares/")[0].rstrip("/")
        owner = paths.owner(self.at(unit, place_in(above)))
        if not await self._xnat.share(owner, project, label):
            raise LeftBehind(f"{label} is taken in project {project}", code="share-label")
        await self._remember(unit.key, {f"share:{item.key if above else project}": label})

    async def _ensure(self, unit: Unit, lane: str) -> Ref:
        """The resource on this server, created with its metadata before its first file."""
        seat = self.seat(unit)
        container = next(one for one in unit.containers if one.key == lane)
        ref = self._here(unit, container)
        if lane not in seat.ensured:
            values = {
                "format": container.format,
                "content": container.content,
                "description": container.description,
                "tags": container.tags,
            }
            if (ref.resource or "").isdigit():
                number = await self._xnat.create_numbered_resource(ref, **values)
                seat.ensured[lane] = replace(ref, resource=number)
            else:
                await self._xnat.ensure_resource(ref, **values)
                seat.ensured[lane] = ref
        return seat.ensured[lane]

    def _here(self, unit: Unit, container: Container) -> Ref:
        ref = container.ref
        return self.at(unit, (ref.level, ref.item, ref.side), label_of(container.key))

    def at(self, unit: Unit, place: Place, resource: str | None = None) -> Ref:
        """Where something of the unit is on this server; the place is in the source's names."""
        seat, (level, item, side) = self.seat(unit), place
        if level == "scans" and item:
            item = seat.scans.get(item, item)
        session_id = seat.session_id
        return replace(
            unit.target,
            session_id=session_id or None,
            level=level,
            item=item,
            side=side,
            resource=resource,
        )

    async def seal(self, unit: Unit, stage: int) -> None:
        """Create resources that hold no file, and have the server count what it got."""
        if stage != 2:
            return
        seat = self.seat(unit)
        # An import makes its resource by itself.
        lanes = {item.lane for item in unit.items if item.kind in ("file", "zip")}
        lanes |= {item.key for item in unit.items if item.kind == "import"}
        for container in unit.containers:
            if container.key not in lanes:
                await self._ensure(unit, container.key)
        is_there = bool(seat.session_id) or unit.kind != "session"
        # A run that died may have written all and told the server to count nothing of it.
        if seat.ensured or (is_there and not unit.to_move):
            owner = replace(unit.target, session_id=seat.session_id or None)
            await self._xnat.refresh_catalog(paths.archive_uri(owner))

    async def drop_resource(self, unit: Unit, key: str) -> None:
        """Delete a resource with its files, because a new one takes its place."""
        container = next(one for one in unit.containers if one.key == key)
        await self._xnat.delete_resource(self._here(unit, container))

    async def abandon(self, unit: Unit) -> None:
        self.seat(unit).ensured.clear()


def _without_document(unit: Unit, inventory: Inventory) -> Unit:
    """A project's unit for a project that was there: its own values stay, and differing ones are
    named.
    """
    (mine,) = [one for one in unit.items if one.key == PROJECT_XML]
    same = inventory[PROJECT_XML].digest == metadata.project_fingerprint(mine.body)
    note = "description and other values of the project stay as they are here (--settings copies)"
    items = tuple(one for one in unit.items if one.key not in (PROJECT_XML, FIELDS))
    return replace(unit, items=items, notes=unit.notes if same else (*unit.notes, note))


def _incomplete(unit: Unit, found: Inventory) -> dict[str, Stamp]:
    """Documents to be written again, since a scan or an assessor of theirs is gone there."""
    there = {tuple(key.split("/")[:2]) for key in found if "/files/" in key}
    lost = {tuple(item.key.split("/")[:2]) for item in unit.items if item.ref.level} - there
    again = {
        f"assessors/{name}/assessor.xml" if level == "assessors" else SESSION_XML
        for level, name in lost
    }
    return {key: Stamp(digest="incomplete") for key in again if key in found}
