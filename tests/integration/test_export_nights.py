"""Nights of exports by the real program, one of them killed; judged by the server's own counters.

Every file is a MiB or more, so that each is one request of its own, and bytes can be told apart
from listings by the address they were sent from.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.integration.oracle import files_of
from xnatctl.sandbox.counters import Counters, Seen
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.store import Store

MIB = 1024 * 1024
SERVING: ContextVar[Counter[str]] = ContextVar("SERVING")


class PerRequest(Counters):
    """Counters that know, too, how many bytes of files and of all else were sent."""

    def reset(self) -> None:
        super().reset()
        self.files_sent: list[int] = []
        self.else_sent = 0

    @contextmanager
    def request(self, method: str) -> Iterator[Seen]:
        mine: Counter[str] = Counter()
        SERVING.set(mine)
        with super().request(method) as seen:
            try:
                yield seen
            finally:
                if "/files/" in seen.route:
                    self.files_sent.append(mine["sent"])
                else:
                    self.else_sent += mine["sent"]

    def sent(self, count: int) -> None:
        super().sent(count)
        SERVING.get()["sent"] += count


class Study:
    """A project on a running server, changed from night to night."""

    def __init__(self, sandbox: Sandbox, portal: BlockingPortal) -> None:
        self.sandbox = sandbox
        self.portal = portal
        self.counters = PerRequest()
        sandbox.counters = self.counters
        self._made = 0

    @property
    def store(self) -> Store:
        return self.sandbox.store

    def write(self, session: str, scan: str, name: str) -> int:
        """A file with bytes of its own, new or in the place of one; its size."""
        self._made += 1
        body = self._made.to_bytes(4, "big") * (MIB // 4 + self._made)
        self.portal.call(self._write, session, scan, name, body)
        return len(body)

    def _write(self, session: str, scan: str, name: str, body: bytes) -> None:
        store = self.store
        project = store.find_project("STUDY") or store.create_project("STUDY")
        subject = session.partition("_")[0]
        owner = store.find_subject(subject, project) or store.create_subject(project, subject)
        item = store.find_experiment(session, project) or store.create_experiment(owner, session)
        found = store.find_child(item, "scan", scan) or store.create_scan(item, scan)
        known = {one.label: one for one in store.resources(found)}
        resource = known.get("DICOM") or store.create_resource(found, "DICOM")
        store.add_file(resource, name, body)
        store.refresh_stats(resource)

    def drop(self, session: str) -> None:
        def delete() -> None:
            project = self.store.find_project("STUDY")
            item = self.store.find_experiment(session, project)
            assert item is not None
            self.store.delete(item, remove_files=True)

        self.portal.call(delete)

    def digests(self) -> list[str]:
        return sorted(one[4] for one in files_of(self.store.root, "STUDY"))


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with start_blocking_portal() as portal:
        sandbox = Sandbox(tmp_path / "server")
        study = Study(sandbox, portal)
        with portal.wrap_async_context_manager(sandbox):
            yield study


def start(study: Study, out: Path, *more: str, crash: str = "") -> subprocess.Popen[str]:
    """The command in a process of its own, and the counters begun anew."""
    study.counters.reset()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(out.parent),
        "XNAT_URL": study.sandbox.url,
        "XNAT_USER": "admin",
        "XNAT_PASS": "admin",
        "XNATCTL_CRASH_AT": crash,
    }
    command = [sys.executable, "-m", "xnatctl", "project", "export", "-P", "STUDY"]
    return subprocess.Popen(
        [*command, "--out", str(out), "-o", "json", *more],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def night(study: Study, out: Path, *more: str) -> dict[str, Any]:
    """One night to its end; its summary."""
    process = start(study, out, *more)
    done, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return dict(json.loads(done))


def data(root: Path) -> dict[str, str]:
    """MD5s of all files of data below a folder, by path."""
    return {
        path.relative_to(root).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and "/files/" in path.as_posix() and ".part" not in path.name
    }


def killed_half_way(study: Study, out: Path, *more: str, files: int) -> None:
    """A night that is killed when some files have gone out whole, and others in part."""
    study.sandbox.faults.add(Fault("GET */files/*", "bandwidth", rate=2 * MIB))
    process = start(study, out, *more, "--workers", "2")
    deadline = time.monotonic() + 30
    while sum(sent >= MIB for sent in study.counters.files_sent) < files:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.kill()
    process.communicate()
    study.sandbox.faults.clear()


@pytest.mark.parametrize("mode", ["--mirror", "--snapshot"])
def test_nights_move_exactly_the_changes_also_after_one_that_was_killed(
    study: Study, tmp_path: Path, mode: str
) -> None:
    out = tmp_path / "out"
    every = (mode,) if mode == "--snapshot" else (mode, "--deletions", "delete")
    sizes = [study.write(f"S{n}_MR", scan, "a.dcm") for n in (1, 2, 3) for scan in ("1", "2")]

    first = night(study, out, *every)
    assert sorted(study.counters.files_sent) == sorted(sizes)
    assert (first["files"], first["bytes"]) == (len(sizes), sum(sizes))
    before = data(Path(first["output_dir"]))
    assert sorted(before.values()) == study.digests()

    # The second night finds files more, one altered, a new session, and one that is gone.
    changes = {
        study.write(*where)
        for where in (
            ("S1_MR", "1", "b.dcm"),
            ("S1_MR", "2", "a.dcm"),
            ("S2_MR", "7", "a.dcm"),
            ("S4_MR", "1", "a.dcm"),
            ("S4_MR", "1", "b.dcm"),
            ("S4_MR", "2", "a.dcm"),
        )
    }
    study.drop("S3_MR")
    killed_half_way(study, out, *every, files=3)
    if mode == "--snapshot":
        assert data(out / "latest") == before
    # Whatever stands under a final name is whole, be it the old file or the new one.
    whole = set(before.values()) | set(study.digests())
    assert set(data(out).values()) <= whole
    had = {path.stat().st_size for path in out.rglob("*.dcm")} & changes
    assert 0 < len(had) < len(changes)

    # The third goes on, with one change of its own; the fourth has nothing to do.
    changes.add(study.write("S2_MR", "8", "a.dcm"))
    third = night(study, out, *every)
    assert sorted(study.counters.files_sent) == sorted(changes - had)
    assert third["bytes"] == sum(changes - had)
    folder = Path(third["output_dir"])
    assert sorted(data(folder).values()) == study.digests()
    if mode == "--snapshot":
        assert data(Path(first["output_dir"])) == before
        assert (out / "latest").resolve() == folder
        assert not list(out.glob(".unfinished"))
    assert not list(out.rglob("*.part"))

    fourth = night(study, out, *every)
    assert (fourth["files"], study.counters.files_sent) == (0, [])
    assert study.counters.else_sent < 200_000
    assert sorted(data(Path(fourth["output_dir"])).values()) == study.digests()


POINTS = (
    *("unit-begun", "file-moving:2", "file-proven", "item-done:4", "stage-sealed:3", "unit-told:3"),
    *("snapshot-whole", "snapshot-named", "snapshot-latest"),
)
SAMPLE = "snapshot-named"


@pytest.mark.parametrize(
    "point",
    [pytest.param(one, marks=[] if one == SAMPLE else [pytest.mark.long]) for one in POINTS],
)
def test_a_snapshot_that_died_there_damages_none_and_the_next_night_is_whole(
    study: Study, tmp_path: Path, point: str
) -> None:
    out = tmp_path / "out"
    study.write("S1_MR", "1", "a.dcm")
    study.write("S2_MR", "1", "a.dcm")
    first = Path(night(study, out, "--snapshot")["output_dir"])
    before = data(first)
    study.write("S1_MR", "1", "a.dcm")
    study.write("S3_MR", "1", "a.dcm")
    study.write("S3_MR", "2", "a.dcm")
    study.drop("S2_MR")

    dies = start(study, out, "--snapshot", crash=point)
    _, err = dies.communicate(timeout=60)

    assert dies.returncode == -signal.SIGKILL, err
    assert data(first) == before
    latest = (out / "latest").resolve()
    assert (
        data(latest) == before
        if latest == first
        else sorted(data(latest).values()) == study.digests()
    )
    second = Path(night(study, out, "--snapshot")["output_dir"])
    assert sorted(data(second).values()) == study.digests()
    assert (out / "latest").resolve() == second != first
    assert data(first) == before
    assert not [path for path in out.iterdir() if path.name.startswith((".unfinished", ".latest"))]
