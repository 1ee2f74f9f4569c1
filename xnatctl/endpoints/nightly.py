"""What becomes of an export's folders around a run: snapshots, files the source has no more, and
whether the disk still has what the manifest says.

A snapshot is written as `.unfinished`, which the next run goes on with if this one is killed, and
gets the name `run-DATE` when all of it is there; then `latest` is switched. So no night can damage
the one before.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from xnatctl.engine import crash
from xnatctl.errors import ConfigError, LocalFault

from .disk import flush_folders
from .manifest import HOME, MANIFEST, Ledger, Row, read_manifest, unit_of, why_unequal
from .names import fold, look
from .parts import is_part

Deletions = Literal["report", "trash", "delete"]
"""What becomes of files that the source does not have any more."""

UNFINISHED = ".unfinished"
LATEST = "latest"


def previous_snapshot(root: Path) -> Path | None:
    """The folder that `latest` points to; the last by name where somebody removed that one.

    Raises LocalFault where `latest` is something else than a link.
    """
    link = root / LATEST
    if link.exists() and not link.is_symlink():
        raise LocalFault(
            f"{link} is in the way",
            why="it is no link to a snapshot; a copy may have made a folder of it",
            hint="move it away and run the same command again",
        )
    last = max((one for one in root.glob("run-*") if one.is_dir()), default=None)
    return link.resolve() if link.is_dir() else last


def name_snapshot(root: Path, moment: datetime) -> Path:
    """Give the finished snapshot a name that no other has, and switch `latest` to it."""
    day = f"run-{moment:%Y-%m-%d}"
    names = (day, f"{day}T{moment:%H%M%S}", *(f"{day}T{moment:%H%M%S}-{n}" for n in range(2, 1000)))
    target = next(root / name for name in names if not os.path.lexists(root / name))
    crash.at("snapshot-whole")
    (root / UNFINISHED).rename(target)
    crash.at("snapshot-named")
    link = root / f".{LATEST}"
    link.unlink(missing_ok=True)
    link.symlink_to(target.name, target_is_directory=True)
    link.replace(root / LATEST)
    crash.at("snapshot-latest")
    flush_folders([root])
    return target


def forget_all_but(ledger: Ledger, units: Collection[str]) -> None:
    """Take out of an unfinished snapshot what an earlier try had and this one does not."""
    for key in ledger.units():
        page = ledger.read(key)
        rows = [row for row in page.rows.values() if key not in units or row.only_here]
        if rows or key not in units:
            take_away(ledger, rows, "delete", datetime.min)
        if key not in units:
            ledger.remove(key)


def take_away(ledger: Ledger, rows: Iterable[Row], how: Deletions, moment: datetime) -> None:
    """Delete files, or move them below `.xnatctl/trash/DATE/`, and take them out of the pages."""
    units: dict[str, set[str]] = {}
    for row in rows:
        units.setdefault(unit_of(row), set()).add(row.path)
    for key, gone in units.items():
        remove_files(ledger.root, gone, how, moment)
        page = ledger.read(key)
        kept = {path: row for path, row in page.rows.items() if path not in gone}
        if kept:
            ledger.write(replace(page, rows=kept))
        else:
            ledger.remove(key)


def remove_files(root: Path, names: Iterable[str], how: Deletions, moment: datetime) -> None:
    """Delete files below `root`, or move them to its trash, and folders that they leave empty."""
    for name in names:
        path = root / name
        if how == "trash":
            target = root / HOME / "trash" / f"{moment:%Y-%m-%dT%H%M%S}" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                path.rename(target)
        else:
            path.unlink(missing_ok=True)
        _remove_empty(path.parent, root)


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


@dataclass(slots=True)
class Checked:
    """What the disk said of a manifest: how many files are good, and what is MISSING, a MISMATCH
    or EXTRA, each with its path and why, and with its true name where that is another.
    """

    good: int = 0
    wrong: list[dict[str, str]] = field(default_factory=list)

    def add(self, status: str, path: str, why: str = "", name: str = "") -> None:
        named = {"name": name} if name else {}
        self.wrong.append({"status": status, "path": path, "why": why, **named})


def check(folder: Path) -> Checked:
    """Read every file of an export, or of the latest snapshot in `folder`, again."""
    places = (folder / MANIFEST, folder / LATEST / MANIFEST)
    manifest = next((path for path in places if path.is_file()), None)
    if manifest is None:
        raise ConfigError(
            f"{folder} has no {MANIFEST}",
            hint="name the folder that `xnatctl project export` wrote",
        )
    root, checked, listed = manifest.parent, Checked(), set()
    for row in read_manifest(manifest):
        listed.add(row.path)
        why = why_unequal(root, row)
        if why == "missing":
            checked.add("MISSING", row.path, name=row.name)
        elif why:
            checked.add("MISMATCH", row.path, why, row.name)
        else:
            checked.good += 1
    for path in _strangers(root, listed):
        checked.add("EXTRA", path)
    return checked


def _strangers(root: Path, listed: Collection[str]) -> list[str]:
    """Files that the manifest does not name; the lists of a bag lie outside its payload, and what
    a killed run left half written is swept away by the next.
    """
    top = root / "data" if (root / "bagit.txt").is_file() else root
    paths = (path for path in top.rglob("*") if path.is_file() and not is_part(path.name))
    names = (path.relative_to(root).as_posix() for path in paths)
    known = {MANIFEST, *listed}
    if look(root).forgets:
        known |= {fold(name) for name in listed}
        names = (fold(name) for name in names)
    return sorted(one for one in names if one not in known and not one.startswith(f"{HOME}/"))
