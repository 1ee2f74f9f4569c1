"""A sweep: sizes and settings one after another, within a time and a number of bytes.

1. Time and bytes are shared out over the steps that are left; a step that uses less leaves the rest
   to those behind it.
2. A step warms up for a part of its time, then counts until its time is over, its bytes are used
   up, or the server has refused too often. Where nothing ended by then it waits up to ten times as
   long, for slow links.
3. Nobody climbs beyond a step that was refused, or beyond two that brought nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from xnatctl import routes
from xnatctl.bench.probe import Budget, Probe, Tally
from xnatctl.bench.result import Findings
from xnatctl.bench.sample import bytes_of
from xnatctl.bench.sweep import Step, Verb, why_stop
from xnatctl.engine.events import Bus, Event, UnitDone
from xnatctl.engine.ports import Sink, Source
from xnatctl.engine.runner import Options, Stop
from xnatctl.engine.state import StateStore
from xnatctl.engine.types import Item
from xnatctl.retry import Backoff
from xnatctl.ui.render import size as size_words

from .app import App

WARM_UP = 0.2
"""The part of a step that does not count."""
GRACE_S = 2.0
MOST_WAITS = 10
OVERTIME = 2.0

Once = Callable[[int, Tally], Awaitable[None]]
"""Keeps so many requests going until the tally has enough."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried. Sizes in bytes, 0 for files as they are; `duration` in seconds for all."""

    sizes: tuple[int, ...]
    concurrency: tuple[int, ...]
    duration: float
    max_bytes: int


class Sweep:
    """One sweep over all sizes; `ask` ends it early."""

    def __init__(self, app: App, verb: Verb, plan: Plan) -> None:
        self.findings = Findings(verb)
        self.bytes_left = plan.max_bytes
        self.plan = plan
        self.removed: list[str] = []
        self.left: list[str] = []
        self._app = app
        self._tally: Tally | None = None
        self._spent = 0.0
        self._rows_left = len(plan.sizes) * len(plan.concurrency)

    def ask(self, why: str, code: int) -> None:
        """Stop; what is under way is broken off after a moment."""
        self.findings.interrupted = why
        if self._tally is not None:
            self._tally.enough.set()

    @property
    def is_over(self) -> bool:
        late = self._spent > OVERTIME * self.plan.duration
        return bool(self.findings.interrupted) or late

    def note(self, text: str) -> None:
        self.findings.notes.append(text)
        self._app.console.say(text)

    async def climb(self, size: int, once: Once, *, least: int) -> None:
        """All settings for one size; `least` bytes are what a single request moves."""
        steps = self.findings.steps.setdefault(size, [])
        settings = self.plan.concurrency
        seconds = self.plan.duration / (len(self.plan.sizes) * len(settings))
        for number, at_once in enumerate(settings):
            if self.is_over:
                if not self.findings.interrupted:
                    self.note("the time of --duration was up")
                break
            if at_once * least > self.bytes_left:
                self.note(
                    f"{size_words(least)} a request, {at_once} at once: that is more than what "
                    "--max-bytes leaves"
                )
                break
            share = self.bytes_left // max(1, self._rows_left - number)
            step = await self._measure(size, at_once, once, seconds, max(share, at_once * least))
            if not step.seconds or (not step.requests and not step.bytes and step.is_clean):
                break
            self._spent += step.seconds
            steps.append(step)
            self._app.console.say(_line(step))
            if step.fault:
                self.note(step.fault)
            if why := why_stop(steps):
                self.note(f"{_of(size)}{why}: no further")
                break
        self._rows_left -= len(settings)

    async def _measure(
        self, size: int, at_once: int, once: Once, seconds: float, allowed: int
    ) -> Step:
        budget = Budget(allowed)
        self._tally = tally = Tally(budget)
        tally.begin()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_keep_time, tally, seconds)
                await once(at_once, tally)
                tally.end()
                tasks.cancel_scope.cancel()
        finally:
            self._tally = None
            self.bytes_left -= allowed - budget.left
        return tally.step(self.findings.verb, size=size, concurrency=at_once)


async def _keep_time(tally: Tally, seconds: float) -> None:
    allowed = tally.budget.left
    with anyio.move_on_after(WARM_UP * seconds):
        await tally.enough.wait()
    if not tally.enough.is_set() and tally.budget.left > allowed / 2:
        tally.begin()
    for _ in range(MOST_WAITS):
        with anyio.move_on_after((1 - WARM_UP) * seconds):
            await tally.enough.wait()
        if tally.enough.is_set() or tally.durations:
            break
    if not tally.enough.is_set():
        tally.end()
        tally.enough.set()


def _line(step: Step) -> str:
    speed = size_words(step.bytes / max(step.seconds, 1e-9))
    if step.verb == "api":
        return f"{step.concurrency} at once: {step.speed:.1f} requests/s"
    return f"{_of(step.size)}{step.concurrency} at once: {speed}/s"


def _of(size: int) -> str:
    return f"{size_words(size)}, " if size else ""


# --- steps on the road of the engine ------------------------------------------------------------


@asynccontextmanager
async def workbench(verb: str) -> AsyncIterator[routes.Desk]:
    """A desk with a memory of its own: nothing of a benchmark is left in the user's."""
    options = Options(verb, grace=GRACE_S, policy=Backoff(attempts=2, base=0.1))
    with tempfile.TemporaryDirectory(prefix="xnatctl-bench-") as folder:
        async with StateStore.open(Path(folder) / "state.db") as state:
            yield routes.Desk(state, Bus(), options, Stop())


def engine_step(desk: routes.Desk, ends: Callable[[], tuple[Source, Sink]]) -> Once:
    """A run of the engine for each step, between fresh ends, stopped when there is enough."""

    async def once(at_once: int, tally: Tally) -> None:
        stop = Stop()

        async def watch() -> None:
            await tally.enough.wait()
            stop.ask("the step is over", 0)

        def heard(event: Event) -> None:
            """What failed outside of bodies: creating a resource, listing it, the final proof."""
            if not isinstance(event, UnitDone) or event.outcome.became != "failed":
                return
            one = event.outcome
            inside = any(item.became == "failed" for item in one.outcomes)
            if not inside and one.error_kind not in ("spent", "cancelled"):
                tally.fail(one.error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            work = replace(desk, stop=stop, bus=Bus(heard))
            source, sink = ends()
            await routes.bench(work, Probe(source, tally), sink, at_once=at_once)
            tasks.cancel_scope.cancel()

    return once


def typical(sets: Sequence[tuple[Item, ...]]) -> int:
    """The mean size of what one request moves."""
    return sum(map(bytes_of, sets)) // max(1, len(sets))
