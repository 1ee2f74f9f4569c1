"""The in-memory pair with faults that are scripted, and a run over it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import anyio

from xnatctl.engine.events import Bus, Event
from xnatctl.engine.memory import MemorySink, MemorySource
from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.runner import Options, Run, Stop
from xnatctl.engine.state import Pair, StateStore
from xnatctl.engine.types import Item, Report, Selection, Unit
from xnatctl.model import Ref
from xnatctl.retry import Backoff
from xnatctl.zipstream import Event as ZipEvent

ONCE = Backoff(attempts=1, base=0.0)
QUICK = Backoff(attempts=4, base=0.0)

Hook = Callable[[Unit, Item], Awaitable[None]]
E = TypeVar("E", bound=Event)


@dataclass
class Script:
    """What goes wrong, by the key of an item or the name of a step; each entry is used once."""

    faults: dict[str, list[Exception | None]] = field(default_factory=dict)

    def play(self, key: str) -> None:
        waiting = self.faults.get(key, [])
        if waiting and (fault := waiting.pop(0)) is not None:
            raise fault

    @property
    def is_used_up(self) -> bool:
        return not any(self.faults.values())


@dataclass
class ScriptedSource(MemorySource):
    """A source in memory that fails as told, and whose units may depend on one another."""

    script: Script = field(default_factory=Script)
    after: dict[str, tuple[str, ...]] = field(default_factory=dict)
    missing_in_archives: set[str] = field(default_factory=set)
    yielded: list[str] = field(default_factory=list)

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        self.script.play("units")
        async for unit in super().units(selection):
            self.yielded.append(unit.key)
            yield replace(unit, after=self.after.get(unit.key, ()))

    async def describe(self, unit: Unit) -> Unit:
        self.script.play(f"describe {unit.key}")
        return await super().describe(unit)

    @asynccontextmanager
    async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
        self.script.play(f"open {item.key}")
        hidden = {}
        if item.kind != "file":
            for path in self.missing_in_archives & self.files.keys():
                hidden[path] = self.files.pop(path)
        try:
            async with super().open(unit, item) as chunks:
                yield self._cut(item, chunks)
        finally:
            self.files.update(hidden)

    async def _cut(self, item: Item, chunks: Chunks) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk
            self.script.play(f"read {item.key}")


@dataclass
class ScriptedSink(MemorySink):
    """A sink in memory that fails as told and notes what it was asked.

    Steps: `begin U`, `inventory U`, `put KEY`, `lost KEY` (stored, then the answer is lost), `seal
    U`, `abandon U`. `spoil` has bodies that are stored in the place of those that come.
    """

    script: Script = field(default_factory=Script)
    steps: list[str] = field(default_factory=list)
    spoil: dict[str, list[bytes]] = field(default_factory=dict)
    on_put: Hook | None = None
    on_begin: Callable[[Unit], Awaitable[None]] | None = None
    busy: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    peak: int = 0
    lane_peak: int = 0

    def _step(self, name: str) -> None:
        self.steps.append(name)
        self.script.play(name)

    async def inventory(self, unit: Unit) -> Inventory:
        self._step(f"inventory {unit.key}")
        return await super().inventory(unit)

    async def begin(self, unit: Unit) -> None:
        self._step(f"begin {unit.key}")
        if self.on_begin is not None:
            await self.on_begin(unit)

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        async with self._writing(unit, item):
            await super().put(unit, item, chunks)
            if self.spoil.get(item.key):
                self.files[f"{unit.key}/{item.key}"] = self.spoil[item.key].pop(0)

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        async with self._writing(unit, item):
            await super().put_many(unit, item, events)

    @asynccontextmanager
    async def _writing(self, unit: Unit, item: Item) -> AsyncIterator[None]:
        self._step(f"put {item.key}")
        lane = f"{unit.key}/{item.lane}"
        self.busy[lane] += 1
        self.peak = max(self.peak, sum(self.busy.values()))
        self.lane_peak = max(self.lane_peak, self.busy[lane])
        try:
            if self.on_put is not None:
                await self.on_put(unit, item)
            yield
            self.script.play(f"lost {item.key}")
        finally:
            self.busy[lane] -= 1

    async def seal(self, unit: Unit, stage: int) -> None:
        self._step(f"seal {unit.key}")
        await super().seal(unit, stage)

    async def abandon(self, unit: Unit) -> None:
        self._step(f"abandon {unit.key}")


@dataclass
class Bench:
    """One pair of ends, the state store's place, and what the last run told."""

    folder: Path
    source: ScriptedSource
    sink: ScriptedSink
    events: list[Event] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    @property
    def pair(self) -> Pair:
        return Pair(self.source.name, self.sink.name)

    async def sleep(self, seconds: float) -> None:
        """Pauses between attempts are noted and cost nothing; a grace is really waited for."""
        self.slept.append(seconds)
        await anyio.sleep(seconds)

    async def run(self, *, stop: Stop | None = None, **options: Any) -> Report:
        self.events.clear()
        self.slept.clear()
        self.source.opened.clear()
        self.sink.steps.clear()
        options.setdefault("policy", QUICK)
        async with StateStore.open(self.folder / "state.db") as state:
            run = Run(
                self.source,
                self.sink,
                options=Options("transfer", **options),
                state=state,
                bus=Bus(self.events.append),
                stop=stop,
                sleep=self.sleep,
            )
            return await run(Selection(Ref("P")))

    async def statuses(self) -> list[str]:
        """How the runs ended, the latest first."""
        async with StateStore.open(self.folder / "state.db") as state:
            return [run.status for run in await state.runs()]

    async def status_of(self, unit: str) -> str:
        async with StateStore.open(self.folder / "state.db") as state:
            known = await state.known(self.pair, unit)
            return known.status if known is not None else ""

    def seen(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def arrived(self) -> dict[str, bytes]:
        """What the sink has, by the paths of the source."""
        return {path.replace("/files/", "/", 1): body for path, body in self.sink.files.items()}
