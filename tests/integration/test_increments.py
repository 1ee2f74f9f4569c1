"""What changed since the last run converges on the next one, whatever clocks and stores say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.conftest import Bench, connect
from tests.integration.oracle import files_of
from xnatctl import routes
from xnatctl.engine.events import Event, UnitPlanned
from xnatctl.engine.types import Rule, Selection
from xnatctl.model import Dicom, Ref
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.store import Item, Store
from xnatctl.xnat.fields import Fields


def session_of(store: Store, label: str) -> Item:
    project = store.find_project("DEMO")
    assert project is not None
    found = store.find_experiment(label, project)
    assert found is not None
    return found


def subject_of(store: Store, label: str) -> Item:
    found = store.find_subject(label, store.find_project("DEMO"))
    assert found is not None
    return found


def add_session(store: Store) -> None:
    session = store.create_experiment(
        subject_of(store, "DEMO_001"), "DEMO_001_MR9", fields={"date": "2020-01-01"}
    )
    scan = store.create_scan(session, "7", fields={"type": "T1w"})
    store.add_file(store.create_resource(scan, "NIFTI"), "late.nii", b"late" * 1000)


def add_scan(store: Store) -> None:
    scan = store.create_scan(session_of(store, "DEMO_001_MR1"), "77", fields={"type": "T2w"})
    store.add_file(store.create_resource(scan, "DICOM"), "one.dcm", b"not really dicom")


def add_file(store: Store) -> None:
    resource = store.resources(session_of(store, "DEMO_001_MR1"))[0]
    store.add_file(resource, "added later.txt", b"more")


def change_file(store: Store) -> None:
    resource = store.resources(session_of(store, "DEMO_001_MR1"))[0]
    old = store.files(resource)[0]
    store.remove_file(resource, old)
    store.add_file(resource, old.path, b"another content, and another length")


def change_file_of_equal_length(store: Store) -> None:
    resource = store.resources(session_of(store, "DEMO_001_MR1"))[0]
    old = store.files(resource)[0]
    store.remove_file(resource, old)
    store.add_file(resource, old.path, b"#" * old.size)


CHANGES = [add_session, add_scan, add_file, change_file, change_file_of_equal_length]


@pytest.mark.parametrize("change", CHANGES, ids=[one.__name__ for one in CHANGES])
async def test_what_changed_at_the_source_arrives_with_the_next_run_and_nothing_else_moves(
    demo: Bench, change: Callable[[Store], None]
) -> None:
    await demo.transfer(dicom="copy")
    change(demo.here.store)

    report = await demo.transfer(dicom="copy")

    assert report.exit_code == 0
    assert files_of(demo.sink, "DEMO") == files_of(demo.source, "DEMO")
    assert report.files == 1
    assert report.units_failed == 0


@pytest.mark.parametrize("change", [add_session, add_scan, add_file])
async def test_what_was_added_arrives_without_the_state_store_too(
    demo: Bench, change: Callable[[Store], None]
) -> None:
    await demo.transfer(dicom="copy")
    change(demo.here.store)
    (demo.folder / "state.db").unlink()

    report = await demo.transfer(dicom="copy")

    assert report.exit_code == 0
    assert files_of(demo.sink, "DEMO") == files_of(demo.source, "DEMO")
    assert report.files == 1


async def test_metadata_edited_at_the_source_arrives_with_the_next_run(demo: Bench) -> None:
    await demo.transfer(dicom="copy")
    path = "/data/projects/DEMO/subjects/DEMO_001/experiments/DEMO_001_MR1"
    async with connect(demo.here) as source:
        edited = {"xsiType": "xnat:mrSessionData", "note": "seen twice"}
        await source.put_item(path, edited)

    report = await demo.transfer(dicom="copy")

    async with connect(demo.there) as sink:
        item = await sink.item(path)
    assert item["data_fields"]["note"] == "seen twice"
    assert (report.exit_code, report.files) == (0, 0)


async def test_custom_fields_that_a_session_gets_later_arrive_and_are_then_not_asked_for_again(
    demo: Bench,
) -> None:
    await demo.transfer(dicom="copy")
    place = "/data/projects/DEMO/subjects/DEMO_001/experiments/DEMO_001_MR1"
    async with connect(demo.here) as source:
        await Fields(source).write(place, {"rating": 4})

    report = await demo.transfer(dicom="copy")

    async with connect(demo.there) as sink:
        assert await Fields(sink).read(place) == {"rating": 4}
    assert (report.exit_code, report.files) == (0, 0)

    demo.here.store.update(session_of(demo.here.store, "DEMO_002_CT1"), fields={"note": "seen"})
    asked = []
    for _ in range(3):
        demo.here.counters.reset()
        await demo.transfer(dicom="copy")
        asked.append(demo.here.counters.count("GET", "custom-fields"))
    # The session with fields each time, the one with a new note once, with each of its scans.
    assert asked[0] > asked[1] == asked[2]


async def test_a_session_that_is_deleted_at_the_destination_comes_back_whole(demo: Bench) -> None:
    await demo.transfer(dicom="copy")
    store = demo.there.store
    store.delete(session_of(store, "DEMO_001_MR1"), remove_files=True)

    report = await demo.transfer(dicom="copy")

    assert report.exit_code == 0
    assert files_of(demo.sink, "DEMO") == files_of(demo.source, "DEMO")


async def test_an_item_added_while_the_run_is_under_way_arrives_with_the_next_run(
    demo: Bench,
) -> None:
    added: list[str] = []

    def add_once(event: Event) -> None:
        if isinstance(event, UnitPlanned) and event.unit.kind == "session" and not added:
            added.append("yes")
            add_session(demo.here.store)

    demo.watchers.append(add_once)
    await demo.transfer(dicom="copy")
    report = await demo.transfer(dicom="copy")

    assert added
    assert report.exit_code == 0
    assert files_of(demo.sink, "DEMO") == files_of(demo.source, "DEMO")


async def test_a_session_of_the_same_label_under_another_subject_is_a_conflict_and_untouched(
    demo: Bench,
) -> None:
    store = demo.there.store
    project = store.create_project("DEMO")
    other = store.create_experiment(store.create_subject(project, "SOMEBODY"), "DEMO_001_MR1")
    store.add_file(store.create_resource(other, "MINE"), "mine.txt", b"mine")

    report = await demo.transfer(dicom="copy")

    failed = [one for one in report.problems if one.label == "DEMO_001_MR1"]
    assert len(report.problems) == len(failed) == 1
    assert failed[0].error_kind == "conflict"
    assert report.exit_code == 1
    assert {one for one in files_of(demo.sink, "DEMO") if one[0] == "DEMO_001_MR1"} == {
        one for one in files_of(demo.sink, "DEMO") if one[2] == "MINE"
    }


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (Rule("scan-type", ("localizer",), include=False), lambda one: True),
        (Rule("resource", ("NIFTI",)), lambda one: one[2] == "NIFTI"),
        (Rule("type", ("CT",)), lambda one: "_CT" in one[0] or one[1] in ("subject", "project")),
        (Rule("subject", ("DEMO_002",)), lambda one: "002" in one[0] or one[1] == "project"),
    ],
)
async def test_a_filtered_run_verifies_what_was_selected_and_ends_well(
    demo: Bench, rule: Rule, wanted: Callable[[tuple[str, ...]], bool]
) -> None:
    report = await demo.transfer(selection=Selection(Ref("DEMO"), rules=(rule,)))

    there = files_of(demo.sink, "DEMO")
    assert report.exit_code == 0
    assert there
    assert there <= files_of(demo.source, "DEMO")
    assert all(wanted(one) for one in there)


async def test_bytes_that_changed_at_the_destination_are_found_and_not_called_verified(
    demo: Bench,
) -> None:
    await demo.transfer(dicom="copy")
    change_file_of_equal_length(demo.there.store)

    report = await demo.transfer(dicom="copy")

    assert report.exit_code == 1
    assert [one.error_kind for one in report.problems] == ["conflict"]


async def spent(bench: Bench, dicom: Dicom, *, forget: bool) -> int:
    """Requests to both servers of a run that finds everything as it was."""
    if forget:
        (bench.folder / "state.db").unlink()
    async with (
        connect(bench.here) as source,
        connect(bench.there) as sink,
        bench.desk("transfer") as desk,
    ):
        before = source.transport.requests + sink.transport.requests
        report = await routes.transfer(
            desk, source, sink, Selection(Ref("DEMO")), project="DEMO", dicom=dicom
        )
        sessions = report.by_kind["session"].get("copied", 0)
        assert (report.exit_code, report.files, sessions) == (0, 0, 0), report.problems
        return source.transport.requests + sink.transport.requests - before


@pytest.mark.parametrize("dicom", ["copy", "import"])
@pytest.mark.parametrize(("forget", "most"), [(False, 3), (True, 6)])
async def test_an_unchanged_session_costs_three_requests_and_six_without_the_state_store(
    demo: Bench, dicom: Dicom, forget: bool, most: int
) -> None:
    """Counted by leaving out the sessions of a subject; subjects and the project come on top."""
    await demo.transfer(dicom=dicom)
    many = await spent(demo, dicom, forget=forget)
    for bench in (demo.here, demo.there):
        project = bench.store.find_project("DEMO")
        assert project is not None
        for label in ("DEMO_003_CT1", "DEMO_003_PET1", "DEMO_003_US1"):
            session = bench.store.find_experiment(label, project)
            assert session is not None
            bench.store.delete(session, remove_files=True)
    await demo.transfer(dicom=dicom)
    few = await spent(demo, dicom, forget=forget)

    assert many - few <= 3 * most
    assert many <= 7 * most + 3 * (4 if most == 3 else 8) + 30


def move_clock(store: Store, hours: int) -> None:
    """What the database stamps is local time without a zone: as of a server elsewhere."""
    store.db.execute("UPDATE items SET inserted=datetime(inserted, ?)", (f"{hours} hours",))


@pytest.mark.parametrize("hours", [-11, 11])
async def test_a_new_session_arrives_from_a_source_in_another_time_zone(
    demo: Bench, hours: int
) -> None:
    await demo.transfer(dicom="copy")
    add_session(demo.here.store)
    move_clock(demo.here.store, hours)

    report = await demo.transfer(dicom="copy")

    assert (report.exit_code, report.files) == (0, 1)
    assert files_of(demo.sink, "DEMO") == files_of(demo.source, "DEMO")


@pytest.mark.parametrize("dicom", ["copy", "import"])
async def test_a_session_that_was_copied_in_half_is_finished_by_the_next_run(
    demo: Bench, dicom: Dicom
) -> None:
    broken = Fault("PUT */resources/*/files/*", "status", nth=6, times=1000, status=400)
    demo.there.faults.add(broken)
    first = await demo.transfer(dicom=dicom)
    assert first.exit_code == 1
    assert first.files > 0
    demo.there.faults.clear()

    report = await demo.transfer(dicom=dicom)

    assert report.exit_code == 0, report.problems
    here, there = (
        {one[:-1] for one in files_of(root, "DEMO") if dicom == "copy" or one[2] != "DICOM"}
        for root in (demo.source, demo.sink)
    )
    assert there == here
    assert 0 < report.files < len(here)
