"""Memory and disk of downloads: a session of 10,000 files, and one of a single file of 10 GB.

    python benchmarks/memory.py [--quick]

Bodies are made by the sandbox while it sends them. Each command is a process of its own; the peak
of its memory comes from the kernel, that of the disk from looking at the target and at `$TMPDIR`
four times a second. A command that needs 200 MB of memory, or at any moment more disk than what it
leaves behind (and 2 %), is named, and the end is 1. The whole needs 11 GB of disk, as one command
runs after the other.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local import LABEL, emptied
from measure import OURS, Measured, fresh, large, login, servers, timed

MEMORY = 200_000_000
DISK = 1.02
SESSION = ("session", "download", "-P", "LARGE", "-E", LABEL)
EXPORT = ("project", "export", "-P", "LARGE")
COMMANDS = {
    "session download": SESSION,
    "session download --no-extract": (*SESSION, "--no-extract"),
    "project export": EXPORT,
    "project export --bagit": (*EXPORT, "--bagit"),
}


@dataclass
class Disk:
    """The most that folders held at a time, in bytes."""

    peak: int = 0


def held(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512 if path.is_file() else 0
        except FileNotFoundError:
            continue  # renamed meanwhile
    return total


@contextmanager
def watched(*folders: Path) -> Iterator[Disk]:
    disk, done = Disk(), threading.Event()

    def look() -> None:
        while not done.wait(0.25):
            disk.peak = max(disk.peak, sum(map(held, folders)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield disk
    finally:
        done.set()
        thread.join()


def case(seed: str) -> bool:
    """All commands over one seed, a line each; whether each kept within the bounds."""
    _, files, size = large(seed)
    good = True
    with servers(seed) as (here, _, folder):
        for name, words in COMMANDS.items():
            out, tmp = emptied(folder / "out"), emptied(folder / "tmp")
            environ = {**login(here, folder, fresh()), "TMPDIR": str(tmp)}
            with watched(out, tmp) as disk:
                found = timed([*OURS, *words, "--out", str(out)], environ)
            left = held(out)
            good &= say(f"{files:,} files, {size / 1e9:.3g} GB", name, found, disk.peak, left)
            emptied(out)
    return good


def say(load: str, name: str, found: Measured, disk: int, left: int) -> bool:
    over = [
        text
        for text, is_over in (
            (f"more than {MEMORY // 1_000_000} MB of memory", found.peak >= MEMORY),
            ("a copy on the disk", disk > left * DISK),
        )
        if is_over
    ]
    print(
        f"{load:21} {name:30} {found.peak / 1e6:4.0f} MB memory, {disk / 1e9:5.2f} GB disk,"
        f" {found.seconds:4.0f} s: {', '.join(over) or 'ok'}",
        flush=True,
    )
    return not over


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2,000 files, and one of 500 MB")
    quick = parser.parse_args().quick
    seeds = (
        ("large:1x1x1x2000@20k", "large:1x1x1x1@500M")
        if quick
        else ("large:1x1x1x10000@100k", "large:1x1x1x1@10G")
    )
    results = [case(seed) for seed in seeds]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
