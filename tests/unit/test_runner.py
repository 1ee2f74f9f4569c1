"""A run over the in-memory pair, with scripted faults."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import anyio
import pytest

from tests.unit.scripted import ONCE, Bench, Script, ScriptedSink, ScriptedSource
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
from xnatctl.engine.plan import MANY
from xnatctl.engine.runner import Stop
from xnatctl.engine.state import StateStore
from xnatctl.engine.types import Item, Report, Unit, UnitOutcome
from xnatctl.errors import (
    Busy,
    LeftBehind,
    LocalFault,
    NotFound,
    Refused,
    Unreachable,
    Vanished,
)
from xnatctl.retry import Backoff

BIG = b"x" * (1024 * 1024)
"""Files of this size travel one by one."""

FILES = {
    "u1/R/a": b"a" + BIG,
    "u1/R/b": b"b" + BIG,
    "u1/Q/c": b"c" + BIG,
    "u2/R/d": b"d" + BIG,
}
SMALL = {f"u1/R/{number:03}": f"body {number}".encode() for number in range(20)}


def bench(
    tmp_path: Path,
    files: dict[str, bytes] | None = None,
    *,
    source: dict[str, list[Exception | None]] | None = None,
    sink: dict[str, list[Exception | None]] | None = None,
) -> Bench:
    """A pair with `FILES` at the source, and faults by step."""
    return Bench(
        tmp_path,
        ScriptedSource(dict(FILES if files is None else files), script=Script(source or {})),
        ScriptedSink(script=Script(sink or {})),
    )


def gone(text: str = "it broke off") -> Unreachable:
    return Unreachable(text, sent=True)


def outcome(report: Report, unit: str) -> UnitOutcome:
    (found,) = [one for one in report.problems if one.key == unit]
    return found


def forget(folder: Path) -> None:
    """Delete the state store."""
    for file in folder.iterdir():
        file.unlink()


def index(events: list[Event], kind: type[Event], unit: str = "") -> int:
    for number, event in enumerate(events):
        if isinstance(event, kind) and unit in ("", _unit(event)):
            return number
    raise LookupError(kind)


def _unit(event: Event) -> str:
    if isinstance(event, UnitPlanned):
        return event.unit.key
    if isinstance(event, UnitDone):
        return event.outcome.key
    return str(getattr(event, "unit", ""))


# --- all is well -----------------------------------------------------------------------------


async def test_everything_arrives_and_is_proven(tmp_path: Path) -> None:
    pair = bench(tmp_path)

    report = await pair.run()

    assert pair.arrived == FILES
    assert (report.exit_code, report.units_done, report.files) == (0, 2, 4)
    assert report.bytes == sum(map(len, FILES.values()))
    assert report.verified == {"digest": 4}
    assert report.retries == 0
    assert await pair.statuses() == ["done"]
    assert await pair.status_of("u1") == "done"


async def test_a_second_run_moves_nothing(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    await pair.run()

    report = await pair.run()

    assert pair.source.opened == []
    assert (report.files, report.files_kept, report.units_kept) == (0, 4, 2)
    assert not [step for step in pair.sink.steps if not step.startswith("inventory")]
    assert report.exit_code == 0


async def test_a_second_run_without_the_state_store_moves_nothing(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    await pair.run()
    forget(tmp_path)

    report = await pair.run()

    assert (pair.source.opened, report.files_kept) == ([], 4)


async def test_only_what_is_new_moves(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    await pair.run()
    pair.source.files["u1/R/new"] = b"n" + BIG

    report = await pair.run()

    assert pair.source.opened == ["R/files/new"]
    assert (report.files, report.files_kept, report.units_done) == (1, 4, 1)


async def test_many_small_files_travel_as_one_archive(tmp_path: Path) -> None:
    pair = bench(tmp_path, SMALL)

    report = await pair.run()

    assert pair.source.opened == ["R"]
    assert pair.arrived == SMALL
    assert (report.files, report.verified) == (20, {"digest": 20})


async def test_a_sink_that_takes_no_archives_gets_files(tmp_path: Path) -> None:
    pair = bench(tmp_path, SMALL)
    pair.sink.accepts_zip = False

    await pair.run()

    assert pair.arrived == SMALL
    assert len(pair.source.opened) == 20


async def test_events_tell_a_run_in_order(tmp_path: Path) -> None:
    pair = bench(tmp_path)

    report = await pair.run()

    assert isinstance(pair.events[0], RunStarted)
    assert isinstance(pair.events[-1], RunDone)
    assert pair.events[-1].report == report
    for unit in ("u1", "u2"):
        order = [
            index(pair.events, kind, unit)
            for kind in (UnitPlanned, ItemStarted, ItemDone, UnitDone)
        ]
        assert order == sorted(order)
    moved = sum(event.bytes for event in pair.seen(BytesMoved))
    assert 0 < moved <= report.bytes
    assert len(pair.seen(BytesMoved)) <= report.bytes // (1024 * 1024) + len(FILES)


async def test_a_plan_says_what_has_to_move_and_what_is_there(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    pair.sink.files["u1/R/files/a"] = FILES["u1/R/a"]

    await pair.run()

    (planned,) = [event for event in pair.seen(UnitPlanned) if event.unit.key == "u1"]
    assert (planned.files, planned.files_kept) == (2, 1)
    assert planned.bytes == len(FILES["u1/R/b"]) + len(FILES["u1/Q/c"])


async def test_a_dry_run_moves_nothing_and_is_not_remembered(tmp_path: Path) -> None:
    pair = bench(tmp_path)

    report = await pair.run(dry_run=True)

    assert pair.sink.files == {}
    assert pair.source.opened == []
    assert not [step for step in pair.sink.steps if not step.startswith("inventory")]
    assert sum(event.files for event in pair.seen(UnitPlanned)) == 4
    assert (report.dry_run, report.files, report.exit_code) == (True, 0, 0)
    assert await pair.statuses() == []


async def test_a_unit_is_recorded_as_begun_before_anything_is_written(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    seen = []

    async def look(unit: Unit) -> None:
        seen.append(status_in(tmp_path, unit.key))

    pair.sink.on_begin = look
    await pair.run()

    assert seen == ["begun", "begun"]


async def test_a_unit_is_recorded_as_done_before_anybody_is_told(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    seen = []

    class Watching(list[Event]):
        def append(self, event: Event) -> None:
            if isinstance(event, UnitDone):
                seen.append(status_in(tmp_path, event.outcome.key))

    pair.events = Watching()
    await pair.run()

    assert seen == ["done", "done"]


def status_in(folder: Path, unit: str) -> str:
    database = sqlite3.connect(folder / "state.db")
    try:
        row = database.execute("SELECT status FROM unit WHERE key=?", (unit,)).fetchone()
    finally:
        database.close()
    return str(row[0]) if row else ""


# --- faults that pass ------------------------------------------------------------------------


async def test_a_file_that_cannot_be_opened_at_first_is_tried_again(tmp_path: Path) -> None:
    pair = bench(tmp_path, source={"open R/files/a": [gone(), gone()]})

    report = await pair.run()

    assert pair.arrived == FILES
    assert (report.exit_code, report.retries) == (0, 2)
    assert [event.attempt for event in pair.seen(ItemRetried)] == [1, 2]
    assert [event.attempt for event in pair.seen(ItemStarted) if event.item.path == "a"] == [
        1,
        2,
        3,
    ]
    assert len(pair.slept) == 2


async def test_a_body_that_breaks_off_is_read_again_from_its_first_byte(tmp_path: Path) -> None:
    pair = bench(tmp_path, source={"read R/files/a": [None, None, gone()]})

    report = await pair.run()

    assert pair.arrived == FILES
    assert report.exit_code == 0
    (retried,) = pair.seen(ItemRetried)
    assert retried.wasted == 3 * 64 * 1024
    assert pair.source.opened.count("R/files/a") == 2


async def test_pauses_grow_and_follow_the_server(tmp_path: Path) -> None:
    pair = bench(tmp_path, sink={"put R/files/a": [Busy("busy", after=0.01), gone()]})

    await pair.run()

    assert len(pair.slept) == 2
    assert pair.slept[0] >= 0.01
    assert [event.pause for event in pair.seen(ItemRetried)] == pair.slept


async def test_a_file_whose_answer_was_lost_is_not_sent_again(tmp_path: Path) -> None:
    pair = bench(tmp_path, sink={"lost R/files/a": [gone("no answer")]})

    report = await pair.run()

    assert pair.source.opened.count("R/files/a") == 1
    assert pair.sink.steps.count("put R/files/a") == 1
    assert report.exit_code == 0
    assert report.verified == {"digest": 4}


async def test_a_file_that_was_stored_wrong_and_then_failed_is_sent_again(tmp_path: Path) -> None:
    pair = bench(tmp_path, sink={"lost R/files/a": [gone("no answer")]})
    pair.sink.spoil = {"R/files/a": [b"half"]}

    report = await pair.run()

    assert pair.arrived == FILES
    assert pair.sink.steps.count("put R/files/a") == 2
    assert report.exit_code == 0


async def test_of_an_archive_that_broke_off_only_what_is_missing_is_sent_again(
    tmp_path: Path,
) -> None:
    files = {f"u1/R/{number:03}": bytes([number]) * 60_000 for number in range(20)}
    pair = bench(tmp_path, files, source={"read R": [None] * 15 + [gone()]})

    report = await pair.run()

    assert pair.arrived == files
    assert report.exit_code == 0
    assert report.files == 20
    again = pair.source.opened[1:]
    assert again and again != ["R"]
    assert len(again) < 20


async def test_an_archive_that_always_lacks_a_file_is_given_up_for_its_files(
    tmp_path: Path,
) -> None:
    pair = bench(tmp_path, SMALL)
    pair.source.missing_in_archives = {"u1/R/007"}

    report = await pair.run()

    assert pair.arrived == SMALL
    assert (report.exit_code, report.files) == (0, 20)
    assert pair.source.opened[-1] == "R/files/007"


async def test_what_arrived_damaged_behind_a_good_answer_is_found_and_sent_again(
    tmp_path: Path,
) -> None:
    pair = bench(tmp_path)
    pair.sink.spoil = {"R/files/a": [FILES["u1/R/a"][:-1]]}

    report = await pair.run()

    assert pair.arrived == FILES
    assert report.exit_code == 0
    assert report.verified == {"digest": 4}


async def test_an_inventory_that_fails_once_costs_no_unit(tmp_path: Path) -> None:
    pair = bench(
        tmp_path,
        source={"open R/files/a": [gone()]},
        sink={"inventory u1": [None, Unreachable("nobody there")]},
    )

    report = await pair.run()

    assert pair.arrived == FILES
    assert report.exit_code == 0


# --- faults that stay ------------------------------------------------------------------------


async def test_an_item_that_never_succeeds_fails_alone(tmp_path: Path) -> None:
    pair = bench(tmp_path, source={"open R/files/a": [gone()] * 4})

    report = await pair.run()

    assert pair.arrived == {path: body for path, body in FILES.items() if path != "u1/R/a"}
    assert (report.exit_code, report.units_done, report.units_failed) == (1, 1, 1)
    failed = outcome(report, "u1")
    (item,) = [one for one in failed.outcomes if one.became == "failed"]
    assert (item.key, item.attempts, item.error_kind) == ("R/files/a", 4, "unreachable")
    assert "it broke off" in failed.error
    assert await pair.status_of("u1") == "failed"
    assert await pair.statuses() == ["failed"]


async def test_the_next_run_finishes_what_failed_and_nothing_else(tmp_path: Path) -> None:
    pair = bench(tmp_path, source={"open R/files/a": [gone()] * 4})
    await pair.run()

    report = await pair.run()

    assert pair.arrived == FILES
    assert pair.source.opened == ["R/files/a"]
    assert (report.exit_code, report.files, report.files_kept) == (0, 1, 3)


async def test_what_trying_again_cannot_help_is_tried_once(tmp_path: Path) -> None:
    pair = bench(tmp_path, sink={"put R/files/a": [Refused("too large", status=413)] * 4})

    report = await pair.run()

    assert pair.sink.steps.count("put R/files/a") == 1
    assert outcome(report, "u1").error_kind == "refused"


async def test_what_stays_damaged_ends_as_a_mismatch_that_is_named(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    pair.sink.spoil = {"R/files/a": [b"short"] * 10}

    report = await pair.run()

    assert report.exit_code == 8
    failed = outcome(report, "u1")
    assert [one.key for one in failed.mismatches] == ["R/files/a"]
    assert "bytes" in failed.mismatches[0].problem
    assert failed.error_kind == "mismatch"


async def test_a_mismatch_of_one_run_is_repaired_by_the_next(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    pair.sink.spoil = {"R/files/a": [b"short"] * 10}
    await pair.run()
    pair.sink.spoil = {}

    report = await pair.run()

    assert report.exit_code == 0
    assert pair.arrived == FILES


async def test_a_file_that_changed_at_the_source_while_it_was_read_is_not_carried(
    tmp_path: Path,
) -> None:
    pair = bench(tmp_path)

    async def change(unit: Unit, item: Item) -> None:
        pair.source.files["u1/R/b"] = b"B" + BIG

    pair.sink.on_put = change
    report = await pair.run(workers=1)
    assert report.exit_code == 8
    assert "u1/R/b" not in pair.arrived

    pair.sink.on_put = None
    assert (await pair.run()).exit_code == 0
    assert pair.arrived == pair.source.files


async def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    files = {f"u{number}/R/a": BIG for number in range(9)}
    full = LocalFault("/data cannot be written", why="No space left on device")
    pair = bench(tmp_path, files, sink={"put R/files/a": [full]})

    report = await pair.run(workers=1)

    assert report.exit_code == 1
    assert "No space left" in report.interrupted
    assert len(pair.arrived) <= 1
    assert outcome(report, "u0").error_kind == "local-fault"


async def test_an_error_of_ours_in_one_unit_is_not_that_of_the_others(tmp_path: Path) -> None:
    pair = bench(tmp_path, source={"describe u1": [ZeroDivisionError("a bug")]})

    report = await pair.run()

    assert pair.arrived == {"u2/R/d": FILES["u2/R/d"]}
    assert outcome(report, "u1").error_kind == "internal-error"
    assert report.exit_code == 1


@pytest.mark.parametrize("step", ["begin u1", "seal u1", "inventory u1"])
async def test_a_sink_that_refuses_a_step_fails_that_unit(tmp_path: Path, step: str) -> None:
    pair = bench(tmp_path, sink={step: [Refused("no")] * 9})

    report = await pair.run()

    assert report.units_failed == 1
    assert outcome(report, "u1").error_kind == "refused"
    assert pair.arrived["u2/R/d"] == FILES["u2/R/d"]


async def test_a_unit_that_fails_as_a_whole_is_abandoned(tmp_path: Path) -> None:
    pair = bench(tmp_path, sink={"seal u1": [Refused("no")]})

    await pair.run()

    assert "abandon u1" in pair.sink.steps
    assert await pair.status_of("u1") == "failed"


async def test_abandoning_that_fails_is_a_note_and_no_second_failure(tmp_path: Path) -> None:
    pair = bench(tmp_path, sink={"seal u1": [Refused("no")], "abandon u1": [gone()]})

    report = await pair.run()

    assert report.units_failed == 1
    assert outcome(report, "u1").error_kind == "refused"
    assert [note.text for note in pair.seen(Note)] == ["u1: it broke off"]


async def test_a_selection_without_a_root_is_the_error_of_the_run(tmp_path: Path) -> None:
    pair = bench(tmp_path, source={"units": [NotFound("no project P")]})

    with pytest.raises(NotFound):
        await pair.run()

    assert isinstance(pair.events[-1], RunDone)
    assert pair.events[-1].report.exit_code == 5
    assert await pair.statuses() == ["failed"]


# --- what is left ----------------------------------------------------------------------------


@pytest.mark.parametrize(("accept", "code"), [(set(), 1), ({"vanished"}, 0)])
async def test_a_unit_that_vanished_is_left_and_says_so(
    tmp_path: Path, accept: set[str], code: int
) -> None:
    pair = bench(tmp_path, source={"describe u1": [Vanished("u1 is gone")]})

    report = await pair.run(accept=frozenset(accept))

    assert [(one.key, one.code) for one in report.left] == [("u1", "vanished")]
    assert (report.units_failed, report.exit_code) == (0, code)
    assert pair.arrived == {"u2/R/d": FILES["u2/R/d"]}


@pytest.mark.parametrize(("accept", "code"), [(set(), 1), ({"vanished"}, 0)])
async def test_a_listed_file_that_cannot_be_read_is_left_and_says_so(
    tmp_path: Path, accept: set[str], code: int
) -> None:
    pair = bench(tmp_path, source={"open R/files/a": [Vanished("it is gone")] * 4})

    report = await pair.run(accept=frozenset(accept))

    assert [(one.key, one.code) for one in report.left] == [("R/files/a", "vanished")]
    assert report.exit_code == code
    assert pair.arrived == {path: body for path, body in FILES.items() if path != "u1/R/a"}


async def test_a_file_of_an_archive_that_cannot_be_read_is_left_and_the_others_arrive(
    tmp_path: Path,
) -> None:
    pair = bench(tmp_path, SMALL, source={"open R/files/007": [Vanished("it is gone")]})
    pair.source.missing_in_archives = {"u1/R/007"}

    report = await pair.run()

    assert pair.arrived == {path: body for path, body in SMALL.items() if path != "u1/R/007"}
    assert [(one.key, one.code) for one in report.left] == [("R/files/007", "vanished")]
    assert (report.files, report.units_failed, report.exit_code) == (19, 0, 1)


async def test_what_the_sink_cannot_hold_is_left_and_the_rest_arrives(tmp_path: Path) -> None:
    cannot = LeftBehind("the type is not known there", code="unknown-type")
    pair = bench(tmp_path, sink={"put R/files/a": [cannot]})

    report = await pair.run()

    assert [(one.key, one.code) for one in report.left] == [("R/files/a", "unknown-type")]
    assert pair.arrived == {path: body for path, body in FILES.items() if path != "u1/R/a"}
    assert report.exit_code == 1


# --- what is there already -------------------------------------------------------------------


async def test_a_file_that_differs_is_a_conflict_and_stays(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    pair.sink.files["u1/R/files/a"] = b"somebody else's"

    report = await pair.run()

    assert pair.sink.files["u1/R/files/a"] == b"somebody else's"
    assert pair.arrived["u1/R/b"] == FILES["u1/R/b"]
    failed = outcome(report, "u1")
    assert (failed.error_kind, report.exit_code) == ("conflict", 1)
    assert "R/files/a" in failed.error


async def test_a_file_that_differs_may_be_overwritten(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    pair.sink.files["u1/R/files/a"] = b"somebody else's"

    report = await pair.run(overwrite=True)

    assert pair.arrived == FILES
    assert report.exit_code == 0


async def test_what_an_earlier_run_wrote_follows_its_source(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    await pair.run()
    pair.source.files["u1/R/a"] = b"A" + BIG

    report = await pair.run()

    assert pair.arrived == pair.source.files
    assert (report.exit_code, report.files) == (0, 1)


@pytest.mark.parametrize("policy", ["skip", "fail"])
async def test_a_session_that_exists_differently_is_not_touched(
    tmp_path: Path, policy: str
) -> None:
    pair = bench(tmp_path)
    pair.sink.files["u1/R/files/a"] = b"somebody else's"

    report = await pair.run(on_conflict=policy)

    assert {path for path in pair.sink.files if path.startswith("u1/")} == {"u1/R/files/a"}
    assert pair.arrived["u2/R/d"] == FILES["u2/R/d"]
    assert report.exit_code == 1
    if policy == "skip":
        assert [one.code for one in report.left] == ["exists"]
    else:
        assert outcome(report, "u1").error_kind == "conflict"


async def test_a_saved_plan_is_executed_exactly(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    await pair.run(dry_run=True)
    plan = {event.unit.key: event.signature for event in pair.seen(UnitPlanned)}
    pair.source.files["u2/R/new"] = BIG

    report = await pair.run(plan=plan)

    assert {path for path in pair.arrived if path.startswith("u1/")} == {
        path for path in FILES if path.startswith("u1/")
    }
    assert outcome(report, "u2").error_kind == "conflict"
    assert not [path for path in pair.arrived if path.startswith("u2/")]


async def test_a_plan_that_was_executed_in_part_is_gone_on_with(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    await pair.run(dry_run=True)
    plan = {event.unit.key: event.signature for event in pair.seen(UnitPlanned)}
    await pair.run(plan={"u1": plan["u1"]})

    report = await pair.run(plan=plan)

    assert (report.exit_code, pair.arrived) == (0, FILES)
    assert (report.units_kept, report.units_done) == (1, len(plan) - 1)


async def test_a_unit_outside_a_saved_plan_is_not_touched(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    await pair.run(dry_run=True)
    plan = {event.unit.key: event.signature for event in pair.seen(UnitPlanned)}
    del plan["u2"]

    await pair.run(plan=plan)

    assert "inventory u2" not in pair.sink.steps


# --- stopping --------------------------------------------------------------------------------


async def test_after_enough_failures_nothing_new_is_begun(tmp_path: Path) -> None:
    files = {f"u{number}/R/a": BIG for number in range(9)}
    pair = bench(tmp_path, files, source={"open R/files/a": [gone(), gone()]})

    report = await pair.run(workers=1, max_failures=2, policy=ONCE)

    assert report.units_failed == 2
    assert pair.source.opened == []
    assert "2 units failed" in report.interrupted
    assert report.exit_code == 1


async def test_when_asked_to_stop_no_new_unit_is_begun(tmp_path: Path) -> None:
    files = {f"u{number}/R/a": BIG for number in range(9)}
    pair = bench(tmp_path, files)
    stop = Stop()

    async def ask(unit: Unit, item: Item) -> None:
        stop.ask("interrupted", 130)

    pair.sink.on_put = ask
    report = await pair.run(stop=stop, workers=1)

    assert pair.arrived == {"u0/R/a": BIG}
    assert (report.units_done, report.exit_code) == (1, 130)
    assert report.interrupted == "interrupted"
    assert await pair.statuses() == ["interrupted"]

    pair.sink.on_put = None
    assert (await pair.run()).exit_code == 0
    assert pair.arrived == files


async def test_a_unit_that_was_stopped_half_way_is_not_done(tmp_path: Path) -> None:
    files = {f"u1/R/{number}": bytes([number]) + BIG for number in range(4)}
    pair = bench(tmp_path, files)
    stop = Stop()

    async def ask(unit: Unit, item: Item) -> None:
        stop.ask("interrupted", 130)

    pair.sink.on_put = ask
    report = await pair.run(stop=stop, workers=1)

    assert len(pair.arrived) == 1
    assert (report.units_done, report.units_failed, report.files) == (0, 1, 1)
    assert await pair.status_of("u1") == "failed"
    assert "3" in outcome(report, "u1").error

    pair.sink.on_put = None
    assert (await pair.run()).exit_code == 0
    assert pair.arrived == files


async def test_a_stop_is_said_once_and_at_once(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    stop = Stop()
    stop.ask("terminated", 143)

    report = await pair.run(stop=stop)

    assert pair.arrived == {}
    assert report.exit_code == 143
    assert len([note for note in pair.seen(Note) if "terminated" in note.text]) == 1


def test_who_asks_first_for_the_end_of_a_run_names_its_reason() -> None:
    stop = Stop()
    stop.ask("Ctrl-C", 130)
    stop.ask("the deadline of 1 s is over", 1)

    assert (stop.why, stop.code) == ("Ctrl-C", 130)


async def test_a_run_whose_end_cannot_be_recorded_tells_what_it_did_and_does_not_claim_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*row: object) -> None:
        raise LocalFault("the state store cannot be used", why="disk is full")

    pair = bench(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(StateStore, "end_run", full)
        report = await pair.run()

    assert pair.arrived == FILES
    assert report.exit_code == 1
    assert report.files == len(FILES)
    assert "disk is full" in report.interrupted
    assert isinstance(pair.events[-1], RunDone)
    assert await pair.statuses() == ["interrupted"]
    assert (await pair.run()).files == 0


async def test_what_does_not_end_within_its_grace_is_cancelled_and_abandoned(
    tmp_path: Path,
) -> None:
    pair = bench(tmp_path)
    stop = Stop()

    async def hang(unit: Unit, item: Item) -> None:
        stop.ask("interrupted", 130)
        await anyio.sleep_forever()

    pair.sink.on_put = hang
    with anyio.fail_after(5):
        report = await pair.run(stop=stop, workers=1, grace=0.01)

    assert report.exit_code == 130
    assert "abandon u1" in pair.sink.steps
    assert await pair.statuses() == ["interrupted"]
    assert await pair.status_of("u1") == "failed"
    assert isinstance(pair.events[-1], RunDone)


async def test_a_run_that_is_cancelled_from_outside_still_closes_its_books(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    writing = anyio.Event()

    async def hang(unit: Unit, item: Item) -> None:
        writing.set()
        await anyio.sleep_forever()

    pair.sink.on_put = hang
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.run)
            await writing.wait()
            tasks.cancel_scope.cancel()

    assert "abandon u1" in pair.sink.steps
    assert isinstance(pair.events[-1], RunDone)
    assert await pair.statuses() == ["interrupted"]


# --- order and limits ------------------------------------------------------------------------


async def test_a_unit_waits_for_those_it_names(tmp_path: Path) -> None:
    pair = bench(tmp_path)
    pair.source.after = {"u2": ("u1",)}

    await pair.run(workers=4)

    assert index(pair.events, UnitDone, "u1") < index(pair.events, UnitPlanned, "u2")


async def test_a_unit_that_names_all_waits_for_all_before_it(tmp_path: Path) -> None:
    files = {f"u{number}/R/a": BIG for number in range(5)}
    pair = bench(tmp_path, files)
    pair.source.after = {"u4": ("*",)}

    await pair.run(workers=2)

    last = index(pair.events, UnitPlanned, "u4")
    assert all(index(pair.events, UnitDone, f"u{number}") < last for number in range(4))


async def test_what_depends_on_a_unit_that_was_never_made_fails_with_it(tmp_path: Path) -> None:
    pair = bench(tmp_path, sink={"begin u1": [Refused("no right to create")]})
    pair.source.after = {"u2": ("u1",)}

    report = await pair.run()

    assert report.units_failed == 2
    assert "u1 failed" in outcome(report, "u2").error
    assert "begin u2" not in pair.sink.steps
    assert pair.arrived == {}


async def test_what_depends_on_a_unit_that_exists_goes_on_without_all_its_files(
    tmp_path: Path,
) -> None:
    pair = bench(tmp_path, source={"open R/files/a": [Refused("no")]})
    pair.source.after = {"u2": ("u1",)}

    report = await pair.run()

    assert (report.units_failed, report.units_done) == (1, 1)
    assert pair.arrived["u2/R/d"] == FILES["u2/R/d"]


async def test_no_more_is_written_at_once_than_workers_are_allowed(tmp_path: Path) -> None:
    files = {f"u{unit}/R{box}/a": BIG for unit in range(6) for box in range(4)}
    pair = bench(tmp_path, files)

    async def linger(unit: Unit, item: Item) -> None:
        await anyio.sleep(0.002)

    pair.sink.on_put = linger
    await pair.run(workers=3)

    assert pair.arrived == files
    assert pair.sink.peak == 3


async def test_files_of_one_resource_are_written_one_after_another(tmp_path: Path) -> None:
    files = {f"u1/R{box}/{number}": BIG for box in range(3) for number in range(4)}
    pair = bench(tmp_path, files)

    async def linger(unit: Unit, item: Item) -> None:
        await anyio.sleep(0.001)

    pair.sink.on_put = linger
    await pair.run(workers=4)

    assert pair.sink.lane_peak == 1
    assert pair.sink.peak > 1


async def test_units_are_asked_for_only_as_they_are_worked_on(tmp_path: Path) -> None:
    files = {f"u{number:04}/R/a": b"x" for number in range(300)}
    pair = bench(tmp_path, files)
    ahead = []

    async def look(unit: Unit) -> None:
        ahead.append(len(pair.source.yielded) - len(pair.seen(UnitDone)))

    pair.sink.on_begin = look
    await pair.run(workers=2)

    assert len(pair.arrived) == 300
    assert max(ahead) <= 2 + 2 + 2


async def test_the_policy_of_a_run_bounds_its_attempts(tmp_path: Path) -> None:
    pair = bench(tmp_path, source={"open R/files/a": [gone()] * 9})

    await pair.run(policy=Backoff(attempts=7, base=0.0))

    assert len(pair.source.script.faults["open R/files/a"]) == 2


async def test_a_watcher_that_raises_stops_nothing(tmp_path: Path) -> None:
    pair = bench(tmp_path)

    class Broken(list[Event]):
        def append(self, event: Event) -> None:
            raise OSError("the terminal is gone")

    pair.events = Broken()
    report = await pair.run()

    assert report.exit_code == 0
    assert pair.arrived == FILES


async def test_a_large_resource_of_large_files_is_not_packed(tmp_path: Path) -> None:
    files = {f"u1/R/{number}": bytes([number]) + BIG for number in range(4)}
    assert len(files) < MANY
    pair = bench(tmp_path, files)

    await pair.run()

    assert sorted(pair.source.opened) == [f"R/files/{number}" for number in range(4)]
