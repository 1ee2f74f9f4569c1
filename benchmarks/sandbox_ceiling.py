"""How fast the sandbox itself is, measured with curl: the ceiling of every figure taken against it.

Run `python benchmarks/sandbox_ceiling.py [--gigabytes N]`. A sandbox is served by a process of its
own from a temporary folder; curl reads and writes in others. Printed are, for each body: megabytes
a second, CPU seconds of the sandbox a gigabyte, and its peak memory.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from xnatctl.sandbox.bodies import Generated, chunks
from xnatctl.sandbox.store import Store

SERVE = """
import asyncio, sys
from pathlib import Path
from xnatctl.sandbox.server import run
asyncio.run(run(Path(sys.argv[1]), announce=lambda s: print(s.url, flush=True)))
"""
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak_megabytes(pid: int) -> float:
    """The largest resident size of a process so far."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


@contextlib.contextmanager
def served(root: Path) -> Iterator[tuple[str, int]]:
    """A sandbox in a process of its own: its URL and process id."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(root)], stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None:
            raise RuntimeError("the sandbox has no output")
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def curl(*arguments: str) -> None:
    """Run curl as the administrator; its output is thrown away, a failure is an error."""
    subprocess.run(
        [
            "curl",
            "-s",
            "--no-progress-meter",
            "--fail",
            "-u",
            "admin:admin",
            "-o",
            os.devnull,
            *arguments,
        ],
        check=True,
    )


def measure(name: str, pid: int, size: int, work: list[str]) -> None:
    """Run one curl and print its line."""
    before, began = cpu_seconds(pid), time.perf_counter()
    curl(*work)
    seconds = time.perf_counter() - began
    used = cpu_seconds(pid) - before
    gigabytes = size / 1e9
    print(
        f"{name:<44}{size / 1e6 / seconds:>8.0f} MB/s {used / gigabytes:>7.2f} CPU s/GB "
        f"{peak_megabytes(pid):>6.0f} MB peak"
    )


def main() -> None:
    """Seed, serve, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    size = int(parser.parse_args().gigabytes * 1e9)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = Store(root / "sandbox")
        project = store.create_project("P")
        seeds = {"one": (1, size), "middle": (size // 1_000_000, 1_000_000),
                 "small": (min(size // 100_000, 5000), 100_000)}  # fmt: skip
        for label, (count, each) in seeds.items():
            resource = store.create_resource(project, label)
            store.add_generated(
                resource, ((f"{i}.bin", Generated(each, i % 256)) for i in range(count))
            )
        disk = store.create_resource(project, "disk")
        body = root / "body"
        with body.open("wb") as file:
            for piece in chunks(Generated(size, 3)):
                file.write(piece)
        archive = root / "body.zip"
        with zipfile.ZipFile(archive, "w") as packed:
            for number in range(size // 1_000_000):
                piece = b"".join(chunks(Generated(1_000_000, number % 256)))
                packed.writestr(f"{number}.bin", piece)
        store.close()
        print(f"disk resource {disk.label}, bodies of {size / 1e9:g} GB, {os.cpu_count()} cores")
        with served(root / "sandbox") as (url, pid):
            base = f"{url}/data/projects/P/resources"
            octets = ["-H", "Content-Type: application/octet-stream"]
            up = ["-X", "PUT", "-T", str(body), *octets, f"{base}/disk/files/b?inbody=true"]
            measure("PUT one file", pid, size, up)
            measure("GET one file from disk", pid, size, [f"{base}/disk/files/b"])
            measure("GET one generated file", pid, size, [f"{base}/one/files/0.bin"])
            for label, (count, each) in seeds.items():
                measure(f"GET zip of {count} x {each:,}", pid, count * each,
                        [f"{base}/{label}/files?format=zip"])  # fmt: skip
            packed_up = ["-X", "PUT", "-T", str(archive), "-H", "Content-Type: application/zip",
                         f"{base}/unpacked/files/b.zip?inbody=true&extract=true"]  # fmt: skip
            measure("PUT a zip that is unpacked", pid, archive.stat().st_size, packed_up)
            count = 2000
            names = f"{base}/small/files/[0-{count - 1}].bin"
            login = ["curl", "-sS", "-u", "admin:admin", f"{url}/data/JSESSION"]
            session = subprocess.run(login, check=True, capture_output=True, text=True).stdout
            began = time.perf_counter()
            curl("-Z", "--parallel-max", "8", "-b", f"JSESSIONID={session}", names)
            rate = count / (time.perf_counter() - began)
            print(f"{'GET 2,000 files of 100 kB, 8 at once':<44}{rate:>8.0f} files/s")


if __name__ == "__main__":
    main()
