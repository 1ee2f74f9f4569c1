"""Ends for `bench`, and a run with exactly so many at once."""

from __future__ import annotations

from dataclasses import replace

from xnatctl.endpoints.archive import ArchiveSink
from xnatctl.endpoints.xnat_source import XnatSource
from xnatctl.engine.limits import Gate, Limits
from xnatctl.engine.ports import Sink, Source
from xnatctl.engine.state import Pair
from xnatctl.engine.types import Report, Selection
from xnatctl.model import Ref
from xnatctl.xnat.client import Xnat

from .desk import Desk, remembering, run


def archive_source(xnat: Xnat, project: str) -> XnatSource:
    """The files of a project, for `bench`: no documents, nothing of subjects."""
    return XnatSource(xnat, target=Ref(project), metadata=False)


def archive_sink(desk: Desk, source: Source, xnat: Xnat, project: str) -> ArchiveSink:
    """Resources of a project, for `bench`."""
    name = f"{xnat.url}/{project}"
    return ArchiveSink(xnat, name=name, remember=remembering(desk.state, Pair(source.name, name)))


async def bench(desk: Desk, source: Source, sink: Sink, *, at_once: int) -> Report:
    """A run with exactly so many at once, which ends when the source or the desk says so."""
    desk = replace(desk, options=replace(desk.options, workers=at_once))
    gates = (Gate(name, most=at_once, fixed=True) for name in ("source", "sink"))
    return await run(desk, source, sink, Selection(Ref("bench")), limits=Limits(*gates))
