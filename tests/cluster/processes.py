"""Coordinators, schedulers and workers as processes of their own, as an operator starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tests.faults.children import Servers, records
from tests.faults.judge import judge

LOGIN = {
    "XNAT_USER": "admin",
    "XNAT_PASS": "admin",
    "XNAT_DEST_USER": "admin",
    "XNAT_DEST_PASS": "admin",
}


def environ_of(home: Path, more: Mapping[str, str] = LOGIN) -> dict[str, str]:
    """A home of its own, and the certificates that lie there."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), **more}
    if found := sorted(home.glob("tls-*.pem")):
        prefix = "DASK_DISTRIBUTED__COMM__TLS__"
        environ[f"{prefix}CA_FILE"] = str(found[0])
        for role in ("CLIENT", "SCHEDULER", "WORKER"):
            environ[f"{prefix}{role}__CERT"] = environ[f"{prefix}{role}__KEY"] = str(found[1])
    return environ


def transfer(
    ends: Servers,
    *more: str,
    cluster: str,
    events: Path | None = None,
    environ: Mapping[str, str] = LOGIN,
) -> subprocess.Popen[str]:
    """Begin a transfer of DEMO by a cluster."""
    command = ["transfer", "-P", "DEMO", "--dest-url", ends.there.url, "--dest-project", "DEMO"]
    command += ["--yes", "--cluster", cluster, *more]
    command += ["--events", str(events)] if events else []
    return project(ends, *command, environ=environ)


def project(
    ends: Servers, *command: str, url: str = "", environ: Mapping[str, str] = LOGIN
) -> subprocess.Popen[str]:
    """Begin `xnatctl project …` at the source, leader of a group, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "xnatctl", "project", *command, "-o", "json"],
        env={**environ_of(ends.home, environ), "XNAT_URL": url or ends.here.url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def finished(process: subprocess.Popen[str], said: str = "") -> tuple[int, str, str]:
    """Exit code, standard output, standard error of a process that was told `said`."""
    out, err = process.communicate(said, timeout=100)
    return process.returncode, out, err


def is_whole(ends: Servers, mode: str) -> bool:
    return judge(ends.home / "here", ends.home / "there", "DEMO", mode=mode).is_whole


def wait_for(process: subprocess.Popen[str], events: Path, event: str, count: int = 1) -> None:
    until(
        lambda: sum(one["event"] == event for one in records(events)) >= count,
        alive=lambda: process.poll() is None,
    )


def until(true: Callable[[], object], *, alive: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert alive(), "it ended before that"
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def workers_of(pid: int) -> list[int]:
    """The worker processes that a coordinator has started."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            if entry.name.isdigit():
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


@contextmanager
def scheduler(
    home: Path, *, protocol: str = "tcp", host: str = "127.0.0.1", before: Sequence[str] = ()
) -> Iterator[str]:
    """A scheduler; its address."""
    place = home / "scheduler.json"
    place.unlink(missing_ok=True)
    command = [*before, sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
    command += ["--no-show", "--host", host, "--port", "0", "--protocol", protocol]
    with running([*command, "--scheduler-file", str(place)], environ_of(home)) as process:
        until(
            lambda: place.exists() and place.stat().st_size,
            alive=lambda: process.poll() is None,
        )
        yield json.loads(place.read_text())["address"]


@contextmanager
def worker(
    home: Path,
    address: str,
    *,
    environ: Mapping[str, str] = LOGIN,
    host: str = "127.0.0.1",
    before: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of that scheduler, with credentials of its own."""
    command = [*before, sys.executable, "-m", "distributed.cli.dask_worker", address]
    command += ["--nthreads", "8", "--no-dashboard", "--memory-limit", "0", "--host", host]
    command += ["--local-directory", str(home / "dask")]
    with (
        (home / "workers.log").open("ab") as log,
        running(command, environ_of(home, environ), log=log) as process,
    ):
        yield process


@contextmanager
def running(
    command: Sequence[str], environ: Mapping[str, str], *, log: IO[bytes] | int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
