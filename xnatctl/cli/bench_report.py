"""What a benchmark found, as a table, a document, a page; and two results side by side."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xnatctl._version import __version__
from xnatctl.bench.result import COMPARED, compared, differences, document
from xnatctl.config import Server
from xnatctl.errors import LocalFault
from xnatctl.ui.console import Column
from xnatctl.ui.render import size, size_cell
from xnatctl.xnat.client import Xnat

from .app import App
from .bench_sweep import Sweep


def plan_only(app: App, sweep: Sweep, what: str) -> int:
    """What would be tried, and nothing done."""
    plan = sweep.plan
    rows = [
        {"size": one, "concurrency": at_once} for one in plan.sizes for at_once in plan.concurrency
    ]
    columns = [Column("size", right=True, show=_file_size), Column("concurrency", right=True)]
    app.console.rows(rows, columns, key="size")
    app.console.say(f"would {what}: {plan.duration:g} s, at most {size(plan.max_bytes)}")
    return 0


async def side(server: Server, xnat: Xnat) -> dict[str, Any]:
    """One end, for the document."""
    return {"profile": server.name, "url": server.url, "version": await xnat.version()}


def finish(
    app: App,
    sweep: Sweep,
    server: Server,
    *,
    html: Path | None,
    source: Mapping[str, Any] | None = None,
    destination: Mapping[str, Any] | None = None,
    project: str = "",
) -> int:
    """Show what was found, write the page, and return the exit code."""
    findings, plan = sweep.findings, sweep.plan
    advice = findings.advice
    command = ""
    if advice is not None:
        known = server.profile is not None and server.profile.name in app.config.profiles
        command = f"xnatctl bench apply {advice.workers} -p {server.name}" if known else ""
    data = document(
        findings,
        xnatctl=__version__,
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        source=source,
        destination=destination,
        project=project,
        settings={
            "sizes": list(plan.sizes),
            "concurrency": list(plan.concurrency),
            "duration_s": plan.duration,
            "max_bytes": plan.max_bytes,
        },
        machine={
            "name": platform.node(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "xnatctl": __version__,
        },
        cleanup={"removed": sweep.removed, "left": sweep.left},
    )
    if data["recommended"] is not None:
        data["recommended"]["command"] = command
    if html is not None:
        _write_page(app, data, html)
    if app.console.is_machine:
        app.console.document(data)
    else:
        _print(app, data)
    failed = sweep.left or not any(one.is_clean for one in findings.all_steps)
    return 1 if failed else 0


def _write_page(app: App, data: Mapping[str, Any], path: Path) -> None:
    from xnatctl.bench.page import to_html

    try:
        path.write_text(to_html(data, size=size), "utf-8")
    except OSError as error:
        raise LocalFault(f"{path} cannot be written", why=error.strerror or "") from error
    app.console.say(f"page: {path}")


def _print(app: App, data: Mapping[str, Any]) -> None:
    console, rows = app.console, data["rows"]
    wait, title = ("answer", "answer") if data["verb"] == "upload" else ("first_byte", "first byte")
    columns = [Column("size", right=True, show=_file_size)]
    columns += [Column("concurrency", "At once", right=True)]
    if data["verb"] == "api":
        columns = columns[1:]
        columns += [Column("requests_per_s", "Requests/s", right=True, show=_figure)]
    columns += [Column("bytes_per_s", "Speed/s", right=True, show=_size)]
    if data["verb"] != "api":
        columns += [Column("files_per_s", "Files/s", right=True, show=_figure)]
    for part in ("p50", "p95", "p99"):
        columns += [Column(f"{wait}_{part}_s", part, right=True, show=_ms)]
    columns += [
        Column("cpu_s_per_gb", "CPU s/GB", right=True, show=_figure),
        Column("bad", "Bad", right=True),
    ]
    if console.format != "table":
        console.rows(rows, [Column(name) for name in (rows[0] if rows else ("size",))])
    else:
        console.table([{**row, "bad": row["refused"] + row["errors"]} for row in rows], columns)
    peak = max((row["peak_memory_bytes"] for row in rows), default=0)
    console.say(
        f"p50, p95, p99: milliseconds until the {title}; bad: refused or failed; "
        f"memory at its peak {size(peak)}"
    )
    for one in data["limits"]:
        of = f" for {_file_size(one['size'])}" if one["size"] else ""
        console.say(f"limit{of}: {one['where']}: {one['why']}")
    if data["recommended"] is not None:
        one = data["recommended"]
        how = one["command"] or f"add -w {one['workers']} to a command"
        console.say(f"recommended: workers {one['workers']} ({one['why']})")
        console.say(f"to set it: {how}")
    for place in data["cleanup"]["removed"]:
        console.say(f"removed: {place}")


def show_comparison(app: App, old: Mapping[str, Any], new: Mapping[str, Any]) -> int:
    """Ratios row by row, and what else differs."""
    rows, others = compared(old, new), differences(old, new)
    if app.console.is_machine:
        app.console.document({"rows": rows, "differences": others})
        return 0
    titles = ("Speed", "Requests", "First byte p50", "First byte p95", "CPU/GB")
    columns = [Column("size", right=True, show=_file_size)]
    columns += [Column("concurrency", "At once", right=True)]
    columns += [
        Column(name, title, right=True, show=_ratio)
        for name, title in zip(COMPARED, titles, strict=True)
    ]
    app.console.rows(rows, columns, key="concurrency")
    app.console.say("figures of the second divided by those of the first")
    for one in others:
        app.console.say(f"differs: {one}")
    return 0


def _file_size(value: object) -> str:
    return size_cell(value) if value else "mixed"


def _size(value: object) -> str:
    return size(float(str(value)))


def _figure(value: object) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _ms(value: object) -> str:
    return _figure(value * 1000) if isinstance(value, int | float) else "-"


def _ratio(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "-"
