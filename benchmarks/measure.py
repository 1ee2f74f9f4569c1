"""What every row is made of: servers, contenders that take turns, and ratios of what they took.

Machines are shared and noisy. So each contender is a process of its own, those of one row take
turns, and what counts is the median of the ratios within a round. The server is never what is
measured: each row names its ceiling, which is curl on the same bytes. A contender that is slow
enough gets a part of the load, once, and is scaled by that part; the table says so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[1]
OURS = (sys.executable, "-m", "xnatctl")
THEIRS = ROOT / ".venv-xnat06" / "bin" / "xnatctl"
CLIENTS = ROOT / ".venv-clients" / "bin" / "python"
CURL = "curl -sSf -u admin:admin"
BASIC = "Basic YWRtaW46YWRtaW4="
PATIENCE_S, PEERS_PATIENCE_S = 600.0, 150.0

# A server of the study's own: what arrives is kept as sizes and digests, and an entry that nobody
# completes is built soon, because xnatctl 0.6 waits for that.
_SERVE = """
import asyncio, sys
from pathlib import Path
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import run
from xnatctl.sandbox.settings import Settings
from xnatctl.sandbox.store import Store
root, host, discard, *seeds = sys.argv[1:]
if seeds:
    store = Store(Path(root))
    for one in seeds:
        seed(store, one)
    store.close()
settings = Settings(discard_bodies=discard == "1", idle_build_s=0.5, sweep_s=0.1)
say = lambda s: print(s.url, flush=True)
asyncio.run(run(Path(root), settings=settings, host=host, announce=say))
"""


@dataclass(frozen=True)
class Measured:
    """One contender in one round: seconds of the wall and of the CPU, peak memory in bytes, and
    where it was asked of the servers: requests, and how many of them were refused (503).
    """

    seconds: float
    cpu_s: float
    peak: int
    requests: int = 0
    refused: int = 0


@dataclass(frozen=True)
class Contender:
    """Who runs, and how. `share` is the part of the row's load it gets, `most` its rounds."""

    name: str
    run: Callable[[int], Measured]
    share: float = 1.0
    most: int = 1_000_000
    is_peer: bool = False
    """Another project's program: where it fails the row says so, and goes on."""


@dataclass
class Row:
    """One line of the table: what was moved, and each contender's rounds."""

    name: str
    load: str
    bytes: int = 0
    files: int = 0
    sessions: int = 0
    ceiling: str = ""
    rounds: dict[str, list[Measured]] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    goals: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By contender to compare with: what is compared (`seconds` or `cpu_s`), the ratio to reach."""
    notes: list[str] = field(default_factory=list)

    def median(self, who: str, what: str = "seconds") -> float:
        """What the whole load took, or would have taken at this rate."""
        each: list[float] = [getattr(one, what) for one in self.rounds[who]]
        return median(each) / self.shares[who]

    def ratio(self, who: str, against: str, what: str = "seconds") -> float:
        """How many times better `who` was than `against`, round by round."""
        mine, other = self.rounds[who], self.rounds[against]
        if len(mine) != len(other):
            return self.median(against, what) / self.median(who, what)
        scale = self.shares[who] / self.shares[against]
        pairs = zip(mine, other, strict=True)
        each: list[float] = [getattr(b, what) / getattr(a, what) for a, b in pairs]
        return median(each) * scale


def race(row: Row, rounds: int, contenders: Sequence[Contender]) -> Row:
    """Let them take turns, in an order that turns too. A peer that fails is left out, with why."""
    for number in range(rounds):
        turn = number % len(contenders)
        for one in (*contenders[turn:], *contenders[:turn]):
            if number >= one.most or one.name in row.skipped:
                continue
            try:
                found = one.run(number)
            except (Failed, subprocess.TimeoutExpired) as error:
                if not one.is_peer:
                    raise
                lines = str(error).strip().splitlines()[1:] or [str(error)]
                said = [line.strip() for line in lines if "rror" in line or "fail" in line.lower()]
                row.skipped[one.name] = (said or lines)[-1][:200]
                row.rounds.pop(one.name, None)
                continue
            row.shares[one.name] = one.share
            row.rounds.setdefault(one.name, []).append(found)
    return row


class Failed(Exception):
    """A contender ended with another code than 0."""


class Server:
    """A sandbox in a process of its own, in a network namespace of its own if one is named."""

    def __init__(
        self,
        root: Path,
        *seeds: str,
        host: str = "127.0.0.1",
        discard: bool = False,
        within: Sequence[str] = (),
    ) -> None:
        command = [*within, sys.executable, "-c", _SERVE, str(root), host, str(int(discard))]
        self.process = subprocess.Popen(
            [*command, *seeds], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self._within = tuple(within)
        if not self.url:
            raise Failed("a sandbox did not start")

    def get(self, path: str, body: bytes | None = None, method: str = "") -> Any:
        """The JSON at a path; with a body it is posted there, unless another method is named."""
        if self._within:
            said = subprocess.run(
                [*self._within, "curl", "-sSf", "-u", "admin:admin", self.url + path],
                check=True,
                capture_output=True,
            ).stdout
            return json.loads(said)
        headers = {"Authorization": BASIC, "Content-Type": "application/json"}
        method = method or ("GET" if body is None else "POST")
        asked = Request(self.url + path, data=body, headers=headers, method=method)
        with urlopen(asked) as reply:
            return json.loads(reply.read() or b"null")

    def requests(self) -> tuple[int, int]:
        """How many requests it has answered, and how many of them with 503."""
        rows = self.get("/sandbox/counters")["requests"]
        rows = [row for row in rows if not row["route"].startswith("/sandbox")]
        refused = sum(row["count"] for row in rows if row["status"] == 503)
        return sum(row["count"] for row in rows), refused

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextmanager
def servers(
    *seeds: str, fill: Callable[[Path], None] | None = None, there: Sequence[str] = ()
) -> Iterator[tuple[Server, Server, Path]]:
    """Two sandboxes, the first with data, and a folder for the contenders.

    `fill` writes into the first one's folder before it starts; `there` seeds the second.
    """
    folder = Path(tempfile.mkdtemp(prefix="xnatctl-bench-"))
    running: list[Server] = []
    try:
        if fill is not None:
            fill(folder / "here")
        running.append(Server(folder / "here", *seeds))
        running.append(Server(folder / "there", *there, discard=True))
        yield running[0], running[1], folder
    finally:
        for server in running:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def timed(
    command: Sequence[str] | str,
    environ: dict[str, str] | None = None,
    *,
    patience: float = PATIENCE_S,
    codes: tuple[int, ...] = (0,),
) -> Measured:
    """Run it to its end and account for the process with all its children. Raises Failed."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            ["bash", "-c", f"set -o pipefail; {command}"] if isinstance(command, str) else command,
            env={**os.environ, **(environ or {})},
            stdout=said,
            stderr=said,
            cwd=ROOT,
            start_new_session=True,
        )
        used, peak = _wait(process, started + patience)
        seconds = time.monotonic() - started
        if process.returncode not in codes:
            said.seek(0)
            words = " ".join(command)[:300] if not isinstance(command, str) else command[:300]
            raise Failed(f"{words}\nexit {process.returncode}: {said.read()[-2000:]}")
    return Measured(seconds, used.ru_utime + used.ru_stime, 0 if isinstance(command, str) else peak)


