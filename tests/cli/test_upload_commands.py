"""`session upload` and the prearchive as they are typed: exit codes, stdout, stderr."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from tests.cli.conftest import Result
from tests.integration.uploading import STUDY, series, uids_on_disk, write_export, write_series
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings

Call = Callable[..., Result]

SCRIPT = r"""
set -euo pipefail
xnatctl session upload "$EXPORT" -P STUDY -S NEW1 -E NEW1_MR1 --prearchive --workers 2
xnatctl prearchive list --project STUDY
set -- $(xnatctl prearchive list --project STUDY -o json | jq -r '.[0] | .timestamp, .folderName')
xnatctl prearchive archive STUDY "$1" "$2" --subject NEW1 --label NEW1_BASE
xnatctl session upload "$EXPORT2" -P STUDY -S NEW2 -E NEW2_MR1 --prearchive
path=$(xnatctl prearchive list --project STUDY -q)
xnatctl prearchive delete "$path" --yes
test -z "$(xnatctl prearchive list --project STUDY -q)"
xnatctl session list -P STUDY --subject NEW1 --output json | jq -r '.[].label'
"""


def line(path: Path, label: str, *more: str, subject: str = "UP1") -> tuple[str, ...]:
    return ("session", "upload", str(path), "-P", "STUDY", "-S", subject, "-E", label, *more)


def test_the_documented_two_steps_run_as_a_shell_script(
    signed_in: Sandbox, home: Path, tmp_path: Path
) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "xnatctl").write_text(f'#!/bin/sh\nexec {sys.executable} -m xnatctl "$@"\n')
    (bin_ / "xnatctl").chmod(0o755)
    write_export(tmp_path / "one")
    write_series(tmp_path / "two", series(4, study=replace(STUDY, label="TWO")))
    done = subprocess.run(
        ["bash", "-c", SCRIPT],
        env={
            **os.environ,
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "EXPORT": str(tmp_path / "one"),
            "EXPORT2": str(tmp_path / "two"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "NEW1_BASE"
    assert "Deleted NEW2_MR1 from prearchive" in done.stderr


def test_the_summary_has_the_fields_that_scripts_read(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    (export / "notes.txt").write_text("notes")
    done = xnatctl(*line(export, "UP1_MR1", "-o", "json"))
    assert done.code == 0, done.err
    found = done.json()
    contract = (
        "operation session_id project output_dir source scans files bytes duration_seconds status "
        "items verification skipped_unsafe_entries"
    )
    assert found.keys() >= set(contract.split())
    assert (found["operation"], found["session_id"], found["project"]) == (
        "upload",
        "UP1_MR1",
        "STUDY",
    )
    assert (found["files"], found["scans"], found["status"]) == (7, 2, "success")
    assert found["bytes"] == sum(one.stat().st_size for one in export.rglob("*.dcm"))
    assert sorted(found["items"], key=lambda one: one["id"]) == [
        {"id": "3", "status": "success", "error": None},
        {"id": "5", "status": "success", "error": None},
    ]
    assert found["uri"].endswith("/subjects/UP1/experiments/UP1_MR1")
    assert [one["file"] for one in found["left_out"]] == ["notes.txt"]


def test_a_person_is_told_what_was_left_out_and_where_it_went(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    (export / "notes.txt").write_text("notes")
    done = xnatctl(*line(export, "UP2_MR1", subject="UP2"))
    assert done.code == 0, done.err
    assert "left behind: notes.txt of UP2_MR1 (other-file): it is a text" in done.err
    assert "in /data/archive/projects/STUDY/subjects/UP2/experiments/UP2_MR1" in done.err


def test_an_existing_session_exits_9_and_names_the_way_on(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    assert xnatctl(*line(export, "UP3_MR1", subject="UP3")).code == 0
    write_series(export / "more", series(9))
    done = xnatctl(*line(export, "UP3_MR1", subject="UP3"))
    assert done.code == 9, done.err
    assert "--overwrite append" in done.err
    assert xnatctl(*line(export, "UP3_MR1", "--dry-run", subject="UP3")).code == 9


@pytest.mark.parametrize("output", ["json", "table"])
def test_a_file_that_cannot_be_explained_exits_1_in_every_format(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path, output: str
) -> None:
    export = write_export(tmp_path / "export")
    (export / "data.raw").write_bytes(bytes(range(256)) * 3)
    done = xnatctl(*line(export, "UP4_MR1", "-o", output, subject="UP4"))
    assert done.code == 1
    assert "data.raw" in done.err
    assert "--ignore-unparsable" in done.err


def test_a_missing_project_exits_5_and_a_missing_path_too(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    lost = ("session", "upload", str(export), "-P", "NOPE", "-S", "A", "-E", "B")
    assert xnatctl(*lost).code == 5
    assert xnatctl(*line(tmp_path / "missing", "X")).code == 5


def test_a_login_that_is_named_for_the_upload_is_the_one_that_is_used(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = write_export(tmp_path / "export")
    monkeypatch.setattr(sys, "stdin", io.StringIO("wrong\n"))
    done = xnatctl(*line(export, "UP5_MR1", "-u", "somebody", "--password-stdin"))
    assert done.code == 3, done.err
    assert "somebody" in done.err


def test_a_password_on_the_line_is_refused(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    done = xnatctl(*line(tmp_path, "X", "--password", "hunter22"))
    assert done.code == 2
    assert "hunter22" not in done.err


def test_an_exam_brings_its_other_folders_as_resources(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    root = tmp_path / "exam"
    write_export(root / "DICOM")
    (root / "PHYSIO").mkdir()
    (root / "PHYSIO" / "pulse.log").write_text("60 61 62")
    (root / "PHYSIO" / "raw.dat").write_bytes(bytes(range(256)))
    (root / "DICOM" / "consent.pdf").write_bytes(b"%PDF-1.4 signed")
    (root / "protocol.txt").write_text("T1, T2")
    command = ("session", "upload-exam", str(root), "-P", "STUDY", "-S", "EX1", "-E", "EX1_MR1")
    done = xnatctl(*command, "--skip-resources", "-o", "json")
    assert done.code == 0, done.err
    assert done.json()["scans"] == 2
    done = xnatctl(*command, "--attach-only", "-o", "json")
    assert done.code == 0, done.err
    assert {one["id"] for one in done.json()["items"]} == {"resource:PHYSIO", "resource:MISC"}
    labels = xnatctl("resource", "list", "EX1_MR1", "-P", "STUDY", "-o", "json").json()
    assert {one["label"]: one["file_count"] for one in labels} == {"PHYSIO": "2", "MISC": "2"}
    again = xnatctl(*command, "-o", "json")
    assert (again.code, again.json()["files_sent"]) == (0, 0)
    whole = ("session", "upload-exam", str(root), "-P", "STUDY", "-S", "EX2", "-E", "EX2_MR1")
    done = xnatctl(*whole, "--misc-label", "STRAY", "-o", "json")
    assert done.code == 0, done.err
    labels = xnatctl("resource", "list", "EX2_MR1", "-P", "STUDY", "-o", "json").json()
    assert {one["label"] for one in labels} == {"PHYSIO", "STRAY"}


def test_attaching_to_a_session_that_is_not_there_fails(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    root = tmp_path / "exam"
    (root / "PHYSIO").mkdir(parents=True)
    (root / "PHYSIO" / "pulse.log").write_text("60 61 62")
    command = ("session", "upload-exam", str(root), "-P", "STUDY", "-S", "EX3", "-E", "NONE")
    done = xnatctl(*command, "--attach-only")
    assert done.code == 5, done.err
    assert "STUDY has no session NONE" in done.err


@pytest.mark.parametrize("how", [("--wait-timeout", "0"), ("--no-wait-for-archive",)])
def test_the_older_spellings_of_patience_end_it(
    xnatctl: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...]
) -> None:
    export = write_export(tmp_path / "export")
    slow = Settings(archive_s=2.0, archive_timeout_s=0.05)
    with start_blocking_portal() as portal:
        sandbox = Sandbox(tmp_path / "server", settings=slow)
        sandbox.store.create_project("STUDY")
        with portal.wrap_async_context_manager(sandbox):
            monkeypatch.setenv("XNAT_URL", sandbox.url)
            monkeypatch.setenv("XNAT_USER", "admin")
            monkeypatch.setenv("XNAT_PASS", "admin")
            command = ("session", "upload-exam", str(export), "-P", "STUDY", "-S", "S1", "-E", "E1")
            done = xnatctl(*command, "--wait-interval", "1", *how)
            assert done.code == 4, done.err
            assert "still archiving" in done.err
            assert sandbox.counters.count("POST", "/services/archive") == 1
            done = xnatctl(*command, "--wait-interval", "1", "--wait-for-archive")
            assert done.code == 0, done.err
            assert sandbox.counters.count("POST", "/services/archive") == 1


# --- the prearchive ----------------------------------------------------------------------------


def waiting(xnatctl: Call, folder: Path, label: str) -> dict[str, str]:
    """A session of its own in the prearchive, as its row."""
    study = replace(STUDY, label=f"study of {label}")
    write_series(folder / label, series(3, study=study, slices=2))
    done = xnatctl(*line(folder / label, label, "--prearchive", subject="PRE"))
    assert done.code == 0, done.err
    rows = xnatctl("prearchive", "list", "-P", "STUDY", "-o", "json").json()
    return next(row for row in rows if row["name"] == label)


def triple(row: dict[str, str]) -> tuple[str, str, str]:
    return row["project"], row["timestamp"], row["folderName"]


def test_rows_of_the_prearchive_keep_the_keys_of_the_server(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    row = waiting(xnatctl, tmp_path, "PRE_A")
    assert row.keys() >= {
        "project", "timestamp", "name", "folderName", "status", "scan_date", "subject", "tag",
    }  # fmt: skip
    quiet = xnatctl("prearchive", "list", "-P", "STUDY", "--filter", "name:PRE_A", "-q")
    assert quiet.out == "/".join(triple(row)) + "\n"
    shown = xnatctl("prearchive", "show", *triple(row), "-o", "json").json()
    assert [(one["ID"], one["files"]) for one in shown["scans"]] == [("3", 2)]
    assert xnatctl("prearchive", "show", "STUDY", "19990101_000000000", "NOPE").code == 5
    assert xnatctl("prearchive", "delete", *triple(row), "--yes").code == 0


def test_archiving_one_entry_answers_as_the_contract_says(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    row = waiting(xnatctl, tmp_path, "PRE_B")
    command = ("prearchive", "archive", *triple(row), "--subject", "PRE", "--label", "PRE_B2")
    dry = xnatctl(*command, "--dry-run", "-o", "json")
    assert (dry.code, dry.json()["result"]) == (0, "dry run")
    done = xnatctl(*command, "-o", "json")
    assert done.code == 0, done.err
    found = done.json()
    assert (found["success"], found["project"], found["session"]) == (True, "STUDY", "PRE_B2")
    assert found["experiment_uri"].endswith("/experiments/PRE_B2")
    assert xnatctl("prearchive", "archive", *triple(row)).code == 5


def test_a_label_that_is_taken_exits_9_and_the_entry_stays(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    row = waiting(xnatctl, tmp_path, "PRE_C")
    done = xnatctl("prearchive", "archive", *triple(row), "--label", "SUB1_MR1")
    assert done.code == 9
    assert "--overwrite" in done.err
    rows = xnatctl("prearchive", "list", "-P", "STUDY", "-o", "json").json()
    assert [one["status"] for one in rows if one["name"] == "PRE_C"] == ["READY"]
    assert xnatctl("prearchive", "delete", *triple(row), "--yes").code == 0


def test_several_entries_are_archived_by_filter_and_each_is_accounted_for(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    for label in ("MANY_1", "MANY_2", "SUB2_MR1"):
        waiting(xnatctl, tmp_path, label)
    done = xnatctl("prearchive", "archive", "-P", "STUDY", "--filter", "name:*_*", "-o", "json")
    assert done.code == 1
    became = {one["session"]: one["success"] for one in done.json()}
    assert became == {"MANY_1": True, "MANY_2": True, "SUB2_MR1": False}
    assert "SUB2_MR1" in done.err
    left = xnatctl("prearchive", "list", "-P", "STUDY", "-q").out.split()
    assert xnatctl("prearchive", "delete", *left, "--yes").code == 0
    assert xnatctl("prearchive", "list", "-P", "STUDY", "-o", "json").json() == []


def test_deleting_needs_a_word_and_a_dry_run_deletes_nothing(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    row = waiting(xnatctl, tmp_path, "PRE_D")
    assert xnatctl("prearchive", "delete", *triple(row)).code == 2
    assert xnatctl("prearchive", "delete", *triple(row), "--dry-run").code == 0
    assert xnatctl("prearchive", "list", "-P", "STUDY", "-q").out
    done = xnatctl("prearchive", "delete", *triple(row), "--yes")
    assert (done.code, done.out) == (0, "")
    assert "Deleted PRE_D from prearchive" in done.err


def test_an_entry_is_moved_and_rebuilt(xnatctl: Call, signed_in: Sandbox, tmp_path: Path) -> None:
    row = waiting(xnatctl, tmp_path, "PRE_E")
    done = xnatctl("prearchive", "rebuild", *triple(row), "-o", "json")
    assert (done.code, done.json()["result"]) == (0, "READY")
    assert xnatctl("prearchive", "move", *triple(row), "NOPE").code == 5
    done = xnatctl("prearchive", "move", *triple(row), "EMPTY", "-o", "json")
    assert done.code == 0, done.err
    assert xnatctl("prearchive", "list", "-P", "STUDY", "-q").out == ""
    path = xnatctl("prearchive", "list", "-P", "EMPTY", "-q").out.strip()
    assert path.endswith("/PRE_E")
    assert xnatctl("prearchive", "delete", path, "--yes").code == 0


def test_the_mode_of_a_project_is_shown_and_set_by_name(xnatctl: Call, signed_in: Sandbox) -> None:
    line_ = ("prearchive", "settings", "-P", "STUDY", "-o", "json")
    before = xnatctl(*line_).json()
    assert before["mode"] == "auto-archive"
    assert xnatctl(*line_, "--set", "manual", "--dry-run").json()["mode"] == "manual"
    assert xnatctl(*line_).json() == before
    assert xnatctl(*line_, "--set", "manual").code == 2
    assert xnatctl(*line_, "--set", "manual", "--yes").json()["mode"] == "manual"
    assert xnatctl(*line_).json()["code"] == "0"
    assert xnatctl(*line_, "--set", "sometimes").code == 2


def test_the_doctor_says_what_is_wrong_and_does_only_what_is_safe(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    waiting(xnatctl, tmp_path, "DOC_OK")
    row = waiting(xnatctl, tmp_path, "DOC_IN")
    assert xnatctl("prearchive", "archive", *triple(row)).code == 0
    waiting(xnatctl, tmp_path / "again", "SUB1_MR2")
    done = xnatctl("prearchive", "doctor", "-P", "STUDY", "--deep", "-o", "json")
    assert done.code == 0, done.err
    found = {one["path"].split("/")[2]: one for one in done.json()}
    assert found["DOC_OK"]["class"] == "ready"
    # The archived session of that label names no study, so only its objects can be compared.
    assert found["SUB1_MR2"]["class"] == "in-archive"
    assert "lacks" in found["SUB1_MR2"]["says"]
    assert xnatctl("prearchive", "doctor", "-P", "STUDY", "--apply").code == 2
    done = xnatctl("prearchive", "doctor", "-P", "STUDY", "--apply", "--yes", "-o", "json")
    assert done.code == 0, done.err
    acted = {one["path"].split("/")[2]: one["done"] for one in done.json()}
    assert acted["DOC_OK"].endswith("/DOC_OK")
    assert acted["SUB1_MR2"] == ""
    left = xnatctl("prearchive", "list", "-P", "STUDY", "-q").out.split()
    assert [one.split("/")[2] for one in left] == ["SUB1_MR2"]
    assert xnatctl("prearchive", "delete", *left, "--yes").code == 0


def test_the_uploaded_objects_are_those_of_the_disk(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    done = xnatctl(*line(export, "UP9_MR1", "--mode", "tar", subject="UP9"))
    assert done.code == 0, done.err
    stored = signed_in.store.root / "archive" / "STUDY" / "arc001" / "UP9_MR1"
    assert uids_on_disk(stored) == uids_on_disk(export)


def test_what_a_project_was_before_the_first_change_is_put_back(
    xnatctl: Call, signed_in: Sandbox
) -> None:
    signed_in.store.create_project("CODES")
    line_ = ("prearchive", "settings", "-P", "CODES", "-o", "json")
    nothing = xnatctl(*line_, "--restore", "--yes")
    assert (nothing.code, "nothing is known" in nothing.err) == (5, True)
    for mode in ("auto-archive-overwrite", "manual"):
        assert xnatctl(*line_, "--set", mode, "--yes").json()["mode"] == mode
    assert xnatctl(*line_, "--restore").code == 2
    assert xnatctl(*line_, "--restore", "--dry-run").json()["mode"] == "auto-archive"
    assert xnatctl(*line_).json()["mode"] == "manual"
    assert xnatctl(*line_, "--restore", "--yes").json()["mode"] == "auto-archive"
    assert xnatctl(*line_).json()["code"] == "4"
    assert xnatctl(*line_, "--restore", "--yes").code == 5
    assert xnatctl(*line_, "--restore", "--set", "manual").code == 2


def test_what_a_transfer_that_died_had_changed_is_put_back(
    xnatctl: Call, signed_in: Sandbox
) -> None:
    signed_in.store.create_project("LEASED")
    settings = ("prearchive", "settings", "-P", "LEASED", "-o", "json")
    was = xnatctl(*settings).json()["mode"]
    lease = '{"code": "4", "holders": {"a run": {"host": "gone", "until": 1.0}}}'
    note = "/data/projects/LEASED/config/xnatctl/routing?inbody=true"
    assert xnatctl("api", "put", note, "--content-type", "text/plain", "-d", lease).code == 0
    code = "/data/projects/LEASED/prearchive_code/0"
    assert xnatctl("api", "put", code).code == 0
    assert xnatctl(*settings).json()["mode"] == "manual"
    assert xnatctl(*settings, "--restore", "--dry-run").json()["mode"] == was
    assert xnatctl(*settings, "--restore").code == 2
    assert xnatctl(*settings, "--restore", "--yes").json()["mode"] == was
    assert xnatctl(*settings).json()["mode"] == was
    assert xnatctl(*settings, "--restore", "--yes").code == 5
