"""A run as metrics in the OpenMetrics text format, for the textfile collector of node_exporter.

All are gauges of the last run, labelled with verb, source and sink, so that one name reads the same
for every reader of the format. Times are seconds since the epoch or durations in seconds, sizes
bytes. `last_success_time_seconds` outlives a run that fails.
"""

from __future__ import annotations

import re
import time

from xnatctl.engine.events import Event, ItemDone, ItemRetried, RunDone, RunStarted, UnitDone

HELP = {
    "running": "1 while the run goes on.",
    "start_time_seconds": "When the run began.",
    "end_time_seconds": "When the run ended, 0 while it goes on.",
    "last_success_time_seconds": "When a run last ended well, 0 if none did.",
    "duration_seconds": "How long the run took.",
    "exit_code": "The exit code of the run, -1 while it goes on.",
    "files_moved": "Files that arrived.",
    "bytes_moved": "Bytes of the files that arrived.",
    "files_kept": "Files that were there already.",
    "units_done": "Projects, subjects and sessions of which something arrived.",
    "units_kept": "Those that were there already.",
    "units_failed": "Those that failed.",
    "left_behind": "Things that could not be carried.",
    "retries": "Attempts after the first.",
}
_LAST = re.compile(r"^xnatctl_run_last_success_time_seconds\{.*\} ([0-9.e+]+)$", re.MULTILINE)


class Metrics:
    """An observer that knows at any time how the run goes; `text` is the whole file."""

    def __init__(self, before: str = "") -> None:
        """`before` is the file of the run before, if there is one."""
        known = _LAST.search(before)
        self._labels = {"verb": "", "source": "", "sink": ""}
        self._values: dict[str, float] = dict.fromkeys(HELP, 0)
        self._values["last_success_time_seconds"] = float(known[1]) if known else 0
        self._values |= {"running": 1, "exit_code": -1, "start_time_seconds": time.time()}
        self.is_done = False

    def __call__(self, event: Event) -> None:
        values = self._values
        if isinstance(event, RunStarted):
            self._labels = {"verb": event.verb, "source": event.source, "sink": event.sink}
            values["start_time_seconds"] = event.at
        elif isinstance(event, ItemDone) and event.outcome.became == "copied":
            values["files_moved"] += event.outcome.files
            values["bytes_moved"] += event.outcome.bytes
        elif isinstance(event, ItemRetried):
            values["retries"] += 1
        elif isinstance(event, UnitDone):
            one = event.outcome
            values["files_kept"] += one.files_kept
            values["left_behind"] += len(one.left)
            name = {"copied": "units_done", "kept": "units_kept", "failed": "units_failed"}
            if one.became in name:
                values[name[one.became]] += 1
        elif isinstance(event, RunDone):
            report = event.report
            values["files_moved"], values["bytes_moved"] = report.files, report.bytes
            values["retries"] = report.retries
            self.end(report.exit_code)

    def end(self, code: int) -> None:
        """The run is over, also one that never began."""
        now = time.time()
        self.is_done = True
        self._values |= {
            "running": 0,
            "exit_code": code,
            "end_time_seconds": now,
            "duration_seconds": now - self._values["start_time_seconds"],
        }
        if code == 0:
            self._values["last_success_time_seconds"] = now

    def text(self) -> str:
        labels = ",".join(f'{name}="{_escaped(text)}"' for name, text in self._labels.items())
        lines = []
        for name, words in HELP.items():
            full = f"xnatctl_run_{name}"
            lines += [f"# HELP {full} {words}", f"# TYPE {full} gauge"]
            lines.append(f"{full}{{{labels}}} {self._values[name]:.16g}")
        return "\n".join([*lines, "# EOF", ""])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
