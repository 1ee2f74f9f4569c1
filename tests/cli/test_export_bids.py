"""`project export --bids`, each path judged by the validator that the BIDS community gives out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from bids_validator import BIDSValidator

from xnatctl.model import Session
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.store import Item, Store
from xnatctl.xnat.client import Xnat

Call = Callable[..., Any]
RULES = """\
name: Ageing study
rules:
  - {scan: "T1w*", name: anat/T1w}
  - {scan: "*rest*", file: "*events*", name: func/task-rest_events}
  - {scan: "*rest*", name: func/task-rest_echo-1_bold}
  - {scan: "dti*", name: dwi/dir-AP_dwi}
  - {scan: "never*", name: perf/asl}
"""
# scan -> type, description, resource -> files
SCANS: dict[str, tuple[str, str, dict[str, tuple[str, ...]]]] = {
    "2": ("T1w", "", {"NIFTI": ("a.nii.gz",), "BIDS": ("a.json",), "DICOM": ("1.dcm",)}),
    "10": ("MR", "T1w MPRAGE", {"NIFTI": ("b.nii.gz", "b.json", "b.bval")}),
    "3": ("fMRI", "Resting state", {"NIFTI": ("c.nii.gz", "c.json", "c_events.tsv", "c.txt")}),
    "4": ("dti 64", "", {"NIFTI": ("d.nii.gz", "d.bval", "d.bvec", "d.json", "alone.json")}),
    "5": ("localizer", "", {"NIFTI": ("e.nii.gz",)}),
    "6": ("T1w", "", {"DICOM": ("1.dcm", "2.dcm")}),
}
PATHS = {
    "anat/sub-MINE01_ses-MINE01MR1_run-01_T1w.nii.gz": "a.nii.gz",
    "anat/sub-MINE01_ses-MINE01MR1_run-01_T1w.json": "a.json",
    "anat/sub-MINE01_ses-MINE01MR1_run-02_T1w.nii.gz": "b.nii.gz",
    "anat/sub-MINE01_ses-MINE01MR1_run-02_T1w.json": "b.json",
    "func/sub-MINE01_ses-MINE01MR1_task-rest_echo-1_bold.nii.gz": "c.nii.gz",
    "func/sub-MINE01_ses-MINE01MR1_task-rest_echo-1_bold.json": "c.json",
    "func/sub-MINE01_ses-MINE01MR1_task-rest_events.tsv": "c_events.tsv",
    "dwi/sub-MINE01_ses-MINE01MR1_dir-AP_dwi.nii.gz": "d.nii.gz",
    "dwi/sub-MINE01_ses-MINE01MR1_dir-AP_dwi.bval": "d.bval",
    "dwi/sub-MINE01_ses-MINE01MR1_dir-AP_dwi.bvec": "d.bvec",
    "dwi/sub-MINE01_ses-MINE01MR1_dir-AP_dwi.json": "d.json",
}


def add_scan(store: Store, session: Item, scan: str) -> None:
    kind, description, resources = SCANS[scan]
    made = store.create_scan(
        session, scan, fields={"type": kind, "series_description": description}
    )
    for label, files in resources.items():
        resource = store.create_resource(made, label)
        for name in files:
            store.add_file(resource, name, f"{session.label} {scan} {name}".encode())


def add_session(store: Store, subject: str, label: str, scans: str = "2 10 3 4 5 6") -> Item:
    project = store.find_project("RAW") or store.create_project("RAW")
    owner = store.find_subject(subject, project) or store.create_subject(project, subject)
    session = store.create_experiment(owner, label, fields={"date": "2024-01-01"})
    for scan in scans.split():
        add_scan(store, session, scan)
    return session


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A project with one session of several kinds of scans, and a login to it."""
    with start_blocking_portal() as portal:
        sandbox = Sandbox(tmp_path / "server")
        add_session(sandbox.store, "MINE_01", "MINE_01_MR1")
        with portal.wrap_async_context_manager(sandbox):
            monkeypatch.setenv("XNAT_URL", sandbox.url)
            monkeypatch.setenv("XNAT_USER", "admin")
            monkeypatch.setenv("XNAT_PASS", "admin")
            yield sandbox


