"""The commands that change what a server holds, against a sandbox: what they do and what they
refuse.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from xnatctl.sandbox.server import Sandbox

Call = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("signed_in")
_NUMBERS = count(1)


@pytest.fixture
def study(server: Sandbox) -> str:
    """A project of its own for each test: two subjects, three sessions, a variable, a visit."""
    name = f"CHANGE{next(_NUMBERS)}"
    store = server.store
    project = store.create_project(name)
    for label, sessions in (("A", 2), ("B", 1)):
        subject = store.create_subject(project, label)
        for number in range(1, sessions + 1):
            session = store.create_experiment(
                subject,
                f"{label}_MR{number}",
                fields={"date": f"2024-0{number}-01", "visit": "v1"},
            )
            for scan in ("1", "2"):
                store.create_scan(session, scan, fields={"type": "T1w", "quality": "usable"})
    return name


@pytest.fixture
def other(server: Sandbox) -> str:
    name = f"OTHER{next(_NUMBERS)}"
    server.store.create_project(name)
    return name


def labels(xnatctl: Call, what: str, project: str) -> list[str]:
    rows = xnatctl(what, "list", "-P", project, "-o", "json").json()
    return [row["label"] for row in rows]


# --- deleting ------------------------------------------------------------------------------------


def test_a_subject_is_deleted_with_its_sessions(xnatctl: Call, study: str) -> None:
    assert xnatctl("subject", "delete", "A", "-P", study, "--yes").code == 0
    assert labels(xnatctl, "subject", study) == ["B"]
    assert labels(xnatctl, "session", study) == ["B_MR1"]


def test_a_dry_run_prints_the_plan_and_deletes_nothing(xnatctl: Call, study: str) -> None:
    done = xnatctl("subject", "delete", "A", "-P", study, "--dry-run", "-o", "json")
    assert done.code == 0
    (row,) = done.json()
    assert (row["action"], row["target"], row["status"]) == ("delete", "subject A", "planned")
    assert "2 experiments" in row["detail"]
    assert labels(xnatctl, "subject", study) == ["A", "B"]


def test_without_a_terminal_a_deletion_needs_yes(xnatctl: Call, study: str) -> None:
    done = xnatctl("subject", "delete", "A", "-P", study)
    assert (done.code, done.out) == (2, "")
    assert "--yes" in done.err
    assert labels(xnatctl, "subject", study) == ["A", "B"]


def test_nothing_is_deleted_when_one_of_the_names_is_wrong(xnatctl: Call, study: str) -> None:
    assert xnatctl("subject", "delete", "A", "NOPE", "-P", study, "--yes").code == 5
    assert labels(xnatctl, "subject", study) == ["A", "B"]


def test_a_batch_is_lines_or_a_json_array(xnatctl: Call, study: str, tmp_path: Path) -> None:
    lines, array = tmp_path / "lines", tmp_path / "array"
    lines.write_text("# those that left\nA\n\n")
    array.write_text('["B"]')
    assert xnatctl("subject", "delete", "-P", study, "--batch", str(lines), "--yes").code == 0
    assert labels(xnatctl, "subject", study) == ["B"]
    assert xnatctl("subject", "delete", "-P", study, "--batch", str(array), "--yes").code == 0
    assert labels(xnatctl, "subject", study) == []


def test_a_session_is_deleted_with_its_scans(xnatctl: Call, study: str) -> None:
    done = xnatctl("session", "delete", "-P", study, "-E", "A_MR1", "--yes", "-o", "json")
    assert [row["status"] for row in done.json()] == ["done"]
    assert labels(xnatctl, "session", study) == ["A_MR2", "B_MR1"]


def test_what_is_only_shared_into_a_project_is_not_deleted_through_it(
    xnatctl: Call, study: str, other: str
) -> None:
    xnatctl("session", "share", "-P", study, "-E", "A_MR1", "--into", other, "--yes")
    done = xnatctl("session", "delete", "-P", other, "-E", "A_MR1", "--yes")
    assert done.code == 9
    assert "unshare" in done.err
    assert "A_MR1" in labels(xnatctl, "session", study)
    assert labels(xnatctl, "session", other) == ["A_MR1"]


def test_scans_are_deleted_by_number_or_all_of_them(xnatctl: Call, study: str) -> None:
    here = ("-P", study, "-E", "A_MR1")
    assert xnatctl("scan", "delete", *here, "--scans", "1", "--yes").code == 0
    assert [row["id"] for row in xnatctl("scan", "list", *here, "-o", "json").json()] == ["2"]
    assert xnatctl("scan", "delete", *here, "--scans", "2,99", "--yes").code == 5
    assert xnatctl("scan", "delete", *here, "--scans", "*", "--yes").code == 0
    assert xnatctl("scan", "list", *here, "-o", "json").json() == []


# --- sharing -------------------------------------------------------------------------------------


def test_a_subject_is_shared_under_its_own_label(xnatctl: Call, study: str, other: str) -> None:
    assert xnatctl("subject", "share", "A", "-P", study, "--into", other, "--yes").code == 0
    assert labels(xnatctl, "subject", other) == ["A"]
    again = xnatctl("subject", "share", "A", "-P", study, "--into", other, "--yes")
    assert again.code == 0
    assert "already" in again.err


def test_a_share_can_have_another_label(xnatctl: Call, study: str, other: str) -> None:
    here = ("subject", "share", "A", "-P", study, "--into", other, "--yes")
    assert xnatctl(*here, "--label", "X").code == 0
    assert labels(xnatctl, "subject", other) == ["X"]
    assert xnatctl(*here).code == 9


def test_unsharing_from_the_own_project_is_refused_because_it_deletes(
    xnatctl: Call, study: str
) -> None:
    for command in (
        ("subject", "unshare", "A", "-P", study),
        ("session", "unshare", "-E", "A_MR1", "-P", study),
    ):
        done = xnatctl(*command, "--from", study.lower(), "--yes")
        assert done.code == 1
        assert "would delete it" in done.err
    assert labels(xnatctl, "subject", study) == ["A", "B"]
    assert "A_MR1" in labels(xnatctl, "session", study)


def test_a_share_is_taken_back_and_the_thing_stays(xnatctl: Call, study: str, other: str) -> None:
    xnatctl("session", "share", "-P", study, "-E", "A_MR1", "--into", other, "--yes")
    done = xnatctl("session", "unshare", "-P", study, "-E", "A_MR1", "--from", other, "--yes")
    assert done.code == 0
    assert labels(xnatctl, "session", other) == []
    assert "A_MR1" in labels(xnatctl, "session", study)


def test_unsharing_what_was_never_shared_says_where_it_is(
    xnatctl: Call, study: str, other: str
) -> None:
    assert xnatctl("subject", "unshare", "A", "-P", study, "--from", other, "--yes").code == 5


def test_sharing_into_a_missing_project_exits_5(xnatctl: Call, study: str) -> None:
    assert xnatctl("subject", "share", "A", "-P", study, "--into", "NOPE", "--yes").code == 5


# --- variables -----------------------------------------------------------------------------------


def test_variables_are_set_beside_those_that_are_there(xnatctl: Call, study: str) -> None:
    for words in (("cohort=A & <B>",), ("site=Ulm", "Cohort=C")):
        assert xnatctl("subject", "vars", "set", "A", *words, "-P", study, "--yes").code == 0
    rows = xnatctl("subject", "vars", "A", "-P", study, "-o", "json").json()
    assert rows == [{"name": "cohort", "value": "C"}, {"name": "site", "value": "Ulm"}]


def test_a_value_keeps_its_marks(xnatctl: Call, study: str) -> None:
    text = 'a & <b> "c" é'
    xnatctl("subject", "vars", "set", "A", f"note={text}", "-P", study, "--yes")
    rows = xnatctl("subject", "vars", "show", "A", "-P", study, "-o", "json").json()
    assert rows == [{"name": "note", "value": text}]


def test_a_variable_of_a_mistyped_subject_makes_no_new_subject(xnatctl: Call, study: str) -> None:
    assert xnatctl("subject", "vars", "set", "AA", "x=1", "-P", study, "--yes").code == 5
    assert labels(xnatctl, "subject", study) == ["A", "B"]


def test_setting_a_variable_of_a_session_keeps_its_visit(
    xnatctl: Call, study: str, server: Sandbox
) -> None:
    here = ("-P", study, "-E", "A_MR1")
    assert xnatctl("session", "vars", "set", *here, "rater=Kim", "--yes").code == 0
    assert xnatctl("session", "vars", *here, "-o", "json").json() == [
        {"name": "rater", "value": "Kim"}
    ]
    project = server.store.find_project(study)
    session = server.store.find_experiment("A_MR1", project)
    assert session is not None
    assert session.element().get("visit") == "v1"
    assert len(xnatctl("scan", "list", *here, "-o", "json").json()) == 2


# --- scans ---------------------------------------------------------------------------------------


def test_type_quality_and_note_of_scans_are_set(xnatctl: Call, study: str) -> None:
    here = ("-P", study, "-E", "A_MR1")
    note = "moved <1 mm> & more"
    done = xnatctl("scan", "set", "2", *here, "--quality", "unusable", "--note", note)
    assert done.code == 0, done.err
    assert xnatctl("scan", "set", "1", "2", *here, "--type", "T2w", "--yes").code == 0
    rows = xnatctl("scan", "list", *here, "-o", "json").json()
    assert [(row["type"], row["quality"], row["note"]) for row in rows] == [
        ("T2w", "usable", ""),
        ("T2w", "unusable", note),
    ]


def test_setting_a_missing_scan_makes_none(xnatctl: Call, study: str) -> None:
    here = ("-P", study, "-E", "A_MR1")
    assert xnatctl("scan", "set", "7", *here, "--type", "T2w").code == 5
    assert len(xnatctl("scan", "list", *here, "-o", "json").json()) == 2


# --- renaming ------------------------------------------------------------------------------------


def test_subjects_are_renamed_by_a_mapping(xnatctl: Call, study: str, tmp_path: Path) -> None:
    mapping = tmp_path / "map.json"
    mapping.write_text(json.dumps({"A": "B", "B": "C"}))
    assert xnatctl("subject", "rename", "-P", study, "--mapping", str(mapping)).code == 0
    rows = xnatctl("subject", "list", "-P", study, "-o", "json").json()
    assert {row["label"]: row["sessions"] for row in rows} == {"B": 2, "C": 1}


def test_subjects_are_renamed_by_a_pattern(xnatctl: Call, study: str) -> None:
    words = ("--pattern", "^([A-Z])$", "--to", "{project}-{1}")
    plan = xnatctl("subject", "rename", "-P", study, *words, "--dry-run", "-o", "json").json()
    assert [(row["target"], row["detail"]) for row in plan] == [
        ("subject A", f"{study}-A"),
        ("subject B", f"{study}-B"),
    ]
    assert xnatctl("subject", "rename", "-P", study, *words).code == 0
    assert labels(xnatctl, "subject", study) == [f"{study}-A", f"{study}-B"]


def test_the_first_pattern_of_the_project_counts(xnatctl: Call, study: str, tmp_path: Path) -> None:
    patterns = tmp_path / "patterns.json"
    rules = [
        {"project": "ELSE", "match": ".*", "to": "never"},
        {"project": study, "match": "^A$", "to": "first"},
        {"project": study, "match": "^(.*)$", "to": "x{1}"},
    ]
    patterns.write_text(json.dumps({"patterns": rules}))
    assert xnatctl("subject", "rename", "-P", study, "--patterns-file", str(patterns)).code == 0
    assert labels(xnatctl, "subject", study) == ["first", "xB"]


def test_a_merge_moves_the_sessions_keeps_their_visit_and_is_asked_for(
    xnatctl: Call, study: str, server: Sandbox
) -> None:
    words = ("subject", "rename", "-P", study, "--pattern", "^B$", "--to", "A")
    assert xnatctl(*words).code == 2
    assert xnatctl(*words, "--yes").code == 0
    rows = xnatctl("subject", "list", "-P", study, "-o", "json").json()
    assert [(row["label"], row["sessions"]) for row in rows] == [("A", 3)]
    session = server.store.find_experiment("B_MR1", server.store.find_project(study))
    assert session is not None
    assert session.element().get("visit") == "v1"


def test_a_subject_that_still_holds_files_is_not_merged_away(
    xnatctl: Call, study: str, server: Sandbox
) -> None:
    project = server.store.find_project(study)
    subject = server.store.find_subject("B", project)
    assert subject is not None
    server.store.create_resource(subject, "CONSENT")
    words = ("subject", "rename", "-P", study, "--pattern", "^B$", "--to", "A", "--yes")
    done = xnatctl(*words)
    assert done.code == 1
    assert "CONSENT" in done.err
    assert labels(xnatctl, "subject", study) == ["A", "B"]


def test_a_session_is_renamed_and_keeps_its_fields(xnatctl: Call, study: str) -> None:
    done = xnatctl("session", "rename", "-P", study, "-E", "A_MR1", "--to", "A_BASE")
    assert done.code == 0, done.err
    shown = xnatctl("session", "show", "-P", study, "-E", "A_BASE", "-o", "json").json()
    assert (shown["date"], len(shown["scans"])) == ("2024-01-01", 2)


def test_a_session_does_not_take_the_label_of_another(xnatctl: Call, study: str) -> None:
    assert xnatctl("session", "rename", "-P", study, "-E", "A_MR1", "--to", "B_MR1").code == 9
    assert labels(xnatctl, "session", study) == ["A_MR1", "A_MR2", "B_MR1"]


def test_labels_are_normalized_by_subject_date_and_modality(xnatctl: Call, study: str) -> None:
    assert xnatctl("session", "normalize-labels", "-P", study).code == 2
    assert xnatctl("session", "normalize-labels", "-P", study, "--yes").code == 0
    assert labels(xnatctl, "session", study) == ["A_01_SE01_MR", "A_02_SE01_MR", "B_01_SE01_MR"]
    again = xnatctl("session", "normalize-labels", "-P", study, "--dry-run", "-o", "json")
    assert again.json() == []


# --- members -------------------------------------------------------------------------------------


def test_access_is_shown_and_changed(xnatctl: Call, study: str) -> None:
    assert xnatctl("project", "access", study, "-o", "json").json() == {
        "project": study,
        "accessibility": "private",
    }
    assert xnatctl("project", "access", study, "--set", "public", "--dry-run").code == 0
    assert xnatctl("project", "access", study, "-q").out == "private\n"
    assert xnatctl("project", "access", study, "--set", "public", "--yes").code == 0
    assert xnatctl("project", "access", study, "-q").out == "public\n"


def test_access_requests_are_an_array(xnatctl: Call, study: str) -> None:
    assert xnatctl("project", "requests", study, "-o", "json").json() == []


def test_members_of_a_missing_project_exit_5(xnatctl: Call) -> None:
    assert xnatctl("project", "users", "NOPE").code == 5
    assert xnatctl("project", "access", "NOPE").code == 5
