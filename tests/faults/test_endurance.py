"""What a run puts up with, as it is typed: it ends with a code, a reason, and the way to go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.children import Servers, servers
from tests.faults.judge import Judgement, Record, account, judge
from xnatctl.sandbox.faults import Fault

ONE = ("--session", "DEMO_002_CT1")
OWNERS = ("DEMO_002_CT1", "DEMO_002", "")
PUT = "PUT */files/*"

WISHES = {
    "deadline": (
        ("--deadline", "1s", "-w", "1"),
        Fault(PUT, "latency", probability=1.0, seconds=1.5),
        "the deadline of 1 s is over",
    ),
    "retries": (
        ("--retries", "0"),
        Fault(PUT, "reset", at=10),
        "reset",
    ),
    "stall-timeout": (
        ("--stall-timeout", "1s", "--retries", "0"),
        Fault("PUT */files/*.dcm*", "stall", at=10, seconds=600.0),
        "stalled",
    ),
}


def look(ends: Servers, owners: tuple[str, ...] = OWNERS) -> Judgement:
    return judge(ends.home / "here", ends.home / "there", "DEMO", mode="copy", owners=owners)


@pytest.mark.fault("server answers with an error")
@pytest.mark.parametrize("wish", [pytest.param(one, marks=pytest.mark.long) for one in WISHES])
def test_a_run_that_has_put_up_with_enough_says_why_and_how_to_go_on(
    tmp_path: Path, wish: str, record_property: Record
) -> None:
    flags, fault, reason = WISHES[wish]
    with servers(tmp_path) as ends:
        ends.there.faults.add(fault)
        out, err = ended(ends, *ONE, *flags)
        ends.there.faults.clear()
        claimed = look(ends).is_whole

        second = ends.start("--dicom", "copy", *ONE)
        _, said = second.communicate(timeout=60)
        account(record_property, look(ends), claims=[claimed])
        assert not claimed
        assert reason in out + err
        assert second.returncode == 0, said
        assert look(ends) == Judgement(0, 0, 0)


@pytest.mark.fault("server answers with an error")
def test_after_so_many_failed_sessions_nothing_new_is_begun(
    tmp_path: Path, record_property: Record
) -> None:
    with servers(tmp_path) as ends:
        ends.there.faults.add(Fault("PUT */experiments/*", "status", nth=1, times=0, status=400))
        out, err = ended(ends, "--max-failures", "1", "-w", "1")
        assert "1 unit failed" in json.loads(out)["interrupted"]
        assert "1 unit failed" in err
        failed = [one for one in json.loads(out)["problems"] if one["became"] == "failed"]
        assert len(failed) == 1
        ends.there.faults.clear()

        second = ends.start("--dicom", "copy")
        _, said = second.communicate(timeout=60)
        found = look(ends, ())
        account(record_property, found, claims=[second.returncode == 0 and not found.is_whole])
        assert second.returncode == 0, said
        assert found.is_whole


def ended(ends: Servers, *flags: str) -> tuple[str, str]:
    """What a transfer said that could not end well: exit 1, and the command that goes on."""
    run = ends.start("--dicom", "copy", *flags)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 1, out + err
    assert "to go on: xnatctl project transfer -P DEMO" in err
    assert "Traceback" not in err
    return out, err
