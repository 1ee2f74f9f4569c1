"""What a benchmark found, as a table and as plots, and both into docs/performance.md.

    python benchmarks/publish.py RESULT.json…

Later files replace rows of earlier ones that have the same name. The page's own text stays; what
stands between its `<!-- name -->` and `<!-- end name -->` marks is written anew.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from measure import ROOT, Measured, Row

PAGE = ROOT / "docs" / "performance.md"
PLOTS = """\
![How many times as fast as each other program](performance-ratios.svg)

![CPU seconds a GB](performance-cpu.svg)"""
OURS, OTHERS, GOAL = "#2f6f9f", "#b9b9b9", "#c0392b"


def table(rows: Iterable[Row]) -> str:
    """The results in Markdown: rates, CPU and memory by contender, and how they compare."""
    lines = [
        "| row | contender | s | MB/s | files/s | CPU s/GB | peak MB | requests |"
        " ours against it |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        for number, who in enumerate(row.rounds):
            lines.append(_line(row, who, first=not number))
        for who, why in row.skipped.items():
            name = who.replace("|", "\\|")
            last = (why.strip().splitlines() or [""])[-1]
            words = f"not measured: {last}".replace("|", "\\|")
            lines.append(f"| {'' if row.rounds else _title(row)} | {name} | {words} |" + " |" * 6)
        lines += [f"| | {note} |" + " |" * 7 for note in row.notes]
    return "\n".join(lines)


def _title(row: Row) -> str:
    return f"**{row.name}**<br>{row.load}"


def _line(row: Row, who: str, *, first: bool) -> str:
    seconds, share = row.median(who), row.shares[who]
    gigabytes = row.bytes / 1e9
    peak = max(one.peak for one in row.rounds[who])
    requests = row.rounds[who][0].requests
    each = f"{requests / row.sessions:.1f} a session" if row.sessions > 1 else f"{requests}"
    cells = [
        _title(row) if first else "",
        who.replace("|", "\\|")
        + (", the ceiling" if who == row.ceiling else "")
        + (f" (1/{1 / share:.0f} of it, scaled)" if share < 1 else ""),
        f"{seconds:,.2f}",
        f"{row.bytes / 1e6 / seconds:,.0f}" if row.bytes else "",
        f"{row.files / seconds:,.0f}" if row.files > 1 else "",
        f"{row.median(who, 'cpu_s') / gigabytes:.1f}" if gigabytes >= 0.01 else "",
        f"{peak / 1e6:.0f}" if peak else "",
        each if requests else "",
        _against(row, who),
    ]
    return f"| {' | '.join(cells)} |"


def _against(row: Row, who: str) -> str:
    if who == "xnatctl" or "xnatctl" not in row.rounds:
        return ""
    what, goal = row.goals.get(who, ("seconds", 0.0))
    ratio = row.ratio("xnatctl", who, what)
    text = _number(ratio) + (" (CPU)" if what == "cpu_s" else "")
    return f"**{text}**, goal {goal:g}{'' if ratio >= goal else ': missed'}" if goal else text


def _number(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"


def ratios(rows: Iterable[Row]) -> str:
    """An SVG: how many times faster ours was than each contender, on a scale of powers of ten."""
    bars = []
    for row in rows:
        for who in row.rounds:
            if not who.startswith("xnatctl,") and who != "xnatctl" and "xnatctl" in row.rounds:
                what, goal = row.goals.get(who, ("seconds", 0.0))
                unit = ", CPU" if what == "cpu_s" else ""
                bars.append((f"{row.name}: {who}{unit}", row.ratio("xnatctl", who, what), goal))
    low = min([0.1, *(ratio for _, ratio, _ in bars)])
    high = max([10.0, *(max(ratio, goal) for _, ratio, goal in bars)])
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))

    def at(value: float) -> float:
        return 380 + 340 * (math.log10(value) - first) / (last - first)

    body = [_text(at(10.0**n), 34, _power(n), anchor="middle") for n in range(first, last + 1)]
    for n in range(first, last + 1):
        color = "#555" if n == 0 else "#ddd"
        x, bottom = at(10.0**n), 44 + 20 * len(bars)
        body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="40" y2="{bottom}" stroke="{color}"/>')
    for number, (name, ratio, goal) in enumerate(bars):
        y = 44 + 20 * number
        start, end = sorted((at(1.0), at(ratio)))
        color = OURS if ratio >= 1 else OTHERS
        body += [
            _text(372, y + 12, name, anchor="end"),
            f'<rect x="{start:.1f}" y="{y + 2}" width="{end - start:.1f}" height="13" '
            f'fill="{color}"/>',
            _text(max(end, at(1.0)) + 6, y + 12, _number(ratio)),
        ]
        if goal:
            x = at(goal)
            body.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 17}" stroke="{GOAL}" '
                'stroke-width="2"/>'
            )
    title = "Times as fast as each other program (1: the same; red: the goal)"
    return _svg(780, 60 + 20 * len(bars), title, body)


def costs(rows: Iterable[Row]) -> str:
    """An SVG: CPU seconds a GB of every contender, in rows that move enough to say so."""
    bars: list[tuple[str, str, float]] = []
    for row in rows:
        if row.bytes >= 100_000_000 and row.files < 5000:
            for who in row.rounds:
                bars.append((row.name, who, row.median(who, "cpu_s") / (row.bytes / 1e9)))
    widest = max([1.0, *(cost for _, _, cost in bars)])
    body, above = [], ""
    for number, (name, who, cost) in enumerate(bars):
        y = 36 + 20 * number
        if name != above:
            body.append(_text(8, y + 12, name))
        above = name
        color = OURS if who == "xnatctl" else OTHERS
        body += [
            _text(372, y + 12, who, anchor="end"),
            f'<rect x="380" y="{y + 2}" width="{340 * cost / widest:.1f}" height="13" '
            f'fill="{color}"/>',
            _text(386 + 340 * cost / widest, y + 12, f"{cost:.1f}"),
        ]
    return _svg(780, 52 + 20 * len(bars), "CPU seconds a GB, start of the program included", body)


def _power(n: int) -> str:
    return f"{10**n:,}" if n >= 0 else f"{10.0**n:g}"


def _text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(width: int, height: int, title: str, body: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11" role="img">'
    )
    paper = f'<rect width="{width}" height="{height}" fill="white"/>'
    heading = f'<text x="8" y="18" font-size="13" font-weight="bold">{escape(title)}</text>'
    return "\n".join([head, f"<title>{escape(title)}</title>", paper, heading, *body, "</svg>\n"])


def read(paths: Iterable[Path]) -> tuple[list[dict[str, Any]], list[Row]]:
    """The machines that results come from, and their rows, the last of each name.

    A row that the last run does not have says which run it comes from.
    """
    machines, rows = [], {}
    *_, last = paths = list(paths)
    for path in paths:
        found = json.loads(path.read_text())
        machines.append(found["machine"])
        when, load = (found["machine"][key] for key in ("date", "load when it began"))
        for one in found["rows"]:
            one.pop("key")
            one["rounds"] = {
                who: [Measured(**round_) for round_ in rounds]
                for who, rounds in one["rounds"].items()
            }
            one["goals"] = {who: tuple(goal) for who, goal in one["goals"].items()}
            if path != last:
                one["notes"].append(f"from a run of its own, {when}, where the load was {load}")
            rows[one["name"]] = Row(**one)
    return machines, list(rows.values())


def goals(rows: Iterable[Row]) -> Iterator[str]:
    """A line for each goal: reached or missed, by how much."""
    yield "| goal | to reach | measured | |"
    yield "|---|--:|--:|---|"
    for row in rows:
        for who, (what, goal) in row.goals.items():
            if who in row.rounds and "xnatctl" in row.rounds:
                ratio = row.ratio("xnatctl", who, what)
                unit = "in CPU" if what == "cpu_s" else "in time"
                words = f"{row.name}, against {who}, {unit}".replace("|", "\\|")
                verdict = "reached" if ratio >= goal else "missed"
                yield f"| {words} | {goal:g} | {_number(ratio)} | {verdict} |"


def write(page: Path, parts: dict[str, str]) -> None:
    """Put each part between its marks on the page."""
    text = page.read_text()
    for name, part in parts.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end {name} -->")
        if not start or not end:
            raise SystemExit(f"{page} has no marks of {name}")
        text = f"{before}{start}\n{part}\n\n{end}{after}"
    page.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args()
    machines, rows = read(chosen.results)
    known = "\n".join(f"- {key}: {value}" for key, value in machines[-1].items())
    parts = {
        "machine": known,
        "goals": "\n".join(goals(rows)),
        "plots": PLOTS,
        "table": table(rows),
    }
    write(chosen.page, parts)
    for name, drawing in (("ratios", ratios(rows)), ("cpu", costs(rows))):
        (chosen.page.parent / f"performance-{name}.svg").write_text(drawing)
    print(f"{chosen.page}: {len(rows)} rows")


if __name__ == "__main__":
    main()
