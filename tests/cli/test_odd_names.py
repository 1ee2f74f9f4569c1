"""Names that a disk refuses: everything arrives, is found again, and goes back as it was called.

One disk is that of the tests, where only length counts. The other one is made as for Windows: it
refuses colons and trailing dots, and does not tell upper from lower case.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bagit
import pytest

from xnatctl.endpoints.names import true_place
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.store import Store

Call = Callable[..., Any]
NAMES = (
    "plain.txt",
    "ü" * 125 + ".txt",
    "ü" * 140 + ".txt",
    "x" * 400 + ".dcm",
    "y" * 300 + "/" + "z" * 300 + "/inside.txt",
    "/".join(["deep" * 20] * 30) + "/end.txt",
    "@~a.txt",
    "100%.txt",
    "what:now?.txt",
    "Case.txt",
    "case.txt",
    "case.TXT",
    "Folder/one.txt",
    "folder/two.txt",
    "ends.with.dot.",
    "trailing blank ",
    "nul",
)
TOO_MUCH = {name for name in NAMES if len(name.encode()) > 255 or name == "@~a.txt"}
LINE = ("session", "download", "-P", "ODD", "-E", "ODD_MR1", "--session-resources", "-o", "json")


def body(name: str) -> bytes:
    return f"the contents of {name!r}\n".encode()


def stored(store: Store, project: str) -> dict[tuple[str, str], bytes]:
    """What a server has of the session's own resources, by label and true path."""
    owner = store.find_project(project)
    assert owner is not None
    session = store.find_experiment("ODD_MR1", owner)
    assert session is not None
    return {
        (resource.label, file.path): store.file_path(resource, file).read_bytes()
        for resource in store.resources(session)
        for file in store.files(resource)
    }


@pytest.fixture(scope="module", autouse=True)
def odd(server: Sandbox) -> None:
    store = server.store
    subject = store.create_subject(store.create_project("ODD"), "ODD")
    session = store.create_experiment(subject, "ODD_MR1")
    for label in ("NAMES", "La:bel"):
        resource = store.create_resource(session, label)
        for name in NAMES if label == "NAMES" else ("plain.txt",):
            store.add_file(resource, name, body(name))
        store.refresh_stats(resource)


