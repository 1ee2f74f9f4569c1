"""How a job's size shows: 1,000 to 1,000,000 files planned, resumed and looked at.

    python benchmarks/scale.py [--most 1000000] [--json FILE]

Source and sink make their listings up, so what is measured is the engine and its state store:

1. plan: a dry run against an empty sink;
2. take in: everything is there already and unknown, so that each file is compared and recorded;
3. resume: a run that finds one session in a hundred missing, moves it and keeps the rest;
4. status: `state path`, `run list` and one session's files out of the store.

Each step is a process of its own. Its peak memory comes from the kernel; the end is 1 when that of
the largest job is more than a tenth (and 10 MB) above that of the one before it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from xnatctl.engine import upkeep
from xnatctl.engine.events import Bus
from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.runner import Options, Run
from xnatctl.engine.state import Pair, StateStore
from xnatctl.engine.types import Container, Item, Report, Selection, Stamp, Unit
from xnatctl.model import Ref
from xnatctl.zipstream import Event as ZipEvent

SIZES = (1_000, 10_000, 100_000, 1_000_000)
STEPS = ("plan", "take in", "resume", "status")
IN_A_SESSION = 500
BODY = b"0123456789"
DIGEST = "781e5e245d69b566979b86e28d23f2c7"
ROOM, SHARE = 10_000_000, 1.1


def files_of(unit: Unit) -> list[str]:
    return [f"scans/{1 + n // 100}/resources/DATA/files/{n:06d}.dat" for n in range(IN_A_SESSION)]


@dataclass
class Source:
    """Sessions of 500 files of 10 bytes."""

    sessions: int
    name: str = "made-up:source"

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        for number in range(self.sessions):
            key = f"session:S{number:06d}"
            ref = Ref("P", session=key)
            yield Unit(key, "session", ref, ref, label=key)

    async def describe(self, unit: Unit) -> Unit:
        items, boxes = [], {}
        for key in files_of(unit):
            lane, _, path = key.partition("/files/")
            ref = replace(unit.ref, level="scans", item=lane.split("/")[1], resource="DATA")
            boxes[lane] = Container(lane, ref)
            items.append(Item(key, "file", lane, ref, path, size=len(BODY), digest=DIGEST))
        return replace(
            unit, items=tuple(items), containers=tuple(boxes.values()), fingerprint=unit.key
        )

    @asynccontextmanager
    async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
        async def chunks() -> AsyncIterator[bytes]:
            yield BODY

        yield chunks()

    def member_path(self, item: Item, name: str) -> str:
        return name


class Sink:
    """Has every session but each `hole`-th; what arrives is a number, not a body."""

    name = "made-up:sink"
    accepts_zip = False
    holds_digests = True
    may_rewrite = False

    def __init__(self, hole: int) -> None:
        self.hole = hole
        self.arrived: dict[str, int] = {}

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        return unit

    async def inventory(self, unit: Unit) -> Inventory:
        lacks = self.hole and int(unit.key[-6:]) % self.hole == 0
        if lacks and self.arrived.get(unit.key, 0) < IN_A_SESSION:
            return {}
        return {key: Stamp(len(BODY), DIGEST) for key in files_of(unit)}

    async def begin(self, unit: Unit) -> None:
        self.arrived[unit.key] = 0

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        async for _ in chunks:
            self.arrived[unit.key] += 1

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        raise AssertionError("no archives here")

    async def seal(self, unit: Unit, stage: int) -> None:
        pass

    async def abandon(self, unit: Unit) -> None:
        pass


async def step(name: str, files: int, path: Path) -> str:
    """Do one step of a job; what it counted, in words."""
    source, sink = Source(files // IN_A_SESSION), Sink({"plan": 1, "resume": 100}.get(name, 0))
    async with StateStore.open(path) as state:
        if name == "status":
            found = await anyio.to_thread.run_sync(upkeep.contents, path)
            known = await state.known(Pair(source.name, sink.name), "session:S000001")
            assert found.items == files and known is not None
            assert len(known.digests) == IN_A_SESSION and len(await state.runs()) == 2
            return f"{found.size / 1e6:.0f} MB on disk"
        options = Options("scale", workers=4, dry_run=name == "plan")
        run = Run(source, sink, options=options, state=state, bus=Bus())
        report: Report = await run(Selection(Ref("P")))
        assert report.exit_code == 0, report.problems
        assert name == "plan" or report.files + report.files_kept == files
        return f"{report.files} moved, {report.files_kept} kept"


def measure(name: str, files: int, path: Path) -> dict[str, Any]:
    """One step in a process of its own."""
    here = [sys.executable, __file__, "--step", name, "--files", str(files), "--state", str(path)]
    done = subprocess.run(here, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def peak() -> int:
    """The most memory this process has had, in bytes."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=SIZES[-1])
    parser.add_argument("--json", type=Path)
    for hidden in ("--step", "--files", "--state"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.step:
        began = time.perf_counter()
        said = anyio.run(step, chosen.step, int(chosen.files), Path(chosen.state))
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "peak": peak(), "said": said}))
        return
    rows = []
    print("| files | step | seconds | files/s | peak memory | |\n|---:|---|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as folder:
        for files in [size for size in SIZES if size <= chosen.most]:
            for name in STEPS:
                found = measure(name, files, Path(folder) / f"{files}.db")
                rows.append({"files": files, "step": name, **found})
                rate = f"{files / found['seconds']:,.0f}" if name != "status" else ""
                print(
                    f"| {files:,} | {name} | {found['seconds']:.2f} | {rate} "
                    f"| {found['peak'] / 1e6:.0f} MB | {found['said']} |",
                    flush=True,
                )
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1), "utf-8")
    sys.exit(int(grows(rows)))


def grows(rows: list[dict[str, Any]]) -> bool:
    """Whether the largest job took clearly more memory than the one before it."""
    largest = sorted({row["files"] for row in rows})[-2:]
    by = {(row["files"], row["step"]): row["peak"] for row in rows}
    worse = [name for name in STEPS if by[largest[-1], name] > SHARE * by[largest[0], name] + ROOM]
    for name in worse:
        print(f"{name}: memory grows with the number of files", file=sys.stderr)
    return bool(worse)


if __name__ == "__main__":
    main()
