"""A real process is killed or asked to end in the middle of a transfer; the same command finishes
it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.children import Servers, records, servers, started
from tests.faults.judge import Judgement, Record, account, judge, open_runs
from xnatctl.sandbox.faults import Fault

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def wait_for(process: subprocess.Popen[str], events: Path, event: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if sum(one["event"] == event for one in records(events)) >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    raise AssertionError(f"{event} did not happen {count} times")


def look(ends: Servers, mode: str) -> Judgement:
    return judge(ends.home / "here", ends.home / "there", "DEMO", mode=mode)


@pytest.mark.fault("killed at a random moment")
@pytest.mark.parametrize(
    ("mode", "moment"),
    [
        ("import", ("item_started", 1)),
        pytest.param("copy", ("item_done", 12), marks=pytest.mark.long),
        pytest.param("import", ("unit_done", 5), marks=pytest.mark.long),
    ],
)
def test_a_killed_transfer_is_finished_by_the_same_command_and_nothing_doubles(
    tmp_path: Path, mode: str, moment: tuple[str, int], record_property: Record
) -> None:
    with servers(tmp_path) as ends:
        first = ends.start("--dicom", mode, events=tmp_path / "1.jsonl")
        wait_for(first, tmp_path / "1.jsonl", *moment)
        first.kill()
        first.communicate()

        second = ends.start("--dicom", mode, events=tmp_path / "2.jsonl")
        out, err = second.communicate(timeout=60)

        found = look(ends, mode)
        account(record_property, found, claims=[second.returncode == 0 and not found.is_whole])
        assert second.returncode == 0, err
        assert json.loads(out)["success"] is True
        assert found.is_whole
        told = records(tmp_path / "1.jsonl")
        done = {one["unit"] for one in told if one["event"] == "unit_done"}
        assert not done & {unit for unit, _ in started(tmp_path / "2.jsonl")}


@pytest.mark.fault("Ctrl-C and SIGTERM")
@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize("mode", [pytest.param("import", marks=pytest.mark.long), "copy"])
def test_an_interrupted_transfer_says_so_writes_its_report_and_how_to_go_on(
    tmp_path: Path, mode: str, number: signal.Signals, code: int, record_property: Record
) -> None:
    with servers(tmp_path) as ends:
        first = ends.start("--dicom", mode, events=tmp_path / "1.jsonl")
        wait_for(first, tmp_path / "1.jsonl", "item_done", 5)
        first.send_signal(number)
        out, err = first.communicate(timeout=40)

        assert first.returncode == code, err
        assert json.loads(out)["interrupted"]
        assert "xnatctl project transfer" in err
        assert "Traceback" not in err
        assert records(tmp_path / "1.jsonl")[-1]["event"] == "run_done"
        assert open_runs(ends.state) == 0

        second = ends.start("--dicom", mode)
        _, err = second.communicate(timeout=60)
        found = look(ends, mode)
        account(record_property, found, claims=[second.returncode == 0 and not found.is_whole])
        assert second.returncode == 0, err
        assert found.is_whole


@pytest.mark.fault("Ctrl-C and SIGTERM")
@pytest.mark.parametrize(
    ("number", "code"), [SIGNALS[0], pytest.param(*SIGNALS[1], marks=pytest.mark.long)]
)
def test_the_second_signal_ends_a_run_within_seconds_and_nothing_is_left_behind(
    tmp_path: Path, number: signal.Signals, code: int, record_property: Record
) -> None:
    with servers(tmp_path) as ends:
        fault = Fault("POST /data/services/import*", "stall", nth=2, at=100, seconds=600.0)
        ends.there.faults.add(fault)
        first = ends.start("--dicom", "import", events=tmp_path / "1.jsonl")
        until = time.monotonic() + 60
        while ends.there.faults.unused() and time.monotonic() < until:
            time.sleep(0.005)
        first.send_signal(number)
        time.sleep(0.2)
        began = time.monotonic()
        first.send_signal(number)
        _, err = first.communicate(timeout=60)

        assert first.returncode == code, err
        assert time.monotonic() - began < 25  # it deletes its own prearchive entry first
        assert records(tmp_path / "1.jsonl")[-1]["event"] == "run_done"
        ends.there.faults.clear()
        second = ends.start("--dicom", "import")
        _, err = second.communicate(timeout=60)
        found = look(ends, "import")
        account(record_property, found, claims=[second.returncode == 0 and not found.is_whole])
        assert second.returncode == 0, err
        assert found.is_whole
