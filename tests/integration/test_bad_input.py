"""What is wrong at one end is named, the sessions that can go on do, a later run finishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.integration.conftest import Bench
from tests.integration.oracle import files_of, instances_of, leftovers
from xnatctl.engine.events import Event, UnitDone
from xnatctl.engine.types import Report
from xnatctl.model import Dicom
from xnatctl.sandbox.faults import Fault

SESSIONS = 7
LOST = "DEMO_002_CT1"


def code_of(demo: Bench, label: str) -> str:
    project = demo.here.store.find_project("DEMO")
    found = demo.here.store.find_experiment(label, project)
    assert found is not None
    return found.code


def session_files(demo: Bench, label: str) -> set[object]:
    return {one for one in files_of(demo.sink, "DEMO") if one[0] == label}


def refuses_a_type_of_session(demo: Bench) -> None:
    demo.there.faults.add(Fault(f"PUT */experiments/{LOST}*", "status", status=400, times=0))


def refuses_a_type_of_assessor(demo: Bench) -> None:
    demo.there.faults.add(Fault("PUT */assessors/DEMO_001_MR1_QC1*", "status", status=500, times=0))


def sends_xml_that_is_none(demo: Bench) -> None:
    match = f"GET /data/experiments/{code_of(demo, LOST)}?format=xml"
    demo.here.faults.add(Fault(match, "flip", at=1, times=0))


def sends_a_page_in_place_of_xml(demo: Bench) -> None:
    match = f"GET /data/experiments/{code_of(demo, LOST)}?format=xml"
    demo.here.faults.add(Fault(match, "login-page", times=0))


@dataclass(frozen=True, slots=True)
class Case:
    spoil: Callable[[Bench], None]
    session: str
    said: str


QUICK = [
    Case(refuses_a_type_of_assessor, "DEMO_001_MR1", "DEMO_001_MR1_QC1"),
    Case(sends_xml_that_is_none, LOST, "XML"),
]
SLOW = [
    Case(refuses_a_type_of_session, LOST, "HTTP 400"),
    Case(sends_a_page_in_place_of_xml, LOST, "login"),
]
CASES = [pytest.param(one, id=one.spoil.__name__) for one in QUICK] + [
    pytest.param(one, id=one.spoil.__name__, marks=pytest.mark.long) for one in SLOW
]


async def finished(demo: Bench, dicom: Dicom) -> Report:
    """A run on healthy servers, after which both ends are the same."""
    demo.here.faults.clear()
    demo.there.faults.clear()
    report = await demo.transfer(dicom=dicom)
    assert (report.exit_code, report.problems) == (0, ())
    assert instances_of(demo.sink, "DEMO") == instances_of(demo.source, "DEMO")
    assert leftovers(demo.sink) == []
    if dicom == "copy":
        assert files_of(demo.sink, "DEMO") == files_of(demo.source, "DEMO")
    return report


@pytest.mark.parametrize("case", CASES)
async def test_one_session_that_cannot_go_is_named_and_the_others_arrive(
    demo: Bench, case: Case
) -> None:
    case.spoil(demo)

    report = await demo.transfer(dicom="copy")

    (problem,) = report.problems
    assert (report.exit_code, problem.label) == (1, case.session)
    assert case.said in problem.error
    assert report.by_kind["session"]["copied"] == SESSIONS - 1

    done = await finished(demo, "copy")
    assert done.units_done == 1


@pytest.mark.parametrize("dicom", [pytest.param("copy", marks=pytest.mark.long), "import"])
async def test_rights_that_end_half_way_fail_what_is_left_and_nothing_that_was_done(
    demo: Bench, dicom: Dicom
) -> None:
    def take_away(event: Event) -> None:
        project = demo.there.store.find_project("DEMO")
        if isinstance(event, UnitDone) and event.outcome.kind == "session":
            assert project is not None
            demo.there.accounts.change("admin", admin=False)
            demo.there.accounts.set_role(project, "admin", "collaborator")

    demo.watchers.append(take_away)
    report = await demo.transfer(dicom=dicom, workers=1)
    demo.watchers.clear()

    assert report.exit_code == 1
    assert report.by_kind["session"]["copied"] >= 1
    assert report.units_failed >= 1
    assert all("permission" in one.error_kind or "depends" in one.error for one in report.problems)

    demo.there.accounts.change("admin", admin=True)
    done = await finished(demo, dicom)
    assert done.by_kind["session"]["kept"] == report.by_kind["session"]["copied"]


async def test_what_a_project_held_before_stays_and_stops_nothing(demo: Bench) -> None:
    store = demo.there.store
    project = store.create_project("DEMO", fields={"description": "theirs"})
    subject = store.create_subject(project, "THEIRS", fields={"gender": "female"})
    session = store.create_experiment(subject, "THEIRS_MR1")
    store.add_file(store.create_resource(session, "DATA"), "a.txt", b"theirs\n")
    before = session_files(demo, "THEIRS_MR1")

    report = await demo.transfer(dicom="import", on_conflict="fail")

    assert (report.exit_code, report.by_kind["session"]["copied"]) == (0, SESSIONS)
    assert session_files(demo, "THEIRS_MR1") == before != set()
    found = store.find_subject("THEIRS", project)
    assert found is not None and "female" in store.fields(found).values()
