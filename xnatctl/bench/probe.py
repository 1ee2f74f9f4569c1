"""What one step sees: a stopwatch around every body that is read, and a budget of bytes.

A body is opened, read piece by piece by whoever writes it, and closed when that is answered. So one
wrapper around the source sees both ends: the time until the first piece is the source's, the time
between two pieces the sink's, and the time from the last one to the end is that of the answer.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from xnatctl.engine.ports import Chunks, Source
from xnatctl.engine.types import Item, Selection, Unit
from xnatctl.errors import Busy, XnatctlError, words

from .sweep import Step, Verb, Where, spread

MOST_BAD = 3
"""After so many refusals or failures a step ends: the server is not pressed further."""


class Spent(XnatctlError):
    """The bytes of a step are used up. Not worth another try, and no fault of anybody."""


@dataclass(slots=True)
class Budget:
    """Bytes that may still be moved, of the step and of the whole sweep."""

    left: int

    def take(self, count: int) -> None:
        if count > self.left:
            raise Spent("the bytes of this step are used up")
        self.left -= count


@dataclass(slots=True)
class Tally:
    """Counts from `begin` to `end`, and again from zero after a further `begin`."""

    budget: Budget
    enough: anyio.Event = field(default_factory=anyio.Event)
    first_bytes: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    refused: int = 0
    errors: int = 0
    fault: str = ""
    blame: str = ""
    source_wait: float = 0.0
    sink_wait: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0
    busy: float | None = None
    _started: tuple[float, float, tuple[float, float] | None] = (0.0, 0.0, None)
    _is_over: bool = False

    def begin(self) -> None:
        """Forget what was counted, but for refusals and failures: a warm-up's count too."""
        for seen in (self.first_bytes, self.answers, self.durations, self.speeds):
            seen.clear()
        self.files = self.bytes = 0
        self.source_wait = self.sink_wait = 0.0
        self._started = (time.perf_counter(), time.process_time(), _machine())

    def end(self) -> None:
        """Count nothing more."""
        if self._is_over:
            return
        self._is_over = True
        at, cpu, machine = self._started
        self.seconds = time.perf_counter() - at
        self.cpu = time.process_time() - cpu
        now = _machine()
        if machine and now and now[1] > machine[1]:
            self.busy = (now[0] - machine[0]) / (now[1] - machine[1])

    @asynccontextmanager
    async def watch(
        self, opened: AbstractAsyncContextManager[Chunks], *, files: int, size: int
    ) -> AsyncIterator[Chunks]:
        """The body of one request, timed. Raises Spent instead of going beyond the budget."""
        body = _Watched(self, size)
        started = time.perf_counter()
        try:
            self.budget.take(size)
            async with opened as chunks:
                body.source_wait = time.perf_counter() - started
                async with aclosing(body.read(chunks)) as pieces:
                    yield pieces
        except Spent:
            self.enough.set()
            raise
        except XnatctlError as error:
            blame = error.blame or "source"
            self.fail(words(error), blame=blame, refused=isinstance(error, Busy))
            raise
        ended = time.perf_counter()
        if self._is_over:
            return
        self.files += files
        self.durations.append(ended - started)
        self.answers.append(ended - (body.ended or ended))
        self.speeds.append(body.bytes / max(ended - started, 1e-9))
        self.source_wait += body.source_wait
        self.sink_wait += ended - started - body.source_wait

    def fail(self, fault: str, *, blame: str = "sink", refused: bool = False) -> None:
        """Something was refused or went wrong; after a few times that is enough."""
        if self._is_over:
            return
        if refused:
            self.refused += 1
        else:
            self.errors += 1
        self.fault, self.blame = fault, blame
        if self.refused + self.errors >= MOST_BAD:
            self.enough.set()

    def count(self, moved: int) -> None:
        if not self._is_over:
            self.bytes += moved

    def first_byte(self, seconds: float) -> None:
        if not self._is_over:
            self.first_bytes.append(seconds)

    def step(self, verb: Verb, *, size: int, concurrency: int) -> Step:
        """What was counted, as one row."""
        other: Where = "destination" if verb in ("upload", "transfer") else "source"
        blame: Where = other if self.blame == "sink" or verb == "upload" else "source"
        return Step(
            verb,
            size,
            concurrency,
            self.seconds,
            len(self.durations),
            self.files,
            self.bytes,
            first_byte_s=None if verb == "upload" else spread(self.first_bytes),
            answer_s=spread(self.answers) if other == "destination" else None,
            request_s=spread(self.durations),
            request_bytes_per_s=spread(self.speeds, of_speeds=True),
            refused=self.refused,
            errors=self.errors,
            blame=blame if self.refused or self.errors else "unknown",
            fault=self.fault,
            cpu_s=self.cpu,
            machine_busy=self.busy,
            peak_memory=_peak_memory(),
            source_wait_s=self.source_wait,
            sink_wait_s=self.sink_wait,
        )


class _Watched:
    """The pieces of one body, with the clock running on whichever end is waited for."""

    def __init__(self, tally: Tally, size: int) -> None:
        self._tally = tally
        self._paid = size
        self.bytes = 0
        self.source_wait = 0.0
        self.ended = 0.0

    async def read(self, chunks: Chunks) -> AsyncGenerator[bytes, None]:
        while True:
            asked = time.perf_counter()
            chunk = await anext(chunks, None)
            self.ended = time.perf_counter()
            self.source_wait += self.ended - asked
            if not self.bytes and chunk:
                self._tally.first_byte(self.source_wait)
            if chunk is None:
                return
            self.bytes += len(chunk)
            if self.bytes > self._paid:  # an archive holds more than what was asked for
                self._tally.budget.take(self.bytes - self._paid)
                self._paid = self.bytes
            self._tally.count(len(chunk))
            yield chunk


class Probe:
    """A source whose bodies are timed, and which yields no more units once a step has enough."""

    def __init__(self, source: Source, tally: Tally) -> None:
        self.name = source.name
        self._source = source
        self._tally = tally

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        async for unit in self._source.units(selection):
            if self._tally.enough.is_set():
                return
            yield unit

    async def describe(self, unit: Unit) -> Unit:
        return await self._source.describe(unit)

    @asynccontextmanager
    async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
        opened = self._source.open(unit, item)
        async with self._tally.watch(opened, files=item.files, size=item.bytes) as chunks:
            yield chunks

    def member_path(self, item: Item, name: str) -> str:
        return self._source.member_path(item, name)


def _machine() -> tuple[float, float] | None:
    """Time that the cores of this machine were busy, and all of it; None where nobody tells."""
    try:
        cells = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    times = [float(cell) for cell in cells]
    return sum(times) - times[3] - times[4], sum(times)


def _peak_memory() -> int:
    """The most memory that this process has had so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
