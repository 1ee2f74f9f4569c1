"""A whole transfer under a schedule of random faults, then once more without: nothing is lost.

What the first run says must be true; what it leaves the second one brings.
"""

from __future__ import annotations

import os
from pathlib import Path

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
from tests.faults.weather import SEED, Weather
from tests.integration.conftest import bench_with

SCHEDULES = 20
"""So many a mode with `--all`; one a mode otherwise."""


@pytest.mark.fault("random faults under every functional test")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "number", [0, *(pytest.param(one, marks=pytest.mark.long) for one in range(1, SCHEDULES))]
)
async def test_a_transfer_in_bad_weather_says_what_is_true_and_is_finished_by_the_next(
    seeds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
    number: int,
    mode: Mode,
) -> None:
    schedule = Weather(int(os.environ[SEED]) * 1000 + number)
    async with bench_with(seeds, tmp_path, "demo") as demo:
        with monkeypatch.context() as patch:
            schedule.over(patch)
            first = await demo.transfer(dicom=mode)
        claimed = first.exit_code == 0
        false = claimed and not judge(demo.source, demo.sink, "DEMO", mode=mode).is_whole
        second = await demo.transfer(dicom=mode)
        found = judge(demo.source, demo.sink, "DEMO", mode=mode)
        false_again = second.exit_code == 0 and not found.is_whole
        account(record_property, found, claims=[false, false_again])

        story = [*schedule.struck, *(str(one) for one in first.problems)]
        assert schedule.struck
        assert not false, story
        assert second.exit_code == 0, second.problems
        assert found == Judgement(0, 0, 0), story
        assert unit_statuses(demo.folder / "state.db") == {"done"}
        assert open_runs(demo.folder / "state.db") == 0
        if claimed:
            assert second.files == 0, story
        print("healed" if claimed else f"said so: {[one.error for one in first.problems]}")  # noqa: T201
