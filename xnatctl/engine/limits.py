"""How much happens at once: one gate a host, which finds out by itself what the host can take.

A relay holds a slot of each end, always the source's first. Three mechanisms, from gentle to hard:

1. `Climb` widens the gate while that pays in what is delivered, and narrows it when the host
   refuses or answers much later than it could. Round-trip time alone says nothing about bulk
   bodies, so goodput decides. Both gates of a relay see the same goodput: the source's leads, the
   sink's gives way unless its own host refuses or less is delivered; else each would hold the
   other down.
2. After many failures in a row, or when a budget is spent that failures draw from and successes
   fill again, the gate closes: nothing is sent for a while, then one request at a time until one
   succeeds. What waits keeps its attempts.
3. A bound from outside (`--workers`), which nothing exceeds.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

import anyio

from xnatctl.errors import Busy, ServerFault, Unreachable
from xnatctl.retry import Sleep

Clock = Callable[[], float]

WINDOW_S = 0.1
ENOUGH_BYTES = 4 * 2**20
"""A window takes so long at least, and two completions for each place or so many bytes."""
A_COMPLETION = 256 * 1024
"""What the end of a request is worth in bytes: where files are small, that is what is delivered."""
PRICE = 0.25
LATE, SLOWER = 2.5, 1.3
"""How many times later than it could a first byte is when a queue is sure, and when it may be."""
LAGGING_S = 0.05
FEW = 4
"""Up to so many by ones, unless that loses something; beyond, as long as it pays."""
NOISE = 0.05
FAILURES_TO_CLOSE = 20
BUDGET, FAILURE_COSTS = 500, 5
"""A host that fails more than one request in six for long is left alone for a while."""
PROBE_AFTER_S = (5.0, 15.0, 45.0, 120.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one window saw; `first_byte_s` is the median wait for a first byte, if any came."""

    seconds: float
    bytes: int
    completions: int
    refusals: int
    peak: int
    first_byte_s: float | None = None
    lag_s: float = 0.0

    @property
    def goodput(self) -> float:
        """What was delivered by the second: bytes, and something for each completion."""
        return (self.bytes + A_COMPLETION * self.completions) / max(self.seconds, 1e-6)


@dataclass(frozen=True, slots=True)
class _Level:
    """What a width brought: goodput, and how many times as long as it could a first byte took."""

    limit: int
    goodput: float
    wait: float


