"""DICOM on this machine as a source: recognised by content, sorted by study and series.

1. Every file below the path is opened and judged by what is in it (`dicom.head`), never by its
   name. What is no DICOM gets a code and a reason; nothing is passed over in silence.
2. Codes in `EXPLAINED` are of files that plainly hold no image: litter of operating systems,
   indexes, texts, pictures. Any other (cut off, unreadable, an archive, a `.dcm` that is none)
   refuses the whole upload before a byte is sent, unless the caller is lenient.
3. Objects are sorted by study, then by series. One upload is one session, so two studies are
   refused by name unless one is chosen.
4. Two files with one SOP Instance UID are one object if they are equal, else a clash.
5. Each series is one item: an archive whose members are named by their SOP Instance UIDs.

With `Exam` the files that are no DICOM belong to the session too: a top folder without any DICOM
becomes a resource of the session, and stray files go to one that is named for them.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Set
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio.to_thread

from xnatctl.dicom.head import Head, Unfit, read_head
from xnatctl.engine.ports import Chunks
from xnatctl.engine.types import Container, Item, Left, Member, Selection, Unit
from xnatctl.errors import NotFound, Refused
from xnatctl.model import Ref
from xnatctl.xnat.parse import digest_of

from .bodies import START, Body, Unread, find, hashed, is_litter, opened
from .catalogue import container_key

EXPLAINED = frozenset({"junk", "dicomdir", "other-file", "empty", "duplicate"})
"""Codes of files that are left out without a doubt; any other needs the caller's word."""

_SIDE = frozenset({"other-file", "empty", "archive", "not-dicom", "dicomdir"})
"""Codes of files that are whole, if no images: an exam carries them into resources."""

_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
_MAGIC = (
    (b"%PDF", "other-file", "a PDF document"),
    (b"\xff\xd8\xff", "other-file", "a JPEG picture"),
    (b"\x89PNG", "other-file", "a PNG picture"),
    (b"GIF8", "other-file", "a GIF picture"),
    (b"II*\0", "other-file", "a TIFF picture"),
    (b"MM\0*", "other-file", "a TIFF picture"),
    (b"BM", "other-file", "a bitmap picture"),
    (b"\x7fELF", "other-file", "a program"),
    (b"MZ", "other-file", "a program"),
    (b"PK\x03\x04", "archive", "an archive, which is not opened inside a folder or an archive"),
    (b"\x1f\x8b", "archive", "compressed, and not opened inside a folder or an archive"),
    (b"7z\xbc\xaf", "archive", "an archive, which is not opened inside a folder or an archive"),
    (b"Rar!", "archive", "an archive, which is not opened inside a folder or an archive"),
)
_UNUSUAL = re.compile(r"[^A-Za-z0-9_.-]")
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Object:
    """One DICOM object and where it lies."""

    body: Body
    head: Head


@dataclass(frozen=True, slots=True)
class Exam:
    """Side files go along: `misc` is the resource for stray ones. Parts may be left out."""

    misc: str = "MISC"
    dicom: bool = True
    resources: bool = True


@dataclass(slots=True)
class Survey:
    """What was found: objects by study and series, other files, and what cannot be sent."""

    studies: dict[str, dict[str, list[Object]]] = field(default_factory=dict)
    others: list[Body] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def doubtful(self, explained: Set[str]) -> list[Left]:
        return [one for one in self.left if one.code not in explained]


def survey(path: Path, kept: ExitStack) -> Survey:
    """Judge every file of a path. Blocking; reads the head of each file."""
    found = Survey()
    known: dict[str, Object] = {}
    for one in find(path, kept):
        if isinstance(one, Unread):
            found.left.append(Left(one.name, one.code, one.reason))
            continue
        head = _judged(found, one)
        if head is None:
            continue
        if head.uid in known:
            found.left.append(_second(known[head.uid], one))
            continue
        known[head.uid] = Object(one, head)
        series = found.studies.setdefault(head.study, {})
        series.setdefault(head.series, []).append(known[head.uid])
    return found


