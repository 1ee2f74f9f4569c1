"""The table of verbs: which source, which sink, and how they are put together. A new verb is a row
here.

    verb               source               sink
    session download   XnatSource           LocalSink: D/LABEL/scans/…, or ZipSink: scans.zip
    subject download   XnatSource           LocalSink: D/SUBJECT/LABEL/scans/…
    resource download  XnatSource           ZipSink: F.zip, or LocalSink: D/…
    project export     XnatSource           BundleSink
      --bids           XnatSource           BidsSink
    project import     XnatSource over a    as project transfer
                       BundleReader
    local extract      ZipSource            LocalSink: beside the archive
    session upload     DicomSource          UploadSink in front of an ArchiveSink
    session            DicomSource          StoreSink: a DICOM receiver
    upload-dicom
    resource upload    FolderSource         ArchiveSink
    project transfer   XnatSource           ArchiveSink (copy), PrearchiveSink in front of it
    (import)
    bench download     XnatSource, again    DiscardSink
    bench upload       MadeUp, again        ArchiveSink
    bench transfer     XnatSource, again    ArchiveSink
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

import anyio.to_thread

from xnatctl.endpoints import nightly
from xnatctl.endpoints.archive import ArchiveSink, Remember
from xnatctl.endpoints.bench import Bodies as Bodies
from xnatctl.endpoints.bench import DiscardSink as DiscardSink
from xnatctl.endpoints.bench import MadeUp as MadeUp
from xnatctl.endpoints.bench import Repeated as Repeated
from xnatctl.endpoints.bids import BidsSink, find_twins
from xnatctl.endpoints.bids import Rules as Rules
from xnatctl.endpoints.bundle import BundleSink, Origin, check_target, place_in_bundle
from xnatctl.endpoints.bundle_reader import BundleReader
from xnatctl.endpoints.catalogue import SETTINGS
from xnatctl.endpoints.dicom_folder import EXPLAINED, DicomSource
from xnatctl.endpoints.dicom_folder import Exam as Exam
from xnatctl.endpoints.entries import Entries as Entries
from xnatctl.endpoints.entries import Slot as Slot
from xnatctl.endpoints.folder import AddingSink, FolderSource
from xnatctl.endpoints.local import LocalSink, Place
from xnatctl.endpoints.manifest import Row, read_manifest
from xnatctl.endpoints.prearchive import PrearchiveSink
from xnatctl.endpoints.removal import Removal
from xnatctl.endpoints.routing import FACT, Routing
from xnatctl.endpoints.store_scu import Peer as Peer
from xnatctl.endpoints.store_scu import StoreSink
from xnatctl.endpoints.unpack import ZipSource
from xnatctl.endpoints.upload import Intent as Intent
from xnatctl.endpoints.upload import UploadSink
from xnatctl.endpoints.xnat_source import SHARED_IN, Archive, XnatSource
from xnatctl.endpoints.zipped import ZipSink
from xnatctl.engine.events import Bus, Event, Note, UnitDone
from xnatctl.engine.gone import Gone, Watch, find, share
from xnatctl.engine.limits import Gate, Limits
from xnatctl.engine.pace import Pace, Paced
from xnatctl.engine.ports import Dispatcher, Sink, Source
from xnatctl.engine.report import summary
from xnatctl.engine.runner import Options, Run, Stop, status_of
from xnatctl.engine.state import Pair, StateStore, locked
from xnatctl.engine.types import Left, Report, Rule, Selection, Unit
from xnatctl.errors import Locked, NotFound, PermissionDenied, Vanished, XnatctlError, words
from xnatctl.model import Dicom, Ref, SharedIn
from xnatctl.retry import Waiting
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.fields import Fields
from xnatctl.xnat.imports import Imports


@dataclass(frozen=True, slots=True)
class Desk:
    """What every run needs beside its ends: state, observers, a way to stop, and how to behave."""

    state: StateStore
    bus: Bus
    options: Options
    stop: Stop
    pace: Pace | None = None
    hands: Hands | None = None


class Hands(Protocol):
    """Other processes that units can be given to."""

    def dispatcher(self, ends: TransferEnds | ExportEnds, pace: Pace | None) -> Dispatcher:
        """One for the run between these ends, which each of the processes makes for itself."""
        ...


async def run(
    desk: Desk,
    source: Source,
    sink: Sink,
    selection: Selection,
    *,
    ends: TransferEnds | ExportEnds | None = None,
    limits: Limits | None = None,
) -> Report:
    """One run over one pair of ends, alone on it: the lock dies with this process.

    With `ends` its units may be run by the desk's other hands. A plan is always made here.
    """
    if desk.pace is not None:
        source = Paced(
            source,
            desk.pace,
            say=lambda text: desk.bus.emit(Note(text)),
            stopped=desk.stop.asked,
        )
    away = desk.hands if ends and not desk.options.dry_run else None
    work = Run(
        source,
        sink,
        options=desk.options,
        state=desk.state,
        bus=desk.bus,
        limits=limits,
        dispatcher=away.dispatcher(ends, desk.pace) if away and ends else None,
        stop=desk.stop,
    )
    if desk.options.dry_run:
        return await work(selection)
    with locked(desk.state.path.parent / "locks", work.pair):
        return await work(selection)


@dataclass(frozen=True, slots=True)
class TransferEnds:
    """Both ends of a transfer as plain data, out of which any process makes the same ones."""

    selection: Selection
    project: str
    dicom: Dicom = "import"
    shared_in: SharedIn = "skip"
    settings: bool = False
    users: bool = False
    relabel: Mapping[str, str] | None = None
    provenance: Mapping[str, str] | None = None
    waiting: Waiting | None = None
    holder: str = ""

    def source(self, archive: Archive) -> XnatSource:
        return XnatSource(
            archive,
            target=Ref(self.project),
            name=f"{archive.url}/{self.selection.ref.project}",
            shared_in=self.shared_in,
            relabel=self.relabel,
            provenance=self.provenance,
            users=self.users,
            fields=_fields(archive),
            selection=self.selection,
        )

    def sink(self, destination: Xnat, remember: Remember) -> Sink:
        name = f"{destination.url}/{self.project}"
        archive = ArchiveSink(destination, name=name, remember=remember, settings=self.settings)
        if self.dicom == "copy":
            return archive
        return PrearchiveSink(
            archive,
            Imports(destination),
            remember=remember,
            waiting=self.waiting,
            routing=self.routing(destination, remember),
        )

    def routing(self, destination: Xnat, remember: Remember) -> Routing:
        return Routing(
            destination,
            self.project,
            holder=self.holder,
            remember=lambda facts: remember(SETTINGS, facts),
        )


async def transfer(
    desk: Desk,
    source: Archive,
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
    deletions: Allowed | None = None,
) -> Report:
    """A project, or what is selected of it, into `project` of another server.

    What other projects share into it is theirs; that it stays behind is no fault. What the source
    has no more of what earlier runs brought is named at the end, and deleted if `deletions` allows.
    """
    desk = replace(desk, options=replace(desk.options, accept=desk.options.accept | {SHARED_IN}))
    ends = TransferEnds(
        selection,
        project,
        dicom=dicom,
        shared_in=shared_in,
        settings=settings,
        users=users,
        relabel=relabel,
        provenance=provenance,
        waiting=waiting,
    )
    here = ends.source(source)
    pair = Pair(here.name, f"{destination.url}/{project}")
    remember = _remember(desk.state, pair)
    watch = Watch()
    desk.bus.add(watch)
    ends = replace(ends, holder=pair.id)
    async with _routed(desk, pair, ends.routing(destination, remember)):
        report = await run(desk, here, ends.sink(destination, remember), selection, ends=ends)
    broken = [one for one in report.problems if one.error_kind != "conflict"]
    narrowed = selection.rules or selection.since or selection.ref != Ref(selection.ref.project)
    if not isinstance(source, Xnat) or narrowed or broken:
        return report
    if report.interrupted or desk.options.plan is not None:
        return report
    found = await find(
        ends.source(source),
        ends.sink(destination, remember),
        state=desk.state,
        pair=pair,
        run_id=report.run_id,
        selection=selection,
        target=Ref(project),
        watch=watch,
    )
    # A guest's listings are shorter, and a login can end between two requests.
    ours = [await one.transport.confirm_login() for one in (source, destination) if found]
    if not all(ours):
        return report
    archive = ArchiveSink(destination, remember=remember)
    rows: list[Left] = []
    if found and not desk.options.dry_run and deletions and deletions(found, share(found, watch)):
        with locked(desk.state.path.parent / "locks", pair):
            rows = [await _delete(desk, pair, Removal(destination, archive), one) for one in found]
    rows = rows or [Left(str(one), "stays", one.why_not) for one in found]
    asked = deletions is not None and not desk.options.dry_run
    failed = asked and any(one.code == "stays" for one in rows)
    report = replace(report, gone=tuple(rows), exit_code=report.exit_code or int(failed))
    if rows and not desk.options.dry_run:
        await desk.state.end_run(report.run_id, status_of(report), summary(report))
    return report


@asynccontextmanager
async def _routed(desk: Desk, pair: Pair, routing: Routing) -> AsyncIterator[None]:
    """What a run changes in the project's routing is put back, now or by the next run."""
    if desk.options.dry_run:
        yield
        return
    locks = desk.state.locks
    with locked(locks, pair), suppress(PermissionDenied):
        known = await desk.state.known(pair, SETTINGS)
        mine = known is not None and FACT in known.facts
        if code := await routing.release(only_expired=not mine):
            desk.bus.emit(
                Note(f"an earlier run had left the prearchive manual; it is {code} again")
            )
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(20.0, shield=True):
            try:
                with locked(locks, pair):
                    known = await desk.state.known(pair, SETTINGS)
                    if known is not None and FACT in known.facts:
                        await routing.release()
            except Locked:
                pass  # another run between these ends goes on, and puts it back at its own end
            except XnatctlError as error:
                hint = "xnatctl prearchive settings --restore puts it back"
                text = f"the prearchive of the project is still manual: {words(error)}; {hint}"
                desk.bus.emit(Note(text, level="warning"))


