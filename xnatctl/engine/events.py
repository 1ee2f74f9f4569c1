"""What happened, as frozen records, and the bus that hands them to observers.

Observers only watch: one that raises is detached and reported once, and never stops a transfer.
Byte counts are coalesced by whoever emits them; the bus keeps nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .types import Item, Outcome, Report, Unit, UnitOutcome


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; `at` is seconds since the epoch."""

    at: float = field(default_factory=time.time, kw_only=True)


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    run_id: str
    verb: str
    source: str
    sink: str


@dataclass(frozen=True, slots=True)
class UnitPlanned(Event):
    """The unit is known in full: `files` and `bytes` are what has to move, the rest is already
    there. `signature` names exactly this plan of it.
    """

    unit: Unit
    files: int
    bytes: int
    files_kept: int
    signature: str = ""


@dataclass(frozen=True, slots=True)
class ItemStarted(Event):
    unit: str
    item: Item
    attempt: int


@dataclass(frozen=True, slots=True)
class BytesMoved(Event):
    unit: str
    key: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ItemRetried(Event):
    """The attempt failed and another follows after `pause` seconds; `wasted` bytes had been moved
    in vain.
    """

    unit: str
    key: str
    attempt: int
    error: str
    pause: float
    wasted: int = 0


@dataclass(frozen=True, slots=True)
class ItemDone(Event):
    unit: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class UnitDone(Event):
    outcome: UnitOutcome


@dataclass(frozen=True, slots=True)
class Note(Event):
    """Something a person should read once: a warning, a pause of a host, a breaker that opened."""

    text: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class RunDone(Event):
    report: Report


Observer = Callable[[Event], None]


class Bus:
    """Hands every event to every observer, in the order in which they were added."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = list(observers)

    def add(self, observer: Observer) -> None:
        self._observers.append(observer)

    def emit(self, event: Event) -> None:
        for observer in tuple(self._observers):
            if observer not in self._observers:
                continue  # it was detached by what an observer before it caused
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - a watcher must never stop a transfer
                self._observers.remove(observer)
                name = getattr(observer, "__qualname__", type(observer).__name__)
                self.emit(Note(f"{name} stopped watching: {error!r}", level="warning"))
