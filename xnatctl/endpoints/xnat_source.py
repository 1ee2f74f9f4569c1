"""An XNAT archive as a source: projects, subjects and sessions, and the bodies of their files.

A session costs two requests to describe: its XML (structure, metadata, empty resources) and one
listing of all files below it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from xnatctl.engine.plan import UNSAFE_NAME
from xnatctl.engine.ports import Chunks
from xnatctl.engine.select import recent, selects
from xnatctl.engine.types import Container, Item, Left, Selection, Unit
from xnatctl.errors import NotFound, Vanished
from xnatctl.model import Ref, Resource, Session, SessionDetail
from xnatctl.xnat import metadata, paths
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.parse import digest_of, parse_session_xml
from xnatctl.zipstream import why_unsafe

from .catalogue import (
    PROJECT_XML,
    SESSION_XML,
    SUBJECT_XML,
    Catalogue,
    Place,
    described,
    document_key,
    label_of,
)


class XnatSource:
    """Reads a project, a subject or a session out of an archive."""

    def __init__(self, xnat: Xnat, *, target: Ref, name: str = "", metadata: bool = True) -> None:
        self.name = name or xnat.url
        self._xnat = xnat
        self._target = target
        self._metadata = metadata
        self._selection = Selection(target)

    # --- units ---------------------------------------------------------------------------------

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        """The project's own things, then each subject's own and its sessions."""
        self._selection = selection
        ref = selection.ref
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
            yield self._unit("project", "project", Ref(ref.project), Ref(self._target.project))
        async for unit in self._by_subject(selection):
            yield unit

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
                and selects(selection, "type", one.xsi_type, one.modality)
                and recent(selection, one.date)
            ]
            key = f"subjects/{subject.label}"
            if self._metadata and (chosen or not narrowed):
                yield self._unit(
                    key,
                    "subject",
                    Ref(project, subject.label),
                    Ref(self._target.project, subject.label),
                    after=("project",) if selection.ref.subject is None else (),
                )
            for one in chosen:
                yield self._session_unit(one, subject.label, (key,) if self._metadata else ())

    def _session_unit(self, session: Session, subject: str, after: tuple[str, ...]) -> Unit:
        return self._unit(
            f"subjects/{subject}/sessions/{session.label}",
            "session" if session.is_imaging else "experiment",
            Ref(session.project, subject, session.label, session.id),
            Ref(self._target.project, subject, session.label),
            after=after,
            facts={"xsi_type": session.xsi_type},
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
        label = ref.session or ref.subject or ref.project
        return Unit(key, kind, ref, target, label, after, facts=facts or {})  # type: ignore[arg-type]

    # --- one unit in full ----------------------------------------------------------------------

    async def describe(self, unit: Unit) -> Unit:
        try:
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
        if kind == "subject" and owner and owner != unit.ref.project:
            return _shared_in(unit, owner)
        catalogue = Catalogue(await self._xnat.list_files(unit.ref))
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
        return self._filled(unit, [document], catalogue, detail.resources)

    async def _describe_session(self, unit: Unit) -> Unit:
        detail = await self._xnat.get_session(unit.ref.session_id or "")
        if detail.session.project and detail.session.project != unit.ref.project:
            return _shared_in(unit, detail.session.project)
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
            documents = [self._session_document(unit, detail), *_assessor_documents(unit, detail)]
        facts = {
            "uid": detail.uid,
            "xsi_type": detail.session.xsi_type or unit.facts.get("xsi_type", ""),
            "visit": detail.visit,
            "protocol": detail.protocol,
        }
        for scan in detail.scans:
            facts[f"series:{scan.id}"] = scan.uid
        unit = replace(unit, facts={**unit.facts, **facts})
        resources = [*detail.resources]
        for group in (detail.scans, detail.assessors, detail.reconstructions):
            resources += [one for thing in group for one in thing.resources]
        types = {scan.id: scan.type for scan in detail.scans}
        return self._filled(unit, documents, catalogue, resources, types)

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

    def _filled(
        self,
        unit: Unit,
        documents: list[Item],
        catalogue: Catalogue,
        resources: Iterable[Resource],
        types: Mapping[str, str] | None = None,
    ) -> Unit:
        listed = described(resources)
        containers, items, left = [], list(documents), []
        keys = dict.fromkeys([*catalogue.files, *(listed if self._metadata else ())])
        for key in keys:
            place = catalogue.places.get(key) or listed[key][0]
            label = label_of(key)
            if not self._selected(place, label, types or {}):
                continue
            known = listed.get(key)
            source = _at(unit.ref, place, catalogue.ids.get(key, label))
            containers.append(_container(key, _at(unit.ref, place, label), known))
            for file in catalogue.files.get(key, ()):
                if lost := _cannot_carry(f"{key}/files/{file.path}", file.path):
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
        stamps = [f"{one.key}\t{one.size}\t{one.digest}" for one in items]
        return replace(
            unit,
            containers=tuple(containers),
            items=tuple(items),
            left=tuple(left),
            fingerprint=digest_of(*sorted(stamps), *(one.key for one in containers)),
        )

    def _selected(self, place: Place, label: str, types: Mapping[str, str]) -> bool:
        level, item, _ = place
        if (level or "own") not in self._selection.levels:
            return False
        if not selects(self._selection, "resource", label):
            return False
        if level != "scans":
            return not any(
                rule.include and rule.what in ("scan", "scan-type")
                for rule in self._selection.rules
            )
        return selects(self._selection, "scan", item or "") and selects(
            self._selection, "scan-type", types.get(item or "", "")
        )

    # --- bodies --------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
        if item.kind == "document":
            yield _one(item.body or await self._xnat.xml(paths.owner(item.ref)))
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
        return name.partition(marker if marker in name else "/files/")[2]


def _cannot_carry(key: str, path: str) -> Left | None:
    """Why a file of this name cannot arrive, whoever carries it."""
    if path.endswith("_catalog.xml"):
        return Left(key, "catalog-name", "XNAT keeps no file of that name")
    if reason := why_unsafe(path):
        return Left(key, UNSAFE_NAME, f"neither a URL nor an archive can carry its name: {reason}")
    return None


def _shared_in(unit: Unit, owner: str) -> Unit:
    reason = f"shared into {unit.ref.project}; it belongs to {owner}"
    return replace(unit, left=(Left(unit.key, "shared-in", reason),))


def _container(key: str, ref: Ref, known: tuple[Place, Resource] | None) -> Container:
    if known is None:
        return Container(key, ref)
    one = known[1]
    return Container(key, ref, one.format, one.content, one.description, one.tags)


def _at(ref: Ref, place: Place, resource: str) -> Ref:
    level, item, side = place
    return replace(ref, level=level, item=item, side=side, resource=resource)


def _assessor_documents(unit: Unit, detail: SessionDetail) -> list[Item]:
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
    ]


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body
