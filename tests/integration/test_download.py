"""Downloads judged by what lies on disk: trees, archives, single resources, odd names."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from tests.integration.conftest import Bench, connect
from tests.integration.oracle import files_of
from xnatctl import routes
from xnatctl.engine.events import ItemDone
from xnatctl.engine.types import Report, Selection
from xnatctl.model import Ref

SESSION = "DEMO_001_MR1"


def in_session(unit: object, key: str) -> str:
    return f"{SESSION}/{key}"


async def zipped(bench: Bench, out: Path, *, overwrite: bool = False) -> Report:
    selection = Selection(Ref("DEMO", session=SESSION), levels=frozenset({"scans"}))
    async with (
        bench.desk("download", overwrite=overwrite) as desk,
        connect(bench.here) as source,
    ):
        into = routes.Zip(out / "scans.zip", in_session)
        return await routes.download(desk, source, selection, into=into)


async def resource(bench: Bench, ref: Ref, into: routes.Folder | routes.Zip) -> Report:
    async with bench.desk("download") as desk, connect(bench.here) as source:
        return await routes.download(desk, source, Selection(ref), into=into)


def scan_files(root: Path) -> set[tuple[str, str, str]]:
    """Scan, resource and path of what the server has of the session's scans."""
    return {
        (one[1].rpartition("/")[2], one[2], one[3])
        for one in files_of(root, "DEMO")
        if one[0] == SESSION and one[1].startswith("SCANS")
    }


def files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def members(path: Path) -> set[tuple[str, str, str]]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        parts = [name.split("/") for name in archive.namelist()]
    assert {one[0] for one in parts} == {SESSION}
    return {(one[2], one[4], "/".join(one[6:])) for one in parts}


async def test_an_archive_holds_every_file_once_and_other_tools_can_read_it(
    demo: Bench, tmp_path: Path
) -> None:
    report = await zipped(demo, tmp_path / "out")

    assert (report.exit_code, report.units_done) == (0, 1)
    assert members(tmp_path / "out" / "scans.zip") == scan_files(demo.source)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scans.zip"]
    if tool := shutil.which("unzip"):
        await anyio.run_process([tool, "-tqq", str(tmp_path / "out" / "scans.zip")])


async def test_a_second_archive_is_not_made_and_reads_no_file_at_the_server(
    demo: Bench, tmp_path: Path
) -> None:
    first = await zipped(demo, tmp_path)
    before = (tmp_path / "scans.zip").stat()
    demo.events.clear()

    second = await zipped(demo, tmp_path)

    assert (second.exit_code, second.files, second.files_kept) == (0, 0, first.files)
    assert (tmp_path / "scans.zip").stat().st_mtime_ns == before.st_mtime_ns
    assert not [one for one in demo.events if isinstance(one, ItemDone)]


async def test_an_archive_that_holds_something_else_stays_until_it_may_be_overwritten(
    demo: Bench, tmp_path: Path
) -> None:
    (tmp_path / "scans.zip").write_bytes(b"mine")

    refused = await zipped(demo, tmp_path)
    assert refused.exit_code == 1
    assert "holds something else" in refused.problems[0].error
    assert (tmp_path / "scans.zip").read_bytes() == b"mine"

    replaced = await zipped(demo, tmp_path, overwrite=True)
    assert replaced.exit_code == 0
    assert members(tmp_path / "scans.zip") == scan_files(demo.source)


async def test_an_archive_that_lacks_a_file_gets_no_name(
    demo: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = next(demo.source.rglob("DEMO_001_MR1/SCANS/2/NIFTI/*.json"))
    lost.unlink()

    report = await zipped(demo, tmp_path / "out")

    assert report.exit_code != 0
    assert list((tmp_path / "out").iterdir()) == []


async def test_a_resource_of_each_level_arrives_as_files_and_as_an_archive(
    demo: Bench, tmp_path: Path
) -> None:
    async with connect(demo.here) as xnat:
        session = await xnat.resolve_session(SESSION, "DEMO")
    here = Ref("DEMO", "DEMO_001", SESSION, session.id)
    for number, (ref, names) in enumerate(
        [
            (Ref("DEMO"), {"docs": 3}),
            (Ref("DEMO", "DEMO_001"), {"consent": 2}),
            (here, {"PHYSIO": 2}),
            (here.at("scans", "2"), {"NIFTI": 2}),
            (here.at("assessors", f"{SESSION}_QC1", "out"), {"REPORT": 3}),
            (here.at("reconstructions", "T1_mean", "out"), {"NIFTI": 1}),
        ]
    ):
        ((label, count),) = names.items()
        tree = tmp_path / f"tree{number}"
        place = lambda unit, key: key.partition("/files/")[2]  # noqa: E731
        report = await resource(demo, ref.in_resource(label), routes.Folder(tree, place))
        assert (report.exit_code, report.files) == (0, count), ref
        archive = tmp_path / f"{number}.zip"
        report = await resource(demo, ref.in_resource(label), routes.Zip(archive, place))
        assert (report.exit_code, report.files) == (0, count), ref
        with zipfile.ZipFile(archive) as found:
            assert {name: found.read(name) for name in found.namelist()} == {
                path.relative_to(tree).as_posix(): path.read_bytes() for path in files_below(tree)
            }


@pytest.fixture
async def odd(nasty: Bench) -> AsyncIterator[Bench]:
    yield nasty


async def test_odd_names_arrive_under_their_own_names(odd: Bench, tmp_path: Path) -> None:
    async with odd.desk("download") as desk, connect(odd.here) as source:
        into = routes.Folder(tmp_path / "out", lambda unit, key: f"{unit.label}/{key}")
        report = await routes.download(desk, source, Selection(Ref("NASTY")), into=into)

    lost = {one.key.rpartition("/files/")[2] for one in report.left if "/files/" in one.key}
    there = {path.as_posix().partition("/files/")[2] for path in files_below(tmp_path / "out")}
    here = {one[3] for one in files_of(odd.source, "NASTY") if one[0] and one[1] != "subject"}
    assert report.units_failed == 0
    # The sandbox keeps two of them under other names on its own disk.
    assert "percent%20sign.txt" in there
    assert {n for n in there if not is_renamed(n)} == {n for n in here - lost if not is_renamed(n)}
    assert len(there) == len(here - lost)


def is_renamed(name: str) -> bool:
    return "%" in name or "ü" in name
