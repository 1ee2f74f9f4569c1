"""One of each kind of thing that a project owns arrives, by an account of both servers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.conftest import Bench
from tests.integration.everything import account, add_the_rest
from tests.integration.oracle import instances_of, leftovers
from xnatctl.model import Dicom


@pytest.fixture
def everything(demo: Bench) -> Bench:
    add_the_rest(demo.here.store)
    demo.there.store.create_project("OTHER")
    demo.there.store.set_record(
        "investigator",
        "900",
        {"xnat_investigatordata_id": "900", "firstname": "ADA", "lastname": "investigator"},
    )
    return demo


def differing(here: Any, there: Any) -> dict[str, Any]:
    """What two accounts do not agree on, each with both sides, as deep as it can be told."""
    if isinstance(here, dict) and isinstance(there, dict):
        found = {}
        for name in here.keys() | there.keys():
            for inner, both in differing(here.get(name), there.get(name)).items():
                found[f"{name}: {inner}"] = both
        return found
    return {} if here == there else {"": (here, there)}


def without_dicom(held: dict[str, Any]) -> dict[str, Any]:
    """The account without the files of DICOM resources, whose bytes and names an import changes."""
    return {place: one for place, one in held.items() if "//DICOM/" not in place}


@pytest.mark.parametrize("dicom", ["copy", "import"])
async def test_a_project_with_one_of_each_thing_arrives_complete(
    everything: Bench, dicom: Dicom
) -> None:
    report = await everything.transfer(dicom=dicom)

    assert (report.exit_code, report.left, report.problems) == (0, (), ())
    here, there = (account(one, "DEMO") for one in (everything.here, everything.there))
    if dicom == "import":
        here, there = without_dicom(here), without_dicom(there)
    assert len(here) > 100
    assert {name.split()[0] for name in here["shares"]} == {
        "subject",
        "experiment",
        "scan",
        "assessor",
    }
    differ = differing(here, there)
    if dicom == "import":
        # What the destination read from the headers is there beside what the source has.
        differ = {place: both for place, both in differ.items() if both[0] is not None}
    assert differ == {}
    assert instances_of(everything.sink, "DEMO") == instances_of(everything.source, "DEMO")
    assert leftovers(everything.sink) == []

    again = await everything.transfer(dicom=dicom)
    assert (again.units_done, again.files, again.exit_code) == (0, 0, 0)
    assert account(everything.there, "DEMO").keys() >= there.keys()


LOST = {
    "NASTY_001/NASTY_001_names//UNFIT/back\\slash.txt": "unsafe-name",
    "NASTY_001/NASTY_001_names//UNFIT/C:/drive.txt": "unsafe-name",
    "NASTY_001/NASTY_001_names//UNFIT/notes_catalog.xml": "catalog-name",
}


@pytest.mark.parametrize("dicom", ["copy", "import"])
async def test_what_has_ever_broken_a_transfer_arrives_or_is_named(
    nasty: Bench, dicom: Dicom
) -> None:
    nasty.there.store.create_project("NASTY2")

    report = await nasty.transfer("NASTY", dicom=dicom)

    here, there = (account(one, "NASTY") for one in (nasty.here, nasty.there))
    named = {one.key.removeprefix("resources/"): one.code for one in report.left}
    lost = {name.partition("//")[2].replace("/", "/files/", 1): LOST[name] for name in LOST}
    theirs = {"subjects/GUEST": "shared-in", "subjects/GUEST/sessions/GUEST_CT1": "shared-in"}
    assert (report.problems, report.retries, named) == ((), 0, lost | theirs)
    for name in LOST:
        here.pop(name)
    if dicom == "import":
        here, there = without_dicom(here), without_dicom(there)
    assert len(here) > 100
    differ = differing(here, there)
    if dicom == "import":
        # What the destination read from the headers is there where the source says nothing.
        differ = {place: both for place, both in differ.items() if both[0] is not None}
    assert differ == {}
    assert instances_of(nasty.sink, "NASTY") == instances_of(nasty.source, "NASTY")
    assert leftovers(nasty.sink) == []
    assert "a second resource called TWICE is resources/TWICE_2 at the destination" in [
        one.text for one in report.remarks
    ]


async def test_people_are_matched_by_name_and_made_where_they_are_missing(
    everything: Bench,
) -> None:
    await everything.transfer(dicom="copy")
    await everything.transfer(dicom="copy")

    people = everything.there.store.records("investigator").values()
    assert sorted(str(one["lastname"]) for one in people) == ["Second", "investigator"]


async def test_what_is_edited_of_a_project_that_a_run_made_arrives_with_the_next_run(
    everything: Bench,
) -> None:
    await everything.transfer(dicom="copy")
    store = everything.here.store
    project = store.find_project("DEMO")
    assert project is not None
    element = project.element()
    for node in element.iter():
        if node.tag.endswith("}description"):
            node.text = "another description"
    store.update(project, element=element)
    session = store.find_experiment("DEMO_001_MR1", project)
    assert session is not None
    store.set_record("custom-fields", str(session.id), {"name": "edited"})

    report = await everything.transfer(dicom="copy")

    assert report.exit_code == 0
    there = account(everything.there, "DEMO")
    assert there["project"]["fields"]["description"] == "another description"
    assert there["custom fields"]["experiment DEMO_001_MR1"]["name"] == "edited"


async def test_what_a_project_says_that_was_there_before_stays_and_is_named(
    everything: Bench,
) -> None:
    everything.there.store.create_project("DEMO", fields={"description": "theirs"})

    report = await everything.transfer(dicom="copy")

    there = account(everything.there, "DEMO")
    assert report.exit_code == 0
    assert there["project"]["fields"]["description"] == "theirs"
    assert "project DEMO" not in there["custom fields"]
    (note,) = [
        note
        for event in everything.events
        if type(event).__name__ == "UnitDone" and event.outcome.key == "project"  # type: ignore[attr-defined]
        for note in event.outcome.notes  # type: ignore[attr-defined]
    ]
    assert "stay as they are here (--settings copies)" in note

    await everything.transfer(dicom="copy", settings=True)
    there = account(everything.there, "DEMO")
    assert there["project"]["fields"]["description"].startswith("Phantoms")
