"""Scanner exports to upload, and what a sandbox has of them, asked of its disk by pydicom."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pydicom

from xnatctl import routes
from xnatctl.endpoints.dicom_folder import Exam
from xnatctl.endpoints.upload import Intent
from xnatctl.engine.events import Bus, Event
from xnatctl.engine.runner import Options, Stop
from xnatctl.engine.state import StateStore
from xnatctl.model import Ref
from xnatctl.retry import Backoff, Waiting
from xnatctl.sandbox.phantom import Series, Study, genuine, series_files
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings
from xnatctl.transport import Credentials, Timeouts, Transport
from xnatctl.xnat.client import Xnat

STUDY = Study("EXPORT", "P001", "Doe^Jane")
QUICK = Backoff(attempts=3, base=0.01, cap=0.05)

# Names under which scanners and archives hand out valid DICOM.
NAMES = (
    "IM0001.dcm",
    "IM0002.ima",
    "IM0003.img",
    "IM0004.dicom",
    "1.2.840.113619.2.5.1762583153",
    "x.MR",
    "slice.0001",
    "IM0008",
)


def series(number: int = 3, *, study: Study = STUDY, slices: int = 4) -> Series:
    return Series(study, str(number), number, slices=slices, columns=16, rows=16)


def write_series(folder: Path, which: Series) -> list[Path]:
    """A folder with one file a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, body in series_files(which):
        (folder / name).write_bytes(body)
        paths.append(folder / name)
    return paths


def write_export(folder: Path) -> Path:
    """Two series as a scanner writes them."""
    write_series(folder / "t1", series(3))
    write_series(folder / "t2", series(5, slices=3))
    return folder


def write_names(folder: Path) -> Path:
    """One series whose eight files have eight kinds of names."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = [body for _, body in series_files(series(3, slices=len(NAMES)))]
    for name, body in zip(NAMES, bodies, strict=True):
        (folder / name).write_bytes(body)
    return folder


def odd_syntaxes(folder: Path) -> Path:
    """Genuine objects: big endian, implicit, compressed."""
    folder.mkdir(parents=True)
    names = ("MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm")
    for number, name in enumerate(names, 1):
        (folder / name).write_bytes(genuine(name, STUDY, "7", 7, number))
    return folder


def uids_on_disk(folder: Path) -> set[str]:
    """The SOP Instance UIDs of what pydicom can read below a folder."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() and b"DICM" in path.read_bytes()[:132]:
            found.add(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID))
    return found


def uids_in_archive(root: Path, project: str, session: str) -> list[str]:
    """Those of an archived session, doubles included."""
    folder = root / "archive" / project / "arc001" / session / "SCANS"
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(
        str(pydicom.dcmread(one, stop_before_pixels=True).SOPInstanceUID) for one in paths
    )


def entries_in(root: Path) -> dict[str, list[str]]:
    """The SOP Instance UIDs that wait in the prearchive, by session folder."""
    found: dict[str, list[str]] = {}
    for path in (root / "prearchive").rglob("*"):
        if path.is_file():
            parts = path.relative_to(root / "prearchive").parts
            header = pydicom.dcmread(io.BytesIO(path.read_bytes()), stop_before_pixels=True)
            found.setdefault("/".join(parts[:3]), []).append(str(header.SOPInstanceUID))
    return {name: sorted(uids) for name, uids in found.items()}


@dataclass
class Desk:
    """One server, the state store's place, and every event of every upload."""

    sandbox: Sandbox
    root: Path
    state: Path
    events: list[Event] = field(default_factory=list)

    async def upload(
        self,
        path: Path,
        *,
        label: str = "E1",
        subject: str = "S1",
        project: str = "P",
        intent: Intent | None = None,
        exam: Exam | None = None,
        study: str = "",
        lenient: bool = False,
        login: str = "admin",
        **how: Any,
    ) -> routes.Uploaded:
        target = Ref(project, subject, label)
        dicoms = routes.Dicoms(path, study=study, lenient=lenient, exam=exam)
        waiting = Waiting(poll=0.02, poll_most=0.1, build=5.0, archive=10.0)
        async with self.desk("upload", **how) as desk, connect(self.sandbox, login) as xnat:
            return await routes.upload(
                desk, dicoms, xnat, target, intent=intent or Intent(), waiting=waiting
            )

    async def upload_resource(self, path: Path, target: Ref, **how: Any) -> Any:
        made, skip = how.pop("made", {}), how.pop("skip_existing", False)
        async with self.desk("resource upload", **how) as desk, connect(self.sandbox) as xnat:
            return await routes.upload_resource(
                desk, path, xnat, target, made=made, skip_existing=skip
            )

    @asynccontextmanager
    async def desk(self, verb: str, **how: Any) -> AsyncIterator[routes.Desk]:
        options = replace(Options(verb, policy=QUICK), **how)
        async with StateStore.open(self.state) as state:
            yield routes.Desk(state, Bus(self.events.append), options, Stop())


@asynccontextmanager
async def connect(sandbox: Sandbox, login: str = "admin") -> AsyncIterator[Xnat]:
    """A client whose password is its login."""
    transport = Transport(
        sandbox.url,
        Credentials(login, login),
        timeouts=Timeouts(connect=2.0, stall=5.0, slow_stall=10.0),
        policy=QUICK,
    )
    async with transport:
        yield Xnat(transport)


@asynccontextmanager
async def receiving(folder: Path, **settings: Any) -> AsyncIterator[Desk]:
    """A sandbox with a project that is empty and archives nothing by itself."""
    async with Sandbox(folder / "server", settings=Settings(**settings)) as sandbox:
        sandbox.store.create_project("P")
        yield Desk(sandbox, folder / "server", folder / "state.db")