@pytest.fixture(params=["own", "windows"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "windows":
        yield request.getfixturevalue("windows")
        return
    folder = tmp_path / "disk"
    folder.mkdir()
    yield folder


@pytest.fixture
def windows(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with windows_disk(tmp_path / "image", folder):
        yield folder


@contextmanager
def windows_disk(image: Path, folder: Path) -> Iterator[None]:
    if shutil.which("mkntfs") is None or shutil.which("lowntfs-3g") is None:
        pytest.skip("ntfs-3g is not installed")
    with image.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    subprocess.run(["mkntfs", "-F", "-q", "-Q", str(image)], check=True, capture_output=True)
    options = "loop,windows_names,ignore_case"
    mount = ["mount", "-t", "lowntfs-3g", "-o", options, str(image), str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def bodies(root: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in root.rglob("*") if path.is_file())


def test_a_download_brings_every_file_and_lists_those_with_other_names(
    xnatctl: Call, signed_in: Sandbox, disk: Path
) -> None:
    done = xnatctl(*LINE, "--out", str(disk / "out"))

    assert done.code == 0, (done.err, done.out)
    assert bodies(disk / "out") == sorted([*map(body, NAMES), body("plain.txt")])
    mapped = {row["key"].partition("/files/")[2]: row["path"] for row in done.json()["mapped"]}
    assert set(mapped) >= TOO_MUCH
    assert "plain.txt" not in mapped or disk.is_mount()
    for row in done.json()["mapped"]:
        name = row["key"].partition("/files/")[2]
        assert (disk / "out" / row["path"]).read_bytes() == body(name)
        assert true_place(row["path"]) in (None, f"ODD_MR1/{row['key']}")

    again = xnatctl(*LINE, "--out", str(disk / "out"), "--verify").json()
    assert (again["files_moved"], again["files"]) == (0, len(NAMES) + 1)
    assert again["mapped"] == done.json()["mapped"]


def test_a_person_is_told_which_names_are_others(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    done = xnatctl(*LINE[:-2], "--out", str(tmp_path), "-o", "table")
    assert (
        "resources/NAMES/files/@~a.txt of ODD_MR1 is ODD_MR1/resources/NAMES/files/@~@40~a.txt on"
        in done.err
    )


@pytest.mark.parametrize(
    ("disk", "form"),
    [
        ("own", "--mirror"),
        ("own", "--bagit"),
        ("windows", "--snapshot"),
        pytest.param("own", "--snapshot", marks=pytest.mark.long),
        pytest.param("windows", "--mirror", marks=pytest.mark.long),
        pytest.param("windows", "--bagit", marks=pytest.mark.long),
    ],
    indirect=["disk"],
)
def test_an_export_keeps_the_true_names_and_brings_them_back(
    xnatctl: Call,
    signed_in: Sandbox,
    destination: Sandbox,
    disk: Path,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = disk / "export"
    line = ("project", "export", "-P", "ODD", "--out", str(out), form, "-o", "json")
    first = xnatctl(*line)
    assert first.code == 0, first.err
    root = Path(first.json()["output_dir"])
    rows = [json.loads(one) for one in (root / "manifest.jsonl").read_text("utf-8").splitlines()]
    true = {row.get("name", row["path"]).removeprefix("data/"): row for row in rows}
    home = "subjects/ODD/sessions/ODD_MR1/resources/NAMES/files"
    assert {one.partition(f"{home}/")[2] for one in true if f"{home}/" in one} == set(NAMES)
    assert {row["key"].partition("/files/")[2] for row in first.json()["mapped"]} >= TOO_MUCH
    for name in NAMES:
        assert (root / true[f"{home}/{name}"]["path"]).read_bytes() == body(name)
    if form == "--bagit" and not disk.is_mount():  # other tools want the case as it was written
        assert bagit.Bag(str(root)).validate()

    assert xnatctl(*line).json()["files"] == 0
    assert xnatctl("local", "verify", str(out)).code == 0
    manifest = str(root / "manifest.jsonl")
    assert xnatctl("project", "audit", "-P", "ODD", "--manifest", manifest).code == 0
    monkeypatch.setenv("XNAT_URL", destination.url)
    target = f"{form.strip('-')}_{disk.is_mount()}".upper()
    back = ("project", "import", "--from", str(out), "-P", target, "--yes", "-o", "json")
    done = xnatctl(*back)
    assert done.code == 0, (done.err, done.out)
    assert stored(destination.store, target) == stored(signed_in.store, "ODD")
    assert xnatctl(*back).json()["files"] == 0


def test_an_import_without_the_list_of_true_names_is_refused(
    xnatctl: Call, signed_in: Sandbox, destination: Sandbox, tmp_path: Path
) -> None:
    out = tmp_path / "export"
    assert xnatctl("project", "export", "-P", "ODD", "--out", str(out)).code == 0
    (out / "manifest.jsonl").unlink()
    shutil.rmtree(out / ".xnatctl")
    done = xnatctl("project", "import", "--from", str(out), "-P", "LOST", "--yes")
    assert done.code == 8
    assert "its true name stands in manifest.jsonl alone" in done.err


def test_what_is_missing_is_named_as_it_is_called(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    out = tmp_path / "export"
    assert xnatctl("project", "export", "-P", "ODD", "--out", str(out)).code == 0
    next(out.rglob("@~@40~a.txt")).unlink()
    done = xnatctl("local", "verify", str(out), "-o", "table")
    assert done.code == 1
    assert done.out.startswith("MISSING subjects/ODD/")
    assert done.out.rstrip().endswith("/@~a.txt)")


def test_two_sessions_that_a_disk_cannot_tell_apart_are_named_and_the_first_stays_whole(
    xnatctl: Call, signed_in: Sandbox, windows: Path
) -> None:
    store = signed_in.store
    if store.find_project("TWINS") is None:
        subject = store.create_subject(store.create_project("TWINS"), "T")
        for label in ("T_MR1", "t_mr1"):
            session = store.create_experiment(subject, label)
            resource = store.create_resource(session, "R")
            store.add_file(resource, "a.txt", body(label))
            store.refresh_stats(resource)
    line = ("project", "export", "-P", "TWINS", "--out", str(windows / "out"))
    first = xnatctl(*line)
    assert first.code == 1
    assert "would lie in the folder of" in first.err
    there = bodies(windows / "out" / "subjects")

    assert xnatctl(*line).code == 1
    assert bodies(windows / "out" / "subjects") == there
    assert sum(one in (body("T_MR1"), body("t_mr1")) for one in there) == 1


def test_an_archive_is_unpacked_under_names_that_the_disk_takes(
    xnatctl: Call, tmp_path: Path
) -> None:
    names = ("plain.txt", "ü" * 140 + ".txt", "a.txt", "@~a.txt")
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "odd.zip", "w") as archive:
        for name in names:
            archive.writestr(name, body(name))
    line = ("local", "extract", str(tmp_path / "in"), "-o", "json")
    done = xnatctl(*line)
    assert (done.code, done.json()["files"]) == (0, len(names)), done.err
    mapped = {row["key"]: row["path"] for row in done.json()["mapped"]}
    assert set(mapped) == {names[1], names[3]}
    for name in names:
        assert (tmp_path / "in" / mapped.get(name, name)).read_bytes() == body(name)
    assert xnatctl(*line).json()["files"] == 0
