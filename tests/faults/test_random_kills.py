"""A job of 2,000 files is killed again and again at random moments, and never restarted otherwise.

Each job is run, killed and run again by the same command until it ends by itself; then the judge
looks, and the next job goes to another project. The seed is printed on failure.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.faults.children import Sent, Servers, in_flight, servers, started, uploads
from tests.faults.judge import Judgement, Record, account, judge, open_runs, unit_statuses
from tests.faults.weather import SEED
from xnatctl.sandbox.seed_parts import fill, new_project
from xnatctl.sandbox.store import Store

SUBJECTS, SINGLE, PACKED, IN_A_PACK = 20, 40, 4, 15
FILES = SUBJECTS * (SINGLE + PACKED * IN_A_PACK)
EARLIEST_S, LATEST_S = 0.4, 3.0
PARTS = [(part, 25) for part in range(1, 9)]
"""200 kills, in parts that can be shared out among workers."""


def job(store: Store) -> None:
    """2,000 files of 20 sessions: 40 scans with one file each, and four with 15."""
    project = new_project(store, "JOB", {"description": "To be killed."})
    noise = random.Random(1)
    for number in range(SUBJECTS):
        subject = store.create_subject(project, f"S{number}")
        session = store.create_experiment(subject, f"S{number}_1", fields={"date": "2024-03-01"})
        for scan in range(SINGLE + PACKED):
            count = 1 if scan < SINGLE else IN_A_PACK
            files = {f"{one}.dat": noise.randbytes(2000) for one in range(count)}
            item = store.create_scan(session, str(scan + 1), fields={"type": "T1"})
            fill(store, item, "DATA", files)


@pytest.mark.fault("killed at a random moment")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("part", "kills"), [(0, 3), *(pytest.param(*one, marks=pytest.mark.long) for one in PARTS)]
)
def test_a_job_that_is_killed_at_random_moments_loses_and_doubles_nothing(
    tmp_path: Path, part: int, kills: int, record_property: Record
) -> None:
    seed = f"{os.environ[SEED]}-{part}"
    print(f"{SEED} {seed}")  # noqa: T201 - shown when the test fails
    moments = random.Random(seed)
    done = jobs = 0
    with servers(tmp_path, job) as ends:
        while done < kills:
            jobs += 1
            before = uploads(ends)
            sent: Sent = set()
            repeats = 0
            for run in range(1000):
                events = tmp_path / f"{jobs}-{run}.jsonl"
                wait = moments.uniform(EARLIEST_S, LATEST_S) if done < kills else 600.0
                code = run_for(ends, f"JOB{jobs}", events, wait)
                sent |= started(events)
                if code is not None:
                    break
                done += 1
                repeats += len(in_flight(events))
            found = look(ends, f"JOB{jobs}")
            if jobs == 1 or not found.is_whole:
                account(record_property, found, claims=[code == 0 and not found.is_whole])
            assert code == 0
            assert found == Judgement(0, 0, 0)
            assert unit_statuses(ends.state) == {"done"}
            assert open_runs(ends.state) == 0
            assert uploads(ends) - before <= len(sent) + repeats
    record_property("tries", done)


def run_for(ends: Servers, became: str, events: Path, seconds: float) -> int | None:
    """Run a while; the exit code, or None when it had to be killed."""
    process = ends.start("--dicom", "copy", project="JOB", became=became, events=events)
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    if process.poll() is None:
        process.kill()
        process.communicate()
        return None
    process.communicate()
    return process.returncode


def look(ends: Servers, became: str) -> Judgement:
    return judge(ends.home / "here", ends.home / "there", "JOB", mode="copy", became=became)
