"""Transfers as processes of their own, between two sandboxes in a thread of the test."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal

from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings
from xnatctl.sandbox.store import Store


@dataclass(frozen=True)
class Servers:
    """The sandboxes, and the folder that is home to the processes."""

    here: Sandbox
    there: Sandbox
    home: Path

    @property
    def state(self) -> Path:
        return self.home / ".local/state/xnatctl/state.db"

    def start(
        self,
        *more: str,
        project: str = "DEMO",
        became: str = "",
        events: Path | None = None,
        crash: str = "",
    ) -> subprocess.Popen[str]:
        """Begin a transfer of `project`, which is called `became` at the destination."""
        command = [sys.executable, "-m", "xnatctl", "project", "transfer", "-P", project]
        command += ["--dest-url", self.there.url, "--dest-project", became or project]
        command += ["--yes", "-o", "json"]
        command += ["--events", str(events)] if events else []
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XNAT_URL": self.here.url,
            "XNAT_USER": "admin",
            "XNAT_PASS": "admin",
            "XNAT_DEST_USER": "admin",
            "XNAT_DEST_PASS": "admin",
        }
        if crash:
            environ["XNATCTL_CRASH_AT"] = crash
        return subprocess.Popen(
            [*command, *more],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def demo(store: Store) -> None:
    seed(store, "demo")


@cache
def filled(fill: Callable[[Store], None]) -> Path:
    """A server's folder with data in it, made once a process; tests take copies."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with start_blocking_portal() as portal:
        sandbox = Sandbox(folder)
        with portal.wrap_async_context_manager(sandbox):
            portal.call(fill, sandbox.store)
    return folder


@contextmanager
def servers(
    folder: Path, fill: Callable[[Store], None] = demo, *, settings: Settings | None = None
) -> Iterator[Servers]:
    """Two sandboxes, the first filled, the second with `settings`."""
    shutil.copytree(filled(fill), folder / "here")
    with start_blocking_portal() as portal:
        here, there = Sandbox(folder / "here"), Sandbox(folder / "there", settings=settings)
        with (
            portal.wrap_async_context_manager(here),
            portal.wrap_async_context_manager(there),
        ):
            yield Servers(here, there, folder)


def records(events: Path) -> list[dict[str, Any]]:
    """The whole lines of an event file; a killed process may leave half a line."""
    if not events.exists():
        return []
    lines = events.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{")]


Sent = set[tuple[str, str]]


def started(events: Path) -> Sent:
    """Bodies that a run began to send, by unit and key; documents are written again each time."""
    return {
        (one["unit"], one["item"])
        for one in records(events)
        if one["event"] == "item_started" and one["kind"] != "document"
    }


def in_flight(events: Path) -> Sent:
    """What a run had begun and not been told to be finished.

    An import counts when its session is archived: until then all of it is in flight.
    """
    told = records(events)
    return started(events) - {
        (one["unit"], one["item"]) for one in told if one["event"] == "item_done"
    }


def uploads(ends: Servers) -> int:
    """Bodies that the destination took, as it counts them itself."""
    counts = ends.there.counters
    return counts.count("PUT", "files", 200) + counts.count("POST", "services/import", 200)
