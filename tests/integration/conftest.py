"""Two sandboxes over real sockets, the first with data; and a run as a command would make it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from xnatctl import routes
from xnatctl.engine.events import Bus, Event, Observer
from xnatctl.engine.plan import OnConflict
from xnatctl.engine.runner import Options, Stop
from xnatctl.engine.state import StateStore
from xnatctl.engine.types import Report, Selection
from xnatctl.model import Dicom, Ref
from xnatctl.retry import Backoff, Waiting
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings
from xnatctl.transport import Credentials, Timeouts, Transport
from xnatctl.xnat.client import Xnat

QUICK = Backoff(attempts=4, base=0.01, cap=0.05)


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of sandboxes with data in them, made once; tests take copies."""
    return tmp_path_factory.mktemp("seeds")


async def seeded_root(seeds: Path, spec: str, root: Path) -> Path:
    """A folder for a sandbox that holds `spec`."""
    source = seeds / spec.replace(":", "_").replace("@", "_")
    if not source.exists():
        async with Sandbox(source, settings=QUICK_SANDBOX) as sandbox:
            seed(sandbox.store, spec)
    shutil.copytree(source, root)
    return root


QUICK_SANDBOX = Settings()


@dataclass
class Bench:
    """Two servers, the state store's place, and every event of every run."""

    here: Sandbox
    there: Sandbox
    folder: Path
    events: list[Event] = field(default_factory=list)
    watchers: list[Observer] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.folder / "here"

    @property
    def sink(self) -> Path:
        return self.folder / "there"

    async def transfer(
        self,
        project: str = "DEMO",
        *,
        dicom: Dicom = "copy",
        selection: Selection | None = None,
        stop: Stop | None = None,
        dry_run: bool = False,
        on_conflict: OnConflict = "merge",
        workers: int = 4,
        **more: Any,
    ) -> Report:
        """A run of `routes.transfer`, which gets `more`."""
        async with (
            self.desk(
                "transfer", stop=stop, dry_run=dry_run, on_conflict=on_conflict, workers=workers
            ) as desk,
            connect(self.here) as source,
            connect(self.there) as sink,
        ):
            return await routes.transfer(
                desk,
                source,
                sink,
                selection or Selection(Ref(project)),
                project=project,
                dicom=dicom,
                waiting=Waiting(poll=0.02, poll_most=0.1, build=10.0, archive=20.0),
                **more,
            )

    async def download(
        self, session: str, out: Path, *, project: str = "DEMO", overwrite: bool = False
    ) -> Report:
        ref = Ref(project, session=session)
        async with (
            self.desk("download", overwrite=overwrite) as desk,
            connect(self.here) as source,
        ):
            into = routes.Folder(out, lambda unit, key: f"{session}/{key}")
            return await routes.download(desk, source, Selection(ref), into=into)

    @asynccontextmanager
    async def desk(
        self,
        verb: str,
        *,
        stop: Stop | None = None,
        dry_run: bool = False,
        overwrite: bool = False,
        on_conflict: OnConflict = "merge",
        workers: int = 4,
    ) -> AsyncIterator[routes.Desk]:
        options = Options(
            verb,
            workers=workers,
            policy=QUICK,
            lag=0.05,
            dry_run=dry_run,
            overwrite=overwrite,
            on_conflict=on_conflict,
        )
        async with StateStore.open(self.folder / "state.db") as state:
            bus = Bus(self.events.append, *self.watchers)
            yield routes.Desk(state, bus, options, stop or Stop())


@asynccontextmanager
async def connect(sandbox: Sandbox) -> AsyncIterator[Xnat]:
    transport = Transport(
        sandbox.url,
        Credentials("admin", "admin"),
        timeouts=Timeouts(connect=2.0, stall=5.0, slow_stall=10.0),
        policy=QUICK,
    )
    async with transport:
        yield Xnat(transport)


@asynccontextmanager
async def bench_with(seeds: Path, folder: Path, spec: str) -> AsyncIterator[Bench]:
    root = await seeded_root(seeds, spec, folder / "here")
    async with (
        Sandbox(root, settings=QUICK_SANDBOX) as here,
        Sandbox(folder / "there", settings=QUICK_SANDBOX) as there,
    ):
        yield Bench(here, there, folder)


@pytest.fixture
async def demo(seeds: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_with(seeds, tmp_path, "demo") as bench:
        yield bench


@pytest.fixture
async def nasty(seeds: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_with(seeds, tmp_path, "nasty") as bench:
        yield bench
