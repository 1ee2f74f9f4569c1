"""`make bench`: our engine beside other tools on the same servers, in one run, as ratios.

    python benchmarks/run.py [--quick | --full] [--only NAME]… [--json FILE]

It prints the machine and each row as soon as it is measured, and keeps everything as JSON
(docs/_build/bench-usual.json unless told otherwise) for `benchmarks/publish.py`. An
error of ours or of curl makes it end with 1, a time never does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import local
import measure
import relay
import slow
import wan
from measure import Row
from publish import table

Plan = dict[str, Callable[[], Row]]

BUDGET_S = 14 * 60.0
"""`make bench` begins no row after this. On two cores that do nothing else all take 12 minutes."""

BIG = "large:2x2x4x25@1M"
QUICK: Plan = {
    "relay": lambda: relay.copied("big files, by copy", "large:1x2x2x10@200k", rounds=1),
    "import": lambda: relay.copied(
        "big files, by import", "large:1x2x2x10@200k,dicom", rounds=1, mode="import", goal=0.6
    ),
    "mixed": lambda: relay.mixed(files=80, total=8_000_000, rounds=1),
    "download": lambda: local.session("session download", "large:1x1x2x20@200k", rounds=1),
    "small-up": lambda: local.upload(files=300, size=8_000, some=100, rounds=1, goal=15.0),
    "export": lambda: local.export("large:1x2x2x10@200k", rounds=1),
    "again": lambda: relay.unchanged(20, rounds=1),
    "slow-changing": lambda: slow.knee([10, 3], every=1.0, seconds=2.0, fixed=(4,)),
    "wan": lambda: wan.over_the_line("WAN, big files", "large:1x1x4x1@5M", loss=0.002, rounds=1),
}
# Beside each row the seconds that it takes, with its servers and what they are filled with.
USUAL: Plan = {
    "relay": lambda: relay.copied("big files, by copy", BIG, rounds=3),  # 35
    "import": lambda: relay.copied(  # 38
        "big files, by import", f"{BIG},dicom", rounds=3, mode="import", goal=0.6
    ),
    "against-06": lambda: relay.against_06(  # 35
        "ten sessions of 12 MB",
        "large:10x1x1x24@500k,dicom",
        "large:2x1x1x24@500k,dicom",
        goal=20.0,
    ),
    "many": lambda: relay.against_06(  # 95
        "1,000 sessions of a few kB",
        "large:1000x1x1x2@4096,dicom",
        "large:2x1x1x2@4096,dicom",
        goal=100.0,
    ),
    "small": lambda: relay.copied(  # 45
        "20,000 files of 8 kB, relay",
        "large:2x5x2x1000@8k",
        rounds=2,
        goal=0.0,
        part="large:1x1x2x1000@8k",
        goal_06=15.0,
    ),
    "small-up": lambda: local.upload(  # 50
        files=20_000, size=8_000, some=2000, rounds=2, goal=15.0
    ),
    "small-down": lambda: local.session(  # 55
        "20,000 files of 8 kB, download",
        "large:1x1x4x5000@8k",
        rounds=1,
        part="large:1x1x4x500@8k",
        goal=15.0,
    ),
    "download": lambda: local.session(  # 45
        "session download", "large:1x1x4x150@1M", rounds=3, cpu_goal=3.0
    ),
    "one": lambda: local.one_file("1G", rounds=1),  # 45
    "export": lambda: local.export(BIG, rounds=2),  # 20
    "mixed": lambda: relay.mixed(files=2000, total=400_000_000, rounds=2),  # 25
    "again": lambda: relay.unchanged(1000, rounds=2),  # 30
    "wan": lambda: wan.over_the_line(  # 54
        "WAN, big files", "large:1x1x4x8@25M", loss=0.0, rounds=1
    ),
    "wan-lossy": lambda: wan.over_the_line(  # 54
        "WAN, big files, lossy", "large:1x1x4x8@25M", loss=0.002, rounds=1
    ),
    "wan-small": lambda: wan.over_the_line(  # 20
        "WAN, small files", "large:1x1x4x500@8k", loss=0.0, rounds=1, small=True
    ),
    "slow-2": lambda: slow.knee([2], fixed=(2, 4)),  # 45
    "slow-10": lambda: slow.knee([10], fixed=(8, 12)),  # 42
    "slow-changing": lambda: slow.knee([10, 3], fixed=(5, 8)),  # 60
}
FULL: Plan = {
    **USUAL,
    "one": lambda: local.one_file("5G", rounds=1),
    "again-10000": lambda: relay.unchanged(10_000, rounds=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--json", type=Path, help="where all of it goes")
    chosen = parser.parse_args()
    name = "quick" if chosen.quick else "full" if chosen.full else "usual"
    kept = (
        chosen.json
        or measure.ROOT / "docs" / "_build" / f"bench-{'some' if chosen.only else name}.json"
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    plan = {"quick": QUICK, "usual": USUAL, "full": FULL}[name]
    if unknown := set(chosen.only) - set(plan):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(plan)}")
    facts = machine()
    print("\n".join(f"{key}: {value}" for key, value in facts.items()), flush=True)
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    failed = 0
    for key, make in plan.items():
        if chosen.only and key not in chosen.only:
            continue
        try:
            if name == "usual" and time.monotonic() - began > BUDGET_S and not chosen.only:
                row = Row(key, "", skipped={"all": "no time was left for it; --only measures it"})
            else:
                row = make()
        except measure.Failed as error:
            failed += 1
            row = Row(key, "", skipped={"all": str(error)})
            print(f"failed: {error}", flush=True)
        if chosen.quick:
            row.goals.clear()
        rows.append({"key": key, **asdict(row)})
        seconds = round(time.monotonic() - began)
        print(f"\n{table([row])}\n({seconds} s so far)", flush=True)
        found = {"machine": facts, "plan": name, "seconds": seconds, "rows": rows}
        kept.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{kept}: python benchmarks/publish.py {kept} puts it into docs/performance.md")
    if failed:
        sys.exit(f"{failed} rows failed")


def machine() -> dict[str, Any]:
    """What the figures depend on: the machine and the versions of all contenders."""
    cpu = (
        Path("/proc/cpuinfo")
        .read_text()
        .partition("model name")[2]
        .partition("\n")[0]
        .strip()
        .lstrip(": ")
    )
    return {
        "date": time.strftime("%Y-%m-%d"),
        "system": platform.platform(),
        "cores": f"{os.cpu_count()}, {cpu or 'unknown'}",
        "load when it began": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "xnatctl": _version([*measure.OURS, "--version"]),
        "xnatctl 0.6": _version([str(measure.THEIRS), "--version"]),
        "curl": _version(["curl", "--version"]),
        "aria2": _version(["aria2c", "--version"]),
    }


def _version(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    said = subprocess.run(command, capture_output=True, text=True, cwd=measure.ROOT)
    return said.stdout.partition("\n")[0].strip()


if __name__ == "__main__":
    main()
