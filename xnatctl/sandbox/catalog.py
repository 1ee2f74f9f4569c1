"""What hangs on the items of a sandbox: resources and their files, rows beside bytes on disk.

A *resource* hangs on an item (`bucket` is `in` or `out` on assessors and reconstructions, else
empty). A *file* is a row with size, MD5 and CRC, and a body: on disk, generated while it is sent
(`Generated`), or discarded. What a catalog of XNAT's lists are these rows, never the disk.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .bodies import (
    Digests,
    Generated,
    Hasher,
    digest,
    move_file,
    safe_path,
    safe_segment,
    write_bytes,
)
from .database import Database

if TYPE_CHECKING:
    from .store import Item

_RESOURCE = (
    "id, item, bucket, label, format, content, description, tags, folder, file_count, file_size, "
    "version"
)
_FILE = "id, resource, path, size, md5, crc, format, content, tags, mtime, body, prefix"


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of an item; `file_count`/`file_size` are the cached figures, None if unknown."""

    id: int
    item: int
    bucket: str
    label: str
    format: str
    content: str
    description: str
    tags: str
    folder: str
    file_count: int | None
    file_size: int | None
    version: int


@dataclass(frozen=True, slots=True)
class File:
    """A catalogued file; `path` is relative to its resource, `body` is disk, none or gen:N."""

    id: int
    resource: int
    path: str
    size: int
    md5: str
    crc: int
    format: str
    content: str
    tags: str
    mtime: float
    body: str
    prefix: bytes

    def generated(self) -> Generated | None:
        """The recipe of a generated body, None for others."""
        if not self.body.startswith("gen:"):
            return None
        return Generated(self.size, int(self.body[4:]), self.prefix)


