"""Downloads and uploads that die at the named points; the same command finishes them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from tests.cli.conftest import process
from tests.faults.children import demo, filled
from tests.faults.judge import Record, open_runs, unit_statuses
from tests.faults.test_crash_points import IMPORT_ONLY, POINTS
from tests.integration.oracle import files_of
from tests.integration.uploading import entries_in, uids_in_archive, uids_on_disk, write_export
from xnatctl.sandbox.server import Sandbox

pytestmark = pytest.mark.fault("killed at a numbered point")

FAILING = {"item-failed", "item-reconciled", "unit-abandoned"}
ENTRIES = {point for point in IMPORT_ONLY if point != "import-seal"}
DOWNLOADS = [one for one in POINTS if one not in FAILING | IMPORT_ONLY]
UPLOADS = [one for one in POINTS if one not in FAILING | ENTRIES | {"file-moving", "file-proven"}]
UPLOADS = [one for one in UPLOADS if not one.startswith("item-done") and one != "item-told"]
SAMPLE = {"member-proven"}
SESSION = "DEMO_002_CT1"
"""It has scans of one file and scans of many, which come in different ways."""


def cases(points: list[str]) -> list[object]:
    return [pytest.param(one, marks=[] if one in SAMPLE else [pytest.mark.long]) for one in points]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sandbox]:
    shutil.copytree(filled(demo), tmp_path / "server")
    with start_blocking_portal() as portal:
        sandbox = Sandbox(tmp_path / "server")
        with portal.wrap_async_context_manager(sandbox):
            sandbox.store.create_project("P")
            yield sandbox


def start(server: Sandbox, home: Path, *argv: str, crash: str = "") -> subprocess.Popen[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "XNAT_URL": server.url}
    environ |= {"XNAT_USER": "admin", "XNAT_PASS": "admin", "XNATCTL_CRASH_AT": crash}
    return process(*argv, env=environ, cwd=home)


def killed_then_finished(server: Sandbox, home: Path, point: str, *argv: str) -> None:
    first = start(server, home, *argv, crash=point)
    _, err = first.communicate(timeout=60)
    assert first.returncode == -signal.SIGKILL, err
    second = start(server, home, *argv)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    state = home / ".local/state/xnatctl/state.db"
    assert unit_statuses(state) == {"done"}
    assert open_runs(state) == 0


@pytest.mark.parametrize("point", cases(DOWNLOADS))
def test_a_download_that_died_there_is_finished_and_leaves_no_part(
    server: Sandbox, tmp_path: Path, point: str, record_property: Record
) -> None:
    command = ("session", "download", "-P", "DEMO", "-E", SESSION, "--out", "out")
    killed_then_finished(server, tmp_path, point, *command)

    wanted = {one[4] for one in files_of(server.store.root, "DEMO") if is_of_a_scan(one)}
    paths = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    found = {md5(path) for path in paths}
    record_property("lost", len(wanted - found))
    record_property("doubled", len(found - wanted))
    assert found == wanted
    assert not [path for path in paths if path.name.endswith(".part")]


@pytest.mark.parametrize("point", cases(UPLOADS))
def test_an_upload_that_died_there_is_finished_and_leaves_no_entry(
    server: Sandbox, tmp_path: Path, point: str, record_property: Record
) -> None:
    export = write_export(tmp_path / "export")
    command = ("session", "upload", str(export), "-P", "P", "-S", "S1", "-E", "E1")
    killed_then_finished(server, tmp_path, point, *command)

    wanted = sorted(uids_on_disk(export))
    found = uids_in_archive(server.store.root, "P", "E1")
    record_property("lost", len(set(wanted) - set(found)))
    record_property("doubled", len(found) - len(set(found)))
    assert found == wanted
    assert entries_in(server.store.root) == {}


def is_of_a_scan(one: tuple[str, ...]) -> bool:
    return one[0] == SESSION and one[1].startswith("SCANS")


def md5(path: Path) -> str:
    import hashlib

    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