def _wait(process: subprocess.Popen[bytes], until: float) -> tuple[Any, int]:
    """What it used, and the peak of its own memory: `ru_maxrss` would begin with this process's."""
    peak = 0
    while True:
        number, status, used = os.wait4(process.pid, os.WNOHANG)
        if number:
            process.returncode = os.waitstatus_to_exitcode(status)
            return used, peak
        with suppress(OSError, IndexError):
            text = Path(f"/proc/{process.pid}/status").read_text()
            peak = int(text.partition("VmHWM:")[2].split()[0]) * 1024
        if time.monotonic() > until:
            os.killpg(process.pid, 9)
            until = float("inf")
        time.sleep(0.01)


def counted(run: Callable[[], Measured], *asked: Server) -> Measured:
    """A run together with the requests that these servers had meanwhile."""
    before = [server.requests() for server in asked]
    found = run()
    after = [server.requests() for server in asked]
    requests, refused = (
        sum(new[n] - old[n] for old, new in zip(before, after, strict=True)) for n in (0, 1)
    )
    return replace(found, requests=requests, refused=refused)


def login(here: Server, folder: Path, name: str = "ours") -> dict[str, str]:
    """The environment of a contender: the source's address, both logins, a home of its own."""
    return {
        "HOME": str(folder / name),
        "XNAT_URL": here.url,
        "XNAT_USER": "admin",
        "XNAT_PASS": "admin",
        "XNAT_DEST_USER": "admin",
        "XNAT_DEST_PASS": "admin",
    }


def ours(here: Server, there: Server, folder: Path, project: str, *more: str) -> Measured:
    """`project transfer` of all of LARGE."""
    command = [*OURS, "project", "transfer", "-P", "LARGE", "--yes", "--dest-url", there.url]
    command += ["--dest-project", project, "--progress", "none", *more]
    return counted(lambda: timed(command, login(here, folder)), here, there)


def theirs(
    here: Server, folder: Path, *words: str, there: Server | None = None, setup: Sequence[str] = ()
) -> Measured:
    """A command of xnatctl 0.6. Its profiles `one` and `two` and `setup` are not in the time."""
    if not THEIRS.exists():
        raise Failed("not installed; `make clients` does that")
    home = folder / f"x06-{time.monotonic_ns()}"
    home.mkdir()
    environ = {**login(here, folder), "HOME": str(home), "LANG": "C.UTF-8"}
    del environ["XNAT_URL"]
    lines = [f"config add-profile one --url {here.url}"]
    if there is not None:
        lines.append(f"config add-profile two --url {there.url}")
    for line in (*lines, *setup):
        timed([str(THEIRS), *line.split()], environ)
    return timed([str(THEIRS), *words], environ, patience=PEERS_PATIENCE_S)


def fresh() -> str:
    """A name that no run had before."""
    return f"P{time.monotonic_ns()}"


def size_of(text: str) -> int:
    """`8k`, `2M`, `1G` as bytes; k is 1,000."""
    units = {"k": 1000, "M": 1000**2, "G": 1000**3}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def large(seed: str) -> tuple[int, int, int]:
    """Sessions, files and bytes of a `large:` seed."""
    subjects, sessions, scans, rest = seed.removeprefix("large:").split(",")[0].split("x")
    files, _, size = rest.partition("@")
    count = int(subjects) * int(sessions)
    total = count * int(scans) * int(files)
    return count, total, total * size_of(size)
