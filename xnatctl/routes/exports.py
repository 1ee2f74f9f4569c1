"""A project into a bundle or a BIDS dataset on disk, and what such a folder says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import anyio.to_thread

from xnatctl.endpoints import nightly
from xnatctl.endpoints.archive import Remember
from xnatctl.endpoints.bids import BidsSink, Rules, find_twins
from xnatctl.endpoints.bundle import BundleSink, Origin, check_target, place_in_bundle
from xnatctl.endpoints.bundle_reader import BundleReader
from xnatctl.endpoints.manifest import Row, read_manifest
from xnatctl.endpoints.xnat_source import SHARED_IN, Archive, XnatSource
from xnatctl.engine.events import Event, UnitDone
from xnatctl.engine.state import Pair
from xnatctl.engine.types import Report, Rule, Selection
from xnatctl.errors import Vanished
from xnatctl.model import Ref
from xnatctl.xnat.client import Xnat

from .desk import Desk, fields_of, remembering, run


@dataclass(frozen=True, slots=True)
class Export:
    """Where a project is exported to, and in which form. `deletions` is meant for a mirror."""

    root: Path
    snapshot: bool = False
    deletions: nightly.Deletions = "report"
    bag: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """Where images go in the layout of BIDS, and how they are named."""

    root: Path
    rules: Rules
    deletions: nightly.Deletions = "report"


@dataclass(frozen=True, slots=True)
class Exported:
    """The run, the folder it filled, and what is only there any more, by path."""

    report: Report
    folder: Path
    finished: bool
    only_here: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportEnds:
    """Both ends of an export as plain data. `root` is the same folder for every process."""

    selection: Selection
    root: Path
    name: str
    origin: Origin
    whole: str
    payload: str = ""
    previous: Path | None = None

    def source(self, xnat: Archive) -> XnatSource:
        return XnatSource(
            xnat,
            target=self.selection.ref,
            name=self.name,
            beside=True,
            fields=fields_of(xnat),
            selection=self.selection,
        )

    def sink(self, remember: Remember) -> BundleSink:
        return BundleSink(
            self.root,
            origin=self.origin,
            name=self.whole,
            payload=self.payload,
            previous=self.previous,
            remember=remember,
        )


class _Seen:
    """An observer that keeps the keys of the units of a run."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, UnitDone) and event.outcome.became != "left":
            self.keys.add(event.outcome.key)


async def export(
    desk: Desk, source: Xnat, selection: Selection, *, into: Export | Dataset
) -> Exported:
    """A project, or what is selected of it, into a bundle or a BIDS dataset on disk that is kept
    up to date.

    A snapshot that is not whole keeps no name; the next run goes on with it.
    """
    if isinstance(into, Dataset):
        return await _export_bids(desk, source, selection, into)
    project = selection.ref.project
    name = f"{source.url}/{project}"
    work = into.root / nightly.UNFINISHED if into.snapshot else into.root
    if not desk.options.dry_run:
        form = f"{'snapshots' if into.snapshot else 'a mirror'}{' as a bag' if into.bag else ''}"
        await anyio.to_thread.run_sync(check_target, into.root, f"{form} of {name}")
    accept = desk.options.accept | {SHARED_IN}
    desk = replace(desk, options=replace(desk.options, accept=accept, overwrite=True))
    ends = ExportEnds(
        selection,
        work.absolute(),
        name,
        Origin(source.url, await source.version()),
        whole=f"file://{into.root.absolute()}",
        payload="data" if into.bag else "",
        previous=nightly.previous_snapshot(into.root) if into.snapshot else None,
    )
    here = ends.source(source)
    sink = ends.sink(remembering(desk.state, Pair(here.name, ends.whole)))
    seen = _Seen()
    desk.bus.add(seen)
    report = await run(desk, here, sink, selection, ends=ends)
    whole = not (report.interrupted or report.units_failed)
    if report.dry_run or not work.is_dir():
        return Exported(report, work, finished=False)
    moment = datetime.now()
    gone: list[Row] = []
    if into.snapshot and whole:
        await anyio.to_thread.run_sync(nightly.forget_all_but, sink.ledger, seen.keys)
    elif whole and not (selection.rules or selection.since):
        gone = await _only_here(here, sink, selection, seen.keys)
        if gone and not await source.transport.confirm_login():
            gone = []  # a guest's listings are shorter
        if gone and into.deletions != "report":
            await anyio.to_thread.run_sync(
                nightly.take_away, sink.ledger, gone, into.deletions, moment
            )
    bag = {
        "Source-Organization": source.url,
        "External-Identifier": project,
        "Bag-Software-Agent": "xnatctl",
    }
    await anyio.to_thread.run_sync(sink.ledger.write_lists, bag if into.bag else None)
    if into.snapshot and whole:
        work = await anyio.to_thread.run_sync(nightly.name_snapshot, into.root, moment)
    return Exported(report, work, finished=whole, only_here=tuple(row.path for row in gone))


