"""The SQLite side of the store: tables, indexes, and opening them.

One connection in WAL mode without fsync: a killed process loses nothing, a power cut may. The
connection is used from one thread at a time. What the tables mean is told in `store.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

VERSION = 1
PREARCHIVE_CODE = "4"

_TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE counters(name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE items(
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, code TEXT NOT NULL, project INTEGER,
  parent INTEGER, label TEXT NOT NULL, xsi TEXT NOT NULL, doc TEXT NOT NULL, folder TEXT NOT NULL,
  inserted TEXT NOT NULL, modified TEXT NOT NULL, author TEXT NOT NULL, status TEXT NOT NULL,
  fields TEXT NOT NULL);
CREATE INDEX items_code ON items(code);
CREATE INDEX items_any_code ON items(code COLLATE NOCASE);
CREATE INDEX items_label ON items(project, label);
CREATE INDEX items_any_label ON items(project, label COLLATE NOCASE);
CREATE INDEX items_parent ON items(parent, kind);
CREATE TABLE shares(
  item INTEGER NOT NULL, project INTEGER NOT NULL, label TEXT NOT NULL,
  PRIMARY KEY(item, project)) WITHOUT ROWID;
CREATE INDEX shares_project ON shares(project, item);
CREATE TABLE resources(
  id INTEGER PRIMARY KEY, item INTEGER NOT NULL, bucket TEXT NOT NULL, label TEXT NOT NULL,
  format TEXT NOT NULL, content TEXT NOT NULL, description TEXT NOT NULL, tags TEXT NOT NULL,
  folder TEXT NOT NULL, file_count INTEGER, file_size INTEGER, version INTEGER NOT NULL);
CREATE INDEX resources_item ON resources(item, label);
CREATE TABLE files(
  id INTEGER PRIMARY KEY, resource INTEGER NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL,
  md5 TEXT NOT NULL, crc INTEGER NOT NULL, format TEXT NOT NULL, content TEXT NOT NULL,
  tags TEXT NOT NULL, mtime REAL NOT NULL, body TEXT NOT NULL, prefix BLOB NOT NULL);
CREATE UNIQUE INDEX files_path ON files(resource, path);
CREATE TABLE contents(
  size INTEGER NOT NULL, number INTEGER NOT NULL, md5 TEXT NOT NULL, crc INTEGER NOT NULL,
  PRIMARY KEY(size, number)) WITHOUT ROWID;
CREATE TABLE settings(
  scope TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(scope, key));
CREATE TABLE records(
  kind TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY(kind, key));
CREATE TABLE users(
  id INTEGER PRIMARY KEY, login TEXT NOT NULL UNIQUE, secret TEXT NOT NULL, admin INTEGER NOT NULL,
  enabled INTEGER NOT NULL, firstname TEXT NOT NULL, lastname TEXT NOT NULL, email TEXT NOT NULL);
CREATE TABLE members(
  project INTEGER NOT NULL, login TEXT NOT NULL, role TEXT NOT NULL,
  PRIMARY KEY(project, login));
CREATE TABLE tokens(
  alias TEXT PRIMARY KEY, secret TEXT NOT NULL, login TEXT NOT NULL, expires REAL NOT NULL,
  created REAL NOT NULL);
CREATE TABLE used_codes(code TEXT PRIMARY KEY COLLATE NOCASE);
CREATE TABLE workflows(
  id INTEGER PRIMARY KEY, item TEXT NOT NULL, project TEXT NOT NULL, data_type TEXT NOT NULL,
  pipeline TEXT NOT NULL, status TEXT NOT NULL, launched TEXT NOT NULL, login TEXT NOT NULL,
  details TEXT NOT NULL);
CREATE INDEX workflows_item ON workflows(item);
CREATE TABLE prearchive(
  id INTEGER PRIMARY KEY, project TEXT NOT NULL, timestamp TEXT NOT NULL, folder TEXT NOT NULL,
  name TEXT NOT NULL, subject TEXT NOT NULL, tag TEXT NOT NULL, status TEXT NOT NULL,
  uploaded TEXT NOT NULL, lastmod TEXT NOT NULL, touched REAL NOT NULL, scan_date TEXT NOT NULL,
  scan_time TEXT NOT NULL, options TEXT NOT NULL, doc TEXT NOT NULL, log TEXT NOT NULL,
  UNIQUE(project, timestamp, folder));
CREATE TABLE objects(
  entry INTEGER NOT NULL, scan TEXT NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL,
  md5 TEXT NOT NULL, crc INTEGER NOT NULL, uid TEXT NOT NULL, series TEXT NOT NULL,
  body TEXT NOT NULL, facts TEXT NOT NULL, PRIMARY KEY(entry, scan, name)) WITHOUT ROWID;
CREATE INDEX objects_series ON objects(entry, series);
"""