class Climb:
    """The width of a gate, one step a window. Pure: windows in, a limit out.

    1. It widens by one and, from four on, doubles while that pays; then it tries a quarter more now
       and then, or half, where the last try brought nearly its share.
    2. It pays when goodput grows by the `price`-th power of what the width grew by, and up to a few
       when nothing is lost; else it goes back, and waits longer each time before it tries again.
    3. Where answers begin later than they could, it also tries one step less, which has to gain.
    4. A refusal, or answers that begin much later than they could, narrow it at once.
    """

    HOLDS = (2, 4, 8, 16, 32, 64)

    def __init__(self, *, start: int = 2, most: int = 16, price: float = PRICE) -> None:
        self.most = most
        self.limit = max(1, min(start, most))
        self.is_fast = True
        self._price = price
        self._hold = 0
        self._misses = 0
        self._down = False
        self._before: _Level | None = None
        self._quickest: float | None = None
        self._has_met_bodies = False

    def step(self, sample: Sample) -> None:
        """Take in a window and set `limit` for the next."""
        if sample.bytes and not self._has_met_bodies:
            # What was learnt from lists says nothing about bodies.
            self._has_met_bodies = self.is_fast = True
            self._hold, self._misses, self._down, self._before = 0, 0, False, None
        is_lagging = sample.lag_s > LAGGING_S
        wait = self._wait(None if is_lagging else sample.first_byte_s)
        here = _Level(self.limit, sample.goodput, wait)
        went_down = self._before is not None and self._before.limit > self.limit
        if sample.refusals:
            self._narrow(0.7, refused=True)
        elif wait > LATE and not went_down:
            self._narrow(_share(wait), before=here)
        elif sample.peak < 0.8 * self.limit:
            self._before = None
        elif self._hold > 0:
            self._hold -= 1
        else:
            self._try(here, may_widen=not is_lagging or self.limit < FEW)

    def _wait(self, first_byte_s: float | None) -> float:
        """How many times as long as it could the first byte took; 50 ms more are nothing."""
        if first_byte_s is None:
            return 1.0
        if self._quickest is None or self.limit == 1:
            self._quickest = first_byte_s  # asked for alone, it is as quick as it can be
        else:
            self._quickest = min(self._quickest * 1.0005, first_byte_s)
        return max(1.0, (first_byte_s - 0.05) / max(self._quickest, 1e-3))

    def _narrow(self, share: float, *, before: _Level | None = None, refused: bool = False) -> None:
        """Let a share of them in; out of a try upwards at most as many as before it."""
        to = max(1, min(self.limit - 1, int(self.limit * share)))
        if self._before is not None and self._before.limit < self.limit:
            self._return(self._before, min(to, self._before.limit), refused=refused)
        else:
            self._before = before if to < self.limit else None
            self.limit, self.is_fast = to, False
            self._hold = self._misses = 0
            self._down = to > 1

    def _return(self, before: _Level, limit: int, *, refused: bool = False) -> None:
        """Go back from a try that did not pay, and wait before the next one upwards."""
        may_pay = before.wait > SLOWER or refused
        self._down = may_pay and not self._down and limit > 1
        self._hold = 0 if self._down else self.HOLDS[min(self._misses, len(self.HOLDS) - 1)]
        self._misses += 1
        self.limit, self._before, self.is_fast = limit, None, False

    def _wanted(self, before: _Level, here: _Level) -> float:
        """How many times the goodput of before makes a try pay."""
        if here.limit < before.limit:
            return 1.0 - NOISE if before.wait > LATE else 1.0 + NOISE
        if here.limit <= FEW:
            return 1.0 - NOISE
        return math.pow(here.limit / before.limit, self._price)

    def _try(self, here: _Level, *, may_widen: bool) -> None:
        step = max(1, self.limit // 4)
        if self.is_fast and self.limit >= FEW:
            step = self.limit
        before = self._before
        if before is not None:
            ratio, gain = here.limit / before.limit, here.goodput / before.goodput
            if gain < self._wanted(before, here):
                if ratio < 1 and here.wait > LATE:
                    # Answers take so long however many are asked for: that is what is quick now.
                    self._quickest = None
                self._return(before, before.limit)
                return
            self._misses = 0
            if gain > 0.8 * ratio > 0.8:
                step = max(step, self.limit // 2)
        self._down &= self.limit > 1
        if self._down:
            step = max(step, self.limit - int(self.limit * _share(here.wait)))
        elif not may_widen:
            step = 0
        to = self.limit - step if self._down else self.limit + step
        self.limit = max(1, min(self.most, to))
        self._before = here if self.limit != here.limit else None


def _share(wait: float) -> float:
    """How many to let in where answers are so late, if a queue is why."""
    return min(1.0, max(0.5, math.sqrt(LATE / wait)))


@dataclass(slots=True)
class Use:
    """One slot in use. Whoever moves bytes says so; the first call marks the first byte."""

    gate: Gate
    started: float
    heard: bool = False

    def begin(self) -> None:
        """Count from now: what was waited for until here was another host."""
        self.started = self.gate.now()

    def moved(self, count: int) -> None:
        if not self.heard:
            self.heard = True
            self.gate.first_byte(self.gate.now() - self.started)
        self.gate.delivered(count)


class Gate:
    """At most `limit` things with one host at a time.

    `fixed` switches the climb off. A gate that does not lead widens unless that loses something,
    and does not ask how late first bytes are: they are the other end's.
    """

    def __init__(
        self,
        name: str,
        *,
        most: int,
        start: int = 2,
        leads: bool = True,
        fixed: bool = False,
        probe_after: tuple[float, ...] = PROBE_AFTER_S,
        clock: Clock = time.monotonic,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self.name = name
        self.now = clock
        self.lag_s = 0.0
        self._sleep = sleep
        self._probe_after = probe_after
        self._leads = leads
        price = PRICE if leads else -PRICE
        self._climb = None if fixed else Climb(start=start, most=most, price=price)
        first = most if self._climb is None else self._climb.limit
        self._limiter = anyio.CapacityLimiter(first)
        self._opened = self._changed = clock()
        self._settling = 0
        self._bytes = self._completions = self._refusals = self._peak = 0
        self._first_bytes: deque[float] = deque(maxlen=64)
        self._failures = 0
        self._budget = BUDGET
        self._closings = 0
        self._closed_until = 0.0
        self._probe = anyio.Lock()

    @property
    def limit(self) -> int:
        return int(self._limiter.total_tokens)

    @property
    def in_use(self) -> int:
        return self._limiter.borrowed_tokens

    @property
    def is_closed(self) -> bool:
        """Whether the host failed so often that one request at a time tries whether it is back."""
        return self._closed_until > 0.0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Use]:
        """Wait for a place, and give it back with what became of it."""
        borrower = object()
        await self._limiter.acquire_on_behalf_of(borrower)
        self._peak = max(self._peak, self.in_use)
        try:
            if self.is_closed:
                async with self._probe:
                    await self._sleep(max(0.0, self._closed_until - self.now()))
                    async with self._counted() as use:
                        yield use
            else:
                async with self._counted() as use:
                    yield use
        finally:
            self._limiter.release_on_behalf_of(borrower)

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[Use]:
        use = Use(self, self.now())
        try:
            yield use
        except (Busy, ServerFault, Unreachable) as error:
            if error.blame in ("", self.name):
                # What began before the gate was last changed says nothing of its width now.
                self._refused(is_news=use.started >= self._changed)
            raise
        else:
            self._succeeded()

    def delivered(self, count: int) -> None:
        self._bytes += count
        if self._bytes >= ENOUGH_BYTES:
            self._tick()

    def first_byte(self, seconds: float) -> None:
        if self._leads:
            self._first_bytes.append(seconds)

    # --- a gate that is shared out over processes ----------------------------------------------

    def resize(self, limit: int) -> None:
        """Let this many in from now on; those that are inside stay. Meant for a `fixed` gate."""
        self._limiter.total_tokens = limit

    def take(self) -> Sample:
        """What was seen since the last call, for the gate of which this one is a share."""
        sample = self._sample()
        self._begin_window()
        return sample

    def absorb(self, sample: Sample) -> None:
        """Count what shares of this gate have seen as if it had been seen here."""
        self._bytes += sample.bytes
        self._completions += sample.completions
        self._refusals += sample.refusals
        self._peak = max(self._peak, sample.peak)
        if sample.first_byte_s is not None:
            self.first_byte(sample.first_byte_s)
        self.lag_s = sample.lag_s
        self._tick()

    def _succeeded(self) -> None:
        self._failures = self._closings = 0
        self._closed_until = 0.0
        self._budget = min(BUDGET, self._budget + 1)
        self._completions += 1
        self._tick()

    def _refused(self, *, is_news: bool) -> None:
        self._refusals += is_news
        self._failures += 1
        self._budget -= FAILURE_COSTS
        if self._failures >= FAILURES_TO_CLOSE or self._budget < 0:
            self._budget = max(self._budget, BUDGET // 5)
            pause = self._probe_after[min(self._closings, len(self._probe_after) - 1)]
            self._closings += 1
            self._closed_until = self.now() + pause
        self._tick()

    def _tick(self) -> None:
        """Close the window when it is long and full enough, and let the climb take a step."""
        climb = self._climb
        if climb is None:
            return
        now = self.now()
        done = self._completions + self._refusals
        if self._settling and not self._refusals:
            # What ends first after a change began before it.
            if done >= self._settling or self._bytes >= ENOUGH_BYTES:
                self._settling = 0
                self._begin_window()
            return
        part = 1 if climb.is_fast else 2
        is_full = done >= max(4 * part, 2 * climb.limit) or self._bytes >= ENOUGH_BYTES * part**2
        if not self._refusals and (now - self._opened < WINDOW_S * part or not is_full):
            return
        before = climb.limit
        climb.step(self._sample())
        if climb.limit != before:
            self._limiter.total_tokens = climb.limit
            self._changed, self._settling = now, self._peak
        self._begin_window()

    def _sample(self) -> Sample:
        return Sample(
            self.now() - self._opened,
            self._bytes,
            self._completions,
            self._refusals,
            self._peak,
            median(self._first_bytes) if self._first_bytes else None,
            self.lag_s,
        )

    def _begin_window(self) -> None:
        self._opened = self.now()
        self._bytes = self._completions = self._refusals = 0
        self._peak = self.in_use
        self._first_bytes.clear()


@dataclass(frozen=True, slots=True)
class Limits:
    """The gates of a run. A local end has a gate too: a disk is a host like any other."""

    source: Gate
    sink: Gate

    @classmethod
    def of(cls, workers: int, *, probe_after: tuple[float, ...] = PROBE_AFTER_S) -> Limits:
        """Gates that never let more than `workers` in."""
        return cls(
            Gate("source", most=workers, probe_after=probe_after),
            Gate("sink", most=workers, leads=False, probe_after=probe_after),
        )

    async def watch_lag(self, every: float = 0.1) -> None:
        """Measure how late this process wakes up: where it is the bottleneck, wider gates hurt."""
        while True:
            before = time.monotonic()
            await anyio.sleep(every)
            late = time.monotonic() - before - every
            for gate in (self.source, self.sink):
                gate.lag_s = 0.8 * gate.lag_s + 0.2 * late
