"""The table of faults: what was tried, how often, and what became of it.

A test says with `@pytest.mark.fault("row")` which rows it tries, and with the properties `lost`,
`doubled` and `false_success` what an independent look at the disks found. A test that fails counts
as a try of which the outcome is not known. The table is printed at the end of a run that is asked
for it (`--fault-table`), and written into docs/reliability.md between two marks.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

from tests.faults.weather import SEED

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
    "worker given up, killed or cut off": "another does its unit; what it still sends is refused",
    "clock jumps": "no duration and no lease depends on it",
    "link blacked out": "gone on with; a long one closes the gate and is probed",
    "early refusal of an upload": "next to nothing is sent in vain",
    "random faults under every functional test": "ends whole, or says that it did not",
}

ELSEWHERE: dict[str, str] = {
    "tests/unit/test_copy.py::test_a_body_that_is_short_is_never_given_whole": (
        "body without a length cut off"
    ),
    "tests/unit/test_copy.py::test_an_archive_that_stops_politely_between_two_members_is_cut": (
        "body without a length cut off"
    ),
    "tests/unit/test_copy.py::test_an_archive_without_its_end_is_cut_even_when_all_members_came": (
        "body without a length cut off"
    ),
    "tests/unit/test_transport_wire.py::test_a_cut_body_is_an_error": (
        "body shorter than its Content-Length"
    ),
    "tests/unit/test_transport_wire.py::test_a_body_that_trickles_is_not_given_up": (
        "source stalls or drips"
    ),
    "tests/unit/test_transport_wire.py::test_a_slow_request_may_be_silent_for_longer": (
        "long silence before a body"
    ),
    "tests/unit/test_transport_wire.py::test_many_that_find_the_login_expired_make_one_new_login": (
        "login expires"
    ),
    "tests/unit/test_transport_wire.py::test_a_lost_login_costs_no_byte_of_a_large_body": (
        "early refusal of an upload"
    ),
    "tests/unit/test_transport_wire.py::test_a_body_that_is_too_large_for_the_server_is_refused": (
        "early refusal of an upload"
    ),
    "tests/unit/test_transport_wire.py::test_a_host_that_does_not_exist_is_said": (
        "name, address or certificate fails"
    ),
    "tests/unit/test_transport_wire.py::test_nobody_listening_is_tried_again_and_then_said": (
        "name, address or certificate fails"
    ),
    "tests/unit/test_transport_wire.py::test_a_slow_reader_holds_the_server_back": (
        "destination much slower than source"
    ),
    "tests/unit/test_transport_replies.py::test_a_pause": (
        "server busy, with or without Retry-After"
    ),
    "tests/unit/test_transport_replies.py::test_any_retry_after": (
        "server busy, with or without Retry-After"
    ),
    "tests/unit/test_zipstream_reader.py::test_a_name_that": "hostile archive",
    "tests/unit/test_zipstream_reader.py::test_a_link_or_a_device": "hostile archive",
    "tests/unit/test_zipstream_reader.py::test_a_bomb": "hostile archive",
    "tests/unit/test_zipstream_reader.py::test_too_many_members": "hostile archive",
    "tests/unit/test_zipstream_reader.py::test_a_damaged_or_forged": "hostile archive",
    "tests/unit/test_zipstream_reader.py::test_case_twins": "hostile archive",
    "tests/unit/test_zipstream_reader.py::test_a_member_of_more_than_four": "hostile archive",
    "tests/integration/test_transfer.py::test_what_xnat_cannot_hold_is_named": "odd names",
    "tests/integration/test_download.py::test_odd_names_arrive": "odd names",
    "tests/cli/test_odd_names.py::test_a_download_brings_every_file": "odd names",
    "tests/integration/test_export.py::test_odd_names_are_exported": "odd names",
    "tests/contract/test_sinks.py::test_odd_names_arrive_as_they_are": "odd names",
    "tests/unit/test_limits.py::test_a_host_that_keeps_failing": "link blacked out",
    "tests/unit/test_limits.py::test_one_success_opens": "link blacked out",
    "tests/unit/test_state.py::test_a_pair_that_another_process_holds": (
        "two runs over the same ends"
    ),
    "tests/unit/test_state.py::test_a_full_disk_is_said": "disk full, read-only, over quota",
    "tests/unit/test_state.py::test_a_store_that_is_damaged_inside": (
        "state file deleted, damaged, locked"
    ),
    "tests/integration/test_increments.py::test_an_item_added_while_the_run_is_under_way": (
        "source changes during a run"
    ),
    "tests/cli/test_program.py::test_the_first_signal": "Ctrl-C and SIGTERM",
    "tests/cli/test_program.py::test_the_second_signal": "Ctrl-C and SIGTERM",
    "tests/faults/test_killed.py::test_an_interrupted": "Ctrl-C and SIGTERM",
    "tests/faults/test_killed.py::test_a_killed_transfer": "killed at a random moment",
    "tests/faults/test_upload_killed.py::": "killed at a random moment",
    "tests/cluster/test_local_workers.py::test_a_worker_that_is_killed": (
        "worker given up, killed or cut off"
    ),
    "tests/cluster/test_local_workers.py::test_a_worker_that_was_given_up": (
        "worker given up, killed or cut off"
    ),
    "tests/cluster/test_commands.py::test_workers_killed_at_random": (
        "worker given up, killed or cut off"
    ),
    "tests/cluster/test_commands.py::test_a_coordinator_killed": (
        "worker given up, killed or cut off"
    ),
}
"""Tests of single parts that belong to a row, by the beginning of their names."""

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
                told = f"Written on {date.today()} by one run; its seed was {os.environ[SEED]}."
                write(Path(path), [told, "", *table(self.rows)])


def rows_of(item: pytest.Item) -> list[str]:
    """The rows that a test tries."""
    found = [row for mark in item.iter_markers("fault") for row in mark.args]
    return found + [row for name, row in ELSEWHERE.items() if item.nodeid.startswith(name)]


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