def _judged(found: Survey, body: Body) -> Head | None:
    """The head of a DICOM object; None for another file, which is noted."""
    try:
        with body.open() as file:
            try:
                return read_head(file, body.size)
            except Unfit as unfit:
                file.seek(0)
                code, reason = _explained(body.name, unfit, file.read(START))
    except (OSError, ValueError, RuntimeError) as error:
        code, reason = "unreadable", f"it cannot be read: {error}"
    found.left.append(Left(body.name, code, reason))
    if code in _SIDE:
        found.others.append(body)
    return None


def _explained(name: str, unfit: Unfit, start: bytes) -> tuple[str, str]:
    """The code and the reason of a file that is no whole DICOM object."""
    last = name.rpartition("/")[2]
    if is_litter(name):
        return "junk", "it is litter of an operating system"
    if unfit.code not in ("not-dicom", "empty"):
        return unfit.code, unfit.reason
    if last.lower().endswith(_DICOM_SUFFIXES):
        return "false-dicom", f"it is called DICOM, and {unfit.reason}"
    if unfit.code == "empty":
        return unfit.code, unfit.reason
    if last.lower().endswith(".nii.gz") or start[344:348] in (b"n+1\0", b"ni1\0"):
        return "other-file", "it is a NIfTI volume"
    for magic, code, words in _MAGIC:
        if start.startswith(magic):
            return code, f"it is {words}"
    if start[257:262] == b"ustar":
        return "archive", "it is an archive, which is not opened inside a folder or an archive"
    if _is_text(start):
        return "other-file", "it is a text"
    return unfit.code, unfit.reason


def _is_text(start: bytes) -> bool:
    try:
        # A character may be cut in two at the end of what was read.
        text = start.decode("utf-8", "strict" if len(start) < START else "ignore")
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\r\n\t\f" for char in text)


def _second(first: Object, body: Body) -> Left:
    if body.size == first.body.size and hashed(body) == hashed(first.body):
        return Left(body.name, "duplicate", f"it is the same object as {first.body.name}")
    reason = f"it has the SOP Instance UID of {first.body.name} and other content"
    return Left(body.name, "clash", reason)


