"""What commands that move data share: the desk of a run, its exit code, where state lives."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.config import Server
    from xnatctl.engine.runner import Options
    from xnatctl.engine.state import StateStore
    from xnatctl.routes import Desk

FIRST_SIGNAL = 128
"""Exit codes above it are those of signals."""
DEFAULT_WORKERS = 16
"""The bound. A run begins with two at once and goes up only while the servers deliver more."""


def state_path(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/xnatctl/state.db`: one store for all profiles."""
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "~")) / ".local/state")
    return Path(base).expanduser() / "xnatctl" / "state.db"


@asynccontextmanager
async def open_state(app: App) -> AsyncIterator[StateStore]:
    from xnatctl.engine.state import StateStore

    async with StateStore.open(state_path(app.environ)) as state:
        yield state


@asynccontextmanager
async def desk(app: App, options: Options) -> AsyncIterator[Desk]:
    """State, observers and signals for one run; the first signal asks it to stop."""
    from xnatctl.engine.runner import Stop
    from xnatctl.routes import Desk

    stop = Stop()
    async with open_state(app) as state, app.watching() as bus:
        with app.graceful(stop.ask):
            yield Desk(state, bus, _enduring(app, options), stop)
    if stop.asked.is_set() and stop.code < FIRST_SIGNAL:  # a signal has it said at once
        app.console.say(f"to go on: {command_line(app)}")


def _enduring(app: App, options: Options) -> Options:
    """The options of a run with what `endurance_options` said."""
    wish, policy = app.endurance, options.policy
    return replace(
        options,
        policy=policy if wish.retries is None else replace(policy, attempts=wish.retries + 1),
        max_failures=wish.max_failures or options.max_failures,
        deadline=wish.deadline,
    )


def workers(given: int | None, *servers: Server, fewest: int = 0) -> int:
    """How many things at once: the flag, else the smallest that a profile names, else 16 or
    `fewest`.
    """
    named = [one.workers for one in servers if one.workers]
    return given or (min(named) if named else max(DEFAULT_WORKERS, fewest))


def command_line(app: App) -> str:
    """The command as it can be typed again. No secret is ever an argument."""
    return shlex.join(["xnatctl", *app.argv])
