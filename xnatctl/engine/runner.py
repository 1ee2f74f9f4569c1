"""A run: units out of a source, each brought to its end (`life`), and the account of it.

Units stream out of the source through a bounded channel, so a plan of a million takes no more
memory than one of ten. A unit waits for those it names in `after`, which were yielded before it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from xnatctl.errors import LocalFault, XnatctlError, first_known, words
from xnatctl.retry import Backoff, Sleep

from . import crash
from .events import (
    Bus,
    Note,
    RunDone,
    RunStarted,
    UnitDone,
)
from .life import Means, failed, run_unit
from .limits import PROBE_AFTER_S, Limits
from .plan import OnConflict
from .ports import Dispatcher, Sink, Source
from .report import Account, summary
from .state import Pair, StateStore
from .types import Report, Selection, Unit, UnitOutcome


@dataclass(frozen=True, slots=True)
class Options:
    """How a run behaves. Times in seconds."""

    verb: str
    command: str = ""
    workers: int = 4
    overwrite: bool = False
    on_conflict: OnConflict = "merge"
    dry_run: bool = False
    max_failures: int | None = None
    deadline: float | None = None
    """After so long nothing new is begun; what is under way gets its `grace`."""
    grace: float = 30.0
    lag: float = 2.0
    patience: float = 600.0
    """How long an item waits for a busy or closed host before its failures count as attempts."""
    probe_after: tuple[float, ...] = PROBE_AFTER_S
    policy: Backoff = field(default_factory=Backoff)
    fail_on_left: bool = True
    accept: frozenset[str] = frozenset()
    plan: Mapping[str, str] | None = None
    """Signatures by unit of a plan that is to be executed exactly; None: whatever is found."""


class Stop:
    """How a run is asked to end: no new work. Who asks first names the reason and the exit code."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.why = ""
        self.code = 0

    def ask(self, why: str, code: int) -> None:
        if not self.asked.is_set():
            self.why, self.code = why, code
            self.asked.set()


class InProcess:
    """The dispatcher of one machine: the unit is run right here."""

    def __init__(self, slots: int) -> None:
        self.slots = slots

    @asynccontextmanager
    async def opened(self, means: Means) -> AsyncIterator[None]:
        self._means = means
        yield

    async def tend(self) -> None:
        await self._means.limits.watch_lag()

    async def run(self, unit: Unit) -> UnitOutcome:
        return await run_unit(self._means, unit)


