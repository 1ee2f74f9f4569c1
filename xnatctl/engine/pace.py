"""How fast and when bodies may move: a cap of bytes a second, and a window of hours.

Both stand between the source and everything else, so they hold for any verb. Outside of the window
nothing is asked of the source: what is under way breaks off and is tried again, as after any other
failure, when the window opens.
"""

from __future__ import annotations

import re
import time as clocks
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, time, timedelta

import anyio

from xnatctl.errors import Busy, Cancelled, UsageError
from xnatctl.retry import Sleep

from .ports import Chunks, Source
from .types import Item, Selection, Unit

LONGEST_SLEEP_S = 60.0
"""A clock may be set while we sleep; it is looked at again this often."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_rate(text: str) -> float:
    """Bytes a second out of `50MB/s`, `800k`, `1.5GiB/s`. Raises UsageError."""
    found = re.fullmatch(r"(?i)\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?(?:/s)?\s*", text)
    rate = float(found[1]) * _UNITS[(found[2] or "").lower()] if found else 0.0
    if rate <= 0:
        raise UsageError(
            f"--bwlimit {text} is not a rate", hint="--bwlimit 50MB/s, 800k or 1.5GiB/s"
        )
    return rate


class Rate:
    """At most `bytes_per_s` on average, over all who share it."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = clocks.monotonic,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self.bytes_per_s = bytes_per_s
        self._clock, self._sleep = clock, sleep
        self._free = 0.0

    async def spend(self, count: int) -> None:
        """Return when `count` bytes, after all before them, would have passed at the rate."""
        now = self._clock()
        self._free = max(self._free, now) + count / self.bytes_per_s
        await self._sleep(self._free - now)


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of the day, in local time; the end may lie on the next day."""

    start: time
    end: time

    @classmethod
    def parse(cls, text: str) -> Window:
        """`22:00-06:00`. Raises UsageError."""
        try:
            start, end = (time.fromisoformat(part.strip()) for part in text.split("-"))
        except ValueError as error:
            raise UsageError(
                f"--window {text} is no window of hours", hint="--window 22:00-06:00"
            ) from error
        if start == end:
            raise UsageError(f"--window {text} is empty", hint="--window 22:00-06:00")
        return cls(start, end)

    def opens_in(self, now: datetime) -> float:
        """Seconds until it is open; 0 while it is."""
        moment = now.time()
        if self.start < self.end:
            is_open = self.start <= moment < self.end
        else:
            is_open = moment >= self.start or moment < self.end
        if is_open:
            return 0.0
        opening = datetime.combine(now.date(), self.start)
        if opening <= now:
            opening += timedelta(days=1)
        return (opening - now).total_seconds()

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M}"


@dataclass(frozen=True, slots=True)
class Pace:
    """What was asked for; either may be missing."""

    rate: Rate | None = None
    window: Window | None = None
    now: Callable[[], datetime] = datetime.now
    sleep: Sleep = anyio.sleep


class Paced:
    """A source that keeps to a pace. `say` is told when it waits for the window, and nothing waits
    any more once `stopped` is set.
    """

    def __init__(
        self,
        source: Source,
        pace: Pace,
        *,
        say: Callable[[str], None],
        stopped: anyio.Event | None = None,
    ) -> None:
        self.name = source.name
        self._source = source
        self._pace = pace
        self._say = say
        self._stopped = stopped or anyio.Event()
        self._is_waiting = False

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        with suppress(Cancelled):
            await self._until_open()
            async for unit in self._source.units(selection):
                await self._until_open()
                yield unit

    async def describe(self, unit: Unit) -> Unit:
        await self._until_open()
        return await self._source.describe(unit)

    @asynccontextmanager
    async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
        await self._until_open()
        async with self._source.open(unit, item) as chunks:
            yield self._slowed(chunks)

    def member_path(self, item: Item, name: str) -> str:
        return self._source.member_path(item, name)

    async def _slowed(self, chunks: Chunks) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            if self._closed_for():
                raise Busy(f"the window {self._pace.window} has closed", why="it opens again")
            yield chunk
            if self._pace.rate is not None:
                await self._pace.rate.spend(len(chunk))

    def _closed_for(self) -> float:
        pace = self._pace
        return pace.window.opens_in(pace.now()) if pace.window is not None else 0.0

    async def _until_open(self) -> None:
        while (seconds := self._closed_for()) > 0:
            if not self._is_waiting:
                self._is_waiting = True
                self._say(f"outside the window {self._pace.window}: waiting until it opens")
            if self._stopped.is_set():
                raise Cancelled("the run was stopped while it waited for the window")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._wake, tasks.cancel_scope)
                await self._pace.sleep(min(seconds, LONGEST_SLEEP_S))
                tasks.cancel_scope.cancel()
        self._is_waiting = False

    async def _wake(self, sleeper: anyio.CancelScope) -> None:
        await self._stopped.wait()
        sleeper.cancel()
