"""A server that has a knee: so many requests at once go well, more slow it down, twice as many are
refused. How close does the climb come to the best fixed setting, and how much does it get refused?

    python benchmarks/slow.py URL FOLDER WORKERS [fixed]      (what a contender runs)
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from local import emptied
from measure import Contender, Measured, Row, Server, counted, race, servers, timed

SIZE = 100_000
SECONDS = 0.08
"""What a request of a body takes at best."""


def knee(
    capacities: Sequence[int],
    *,
    fixed: Sequence[int],
    every: float = 4.0,
    seconds: float = 8.0,
    rounds: int = 1,
) -> Row:
    """All files of a project one by one, where the knee is at each of `capacities` in turn for
    `every` seconds; as many as the server can send in `seconds`. Beside it gates of `fixed` widths.
    """
    words = " and ".join(map(str, capacities))
    each = round(seconds / SECONDS * sum(capacities) / len(capacities) / 12)
    files = 12 * each
    load = f"{files:,} files of {SIZE // 1000} kB, each asked for alone"
    row = Row(f"a slow server, knee at {words}", load)
    row.bytes, row.files, row.sessions = files * SIZE, files, 12
    with servers(f"large:1x12x1x{each}@{SIZE}") as (here, _, folder):

        def contender(number: int) -> Contender:
            name = f"fixed at {number}" if number else "xnatctl"
            return Contender(name, lambda _: _one(here, folder, number, capacities, every))

        race(row, rounds, [contender(number) for number in (0, *fixed)])
    best = min((f"fixed at {one}" for one in fixed), key=row.median)
    row.goals[best] = ("seconds", 0.8)
    mine = row.rounds["xnatctl"][0]
    row.notes.append(
        f"{mine.refused} of {mine.requests} requests refused "
        f"({mine.refused / max(1, mine.requests):.1%}, at most 1 %); the best fixed one is {best}"
    )
    return row


def _one(
    here: Server, folder: Path, number: int, capacities: Sequence[int], every: float
) -> Measured:
    out = emptied(folder / "out")
    done = threading.Event()
    _set(here, capacities[0])

    def change() -> None:
        turn = 0
        while not done.wait(every):
            turn += 1
            _set(here, capacities[turn % len(capacities)])

    changing = threading.Thread(target=change)
    changing.start()
    command = [sys.executable, __file__, here.url, str(out), str(number or 16)]
    try:
        return counted(lambda: timed([*command, *(["fixed"] if number else [])]), here)
    finally:
        done.set()
        changing.join()
        here.get("/sandbox/faults", method="DELETE")


def _set(here: Server, capacity: int) -> None:
    fault = {"match": "GET */files/*", "kind": "capacity", "nth": 1, "times": 0}
    here.get("/sandbox/faults", method="DELETE")
    here.get("/sandbox/faults", json.dumps({**fault, "at": capacity, "seconds": SECONDS}).encode())


async def fetch(url: str, folder: Path, workers: int, *, fixed: bool) -> None:
    """The project's files to a folder by the engine, each in a request of its own."""
    from xnatctl.endpoints.local import LocalSink
    from xnatctl.endpoints.xnat_source import XnatSource
    from xnatctl.engine.events import Bus
    from xnatctl.engine.limits import Gate, Limits
    from xnatctl.engine.runner import Options, Run
    from xnatctl.engine.state import StateStore
    from xnatctl.engine.types import Selection
    from xnatctl.model import Ref
    from xnatctl.transport import Credentials, Transport
    from xnatctl.xnat.client import Xnat

    limits = Limits.of(workers)
    if fixed:
        limits = Limits(*(Gate(end, most=workers, fixed=True) for end in ("source", "sink")))
    async with (
        Transport(url, Credentials("admin", "admin")) as transport,
        StateStore.open(folder / "state.db") as state,
    ):
        source = XnatSource(Xnat(transport), target=Ref("LARGE"), metadata=False)
        sink = LocalSink(folder / "files")
        sink.accepts_zip = False
        options = Options(verb="bench", workers=workers)
        run = Run(source, sink, options=options, state=state, bus=Bus(), limits=limits)
        report = await run(Selection(Ref("LARGE")))
    if not report.success:
        sys.exit(f"not all arrived: {report}"[:2000])


if __name__ == "__main__":
    asyncio.run(
        fetch(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), fixed=sys.argv[4:] == ["fixed"])
    )