class Run:
    """One run over one pair of ends. Use `run()`."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        *,
        options: Options,
        state: StateStore,
        bus: Bus,
        limits: Limits | None = None,
        dispatcher: Dispatcher | None = None,
        stop: Stop | None = None,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self.id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid4().hex[:6]}"
        self.source = source
        self.sink = sink
        self.options = options
        self.state = state
        self.bus = bus
        self.limits = limits or Limits.of(options.workers, probe_after=options.probe_after)
        self.dispatcher = dispatcher or InProcess(options.workers)
        self.stop = stop or Stop()
        self.sleep = sleep
        self.pair = Pair(source.name, sink.name)
        self.account = Account(self.id, options.verb, source.name, sink.name, options.dry_run)
        self._open: dict[str, anyio.Event] = {}
        self._broken: set[str] = set()
        self._failures = 0

    async def __call__(self, selection: Selection) -> Report:
        """Run it to its end and return the report; raises only what concerns the run as a whole."""
        means = Means(
            id=self.id,
            pair=self.pair,
            source=self.source,
            sink=self.sink,
            options=self.options,
            state=self.state,
            bus=self.bus,
            limits=self.limits,
            stop=self.stop,
            sleep=self.sleep,
        )
        async with self.dispatcher.opened(means):
            return await self._recorded(selection)

    async def _recorded(self, selection: Selection) -> Report:
        options = self.options
        if not options.dry_run:
            crash.at("run-begin")
            await self.state.begin_run(self.id, options.verb, self.pair, options.command)
            crash.at("run-begun")
        self.bus.emit(RunStarted(self.id, options.verb, self.source.name, self.sink.name))
        fault: BaseException | None = None
        try:
            await self._work(selection)
        except BaseExceptionGroup as group:
            fault = first_known(group)
            raise fault from fault.__cause__
        except BaseException as error:
            fault = error
            raise
        finally:
            report = await self._close(fault)
        return report

    async def _close(self, fault: BaseException | None) -> Report:
        cancelled = fault is not None and not isinstance(fault, Exception)
        if cancelled:
            self.stop.ask("cancelled", 1)
        code = getattr(fault, "exit_code", 1) if fault else 0
        report = self._report(code)
        if not self.options.dry_run:
            with anyio.CancelScope(shield=True):
                crash.at("run-end")
                try:
                    await self.state.end_run(self.id, status_of(report), summary(report))
                except LocalFault as error:
                    # What was done is told in any case, also where it cannot be remembered.
                    self.stop.ask(words(error), error.exit_code)
                    report = self._report(code)
                crash.at("run-ended")
        self.bus.emit(RunDone(report))
        crash.at("run-told")
        return report

    def _report(self, code: int) -> Report:
        return self.account.report(
            interrupted=self.stop.why,
            code=self.stop.code or code,
            accept=self.options.accept if self.options.fail_on_left else None,
        )

    async def _work(self, selection: Selection) -> None:
        send, receive = anyio.create_memory_object_stream[Unit](self.dispatcher.slots)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_stop, tasks)
            if self.options.deadline is not None:
                tasks.start_soon(self._watch_clock, self.options.deadline)
            tasks.start_soon(self.dispatcher.tend)
            async with anyio.create_task_group() as workers:
                workers.start_soon(self._produce, selection, send)
                for _ in range(self.dispatcher.slots):
                    workers.start_soon(self._consume, receive.clone())
                receive.close()
            tasks.cancel_scope.cancel()

    async def _watch_stop(self, tasks: TaskGroup) -> None:
        await self.stop.asked.wait()
        self.bus.emit(Note(f"{self.stop.why}: finishing what is under way", level="warning"))
        await self.sleep(self.options.grace)
        tasks.cancel_scope.cancel()

    async def _watch_clock(self, deadline: float) -> None:
        await self.sleep(deadline)
        self.stop.ask(f"the deadline of {deadline:g} s is over", 1)

    async def _produce(self, selection: Selection, send: MemoryObjectSendStream[Unit]) -> None:
        async with send:
            async for unit in self.source.units(selection):
                if self._must_stop():
                    return
                if self.options.plan is not None and unit.key not in self.options.plan:
                    continue
                self._open[unit.key] = anyio.Event()
                await send.send(unit)

    async def _consume(self, receive: MemoryObjectReceiveStream[Unit]) -> None:
        async with receive:
            async for unit in receive:
                await self._wait_for(unit)
                if not self._must_stop():
                    self._settle(unit, await self._outcome(unit))
                self._open.pop(unit.key).set()

    async def _wait_for(self, unit: Unit) -> None:
        """Wait for what the unit depends on; whatever is not open any more has ended."""
        names = [key for key in self._open if key != unit.key] if "*" in unit.after else unit.after
        for event in [self._open[key] for key in names if key in self._open]:
            await event.wait()

    async def _outcome(self, unit: Unit) -> UnitOutcome:
        if broken := [key for key in unit.after if key in self._broken]:
            return failed(unit, XnatctlError(f"{broken[0]} failed, on which it depends"))
        return await self.dispatcher.run(unit)

    def _settle(self, unit: Unit, outcome: UnitOutcome) -> None:
        if outcome.error_kind == "local-fault":
            # A full disk does not get better with the next unit.
            self.stop.ask(outcome.error, LocalFault.exit_code)
        if outcome.became == "failed":
            self._failures += 1
            if outcome.blocks:
                self._broken.add(unit.key)
        self.account.add(outcome)
        crash.at("unit-done")
        self.bus.emit(UnitDone(outcome))
        crash.at("unit-told")

    def _must_stop(self) -> bool:
        most = self.options.max_failures
        if most is not None and self._failures >= most and not self.stop.asked.is_set():
            self.stop.ask("1 unit failed" if most == 1 else f"{most} units failed", 1)
        return self.stop.asked.is_set()


def status_of(report: Report) -> str:
    if report.interrupted:
        return "interrupted"
    return "done" if report.success else "failed"
