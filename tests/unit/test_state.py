"""What runs remember: durable, shared by processes, and never the reason why a transfer is lost."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import anyio
import pytest

from xnatctl.engine.state import SCHEMA_VERSION, Pair, StateStore, is_held, locked
from xnatctl.errors import LocalFault, Locked

PAIR = Pair("https://a.example/P", "https://b.example/P")
OTHER = Pair("https://a.example/P", "file:///data")


@contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process of our own that runs `code`; killed at the end if it still lives."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# --- runs ------------------------------------------------------------------------------------


async def test_a_run_is_shown_with_how_it_ended(tmp_path: Path) -> None:
    async with StateStore.open(tmp_path / "state.db") as store:
        with locked(store.locks, PAIR):
            await store.begin_run("r1", "transfer", PAIR, "xnatctl project transfer")
            (running,) = await store.runs()
        await store.end_run("r1", "done", {"files": 3})
        (ended,) = await store.runs()

    assert (running.status, running.ended) == ("running", None)
    assert (ended.status, ended.report) == ("done", {"files": 3})
    assert (ended.source, ended.sink, ended.verb) == (PAIR.source, PAIR.sink, "transfer")
    assert ended.ended is not None and ended.ended >= ended.started


async def test_runs_come_newest_first_and_by_verb(tmp_path: Path) -> None:
    async with StateStore.open(tmp_path / "state.db") as store:
        for number in range(5):
            await store.begin_run(f"r{number}", "export" if number % 2 else "transfer", PAIR, "")

        assert [run.id for run in await store.runs()] == ["r4", "r3", "r2", "r1", "r0"]
        assert [run.id for run in await store.runs(verb="export")] == ["r3", "r1"]
        assert [run.id for run in await store.runs(limit=2)] == ["r4", "r3"]


async def test_a_run_that_never_ended_is_seen_as_interrupted_by_the_next(tmp_path: Path) -> None:
    async with StateStore.open(tmp_path / "state.db") as store:
        await store.begin_run("dead", "transfer", PAIR, "")
        await store.begin_run("elsewhere", "transfer", OTHER, "")
        with locked(store.locks, OTHER):
            await store.begin_run("next", "transfer", PAIR, "")

            status = {run.id: run.status for run in await store.runs()}
    # Nobody holds the pair of `next` either, so it has died.
    assert status == {"dead": "interrupted", "elsewhere": "running", "next": "interrupted"}


# --- units and items -------------------------------------------------------------------------


async def test_a_unit_that_nobody_met_is_unknown(tmp_path: Path) -> None:
    async with StateStore.open(tmp_path / "state.db") as store:
        assert await store.known(PAIR, "u") is None


async def test_a_unit_is_known_with_the_digests_of_what_is_done(tmp_path: Path) -> None:
    async with StateStore.open(tmp_path / "state.db") as store:
        rows = [("k1", "d1", 10, "done", ""), ("k2", "d2", None, "failed", "cut")]
        await store.mark_items(PAIR, "u", rows)
        await store.mark_unit(PAIR, "u", run="r", status="done", fingerprint="f", facts={"x": "1"})

        known = await store.known(PAIR, "u")
        assert await store.known(OTHER, "u") is None
    assert known is not None
    assert (known.status, known.fingerprint, known.facts) == ("done", "f", {"x": "1"})
    assert known.digests == {"k1": "d1"}


async def test_an_item_that_is_marked_again_has_its_last_state(tmp_path: Path) -> None:
    async with StateStore.open(tmp_path / "state.db") as store:
        await store.mark_unit(PAIR, "u", run="r", status="begun")
        await store.mark_items(PAIR, "u", [("k", "old", 1, "done", "")])
        await store.mark_items(PAIR, "u", [("k", "new", 1, "done", "")])
        await store.mark_items(PAIR, "u", [])

        known = await store.known(PAIR, "u")
    assert known is not None
    assert known.digests == {"k": "new"}


async def test_what_a_run_wrote_is_told_from_what_it_found(tmp_path: Path) -> None:
    async with StateStore.open(tmp_path / "state.db") as store:
        await store.mark_unit(PAIR, "u", run="r", status="done")
        await store.mark_items(PAIR, "u", [("w", "1", 1, "done", ""), ("f", "2", 1, "kept", "")])
        await store.mark_items(PAIR, "u", [("w", "1", 1, "kept", ""), ("bad", "3", 1, "wrong", "")])

        known = await store.known(PAIR, "u")
        assert await store.written(PAIR, "u") == {"w", "bad"}
        assert await store.written(OTHER, "u") == frozenset()
        await store.forget(PAIR, "u", ["w"])
        assert await store.written(PAIR, "u") == {"bad"}
        await store.forget(PAIR, "u")
        assert await store.known(PAIR, "u") is None
    assert known is not None
    assert known.digests == {"w": "1", "f": "2", "bad": "3"}


async def test_facts_are_merged_and_removed_one_by_one(tmp_path: Path) -> None:
    async with StateStore.open(tmp_path / "state.db") as store:
        await store.remember(PAIR, "u", {"entry": "/prearchive/1", "scan:1": "1"})
        await store.mark_unit(PAIR, "u", run="r", status="begun", facts={"scan:2": "2"})
        await store.remember(PAIR, "u", {"entry": None, "note": 'O\'Brien, ünï "quoted"'})

        facts = await store.facts(PAIR)
    assert facts == {"u": {"scan:1": "1", "scan:2": "2", "note": 'O\'Brien, ünï "quoted"'}}


async def test_digests_of_local_files_count_while_size_and_time_stay(tmp_path: Path) -> None:
    async with StateStore.open(tmp_path / "state.db") as store:
        await store.keep_local_digests([("/a", 10, 111, "da"), ("/b", 20, 222, "db")])
        await store.keep_local_digests([])

        found = await store.local_digests([("/a", 10, 111), ("/b", 20, 223), ("/c", 1, 1)])
        assert found == {"/a": "da"}
        await store.keep_local_digests([("/b", 20, 223, "new")])
        assert await store.local_digests([("/b", 20, 223)]) == {"/b": "new"}


# --- the writer ------------------------------------------------------------------------------


async def test_what_waits_together_is_committed_together(tmp_path: Path) -> None:
    statements: list[str] = []
    async with StateStore.open(tmp_path / "state.db") as store:
        store._connection.set_trace_callback(statements.append)

        async def mark(number: int) -> None:
            await store.mark_items(PAIR, "u", [(f"k{number}", "d", 1, "done", "")])

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(mark, number)
        await store.mark_unit(PAIR, "u", run="r", status="done")
        known = await store.known(PAIR, "u")

    assert known is not None
    assert len(known.digests) == 200
    assert statements.count("COMMIT") <= 10


async def test_one_that_cannot_be_written_does_not_spoil_what_waits_with_it(
    tmp_path: Path,
) -> None:
    failures: list[LocalFault] = []
    async with StateStore.open(tmp_path / "state.db") as store:
        await store.begin_run("twice", "transfer", PAIR, "")

        async def again() -> None:
            try:
                await store.begin_run("twice", "transfer", PAIR, "")
            except LocalFault as error:
                failures.append(error)

        async def mark(number: int) -> None:
            await store.mark_unit(PAIR, f"u{number}", run="r", status="done")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mark, 1)
            tasks.start_soon(again)
            tasks.start_soon(mark, 2)
        assert set(await store.facts(PAIR)) == {"u1", "u2"}
    assert len(failures) == 1


async def test_a_name_that_is_no_text_is_refused_and_the_store_goes_on(tmp_path: Path) -> None:
    undecodable = os.fsdecode(b"caf\xe9.txt")
    async with StateStore.open(tmp_path / "state.db") as store:
        with pytest.raises(LocalFault):
            await store.mark_items(PAIR, "u", [(undecodable, "d", 1, "done", "")])
        await store.mark_unit(PAIR, "u", run="r", status="done")

        assert await store.known(PAIR, "u") is not None


async def test_a_full_disk_is_said_and_what_comes_after_it_is_kept(tmp_path: Path) -> None:
    async with StateStore.open(tmp_path / "state.db") as store:
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count={pages + 1}")
        with pytest.raises(LocalFault, match="full"):
            await store.remember(PAIR, "u", {"x": "y" * 100_000})

        store._connection.execute("PRAGMA max_page_count=100000")
        await store.remember(PAIR, "u", {"x": "z" * 100_000})
        assert (await store.facts(PAIR))["u"]["x"][0] == "z"


async def test_an_error_of_the_work_comes_out_of_the_store_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with StateStore.open(tmp_path / "state.db"):
            raise ZeroDivisionError


async def test_what_was_asked_before_the_store_is_left_is_written(tmp_path: Path) -> None:
    async with StateStore.open(tmp_path / "state.db") as store, anyio.create_task_group() as tasks:
        tasks.start_soon(store.remember, PAIR, "u", {"x": "1"})
    async with StateStore.open(tmp_path / "state.db") as store:
        assert await store.facts(PAIR) == {"u": {"x": "1"}}


async def test_what_was_asked_by_a_cancelled_task_may_be_written_and_harms_nobody(
    tmp_path: Path,
) -> None:
    async with StateStore.open(tmp_path / "state.db") as store:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.remember, PAIR, "u", {"x": "1"})
            tasks.cancel_scope.cancel()
        await store.remember(PAIR, "v", {"x": "2"})
        assert (await store.facts(PAIR))["v"] == {"x": "2"}


# --- processes -------------------------------------------------------------------------------

WRITES = """
import sys, anyio
from pathlib import Path
from xnatctl.engine.state import Pair, StateStore

