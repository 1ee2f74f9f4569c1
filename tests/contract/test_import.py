"""DICOM by import: a session arrives as a whole, or nothing of it is left anywhere."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import pytest

from tests.contract.rigs import chunks_of, connected
from xnatctl.endpoints.archive import ArchiveSink
from xnatctl.endpoints.prearchive import PrearchiveSink
from xnatctl.engine.copy import proven_members
from xnatctl.engine.memory import MemorySource, md5
from xnatctl.engine.plan import decide
from xnatctl.engine.ports import Chunks
from xnatctl.engine.types import Container, Item, Unit, Verdict
from xnatctl.engine.verify import compare
from xnatctl.errors import Conflict, Corrupt, Replan, Unreachable, XnatctlError
from xnatctl.model import Ref
from xnatctl.retry import Waiting
from xnatctl.sandbox.phantom import Series, Study, series_files
from xnatctl.sandbox.server import Sandbox
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.imports import Imports

STUDY = Study("MR1", "SUBJ", "Doe^Jane")
Scans = Mapping[str, Mapping[str, bytes]]


def series(scan: str, *, study: Study = STUDY, slices: int = 3) -> dict[str, bytes]:
    """The objects of one small scan, by file name."""
    made = Series(study, scan, int(scan), columns=8, rows=8, slices=slices)
    return dict(series_files(made))


SCANS = {"1": series("1"), "2": series("2", slices=4)}


class _Flat(MemorySource):
    def member_path(self, item: Item, name: str) -> str:
        return name


@dataclass
class Bench:
    """A sink in front of an empty server, what it remembers, and what lies on the server."""

    sandbox: Sandbox
    xnat: Xnat
    folder: Path
    facts: dict[str, str] = field(default_factory=dict)

    def sink(self) -> PrearchiveSink:
        archive = ArchiveSink(self.xnat, remember=self._remember)
        waiting = Waiting(poll=0.01, poll_most=0.05, build=5.0, archive=5.0)
        return PrearchiveSink(archive, Imports(self.xnat), remember=self._remember, waiting=waiting)

    async def _remember(self, unit: str, facts: Mapping[str, str | None]) -> None:
        for name, value in facts.items():
            self.facts.pop(name, None)
            if value is not None:
                self.facts[name] = value

    def unit(self, scans: Scans = SCANS) -> Unit:
        """The session as a source would describe it, with what is remembered of it."""
        ref = Ref("P", "SUBJ", "MR1")
        facts = {"uid": STUDY.uid, "xsi_type": "xnat:mrSessionData", **self.facts}
        containers, items = [], []
        for scan, files in scans.items():
            lane = f"scans/{scan}/resources/DICOM"
            here = ref.at("scans", scan).in_resource("DICOM")
            facts[f"series:{scan}"] = Series(STUDY, scan, int(scan)).uid
            containers.append(Container(lane, here, format="DICOM", content="RAW"))
            for name, body in files.items():
                key = f"{lane}/files/{name}"
                items.append(Item(key, "file", lane, here, name, len(body), md5(body)))
        return Unit(
            "S", "session", ref, ref, "MR1", containers=tuple(containers), items=tuple(items),
            facts=facts,
        )  # fmt: skip

    async def prepared(self, sink: PrearchiveSink, scans: Scans = SCANS) -> Unit:
        unit = self.unit(scans)
        inventory = await sink.inventory(unit)
        return decide(sink.prepare(unit, inventory), inventory, known={}, overwrite=False)

    async def send(self, sink: PrearchiveSink, unit: Unit, scans: Scans = SCANS) -> None:
        """Begin, every scan, and the seal of the import."""
        await sink.begin(unit)
        for item in unit.to_move:
            await self.put(sink, unit, item, chunks_of(archive_of(scans[item.ref.item or ""])))
        await sink.seal(unit, 0)

    async def put(self, sink: PrearchiveSink, unit: Unit, item: Item, chunks: Chunks) -> None:
        events = proven_members(_Flat({}), item, chunks, lambda count: None)
        await sink.put_many(unit, item, events)

    @property
    def waiting(self) -> list[str]:
        """Files in the prearchive."""
        root = self.folder / "sandbox" / "prearchive"
        return [path.name for path in root.rglob("*.dcm")]

    async def until(self, count: int) -> None:
        """Wait until the server has seen so many objects of what broke off."""
        with anyio.fail_after(5):
            while len(self.waiting) < count:  # noqa: ASYNC110 - the server tells nobody
                await anyio.sleep(0.005)

    @property
    def archived(self) -> list[str]:
        root = self.folder / "sandbox" / "archive"
        return [path.name for path in root.rglob("*.dcm")]


def archive_of(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as writer:
        for name, body in files.items():
            writer.writestr(name, body)
    return made.getvalue()


async def breaking_off(body: bytes, share: float) -> AsyncIterator[bytes]:
    async for chunk in chunks_of(body[: int(len(body) * share)], 300):
        yield chunk
    raise Unreachable("the source broke off", sent=True)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Sandbox(tmp_path / "sandbox") as sandbox, connected(sandbox) as xnat:
        sandbox.store.create_subject(sandbox.store.create_project("P"), "SUBJ")
        yield Bench(sandbox, xnat, tmp_path)


async def test_the_files_of_a_scan_become_one_item_that_is_imported_before_all_else(
    bench: Bench,
) -> None:
    sink = bench.sink()

    unit = await bench.prepared(sink)

    assert [(item.kind, item.key, item.stage) for item in unit.items] == [
        ("import", "scans/1/resources/DICOM", 0),
        ("import", "scans/2/resources/DICOM", 0),
    ]
    assert [len(item.members) for item in unit.items] == [3, 4]
    assert {item.verdict for item in unit.items} == {Verdict.COPY}
    assert {item.lane for item in unit.items} == {"import"}


async def test_a_session_is_imported_once_and_listed_as_it_was_sent(bench: Bench) -> None:
    sink = bench.sink()
    unit = await bench.prepared(sink)

    await bench.send(sink, unit)
    await sink.seal(unit, 2)

    inventory = await sink.inventory(unit)
    assert compare(unit.items, inventory) == []
    assert (len(bench.archived), bench.waiting) == (7, [])
    assert bench.facts["scan:1"] == "1"
    assert bench.facts["session_id"]
    assert "entry" not in bench.facts


async def test_sealing_twice_archives_once(bench: Bench) -> None:
    sink = bench.sink()
    unit = await bench.prepared(sink)
    await bench.send(sink, unit)

    await sink.seal(unit, 0)

    assert len(bench.archived) == 7
    assert bench.sandbox.counters.count("POST", "services/archive", 200) == 1


async def test_what_was_imported_is_kept_by_the_next_run(bench: Bench) -> None:
    first = bench.sink()
    await bench.send(first, await bench.prepared(first))

    unit = await bench.prepared(bench.sink())

    assert [item.kind for item in unit.items] == ["import", "import"]
    assert {item.verdict for item in unit.items} == {Verdict.KEEP}


async def test_a_first_scan_that_breaks_off_leaves_nothing_behind(bench: Bench) -> None:
    sink = bench.sink()
    unit = await bench.prepared(sink)
    await sink.begin(unit)

    with pytest.raises(Unreachable):
        await bench.put(sink, unit, unit.items[0], breaking_off(archive_of(SCANS["1"]), 0.99))
    # The server stores objects as they come, and has never told where.
    await bench.until(3)
    await sink.abandon(unit)

    assert (bench.waiting, bench.archived) == ([], [])
    await bench.send(sink, unit)
    assert (len(bench.archived), bench.waiting) == (7, [])


async def test_a_scan_that_breaks_off_before_its_first_object_leaves_nothing_behind(
    bench: Bench,
) -> None:
    sink = bench.sink()
    unit = await bench.prepared(sink)
    await sink.begin(unit)

    with pytest.raises(Unreachable):
        await bench.put(sink, unit, unit.items[0], breaking_off(archive_of(SCANS["1"]), 0.0))
    await sink.abandon(unit)

    assert (bench.waiting, bench.archived) == ([], [])
    await bench.send(sink, unit)
    assert (len(bench.archived), bench.waiting) == (7, [])


async def test_a_later_scan_that_breaks_off_leaves_nothing_behind(bench: Bench) -> None:
    sink = bench.sink()
    unit = await bench.prepared(sink)
    first, second = unit.items
    await sink.begin(unit)
    await bench.put(sink, unit, first, chunks_of(archive_of(SCANS["1"])))
    assert len(bench.waiting) == 3

    with pytest.raises(Unreachable):
        await bench.put(sink, unit, second, breaking_off(archive_of(SCANS["2"]), 0.8))
    await bench.until(5)
    await sink.abandon(unit)

    assert (bench.waiting, bench.archived) == ([], [])
    await bench.send(sink, unit)
    assert len(bench.archived) == 7


async def test_a_run_that_died_is_cleared_away_by_the_next(bench: Bench) -> None:
    dead = bench.sink()
    unit = await bench.prepared(dead)
    await dead.begin(unit)
    await bench.put(dead, unit, unit.items[0], chunks_of(archive_of(SCANS["1"])))
    assert bench.facts["entry"]

    sink = bench.sink()
    await bench.send(sink, await bench.prepared(sink))

    assert (len(bench.archived), bench.waiting) == (7, [])
    assert "entry" not in bench.facts


async def test_no_damaged_object_ever_leaves_us(bench: Bench) -> None:
    sink = bench.sink()
    unit = await bench.prepared(sink)
    await sink.begin(unit)
    body = bytearray(archive_of(SCANS["1"]))
    names = list(SCANS["1"])
    middle = SCANS["1"][names[1]]
    body[body.index(middle) + len(middle) - 1] ^= 1

    with pytest.raises(Corrupt):
        await bench.put(sink, unit, unit.items[0], chunks_of(bytes(body), 300))

    assert len(bench.waiting) <= 1
    await sink.abandon(unit)
    assert bench.waiting == []


async def test_a_session_that_exists_is_a_conflict_before_anything_is_sent(bench: Bench) -> None:
    sink = bench.sink()
    unit = await bench.prepared(sink)
    store = bench.sandbox.store
    project = store.find_project("P")
    store.create_experiment(store.find_subject("SUBJ", project), "MR1")  # type: ignore[arg-type]

    with pytest.raises(Conflict):
        await sink.begin(unit)

    assert bench.waiting == []


async def test_an_entry_of_somebody_else_is_never_touched(bench: Bench) -> None:
    foreign = Imports(bench.xnat)
    await foreign.import_zip(
        chunks_of(archive_of(series("9"))),
        params={"project": "P", "subject": "SUBJ", "session": "MR1"},
    )
    before = bench.waiting
    assert len(before) == 3
    sink = bench.sink()
    unit = await bench.prepared(sink)
    await sink.begin(unit)

    try:
        await bench.put(sink, unit, unit.items[0], chunks_of(archive_of(SCANS["1"])))
    except XnatctlError:
        pass
    await sink.abandon(unit)

    assert set(before) <= set(bench.waiting)


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        (b"this is no DICOM at all" * 20, "is not DICOM"),
        (next(iter(series("1").values())), "SOP Instance UID of another"),
        (next(iter(series("1", study=replace(STUDY, label="OTHER")).values())), "another study"),
        (next(iter(series("7").values())), "series number is 7"),
    ],
)
async def test_what_an_import_could_not_keep_as_it_is_goes_by_copy(
    bench: Bench, spoiled: bytes, reason: str
) -> None:
    scans = {"1": {**SCANS["1"], "odd.dcm": spoiled}}
    sink = bench.sink()
    unit = await bench.prepared(sink, scans)

    with pytest.raises(Replan, match=reason):
        await bench.send(sink, unit, scans)
    await sink.abandon(unit)

    assert (bench.waiting, bench.archived) == ([], [])
    again = await bench.prepared(sink, scans)
    assert {item.kind for item in again.items} == {"file"}
    assert any("goes by copy" in note for note in again.notes)
