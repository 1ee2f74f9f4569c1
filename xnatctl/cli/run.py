"""Runs a job: the event loop and the signals.

1. First Ctrl-C or SIGTERM: a run that can stop gracefully is told so and gets `App.grace_s` s;
   anything else is cancelled.
2. Second: cancelled at once.
3. Third: the default handler, which kills the process.

Exit code 130 or 143 whenever a signal ended the command, also when it ended well.
"""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from xnatctl.errors import Cancelled, first_known

from .app import App
from .group import Job
from .logs import logging_to

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def supervise(app: App, job: Job) -> int:
    """Run the job to its end and return its exit code. Raises what the job raised."""
    with logging_to(app), asyncio.Runner() as runner:
        return runner.run(_supervised(app, job))


async def _supervised(app: App, job: Job) -> int:
    code: int | None = None
    app.stopping = anyio.Event()
    with anyio.CancelScope() as scope, _Stop(app, scope).listening() as stop:
        try:
            code = await job.call()
        except Exception as error:
            if stop.first is None or not isinstance(first_known(error), Cancelled):
                raise
    if stop.first is None:
        return code or 0
    return 128 + stop.first


class _Stop:
    """What to do at the first, second and third signal."""

    def __init__(self, app: App, scope: anyio.CancelScope) -> None:
        self.app = app
        self.scope = scope
        self.first: int | None = None
        self.count = 0

    @contextmanager
    def listening(self) -> Iterator[_Stop]:
        loop = asyncio.get_running_loop()
        installed = []
        for number in SIGNALS:
            try:
                loop.add_signal_handler(number, self.hear, int(number))
            except (NotImplementedError, ValueError, RuntimeError):
                continue  # Windows, or not the main thread: the default handlers stay
            installed.append(number)
        try:
            yield self
        finally:
            for number in installed:
                loop.remove_signal_handler(number)

    def hear(self, number: int) -> None:
        self.count += 1
        self.first = self.first or number
        if self.count == 1 and self.app.ask_to_stop is not None:
            self.begin_grace(number, self.app.ask_to_stop)
        elif self.count <= 2:
            self.app.console.note("stopping now")
            self.scope.cancel()
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def begin_grace(self, number: int, ask: Callable[[str, int], None]) -> None:
        app = self.app
        assert app.stopping is not None
        app.stopping.set()
        ask("Ctrl-C" if number == signal.SIGINT else "SIGTERM", 128 + number)
        loop = asyncio.get_running_loop()
        loop.call_later(app.grace_s + app.closing_s, self.scope.cancel)
        app.console.note(f"stopping within {app.grace_s:.0f} s; Ctrl-C again stops at once")
        app.console.note(f"continue later with: {shlex.join(('xnatctl', *app.argv))}")
