"""The table of verbs: which source, which sink, and how they are put together. A new verb is a row
here.

    verb               source               sink
    session download   XnatSource           LocalSink: D/LABEL/scans/…
    project transfer   XnatSource           ArchiveSink (copy), PrearchiveSink in front of it
    (import)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from xnatctl.endpoints.archive import ArchiveSink
from xnatctl.endpoints.local import LocalSink
from xnatctl.endpoints.prearchive import PrearchiveSink
from xnatctl.endpoints.xnat_source import SHARED_IN, XnatSource
from xnatctl.engine.events import Bus
from xnatctl.engine.ports import Sink, Source
from xnatctl.engine.runner import Options, Run, Stop
from xnatctl.engine.state import Pair, StateStore, locked
from xnatctl.engine.types import Report, Selection
from xnatctl.model import Dicom, Ref, SharedIn
from xnatctl.retry import Waiting
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.imports import Imports


@dataclass(frozen=True, slots=True)
class Desk:
    """What every run needs beside its ends: state, observers, a way to stop, and how to behave."""

    state: StateStore
    bus: Bus
    options: Options
    stop: Stop


async def run(desk: Desk, source: Source, sink: Sink, selection: Selection) -> Report:
    """One run over one pair of ends, alone on it: the lock dies with this process."""
    work = Run(source, sink, options=desk.options, state=desk.state, bus=desk.bus, stop=desk.stop)
    if desk.options.dry_run:
        return await work(selection)
    with locked(desk.state.path.parent / "locks", work.pair):
        return await work(selection)


async def transfer(
    desk: Desk,
    source: Xnat,
    destination: Xnat,
    selection: Selection,
    *,
    project: str,
    dicom: Dicom = "import",
    shared_in: SharedIn = "skip",
    settings: bool = False,
    users: bool = False,
    relabel: Mapping[str, str] | None = None,
    provenance: Mapping[str, str] | None = None,
    waiting: Waiting | None = None,
) -> Report:
    """A project, or what is selected of it, into `project` of another server.

    What other projects share into it is theirs; that it stays behind is no fault.
    """
    desk = replace(desk, options=replace(desk.options, accept=desk.options.accept | {SHARED_IN}))
    ends = XnatSource(
        source,
        target=Ref(project),
        name=f"{source.url}/{selection.ref.project}",
        shared_in=shared_in,
        relabel=relabel,
        provenance=provenance,
        users=users,
    )
    name = f"{destination.url}/{project}"
    remember = _remember(desk.state, Pair(ends.name, name))
    archive = ArchiveSink(destination, name=name, remember=remember, settings=settings)
    sink: Sink = archive
    if dicom == "import":
        sink = PrearchiveSink(archive, Imports(destination), remember=remember, waiting=waiting)
    return await run(desk, ends, sink, selection)


async def download(
    desk: Desk,
    source: Xnat,
    selection: Selection,
    *,
    out: Path,
    folder: str,
    reread: bool = False,
) -> Report:
    """One session into `out/folder/scans/…`; what is there already and equal is kept."""
    ends = XnatSource(source, target=selection.ref, name=source.url, metadata=False)
    sink = LocalSink(out, folder=lambda unit: folder, digests=desk.state, reread=reread)
    return await run(desk, ends, sink, selection)


def _remember(
    state: StateStore, pair: Pair
) -> Callable[[str, Mapping[str, str | None]], Awaitable[None]]:
    async def remember(unit: str, facts: Mapping[str, str | None]) -> None:
        await state.remember(pair, unit, facts)

    return remember
