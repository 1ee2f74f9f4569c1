"""Downloads and exports onto disks that are full or cannot be written, and runs that are stopped.

The disks are small file systems in memory; who may not mount them skips the tests.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import process
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.server import Sandbox

Call = Callable[..., Any]
BODY = b"0123456789abcdef" * 65536  # 1 MiB
LINES = {
    "tree": ("session", "download", "-P", "BIG", "-E", "BIG_MR1", "--out", "{}"),
    "zip": ("session", "download", "-P", "BIG", "-E", "BIG_MR1", "--no-extract", "--out", "{}"),
    "resource": ("resource", "download", "-P", "BIG", "BIG_MR1", "A", "-f", "{}/a.zip"),
    "files": ("resource", "download", "-P", "BIG", "BIG_MR1", "A", "--extract", "{}/a"),
    "export": ("project", "export", "-P", "BIG", "--out", "{}/export"),
    "snapshot": ("project", "export", "-P", "BIG", "--out", "{}/export", "--snapshot"),
}
FILES = {"tree": 3, "zip": 1, "resource": 1, "files": 3, "export": 6, "snapshot": 6}
every = pytest.mark.parametrize("verb", LINES)


def typed(verb: str, disk: Path) -> tuple[str, ...]:
    return tuple(word.format(disk) for word in LINES[verb])


@pytest.fixture(scope="module", autouse=True)
def big(server: Sandbox) -> None:
    """A session with six files of 1 MiB."""
    store = server.store
    subject = store.create_subject(store.create_project("BIG"), "BIG")
    session = store.create_experiment(subject, "BIG_MR1")
    scan = store.create_scan(session, "1")
    for owner, label in ((session, "A"), (scan, "B")):
        resource = store.create_resource(owner, label)
        for number in range(3):
            store.add_file(resource, f"{number}.bin", BODY + bytes([number]))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, large enough."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "size=16m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def mount(folder: Path, options: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")


def bodies(disk: Path) -> list[Path]:
    """Everything under a final name; each file is whole."""
    found = [path for path in disk.rglob("*") if path.suffix in (".bin", ".zip")]
    whole = {hashlib.md5(BODY + bytes([number])).hexdigest() for number in range(3)}
    for path in found:
        if path.suffix == ".bin":
            assert hashlib.md5(path.read_bytes()).hexdigest() in whole
    return found


@every
def test_a_full_disk_is_said_nothing_half_written_stays_and_the_same_command_goes_on(
    xnatctl: Call, signed_in: Sandbox, disk: Path, verb: str
) -> None:
    subprocess.run(["mount", "-o", "remount,size=2m", str(disk)], check=True)
    done = xnatctl(*typed(verb, disk))

    assert done.code == 1
    assert "has no room for" in done.err
    assert "free some space and run the same command again" in done.err
    assert "Traceback" not in done.err
    found = bodies(disk)
    assert len(found) <= 1
    assert not [path for path in found if path.suffix == ".zip"]
    assert not list(disk.rglob("*.part"))

    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    done = xnatctl(*typed(verb, disk))
    assert done.code == 0, done.err
    assert len(bodies(disk)) == FILES[verb]


@every
def test_a_disk_that_cannot_be_written_is_named(
    xnatctl: Call, signed_in: Sandbox, disk: Path, verb: str
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = xnatctl(*typed(verb, disk))
    assert done.code == 1
    assert str(disk) in done.err
    assert "Read-only file system" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("verb", ["tree", "zip", "snapshot"])
def test_a_download_that_is_interrupted_leaves_whole_files_and_goes_on(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path, verb: str
) -> None:
    signed_in.faults.add(Fault("GET */files*", "bandwidth", nth=3, times=0, rate=400_000))
    words = (*typed(verb, tmp_path), "-o", "json")
    running = process(*words, "--events", str(tmp_path / "events"))
    deadline = time.monotonic() + 30
    while not list(tmp_path.rglob("*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(2):  # the first asks, the second insists
        running.send_signal(signal.SIGINT)
        time.sleep(0.3)
    out, err = running.communicate(timeout=30)
    signed_in.faults.clear()

    assert running.returncode == 130, err
    assert json.loads(out)["interrupted" if verb == "snapshot" else "errors"]
    assert "Traceback" not in err
    bodies(tmp_path)
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("*.zip"))

    again = xnatctl(*words)
    assert again.code == 0, again.err
    assert len(bodies(tmp_path)) == FILES[verb]


def test_a_disk_that_fills_up_in_the_night_leaves_the_night_before_as_it_was(
    xnatctl: Call, signed_in: Sandbox, disk: Path
) -> None:
    store = signed_in.store
    subject = store.create_subject(store.create_project("NIGHTS"), "N")

    def add(session: str, files: int) -> None:
        resource = store.create_resource(store.create_experiment(subject, session), "R")
        for number in range(files):
            store.add_file(resource, f"{number}.bin", BODY + bytes([number]))

    line = ("project", "export", "-P", "NIGHTS", "--out", str(disk / "export"), "--snapshot")
    add("N_MR1", 2)
    assert xnatctl(*line).code == 0
    latest = (disk / "export" / "latest").resolve()
    before = {path: path.stat() for path in latest.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-o", "remount,size=5m", str(disk)], check=True)
    add("N_MR2", 2)
    add("N_MR3", 2)

    done = xnatctl(*line, "--workers", "1")

    assert done.code == 1
    assert "free some space and run the same command again" in done.err
    assert (disk / "export" / "latest").resolve() == latest
    assert xnatctl("local", "verify", str(latest)).code == 0
    now = {path: path.stat() for path in latest.rglob("*") if path.is_file()}
    assert {path: (one.st_ino, one.st_mtime_ns) for path, one in now.items()} == {
        path: (one.st_ino, one.st_mtime_ns) for path, one in before.items()
    }
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    done = xnatctl(*line, "-o", "json")
    assert (done.code, done.json()["files"] < 4) == (0, True), done.err
    assert len(bodies((disk / "export" / "latest").resolve())) == 6
