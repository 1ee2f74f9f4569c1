"""`project audit`: a project at the server against a list of what it should hold.

Two forms of list are read: `{"SESSION": number of scans, …}` as JSON, and the `manifest.jsonl` of
an export, which names every file with its size and MD5.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import ConfigError, LocalFault

from .group import command, option
from .lookup import missing
from .options import project_option, workers_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.xnat.client import Xnat

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the audit: `status` is OK, MISMATCH, MISSING or EXTRA."""

    status: str
    name: str
    expected: int | str | None = None
    found: int | str | None = None

    def line(self) -> str:
        if self.status == "MISMATCH":
            return f"MISMATCH {self.name}: expected {self.expected}, found {self.found}"
        return f"{self.status} {self.name}"

    def record(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "name": self.name,
            "expected": self.expected,
            "found": self.found,
        }


@command("audit")
@project_option
@option(
    "--manifest",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The list: JSON of session labels with numbers of scans, or a manifest.jsonl.",
)
@option("--write", is_flag=True, help="Write the list from the server instead; .jsonl has files.")
@workers_option
async def project_audit(
    app: App, *, project: str | None, manifest: Path, write: bool, workers: int | None
) -> int:
    """Compare a project with a list of what it should hold; a line for each thing, 1 on any error.

    \b
    Examples:
      xnatctl project audit -P STUDY --manifest expected.json
      xnatctl project audit -P STUDY --manifest expected.json --write
      xnatctl project audit -P STUDY --manifest /data/study/manifest.jsonl -o json
    """
    from xnatctl.engine.limits import Gate

    from .runs import workers as most

    server = app.server()
    owner = app.project(project)
    is_full = manifest.suffix == ".jsonl"
    expected: Any = None
    if not write:
        expected = _read_files(manifest) if is_full else _read_counts(manifest)
    gate = Gate("source", most=most(workers, server), fixed=True)
    async with app.xnat(server) as xnat:
        with missing(f"no project {owner} at {xnat.name}", "xnatctl project list"):
            await xnat.get_project(owner)
        found: dict[str, Any]
        if is_full:
            found = {path: row async for path, row in _files(xnat, owner)}
        else:
            found = await _counts(xnat, owner, gate)
    if write:
        _write(manifest, found, is_full)
        app.console.say(f"{len(found)} {'files' if is_full else 'sessions'} in {manifest}")
        return 0
    findings = compare(expected, found)
    if app.console.is_machine:
        app.console.document([one.record() for one in findings])
    else:
        for one in findings:
            if one.status != "OK" or not app.console.quiet:
                app.console.write(f"{one.line()}\n")
        wrong = sum(one.status != "OK" for one in findings)
        app.console.say(f"{len(findings) - wrong} as expected, {wrong} not")
    return int(any(one.status != "OK" for one in findings))


def compare(expected: dict[str, Any], found: dict[str, Any]) -> list[Finding]:
    """A finding for every name on either side, in their order."""
    findings = []
    for name in sorted(expected.keys() | found.keys()):
        wanted, there = expected.get(name), found.get(name)
        if there is None:
            findings.append(Finding("MISSING", name, wanted, None))
        elif wanted is None:
            findings.append(Finding("EXTRA", name, None, there))
        else:
            status = "OK" if wanted == there else "MISMATCH"
            findings.append(Finding(status, name, wanted, there))
    return findings


def _read_counts(path: Path) -> Counts:
    """Raises ConfigError for what is no JSON object of labels with numbers."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", why=error.strerror or str(error)) from error
    except ValueError as error:
        raise ConfigError(
            f"{path} is not JSON", why=str(error), hint='{"SESSION_LABEL": 12, …}'
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path} is not a list of sessions", why="it has to be one JSON object of labels"
        )
    for label, number in data.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise ConfigError(
                f"{path}: {label}: {number!r} is not a number of scans",
                hint='{"SESSION_LABEL": 12, …}',
            )
    return data


def _read_files(path: Path) -> dict[str, str]:
    """Files of a manifest as `size MD5` by path; documents are not listed by a server."""
    from xnatctl.routes import manifest_rows

    return {
        row.true: f"{row.size} {row.md5}" for row in manifest_rows(path) if "/files/" in row.true
    }


async def _counts(xnat: Xnat, project: str, gate: Any) -> Counts:
    import anyio

    found: Counts = {}
    sessions = [one for one in await xnat.list_experiments(project) if one.is_imaging]

    async def count(label: str, ident: str) -> None:
        async with gate.slot():
            found[label] = len(await xnat.list_scans(ident))

    async with anyio.create_task_group() as tasks:
        for one in sessions:
            tasks.start_soon(count, one.label, one.id)
    return dict(sorted(found.items()))


async def _files(xnat: Xnat, project: str) -> AsyncIterator[tuple[str, str]]:
    from xnatctl.routes import listed_files

    async for path, size, digest in listed_files(xnat, project):
        yield path, f"{size} {digest}"


def _write(path: Path, found: dict[str, Any], is_full: bool) -> None:
    if is_full:
        rows = [(name, *text.split(" ")) for name, text in sorted(found.items())]
        text = "".join(
            json.dumps({"path": name, "size": int(size), "md5": digest}, ensure_ascii=False) + "\n"
            for name, size, digest in rows
        )
    else:
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise LocalFault(f"{path} cannot be written", why=error.strerror or str(error)) from error
