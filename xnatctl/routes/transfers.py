"""A project into another server: both ends, and what belongs to a run as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from xnatctl.endpoints.archive import ArchiveSink, Remember
from xnatctl.endpoints.catalogue import SETTINGS
from xnatctl.endpoints.prearchive import PrearchiveSink
from xnatctl.endpoints.removal import Removal
from xnatctl.endpoints.routing import Routing
from xnatctl.endpoints.xnat_source import SHARED_IN, Archive, XnatSource
from xnatctl.engine.gone import Watch, find, share
from xnatctl.engine.ports import Sink
from xnatctl.engine.state import Pair
from xnatctl.engine.types import Report, Selection
from xnatctl.model import Dicom, Ref, SharedIn
from xnatctl.retry import Waiting
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.imports import Imports

from .arrivals import routed
from .deletions import Allowed, with_gone
from .desk import Desk, fields_of, remembering, run


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
            fields=fields_of(archive),
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
    remember = remembering(desk.state, pair)
    watch = Watch()
    desk.bus.add(watch)
    ends = replace(ends, holder=pair.id)
    async with routed(desk, pair, ends.routing(destination, remember)):
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
    if not (found and all(ours)):
        return report
    asked = deletions is not None and not desk.options.dry_run
    going = asked and deletions is not None and deletions(found, share(found, watch))
    removal = Removal(destination, ArchiveSink(destination, remember=remember)) if going else None
    return await with_gone(desk, pair, report, found, removal=removal, asked=asked)