class Catalog(Database):
    """Resources and files in a database and in an archive tree below one folder."""

    def __init__(self, root: Path, *, discard_bodies: bool = False) -> None:
        super().__init__(root)
        self.archive = root / "archive"
        self.discard_bodies = discard_bodies

    # ---- resources -----------------------------------------------------------------------

    def create_resource(
        self,
        item: Item,
        label: str,
        *,
        bucket: str = "",
        format: str = "",
        content: str = "",
        description: str = "",
        tags: str = "",
    ) -> Resource:
        """A new resource; a second one of the same label gets a folder of its own.

        On assessors and reconstructions `bucket` is `out` unless `in` is given.
        """
        if item.kind in ("assessor", "reconstruction"):
            bucket = bucket or "out"
        name = safe_segment(label)
        folder = {
            "project": f"resources/{name}",
            "experiment": f"RESOURCES/{name}",
            "assessor": f"{bucket}/{name}",
            "reconstruction": f"{bucket}/{name}",
        }.get(item.kind, name)
        cursor = self.db.execute(
            "INSERT INTO resources(item, bucket, label, format, content, description, tags, folder,"
            " version) VALUES(?,?,?,?,?,?,?,?,0)",
            (item.id, bucket, label, format, content, description, tags, folder),
        )
        number = int(cursor.lastrowid or 0)
        if self.row(
            "SELECT 1 FROM resources WHERE item=? AND folder=? AND id<>?", item.id, folder, number
        ):
            self.db.execute(
                "UPDATE resources SET folder=? WHERE id=?", (f"{folder}~{number}", number)
            )
        return self.resource(number)

    def resource(self, number: int) -> Resource:
        """The resource of a numeric id; KeyError when there is none."""
        row = self.row(f"SELECT {_RESOURCE} FROM resources WHERE id=?", number)
        if row is None:
            raise KeyError(number)
        return Resource(*row)

    def resources(self, item: Item, bucket: str | None = None) -> list[Resource]:
        """An item's own resources, in order of creation."""
        rows = self.rows(f"SELECT {_RESOURCE} FROM resources WHERE item=? ORDER BY id", item.id)
        return [r for r in (Resource(*row) for row in rows) if bucket in (None, r.bucket)]

    def update_resource(self, resource: Resource, **columns: str) -> Resource:
        """Change label, format, content, description or tags."""
        for name, value in columns.items():
            if name not in ("label", "format", "content", "description", "tags"):
                raise KeyError(name)
            self.db.execute(f"UPDATE resources SET {name}=? WHERE id=?", (value, resource.id))
        return self.resource(resource.id)

    def delete_resource(self, resource: Resource, *, remove_files: bool) -> None:
        """Delete a resource; its folder too where `remove_files` says so."""
        folder = self.resource_folder(resource)
        self.db.execute("DELETE FROM files WHERE resource=?", (resource.id,))
        self.db.execute("DELETE FROM resources WHERE id=?", (resource.id,))
        if remove_files:
            shutil.rmtree(folder, ignore_errors=True)

    def resource_folder(self, resource: Resource) -> Path:
        """Where a resource's files lie on disk."""
        folder = self.row("SELECT folder FROM items WHERE id=?", resource.item)[0]
        return self.archive / str(folder) / resource.folder

    def refresh_stats(self, resource: Resource) -> None:
        """Recount the cached file_count and file_size."""
        self.db.execute(
            "UPDATE resources SET (file_count, file_size) = (SELECT count(*), "
            "coalesce(sum(size),0) FROM files WHERE resource=?) WHERE id=?",
            (resource.id, resource.id),
        )

    # ---- files ---------------------------------------------------------------------------

    def files(self, resource: Resource) -> list[File]:
        """The catalogued files, in catalog order."""
        return [
            File(*row)
            for row in self.rows(
                f"SELECT {_FILE} FROM files WHERE resource=? ORDER BY id", resource.id
            )
        ]

    def find_file(self, resource: Resource, path: str) -> File | None:
        """One catalogued file, or None."""
        row = self.row(f"SELECT {_FILE} FROM files WHERE resource=? AND path=?", resource.id, path)
        return File(*row) if row else None

    def has_file(self, resource: Resource, path: str) -> bool:
        """Whether a path is catalogued."""
        return bool(self.row("SELECT 1 FROM files WHERE resource=? AND path=?", resource.id, path))

    def file_path(self, resource: Resource, file: File) -> Path:
        """Where a file's bytes lie on disk (if its body is there)."""
        return self.resource_folder(resource) / safe_path(file.path)

    def content_digests(self, body: Generated) -> Digests:
        """Digests of a generated body; those without a prefix are computed once a store."""
        if body.prefix:
            return digest(body)
        row = self.row(
            "SELECT size, md5, crc FROM contents WHERE size=? AND number=?", body.size, body.number
        )
        if row is not None:
            return Digests(*row)
        made = digest(body)
        self.db.execute(
            "INSERT OR REPLACE INTO contents VALUES(?,?,?,?)",
            (body.size, body.number, made.md5, made.crc),
        )
        return made

    def add_file(
        self,
        resource: Resource,
        path: str,
        body: bytes | Generated | Path,
        *,
        format: str = "",
        content: str = "",
        tags: str = "",
        stats: bool = True,
        mtime: float | None = None,
    ) -> None:
        """Catalogue a file, replacing one of that path, and write its bytes.

        `body` is the bytes, a recipe (`Generated`), or a file to copy.
        """
        if isinstance(body, Generated):
            digests = self.content_digests(body)
            kind, prefix = f"gen:{body.number}", body.prefix
        else:
            data = body.read_bytes() if isinstance(body, Path) else body
            hasher = Hasher()
            hasher.feed(data)
            digests, kind, prefix = hasher.digests(), "disk", b""
            if self.discard_bodies:
                kind = "none"
            else:
                write_bytes(self.resource_folder(resource) / safe_path(path), data)
        self.catalog(
            resource, path, digests, body=kind, prefix=prefix, format=format, content=content,
            tags=tags, stats=stats, mtime=mtime,
        )  # fmt: skip

    def adopt(self, resource: Resource, path: str, temporary: Path) -> str:
        """Move a finished temporary file to its place; returns the body kind for `catalog`."""
        if self.discard_bodies:
            temporary.unlink()
            return "none"
        target = self.resource_folder(resource) / safe_path(path)
        move_file(temporary, target)
        return "disk"

    def catalog(
        self,
        resource: Resource,
        path: str,
        digests: Digests,
        *,
        body: str = "disk",
        prefix: bytes = b"",
        format: str = "",
        content: str = "",
        tags: str = "",
        stats: bool = True,
        mtime: float | None = None,
    ) -> None:
        """Write the catalog row of a file whose bytes are in place."""
        self.catalog_all(
            resource, [(path, digests, body)], prefix=prefix, format=format, content=content,
            tags=tags, mtime=mtime,
        )  # fmt: skip
        if stats:
            self.refresh_stats(resource)

    def catalog_all(
        self,
        resource: Resource,
        files: Iterable[tuple[str, Digests, str]],
        *,
        prefix: bytes = b"",
        format: str = "",
        content: str = "",
        tags: str = "",
        mtime: float | None = None,
    ) -> None:
        """Write the catalog rows of files, (path, digests, body kind), whose bytes are in place."""
        stamp = time.time() if mtime is None else mtime
        self.db.executemany(
            "INSERT INTO files(resource, path, size, md5, crc, format, content, tags, mtime, body,"
            " prefix) VALUES(?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(resource, path) DO UPDATE SET "
            "size=excluded.size, md5=excluded.md5, crc=excluded.crc, format=excluded.format, "
            "content=excluded.content, tags=excluded.tags, mtime=excluded.mtime, "
            "body=excluded.body, prefix=excluded.prefix",
            (
                (
                    resource.id,
                    path,
                    d.size,
                    d.md5,
                    d.crc,
                    format,
                    content,
                    tags,
                    stamp,
                    body,
                    prefix,
                )
                for path, d, body in files
            ),
        )
        self.db.execute("UPDATE resources SET version=version+1 WHERE id=?", (resource.id,))

    def add_generated(self, resource: Resource, entries: Iterable[tuple[str, Generated]]) -> None:
        """Catalogue many generated files at once (new paths only), then count them."""
        stamp = time.time()
        with self.transaction():
            rows = []
            for path, body in entries:
                d = self.content_digests(body)
                rows.append(
                    (
                        resource.id,
                        path,
                        d.size,
                        d.md5,
                        d.crc,
                        stamp,
                        f"gen:{body.number}",
                        body.prefix,
                    )
                )
            self.db.executemany(
                "INSERT INTO files(resource, path, size, md5, crc, format, content, tags, mtime,"
                " body, prefix) VALUES(?,?,?,?,?,'','','',?,?,?)",
                rows,
            )
            self.refresh_stats(resource)

    def remove_file(self, resource: Resource, file: File, *, remove_bytes: bool = True) -> None:
        """Take a file out of the catalog, and off the disk unless told otherwise."""
        self.db.execute("DELETE FROM files WHERE id=?", (file.id,))
        self.db.execute("UPDATE resources SET version=version+1 WHERE id=?", (resource.id,))
        if remove_bytes and file.body == "disk":
            self.file_path(resource, file).unlink(missing_ok=True)
