"""Gates: how wide they open, and when they close."""

from __future__ import annotations

import random

import anyio
import anyio.lowlevel
import pytest

from xnatctl.engine.limits import (
    BUDGET,
    FAILURE_COSTS,
    FAILURES_TO_CLOSE,
    Climb,
    Gate,
    Sample,
)
from xnatctl.errors import Busy, NotFound, Unreachable


def windows(climb: Climb, knee: float, count: int, *, noise: float = 0.0) -> list[float]:
    """Let it climb against a host that delivers more only up to `knee` at once."""
    rng = random.Random(7)
    seen = []
    for _ in range(count):
        used = int(climb.limit)
        rate = min(used, knee) * 1e7 * (1 + rng.uniform(-noise, noise))
        refused = 1 if used > 2 * knee else 0
        climb.step(Sample(2.0, int(rate * 2), 20, refused, used, 0.05))
        seen.append(climb.limit)
    return seen


@pytest.mark.parametrize("knee", [2, 5, 10, 16])
def test_the_gate_settles_near_what_the_host_can_take(knee: int) -> None:
    climb = Climb(start=4, most=32)

    late = windows(climb, knee, 200, noise=0.02)[-100:]

    assert 0.7 * knee <= sum(late) / len(late) <= 1.6 * knee + 1


def test_the_gate_never_opens_wider_than_it_may() -> None:
    assert max(windows(Climb(start=4, most=6), 100, 50)) <= 6


def test_refusals_narrow_the_gate_at_once_and_hold_it() -> None:
    climb = Climb(start=10, most=32)

    climb.step(Sample(2.0, 10**8, 10, 3, 10))
    narrowed = climb.limit
    for _ in range(9):
        climb.step(Sample(2.0, 10**8, 10, 0, int(climb.limit)))

    assert narrowed == pytest.approx(7.0)
    assert climb.limit == narrowed


def test_a_gate_that_is_not_full_is_not_widened() -> None:
    climb = Climb(start=8, most=32)
    for _ in range(20):
        climb.step(Sample(2.0, 10**8, 10, 0, peak=2))
    assert climb.limit == 8


def test_a_process_that_wakes_up_late_does_not_ask_for_more() -> None:
    climb = Climb(start=4, most=32)
    for _ in range(20):
        climb.step(Sample(2.0, 10**8, 10, 0, peak=4, lag_s=0.2))
    assert climb.limit == 4


def test_answers_that_begin_much_later_than_they_could_narrow_the_gate() -> None:
    climb = Climb(start=8, most=32)
    climb.step(Sample(2.0, 10**8, 10, 0, peak=1, first_byte_s=0.1))
    climb.step(Sample(2.0, 10**8, 10, 0, peak=8, first_byte_s=1.0))
    assert climb.limit == pytest.approx(8 * 0.85)


def test_small_files_are_counted_and_large_ones_weighed() -> None:
    assert Sample(2.0, 8000 * 100, 100, 0, 4).goodput == 50
    assert Sample(2.0, 10**9, 100, 0, 4).goodput == 5 * 10**8


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await anyio.lowlevel.checkpoint()


async def fail(gate: Gate, times: int, error: Exception) -> None:
    for _ in range(times):
        with pytest.raises(type(error)):
            async with gate.slot():
                raise error


async def test_a_host_that_keeps_failing_is_left_alone_and_asked_again_ever_later() -> None:
    clock = Clock()
    gate = Gate("sink", most=4, fixed=True, clock=clock, sleep=clock.sleep)

    await fail(gate, FAILURES_TO_CLOSE, Unreachable("gone"))
    assert gate.is_closed
    waits = []
    for _ in range(4):
        before = clock.now
        await fail(gate, 1, Unreachable("gone"))
        waits.append(clock.now - before)

    assert waits == [5.0, 15.0, 45.0, 120.0]


async def test_one_success_opens_a_closed_gate() -> None:
    clock = Clock()
    gate = Gate("sink", most=4, fixed=True, clock=clock, sleep=clock.sleep)
    await fail(gate, FAILURES_TO_CLOSE, Busy("busy"))

    async with gate.slot():
        pass

    assert not gate.is_closed


async def test_a_host_that_fails_every_other_time_is_left_alone_when_its_budget_is_spent() -> None:
    clock = Clock()
    gate = Gate("sink", most=4, fixed=True, clock=clock, sleep=clock.sleep)
    failed = 0
    while not gate.is_closed:
        await fail(gate, 1, Unreachable("gone"))
        failed += 1
        if not gate.is_closed:
            async with gate.slot():
                pass

    assert failed == BUDGET // (FAILURE_COSTS - 1)
    before = clock.now
    async with gate.slot():
        pass
    assert clock.now - before == 5.0
    assert not gate.is_closed


async def test_failures_that_are_rare_never_spend_the_budget() -> None:
    gate = Gate("sink", most=4, fixed=True)
    for _ in range(200):
        await fail(gate, 1, Unreachable("gone"))
        for _ in range(FAILURE_COSTS):
            async with gate.slot():
                pass
        assert not gate.is_closed


async def test_what_the_other_end_did_is_not_held_against_a_host() -> None:
    clock = Clock()
    gate = Gate("sink", most=4, fixed=True, clock=clock, sleep=clock.sleep)
    error = Unreachable("the source died")
    error.blame = "source"

    await fail(gate, 2 * FAILURES_TO_CLOSE, error)
    await fail(gate, 2 * FAILURES_TO_CLOSE, NotFound("no such thing"))

    assert not gate.is_closed


async def test_no_more_than_the_limit_are_inside_at_once() -> None:
    gate = Gate("sink", most=3, fixed=True)
    peak = 0

    async def visit() -> None:
        nonlocal peak
        async with gate.slot():
            peak = max(peak, gate.in_use)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(visit)

    assert peak == 3
