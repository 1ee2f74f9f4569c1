"""The table of verbs: which source, which sink, and how they are put together. A new verb is a row
here.

    verb               source               sink
    session download   XnatSource           LocalSink: D/LABEL/scans/…, or ZipSink: scans.zip
    subject download   XnatSource           LocalSink: D/SUBJECT/LABEL/scans/…
    resource download  XnatSource           ZipSink: F.zip, or LocalSink: D/…
    project transfer   XnatSource           ArchiveSink (copy), PrearchiveSink in front of it
    (import)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from xnatctl.endpoints.archive import ArchiveSink
from xnatctl.endpoints.local import LocalSink, Place
from xnatctl.endpoints.prearchive import PrearchiveSink
from xnatctl.endpoints.xnat_source import SHARED_IN, XnatSource
from xnatctl.endpoints.zipped import ZipSink
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


@dataclass(frozen=True, slots=True)
class Folder:
    """A tree of files below `root`: where each body goes, and whether the disk is read again."""

    root: Path
    place: Place
    reread: bool = False


@dataclass(frozen=True, slots=True)
class Zip:
    """One archive with these member names."""

    path: Path
    place: Place
    reread: bool = False


async def download(
    desk: Desk, source: Xnat, selection: Selection, *, into: Folder | Zip, own: bool = False
) -> Report:
    """Files of a session, a subject or one resource; what is there already and equal is kept.

    `own`: a subject's own resources too.
    """
    ends = XnatSource(source, target=selection.ref, name=source.url, metadata=False, own=own)
    if isinstance(into, Folder):
        tree = LocalSink(into.root, place=into.place, digests=desk.state, reread=into.reread)
        return await run(desk, ends, tree, selection)
    archive = ZipSink(
        into.path,
        place=into.place,
        digests=desk.state,
        overwrite=desk.options.overwrite,
        reread=into.reread,
    )
    # An archive grows at one place: bodies that waited for it would time out at the server.
    alone = replace(desk, options=replace(desk.options, workers=1))
    return await run(alone, ends, archive, selection)


def _remember(
    state: StateStore, pair: Pair
) -> Callable[[str, Mapping[str, str | None]], Awaitable[None]]:
    async def remember(unit: str, facts: Mapping[str, str | None]) -> None:
        await state.remember(pair, unit, facts)

    return remember
