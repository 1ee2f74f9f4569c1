"""What runs remember: runs, units and items in one SQLite file. Memory only, the sink is the truth.

Everything is a small function on the connection, queued to one writer. The writer takes all that
wait, runs them in one transaction on a thread, and wakes them after the commit: durability
(`synchronous=FULL`) at the price of one sync for many. With the file deleted a run costs listings,
never data.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

from xnatctl.errors import LocalFault, Locked

T = TypeVar("T")

_FIRST = """
CREATE TABLE IF NOT EXISTS run(
  id TEXT PRIMARY KEY, verb TEXT NOT NULL, pair TEXT NOT NULL, source TEXT NOT NULL,
  sink TEXT NOT NULL, command TEXT NOT NULL, owner TEXT NOT NULL, started REAL NOT NULL,
  ended REAL, status TEXT NOT NULL, report TEXT NOT NULL DEFAULT '{}');
CREATE INDEX IF NOT EXISTS run_pair ON run(pair, started);
CREATE TABLE IF NOT EXISTS unit(
  pair TEXT NOT NULL, key TEXT NOT NULL, run TEXT NOT NULL, status TEXT NOT NULL,
  fingerprint TEXT NOT NULL DEFAULT '', facts TEXT NOT NULL DEFAULT '{}', updated REAL NOT NULL,
  PRIMARY KEY(pair, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS item(
  pair TEXT NOT NULL, unit TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL,
  size INTEGER, status TEXT NOT NULL, error TEXT NOT NULL DEFAULT '', updated REAL NOT NULL,
  PRIMARY KEY(pair, unit, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS local_file(
  path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, digest TEXT NOT NULL)
  WITHOUT ROWID;
"""
_STEPS = (_FIRST, "ALTER TABLE run ADD COLUMN folder TEXT NOT NULL DEFAULT ''")
"""From each version of the schema to the next: from an empty file to 1, from 1 to 2 …"""
SCHEMA_VERSION = len(_STEPS)


@dataclass(frozen=True, slots=True)
class Pair:
    """The two ends of a run; state is kept and locked by pair."""

    source: str
    sink: str

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.source}\0{self.sink}".encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class Known:
    """What an earlier run left of a unit: its status, fingerprint, facts, and digests by item
    key.
    """

    status: str
    fingerprint: str
    facts: Mapping[str, str]
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as history shows it. `status` is running, done, failed or interrupted; `command` was
    typed in `folder`.
    """

    id: str
    verb: str
    source: str
    sink: str
    command: str
    started: float
    ended: float | None
    status: str
    report: Mapping[str, Any]
    folder: str


class _Ask(Generic[T]):
    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work
        self.done = anyio.Event()
        self.value: T | None = None
        self.error: Exception | None = None


class StateStore:
    """Open with `async with StateStore.open(path) as store`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._waiting: list[_Ask[Any]] = []
        self._bell = anyio.Event()
        self._closing = False

    @property
    def locks(self) -> Path:
        """The folder of the locks of pairs of ends."""
        return self.path.parent / "locks"

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[StateStore]:
        connection = await anyio.to_thread.run_sync(_connect, path)
        store = cls(path, connection)
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store._serve)
                try:
                    yield store
                except Exception as error:  # noqa: BLE001 - raised below, outside the group's wrapping
                    failure = error
                finally:
                    store._closing = True
                    store._bell.set()
        finally:
            connection.close()
        if failure is not None:
            raise failure

    # --- runs ----------------------------------------------------------------------------------

    async def begin_run(self, run_id: str, verb: str, pair: Pair, command: str) -> None:
        """Record a run that starts now; earlier ones of the pair that never ended were interrupted.

        The caller holds the pair's lock, so a run that still reads `running` has died.
        """
        begun = (_owner(), time.time(), str(Path.cwd()))
        row = (run_id, verb, pair.id, pair.source, pair.sink, command, *begun)

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE run SET status='interrupted', ended=started "
                "WHERE pair=? AND status='running'",
                (pair.id,),
            )
            db.execute(
                "INSERT INTO run(id, verb, pair, source, sink, command, owner, started, folder, "
                "status) VALUES (?,?,?,?,?,?,?,?,?,'running')",
                row,
            )

        await self._ask(work)

    async def end_run(self, run_id: str, status: str, report: Mapping[str, Any]) -> None:
        text = json.dumps(report)
        await self._ask(
            lambda db: db.execute(
                "UPDATE run SET status=?, ended=?, report=? WHERE id=?",
                (status, time.time(), text, run_id),
            )
        )

    async def runs(self, *, run: str = "", verb: str = "", limit: int = 100) -> list[RunRow]:
        """The latest runs, newest first; one that nobody works on any more was interrupted."""

        def work(db: sqlite3.Connection) -> list[RunRow]:
            rows = db.execute(
                "SELECT id, verb, source, sink, command, started, ended, status, report, folder "
                "FROM run WHERE id LIKE ? AND verb LIKE ? ORDER BY started DESC, rowid DESC "
                "LIMIT ?",
                (run or "%", verb or "%", limit),
            )
            found = ((*row[:8], json.loads(row[8]), row[9]) for row in rows)
            return [self._as_it_is(RunRow(*row)) for row in found]

        return await self._ask(work)

    def _as_it_is(self, run: RunRow) -> RunRow:
        if run.status == "running" and not is_held(self.locks, Pair(run.source, run.sink)):
            return replace(run, status="interrupted")
        return run

    # --- units and items -----------------------------------------------------------------------

    async def known(self, pair: Pair, unit: str) -> Known | None:
        def work(db: sqlite3.Connection) -> Known | None:
            row = db.execute(
                "SELECT status, fingerprint, facts FROM unit WHERE pair=? AND key=?",
                (pair.id, unit),
            ).fetchone()
            if row is None:
                return None
            items = db.execute(
                "SELECT key, digest FROM item "
                "WHERE pair=? AND unit=? AND status IN ('done', 'kept', 'wrong')",
                (pair.id, unit),
            )
            return Known(row[0], row[1], json.loads(row[2]), dict(items.fetchall()))

        return await self._ask(work)

    async def mark_unit(
        self,
        pair: Pair,
        unit: str,
        *,
        run: str,
        status: str,
        fingerprint: str = "",
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """Record where a unit stands: begun, done or failed. Facts are merged into those there."""
        new = json.dumps(dict(facts or {}))
        await self._ask(
            lambda db: db.execute(
                "INSERT INTO unit(pair, key, run, status, fingerprint, facts, updated) "
                "VALUES (?,?,?,?,?,?,?) ON CONFLICT(pair, key) DO UPDATE SET "
                "run=excluded.run, status=excluded.status, fingerprint=excluded.fingerprint, "
                "facts=json_patch(facts, excluded.facts), updated=excluded.updated",
                (pair.id, unit, run, status, fingerprint, new, time.time()),
            )
        )

    async def remember(self, pair: Pair, unit: str, facts: Mapping[str, str | None]) -> None:
        """Merge facts into a unit's, durably before the call returns; None removes one."""
        text = json.dumps(dict(facts))
        await self._ask(
            lambda db: db.execute(
                "INSERT INTO unit(pair, key, run, status, facts, updated) "
                "VALUES (?,?,'','begun',json_patch('{}', ?),?) "
                "ON CONFLICT(pair, key) DO UPDATE SET facts=json_patch(facts, ?)",
                (pair.id, unit, text, time.time(), text),
            )
        )

    async def mark_items(
        self, pair: Pair, unit: str, rows: Iterable[tuple[str, str, int | None, str, str]]
    ) -> None:
        """Record items of a unit: rows of key, digest, size, status, error.

        A status is `done` for what a run wrote, `kept` for what it found there, `failed`, or
        `wrong` for what it left at the sink otherwise than it should be; the digest is then the
        one that the sink lists. What a run wrote stays so when later ones find it.
        """
        now = time.time()
        values = [(pair.id, unit, *row, now) for row in rows]
        if values:
            await self._ask(
                lambda db: db.executemany(
                    "INSERT INTO item(pair, unit, key, digest, size, status, error, updated) "
                    "VALUES (?,?,?,?,?,?,?,?) ON CONFLICT(pair, unit, key) DO UPDATE SET "
                    "digest=excluded.digest, size=excluded.size, error=excluded.error, "
                    "updated=excluded.updated, status=CASE WHEN excluded.status='kept' "
                    "AND status='done' THEN 'done' ELSE excluded.status END",
                    values,
                )
            )

    async def written(self, pair: Pair, unit: str) -> frozenset[str]:
        """Keys of what runs wrote of a unit."""

        def work(db: sqlite3.Connection) -> frozenset[str]:
            rows = db.execute(
                "SELECT key FROM item WHERE pair=? AND unit=? AND status IN ('done', 'wrong')",
                (pair.id, unit),
            )
            return frozenset(key for (key,) in rows)

        return await self._ask(work)

    async def unmet(self, pair: Pair, run: str) -> dict[str, Mapping[str, str]]:
        """Facts of the units of a pair that this run did not record, by key."""

        def work(db: sqlite3.Connection) -> dict[str, Mapping[str, str]]:
            rows = db.execute("SELECT key, facts FROM unit WHERE pair=? AND run<>?", (pair.id, run))
            return {key: json.loads(facts) for key, facts in rows}

        return await self._ask(work)

    async def forget(self, pair: Pair, unit: str, keys: Iterable[str] | None = None) -> None:
        """Drop what is remembered of these items of a unit, or of all of it."""

        def work(db: sqlite3.Connection) -> None:
            if keys is None:
                db.execute("DELETE FROM item WHERE pair=? AND unit=?", (pair.id, unit))
                db.execute("DELETE FROM unit WHERE pair=? AND key=?", (pair.id, unit))
            else:
                db.executemany(
                    "DELETE FROM item WHERE pair=? AND unit=? AND key=?",
                    [(pair.id, unit, key) for key in keys],
                )

        await self._ask(work)

    async def facts(self, pair: Pair) -> dict[str, Mapping[str, str]]:
        """What is remembered of every unit of a pair, by key."""

        def work(db: sqlite3.Connection) -> dict[str, Mapping[str, str]]:
            rows = db.execute("SELECT key, facts FROM unit WHERE pair=?", (pair.id,))
            return {key: json.loads(facts) for key, facts in rows}

        return await self._ask(work)

    # --- digests of local files ----------------------------------------------------------------

    async def local_digests(self, files: Iterable[tuple[str, int, int]]) -> dict[str, str]:
        """MD5s remembered of local files given as (path, size, mtime_ns), where both still
        agree.
        """
        wanted = list(files)

        def work(db: sqlite3.Connection) -> dict[str, str]:
            found = {}
            for path, size, mtime_ns in wanted:
                row = db.execute(
                    "SELECT digest FROM local_file WHERE path=? AND size=? AND mtime_ns=?",
                    (path, size, mtime_ns),
                ).fetchone()
                if row:
                    found[path] = row[0]
            return found

        return await self._ask(work)

    async def keep_local_digests(self, rows: Iterable[tuple[str, int, int, str]]) -> None:
        values = list(rows)
        if values:
            await self._ask(
                lambda db: db.executemany(
                    "INSERT OR REPLACE INTO local_file VALUES (?,?,?,?)", values
                )
            )

    # --- the writer ----------------------------------------------------------------------------

    async def _ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        ask: _Ask[T] = _Ask(work)
        self._waiting.append(ask)
        self._bell.set()
        await ask.done.wait()
        if ask.error is not None:
            raise LocalFault(
                f"the state store {self.path} cannot be used", why=str(ask.error)
            ) from ask.error
        return ask.value  # type: ignore[return-value]

    async def _serve(self) -> None:
        with anyio.CancelScope(shield=True):
            while True:
                await self._bell.wait()
                self._bell = anyio.Event()
                batch, self._waiting = self._waiting, []
                if batch:
                    await anyio.to_thread.run_sync(_commit, self._connection, batch)
                    for ask in batch:
                        ask.done.set()
                if self._closing and not self._waiting:
                    return


def _commit(db: sqlite3.Connection, batch: list[_Ask[Any]]) -> None:
    """Do all of a batch in one transaction; after a failure each for itself, so that one alone
    fails.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        for ask in batch:
            ask.value = ask.work(db)
            if isinstance(ask.value, sqlite3.Cursor):
                ask.value = None
        db.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - handed to whoever asked
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        if len(batch) == 1:
            batch[0].error = error
            return
        for ask in batch:
            _commit(db, [ask])


def _connect(path: Path) -> sqlite3.Connection:
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise LocalFault(
                f"the folder {path.parent}, where runs are remembered, cannot be made",
                why=error.strerror or str(error),
                hint="set XDG_STATE_HOME to a folder that can be written",
            ) from error
        try:
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
            stack.callback(db.close)
            path.chmod(0o600)
            _prepare(db, path)
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            raise LocalFault(
                f"the state store {path} cannot be used",
                why=str(error),
                hint=f"move it away (mv {path} {path}.bad); the next run compares both ends afresh",
            ) from error
        stack.pop_all()
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    if _version(db) > SCHEMA_VERSION:
        raise LocalFault(
            f"the state store {path} was written by a newer xnatctl",
            hint="upgrade xnatctl, or name another folder with XDG_STATE_HOME",
        )
    while _version(db) < SCHEMA_VERSION:
        # Another process may be doing the same right now: whoever comes second finds it done.
        db.execute("BEGIN IMMEDIATE")
        version = _version(db)
        for statement in _STEPS[version].split(";") if version < SCHEMA_VERSION else ():
            db.execute(statement)
        db.execute(f"PRAGMA user_version={min(version + 1, SCHEMA_VERSION)}")
        db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def is_held(folder: Path, pair: Pair) -> bool:
    """Whether a process works on a pair of ends right now."""
    try:
        handle = os.open(folder / f"{pair.id}.lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks: nobody can hold one there
    finally:
        os.close(handle)
    return False


@contextmanager
def locked(folder: Path, pair: Pair) -> Iterator[None]:
    """Hold the lock of a pair of ends; it dies with the process. Locked says who has it."""
    path = folder / f"{pair.id}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocalFault(f"the lock {path} cannot be written", why=str(error)) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(handle, 200, 0).decode("utf-8", "replace").strip()
            raise Locked(
                f"another run works from {pair.source} to {pair.sink}",
                why=f"it is {owner}" if owner else "",
                hint="wait for it to end; a lock never outlives its process",
            ) from error
        except OSError as error:
            raise LocalFault(
                f"the lock {path} cannot be held",
                why=f"{error.strerror}: this file system has no locks",
                hint="name a folder on a local disk with XDG_STATE_HOME",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, _owner().encode(), 0)
        yield
    finally:
        os.close(handle)
