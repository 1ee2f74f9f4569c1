"""The life of one unit, from its description to the proof that it arrived.

1. describe it at the source, list it at the sink, decide what has to move (nothing: it is kept);
2. record in the state store that it is begun, before the first write;
3. for each stage: move its items, lanes side by side, one lane in order; a failed item is
   reconciled against a fresh listing before it is sent again; then seal the stage;
4. list the sink afresh and compare with what was read; only then is the unit done;
5. record it. A unit that failed is abandoned to a state that a later run can finish.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from xnatctl.errors import (
    Busy,
    Conflict,
    LeftBehind,
    LocalFault,
    NotFound,
    PermissionDenied,
    Replan,
    Vanished,
    XnatctlError,
    first_known,
    words,
)
from xnatctl.retry import Sleep, is_retryable

from . import crash
from .copy import copy_item
from .events import Bus, BytesMoved, ItemDone, ItemRetried, ItemStarted, Note, UnitPlanned
from .limits import Limits
from .plan import decide, expected, pack, remaining, same, settle, signature
from .ports import Inventory, Memory, Sink, Source
from .state import Pair
from .types import Became, Item, Left, Mismatch, Outcome, Stamp, Unit, UnitOutcome, Verdict
from .verify import compare, level

if TYPE_CHECKING:
    from .runner import Options, Stop

SPLIT_AFTER = 3
"""An archive that failed this often is asked for file by file: some files are never in archives."""


LAGGING_TRIES = 2
"""How often a write is tried again, `lag` seconds apart, where the sink says 403 or 404."""

MOST_PLANS = 20
"""A sink may ask for a new plan (a scan that cannot be imported after all) so many times a unit."""


@dataclass(frozen=True, slots=True)
class Means:
    """What it takes to bring units of a run to their end; `id` is the run's."""

    id: str
    pair: Pair
    source: Source
    sink: Sink
    options: Options
    state: Memory
    bus: Bus
    limits: Limits
    stop: Stop
    sleep: Sleep = anyio.sleep


async def run_unit(means: Means, unit: Unit) -> UnitOutcome:
    """Bring one unit to its end. The outcome says what went wrong; only cancellation is raised."""
    life = UnitRun(means, unit)
    try:
        return await life.run()
    except Exception as error:  # noqa: BLE001 - one unit's failure is never that of the others
        cause = first_known(error)
    if isinstance(cause, Vanished):
        left = Left(unit.key, "vanished", words(cause))
        return UnitOutcome(unit.key, unit.kind, unit.label, "left", left=(left,))
    return replace(failed(unit, cause), blocks=not life.is_founded)


def failed(unit: Unit, error: BaseException) -> UnitOutcome:
    """The outcome of a unit that an error ended; nothing that depends on it can go on."""
    return UnitOutcome(
        key=unit.key,
        kind=unit.kind,
        label=unit.label,
        became="failed",
        error=words(error),
        error_kind=error.kind if isinstance(error, XnatctlError) else "internal-error",
        blocks=True,
        hint=error.hint if isinstance(error, XnatctlError) else "",
    )


