"""Every way in which a server or a link fails, in both modes: nothing lost, doubled or claimed.

The judge is `tests.integration.oracle`, which walks the sandboxes' folders. Whatever a run says,
the same command without faults must leave the destination whole.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import pytest

from tests.integration.conftest import Bench
from tests.integration.oracle import (
    files_of,
    instances_of,
    is_imported_dicom,
    leftovers,
)
from xnatctl.engine.types import Rule, Selection
from xnatctl.model import Dicom, Ref
from xnatctl.sandbox.faults import Fault


@dataclass(frozen=True)
class Case:
    """One fault at one end. `heals`: the run itself must get over it; else it must say that it did
    not, and the next run mends it.
    """

    name: str
    end: str
    fault: Fault
    heals: bool = True
    modes: tuple[Dicom, ...] = ("copy", "import")


ZIP = "GET */files?*format=zip*"
ONE = "GET */files/*"
LISTING = "GET */files?*all=true*"
FILE_PUT = "PUT */files/*"
IMPORT = "POST /data/services/import*"
ARCHIVE = "POST /data/services/archive*"

CASES = [
    Case("the source closes an archive at once", "here", Fault(ZIP, "cut", nth=2)),
    Case("the source closes an archive after a byte", "here", Fault(ZIP, "cut", nth=2, at=1)),
    Case("the source closes an archive half-way", "here", Fault(ZIP, "cut", nth=1, at=4000)),
    Case("the source resets an archive", "here", Fault(ZIP, "reset", nth=2, at=3000)),
    Case("the source resets three archives", "here", Fault(ZIP, "reset", nth=1, times=3, at=900)),
    Case("an archive lacks a member", "here", Fault(ZIP, "short-archive", nth=2)),
    Case("a bit of an archive is flipped", "here", Fault(ZIP, "flip", nth=2, at=1500)),
    Case("a bit of two archives is flipped", "here", Fault(ZIP, "flip", nth=1, times=2, at=700)),
    Case("a file is cut", "here", Fault(ONE, "cut", nth=1, at=100), modes=("copy",)),
    Case("a bit of a file is flipped", "here", Fault(ONE, "flip", nth=1, at=50), modes=("copy",)),
    Case("the source stalls", "here", Fault(ZIP, "stall", nth=1, at=2000, seconds=30.0)),
    Case("the source drips", "here", Fault(ZIP, "drip", nth=1, rate=20000, seconds=0.001)),
    Case(
        "the source answers 500 twice to a listing",
        "here",
        Fault(LISTING, "status", nth=2, status=500),
    ),
    Case(
        "the source is busy",
        "here",
        Fault(ZIP, "status", nth=1, times=3, status=503, seconds=0.05),
    ),
    Case(
        "the source asks for a pause",
        "here",
        Fault("GET *", "status", nth=9, times=4, status=429, seconds=0.05),
    ),
    Case("the source's login expires", "here", Fault("GET *", "expire-login", nth=12)),
    Case(
        "the source shows its login page instead of a listing",
        "here",
        Fault(LISTING, "login-page", nth=2),
    ),
    Case(
        "the source shows its login page instead of an archive",
        "here",
        Fault(ZIP, "login-page", nth=2),
    ),
    Case("the source redirects to its login page", "here", Fault(ZIP, "login-redirect", nth=2)),
    Case("the source answers as to a guest", "here", Fault(LISTING, "guest", nth=2), heals=False),
    Case("the destination resets an upload", "there", Fault(FILE_PUT, "reset", nth=2, at=300)),
    Case("the destination cuts an upload", "there", Fault(FILE_PUT, "cut", nth=3, at=1000)),
    Case("the answer to an upload is lost", "there", Fault(FILE_PUT, "lose-answer", nth=2)),
    Case(
        "an upload is stored and answered with 500",
        "there",
        Fault(FILE_PUT, "status-after", nth=2, status=500),
    ),
    Case("an upload is answered with 502", "there", Fault(FILE_PUT, "status", nth=2, status=502)),
    Case(
        "an upload is stored short behind a 200",
        "there",
        Fault(FILE_PUT, "truncate-stored", nth=2, at=10),
    ),
    Case(
        "the destination is busy",
        "there",
        Fault(FILE_PUT, "status", nth=1, times=3, status=503, seconds=0.05),
    ),
    Case("the destination's login expires", "there", Fault("PUT *", "expire-login", nth=5)),
    Case(
        "the destination's login expires in an upload",
        "there",
        Fault(FILE_PUT, "expire-login", nth=2),
    ),
    Case(
        "the destination answers an upload as to a guest",
        "there",
        Fault(FILE_PUT, "guest", nth=2),
    ),
    Case("the destination stalls", "there", Fault(FILE_PUT, "stall", nth=2, at=100, seconds=30.0)),
    Case(
        "the answer to a session's document is lost",
        "there",
        Fault("PUT *experiments/*", "lose-answer", nth=2),
    ),
    Case("an import is reset", "there", Fault(IMPORT, "reset", nth=1, at=5000), modes=("import",)),
    Case(
        "a later import is reset",
        "there",
        Fault(IMPORT, "reset", nth=3, at=100),
        modes=("import",),
    ),
    Case(
        "the answer to an import is lost",
        "there",
        Fault(IMPORT, "lose-answer", nth=2),
        modes=("import",),
    ),
    Case(
        "an import is stored and answered with 500",
        "there",
        Fault(IMPORT, "status-after", nth=2, status=500),
        modes=("import",),
    ),
    Case(
        "the answer to an archiving is lost",
        "there",
        Fault(ARCHIVE, "lose-answer", nth=1),
        modes=("import",),
    ),
    Case(
        "an archiving is done and answered with 502",
        "there",
        Fault(ARCHIVE, "status-after", nth=2, status=502),
        modes=("import",),
    ),
    Case(
        "an archiving fails with 503",
        "there",
        Fault(ARCHIVE, "status", nth=1, status=503, seconds=0.05),
        modes=("import",),
    ),
    Case(
        "the destination's login expires in an import",
        "there",
        Fault(IMPORT, "expire-login", nth=2),
        modes=("import",),
    ),
]


@pytest.mark.parametrize(
    ("case", "mode"),
    [pytest.param(case, mode, id=f"{case.name}-{mode}") for case in CASES for mode in case.modes],
)
async def test_nothing_is_lost_doubled_or_claimed(demo: Bench, case: Case, mode: Dicom) -> None:
    sandbox = demo.here if case.end == "here" else demo.there
    sandbox.faults.add(case.fault)

    first = await demo.transfer(dicom=mode, selection=PART)

    assert sandbox.faults.unused() == []
    assert (first.exit_code == 0) is whole(demo, mode), first.problems
    if case.heals:
        assert first.exit_code == 0, first.problems
    sandbox.faults.clear()
    second = await demo.transfer(dicom=mode, selection=PART)
    assert second.exit_code == 0, second.problems
    assert whole(demo, mode)
    assert statuses(demo) <= {"done"}


# A part of the demo project is enough to meet every fault, and takes a quarter of the time.
SESSIONS = ("DEMO_002_CT1", "DEMO_003_US1")
OWNERS = (*SESSIONS, "DEMO_002", "DEMO_003", "")
PART = Selection(Ref("DEMO"), rules=(Rule("session", SESSIONS),))


def whole(demo: Bench, mode: Dicom) -> bool:
    """Whether the destination has everything once, and no leavings."""
    mine = {one for one in files_of(demo.source, "DEMO") if one[0] in OWNERS}
    theirs = files_of(demo.sink, "DEMO")
    uids = instances_of(demo.source, "DEMO")
    if mode == "copy":
        return theirs == mine and not leftovers(demo.sink)
    other = {one for one in theirs if not is_imported_dicom(one)}
    return (
        other == {one for one in mine if not is_imported_dicom(one)}
        and instances_of(demo.sink, "DEMO")
        == {place: found for place, found in uids.items() if place[0] in SESSIONS}
        and not leftovers(demo.sink)
    )


def statuses(demo: Bench) -> set[str]:
    with sqlite3.connect(demo.folder / "state.db") as db:
        return {row[0] for row in db.execute("SELECT DISTINCT status FROM unit")}
