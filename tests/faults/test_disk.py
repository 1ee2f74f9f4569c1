"""Disks that are full, become full, or cannot be written: real ones, of a few megabytes."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import process
from tests.faults.children import Servers, servers
from tests.faults.judge import Record, account, judge
from tests.integration.conftest import Bench
from xnatctl.endpoints import prearchive
from xnatctl.engine.types import Rule, Selection
from xnatctl.model import Ref
from xnatctl.sandbox.seed_parts import fill, new_project
from xnatctl.sandbox.store import Store

pytestmark = pytest.mark.fault("disk full, read-only, over quota")
MEGA = 1_000_000
DOWNLOAD = ("session", "download", "-P", "BULK", "-E", "S_1", "--out", "disk/out")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def bulk(store: Store) -> None:
    """A session of 12 MB: big files that come one by one, and small ones that come together."""
    project = new_project(store, "BULK")
    subject = store.create_subject(project, "S")
    session = store.create_experiment(subject, "S_1", fields={"date": "2024-03-01"})
    for scan, (count, size) in enumerate([(3, 3 * MEGA), (60, MEGA // 20)], 1):
        item = store.create_scan(session, str(scan), fields={"type": "T1"})
        fill(store, item, "DATA", {f"{n}.dat": os.urandom(size) for n in range(count)})


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Servers]:
    with servers(tmp_path, bulk) as found:
        yield found


def call(ends: Servers, *argv: str, **more: str) -> tuple[int, str]:
    environ = {"HOME": str(ends.home), "XNAT_URL": ends.here.url, "XNAT_USER": "admin"}
    environ |= {"XNAT_PASS": "admin", "PATH": os.environ["PATH"], **more}
    running = process(*argv, env=environ, cwd=ends.home)
    out, err = running.communicate(timeout=60)
    assert "Traceback" not in err
    return running.returncode, out + err


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


FORMS = pytest.mark.parametrize(
    "form", ["--extract", pytest.param("--no-extract", marks=pytest.mark.long)]
)


@FORMS
def test_what_cannot_fit_is_said_before_anything_is_written(
    ends: Servers, disk: Path, form: str
) -> None:
    code, said = call(ends, *DOWNLOAD, form)
    assert code == 1, said
    assert "12.0 MB are needed and 8" in said
    assert files_below(disk) == []

    remount(disk, "size=40m")
    code, said = call(ends, *DOWNLOAD, form)
    assert code == 0, said


@FORMS
def test_a_disk_that_fills_up_on_the_way_leaves_no_short_file_and_goes_on_later(
    ends: Servers, disk: Path, form: str
) -> None:
    remount(disk, "size=16m")
    (disk / "hog").write_bytes(b"")
    # Somebody else takes the room after it was looked at: each write asks the disk anew.
    environ = {"PYTHONPATH": str(greedy(ends.home, disk / "hog"))}
    code, said = call(ends, *DOWNLOAD, form, **environ)
    assert code == 1, said
    assert "free some space" in said
    for path in files_below(disk / "out") if (disk / "out").exists() else []:
        assert path.stat().st_size in (3 * MEGA, MEGA // 20), path

    (disk / "hog").unlink()
    code, said = call(ends, *DOWNLOAD, form)
    assert code == 0, said
    assert "PART" not in "".join(str(path).upper() for path in files_below(disk))
    if form == "--extract":
        assert sum(path.stat().st_size for path in files_below(disk / "out")) == 12 * MEGA


def greedy(home: Path, hog: Path) -> Path:
    """A folder for PYTHONPATH: 10 MB vanish when the process has looked how much is free."""
    folder = home / "greedy"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import shutil\n"
        "from pathlib import Path\n"
        "plain = shutil.disk_usage\n"
        "def disk_usage(path):\n"
        "    found = plain(path)\n"
        f"    Path({str(hog)!r}).write_bytes(bytes({10 * MEGA}))\n"
        "    return found\n"
        "shutil.disk_usage = disk_usage\n"
    )
    return folder


async def test_an_object_that_finds_no_room_on_its_way_ends_the_run_with_what_to_do(
    demo: Bench, disk: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    monkeypatch.setattr(prearchive, "IN_MEMORY", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    remount(disk, "size=4k")
    (disk / "hog").write_bytes(bytes(4096))
    part = Selection(Ref("DEMO"), rules=(Rule("session", ("DEMO_002_CT1",)),))
    first = await demo.transfer(dicom="import", selection=part)
    assert first.exit_code == 1
    assert f"{disk} cannot hold an object" in first.interrupted

    remount(disk, "size=8m")
    second = await demo.transfer(dicom="import", selection=part)
    owners = ("DEMO_002_CT1", "DEMO_002", "")
    found = judge(demo.source, demo.sink, "DEMO", mode="import", owners=owners)
    account(record_property, found, claims=[second.exit_code == 0 and not found.is_whole])
    assert second.exit_code == 0, second.problems
    assert found.is_whole


@pytest.mark.long
def test_a_disk_that_cannot_be_written_is_said(ends: Servers, disk: Path) -> None:
    remount(disk, "ro")
    code, said = call(ends, *DOWNLOAD)
    assert code == 1, said
    assert "Read-only file system" in said


@pytest.mark.parametrize("harm", [pytest.param("full", marks=pytest.mark.long), "read-only"])
def test_a_state_store_on_such_a_disk_is_said_and_nothing_is_claimed(
    ends: Servers, disk: Path, harm: str
) -> None:
    if harm == "full":
        (disk / "hog").write_bytes(bytes(int(7.99 * 1024 * 1024)))
        with (disk / "rest").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
    else:
        remount(disk, "ro")
    out = ("session", "download", "-P", "BULK", "-E", "S_1", "--out", "out")
    code, said = call(ends, *out, XDG_STATE_HOME=str(disk))
    assert code == 1, said
    assert str(disk) in said

    code, said = call(ends, *out)
    assert code == 0, said
