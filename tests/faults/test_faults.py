"""Every way in which a server or a link fails, in both modes: nothing lost, doubled or claimed.

The judge walks the sandboxes' folders. Whatever a run says,
the same command without faults must leave the destination whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.faults.judge import (
    MODES,
    Judgement,
    Mode,
    Record,
    account,
    judge,
    open_runs,
    unit_statuses,
)
from tests.integration.conftest import Bench
from xnatctl.engine.types import Rule, Selection
from xnatctl.model import Ref
from xnatctl.sandbox.faults import Fault


@dataclass(frozen=True)
class Case:
    """One fault at one end. `heals`: the run itself must get over it; else it must say that it did
    not, and the next run mends it. `row` is its line in the table of faults.
    """

    row: str
    name: str
    end: str
    fault: Fault
    heals: bool = True
    modes: tuple[Mode, ...] = MODES


ZIP = "GET */files?*format=zip*"
ONE = "GET */files/*"
LISTING = "GET */files?*all=true*"
FILE_PUT = "PUT */files/*"
IMPORT = "POST /data/services/import*"
ARCHIVE = "POST /data/services/archive*"

CASES = [
    Case(
        "source closes a body early",
        "the source closes an archive at once",
        "here",
        Fault(ZIP, "cut", nth=2),
    ),
    Case(
        "source closes a body early",
        "the source closes an archive after a byte",
        "here",
        Fault(ZIP, "cut", nth=2, at=1),
    ),
    Case(
        "source closes a body early",
        "the source closes an archive half-way",
        "here",
        Fault(ZIP, "cut", nth=1, at=4000),
    ),
    Case(
        "source resets a connection",
        "the source resets an archive",
        "here",
        Fault(ZIP, "reset", nth=2, at=3000),
    ),
    Case(
        "source resets a connection",
        "the source resets three archives",
        "here",
        Fault(ZIP, "reset", nth=1, times=3, at=900),
    ),
    Case(
        "archive politely lacks a member",
        "an archive lacks a member",
        "here",
        Fault(ZIP, "short-archive", nth=2),
    ),
    Case(
        "bit flipped on the way",
        "a bit of an archive is flipped",
        "here",
        Fault(ZIP, "flip", nth=2, at=1500),
    ),
    Case(
        "bit flipped on the way",
        "a bit of two archives is flipped",
        "here",
        Fault(ZIP, "flip", nth=1, times=2, at=700),
    ),
    Case(
        "body shorter than its Content-Length",
        "a file is cut",
        "here",
        Fault(ONE, "cut", nth=1, at=100),
        modes=("copy",),
    ),
    Case(
        "bit flipped on the way",
        "a bit of a file is flipped",
        "here",
        Fault(ONE, "flip", nth=1, at=50),
        modes=("copy",),
    ),
    Case(
        "source stalls or drips",
        "the source stalls",
        "here",
        Fault(ZIP, "stall", nth=1, at=2000, seconds=30.0),
    ),
    Case(
        "source stalls or drips",
        "the source drips",
        "here",
        Fault(ZIP, "drip", nth=1, rate=20000, seconds=0.001),
    ),
    Case(
        "server answers with an error",
        "the source answers 500 twice to a listing",
        "here",
        Fault(LISTING, "status", nth=2, status=500),
    ),
    Case(
        "server busy, with or without Retry-After",
        "the source is busy",
        "here",
        Fault(ZIP, "status", nth=1, times=3, status=503, seconds=0.05),
    ),
    Case(
        "server busy, with or without Retry-After",
        "the source asks for a pause",
        "here",
        Fault("GET *", "status", nth=9, times=4, status=429, seconds=0.05),
    ),
    Case(
        "login expires",
        "the source's login expires",
        "here",
        Fault("GET *", "expire-login", nth=12),
    ),
    Case(
        "login page or guest in place of an answer",
        "the source shows its login page instead of a listing",
        "here",
        Fault(LISTING, "login-page", nth=2),
    ),
    Case(
        "login page or guest in place of an answer",
        "the source shows its login page instead of an archive",
        "here",
        Fault(ZIP, "login-page", nth=2),
    ),
    Case(
        "login page or guest in place of an answer",
        "the source redirects to its login page",
        "here",
        Fault(ZIP, "login-redirect", nth=2),
    ),
    Case(
        "login page or guest in place of an answer",
        "the source answers as to a guest",
        "here",
        Fault(LISTING, "guest", nth=2),
        heals=False,
    ),
    Case(
        "destination resets a connection",
        "the destination resets an upload",
        "there",
        Fault(FILE_PUT, "reset", nth=2, at=300),
    ),
    Case(
        "destination resets a connection",
        "the destination cuts an upload",
        "there",
        Fault(FILE_PUT, "cut", nth=3, at=1000),
    ),
    Case(
        "answer lost after the work was done",
        "the answer to an upload is lost",
        "there",
        Fault(FILE_PUT, "lose-answer", nth=2),
    ),
    Case(
        "error status after the work was done",
        "an upload is stored and answered with 500",
        "there",
        Fault(FILE_PUT, "status-after", nth=2, status=500),
    ),
    Case(
        "server answers with an error",
        "an upload is answered with 502",
        "there",
        Fault(FILE_PUT, "status", nth=2, status=502),
    ),
    Case(
        "upload stored short behind a 200",
        "an upload is stored short behind a 200",
        "there",
        Fault(FILE_PUT, "truncate-stored", nth=2, at=10),
    ),
    Case(
        "server busy, with or without Retry-After",
        "the destination is busy",
        "there",
        Fault(FILE_PUT, "status", nth=1, times=3, status=503, seconds=0.05),
    ),
    Case(
        "login expires",
        "the destination's login expires",
        "there",
        Fault("PUT *", "expire-login", nth=5),
    ),
    Case(
        "login expires",
        "the destination's login expires in an upload",
        "there",
        Fault(FILE_PUT, "expire-login", nth=2),
    ),
    Case(
        "login page or guest in place of an answer",
        "the destination answers an upload as to a guest",
        "there",
        Fault(FILE_PUT, "guest", nth=2),
    ),
    Case(
        "destination stalls",
        "the destination stalls",
        "there",
        Fault(FILE_PUT, "stall", nth=2, at=100, seconds=30.0),
    ),
    Case(
        "answer lost after the work was done",
        "the answer to a session's document is lost",
        "there",
        Fault("PUT *experiments/*", "lose-answer", nth=2),
    ),
    Case(
        "import dies half-way",
        "an import is reset",
        "there",
        Fault(IMPORT, "reset", nth=1, at=5000),
        modes=("import",),
    ),
    Case(
        "import dies half-way",
        "a later import is reset",
        "there",
        Fault(IMPORT, "reset", nth=3, at=100),
        modes=("import",),
    ),
    Case(
        "import dies half-way",
        "the answer to an import is lost",
        "there",
        Fault(IMPORT, "lose-answer", nth=2),
        modes=("import",),
    ),
    Case(
        "import dies half-way",
        "an import is stored and answered with 500",
        "there",
        Fault(IMPORT, "status-after", nth=2, status=500),
        modes=("import",),
    ),
    Case(
        "archiving's answer lost",
        "the answer to an archiving is lost",
        "there",
        Fault(ARCHIVE, "lose-answer", nth=1),
        modes=("import",),
    ),
    Case(
        "archiving's answer lost",
        "an archiving is done and answered with 502",
        "there",
        Fault(ARCHIVE, "status-after", nth=2, status=502),
        modes=("import",),
    ),
    Case(
        "archiving's answer lost",
        "an archiving fails with 503",
        "there",
        Fault(ARCHIVE, "status", nth=1, status=503, seconds=0.05),
        modes=("import",),
    ),
    Case(
        "import dies half-way",
        "the destination's login expires in an import",
        "there",
        Fault(IMPORT, "expire-login", nth=2),
        modes=("import",),
    ),
    Case(
        "long silence before a body",
        "the source is silent before an archive",
        "here",
        Fault(ZIP, "latency", nth=1, seconds=1.0),
    ),
    Case(
        "upload answered 200 and not stored",
        "nothing of an upload is stored behind a 200",
        "there",
        Fault(FILE_PUT, "truncate-stored", nth=3, at=0),
    ),
    Case(
        "early refusal of an upload",
        "an upload is refused for a pause",
        "there",
        Fault(FILE_PUT, "status", nth=2, status=429, seconds=0.02),
    ),
]


def marks(at: int, case: Case, mode: Mode) -> list[pytest.MarkDecorator]:
    """Each fault is tried in one mode by every run of the suite, in the other with `--all`."""
    row = pytest.mark.fault(case.row)
    return [row] if mode == case.modes[at % len(case.modes)] else [row, pytest.mark.long]


@pytest.mark.parametrize(
    ("case", "mode"),
    [
        pytest.param(case, mode, id=f"{case.name}-{mode}", marks=marks(at, case, mode))
        for at, case in enumerate(CASES)
        for mode in case.modes
    ],
)
async def test_nothing_is_lost_doubled_or_claimed(
    demo: Bench, case: Case, mode: Mode, record_property: Record
) -> None:
    sandbox = demo.here if case.end == "here" else demo.there
    sandbox.faults.add(case.fault)

    first = await demo.transfer(dicom=mode, selection=PART)

    fired = sandbox.faults.unused() == []
    claimed = first.exit_code == 0 and not look(demo, mode).is_whole
    sandbox.faults.clear()
    second = await demo.transfer(dicom=mode, selection=PART)
    found = look(demo, mode)
    account(record_property, found, claims=[claimed, second.exit_code == 0 and not found.is_whole])
    assert fired
    assert not claimed
    if case.heals:
        assert first.exit_code == 0, first.problems
    assert second.exit_code == 0, second.problems
    assert found.is_whole
    assert unit_statuses(demo.folder / "state.db") <= {"done"}
    assert open_runs(demo.folder / "state.db") == 0


# A part of the demo project is enough to meet every fault, and takes a quarter of the time.
SESSIONS = ("DEMO_002_CT1", "DEMO_003_US1")
OWNERS = (*SESSIONS, "DEMO_002", "DEMO_003", "")
PART = Selection(Ref("DEMO"), rules=(Rule("session", SESSIONS),))


def look(demo: Bench, mode: Mode) -> Judgement:
    """What the destination's disk has of the part, against the source's."""
    return judge(demo.source, demo.sink, "DEMO", mode=mode, owners=OWNERS)
