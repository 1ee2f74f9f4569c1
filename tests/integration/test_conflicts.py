"""What exists differently at the destination, and what a source cannot give whole."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Bench
from tests.integration.oracle import files_of, instances_of, leftovers
from xnatctl.engine.events import UnitDone
from xnatctl.sandbox.catalog import Resource
from xnatctl.sandbox.store import Item, Store

LABEL = "DEMO_001_MR1"


def dicom_of(store: Store, scan: str) -> Resource:
    session = store.find_experiment(LABEL, store.find_project("DEMO"))
    assert session is not None
    found = store.find_child(session, "scan", scan)
    assert found is not None
    return next(one for one in store.resources(found) if one.label == "DICOM")


def drop_one(store: Store, scan: str) -> None:
    resource = dicom_of(store, scan)
    store.remove_file(resource, store.files(resource)[0])


def session_of(store: Store) -> Item:
    found = store.find_experiment(LABEL, store.find_project("DEMO"))
    assert found is not None
    return found


def notes(bench: Bench) -> list[str]:
    done = [event.outcome for event in bench.events if isinstance(event, UnitDone)]
    return [note for one in done for note in one.notes]


async def test_a_scan_that_lost_objects_there_is_a_conflict_and_replace_imports_it_anew(
    demo: Bench,
) -> None:
    await demo.transfer(dicom="import")
    before = demo.there.store.files(dicom_of(demo.there.store, "2"))
    drop_one(demo.there.store, "1")

    refused = await demo.transfer(dicom="import", on_conflict="fail")
    assert [one.label for one in refused.problems] == [LABEL]
    assert "3 objects here, 2 there" in refused.problems[0].error

    report = await demo.transfer(dicom="import", on_conflict="replace")

    assert (report.exit_code, report.files) == (0, 3), report.problems
    assert instances_of(demo.sink, "DEMO") == instances_of(demo.source, "DEMO")
    assert demo.there.store.files(dicom_of(demo.there.store, "2")) == before
    assert leftovers(demo.sink) == []
    again = await demo.transfer(dicom="import")
    assert (again.files, again.exit_code) == (0, 0)


async def test_a_scan_that_changed_at_the_source_is_replaced_by_a_new_import_only_when_asked(
    demo: Bench,
) -> None:
    await demo.transfer(dicom="import")
    drop_one(demo.here.store, "1")

    assert (await demo.transfer(dicom="import", on_conflict="fail")).exit_code == 1
    report = await demo.transfer(dicom="import", on_conflict="replace")

    assert (report.exit_code, report.files) == (0, 2), report.problems
    assert instances_of(demo.sink, "DEMO") == instances_of(demo.source, "DEMO")


async def test_another_series_under_a_scans_id_is_a_conflict_that_replace_does_not_touch(
    demo: Bench,
) -> None:
    await demo.transfer(dicom="import")
    (demo.folder / "state.db").unlink()
    store = demo.there.store
    scan = store.find_child(session_of(store), "scan", "1")
    assert scan is not None
    element = scan.element()
    element.set("UID", "1.2.3.4")
    store.update(scan, element=element)
    before = files_of(demo.sink, "DEMO")

    report = await demo.transfer(dicom="import", on_conflict="replace")

    assert report.exit_code == 1
    assert "another series has this scan ID" in report.problems[0].error
    assert files_of(demo.sink, "DEMO") == before


async def test_a_scan_that_was_deleted_there_comes_back_by_copy(demo: Bench) -> None:
    await demo.transfer(dicom="import")
    store = demo.there.store
    scan = store.find_child(session_of(store), "scan", "1")
    assert scan is not None
    store.delete(scan, remove_files=True)

    report = await demo.transfer(dicom="import")

    assert report.exit_code == 0, report.problems
    assert instances_of(demo.sink, "DEMO") == instances_of(demo.source, "DEMO")
    assert any("scan 1 goes by copy: the session is archived already" in one for one in notes(demo))


async def test_a_scan_whose_archive_lacks_a_listed_file_goes_by_copy_and_the_file_is_named(
    demo: Bench,
) -> None:
    store = demo.here.store
    resource = dicom_of(store, "2")
    lost = store.files(resource)[0]
    (store.resource_folder(resource) / lost.path).unlink()

    report = await demo.transfer(dicom="import")

    assert report.units_failed == 0, report.problems
    assert report.exit_code == 1
    (left,) = report.left
    assert (left.key, left.code) == (f"scans/2/resources/DICOM/files/{lost.path}", "vanished")
    assert any("scan 2 goes by copy" in one and lost.path in one for one in notes(demo))
    assert instances_of(demo.sink, "DEMO") == instances_of(demo.source, "DEMO")
    assert leftovers(demo.sink) == []


@pytest.mark.parametrize("name", ["QC1", "QC/2"])
async def test_assessors_are_known_again_whatever_the_case_of_the_columns(
    demo: Bench, name: str
) -> None:
    session = session_of(demo.here.store)
    assessor = demo.here.store.create_assessor(session, "DEMO_001_MR1_X")
    resource = demo.here.store.create_resource(assessor, "R", bucket="out")
    demo.here.store.add_file(resource, f"{name}.txt", b"x" * 10)
    first = await demo.transfer(dicom="copy")
    (demo.folder / "state.db").unlink()

    report = await demo.transfer(dicom="copy")

    assert first.exit_code == report.exit_code == 0
    assert report.files == 0
