"""Results of benchmarks as JSON documents, and two of them compared row by row. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xnatctl.errors import ConfigError

from .sweep import Advice, Step, Verb, advise, limit_of

KIND, VERSION = "xnatctl-bench", 1
COMPARED = ("bytes_per_s", "requests_per_s", "first_byte_p50_s", "first_byte_p95_s", "cpu_s_per_gb")


@dataclass(slots=True)
class Findings:
    """What a sweep has found so far: steps by file size, and remarks."""

    verb: Verb
    steps: dict[int, list[Step]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    interrupted: str = ""

    @property
    def advice(self) -> Advice | None:
        return advise(self.steps)

    @property
    def all_steps(self) -> list[Step]:
        return [one for steps in self.steps.values() for one in steps]


def document(findings: Findings, **about: Any) -> dict[str, Any]:
    """The result; `about` has what was measured, how, and on which machine."""
    advice = findings.advice
    return {
        "kind": KIND,
        "version": VERSION,
        "verb": findings.verb,
        **about,
        "rows": [row_of(one) for one in findings.all_steps],
        "limits": [
            {"size": size, **asdict(limit_of(steps))} for size, steps in findings.steps.items()
        ],
        "recommended": asdict(advice) if advice else None,
        "notes": findings.notes,
        "interrupted": findings.interrupted,
    }


def row_of(step: Step) -> dict[str, Any]:
    """One setting. Times in seconds, sizes in bytes; None for what was not seen."""
    seconds = max(step.seconds, 1e-9)
    row: dict[str, Any] = {
        "size": step.size,
        "concurrency": step.concurrency,
        "seconds": step.seconds,
        "requests": step.requests,
        "files": step.files,
        "bytes": step.bytes,
        "bytes_per_s": step.bytes / seconds,
        "files_per_s": step.files / seconds,
        "requests_per_s": step.requests / seconds,
    }
    for name, seen in (
        ("first_byte", step.first_byte_s),
        ("answer", step.answer_s),
        ("request", step.request_s),
    ):
        for part in ("p50", "p95", "p99"):
            row[f"{name}_{part}_s"] = getattr(seen, part) if seen else None
    for part in ("p50", "p95", "p99"):
        speeds = step.request_bytes_per_s
        row[f"request_bytes_per_s_{part}"] = getattr(speeds, part) if speeds else None
    return row | {
        "refused": step.refused,
        "errors": step.errors,
        "fault": step.fault,
        "cpu_s": step.cpu_s,
        "cpu_s_per_gb": step.cpu_s_per_gb,
        "cpu_share": step.cpu_share,
        "machine_busy": step.machine_busy,
        "source_wait_s": step.source_wait_s,
        "sink_wait_s": step.sink_wait_s,
        "peak_memory_bytes": step.peak_memory,
    }


def load(path: Path) -> dict[str, Any]:
    """A result out of a file. Raises ConfigError for what is none."""
    hint = "xnatctl bench download -o json > A.json writes one"
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", why=error.strerror or "", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON", why=str(error), hint=hint) from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise ConfigError(f"{path} is no result of a benchmark", hint=hint)
    if found.get("version") != VERSION:
        raise ConfigError(
            f"{path} is a result of version {found.get('version')}",
            why=f"this program reads version {VERSION}",
            hint="update xnatctl, or measure again",
        )
    rows = found.get("rows")
    if not isinstance(rows, list) or not all(_is_row(one) for one in rows):
        raise ConfigError(f"{path} is a damaged result", why="its rows lack figures", hint=hint)
    return found


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(
        isinstance(row.get(name), int | float) for name in ("size", "concurrency", "bytes_per_s")
    )


def compared(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each setting that both have: figures of the second divided by those of the first.

    Raises ConfigError when they have none in common.
    """
    if old.get("verb") != new.get("verb"):
        raise ConfigError(
            f"the first is of {old.get('verb')}, the second of {new.get('verb')}",
            why="only results of the same verb can be compared",
        )
    before = {(row["size"], row["concurrency"]): row for row in old["rows"]}
    rows = [
        {"size": row["size"], "concurrency": row["concurrency"]}
        | {name: _ratio(before[at].get(name), row.get(name)) for name in COMPARED}
        for row in new["rows"]
        if (at := (row["size"], row["concurrency"])) in before
    ]
    if not rows:
        raise ConfigError(
            "the two results have no setting in common",
            hint="measure both with the same --size and --concurrency",
        )
    return rows


def _ratio(old: Any, new: Any) -> float | None:
    if not isinstance(old, int | float) or not isinstance(new, int | float) or not old:
        return None
    return new / old


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What else differs, so that a ratio may mean something else than it seems."""
    found = []
    for part in ("source", "destination", "settings", "machine"):
        left, right = (one.get(part) or {} for one in (old, new))
        if not isinstance(left, dict) or not isinstance(right, dict):
            continue
        for name in dict.fromkeys([*left, *right]):
            if left.get(name) != right.get(name):
                words = f"{part} {name}".replace("_", " ")
                found.append(f"{words}: {_shown(left.get(name))} / {_shown(right.get(name))}")
    settings = [{(row["size"], row["concurrency"]) for row in one["rows"]} for one in (old, new)]
    if alone := len(settings[0] ^ settings[1]):
        found.append(f"{alone} rows are in one of them only")
    return found


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
