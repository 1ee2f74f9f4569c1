"""How long commands take to begin: ours, and side by side another xnatctl if one is named.

    python benchmarks/startup.py [--other PATH_OF_AN_OTHER_XNATCTL] [--runs N] [--json]

The median of N runs, in milliseconds of wall time, with the least in brackets, and the processor
time of the least; `python -c pass` is what the interpreter alone takes. The listing is that of a
local sandbox that this starts. On a busy machine the wall time is that of its other work: then the
processor time says more.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIMITS_MS = {"--help": 150.0, "--version": 150.0, "project list": 600.0}
OURS = [sys.executable, "-m", "xnatctl"]


@contextmanager
def sandbox(root: Path) -> Iterator[str]:
    command = [
        *OURS,
        "sandbox",
        "serve",
        "-q",
        "--port",
        "0",
        "--root",
        str(root),
        "--seed",
        "demo",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def measured(command: list[str], environ: dict[str, str], runs: int) -> tuple[float, float, float]:
    """Median and least wall time and least processor time in milliseconds.

    The first run, which fills caches, is dropped.
    """
    times, cpu = [], []
    for _ in range(runs + 1):
        started, before = time.perf_counter(), _cpu()
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        times.append((time.perf_counter() - started) * 1000)
        cpu.append((_cpu() - before) * 1000)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr.decode()[-500:]}")
    return statistics.median(times[1:]), min(times[1:]), min(cpu[1:])


def _cpu() -> float:
    """Seconds of processor time of all processes that this one waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(other: str | None, runs: int) -> list[dict[str, float | str]]:
    """A row a command: what ours takes, and what the other does."""
    rows: list[dict[str, float | str]] = []
    with tempfile.TemporaryDirectory() as name, sandbox(Path(name) / "sandbox") as url:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("XNAT")}
        environ |= {"HOME": name, "XNAT_URL": url, "XNAT_USER": "admin", "XNAT_PASS": "admin"}
        rows.append(_row("python -c pass", "ours", [sys.executable, "-c", "pass"], environ, runs))
        for words in LIMITS_MS:
            row = _row(words, "ours", [*OURS, *words.split()], environ, runs)
            row["limit_ms"] = LIMITS_MS[words]
            if other:
                row |= _row(words, "other", [other, *words.split()], environ, runs)
            rows.append(row)
    return rows


def _row(
    words: str, who: str, command: list[str], environ: dict[str, str], runs: int
) -> dict[str, float | str]:
    median, least, cpu = measured(command, environ, runs)
    return {
        "command": words,
        f"{who}_ms": median,
        f"{who}_min_ms": least,
        f"{who}_cpu_ms": cpu,
    }


def verdict(rows: list[dict[str, float | str]]) -> list[str]:
    """What is too slow, in sentences. The least run is judged: the others shared the machine."""
    found = []
    for row in rows:
        ours = float(row["ours_min_ms"])
        if ours > float(row.get("limit_ms", ours)):
            found.append(f"{row['command']} takes {ours:.0f} ms, more than {row['limit_ms']} ms")
        if row["command"] == "project list" and "other_min_ms" in row:
            half = float(row["other_min_ms"]) / 2
            if ours > half:
                found.append(f"project list takes {ours:.0f} ms, more than half of the other's")
    return found


def _words(row: dict[str, float | str], who: str) -> str:
    if f"{who}_ms" not in row:
        return ""
    wall, least, cpu = (row[f"{who}_{one}"] for one in ("ms", "min_ms", "cpu_ms"))
    return f"{wall:.0f} ({least:.0f}), cpu {cpu:.0f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--other", help="another xnatctl to run side by side")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    given = parser.parse_args()
    rows = measure(given.other, given.runs)
    if given.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{'command':<16}{'ours':>28}{'other':>28}{'limit':>10}")
        for row in rows:
            limit = f"{row['limit_ms']:.0f} ms" if "limit_ms" in row else ""
            ours, theirs = _words(row, "ours"), _words(row, "other")
            print(f"{row['command']:<16}{ours:>28}{theirs:>28}{limit:>10}")
    problems = verdict(rows)
    for one in problems:
        print(one, file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
