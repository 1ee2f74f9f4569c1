"""C-STORE against DCMTK's storescp: `session upload-dicom`'s way beside the usual one.

    python benchmarks/store_scu.py [--objects 60] [--rounds 5]

The usual one is pynetdicom as its manual shows it: one association, `send_c_store` of each object
in turn. Ours is the whole way of the command, from the survey of the folder to the last answer,
over one association and over four. The three take turns in each round; what is printed at the end
are medians of the rounds' ratios. Every object must have arrived each time, or nothing is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pynetdicom import AE
from pynetdicom.presentation import build_context

from xnatctl import routes
from xnatctl.engine.events import Bus
from xnatctl.engine.runner import Options, Stop
from xnatctl.engine.state import StateStore
from xnatctl.sandbox.phantom import Series, Study, series_files

STUDY = Study("BENCH", "P001", "Doe^Jane")
LINES = (1, 4)


@contextmanager
def receiver(folder: Path) -> Iterator[int]:
    """A stock storescp that writes into a folder; yields its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = ["storescp", "--fork", "+xa", "-od", str(folder), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def usual(source: Path, port: int) -> None:
    """pynetdicom as its manual shows it."""
    paths = sorted(source.iterdir())
    first = pydicom.dcmread(paths[0], stop_before_pixels=True)
    entity = AE("BENCH")
    syntax = str(first.file_meta.TransferSyntaxUID)
    entity.requested_contexts = [build_context(first.SOPClassUID, syntax)]
    association = entity.associate("127.0.0.1", port, ae_title="STORESCP")
    for path in paths:
        status = association.send_c_store(pydicom.dcmread(path))
        if status.Status != 0:
            raise SystemExit(f"storescp answered {status.Status:04X}")
    association.release()


def ours(lines: int) -> Callable[[Path, int], None]:
    """The way of `session upload-dicom` over so many associations."""

    async def send(source: Path, port: int) -> None:
        peer = routes.Peer("127.0.0.1", port, "STORESCP")
        with tempfile.TemporaryDirectory() as folder:
            async with StateStore.open(Path(folder) / "state.db") as state:
                desk = routes.Desk(state, Bus(), Options("upload-dicom"), Stop())
                report = await routes.store(desk, routes.Dicoms(source), peer, lines=lines)
        if report.exit_code:
            raise SystemExit(f"ours failed: {report.problems[0].error}")

    return lambda source, port: asyncio.run(send(source, port))


def rate(send: Callable[[Path, int], None], source: Path, count: int) -> float:
    """Objects a second of one way, into a folder that is empty."""
    with tempfile.TemporaryDirectory() as got, receiver(Path(got)) as port:
        began = time.perf_counter()
        send(source, port)
        seconds = time.perf_counter() - began
        arrived = len(list(Path(got).iterdir()))
    if arrived != count:
        raise SystemExit(f"{arrived} of {count} objects arrived")
    return count / seconds


def main() -> None:
    """Write the objects, take turns, print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if shutil.which("storescp") is None:
        sys.exit("storescp is missing: apt-get install dcmtk")
    ways = {"usual": usual, **{f"ours, {n} association(s)": ours(n) for n in LINES}}
    found: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        series = Series(STUDY, "3", 3, slices=options.objects)
        for name, body in series_files(series):
            (source / name).write_bytes(body)
        print(f"{options.objects} objects of {len(body) / 1e3:.0f} kB, {options.rounds} rounds")
        for _ in range(options.rounds):
            for name, send in ways.items():
                found[name].append(rate(send, source, options.objects))
    for name, rates in found.items():
        ratios = [mine / base for mine, base in zip(rates, found["usual"], strict=True)]
        print(
            f"{name:<24}{statistics.median(rates):>8.0f} objects/s"
            f"{statistics.median(ratios):>8.1f} x the usual"
        )


if __name__ == "__main__":
    main()
