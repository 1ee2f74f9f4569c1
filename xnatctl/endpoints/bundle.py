"""An exported project on disk, as a sink that keeps it up to date; `bundle_reader` reads it.

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

import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread

from xnatctl.engine.plan import expected, same
from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.types import Item, Stamp, Unit, Verdict
from xnatctl.errors import Conflict
from xnatctl.xnat import paths
from xnatctl.xnat.fields import field_path
from xnatctl.xnat.parse import digest_of

from .catalogue import FIELDS, NO_FIELDS, PROJECT, SETTINGS
from .local import FileStamp, LocalSink, Written, keys_of
from .manifest import HOME, Ledger, Page, Row
from .names import folders_above

PAGE = "page-of-the-manifest"
"""The key of the item that stands for a unit's rows."""
PAGE_STAGE = 9


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an export comes from: the server's URL and version, as each row tells."""

    server: str
    version: str = ""


Remember = Callable[[str, Mapping[str, str]], Awaitable[None]]


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
        remember: Remember | None = None,
    ) -> None:
        """`payload` is the folder below `root` where files go, `name` that of the whole export.
        What custom fields a session had is remembered: no listing tells.
        """
        prefix = f"{payload}/" if payload else ""
        super().__init__(
            root,
            place=lambda unit, key: f"{prefix}{place_in_bundle(unit, key)}",
            bag=bool(payload),
            digests=self,
            sha256=True,
        )
        self.name = name or self.name
        self.ledger = Ledger(root)
        self._origin = origin
        self._remember = remember
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

    async def inventory(self, unit: Unit, former: Iterable[str] = ()) -> Inventory:
        page, before = await anyio.to_thread.run_sync(self._pages, unit)
        if page.unit != unit.key:
            raise Conflict(
                f"{unit.label} would lie in the folder of {page.unit}",
                why="this file system does not tell upper from lower case",
                hint="export to one that does",
            )
        rows = {**before.rows, **page.rows}
        known = {str(self._root / path): row for path, row in rows.items()}
        self._known.update(known)
        try:
            former = [row.name or row.path for row in page.rows.values()]
            found = dict(await super().inventory(unit, former))
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
        # A file that was read or written since is not in the page as it is now.
        if page.state and not self._is_fresh(unit):
            found[PAGE] = Stamp(digest=page.state)
        return found

    def _is_fresh(self, unit: Unit) -> bool:
        items = unit.items if self._fresh else ()
        return any(str(self.path(unit, key)) in self._fresh for key in keys_of(items))

    def _pages(self, unit: Unit) -> tuple[Page, Page]:
        before = self._previous.read(unit.key) if self._previous else Page(unit.key)
        return self.ledger.read(unit.key), before

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
        stamps = (f"{self.where(unit, one.key)}\t{one.size}\t{one.digest}" for one in items)
        state = digest_of(*sorted(stamps))
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
        await anyio.to_thread.run_sync(self._make_way, unit)
        if self._previous is not None:
            links = [
                (self._previous.root / self.where(unit, item.key), self.path(unit, item.key))
                for item in unit.items
                if item.verdict is Verdict.KEEP and item.key != PAGE
            ]
            await anyio.to_thread.run_sync(_link_all, links)

    def _make_way(self, unit: Unit) -> None:
        """Remove files of this export where the source has a folder by now."""
        old = self.ledger.read(unit.key).rows
        keys = (key for item in unit.to_move for key in expected(item))
        above = {folder for key in keys for folder in folders_above(self.where(unit, key))}
        for path in above & old.keys():
            with suppress(OSError):
                (self._root / path).unlink()

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        if item.key == PAGE:
            await anyio.to_thread.run_sync(self._write_page, unit, item)
            return
        await super().put(unit, item, chunks)
        if item.key == FIELDS:
            self._arrived[unit.key, FIELDS] = await self._seen_fields(unit)
        elif item.kind == "document":
            self._arrived[unit.key, item.key] = item.digest

    async def _seen_fields(self, unit: Unit) -> str:
        """The digest of custom fields, which are known only when they have been read."""
        found = json.loads(await anyio.Path(self.path(unit, FIELDS)).read_bytes())
        digest = digest_of(json.dumps(found, sort_keys=True)) if found else NO_FIELDS
        if self._remember is not None:
            await self._remember(unit.key, {"fields": digest})
        return digest

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
                if one.kind == "document" and key != FIELDS:
                    whole &= row is not None and row.fingerprint == one.digest
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
        where, place = self.where(unit, key), self._place(unit, key)
        name = place if where != place else ""
        if fresh is None:
            if known is None or (known.size, known.mtime_ns) != (facts.st_size, facts.st_mtime_ns):
                return None
            return replace(known, fingerprint=print_, only_here=False, name=name)
        return Row(
            path=where,
            name=name,
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
        if item.key == FIELDS:
            return f"{server}{field_path(paths.owner(item.ref))}"
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


def check_target(root: Path, form: str) -> None:
    """An export goes into an empty folder or into its own; `form` says what it is, and of which
    project. Raises Conflict.
    """
    home = root / HOME / "export"
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
