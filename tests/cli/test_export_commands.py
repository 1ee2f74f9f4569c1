"""`project export`, `import`, `audit` and `local …` as they are typed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bagit
import pytest

from xnatctl.sandbox.server import Sandbox

Call = Callable[..., Any]
SESSION = "subjects/SUB1/sessions/SUB1_MR1"
# Six scans with one file each, and a note in each of three sessions.
FILES, BYTES = 9, 3 * (2 * 1000 + 5)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def exported(xnatctl: Call, signed_in: Sandbox, out: Path) -> Path:
    done = xnatctl("project", "export", "-P", "STUDY", "--out", str(out), "-o", "json")
    assert done.code == 0, done.err
    return out


def test_the_summary_of_an_export_says_what_moved_and_the_next_one_that_nothing_did(
    xnatctl: Call, signed_in: Sandbox, out: Path
) -> None:
    line = ("project", "export", "-P", "STUDY", "--out", str(out), "-o", "json")
    first = xnatctl(*line).json()
    expected = {
        "operation": "export",
        "project": "STUDY",
        "output_dir": str(out),
        "mode": "mirror",
        "finished": True,
        "only_here": [],
        "files": FILES,
        "bytes": BYTES,
        "success": True,
    }
    assert first | expected == first
    again = xnatctl(*line).json()
    assert (again["files"], again["files_kept"], again["success"]) == (0, FILES, True)


def test_a_person_gets_one_screen_and_a_quiet_night_says_nothing(
    xnatctl: Call, signed_in: Sandbox, out: Path
) -> None:
    done = xnatctl("project", "export", "-P", "STUDY", "--out", str(out), "-o", "table")
    assert done.code == 0
    assert f"{FILES} files moved" in done.err
    assert len((done.out + done.err).splitlines()) < 24
    quiet = xnatctl("project", "export", "-P", "STUDY", "--out", str(out), "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_snapshots_are_named_by_the_day_and_the_second_of_a_day_by_the_second(
    xnatctl: Call, signed_in: Sandbox, out: Path
) -> None:
    line = ("project", "export", "-P", "STUDY", "--out", str(out), "--snapshot", "-o", "json")
    first, second = xnatctl(*line).json(), xnatctl(*line).json()
    assert second["files"] == 0
    assert second["output_dir"].startswith(f"{first['output_dir']}T")
    assert (out / "latest").resolve() == Path(second["output_dir"])
    assert xnatctl("local", "verify", str(out)).code == 0


def test_the_format_narrows_scans_and_selections_narrow_sessions(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    line = ("project", "export", "-P", "STUDY", "-o", "json")
    dicom = xnatctl(*line, "--out", str(tmp_path / "d"), "--format", "dicom").json()
    assert dicom["files"] == 3
    nifti = xnatctl(*line, "--out", str(tmp_path / "n"), "--format", "nifti").json()
    assert nifti["files"] == FILES
    some = xnatctl(*line, "--out", str(tmp_path / "s"), "--session", "SUB1_*", "--since", "2024-02")
    assert some.code == 2
    some = xnatctl(
        *line, "--out", str(tmp_path / "s"), "--session", "SUB1_*", "--since", "2024-02-01"
    )
    assert some.json()["files"] == 3


def test_the_selections_of_a_transfer_narrow_an_export_too(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "some.yaml").write_text(
        "filtering:\n  imaging_sessions:\n    sync_type: include\n    xsi_types:\n"
        "      - xsi_type: xnat:mrSessionData\n"
        "        scan_types: {sync_type: exclude, items: [T2w]}\n"
        "        resources: {sync_type: none}\n"
    )
    line = ("project", "export", "-P", "STUDY", "--out", str(tmp_path / "out"), "-o", "json")
    done = xnatctl(*line, "--config", str(tmp_path / "some.yaml"))
    assert done.json()["files"] == 3
    found = [path.as_posix() for path in (tmp_path / "out").rglob("*.nii")]
    assert len(found) == 3 and all("/scans/3/" in path for path in found)
    (tmp_path / "some.yaml").write_text("filterng: {}\n")
    done = xnatctl(*line, "--config", str(tmp_path / "some.yaml"))
    assert done.code == 2
    assert "did you mean 'filtering'" in done.err


def test_the_file_of_a_transfer_narrows_an_import_too(
    xnatctl: Call,
    exported: Path,
    destination: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "some.yaml").write_text(
        "filtering:\n  imaging_sessions:\n    sync_type: include\n    xsi_types:\n"
        "      - xsi_type: xnat:mrSessionData\n"
        "        scan_types: {sync_type: include, items: [T1w]}\n"
    )
    monkeypatch.setenv("XNAT_URL", destination.url)
    line = ("project", "import", "--from", str(exported), "-P", "SOME", "--yes", "-o", "json")
    done = xnatctl(*line, "--config", str(tmp_path / "some.yaml"), "--exclude-resource", "NOTES")
    assert (done.code, done.json()["files"]) == (0, 3), done.err


def test_an_independent_tool_accepts_the_bag_and_finds_one_changed_byte(
    xnatctl: Call, signed_in: Sandbox, out: Path
) -> None:
    line = ("project", "export", "-P", "STUDY", "--out", str(out), "--bagit")
    assert xnatctl(*line).code == 0
    bag = bagit.Bag(str(out))
    assert bag.validate()
    assert bag.info["Payload-Oxum"].endswith(f".{len(list(bag.payload_files()))}")
    assert xnatctl(*line).code == 0
    assert bagit.Bag(str(out)).validate()
    assert xnatctl("local", "verify", str(out)).code == 0
    victim = out / "data" / SESSION / "resources/NOTES/files/n.txt"
    victim.write_bytes(b"hellO")
    with pytest.raises(bagit.BagError):
        bagit.Bag(str(out)).validate()
    assert xnatctl("local", "verify", str(out)).code == 1


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("--out", "x", "-P", "NOPE"), 5, "no project NOPE"),
        (("--out", "x", "-P", "STUDY", "--mirror", "--snapshot"), 2, "exclude each other"),
        (("--out", "x", "-P", "STUDY", "--snapshot", "--deletions", "delete"), 2, "mirror"),
        (("--out", "full", "-P", "STUDY"), 9, "holds no export"),
        (("--out", "full/file", "-P", "STUDY"), 1, "cannot be used as a folder"),
        (("-P", "STUDY"), 2, "--out"),
    ],
)
def test_an_export_that_cannot_be_made_says_why(
    xnatctl: Call,
    signed_in: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    before = sorted(tmp_path.iterdir())
    done = xnatctl("project", "export", *argv)
    assert done.code == code, done.err
    assert words in done.err
    assert sorted(path for path in tmp_path.iterdir() if path.name != "home") == sorted(
        path for path in before if path.name != "home"
    )


def test_a_dry_run_of_an_export_leaves_no_trace(
    xnatctl: Call, signed_in: Sandbox, out: Path
) -> None:
    line = ("project", "export", "-P", "STUDY", "--out", str(out), "--dry-run", "-o", "json")
    done = xnatctl(*line)
    assert (done.code, done.json()["dry_run"], out.exists()) == (0, True, False)


# --- the way back ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["mirror", "snapshot", "bag", "copy without pages"])
def test_every_form_of_an_export_can_be_imported(
    xnatctl: Call,
    signed_in: Sandbox,
    destination: Sandbox,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    more = {"snapshot": ("--snapshot",), "bag": ("--bagit",)}.get(form, ())
    assert xnatctl("project", "export", "-P", "STUDY", "--out", str(out), *more).code == 0
    if form == "copy without pages":
        for page in (out / ".xnatctl").rglob("*.jsonl"):
            page.unlink()
    monkeypatch.setenv("XNAT_URL", destination.url)
    name = form.split()[0].upper()
    line = ("project", "import", "--from", str(out), "-P", name, "--yes", "-o", "json")
    done = xnatctl(*line)
    assert done.code == 0, done.err
    assert done.json() | {"files": FILES, "bytes": BYTES, "source_project": "STUDY"} == done.json()
    assert done.json()["verified"] == {"digest": FILES}
    assert xnatctl(*line).json()["files"] == 0


def test_a_file_in_the_place_of_a_snapshot_is_named_and_the_one_before_stays(
    xnatctl: Call, signed_in: Sandbox, out: Path
) -> None:
    line = ("project", "export", "-P", "STUDY", "--out", str(out), "--snapshot")
    assert xnatctl(*line).code == 0
    (out / ".unfinished").write_text("in the way")
    done = xnatctl(*line)
    assert done.code == 1
    assert f"in the place of the file {out / '.unfinished'}; move it away" in done.err
    assert xnatctl("local", "verify", str(out)).code == 0


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        ("a file", 8, "scans/3/resources/NIFTI/files/a.nii is missing from the export"),
        ("a document", 5, "session.xml is missing from the export"),
        ("broken XML", 8, "session.xml is not the document that was exported"),
    ],
)
def test_an_export_that_lacks_something_is_not_imported_in_silence(
    xnatctl: Call,
    exported: Path,
    destination: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    spoil: str,
    code: int,
    words: str,
) -> None:
    document = exported / SESSION / "session.xml"
    if spoil == "a file":
        (exported / SESSION / "scans/3/resources/NIFTI/files/a.nii").unlink()
    elif spoil == "a document":
        document.unlink()
    else:
        document.write_text("<broken")
    monkeypatch.setenv("XNAT_URL", destination.url)
    project = f"SPOILT{len(spoil)}"
    line = ("project", "import", "--from", str(exported), "-P", project, "--yes", "--dicom", "copy")
    done = xnatctl(*line)
    assert done.code == code, done.err
    assert words in done.err
    known = destination.store.find_project(project)
    assert known is None or destination.store.find_experiment("SUB1_MR1", known) is None


def test_what_a_killed_run_left_is_neither_imported_nor_taken_for_a_file(
    xnatctl: Call, exported: Path, destination: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported / SESSION / "scans/3/resources/NIFTI/files"
    (folder / ".xnatctl-0123456789abcdef.part").write_bytes(b"half")
    assert xnatctl("local", "verify", str(exported)).code == 0
    monkeypatch.setenv("XNAT_URL", destination.url)
    line = ("project", "import", "--from", str(exported), "-P", "PARTS", "--yes", "-o", "json")
    assert xnatctl(*line).json()["files"] == FILES


def test_an_import_of_something_else_is_refused(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    done = xnatctl("project", "import", "--from", str(tmp_path), "--yes")
    assert done.code == 5
    assert "holds no exported project" in done.err


# --- audit -------------------------------------------------------------------------------------


def audit(xnatctl: Call, manifest: Path, *more: str) -> Any:
    return xnatctl("project", "audit", "-P", "STUDY", "--manifest", str(manifest), *more)


def test_an_audit_names_each_session_that_is_not_as_expected(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    manifest = tmp_path / "expected.json"
    manifest.write_text('{"SUB1_MR1": 2, "SUB1_MR2": 3, "SUB9_MR1": 1}')
    done = audit(xnatctl, manifest)
    assert done.code == 1
    assert done.out.splitlines() == [
        "OK SUB1_MR1",
        "MISMATCH SUB1_MR2: expected 3, found 2",
        "EXTRA SUB2_MR1",
        "MISSING SUB9_MR1",
    ]
    rows = audit(xnatctl, manifest, "-o", "json").json()
    assert rows[1] == {"status": "MISMATCH", "name": "SUB1_MR2", "expected": 3, "found": 2}


@pytest.mark.parametrize("name", ["expected.json", "expected.jsonl"])
def test_a_list_written_from_the_server_agrees_with_it(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path, name: str
) -> None:
    manifest = tmp_path / name
    assert audit(xnatctl, manifest, "--write").code == 0
    done = audit(xnatctl, manifest)
    assert done.code == 0, done.out
    assert all(line.startswith("OK ") for line in done.out.splitlines())
    if name.endswith(".json"):
        assert json.loads(manifest.read_text()) == {"SUB1_MR1": 2, "SUB1_MR2": 2, "SUB2_MR1": 2}


def test_the_manifest_of_an_export_is_a_list_for_an_audit(xnatctl: Call, exported: Path) -> None:
    manifest = exported / "manifest.jsonl"
    assert audit(xnatctl, manifest).code == 0
    text = manifest.read_text()
    manifest.write_text(text.replace('"size": 1000', '"size": 999', 1))
    done = audit(xnatctl, manifest)
    assert done.code == 1
    assert len([line for line in done.out.splitlines() if line.startswith("MISMATCH")]) == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", "[1]", "one JSON object"),
        ("a.json", '{"MR1": "many"}', "MR1"),
        ("a.jsonl", '{"path": "x"}\n', "line 1"),
        ("missing.json", None, "cannot be read"),
    ],
)
def test_a_list_that_is_none_is_refused_with_its_place(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path, name: str, text: str | None, words: str
) -> None:
    manifest = tmp_path / name
    if text is not None:
        manifest.write_text(text)
    done = audit(xnatctl, manifest)
    assert done.code == 2
    assert words in done.err


# --- on the disk -------------------------------------------------------------------------------


def test_verify_finds_what_is_missing_changed_or_extra(xnatctl: Call, exported: Path) -> None:
    assert xnatctl("local", "verify", str(exported)).code == 0
    notes = exported / SESSION / "resources/NOTES/files"
    (notes / "n.txt").write_bytes(b"hellO")
    (notes / "extra.txt").write_text("mine")
    (exported / SESSION / "scans/3/resources/NIFTI/files/a.nii").unlink()
    done = xnatctl("local", "verify", str(exported))
    assert done.code == 1
    assert [line.split(":")[0] for line in sorted(done.out.splitlines())] == [
        f"EXTRA {SESSION}/resources/NOTES/files/extra.txt",
        f"MISMATCH {SESSION}/resources/NOTES/files/n.txt",
        f"MISSING {SESSION}/scans/3/resources/NIFTI/files/a.nii",
    ]
    data = xnatctl("local", "verify", str(exported), "-o", "json").json()
    assert len(data["wrong"]) == 3


def test_verify_of_a_folder_without_a_manifest_says_so(xnatctl: Call, tmp_path: Path) -> None:
    done = xnatctl("local", "verify", str(tmp_path))
    assert done.code == 2
    assert "no manifest.jsonl" in done.err


def test_an_archive_is_unpacked_where_it_lies_and_removed_when_asked(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    ask = ("session", "download", "-P", "STUDY", "-E", "SUB1_MR1", "--no-extract")
    assert xnatctl(*ask, "--out", str(tmp_path)).code == 0
    folder = tmp_path / "SUB1_MR1"
    assert xnatctl("local", "extract", str(folder), "--dry-run").code == 0
    assert [path.name for path in folder.iterdir()] == ["scans.zip"]
    done = xnatctl("local", "extract", str(tmp_path), "-r", "--cleanup", "-o", "json")
    assert done.code == 0, done.err
    assert (done.json()["files"], done.json()["removed"]) == (2, ["SUB1_MR1/scans.zip"])
    assert (folder / "scans/3/resources/NIFTI/files/a.nii").read_bytes() == b"x" * 1000
    assert not (folder / "scans.zip").exists()


def test_an_archive_that_is_cut_or_climbs_out_is_refused_and_stays(
    xnatctl: Call, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with zipfile.ZipFile(folder / "good.zip", "w") as archive:
        archive.writestr("a/b.txt", "hello" * 1000)
    (folder / "cut.zip").write_bytes((folder / "good.zip").read_bytes()[:-30])
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("../../evil.txt", "out")
    done = xnatctl("local", "extract", str(folder), "--cleanup")
    assert done.code != 0
    assert "cut.zip" in done.err and "evil.zip" in done.err
    assert not (tmp_path / "evil.txt").exists()
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"cut.zip", "evil.zip", "a/b.txt"}


# --- unattended --------------------------------------------------------------------------------


def test_figures_of_a_night_are_kept_for_the_monitor(
    xnatctl: Call, signed_in: Sandbox, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = tmp_path / "xnatctl.prom"
    line = ("project", "export", "-P", "STUDY", "--out", str(out), "--metrics-file", str(figures))
    assert xnatctl(*line).code == 0
    assert f" {FILES}\n" in figures.read_text().partition("files_moved{")[2]
    monkeypatch.setenv("XNAT_PASS", "wrong")
    monkeypatch.delenv("XNAT_TOKEN", raising=False)
    assert xnatctl(*line).code == 3
    text = figures.read_text()
    assert text.partition("exit_code{")[2].partition("} ")[2].startswith("3\n")
    assert not text.partition("last_success_time_seconds{")[2].partition("} ")[2].startswith("0\n")
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--bwlimit", "fast", 2),
        ("--window", "night", 2),
        ("--metrics-file", "/nowhere/x.prom", 1),
        ("--events", "/nowhere/x.jsonl", 1),
    ],
)
def test_a_wish_that_cannot_be_granted_is_refused_before_anything_is_moved(
    xnatctl: Call, signed_in: Sandbox, out: Path, option: str, value: str, code: int
) -> None:
    done = xnatctl("project", "export", "-P", "STUDY", "--out", str(out), option, value)
    assert done.code == code
    assert value in done.err
    assert not list(out.rglob("*.xml"))


def test_a_cap_slows_a_run_down_to_it(xnatctl: Call, signed_in: Sandbox, out: Path) -> None:
    line = ("project", "export", "-P", "STUDY", "--out", str(out), "-o", "json")
    done = xnatctl(*line, "--bwlimit", "8000")
    assert done.code == 0, done.err
    assert done.json()["duration_s"] >= BYTES / 8000
