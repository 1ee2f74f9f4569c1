"""An exported project read like a server: what `XnatSource` asks of one is answered from the disk.

Digests come from the manifest, so that a file that rotted on the disk does not arrive. So do the
true names of what the disk had to be given under other ones.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import anyio
import anyio.to_thread

from xnatctl.engine.ports import Chunks
from xnatctl.errors import BadReply, Corrupt, NotFound
from xnatctl.model import File, Ref, Session, SessionDetail, Subject
from xnatctl.xnat import paths
from xnatctl.xnat.fields import Values
from xnatctl.xnat.parse import parse_session_xml

from .bodies import Pulled, archive, blocks, file_body
from .catalogue import (
    FIELDS,
    PROJECT,
    PROJECT_XML,
    SESSION_XML,
    SETTINGS,
    SUBJECT_XML,
    document_key,
    label_of,
    parse_key,
)
from .manifest import HOME, MANIFEST, Ledger, Row, read_manifest, unit_of
from .names import fold, look, path_below, true_place
from .parts import is_part


class BundleReader:
    """Answers what `XnatSource` asks of a server out of a bundle: export, then import, is transfer.

    Places are true paths below the folder of the export, as the manifest has them.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is an export, the folder of snapshots (then the latest is meant), or a bag."""
        home = folder / "latest" if (folder / "latest" / MANIFEST).is_file() else folder
        self._home = home
        self._top = "data/" if (home / "bagit.txt").is_file() else ""
        self.name = str(folder)
        self.url = f"file://{folder.absolute()}"
        project = home / self._top / PROJECT_XML
        if not project.is_file():
            raise NotFound(
                f"{folder} holds no exported project",
                why=f"{PROJECT_XML} is not there",
                hint="name the folder that `xnatctl project export` wrote",
            )
        self.project = _parse(project).session.id
        self._ledger = Ledger(home)
        self._manifest: dict[str, dict[str, Row]] | None = None
        self._documents = {paths.project(self.project): project}
        self._sessions: dict[str, Session] = {}
        self._subjects: list[Subject] = []
        self._assessors: dict[str, str] = {}
        # True places by paths on this disk and the other way round, where they are not the same.
        self._true: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        for row in self._ledger.renamed():
            self._learn(row)
        # What this disk lists in another case than it was written, by the folded path.
        self._written: dict[str, str] = {}
        if look(home).forgets:
            for row in self._ledger.rows():
                parts = row.path.split("/")
                heads = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
                self._written.update((fold(path), path) for path in heads)
        self._index()

    def _learn(self, row: Row) -> None:
        self._true[row.path], self._paths[row.name] = row.name, row.path
        here, there = row.path.split("/"), row.name.split("/")
        for end in range(1, len(here)):
            disk, true = "/".join(here[:end]), "/".join(there[:end])
            # What is too deep for a disk lies in fewer folders.
            if disk != true and len(here) == len(there):
                self._true[disk], self._paths[true] = true, disk

    def _path(self, place: str) -> Path:
        place = place.rstrip("/")
        return path_below(self._home, self._paths.get(place, place)) if place else self._home

    def _disk(self, path: Path) -> str:
        """The path of a file or folder as rows have it."""
        disk = path.relative_to(self._home).as_posix()
        return self._written.get(fold(disk), disk) if self._written else disk

    def _place(self, path: Path) -> str:
        """The true place of a file or folder. Raises Corrupt where only a lost list knows it."""
        disk = self._disk(path)
        true = self._true.get(disk) or true_place(disk)
        if true is None:
            raise Corrupt(
                f"{disk} has a name that stands for a longer one",
                why=f"its true name stands in {MANIFEST} alone, and there is no row of it",
                hint="copy the whole export, or run it again",
            )
        return true

    def _index(self) -> None:
        for folder in self._folders(f"{self._top}subjects"):
            document = folder / SUBJECT_XML
            label = self._place(folder).rpartition("/")[2]
            subject = Subject(_parse(document).session.id, label, self.project)
            self._subjects.append(subject)
            self._documents[paths.subject(self.project, label)] = document
            for session in self._folders(f"{self._place(folder)}/sessions"):
                self._index_session(session, subject)

    def _folders(self, place: str) -> list[Path]:
        folder = self._path(place)
        return sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []

    def _index_session(self, folder: Path, subject: Subject) -> None:
        detail = _parse(folder / SESSION_XML)
        place = self._place(folder)
        session = replace(
            detail.session,
            label=place.rpartition("/")[2],
            project=self.project,
            subject=subject.label,
            subject_id=subject.id,
        )
        self._sessions[session.id] = session
        for one in detail.assessors:
            document = self._path(f"{place}/{document_key(one.label)}")
            self._documents[paths.session(Ref(self.project, session_id=one.id))] = document
            self._assessors[one.id] = one.label

    def _unit(self, ref: Ref) -> str:
        """The key of the unit that a thing belongs to; empty for the project's own."""
        if ref.session_id:
            session = self._sessions[ref.session_id]
            return f"subjects/{session.subject}/sessions/{session.label}"
        return f"subjects/{ref.subject}" if ref.subject else ""

    def _below(self, unit: str, key: str) -> str:
        """The place of a key of a unit."""
        return f"{self._top}{unit}/{key}" if unit else f"{self._top}{key}"

    # --- what a server is asked ----------------------------------------------------------------

    async def find_project(self, project: str) -> str | None:
        return self.project if project == self.project else None

    async def list_subjects(self, project: str) -> list[Subject]:
        return self._subjects

    async def list_experiments(self, project: str, subject: str | None = None) -> list[Session]:
        return list(self._sessions.values())

    async def resolve_session(self, session: str, project: str | None = None) -> Session:
        for one in self._sessions.values():
            if session in (one.id, one.label):
                return one
        raise NotFound(f"no session {session} in {self.name}")

    async def xml(self, path: str) -> bytes:
        try:
            return await anyio.Path(self._documents[path]).read_bytes()
        except (KeyError, FileNotFoundError) as error:
            raise NotFound(f"{self.name} has no document of {path}") from error

    async def item_json(self, path: str) -> bytes:
        """The document as JSON, as the export has it beside the XML."""
        try:
            return await anyio.Path(self._documents[path].with_suffix(".json")).read_bytes()
        except (KeyError, FileNotFoundError) as error:
            raise NotFound(f"{self.name} has no JSON of {path}") from error

    async def get_session(self, session_id: str) -> SessionDetail:
        unit = self._unit(Ref(self.project, session_id=session_id))
        return await anyio.to_thread.run_sync(_parse, self._path(self._below(unit, SESSION_XML)))

    async def get_settings(self, project: str) -> dict[str, str]:
        found = {}
        for name in paths.SETTINGS:
            path = anyio.Path(self._path(self._below("", f"{SETTINGS}/{name}")))
            if await path.is_file():
                found[name] = await path.read_text("utf-8")
        return found

    async def list_groups(self, project: str) -> list[str]:
        return []

    async def list_members(self, project: str) -> list[tuple[str, str]]:
        """An export has no users."""
        return []

    async def read(self, owner: str) -> Values:
        """The JSON custom fields of whatever the server has at a path of /data; empty for none."""
        ref, within = self._meant(owner)
        path = self._path(self._below(self._unit(ref), FIELDS))
        if not await anyio.Path(path).is_file():
            return {}
        try:
            found = json.loads(await anyio.Path(path).read_bytes())
            return dict(found.get(within, {}))
        except (ValueError, TypeError, AttributeError) as error:
            raise Corrupt(
                f"{path} does not hold custom fields",
                hint="run the export again; it fetches what differs",
            ) from error

    def _meant(self, owner: str) -> tuple[Ref, str]:
        """What a path means: its unit, and the key of its fields in there."""
        kind, ident, *below = map(unquote, owner.removeprefix("/data/").split("/"))
        if kind != "experiments":
            return Ref(self.project, below[1] if below else None), ""
        ref = Ref(self.project, session_id=ident)
        if below and below[0] == "assessors":
            return ref, f"assessors/{self._assessors.get(below[1], below[1])}"
        return ref, "/".join(below)

    async def list_files(self, ref: Ref, *, deep: bool = False) -> list[File]:
        return await anyio.to_thread.run_sync(self._list_files, ref)

    def _rows(self, unit: str) -> Mapping[str, Row]:
        """What the manifest says of a unit; a copy of an export may have come without its pages."""
        if rows := self._ledger.read(unit).rows:
            return rows
        if self._manifest is None:
            whole: dict[str, dict[str, Row]] = defaultdict(dict)
            path = self._home / MANIFEST
            for row in read_manifest(path) if path.is_file() else ():
                whole[unit_of(row)][row.path] = row
            # Listings are made by several threads: none may see a part of it.
            self._manifest = whole
        return self._manifest.get(unit, {})

    def _list_files(self, ref: Ref) -> list[File]:
        """Files below a thing, as a listing of a server would show them. Raises Corrupt when one
        that the manifest names is not there.
        """
        unit = self._unit(ref)
        rows = self._rows(unit or PROJECT)
        item = (ref.item or "").replace("/", "%2F")
        top = self._path(self._below(unit, "/".join(filter(None, (ref.level, item, ref.side)))))
        base = "/data/experiments/x" if ref.session_id else "/data/projects/x"
        found, seen = [], set[Path]()
        for path in _files_below(top, without="sessions" if ref.subject else "subjects"):
            parsed = parse_key(self._place(path).removeprefix(self._below(unit, "")))
            if parsed is None:
                continue
            lane, (_, _, side), inside = parsed
            if side == "in" and not ref.level:
                continue  # a deep listing has outputs only
            row = rows.get(self._disk(path))
            seen.add(self._home / self._disk(path))
            found.append(
                File(
                    path=inside,
                    size=path.stat().st_size,
                    digest=row.md5 if row else "",
                    uri=f"{base}/{lane}/files/{inside}",
                    resource_id=lane,
                    resource=label_of(lane),
                )
            )
        listed = (self._home / name for name in rows if "/files/" in name)
        lost = [path for path in listed if path not in seen and not path.is_file()]
        if lost:
            more = f", and {len(lost) - 1} files more" if lost[1:] else ""
            raise Corrupt(
                f"{lost[0]} is missing from the export{more}",
                hint=f"xnatctl local verify {self.name} names all; the export brings them again",
            )
        return found

    @asynccontextmanager
    async def open_file(self, ref: Ref, path: str) -> AsyncIterator[Chunks]:
        place = self._path(self._below(self._unit(ref), f"{ref.resource}/files/{path}"))
        if not await anyio.Path(place).is_file():
            raise NotFound(f"{place} is missing from the export")
        async with aclosing(Pulled(blocks(file_body(place)))) as body:
            yield body

    @asynccontextmanager
    async def open_zip(self, ref: Ref) -> AsyncIterator[Chunks]:
        lane = self._below(self._unit(ref), f"{ref.resource}/files")
        head = f"bundle/resources/{label_of(ref.resource or '')}/files"
        files = _files_below(self._path(lane))
        members = ((f"{head}/{self._place(p).removeprefix(f'{lane}/')}", p) for p in files)
        async with aclosing(Pulled(archive((n, file_body(p)) for n, p in members))) as body:
            yield body


def _read(document: Path) -> bytes:
    try:
        return document.read_bytes()
    except OSError as error:
        raise NotFound(
            f"{document} is missing from the export",
            why=error.strerror or str(error),
            hint="run the export again; it fetches what is not there",
        ) from error


def _parse(document: Path) -> SessionDetail:
    try:
        return parse_session_xml(_read(document), str(document))
    except BadReply as error:
        raise Corrupt(
            f"{document} is not the document that was exported",
            why=error.why,
            hint="run the export again; it fetches what differs",
        ) from error


def _files_below(top: Path, *, without: str = "") -> Iterable[Path]:
    for folder, names, files in os.walk(top):
        if without and Path(folder) == top:
            names[:] = [name for name in names if name not in (without, HOME)]
        names.sort()
        yield from (Path(folder) / name for name in sorted(files) if not is_part(name))
