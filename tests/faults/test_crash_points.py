"""A real process kills itself at every named point of its work; the same command finishes it.

1. the points are read out of the source, so that none is forgotten;
2. a transfer runs with `XNATCTL_CRASH_AT=point:nth` and dies there;
3. the same command runs again and must end with 0;
4. the judge compares the disks, the state file has nothing open, and the second run has not sent
   what the first was told to have arrived: at most what was in flight goes over the wire twice.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

import xnatctl
from tests.faults.children import Servers, in_flight, servers, started, uploads
from tests.faults.judge import Judgement, Record, account, judge, open_runs, unit_statuses
from xnatctl.sandbox.faults import Fault

PACKAGE = Path(xnatctl.__file__).parent
PART = ("--session", "DEMO_002_CT1")
OWNERS = ("DEMO_002_CT1", "DEMO_002", "")

IMPORT_ONLY = {
    "import-seal",
    "entry-made",
    "entry-remembered",
    "entry-built",
    "entry-archive",
    "entry-archived",
    "scans-mapped",
}
COPY_ONLY = {"file-moving", "file-proven"}
LATER = {"item-done": 3, "item-told": 5, "unit-recorded": 2, "unit-planned": 3, "unit-told": 2}
"""Points that are worth a second death, further on."""

FAULTS = {
    "item-failed": Fault("PUT */files/*", "lose-answer", nth=1),
    "item-reconciled": Fault("PUT */files/*", "status-after", nth=1, status=500),
    "unit-abandoned": Fault("PUT *", "status", nth=1, status=400),
}
"""What has to go wrong for a point to be passed. The first is an answer that never came: the work
was done at the server, and nobody was told before the process died."""


def points() -> list[str]:
    """Every named point, in the order of the files and lines in which they stand; those of
    snapshots are tried where exports are.
    """
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "nightly.py":
            continue
        found += re.findall(r'crash\.at\("([a-z-]+)"\)', path.read_text("utf-8"))
    return found


POINTS = points()
CASES = [
    (mode, f"{point}:{nth}")
    for point in POINTS
    for mode in ("import", "copy")
    for nth in (1, LATER.get(point, 1))[: 1 + (point in LATER)]
    if point not in (COPY_ONLY if mode == "import" else IMPORT_ONLY)
]
SAMPLE = {
    ("copy", "item-failed:1"),
    ("import", "entry-made:1"),
    ("import", "entry-archived:1"),
}
"""What every run of the suite tries; all of them are tried with `--all`."""


def test_every_point_has_a_name_of_its_own() -> None:
    assert len(POINTS) == len(set(POINTS)) > 30


@pytest.mark.fault("killed at a numbered point")
@pytest.mark.parametrize(
    ("mode", "point"),
    [
        pytest.param(*case, marks=[] if case in SAMPLE else [pytest.mark.long], id="-".join(case))
        for case in CASES
    ],
)
def test_a_transfer_that_died_there_is_finished_by_the_same_command(
    tmp_path: Path, mode: str, point: str, record_property: Record
) -> None:
    with servers(tmp_path) as ends:
        if fault := FAULTS.get(point.partition(":")[0]):
            ends.there.faults.add(fault)
        first = ends.start("--dicom", mode, *PART, crash=point, events=tmp_path / "1.jsonl")
        _, err = first.communicate(timeout=60)
        assert first.returncode == -signal.SIGKILL, err
        ends.there.faults.clear()

        second = ends.start("--dicom", mode, *PART, events=tmp_path / "2.jsonl")
        _, err = second.communicate(timeout=60)

        found = look(ends, mode)
        claims = [second.returncode == 0 and not found.is_whole]
        account(record_property, found, claims=claims)
        assert second.returncode == 0, err
        assert found == Judgement(0, 0, 0)
        assert unit_statuses(ends.state) == {"done"}
        assert open_runs(ends.state) == 0
        sent, flying = started(tmp_path / "1.jsonl"), in_flight(tmp_path / "1.jsonl")
        again = started(tmp_path / "2.jsonl")
        assert sent & again <= flying
        assert uploads(ends) <= len(sent | again) + len(flying)


def look(ends: Servers, mode: str) -> Judgement:
    return judge(ends.home / "here", ends.home / "there", "DEMO", mode=mode, owners=OWNERS)
