"""`xnatctl dicom …` over genuine files, judged by pydicom."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from tests.cli.conftest import Result

Call = Callable[..., Result]


def genuine(name: str) -> Path:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two objects, one of them below, and a text that is none."""
    root = tmp_path / "in"
    (root / "deep").mkdir(parents=True)
    shutil.copy(genuine("CT_small.dcm"), root / "1.2.3.4")
    shutil.copy(genuine("MR_small.dcm"), root / "deep" / "slice.0001")
    (root / "notes.txt").write_text("not DICOM")
    return root


def test_inspect_tells_what_a_file_is_by_its_content(xnatctl: Call, folder: Path) -> None:
    found = xnatctl("dicom", "inspect", str(folder / "1.2.3.4"), "-o", "json").json()
    assert found["PatientID"] == "1CT1"
    assert found["Modality"] == "CT"
    done = xnatctl("dicom", "inspect", str(folder / "1.2.3.4"), "-t", "Rows", "-o", "json")
    assert done.json() == {"Rows": "128"}


def test_inspecting_what_is_no_dicom_is_one_sentence(xnatctl: Call, folder: Path) -> None:
    done = xnatctl("dicom", "inspect", str(folder / "notes.txt"))
    assert done.code == 1
    assert "notes.txt is no DICOM object" in done.err
    assert "Traceback" not in done.err
    assert xnatctl("dicom", "inspect", str(folder / "missing")).code == 5
    assert xnatctl("dicom", "inspect", str(folder)).code == 2
    unknown = xnatctl("dicom", "inspect", str(folder / "1.2.3.4"), "-t", "PatientShoeSize")
    assert unknown.code == 2
    assert "PatientShoeSize" in unknown.err


def test_list_tags_has_private_elements_only_when_asked(xnatctl: Call, folder: Path) -> None:
    line = ("dicom", "list-tags", str(folder / "1.2.3.4"), "-o", "json")
    rows = xnatctl(*line).json()
    assert rows[0].keys() == {"tag", "vr", "name", "value"}
    assert not [row for row in rows if int(row["tag"][1:5], 16) % 2]
    assert len(xnatctl(*line, "--private").json()) > len(rows)


def test_validate_names_a_file_that_is_cut_off(xnatctl: Call, folder: Path) -> None:
    body = (folder / "1.2.3.4").read_bytes()
    (folder / "cut").write_bytes(body[:-5000])
    done = xnatctl("dicom", "validate", str(folder), "--recursive", "-o", "json")
    assert done.code == 1
    verdicts = {Path(row["file"]).name: row for row in done.json()["files"]}
    assert done.json()["valid_count"] == 2
    assert done.json()["invalid_count"] == 2
    assert verdicts["slice.0001"]["valid"]
    assert "its pixels are gone" in verdicts["cut"]["errors"][0]
    assert verdicts["notes.txt"]["errors"] == ["it is not DICOM"]


def test_modify_changes_what_is_named_and_leaves_pixels_and_the_rest(
    xnatctl: Call, folder: Path
) -> None:
    path = folder / "1.2.3.4"
    before = pydicom.dcmread(path)
    done = xnatctl("dicom", "modify", str(path), "-t", "PatientID=P001", "-b", "-o", "json")
    assert done.code == 0, done.err
    (row,) = done.json()["files"]
    assert row["changes"] == ["PatientID: 1CT1 -> P001"]
    after = pydicom.dcmread(path)
    assert after.PatientID == "P001"
    assert after.PixelData == before.PixelData
    after.PatientID = before.PatientID
    assert after == before
    assert pydicom.dcmread(path.with_name("1.2.3.4.bak")) == before


