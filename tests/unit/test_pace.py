"""The cap of bytes a second and the window of hours, with a clock of their own."""

from __future__ import annotations

from datetime import datetime, timedelta

import anyio
import pytest

from xnatctl.engine.memory import MemorySource
from xnatctl.engine.pace import Pace, Paced, Rate, Window, parse_rate
from xnatctl.engine.types import Selection, Unit
from xnatctl.errors import Busy, Cancelled, UsageError
from xnatctl.model import Ref


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, start: datetime = datetime(2024, 3, 1, 12, 0)) -> None:
        self.start = start
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds)

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50MB/s", 50e6),
        ("50M", 50e6),
        ("800k", 800e3),
        ("1.5GiB/s", 1.5 * 2**30),
        ("2 mib/s", 2 * 2**20),
        ("1000", 1000),
    ],
)
def test_a_rate_is_read_with_its_unit(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "0", "-5M", "5 TB/s", "5MB/h"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--bwlimit"):
        parse_rate(text)


async def test_bytes_take_as_long_as_the_cap_says_however_they_are_cut() -> None:
    clock = Clock()
    rate = Rate(1000.0, clock=clock, sleep=clock.sleep)
    for count in (1, 999, 5000, 4000):
        await rate.spend(count)
    assert clock.seconds == pytest.approx(10.0)
    clock.seconds += 100.0
    await rate.spend(1000)
    assert clock.seconds == pytest.approx(111.0)


@pytest.mark.parametrize(
    ("window", "moment", "seconds"),
    [
        ("22:00-06:00", "23:30", 0),
        ("22:00-06:00", "05:59", 0),
        ("22:00-06:00", "06:00", 16 * 3600),
        ("22:00-06:00", "21:00", 3600),
        ("09:00-17:00", "12:00", 0),
        ("09:00-17:00", "17:00", 16 * 3600),
        ("09:00-17:00", "08:59", 60),
    ],
)
def test_a_window_knows_when_it_opens(window: str, moment: str, seconds: float) -> None:
    now = datetime.fromisoformat(f"2024-03-01T{moment}")
    assert Window.parse(window).opens_in(now) == seconds


@pytest.mark.parametrize("text", ["22:00", "25:00-06:00", "22:00-22:00", "night"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--window"):
        Window.parse(text)


async def test_nothing_is_asked_outside_of_the_window_and_a_body_breaks_off_at_its_end() -> None:
    clock = Clock(datetime(2024, 3, 1, 21, 30))
    said: list[str] = []
    pace = Pace(
        Rate(100.0, clock=clock, sleep=clock.sleep),
        Window.parse("22:00-22:30"),
        now=clock.now,
        sleep=clock.sleep,
    )
    memory = MemorySource({"u/box/big": b"x" * (64 * 1024 * 3 + 1)})
    source = Paced(memory, pace, say=said.append)

    units = [unit async for unit in source.units(Selection(Ref("u")))]
    assert clock.now() == datetime(2024, 3, 1, 22, 0)
    assert len(said) == 1

    unit = await source.describe(units[0])
    got = 0
    with pytest.raises(Busy, match="22:00-22:30"):
        async with source.open(unit, unit.items[0]) as chunks:
            async for chunk in chunks:
                got += len(chunk)
    assert 0 < got < 64 * 1024 * 3 + 1
    assert memory.opened == ["box/files/big"]

    async with source.open(unit, unit.items[0]):
        assert clock.now() == datetime(2024, 3, 2, 22, 0)


async def test_a_run_that_is_stopped_does_not_wait_for_the_window() -> None:
    pace = Pace(window=Window.parse("22:00-06:00"), now=lambda: datetime(2024, 3, 1, 12, 0))
    waits, stopped = anyio.Event(), anyio.Event()
    source = Paced(
        MemorySource({"U/R/files/a": b"x"}), pace, say=lambda text: waits.set(), stopped=stopped
    )

    async def stop() -> None:
        await waits.wait()
        stopped.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop)
        with anyio.fail_after(5.0):
            assert [unit async for unit in source.units(Selection(Ref("P")))] == []
    with pytest.raises(Cancelled):
        await source.describe(Unit("U", "session", Ref("P"), Ref("P")))
