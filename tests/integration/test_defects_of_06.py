"""What xnatctl 0.6.0 is known to get wrong in a transfer, where no other test says it already.

`docs/comparison.md` names the test of every defect.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.integration.conftest import Bench
from tests.integration.oracle import files_of
from xnatctl.engine.events import UnitPlanned
from xnatctl.model import Dicom
from xnatctl.sandbox.faults import Fault


async def test_a_session_resource_that_fails_is_a_failure_and_comes_with_the_next_run(
    demo: Bench,
) -> None:
    demo.there.faults.add(
        Fault("PUT */resources/PHYSIO/files*", "status", nth=1, times=1000, status=500)
    )
    first = await demo.transfer(dicom="copy")

    assert first.exit_code == 1
    assert not first.success
    assert {one.kind for one in first.problems} == {"session"}
    assert all("PHYSIO" in one.error for one in first.problems)

    demo.there.faults.clear()
    second = await demo.transfer(dicom="copy")
    assert (second.exit_code, second.files) == (0, 14)
    assert files_of(demo.sink, "DEMO") == files_of(demo.source, "DEMO")


async def test_a_listing_that_is_refused_is_a_failure_of_its_session_alone(demo: Bench) -> None:
    session = demo.here.store.find_experiment("DEMO_001_MR1", demo.here.store.find_project("DEMO"))
    assert session is not None
    demo.here.faults.add(
        Fault(f"GET */experiments/{session.code}/files*", "status", times=1000, status=403)
    )

    report = await demo.transfer(dicom="copy")

    assert [one.label for one in report.problems] == ["DEMO_001_MR1"]
    assert report.exit_code == 1
    there = {one[0] for one in files_of(demo.sink, "DEMO")}
    assert "DEMO_001_MR2" in there
    assert "DEMO_001_MR1" not in there


async def test_workers_bound_how_much_happens_at_once(demo: Bench) -> None:
    peaks = []
    for workers in (1, 8):
        (demo.folder / "state.db").unlink(missing_ok=True)
        project = demo.there.store.find_project("DEMO")
        for subject in demo.there.store.children(project, "subject") if project else ():
            for session in demo.there.store.children(subject, "experiment"):
                demo.there.store.delete(session, remove_files=True)
        demo.there.counters.peak = 0
        assert (await demo.transfer(dicom="copy", workers=workers)).exit_code == 0
        peaks.append(demo.there.counters.peak)

    assert peaks[0] == 1
    assert peaks[1] > 2


async def test_a_download_that_is_cut_is_tried_again(demo: Bench) -> None:
    demo.here.faults.add(Fault("GET */resources/*/files*", "cut", nth=2, times=3, at=50))

    report = await demo.transfer(dicom="copy")

    assert report.exit_code == 0, report.problems
    assert report.retries > 0
    assert files_of(demo.sink, "DEMO") == files_of(demo.source, "DEMO")


@pytest.mark.parametrize("dicom", ["copy", "import"])
async def test_nothing_is_staged_on_this_machine(
    demo: Bench, dicom: Dicom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    seen: set[str] = set()
    demo.watchers.append(lambda event: seen.update(path.name for path in folder.rglob("*")))

    assert (await demo.transfer(dicom=dicom)).exit_code == 0

    assert seen == set()


@pytest.mark.parametrize("dicom", ["copy", "import"])
async def test_a_dry_run_plans_what_the_run_then_does_and_writes_nothing(
    demo: Bench, dicom: Dicom
) -> None:
    planned = await demo.transfer(dicom=dicom, dry_run=True)
    plans = {
        event.unit.key: (event.files, event.bytes)
        for event in demo.events
        if isinstance(event, UnitPlanned)
    }
    assert files_of(demo.sink, "DEMO") == set()
    assert demo.there.store.find_project("DEMO") is None
    assert planned.exit_code == 0

    done = await demo.transfer(dicom=dicom)

    assert sum(files for files, _ in plans.values()) == done.files
    assert sum(size for _, size in plans.values()) == done.bytes


async def test_what_is_only_shared_into_the_project_is_listed_and_no_failure(demo: Bench) -> None:
    store = demo.here.store
    other, project = store.create_project("OTHER"), store.find_project("DEMO")
    assert project is not None
    guest = store.create_subject(other, "GUEST")
    visit = store.create_experiment(guest, "GUEST_MR1")
    store.share(guest, project, "GUEST")
    store.share(visit, project, "GUEST_MR1")

    report = await demo.transfer(dicom="copy")

    assert report.exit_code == 0
    assert {(one.key, one.code) for one in report.left} == {
        ("subjects/GUEST", "shared-in"),
        ("subjects/GUEST/sessions/GUEST_MR1", "shared-in"),
    }


async def test_a_prearchive_conflict_of_somebody_else_is_neither_merged_nor_archived(
    demo: Bench,
) -> None:
    from tests.integration.conftest import connect
    from xnatctl.sandbox.phantom import Series, Study, series_files
    from xnatctl.xnat.imports import Imports

    demo.there.store.create_project("DEMO")
    theirs = Study("THEIRS", "SOMEBODY", "Some^Body")
    body = next(
        iter(dict(series_files(Series(theirs, "1", 1, columns=8, rows=8, slices=1))).values())
    )

    async def chunks() -> object:
        yield body

    async with connect(demo.there) as xnat:
        await Imports(xnat).import_object(
            chunks(),  # type: ignore[arg-type]
            params={"PROJECT_ID": "DEMO", "SUBJECT_ID": "SOMEBODY", "EXPT_LABEL": "DEMO_001_MR1"},
            length=len(body),
        )
        (before,) = await Imports(xnat).list_entries("DEMO")

        report = await demo.transfer(dicom="import")

        left = await Imports(xnat).list_entries("DEMO")
    assert [(one.timestamp, one.subject) for one in left] == [(before.timestamp, before.subject)]
    assert report.exit_code == 0, report.problems
