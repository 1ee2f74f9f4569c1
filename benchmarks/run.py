"""`make bench`: our engine beside plain tools on the same servers, in one run, as ratios.

    python benchmarks/run.py [--quick | --full] [--only NAME] [--json FILE]

Machines are shared and noisy, so the contenders of a row take turns, and what is printed is the
median of their ratios. The server is never what is measured: each row names its ceiling, which is
curl on the same bytes. Sandboxes run as processes of their own, as does every contender, and CPU
seconds and peak memory are those of the contender alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.request import Request, urlopen

BASIC = "Basic YWRtaW46YWRtaW4="


@dataclass(frozen=True)
class Load:
    """What moves: a seed of the sandbox, and how often the row is repeated."""

    seed: str
    rounds: int


@dataclass
class Measured:
    """One contender in one round. Seconds of the wall and of the CPU, peak memory in bytes."""

    seconds: float
    cpu_s: float
    peak: int
    requests: int = 0


@dataclass
class Row:
    """One line of the table: what was moved, and each contender's rounds."""

    name: str
    bytes: int
    files: int
    rounds: dict[str, list[Measured]] = field(default_factory=dict)

    def best(self, who: str, what: Callable[[Measured], float]) -> float:
        return median(what(one) for one in self.rounds[who])

    def ratio(self, who: str, against: str) -> float:
        """How many times faster `who` was, as the median over rounds run side by side."""
        pairs = zip(self.rounds[who], self.rounds[against], strict=True)
        return median(other.seconds / mine.seconds for mine, other in pairs)