async def main():
    pair = Pair(sys.argv[2], sys.argv[3])
    async with StateStore.open(Path(sys.argv[1])) as store:
        await store.begin_run("killed", "transfer", pair, "")
        number = 0
        while True:
            await store.remember(pair, f"u{number}", {"n": str(number)})
            print(number, flush=True)
            number += 1

anyio.run(main)
"""


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with child(WRITES, path, PAIR.source, PAIR.sink) as process:
        for _ in range(40):
            said = line_of(process)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    async with StateStore.open(path) as store:
        facts = await store.facts(PAIR)
        assert all(facts[f"u{number}"] == {"n": str(number)} for number in range(int(said) + 1))
        with locked(store.locks, PAIR):
            await store.begin_run("next", "transfer", PAIR, "")
            runs = await store.runs()
        assert [(run.id, run.status) for run in runs] == [
            ("next", "running"),
            ("killed", "interrupted"),
        ]


OPENS = """
import sys, anyio
from pathlib import Path
from xnatctl.engine.state import Pair, StateStore

async def main():
    async with StateStore.open(Path(sys.argv[1])) as store:
        for number in range(20):
            await store.remember(Pair("a", sys.argv[2]), f"u{number}", {"n": str(number)})

print("ready", flush=True)
sys.stdin.readline()
anyio.run(main)
print("done", flush=True)
"""


async def test_processes_that_open_a_new_store_at_once_all_can_use_it(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    names = ["a", "b", "c", "d"]
    with ExitStack() as stack:
        processes = [stack.enter_context(child(OPENS, path, name)) for name in names]
        for process in processes:
            assert line_of(process) == "ready"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [line_of(process) for process in processes] == ["done"] * 4

    async with StateStore.open(path) as store:
        for name in names:
            assert len(await store.facts(Pair("a", name))) == 20


HOLDS = """
import sys, time
from pathlib import Path
from xnatctl.engine.state import Pair, locked