def routing_by_hand(xnat: Xnat, project: str) -> Routing:
    """What becomes of arrivals in a project, for whoever sets it by hand."""
    return Routing(xnat, project, holder="")


Allowed = Callable[[Sequence[Gone], float], bool]
"""Whether all this may be deleted, which is such a part of the project."""


async def _delete(desk: Desk, pair: Pair, removal: Removal, gone: Gone) -> Left:
    if gone.why_not:
        return Left(str(gone), "stays", gone.why_not)
    try:
        await removal.take_away(gone)
    except XnatctlError as error:
        return Left(str(gone), "stays", words(error))
    keys = [key for key in gone.unit.extra if key == gone.key or key.startswith(f"{gone.key}/")]
    await desk.state.forget(pair, gone.unit.key, keys if gone.key else None)
    if "shares/" in gone.key:
        fact = {f"share:{gone.key.removeprefix('shares/')}": None}
        await desk.state.remember(pair, gone.unit.key, fact)
    if gone.key.startswith("assessors/"):
        fact = {f"assessor:{gone.key.split('/')[1]}": None}
        await desk.state.remember(pair, gone.unit.key, fact)
    desk.bus.emit(Note(f"deleted at the destination: {gone}"))
    return Left(str(gone), "deleted", "")


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
            fields=_fields(xnat),
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
    sink = ends.sink(_remember(desk.state, Pair(here.name, ends.whole)))
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


