"""What 0.6.0 took for success: cut archives, login pages, archives that lack files, lost scans.

Each recovers when it happens once. When it happens always the command fails, and nothing stands
under its final name that is not whole.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.conftest import Bench, connect
from tests.integration.oracle import files_of
from xnatctl import routes
from xnatctl.engine.types import Report, Rule, Selection
from xnatctl.model import Ref
from xnatctl.sandbox.faults import Fault

SESSION = "DEMO_001_MR1"
ZIPS, FILES = "GET */files?*format=zip*", "GET */files/*"


def at_server(bench: Bench, resource: str = "") -> list[str]:
    found = [one for one in files_of(bench.source, "DEMO") if one[0] == SESSION]
    return sorted(
        one[4]
        for one in found
        if one[1].startswith("SCANS") and f"{one[1][6:]}/{one[2]}".startswith(resource)
    )


def whole(bench: Bench, out: Path) -> list[str]:
    """MD5s of all that stands under a final name; every one of them has to be the server's."""
    found = []
    for path in out.rglob("*"):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                found += [hashlib.md5(archive.read(one)).hexdigest() for one in archive.namelist()]
        elif path.is_file():
            assert not path.name.endswith(".part")
            found.append(hashlib.md5(path.read_bytes()).hexdigest())
    assert set(found) <= set(at_server(bench))
    return sorted(found)


async def fetch(bench: Bench, out: Path, how: str, *rules: Rule) -> Report:
    selection = Selection(Ref("DEMO", session=SESSION), rules, levels=frozenset({"scans"}))

    def place(unit: object, key: str) -> str:
        return key

    into: routes.Folder | routes.Zip = routes.Folder(out, place)
    if how == "zip":
        into = routes.Zip(out / "scans.zip", place)
    async with bench.desk("download") as desk, connect(bench.here) as source:
        return await routes.download(desk, source, selection, into=into)


async def made_good(bench: Bench, out: Path, how: str, fault: Fault) -> None:
    """What goes wrong once costs an attempt and nothing else."""
    bench.here.faults.add(replace(fault, nth=1))

    report = await fetch(bench, out, how)

    assert bench.here.faults.unused() == []
    assert report.exit_code == 0, report.problems
    assert whole(bench, out) == at_server(bench)


async def refused(bench: Bench, out: Path, how: str, *faults: Fault) -> None:
    """What goes wrong always ends the command with a failure, and nothing has a final name that is
    not whole; when the server is well again the same command brings it.
    """
    for fault in faults:
        bench.here.faults.add(fault)
    one = (Rule("scan", ("2",)), Rule("resource", ("NIFTI",)))

    report = await fetch(bench, out, how, *one)

    assert report.exit_code != 0
    assert report.problems or report.left
    found = whole(bench, out)
    assert found != at_server(bench, "2/NIFTI")
    if how == "zip":
        assert found == []
    bench.here.faults.clear()
    again = await fetch(bench, out, how, *one)
    assert again.exit_code == 0
    assert whole(bench, out) == at_server(bench, "2/NIFTI")


both = pytest.mark.parametrize("how", ["tree", "zip"])


@both
async def test_an_archive_that_is_cut_is_asked_for_again(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    await made_good(demo, tmp_path / "out", how, Fault(ZIPS, "cut", at=5000))


@both
async def test_a_connection_that_is_reset_is_made_again(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    await made_good(demo, tmp_path / "out", how, Fault(ZIPS, "reset", at=5000))


@both
async def test_bodies_that_are_always_cut_are_a_failure_and_leave_nothing(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    cut = (Fault(ZIPS, "cut", at=5000), Fault(FILES, "cut", at=100))
    await refused(demo, tmp_path / "out", how, *cut)


@both
async def test_a_login_page_with_status_200_is_no_archive(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    await made_good(demo, tmp_path / "out", how, Fault(ZIPS, "login-page"))


@both
async def test_login_pages_for_everything_are_a_failure_and_leave_nothing(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    pages = (Fault(ZIPS, "login-page"), Fault(FILES, "login-page"))
    await refused(demo, tmp_path / "out", how, *pages)


@both
async def test_a_login_that_ends_in_the_middle_is_made_again(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    await made_good(demo, tmp_path / "out", how, Fault(ZIPS, "expire-login"))


@both
async def test_an_archive_that_lacks_a_file_is_asked_for_again(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    await made_good(demo, tmp_path / "out", how, Fault(ZIPS, "short-archive"))


@both
async def test_files_that_no_archive_has_are_fetched_one_by_one(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    demo.here.faults.add(Fault(ZIPS, "short-archive"))

    report = await fetch(demo, tmp_path / "out", how)

    assert report.exit_code == 0, report.problems
    assert whole(demo, tmp_path / "out") == at_server(demo)


@both
async def test_a_scan_that_answers_404_is_a_failure_and_the_others_arrive(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    for match in ("GET */scans/2/*/files?*format=zip*", "GET */scans/2/*/files/*"):
        demo.here.faults.add(Fault(match, "status", status=404))

    report = await fetch(demo, tmp_path / "out", how)

    assert report.exit_code != 0
    named = [one.key for one in report.left] + [one.error for one in report.problems]
    assert any("scans/2/" in one for one in named)
    there = sorted((Counter(at_server(demo)) - Counter(at_server(demo, "2/"))).elements())
    assert whole(demo, tmp_path / "out") == (there if how == "tree" else [])


@both
async def test_a_server_that_is_busy_is_asked_again(demo: Bench, tmp_path: Path, how: str) -> None:
    await made_good(demo, tmp_path / "out", how, Fault(ZIPS, "status", status=503))


@both
async def test_one_flipped_bit_is_found(demo: Bench, tmp_path: Path, how: str) -> None:
    await made_good(demo, tmp_path / "out", how, Fault(ZIPS, "flip", at=3000))


@both
async def test_bits_that_are_always_flipped_are_a_failure_and_leave_nothing(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    flips = (Fault(ZIPS, "flip", at=3000), Fault(FILES, "flip", at=50))
    await refused(demo, tmp_path / "out", how, *flips)


@both
async def test_a_second_download_moves_nothing_and_renames_nothing(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    await fetch(demo, tmp_path / "out", how)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    report = await fetch(demo, tmp_path / "out", how)

    assert (report.exit_code, report.files) == (0, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


@both
async def test_a_download_goes_on_after_a_failure_and_doubles_nothing(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    for match in ("GET */scans/3/*/files?*format=zip*", "GET */scans/3/*/files/*"):
        demo.here.faults.add(Fault(match, "cut", at=100))
    failed = await fetch(demo, tmp_path / "out", how)
    assert failed.exit_code != 0
    assert bool(whole(demo, tmp_path / "out")) == (how == "tree")
    demo.here.faults.clear()

    assert (await fetch(demo, tmp_path / "out", how)).exit_code == 0
    assert whole(demo, tmp_path / "out") == at_server(demo)


@both
async def test_files_whose_names_begin_with_a_dot_arrive(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    store = demo.here.store
    project = store.find_project("DEMO")
    assert project is not None
    session = store.find_experiment(SESSION, project)
    assert session is not None
    scan = store.find_child(session, "scan", "2")
    assert scan is not None
    resource = next(one for one in store.resources(scan) if one.label == "NIFTI")
    store.add_file(resource, ".bidsignore", b"hidden, and wanted")
    store.add_file(resource, ".hidden/.deep", b"hidden deeper")

    assert (await fetch(demo, tmp_path / "out", how)).exit_code == 0
    found = whole(demo, tmp_path / "out")
    assert found == at_server(demo)
    assert hashlib.md5(b"hidden deeper").hexdigest() in found