with locked(Path(sys.argv[1]), Pair(sys.argv[2], sys.argv[3])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_pair_that_another_process_holds_is_locked_until_that_process_dies(
    tmp_path: Path,
) -> None:
    with child(HOLDS, tmp_path, PAIR.source, PAIR.sink) as process:
        assert line_of(process) == "held"
        with pytest.raises(Locked) as caught, locked(tmp_path, PAIR):
            pass
        assert caught.value.exit_code == 9
        assert str(process.pid) in caught.value.why
        with locked(tmp_path, OTHER):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    with locked(tmp_path, PAIR):
        pass


def test_a_file_system_without_locks_is_said_and_not_taken_for_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)

    with pytest.raises(LocalFault, match="no locks") as caught, locked(tmp_path, PAIR):
        pass
    assert "XDG_STATE_HOME" in caught.value.hint
    assert not is_held(tmp_path, PAIR)


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path, PAIR):
        raise ZeroDivisionError
    with locked(tmp_path, PAIR):
        pass


def test_pairs_are_told_apart_by_both_ends() -> None:
    ids = {Pair("a", "b").id, Pair("b", "a").id, Pair("ab", "").id, Pair("", "ab").id}

    assert len(ids) == 4


# --- stores that cannot be used --------------------------------------------------------------


async def test_a_store_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "folder" / "state.db"
    async with StateStore.open(path) as store:
        await store.remember(PAIR, "u", {"x": "1"})

    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


async def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with StateStore.open(path):
        pass
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    database.close()
    before = path.read_bytes()

    with pytest.raises(LocalFault, match="newer xnatctl") as caught:
        async with StateStore.open(path):
            pass
    assert caught.value.hint
    assert path.read_bytes() == before


async def test_a_file_that_is_no_store_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"this is no database at all\n" * 100)

    with pytest.raises(LocalFault) as caught:
        async with StateStore.open(path):
            pass
    assert str(path) in caught.value.message
    assert "mv " in caught.value.hint
    assert path.read_bytes().startswith(b"this is no database")


async def test_a_store_that_is_damaged_inside_says_so_when_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with StateStore.open(path) as store:
        for number in range(50):
            await store.remember(PAIR, f"u{number}", {"x": "y" * 400})
    whole = bytearray(path.read_bytes())
    whole[8192:] = b"\xa5" * (len(whole) - 8192)
    path.write_bytes(whole)

    with pytest.raises(LocalFault):
        async with StateStore.open(path) as store:
            await store.facts(PAIR)


async def test_facts_that_are_damaged_are_said_and_the_store_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with StateStore.open(path) as store:
        await store.remember(PAIR, "u", {"x": "1"})
        store._connection.execute("UPDATE unit SET facts='{cut'")
        with pytest.raises(LocalFault):
            await store.known(PAIR, "u")

        await store.begin_run("r", "transfer", PAIR, "")
        assert len(await store.runs()) == 1


async def test_a_folder_in_the_place_of_the_store_is_said(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()

    with pytest.raises(LocalFault):
        async with StateStore.open(tmp_path / "state.db"):
            pass


READ_ONLY = """
import os, sys, anyio
from pathlib import Path
from xnatctl.engine.state import Pair, StateStore, locked
from xnatctl.errors import LocalFault

async def main():
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        async with StateStore.open(Path("closed/state.db")):
            return
    except LocalFault as error:
        print("store:", error, flush=True)
    try:
        with locked(Path("closed/locks"), Pair("a", "b")):
            return
    except LocalFault as error:
        print("lock:", error, flush=True)

os.chdir(sys.argv[1])
anyio.run(main)
"""


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with child(READ_ONLY, tmp_path) as process:
        store, lock = line_of(process), line_of(process)

    assert store.startswith("store: the folder closed, where runs are remembered, cannot be made")
    assert lock.startswith("lock: the lock closed/locks/")
    assert "ermission denied" in lock


async def test_a_store_of_an_older_version_is_brought_up_to_date_and_keeps_what_it_knows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    async with StateStore.open(path) as store:
        await store.begin_run("old", "transfer", PAIR, "xnatctl project transfer")
        await store.mark_unit(PAIR, "u", run="old", status="done")
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE run DROP COLUMN folder")
        db.execute("PRAGMA user_version=1")

    async with StateStore.open(path) as store:
        (run,) = await store.runs()
        known = await store.known(PAIR, "u")
        await store.begin_run("new", "transfer", PAIR, "")
        (new, _) = await store.runs()
    assert (run.id, run.command, run.folder) == ("old", "xnatctl project transfer", "")
    assert known is not None and known.status == "done"
    assert new.folder == str(Path.cwd())
