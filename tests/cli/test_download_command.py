"""Downloads as they are typed: the JSON that scripts read, exit codes, what is refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xnatctl.sandbox.server import Sandbox

Call = Callable[..., Any]
KEYS = (
    "operation session_id project output_dir source scans files bytes duration_seconds status "
    "items verification skipped_unsafe_entries"
)
CHECKS = "matched mismatched missing_local missing_remote unverifiable collisions"


def line(*more: str, session: str = "SUB1_MR1") -> tuple[str, ...]:
    return ("session", "download", "-P", "STUDY", "-E", session, *more)


def names(root: Path) -> list[str]:
    """Every file below a folder, apart from the home of the test."""
    found = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return [name for name in found if not name.startswith("home/")]


def test_the_summary_has_the_fields_of_the_contract_and_the_second_call_moves_nothing(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = xnatctl(*line("--out", str(out), "--workers", "2", "-o", "json"))
    assert first.code == 0, first.err
    summary = first.json()
    assert summary.keys() >= set(KEYS.split())
    assert summary["verification"].keys() == set(CHECKS.split())
    assert (summary["files"], summary["bytes"], summary["scans"]) == (2, 2000, 2)
    assert summary["output_dir"] == str(out / "SUB1_MR1")
    assert summary["session_id"].endswith("_E00001")
    assert summary["status"] == "success"
    assert sorted(summary["items"], key=lambda one: one["id"]) == [
        {"id": "10", "status": "success", "error": None},
        {"id": "3", "status": "success", "error": None},
    ]
    tree = names(out)
    assert tree == [
        "SUB1_MR1/scans/10/resources/NIFTI/files/a.nii",
        "SUB1_MR1/scans/3/resources/NIFTI/files/a.nii",
    ]
    again = xnatctl(*line("--out", str(out), "-o", "json")).json()
    assert (again["files"], again["files_moved"], again["status"]) == (2, 0, "success")
    assert names(out) == tree


def test_without_extracting_there_is_one_archive_whatever_the_workers(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    done = xnatctl(*line("--out", str(tmp_path), "--no-extract", "-w", "4", "-o", "json"))
    assert done.code == 0, done.err
    summary = done.json()
    assert summary["items"] == [{"id": "archive", "status": "success", "error": None}]
    assert (summary["files"], summary["bytes"]) == (2, 2000)
    with zipfile.ZipFile(tmp_path / "SUB1_MR1" / "scans.zip") as archive:
        assert len(archive.namelist()) == 2


def test_an_archive_in_the_way_is_a_conflict(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "SUB1_MR1").mkdir()
    (tmp_path / "SUB1_MR1" / "scans.zip").write_text("mine")
    done = xnatctl(*line("--out", str(tmp_path), "--no-extract"))
    assert done.code == 9
    assert "--overwrite" in done.err
    assert xnatctl(*line("--out", str(tmp_path), "--no-extract", "--overwrite")).code == 0


def test_a_quiet_download_says_nothing_when_it_goes_well_and_names_what_failed(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    done = xnatctl(*line("--out", str(tmp_path), "--quiet"))
    assert (done.code, done.out, done.err) == (0, "", "")
    victim = next(tmp_path.rglob("a.nii"))
    victim.write_bytes(b"mine")
    failed = xnatctl(*line("--out", str(tmp_path), "--quiet"))
    assert failed.code == 1
    assert failed.out == ""
    assert "a.nii" in failed.err
    assert "add --overwrite" in xnatctl(*line("--out", str(tmp_path))).err


def test_a_dry_run_writes_nothing_and_says_how_much_it_would(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    done = xnatctl(*line("--out", str(tmp_path / "out"), "--dry-run", "-o", "json"))
    assert done.code == 0
    assert done.json() | {"files_to_move": 2, "bytes_to_move": 2000, "dry_run": True} == done.json()
    assert not (tmp_path / "out").exists()
    told = xnatctl(*line("--out", str(tmp_path / "out"), "--dry-run"))
    assert "2 files to move" in told.err


def test_own_resources_come_when_asked_for(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    xnatctl(*line("--out", str(tmp_path), "--session-resources", "--name", "mine"))
    assert "mine/resources/NOTES/files/n.txt" in names(tmp_path)


@pytest.mark.parametrize("scans", ["3", "T1w", "3,3", "T1*"])
def test_scans_are_named_by_id_by_type_or_by_pattern(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path, scans: str
) -> None:
    done = xnatctl(
        *("scan", "download", "-P", "STUDY", "-E", "SUB1_MR1", "-s", scans),
        *("--out", str(tmp_path), "-o", "json"),
    )
    assert done.code == 0, done.err
    assert [one["id"] for one in done.json()["items"]] == ["3"]


def test_a_star_means_all_scans_and_a_scan_that_is_not_there_exits_5(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    ask = ("scan", "download", "-P", "STUDY", "-E", "SUB1_MR1", "--out", str(tmp_path))
    assert xnatctl(*ask, "-s", "*", "-o", "json").json()["scans"] == 2
    lost = xnatctl(*ask, "-s", "3,99")
    assert lost.code == 5
    assert "no scan 99" in lost.err
    assert "3 (T1w)" in lost.err


def test_a_subject_comes_with_all_its_sessions(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    ask = ("subject", "download", "SUB1", "-P", "STUDY", "--out", str(tmp_path), "-o", "json")
    summary = xnatctl(*ask).json()
    assert (summary["files"], summary["scans"], summary["subject"]) == (4, 4, "SUB1")
    assert [name.split("/")[:2] for name in names(tmp_path)] == [
        ["SUB1", "SUB1_MR1"],
        ["SUB1", "SUB1_MR1"],
        ["SUB1", "SUB1_MR2"],
        ["SUB1", "SUB1_MR2"],
    ]
    assert xnatctl(*ask).json()["files_moved"] == 0
    assert xnatctl("subject", "download", "NOPE", "-P", "STUDY", "--out", str(tmp_path)).code == 5


@pytest.mark.parametrize("flag", ["-f", "--output-file", "--file"])
def test_a_resource_becomes_an_archive_under_any_spelling_of_the_flag(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path, flag: str
) -> None:
    file = tmp_path / "notes.zip"
    ask = ("resource", "download", "-P", "STUDY", "SUB1_MR1", "NOTES", flag, str(file))
    done = xnatctl(*ask, "-o", "json")
    assert done.code == 0, done.err
    assert done.json()["output_dir"] == str(file)
    assert done.json()["items"] == [{"id": "NOTES", "status": "success", "error": None}]
    assert zipfile.ZipFile(file).namelist() == ["SUB1_MR1/resources/NOTES/files/n.txt"]


def test_a_resource_becomes_files(xnatctl: Call, signed_in: Sandbox, tmp_path: Path) -> None:
    ask = ("resource", "download", "-P", "STUDY", "SUB1_MR1", "NIFTI", "--scan", "3")
    assert xnatctl(*ask, "--extract", str(tmp_path / "x")).code == 0
    assert names(tmp_path / "x") == ["a.nii"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("session", "download", "-E", "SUB1_MR1"), 5, "add -P PROJECT"),
        (("session", "download", "-P", "STUDY", "-E", "NOPE"), 5, "no session NOPE"),
        (("session", "download", "-P", "STUDY", "-E", "NO", "--out", "a/b"), 5, "no session NO"),
        (("subject", "download", "NOPE", "-P", "STUDY", "--out", "a"), 5, "subject list -P STUDY"),
        (("resource", "download", "-P", "STUDY", "SUB1_MR1", "NOTES"), 2, "-f FILE.zip"),
        (("resource", "download", "-P", "STUDY", "SUB1_MR1", "NOPE", "-f", "x.zip"), 5, "NOPE"),
        (("resource", "download", "-P", "STUDY", "X", "--scan", "3", "-f", "x.zip"), 2, "session"),
        (("resource", "download", "A", "B", "C", "-f", "x.zip"), 2, "two names"),
        (("resource", "download", "A", "B", "-f", "x", "--extract", "y"), 2, "exclude each other"),
        (line("--name", "../up"), 2, "--name ../up is not the name of one folder"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_sentence(
    xnatctl: Call,
    signed_in: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = xnatctl(*argv)
    assert done.code == code, done.err
    assert words in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_file_where_a_folder_must_be_is_named_and_nothing_is_half_written(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "SUB1_MR1").write_text("in the way")
    done = xnatctl(*line("--out", str(out)))
    assert done.code == 1
    assert f"in the place of the file {out / 'SUB1_MR1'}; move it away" in done.err
    assert names(out) == ["SUB1_MR1"]
    done = xnatctl(*line("--out", str(out / "SUB1_MR1")))
    assert done.code == 1
    assert "cannot be used as a folder" in done.err and "it is a file" in done.err


def test_a_folder_where_the_archive_must_be_is_named(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "SUB1_MR1" / "scans.zip").mkdir(parents=True)
    done = xnatctl(*line("--out", str(tmp_path), "--no-extract", "--overwrite"))
    assert done.code == 1
    assert "scans.zip cannot be read: Is a directory" in done.err
    assert "a folder stands where a file is needed; move it away" in done.err
