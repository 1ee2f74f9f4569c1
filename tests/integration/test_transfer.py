"""`project transfer` between two servers, judged by what lies on their disks."""

from __future__ import annotations

from pathlib import Path

from tests.integration.conftest import Bench
from tests.integration.oracle import (
    files_of,
    instances_of,
    is_imported_dicom,
    leftovers,
)
from xnatctl.engine.events import ItemDone


async def test_a_copied_project_is_the_same_on_disk(demo: Bench) -> None:
    report = await demo.transfer(dicom="copy")

    assert report.exit_code == 0
    assert report.units_failed == 0
    here, there = files_of(demo.source, "DEMO"), files_of(demo.sink, "DEMO")
    assert there == here
    assert report.files == len(here)
    assert leftovers(demo.sink) == []


async def test_an_imported_project_has_every_instance_once_and_all_else_byte_for_byte(
    demo: Bench,
) -> None:
    report = await demo.transfer(dicom="import")

    assert report.exit_code == 0
    assert instances_of(demo.sink, "DEMO") == instances_of(demo.source, "DEMO")
    here = {one for one in files_of(demo.source, "DEMO") if not is_imported_dicom(one)}
    there = {one for one in files_of(demo.sink, "DEMO") if not is_imported_dicom(one)}
    assert there == here
    assert leftovers(demo.sink) == []


async def test_a_second_run_moves_nothing(demo: Bench) -> None:
    await demo.transfer(dicom="import")
    demo.events.clear()

    report = await demo.transfer(dicom="import")

    assert (report.files, report.units_done, report.exit_code) == (0, 0, 0)
    assert not [event for event in demo.events if isinstance(event, ItemDone)]


async def test_a_second_run_without_the_state_store_moves_no_file(demo: Bench) -> None:
    first = await demo.transfer(dicom="copy")
    (demo.folder / "state.db").unlink()

    report = await demo.transfer(dicom="copy")

    assert report.exit_code == 0
    assert (report.files, report.files_kept) == (0, first.files)


async def test_what_xnat_cannot_hold_is_named_and_everything_else_arrives(nasty: Bench) -> None:
    report = await nasty.transfer("NASTY", dicom="copy")

    lost = {one.key.rpartition("/files/")[2] for one in report.left if "/files/" in one.key}
    here = {one for one in files_of(nasty.source, "NASTY") if one[3] not in lost}
    there = files_of(nasty.sink, "NASTY")
    assert {(*one[:2], *one[3:]) for one in there} == {(*one[:2], *one[3:]) for one in here}
    assert {one.code for one in report.left} == {
        "catalog-name",
        "unsafe-name",
        "shared-in",
        "share-target",
    }
    assert report.exit_code == 1


async def test_a_downloaded_session_is_the_same_on_disk_and_a_second_call_moves_nothing(
    demo: Bench, tmp_path: Path
) -> None:
    first = await demo.download("DEMO_001_MR1", tmp_path / "out")
    before = _tree(tmp_path / "out")
    second = await demo.download("DEMO_001_MR1", tmp_path / "out")

    here = {
        (one[1].rpartition("/")[2], one[2], one[3])
        for one in files_of(demo.source, "DEMO")
        if one[0] == "DEMO_001_MR1" and one[1].startswith("SCANS")
    }
    scans = tmp_path / "out" / "DEMO_001_MR1" / "scans"
    there = {
        (parts[0], parts[2], "/".join(parts[4:]))
        for parts in (path.relative_to(scans).parts for path in scans.rglob("*") if path.is_file())
    }
    assert there == here
    assert first.exit_code == second.exit_code == 0
    assert (second.files, second.files_kept) == (0, first.files)
    assert _tree(tmp_path / "out") == before


async def test_a_local_file_that_differs_stays_unless_it_may_be_overwritten(
    demo: Bench, tmp_path: Path
) -> None:
    await demo.download("DEMO_001_MR1", tmp_path / "out")
    victim = next((tmp_path / "out").rglob("*.dcm"))
    victim.write_bytes(b"mine")

    kept = await demo.download("DEMO_001_MR1", tmp_path / "out")
    assert kept.exit_code == 1
    assert victim.read_bytes() == b"mine"

    replaced = await demo.download("DEMO_001_MR1", tmp_path / "out", overwrite=True)
    assert (replaced.exit_code, replaced.files) == (0, 1)
    assert victim.read_bytes() != b"mine"


def _tree(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }
