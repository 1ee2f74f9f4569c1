"""The documented workflows as shell scripts with jq, run against two sandboxes.

The scripts call `xnatctl` as a user's would. The container service is a plugin that the sandbox has
not, so the one script that runs something has a few routes of it answered here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from xnatctl.config import Config
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox

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


def _workflow(status: str) -> str:
    return (
        '<wrk:Workflow xmlns:wrk="http://nrg.wustl.edu/workflow" ID="X_E1" '
        f'ExternalID="DEMO" pipeline_name="dcm2niix" status="{status}"/>'
    )


def _answers(looks: dict[str, int]) -> dict[tuple[str, str], Any]:
    session = {"ID": "X_E1", "label": "S1_MR1", "project": "DEMO", "subject_ID": "X_S1"}
    item = {"items": [{"meta": {"xsi:type": "xnat:mrSessionData"}, "data_fields": session}]}
    rows = [{**session, "xsiType": "xnat:mrSessionData", "subject_label": "S1"}]
    wrapper = {"id": 3, "name": "dcm2niix", "external-inputs": [{"name": "session"}]}
    launch = "/xapi/projects/DEMO/wrappers/3/root/session/launch"
    looks["left"] = 1

    def workflow() -> str:
        status = "Running" if looks["left"] else "Complete"
        looks["left"] -= looks["left"] > 0
        return _workflow(status)

    return {
        ("POST", "/data/JSESSION"): "0123456789ABCDEF",
        ("GET", "/xapi/users/username"): "admin",
        ("GET", "/data/projects/DEMO/pipelines"): {"ResultSet": {"Result": []}},
        ("GET", "/data/projects/DEMO/experiments"): {"ResultSet": {"Result": rows}},
        ("GET", "/data/experiments/X_E1"): item,
        ("GET", "/data/projects/DEMO/subjects/X_S1"): {
            "items": [{"meta": {}, "data_fields": {"ID": "X_S1", "label": "S1"}}]
        },
        ("GET", "/xapi/commands"): [{"id": 1, "name": "dcm2niix", "xnat": [wrapper]}],
        ("POST", launch): {"status": "success", "workflow-id": "881"},
        ("GET", "/data/workflows/881"): workflow,
        ("GET", "/data/workflows/666"): _workflow("Failed"),
    }


@contextmanager
def containers() -> Iterator[str]:
    """A server that knows one session and one wrapper; yields its address."""
    answers = _answers({})

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = answers.get((self.command, self.path.partition("?")[0]))
            found = found() if callable(found) else found
            text = found if isinstance(found, str) else json.dumps(found)
            kind = "application/json"
            if isinstance(found, str):
                kind = "text/xml" if text.startswith("<") else "text/plain"
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def asked(place: Path, url: str, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the object that a command prints."""
    login = {"XNAT_URL": url, "XNAT_USER": "admin", "XNAT_PASS": "admin"}
    done = subprocess.run(
        [place / "bin" / "xnatctl", *words, "-o", "json"],
        env={**os.environ, **login},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_pipeline_run_prints_its_job(place: Path) -> None:
    with containers() as url:
        code, made = asked(place, url, "pipeline", "run", "dcm2niix", "--experiment", "X_E1")
    assert code == 0
    assert made.keys() >= {"success", "pipeline", "experiment", "job_id", "result"}
    assert (made["success"], made["job_id"]) == (True, "881")


@pytest.mark.parametrize(("job", "code", "end"), [("881", 0, "Complete"), ("666", 1, "Failed")])
def test_pipeline_status_has_its_fields_and_watching_ends_with_the_job(
    place: Path, job: str, code: int, end: str
) -> None:
    with containers() as url:
        words = ("pipeline", "status", job, "--watch", "--interval", "0.1")
        ended, found = asked(place, url, *words)
    assert found.keys() >= {"status", "message", "start_time", "end_time"}
    assert (ended, found["status"]) == (code, end)


def test_a_pipeline_is_run_on_each_session_and_waited_for(place: Path) -> None:
    with containers() as url:
        done = run("run-a-pipeline.sh", place, XNAT_URL=url, XNAT_USER="admin", XNAT_PASS="admin")
    assert done.returncode == 0, done.stdout + done.stderr
