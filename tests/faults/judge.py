"""What a destination lacks and what it has too much, without the code under test.

Folders of two sandboxes are walked and compared; the state file is read with sqlite3. A transfer is
right when every object of the source is there exactly once, intact, and nothing else is.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.integration.oracle import files_of, instances_of, is_imported_dicom, leftovers

Record = Callable[[str, object], None]


@dataclass(frozen=True)
class Judgement:
    """Objects that are missing or altered, objects that are too many, and what was left lying."""

    lost: int
    doubled: int
    leavings: int

    @property
    def is_whole(self) -> bool:
        return not (self.lost or self.doubled or self.leavings)


def judge(
    here: Path,
    there: Path,
    project: str,
    *,
    mode: str,
    owners: Collection[str] = (),
    became: str = "",
) -> Judgement:
    """Compare a project on two servers' disks; `owners` are the sessions and subjects that count.

    `became` is its ID at the destination where that is another one. An imported object is known by
    its SOP Instance UID, anything else by its place and MD5.
    """

    def objects(root: Path, project: str) -> Counter[tuple[str, ...]]:
        found: Counter[tuple[str, ...]] = Counter()
        for one in files_of(root, project):
            if (not owners or one[0] in owners) and not (
                mode == "import" and is_imported_dicom(one)
            ):
                found[one] += 1
        if mode == "import":
            for (session, scan), uids in instances_of(root, project).items():
                if not owners or session in owners:
                    found.update((session, scan, uid) for uid in uids)
        return found

    wanted, found = objects(here, project), objects(there, became or project)
    return Judgement(
        lost=(wanted - found).total(),
        doubled=(found - wanted).total(),
        leavings=len(leftovers(there)),
    )


def account(record: Record, judgement: Judgement, *, claims: Collection[bool] = ()) -> None:
    """Write a judgement into the table of faults. `claims`: said success while it was none."""
    record("lost", judgement.lost)
    record("doubled", judgement.doubled + judgement.leavings)
    record("false_success", sum(claims))


def unit_statuses(state: Path) -> set[str]:
    """How the units of a state file stand."""
    with sqlite3.connect(state) as db:
        return {row[0] for row in db.execute("SELECT DISTINCT status FROM unit")}


def open_runs(state: Path) -> int:
    """Runs that a state file believes to be going on."""
    with sqlite3.connect(state) as db:
        return int(db.execute("SELECT count(*) FROM run WHERE status='running'").fetchone()[0])


Mode = Literal["copy", "import"]
MODES: tuple[Mode, ...] = ("copy", "import")