@dataclass(frozen=True, slots=True)
class Dicoms:
    """What is uploaded as one session: a path, one study of several, side files as well.

    `lenient` leaves out files that nobody can explain instead of refusing.
    """

    path: Path
    study: str = ""
    lenient: bool = False
    exam: Exam | None = None


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The end of an upload: where the session is now, and what went over the wire in this run."""

    report: Report
    uri: str
    files_sent: int
    bytes_sent: int


async def upload(
    desk: Desk,
    dicoms: Dicoms,
    destination: Xnat,
    target: Ref,
    *,
    intent: Intent,
    waiting: Waiting | None = None,
) -> Uploaded:
    """Files of this machine as one session. Raises NotFound, PermissionDenied before all else."""
    await check_editable(destination, target.project)
    # What was left out is named; what nobody can explain was refused or allowed by then.
    left = {"exists", "other-study"} | EXPLAINED
    options = replace(
        desk.options,
        fail_on_left=not dicoms.lenient and dicoms.exam is None,
        accept=desk.options.accept | left,
    )
    with ExitStack() as kept:
        source = DicomSource(
            dicoms.path,
            kept,
            target=target,
            study=dicoms.study,
            lenient=dicoms.lenient,
            exam=dicoms.exam,
        )
        name = f"{destination.url}/{target.project}"
        remember = _remember(desk.state, Pair(source.name, name))
        archive = ArchiveSink(destination, name=name, remember=remember)
        sink = UploadSink(
            archive,
            destination,
            Entries(destination, waiting=waiting),
            remember=remember,
            intent=intent,
        )
        report = await run(replace(desk, options=options), source, sink, Selection(target))
    return Uploaded(report, sink.uri, sink.sent_files, sink.sent_bytes)


async def store(desk: Desk, dicoms: Dicoms, peer: Peer, *, lines: int = 4) -> Report:
    """Files of this machine to a DICOM receiver, each study of them, over so many associations."""
    options = replace(
        desk.options,
        fail_on_left=not dicoms.lenient,
        accept=desk.options.accept | EXPLAINED,
    )
    target = Ref(peer.called)
    with ExitStack() as kept:
        source = DicomSource(
            dicoms.path,
            kept,
            target=target,
            study=dicoms.study,
            lenient=dicoms.lenient,
            every=True,
        )
        async with StoreSink(peer, lines=lines) as sink:
            return await run(replace(desk, options=options), source, sink, Selection(target))


async def check_editable(xnat: Xnat, project: str) -> None:
    """Raises NotFound, or PermissionDenied: XNAT itself answers 200 to both and stores nothing."""
    if await xnat.find_project(project) is None:
        raise NotFound(f"no project {project} at {xnat.name}", hint="see `xnatctl project list`")
    if project not in {one.id for one in await xnat.list_projects(editable=True)}:
        raise PermissionDenied(
            f"you may not write into project {project} at {xnat.name}",
            hint="ask an owner of the project to make you a member",
        )


async def upload_resource(
    desk: Desk,
    path: Path,
    destination: Xnat,
    target: Ref,
    *,
    made: dict[str, str],
    skip_existing: bool = False,
) -> Report:
    """A folder or a file into the resource that `target` names."""
    await check_editable(destination, target.project)
    source = FolderSource(path, target=target, digests=desk.state, made=made)
    name = f"{destination.url}/{target}"
    remember = _remember(desk.state, Pair(source.name, name))
    kind = AddingSink if skip_existing else ArchiveSink
    sink = kind(destination, name=name, remember=remember)
    options = replace(desk.options, accept=desk.options.accept | {"exists", "junk"})
    return await run(replace(desk, options=options), source, sink, Selection(target))


def archive_source(xnat: Xnat, project: str) -> XnatSource:
    """The files of a project, for `bench`: no documents, nothing of subjects."""
    return XnatSource(xnat, target=Ref(project), metadata=False)


def archive_sink(desk: Desk, source: Source, xnat: Xnat, project: str) -> ArchiveSink:
    """Resources of a project, for `bench`."""
    name = f"{xnat.url}/{project}"
    return ArchiveSink(xnat, name=name, remember=_remember(desk.state, Pair(source.name, name)))


async def bench(desk: Desk, source: Source, sink: Sink, *, at_once: int) -> Report:
    """A run with exactly so many at once, which ends when the source or the desk says so."""
    desk = replace(desk, options=replace(desk.options, workers=at_once))
    gates = (Gate(name, most=at_once, fixed=True) for name in ("source", "sink"))
    return await run(desk, source, sink, Selection(Ref("bench")), limits=Limits(*gates))


def _fields(archive: Archive) -> Fields | BundleReader | None:
    """What knows the custom fields of an archive."""
    if isinstance(archive, BundleReader):
        return archive
    return Fields(archive) if isinstance(archive, Xnat) else None


def _remember(state: StateStore, pair: Pair) -> Remember:
    async def remember(unit: str, facts: Mapping[str, str | None]) -> None:
        await state.remember(pair, unit, facts)

    return remember
