"""A result as one page with plots, which needs nothing from elsewhere.

The plots are SVG inside the page. Whatever came from a server or a file is escaped by the template
engine; the figures of a plot are numbers by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 640, 260, 64, 16, 12, 40
COLORS = ("#2563eb", "#d97706", "#059669", "#c026d3", "#dc2626", "#0891b2")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot: its name and its points, settings against values."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A line as SVG has it."""

    name: str
    color: str
    path: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A tick of an axis: where it is, and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot, ready to be written down."""

    title: str
    lines: tuple[Drawn, ...]
    across: tuple[Mark, ...]
    up: tuple[Mark, ...]


def plot(title: str, lines: Sequence[Line], label: Callable[[float], str]) -> Plot | None:
    """Lines over how many were at once, which is spread by doublings; None without a point."""
    points = [point for line in lines for point in line.points]
    if not points:
        return None
    settings = sorted({x for x, _ in points})
    least, most = log2(settings[0]), log2(settings[-1])
    step = _nice(max(y for _, y in points) / 4)
    top = step * max(1, -(-max(y for _, y in points) // step))

    def across(x: float) -> float:
        part = (log2(x) - least) / (most - least) if most > least else 0.5
        return round(LEFT + part * (WIDE - LEFT - RIGHT), 1)

    def up(y: float) -> float:
        return round(HIGH - BOTTOM - y / top * (HIGH - TOP - BOTTOM), 1)

    drawn = []
    for number, line in enumerate(one for one in lines if one.points):
        dots = tuple((across(x), up(y)) for x, y in sorted(line.points))
        path = " ".join(f"{x},{y}" for x, y in dots)
        drawn.append(Drawn(line.name, COLORS[number % len(COLORS)], path, dots))
    ticks = [step * number for number in range(round(top / step) + 1)]
    return Plot(
        title,
        tuple(drawn),
        tuple(Mark(across(x), f"{x:g}") for x in settings),
        tuple(Mark(up(y), label(y)) for y in ticks),
    )


def _nice(value: float) -> float:
    """The next larger of 1, 2, 5 and their powers of ten."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(power * one for one in (1, 2, 5, 10) if power * one >= value)


def to_html(data: Mapping[str, Any], *, size: Callable[[float], str]) -> str:
    """The page. `size` puts bytes into words."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("xnatctl", "bench")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["size"] = size
    rows = data["rows"]
    by_size: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_size.setdefault(row["size"], []).append(row)
    return environment.get_template("bench.html").render(
        run=data,
        rows=rows,
        plots=[one for one in _plots(data["verb"], by_size, size) if one is not None],
        peak=max((row["peak_memory_bytes"] for row in rows), default=0),
        box={"wide": WIDE, "high": HIGH, "left": LEFT, "right": WIDE - RIGHT, "low": HIGH - BOTTOM},
    )


def _plots(
    verb: str,
    by_size: Mapping[int, Sequence[Mapping[str, Any]]],
    size: Callable[[float], str],
) -> Iterable[Plot | None]:
    def name(of: int) -> str:
        return size(of) if of else "as they come"

    if verb == "api":
        yield plot("Requests a second", _lines(by_size, "requests_per_s", name), lambda y: f"{y:g}")
    else:
        yield plot("Bytes a second", _lines(by_size, "bytes_per_s", name), size)
    wait, words = ("answer", "answer") if verb == "upload" else ("first_byte", "first byte")
    for of, rows in by_size.items():
        parts = ("p50", "p95", "p99")
        lines = [Line(part, _points(rows, f"{wait}_{part}_s", 1000.0)) for part in parts]
        about = f", {name(of)}" if verb != "api" else ""
        yield plot(f"Milliseconds until the {words}{about}", lines, lambda y: f"{y:g}")
    yield plot(
        "CPU seconds of this process for a gigabyte",
        _lines(by_size, "cpu_s_per_gb", name),
        lambda y: f"{y:g}",
    )


def _lines(
    by_size: Mapping[int, Sequence[Mapping[str, Any]]], key: str, name: Callable[[int], str]
) -> list[Line]:
    return [Line(name(of), _points(rows, key)) for of, rows in by_size.items()]


def _points(
    rows: Sequence[Mapping[str, Any]], key: str, times: float = 1.0
) -> tuple[tuple[float, float], ...]:
    return tuple(
        (float(row["concurrency"]), row[key] * times) for row in rows if row[key] is not None
    )
