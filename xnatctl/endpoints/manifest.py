"""What an export holds: one row a file, kept unit by unit, and the lists made of it.

While a run goes on, each unit has a page of rows below `.xnatctl/units/`, written at once when the
unit is whole; so a run that is killed loses nothing of the units before. From the pages come, at
the end, `manifest.jsonl` (a line a file, sorted) and the lists of a BagIt bag (RFC 8493). Paths are
relative to the folder of the export; `name` is the true one where that could not be on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xnatctl.errors import ConfigError

from .names import Names

MANIFEST = "manifest.jsonl"
HOME = ".xnatctl"
PAGES = Names(longest=240)
"""Pages have a suffix, and one more while they are written."""
PUBLIC = ("path", "size", "md5", "sha256", "source", "server", "version", "time")


@dataclass(frozen=True, slots=True)
class Row:
    """One file of an export. `size` in bytes, `time` of its arrival in UTC.

    `fingerprint` is that of a document, `only_here` says that the source does not have it any more.
    `name` is the true path where the disk could not have it.
    """

    path: str
    size: int
    md5: str
    sha256: str
    source: str = ""
    server: str = ""
    version: str = ""
    time: str = ""
    mtime_ns: int = 0
    fingerprint: str = ""
    only_here: bool = False
    name: str = ""

    @property
    def true(self) -> str:
        """Where it belongs below the folder of the export, whatever the disk takes."""
        return (self.name or self.path).removeprefix("data/")

    def public(self) -> dict[str, Any]:
        named = {"name": self.name} if self.name else {}
        return {name: getattr(self, name) for name in PUBLIC} | named


@dataclass(frozen=True, slots=True)
class Page:
    """The rows of one unit by path. `state` is a digest of what the source listed; empty while
    something is missing.
    """

    unit: str
    state: str = ""
    rows: Mapping[str, Row] = field(default_factory=dict)


class Ledger:
    """The pages below the folder of an export."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pages = root / HOME / "units"
        # There while the lists are older than a page; it outlives a run that is killed.
        self._unlisted = root / HOME / "unlisted"

    def _path(self, unit: str) -> Path:
        return self._pages / f"{PAGES.place(unit)}.jsonl"

    def read(self, unit: str) -> Page:
        """The page of a unit; an empty one where there is none, or none that can be read. It is
        that of another unit where a file system takes both for the same.
        """
        try:
            with self._path(unit).open(encoding="utf-8") as lines:
                head = json.loads(next(lines))
                rows = [Row(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError, StopIteration):
            return Page(unit)
        known = str(head.get("unit", unit))
        return Page(known, str(head.get("state", "")), {row.path: row for row in rows})

    def write(self, page: Page) -> None:
        path = self._path(page.unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._unlisted.touch()
        head = json.dumps({"unit": page.unit, "state": page.state})
        rows = (json.dumps(asdict(page.rows[name])) for name in sorted(page.rows))
        replace_file(path, (f"{line}\n" for line in (head, *rows)))

    def remove(self, unit: str) -> None:
        self._unlisted.touch()
        self._path(unit).unlink(missing_ok=True)

    def units(self) -> list[str]:
        """The keys of all units that have a page, sorted."""
        found = self._pages.rglob("*.jsonl") if self._pages.is_dir() else ()
        return sorted(self._unit_of(page) for page in found)

    def _unit_of(self, page: Path) -> str:
        """The key of the unit of a page, which a disk may have under another name."""
        place = page.relative_to(self._pages).as_posix().removesuffix(".jsonl")
        try:
            with page.open(encoding="utf-8") as lines:
                return str(json.loads(next(lines))["unit"])
        except (OSError, ValueError, TypeError, KeyError, StopIteration):
            return place

    def rows(self) -> Iterator[Row]:
        for unit in self.units():
            yield from self.read(unit).rows.values()

    def renamed(self) -> Iterator[Row]:
        """The rows of files that could not have their own names."""
        manifest = self.root / MANIFEST
        if self._unlisted.exists() or not manifest.is_file():
            yield from (row for row in self.rows() if row.name)
            return
        # Few files are, and a manifest can be long: only their lines are taken apart.
        with manifest.open(encoding="utf-8") as lines:
            yield from (_parse_row(one, str(manifest)) for one in lines if '"name": "' in one)

    def write_lists(self, bag: Mapping[str, str] | None) -> None:
        """The manifest, and for a bag (whose `bag-info.txt` says this) its tag files, where pages
        have changed since.
        """
        if not self._unlisted.exists() and (self.root / MANIFEST).exists():
            return
        replace_file(
            self.root / MANIFEST,
            (json.dumps(row.public(), ensure_ascii=False) + "\n" for row in self.rows()),
        )
        if bag is not None:
            self._write_bag(bag)
        self._unlisted.unlink(missing_ok=True)

    def _write_bag(self, info: Mapping[str, str]) -> None:
        """The tag files of a bag whose payload lies in `data/`; the manifest is one of them."""
        size = count = 0
        with ExitStack() as stack:
            lists = {
                name: stack.enter_context(
                    (self.root / f"manifest-{name}.txt").open("w", encoding="utf-8")
                )
                for name in ("md5", "sha256")
            }
            for row in self.rows():
                lists["md5"].write(f"{row.md5}  {_bag_path(row.path)}\n")
                lists["sha256"].write(f"{row.sha256}  {_bag_path(row.path)}\n")
                size += row.size
                count += 1
        declaration = ("BagIt-Version: 1.0\n", "Tag-File-Character-Encoding: UTF-8\n")
        replace_file(self.root / "bagit.txt", declaration)
        facts = {
            "Bagging-Date": datetime.now(UTC).date().isoformat(),
            "Payload-Oxum": f"{size}.{count}",
            **info,
        }
        replace_file(self.root / "bag-info.txt", (f"{k}: {v}\n" for k, v in facts.items()))
        tags = ("bagit.txt", "bag-info.txt", "manifest-md5.txt", "manifest-sha256.txt", MANIFEST)
        replace_file(
            self.root / "tagmanifest-sha256.txt",
            (f"{_sha256(self.root / name)}  {name}\n" for name in tags),
        )


def read_manifest(path: Path) -> Iterator[Row]:
    """The rows of a manifest. Raises ConfigError with the line that is none."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield _parse_row(line, f"{path}, line {number}")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", why=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a manifest", why="it is not UTF-8 text") from error


def _parse_row(line: str, where: str) -> Row:
    try:
        data = json.loads(line)
        path, size = str(data["path"]), int(data["size"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"{where} is not a row of a manifest",
            why="a row is a JSON object with path, size, md5 and sha256",
        ) from error
    md5, sha256, source, server, version, time = (str(data.get(n) or "") for n in PUBLIC[2:])
    name = str(data.get("name") or "")
    return Row(path, size, md5, sha256, source, server, version, time, name=name)


def unit_of(row: Row) -> str:
    """The key of the unit that a file of an export belongs to."""
    parts = row.true.split("/")
    if parts[0] == "settings":
        return "settings"
    if parts[0] != "subjects" or len(parts) < 3:
        return "project"
    return "/".join(parts[:4] if parts[2] == "sessions" and len(parts) > 4 else parts[:2])


def replace_file(path: Path, lines: Iterable[str]) -> None:
    """Write a text file beside its place, sync it, and give it its name."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _bag_path(path: str) -> str:
    return path.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def why_unequal(root: Path, row: Row) -> str:
    """How a file differs from its row: `missing`, its size, or a digest; empty if it does not."""
    path = root / row.path
    try:
        size = path.stat().st_size
        if size != row.size:
            return f"{size} bytes, {row.size} listed"
        for name, wanted in (("sha256", row.sha256), ("md5", row.md5)):
            if wanted:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, name).hexdigest()
                return "" if found == wanted else f"{name} {found}, {wanted} listed"
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        return error.strerror or str(error)
    return ""
