"""A plan as people and programs read it: what would become of each unit, before anything is
done.
"""

from __future__ import annotations

from typing import Any

from xnatctl.engine.events import Event, UnitDone, UnitPlanned
from xnatctl.engine.types import Item, Report, Unit, Verdict

from .console import Column, Console
from .render import count, size, span
from .report import gone_sentence, left_json

COUNTED = (Verdict.COPY, Verdict.REPLACE, Verdict.KEEP, Verdict.CONFLICT)


class Planned:
    """An observer that keeps one row a unit. `signatures` are what a saved plan is checked by."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, UnitPlanned):
            self.rows.append(row_of(event.unit, event.signature))
        elif isinstance(event, UnitDone) and event.outcome.became == "failed":
            known = next((one for one in self.rows if one["unit"] == event.outcome.key), None)
            if known is None:
                unit = {"unit": event.outcome.key, "kind": event.outcome.kind}
                self.rows.append(unit | _empty() | {"problem": event.outcome.error})
            elif not known["problem"]:
                known["problem"] = event.outcome.error


def _empty() -> dict[str, Any]:
    return {"label": "", "copy": 0, "replace": 0, "keep": 0, "conflict": 0, "files": 0, "bytes": 0}


def row_of(unit: Unit, signature: str) -> dict[str, Any]:
    """Files by verdict; `files` and `bytes` are those that would move, `documents` metadata."""
    moving = unit.to_move
    return {
        "unit": unit.key,
        "kind": unit.kind,
        "label": unit.label,
        **{str(verdict): _files(unit.items, verdict) for verdict in COUNTED},
        "files": sum(item.files for item in moving),
        "bytes": sum(item.bytes for item in moving),
        "documents": sum(item.kind == "document" for item in moving),
        "left": [{"key": one.key, "code": one.code, "reason": one.reason} for one in unit.left],
        "notes": list(unit.notes),
        "problem": unit.conflict,
        "signature": signature,
    }


def _any(planned: Planned, name: str) -> bool:
    """Whether a column has something to say; without the others the table fits more terminals."""
    return any(row[name] for row in planned.rows)


def _files(items: tuple[Item, ...], verdict: Verdict) -> int:
    return sum(item.files for item in items if item.verdict is verdict)


def document(planned: Planned, report: Report, *, rate: float, **head: str) -> dict[str, Any]:
    """The plan as one object; its totals are those that the run will have.

    `rate` is bytes/s of an earlier run between the same ends, 0 where none is known; then `eta_s`
    is null.
    """
    rows = planned.rows
    total = sum(row["bytes"] for row in rows)
    return {
        **head,
        "files": sum(row["files"] for row in rows),
        "bytes": total,
        "files_kept": sum(row["keep"] for row in rows),
        "conflicts": sum(bool(row["problem"] or row["conflict"]) for row in rows),
        "eta_s": round(total / rate, 1) if rate else None,
        "exit_code": report.exit_code,
        "gone": [left_json(one) for one in report.gone],
        "units": rows,
    }


def print_plan(planned: Planned, plan: dict[str, Any], console: Console) -> None:
    """A row a unit on stdout, and the totals in one sentence."""
    columns = [
        Column("unit"),
        Column("copy", right=True),
        Column("replace", right=True),
        Column("keep", right=True),
        Column("conflict", right=True),
        Column("bytes", "Size", right=True, show=size),
        Column("problem"),
    ]
    seldom = [name for name in ("replace", "conflict", "problem") if not _any(planned, name)]
    columns = [one for one in columns if one.key not in seldom]
    console.rows(planned.rows, columns, key="unit")
    parts = [f"{count(plan['files'], 'file')} to move, {size(plan['bytes'])}"]
    if plan["eta_s"]:
        parts[0] += f", about {span(plan['eta_s'])} at the rate of the last run"
    parts.append(f"{count(plan['files_kept'], 'file')} there already")
    if plan["conflicts"]:
        parts.append(f"{plan['conflicts']} in conflict")
    for one in plan["gone"]:
        console.say(gone_sentence(one["key"], one["code"], one["reason"]))
    console.say("; ".join(parts))
