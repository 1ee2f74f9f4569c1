"""The observers of one run, as the options ask for them, and the ticker that redraws them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio

from xnatctl.engine.events import Bus
from xnatctl.errors import LocalFault
from xnatctl.ui.jsonl import JsonLines
from xnatctl.ui.progress import Progress, progress

from .app import App

TICK_S = 0.25


@asynccontextmanager
async def watching(app: App) -> AsyncIterator[Bus]:
    """A bus with its observers, until the end of the block. Raises LocalFault for `--events`."""
    with ExitStack() as stack:
        shown = progress(app.console, app.settings.progress)
        stack.callback(shown.close)
        bus = Bus(shown)
        if app.settings.events == "-":
            bus.add(JsonLines(app.console.write))
        elif app.settings.events:
            bus.add(JsonLines(stack.enter_context(_EventFile(app.settings.events)).write))
        if app.console.format == "jsonl" and app.console.is_machine:
            bus.add(JsonLines(app.console.write))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_ticking, shown)
            try:
                yield bus
            finally:
                tasks.cancel_scope.cancel()


async def _ticking(shown: Progress) -> None:
    while True:
        shown.tick()
        await anyio.sleep(TICK_S)


class _EventFile:
    """The file of `--events`: each line reaches it at once, so that a reader can follow."""

    def __init__(self, path: str) -> None:
        try:
            self._file = Path(path).expanduser().open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise LocalFault(
                f"the event file {path} cannot be written",
                why=error.strerror or str(error),
                hint="choose another path for --events",
            ) from error

    def __enter__(self) -> _EventFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, line: str) -> None:
        self._file.write(line)
