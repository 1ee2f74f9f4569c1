"""Links and clocks that fail, listings that lie, runs that meet: judged by the folders on disk."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from tests.faults.children import servers
from tests.faults.judge import (
    Judgement,
    Mode,
    Record,
    account,
    judge,
    open_runs,
    unit_statuses,
)
from tests.integration.conftest import QUICK_SANDBOX, Bench, seeded_root
from xnatctl.engine.events import ItemDone, RunDone
from xnatctl.engine.types import Rule, Selection
from xnatctl.model import Ref
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.store import Store

SESSIONS = ("DEMO_002_CT1", "DEMO_003_US1")
OWNERS = (*SESSIONS, "DEMO_002", "DEMO_003", "")
SAMPLED = pytest.mark.parametrize("mode", [pytest.param("import", marks=pytest.mark.long), "copy"])
PART = Selection(Ref("DEMO"), rules=(Rule("session", SESSIONS),))


def look(bench: Bench, mode: Mode) -> Judgement:
    return judge(bench.source, bench.sink, "DEMO", mode=mode, owners=OWNERS)


@pytest.mark.fault("link blacked out")
@SAMPLED
@pytest.mark.parametrize("end", [pytest.param("here", marks=pytest.mark.long), "there"])
async def test_a_link_that_is_gone_for_a_while_costs_time_alone(
    demo: Bench, mode: Mode, end: str, record_property: Record
) -> None:
    sandbox = demo.here if end == "here" else demo.there

    begun = anyio.Event()
    demo.watchers.append(lambda event: begun.set() if isinstance(event, ItemDone) else None)

    async def black_out() -> None:
        await begun.wait()
        number = sandbox.faults.add(Fault("* *", "reset", nth=1, times=0))
        sandbox.faults.add(Fault("GET *", "lose-answer", nth=1, times=6))
        await anyio.sleep(0.1)
        sandbox.faults.remove(number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(black_out)
        first = await demo.transfer(dicom=mode, selection=PART)
        tasks.cancel_scope.cancel()
    sandbox.faults.clear()
    claimed = first.exit_code == 0 and not look(demo, mode).is_whole
    second = await demo.transfer(dicom=mode, selection=PART)
    found = look(demo, mode)
    account(record_property, found, claims=[claimed])
    assert not claimed
    assert second.exit_code == 0, second.problems
    assert found.is_whole


@pytest.mark.fault("server busy, with or without Retry-After")
async def test_an_import_waits_for_a_busy_server_longer_than_its_tries_would_last(
    demo: Bench, record_property: Record
) -> None:
    demo.there.faults.add(Fault("POST */services/import*", "status", nth=1, times=7))

    report = await demo.transfer(dicom="import", selection=PART)

    found = look(demo, "import")
    account(record_property, found, claims=[report.exit_code == 0 and not found.is_whole])
    assert demo.there.faults.unused() == []
    assert report.exit_code == 0, report.problems
    assert found.is_whole


@pytest.mark.fault("clock jumps")
@SAMPLED
async def test_clocks_that_jump_by_an_hour_change_nothing(
    demo: Bench, mode: Mode, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    jumps, plain = random.Random(5), time.time
    monkeypatch.setattr(time, "time", lambda: plain() + jumps.choice([-3600.0, 0.0, 3600.0]))

    began = time.monotonic()
    report = await demo.transfer(dicom=mode, selection=PART)
    again = await demo.transfer(dicom=mode, selection=PART)

    found = look(demo, mode)
    account(record_property, found, claims=[report.exit_code == 0 and not found.is_whole])
    assert report.exit_code == again.exit_code == 0, report.problems
    assert found.is_whole
    assert again.files == 0
    assert 0 < report.seconds < time.monotonic() - began


@pytest.mark.fault("listing without digests, or with wrong ones")
@pytest.mark.parametrize("end", [pytest.param("here", marks=pytest.mark.long), "there"])
async def test_without_digests_sizes_are_compared_and_the_report_says_so(
    seeds: Path, tmp_path: Path, end: str, record_property: Record
) -> None:
    root = await seeded_root(seeds, "demo", tmp_path / "here")
    silent = replace(QUICK_SANDBOX, checksums=False)
    async with (
        Sandbox(root, settings=silent if end == "here" else QUICK_SANDBOX) as here,
        Sandbox(tmp_path / "there", settings=silent if end == "there" else QUICK_SANDBOX) as there,
    ):
        bench = Bench(here, there, tmp_path)
        report = await bench.transfer(dicom="copy", selection=PART)
        again = await bench.transfer(dicom="copy", selection=PART)
    found = look(bench, "copy")
    account(record_property, found)
    assert report.exit_code == again.exit_code == 0, report.problems
    assert found.is_whole
    assert again.files == 0
    assert report.verified.get("size", 0) > 0
    assert report.verified.get("digest", 0) == 0


@pytest.mark.fault("listing without digests, or with wrong ones")
async def test_a_catalog_that_does_not_describe_its_file_is_named_and_nothing_is_claimed(
    demo: Bench, record_property: Record
) -> None:
    victim = next(path for path in demo.source.rglob("DEMO_002_CT1/**/*.json"))
    victim.write_bytes(victim.read_bytes()[::-1])  # the catalog keeps its digest

    report = await demo.transfer(dicom="copy", selection=PART)

    found = look(demo, "copy")
    record_property("false_success", int(report.exit_code == 0))
    assert report.exit_code == 8
    (problem,) = report.problems
    assert victim.name in problem.error
    assert found.lost == 1  # the one that nobody can vouch for; everything else is there
    assert found.doubled == 0


@pytest.mark.fault("same thing created twice")
@SAMPLED
async def test_what_is_created_by_another_at_the_same_time_is_there_once(
    demo: Bench, mode: Mode, record_property: Record
) -> None:
    """Creations whose first answer is lost, or that somebody else made just before."""
    for pattern in ("PUT */projects/DEMO?*", "PUT */subjects/DEMO_002*", "PUT */resources/*"):
        demo.there.faults.add(Fault(pattern, "lose-answer", nth=1))
    demo.there.store.create_subject(demo.there.store.create_project("DEMO"), "DEMO_003")

    first = await demo.transfer(dicom=mode, selection=PART)
    demo.there.faults.clear()
    second = await demo.transfer(dicom=mode, selection=PART)

    found = look(demo, mode)
    account(record_property, found, claims=[first.exit_code == 0 and not found.is_whole])
    assert second.exit_code == 0, second.problems
    assert found.is_whole
    project = demo.there.store.find_project("DEMO")
    assert project is not None
    labels = [one.label for one in demo.there.store.children(project, "subject")]
    assert sorted(labels) == ["DEMO_002", "DEMO_003"]


@pytest.mark.fault("listed file is gone")
@SAMPLED
async def test_a_file_that_is_listed_and_gone_is_said_and_the_rest_arrives(
    demo: Bench, mode: Mode, record_property: Record
) -> None:
    victim = next(path for path in demo.source.rglob("DEMO_002_CT1/**/*.json"))
    lost = victim.read_bytes()
    victim.unlink()

    first = await demo.transfer(dicom=mode, selection=PART)
    found = look(demo, mode)
    account(record_property, found)
    record_property("false_success", int(first.exit_code == 0))
    assert first.exit_code != 0
    assert found == Judgement(0, 0, 0)  # all that the source still has
    assert any(victim.name in one.key for one in first.left)

    victim.write_bytes(lost)
    second = await demo.transfer(dicom=mode, selection=PART)
    assert second.exit_code == 0, second.problems
    assert look(demo, mode).is_whole


@pytest.mark.fault("source changes during a run")
@SAMPLED
async def test_a_file_that_changes_while_it_is_carried_is_never_a_mixture(
    demo: Bench, mode: Mode, record_property: Record
) -> None:
    """Its bytes change after it was listed; the catalog follows after the run."""
    victim = next(path for path in demo.source.rglob("DEMO_002_CT1/**/*.json"))
    plain = victim.read_bytes()

    def change(event: object) -> None:
        if not isinstance(event, RunDone):
            victim.write_bytes(b"x" * len(plain))

    demo.watchers.append(change)
    first = await demo.transfer(dicom=mode, selection=PART)
    there = [path.read_bytes() for path in demo.sink.rglob(victim.name)]
    record_property("false_success", int(first.exit_code == 0))
    assert first.exit_code != 0
    assert all(body == plain for body in there)

    demo.watchers.clear()
    victim.write_bytes(plain)
    second = await demo.transfer(dicom=mode, selection=PART)
    found = look(demo, mode)
    account(record_property, found)
    assert second.exit_code == 0, second.problems
    assert found.is_whole


# --- processes -------------------------------------------------------------------------------


@pytest.mark.fault("two runs over the same ends")
def test_a_second_run_over_the_same_ends_ends_with_9_and_harms_nothing(
    tmp_path: Path, record_property: Record
) -> None:
    with servers(tmp_path) as ends:
        ends.there.faults.add(Fault("PUT */files/*", "latency", nth=1, seconds=1.0))
        first = ends.start("--dicom", "copy", "--session", "DEMO_002_CT1")
        until = time.monotonic() + 60
        while ends.there.faults.unused() and time.monotonic() < until:
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # it holds its lock for as long as we like
        second = ends.start("--dicom", "copy", "--session", "DEMO_002_CT1")
        _, err = second.communicate(timeout=60)
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate(timeout=60)

        owners = ("DEMO_002_CT1", "DEMO_002", "")
        found = judge(tmp_path / "here", tmp_path / "there", "DEMO", mode="copy", owners=owners)
        account(record_property, found)
        assert second.returncode == 9, err
        assert "another run" in err
        assert first.returncode == 0, said
        assert found.is_whole
        assert unit_statuses(ends.state) == {"done"}
        assert open_runs(ends.state) == 0


def large(store: Store) -> None:
    seed(store, "large:1x1x4x5@8M")


@pytest.mark.long
@pytest.mark.fault("destination much slower than source")
def test_a_destination_that_is_slow_holds_the_source_back_and_memory_stays_small(
    tmp_path: Path,
) -> None:
    with servers(tmp_path, large) as ends:
        ends.there.faults.add(Fault("PUT */files/*", "bandwidth", rate=25_000_000))
        run = ends.start("--dicom", "copy", "-w", "16", project="LARGE")
        peak = highest(run.pid)
        while run.poll() is None:
            peak = max(peak, highest(run.pid))
            time.sleep(0.02)
        _, err = run.communicate()
        sizes = [one.stat().st_size for one in (tmp_path / "there/archive").rglob("*.dat")]
        assert run.returncode == 0, err
        assert sizes == [8_000_000] * 20
        assert 0 < peak < 200_000_000


def highest(pid: int) -> int:
    """The most memory a process has had, in bytes; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int((text.partition("VmHWM:")[2].split() or ["0"])[0]) * 1024