class DicomSource:
    """One session out of a path. `kept` holds archives open for as long as the source is used.

    `study` chooses one of several, `every` makes a unit of each. With `lenient`, files that cannot
    be explained are left out.
    """

    def __init__(
        self,
        path: Path,
        kept: ExitStack,
        *,
        target: Ref,
        study: str = "",
        lenient: bool = False,
        exam: Exam | None = None,
        every: bool = False,
    ) -> None:
        self.name = f"file://{path.absolute()}"
        self._path = path
        self._kept = kept
        self._target = target
        self._study = study
        self._lenient = lenient
        self._exam = exam
        self._every = every
        self._bodies: dict[str, Body] = {}
        self.found = Survey()

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        """The session. Raises NotFound and Refused, before anything is sent, for what is none."""
        self.found = await anyio.to_thread.run_sync(survey, self._path, self._kept)
        self._check()
        if self._every and not self._study:
            for uid in self.found.studies:
                yield Unit(uid, "session", self._target, self._target, uid, facts={"uid": uid})
            return
        label = self._target.session or ""
        facts = {"uid": study} if (study := self._chosen()) else {}
        yield Unit(label, "session", self._target, self._target, label=label, facts=facts)

    def _check(self) -> None:
        found, exam = self.found, self._exam
        if not (found.studies or found.left):
            raise NotFound(f"there is no file in {self._path}")
        explained = EXPLAINED | _SIDE if exam is not None else EXPLAINED
        if not self._lenient and (doubtful := found.doubtful(explained)):
            raise Refused(
                f"{len(doubtful)} files in {self._path} cannot be sent",
                why=_listed(f"{one.key}: {one.reason}" for one in doubtful),
                hint="look at them; --ignore-unparsable leaves them out",
            )
        if exam is not None and not exam.dicom:
            return
        if not found.studies:
            first = found.left[0]
            raise Refused(f"there is no DICOM in {self._path}", why=f"{first.key}: {first.reason}")
        if self._study and self._study not in found.studies:
            raise NotFound(
                f"there is no study {self._study} in {self._path}", why=_listed(found.studies)
            )
        if len(found.studies) > 1 and not (self._study or self._every):
            raise Refused(
                f"{self._path} holds {len(found.studies)} studies, which are as many sessions",
                why=_listed(_study_words(uid, study) for uid, study in found.studies.items()),
                hint="upload them one by one, each under its own label, with --study UID",
            )

    def _chosen(self) -> str:
        if self._exam is not None and not self._exam.dicom:
            return ""
        return self._study or next(iter(self.found.studies))

    async def describe(self, unit: Unit) -> Unit:
        items = list(self._series(unit))
        containers: dict[str, Container] = {}
        left = list(self.found.left)
        if self._exam is not None and self._exam.resources:
            files = [one async for one in self._side_files(unit, containers)]
            sent = {self._bodies[one.key].name for one in files}
            left = [one for one in left if one.key not in sent]
            items += files
        for uid, study in self.found.studies.items():
            if uid != unit.facts.get("uid") and not self._every:
                left.append(Left(uid, "other-study", _study_words(uid, study)))
        stamps = sorted(f"{key}\t{body.stamp}" for key, body in self._bodies.items())
        return replace(
            unit,
            items=tuple(items),
            containers=tuple(containers.values()),
            left=tuple(left),
            fingerprint=digest_of(*stamps),
        )

    def _series(self, unit: Unit) -> Iterator[Item]:
        """An item for each series, in the order of their numbers."""
        study = self.found.studies.get(unit.facts.get("uid", ""), {})
        order = sorted(study, key=lambda uid: (_number(study[uid][0].head.number), uid))
        for series in order:
            objects = study[series]
            scan = objects[0].head.number or "0"
            for one in objects:
                self._bodies[one.head.uid] = one.body
            yield Item(
                key=f"scans/{scan}/{series}",
                kind="import",
                lane="import",
                ref=unit.ref.at("scans", scan),
                members=tuple(
                    Member(one.head.uid, f"{one.head.uid}.dcm", one.body.size, "")
                    for one in objects
                ),
                uid=series,
                stage=0,
            )

    async def _side_files(
        self, unit: Unit, containers: dict[str, Container]
    ) -> AsyncIterator[Item]:
        """Files that are no DICOM, each in the resource that its top folder names."""
        assert self._exam is not None
        mixed = {
            one.body.name.partition("/")[0]
            for study in self.found.studies.values()
            for series in study.values()
            for one in series
        }
        for body in self.found.others:
            top, slash, rest = body.name.partition("/")
            is_own = slash and top not in mixed
            label = _UNUSUAL.sub("_", top) if is_own else self._exam.misc
            path = rest if is_own else body.name
            lane = container_key((None, None, None), label)
            containers[lane] = Container(lane, replace(unit.ref, resource=label))
            key = f"{lane}/files/{path}"
            self._bodies[key] = body
            yield Item(
                key=key,
                kind="file",
                lane=lane,
                ref=containers[lane].ref,
                path=path,
                size=body.size,
                digest=await anyio.to_thread.run_sync(hashed, body),
            )

    def open(self, unit: Unit, item: Item) -> AbstractAsyncContextManager[Chunks]:
        return opened(item, self._bodies)

    def member_path(self, item: Item, name: str) -> str:
        return name


def _study_words(uid: str, study: dict[str, list[Object]]) -> str:
    count = sum(len(series) for series in study.values())
    first = next(iter(study.values()))[0]
    return f"{uid} ({len(study)} series, {count} objects, such as {first.body.name})"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")


def _listed(words: Iterable[str]) -> str:
    every = list(words)
    more = f"; and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return "; ".join(every[:SHOWN]) + more
