"""The table, and plots."""

from __future__ import annotations

from measure import Row


def table(rows: list[Row]) -> str:
    """The results in Markdown: rates, CPU and memory by contender, and how they compare."""
    lines = [
        "| row | contender | s | MB/s | files/s | CPU s/GB | peak MB | requests |"
        " xnatctl against it |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        for number, who in enumerate(row.rounds):
            lines.append(_line(row, who, first=not number))
        for who, why in row.skipped.items():
            lines.append(f"| | {who} | not measured: {why} |")
        for note in row.notes:
            lines.append(f"| | {note} |")
    return "\n".join(lines)


def _line(row: Row, who: str, *, first: bool) -> str:
    seconds, share = row.median(who), row.shares[who]
    gigabytes = row.bytes / 1e9
    peak = max(one.peak for one in row.rounds[who])
    requests = row.rounds[who][0].requests
    cells = [
        f"**{row.name}**<br>{row.load}" if first else "",
        who.replace("|", "\\|") + (f" (1/{1 / share:.0f} of it, scaled)" if share < 1 else ""),
        f"{seconds:,.2f}",
        f"{row.bytes / 1e6 / seconds:,.0f}" if row.bytes else "",
        f"{row.files / seconds:,.0f}" if row.files else "",
        f"{row.median(who, 'cpu_s') / gigabytes:.1f}" if gigabytes else "",
        f"{peak / 1e6:.0f}" if peak else "",
        f"{requests / row.sessions:.1f} a session"
        if requests and row.sessions
        else str(requests or ""),
        _against(row, who),
    ]
    return f"| {' | '.join(cells)} |"


def _against(row: Row, who: str) -> str:
    if who == "xnatctl" or "xnatctl" not in row.rounds:
        return ""
    what, goal = row.goals.get(who, ("seconds", 0.0))
    ratio = row.ratio("xnatctl", who, what)
    text = f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"
    text += " (CPU)" if what == "cpu_s" else ""
    if not goal:
        return text
    return f"**{text}** (goal {goal:g}{'' if ratio >= goal else ', missed'})"
