"""Two worker processes for all tests of a module: starting them costs seconds, a run does not."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.conftest import QUICK, QUICK_SANDBOX, connect, seeded_root
from xnatctl import routes
from xnatctl.cli.cluster import Hands
from xnatctl.cluster.crew import Crew, open_crew, parse_spec
from xnatctl.cluster.wire import Timing
from xnatctl.config import Role, Server
from xnatctl.engine.events import Bus, Event, Observer
from xnatctl.engine.runner import Options, Stop
from xnatctl.engine.state import StateStore
from xnatctl.engine.types import Report, Selection
from xnatctl.model import Dicom, Ref
from xnatctl.retry import Waiting
from xnatctl.sandbox.server import Sandbox

TIMING = Timing(beat_s=0.1, lease_s=20.0, answer_s=5.0, flush_s=0.05, arrive_s=60.0, closing_s=10.0)


@dataclass
class Bench:
    """Two servers, a crew, the state store's place, and every event of every run."""

    here: Sandbox
    there: Sandbox
    folder: Path
    crew: Crew
    events: list[Event] = field(default_factory=list)
    watchers: list[Observer] = field(default_factory=list)

    async def transfer(
        self,
        *,
        dicom: Dicom = "copy",
        stop: Stop | None = None,
        workers: int = 8,
        timing: Timing = TIMING,
        servers: tuple[Server, Server] | None = None,
    ) -> Report:
        """A transfer by the crew; `servers` are what it is told, where that is not the truth."""
        options = Options("transfer", workers=workers, policy=QUICK, lag=0.05)
        async with (
            StateStore.open(self.folder / "state.db") as state,
            connect(self.here) as source,
            connect(self.there) as sink,
        ):
            told = servers or (server(self.here.url), server(self.there.url, "destination"))
            hands = Hands(replace(self.crew, timing=timing, slots=workers), told)
            bus = Bus(self.events.append, *self.watchers)
            return await routes.transfer(
                routes.Desk(state, bus, options, stop or Stop(), hands=hands),
                source,
                sink,
                Selection(Ref("DEMO")),
                project="DEMO",
                dicom=dicom,
                waiting=Waiting(poll=0.02, poll_most=0.1, build=10.0, archive=20.0),
            )


def server(url: str, role: Role = "source") -> Server:
    """A server as flags and variables without a profile make it."""
    return Server("default" if role == "source" else "destination", url, role)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of the workers, without any profile."""
    return tmp_path_factory.mktemp("home")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crew(home: Path) -> AsyncIterator[Crew]:
    environ = dict.fromkeys(("XNAT_USER", "XNAT_DEST_USER"), "admin")
    environ |= dict.fromkeys(("XNAT_PASS", "XNAT_DEST_PASS"), "admin")
    environ |= {"HOME": str(home), "PATH": os.environ["PATH"]}
    spec = parse_spec("local:2")
    async with open_crew(spec, slots=8, environ=environ, timing=TIMING) as opened:
        yield opened


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seeds")


@asynccontextmanager
async def bench_with(crew: Crew, seeds: Path, folder: Path) -> AsyncIterator[Bench]:
    """Servers of a test's own, the first with data."""
    await seeded_root(seeds, "demo", folder / "here")
    async with (
        Sandbox(folder / "here", settings=QUICK_SANDBOX) as here,
        Sandbox(folder / "there", settings=QUICK_SANDBOX) as there,
    ):
        yield Bench(here, there, folder, crew)


@pytest_asyncio.fixture(loop_scope="module")
async def bench(crew: Crew, seeds: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_with(crew, seeds, tmp_path) as made:
        yield made