class Server:
    """A sandbox in a process of its own."""

    def __init__(self, root: Path, *more: str) -> None:
        self.root = root
        command = [sys.executable, "-m", "xnatctl", "sandbox", "serve", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--root", str(root), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = ""
        while not self.url:
            line = self.process.stdout.readline()
            if not line:
                raise SystemExit("a sandbox did not start")
            self.url = next((word for word in line.split() if word.startswith("http")), "")

    def get(self, path: str) -> bytes:
        request = Request(self.url + path, headers={"Authorization": BASIC})
        with urlopen(request) as reply:
            body: bytes = reply.read()
            return body

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextmanager
def servers(seed: str) -> Iterator[tuple[Server, Server, Path]]:
    """Two sandboxes, the first with data, and a folder for contenders."""
    folder = Path(tempfile.mkdtemp(prefix="xnatctl-bench-"))
    here, there = Server(folder / "here", "--seed", seed), Server(folder / "there")
    try:
        yield here, there, folder
    finally:
        here.stop()
        there.stop()
        shutil.rmtree(folder, ignore_errors=True)


def timed(command: list[str] | str, environ: dict[str, str] | None = None) -> Measured:
    """Run it to its end and account for the process with all its children."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            ["/usr/bin/env", "bash", "-c", command] if isinstance(command, str) else command,
            env={**os.environ, **(environ or {})},
            stdout=said,
            stderr=said,
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{command}\n{said.read()}")
    return Measured(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def ours(here: Server, there: Server, folder: Path, *more: str) -> Measured:
    """`project transfer` into a project that is not there yet."""
    project = f"P{time.monotonic_ns()}"
    command = [sys.executable, "-m", "xnatctl", "project", "transfer", "-P", "LARGE", "--yes"]
    command += ["--dest-url", there.url, "--dest-project", project, "--progress", "none", *more]
    return timed(command, _environ(here, folder))


def _environ(here: Server, folder: Path) -> dict[str, str]:
    return {
        "HOME": str(folder / "home"),
        "XNAT_URL": here.url,
        "XNAT_USER": "admin",
        "XNAT_PASS": "admin",
        "XNAT_DEST_USER": "admin",
        "XNAT_DEST_PASS": "admin",
    }


def pipes(here: Server, there: Server, folder: Path) -> Measured:
    """Four `curl | tee >(md5sum) | curl` at a time over the same bodies, one archive a scan."""
    project = f"C{time.monotonic_ns()}"
    put = f"curl -sf -u admin:admin -X PUT '{there.url}/data/projects/{project}"
    lines = [f"{put}'", f"{put}/subjects/S'"]
    work = []
    for number, (path, where) in enumerate(_scans(here)):
        session, scan = where
        lines.append(f"{put}/subjects/S/experiments/{session}?xsiType=xnat:mrSessionData'")
        scans = f"{put}/subjects/S/experiments/{session}/scans/{scan}"
        lines.append(f"{scans}?xsiType=xnat:mrScanData'")
        work.append(
            f"curl -sf -u admin:admin '{here.url}{path}?format=zip' | "
            f"tee >(md5sum > {folder}/md5.{number}) | "
            f"{scans}/resources/DATA/files/{number}.zip?inbody=true&extract=true' "
            "-H 'Content-Type: application/zip' --data-binary @- -o /dev/null"
        )
    script = folder / "pipes.sh"
    script.write_text("\n".join(work) + "\n")
    setup = "\n".join(f"{line} -o /dev/null" for line in dict.fromkeys(lines))
    timed(setup)
    return timed(f"xargs -P 4 -d '\\n' -I CMD bash -c CMD < {script}")


def _scans(here: Server) -> list[tuple[str, tuple[str, str]]]:
    rows = json.loads(here.get("/data/projects/LARGE/experiments?format=json"))
    found = []
    for row in rows["ResultSet"]["Result"]:
        scans = json.loads(here.get(f"/data/experiments/{row['ID']}/scans?format=json"))
        for scan in scans["ResultSet"]["Result"]:
            path = f"/data/experiments/{row['ID']}/scans/{scan['ID']}/files"
            found.append((path, (row["label"], scan["ID"])))
    return found


def relay(load: Load) -> Row:
    """A project between two sandboxes, against pipes of curl over the same bytes."""
    subjects, sessions, scans, rest = load.seed.removeprefix("large:").split("x")
    files, _, size = rest.partition("@")
    count = int(subjects) * int(sessions) * int(scans) * int(files)
    row = Row("relay by copy", count * _bytes(size), count)
    with servers(load.seed) as (here, there, folder):
        for _ in range(load.rounds):
            row.rounds.setdefault("xnatctl", []).append(
                ours(here, there, folder, "--dicom", "copy")
            )
            row.rounds.setdefault("curl", []).append(pipes(here, there, folder))
    return row


def again(load: Load) -> Row:
    """The same transfer a second time: nothing has to move."""
    sessions = int(load.seed.removeprefix("large:").split("x")[0])
    row = Row(f"nothing to do, {sessions} sessions", 0, 0)
    with servers(load.seed) as (here, there, folder):
        command = [sys.executable, "-m", "xnatctl", "project", "transfer", "-P", "LARGE", "--yes"]
        command += ["--dest-url", there.url, "--dest-project", "LARGE", "--progress", "none"]
        first = timed(command, _environ(here, folder))
        row.rounds["first run"] = [first]
        for _ in range(load.rounds):
            row.rounds.setdefault("xnatctl", []).append(timed(command, _environ(here, folder)))
    return row


def _bytes(text: str) -> int:
    units = {"k": 1000, "M": 1000**2, "G": 1000**3}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


QUICK = {
    "relay": (relay, Load("large:1x2x2x20@100k", 1)),
    "small": (relay, Load("large:1x2x2x200@8k", 1)),
    "again": (again, Load("large:20x1x1x2@1k", 1)),
}
USUAL = {
    "relay": (relay, Load("large:2x2x4x25@2M", 3)),
    "small": (relay, Load("large:2x5x2x250@8k", 3)),
    "sessions": (again, Load("large:1000x1x1x2@1k", 2)),
}
FULL = {**USUAL, "sessions": (again, Load("large:10000x1x1x2@1k", 1))}


def table(rows: list[Row]) -> str:
    """The results in Markdown: rates and CPU by contender, and how they compare."""
    lines = [
        "| row | files | MB | contender | s | MB/s | files/s | CPU s | peak MB | against curl |",
        "|---|--:|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        for who in row.rounds:
            seconds = row.best(who, lambda one: one.seconds)
            ratio = f"{row.ratio(who, 'curl'):.2f}" if "curl" in row.rounds else ""
            lines.append(
                f"| {row.name} | {row.files} | {row.bytes / 1e6:.0f} | {who} | {seconds:.2f} "
                f"| {row.bytes / 1e6 / seconds:.0f} | {row.files / seconds:.0f} "
                f"| {row.best(who, lambda one: one.cpu_s):.2f} "
                f"| {row.best(who, lambda one: float(one.peak)) / 1e6:.0f} | {ratio} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    plan = QUICK if chosen.quick else FULL if chosen.full else USUAL
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    rows = []
    for name, (measure, load) in plan.items():
        if not chosen.only or name in chosen.only:
            rows.append(measure(load))
    print(table(rows))
    if chosen.json:
        data = [{"row": row.name, "rounds": _plain(row)} for row in rows]
        chosen.json.write_text(json.dumps(data, indent=1))


def _plain(row: Row) -> dict[str, list[dict[str, float]]]:
    return {who: [vars(one) for one in rounds] for who, rounds in row.rounds.items()}


if __name__ == "__main__":
    main()
