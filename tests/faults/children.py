"""Transfers as processes of their own, between two sandboxes in a thread of the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal

from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox


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
        self, *more: str, project: str = "DEMO", events: Path | None = None, crash: str = ""
    ) -> subprocess.Popen[str]:
        """Begin a transfer of `project` to a project of the same name."""
        command = [sys.executable, "-m", "xnatctl", "project", "transfer", "-P", project]
        command += ["--dest-url", self.there.url, "--dest-project", project, "--yes", "-o", "json"]
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


@contextmanager
def servers(folder: Path, spec: str = "demo", *, discard: bool = False) -> Iterator[Servers]:
    """Two sandboxes, the first with `spec`; with `discard` the second keeps sizes and digests
    only.
    """
    with start_blocking_portal() as portal:
        here, there = Sandbox(folder / "here"), Sandbox(folder / "there")
        with (
            portal.wrap_async_context_manager(here),
            portal.wrap_async_context_manager(there),
        ):
            portal.call(seed, here.store, spec)
            yield Servers(here, there, folder)


def records(events: Path) -> list[dict[str, Any]]:
    """The whole lines of an event file; a killed process may leave half a line."""
    if not events.exists():
        return []
    lines = events.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{")]
