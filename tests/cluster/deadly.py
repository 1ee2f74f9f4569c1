"""A unit that kills every worker process that takes it in hand."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from xnatctl.cluster.coordinator import Coordinator
from xnatctl.cluster.crew import Crew
from xnatctl.cluster.wire import Ends, MakeSink
from xnatctl.endpoints.xnat_source import XnatSource
from xnatctl.engine.pace import Pace
from xnatctl.engine.ports import Source
from xnatctl.engine.types import Unit

DEADLY = "DEMO_001_MR1"


@dataclass(frozen=True, slots=True)
class DeadlyEnds:
    """Ends whose source kills the process that describes the unit of this label."""

    ends: Ends

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Source, MakeSink]]:
        async with self.ends.open() as (source, make):
            assert isinstance(source, XnatSource)
            describe = source.describe

            async def deadly(unit: Unit) -> Unit:
                if unit.label == DEADLY:
                    os.kill(os.getpid(), signal.SIGKILL)
                return await describe(unit)

            vars(source)["describe"] = deadly
            yield source, make


class DeadlyCrew(Crew):
    """A crew that is given such ends."""

    def dispatcher(self, ends: Ends, pace: Pace | None = None) -> Coordinator:
        return Crew.dispatcher(self, DeadlyEnds(ends), pace)
