"""A password with a mark goes through a run that fails; then everything that is left is searched.

Searched are: standard output and error (with `-vv --debug`), the log, the events, the state store,
the report, every other file of the home, and the command line and environment of every process that
the run has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings

MARK = "s3cret-MARK-7f1c"
PAUSE = Fault("GET *", "latency", nth=3, seconds=0.5)


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Sandbox, Sandbox]]:
    """Two servers whose administrator has the marked password; the second refuses every file."""
    settings = Settings(users={"admin": MARK})
    with start_blocking_portal() as portal:
        here = Sandbox(tmp_path / "here", settings=settings)
        there = Sandbox(tmp_path / "there", settings=settings)
        with portal.wrap_async_context_manager(here), portal.wrap_async_context_manager(there):
            portal.call(seed, here.store, "demo")
            here.faults.add(PAUSE)
            there.faults.add(Fault("PUT */files/*", "status", nth=0, status=400))
            there.faults.add(Fault("PUT *", "expire-login", nth=4))
            yield here, there


def start(home: Path, ends: tuple[Sandbox, Sandbox], **environ: str) -> subprocess.Popen[str]:
    here, there = ends
    command = ["project", "transfer", "-P", "DEMO", "--session", "DEMO_002_CT1", "--dicom", "copy"]
    command += ["--dest-url", there.url, "--dest-project", "DEMO", "--yes", "--retries", "1"]
    command += ["-vv", "--debug", "--log-file", "log.jsonl", "--events", "events.jsonl"]
    base = {"PATH": os.environ["PATH"], "HOME": str(home), "XNAT_URL": here.url}
    return subprocess.Popen(
        [sys.executable, "-m", "xnatctl", *command],
        cwd=home,
        env={**base, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes(root: int) -> Iterator[int]:
    """A process and all below it."""
    yield root
    for children in Path(f"/proc/{root}/task").glob("*/children"):
        for one in children.read_text().split():
            yield from processes(int(one))


def seen(process: subprocess.Popen[str], what: str) -> bytes:
    """Command lines or environments of a run's processes, looked at until it ends."""
    found = b""
    while process.poll() is None:
        for one in processes(process.pid):
            try:
                found += Path(f"/proc/{one}/{what}").read_bytes()
            except OSError:
                continue  # it has just ended
        time.sleep(0.02)
    return found


def marked(folder: Path, mark: str) -> list[str]:
    """The files below a folder that hold a text."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and mark.encode() in path.read_bytes()
    )


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc here")
def test_a_password_is_in_nothing_that_a_failing_run_leaves_behind(
    tmp_path: Path, ends: tuple[Sandbox, Sandbox]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    netrc = home / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login admin password {MARK}\n")
    netrc.chmod(0o600)

    process = start(home, ends)
    shown = seen(process, "cmdline") + seen(process, "environ")
    out, err = process.communicate(timeout=60)

    assert process.returncode == 1, err
    assert "400" in err + out  # it did fail, and said why
    assert MARK not in out + err
    assert MARK.encode() not in shown
    assert (home / "log.jsonl").stat().st_size > 1000
    assert (home / "events.jsonl").stat().st_size > 1000
    assert (home / ".local/state/xnatctl/state.db").exists()
    assert marked(home, MARK) == [".netrc"]


def test_a_token_is_in_its_cache_alone_which_is_its_owner_s(
    tmp_path: Path, ends: tuple[Sandbox, Sandbox]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    netrc = home / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login admin password {MARK}\n")
    netrc.chmod(0o600)

    process = start(home, ends)
    process.communicate(timeout=60)

    tokens = {token for sandbox in ends for token in sandbox.accounts.sessions}
    assert tokens
    keepers = {path for token in tokens for path in marked(home, token)}
    assert {Path(one).name for one in keepers} <= {".session"}
    for path in home.rglob("*"):
        if path.name in (".session", "state.db", "log.jsonl"):
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("url", ["http://admin:{}@127.0.0.1:9", "http://127.0.0.1:9/?password={}"])
def test_a_password_in_an_address_is_shown_nowhere(tmp_path: Path, url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xnatctl", "-vv", "--debug", "--log-file", "log", "health"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XNAT_URL": url.format(MARK)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert MARK not in done.stdout + done.stderr
    assert marked(tmp_path, MARK) == []
