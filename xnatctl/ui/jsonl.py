"""Events as JSON lines: one record an event, named as the event is; the last one is the summary.

Every record has `event` and `at` (seconds since the epoch). Documents and member lists stay out:
a line is for a reader that follows a run, the report holds the details.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

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

from .render import as_json_line
from .report import outcome_json, to_json, unit_json


def record(event: Event) -> dict[str, Any]:
    """The event as a record: shapes below, sizes in bytes, times in seconds."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    return {"event": name, "at": round(event.at, 3), **_fields(event)}


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case RunStarted():
            return {
                "run_id": event.run_id,
                "verb": event.verb,
                "source": event.source,
                "sink": event.sink,
            }
        case UnitPlanned(unit=unit):
            return {
                "unit": unit.key,
                "kind": unit.kind,
                "label": unit.label,
                "files": event.files,
                "bytes": event.bytes,
                "files_kept": event.files_kept,
            }
        case ItemStarted(item=item):
            return {
                "unit": event.unit,
                "item": item.key,
                "kind": item.kind,
                "files": item.files,
                "bytes": item.bytes,
                "attempt": event.attempt,
            }
        case BytesMoved():
            return {"unit": event.unit, "item": event.key, "bytes": event.bytes}
        case ItemRetried():
            return {
                "unit": event.unit,
                "item": event.key,
                "attempt": event.attempt,
                "error": event.error,
                "pause_s": round(event.pause, 3),
                "wasted_bytes": event.wasted,
            }
        case ItemDone():
            return {"unit": event.unit, **outcome_json(event.outcome)}
        case UnitDone():
            return unit_json(event.outcome)
        case Note():
            return {"level": event.level, "text": event.text}
        case RunDone():
            return to_json(event.report)
    return {}


class JsonLines:
    """An observer that hands each event to `write` as one line."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def __call__(self, event: Event) -> None:
        self._write(as_json_line(record(event)))
