"""What becomes of an export's folders around a run: snapshots, and files the source has no more.

A snapshot is written as `.unfinished`, which the next run goes on with if this one is killed, and
gets the name `run-DATE` when all of it is there; then `latest` is switched. So no night can damage
the one before.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from .manifest import HOME, Ledger, Row, unit_of

Deletions = Literal["report", "trash", "delete"]
"""What becomes of files that the source does not have any more."""

UNFINISHED = ".unfinished"
LATEST = "latest"


def previous_snapshot(root: Path) -> Path | None:
    """The folder that `latest` points to."""
    link = root / LATEST
    return link.resolve() if link.is_symlink() and link.is_dir() else None


def name_snapshot(root: Path, moment: datetime) -> Path:
    """Give the finished snapshot its name and switch `latest` to it."""
    name = f"run-{moment:%Y-%m-%d}"
    if (root / name).exists():
        name += f"T{moment:%H%M%S}"
    target = root / name
    (root / UNFINISHED).rename(target)
    link = root / f".{LATEST}-{secrets.token_hex(4)}"
    link.symlink_to(name, target_is_directory=True)
    link.replace(root / LATEST)
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
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
        path = ledger.root / row.path
        units.setdefault(unit_of(row.path.removeprefix("data/")), set()).add(row.path)
        if how == "trash":
            target = ledger.root / HOME / "trash" / f"{moment:%Y-%m-%dT%H%M%S}" / row.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                path.rename(target)
        else:
            path.unlink(missing_ok=True)
        _remove_empty(path.parent, ledger.root)
    for key, gone in units.items():
        page = ledger.read(key)
        kept = {path: row for path, row in page.rows.items() if path not in gone}
        if kept:
            ledger.write(replace(page, rows=kept))
        else:
            ledger.remove(key)


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
