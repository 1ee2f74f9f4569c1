"""An exported project on disk: as a sink that keeps it up to date, and read like a server.

    DIR/project.xml, project.json, resources/…, settings/…
    DIR/subjects/S/subject.xml, subject.json, resources/…
    DIR/subjects/S/sessions/E/session.xml, session.json, scans/…, assessors/…, resources/…
    DIR/manifest.jsonl, DIR/.xnatctl/

A bag has all but the last two below `data/`.

How `BundleSink` decides what has to move:

1. A file is there if its size and time stamp are those of its row, or if its bytes hash the same.
2. A document is there if its bytes are those of its row, and the row's fingerprint is the source's.
3. In a snapshot a file that the previous one has is there too: `begin` links it.
4. The page of rows is an item of the unit like any other, the last one; a unit without a true page
   is never taken for done, and the runner needs to know nothing of it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread

from xnatctl.engine.plan import expected, same
from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.types import Item, Stamp, Unit, Verdict
from xnatctl.errors import BadReply, Conflict, Corrupt, NotFound
from xnatctl.model import File, Ref, Session, SessionDetail, Subject
from xnatctl.xnat import paths
from xnatctl.xnat.parse import digest_of, parse_session_xml

from .bodies import Pulled, archive, blocks, file_body
from .catalogue import PROJECT, PROJECT_XML, SESSION_XML, SETTINGS, SUBJECT_XML, parse_key
from .local import FileStamp, LocalSink, Written, path_below
from .manifest import MANIFEST, Ledger, Page, Row, read_manifest, unit_of
from .parts import is_part

PAGE = "page-of-the-manifest"
"""The key of the item that stands for a unit's rows."""
PAGE_STAGE = 9


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an export comes from: the server's URL and version, as each row tells."""

    server: str
    version: str = ""


def place_in_bundle(unit: Unit, key: str) -> str:
    """What a project holds itself lies at the top, everything else in the folder of its unit."""
    return key if unit.key in (PROJECT, SETTINGS) else f"{unit.key}/{key}"


