"""How fast the sandbox itself is, measured with curl: the ceiling of every figure taken against it.

    python benchmarks/sandbox_ceiling.py [--gigabytes N]   each kind of body, a gigabyte of each
    python benchmarks/sandbox_ceiling.py --size 5G         one upload and one zip of that size
    python benchmarks/sandbox_ceiling.py --listings        10,000 sessions, 200,000 files

A sandbox is served by a process of its own from a temporary folder (in TMPDIR, which needs as much
room as is uploaded); curl reads and writes in others. Printed are, for each body: megabytes a
second, CPU seconds of the sandbox a gigabyte, and its peak memory. With `--size` the exit code says
whether that stayed below 150 MB.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xnatctl.sandbox.bodies import Generated, chunks
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.store import Store

SERVE = """
import asyncio, sys
from pathlib import Path
from xnatctl.sandbox.server import run
asyncio.run(run(Path(sys.argv[1]), announce=lambda s: print(s.url, flush=True)))
"""
TICK = os.sysconf("SC_CLK_TCK")
MOST_MEMORY = 150
MANY = 2000


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


def ceiling(size: int) -> None:
    """Every kind of body."""
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
        small(root)


def small(root: Path) -> None:
    """Many small bodies: one request each, or all in one archive."""
    tiny, each = root / "tiny", 2000
    tiny.write_bytes(b"".join(chunks(Generated(each, 7))))
    archive = root / "tiny.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for number in range(MANY):
            packed.writestr(f"{number}.bin", b"".join(chunks(Generated(each, number % 256))))
    with served(root / "sandbox") as (url, pid):
        base = f"{url}/data/projects/P/resources"
        login = ["curl", "-sS", "-u", "admin:admin", f"{url}/data/JSESSION"]
        session = subprocess.run(login, check=True, capture_output=True, text=True).stdout
        cookie = ["-b", f"JSESSIONID={session}"]
        eight = ["-Z", "--parallel-max", "8", *cookie]
        packed_up = ["-X", "PUT", "-T", str(archive), "-H", "Content-Type: application/zip",
                     f"{base}/tiny/files/b.zip?inbody=true&extract=true"]  # fmt: skip
        put = ["-T", str(tiny), "-H", "Content-Type: application/octet-stream", "-H", "Expect:"]
        last = f"[0-{MANY // 8 - 1}].bin?inbody=true"
        work = {
            "PUT a zip of them that is unpacked": [packed_up],
            "GET a zip of them": [[f"{base}/tiny/files?format=zip"]],
            "list them": [[f"{base}/tiny/files"]],
            "GET each, 8 at once": [[*eight, f"{base}/tiny/files/[0-{MANY - 1}].bin"]],
            # One after another into each of eight resources, as a resource takes no two at once.
            "PUT each, 8 at once": [
                [*cookie, *put, f"{base}/r{number}/files/{last}"] for number in range(8)
            ],
        }
        print(f"{MANY:,} files of {each:,} bytes")
        for name, curls in work.items():
            before, began = cpu_seconds(pid), time.perf_counter()
            with ThreadPoolExecutor(len(curls)) as pool:
                list(pool.map(lambda words: curl(*words), curls))
            seconds = time.perf_counter() - began
            used = (cpu_seconds(pid) - before) / MANY * 1000
            print(f"{name:<44}{MANY / seconds:>8,.0f} files/s {used:>7.2f} CPU ms each")


def large(size: int) -> bool:
    """One upload and one zip download; whether the sandbox stayed below `MOST_MEMORY`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = Store(root / "sandbox")
        made = store.create_resource(store.create_project("P"), "made")
        each = 10_000_000
        store.add_generated(
            made, ((f"{i}.bin", Generated(each, i % 256)) for i in range(size // each))
        )
        store.close()
        body = root / "body"
        with body.open("wb") as file:
            file.truncate(size)  # Sparse: what is sent needs no room, what is stored does.
        with served(root / "sandbox") as (url, pid):
            base = f"{url}/data/projects/P/resources"
            octets = ["-H", "Content-Type: application/octet-stream"]
            up = ["-X", "PUT", "-T", str(body), *octets, f"{base}/up/files/b?inbody=true"]
            words = f"of {size / 1e9:g} GB"
            measure(f"PUT one file {words}", pid, size, up)
            measure(f"GET a zip of it {words}", pid, size, [f"{base}/up/files?format=zip"])
            measure(f"GET a generated zip {words}", pid, size, [f"{base}/made/files?format=zip"])
            return peak_megabytes(pid) < MOST_MEMORY


def listings() -> None:
    """Seconds to list many sessions and many files, the fastest of five."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        seed(store, "large:1000x10x1x20@1k,project=MANY")
        session = store.find("kind='experiment'")[0]
        store.close()
        with served(Path(folder)) as (url, pid):
            project = f"{url}/data/projects/MANY"
            wanted = {
                "10,000 sessions": f"{project}/experiments",
                "10,000 sessions with columns": f"{project}/experiments?columns=ID,label,date,"
                "xsiType,subject_label,xnat:mrSessionData/coil",
                "1,000 subjects": f"{project}/subjects",
                "the files of one session": f"{url}/data/experiments/{session.code}/files?all=true",
            }
            for name, address in wanted.items():
                times = []
                for _ in range(5):
                    began = time.perf_counter()
                    curl(address)
                    times.append(time.perf_counter() - began)
                print(f"{name:<44}{min(times):>8.3f} s {peak_megabytes(pid):>6.0f} MB peak")
        store = Store(Path(folder))
        one = store.create_resource(store.find("kind='project'")[0], "ONE")
        store.add_generated(
            one, ((f"{i // 1000}/{i}.bin", Generated(1000, i % 256)) for i in range(200_000))
        )
        store.close()
        with served(Path(folder)) as (url, pid):
            began = time.perf_counter()
            curl(f"{url}/data/projects/MANY/resources/ONE/files")
            seconds = time.perf_counter() - began
            print(f"{'200,000 files of one resource':<44}{seconds:>8.3f} s "
                  f"{peak_megabytes(pid):>6.0f} MB peak")  # fmt: skip


def bytes_of(text: str) -> int:
    """`5G`, `200M` or a number of bytes."""
    unit = {"K": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:].upper(), 0)
    return int(float(text[:-1]) * unit) if unit else int(text)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--size", type=bytes_of)
    parser.add_argument("--listings", action="store_true")
    options = parser.parse_args()
    if options.listings:
        listings()
    elif options.size:
        sys.exit(0 if large(options.size) else f"more than {MOST_MEMORY} MB")
    else:
        ceiling(int(options.gigabytes * 1e9))


if __name__ == "__main__":
    main()
