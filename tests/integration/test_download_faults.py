"""What 0.6.0 took for success: cut archives, login pages, archives that lack files, lost scans.

Each recovers when it happens once. When it happens always the command fails, and nothing stands
under its final name that is not whole.
"""

from __future__ import annotations

import hashlib
import zipfile
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

ONCE = [
    Fault(ZIPS, "cut", nth=1, at=5000),
    Fault(ZIPS, "reset", nth=1, at=5000),
    Fault(ZIPS, "login-page", nth=1),
    Fault(ZIPS, "short-archive", nth=1),
    Fault(ZIPS, "status", nth=1, status=503),
    Fault(ZIPS, "status", nth=1, status=404),
    Fault(ZIPS, "flip", nth=1, at=3000),
    Fault(ZIPS, "expire-login", nth=1),
]
ALWAYS = [
    (Fault(ZIPS, "cut", at=5000), Fault(FILES, "cut", at=100)),
    (Fault(ZIPS, "login-page"), Fault(FILES, "login-page")),
    (Fault(ZIPS, "flip", at=3000), Fault(FILES, "flip", at=50)),
    (Fault(ZIPS, "status", status=404), Fault(FILES, "status", status=404)),
]


def name(value: object) -> str:
    fault = value[0] if isinstance(value, tuple) else value
    assert isinstance(fault, Fault)
    return f"{fault.kind}-{fault.status}-{'zip' if fault.match == ZIPS else 'file'}"


def at_server(bench: Bench, resource: str = "") -> list[str]:
    found = [one for one in files_of(bench.source, "DEMO") if one[0] == SESSION]
    return sorted(
        one[4]
        for one in found
        if one[1].startswith("SCANS") and resource in ("", f"{one[1][6:]}/{one[2]}")
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


@pytest.mark.parametrize("how", ["tree", "zip"])
@pytest.mark.parametrize("fault", ONCE, ids=name)
async def test_what_goes_wrong_once_is_made_good(
    demo: Bench, tmp_path: Path, fault: Fault, how: str
) -> None:
    demo.here.faults.add(fault)

    report = await fetch(demo, tmp_path / "out", how)

    assert demo.here.faults.unused() == []
    if (fault.kind, fault.status) == ("status", 404):
        # What is listed and not there is gone: it is said at once, and a later run brings it.
        assert report.exit_code != 0
        demo.here.faults.clear()
        report = await fetch(demo, tmp_path / "out", how)
    assert report.exit_code == 0, report.problems
    assert whole(demo, tmp_path / "out") == at_server(demo)


@pytest.mark.parametrize("how", ["tree", "zip"])
@pytest.mark.parametrize("faults", ALWAYS, ids=name)
async def test_what_goes_wrong_always_fails_and_leaves_nothing_that_is_not_whole(
    demo: Bench, tmp_path: Path, faults: tuple[Fault, ...], how: str
) -> None:
    for fault in faults:
        demo.here.faults.add(fault)

    one = (Rule("scan", ("2",)), Rule("resource", ("NIFTI",)))

    report = await fetch(demo, tmp_path / "out", how, *one)

    assert report.exit_code != 0
    assert report.problems or report.left
    found = whole(demo, tmp_path / "out")
    assert found != at_server(demo, "2/NIFTI")
    if how == "zip":
        assert found == []
    demo.here.faults.clear()
    again = await fetch(demo, tmp_path / "out", how, *one)
    assert again.exit_code == 0
    assert whole(demo, tmp_path / "out") == at_server(demo, "2/NIFTI")


@pytest.mark.parametrize("how", ["tree", "zip"])
async def test_files_that_no_archive_has_are_fetched_one_by_one(
    demo: Bench, tmp_path: Path, how: str
) -> None:
    demo.here.faults.add(Fault(ZIPS, "short-archive"))

    report = await fetch(demo, tmp_path / "out", how)

    assert report.exit_code == 0, report.problems
    assert whole(demo, tmp_path / "out") == at_server(demo)