class UnitRun:
    """The life of one unit; it lives as long as `run` does."""

    def __init__(self, run: Means, unit: Unit) -> None:
        self._run = run
        self._light = self._unit = unit
        self._started = time.monotonic()
        self._outcomes: list[Outcome] = []
        self._left: list[Left] = []
        self._gone: set[str] = set()
        self._wrong: dict[str, Stamp] = {}
        self._was_cut = False  # an earlier run began it and did not end it well
        self.is_founded = False
        """Whether it exists at the sink, so that what depends on it can go on."""

    async def run(self) -> UnitOutcome:
        for _ in range(MOST_PLANS):
            try:
                return await self._run_once()
            except Replan as learned:
                self._run.bus.emit(Note(f"{self._unit.key}: {learned}"))
                self._outcomes.clear()
                self._left.clear()
                self._gone.clear()
        raise Conflict(f"{self._unit.key} could not be planned: the destination keeps changing")

    async def _run_once(self) -> UnitOutcome:
        run = self._run
        planned = await self._plan()
        crash.at("unit-planned")
        unit = self._unit
        moving = planned.to_move
        run.bus.emit(
            UnitPlanned(
                planned,
                sum(item.files for item in moving),
                sum(item.bytes for item in moving),
                sum(item.files for item in planned.items if item.verdict is Verdict.KEEP),
                signature(planned),
            )
        )
        wanted = run.options.plan
        # A plan that is gone on with: what it has done already needs no leave.
        if wanted is not None and moving and wanted.get(planned.key) != signature(planned):
            raise Conflict(
                f"{planned.label} is not as it was when the plan was made",
                hint="make a new plan with `xnatctl project transfer-plan --save FILE`",
            )
        if planned.conflict:
            raise Conflict(
                f"{planned.label} exists differently at the destination",
                why=planned.conflict,
                hint="--on-conflict merge adds what is missing, replace overwrites, skip leaves it",
            )
        self._note_conflicts(planned)
        if run.options.dry_run:
            return self._outcome(planned, "left" if moving else "kept")
        if not moving:
            if self._was_cut:
                async with run.limits.sink.slot():
                    await run.sink.seal(unit, 2)
            await self._record(planned, "failed" if self._conflicts(planned) else "done")
            return self._outcome(planned, "kept")
        crash.at("unit-begin")
        await run.state.mark_unit(run.pair, unit.key, run=run.id, status="begun")
        crash.at("unit-begun")
        try:
            failed = await self._move(planned)
            mismatches = await self._verify(planned)
        except BaseException:
            await self._abandon(planned)
            crash.at("unit-abandoned")
            await self._record(planned, "failed")
            raise
        became: Became = "failed" if failed or mismatches else "copied"
        await self._record(planned, "done" if became == "copied" else "failed")
        return self._outcome(planned, became, mismatches)

    async def _plan(self) -> Unit:
        """The unit in full with a verdict on every item."""
        run = self._run
        unit = self._light
        known = await run.state.known(run.pair, unit.key)
        if known is not None:
            self._was_cut = known.status != "done"
            unit = replace(unit, facts={**known.facts, **unit.facts})
        async with run.limits.source.slot():
            unit = await run.source.describe(unit)
        crash.at("unit-described")
        async with run.limits.sink.slot():
            inventory = await run.sink.inventory(unit)
        unit = run.sink.prepare(unit, inventory)
        digests = known.digests if known is not None else {}
        unit = decide(unit, inventory, known=digests, overwrite=run.options.overwrite)
        unit = settle(unit, inventory, policy=run.options.on_conflict, ours=known is not None)
        self._unit = pack(unit, accepts_zip=run.sink.accepts_zip)
        return self._unit

    async def _move(self, unit: Unit) -> bool:
        """Write everything; True when items failed and the rest was sealed without them."""
        run = self._run
        async with run.limits.sink.slot():
            await run.sink.begin(unit)
        crash.at("sink-begun")
        failed = False
        for stage in sorted({item.stage for item in unit.to_move} | {2}):
            items = [item for item in unit.to_move if item.stage == stage]
            if any(item.kind == "import" for item in items):
                await self._import(unit, items, stage)
            else:
                failed |= await self._lanes(unit, items)
                crash.at("stage-seal")
                async with run.limits.sink.slot():
                    await run.sink.seal(unit, stage)
            crash.at("stage-sealed")
            self.is_founded = True
        return failed

    async def _lanes(self, unit: Unit, items: list[Item]) -> bool:
        lanes: dict[str, list[Item]] = defaultdict(list)
        for item in items:
            lanes[item.lane].append(item)
        before = len(self._outcomes)
        async with anyio.create_task_group() as tasks:
            for lane in lanes.values():
                tasks.start_soon(self._lane, unit, lane)
        return any(one.became == "failed" for one in self._outcomes[before:])

    async def _lane(self, unit: Unit, items: list[Item]) -> None:
        for item in items:
            if self._run.stop.asked.is_set():
                self._outcomes.append(_not_begun(item))
                continue
            outcome = await self._item(unit, item)
            self._outcomes.append(outcome)
            crash.at("item-done")
            self._run.bus.emit(ItemDone(unit.key, outcome))
            crash.at("item-told")

    async def _item(self, unit: Unit, item: Item) -> Outcome:
        """Try an item until it has arrived, reconciling before each new attempt."""
        run = self._run
        started = time.monotonic()
        todo = [item]
        tries = _Tries(run)
        while True:
            attempt = tries.begin()
            moved = _Meter(run.bus, unit.key, item.key)
            run.bus.emit(ItemStarted(unit.key, item, attempt))
            try:
                if tries.made > 1:
                    crash.at("item-failed")
                    todo = await self._reconcile(unit, todo, split=attempt > SPLIT_AFTER)
                    crash.at("item-reconciled")
                while todo:
                    await self._once_or_left(unit, todo[0], moved)
                    todo.pop(0)
                return self._done(item, attempt, started)
            except XnatctlError as error:
                if isinstance(error, LocalFault):
                    raise
                pause = tries.pause_after(error)
                if pause is None:
                    return _item_failed(item, error, attempt, started)
                run.bus.emit(
                    ItemRetried(unit.key, item.key, attempt, words(error), pause, moved.total)
                )
                await run.sleep(pause)

    async def _reconcile(self, unit: Unit, todo: list[Item], *, split: bool) -> list[Item]:
        """What is still missing after a failed attempt: its answer may have been lost, not its
        work.
        """
        inventory = await self._listed(unit)
        return [rest for one in todo for rest in remaining(one, inventory, split=split)]

    async def _once_or_left(self, unit: Unit, item: Item, moved: _Meter) -> None:
        """Move it, unless it is gone at the source or the sink cannot hold it: then say so."""
        try:
            await self._once(unit, item, moved)
        except (LeftBehind, Vanished) as error:
            code = error.code if isinstance(error, LeftBehind) else "vanished"
            self._left.append(Left(item.key, code, words(error)))
            self._gone.update(expected(item) or [item.key])

    async def _once(self, unit: Unit, item: Item, moved: _Meter) -> None:
        limits = self._run.limits
        async with limits.source.slot() as reading, limits.sink.slot() as writing:
            reading.begin()

            def count(some: int) -> None:
                moved(some)
                reading.moved(some)
                writing.moved(some)

            crash.at("item-started")
            await copy_item(self._run.source, self._run.sink, unit, item, count)
            crash.at("item-answered")

    def _done(self, item: Item, attempt: int, started: float) -> Outcome:
        lost = [one for one in (item.members or (item,)) if one.key in self._gone]
        return Outcome(
            key=item.key,
            became="left" if len(lost) == max(1, len(item.members)) else "copied",
            files=item.files - (len(lost) if item.files else 0),
            bytes=item.bytes - sum(one.size or 0 for one in lost),
            attempts=attempt,
            seconds=time.monotonic() - started,
        )

    async def _import(self, unit: Unit, items: list[Item], stage: int) -> None:
        """An import is all or nothing: after any failure it is undone and begun afresh."""
        run = self._run
        tries = _Tries(run)
        while True:
            attempt = tries.begin()
            started = time.monotonic()
            wasted = 0
            try:
                for item in items:
                    moved = _Meter(run.bus, unit.key, item.key)
                    run.bus.emit(ItemStarted(unit.key, item, attempt))
                    try:
                        await self._once(unit, item, moved)
                    finally:
                        wasted += moved.total
                crash.at("import-seal")
                async with run.limits.sink.slot():
                    await run.sink.seal(unit, stage)
            except Replan:
                raise
            except XnatctlError as error:
                await self._abandon(unit)
                pause = None if run.stop.asked.is_set() else tries.pause_after(error)
                if pause is None:
                    raise
                run.bus.emit(
                    ItemRetried(unit.key, items[0].lane, attempt, words(error), pause, wasted)
                )
                await run.sleep(pause)
                continue
            for item in items:
                outcome = self._done(item, attempt, started)
                self._outcomes.append(outcome)
                run.bus.emit(ItemDone(unit.key, outcome))
            return

    async def _verify(self, unit: Unit) -> list[Mismatch]:
        """The sink's fresh listing against what was read from the source.

        A server may have stored something else behind a good answer: that is sent once more.
        """
        crash.at("unit-verify")
        inventory = await self._listed(unit)
        copied = {one.key for one in self._outcomes if one.became == "copied"}
        again = [
            rest
            for item in unit.to_move
            if item.key in copied and item.kind in ("file", "zip")
            for rest in remaining(item, inventory)
        ]
        again = [item for item in again if not self._gone.issuperset(expected(item))]
        if again and not self._run.stop.asked.is_set():
            self._run.bus.emit(Note(f"{unit.key}: {again[0].key} was not stored as it was sent"))
            for item in again:
                await self._item(unit, item)
            async with self._run.limits.sink.slot():
                await self._run.sink.seal(unit, 2)
            inventory = await self._listed(unit)
        self._wrong = _wrong(unit, inventory)
        checked = [
            item for item in unit.items if item.verdict is Verdict.KEEP or item.key in copied
        ]
        levels = {item.key: level(item, inventory) for item in checked if item.key in copied}
        self._outcomes = [replace(one, verified=levels.get(one.key, "")) for one in self._outcomes]
        return [one for one in compare(checked, inventory) if one.key not in self._gone]

    async def _listed(self, unit: Unit) -> Inventory:
        async with self._run.limits.sink.slot():
            return await self._run.sink.inventory(unit)

    async def _abandon(self, unit: Unit) -> None:
        with anyio.move_on_after(20.0, shield=True):
            try:
                await self._run.sink.abandon(unit)
            except XnatctlError as error:
                self._run.bus.emit(Note(f"{unit.key}: {words(error)}", level="warning"))

    async def _record(self, unit: Unit, status: str) -> None:
        run = self._run
        became = {one.key: one for one in self._outcomes}
        # What a run wrote that died before it could say so is found by the next one.
        found = "done" if self._was_cut else "kept"
        rows: list[tuple[str, str, int | None, str, str]] = []
        for item in unit.items:
            one = became.get(item.key)
            if one is not None and one.became == "failed":
                rows.append((item.key, item.digest, item.bytes, "failed", one.error))
            elif item.verdict is Verdict.KEEP:
                rows.append((item.key, item.digest, item.bytes, found, ""))
            elif one is not None and one.became == "copied":
                if item.kind == "zip":
                    there = [m for m in item.members if m.key not in self._gone]
                    rows += [(m.key, m.digest, m.size, "done", "") for m in there]
                else:
                    rows.append((item.key, item.digest, item.bytes, "done", ""))
        # What is there and wrong is ours: a later run may write over it.
        rows += [(key, one.digest, one.size, "wrong", "") for key, one in self._wrong.items()]
        with anyio.CancelScope(shield=True):
            crash.at("unit-record")
            await run.state.mark_items(run.pair, unit.key, rows)
            crash.at("items-recorded")
            await run.state.mark_unit(
                run.pair,
                unit.key,
                run=run.id,
                status=status,
                fingerprint=unit.fingerprint,
                facts=_lasting(unit.facts, status),
            )
        crash.at("unit-recorded")

    def _note_conflicts(self, unit: Unit) -> None:
        for item in self._conflicts(unit):
            self._outcomes.append(
                Outcome(
                    item.key,
                    "failed",
                    files=item.files,
                    error=f"differs at the destination: {item.reason}",
                    error_kind="conflict",
                )
            )

    def _conflicts(self, unit: Unit) -> list[Item]:
        return [item for item in unit.items if item.verdict is Verdict.CONFLICT]

    def _outcome(
        self, unit: Unit, became: Became, mismatches: list[Mismatch] | None = None
    ) -> UnitOutcome:
        kept = [item for item in unit.items if item.verdict is Verdict.KEEP]
        copied = [one for one in self._outcomes if one.became == "copied"]
        lost = [one for one in self._outcomes if one.became == "failed"]
        error = ""
        if mismatches:
            error = f"{len(mismatches)} differ after the transfer: {mismatches[0].key}"
        elif lost:
            error = f"{len(lost)} failed: {lost[0].key}: {lost[0].error}"
        return UnitOutcome(
            key=unit.key,
            kind=unit.kind,
            label=unit.label,
            became="failed" if self._conflicts(unit) else became,
            outcomes=tuple(self._outcomes),
            left=(*unit.left, *self._left),
            mismatches=tuple(mismatches or ()),
            files=sum(one.files for one in copied),
            bytes=sum(one.bytes for one in copied),
            files_kept=sum(item.files for item in kept),
            bytes_kept=sum(item.bytes for item in kept),
            seconds=time.monotonic() - self._started,
            notes=unit.notes,
            error=error,
            error_kind="mismatch" if mismatches else (lost[0].error_kind if lost else ""),
        )


