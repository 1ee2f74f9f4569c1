"""The account of a run: totals, and which exit code wins when several apply."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xnatctl.engine.report import MOST_PROBLEMS, Account, summary
from xnatctl.engine.types import Left, Mismatch, Outcome, Report, UnitOutcome
from xnatctl.ui.report import imported

COPIED = UnitOutcome("u1", "session", "S1", "copied", files=3, bytes=30, files_kept=1)
KEPT = UnitOutcome("u2", "session", "S2", "kept", files_kept=4, bytes_kept=40)
FAILED = UnitOutcome("u3", "subject", "S3", "failed", error="it broke", error_kind="server-fault")
MISMATCHED = UnitOutcome(
    "u4", "session", "S4", "failed", mismatches=(Mismatch("k", "missing"),), error_kind="mismatch"
)
CORRUPT = UnitOutcome("u5", "session", "S5", "failed", error="cut", error_kind="corrupt")
LEFT = UnitOutcome("u6", "session", "S6", "left", left=(Left("u6", "vanished", "it is gone"),))
PART_LEFT = UnitOutcome("u7", "session", "S7", "copied", left=(Left("k", "unsafe-name", "odd"),))


def report(
    *outcomes: UnitOutcome,
    interrupted: str = "",
    code: int = 0,
    accept: frozenset[str] | None = frozenset(),
    dry_run: bool = False,
) -> Report:
    account = Account("r1", "transfer", "a", "b", dry_run)
    for one in outcomes:
        account.add(one)
    return account.report(interrupted=interrupted, code=code, accept=accept)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((), 0),
        ((COPIED, KEPT), 0),
        ((COPIED, FAILED), 1),
        ((COPIED, MISMATCHED), 8),
        ((CORRUPT,), 8),
        ((FAILED, MISMATCHED, COPIED), 8),
        ((LEFT,), 1),
        ((PART_LEFT,), 1),
        ((LEFT, MISMATCHED), 8),
    ],
)
def test_a_mismatch_comes_before_a_failure(outcomes: tuple[UnitOutcome, ...], code: int) -> None:
    assert report(*outcomes).exit_code == code


@pytest.mark.parametrize("signal", [130, 143])
@pytest.mark.parametrize("outcomes", [(), (FAILED,), (MISMATCHED,), (LEFT,)])
def test_a_signal_comes_before_everything(outcomes: tuple[UnitOutcome, ...], signal: int) -> None:
    assert report(*outcomes, interrupted="Ctrl-C", code=signal).exit_code == signal


def test_a_mismatch_comes_before_a_stop_for_too_many_failures() -> None:
    assert report(FAILED, interrupted="1 unit failed", code=1).exit_code == 1
    assert report(FAILED, MISMATCHED, interrupted="2 units failed", code=1).exit_code == 8


def test_an_interruption_without_a_code_is_a_failure() -> None:
    assert report(COPIED, interrupted="something").exit_code == 1


@pytest.mark.parametrize(
    ("accept", "code"),
    [
        (frozenset(), 1),
        (frozenset({"vanished"}), 1),
        (frozenset({"vanished", "unsafe-name"}), 0),
        (frozenset({"vanished", "unsafe-name", "shared-in"}), 0),
        (None, 0),
    ],
)
def test_what_was_left_behind_fails_a_run_unless_its_reason_is_accepted(
    accept: frozenset[str] | None, code: int
) -> None:
    assert report(LEFT, PART_LEFT, accept=accept).exit_code == code


def test_totals_are_counted_by_kind() -> None:
    made = report(COPIED, KEPT, FAILED, COPIED)

    assert (made.units_done, made.units_kept, made.units_failed) == (2, 1, 1)
    assert (made.files, made.bytes, made.files_kept, made.bytes_kept) == (6, 60, 6, 40)
    assert made.by_kind["session"]["copied"] == 2
    assert made.by_kind["subject"]["failed"] == 1
    assert not made.success


def test_retries_and_levels_of_proof_are_summed_over_items() -> None:
    outcomes = (
        Outcome("a", "copied", files=3, attempts=1, verified="digest"),
        Outcome("b", "copied", files=2, attempts=4, verified="size"),
        Outcome("c", "failed", files=1, attempts=3),
    )

    made = report(UnitOutcome("u", "session", "S", "failed", outcomes=outcomes))

    assert made.retries == 5
    assert made.verified == {"digest": 3, "size": 2}


def test_a_report_stays_small_whatever_fails() -> None:
    left = tuple(Left(f"k{number}", "unsafe-name", "odd") for number in range(700))
    many = [UnitOutcome(f"u{n}", "session", "S", "failed", left=left) for n in range(1500)]

    made = report(*many)

    assert made.units_failed == 1500
    assert (len(made.problems), len(made.left)) == (MOST_PROBLEMS, MOST_PROBLEMS)


def test_a_reason_counts_even_when_the_report_is_full() -> None:
    known = tuple(Left(f"k{number}", "vanished", "gone") for number in range(MOST_PROBLEMS))
    full = UnitOutcome("u", "session", "S", "left", left=known)

    assert report(full, PART_LEFT, accept=frozenset({"vanished"})).exit_code == 1


def test_the_summary_names_what_failed_and_what_was_left() -> None:
    failed = UnitOutcome(
        "u",
        "session",
        "S",
        "failed",
        outcomes=(Outcome("a", "failed", error="cut"), Outcome("b", "copied")),
        mismatches=(Mismatch("c", "missing"),),
        error="2 failed",
        error_kind="mismatch",
    )

    data = summary(report(failed, LEFT, COPIED))

    (problem,) = data["problems"]
    assert problem["items"] == [{"key": "a", "error": "cut"}]
    assert problem["mismatches"] == [{"key": "c", "problem": "missing"}]
    (left,) = data["left"]
    assert left == {"key": "u6", "code": "vanished", "reason": "it is gone", "unit": "S6"}
    assert (data["files"], data["exit_code"]) == (3, 8)


@pytest.mark.parametrize(
    ("verb", "verified", "said"),
    [
        ("transfer", {"count": 2, "digest": 1}, "2 DICOM objects were imported"),
        ("transfer", {"count": 1}, "1 DICOM object was imported"),
        ("transfer", {"digest": 3}, ""),
        ("download", {"count": 2}, ""),
    ],
)
def test_what_an_import_changed_is_said(verb: str, verified: dict[str, int], said: str) -> None:
    assert imported(verb, verified).partition(":")[0] == said


def test_what_is_worth_knowing_of_a_unit_stands_in_the_report_and_fails_nothing() -> None:
    noted = replace(COPIED, notes=("scan 4.2 goes by copy", "and more"))

    found = report(noted, KEPT)

    assert found.exit_code == 0
    assert [one.text for one in found.remarks] == ["scan 4.2 goes by copy", "and more"]
    assert summary(found)["remarks"][0] == {
        "key": "u1",
        "label": "S1",
        "text": "scan 4.2 goes by copy",
    }
