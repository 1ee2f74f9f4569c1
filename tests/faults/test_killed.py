"""A real process is killed in the middle of a transfer; the same command finishes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from tests.integration.oracle import (
    files_of,
    instances_of,
    is_imported_dicom,
    leftovers,
)
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox

Servers = tuple[Sandbox, Sandbox, Path]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Two sandboxes in a thread, the first with data, reached by child processes."""
    with start_blocking_portal() as portal:
        here, there = Sandbox(tmp_path / "here"), Sandbox(tmp_path / "there")
        with (
            portal.wrap_async_context_manager(here),
            portal.wrap_async_context_manager(there),
        ):
            portal.call(seed, here.store, "demo")
            yield here, there, tmp_path


def start(servers: Servers, *more: str, events: Path) -> subprocess.Popen[str]:
    here, there, folder = servers
    command = [sys.executable, "-m", "xnatctl", "project", "transfer", "-P", "DEMO"]
    command += ["--dest-url", there.url, "--dest-project", "DEMO", "--yes", "-o", "json"]
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XNAT_URL": here.url,
        "XNAT_USER": "admin",
        "XNAT_PASS": "admin",
        "XNAT_DEST_USER": "admin",
        "XNAT_DEST_PASS": "admin",
    }
    return subprocess.Popen(
        [*command, *more, "--events", str(events)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def records(events: Path) -> list[dict[str, Any]]:
    """The whole lines of an event file; a killed process may leave half a line."""
    if not events.exists():
        return []
    lines = events.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{")]


def wait_for(process: subprocess.Popen[str], events: Path, event: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if sum(one["event"] == event for one in records(events)) >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    raise AssertionError(f"{event} did not happen {count} times")


@pytest.mark.parametrize("mode", ["import", "copy"])
@pytest.mark.parametrize("moment", [("item_started", 1), ("item_done", 12), ("unit_done", 5)])
def test_a_killed_transfer_is_finished_by_the_same_command_and_nothing_doubles(
    servers: Servers, mode: str, moment: tuple[str, int]
) -> None:
    _here, _there, folder = servers
    first = start(servers, "--dicom", mode, events=folder / "1.jsonl")
    wait_for(first, folder / "1.jsonl", *moment)
    first.kill()
    first.communicate()

    second = start(servers, "--dicom", mode, events=folder / "2.jsonl")
    out, err = second.communicate(timeout=60)

    assert second.returncode == 0, err
    assert json.loads(out)["success"] is True
    assert instances_of(folder / "there", "DEMO") == instances_of(folder / "here", "DEMO")
    mine, theirs = files_of(folder / "here", "DEMO"), files_of(folder / "there", "DEMO")
    if mode == "copy":
        assert theirs == mine
    else:
        assert {one for one in theirs if not is_imported_dicom(one)} == {
            one for one in mine if not is_imported_dicom(one)
        }
    assert leftovers(folder / "there") == []
    done = {one["unit"] for one in records(folder / "1.jsonl") if one["event"] == "unit_done"}
    again = {one["unit"] for one in records(folder / "2.jsonl") if one["event"] == "item_started"}
    assert not done & again


def test_an_interrupted_transfer_ends_with_130_and_says_how_to_go_on(servers: Servers) -> None:
    folder = servers[2]
    first = start(servers, "--dicom", "copy", events=folder / "1.jsonl")
    wait_for(first, folder / "1.jsonl", "item_done", 5)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=40)

    assert first.returncode == 130, err
    assert json.loads(out)["interrupted"]
    assert "xnatctl project transfer" in err
    assert "Traceback" not in err

    second = start(servers, "--dicom", "copy", events=folder / "2.jsonl")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert files_of(folder / "there", "DEMO") == files_of(folder / "here", "DEMO")
