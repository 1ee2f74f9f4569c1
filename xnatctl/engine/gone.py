"""What earlier runs put at the sink and the source does not have any more. Finds; deletes nothing.

1. Candidates are units that this run did not meet although an earlier one created them, and keys
   that a unit's plan found at the sink alone.
2. Each is looked for once more: in a second listing of the source, and in a fresh description and
   inventory of its unit. Only what both looks miss counts.
3. Of that only what runs wrote themselves counts, by the state store. A whole session, scan,
   assessor or resource goes where everything that the sink lists in it counts, else single files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from xnatctl.errors import Vanished
from xnatctl.model import Ref

from .events import Event, UnitDone, UnitPlanned
from .plan import is_assessor, surplus
from .ports import Inventory, Sink, Source
from .state import Pair, StateStore
from .types import Item, Selection, Unit


@dataclass(frozen=True, slots=True)
class Gone:
    """One thing to take away: `key` is its address inside the unit, empty for the unit itself.

    `why_not` says why it has to stay after all.
    """

    unit: Unit
    key: str = ""
    files: int = 0
    why_not: str = ""

    def __str__(self) -> str:
        return f"{self.unit.key}/{self.key}" if self.key else self.unit.key


class Watch:
    """An observer that keeps what the plans of a run found at the sink alone, by unit, and which
    units it met without recording them.
    """

    def __init__(self) -> None:
        self.extra: dict[str, tuple[str, ...]] = {}
        self.counts: dict[str, int] = defaultdict(int)
        self.met: set[str] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, UnitPlanned):
            self.counts[event.unit.kind] += 1
            if event.unit.extra:
                self.extra[event.unit.key] = event.unit.extra
        elif isinstance(event, UnitDone) and event.outcome.became in ("failed", "left"):
            self.met.add(event.outcome.key)


async def find(
    source: Source,
    sink: Sink,
    *,
    state: StateStore,
    pair: Pair,
    run_id: str,
    selection: Selection,
    target: Ref,
    watch: Watch,
) -> list[Gone]:
    """Everything that is gone at the source, units last and sessions before their subjects."""
    unmet = await state.unmet(pair, run_id)
    absent = {key: facts for key, facts in unmet.items() if key not in watch.met}
    found: list[Gone] = []
    if not (absent or watch.extra):
        return found
    async for light in source.units(selection):
        absent.pop(light.key, None)
        if light.key in watch.extra:
            found += await _within(source, sink, state=state, pair=pair, unit=light, watch=watch)
    whole = []
    for key, facts in absent.items():
        unit = _unit(key, facts, target)
        if unit is not None:
            whole.append(await _whole(sink, state, pair, unit))
    return found + sorted(whole, key=lambda one: (one.unit.kind == "subject", one.unit.key))


async def _within(
    source: Source, sink: Sink, *, state: StateStore, pair: Pair, unit: Unit, watch: Watch
) -> list[Gone]:
    known = await state.known(pair, unit.key)
    if known is None:
        return []
    with suppress(Vanished):
        unit = await source.describe(replace(unit, facts={**known.facts, **unit.facts}))
        inventory = await sink.inventory(unit)
        unit = sink.prepare(unit, inventory)
        written = await state.written(pair, unit.key)
        again = set(surplus(unit, inventory)) & set(watch.extra[unit.key])
        mine = {key for key in again if _is_ours(key, written)}
        return [
            Gone(unit, key, sum(one.startswith(f"{key}/") or one == key for one in mine))
            for key in things(unit, inventory, mine)
        ]
    return []


async def _whole(sink: Sink, state: StateStore, pair: Pair, unit: Unit) -> Gone:
    """A session or subject that the source has no more, if all in it was written by runs."""
    inventory = await sink.inventory(unit)
    written = await state.written(pair, unit.key)
    files = [key for key in inventory if "/files/" in key]
    others = [key for key in files if not _is_ours(key, written)]
    why = f"it holds {others[0]}, which no run put there" if others else ""
    return Gone(unit, files=len(files), why_not=why)


def things(unit: Unit, inventory: Inventory, gone: Collection[str]) -> list[str]:
    """The keys to take away: a scan, an assessor or a resource where all of it goes, else files."""
    held = [key for key in inventory if "/files/" in key or is_assessor(key)]
    stays = {above for key in held if key not in gone for above in _above(key)}
    stays |= {above for item in unit.items for above in _above(_place(item))}
    stays |= {above for one in unit.containers for above in (*_above(one.key), one.key)}
    stays |= {f"scans/{name[7:]}" for name in unit.facts if name.startswith("series:")}
    found = {next((one for one in _above(key) if one not in stays), key) for key in gone}
    return sorted(found)


def _place(item: Item) -> str:
    return item.key if "/" in item.key else ""


def _above(key: str) -> list[str]:
    """What a key lies in, the largest first: scan or assessor, then resource."""
    parts = key.split("/")
    above = ["/".join(parts[:2])] if parts[0] in ("scans", "assessors") and len(parts) > 2 else []
    resource, files, _ = key.partition("/files/")
    return [*above, resource] if files else above


def _is_ours(key: str, written: Collection[str]) -> bool:
    """Shares are remembered because a run made them; a scan that was imported counts as one."""
    return key in written or key.partition("/files/")[0] in written or "shares/" in key


def _unit(key: str, facts: Mapping[str, str], target: Ref) -> Unit | None:
    """The unit that an earlier run created, at the address that it has at the sink."""
    there = facts.get("session_id") or facts.get("subject_id")
    parts = key.split("/")
    if not (facts.get("made") and there and len(parts) in (2, 4)):
        return None
    if len(parts) == 2:
        ref = Ref(target.project, subject=there)
        return Unit(key, "subject", ref, ref, parts[1], facts=facts)
    ref = Ref(target.project, parts[1], parts[3], session_id=there)
    return Unit(key, "session", ref, ref, parts[3], facts=facts)


def share(found: Sequence[Gone], watch: Watch) -> float:
    """Which part of what the project has would be touched: sessions or subjects, the larger."""
    parts = [0.0]
    for kinds in (("session", "experiment"), ("subject",)):
        touched = {one.unit.key for one in found if one.unit.kind in kinds and not one.why_not}
        gone = {one.unit.key for one in found if one.unit.kind in kinds and not one.key}
        known = sum(watch.counts[kind] for kind in kinds) + len(gone)
        parts.append(len(touched) / known if known else 0.0)
    return max(parts)
