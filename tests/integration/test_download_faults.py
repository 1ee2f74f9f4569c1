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


both = pytest.mark.parametrize("how", ["tree", "zip"])
ONCE = {
    "an archive that is cut": Fault(ZIPS, "cut", at=5000),
    "a connection that is reset": Fault(ZIPS, "reset", at=5000),
    "a login page with status 200": Fault(ZIPS, "login-page"),
    "a login that ends in the middle": Fault(ZIPS, "expire-login"),
    "an archive that lacks a file": Fault(ZIPS, "short-archive"),
    "a server that is busy": Fault(ZIPS, "status", status=503),
    "one flipped bit": Fault(ZIPS, "flip", at=3000),
}
ALWAYS = {
    "cut bodies": (Fault(ZIPS, "cut", at=5000), Fault(FILES, "cut", at=100)),
    "login pages": (Fault(ZIPS, "login-page"), Fault(FILES, "login-page")),
    "flipped bits": (Fault(ZIPS, "flip", at=3000), Fault(FILES, "flip", at=50)),
}


@both
@pytest.mark.parametrize("what", ONCE)
async def test_what_goes_wrong_once_costs_an_attempt_and_nothing_else(
    demo: Bench, tmp_path: Path, how: str, what: str
) -> None:
    demo.here.faults.add(replace(ONCE[what], nth=1))

    report = await fetch(demo, tmp_path / "out", how)

    assert demo.here.faults.unused() == []
    assert report.exit_code == 0, report.problems
    assert whole(demo, tmp_path / "out") == at_server(demo)


@both
@pytest.mark.parametrize("what", ALWAYS)
async def test_what_goes_wrong_always_is_a_failure_leaves_nothing_and_recovers(
    demo: Bench, tmp_path: Path, how: str, what: str
) -> None:
    out = tmp_path / "out"
    for fault in ALWAYS[what]:
        demo.here.faults.add(fault)
    one = (Rule("scan", ("2",)), Rule("resource", ("NIFTI",)))

    report = await fetch(demo, out, how, *one)

    assert report.exit_code != 0
    assert report.problems or report.left
    found = whole(demo, out)
    assert found != at_server(demo, "2/NIFTI")
    if how == "zip":
        assert found == []
    demo.here.faults.clear()
    assert (await fetch(demo, out, how, *one)).exit_code == 0
    assert whole(demo, out) == at_server(demo, "2/NIFTI")


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
