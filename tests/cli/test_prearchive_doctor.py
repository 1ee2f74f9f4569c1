"""What the doctor says of each kind of entry; it decides without asking a server."""

from __future__ import annotations

from xnatctl.cli.prearchive_doctor import Archived, Finding, Seen, diagnose
from xnatctl.model import PrearchiveEntry


def entry(
    name: str = "S1",
    stamp: str = "1",
    *,
    study: str = "1.1",
    status: str = "READY",
    project: str = "P",
    source: str = "",
) -> PrearchiveEntry:
    return PrearchiveEntry(
        project,
        stamp,
        name,
        name,
        status,
        study_uid=study,
        source=source,
        prevent_auto_commit=source == "uploader",
    )


def seen(*entries: PrearchiveEntry) -> dict[str, PrearchiveEntry]:
    return {f"{one.project}/{one.timestamp}/{one.folder}": one for one in entries}


def only(found: list[Finding]) -> Finding:
    (one,) = found
    return one


def test_an_entry_without_a_flaw_is_ready_and_would_be_archived() -> None:
    found = only(diagnose(Seen(seen(entry()))))
    assert (found.kind, found.action) == ("ready", "archive")
    assert found.advice == "xnatctl prearchive archive P 1 S1"


def test_a_study_in_two_entries_of_one_label_is_split_by_time_and_never_merged() -> None:
    found = diagnose(Seen(seen(entry(stamp="1"), entry(stamp="2"))))
    assert {one.kind for one in found} == {"split"}
    assert {one.action for one in found} == {""}


def test_a_study_under_two_labels_is_the_same_twice() -> None:
    found = diagnose(Seen(seen(entry("S1"), entry("S2"))))
    assert {one.kind for one in found} == {"same-uid"}


def test_two_studies_under_one_label_clash() -> None:
    found = diagnose(Seen(seen(entry(stamp="1"), entry(stamp="2", study="2.2"))))
    assert {one.kind for one in found} == {"label-clash"}


def test_a_label_that_the_archive_has_for_another_study_clashes() -> None:
    found = only(diagnose(Seen(seen(entry()), archived={"P/1/S1": Archived("9.9")})))
    assert (found.kind, found.action) == ("label-clash", "")


def test_what_the_archive_has_already_is_superfluous_only_when_nothing_lacks() -> None:
    whole = only(diagnose(Seen(seen(entry()), archived={"P/1/S1": Archived("1.1", 0)})))
    assert (whole.kind, whole.action) == ("in-archive", "delete")
    part = only(diagnose(Seen(seen(entry()), archived={"P/1/S1": Archived("1.1", 3)})))
    assert (part.kind, part.action) == ("in-archive", "")
    assert "lacks 3" in part.says


def test_an_entry_that_is_held_is_stuck_only_when_a_second_look_shows_no_change() -> None:
    held = seen(entry(status="_ARCHIVING"))
    assert only(diagnose(Seen(held))).kind == "busy"
    stuck = only(diagnose(Seen(held, unchanged=frozenset(held))))
    assert (stuck.kind, stuck.action) == ("stuck", "rebuild")
    queued = seen(entry(status="QUEUED_BUILDING"))
    assert only(diagnose(Seen(queued, unchanged=frozenset(queued)))).kind == "stuck"


def test_objects_of_several_studies_in_one_entry_are_named() -> None:
    found = only(diagnose(Seen(seen(entry()), studies={"P/1/S1": 2})))
    assert (found.kind, found.action) == ("several-studies", "")


def test_an_entry_that_is_being_received_waits_for_whoever_sends_it() -> None:
    theirs = only(diagnose(Seen(seen(entry(status="RECEIVING")))))
    ours = only(diagnose(Seen(seen(entry(status="RECEIVING", source="uploader")))))
    assert (theirs.kind, theirs.advice) == ("waiting", "wait")
    assert (ours.kind, ours.action) == ("waiting", "")
    assert "run that upload again" in ours.advice


def test_a_failed_entry_tells_the_reason_of_its_log() -> None:
    found = only(diagnose(Seen(seen(entry(status="ERROR")), reasons={"P/1/S1": "no scan"})))
    assert (found.kind, found.says) == ("failed", "no scan")


def test_an_entry_without_a_project_is_to_be_moved() -> None:
    found = only(diagnose(Seen(seen(entry(project="Unassigned")))))
    assert found.kind == "unassigned"
    assert found.advice.startswith("xnatctl prearchive move Unassigned 1 S1")
