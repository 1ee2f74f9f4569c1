"""Over a long line: 40 ms there and back at 300 Mbit/s, with and without loss.

    python benchmarks/wan.py link NAME DELAY_MS MBIT LOSS        (what `link` below starts)

Where a kernel has no `netem`, a line is made here: a TUN device in each of two network namespaces,
and between them this program, which lets each direction send at a rate, drops what its queue cannot
hold and some more by chance, and hands the rest over late. TCP above it is the kernel's own.
"""

from __future__ import annotations

import fcntl
import os
import random
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from local import LABEL, emptied
from measure import OURS, Contender, Failed, Measured, Row, Server, fresh, large, login, race, timed

NEAR, FAR = "10.88.0.1", "10.88.0.2"
QUEUE = 1_500_000
"""Bytes: as much as the line holds in 40 ms at 300 Mbit/s."""
_WITHIN = ("ip", "netns", "exec")
_TUNSETIFF, _TUN, _NO_PI = 0x400454CA, 0x0001, 0x1000


class _Way:
    """One direction of the line."""

    def __init__(self, out: int, *, delay: float, rate: float, loss: float, seed: int) -> None:
        self.out, self.delay, self.rate, self.loss = out, delay, rate, loss
        self.free = 0.0
        self.under_way: deque[tuple[float, bytes]] = deque()
        self._chance = random.Random(seed)

    def take(self, packet: bytes, now: float) -> None:
        start = max(now, self.free)
        if self._chance.random() < self.loss or (start - now) * self.rate > QUEUE:
            return
        self.free = start + len(packet) / self.rate
        self.under_way.append((self.free + self.delay, packet))

    def deliver(self, now: float) -> None:
        while self.under_way and self.under_way[0][0] <= now:
            packet = self.under_way.popleft()[1]
            try:
                os.write(self.out, packet)
            except OSError:
                return


def _end(space: str, here: str, there: str) -> int:
    """A TUN device in a namespace of its own: the file that its packets come out of."""
    subprocess.run(["ip", "netns", "add", space], check=True)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = "line0"
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN | _NO_PI))
    subprocess.run(["ip", "link", "set", name, "netns", space], check=True)
    for line in (
        f"addr add {here}/32 peer {there} dev {name}",
        f"link set {name} mtu 1500 txqueuelen 5000 up",
        "link set lo up",
    ):
        subprocess.run(["ip", "-n", space, *line.split()], check=True)
    return device


def carry(name: str, delay_ms: float, mbit: float, loss: float) -> None:
    """Be the line until SIGTERM."""
    near, far = _end(f"{name}A", NEAR, FAR), _end(f"{name}B", FAR, NEAR)
    rate, delay = mbit * 1e6 / 8, delay_ms / 2000
    ways = selectors.DefaultSelector()
    made = []
    for number, (device, out) in enumerate(((near, far), (far, near))):
        way = _Way(out, delay=delay, rate=rate, loss=loss, seed=number)
        ways.register(device, selectors.EVENT_READ, way)
        made.append(way)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("up", flush=True)
    while True:
        now = time.monotonic()
        soonest = min((way.under_way[0][0] for way in made if way.under_way), default=now + 1)
        for key, _ in ways.select(max(0.0, soonest - now)):
            for _ in range(256):
                try:
                    packet = os.read(key.fd, 65535)
                except BlockingIOError:
                    break
                key.data.take(packet, time.monotonic())
        for way in made:
            way.deliver(time.monotonic())


@contextmanager
def link(delay_ms: float, mbit: float, loss: float) -> Iterator[tuple[list[str], list[str]]]:
    """The commands that put a program at the near and the far end. Raises Failed where no line
    can be made.
    """
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists() or shutil.which("ip") is None:
        raise Failed("needs root, /dev/net/tun and the program ip")
    name = f"xb{os.getpid()}"
    command = [sys.executable, __file__, "link", name, str(delay_ms), str(mbit), str(loss)]
    with tempfile.TemporaryFile("w+") as said:
        line = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            if line.stdout is None or line.stdout.readline().strip() != "up":
                said.seek(0)
                raise Failed(f"no line could be made: {said.read().strip()[-200:]}")
            near, far = ([*_WITHIN, f"{name}{end}"] for end in "AB")
            yield near, far
        finally:
            line.terminate()
            line.wait()
            for end in "AB":
                subprocess.run(["ip", "netns", "del", f"{name}{end}"], capture_output=True)


def over_the_line(name: str, seed: str, *, loss: float, rounds: int, small: bool = False) -> Row:
    """`session download` from the far end. Big files beside four streams of curl at once, small
    ones beside one stream.
    """
    _, files, size = large(seed)
    load = f"{files:,} files, {size / 1e6:,.0f} MB, 40 ms, 300 Mbit/s, {loss:.1%} lost"
    streams = 1 if small else 4
    other = "curl, 1 stream" if small else "curl, 4 streams"
    row = Row(name, load, size, files, 1, "" if small else other)
    row.goals[other] = ("seconds", 10.0 if small else 0.95)
    folder = Path(tempfile.mkdtemp(prefix="xnatctl-bench-"))
    try:
        with link(40, 300, loss) as (near, far):
            server = Server(folder / "far", seed, host=FAR, within=far)
            try:
                part = min(1.0, 200 / files) if small else 1.0
                names = _addresses(server)
                some = names[: round(part * files)]
                contenders = [
                    Contender("xnatctl", lambda _: _ours(server, folder, near)),
                    Contender(other, lambda _: _curl(server, folder, near, some, streams), part),
                ]
                return race(row, rounds, contenders)
            finally:
                server.stop()
    except Failed as error:
        if "line" not in str(error) and "needs root" not in str(error):
            raise
        row.skipped["all"] = str(error)
        return row
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ours(server: Server, folder: Path, near: Sequence[str]) -> Measured:
    out = emptied(folder / "out")
    command = [*near, *OURS, "session", "download", "-P", "LARGE", "-E", LABEL, "--out", str(out)]
    return timed(command, login(server, folder, fresh()))


def _curl(
    server: Server, folder: Path, near: Sequence[str], names: list[str], most: int
) -> Measured:
    out = emptied(folder / "out")
    lines = [f'url = "{server.url}{one}"\noutput = "{out}/{n}"' for n, one in enumerate(names)]
    (folder / "curl.txt").write_text("\n".join(lines) + "\n")
    parallel = f"-Z --parallel-max {most}" if most > 1 else ""
    words = f"curl -sSf -u admin:admin {parallel} --no-progress-meter -K {folder}/curl.txt"
    return timed([*near, *words.split()])


def _addresses(server: Server) -> list[str]:
    rows = server.get("/data/projects/LARGE/experiments?format=json")["ResultSet"]["Result"]
    path = f"/data/experiments/{rows[0]['ID']}/files?format=json&all=true"
    return [one["URI"] for one in server.get(path)["ResultSet"]["Result"]]


if __name__ == "__main__":
    carry(sys.argv[2], *map(float, sys.argv[3:6]))