async def _export_bids(desk: Desk, source: Xnat, selection: Selection, into: Dataset) -> Exported:
    """The images of a project's scans, named by rules."""
    name = f"{source.url}/{selection.ref.project}"
    is_dry = desk.options.dry_run
    if not is_dry:
        await anyio.to_thread.run_sync(check_target, into.root, f"a BIDS dataset of {name}")
    accept = desk.options.accept | {SHARED_IN}
    desk = replace(desk, options=replace(desk.options, accept=accept, overwrite=True))
    only = Rule("resource", into.rules.resources, level="scans")
    scans = replace(selection, rules=(*selection.rules, only), levels=frozenset({"scans"}))
    ends = XnatSource(source, target=selection.ref, name=name, metadata=False)
    twins = find_twins([unit async for unit in ends.units(scans)], into.rules)
    sink = BidsSink(into.root, into.rules, digests=desk.state, twins=twins)
    report = await run(desk, ends, sink, scans)
    whole = not (is_dry or report.interrupted or report.units_failed)
    gone: list[str] = []
    if not is_dry:
        await anyio.to_thread.run_sync(sink.describe_dataset, name)
    if whole and not (selection.rules or selection.since):
        gone = await sink.only_here()
        if gone and await source.transport.confirm_login():
            # Only what a second look misses too counts.
            async for unit in ends.units(scans):
                with suppress(Vanished):
                    if sink.may_hold(unit, gone):
                        sink.keep(await ends.describe(unit))
            gone = [path for path in await sink.only_here() if path in gone]
        else:
            gone = []
        if gone and into.deletions != "report":
            await anyio.to_thread.run_sync(
                nightly.remove_files, into.root, gone, into.deletions, datetime.now()
            )
    return Exported(report, into.root, finished=whole, only_here=tuple(gone))


def open_bundle(folder: Path) -> BundleReader:
    """An export as a source of `transfer`. Raises NotFound when it is none."""
    return BundleReader(folder)


async def listed_files(source: Xnat, project: str) -> AsyncIterator[tuple[str, int, str]]:
    """Path in an export, size and MD5 of every file that a project's own things have."""
    ends = XnatSource(source, target=Ref(project))
    async for light in ends.units(Selection(Ref(project))):
        with suppress(Vanished):
            unit = await ends.describe(light)
            for item in unit.items:
                if item.kind == "file":
                    yield place_in_bundle(unit, item.key), item.size or 0, item.digest


def verify_export(folder: Path) -> nightly.Checked:
    """Every file of an export read again and compared. Raises ConfigError without a manifest."""
    return nightly.check(folder)


def manifest_rows(path: Path) -> Iterator[Row]:
    """The rows of a manifest. Raises ConfigError with the line that is none."""
    return read_manifest(path)


async def _only_here(
    source: XnatSource, sink: BundleSink, selection: Selection, seen: AbstractSet[str]
) -> list[Row]:
    """Rows of what the source has no more. Only what a second look misses too counts."""
    again = {unit.key: unit async for unit in source.units(selection)}
    found: list[Row] = []
    for key in await anyio.to_thread.run_sync(sink.ledger.units):
        page = await anyio.to_thread.run_sync(sink.ledger.read, key)
        if key not in again and key not in seen:
            found += page.rows.values()
            continue
        lost = {path: row for path, row in page.rows.items() if row.only_here}
        if lost and key in again:
            with suppress(Vanished):
                unit = await source.describe(again[key])
                for item in unit.items:
                    lost.pop(sink.where(unit, item.key), None)
                found += lost.values()
    return found
