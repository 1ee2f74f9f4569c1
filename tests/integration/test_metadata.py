"""What is not a file: every document at the destination says what the source's says."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.integration.conftest import Bench, connect
from tests.integration.oracle import files_of
from xnatctl.engine.events import UnitDone
from xnatctl.model import Dicom
from xnatctl.xnat.client import Xnat

XNAT = "{http://nrg.wustl.edu/xnat}"
OF_ONE_SERVER = {"ID", "project", "xnat_abstractresource_id"}
ELSEWHERE = {
    f"{XNAT}{name}"
    for name in (
        "subject_ID",
        "image_session_ID",
        "imageSession_ID",
        "sharing",
        "resources",
        "file",
        "in",
        "out",
        "experiments",
        "prearchivePath",
    )
}


def said(xml: bytes) -> str:
    """A document without what one server gives it: IDs, files, references."""
    root = ElementTree.fromstring(xml)
    for node in list(root.iter()):
        for child in [one for one in node if one.tag in ELSEWHERE]:
            node.remove(child)
    scans = {id(node) for node in root.iter(f"{XNAT}scan")}
    for node in root.iter():
        for name in OF_ONE_SERVER & set(node.attrib):
            if not (name == "ID" and id(node) in scans):
                del node.attrib[name]
        node[:] = sorted(node, key=lambda one: (one.tag, sorted(one.attrib.items())))
    text = ElementTree.tostring(root, encoding="unicode")
    return ElementTree.canonicalize(text, strip_text=True, rewrite_prefixes=True)


async def documents(xnat: Xnat, project: str) -> dict[str, str]:
    """What every document of a project says, by labels."""
    found = {"project": said(await xnat.xml(f"/data/projects/{project}"))}
    for subject in await xnat.list_subjects(project):
        path = f"/data/projects/{project}/subjects/{subject.label}"
        found[subject.label] = said(await xnat.xml(path))
    for one in await xnat.list_experiments(project):
        found[one.label] = said(await xnat.xml(f"/data/experiments/{one.id}"))
    return found


async def both(bench: Bench, project: str) -> tuple[dict[str, str], dict[str, str]]:
    async with connect(bench.here) as source, connect(bench.there) as sink:
        return await documents(source, project), await documents(sink, project)


async def test_every_document_of_a_copied_project_says_the_same(demo: Bench) -> None:
    await demo.transfer(dicom="copy")

    here, there = await both(demo, "DEMO")

    assert there.keys() == here.keys()
    for label, text in here.items():
        assert there[label] == text, label


@pytest.mark.parametrize("mode", ["copy", "import"])
async def test_foreign_types_twins_and_odd_labels_say_the_same(nasty: Bench, mode: Dicom) -> None:
    await nasty.transfer("NASTY", dicom=mode)

    here, there = await both(nasty, "NASTY")

    theirs = {"GUEST", "GUEST_CT1"}
    assert there.keys() == here.keys() - theirs
    for label, text in there.items():
        if mode == "copy" or ":scan " not in text:
            assert text == here[label], label


async def test_an_imported_session_keeps_its_fields_and_those_of_its_scans(demo: Bench) -> None:
    await demo.transfer(dicom="import")

    async with connect(demo.here) as source, connect(demo.there) as sink:
        for one in await source.list_experiments("DEMO"):
            if not one.is_imaging:
                continue
            mine = await source.get_session(one.id)
            found = await sink.resolve_session(one.label, "DEMO")
            theirs = await sink.get_session(found.id)
            assert theirs.fields == mine.fields
            assert (theirs.visit, theirs.uid) == (mine.visit, mine.uid)
            for left, right in zip(mine.scans, theirs.scans, strict=True):
                kept = ("id", "type", "uid", "quality", "note", "series_description", "xsi_type")
                assert [getattr(right, name) for name in kept] == [
                    getattr(left, name) for name in kept
                ]


async def test_what_an_import_cannot_keep_goes_by_copy_and_the_run_says_so(nasty: Bench) -> None:
    report = await nasty.transfer("NASTY", dicom="import")

    mine, theirs = files_of(nasty.source, "NASTY"), files_of(nasty.sink, "NASTY")
    notes = [
        note
        for event in nasty.events
        if isinstance(event, UnitDone)
        for note in event.outcome.notes
    ]
    by_copy = {note.split()[1] for note in notes if "goes by copy" in note}
    assert by_copy == {"1-MR1", "4.2", "UPPER_lower", "9", "12", "14", "99"}
    assert report.units_failed == 0
    # Scan 14 has two resources called DICOM: the first is imported, the second is copied beside it.
    for place in {f"SCANS/{scan}" for scan in by_copy - {"14"}}:
        kept = {one for one in theirs if one[1] == place}
        assert kept == {one for one in mine if one[1] == place}
