"""The table of faults: what was tried, how often, and what became of it.

A test says with `@pytest.mark.fault("row")` which rows it tries, and with the properties `lost`,
`doubled` and `false_success` what an independent look at the disks found. A test that fails counts
as a try of which the outcome is not known. The table is printed at the end of a run that is asked
for it (`--fault-table`), and written into docs/reliability.md between two marks.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# Every row of the table, in its order: what goes wrong, and what must come of it.
ROWS: dict[str, str] = {
    "source closes a body early": "read again; the destination's request stays incomplete",
    "source resets a connection": "read again",
    "body shorter than its Content-Length": "an error of that body, read again",
    "body without a length cut off": "size, digest or archive trailer tell; read again",
    "archive politely lacks a member": "the missing file is named and fetched",
    "bit flipped on the way": "CRC or MD5 tell before the last byte is passed on",
    "source stalls or drips": "a stall ends the attempt, a slow body does not",
    "long silence before a body": "waited for, as long as such requests may take",
    "server answers with an error": "tried again, at most twice where it may be for good",
    "destination stalls": "given up after the stall time, looked up, sent again",
    "destination resets a connection": "looked up at the destination, then sent again if missing",
    "answer lost after the work was done": "looked up, not sent twice",
    "error status after the work was done": "looked up, not sent twice",
    "upload answered 200 and not stored": "found by the fresh listing, written over",
    "upload stored short behind a 200": "found by the fresh listing, written over",
    "same thing created twice": "one of it",
    "server busy, with or without Retry-After": "all requests to it pause; no attempt is spent",
    "login expires": "one new login, whatever is under way",
    "login page or guest in place of an answer": "never taken for data",
    "listed file is gone": "reported as vanished, the rest arrives",
    "source changes during a run": "never a mixture; the next run brings the change",
    "import dies half-way": "our prearchive entry is deleted or finished",
    "archiving's answer lost": "looked up, never archived twice",
    "killed at a numbered point": "the same command finishes it",
    "killed at a random moment": "the same command finishes it",
    "power cut": "what was recorded as done is on the disk; the rest is done again",
    "state file deleted, damaged, locked": "compared afresh, or said with what to do",
    "disk full, read-only, over quota": "said with what to do; nothing half written has a name",
    "Ctrl-C and SIGTERM": "130 or 143, the report, and the command to go on",
    "name, address or certificate fails": "tried again, or refused where that cannot help",
    "destination much slower than source": "the source waits; memory stays bounded",
    "hostile archive": "refused by name",
    "listing without digests, or with wrong ones": "said; never believed silently",
    "odd names": "arrive as they are, or are named as left behind",
    "two runs over the same ends": "the second ends with 9",
    "clock jumps": "no duration and no lease depends on it",
    "link blacked out": "gone on with; a long one closes the gate and is probed",
    "early refusal of an upload": "next to nothing is sent in vain",
    "random faults under every functional test": "ends whole, or says that it did not",
}

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


@dataclass
class Row:
    tries: int = 0
    failed: int = 0
    found: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Ledger:
    """Collects the reports of a run, those of workers too."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = defaultdict(Row)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and not (report.when == "setup" and report.failed):
            return
        if report.skipped:
            return
        said = dict(report.user_properties)
        for name in str(said.get("faults", "")).split("|"):
            if name:
                row = self.rows[name]
                row.tries += int(str(said.get("tries", 1)))
                row.failed += report.failed
                for what in ("lost", "doubled", "false_success"):
                    row.found[what] += int(str(said.get(what, 0)))

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        terminalreporter.section("faults")
        for line in table({name: row for name, row in self.rows.items() if row.tries}):
            terminalreporter.write_line(line)
        if path := config.getoption("--fault-table"):
            unknown = [name for name in ROWS if name not in self.rows]
            if unknown:
                terminalreporter.write_line(f"not written to {path}: {len(unknown)} never tried")
            else:
                write(Path(path), table(self.rows))


def table(rows: dict[str, Row]) -> list[str]:
    """The table in Markdown, one line a fault, and their sum."""
    lines = [
        "| fault | what must come of it | tried | failed | lost | doubled | false success |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    total = Row()
    for name, promise in ROWS.items():
        if (row := rows.get(name)) is None:
            continue
        lines.append(_line(name, promise, row))
        total.tries += row.tries
        total.failed += row.failed
        for what, count in row.found.items():
            total.found[what] += count
    return [*lines, _line("**all**", "", total)]


def _line(name: str, promise: str, row: Row) -> str:
    found = " | ".join(str(row.found[what]) for what in ("lost", "doubled", "false_success"))
    return f"| {name} | {promise} | {row.tries} | {row.failed} | {found} |"


def write(path: Path, lines: list[str]) -> None:
    """Put the table between its marks in a page."""
    head, _, rest = path.read_text("utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    path.write_text("\n".join([f"{head}{BEGIN}", *lines, f"{END}{tail}"]), "utf-8")
