"""How long commands take to begin: ours, and side by side another xnatctl if one is named.

    python benchmarks/startup.py [--other PATH_OF_AN_OTHER_XNATCTL] [--runs N] [--json]

The median of N runs, in milliseconds of wall time, with the least in brackets, and the median of
the processor time; the two programs take turns. `python -c pass` is what the interpreter alone
takes. The listing is that of a local sandbox that this starts. On a busy machine the wall time is
that of its other work: then the processor time says more.
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
OURS = [str(Path(sys.executable).with_name("xnatctl"))]
Row = dict[str, float | str]


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


def once(command: list[str], environ: dict[str, str]) -> tuple[float, float]:
    """Wall and processor time of one run in milliseconds."""
    started, before = time.perf_counter(), _cpu()
    done = subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    wall, cpu = time.perf_counter() - started, _cpu() - before
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr.decode()[-500:]}")
    return wall * 1000, cpu * 1000


def _cpu() -> float:
    """Seconds of processor time of all processes that this one waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(other: str | None, runs: int) -> list[Row]:
    """A row a command: what ours takes, and what the other does."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, sandbox(Path(name) / "sandbox") as url:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("XNAT")}
        environ |= {"HOME": name, "XNAT_URL": url, "XNAT_USER": "admin", "XNAT_PASS": "admin"}
        bare = {"ours": [sys.executable, "-c", "pass"]}
        rows.append({"command": "python -c pass", **_figures(bare, environ, runs)})
        for words, limit in LIMITS_MS.items():
            programs = {"ours": [*OURS, *words.split()]}
            if other:
                programs["other"] = [other, *words.split()]
            figures = _figures(programs, environ, runs)
            rows.append({"command": words, "limit_ms": limit, **figures})
    return rows


def _figures(
    programs: dict[str, list[str]], environ: dict[str, str], runs: int
) -> dict[str, float]:
    """Both programs in turn. The first run of each, which fills caches, is dropped."""
    times: dict[str, list[tuple[float, float]]] = {who: [] for who in programs}
    for _ in range(runs + 1):
        for who, command in programs.items():
            times[who].append(once(command, environ))
    found = {}
    for who, taken in times.items():
        wall, cpu = zip(*taken[1:], strict=True)
        found[f"{who}_ms"] = statistics.median(wall)
        found[f"{who}_min_ms"] = min(wall)
        found[f"{who}_cpu_ms"] = statistics.median(cpu)
    return found


def verdict(rows: list[Row]) -> list[str]:
    """What is too slow, in sentences.

    The least run is held against a limit, since the others shared the machine; the programs are
    compared by the median of their processor time.
    """
    found = []
    for row in rows:
        ours = float(row["ours_min_ms"])
        if ours > float(row.get("limit_ms", ours)):
            found.append(f"{row['command']} takes {ours:.0f} ms, more than {row['limit_ms']} ms")
        if row["command"] == "project list" and (_share(row) or 0.0) > 0.5:
            found.append(f"project list takes {_share(row):.0%} of the other's time")
    return found


def _share(row: Row) -> float | None:
    """Our processor time as a part of the other's."""
    if "other_cpu_ms" not in row:
        return None
    return float(row["ours_cpu_ms"]) / float(row["other_cpu_ms"])


def _words(row: Row, who: str) -> str:
    if f"{who}_ms" not in row:
        return ""
    wall, least, cpu = (float(row[f"{who}_{one}"]) for one in ("ms", "min_ms", "cpu_ms"))
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
        print(f"{'command':<16}{'ours':>28}{'other':>28}{'share':>8}{'limit':>10}")
        for row in rows:
            limit = f"{row['limit_ms']:.0f} ms" if "limit_ms" in row else ""
            share = "" if (part := _share(row)) is None else f"{part:.2f}"
            ours, theirs = _words(row, "ours"), _words(row, "other")
            print(f"{row['command']:<16}{ours:>28}{theirs:>28}{share:>8}{limit:>10}")
    problems = verdict(rows)
    for one in problems:
        print(one, file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
