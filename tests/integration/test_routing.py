"""A server that ignores the marks of an import: its routing is manual while a run lasts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.conftest import Bench, connect, seeded_root
from tests.integration.oracle import instances_of, leftovers
from xnatctl import routes
from xnatctl.endpoints.routing import Routing
from xnatctl.engine.events import Event, Note, UnitDone, UnitPlanned
from xnatctl.engine.state import Pair
from xnatctl.errors import Locked
from xnatctl.model import Dicom
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings

LEASE = "/data/projects/DEMO/config/xnatctl/routing"


@pytest.fixture
async def heedless(seeds: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    """A destination that archives what is idle, whatever an import asks for."""
    root = await seeded_root(seeds, "demo", tmp_path / "here")
    settings = Settings(import_flags=False, idle_build_s=30.0)
    async with Sandbox(root) as here, Sandbox(tmp_path / "there", settings=settings) as there:
        there.store.create_project("DEMO")
        there.store.set_setting("DEMO", "prearchive_code", "5")
        yield Bench(here, there, tmp_path)


def code(bench: Bench) -> str:
    return bench.there.store.setting("DEMO", "prearchive_code", "4")


def lease(bench: Bench) -> dict[str, object]:
    record = bench.there.store.record("config:DEMO", "xnatctl/routing")
    found: dict[str, object] = json.loads(str(record["contents"])) if record else {}
    return found


async def test_routing_is_manual_while_a_run_imports_and_as_before_afterwards(
    heedless: Bench,
) -> None:
    seen: set[str] = set()
    heedless.watchers.append(lambda event: seen.add(code(heedless)))

    report = await heedless.transfer(dicom="import")

    assert report.exit_code == 0, report.problems
    assert instances_of(heedless.sink, "DEMO") == instances_of(heedless.source, "DEMO")
    assert leftovers(heedless.sink) == []
    assert seen == {"5", "0"}
    assert code(heedless) == "5"
    assert lease(heedless) == {"code": "", "holders": {}, "hand": ""}
    said = [event.text for event in heedless.events if isinstance(event, Note)]
    assert any("other arrivals wait in it" in one for one in said)


async def test_routing_is_as_before_after_a_run_that_failed(heedless: Bench) -> None:
    heedless.there.faults.add(
        Fault("POST /data/services/archive*", "status", nth=1, times=99, status=403)
    )

    report = await heedless.transfer(dicom="import")

    assert report.exit_code == 1
    assert (code(heedless), lease(heedless)["code"]) == ("5", "")
    assert leftovers(heedless.sink) == []


async def test_what_a_run_that_died_left_is_put_back_by_the_next(heedless: Bench) -> None:
    async with connect(heedless.there) as xnat, heedless.desk("transfer") as desk:
        pair = Pair(f"{heedless.here.url}/DEMO", f"{heedless.there.url}/DEMO")

        async def remember(facts: object) -> None:
            await desk.state.remember(pair, "settings", facts)  # type: ignore[arg-type]

        await Routing(xnat, "DEMO", holder=pair.id, remember=remember).hold()
    assert code(heedless) == "0"

    report = await heedless.transfer(dicom="copy")

    assert report.exit_code == 0
    assert (code(heedless), lease(heedless)["code"]) == ("5", "")


async def test_a_second_run_joins_the_lease_and_the_last_one_puts_the_code_back(
    heedless: Bench,
) -> None:
    async with connect(heedless.there) as xnat:
        first, second = (Routing(xnat, "DEMO", holder=name) for name in "ab")
        await first.hold()
        await second.hold()
        assert await first.release() == ""
        assert code(heedless) == "0"
        assert await second.release() == "5"
    assert code(heedless) == "5"


async def test_an_expired_lease_is_put_back_by_any_run_and_by_hand(heedless: Bench) -> None:
    async with connect(heedless.there) as xnat:
        now = [1000.0]
        dead = Routing(xnat, "DEMO", holder="dead", clock=lambda: now[0], lasts=60.0)
        await dead.hold()
        assert code(heedless) == "0"
        by_hand = routes.routing_by_hand(xnat, "DEMO")
        await by_hand.restore()
        assert code(heedless) == "5"
        assert (await by_hand.free()).code == ""
        await dead.hold()
    assert code(heedless) == "5", "it was still held by the one that believes it is"


async def test_a_lease_that_is_alive_is_not_taken_away(heedless: Bench) -> None:
    async with connect(heedless.there) as xnat:
        other = Routing(xnat, "DEMO", holder="other")
        await other.hold()
        with pytest.raises(Locked, match="keeps the routing of DEMO manual"):
            await routes.routing_by_hand(xnat, "DEMO").restore()

        assert (await heedless.transfer(dicom="import")).exit_code == 0

        assert code(heedless) == "0"
        assert await other.release() == "5"


async def test_what_a_hand_set_is_what_a_run_puts_back_and_what_was_before_is_still_known(
    heedless: Bench,
) -> None:
    async with connect(heedless.there) as xnat:
        by_hand = routes.routing_by_hand(xnat, "DEMO")
        await by_hand.set_by_hand("4")

        assert (await heedless.transfer(dicom="import")).exit_code == 0

        assert code(heedless) == "4"
        await by_hand.restore()
    assert (code(heedless), lease(heedless)["code"]) == ("5", "")


async def test_settings_that_are_copied_while_the_lease_lasts_are_those_in_the_end(
    heedless: Bench,
) -> None:
    heedless.here.store.set_setting("DEMO", "prearchive_code", "4")
    changed: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, UnitPlanned) and event.unit.key == "settings":
            changed.extend(item.key for item in event.unit.to_move)

    heedless.watchers.append(watch)
    report = await heedless.transfer(dicom="import", settings=True)

    assert report.exit_code == 0, report.problems
    assert "settings/prearchive_code" in changed
    assert code(heedless) == "4"


async def test_a_server_that_heeds_the_marks_keeps_its_routing(demo: Bench) -> None:
    await demo.transfer(dicom="import")

    assert demo.there.counters.count("PUT", "config/xnatctl") == 0


@pytest.mark.parametrize("dicom", ["import", "copy"])
async def test_settings_of_a_project_that_was_there_are_named_and_stay(
    heedless: Bench, dicom: Dicom
) -> None:
    report = await heedless.transfer(dicom=dicom, on_conflict="fail")

    assert (report.exit_code, code(heedless)) == (0, "5")
    notes = [
        note
        for event in heedless.events
        if isinstance(event, UnitDone) and event.outcome.key == "settings"
        for note in event.outcome.notes
    ]
    assert notes == ["settings kept as they are here: prearchive_code (--settings copies them)"]
