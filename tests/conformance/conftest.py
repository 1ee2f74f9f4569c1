"""Where the clients are installed, and how a group of their steps is run against sandboxes.

The clients live in environments of their own, since their packages (and in one case the name) would
collide with ours: `make clients` makes them. `XNATCTL_CLIENTS_PYTHON` and `XNATCTL_06` name other
interpreters. A client that is not installed is skipped, or fails where
`XNATCTL_CONFORMANCE=required` says that it must be there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.dicoms import study
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings
from xnatctl.sandbox.store import Store

ROOT = Path(__file__).parents[2]
DRIVERS = Path(__file__).parent / "drivers"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A client: its driver, its package, and where it is installed."""

    driver: str
    package: str
    variable: str
    environment: str

    @property
    def python(self) -> Path:
        """The interpreter that has it."""
        given = os.environ.get(self.variable)
        return Path(given) if given else ROOT / self.environment / "bin" / "python"

    @property
    def name(self) -> str:
        """What the test is called: the package with its version."""
        return f"{self.package}-{_version(self.python, self.package) or 'absent'}"


@cache
def _version(python: Path, package: str) -> str:
    if not python.exists():
        return ""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd="/")
    return done.stdout.strip()


XNATPY = Foreign("drive_xnatpy", "xnat", "XNATCTL_CLIENTS_PYTHON", ".venv-clients")
PYXNAT = Foreign("drive_pyxnat", "pyxnat", "XNATCTL_CLIENTS_PYTHON", ".venv-clients")
XNATCTL06 = Foreign("drive_xnatctl06", "xnatctl", "XNATCTL_06", ".venv-xnat06")

Steps = Callable[..., Coroutine[Any, Any, list[str]]]


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sandbox with the seed `demo`, to be copied."""
    root = tmp_path_factory.mktemp("planted") / "root"
    store = Store(root, site_id="SANDBOX")
    seed(store, "demo")
    store.close()
    return root


@dataclass(slots=True)
class Bench:
    """Two sandboxes: `full` with the seed `demo`, `bare` with nothing; and the clients' folder."""

    full: Sandbox
    bare: Sandbox
    folder: Path

    async def run(self, client: Foreign, group: str) -> list[str]:
        """The steps of a group that worked; AssertionError with the client's words if one did not.

        Skips the test where the client is not installed.
        """
        if client.name.endswith("-absent"):
            why = f"{client.package} is not installed for {client.python}; run `make clients`"
            if os.environ.get("XNATCTL_CONFORMANCE") == "required":
                pytest.fail(why)
            pytest.skip(why)
        both = group in ("transfer", "compare")
        urls = [self.full.url, self.bare.url] if both else [self.full.url]
        process = await asyncio.create_subprocess_exec(
            client.python, DRIVERS / "run.py", client.driver, group, self.folder, *urls,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8",
                 "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, f"{client.name} {group}:\n{said[-6000:]}"
        return [line[3:] for line in said.splitlines() if line.startswith("ok ")]


@pytest.fixture
async def bench(planted: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    """Two sandboxes, and a folder with a study and some files to send.

    The bare one archives what has been idle for a moment: a transfer by xnatctl 0.6 waits for it.
    """
    shutil.copytree(planted, tmp_path / "full")
    folder = tmp_path / "client"
    (folder / "files" / "sub").mkdir(parents=True)
    (folder / "files" / "a.txt").write_text("a\n", encoding="utf-8")
    (folder / "files" / "sub" / "b.txt").write_text("b\n", encoding="utf-8")
    (folder / "study.zip").write_bytes(study(4))
    quick = Settings(idle_build_s=0.2, sweep_s=0.05)
    async with AsyncExitStack() as stack:
        full = await stack.enter_async_context(Sandbox(tmp_path / "full"))
        bare = await stack.enter_async_context(Sandbox(tmp_path / "bare", settings=quick))
        yield Bench(full, bare, folder)
