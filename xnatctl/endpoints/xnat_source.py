"""An XNAT archive as a source: projects, subjects and sessions, and the bodies of their files.

A session costs two requests to describe: its XML (structure, metadata, empty resources) and one
listing of all files below it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Protocol

from xnatctl.engine.ports import Chunks
from xnatctl.engine.select import recent, selects
from xnatctl.engine.types import Container, Item, Left, Selection, Unit
from xnatctl.errors import NotFound, Vanished
from xnatctl.model import File, Ref, Resource, Session, SessionDetail, SharedIn, Subject
from xnatctl.xnat import metadata, paths
from xnatctl.xnat.fields import Values
from xnatctl.xnat.parse import digest_of, parse_session_xml

from .catalogue import (
    NO_FIELDS,
    PROJECT,
    PROJECT_XML,
    ROLES,
    SESSION_XML,
    SETTINGS,
    SUBJECT_XML,
    Catalogue,
    Place,
    described,
    document_key,
    label_of,
)
from .items import (
    cannot_carry,
    container,
    fields_item,
    provenance_item,
    resource_at,
    share_item,
    share_items,
)

SHARED_IN = "shared-in"


PROVENANCE = "keep:provenance"
SEEN = "done:modified"
"""When a session that arrived had last been modified."""
SERIES = "series:"
"""The facts of a session that have the series UID of each scan."""


class Archive(Protocol):
    """What is asked of a server, or of an export that answers like one."""

    name: str
    url: str

    async def resolve_session(self, session: str, project: str | None = None) -> Session: ...
    async def find_project(self, project: str) -> str | None: ...
    async def list_subjects(self, project: str) -> list[Subject]: ...
    async def list_experiments(self, project: str, subject: str | None = None) -> list[Session]: ...
    async def list_members(self, project: str) -> list[tuple[str, str]]: ...
    async def list_groups(self, project: str) -> list[str]: ...
    async def list_files(self, ref: Ref, *, deep: bool = False) -> list[File]: ...
    async def get_session(self, session_id: str) -> SessionDetail: ...
    async def get_settings(self, project: str) -> dict[str, str]: ...
    async def xml(self, path: str) -> bytes: ...
    async def item_json(self, path: str) -> bytes: ...
    def open_file(self, ref: Ref, path: str) -> AbstractAsyncContextManager[Chunks]: ...
    def open_zip(self, ref: Ref) -> AbstractAsyncContextManager[Chunks]: ...


class Fields(Protocol):
    """The custom fields of what stands at a path of /data."""

    async def read(self, owner: str) -> Values: ...


class XnatSource:
    """Reads a project, a subject or a session out of an archive."""

    def __init__(
        self,
        xnat: Archive,
        *,
        target: Ref,
        name: str = "",
        metadata: bool = True,
        shared_in: SharedIn = "skip",
        own: bool | None = None,
        beside: bool = False,
        relabel: Mapping[str, str] | None = None,
        provenance: Mapping[str, str] | None = None,
        users: bool = False,
        fields: Fields | None = None,
        selection: Selection | None = None,
    ) -> None:
        """`relabel` has new labels by `subject/OLD` and `session/OLD`. With `provenance` every
        session gets a file that says where it comes from, with these facts of the run in it.
        `selection` is needed where units are described that another process has listed.
        """
        self.name = name or xnat.url
        self._xnat = xnat
        self._target = target
        self._metadata = metadata
        self._shared_in = shared_in
        # Whether a subject's own files come too where there is no metadata.
        self._own = metadata if own is None else own
        # Whether documents come as JSON beside their XML.
        self._beside = beside
        self._relabel = relabel or {}
        self._provenance = provenance
        self._users = users
        self._fields = fields
        self._selection = selection or Selection(target)

    # --- units ---------------------------------------------------------------------------------

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        """The project's own things, then each subject's own and its sessions."""
        self._selection = selection
        ref = selection.ref
        if ref.resource:
            yield self._unit(str(ref), "resource", ref, ref)
            return
        if ref.session or ref.session_id:
            session = await self._xnat.resolve_session(
                ref.session_id or ref.session or "", None if ref.session_id else ref.project
            )
            yield self._session_unit(session, session.subject or session.subject_id, ())
            return
        if await self._xnat.find_project(ref.project) is None:
            raise NotFound(
                f"no project {ref.project} at {self._xnat.name}",
                hint="xnatctl project list shows those that this login may read",
            )
        if ref.subject is None and self._metadata:
            yield self._unit(PROJECT, "project", Ref(ref.project), Ref(self._target.project))
        async for unit in self._by_subject(selection):
            yield unit
        if ref.subject is None and self._metadata:
            own = Ref(ref.project)
            yield self._unit(SETTINGS, "project", own, Ref(self._target.project), after=("*",))

    async def _by_subject(self, selection: Selection) -> AsyncIterator[Unit]:
        project = selection.ref.project
        subjects = await self._xnat.list_subjects(project)
        sessions: dict[str, list[Session]] = defaultdict(list)
        for one in await self._xnat.list_experiments(project):
            if not one.parent:
                sessions[one.subject_id or one.subject].append(one)
        narrowed = any(rule.what in ("session", "type") for rule in selection.rules)
        for subject in subjects:
            if selection.ref.subject not in (None, subject.id, subject.label):
                continue
            if not selects(selection, "subject", subject.label, subject.id):
                continue
            chosen = [
                one
                for one in sessions.get(subject.id) or sessions.get(subject.label) or []
                if selects(selection, "session", one.label, one.id)
                and _type_selected(selection, one)
                and recent(selection, one.date)
            ]
            key = f"subjects/{subject.label}"
            if self._own and (chosen or not narrowed):
                yield self._unit(
                    key,
                    "subject",
                    Ref(project, subject.label),
                    self._there(subject.label),
                    after=(PROJECT,) if selection.ref.subject is None else (),
                )
            after = (key,) if self._own else ()
            images = []
            # Other experiments name images by accession IDs, so those have to have theirs first.
            for one in sorted(chosen, key=lambda one: not one.is_imaging):
                unit = self._session_unit(one, subject.label, after)
                if one.is_imaging:
                    images.append(unit.key)
                elif self._metadata:
                    unit = replace(unit, after=(*after, *images))
                yield unit

    def _session_unit(self, session: Session, subject: str, after: tuple[str, ...]) -> Unit:
        return self._unit(
            f"subjects/{subject}/sessions/{session.label}",
            "session" if session.is_imaging else "experiment",
            Ref(session.project, subject, session.label, session.id),
            self._there(subject, session.label),
            after=after,
            facts={"xsi_type": session.xsi_type, "modified": session.modified},
        )

    def _there(self, subject: str, session: str | None = None) -> Ref:
        """The address at the destination, under new labels where some were asked for."""
        return Ref(
            self._target.project,
            self._relabel.get(f"subject/{subject}", subject),
            self._relabel.get(f"session/{session}", session) if session else None,
        )

    def _unit(
        self,
        key: str,
        kind: str,
        ref: Ref,
        target: Ref,
        *,
        after: tuple[str, ...] = (),
        facts: Mapping[str, str] | None = None,
    ) -> Unit:
        label = ref.resource or ref.session or ref.subject or ref.project
        return Unit(key, kind, ref, target, label, after, facts=facts or {})  # type: ignore[arg-type]

    # --- one unit in full ----------------------------------------------------------------------

    async def describe(self, unit: Unit) -> Unit:
        try:
            if unit.kind == "resource":
                return self._filled(unit, [], Catalogue(await self._xnat.list_files(unit.ref)), ())
            if unit.key == SETTINGS:
                return await self._describe_settings(unit)
            if unit.kind == "project":
                return await self._describe_own(
                    unit, PROJECT_XML, paths.project(unit.ref.project), "project"
                )
            if unit.kind == "subject":
                path = paths.subject(unit.ref.project, unit.ref.subject or "")
                return await self._describe_own(unit, SUBJECT_XML, path, "subject")
            return await self._describe_session(unit)
        except NotFound as error:
            raise Vanished(f"{unit.ref} is gone from {self._xnat.name}", why=error.why) from error

    async def _describe_own(self, unit: Unit, key: str, path: str, kind: str) -> Unit:
        """A project or a subject: its document and the files of its own resources."""
        xml = await self._xnat.xml(path)
        detail = parse_session_xml(xml, path)
        owner = detail.session.project
        foreign = owner and owner != unit.ref.project and self._shared_in != "copy"
        if kind == "subject" and foreign:
            return self._not_owned(unit, owner, detail.session.label, detail.shares)
        # A document without resources is what most have: there is nothing to list then.
        files = await self._xnat.list_files(unit.ref) if detail.resources else []
        document = Item(
            key=key,
            kind="document",
            lane=key,
            ref=unit.ref,
            path=kind,
            body=xml,
            digest=metadata.fingerprint(xml),
            stage=0,
        )
        documents = [document, *share_items(unit, detail.shares, "")] if self._metadata else []
        documents += self._as_json(documents)
        if self._fields is not None and (values := await self._fields.read(path)):
            documents.append(fields_item(unit, {"": values}, stage=1))
        return self._filled(unit, documents, Catalogue(files), detail.resources)

    def _origin(self, unit: Unit, detail: SessionDetail) -> str:
        """Where a session comes from, as JSON. Kept from the first run on, so that it stays."""
        session = detail.session
        return json.dumps(
            {
                "server": self._xnat.url,
                "project": unit.ref.project,
                "subject": unit.ref.subject,
                "subject_id": session.subject_id,
                "session": session.label,
                "session_id": session.id,
                "study_uid": detail.uid,
                "date": session.date,
                **(self._provenance or {}),
            },
            indent=1,
        )

    async def _describe_settings(self, unit: Unit) -> Unit:
        """The project's settings, the prearchive code last: it decides what happens to arrivals."""
        found = await self._xnat.get_settings(unit.ref.project)
        if self._users:
            found |= await self._members(unit.ref.project)
        items = [
            Item(
                key=f"{SETTINGS}/{name}",
                kind="document",
                lane=SETTINGS,
                ref=unit.ref,
                path="setting",
                body=value.encode(),
                digest=digest_of(value),
                stage=0,
            )
            for name, value in found.items()
        ]
        return replace(unit, items=tuple(items), fingerprint=digest_of(*map(repr, found.items())))

    async def _members(self, project: str) -> dict[str, str]:
        """Users by role; those of the project's own groups apart, since such a group is made by
        hand: no route tells its rights.
        """
        members = await self._xnat.list_members(project)
        own = [role for role in await self._xnat.list_groups(project) if role not in ROLES]
        lines = {
            "users": [f"{role} {login}" for login, role in members if role in ROLES],
            "groups": [f"{role} " for role in own]
            + [f"{role} {login}" for login, role in members if role not in ROLES],
        }
        return {name: "\n".join(some) for name, some in lines.items() if some}

    def _not_owned(
        self, unit: Unit, owner: str, label: str, shares: tuple[tuple[str, str], ...]
    ) -> Unit:
        """What is only shared into the project: left, or shared again at the destination."""
        if self._shared_in == "share":
            there = next((name for project, name in shares if project == unit.ref.project), label)
            share = share_item(unit, unit.target.project, there or label, "")
            return replace(unit, target=replace(unit.target, project=owner), items=(share,))
        reason = f"shared into {unit.ref.project}; it belongs to {owner}"
        return replace(unit, left=(Left(unit.key, SHARED_IN, reason),))

    async def _describe_session(self, unit: Unit) -> Unit:
        detail = await self._xnat.get_session(unit.ref.session_id or "")
        owner = detail.session.project
        if owner and owner != unit.ref.project and self._shared_in != "copy":
            return self._not_owned(unit, owner, detail.session.label, detail.shares)
        if detail.session.parent:
            # An assessor that the listing did not tell apart: it travels with its session.
            return unit
        files = await self._xnat.list_files(unit.ref, deep=True)
        for derived in (*detail.assessors, *detail.reconstructions):
            # A deep listing has the outputs of assessors and reconstructions only (XNAT 1.8).
            if any(resource.ref.side == "in" for resource in derived.resources):
                inputs = unit.ref.at(derived.level, derived.label, "in")
                files += await self._xnat.list_files(inputs)
        names = {("assessors", one.id): one.label for one in detail.assessors}
        catalogue = Catalogue(files, names)  # type: ignore[arg-type]
        documents = []
        if self._metadata:
            documents = [
                self._session_document(unit, detail),
                *self._assessor_documents(unit, detail),
                *share_items(unit, detail.shares, ""),
            ]
            for place, shares in metadata.inner_shares(detail.xml).items():
                documents += share_items(unit, tuple(shares), f"{place}/")
            documents += self._as_json(documents)
            scans = [one.id for one in detail.scans]
            documents += await self._session_fields(unit, scans, documents)
        facts = {
            "uid": detail.uid,
            "xsi_type": detail.session.xsi_type or unit.facts.get("xsi_type", ""),
            "visit": detail.visit,
            "protocol": detail.protocol,
            "source_id": unit.ref.session_id or "",
            SEEN: unit.facts.get("modified", ""),
        }
        for scan in detail.scans:
            facts[f"{SERIES}{scan.id}"] = scan.uid
            facts[f"scan-type:{scan.id}"] = scan.type
            facts[f"scan-description:{scan.id}"] = scan.series_description
        unit = replace(unit, facts={**unit.facts, **facts})
        if self._provenance is not None and self._metadata:
            facts[PROVENANCE] = unit.facts.get(PROVENANCE) or self._origin(unit, detail)
            documents.append(provenance_item(unit, facts[PROVENANCE]))
            unit = replace(unit, facts={**unit.facts, **facts})
        resources = [*detail.resources]
        for group in (detail.scans, detail.assessors, detail.reconstructions):
            resources += [one for thing in group for one in thing.resources]
        types = {scan.id: scan.type for scan in detail.scans}
        types |= {f"assessor:{one.label}": one.xsi_type for one in detail.assessors}
        return self._filled(unit, documents, catalogue, resources, types)

    async def _session_fields(
        self, unit: Unit, scans: list[str], documents: list[Item]
    ) -> list[Item]:
        """The custom fields of a session, its scans and its assessors, as one document.

        No listing has them, so they cost a request each. They are read when the session is copied
        first; after that where it had some, or was modified since.
        """
        if self._fields is None:
            return []
        is_as_seen = unit.facts.get(SEEN) == unit.facts.get("modified")
        fields = unit.facts.get("fields", "")
        if not fields or (fields == NO_FIELDS and is_as_seen):
            return [fields_item(unit, None, stage=2)]
        found = await self._all_fields(unit.ref, scans, documents)
        return [fields_item(unit, found or None, stage=2)]

    async def _all_fields(
        self, ref: Ref, scans: list[str], documents: Iterable[Item]
    ) -> dict[str, Values]:
        assert self._fields is not None
        places = {"": paths.owner(ref)}
        for scan in scans:
            places[f"scans/{scan}"] = paths.owner(ref.at("scans", scan))
        for one in documents:
            if one.path == "assessor":
                above = one.key.rpartition("/")[0].replace("%2F", "/")
                places[above] = paths.owner(ref.at("assessors", one.ref.session_id or ""))
        found = {place: await self._fields.read(path) for place, path in places.items()}
        return {place: values for place, values in found.items() if values}

    def _as_json(self, documents: list[Item]) -> list[Item]:
        """The same things as JSON, which changes when they do."""
        if not self._beside:
            return []
        named = [(f"{one.key[:-4]}.json", one) for one in documents if one.key.endswith(".xml")]
        return [replace(one, key=key, lane=key, path="json", body=b"") for key, one in named]

    def _session_document(self, unit: Unit, detail: SessionDetail) -> Item:
        return Item(
            key=SESSION_XML,
            kind="document",
            lane=SESSION_XML,
            ref=unit.ref,
            path="session",
            body=detail.xml,
            digest=metadata.fingerprint(detail.xml),
            stage=0,
        )

    def _assessor_documents(self, unit: Unit, detail: SessionDetail) -> list[Item]:
        within = unit.facts.get("xsi_type", "")
        return [
            Item(
                key=document_key(one.label),
                kind="document",
                lane=document_key(one.label),
                ref=Ref(unit.ref.project, session_id=one.id),
                path="assessor",
                digest=metadata.assessor_fingerprint(detail.xml, one.id),
                stage=1,
            )
            for one in detail.assessors
            if selects(self._selection, "assessor-type", one.xsi_type, within=within)
        ]

    def _filled(
        self,
        unit: Unit,
        documents: list[Item],
        catalogue: Catalogue,
        resources: Iterable[Resource],
        types: Mapping[str, str] | None = None,
    ) -> Unit:
        listed = described(resources)
        containers, items, left, aside, notes = [], list(documents), [], [], list(unit.notes)
        facts = dict(unit.facts)
        keys = dict.fromkeys([*catalogue.files, *(listed if self._metadata else ())])
        for key in keys:
            place = catalogue.places.get(key) or listed[key][0]
            label = label_of(key)
            if not self._selected(unit, place, label, types or {}):
                aside.append(key)
                continue
            known = listed.get(key)
            source = resource_at(unit.ref, place, catalogue.ids.get(key, label))
            first = known[1].label if known else catalogue.files[key][0].resource
            if first and first != label:
                notes.append(f"a second resource called {first} is {key} at the destination")
                facts[f"keep:resource:{key}"] = first
            containers.append(container(key, resource_at(unit.ref, place, label), known))
            for file in catalogue.files.get(key, ()):
                if lost := cannot_carry(f"{key}/files/{file.path}", file.path):
                    left.append(lost)
                    continue
                items.append(
                    Item(
                        key=f"{key}/files/{file.path}",
                        kind="file",
                        lane=key,
                        ref=source,
                        path=file.path,
                        size=file.size,
                        digest=file.digest,
                    )
                )
        if any(one.lane == "resources/PROVENANCE" for one in documents):
            own = resource_at(unit.ref, (None, None, None), "PROVENANCE")
            containers.append(Container("resources/PROVENANCE", own, "JSON", "PROVENANCE"))
        stamps = [f"{one.key}\t{one.size}\t{one.digest}" for one in items]
        return replace(
            unit,
            containers=tuple(containers),
            items=tuple(items),
            left=tuple(left),
            notes=tuple(notes),
            facts=facts,
            aside=frozenset(aside),
            fingerprint=digest_of(*sorted(stamps), *(one.key for one in containers)),
        )

    def _selected(self, unit: Unit, place: Place, label: str, types: Mapping[str, str]) -> bool:
        level, item, _ = place
        where = level or ("own" if unit.kind in ("session", "experiment") else unit.kind)
        within = unit.facts.get("xsi_type", "")
        wanted = self._selection
        if not {level or "own", where} & wanted.levels:
            return False
        if not selects(wanted, "resource", label, level=where, within=within):
            return False
        if level == "assessors":
            kind = types.get(f"assessor:{item}", "")
            return selects(wanted, "assessor-type", kind, within=within)
        if level != "scans":
            return not any(
                one.include and one.what in ("scan", "scan-type") and not one.within
                for one in wanted.rules
            )
        scan_type = types.get(item or "", "")
        return selects(wanted, "scan", item or "", scan_type, within=within) and selects(
            wanted, "scan-type", scan_type, within=within
        )

    # --- bodies --------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
        if item.kind == "document" or item.body:
            if item.path == "fields" and not item.body:
                scans = [
                    name.removeprefix(SERIES) for name in unit.facts if name.startswith(SERIES)
                ]
                found = await self._all_fields(unit.ref, scans, unit.items)
                yield _one(json.dumps(found).encode())
                return
            read = self._xnat.item_json if item.path == "json" else self._xnat.xml
            yield _one(item.body or await read(paths.owner(item.ref)))
            return
        async with AsyncExitStack() as stack:
            if item.kind == "file":
                body = self._xnat.open_file(item.ref, item.path)
            else:
                body = self._xnat.open_zip(item.ref)
            try:
                chunks = await stack.enter_async_context(body)
            except NotFound as error:
                raise Vanished(
                    f"{item.key} is listed by {self._xnat.name} but cannot be read",
                    why=error.why,
                    hint="refresh the catalog of its resource on the source",
                ) from error
            yield chunks

    def member_path(self, item: Item, name: str) -> str:
        label = label_of(item.lane)
        marker = f"/resources/{label}/files/"
        head, known, path = name.partition(marker)
        if not known:
            return name.partition("/files/")[2]
        # XNAT writes a scan's type behind every folder that is called like the scan (1.8).
        folder = f"/{head.rpartition('/')[2]}/"
        mangled = item.ref.level == "scans" and folder in f"/{path}"
        if mangled and all(one.path != path for one in item.members):
            return f"/{path}".replace(folder, f"/{item.ref.item}/")[1:]
        return path


def _type_selected(selection: Selection, one: Session) -> bool:
    what = "type" if one.is_imaging else "experiment-type"
    return selects(selection, what, one.xsi_type, one.modality)


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body
