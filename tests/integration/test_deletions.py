"""What is deleted at the source: told in any case, taken away at the destination when allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.integration.conftest import Bench, connect
from tests.integration.oracle import files_of
from xnatctl.engine.gone import Gone
from xnatctl.model import Dicom
from xnatctl.sandbox.store import Item, Store

SESSION = "DEMO_001_MR1"


def project_of(store: Store) -> Item:
    found = store.find_project("DEMO")
    assert found is not None
    return found


def session_of(store: Store, label: str = SESSION) -> Item:
    found = store.find_experiment(label, project_of(store))
    assert found is not None
    return found


def anything(found: Sequence[Gone], share: float) -> bool:
    return True


def drop_session(store: Store) -> None:
    store.delete(session_of(store), remove_files=True)


def drop_subject(store: Store) -> None:
    subject = store.find_subject("DEMO_003", project_of(store))
    assert subject is not None
    for session in store.children(subject, "experiment"):
        store.delete(session, remove_files=True)
    store.delete(subject, remove_files=True)


def drop_scan(store: Store) -> None:
    scan = store.find_child(session_of(store), "scan", "2")
    assert scan is not None
    store.delete(scan, remove_files=True)


def drop_assessor(store: Store) -> None:
    assessor = store.find_child(session_of(store), "assessor", "DEMO_001_MR1_QC1")
    assert assessor is not None
    store.delete(assessor, remove_files=True)


def drop_resource(store: Store) -> None:
    store.delete_resource(store.resources(session_of(store))[0], remove_files=True)


def drop_file(store: Store) -> None:
    resource = store.resources(session_of(store))[0]
    store.remove_file(resource, store.files(resource)[0])


def drop_project_file(store: Store) -> None:
    resource = store.resources(project_of(store))[0]
    store.remove_file(resource, store.files(resource)[0])


DROPS: dict[Callable[[Store], None], list[str]] = {
    drop_session: ["subjects/DEMO_001/sessions/DEMO_001_MR1"],
    drop_subject: [
        "subjects/DEMO_003/sessions/DEMO_003_CT1",
        "subjects/DEMO_003/sessions/DEMO_003_PET1",
        "subjects/DEMO_003/sessions/DEMO_003_US1",
        "subjects/DEMO_003",
    ],
    drop_scan: ["subjects/DEMO_001/sessions/DEMO_001_MR1/scans/2"],
    drop_assessor: ["subjects/DEMO_001/sessions/DEMO_001_MR1/assessors/DEMO_001_MR1_QC1"],
    drop_resource: ["subjects/DEMO_001/sessions/DEMO_001_MR1/resources/PHYSIO"],
    drop_file: ["subjects/DEMO_001/sessions/DEMO_001_MR1/resources/PHYSIO/files/pulse.csv"],
    drop_project_file: ["project/resources/docs/files/README.txt"],
}


def labels(store: Store) -> set[str]:
    """Labels of all subjects, experiments, scans and assessors."""
    found = set()
    for subject in store.children(project_of(store), "subject"):
        found.add(subject.label)
        for session in store.children(subject, "experiment"):
            found.add(session.label)
            for kind in ("scan", "assessor"):
                found |= {f"{session.label}/{one.code}" for one in store.children(session, "scan")}
                found |= {one.label for one in store.children(session, kind)}
    return found


@pytest.mark.parametrize("dicom", ["copy", "import"])
@pytest.mark.parametrize("drop", DROPS, ids=lambda one: one.__name__)
async def test_what_is_deleted_at_the_source_is_told_and_goes_only_when_allowed(
    demo: Bench, drop: Callable[[Store], None], dicom: Dicom
) -> None:
    await demo.transfer(dicom=dicom)
    drop(demo.here.store)
    before = files_of(demo.sink, "DEMO")

    told = await demo.transfer(dicom=dicom)

    assert sorted(one.key for one in told.gone) == sorted(DROPS[drop])
    assert {one.code for one in told.gone} == {"stays"}
    assert told.exit_code == 0
    assert files_of(demo.sink, "DEMO") == before

    planned = await demo.transfer(dicom=dicom, dry_run=True, deletions=anything)
    assert [one.key for one in planned.gone] == [one.key for one in told.gone]
    assert planned.exit_code == 0
    assert files_of(demo.sink, "DEMO") == before

    done = await demo.transfer(dicom=dicom, deletions=anything)

    assert [one.key for one in done.gone] == [one.key for one in told.gone]
    assert {one.code for one in done.gone} == {"deleted"}
    assert done.exit_code == 0
    here, there = (
        {one[:-1] for one in files_of(root, "DEMO") if dicom == "copy" or one[2] != "DICOM"}
        for root in (demo.source, demo.sink)
    )
    assert there == here
    assert labels(demo.there.store) == labels(demo.here.store)
    again = await demo.transfer(dicom=dicom, deletions=anything)
    assert (again.gone, again.files, again.exit_code) == ((), 0, 0)


async def test_what_no_run_of_ours_put_there_is_never_deleted(demo: Bench) -> None:
    await demo.transfer(dicom="copy")
    theirs = session_of(demo.there.store)
    demo.there.store.add_file(demo.there.store.resources(theirs)[0], "theirs.txt", b"theirs")
    other = demo.there.store.create_experiment(
        demo.there.store.find_subject("DEMO_001", project_of(demo.there.store)),  # type: ignore[arg-type]
        "THEIRS_MR1",
    )
    demo.there.store.add_file(demo.there.store.create_resource(other, "R"), "a.txt", b"theirs")
    drop_session(demo.here.store)

    report = await demo.transfer(dicom="copy", deletions=anything)

    (gone,) = report.gone
    assert (gone.key, gone.code) == (f"subjects/DEMO_001/sessions/{SESSION}", "stays")
    assert "resources/PHYSIO/files/theirs.txt, which no run put there" in gone.reason
    assert report.exit_code == 1
    assert {one[0] for one in files_of(demo.sink, "DEMO")} >= {SESSION, "THEIRS_MR1"}


async def test_without_the_state_store_nothing_counts_as_ours_to_delete(demo: Bench) -> None:
    await demo.transfer(dicom="copy")
    (demo.folder / "state.db").unlink()
    await demo.transfer(dicom="copy")
    drop_session(demo.here.store)
    drop_file_of = session_of(demo.here.store, "DEMO_001_MR2")
    resource = demo.here.store.resources(drop_file_of)[0]
    demo.here.store.remove_file(resource, demo.here.store.files(resource)[0])
    before = files_of(demo.sink, "DEMO")

    report = await demo.transfer(dicom="copy", deletions=anything)

    assert report.gone == ()
    assert files_of(demo.sink, "DEMO") == before


async def test_a_listing_that_is_short_once_deletes_nothing(demo: Bench) -> None:
    """The second look finds what the first one missed."""
    await demo.transfer(dicom="copy")
    store = demo.here.store
    session = session_of(store)
    hidden = store.create_project("ELSEWHERE")
    before = files_of(demo.sink, "DEMO")
    home = session.project

    def back(event: object) -> None:
        if type(event).__name__ == "RunDone":
            store.db.execute("UPDATE items SET project=? WHERE id=?", (home, session.id))

    store.db.execute("UPDATE items SET project=? WHERE id=?", (hidden.id, session.id))
    demo.watchers.append(back)
    report = await demo.transfer(dicom="copy", deletions=anything)

    assert report.gone == ()
    assert files_of(demo.sink, "DEMO") == before


async def test_nothing_is_deleted_after_a_run_that_saw_only_a_part(demo: Bench) -> None:
    from xnatctl.engine.types import Rule, Selection
    from xnatctl.model import Ref

    await demo.transfer(dicom="copy")
    drop_session(demo.here.store)
    some = Selection(Ref("DEMO"), rules=(Rule("subject", ("DEMO_002",)),))

    assert (await demo.transfer(selection=some, deletions=anything)).gone == ()


async def test_a_share_that_was_taken_back_at_the_source_is_taken_back_there(demo: Bench) -> None:
    for store in (demo.here.store, demo.there.store):
        store.create_project("OTHER")
    here = demo.here.store
    other = here.find_project("OTHER")
    assert other is not None
    here.share(session_of(here), other, "SHARED")
    await demo.transfer(dicom="copy")
    async with connect(demo.there) as sink:
        assert [one.label for one in await sink.list_experiments("OTHER")] == ["SHARED"]
    here.unshare(session_of(here), other)

    report = await demo.transfer(dicom="copy", deletions=anything)

    assert [(one.key, one.code) for one in report.gone] == [
        (f"subjects/DEMO_001/sessions/{SESSION}/shares/OTHER", "deleted")
    ]
    async with connect(demo.there) as sink:
        assert await sink.list_experiments("OTHER") == []
        assert SESSION in {one.label for one in await sink.list_experiments("DEMO")}
    assert (await demo.transfer(dicom="copy")).gone == ()


async def test_how_much_of_a_project_would_go_is_told_to_who_decides(demo: Bench) -> None:
    await demo.transfer(dicom="copy")
    drop_session(demo.here.store)
    asked: list[tuple[int, float]] = []

    def no(found: Sequence[Gone], share: float) -> bool:
        asked.append((len(found), round(share, 3)))
        return False

    report = await demo.transfer(dicom="copy", deletions=no)

    assert asked == [(1, round(1 / 7, 3))]
    assert report.exit_code == 1
    assert [one.code for one in report.gone] == ["stays"]