class BundleSink(LocalSink):
    """Writes into the bundle at `root`, and links what `previous` has of it already."""

    def __init__(
        self,
        root: Path,
        *,
        origin: Origin,
        name: str = "",
        payload: str = "",
        previous: Path | None = None,
    ) -> None:
        """`payload` is the folder below `root` where files go, `name` that of the whole export."""
        prefix = f"{payload}/" if payload else ""
        super().__init__(
            root,
            place=lambda unit, key: f"{prefix}{place_in_bundle(unit, key)}",
            digests=self,
            sha256=True,
        )
        self.name = name or self.name
        self.ledger = Ledger(root)
        self._origin = origin
        self._previous = Ledger(previous) if previous is not None else None
        self._known: dict[str, Row] = {}
        self._fresh: dict[str, Written] = {}
        self._arrived: dict[tuple[str, str], str] = {}

    # --- what is there -------------------------------------------------------------------------

    async def local_digests(self, files: Iterable[FileStamp]) -> dict[str, str]:
        """MD5s of files whose row still tells their size and time."""
        found = {}
        for path, size, mtime_ns in files:
            fresh, row = self._fresh.get(path), self._known.get(path)
            if fresh is not None and fresh[1:3] == (size, mtime_ns):
                found[path] = fresh.digest
            elif row is not None and (row.size, row.mtime_ns) == (size, mtime_ns):
                found[path] = row.md5
        return found

    async def keep_local_digests(self, rows: Iterable[tuple[str, int, int, str]]) -> None:
        """What was written is kept by `_keep`, with its SHA-256."""

    async def _keep(self, rows: list[Written]) -> None:
        self._fresh.update((row.path, row) for row in rows)

    async def inventory(self, unit: Unit) -> Inventory:
        page, before = await anyio.to_thread.run_sync(self._pages, unit)
        rows = {**before.rows, **page.rows}
        known = {str(self._root / path): row for path, row in rows.items()}
        self._known.update(known)
        try:
            found = dict(await super().inventory(unit))
        finally:
            for path in known:
                self._known.pop(path, None)
        for item in unit.items:
            if item.key not in found and (row := self._at_previous(unit, item.key, before)):
                found[item.key] = Stamp(row.size, row.md5)
        for item in unit.items:
            there = found.get(item.key)
            if item.kind == "document" and there is not None:
                path = self.where(unit, item.key)
                print_ = self._arrived.get((unit.key, item.key))
                row = rows.get(path)
                if print_ is None and row is not None and row.md5 == there.digest:
                    print_ = row.fingerprint
                if print_:
                    found[item.key] = Stamp(digest=print_)
                else:
                    del found[item.key]
        if page.state:
            found[PAGE] = Stamp(digest=page.state)
        return found

    def _pages(self, unit: Unit) -> tuple[Page, Page]:
        before = self._previous.read(unit.key) if self._previous else Page(unit.key)
        return self.ledger.read(unit.key), before

    def where(self, unit: Unit, key: str) -> str:
        """The path of a key as rows have it: relative to the folder of the export."""
        return self._place(unit, key)

    def _at_previous(self, unit: Unit, key: str, before: Page) -> Row | None:
        """The row of a file that the previous snapshot has, unchanged since."""
        row = before.rows.get(self.where(unit, key))
        if row is None or self._previous is None:
            return None
        try:
            facts = (self._previous.root / row.path).stat()
        except OSError:
            return None
        return row if (facts.st_size, facts.st_mtime_ns) == (row.size, row.mtime_ns) else None

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        """Shares stand in the documents; the page of rows is added."""
        unit = super().prepare(unit, inventory)
        items = tuple(item for item in unit.items if item.path != "share")
        state = digest_of(*sorted(f"{one.key}\t{one.size}\t{one.digest}" for one in items))
        page = Item(
            key=PAGE,
            kind="document",
            lane=PAGE,
            ref=unit.ref,
            path="page",
            body=b"page",
            digest=state,
            stage=PAGE_STAGE,
        )
        return replace(unit, items=(*items, page))

    # --- writing -------------------------------------------------------------------------------

    async def begin(self, unit: Unit) -> None:
        await super().begin(unit)
        if self._previous is not None:
            links = [
                (self._previous.root / self.where(unit, item.key), self.path(unit, item.key))
                for item in unit.items
                if item.verdict is Verdict.KEEP and item.key != PAGE
            ]
            await anyio.to_thread.run_sync(_link_all, links)

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        if item.key == PAGE:
            await anyio.to_thread.run_sync(self._write_page, unit, item)
            return
        await super().put(unit, item, chunks)
        if item.kind == "document":
            self._arrived[unit.key, item.key] = item.digest

    def _write_page(self, unit: Unit, item: Item) -> None:
        """The rows of all that is there of the unit, and of what only the export still has."""
        old, before = self._pages(unit)
        rows: dict[str, Row] = {}
        whole = True
        for one in unit.items:
            if one.key == PAGE:
                continue
            for key, stamp in (expected(one) or {one.key: Stamp()}).items():
                path = self.where(unit, key)
                row = self._row(unit, key, one, old.rows.get(path) or before.rows.get(path))
                if row is not None:
                    rows[path] = row
                whole &= row is not None and same(stamp, Stamp(row.size, row.md5))
                whole &= one.kind != "document" or bool(row and row.fingerprint == one.digest)
        for path, row in old.rows.items():
            if path not in rows and (self._root / path).is_file():
                rows[path] = replace(row, only_here=True)
        self.ledger.write(Page(unit.key, item.digest if whole else "", rows))

    def _row(self, unit: Unit, key: str, item: Item, known: Row | None) -> Row | None:
        """The row of a file that is there, None where it is not."""
        path = self.path(unit, key)
        try:
            facts = path.stat()
        except OSError:
            return None
        fresh = self._fresh.pop(str(path), None)
        print_ = self._arrived.pop((unit.key, key), known.fingerprint if known else "")
        if fresh is None:
            if known is None or (known.size, known.mtime_ns) != (facts.st_size, facts.st_mtime_ns):
                return None
            return replace(known, fingerprint=print_, only_here=False)
        return Row(
            path=self.where(unit, key),
            size=fresh.size,
            md5=fresh.digest,
            sha256=fresh.sha256,
            source=_source_of(self._origin.server, item, key),
            server=self._origin.server,
            version=self._origin.version,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            mtime_ns=fresh.mtime_ns,
            fingerprint=print_,
        )


def _source_of(server: str, item: Item, key: str) -> str:
    """The address of what a row stands for."""
    if item.kind == "document":
        kind = "json" if item.path == "json" else "xml"
        return f"{server}{paths.owner(replace(item.ref, resource=None))}?format={kind}"
    inside = key.partition("/files/")[2]
    return f"{server}{paths.file(item.ref, inside)}"


def _link_all(links: list[tuple[Path, Path]]) -> None:
    for there, here in links:
        if here.exists() or not there.exists():
            continue
        here.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(there, here)
        except OSError:
            # Not every file system has links, and each has a limit.
            shutil.copy2(there, here)


# --- reading -----------------------------------------------------------------------------------

_SESSION = re.compile(r"subjects/(?P<subject>[^/]+)/sessions/(?P<session>[^/]+)")


