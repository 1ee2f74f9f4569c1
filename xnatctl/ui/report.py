"""The end of a run: its totals as a table for people and as one JSON object for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from xnatctl.engine.types import Left, Outcome, Report, UnitOutcome

from .console import Column, Console
from .render import cell, count, size, span

# How many problems and left-over things the terminal shows; JSON has all of them.
SHOWN = 20
FIGURES = (
    ("copied", "Copied"),
    ("kept", "Unchanged"),
    ("left", "Left behind"),
    ("failed", "Failed"),
    ("files", "Files"),
    ("bytes", "Size"),
    ("files_kept", "Files unchanged"),
)
KINDS = ("project", "subject", "session", "experiment", "resource")


def to_json(report: Report) -> dict[str, Any]:
    """The run as one object. Sizes are bytes, times seconds, `started` is since the epoch."""
    return {
        "run_id": report.run_id,
        "verb": report.verb,
        "source": report.source,
        "sink": report.sink,
        "success": report.success,
        "exit_code": report.exit_code,
        "dry_run": report.dry_run,
        "interrupted": report.interrupted,
        "started": round(report.started, 3),
        "duration_s": round(report.seconds, 3),
        "units_done": report.units_done,
        "units_kept": report.units_kept,
        "units_failed": report.units_failed,
        "files": report.files,
        "bytes": report.bytes,
        "files_kept": report.files_kept,
        "bytes_kept": report.bytes_kept,
        "retries": report.retries,
        "verified": dict(report.verified),
        "by_kind": {kind: dict(figures) for kind, figures in report.by_kind.items()},
        "problems": [unit_json(one) for one in report.problems],
        "left": [left_json(one) for one in report.left],
        "gone": [left_json(one) for one in report.gone],
        "remarks": [asdict(one) for one in report.remarks],
    }


def transfer_json(
    report: Report, *, source: str, destination: str, source_project: str, dest_project: str
) -> dict[str, Any]:
    """The summary of `project transfer`: the keys of 0.6.0 first, then those of every run."""
    subjects = report.by_kind.get("subject", {})
    sessions = _together(report.by_kind, ("session", "experiment"))
    summary: dict[str, Any] = {
        "source": source,
        "destination": destination,
        "source_project": source_project,
        "dest_project": dest_project,
        "subjects_synced": subjects.get("copied", 0),
        "subjects_failed": subjects.get("failed", 0),
        "subjects_skipped": subjects.get("kept", 0),
        "experiments_synced": sessions.get("copied", 0),
        "success": report.success,
        "dry_run": report.dry_run,
    }
    if errors := [sentence(one) for one in report.problems]:
        summary["errors"] = errors
    for key, value in to_json(report).items():
        summary.setdefault(key, value)
    summary["experiments_failed"] = sessions.get("failed", 0)
    summary["experiments_skipped"] = sessions.get("kept", 0)
    return summary


def unit_json(one: UnitOutcome) -> dict[str, Any]:
    return {
        "unit": one.key,
        "kind": one.kind,
        "label": one.label,
        "became": one.became,
        "files": one.files,
        "bytes": one.bytes,
        "files_kept": one.files_kept,
        "duration_s": round(one.seconds, 3),
        "bytes_kept": one.bytes_kept,
        "error": one.error,
        "error_kind": one.error_kind,
        "hint": one.hint,
        "failed": [outcome_json(item) for item in one.outcomes if item.became == "failed"],
        "left": [left_json(left) for left in one.left],
        "mismatches": [{"key": bad.key, "problem": bad.problem} for bad in one.mismatches],
        "notes": list(one.notes),
    }


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "item": outcome.key,
        "became": outcome.became,
        "files": outcome.files,
        "bytes": outcome.bytes,
        "attempts": outcome.attempts,
        "duration_s": round(outcome.seconds, 3),
        "verified": outcome.verified,
        "error": outcome.error,
        "error_kind": outcome.error_kind,
    }


def left_json(left: Left) -> dict[str, str]:
    row = {"key": left.key, "code": left.code, "reason": left.reason}
    return {"unit": left.unit, **row} if left.unit else row


def left_sentence(left: Mapping[str, str]) -> str:
    """What was left behind, of which session, and why. Older reports do not name the session."""
    unit, key = left.get("unit", ""), left["key"]
    place = key if not unit or key.endswith(unit) else f"{key} of {unit}"
    return f"left behind: {place} ({left['code']}): {left['reason']}"


def sentence(one: UnitOutcome) -> str:
    """A failed unit in one line: its own error, else what the last listing found."""
    name = f"{one.kind} {one.label or one.key}"
    if one.error:
        return f"{name}: {one.error}"
    if one.mismatches:
        first = one.mismatches[0]
        more = f" (and {len(one.mismatches) - 1} more)" if len(one.mismatches) > 1 else ""
        return f"{name}: {first.key}: {first.problem}{more}"
    failed = [item for item in one.outcomes if item.became == "failed"]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"{name}: {failed[0].key}: {failed[0].error}{more}"
    return f"{name}: {one.became}"


def print_report(report: Report, console: Console) -> None:
    """The table by kind on stdout; what failed, what was left behind and the totals on stderr.

    With `-q` only what failed is printed.
    """
    if report.by_kind and not console.quiet:
        console.rows(kind_rows(report), kind_columns(report), key="kind")
    for one in report.problems[:SHOWN]:
        console.fail(sentence(one), hint=one.hint)
    _more(console, len(report.problems), "problem")
    if not console.quiet:
        for left in report.left[:SHOWN]:
            console.warn(left_sentence(left_json(left)))
        _more(console, len(report.left), "thing", "left behind")
        for lost in report.gone[:SHOWN]:
            console.say(gone_sentence(lost.key, lost.code, lost.reason))
        _more(console, len(report.gone), "thing", "gone at the source")
        for remark in report.remarks[:SHOWN]:
            console.say(f"{remark.label or remark.key}: {remark.text}")
        _more(console, len(report.remarks), "remark")
        if changed := imported(report.verb, report.verified):
            console.say(changed)
    console.say(totals(report))
    console.say(f"run {report.run_id}")


def imported(verb: str, verified: Mapping[str, int]) -> str:
    """What an import changed: only what went through one is proven by counting objects."""
    number = verified.get("count", 0) if verb == "transfer" else 0
    if not number:
        return ""
    objects = f"{count(number, 'DICOM object')} {'was' if number == 1 else 'were'} imported"
    return f"{objects}: names and file headers are the destination's (--dicom copy keeps them)"


def gone_sentence(key: str, code: str, reason: str) -> str:
    """`gone at the source, deleted: subjects/S1/sessions/E1`, with the reason why it stays."""
    return f"gone at the source, {code}: {key}" + (f": {reason}" if reason else "")


def _more(console: Console, number: int, noun: str, words: str = "") -> None:
    if number > SHOWN:
        rest = f"{count(number - SHOWN, f'more {noun}')} {words}".rstrip()
        console.say(f"… {rest}; -o json names all of them")


def totals(report: Report) -> str:
    """`12 files, 3.4 MiB in 2.1 s (1.6 MiB/s); 40 files were there already; 2 retries`."""
    verb = "to move" if report.dry_run else "moved"
    parts = [
        f"{count(report.files, 'file')} {verb}, {size(report.bytes)} in {span(report.seconds)}"
    ]
    if report.bytes and report.seconds > 0 and not report.dry_run:
        parts[0] += f" ({size(report.bytes / report.seconds)}/s)"
    if report.files_kept:
        were = "was" if report.files_kept == 1 else "were"
        parts.append(f"{count(report.files_kept, 'file')} {were} there already")
    if proven := sum(report.verified.values()):
        parts.append(f"{count(proven, 'file')} verified")
    if report.retries:
        parts.append(count(report.retries, "retry", "retries"))
    if report.units_failed:
        parts.append(f"{report.units_failed} failed")
    if report.interrupted:
        # What stopped it was said above, unless it came from outside.
        is_signal = report.exit_code in (130, 143)
        parts.append(f"interrupted ({report.interrupted})" if is_signal else "stopped early")
    return "; ".join(parts)


def kind_rows(report: Report) -> list[dict[str, Any]]:
    """A row a kind, in the order of XNAT's hierarchy."""
    known = {kind: at for at, kind in enumerate(KINDS)}
    order = sorted(report.by_kind, key=lambda kind: known.get(kind, len(KINDS)))
    keys = [key for key, _ in FIGURES] + ["bytes_kept"]
    return [
        {"kind": kind} | {key: report.by_kind[kind].get(key, 0) for key in keys} for kind in order
    ]


def kind_columns(report: Report) -> list[Column]:
    """The columns that have something to say; units that were left stand alone in a dry run."""
    rows = kind_rows(report)
    columns = [Column("kind")]
    for key, title in FIGURES:
        if key in ("left", "failed", "files_kept") and not any(row[key] for row in rows):
            continue
        if key == "left" and report.dry_run:
            title = "To copy"
        columns.append(Column(key, title, right=True, show=size if key == "bytes" else cell))
    return columns


def _together(by_kind: Mapping[str, Mapping[str, int]], kinds: tuple[str, ...]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for kind in kinds:
        for key, number in by_kind.get(kind, {}).items():
            sums[key] = sums.get(key, 0) + number
    return sums