def test_modify_looks_below_a_folder_only_when_told_to(xnatctl: Call, folder: Path) -> None:
    line = ("dicom", "modify", str(folder), "-t", "StudyDescription=Ageing", "-o", "json")
    done = xnatctl(*line, "--dry-run")
    assert [done.json()[name] for name in ("modified", "skipped")] == [1, 1]
    assert pydicom.dcmread(folder / "1.2.3.4").StudyDescription != "Ageing"
    done = xnatctl(*line, "-r")
    assert done.json()["modified"] == 2
    assert pydicom.dcmread(folder / "deep/slice.0001").StudyDescription == "Ageing"
    assert xnatctl(*line, "-r").json()["unchanged"] == 2


def test_a_value_that_an_element_cannot_hold_leaves_the_file_alone(
    xnatctl: Call, folder: Path
) -> None:
    path = folder / "1.2.3.4"
    before = path.read_bytes()
    done = xnatctl("dicom", "modify", str(path), "-t", "Rows=many")
    assert done.code == 1
    assert "Rows cannot be 'many'" in done.err
    assert path.read_bytes() == before
    assert xnatctl("dicom", "modify", str(path), "-t", "Rows").code == 2


def test_anonymize_writes_copies_that_name_nobody(
    xnatctl: Call, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = xnatctl("dicom", "anonymize", str(folder), str(out), "--recursive", "-o", "json")
    assert done.code == 0, done.err
    assert done.json()["anonymized"] == 2
    assert not (out / "notes.txt").exists()
    copy = pydicom.dcmread(out / "1.2.3.4")
    original = pydicom.dcmread(folder / "1.2.3.4")
    assert (copy.PatientID, str(copy.PatientName)) == ("ANONYMOUS", "ANONYMOUS")
    assert "InstitutionName" not in copy
    assert original.InstitutionName == "JFK IMAGING CENTER"
    assert copy.PixelData == original.PixelData
    assert copy.SOPInstanceUID == original.SOPInstanceUID


def test_a_rule_file_says_what_is_removed_hashed_and_shifted(
    xnatctl: Call, folder: Path, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "set: {PatientID: P9, '(0010,4000)': seen}\nremove: [InstitutionName]\n"
        "empty: [StationName]\nprivate: remove\nshift_days: -10\nhash_uids: true\nsalt: s\n"
    )
    out = tmp_path / "clean.dcm"
    line = ("dicom", "anonymize", str(folder / "1.2.3.4"), str(out), "--rules", str(rules))
    done = xnatctl(*line, "-o", "json")
    assert done.code == 0, done.err
    copy, original = pydicom.dcmread(out), pydicom.dcmread(folder / "1.2.3.4")
    assert (copy.PatientID, copy.PatientComments, copy.StationName) == ("P9", "seen", "")
    assert copy.PatientName == original.PatientName
    assert copy.StudyDate == "20040109"
    assert copy.StudyInstanceUID.startswith("2.25.")
    assert copy.file_meta.MediaStorageSOPInstanceUID == copy.SOPInstanceUID
    assert not [one for one in copy if one.tag.is_private]
    changes = done.json()["files"][0]["changes"]
    assert "StudyDate: 20040119 -> 20040109" in changes


def test_a_rule_file_with_an_unknown_rule_is_refused_before_anything_is_written(
    xnatctl: Call, folder: Path, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    for text, words in (
        ("delete: [PatientID]", "unknown rule 'delete'"),
        ("remove: [PatientShoeSize]", "PatientShoeSize"),
        ("remove: PatientID", "not a list"),
        ("[1, 2", "cannot be used"),
    ):
        rules.write_text(text)
        out = tmp_path / "out"
        done = xnatctl("dicom", "anonymize", str(folder), str(out), "--rules", str(rules))
        assert done.code == 2
        assert words in done.err
        assert not out.exists()


def test_copies_never_land_among_the_originals(xnatctl: Call, folder: Path) -> None:
    assert xnatctl("dicom", "anonymize", str(folder), str(folder / "out")).code == 2
    assert xnatctl("dicom", "anonymize", str(folder), str(folder)).code == 2
    path = str(folder / "1.2.3.4")
    assert xnatctl("dicom", "anonymize", path, path).code == 2
