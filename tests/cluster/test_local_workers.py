"""A run by processes of this machine is the run that one process would have made."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import zlib
from dataclasses import replace

import pytest

from tests.cluster.conftest import TIMING, Bench, server
from tests.cluster.deadly import DEADLY, DeadlyCrew
from tests.cluster.processes import scheduler
from tests.cluster.processes import worker as worker_of
from tests.faults.judge import judge
from xnatctl.cluster import coordinator, members, worker
from xnatctl.cluster.coordinator import MOST_LEASES
from xnatctl.cluster.crew import open_crew, parse_spec
from xnatctl.cluster.wire import packed, unpacked, versions
from xnatctl.engine.events import Event, ItemDone, ItemStarted, Note, UnitDone, UnitPlanned
from xnatctl.engine.runner import Stop
from xnatctl.errors import AuthError, Unreachable, XnatctlError
from xnatctl.model import Dicom

pytestmark = pytest.mark.asyncio(loop_scope="module")
LONG = pytest.mark.long


async def pids(bench: Bench) -> dict[str, int]:
    found: dict[str, int] = await bench.crew.client.run(os.getpid)
    return found


def stored(bench: Bench, mode: Dicom) -> bool:
    """Whether the destination holds the source's objects, each once, and nothing else."""
    found = judge(bench.folder / "here", bench.folder / "there", "DEMO", mode=mode)
    return found.is_whole


def logins(bench: Bench) -> tuple[int, int]:
    return tuple(one.counters.count("POST", "JSESSION", 200) for one in (bench.here, bench.there))  # type: ignore[return-value]


@pytest.mark.parametrize("mode", ["import", pytest.param("copy", marks=LONG)])
async def test_two_workers_leave_what_one_process_leaves_with_one_login_each(
    bench: Bench, mode: Dicom
) -> None:
    before = logins(bench)
    report = await bench.transfer(dicom=mode)
    assert report.exit_code == 0, report.problems
    assert stored(bench, mode)
    # One for each of the two workers, and ours.
    made = [after - old for after, old in zip(logins(bench), before, strict=True)]
    assert all(2 <= count <= 3 for count in made)
    again = await bench.transfer(dicom=mode)
    assert (again.exit_code, again.files, again.files_kept) == (0, 0, report.files)


@LONG
async def test_observers_see_a_unit_planned_moved_and_done_in_this_order(bench: Bench) -> None:
    report = await bench.transfer()
    order: dict[str, list[str]] = {}
    for event in bench.events:
        if isinstance(event, UnitPlanned):
            order.setdefault(event.unit.key, []).append("planned")
        elif isinstance(event, ItemStarted | ItemDone):
            order.setdefault(event.unit, []).append("moved")
        elif isinstance(event, UnitDone):
            order.setdefault(event.outcome.key, []).append("done")
    assert all(seen[0] == "planned" and seen[-1] == "done" for seen in order.values())
    planned = [one for one in bench.events if isinstance(one, UnitPlanned)]
    assert sum(one.files for one in planned) == report.files


@pytest.mark.parametrize("mode", [pytest.param("import", marks=LONG), "copy"])
async def test_a_worker_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    bench: Bench, mode: Dicom
) -> None:
    victims = list((await pids(bench)).values())

    def kill(event: Event) -> None:
        if isinstance(event, ItemDone) and victims:
            os.kill(victims.pop(), signal.SIGKILL)
            victims.clear()

    bench.watchers.append(kill)
    report = await bench.transfer(dicom=mode)
    assert report.exit_code == 0, report.problems
    assert stored(bench, mode)
    assert any(isinstance(one, Note) and "was lost" in one.text for one in bench.events)


@LONG
async def test_a_worker_that_was_given_up_cannot_write_over_the_result_of_another(
    bench: Bench,
) -> None:
    stopped: list[int] = []

    async def later(pid: int) -> None:
        await asyncio.sleep(2.5)
        os.kill(pid, signal.SIGCONT)

    def stop(event: Event) -> None:
        if isinstance(event, ItemStarted) and event.item.kind == "zip" and not stopped:
            stopped.append(next(iter(found.values())))
            os.kill(stopped[0], signal.SIGSTOP)
            awaken.append(asyncio.create_task(later(stopped[0])))

    awaken: list[asyncio.Task[None]] = []
    found = await pids(bench)
    bench.watchers.append(stop)
    timing = replace(TIMING, lease_s=1.0, answer_s=0.3)
    report = await bench.transfer(timing=timing)
    assert report.exit_code == 0, report.problems
    await asyncio.gather(*awaken)
    assert await pids(bench) == found
    assert stored(bench, "copy")
    done = [one.outcome.key for one in bench.events if isinstance(one, UnitDone)]
    assert len(done) == len(set(done))


@LONG
async def test_a_unit_that_kills_its_workers_fails_by_name_and_takes_no_other_down(
    bench: Bench,
) -> None:
    crew = bench.crew
    bench.crew = DeadlyCrew(crew.client, crew.spec, crew.slots, crew.timing)
    report = await bench.transfer(dicom="copy")
    assert (report.exit_code, report.units_failed) == (1, 1)
    assert [one.label for one in report.problems] == [DEADLY]
    assert f"was lost with {MOST_LEASES} workers" in report.problems[0].error
    bench.crew = crew
    again = await bench.transfer(dicom="copy")
    assert (again.exit_code, again.units_done) == (0, 1)
    assert stored(bench, "copy")


