"""The read commands: spelling, fields and exit codes, against a sandbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("signed_in")


def test_project_list_is_an_array_of_id_name_pi_description(xnatctl: Call) -> None:
    done = xnatctl("project", "list", "-o", "json")
    assert done.code == 0
    assert done.json() == [
        {"id": "STUDY", "name": "STUDY", "pi": "", "description": "Ageing [red] study"},
        {"id": "EMPTY", "name": "EMPTY", "pi": "", "description": "é"},
    ]


def test_project_show_counts_what_it_holds(xnatctl: Call) -> None:
    done = xnatctl("project", "show", "STUDY", "-o", "json")
    assert done.json() == {
        "id": "STUDY",
        "name": "STUDY",
        "secondary_id": "STUDY",
        "pi": "",
        "description": "Ageing [red] study",
        "accessibility": "private",
        "subjects": 2,
        "sessions": 3,
    }


def test_subject_list_has_id_label_and_sessions(xnatctl: Call) -> None:
    done = xnatctl("subject", "list", "-P", "STUDY", "-o", "json")
    assert [(one["label"], one["sessions"]) for one in done.json()] == [("SUB1", 2), ("SUB2", 1)]
    assert done.json()[0].keys() == {"id", "label", "sessions"}
    assert xnatctl("subject", "list", "-P", "STUDY", "-q").out == "SUB1\nSUB2\n"


def test_subject_show_has_the_fields_of_the_contract(xnatctl: Call) -> None:
    document = xnatctl("subject", "show", "SUB1", "--project", "STUDY", "-o", "json").json()
    assert document | {"label": "SUB1", "project": "STUDY", "session_count": 2} == document
    assert document["sessions"] == ["SUB1_MR1", "SUB1_MR2"]
    assert document["shared_projects"] == []


def test_session_list_of_a_subject_gives_accession_ids(xnatctl: Call) -> None:
    done = xnatctl("session", "list", "-P", "STUDY", "--subject", "SUB1", "--output", "json")
    first = done.json()[0]
    assert first | {"label": "SUB1_MR1", "subject": "SUB1", "date": "2024-01-01"} == first
    assert first.keys() == {"id", "label", "subject", "date", "modality"}
    assert first["modality"] == "MR"
    assert len(done.json()) == 2
    quiet = xnatctl("session", "list", "-P", "STUDY", "-S", "SUB1", "-q")
    assert quiet.out.splitlines() == [one["id"] for one in done.json()]


def test_an_empty_list_is_an_empty_array_and_a_success(xnatctl: Call) -> None:
    done = xnatctl("session", "list", "-P", "EMPTY", "-o", "json")
    assert (done.code, done.out) == (0, "[]\n")


def test_sessions_are_chosen_by_modality_whatever_its_case(xnatctl: Call) -> None:
    assert len(xnatctl("session", "list", "-P", "STUDY", "--modality", "mr", "-q").out.split()) == 3
    assert xnatctl("session", "list", "-P", "STUDY", "--modality", "CT", "-q").out == ""
    assert xnatctl("session", "list", "-P", "STUDY", "--modality", " ").code == 2


def test_session_show_carries_the_rows_of_the_server(xnatctl: Call) -> None:
    document = xnatctl("session", "show", "-P", "STUDY", "-E", "SUB1_MR1", "-o", "json").json()
    assert document.keys() == {
        "id",
        "label",
        "subject",
        "project",
        "date",
        "xsi_type",
        "scans",
        "resources",
        "shared_projects",
    }
    assert document["subject"] == "SUB1"
    assert document["xsi_type"] == "xnat:mrSessionData"
    assert {one["ID"] for one in document["scans"]} == {"3", "10"}
    assert [one["label"] for one in document["resources"]] == ["NOTES"]
    again = xnatctl("session", "show", "-E", document["id"], "-o", "json").json()
    assert again == document


def test_session_show_for_a_person_has_a_table_a_part(xnatctl: Call) -> None:
    out = xnatctl("session", "show", "-P", "STUDY", "-E", "SUB1_MR1", "-o", "table").out
    assert "Subject  SUB1\n" in out
    assert "\nScans (2)\nID  TYPE  SERIES  QUALITY\n" in out
    assert "\nResources (1)\n" in out


def test_scan_list_has_the_fields_of_the_contract(xnatctl: Call) -> None:
    done = xnatctl("scan", "list", "-P", "STUDY", "-E", "SUB1_MR1", "--output", "json")
    assert {one["id"] for one in done.json()} == {"3", "10"}
    assert done.json()[0].keys() == {
        "id",
        "type",
        "series_description",
        "quality",
        "frames",
        "note",
    }


def test_scan_list_of_a_missing_session_prints_nothing_and_exits_5(xnatctl: Call) -> None:
    done = xnatctl("scan", "list", "-P", "STUDY", "-E", "NOPE", "--output", "json")
    assert (done.code, done.out) == (5, "")
    assert '"code":5' in done.err


def test_scan_show_names_the_resources(xnatctl: Call) -> None:
    document = xnatctl("scan", "show", "-P", "STUDY", "-E", "SUB1_MR1", "3", "-o", "json").json()
    assert document | {"id": "3", "type": "T1w", "resources": ["NIFTI"]} == document
    missing = xnatctl("scan", "show", "-P", "STUDY", "-E", "SUB1_MR1", "4")
    assert missing.code == 5
    assert "no scan 4 in session SUB1_MR1" in missing.err


def test_resource_list_gives_numbers_as_texts(xnatctl: Call) -> None:
    session = xnatctl("session", "list", "-P", "STUDY", "-q").out.split()[0]
    done = xnatctl("resource", "list", session, "--scan", "3", "--output", "json")
    assert done.json() == [
        {
            "label": "NIFTI",
            "format": "NIFTI",
            "file_count": "1",
            "file_size": "1000",
            "content": "",
        }
    ]


@pytest.mark.parametrize(
    ("where", "labels"),
    [
        (("SUB1_MR1", "-P", "STUDY"), "NOTES\n"),
        (("SUB1_MR1", "-P", "STUDY", "--scan", "3"), "NIFTI\n"),
        (("-P", "STUDY"), ""),
        (("-P", "STUDY", "-S", "SUB1"), ""),
    ],
)
def test_resources_are_listed_at_every_level(
    xnatctl: Call, where: tuple[str, ...], labels: str
) -> None:
    done = xnatctl("resource", "list", *where, "-q")
    assert (done.code, done.out) == (0, labels)


def test_resource_list_of_nothing_is_a_usage_error(xnatctl: Call) -> None:
    assert xnatctl("resource", "list").code == 2
    assert xnatctl("resource", "list", "--scan", "3").code == 2


@pytest.mark.parametrize(
    "argv",
    [
        ("project", "show", "NOPE"),
        ("subject", "list", "-P", "NOPE"),
        ("subject", "show", "NOPE", "-P", "STUDY"),
        ("session", "list", "-P", "NOPE"),
        ("session", "show", "-E", "NOPE"),
        ("session", "show", "-P", "STUDY", "-E", "NOPE"),
        ("scan", "list", "-P", "STUDY", "-S", "SUB2", "-E", "SUB1_MR1"),
        ("resource", "list", "NOPE"),
        ("resource", "list", "SUB1_MR1", "-P", "STUDY", "--scan", "99"),
        ("resource", "list", "-P", "STUDY", "-S", "NOPE"),
    ],
)
def test_what_is_not_there_exits_5_in_words_without_an_address(
    xnatctl: Call, argv: tuple[str, ...]
) -> None:
    done = xnatctl(*argv)
    assert (done.code, done.out) == (5, "")
    assert done.err.startswith("error: no ")
    assert "/data/" not in done.err.splitlines()[0]


def test_the_profile_names_the_project_when_the_line_does_not(
    xnatctl: Call, signed_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    xnatctl("config", "add-profile", "lab", "--url", signed_in.url, "--project", "STUDY")
    monkeypatch.delenv("XNAT_URL")
    assert len(xnatctl("session", "list", "-p", "lab", "-q").out.split()) == 3
    assert xnatctl("session", "show", "-p", "lab", "-E", "SUB1_MR1").code == 0
    assert xnatctl("session", "list", "-p", "lab", "-P", "EMPTY", "-q").out == ""


def test_without_a_project_the_line_to_type_is_named(xnatctl: Call) -> None:
    done = xnatctl("session", "list")
    assert done.code == 2
    assert "fix: add -P PROJECT" in done.err


def test_list_options_do_the_same_on_a_real_list(xnatctl: Call) -> None:
    done = xnatctl(
        *("session", "list", "-P", "STUDY", "--filter", "label:sub1*"),
        *("--sort-by", "date:desc", "--limit", "1", "--columns", "label,date", "-o", "csv"),
    )
    assert done.out == "label,date\nSUB1_MR2,2024-02-01\n"


def test_global_options_stand_before_or_after_the_command(xnatctl: Call) -> None:
    after = xnatctl("project", "list", "-o", "json", "-q")
    before = xnatctl("-o", "json", "-q", "project", "list")
    between = xnatctl("project", "-q", "list", "-o", "json")
    assert after.out == before.out == between.out == "STUDY\nEMPTY\n"


def test_a_project_is_created_once_and_a_second_time_only_if_that_is_fine(xnatctl: Call) -> None:
    made = xnatctl("project", "create", "NEW", "--name", "New one", "--pi", "Smith")
    assert (made.code, made.out) == (0, "")
    assert "Project created: NEW" in made.err
    shown = xnatctl("project", "show", "NEW", "-o", "json").json()
    assert shown | {"name": "New one", "pi": "Smith", "accessibility": "private"} == shown
    assert xnatctl("project", "create", "NEW").code == 9
    again = xnatctl("project", "create", "NEW", "--exist-ok", "-o", "json")
    assert again.json() == {"success": True, "project": "NEW", "created": False}
    assert xnatctl("project", "create", "OPEN", "--accessibility", "public").code == 0
    assert xnatctl("project", "show", "OPEN", "-o", "json").json()["accessibility"] == "public"


def test_control_characters_of_the_server_are_shown_as_escapes(xnatctl: Call) -> None:
    done = xnatctl("scan", "list", "-P", "STUDY", "-E", "SUB1_MR1", "--columns", "note")
    assert "\x9b" not in done.out
    assert "a\\x9b31mb" in done.out
