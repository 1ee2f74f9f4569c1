"""What goes between the coordinator and its workers: plain data, pickled by ourselves.

No record here holds a secret: all of them pass through the scheduler, which keeps some of them.
What a worker needs to log in it finds where it is (`Ends`).
"""

from __future__ import annotations

import pickle
import platform
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, Protocol

from xnatctl.engine.events import Event, ItemStarted, UnitPlanned
from xnatctl.engine.limits import Sample
from xnatctl.engine.pace import Pace
from xnatctl.engine.ports import Sink, Source
from xnatctl.engine.runner import Options
from xnatctl.engine.state import Known, Pair
from xnatctl.engine.types import Member, Unit, UnitOutcome
from xnatctl.errors import XnatctlError

Remember = Callable[[str, Mapping[str, str | None]], Awaitable[None]]
MakeSink = Callable[[Remember], Sink]
Share = tuple[int, int, int]
"""Slots of the source's gate and of the sink's, and bytes a second, where they are capped."""


class Ends(Protocol):
    """Both ends of a run as plain data, out of which any process can make them."""

    def open(self) -> AbstractAsyncContextManager[tuple[Source, MakeSink]]:
        """The source, and a sink for each unit that keeps its facts with the given function.

        Everything that a unit would need is tried on the way in: credentials, and the way to each
        end. Raises XnatctlError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the two sides are with each other. Seconds."""

    connect_s: float = 15.0
    """For a connection to the scheduler, and between it and workers."""
    beat_s: float = 1.0
    """Between two looks at who is there."""
    lease_s: float = 60.0
    """A worker that has not heard of the coordinator for so long stops what it does."""
    answer_s: float = 30.0
    """A worker that does not answer for so long is told again later."""
    flush_s: float = 0.5
    """Between two letters of a worker, where nothing is urgent."""
    arrive_s: float = 60.0
    """How long a first worker is waited for, at the start and when all were lost."""
    closing_s: float = 25.0
    """What a unit that is called off may take to leave things in order."""


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker is told of a run. `is_local` workers share the coordinator's terminal."""

    run: str
    pair: Pair
    options: Options
    ends: Ends
    timing: Timing
    pace: Pace | None = None
    is_local: bool = False

    @property
    def topic(self) -> str:
        return f"xnatctl.{self.run}"


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a worker is. Unpickled before it is known whether the versions agree: never changed."""

    host: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker is ready. `seat` is new with every process and every joining."""

    seat: str


@dataclass(frozen=True, slots=True)
class Order:
    """One unit, leased under a token, with what the state store knows of it."""

    seat: str
    token: str
    unit: Unit
    known: Known | None


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the state store, which the coordinator makes for the worker."""

    method: str
    args: tuple[Any, ...]
    named: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a unit, None where it was called off, and what is to be remembered of it."""

    outcome: UnitOutcome | None
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """A call that the worker waits for: it must be durable before it goes on."""

    token: str
    number: int
    call: Call


@dataclass(frozen=True, slots=True)
class Letter:
    """From a worker to the coordinator; `samples` are of the source's gate and the sink's."""

    seat: str
    events: tuple[Event, ...] = ()
    asks: tuple[Ask, ...] = ()
    samples: tuple[Sample, Sample] | None = None


@dataclass(frozen=True, slots=True)
class News:
    """From the coordinator to a worker; whatever it says, it renews the worker's lease.

    `share` is what it may use from now on, `answers` errors (or None) by the number of what was
    asked, `stop` is why and with which exit code.
    """

    share: Share | None = None
    stop: tuple[str, int] | None = None
    call_off: tuple[str, ...] = ()
    answers: tuple[tuple[int, XnatctlError | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A worker's answer to news: what is in use there."""

    held: Share


def versions() -> dict[str, str]:
    """What must be the same on both sides, since records travel between them."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"Python": python} | {name: version(name) for name in ("xnatctl", "distributed")}


def packed(record: object) -> bytes:
    return zlib.compress(pickle.dumps(record, protocol=5), level=1)


def unpacked(data: bytes) -> Any:
    return pickle.loads(zlib.decompress(data))


def light(event: Event) -> Event:
    """The event without what no observer reads: documents, and the names of an archive's members.

    How many files and bytes an item has stays true.
    """
    if isinstance(event, UnitPlanned):
        unit = event.unit
        told = Unit(unit.key, unit.kind, unit.ref, unit.target, unit.label, mapped=unit.mapped)
        return replace(event, unit=told)
    if isinstance(event, ItemStarted):
        item = event.item
        # One and the same record is written once by pickle, however often it is there.
        rest = (Member("", "", 0, ""),) * (len(item.members) - 1)
        members = (Member("", "", item.bytes, ""), *rest) if item.members else ()
        return replace(event, item=replace(item, body=b"", members=members))
    return event
