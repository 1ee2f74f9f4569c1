"""Every implementation of the ports, set up over the same few files.

A rig knows how to look at its end and how to change it behind its back: on disk or in the server's
own store, never through the code that is tested.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from xnatctl.endpoints.archive import ArchiveSink
from xnatctl.endpoints.bundle import BundleSink, Origin
from xnatctl.endpoints.bundle_reader import BundleReader
from xnatctl.endpoints.catalogue import container_key
from xnatctl.endpoints.entries import Entries
from xnatctl.endpoints.local import LocalSink
from xnatctl.endpoints.prearchive import PrearchiveSink
from xnatctl.endpoints.upload import Intent, UploadSink
from xnatctl.endpoints.xnat_source import XnatSource
from xnatctl.engine.memory import MemorySink, MemorySource, md5
from xnatctl.engine.ports import Sink, Source
from xnatctl.engine.types import Container, Item, Member, Selection, Unit
from xnatctl.model import Ref
from xnatctl.retry import Backoff, Waiting
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.store import Item as StoredItem
from xnatctl.sandbox.store import Store
from xnatctl.transport import Credentials, Timeouts, Transport
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.imports import Imports

Box = str
"""The label of a resource."""

Tree = dict[str, dict[tuple[Box, str], bytes]]
"""Session -> (resource, path) -> body."""

BIG = bytes(range(256)) * 1200
ODD_NAMES = (
    "with blank.txt",
    "ünïcödé-日本語.txt",
    "hash#mark;semi+plus,comma.txt",
    "percent%20sign 100%.txt",
    "quo'te & amp.txt",
    "deep/er/files/resources/x.txt",
    ".hidden",
)

TREE: Tree = {
    "S1": {
        ("NOTES", "a.txt"): b"the first\n",
        ("NOTES", "sub/b.txt"): b"the second\n",
        ("NOTES", "empty.txt"): b"",
        ("BIG", "body.bin"): BIG,
        **{("ODD", name): f"this is {name}".encode() for name in ODD_NAMES},
    },
    "S2": {("NOTES", "a.txt"): b"the first of the second\n"},
}


@dataclass(frozen=True, slots=True)
class SourceRig:
    """A source over `TREE`, and the means to change what it reads."""

    source: Source
    empty: Source
    """A source whose root is missing."""
    root: Selection
    key_of: Callable[[Box, str], str]
    unit_of: Callable[[str], str]
    write: Callable[[str, Box, str, bytes], None]
    remove: Callable[[str], None]

    async def unit(self, session: str) -> Unit:
        """The unit of a session in full."""
        async for unit in self.source.units(self.root):
            if unit.key == self.unit_of(session):
                return await self.source.describe(unit)
        raise LookupError(session)


@dataclass(frozen=True, slots=True)
class SinkRig:
    """A sink with nothing in it, and the means to look behind its back."""

    sink: Sink
    target: Ref
    key_of: Callable[[Box, str], str]
    stored: Callable[[], dict[tuple[Box, str], bytes]]
    tamper: Callable[[Box, str, bytes], None]

    def unit(self, files: Mapping[tuple[Box, str], bytes]) -> Unit:
        """A session with these files, as a source would describe it."""
        boxes = dict.fromkeys(box for box, _ in files)
        return Unit(
            key="U1",
            kind="session",
            ref=self.target,
            target=self.target,
            label="U1",
            containers=tuple(
                Container(self.lane(box), replace(self.target, resource=box)) for box in boxes
            ),
            items=tuple(self.item(box, name, body) for (box, name), body in files.items()),
        )

    def lane(self, box: Box) -> str:
        return self.key_of(box, "x").rpartition("/files/")[0]

    def item(self, box: Box, name: str, body: bytes) -> Item:
        return Item(
            key=self.key_of(box, name),
            kind="file",
            lane=self.lane(box),
            ref=replace(self.target, resource=box),
            path=name,
            size=len(body),
            digest=md5(body),
        )

    def archive(self, box: Box, files: Mapping[str, bytes]) -> Item:
        """The item that carries several files of one resource."""
        members = (
            Member(self.key_of(box, name), name, len(body), md5(body))
            for name, body in files.items()
        )
        return Item(
            key=self.lane(box),
            kind="zip",
            lane=self.lane(box),
            ref=replace(self.target, resource=box),
            members=tuple(members),
        )


# --- memory ----------------------------------------------------------------------------------


def memory_key(box: Box, name: str) -> str:
    return f"{box}/files/{name}"


@asynccontextmanager
async def memory_source(folder: Path) -> AsyncIterator[SourceRig]:
    files = {
        f"{session}/{box}/{name}": body
        for session, tree in TREE.items()
        for (box, name), body in tree.items()
    }

    def write(session: str, box: Box, name: str, body: bytes) -> None:
        files[f"{session}/{box}/{name}"] = body

    def remove(session: str) -> None:
        for path in [path for path in files if path.startswith(f"{session}/")]:
            del files[path]

    yield SourceRig(
        source=MemorySource(files),
        empty=MemorySource({}),
        root=Selection(Ref("P")),
        key_of=memory_key,
        unit_of=str,
        write=write,
        remove=remove,
    )


@asynccontextmanager
async def memory_sink(folder: Path) -> AsyncIterator[SinkRig]:
    sink = MemorySink()

    def stored() -> dict[tuple[Box, str], bytes]:
        found = {}
        for path, body in sink.files.items():
            box, _, name = path.partition("/")[2].partition("/files/")
            found[box, name] = body
        return found

    def tamper(box: Box, name: str, body: bytes) -> None:
        sink.files[f"U1/{memory_key(box, name)}"] = body

    yield SinkRig(sink, Ref("P", session="U1"), memory_key, stored, tamper)


# --- folders ---------------------------------------------------------------------------------


def session_key(box: Box, name: str) -> str:
    """The key of a file of a session's own resource."""
    return f"{container_key((None, None, None), box)}/files/{name}"


