"""The account of a run: totals as units end, and the report with its exit code at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Set as AbstractSet
from dataclasses import asdict, replace
from typing import Any

from .types import Left, Remark, Report, UnitOutcome

MISMATCH_EXIT = 8
MOST_PROBLEMS = 1000
"""A report names this many failed units, left things and remarks."""


class Account:
    """Adds up what became of units. Its size depends on the failures, not on the units."""

    def __init__(self, run_id: str, verb: str, source: str, sink: str, dry_run: bool) -> None:
        self._head = (run_id, verb, source, sink)
        self._dry_run = dry_run
        self._started = time.time()
        self._clock = time.monotonic()
        self._kinds: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._verified: dict[str, int] = defaultdict(int)
        self._problems: list[UnitOutcome] = []
        self._left: list[Left] = []
        self._remarks: list[Remark] = []
        self._codes: set[str] = set()
        self._mismatched = False
        self._retries = 0

    def add(self, outcome: UnitOutcome) -> None:
        kind = self._kinds[outcome.kind]
        kind[outcome.became] += 1
        kind["files"] += outcome.files
        kind["bytes"] += outcome.bytes
        kind["files_kept"] += outcome.files_kept
        kind["bytes_kept"] += outcome.bytes_kept
        for one in outcome.outcomes:
            if one.verified:
                self._verified[one.verified] += one.files
            self._retries += max(0, one.attempts - 1)
        self._codes.update(left.code for left in outcome.left)
        for left in outcome.left[: MOST_PROBLEMS - len(self._left)]:
            self._left.append(replace(left, unit=outcome.label))
        for note in outcome.notes[: MOST_PROBLEMS - len(self._remarks)]:
            self._remarks.append(Remark(outcome.key, outcome.label, note))
        if outcome.became == "failed":
            self._mismatched |= bool(outcome.mismatches) or outcome.error_kind == "corrupt"
            if len(self._problems) < MOST_PROBLEMS:
                self._problems.append(outcome)

    def total(self, what: str) -> int:
        return sum(kind[what] for kind in self._kinds.values())

    def report(self, *, interrupted: str, code: int, accept: AbstractSet[str] | None) -> Report:
        """The report as things stand. `accept` names reasons for being left behind that are fine.

        With None whatever was left is fine. An interruption comes before a mismatch, that before
        failures.
        """
        unaccepted = accept is not None and bool(self._codes - accept)
        if code in (0, 1) and self._mismatched:
            code = MISMATCH_EXIT
        if not code and (self.total("failed") or unaccepted or interrupted):
            code = 1
        run_id, verb, source, sink = self._head
        return Report(
            run_id=run_id,
            verb=verb,
            source=source,
            sink=sink,
            started=self._started,
            seconds=time.monotonic() - self._clock,
            units_done=self.total("copied"),
            units_kept=self.total("kept"),
            units_failed=self.total("failed"),
            files=self.total("files"),
            bytes=self.total("bytes"),
            files_kept=self.total("files_kept"),
            bytes_kept=self.total("bytes_kept"),
            retries=self._retries,
            verified=dict(self._verified),
            by_kind={kind: dict(counts) for kind, counts in self._kinds.items()},
            problems=tuple(self._problems),
            left=tuple(self._left),
            remarks=tuple(self._remarks),
            interrupted=interrupted,
            dry_run=self._dry_run,
            exit_code=code,
        )


def summary(report: Report) -> dict[str, Any]:
    """The report as plain data for the state store: totals, the first problems, what was left."""
    return {
        "files": report.files,
        "bytes": report.bytes,
        "files_kept": report.files_kept,
        "bytes_kept": report.bytes_kept,
        "seconds": round(report.seconds, 3),
        "retries": report.retries,
        "verified": dict(report.verified),
        "by_kind": {kind: dict(counts) for kind, counts in report.by_kind.items()},
        "problems": [
            {
                "key": one.key,
                "error": one.error,
                "kind": one.error_kind,
                "items": [
                    {"key": item.key, "error": item.error}
                    for item in one.outcomes
                    if item.became == "failed"
                ][:20],
                "mismatches": [{"key": m.key, "problem": m.problem} for m in one.mismatches][:20],
            }
            for one in report.problems[:100]
        ],
        "left": [_left(one) for one in report.left[:MOST_PROBLEMS]],
        "gone": [_left(one) for one in report.gone[:MOST_PROBLEMS]],
        "remarks": [asdict(one) for one in report.remarks],
        "interrupted": report.interrupted,
        "exit_code": report.exit_code,
    }


def _left(one: Left) -> dict[str, str]:
    row = {"key": one.key, "code": one.code, "reason": one.reason}
    return {**row, "unit": one.unit} if one.unit else row
