"""`project transfer` as it is typed: its summary, its events, what it says, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xnatctl.sandbox.server import Sandbox

Call = Callable[..., Any]
# Two subjects; three sessions of two NIFTI files and one note each.
FILES, BYTES = 9, 3 * (2 * 1000 + 5)


@pytest.fixture
def ends(signed_in: Sandbox, destination: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source and destination by the environment alone."""
    monkeypatch.setenv("XNAT_DEST_URL", destination.url)
    monkeypatch.setenv("XNAT_DEST_USER", "admin")
    monkeypatch.setenv("XNAT_DEST_PASS", "admin")


def line(project: str, *more: str) -> tuple[str, ...]:
    return ("project", "transfer", "-P", "STUDY", "--dest-project", project, "--yes", *more)


def test_the_summary_has_the_fields_of_the_contract_and_a_second_run_moves_nothing(
    xnatctl: Call, ends: None, signed_in: Sandbox, destination: Sandbox
) -> None:
    done = xnatctl(*line("ONE", "-o", "json"))
    assert done.code == 0, done.err
    summary = done.json()
    expected = {
        "source": signed_in.url,
        "destination": destination.url,
        "source_project": "STUDY",
        "dest_project": "ONE",
        "subjects_failed": 0,
        "experiments_synced": 3,
        "success": True,
        "dry_run": False,
        "files": FILES,
        "bytes": BYTES,
    }
    assert summary | expected == summary
    assert sum(summary["verified"].values()) == FILES
    again = xnatctl(*line("ONE", "-o", "json")).json()
    assert again | {"files": 0, "bytes": 0, "success": True, "experiments_synced": 0} == again


def test_the_events_of_a_run_end_with_its_summary(
    xnatctl: Call, ends: None, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    assert xnatctl(*line("TWO", "--events", str(file))).code == 0
    events = [json.loads(text) for text in file.read_text().splitlines()]
    assert events[0]["event"] == "run_started"
    assert events[-1]["event"] == "run_done"
    assert events[-1]["files"] == FILES
    done = [one for one in events if one["event"] == "item_done" and one["became"] == "copied"]
    assert sum(one["files"] for one in done) == FILES
    assert sum(one["bytes"] for one in done) == BYTES


def test_with_json_lines_each_line_of_stdout_is_an_event(xnatctl: Call, ends: None) -> None:
    done = xnatctl(*line("THREE", "-o", "jsonl"))
    records = [json.loads(text) for text in done.out.splitlines()]
    assert records[0]["event"] == "run_started"
    assert any(one.get("event") == "run_done" for one in records[-2:])


def test_a_quiet_run_that_goes_well_says_nothing(xnatctl: Call, ends: None) -> None:
    done = xnatctl(*line("FOUR", "-q"))
    assert (done.code, done.out, done.err) == (0, "", ""), done.err


def test_a_person_gets_a_row_a_kind_and_the_totals(xnatctl: Call, ends: None) -> None:
    done = xnatctl(*line("FIVE", "-o", "table"))
    assert "session" in done.out
    assert f"{FILES} files moved" in done.err


def test_nobody_is_asked_in_a_pipe_so_the_flag_is_named(xnatctl: Call, ends: None) -> None:
    done = xnatctl("project", "transfer", "-P", "STUDY", "--dest-project", "SIX")
    assert done.code == 2
    assert "add --yes" in done.err
    assert xnatctl("project", "show", "SIX").code == 5


def test_the_password_of_the_source_is_never_tried_at_the_destination(
    xnatctl: Call, ends: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XNAT_DEST_USER")
    monkeypatch.delenv("XNAT_DEST_PASS")
    done = xnatctl(*line("SEVEN"))
    assert done.code == 3
    assert "XNAT_DEST_USER" in done.err


def test_a_password_for_the_destination_on_the_line_is_refused(xnatctl: Call, ends: None) -> None:
    done = xnatctl(*line("EIGHT", "--dest-pass", "hunter22"))
    assert done.code == 2
    assert "hunter22" not in done.err
    assert "--dest-pass-stdin" in done.err


def test_a_missing_project_exits_5_and_creates_nothing(xnatctl: Call, ends: None) -> None:
    done = xnatctl("project", "transfer", "-P", "NOPE", "--dest-project", "NINE", "--yes")
    assert done.code == 5, done.err
    assert done.out == ""


def test_both_ends_are_checked_before_anything_is_written(
    xnatctl: Call, ends: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = ("project", "transfer-check", "-P", "STUDY", "--dest-project", "TEN", "-o", "json")
    done = xnatctl(*check)
    assert done.code == 0, done.err
    assert {one["status"] for one in done.json()} <= {"OK", "WARN"}
    assert done.json()[0].keys() == {"check", "status", "detail"}
    monkeypatch.setenv("XNAT_DEST_PASS", "wrong")
    failed = xnatctl(*check)
    assert failed.code == 1
    refused = [one["detail"] for one in failed.json() if one["status"] == "FAIL"]
    assert any("refused the login" in words for words in refused)


def test_a_selection_that_fits_nothing_is_said(xnatctl: Call, ends: None) -> None:
    done = xnatctl(*line("TWELVE", "--session", "SUB9_*"))
    assert (done.code, "fits no subject and no session of STUDY" in done.err) == (0, True)


def test_the_map_and_the_report_tell_what_became_of_ids_and_of_twins(
    xnatctl: Call, ends: None, signed_in: Sandbox, destination: Sandbox, tmp_path: Path
) -> None:
    store = signed_in.store
    project = store.create_project("TWINS")
    session = store.create_experiment(store.create_subject(project, "S1"), "S1_MR1")
    for text in (b"first", b"second"):
        store.add_file(store.create_resource(session, "TWICE"), "same.txt", text)
    call = ("project", "transfer", "-P", "TWINS", "--dest-project", "TWINS", "--yes")
    told = "S1_MR1: a second resource called TWICE is resources/TWICE_2 at the destination"

    done = xnatctl(*call)
    assert (done.code, told in done.err) == (0, True), done.err
    report = ("project", "transfer-report", "-P", "TWINS")
    page = tmp_path / "report.html"
    assert told in xnatctl(*report).err
    assert xnatctl(*report, "--html", str(page)).code == 0
    assert "a second resource called TWICE" in page.read_text()

    rows = xnatctl("project", "transfer-map", "-P", "TWINS", "-o", "json").json()
    there = destination.store.find_project("TWINS")
    became = {
        (one["what"], one["source"]): one["became"] for one in rows if "S1_MR1" in one["unit"]
    }
    assert became == {
        ("session", session.code): destination.store.find_experiment("S1_MR1", there).code,  # type: ignore[union-attr]
        ("resource", "TWICE"): "resources/TWICE_2",
    }


def test_the_history_of_transfers_has_the_fields_of_the_contract(xnatctl: Call, ends: None) -> None:
    assert xnatctl("project", "transfer-status", "-P", "STUDY").code == 5
    empty = xnatctl("project", "transfer-history", "-P", "STUDY", "-o", "json")
    assert (empty.code, empty.json()) == (1, [])
    assert xnatctl(*line("ELEVEN")).code == 0
    status = xnatctl("project", "transfer-status", "-P", "STUDY", "-o", "json").json()
    keys = "sync_id status started ended subjects_synced subjects_failed subjects_skipped"
    assert status.keys() >= {*keys.split(), "destination", "dest_project"}
    assert status["dest_project"] == "ELEVEN"
    (row,) = xnatctl("project", "transfer-history", "-P", "STUDY", "-o", "json").json()
    assert row.keys() >= {"id", "status", "started", "dest", "synced", "failed"}