@pytest.fixture
def export(xnatctl: Call, raw: Sandbox, tmp_path: Path) -> Call:
    """One run of the command; the answer is what it printed as JSON."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)

    def call(*more: str, code: int = 0) -> Any:
        raw.counters.reset()
        line = ("project", "export", "-P", "RAW", "--out", str(tmp_path / "bids"))
        done = xnatctl(*line, "--bids", str(rules), "-o", "json", *more)
        assert done.code == code, done.err
        return done.json() if done.out else done.err

    return call


def dataset(root: Path) -> dict[str, str]:
    """Every file of a dataset with its text; none that the validator does not know."""
    found = {
        path.relative_to(root).as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and ".xnatctl" not in path.parts
    }
    validator = BIDSValidator()
    assert [one for one in found if one[0] != "." and not validator.is_bids(f"/{one}")] == []
    return found


def test_images_and_their_sidecars_get_the_names_of_the_rules(export: Call, tmp_path: Path) -> None:
    done = export()

    found = dataset(tmp_path / "bids")
    below = "sub-MINE01/ses-MINE01MR1/"
    texts = {
        name.removeprefix(below): text.split()[-1]
        for name, text in found.items()
        if name.startswith(below)
    }
    assert texts == PATHS
    assert (done["mode"], done["files"], done["success"]) == ("bids", len(PATHS), True)
    description = json.loads(found["dataset_description.json"])
    assert (description["Name"], description["BIDSVersion"]) == ("Ageing study", "1.9.0")
    assert found["participants.tsv"] == "participant_id\nsub-MINE01\n"
    assert found[".bidsignore"] == ".xnatctl/\n"


def test_a_session_that_is_there_is_skipped_before_anything_is_downloaded(
    export: Call, raw: Sandbox, tmp_path: Path
) -> None:
    export()
    assert raw.counters.count("GET", "format=zip") + raw.counters.count("GET", "/files/") > 0
    before = dataset(tmp_path / "bids")
    add_session(raw.store, "MINE_01", "MINE_01_MR2", "2")

    second = export()

    # One archive or two files of the new session; nothing of the one that is there.
    assert second["files"] == 2
    assert second["files_kept"] == len(PATHS)
    third = export()
    assert (third["files"], raw.counters.count("GET", "/files/", 200)) == (0, 0)
    after = dataset(tmp_path / "bids")
    assert {name: text for name, text in after.items() if name in before} == before
    assert len(after) == len(before) + 2


def test_the_rules_of_the_documentation_are_rules(export: Call, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "exports.md").read_text("utf-8")
    (tmp_path / "rules.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    assert export()["files"] == len(PATHS) - 1  # it has no rule for events
    dataset(tmp_path / "bids")


@pytest.mark.parametrize("deletions", ["report", "trash", "delete"])
def test_what_has_another_name_now_is_named_or_taken_away_and_nothing_else(
    export: Call, raw: Sandbox, tmp_path: Path, deletions: str
) -> None:
    session = add_session(raw.store, "MINE_02", "MINE_02_MR1", "2")
    gone = add_session(raw.store, "MINE_02", "MINE_02_MR2", "3")
    export()
    mine = tmp_path / "bids/sub-MINE02/ses-MINE02MR1/anat/sub-MINE02_ses-MINE02MR1_T2w.json"
    mine.write_text("made by hand")
    add_scan(raw.store, session, "10")
    raw.store.delete(gone, remove_files=True)

    done = export("--deletions", deletions)

    old = "sub-MINE02/ses-MINE02MR1/anat/sub-MINE02_ses-MINE02MR1_T1w"
    lost = "sub-MINE02/ses-MINE02MR2/func/sub-MINE02_ses-MINE02MR2_task-rest_"
    assert done["only_here"] == [
        f"{old}.json",
        f"{old}.nii.gz",
        *(f"{lost}{name}" for name in ("echo-1_bold.json", "echo-1_bold.nii.gz", "events.tsv")),
    ]
    found = dataset(tmp_path / "bids")
    assert {one in found for one in done["only_here"]} == {deletions == "report"}
    assert found[mine.relative_to(tmp_path / "bids").as_posix()] == "made by hand"
    trash = list((tmp_path / "bids/.xnatctl").rglob("*.nii.gz"))
    assert len(trash) == (2 if deletions == "trash" else 0)


def test_a_listing_that_is_short_once_takes_nothing_away(
    export: Call, raw: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_session(raw.store, "MINE_01", "MINE_01_MR2", "2")
    export()
    before = dataset(tmp_path / "bids")
    whole = Xnat.list_experiments
    looks = []

    async def short(xnat: Xnat, project: str, subject: str | None = None) -> list[Session]:
        """They are listed for their names, for the run, and once more before a deletion."""
        found = await whole(xnat, project, subject)
        looks.append(len(found))
        return found[:-1] if len(looks) == 2 else found

    monkeypatch.setattr(Xnat, "list_experiments", short)

    assert export("--deletions", "delete")["only_here"] == []
    assert looks == [2, 2, 2]
    assert dataset(tmp_path / "bids") == before


def test_columns_that_a_person_filled_in_stay(export: Call, raw: Sandbox, tmp_path: Path) -> None:
    export()
    table = tmp_path / "bids" / "participants.tsv"
    table.write_text("participant_id\tage\nsub-MINE01\t34\n")
    (tmp_path / "bids" / "README").write_text("my own words")
    add_session(raw.store, "MINE_02", "MINE_02_MR1", "2")

    export()

    assert table.read_text() == "participant_id\tage\nsub-MINE01\t34\nsub-MINE02\tn/a\n"
    assert (tmp_path / "bids" / "README").read_text() == "my own words"


def test_sessions_that_would_get_the_same_labels_fail_both_and_the_rest_arrives(
    export: Call, raw: Sandbox, tmp_path: Path
) -> None:
    for label in ("MINE_02_MR1", "MINE_02MR1"):
        add_session(raw.store, "MINE_02", label, "2")

    done = export(code=1)

    assert done["units_failed"] == 2
    assert "MINE_02_MR1 gets the same labels as MINE_02MR1" in str(done["problems"])
    assert len(dataset(tmp_path / "bids")) == len(PATHS) + 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rules: {", "is not valid YAML"),
        ("[]", "holds no rules"),
        ("rules: T1w", "holds no rules"),
        ("rules: []\nrulez: []", "'rulez' is not known"),
        ("rules: [{scan: T1w}]", "rule 1 is none"),
        ("rules: [{scan: T1w, name: T1w}]", "'T1w' is no BIDS name"),
        ("rules: [{scan: T1w, name: ant/T1w}]", "'ant/T1w' is no BIDS name"),
        ("subject: '{patient}'\nrules: []", "'{patient}' cannot be filled in"),
        (None, "cannot be read"),
    ],
)
def test_rules_that_are_none_are_refused_before_the_server_is_asked(
    export: Call, raw: Sandbox, tmp_path: Path, text: str | None, words: str
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.unlink() if text is None else rules.write_text(text)
    assert words in export(code=2)
    assert not (tmp_path / "bids").exists()
    assert raw.counters.count("GET", "/data/projects") == 0


@pytest.mark.parametrize("other", [("--snapshot",), ("--bagit",), ("--format", "nifti")])
def test_what_is_no_tree_of_images_is_refused(export: Call, other: tuple[str, ...]) -> None:
    assert "--bids is one tree" in export(*other, code=2)


def test_a_dry_run_says_how_much_it_would_be(export: Call, tmp_path: Path) -> None:
    done = export("--dry-run")
    assert (done["files"], done["success"]) == (len(PATHS), True)
    assert not (tmp_path / "bids").exists()
