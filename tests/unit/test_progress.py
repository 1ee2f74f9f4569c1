"""The figures of a run, how they are shown, and the records that programs read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from xnatctl.engine.events import (
    Bus,
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
from xnatctl.engine.report import Account
from xnatctl.engine.types import Item, Left, Mismatch, Outcome, Report, Unit, UnitOutcome
from xnatctl.model import Ref
from xnatctl.ui.console import Console
from xnatctl.ui.jsonl import JsonLines
from xnatctl.ui.progress import Bar, Lines, Silent, Tally, progress
from xnatctl.ui.report import print_report, sentence, to_json, totals, transfer_json

REF = Ref("P")
UNIT = Unit("session/S1", "session", REF, REF, label="S1")
ITEM = Item("scans/1", "zip", "scans/1", REF)
COPIED = Outcome("scans/1", "copied", files=3, bytes=900, attempts=2, verified="digest")
DONE = UnitOutcome("session/S1", "session", "S1", "copied", (COPIED,), files=3, bytes=900)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def story() -> Iterator[Event]:
    """One session whose first attempt broke off after 400 of 900 bytes."""
    yield RunStarted("r1", "transfer", "prod P", "dev P", at=1.0)
    yield UnitPlanned(UNIT, 3, 900, 2, at=2.0)
    yield ItemStarted(UNIT.key, ITEM, 1, at=3.0)
    yield BytesMoved(UNIT.key, ITEM.key, 400, at=4.0)
    yield ItemRetried(UNIT.key, ITEM.key, 1, "broke off", 0.5, 400, at=5.0)
    yield ItemStarted(UNIT.key, ITEM, 2, at=6.0)
    yield BytesMoved(UNIT.key, ITEM.key, 800, at=7.0)
    yield ItemDone(UNIT.key, COPIED, at=8.0)
    yield UnitDone(DONE, at=9.0)


def report(*outcomes: UnitOutcome) -> Report:
    account = Account("r1", "transfer", "prod P", "dev P", False)
    for one in outcomes or (DONE,):
        account.add(one)
    return account.report(interrupted="", code=0, accept=None)


def tally(clock: Clock, *events: Event) -> Tally:
    it = Tally(clock)
    for event in events or story():
        it(event)
    return it


# -- the figures ---------------------------------------------------------------------------------


def test_bytes_of_a_failed_attempt_are_taken_back_and_the_end_counts_exactly() -> None:
    it = tally(Clock())
    assert (it.bytes, it.bytes_total, it.share) == (900, 900, 1.0)
    assert (it.files, it.files_total, it.files_kept) == (3, 3, 2)
    assert (it.units, it.units_total, it.retries, it.failed) == (1, 1, 1, 0)
    assert it.active == {}


def test_an_item_too_small_to_be_told_of_counts_when_it_is_done() -> None:
    it = tally(Clock(), UnitPlanned(UNIT, 3, 900, 0), ItemDone(UNIT.key, COPIED))
    assert it.bytes == 900


def test_without_a_rate_there_is_no_time_left() -> None:
    clock = Clock()
    it = tally(clock, UnitPlanned(UNIT, 3, 900, 0))
    clock.now += 5
    assert (it.rate, it.left_s, it.share) == (None, None, 0.0)
    assert "left" not in it.line()
    assert tally(clock, Note("x")).share is None


def test_the_rate_is_that_of_the_last_minute_so_a_stall_is_seen() -> None:
    clock = Clock()
    it = tally(clock, UnitPlanned(UNIT, 3, 90_000, 0))
    clock.now += 10
    it(BytesMoved(UNIT.key, ITEM.key, 6_000))
    assert it.rate == pytest.approx(600)
    assert it.left_s == pytest.approx(140)
    clock.now += 61
    assert it.rate == 0
    assert it.left_s is None


def test_a_line_says_it_all() -> None:
    clock = Clock()
    it = tally(clock)
    clock.now += 1
    assert it.line().startswith("1/1 unit, 3/3 files, 900 B of 900 B (100%), ")
    assert it.line().endswith("/s, 1 retry")


# -- how they are shown --------------------------------------------------------------------------


def console(err: io.StringIO, **more: Any) -> Console:
    return Console(out=io.StringIO(), err=err, environ=more.pop("environ", {}), **more)


def test_a_log_gets_a_line_every_ten_seconds_and_none_after_the_end() -> None:
    clock, err = Clock(), io.StringIO()
    lines = Lines(console(err), clock=clock)
    lines(UnitPlanned(UNIT, 3, 900, 0))
    for _ in range(25):
        clock.now += 1
        lines.tick()
    assert len(err.getvalue().splitlines()) == 2
    lines(RunDone(report()))
    clock.now += 20
    lines.tick()
    assert len(err.getvalue().splitlines()) == 2


def test_a_bar_is_drawn_and_taken_away_and_words_go_above_it() -> None:
    err = Terminal()
    it = console(err)
    bar = Bar(it, clock=Clock())
    for event in story():
        bar(event)
        bar.tick()
    bar(Note("dev answers 503", level="warning"))
    bar.close()
    it.say("after")
    text = err.getvalue()
    assert "S1" in text
    assert "400 B of 900 B" in text
    assert "dev answers 503" in text
    assert text.endswith("after\n")


@pytest.mark.parametrize(
    ("mode", "err", "quiet", "environ", "kind"),
    [
        ("auto", Terminal(), False, {}, Bar),
        ("auto", Terminal(), False, {"TERM": "dumb"}, Lines),
        ("auto", io.StringIO(), False, {}, Lines),
        ("auto", Terminal(), True, {}, Silent),
        ("none", Terminal(), False, {}, Silent),
        ("plain", Terminal(), False, {}, Lines),
    ],
)
def test_progress_is_shown_as_the_terminal_allows(
    mode: str, err: io.StringIO, quiet: bool, environ: dict[str, str], kind: type
) -> None:
    shown = progress(console(err, quiet=quiet, environ=environ), mode)
    shown.close()
    assert type(shown) is kind


def test_a_warning_is_shown_even_where_progress_is_not() -> None:
    err = io.StringIO()
    Silent(console(err))(Note("the disk is nearly full", level="warning"))
    assert err.getvalue() == "warning: the disk is nearly full\n"


# -- records for programs ------------------------------------------------------------------------


def test_every_event_is_one_record_with_its_name_and_the_last_is_the_summary() -> None:
    lines: list[str] = []
    bus = Bus(JsonLines(lines.append))
    for event in story():
        bus.emit(event)
    bus.emit(Note("x"))
    bus.emit(RunDone(report()))
    records = [json.loads(line) for line in lines]
    assert [one["event"] for one in records] == [
        "run_started",
        "unit_planned",
        "item_started",
        "bytes_moved",
        "item_retried",
        "item_started",
        "bytes_moved",
        "item_done",
        "unit_done",
        "note",
        "run_done",
    ]
    assert all("at" in one for one in records)
    assert records[1] | {"files": 3, "bytes": 900, "unit": "session/S1"} == records[1]
    assert records[-1]["files"] == 3
    assert records[-1]["success"] is True


def test_a_reader_of_the_events_alone_reaches_the_totals_of_the_summary() -> None:
    lines: list[str] = []
    write = JsonLines(lines.append)
    for event in (*story(), RunDone(report())):
        write(event)
    records = [json.loads(line) for line in lines]
    items = [one for one in records if one["event"] == "item_done" and one["became"] == "copied"]
    assert sum(one["files"] for one in items) == records[-1]["files"]
    assert sum(one["bytes"] for one in items) == records[-1]["bytes"]


def test_the_summary_of_a_transfer_has_the_keys_of_0_6_0() -> None:
    failed = UnitOutcome("session/S2", "session", "S2", "failed", error="cut")
    subject = UnitOutcome("subject/A", "subject", "A", "kept")
    summary = transfer_json(
        report(DONE, failed, subject),
        source="https://a",
        destination="https://b",
        source_project="P",
        dest_project="Q",
    )
    expected = {
        "source": "https://a",
        "destination": "https://b",
        "source_project": "P",
        "dest_project": "Q",
        "subjects_synced": 0,
        "subjects_failed": 0,
        "subjects_skipped": 1,
        "experiments_synced": 1,
        "success": False,
        "dry_run": False,
        "errors": ["session S2: cut"],
    }
    assert summary | expected == summary
    assert {"files", "bytes", "verified", "run_id", "left"} <= summary.keys()
    assert "errors" not in transfer_json(
        report(), source="", destination="", source_project="", dest_project=""
    )


def test_the_report_as_json_can_be_written_and_names_problems_and_what_was_left() -> None:
    left = Left("scans/9", "empty", "nothing in it")
    bad = UnitOutcome(
        "session/S2",
        "session",
        "S2",
        "failed",
        left=(left,),
        mismatches=(Mismatch("scans/1/a.dcm", "size 3, not 4"),),
    )
    document = json.loads(json.dumps(to_json(report(bad))))
    (one,) = document["left"]
    assert one == {"unit": "S2", "key": "scans/9", "code": "empty", "reason": "nothing in it"}
    assert document["problems"][0]["mismatches"] == [
        {"key": "scans/1/a.dcm", "problem": "size 3, not 4"}
    ]
    assert document["exit_code"] == 8
    assert sentence(bad) == "session S2: scans/1/a.dcm: size 3, not 4"


def test_the_report_on_a_terminal_has_a_row_a_kind_and_the_totals() -> None:
    out, err = io.StringIO(), io.StringIO()
    failed = UnitOutcome("session/S2", "session", "S2", "failed", error="cut", hint="again")
    it = Console(out=out, err=err, environ={}, output="table")
    print_report(report(DONE, failed, UnitOutcome("p", "project", "P", "kept")), it)
    rows = [line.split() for line in out.getvalue().splitlines()]
    assert rows[0] == ["KIND", "COPIED", "UNCHANGED", "FAILED", "FILES", "SIZE"]
    assert rows[1] == ["project", "0", "1", "0", "0", "0", "B"]
    assert rows[2] == ["session", "1", "0", "1", "3", "900", "B"]
    assert "failed: session S2: cut\n   fix: again\n" in err.getvalue()
    assert "3 files moved, 900 B in" in err.getvalue()
    assert "1 failed" in err.getvalue()
    assert err.getvalue().endswith("run r1\n")


def test_the_first_line_of_a_run_names_it() -> None:
    err = Terminal()
    Lines(console(err))(RunStarted("r1", "transfer", "prod P", "dev P"))
    assert err.getvalue() == "run r1: transfer\nprod P → dev P\n"


def test_a_quiet_report_prints_failures_only() -> None:
    out, err = io.StringIO(), io.StringIO()
    failed = UnitOutcome("session/S2", "session", "S2", "failed", error="cut")
    print_report(report(DONE, failed), Console(out=out, err=err, environ={}, quiet=True))
    assert out.getvalue() == ""
    assert err.getvalue() == "failed: session S2: cut\n"


def test_the_totals_name_what_was_there_already() -> None:
    words = totals(report(UnitOutcome("s", "session", "S", "kept", files_kept=1)))
    assert words.startswith("0 files moved, 0 B in")
    assert "1 file was there already" in words
