"""Workers in network namespaces of their own, and the servers in a third: three machines."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.cluster.processes import (
    environ_of,
    finished,
    is_whole,
    running,
    scheduler,
    transfer,
    until,
    worker,
)
from tests.faults.children import Servers

pytestmark = pytest.mark.long

COUNT = count()
NET = "10.213.7"


@dataclass(frozen=True)
class Space:
    """A network namespace with one address."""

    name: str
    address: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command line begins with to be run there."""
        return ("ip", "netns", "exec", self.name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def spaces() -> Iterator[list[Space]]:
    """Three namespaces at one bridge, whose own address is `NET.1`."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    # The kernel is still busy with the names of the test before.
    made_by = f"x{os.getpid() % 10000:04}{next(COUNT):02}"
    bridge = f"{made_by}b"
    with ExitStack() as stack:
        try:
            ip("link", "add", bridge, "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no bridge can be made here: {error.stderr.decode().strip()}")
        stack.callback(ip, "link", "del", bridge)
        ip("addr", "add", f"{NET}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        made = []
        for number in (2, 3, 4):
            name, outer = f"{made_by}n{number}", f"{made_by}v{number}"
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", outer, "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{NET}.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            made.append(Space(name, f"{NET}.{number}"))
        yield made


@dataclass(frozen=True)
class Served:
    """A sandbox in another process."""

    url: str


@pytest.fixture
def ends(spaces: list[Space], tmp_path: Path) -> Iterator[Servers]:
    """Two servers in the third namespace, the first with data."""
    with ExitStack() as stack:
        served: list[Served] = []
        for place, more in (("here", ("--seed", "demo")), ("there", ())):
            port = 18080 + len(served)
            command = [*spaces[2].inside, sys.executable, "-m", "xnatctl", "sandbox", "serve"]
            command += ["--host", spaces[2].address, "--port", str(port)]
            command += ["--root", str(tmp_path / place)]
            stack.enter_context(running([*command, *more], environ_of(tmp_path, {})))
            url = f"http://{spaces[2].address}:{port}"
            until(partial(_answers, spaces[2].address, port))
            served.append(Served(url))
        yield Servers(served[0], served[1], tmp_path)  # type: ignore[arg-type]


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("mode", ["import", "copy"])
def test_workers_on_two_machines_leave_at_a_third_what_one_process_leaves(
    spaces: list[Space], ends: Servers, mode: str
) -> None:
    with ExitStack() as stack:
        address = stack.enter_context(scheduler(ends.home, host=f"{NET}.1"))
        for space in spaces[:2]:
            stack.enter_context(worker(ends.home, address, host=space.address, before=space.inside))
        code, _, err = finished(transfer(ends, "--dicom", mode, cluster=address))
    assert code == 0, err
    assert is_whole(ends, mode)


def test_a_machine_that_drops_off_the_network_loses_and_doubles_nothing(
    spaces: list[Space], ends: Servers
) -> None:
    events = ends.home / "1.jsonl"
    with ExitStack() as stack:
        address = stack.enter_context(scheduler(ends.home, host=f"{NET}.1"))
        for space in spaces[:2]:
            stack.enter_context(worker(ends.home, address, host=space.address, before=space.inside))
        process = transfer(ends, "--dicom", "copy", cluster=address, events=events)
        until(lambda: "item_done" in (events.read_text() if events.exists() else ""))
        ip("-n", spaces[0].name, "link", "set", "eth0", "down")
        code, _, err = finished(process)
    assert code == 0, err
    assert "it is run again" in err
    assert is_whole(ends, "copy")


def test_a_machine_without_a_way_to_a_server_is_named(spaces: list[Space], ends: Servers) -> None:
    ip("-n", spaces[1].name, "route", "add", "unreachable", f"{spaces[2].address}/32")
    with ExitStack() as stack:
        address = stack.enter_context(scheduler(ends.home, host=f"{NET}.1"))
        for space in spaces[:2]:
            stack.enter_context(worker(ends.home, address, host=space.address, before=space.inside))
        until(lambda: _workers(address) == 2)
        code, _, err = finished(transfer(ends, cluster=address))
    assert code == 4, err
    assert "1 of 2 workers cannot work" in err
    assert f"({spaces[1].address}): " in err


def _workers(address: str) -> int:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        return len(client.scheduler_info()["workers"])
