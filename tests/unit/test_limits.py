"""Gates: how wide they open, and when they close."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from xnatctl.engine.limits import (
    A_COMPLETION,
    BUDGET,
    FAILURE_COSTS,
    FAILURES_TO_CLOSE,
    PRICE,
    Climb,
    Gate,
    Sample,
)
from xnatctl.errors import Busy, NotFound, Unreachable


class Host:
    """In virtual time, as many requests at once as the gate lets in, until `files` have arrived.

    Each takes `best` seconds up to the knee, beyond it with the square of how far, and is refused
    beyond twice the knee, to be tried again a second later. `knee` is a function of the time;
    `noise` is the deviation of what a request takes.
    """

    def __init__(
        self, knee: Callable[[float], float], *, best: float = 0.08, noise: float = 0.0
    ) -> None:
        self.knee, self.best, self.noise = knee, best, noise
        self.now = 0.0
        self.asked = self.refused = 0

    def drain(self, files: int, *, most: int = 16, fixed: bool = False) -> float:
        """How many seconds it took."""
        draw = random.Random(7)
        gate = Gate("source", most=most, fixed=fixed, clock=lambda: self.now)
        under_way: list[tuple[float, int, float]] = []
        narrowed = 0.0
        arrived = active = 0
        waiting = files
        while arrived < files:
            while waiting and active < gate.limit:
                waiting, active, self.asked = waiting - 1, active + 1, self.asked + 1
                heapq.heappush(under_way, (*self._answer(active, draw), self.now))
            self.now, is_done, begun = heapq.heappop(under_way)
            if is_done < 0:
                waiting += 1
                continue
            active -= 1
            arrived += is_done
            if is_done:
                gate.absorb(Sample(0.0, 100_000, 1, 0, active + 1, self.now - begun))
                continue
            self.refused += 1
            heapq.heappush(under_way, (self.now + 1.0, -1, self.now))
            if begun >= narrowed:
                gate.absorb(Sample(0.0, 0, 0, 1, active + 1))
                narrowed = self.now
        return self.now

    def _answer(self, active: int, draw: random.Random) -> tuple[float, int]:
        knee = self.knee(self.now)
        if active > 2 * knee:
            return self.now + 0.005, 0
        seconds = self.best * max(1.0, active / knee) ** 2
        if self.noise:
            seconds *= draw.gammavariate(1 / self.noise**2, self.noise**2)
        return self.now + seconds, 1


def changing(first: float, second: float, every: float) -> Callable[[float], float]:
    return lambda now: second if now // every % 2 else first


@pytest.mark.parametrize(
    ("knee", "noise", "share"),
    [
        *(
            (1, 0.0, 0.7),
            (2, 0.0, 0.8),
            (3, 0.0, 0.8),
            (5, 0.0, 0.8),
            (10, 0.0, 0.8),
            (30, 0.0, 0.9),
        ),
        *((2, 0.5, 0.8), (3, 0.5, 0.7), (5, 0.5, 0.7), (10, 0.5, 0.7), (30, 0.5, 0.8)),
    ],
)
def test_a_host_with_a_knee_is_used_nearly_as_well_as_if_the_knee_were_known(
    knee: int, noise: float, share: float
) -> None:
    files = round(8 / 0.08 * min(knee, 16))
    known = Host(lambda _: knee, noise=noise).drain(files, most=min(knee, 16), fixed=True)

    host = Host(lambda _: knee, noise=noise)

    assert known / host.drain(files) >= share
    assert host.refused <= max(0.01 * host.asked, 1)


@pytest.mark.parametrize("every", [4.0, 20.0])
def test_a_host_whose_knee_changes_is_used_nearly_as_well_as_with_the_best_fixed_number(
    every: float,
) -> None:
    fixed = (Host(changing(10, 3, every)).drain(2000, most=most, fixed=True) for most in (3, 5, 6))

    host = Host(changing(10, 3, every))

    assert host.drain(2000) <= min(fixed) / 0.8
    assert host.refused <= 0.03 * host.asked


@pytest.mark.parametrize("best", [0.005, 0.045, 0.5])
def test_a_host_without_a_knee_soon_gets_all_that_it_may(best: float) -> None:
    known = Host(lambda _: 1000, best=best).drain(1500, fixed=True)

    assert Host(lambda _: 1000, best=best).drain(1500) <= known / 0.6


def test_answers_that_are_late_however_few_are_asked_for_do_not_keep_the_gate_narrow() -> None:
    climb = Climb(start=8, most=16)
    climb.step(Sample(2.0, 10**8, 20, 0, 8, first_byte_s=0.02))
    for _ in range(200):
        climb.step(Sample(2.0, 10**7 * climb.limit, 20, 0, climb.limit, first_byte_s=1.0))

    assert climb.limit == 16


def test_answers_that_are_late_one_by_one_are_what_the_host_can_do() -> None:
    climb = Climb(start=1, most=16)
    climb.step(Sample(2.0, 10**7, 20, 0, 1, first_byte_s=0.005))
    for _ in range(20):
        climb.step(Sample(2.0, 10**7 * climb.limit, 20, 0, climb.limit, first_byte_s=0.5))

    assert climb.limit == 16


def test_a_gate_that_follows_stays_ahead_of_the_one_that_leads() -> None:
    climb = Climb(start=2, most=16, price=-PRICE)
    for _ in range(20):
        climb.step(Sample(2.0, 10**8, 20, 0, climb.limit))
    assert climb.limit == 16


def test_a_gate_that_follows_narrows_where_less_is_delivered() -> None:
    climb = Climb(start=4, most=16, price=-PRICE)
    climb.step(Sample(2.0, 10**8, 20, 0, 4))
    climb.step(Sample(2.0, 5 * 10**7, 20, 0, 8))
    assert climb.limit == 4


def test_the_gate_never_opens_wider_than_it_may() -> None:
    climb = Climb(start=4, most=6)
    for _ in range(20):
        climb.step(Sample(2.0, 10**7 * climb.limit, 20, 0, climb.limit))
    assert climb.limit == 6


def test_a_refusal_narrows_the_gate_at_once_though_not_to_one() -> None:
    climb = Climb(start=10, most=32)
    climb.step(Sample(2.0, 10**8, 10, 1, 10))
    assert climb.limit == 7


def test_a_refusal_of_more_than_before_leads_back_to_what_went_well() -> None:
    climb = Climb(start=2, most=32)
    climb.step(Sample(2.0, 10**8, 10, 0, 2))
    climb.step(Sample(2.0, 10**8, 10, 1, 3))
    assert climb.limit == 2


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
    assert climb.limit == 4


def test_the_end_of_a_request_counts_beside_its_bytes() -> None:
    many_small, few_large = Sample(2.0, 8000 * 100, 100, 0, 4), Sample(2.0, 10**9, 100, 0, 4)
    assert many_small.goodput == (8000 + A_COMPLETION) * 50
    assert few_large.goodput == pytest.approx(5 * 10**8, rel=0.03)


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


async def test_a_refusal_of_what_began_before_the_gate_was_narrowed_does_not_narrow_it_again() -> (
    None
):
    clock = Clock()
    gate = Gate("source", most=16, start=10, clock=clock, sleep=clock.sleep)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            clock.now += 0.01
            tasks.start_soon(_refused_later, gate, clock)
        await anyio.lowlevel.checkpoint()

    assert gate.limit == 7


async def _refused_later(gate: Gate, clock: Clock) -> None:
    with pytest.raises(Busy):
        async with gate.slot():
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            clock.now += 0.01
            raise Busy("no")


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
