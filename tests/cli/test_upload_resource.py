"""`resource upload`, `show`, `delete` and `refresh` at every level, judged by the server's disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.store import Item

Call = Callable[..., Result]

FILES = {
    "a.txt": b"the first",
    "deep/er/b.bin": bytes(range(256)) * 20,
    "empty": b"",
    "odd+name, 50%.txt": b"odd",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    for name, body in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    (root / ".DS_Store").write_bytes(b"litter")
    return root


def item_of(server: Sandbox, level: str) -> Item:
    store = server.store
    project = store.find_project("STUDY")
    assert project is not None
    subject = store.find_subject("SUB1", project)
    session = store.find_experiment("SUB1_MR1", project)
    assert subject is not None
    assert session is not None
    scan = store.find_child(session, "scan", "3")
    assert scan is not None
    return {"project": project, "subject": subject, "session": session, "scan": scan}[level]


def stored(server: Sandbox, item: Item, label: str) -> dict[str, bytes]:
    """What lies in a resource on the server's disk."""
    store = server.store
    return {
        file.path: store.file_path(resource, file).read_bytes()
        for resource in store.resources(item)
        if resource.label == label
        for file in store.files(resource)
    }


WHERE = {
    "project": ((), ("-P", "STUDY")),
    "subject": ((), ("-P", "STUDY", "-S", "SUB1")),
    "session": (("SUB1_MR1",), ("-P", "STUDY")),
    "scan": (("SUB1_MR1",), ("-P", "STUDY", "--scan", "3")),
}


@pytest.mark.parametrize("level", list(WHERE))
def test_a_folder_arrives_byte_for_byte_at_every_level_and_goes_again(
    xnatctl: Call, signed_in: Sandbox, folder: Path, level: str
) -> None:
    words, where = WHERE[level]
    line = ("resource", "upload", *words, "FOLDER", str(folder), *where, "-o", "json")
    done = xnatctl(*line, "--format", "TXT", "--content", "NOTES")
    assert done.code == 0, done.err
    found = done.json()
    assert (found["files"], found["bytes"]) == (4, sum(map(len, FILES.values())))
    assert [one["file"] for one in found["left_out"]] == [".DS_Store"]
    item = item_of(signed_in, level)
    assert stored(signed_in, item, "FOLDER") == FILES
    again = xnatctl(*line)
    assert (again.code, again.json()["files_sent"]) == (0, 0)

    shown = xnatctl("resource", "show", *words, "FOLDER", *where, "-o", "json").json()
    assert (shown["format"], shown["content"], shown["file_count"]) == ("TXT", "NOTES", "4")
    assert {one["path"] for one in shown["files"]} == set(FILES)
    assert xnatctl("resource", "refresh", *words, "FOLDER", *where).code == 0
    delete = ("resource", "delete", *words, "FOLDER", *where)
    assert xnatctl(*delete).code == 2
    assert "\tresource FOLDER of " in xnatctl(*delete, "--dry-run").out
    assert stored(signed_in, item, "FOLDER") == FILES
    assert xnatctl(*delete, "--yes").code == 0
    assert stored(signed_in, item, "FOLDER") == {}
    assert xnatctl(*delete, "--yes").code == 5


def test_a_file_goes_to_an_assessor_that_is_named_by_its_label(
    xnatctl: Call, signed_in: Sandbox, folder: Path
) -> None:
    store = signed_in.store
    session = item_of(signed_in, "session")
    assessor = store.create_assessor(session, "QC1")
    line = ("resource", "upload", "SUB1_MR1", "PLOTS", str(folder / "a.txt"), "-P", "STUDY")
    done = xnatctl(*line, "--assessor", "QC1")
    assert done.code == 0, done.err
    assert stored(signed_in, assessor, "PLOTS") == {"a.txt": FILES["a.txt"]}
    assert xnatctl(*line, "--assessor", "QC1", "-o", "json").json()["files_sent"] == 0
    rows = ("resource", "list", "SUB1_MR1", "-P", "STUDY", "--assessor", "QC1", "-o", "json")
    assert [one["label"] for one in xnatctl(*rows).json()] == ["PLOTS"]
    assert xnatctl(*line, "--assessor", "NOPE").code == 5


def test_a_file_that_differs_is_a_conflict_until_told_what_to_do(
    xnatctl: Call, signed_in: Sandbox, folder: Path, tmp_path: Path
) -> None:
    item = item_of(signed_in, "session")
    other = tmp_path / "elsewhere" / "a.txt"
    other.parent.mkdir()
    other.write_bytes(b"of somebody else")
    there = ("resource", "upload", "SUB1_MR1", "CHANGES")
    assert xnatctl(*there, str(other), "-P", "STUDY").code == 0
    line = (*there, str(folder / "a.txt"), "-P", "STUDY")
    done = xnatctl(*line)
    assert done.code == 9, done.err
    assert "a.txt" in done.err
    assert stored(signed_in, item, "CHANGES") == {"a.txt": b"of somebody else"}
    kept = xnatctl(*line, "--skip-existing")
    assert kept.code == 0, kept.err
    assert stored(signed_in, item, "CHANGES") == {"a.txt": b"of somebody else"}
    assert xnatctl(*line, "--overwrite", "--skip-existing").code == 2
    assert xnatctl(*line, "--overwrite").code == 0
    assert stored(signed_in, item, "CHANGES") == {"a.txt": FILES["a.txt"]}


def test_a_file_that_changed_here_since_it_was_uploaded_from_here_is_replaced(
    xnatctl: Call, signed_in: Sandbox, folder: Path
) -> None:
    line = ("resource", "upload", "SUB1_MR1", "OURS", str(folder / "a.txt"), "-P", "STUDY")
    assert xnatctl(*line).code == 0
    (folder / "a.txt").write_bytes(b"the second")
    assert xnatctl(*line).code == 0
    assert stored(signed_in, item_of(signed_in, "session"), "OURS") == {"a.txt": b"the second"}


def test_an_upload_that_the_server_only_pretends_to_store_is_found(
    xnatctl: Call, signed_in: Sandbox, folder: Path
) -> None:
    signed_in.faults.add(Fault("PUT */files/*", "truncate-stored", nth=1, times=0, at=3))
    line = ("resource", "upload", "SUB1_MR1", "SHORT", str(folder / "a.txt"), "-P", "STUDY")
    try:
        done = xnatctl(*line)
    finally:
        signed_in.faults.clear()
    assert done.code == 8, done.err


def test_what_cannot_be_meant_is_said_in_one_sentence(
    xnatctl: Call, signed_in: Sandbox, folder: Path
) -> None:
    assert xnatctl("resource", "upload", "A", "-P", "STUDY").code == 2
    assert xnatctl("resource", "upload", "LABEL", str(folder / "no"), "-P", "STUDY").code == 5
    assert xnatctl("resource", "upload", "LABEL", str(folder), "-P", "NOPE").code == 5
    lost = xnatctl("resource", "upload", "NONE", "LABEL", str(folder), "-P", "STUDY")
    assert lost.code == 5
    assert "Traceback" not in lost.err
    scan = ("resource", "upload", "SUB1_MR1", "L", str(folder), "-P", "STUDY", "--scan", "99")
    assert xnatctl(*scan, "--retries", "0").code == 5
