"""When to try again: pauses, Retry-After, exhaustion. Sleep and randomness are injected."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatctl.errors import Busy, Conflict, Corrupt, Unreachable
from xnatctl.retry import Backoff, attempts, is_retryable


class Top(random.Random):
    """Always draws the largest pause."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Slept:
    """A sleep that only notes how long it was to be."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


def test_pauses_double_up_to_the_cap() -> None:
    policy = Backoff(base=0.5, cap=3.0, rng=Top())

    assert [policy.pause(failed) for failed in (1, 2, 3, 4, 5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_pauses_are_drawn_between_nothing_and_their_top() -> None:
    policy = Backoff(base=8.0, cap=8.0, rng=random.Random(1))

    drawn = [policy.pause(1) for _ in range(200)]

    assert all(0.0 <= pause <= 8.0 for pause in drawn)
    assert min(drawn) < 1.0
    assert max(drawn) > 7.0


def test_a_pause_that_the_server_named_is_kept_to() -> None:
    policy = Backoff(base=0.5, cap=3.0, rng=Top())

    assert policy.pause(1, Busy("busy", after=20.0)) == 20.5
    assert policy.pause(3, Busy("busy")) == 2.0


def test_a_pause_of_days_is_not_kept_to() -> None:
    policy = Backoff(base=0.5, longest_after=600.0, rng=Top())

    assert policy.pause(1, Busy("busy", after=86400.0)) == 600.5


@given(failed=st.integers(1, 100_000), after=st.none() | st.floats(0, allow_nan=False))
def test_every_pause_is_finite_and_not_negative(failed: int, after: float | None) -> None:
    policy = Backoff(cap=60.0, longest_after=600.0)

    assert 0.0 <= policy.pause(failed, Busy("busy", after=after)) <= 660.0


async def test_an_attempt_that_succeeds_is_the_last() -> None:
    slept = Slept()
    numbers = []

    async for attempt in attempts(Backoff(attempts=5, rng=Top()), sleep=slept):
        async with attempt:
            numbers.append(attempt.number)
            if attempt.number < 3:
                raise Unreachable("nobody there")

    assert numbers == [1, 2, 3]
    assert slept.pauses == [0.5, 1.0]


async def test_the_last_attempt_raises_what_it_met() -> None:
    slept = Slept()
    made = 0

    with pytest.raises(Unreachable, match="try 4"):
        async for attempt in attempts(Backoff(attempts=4, rng=Top()), sleep=slept):
            async with attempt:
                made += 1
                raise Unreachable(f"try {attempt.number}")

    assert made == 4
    assert len(slept.pauses) == 3


async def test_what_trying_again_cannot_help_is_raised_at_once() -> None:
    slept = Slept()

    with pytest.raises(Conflict):
        async for attempt in attempts(Backoff(attempts=4), sleep=slept):
            async with attempt:
                raise Conflict("something else is there")

    assert slept.pauses == []


async def test_an_error_that_is_not_ours_is_raised_at_once() -> None:
    with pytest.raises(ZeroDivisionError):
        async for attempt in attempts(Backoff(attempts=4), sleep=Slept()):
            async with attempt:
                raise ZeroDivisionError


async def test_a_caller_may_say_itself_what_is_worth_another_try() -> None:
    made = 0

    async for attempt in attempts(
        Backoff(attempts=4), retry_on=lambda error: isinstance(error, KeyError), sleep=Slept()
    ):
        async with attempt:
            made += 1
            if made == 1:
                raise KeyError("first")

    assert made == 2


async def test_a_single_attempt_never_sleeps() -> None:
    slept = Slept()

    with pytest.raises(Corrupt):
        async for attempt in attempts(Backoff(attempts=1), sleep=slept):
            async with attempt:
                raise Corrupt("cut")

    assert slept.pauses == []


def test_only_our_own_errors_can_be_retried() -> None:
    assert is_retryable(Busy("busy"))
    assert not is_retryable(Conflict("there"))
    assert not is_retryable(OSError("disk"))
    assert not is_retryable(KeyboardInterrupt())
