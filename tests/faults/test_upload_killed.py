"""A real process is killed at each step of an upload; the same command finishes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from tests.integration.uploading import entries_in, uids_in_archive, uids_on_disk, write_export
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings

LONG_S = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox in a thread, reached by child processes; archiving takes a moment."""
    with start_blocking_portal() as portal:
        sandbox = Sandbox(tmp_path / "server", settings=Settings(archive_s=0.3))
        sandbox.store.create_project("P")
        with portal.wrap_async_context_manager(sandbox):
            yield sandbox


def start(server: Sandbox, export: Path, *more: str, verb: str = "upload") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "xnatctl", "session", verb, str(export), *more]
    command += ["-P", "P", "-S", "S1", "-E", "E1", "-o", "json"]
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(export.parent),
        "XNAT_URL": server.url,
        "XNAT_USER": "admin",
        "XNAT_PASS": "admin",
    }
    return subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        if happened():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    raise AssertionError("it did not happen")


STEPS = {
    "the destination is looked at": ("GET /data/projects/P/experiments/E1*", 1),
    "the first series is sent": ("POST /data/services/import*", 1),
    "the second series is sent": ("POST /data/services/import*", 2),
    "the entry is built": ("POST /data/prearchive/*action=build*", 1),
    "the entry is compared": ("GET /data/prearchive/*/scans*", 1),
    "the label is looked at once more": ("GET /data/projects/P/experiments/E1*", 2),
    "the entry is archived": ("POST /data/services/archive*", 1),
    "the archived session is compared": ("GET /data/experiments/*/files*", 1),
}


@pytest.mark.parametrize("step", list(STEPS))
def test_an_upload_that_is_killed_while(server: Sandbox, tmp_path: Path, step: str) -> None:
    """… is finished by the same command, and nothing is there twice."""
    export = write_export(tmp_path / "export")
    match, nth = STEPS[step]
    server.faults.add(Fault(match, "latency", nth=nth, seconds=LONG_S))
    first = start(server, export)
    wait_until(first, lambda: not server.faults.unused())
    first.kill()
    first.communicate()
    server.faults.clear()

    second = start(server, export)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert json.loads(out)["status"] == "success"
    assert uids_in_archive(server.store.root, "P", "E1") == sorted(uids_on_disk(export))
    assert entries_in(server.store.root) == {}


def test_an_upload_that_is_killed_while_the_server_archives_is_seen_to_be_done(
    server: Sandbox, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    first = start(server, export)
    wait_until(first, lambda: any("ARCHIVING" in one.status for one in server.prearchive.entries()))
    first.kill()
    first.communicate()

    second = start(server, export)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert json.loads(out)["files_sent"] == 0
    assert uids_in_archive(server.store.root, "P", "E1") == sorted(uids_on_disk(export))
    assert entries_in(server.store.root) == {}
    assert server.counters.count("POST", "/services/archive") == 1


def test_a_series_that_arrived_before_the_kill_is_not_sent_again(
    server: Sandbox, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    server.faults.add(Fault("POST /data/services/import*", "latency", nth=2, seconds=LONG_S))
    first = start(server, export)
    wait_until(first, lambda: not server.faults.unused())
    first.kill()
    first.communicate()
    server.faults.clear()
    out, err = start(server, export).communicate(timeout=60)
    assert json.loads(out)["files_sent"] == 3, err


def test_ctrl_c_names_the_command_that_goes_on_once(server: Sandbox, tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    server.faults.add(Fault("POST /data/services/import*", "latency", nth=2, seconds=LONG_S))
    first = start(server, export, "--progress", "none")
    wait_until(first, lambda: not server.faults.unused())
    first.send_signal(signal.SIGINT)
    assert first.stderr is not None
    said = ""
    while "continue later with: xnatctl session upload" not in said:
        said = first.stderr.readline()
    first.send_signal(signal.SIGINT)
    _, rest = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "xnatctl session upload" not in rest


EXAM_STEPS = {
    "a resource is made": ("PUT /data/*/resources/PHYSIO*", 1),
    "a resource is filled": ("PUT /data/*/files/*", 1),
    "the catalog is refreshed": ("POST /data/services/refresh/catalog*", 1),
}


@pytest.mark.parametrize("step", list(EXAM_STEPS))
def test_an_exam_that_is_killed_while(server: Sandbox, tmp_path: Path, step: str) -> None:
    """… is finished by the same command, resources too."""
    export = write_export(tmp_path / "export")
    (export / "PHYSIO").mkdir()
    (export / "PHYSIO" / "pulse.log").write_text("60 61 62")
    match, nth = EXAM_STEPS[step]
    server.faults.add(Fault(match, "latency", nth=nth, seconds=LONG_S))
    first = start(server, export, verb="upload-exam")
    wait_until(first, lambda: not server.faults.unused())
    first.kill()
    first.communicate()
    server.faults.clear()

    second = start(server, export, verb="upload-exam")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert json.loads(out)["status"] == "success"
    assert uids_in_archive(server.store.root, "P", "E1") == sorted(uids_on_disk(export))
    physio = server.store.archive / "P/arc001/E1/RESOURCES/PHYSIO"
    assert [one.read_text() for one in physio.rglob("*") if one.is_file()] == ["60 61 62"]
    (session,) = server.store.find("label='E1'")
    assert [one.label for one in server.store.resources(session)] == ["PHYSIO"]