class BundleReader:
    """Answers what `XnatSource` asks of a server out of a bundle: export, then import, is transfer.

    Digests come from the manifest, so that a file that rotted on the disk does not arrive.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is an export, the folder of snapshots (then the latest is meant), or a bag."""
        home = folder / "latest" if (folder / "latest" / MANIFEST).is_file() else folder
        root = home / "data" if (home / "bagit.txt").is_file() else home
        self._root = root
        self._home = home
        self.name = str(folder)
        self.url = f"file://{folder.absolute()}"
        project = root / PROJECT_XML
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
        self._index()

    def _index(self) -> None:
        for folder in _folders(self._root / "subjects"):
            document = folder / SUBJECT_XML
            known = _parse(document).session
            subject = Subject(known.id, folder.name, self.project)
            self._subjects.append(subject)
            self._documents[paths.subject(self.project, subject.label)] = document
            for session in _folders(folder / "sessions"):
                self._index_session(session, subject)

    def _index_session(self, folder: Path, subject: Subject) -> None:
        document = folder / SESSION_XML
        detail = _parse(document)
        session = replace(
            detail.session,
            label=folder.name,
            project=self.project,
            subject=subject.label,
            subject_id=subject.id,
        )
        self._sessions[session.id] = session
        for one in detail.assessors:
            place = folder / "assessors" / one.label.replace("/", "%2F") / "assessor.xml"
            self._documents[paths.session(Ref(self.project, session_id=one.id))] = place

    def _folder(self, ref: Ref) -> Path:
        if ref.session_id:
            session = self._sessions[ref.session_id]
            return self._root / "subjects" / session.subject / "sessions" / session.label
        return self._root / "subjects" / ref.subject if ref.subject else self._root

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
        document = self._folder(Ref(self.project, session_id=session_id)) / SESSION_XML
        return await anyio.to_thread.run_sync(_parse, document)

    async def get_settings(self, project: str) -> dict[str, str]:
        folder = anyio.Path(self._root / SETTINGS)
        if not await folder.is_dir():
            return {}
        return {
            name: await anyio.Path(folder / name).read_text("utf-8")
            for name in paths.SETTINGS
            if await anyio.Path(folder / name).is_file()
        }

    async def list_members(self, project: str) -> list[tuple[str, str]]:
        """An export has no users."""
        return []

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
                whole[unit_of(row.path.removeprefix("data/"))][row.path] = row
            # Listings are made by several threads: none may see a part of it.
            self._manifest = whole
        return self._manifest.get(unit, {})

    def _list_files(self, ref: Ref) -> list[File]:
        """Files below a thing, as a listing of a server would show them. Raises Corrupt when one
        that the manifest names is not there.
        """
        folder = self._folder(ref)
        unit = folder.relative_to(self._root).as_posix()
        rows = self._rows(PROJECT if unit == "." else unit)
        top = folder
        if ref.level:
            sides = (ref.side,) if ref.side else ()
            item = (ref.item or "").replace("/", "%2F")
            top = folder.joinpath(ref.level, item, *sides)
        base = "/data/experiments/x" if ref.session_id else "/data/projects/x"
        found, seen = [], set[Path]()
        for path in _files_below(top, without="sessions" if ref.subject else "subjects"):
            key = path.relative_to(folder).as_posix()
            parsed = parse_key(key)
            if parsed is None:
                continue
            lane, (_, _, side), inside = parsed
            if side == "in" and not ref.level:
                continue  # a deep listing has outputs only
            row = rows.get(path.relative_to(self._home).as_posix())
            seen.add(path)
            found.append(
                File(
                    path=inside,
                    size=path.stat().st_size,
                    digest=row.md5 if row else "",
                    uri=f"{base}/{lane}/files/{inside}",
                    resource_id=lane,
                    resource=lane.rpartition("/")[2].replace("%2F", "/"),
                )
            )
        listed = (self._home / name for name in rows if "/files/" in name)
        lost = [path for path in listed if path not in seen and not path.is_file()]
        if lost:
            raise Corrupt(
                f"{len(lost)} files are missing from the export, {lost[0]} first",
                hint=f"xnatctl local verify {self.name} names them; the export brings them again",
            )
        return found

    @asynccontextmanager
    async def open_file(self, ref: Ref, path: str) -> AsyncIterator[Chunks]:
        place = path_below(self._folder(ref), f"{ref.resource}/files/{path}")
        if not await anyio.Path(place).is_file():
            raise NotFound(f"{place} is missing from the export")
        async with aclosing(Pulled(blocks(file_body(place)))) as body:
            yield body

    @asynccontextmanager
    async def open_zip(self, ref: Ref) -> AsyncIterator[Chunks]:
        top = path_below(self._folder(ref), f"{ref.resource}/files")
        label = (ref.resource or "").rpartition("/")[2].replace("%2F", "/")
        head = f"bundle/resources/{label}/files"
        members = ((f"{head}/{p.relative_to(top).as_posix()}", p) for p in _files_below(top))
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


def _folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []


def _files_below(top: Path, *, without: str = "") -> Iterable[Path]:
    for folder, names, files in os.walk(top):
        if without and Path(folder) == top:
            names[:] = [name for name in names if name not in (without, ".xnatctl")]
        names.sort()
        yield from (Path(folder) / name for name in sorted(files) if not is_part(name))


def check_target(root: Path, form: str) -> None:
    """An export goes into an empty folder or into its own; `form` says what it is, and of which
    project. Raises Conflict.
    """
    home = root / ".xnatctl" / "export"
    if home.is_file():
        if (known := home.read_text("utf-8").strip()) != form:
            raise Conflict(
                f"{root} holds {known}",
                why=f"it would become {form}",
                hint="name another folder with --out",
            )
        return
    held = [one.name for one in root.iterdir() if one.name != "lost+found"] if root.is_dir() else []
    if held:
        raise Conflict(
            f"{root} is not empty and holds no export",
            why=f"{held[0]} is in it",
            hint="name an empty folder with --out",
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text(f"{form}\n", "utf-8")
