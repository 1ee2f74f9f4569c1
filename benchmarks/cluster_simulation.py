"""A transfer by many machines on paper: where the time goes, and what saturates first.

    python benchmarks/cluster_simulation.py [--measured FILE] [--link 10] [--server 500] …

1. Costs come from our own measurements: `cluster.py --json FILE` writes them, the defaults are the
   ones that docs/scale.md was made with.
2. What nobody can measure for you, the two servers and the link between, are parameters.
3. Units with sizes from a heavy-tailed distribution pass through: the coordinator (one at a time),
   their worker (its cores are shared by what it has in hand), the source, the link and the
   destination (each shared by all), and the state store (one at a time). Rates are worked out anew
   whenever a unit begins or ends moving: everybody gets an equal part of what is scarce, and nobody
   more than one stream can carry.
4. A sample of the units is played through, and the rest is scaled: at the end of the sample the
   rates have long settled.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from dataclasses import dataclass, fields, replace
from pathlib import Path

SAMPLE = 3000


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured: CPU seconds of one core. The coordinator's are those of the scheduler too: for each
    unit, for each second of a worker that is there, and for each letter of one that moves bytes.
    """

    coordinator_s_per_unit: float = 0.0020
    worker_s_per_gb: float = 6.7
    worker_s_per_file: float = 0.00011
    state_s_per_row: float = 0.0000077
    watch_s_per_worker_s: float = 0.0101
    letter_s: float = 0.0017
    letters_per_s: float = 2.0


@dataclass(frozen=True, slots=True)
class World:
    """What is moved, and between what. Servers in MB/s and files/s, the link in Gbit/s."""

    files: int = 10_000_000
    terabytes: float = 1000.0
    units: int = 100_000
    link: float = 10.0
    server: float = 500.0
    server_files: float = 500.0
    requests_s_per_unit: float = 2.0
    stream: float = 120.0
    budget: int = 16


@dataclass(frozen=True, slots=True)
class Played:
    """Hours for all of it, and the busy part of each resource."""

    hours: float
    busy: dict[str, float]

    @property
    def scarce(self) -> str:
        return max(self.busy, key=lambda name: self.busy[name])


@dataclass(slots=True)
class _Unit:
    """A unit that moves: the work left, in units of one; `weights` is what all of it takes of each
    resource, in seconds of that resource.
    """

    worker: int
    weights: dict[str, float]
    left: float = 1.0


