"""How much happens at once: one gate a host, which finds out by itself what the host can take.

A relay holds a slot of each end, always the source's first. Three mechanisms, from gentle to hard:

1. `Climb` widens the gate while that pays in delivered bytes (or files, where they are small), and
   narrows it when the host refuses or answers much later than it could. Round-trip time alone says
   nothing about bulk bodies, so goodput decides.
2. After many failures in a row, or when a budget is spent that failures draw from and successes
   fill again, the gate closes: nothing is sent for a while, then one request at a time until one
   succeeds. What waits keeps its attempts.
3. A bound from outside (`--workers`), which nothing exceeds.
"""

from __future__ import annotations

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

WINDOW_S = 2.0
WINDOW_COMPLETIONS = 8
SMALL_BODY = 256 * 1024
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
        """Bytes a second; files a second where files are small. Compared within one host only."""
        seconds = max(self.seconds, 1e-6)
        if self.completions and self.bytes < SMALL_BODY * self.completions:
            return self.completions / seconds
        return self.bytes / seconds


class Climb:
    """The width of a gate, one step a window. Pure: windows in, a limit out."""

    HOLDS = (8, 16, 32, 60)

    def __init__(self, *, start: int = 4, most: int = 16) -> None:
        self.most = most
        self.limit = float(min(start, most))
        self._hold = 0
        self._fast = True
        self._misses = 0
        self._before: tuple[float, float] | None = None
        self._goodput: float | None = None
        self._quickest: float | None = None

    def step(self, sample: Sample) -> None:
        """Take in a window and set `limit` for the next."""
        previous = self._goodput
        current = sample.goodput
        self._goodput = current if previous is None else 0.5 * previous + 0.5 * current
        if sample.refusals:
            self._narrow(0.7, hold=10)
        elif self._is_late(sample):
            self._narrow(0.85, hold=5)
        elif self._hold > 0:
            self._hold -= 1
        elif sample.peak >= 0.8 * self.limit and sample.lag_s <= 0.05:
            self._widen_or_return(current)

    def _is_late(self, sample: Sample) -> bool:
        if sample.first_byte_s is None:
            return False
        quickest = sample.first_byte_s if self._quickest is None else self._quickest * 1.002
        self._quickest = min(quickest, sample.first_byte_s)
        return sample.first_byte_s > 2.5 * self._quickest + 0.05

    def _narrow(self, factor: float, *, hold: int) -> None:
        self.limit = max(1.0, self.limit * factor)
        self._hold, self._fast, self._before = hold, False, None

    def _widen_or_return(self, goodput: float) -> None:
        if self._before is not None:
            limit, then = self._before
            gained = (goodput - then) / max(then, 1e-9)
            if gained < 0.25 * (self.limit - limit) / limit:
                self.limit = limit
                self._hold = self.HOLDS[min(self._misses, len(self.HOLDS) - 1)]
                self._misses += 1
                self._fast, self._before = False, None
                return
            self._misses = 0
        if self.limit >= self.most:
            self._before = None
            return
        self._before = (self.limit, goodput)
        wider = self.limit * 1.5 if self._fast else self.limit + max(1.0, 0.1 * self.limit)
        self.limit = min(float(self.most), wider)


@dataclass(slots=True)
class Use:
    """One slot in use. Whoever moves bytes says so; the first call marks the first byte."""

    gate: Gate
    started: float
    heard: bool = False

    def moved(self, count: int) -> None:
        if not self.heard:
            self.heard = True
            self.gate.first_byte(self.gate.now() - self.started)
        self.gate.delivered(count)


class Gate:
    """At most `limit` things with one host at a time. `fixed` switches the climb off."""

    def __init__(
        self,
        name: str,
        *,
        most: int,
        start: int = 4,
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
        self._climb = None if fixed else Climb(start=start, most=most)
        first = most if self._climb is None else int(self._climb.limit)
        self._limiter = anyio.CapacityLimiter(first)
        self._opened = clock()
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
        try:
            yield Use(self, self.now())
        except (Busy, ServerFault, Unreachable) as error:
            if error.blame in ("", self.name):
                self._refused()
            raise
        else:
            self._succeeded()

    def delivered(self, count: int) -> None:
        self._bytes += count

    def first_byte(self, seconds: float) -> None:
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

    def _refused(self) -> None:
        self._refusals += 1
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
        if self._climb is None:
            return
        seconds = self.now() - self._opened
        done = self._completions + self._refusals
        if seconds < WINDOW_S or (done < WINDOW_COMPLETIONS and not self._refusals):
            return
        self._climb.step(self._sample())
        self._limiter.total_tokens = max(1, int(self._climb.limit))
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
            Gate("sink", most=workers, probe_after=probe_after),
        )

    async def watch_lag(self, every: float = 0.1) -> None:
        """Measure how late this process wakes up: where it is the bottleneck, wider gates hurt."""
        while True:
            before = time.monotonic()
            await anyio.sleep(every)
            late = time.monotonic() - before - every
            for gate in (self.source, self.sink):
                gate.lag_s = 0.8 * gate.lag_s + 0.2 * late