class _Tries:
    """The tries of an item or of an import, counted from 1.

    Those that a busy or closed host costs are free for `patience` seconds: they say nothing of what
    was tried.
    """

    def __init__(self, run: Means) -> None:
        self._run = run
        self._down_since = 0.0
        self.made = 0
        self._counted = 0

    def begin(self) -> int:
        self.made += 1
        self._counted += 1
        return self._counted

    def pause_after(self, error: XnatctlError) -> float | None:
        """Seconds until the next try; None where no other can help or is left."""
        options = self._run.options
        if isinstance(error, Busy) or self._is_waiting(error):
            self._down_since = self._down_since or time.monotonic()
            self._counted -= time.monotonic() - self._down_since < options.patience
        else:
            self._down_since = 0.0
        lags = _may_lag(error) and self._counted <= LAGGING_TRIES
        if not (is_retryable(error) or lags) or self._counted >= options.policy.attempts:
            return None
        return options.lag if lags else options.policy.pause(max(1, self._counted), error)

    def _is_waiting(self, error: XnatctlError) -> bool:
        """Whether the host is known to be down, so that the failure says nothing of the item."""
        limits = self._run.limits
        gate = limits.source if error.blame == "source" else limits.sink
        return gate.is_closed and is_retryable(error)


class _Meter:
    """Counts the bytes of one attempt and tells of them in steps, not chunk by chunk."""

    STEP = 1024 * 1024

    def __init__(self, bus: Bus, unit: str, key: str) -> None:
        self.total = 0
        self._told = 0
        self._bus, self._unit, self._key = bus, unit, key

    def __call__(self, count: int) -> None:
        self.total += count
        if self.total - self._told >= self.STEP:
            self._bus.emit(BytesMoved(self._unit, self._key, self.total - self._told))
            self._told = self.total


