"""The schedules of `docs/nightly.md`, taken out of it and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyio.from_thread import start_blocking_portal

from tests.cli.conftest import fill
from xnatctl.sandbox.server import Sandbox

DOCUMENT = Path(__file__).parents[2] / "docs" / "nightly.md"
FILES = 9


def block(language: str, marker: str = "") -> str:
    """A fenced block of the document, by its language and a line in it."""
    found = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.M | re.S)
    (one,) = (text for text in found if marker in text)
    return str(one)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with start_blocking_portal() as portal:
        sandbox = Sandbox(tmp_path_factory.mktemp("sandbox"))
        fill(sandbox.store)
        with portal.wrap_async_context_manager(sandbox):
            yield sandbox


@pytest.fixture
def robot(tmp_path: Path, study: Sandbox) -> Path:
    """A home with the program and the login file of the document, and nothing else."""
    folder = tmp_path / "robot"
    program = folder / ".venvs/xnatctl/bin/xnatctl"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m xnatctl "$@"\n')
    program.chmod(0o755)
    login = folder / ".config/xnatctl/nightly.env"
    login.parent.mkdir(parents=True)
    text = block("sh", "XNAT_URL=")
    for old, new in (("https://xnat.example.org", study.url), ("robot", "admin")):
        text = text.replace(old, new)
    login.write_text(text.replace("XNAT_PASS=secret", "XNAT_PASS=admin"))
    login.chmod(0o600)
    return folder


def exported(folder: Path) -> list[Path]:
    return [path for path in (folder / "latest/").rglob("*") if "/files/" in path.as_posix()]


def test_the_line_of_the_crontab_runs_as_cron_runs_it(robot: Path, tmp_path: Path) -> None:
    (line,) = block("crontab").splitlines()
    schedule, command = line.split(" ", 5)[:5], line.split(" ", 5)[5]
    assert schedule == ["30", "22", "*", "*", "*"]
    assert "%" not in command, "cron takes a percent sign for the end of the line"
    command = command.replace("/data/study", str(tmp_path / "study"))
    environ = {"HOME": str(robot), "LOGNAME": "robot", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    words = [f"{name}={value}" for name, value in environ.items()]
    for _ in range(2):
        done = subprocess.run(
            ["/usr/bin/env", "-i", *words, "sh", "-c", command],
            cwd=robot,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sum(path.is_file() for path in exported(tmp_path / "study")) == FILES
    assert len(list((tmp_path / "study").glob("run-*"))) == 2
    assert (robot / "xnatctl-nightly.log").stat().st_size > 0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_the_service_and_the_timer(robot: Path, tmp_path: Path) -> None:
    units = tmp_path / "units"
    units.mkdir()
    for name in ("xnatctl-export.service", "xnatctl-export.timer"):
        (units / name).write_text(block("ini", name))
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *map(str, sorted(units.iterdir()))],
        env={"HOME": str(robot), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "xnatctl" in line]
    assert (done.returncode, said) == (0, [])
    schedule = block("ini", "OnCalendar").partition("OnCalendar=")[2].splitlines()[0]
    subprocess.run(["systemd-analyze", "calendar", schedule], check=True, capture_output=True)


def test_the_command_of_the_service_does_what_it_says(robot: Path, tmp_path: Path) -> None:
    service = block("ini", "ExecStart")
    command = re.search(r"^ExecStart=(.*)$", service, re.M)
    assert command is not None
    words = command[1].replace("%h", str(robot)).replace("/data/study", str(tmp_path / "study"))
    words = words.replace("/var/lib/node_exporter/textfile", str(tmp_path))
    login = (robot / ".config/xnatctl/nightly.env").read_text().splitlines()
    environ = dict(line.split("=", 1) for line in login if not line.startswith("#"))
    done = subprocess.run(
        words.split(),
        env={"HOME": str(robot), "PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"}} {FILES}\n" in (tmp_path / "xnatctl.prom").read_text()


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("jq")), reason="needs bash and jq")
def test_the_steps_of_the_workflow_run_in_an_empty_home(study: Sandbox, tmp_path: Path) -> None:
    workflow = yaml.safe_load(block("yaml", "nightly-export.yml"))
    job = workflow["jobs"]["export"]
    assert job["defaults"]["run"]["shell"] == "bash"
    assert {"secrets.XNAT_URL", "secrets.XNAT_USER", "secrets.XNAT_PASS"} == {
        value.strip("${} ") for value in job["env"].values() if "secrets" in value
    }
    empty, work = tmp_path / "empty", tmp_path / "work"
    for folder in (empty, work, tmp_path / "stubs"):
        folder.mkdir()
    # Installing the package from the registry of the world is not what is tried here.
    _stub_python(tmp_path / "stubs" / "python3")
    environ = {
        "HOME": str(empty),
        "PATH": f"{tmp_path / 'stubs'}:/usr/bin:/bin",
        "GITHUB_PATH": str(tmp_path / "github_path"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "EXPORT": str(tmp_path / "study"),
        "XNAT_URL": study.url,
        "XNAT_USER": "admin",
        "XNAT_PASS": "admin",
    }
    names = [_run_step(step, work, environ) for step in job["steps"] if "run" in step]
    assert names == ["Install", "Export", "Verify what lies on the disk", "Summary"]
    assert f"{FILES} files moved" in (tmp_path / "summary.md").read_text()
    assert json.loads((work / "summary.json").read_text())["success"] is True
    assert sum(path.is_file() for path in exported(tmp_path / "study")) == FILES
    assert not (empty / ".config").exists() or not list((empty / ".config").rglob("config.yaml"))


def _stub_python(path: Path) -> None:
    """`python3 -m venv DIR` that makes a pip which installs nothing, and the program."""
    program = f'#!/bin/sh\\nexec {sys.executable} -m xnatctl "$@"\\n'
    path.write_text(
        "#!/bin/sh\n"
        'test "$1 $2" = "-m venv" || exit 2\n'
        'mkdir -p "$3/bin"\n'
        'printf \'#!/bin/sh\\ntest "$1" = install\\n\' > "$3/bin/pip"\n'
        f"printf '{program}' > \"$3/bin/xnatctl\"\n"
        'chmod +x "$3/bin/pip" "$3/bin/xnatctl"\n'
    )
    path.chmod(0o755)


def _run_step(step: dict[str, Any], work: Path, environ: dict[str, str]) -> str:
    more = Path(environ["GITHUB_PATH"])
    if more.exists():
        added = ":".join(more.read_text().split())
        environ = {**environ, "PATH": f"{added}:{environ['PATH']}"}
    script = work / "step.sh"
    script.write_text(step["run"])
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
        cwd=work,
        env=environ,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, (step["name"], done.stderr)
    return str(step["name"])
