"""How a run is going, on stderr: a bar on a terminal, a plain line every 10 seconds elsewhere.

`Tally` adds the events up and is pure but for its clock; `Bar` and `Lines` show a tally when `tick`
is called, so that whoever owns the event loop decides how often.

Totals grow while units are planned: a percentage is of what is known so far. The rate is that of
the last 60 seconds, so a stall is seen; without a rate there is no end in sight, and none is shown.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from xnatctl.engine.events import (
    BytesMoved,
    Event,
    ItemDone,
    ItemRetried,
    ItemStarted,
    Note,
    RunDone,
    RunStarted,
    UnitDone,
    UnitPlanned,
)

from .console import Console
from .render import count, size, span, visible, width

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

Clock = Callable[[], float]
WINDOW_S = 60.0
LINE_EVERY_S = 10.0
SHOWN_UNITS = 4


@dataclass(slots=True)
class _Active:
    """A unit on its way: bytes moved and bytes to move."""

    label: str
    moved: int = 0
    total: int = 0


class Tally:
    """The figures of a run so far."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.started = clock()
        self.files = self.files_total = self.files_kept = 0
        self.bytes = self.bytes_total = 0
        self.units = self.units_total = self.failed = self.retries = 0
        self.done = False
        self.active: dict[str, _Active] = {}
        self._told: dict[tuple[str, str], int] = {}
        self._seconds: deque[tuple[float, int]] = deque()

    def __call__(self, event: Event) -> None:
        match event:
            case UnitPlanned(unit=unit):
                self.units_total += 1
                self.files_total += event.files
                self.bytes_total += event.bytes
                self.files_kept += event.files_kept
                if event.files:
                    label = unit.label or unit.key
                    self.active[unit.key] = _Active(label, total=event.bytes)
            case ItemStarted():
                self.active.setdefault(event.unit, _Active(event.unit))
                self._settle(event.unit, event.item.key, 0)
            case BytesMoved():
                told = self._told.get((event.unit, event.key), 0)
                self._told[event.unit, event.key] = told + event.bytes
                self._move(event.unit, event.bytes)
            case ItemRetried():
                self.retries += 1
                self._settle(event.unit, event.key, 0)
            case ItemDone(outcome=outcome):
                self.files += outcome.files if outcome.became == "copied" else 0
                self._settle(event.unit, outcome.key, outcome.bytes)
            case UnitDone(outcome=unit_outcome):
                self.units += 1
                self.failed += unit_outcome.became == "failed"
                self.active.pop(unit_outcome.key, None)
            case RunDone():
                self.done = True

    def _settle(self, unit: str, key: str, arrived: int) -> None:
        """What counts of an item from here on: nothing at a new attempt, its files at its end.

        Bytes are told in steps, and those of an archive count its headers too.
        """
        self._move(unit, arrived - self._told.pop((unit, key), 0))

    def _move(self, unit: str, moved: int) -> None:
        self.bytes += moved
        if unit in self.active:
            self.active[unit].moved += moved
        if moved > 0:
            now = self.clock()
            if self._seconds and now - self._seconds[-1][0] < 1.0:
                at, before = self._seconds.pop()
                self._seconds.append((at, before + moved))
            else:
                self._seconds.append((now, moved))

    @property
    def rate(self) -> float | None:
        """Bytes a second over the last minute; None before anything moved."""
        now = self.clock()
        while self._seconds and now - self._seconds[0][0] > WINDOW_S:
            self._seconds.popleft()
        lived = min(WINDOW_S, now - self.started)
        if lived <= 0 or not (self._seconds or self.bytes):
            return None
        return sum(moved for _, moved in self._seconds) / lived

    @property
    def left_s(self) -> float | None:
        """Seconds until what is known so far has moved; None when nobody can say."""
        rate = self.rate
        if not rate or self.bytes_total <= self.bytes:
            return None
        return (self.bytes_total - self.bytes) / rate

    @property
    def share(self) -> float | None:
        """The part of the known bytes that has moved, from 0 to 1; None when there are none."""
        return min(1.0, self.bytes / self.bytes_total) if self.bytes_total else None

    def line(self) -> str:
        """All of it in one line: `12/80 files, 1.0 MiB of 3.4 GiB (31%), 9.8 MiB/s, 5 min left`."""
        parts = self.figures()
        if self.share is not None:
            parts[2] += f" ({self.share:.0%})"
        if self.left_s is not None:
            parts.insert(4, f"{span(self.left_s)} left")
        return ", ".join(parts)

    def figures(self) -> list[str]:
        """Units, files and bytes; then the rate, retries and failures, where there are any."""
        parts = [
            f"{self.units}/{count(self.units_total, 'unit')}",
            f"{self.files:,}/{count(self.files_total, 'file')}",
            f"{size(self.bytes)} of {size(self.bytes_total)}",
        ]
        if self.rate is not None:
            parts.append(f"{size(self.rate)}/s")
        if self.retries:
            parts.append(count(self.retries, "retry", "retries"))
        if self.failed:
            parts.append(f"{self.failed} failed")
        return parts