def _wrong(unit: Unit, inventory: Inventory) -> dict[str, Stamp]:
    """What this run wrote, or tried to, and the sink lists otherwise."""
    return {
        key: there
        for item in unit.to_move
        for key, wanted in expected(item).items()
        if (there := inventory.get(key)) is not None and not same(wanted, there)
    }


def _not_begun(item: Item) -> Outcome:
    return Outcome(
        key=item.key,
        became="failed",
        files=item.files,
        error="the run was stopped before it was begun",
        error_kind="cancelled",
    )


def _item_failed(item: Item, error: XnatctlError, attempt: int, started: float) -> Outcome:
    return Outcome(
        key=item.key,
        became="failed",
        files=item.files,
        attempts=attempt,
        seconds=time.monotonic() - started,
        error=words(error),
        error_kind=error.kind,
    )


def _lasting(facts: Mapping[str, str], status: str) -> dict[str, str]:
    """What later runs are told of a unit: `keep:` in any case, `done:` when all of it arrived."""
    kinds = ("keep:", "done:") if status == "done" else ("keep:",)
    return {name: text for name, text in facts.items() if name.startswith(kinds)}


def _may_lag(error: XnatctlError) -> bool:
    """Whether rights that were just given may not be known to all of the sink yet.

    XNAT caches permissions: for about a second a new project is missing or forbidden (1.8).
    """
    return error.blame != "source" and isinstance(error, (NotFound, PermissionDenied))
