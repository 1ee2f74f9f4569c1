"""`run list`, `show`, `resume` and `state`, after runs that ended well, badly or not at all."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Result
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.server import Sandbox

Call = Callable[..., Result]
DOWNLOAD = ("session", "download", "-P", "STUDY", "-E", "SUB1_MR1", "--out", "out")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Commands are typed in a folder that is not where the tests run."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def store(home: Path) -> Path:
    return home / ".local/state/xnatctl/state.db"


def test_every_run_is_listed_and_shown(xnatctl: Call, signed_in: Sandbox, folder: Path) -> None:
    assert xnatctl(*DOWNLOAD, "-q").code == 0
    assert xnatctl(*DOWNLOAD, "-q").code == 0

    second, first = xnatctl("run", "list", "-o", "json").json()
    assert (first["verb"], first["status"], first["files"], first["exit_code"]) == (
        "download",
        "done",
        2,
        0,
    )
    assert (first["copied"], second["copied"], second["kept"]) == (1, 0, 1)
    shown = xnatctl("run", "show", first["id"], "-o", "json").json()
    assert (shown["run_id"], shown["folder"]) == (first["id"], str(folder))
    assert shown["command"] == f"xnatctl {' '.join(DOWNLOAD)} -q"
    assert xnatctl("run", "show", "-o", "json").json()["run_id"] == second["id"]
    assert xnatctl("run", "list", "-q").out.split() == [second["id"], first["id"]]
    assert "session download" in xnatctl("run", "show", "-o", "table").err


def test_a_run_that_failed_is_gone_on_with_from_any_folder(
    xnatctl: Call, signed_in: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in.faults.add(Fault("GET */files*format=zip*", "status", nth=0, status=400))
    signed_in.faults.add(Fault("GET */files/*", "status", nth=0, status=400))
    assert xnatctl(*DOWNLOAD).code != 0
    signed_in.faults.clear()
    shown = xnatctl("run", "show", "-o", "table")
    assert "to go on: xnatctl run resume" in shown.err
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")

    said = xnatctl("run", "resume", "--dry-run")
    assert "xnatctl session download" in said.err
    assert not list(folder.rglob("*.nii"))
    assert xnatctl("run", "resume").code == 0

    assert len(list((folder / "out").rglob("*.nii"))) == 2
    assert Path.cwd() == folder
    again, _ = xnatctl("run", "list", "-o", "json").json()
    assert again["status"] == "done"
    assert xnatctl("run", "show", "-o", "json").json()["command"].endswith("--out out")


def test_a_run_whose_process_died_is_shown_as_interrupted(
    xnatctl: Call, signed_in: Sandbox, folder: Path, home: Path
) -> None:
    assert xnatctl(*DOWNLOAD, "-q").code == 0
    with closing(sqlite3.connect(store(home))) as db, db:
        db.execute("UPDATE run SET status='running', ended=NULL")

    (found,) = xnatctl("run", "list", "--filter", "status:interrupted", "-o", "json").json()
    assert found["verb"] == "download"


def test_a_folder_that_is_gone_is_said_and_nothing_runs(
    xnatctl: Call, signed_in: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "there").mkdir()
    monkeypatch.chdir(folder / "there")
    assert xnatctl(*DOWNLOAD, "-q").code == 0
    monkeypatch.chdir(folder)
    (folder / "there").rename(folder / "gone")

    result = xnatctl("run", "resume")
    assert result.code == 1
    assert "cannot be entered" in result.err


@pytest.mark.parametrize("command", [("show",), ("resume",), ("show", "20200101-000000-abcdef")])
def test_a_run_that_nobody_remembers_exits_5(xnatctl: Call, command: tuple[str, ...]) -> None:
    result = xnatctl("run", *command)
    assert result.code == 5
    assert "remembered" in result.err


# --- the store -------------------------------------------------------------------------------


def test_the_store_is_told_checked_and_made_small(
    xnatctl: Call, signed_in: Sandbox, folder: Path, home: Path
) -> None:
    assert xnatctl("state", "path", "-q").out.strip() == str(store(home))
    assert xnatctl("state", "path").code == 5
    assert xnatctl(*DOWNLOAD, "-q").code == 0

    assert xnatctl("state", "path", "-o", "json").json()["runs"] == 1
    assert xnatctl("state", "check", "-o", "json").json()["sound"] is True
    assert xnatctl("state", "vacuum", "-o", "json").json()["runs_forgotten"] == 0
    done = xnatctl("state", "vacuum", "--older-than", "0", "-o", "json").json()
    assert done["runs_forgotten"] == 1
    assert done["after"] <= done["before"]
    assert xnatctl("run", "list", "-o", "json").json() == []
    assert xnatctl("state", "path", "-o", "json").json()["units"] == 1


@pytest.mark.fault("state file deleted, damaged, locked")
def test_without_the_store_the_ends_are_compared_afresh(
    xnatctl: Call, signed_in: Sandbox, folder: Path, home: Path
) -> None:
    assert xnatctl(*DOWNLOAD, "-q").code == 0
    for path in store(home).parent.glob("state.db*"):
        path.unlink()

    again = xnatctl(*DOWNLOAD, "-o", "json")
    assert again.code == 0
    shown = xnatctl("run", "show", "-o", "json").json()
    assert (shown["files"], shown["files_kept"]) == (0, 2)


def spoil(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + os.urandom(4000))


def overtake(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")


def occupy(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.fault("state file deleted, damaged, locked")
@pytest.mark.parametrize(
    ("harm", "words"),
    [(spoil, "move it away"), (overtake, "newer xnatctl"), (occupy, "cannot be used")],
)
@pytest.mark.parametrize("command", [("run", "list"), DOWNLOAD], ids=["list", "download"])
def test_a_store_that_cannot_be_used_is_said_with_the_way_out(
    xnatctl: Call,
    signed_in: Sandbox,
    folder: Path,
    home: Path,
    harm: Callable[[Path], None],
    words: str,
    command: tuple[str, ...],
) -> None:
    assert xnatctl(*DOWNLOAD, "-q").code == 0
    with closing(sqlite3.connect(store(home))) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in store(home).parent.glob("state.db-*"):
        path.unlink()
    harm(store(home))

    result = xnatctl(*command)
    assert result.code == 1
    assert words in result.err
    assert "Traceback" not in result.err


@pytest.mark.fault("state file deleted, damaged, locked")
def test_a_store_that_is_being_written_is_not_made_small(
    xnatctl: Call, signed_in: Sandbox, folder: Path, home: Path
) -> None:
    assert xnatctl(*DOWNLOAD, "-q").code == 0
    with closing(sqlite3.connect(store(home), isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        result = xnatctl("state", "vacuum")
    assert result.code == 1
    assert "wait for the run" in result.err


@pytest.mark.fault("disk full, read-only, over quota")
def test_a_home_that_cannot_be_written_is_said(
    xnatctl: Call, signed_in: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # /proc refuses everybody, root too.
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nobody")
    result = xnatctl(*DOWNLOAD)
    assert result.code == 1
    assert "/proc/nobody" in result.err
    assert not list(folder.rglob("*.nii"))