class Progress(Protocol):
    """Shows a run while it goes on. Used as a context; called with each event."""

    def __call__(self, event: Event) -> None: ...

    def tick(self) -> None:
        """Show the present state; called a few times a second."""
        ...

    def close(self) -> None: ...


class Silent:
    """Shows nothing but warnings, which are not progress."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note) and event.level != "info":
            self._console.warn(event.text)

    def tick(self) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """A line every 10 seconds, for logs and terminals that cannot redraw."""

    def __init__(
        self, console: Console, *, every: float = LINE_EVERY_S, clock: Clock = time.monotonic
    ) -> None:
        self.tally = Tally(clock)
        self._console = console
        self._every = every
        self._next = clock() + every

    def __call__(self, event: Event) -> None:
        self.tally(event)
        if isinstance(event, Note):
            _pass_on(event, self._console)
        elif isinstance(event, RunStarted):
            _begin(event, self._console)

    def tick(self) -> None:
        if not self.tally.done and self.tally.clock() >= self._next:
            self._next = self.tally.clock() + self._every
            self._console.say(self.tally.line())

    def close(self) -> None:
        pass


class Bar:
    """A bar with the units that are on their way below it; it goes away at the end."""

    def __init__(self, console: Console, *, clock: Clock = time.monotonic) -> None:
        from rich.live import Live

        self.tally = Tally(clock)
        self._console = console
        self._rich = console.rich(console.err)
        self._unicode = console.has_unicode(console.err)
        self._live: Live = Live(
            console=self._rich,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start()
        console.above = self._print_above

    def __call__(self, event: Event) -> None:
        self.tally(event)
        if isinstance(event, Note):
            _pass_on(event, self._console)
        elif isinstance(event, RunStarted):
            _begin(event, self._console)

    def tick(self) -> None:
        self._live.update(self._render(), refresh=True)

    def close(self) -> None:
        """Take the bar away; what was said stays."""
        from rich.text import Text

        self._console.above = None
        self._live.update(Text(""))
        self._live.stop()

    def _print_above(self, text: str) -> None:
        from rich.text import Text

        self._rich.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=True)

    def _render(self) -> RenderableType:
        from rich.text import Text

        columns = self._rich.width
        lines = [self._bar_line(columns), _cut("  ".join(self.tally.figures()), columns)]
        shown = sorted(self.tally.active.values(), key=lambda one: -one.moved)
        names = max((width(visible(one.label)) for one in shown[:SHOWN_UNITS]), default=0)
        lines += [self._unit_line(one, columns, names) for one in shown[:SHOWN_UNITS]]
        if len(shown) > SHOWN_UNITS:
            lines.append(_cut(f"  and {len(shown) - SHOWN_UNITS} more", columns))
        return Text("\n").join(Text.from_ansi(line) for line in lines)

    def _bar_line(self, columns: int) -> str:
        tally = self.tally
        share = tally.share
        words = f" {'  0' if share is None else f'{share * 100:3.0f}'} %"
        if tally.left_s is not None:
            words += f"  {span(tally.left_s)} left"
        elif share is None:
            words += "  looking"
        room = max(10, min(60, columns - len(words) - 2))
        full, empty = ("━", "─") if self._unicode else ("#", "-")
        done = round(room * (share or 0.0))
        bar = full * done + empty * (room - done)
        if self._rich.color_system:
            bar = f"\x1b[32m{full * done}\x1b[0m\x1b[2m{empty * (room - done)}\x1b[0m"
        return bar + words

    def _unit_line(self, one: _Active, columns: int, names: int) -> str:
        figures = f"{size(one.moved)} of {size(one.total)}" if one.total else size(one.moved)
        room = min(names, max(8, columns - len(figures) - 5))
        label = _cut(visible(one.label), room)
        return f"  {label}{' ' * (room - width(label))}  {figures}"


def progress(console: Console, mode: str) -> Progress:
    """What `--progress` means here: `auto` draws a bar where it can, else writes lines."""
    if mode == "none" or (console.quiet and mode == "auto"):
        return Silent(console)
    if mode == "bar" or (mode == "auto" and console.can_redraw(console.err)):
        return Bar(console)
    return Lines(console)


def _begin(event: RunStarted, console: Console) -> None:
    arrow = "→" if console.has_unicode(console.err) else "->"
    console.say(f"run {event.run_id}: {event.verb}")
    console.say(f"{event.source} {arrow} {event.sink}")


def _pass_on(note: Note, console: Console) -> None:
    if note.level == "info":
        console.say(note.text)
    else:
        console.warn(note.text)


def _cut(text: str, room: int) -> str:
    """`text` in at most `room` columns, with an ellipsis where it was longer."""
    if width(text) <= room:
        return text
    kept = ""
    for char in text:
        if width(kept + char) > room - 1:
            break
        kept += char
    return kept + "…"
