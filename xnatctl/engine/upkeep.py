"""Looking after a state store while no run is going on: what is in it, is it sound, make it small.

Works on the file itself, beside `StateStore`, because what is looked at here may be damaged.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xnatctl.errors import LocalFault, NotFound

DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Contents:
    """A store in figures; `size` in bytes, its journal included."""

    schema: int
    size: int
    runs: int
    units: int
    items: int


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """Runs that were forgotten, and the size in bytes before and after."""

    runs: int
    before: int
    after: int


def contents(path: Path) -> Contents:
    """Count what is in a store. Raises NotFound, LocalFault."""
    with _opened(path) as db:
        runs, units, items = (
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("run", "unit", "item")
        )
        schema = db.execute("PRAGMA user_version").fetchone()[0]
    return Contents(schema, _size(path), runs, units, items)


def problems(path: Path) -> list[str]:
    """What SQLite finds wrong with a store, page by page. Raises NotFound, LocalFault."""
    with _opened(path) as db:
        found = [row[0] for row in db.execute("PRAGMA integrity_check")]
    return [one for one in found if one != "ok"]


def vacuum(path: Path, *, older_than_days: float | None = None) -> Vacuumed:
    """Give unused room back to the disk, and forget runs that ended so many days ago.

    What is known of units and items stays: it is what makes the next run cheap. Raises NotFound,
    LocalFault (also while a run is writing).
    """
    before = _size(path)
    forgotten = 0
    with _opened(path) as db:
        if older_than_days is not None:
            forgotten = db.execute(
                "DELETE FROM run WHERE ended < ?", (time.time() - older_than_days * DAY_S,)
            ).rowcount
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Vacuumed(forgotten, before, _size(path))


def _size(path: Path) -> int:
    beside = [path, path.with_name(f"{path.name}-wal")]
    return sum(one.stat().st_size for one in beside if one.exists())


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        raise NotFound(f"there is no state store {path}", why="nothing was moved from here yet")
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=2.0)
        try:
            yield db
        finally:
            db.close()
    except sqlite3.Error as error:
        busy = "locked" in str(error)
        raise LocalFault(
            f"the state store {path} cannot be used",
            why=str(error),
            hint="wait for the run that uses it to end"
            if busy
            else f"move it away (mv {path} {path}.bad); the next run compares both ends afresh",
        ) from error