@LONG
async def test_a_run_whose_workers_are_all_lost_says_so_and_the_next_one_goes_on(
    bench: Bench,
) -> None:
    def kill(event: Event) -> None:
        if isinstance(event, ItemDone):
            process.terminate()

    timing = replace(TIMING, arrive_s=1.0)
    with scheduler(bench.folder) as address:
        async with open_crew(parse_spec(address), slots=8, timing=timing) as bench.crew:
            with worker_of(bench.folder, address) as process:
                await bench.crew.client.wait_for_workers(1)
                bench.watchers.append(kill)
                with pytest.raises(Unreachable, match="no worker is left") as error:
                    await bench.transfer(timing=timing)
            assert error.value.exit_code == 4
            assert error.value.hint.startswith("the same command goes on with what is left")
            bench.watchers.clear()
            with worker_of(bench.folder, address):
                await bench.crew.client.wait_for_workers(1)
                assert (await bench.transfer(timing=timing)).exit_code == 0
    assert stored(bench, "copy")


@LONG
async def test_a_stop_ends_what_is_under_way_and_the_next_run_goes_on(bench: Bench) -> None:
    stop = Stop()

    def ask(event: Event) -> None:
        if isinstance(event, UnitDone):
            stop.ask("Ctrl-C", 130)

    bench.watchers.append(ask)
    first = await bench.transfer(stop=stop)
    assert (first.exit_code, first.interrupted) == (130, "Ctrl-C")
    bench.watchers.clear()
    second = await bench.transfer()
    assert second.exit_code == 0
    assert stored(bench, "copy")


@LONG
async def test_no_more_requests_reach_a_server_at_once_than_the_budget_of_all_workers(
    bench: Bench,
) -> None:
    bench.there.counters.reset()
    report = await bench.transfer(workers=2)
    assert report.exit_code == 0
    assert bench.there.counters.peak <= 2


async def refused(bench: Bench, url: str) -> XnatctlError:
    told = (server(bench.here.url), server(url, "destination"))
    with pytest.raises(XnatctlError) as error:
        await bench.transfer(servers=told)
    assert bench.events == []
    return error.value


@LONG
async def test_a_worker_that_cannot_reach_a_server_is_named_before_anything_moves(
    bench: Bench,
) -> None:
    error = await refused(bench, "http://127.0.0.1:1")
    assert isinstance(error, Unreachable)
    assert "2 of 2 workers cannot work" in str(error)
    assert f"on {os.uname().nodename} (127.0.0.1): " in str(error)
    assert "127.0.0.1:1" in str(error)


async def test_a_worker_whose_login_is_refused_is_named_before_anything_moves(
    bench: Bench,
) -> None:
    before = await bench.crew.client.run(_set_password, "wrong")
    assert set(before.values()) == {"admin"}
    try:
        error = await refused(bench, bench.there.url)
    finally:
        await bench.crew.client.run(_set_password, "admin")
    assert isinstance(error, AuthError)
    assert f"on {os.uname().nodename}" in str(error)


def _set_password(value: str) -> str:
    before = os.environ["XNAT_DEST_PASS"]
    os.environ["XNAT_DEST_PASS"] = value
    return before


async def test_a_worker_with_another_version_is_named_with_both_versions(bench: Bench) -> None:
    await bench.crew.client.run(_pretend, "0.9.0")
    try:
        error = await refused(bench, bench.there.url)
    finally:
        await bench.crew.client.run(_pretend, "")
    assert "xnatctl 0.9.0 there, " in str(error)
    assert "install the same versions" in error.hint


def _pretend(version: str) -> None:
    """Have this worker say that it has another version of xnatctl; empty: the truth."""
    told = {**versions(), "xnatctl": version} if version else versions()
    vars(worker)["versions"] = lambda: told


@LONG
async def test_what_travels_has_no_secret_in_it_whether_the_run_succeeds_or_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []

    def sent(record: object) -> bytes:
        seen.append(pickle.dumps(record))
        return packed(record)

    def received(data: bytes) -> object:
        seen.append(zlib.decompress(data))
        return unpacked(data)

    monkeypatch.setattr(members, "packed", sent)
    monkeypatch.setattr(coordinator, "packed", sent)
    monkeypatch.setattr(coordinator, "unpacked", received)
    assert (await bench.transfer()).exit_code == 0
    assert not any(b"admin" in one for one in seen)
    await bench.crew.client.run(_set_password, "marked-secret")
    try:
        with pytest.raises(AuthError) as error:
            await bench.transfer()
    finally:
        await bench.crew.client.run(_set_password, "admin")
    seen.append(pickle.dumps(error.value))
    assert {b"RemoteTransfer", b"Letter", b"Order"} <= {
        name for name in (b"RemoteTransfer", b"Letter", b"Order") for one in seen if name in one
    }
    assert not any(b"marked-secret" in one for one in seen)
