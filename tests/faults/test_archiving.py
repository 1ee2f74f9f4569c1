"""Trouble while a destination archives, and just after: the session is there once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from aiohttp.web import BaseRequest

from tests.faults.children import Servers, servers
from tests.faults.judge import (
    Judgement,
    Record,
    account,
    judge,
    open_runs,
    unit_statuses,
)
from tests.integration.conftest import Bench, seeded_root
from xnatctl.engine.types import Rule, Selection
from xnatctl.model import Ref
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings

pytestmark = pytest.mark.fault("archiving's answer lost")
SESSION = "DEMO_002_CT1"
OWNERS = (SESSION, "DEMO_002", "")
PART = Selection(Ref("DEMO"), rules=(Rule("session", (SESSION,)),))


def look(folder: Path) -> Judgement:
    return judge(folder / "here", folder / "there", "DEMO", mode="import", owners=OWNERS)


AFTER = {
    "the archived session cannot be found": Fault("GET */experiments/*", "status", nth=1, times=6),
    "its scans cannot be listed": Fault("GET */scans?*", "status", nth=1, status=500, times=3),
    "the answer is lost and the link is gone for a while": Fault("* *", "reset", nth=1, times=8),
}


@pytest.mark.parametrize("trouble", list(AFTER))
async def test_a_session_that_was_archived_is_not_sent_again_though(
    seeds: Path, tmp_path: Path, trouble: str, record_property: Record
) -> None:
    root = await seeded_root(seeds, "demo", tmp_path / "here")
    async with Sandbox(root) as here, Sandbox(tmp_path / "there") as there:
        demo = Bench(here, there, tmp_path)
        arm(there, AFTER[trouble])
        first = await demo.transfer(dicom="import", selection=PART)
        fired = there.faults.unused() == []
        claims = [first.exit_code == 0 and not look(tmp_path).is_whole]
        there.faults.clear()
        second = await demo.transfer(dicom="import", selection=PART)

        found = look(tmp_path)
        claims.append(second.exit_code == 0 and not found.is_whole)
        account(record_property, found, claims=claims)
        assert fired
        assert not any(claims)
        assert first.exit_code == 0, first.problems
        assert second.exit_code == 0, second.problems
        assert found == Judgement(0, 0, 0)
        assert there.counters.count("POST", "/services/archive") == 1


def arm(there: Sandbox, fault: Fault) -> None:
    """Let a fault begin where the archive service has been asked."""

    plain = there._faults_for

    def drawn(request: BaseRequest, path: list[str]) -> list[Fault]:
        if path[-2:] == ["services", "archive"]:
            there.faults.add(fault)
            return [Fault("* *", "lose-answer")] if fault.kind == "reset" else []
        return plain(request, path)

    there._faults_for = drawn  # type: ignore[method-assign]


@pytest.mark.long
def test_a_transfer_that_is_killed_while_the_server_archives_goes_on_from_there(
    tmp_path: Path, record_property: Record
) -> None:
    with servers(tmp_path, settings=Settings(archive_s=5.0)) as ends:
        first = ends.start("--dicom", "import", "--session", SESSION)
        wait_until_archiving(ends)
        first.kill()
        first.communicate()

        second = ends.start("--dicom", "import", "--session", SESSION)
        _, err = second.communicate(timeout=60)

        found = look(tmp_path)
        account(record_property, found, claims=[second.returncode == 0 and not found.is_whole])
        assert second.returncode == 0, err
        assert found == Judgement(0, 0, 0)
        assert unit_statuses(ends.state) == {"done"}
        assert open_runs(ends.state) == 0


def wait_until_archiving(ends: Servers) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if any("ARCHIVING" in one.status for one in ends.there.prearchive.entries()):
            return
        time.sleep(0.01)
    raise AssertionError("nothing was archived")
