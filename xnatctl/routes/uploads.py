"""Files of this machine into a server, or to a DICOM receiver."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from xnatctl.endpoints.archive import ArchiveSink
from xnatctl.endpoints.dicom_folder import EXPLAINED, DicomSource, Exam
from xnatctl.endpoints.entries import Entries
from xnatctl.endpoints.folder import AddingSink, FolderSource
from xnatctl.endpoints.store_scu import Peer, StoreSink
from xnatctl.endpoints.upload import Intent, UploadSink
from xnatctl.engine.state import Pair
from xnatctl.engine.types import Report, Selection
from xnatctl.errors import NotFound, PermissionDenied
from xnatctl.model import Ref
from xnatctl.retry import Waiting
from xnatctl.xnat.client import Xnat

from .desk import Desk, remembering, run


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
        remember = remembering(desk.state, Pair(source.name, name))
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
    remember = remembering(desk.state, Pair(source.name, name))
    kind = AddingSink if skip_existing else ArchiveSink
    sink = kind(destination, name=name, remember=remember)
    options = replace(desk.options, accept=desk.options.accept | {"exists", "junk"})
    return await run(replace(desk, options=options), source, sink, Selection(target))
