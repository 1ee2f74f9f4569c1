"""Files of a server onto this machine, and archives unpacked there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from xnatctl.endpoints.local import LocalSink, Place
from xnatctl.endpoints.unpack import ZipSource
from xnatctl.endpoints.xnat_source import XnatSource
from xnatctl.endpoints.zipped import ZipSink
from xnatctl.engine.events import Event, UnitDone
from xnatctl.engine.types import Report, Selection, Unit
from xnatctl.model import Ref
from xnatctl.xnat.client import Xnat

from .desk import Desk, run


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


async def extract(
    desk: Desk, folder: Path, *, deep: bool, cleanup: bool
) -> tuple[Report, list[str]]:
    """The archives of a folder unpacked beside them, and the names of those that were removed."""
    ends = ZipSource(folder, deep=deep)

    def beside(unit: Unit, key: str) -> str:
        place = Path(unit.key).parent.as_posix()
        return key if place == "." else f"{place}/{key}"

    done: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, UnitDone) and event.outcome.became in ("copied", "kept"):
            done.extend([] if event.outcome.left else [event.outcome.key])

    desk.bus.add(watch)
    sink = LocalSink(folder, place=beside, digests=desk.state)
    report = await run(desk, ends, sink, Selection(Ref(str(folder))))
    if not cleanup or report.dry_run:
        return report, []
    for name in done:
        (folder / name).unlink()
    return report, sorted(done)
