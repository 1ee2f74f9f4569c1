"""The account of a download: what scripts read as JSON, its keys those of 0.6.0.

`files` and `bytes` are all that is in place now, `files_moved` and `bytes_moved` what this run
brought. An item is a scan, a resource or the archive as a whole.
"""

from __future__ import annotations

from typing import Any

from xnatctl.engine.events import Event, ItemDone, UnitDone, UnitPlanned
from xnatctl.engine.types import Report, Unit

from .console import Console
from .report import SHOWN, left_json, sentence

MOST_NAMED = 1000


class Renamed:
    """An observer that gathers what could not have its own name on the disk: its session, its key,
    and its path below the folder that is written into.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, UnitPlanned):
            label = event.unit.label
            for key, path in event.unit.mapped.items():
                self.rows.append({"unit": label, "key": key, "path": path})

    def tell(self, console: Console) -> None:
        for row in self.rows[:SHOWN]:
            console.say(f"{row['key']} of {row['unit']} is {row['path']} on this disk")
        if len(self.rows) > SHOWN:
            console.say(f"… {len(self.rows) - SHOWN} more have other names; -o json names them")


class Watched:
    """An observer that gathers what the summary needs: a row an item, not one a file."""

    def __init__(self, *, within: bool = False) -> None:
        """`within` names items with their session, where there are several."""
        self._within = within
        self._labels: dict[str, str] = {}
        self.items: dict[str, dict[str, Any]] = {}
        self.unverifiable: list[str] = []
        self.mismatched: list[str] = []
        self.missing: list[str] = []
        self.files = 0
        self.bytes = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, UnitPlanned):
            self._plan(event.unit)
            self.files += event.files
            self.bytes += event.bytes
        elif isinstance(event, ItemDone) and event.outcome.became == "failed":
            row = self._row(event.unit, event.outcome.key)
            row |= {"status": "failed", "error": event.outcome.error}
        elif isinstance(event, UnitDone):
            for bad in event.outcome.mismatches:
                where = self.missing if bad.problem == "missing" else self.mismatched
                where.append(bad.key)
            for one in event.outcome.outcomes:
                if one.became == "failed":
                    self._row(event.outcome.key, one.key).update(status="failed", error=one.error)

    def _plan(self, unit: Unit) -> None:
        self._labels[unit.key] = unit.label
        for item in unit.items:
            if item.kind == "document":
                continue
            self._row(unit.key, item.key)
            listed = [(one.key, one.digest) for one in item.members] or [(item.key, item.digest)]
            room = MOST_NAMED - len(self.unverifiable)
            self.unverifiable += [key for key, digest in listed if not digest][:room]

    def _row(self, unit: str, key: str) -> dict[str, Any]:
        name = item_name(key)
        if self._within:
            name = f"{self._labels.get(unit, unit)}/{name}"
        return self.items.setdefault(name, {"id": name, "status": "success", "error": None})


def item_name(key: str) -> str:
    """The scan's ID, or `resource:LABEL` for what hangs elsewhere."""
    parts = key.split("/")
    if parts[0] == "scans":
        return parts[1]
    place = parts.index("resources") if "resources" in parts else -1
    return f"resource:{parts[place + 1]}" if place >= 0 else key


def summary(report: Report, watched: Watched, *, archive: str = "", **ids: str) -> dict[str, Any]:
    """The one JSON value of a download. With `archive` that file is the only item."""
    failed = bool(report.units_failed or report.interrupted or report.exit_code)
    here = report.files + report.files_kept
    status = ("partial" if here else "failed") if failed else "success"
    items = list(watched.items.values())
    if archive:
        error = sentence(report.problems[0]) if report.problems else None
        items = [{"id": archive, "status": "failed" if failed else "success", "error": error}]
    bad = len(watched.mismatched) + len(watched.missing)
    found = {
        "operation": "download",
        **ids,
        "source": report.source,
        "scans": sum("resource:" not in name for name in watched.items),
        "files": here,
        "bytes": report.bytes + report.bytes_kept,
        "duration_seconds": round(report.seconds, 3),
        "status": status,
        "items": items,
        "verification": {
            "matched": here - bad,
            "mismatched": watched.mismatched,
            "missing_local": watched.missing,
            "missing_remote": [],
            "unverifiable": watched.unverifiable,
            "collisions": [],
        },
        "skipped_unsafe_entries": [one.key for one in report.left if one.code == "unsafe-name"],
        "files_moved": report.files,
        "bytes_moved": report.bytes,
        "left": [left_json(one) for one in report.left],
        "errors": [sentence(one) for one in report.problems],
        "run_id": report.run_id,
        "dry_run": report.dry_run,
    }
    if report.dry_run:
        found |= {"files_to_move": watched.files, "bytes_to_move": watched.bytes}
        found["verification"] = None
    return found
