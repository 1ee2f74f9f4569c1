"""A power cut: what was not synced is gone. First the order of syncs, then the worst that is left.

1. A unit is recorded as done only after its files were synced, named, and their folders synced.
2. The journal of the state store loses its end at any byte, and files that were not recorded as
   done are zeroed; the same command makes everything whole.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.judge import Record
from tests.integration.conftest import Bench
from tests.integration.oracle import files_of
from xnatctl.endpoints import disk
from xnatctl.engine.state import StateStore

pytestmark = pytest.mark.fault("power cut")
SESSION = "DEMO_001_MR1"


async def test_a_unit_is_done_only_after_its_files_and_folders_are_synced(
    demo: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[tuple[str, str]] = []
    parts: dict[str, str] = {}

    def flushed(handles: list[int]) -> None:
        disk.flush(handles)
        log.extend(("synced", str(Path(f"/proc/self/fd/{one}").readlink())) for one in handles)

    def spy(plain: Callable[..., Any], what: str) -> Callable[..., Any]:
        def spied(handle: Any, *more: Any) -> Any:
            place = (
                Path(f"/proc/self/fd/{handle}").readlink() if isinstance(handle, int) else handle
            )
            done = plain(handle, *more)
            log.append((what, str(more[0] if more else place)))
            if more:
                parts[str(more[0])] = str(place)
            return done

        return spied

    mark = StateStore.mark_unit

    async def marked(self: StateStore, pair: Any, unit: str, **how: Any) -> None:
        log.append((how["status"], unit))
        await mark(self, pair, unit, **how)

    monkeypatch.setattr("xnatctl.endpoints.local.flush", flushed)
    monkeypatch.setattr(os, "fsync", spy(os.fsync, "folder synced"))
    monkeypatch.setattr(os, "rename", spy(os.rename, "named"))
    monkeypatch.setattr(StateStore, "mark_unit", marked)

    report = await demo.download(SESSION, tmp_path / "out")

    files = [str(path) for path in (tmp_path / "out").rglob("*") if path.is_file()]
    done = log.index(("done", next(unit for what, unit in log if what == "done")))
    assert report.exit_code == 0
    assert len(files) == report.files > 10
    for path in files:
        named = log.index(("named", path))
        assert named < done
        assert ("synced", parts[path]) in log[:named]
        assert ("folder synced", str(Path(path).parent)) in log[named:done]


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2, 3))])
async def test_whatever_the_cut_leaves_the_same_command_makes_everything_whole(
    demo: Bench, tmp_path: Path, seed: int, record_property: Record
) -> None:
    dice = random.Random(seed)
    out = tmp_path / "out"
    copies: list[Path] = []

    def snapshot(event: object) -> None:
        """What the disk holds at some moments, journal and all."""
        if dice.random() < 0.2 and (demo.folder / "state.db-wal").exists():
            place = tmp_path / f"cut{len(copies)}"
            shutil.copytree(
                demo.folder, place, ignore=lambda *_: ["here", "there", *cuts(tmp_path)]
            )
            copies.append(place)

    demo.watchers.append(snapshot)
    assert (await demo.download(SESSION, out)).exit_code == 0
    demo.watchers.clear()
    wanted = sorted(one[4] for one in files_of(demo.source, "DEMO") if in_scans(one))
    whole = content(out)
    assert sorted(whole.values()) == wanted

    lost = 0
    for copy in copies[:5]:
        for name in ("state.db", "state.db-wal", "state.db-shm"):
            (demo.folder / name).unlink(missing_ok=True)
            if (copy / name).exists() and name != "state.db-shm":
                shutil.copy(copy / name, demo.folder / name)
        wal = demo.folder / "state.db-wal"
        os.truncate(wal, dice.randrange(wal.stat().st_size + 1))
        shutil.rmtree(out)
        shutil.copytree(copy / "out", out) if (copy / "out").exists() else out.mkdir()
        for part in out.rglob("*.part"):
            part.write_bytes(bytes(part.stat().st_size))

        report = await demo.download(SESSION, out)

        assert report.exit_code == 0, report.problems
        found = content(out)
        lost += len(wanted) - len(found)
        assert sorted(found.values()) == wanted
    record_property("tries", len(copies[:5]))
    record_property("lost", lost)
    assert copies


def cuts(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("cut*")]


def in_scans(one: tuple[str, ...]) -> bool:
    return one[0] == SESSION and one[1].startswith("SCANS")


def content(out: Path) -> dict[str, str]:
    """MD5s of all files by path, part files left out."""
    from hashlib import md5

    return {
        path.relative_to(out).as_posix(): md5(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and not path.name.endswith(".part") and "scans" in path.parts
    }