class SandboxError(Exception):
    """The sandbox cannot start or go on: what happened, why, and what the user can do."""

    def __init__(self, what: str, why: str, fix: str) -> None:
        super().__init__(what, why, fix)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        return f"{self.what}: {self.why}. {self.fix}."


def open_database(root: Path) -> sqlite3.Connection:
    """Open or create `root/sandbox.db`.

    Raises SandboxError for a folder that cannot be written, a full disk, a file that is not
    our database, and one of another version.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            root / "sandbox.db", isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        known = connection.execute(
            "SELECT 1 FROM sqlite_master WHERE type='table' AND name='meta'"
        ).fetchone()
        if known is None:
            connection.executescript(
                f"BEGIN; {_TABLES} INSERT INTO meta VALUES('version','{VERSION}'); COMMIT;"
            )
        row = connection.execute("SELECT value FROM meta WHERE key='version'").fetchone()
        (root / "archive").mkdir(exist_ok=True)
        (root / "prearchive").mkdir(exist_ok=True)
        (root / "tmp").mkdir(exist_ok=True)
    except (OSError, sqlite3.OperationalError) as error:
        raise SandboxError(
            f"the sandbox folder {root} cannot be used",
            str(error),
            "Choose a folder that you may write to, on a disk with room",
        ) from error
    except sqlite3.DatabaseError as error:
        raise SandboxError(
            f"the sandbox folder {root} is damaged",
            f"sandbox.db is not a readable database ({error})",
            "Remove the folder, or choose another one",
        ) from error
    if row is None or row[0] != str(VERSION):
        raise SandboxError(
            f"the sandbox folder {root} cannot be used",
            f"its data are of version {row[0] if row else 0}, this program writes {VERSION}",
            "Choose an empty folder",
        )
    return connection


class Database:
    """A connection with transactions, and the tables without structure: settings and records."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.db = open_database(root)
        self._depth = 0

    def close(self) -> None:
        """Close the database; the store cannot be used afterwards."""
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Group writes: all or none, and far quicker. May be nested (the outer one counts)."""
        if self._depth == 0:
            self.db.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._depth == 0:
                self.db.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            self.db.execute("COMMIT")

    def row(self, sql: str, *values: Any) -> Any:
        """The first row of a query, or None."""
        return self.db.execute(sql, values).fetchone()

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """All rows of a query."""
        return self.db.execute(sql, values).fetchall()

    def next_number(self, name: str) -> int:
        """The next value of a named counter, from 1."""
        row = self.row(
            "INSERT INTO counters VALUES(?,1) ON CONFLICT(name) DO UPDATE SET value=value+1 "
            "RETURNING value",
            name,
        )
        return int(row[0])

    def setting(self, scope: str, key: str, default: str = "") -> str:
        """A setting of the site (scope `""`) or of a project (its ID)."""
        row = self.row("SELECT value FROM settings WHERE scope=? AND key=?", scope, key)
        return default if row is None else str(row[0])

    def prearchive_code(self, project: str) -> str:
        """What becomes of a project's arrivals; new projects archive them by themselves."""
        return self.setting(project, "prearchive_code", PREARCHIVE_CODE)

    def set_setting(self, scope: str, key: str, value: str) -> None:
        """Store a setting of the site (scope `""`) or of a project (its ID)."""
        self.db.execute("INSERT OR REPLACE INTO settings VALUES(?,?,?)", (scope, key, value))

    def record(self, kind: str, key: str) -> Any:
        """A stored JSON record, or None."""
        row = self.row("SELECT body FROM records WHERE kind=? AND key=?", kind, key)
        return None if row is None else msgspec.json.decode(row[0])

    def records(self, kind: str) -> dict[str, Any]:
        """All JSON records of a kind by key."""
        rows = self.rows("SELECT key, body FROM records WHERE kind=? ORDER BY rowid", kind)
        return {key: msgspec.json.decode(body) for key, body in rows}

    def set_record(self, kind: str, key: str, body: Any) -> None:
        """Store a JSON record; None removes it."""
        if body is None:
            self.db.execute("DELETE FROM records WHERE kind=? AND key=?", (kind, key))
        else:
            self.db.execute(
                "INSERT OR REPLACE INTO records VALUES(?,?,?)",
                (kind, key, msgspec.json.encode(body).decode()),
            )
