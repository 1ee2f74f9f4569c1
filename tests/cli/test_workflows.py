"""The documented workflows as shell scripts with jq, run against two sandboxes.

The scripts call `xnatctl` as a user's would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from xnatctl.config import Config
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings

SCRIPTS = Path(__file__).parent / "workflows"

pytestmark = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("jq")), reason="needs bash and jq"
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sandbox, Sandbox]]:
    """`prod` with the demonstration study, and an empty `dev`."""
    with start_blocking_portal() as portal:
        prod = Sandbox(tmp_path_factory.mktemp("prod"))
        dev = Sandbox(tmp_path_factory.mktemp("dev"))
        seed(prod.store, "demo")
        with portal.wrap_async_context_manager(prod), portal.wrap_async_context_manager(dev):
            yield prod, dev


@pytest.fixture
def place(servers: tuple[Sandbox, Sandbox], tmp_path: Path, home: Path) -> Path:
    """A working folder, and a configuration with both servers."""
    config = Config(path=home / ".config" / "xnatctl" / "config.yaml", environ={})
    for name, server in zip(("prod", "dev"), servers, strict=True):
        facts = {"url": server.url, "username": "admin", "password": "admin"}
        config = config.with_profile(name, facts)
    config.with_default("prod").save()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "xnatctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m xnatctl "$@"\n')
    program.chmod(0o755)
    return tmp_path


def run(script: str, place: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(SCRIPTS / script)],
        cwd=place,
        env={**os.environ, "PATH": path, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.parametrize(
    "script",
    [
        "export-a-subject.sh",
        "nifti-only.sh",
        "refresh-catalogs.sh",
        "audit-a-project.sh",
        "migrate-by-hand.sh",
    ],
)
def test_a_documented_workflow_runs_as_it_is_written(script: str, place: Path) -> None:
    done = run(script, place)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_upload_waits_in_the_prearchive_until_it_is_archived(place: Path) -> None:
    download = ("session", "download", "-P", "DEMO", "-E", "DEMO_001_MR1", "-r", "DICOM", "-q")
    subprocess.run([place / "bin" / "xnatctl", *download, "--out", place / "dicom"], check=True)
    done = run("upload-then-archive.sh", place)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_export_needs_nothing_but_the_environment(
    place: Path, servers: tuple[Sandbox, Sandbox]
) -> None:
    done = run("ci-export.sh", place, PROD_URL=servers[0].url)
    assert done.returncode == 0, done.stdout + done.stderr


# --- a server with the container service ---------------------------------------------------------


def test_a_pipeline_is_run_on_each_session_and_waited_for(place: Path) -> None:
    settings = Settings(containers=True, autorun_s=0.3)
    with start_blocking_portal() as portal:
        sandbox = Sandbox(place / "containers", settings=settings)
        subject = sandbox.store.create_subject(sandbox.store.create_project("DEMO"), "S1")
        session = sandbox.store.create_experiment(subject, "S1_MR1")
        with portal.wrap_async_context_manager(sandbox):
            login = {"XNAT_URL": sandbox.url, "XNAT_USER": "admin", "XNAT_PASS": "admin"}
            done = run("run-a-pipeline.sh", place, **login)
            (container,) = sandbox.store.records("container").values()
    assert done.returncode == 0, done.stdout + done.stderr
    assert container["inputs"] == {"session": f"/archive/experiments/{session.code}"}
