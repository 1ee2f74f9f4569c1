"""What many machines cost: by the unit, and in CPU seconds by the gigabyte, without any network.

    python benchmarks/cluster.py [--units 1000] [--megabytes 1200] [--json FILE]

1. Empty units, with a full window: the time that handing one over takes, beside this process alone.
2. Archives that were deflated beforehand, which the engine inflates and proves: CPU seconds for
   each GB of files with 1, 2 and 4 worker processes, and how much faster two are than one.
3. What `cluster_simulation.py` needs to know besides: small members, and rows of the state store.

Workers of this machine share its cores with the coordinator: more of them than cores cannot be
faster, so wall-clock times are compared for one and two only.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import tempfile
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster_ends import Discard, Given, GivenSource, write_letters

from xnatctl.cluster.crew import Crew, open_crew, parse_spec
from xnatctl.cluster.wire import unpacked
from xnatctl.engine.events import Bus
from xnatctl.engine.limits import Gate, Limits
from xnatctl.engine.ports import Dispatcher
from xnatctl.engine.runner import Options, Run
from xnatctl.engine.state import Pair, StateStore
from xnatctl.engine.types import Member, Selection
from xnatctl.model import Ref

WINDOW = 64


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one run: seconds by the clock, CPU seconds of this process and of all workers."""

    wall_s: float
    here_s: float
    workers_s: float

    @property
    def cpu_s(self) -> float:
        return self.here_s + self.workers_s


async def spent(given: Given, folder: Path, crew: Crew | None, slots: int) -> Spent:
    """Run all units once; with a crew, by its workers."""
    gates = [Gate(name, most=slots, fixed=True) for name in ("source", "sink")]
    dispatcher: Dispatcher | None = crew.dispatcher(given) if crew else None
    with tempfile.TemporaryDirectory(dir=folder) as place:
        async with StateStore.open(Path(place) / "state.db") as state:
            run = Run(
                GivenSource(given),
                Discard(),
                options=Options("bench", workers=slots),
                state=state,
                bus=Bus(),
                limits=Limits(*gates),
                dispatcher=dispatcher,
            )
            before = await _cpu(crew)
            here, began = time.process_time(), time.perf_counter()
            report = await run(Selection(Ref("P")))
            wall, here = time.perf_counter() - began, time.process_time() - here
            if report.exit_code or report.units_done + report.units_kept != given.count:
                raise SystemExit(f"the run failed: {report.problems[:1]}")
            return Spent(wall, here, await _cpu(crew) - before)


async def _cpu(crew: Crew | None) -> float:
    return sum((await crew.client.run(time.process_time)).values()) if crew else 0.0


def deflated(folder: Path, name: str, *, files: int, size: int) -> Given:
    """An archive of files that shrink to about a half, as images do."""
    chance = random.Random(name)
    path = folder / name
    members = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for number in range(files):
            noise = chance.randbytes(size // 2)
            data = b"".join(bytes((one, 0)) for one in noise)
            archive.writestr(f"{number}.dcm", data)
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
            key = f"box/files/{number}.dcm"
            members.append(Member(key, f"{number}.dcm", len(data), digest))
    return Given(0, path, tuple(members))


async def watching(folder: Path, crew: Crew) -> float:
    """CPU seconds of this process for each second in which workers have a unit and nothing else."""
    done = await spent(Given(8, nap_s=6.0), folder, crew, WINDOW)
    return done.here_s / done.wall_s


async def letters(crew: Crew, count: int = 400) -> float:
    """CPU seconds of this process for a letter with some events in it."""
    come = asyncio.Event()
    seen: list[int] = []

    def hear(event: tuple[float, bytes]) -> None:
        seen.append(len(unpacked(event[1]).events))
        if len(seen) == count:
            come.set()

    crew.client.subscribe_topic("letters", hear)
    began = time.process_time()
    (address, *_) = (await crew.client.scheduler.identity(n_workers=-1))["workers"]
    await crew.client.run(write_letters, count, workers=[address])
    await come.wait()
    spent_s = time.process_time() - began
    crew.client.unsubscribe_topic("letters")
    return spent_s / count


async def rows_of_the_state_store(folder: Path, count: int) -> float:
    """Seconds for each row that is written durably, in the batches of units of 100 files."""
    pair = Pair("a", "b")
    rows = [(f"k{n}", "0" * 32, 1, "done", "") for n in range(100)]
    async with StateStore.open(folder / "rows.db") as state:
        began = time.perf_counter()
        await asyncio.gather(*(state.mark_items(pair, f"u{n}", rows) for n in range(count // 100)))
        return (time.perf_counter() - began) / count


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--units", type=int, default=1000)
    parser.add_argument("--megabytes", type=int, default=1200)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    found: dict[str, object] = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="xnatctl-bench-") as name:
        folder = Path(name)
        empty = Given(chosen.units)
        big = deflated(folder, "big.zip", files=8, size=4_000_000)
        small = deflated(folder, "small.zip", files=1000, size=8000)
        count = max(4, chosen.megabytes // 32)
        big = Given(count, big.archive, big.members)
        small = Given(max(4, count // 4), small.archive, small.members)
        alone = await spent(empty, folder, None, WINDOW)
        found["alone_unit_s"] = alone.wall_s / empty.count
        found["state_row_s"] = await rows_of_the_state_store(folder, 20_000)
        for workers in (1, 2, 4):
            async with open_crew(parse_spec(f"local:{workers}"), slots=WINDOW) as crew:
                await spent(Given(50), folder, crew, WINDOW)  # the first run imports everything
                many = await spent(empty, folder, crew, WINDOW)
                moved = await spent(big, folder, crew, 2 * workers)
                files = await spent(small, folder, crew, 2 * workers)
                if workers == 4:
                    found["watch_s"] = await watching(folder, crew) / workers
                    found["letter_s"] = await letters(crew)
            size = count * sum(one.size or 0 for one in big.members) / 1e9
            number = small.count * len(small.members)
            found[f"workers_{workers}"] = {
                "unit_s": many.wall_s / empty.count,
                "overhead_s": (many.wall_s - alone.wall_s) / empty.count,
                "coordinator_s": many.here_s / empty.count,
                "wall_s": moved.wall_s,
                "cpu_s_per_gb": moved.cpu_s / size,
                "worker_cpu_s_per_gb": moved.workers_s / size,
                "cpu_s_per_small_file": files.workers_s / number,
                "empty": asdict(many),
                "big": asdict(moved),
                "small": asdict(files),
            }
            one = found[f"workers_{workers}"]
            print(f"{workers} workers: {json.dumps(one)}", flush=True)
    _say(found)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))


def _say(found: dict[str, object]) -> None:
    one, two, four = (found[f"workers_{n}"] for n in (1, 2, 4))
    assert isinstance(one, dict) and isinstance(two, dict) and isinstance(four, dict)
    print(f"overhead a unit, 2 workers   {two['overhead_s'] * 1000:6.2f} ms  (at most 5)")
    growth = four["cpu_s_per_gb"] / one["cpu_s_per_gb"] - 1
    print(f"CPU s/GB, 1 worker           {one['cpu_s_per_gb']:6.2f}")
    print(f"growth from 1 to 4 workers   {growth:6.1%}    (at most 15 %)")
    print(f"2 workers beside 1, by clock {one['wall_s'] / two['wall_s']:6.2f}     (more than 1)")


if __name__ == "__main__":
    asyncio.run(main())