def play(world: World, costs: Costs, workers: int, *, seed: int = 1) -> Played:
    """One transfer by so many workers."""
    chance = random.Random(seed)
    slots = max(world.budget, workers)
    shapes = [_shape(world, costs, chance) for _ in range(SAMPLE)]
    now = coordinator_free = store_free = 0.0
    used: dict[str, float] = dict.fromkeys(("coordinator", "state store"), 0.0)
    moving: list[_Unit] = []
    waiting: list[tuple[float, int, _Unit]] = []  # until it is described and may move
    free = [slots // workers + (number < slots % workers) for number in range(workers)]
    number = done = 0
    while done < SAMPLE:
        while number < SAMPLE and any(free):
            worker = max(range(workers), key=lambda one: free[one])
            free[worker] -= 1
            coordinator_free = max(coordinator_free, now) + costs.coordinator_s_per_unit
            used["coordinator"] += costs.coordinator_s_per_unit
            begins = coordinator_free + world.requests_s_per_unit
            heapq.heappush(waiting, (begins, number, _Unit(worker, shapes[number])))
            number += 1
        speeds = _speeds(moving, world)
        ends = [one.left / speed for one, speed in zip(moving, speeds, strict=True)]
        step = min([*ends, *([waiting[0][0] - now] if waiting else [])])
        for one, speed in zip(moving, speeds, strict=True):
            one.left -= speed * step
            for name, weight in one.weights.items():
                used[name] = used.get(name, 0.0) + weight * speed * step
        now += step
        for one in [one for one in moving if one.left <= 1e-9]:
            moving.remove(one)
            rows = costs.state_s_per_row * world.files / world.units
            store_free = max(store_free, now) + rows
            used["state store"] += rows
            free[one.worker] += 1
            done += 1
        while waiting and waiting[0][0] <= now + 1e-12:
            moving.append(heapq.heappop(waiting)[2])
    letters = min(workers, slots) * costs.letters_per_s * costs.letter_s
    used["coordinator"] += now * (workers * costs.watch_s_per_worker_s + letters)
    share = {"workers": workers, "streams": float("inf")}
    busy = {name: seconds / (now * share.get(name, 1.0)) for name, seconds in used.items()}
    return Played(now * world.units / SAMPLE / 3600, busy)


def _shape(world: World, costs: Costs, chance: random.Random) -> dict[str, float]:
    """Seconds of each resource that a unit takes; sizes vary as those of sessions do."""
    factor = chance.lognormvariate(-0.5, 1.0)
    gigabytes = world.terabytes * 1000 / world.units * factor
    files = world.files / world.units * factor
    server = max(gigabytes * 1000 / world.server, files / world.server_files)
    return {
        "workers": gigabytes * costs.worker_s_per_gb + files * costs.worker_s_per_file,
        "source": server,
        "destination": server,
        "link": gigabytes * 8 / world.link,
        "streams": gigabytes * 1000 / world.stream,
    }


def _speeds(moving: list[_Unit], world: World) -> list[float]:
    """Parts of itself that each unit moves in a second; what is scarce is shared out evenly."""
    beside: dict[int, int] = {}
    for one in moving:
        beside[one.worker] = beside.get(one.worker, 0) + 1
    among = max(1, len(moving))
    speeds = []
    for one in moving:
        need = one.weights
        # A worker is one process, which uses one core.
        parts = [1.0 / beside[one.worker] / need["workers"], 1.0 / need["streams"]]
        parts += [1.0 / among / need[name] for name in ("source", "destination", "link")]
        speeds.append(min(parts))
    return speeds


def measured(path: Path) -> Costs:
    """The costs that `cluster.py --json` wrote."""
    found = json.loads(path.read_text())
    four = found["workers_4"]
    return Costs(
        coordinator_s_per_unit=four["coordinator_s"],
        worker_s_per_gb=found["workers_1"]["worker_cpu_s_per_gb"],
        worker_s_per_file=found["workers_1"]["cpu_s_per_small_file"],
        state_s_per_row=found["state_row_s"],
        watch_s_per_worker_s=found["watch_s"],
        letter_s=found["letter_s"],
    )


def table(world: World, costs: Costs, counts: list[int]) -> str:
    names = ("source", "destination", "link", "workers", "coordinator", "state store")
    lines = ["| workers | days | MB/s | scarce | " + " | ".join(names) + " |"]
    lines.append("|" + "---|" * (4 + len(names)))
    for count in counts:
        played = play(world, costs, count)
        rate = world.terabytes * 1e6 / (played.hours * 3600)
        busy = {name: one for name, one in played.busy.items() if name != "streams"}
        scarce = max(busy, key=lambda name: busy[name])
        if busy[scarce] < 0.8:
            scarce = "streams"
        cells = [str(count), f"{played.hours / 24:.1f}", f"{rate:.0f}", scarce]
        lines.append("| " + " | ".join([*cells, *(f"{busy[name]:.1%}" for name in names)]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measured", type=Path, metavar="FILE")
    parser.add_argument("--workers", default="1,4,16,64")
    for one in fields(World):
        kind = float if isinstance(one.default, float) else int
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=kind, default=one.default)
    chosen = parser.parse_args()
    world = replace(World(), **{one.name: getattr(chosen, one.name) for one in fields(World)})
    costs = measured(chosen.measured) if chosen.measured else Costs()
    print(world)
    print(costs)
    print(table(world, costs, [int(one) for one in chosen.workers.split(",")]))


if __name__ == "__main__":
    main()
