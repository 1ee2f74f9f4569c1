"""Options for runs that nobody watches: how fast, when, and figures for a monitor."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import LocalFault, XnatctlError

from .group import option
from .options import Function

if TYPE_CHECKING:
    from xnatctl.engine.events import Event
    from xnatctl.engine.pace import Pace
    from xnatctl.routes import Desk

UNATTENDED = "Unattended"
REWRITE_S = 10.0


@dataclass(frozen=True, slots=True)
class Unattended:
    """The options as they were typed."""

    metrics_file: Path | None = None
    bwlimit: str | None = None
    window: str | None = None

    def pace(self) -> Pace | None:
        """The cap and the window. Raises UsageError."""
        if self.bwlimit is None and self.window is None:
            return None
        from xnatctl.engine.pace import Pace, Rate, Window, parse_rate

        rate = Rate(parse_rate(self.bwlimit)) if self.bwlimit is not None else None
        return Pace(rate, Window.parse(self.window) if self.window is not None else None)

    @contextmanager
    def over(self, work: Desk) -> Iterator[Desk]:
        """The desk with these wishes; the file of metrics is true at the end, whatever happened."""
        work = replace(work, pace=self.pace())
        if self.metrics_file is None:
            yield work
            return
        file = _MetricsFile(self.metrics_file)
        work.bus.add(file)
        try:
            yield work
        except BaseException as error:
            code = error.exit_code if isinstance(error, XnatctlError) else 1
            file.end(code)
            raise


def unattended_options(function: Function) -> Function:
    """`--metrics-file --bwlimit --window`, passed as `unattended: Unattended`."""

    @option(
        "--metrics-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        group=UNATTENDED,
        help="Keep figures of the run there, as OpenMetrics for node_exporter (name it *.prom).",
    )
    @option(
        "--bwlimit",
        metavar="RATE",
        group=UNATTENDED,
        help="At most so many bytes a second, such as 50MB/s.",
    )
    @option(
        "--window",
        metavar="HH:MM-HH:MM",
        group=UNATTENDED,
        help="Move data in these hours only (local time), and wait outside of them.",
    )
    @functools.wraps(function)
    def wrapped(
        app: Any, *, metrics_file: Path | None, bwlimit: str | None, window: str | None, **rest: Any
    ) -> Any:
        wishes = Unattended(metrics_file, bwlimit, window)
        wishes.pace()  # a wrong value is refused before anything is asked of a server
        return function(app, unattended=wishes, **rest)

    return wrapped


class _MetricsFile:
    """An observer that rewrites the file from time to time, always as a whole."""

    def __init__(self, path: Path) -> None:
        from xnatctl.ui.metrics import Metrics

        self._path = path
        try:
            before = path.read_text("utf-8") if path.exists() else ""
        except (OSError, UnicodeDecodeError):
            before = ""
        self._metrics = Metrics(before)
        self._written = 0.0
        self._write()

    def __call__(self, event: Event) -> None:
        self._metrics(event)
        if self._metrics.is_done or time.monotonic() - self._written >= REWRITE_S:
            self._write()

    def end(self, code: int) -> None:
        if not self._metrics.is_done:
            self._metrics.end(code)
            self._write()

    def _write(self) -> None:
        part = self._path.with_name(f".{self._path.name}.part")
        try:
            part.write_text(self._metrics.text(), "utf-8")
            part.replace(self._path)
        except OSError as error:
            raise LocalFault(
                f"the file of metrics {self._path} cannot be written",
                why=error.strerror or str(error),
                hint="choose another path for --metrics-file",
            ) from error
        self._written = time.monotonic()