@asynccontextmanager
async def bundle_source(folder: Path) -> AsyncIterator[SourceRig]:
    """An export as its reader finds it: documents, files, and a page of rows for each session."""
    root = folder / "in"
    subject = root / "subjects" / "SUBJ"

    def document(place: Path, kind: str, ident: str) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(
            f'<xnat:{kind} xmlns:xnat="http://nrg.wustl.edu/xnat" ID="{ident}" label="{ident}"/>'
        )

    def write(session: str, box: Box, name: str, body: bytes) -> None:
        path = subject / "sessions" / session / session_key(box, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        rows = [
            {
                "path": one.relative_to(root).as_posix(),
                "size": one.stat().st_size,
                "md5": md5(one.read_bytes()),
                "sha256": "",
            }
            for one in (subject / "sessions" / session / "resources").rglob("*")
            if one.is_file()
        ]
        page = root / ".xnatctl/units/subjects/SUBJ/sessions" / f"{session}.jsonl"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("".join(f"{json.dumps(row)}\n" for row in [{"state": "x"}, *rows]))

    def remove(session: str) -> None:
        (subject / "sessions" / session).rename(folder / f"removed-{session}")

    document(root / "project.xml", "Project", "P")
    document(subject / "subject.xml", "Subject", "SUBJ")
    for session, tree in TREE.items():
        document(subject / "sessions" / session / "session.xml", "MRSession", session)
        for (box, name), body in tree.items():
            write(session, box, name, body)
    source = XnatSource(BundleReader(root), target=Ref("P"))
    yield SourceRig(
        source=source,
        empty=source,
        root=Selection(Ref("P")),
        key_of=session_key,
        unit_of=lambda session: f"subjects/SUBJ/sessions/{session}",
        write=write,
        remove=remove,
    )


@asynccontextmanager
async def local_sink(folder: Path) -> AsyncIterator[SinkRig]:
    yield _folder_rig(LocalSink(folder / "out"), folder / "out")


@asynccontextmanager
async def bundle_sink(folder: Path) -> AsyncIterator[SinkRig]:
    sink = BundleSink(folder / "out", origin=Origin("https://a.example"))
    yield _folder_rig(sink, folder / "out")


def _folder_rig(sink: Sink, root: Path) -> SinkRig:
    def stored() -> dict[tuple[Box, str], bytes]:
        found = {}
        for path in root.rglob("*"):
            if path.is_file():
                key = path.relative_to(root / "U1").as_posix()
                box, _, name = key.removeprefix("resources/").partition("/files/")
                found[box, name] = path.read_bytes()
        return found

    def tamper(box: Box, name: str, body: bytes) -> None:
        (root / "U1" / session_key(box, name)).write_bytes(body)

    return SinkRig(sink, Ref("P", session="U1"), session_key, stored, tamper)


# --- XNAT ------------------------------------------------------------------------------------

QUICK = Backoff(attempts=3, base=0.01, cap=0.02)


@asynccontextmanager
async def connected(sandbox: Sandbox) -> AsyncIterator[Xnat]:
    """A client of a sandbox that gives up soon."""
    transport = Transport(
        sandbox.url,
        Credentials("admin", "admin"),
        name="sandbox",
        timeouts=Timeouts(connect=2.0, stall=5.0, slow_stall=5.0),
        policy=QUICK,
    )
    async with transport:
        yield Xnat(transport)


def store_file(store: Store, session: StoredItem, box: Box, name: str, body: bytes) -> None:
    """Put a file into the server's own store, or another one in its place."""
    boxes = {one.label: one for one in store.resources(session)}
    resource = boxes.get(box) or store.create_resource(session, box)
    store.add_file(resource, name, body)
    store.refresh_stats(resource)


def stored_files(store: Store, item: StoredItem) -> dict[tuple[Box, str], bytes]:
    """What the server has of a session's own resources, from its disk."""
    return {
        (resource.label, file.path): store.file_path(resource, file).read_bytes()
        for resource in store.resources(item)
        for file in store.files(resource)
    }


@asynccontextmanager
async def xnat_source(folder: Path) -> AsyncIterator[SourceRig]:
    async with Sandbox(folder / "source") as sandbox, connected(sandbox) as xnat:
        store = sandbox.store
        subject = store.create_subject(store.create_project("P"), "SUBJ")
        sessions = {label: store.create_experiment(subject, label) for label in TREE}

        def write(session: str, box: Box, name: str, body: bytes) -> None:
            store_file(store, sessions[session], box, name, body)

        def remove(session: str) -> None:
            store.delete(sessions[session], remove_files=True)

        for session, tree in TREE.items():
            for (box, name), body in tree.items():
                write(session, box, name, body)
        yield SourceRig(
            source=XnatSource(xnat, target=Ref("P")),
            empty=XnatSource(xnat, target=Ref("P")),
            root=Selection(Ref("P")),
            key_of=session_key,
            unit_of=lambda session: f"subjects/SUBJ/sessions/{session}",
            write=write,
            remove=remove,
        )


async def _forget(unit: str, facts: Mapping[str, str | None]) -> None:
    """A memory that keeps nothing."""


@asynccontextmanager
async def archive_sink(folder: Path) -> AsyncIterator[SinkRig]:
    async with Sandbox(folder / "sink") as sandbox, connected(sandbox) as xnat:
        yield _archive_rig(sandbox, ArchiveSink(xnat, remember=_forget))


@asynccontextmanager
async def prearchive_sink(folder: Path) -> AsyncIterator[SinkRig]:
    """What is no DICOM goes through this sink too."""
    async with Sandbox(folder / "sink") as sandbox, connected(sandbox) as xnat:
        archive = ArchiveSink(xnat, remember=_forget)
        waiting = Waiting(poll=0.01, poll_most=0.05, build=5.0, archive=5.0)
        sink = PrearchiveSink(archive, Imports(xnat), remember=_forget, waiting=waiting)
        yield _archive_rig(sandbox, sink)


@asynccontextmanager
async def upload_sink(folder: Path) -> AsyncIterator[SinkRig]:
    """The files of an exam's resources go through this sink beside its DICOM."""
    async with Sandbox(folder / "sink") as sandbox, connected(sandbox) as xnat:
        archive = ArchiveSink(xnat, remember=_forget)
        sink = UploadSink(archive, xnat, Entries(xnat), remember=_forget, intent=Intent())
        yield _archive_rig(sandbox, sink)


def _archive_rig(sandbox: Sandbox, sink: Sink) -> SinkRig:
    store = sandbox.store
    session = store.create_experiment(store.create_subject(store.create_project("P"), "SUBJ"), "U1")

    def tamper(box: Box, name: str, body: bytes) -> None:
        store_file(store, session, box, name, body)

    return SinkRig(
        sink=sink,
        target=Ref("P", "SUBJ", "U1"),
        key_of=session_key,
        stored=lambda: stored_files(store, session),
        tamper=tamper,
    )


SOURCES: dict[str, Callable[[Path], AbstractAsyncContextManager[SourceRig]]] = {
    "memory": memory_source,
    "bundle": bundle_source,
    "xnat": xnat_source,
}
SINKS: dict[str, Callable[[Path], AbstractAsyncContextManager[SinkRig]]] = {
    "memory": memory_sink,
    "local": local_sink,
    "bundle": bundle_sink,
    "archive": archive_sink,
    "prearchive": prearchive_sink,
    "upload": upload_sink,
}


async def chunks_of(body: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    """A body in pieces."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


def files_in(inventory: Iterable[str]) -> set[str]:
    """The keys of files; an inventory may name containers and documents too."""
    return {key for key in inventory if "/files/" in key}
