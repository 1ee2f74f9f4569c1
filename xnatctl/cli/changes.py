"""What commands that change a server share: the plan, the question, and doing it change by change.

1. `--dry-run` prints the plan on stdout in the chosen format and writes nothing.
2. Otherwise a command with a question asks it, unless `--yes` was given.
3. The changes are made one after another. One alone raises its error; among several a failure is
   told, the others go on, and the exit code is 1. When the server is gone or the login refused,
   the rest is left.
4. With `-o json` and its like the same rows come out, each with what became of it.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xnatctl.errors import AuthError, Unreachable, UsageError, XnatctlError

from .group import option
from .options import Function, dry_run_option, yes_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App

Row = dict[str, str]
COLUMNS = ("action", "target", "detail", "status", "error")


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do: `action` is a verb (`delete`), `target` what it is done to."""

    action: str
    target: str
    do: Callable[[], Awaitable[None]]
    detail: str = ""

    @property
    def words(self) -> str:
        return f"{self.action} {self.target}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Consent:
    """Whether there is a question, and whether anything is done at all."""

    yes: bool = False
    dry_run: bool = False


def consent_options(function: Function) -> Function:
    """`-y/--yes` and `--dry-run`, passed as `consent: Consent`."""

    @yes_option
    @dry_run_option
    @functools.wraps(function)
    def wrapped(app: App, *, yes: bool, dry_run: bool, **rest: Any) -> Any:
        return function(app, consent=Consent(yes, dry_run), **rest)

    return wrapped


async def carry_out(
    app: App, changes: Sequence[Change], *, question: str = "", consent: Consent = Consent()
) -> int:
    """Make the changes, and return the exit code. `question` is what a person confirms."""
    if consent.dry_run:
        _print(app, [_row(one, "planned") for one in changes])
        return 0
    if question and not consent.yes and changes:
        for one in changes:
            app.console.say(f"  {one.words}")
        app.console.confirm(question)
    rows, code = await _carried_out(app, changes)
    if app.console.is_machine:
        _print(app, rows)
    return code


async def planned(app: App, action: str, target: str, detail: str = "") -> int:
    """The plan of a single change, for a command that has its own way of making it."""

    async def nothing() -> None:
        return None

    return await carry_out(
        app, [Change(action, target, nothing, detail)], consent=Consent(dry_run=True)
    )


async def _carried_out(app: App, changes: Sequence[Change]) -> tuple[list[Row], int]:
    rows: list[Row] = []
    code = 0
    for at, one in enumerate(changes):
        try:
            await one.do()
        except XnatctlError as error:
            if len(changes) == 1:
                raise
            app.console.fail(f"{one.words}: {error}", hint=error.hint)
            rows.append(_row(one, "failed", str(error)))
            code = 1
            if isinstance(error, (AuthError, Unreachable)):
                rows += [_row(left, "left") for left in changes[at + 1 :]]
                return rows, error.exit_code
        else:
            rows.append(_row(one, "done"))
            app.console.say(f"done: {one.words}")
    return rows, code


def _row(change: Change, status: str, error: str = "") -> Row:
    values = (change.action, change.target, change.detail, status, error)
    return dict(zip(COLUMNS, values, strict=True))


def _print(app: App, rows: Sequence[Row]) -> None:
    app.console.rows(rows, COLUMNS[:3], key="target")


def batch_option(function: Callable[..., object]) -> Callable[..., object]:
    """`--batch FILE`, passed as `batch`."""
    decorated: Callable[..., object] = option(
        "--batch",
        metavar="FILE",
        help="Read IDs from a file, one a line or a JSON array; - is standard input.",
    )(function)
    return decorated


def read_batch(source: str | None) -> list[str]:
    """The names in a file. Raises UsageError for one that cannot be read or names nothing."""
    if source is None:
        return []
    try:
        text = sys.stdin.read() if source == "-" else Path(source).expanduser().read_text("utf-8")
        listed = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"--batch {source} cannot be read", why=str(error)) from error
    names = [str(one).strip() for one in listed]
    names = [one for one in names if one and not one.startswith("#")]
    if not names:
        raise UsageError(f"--batch {source} names nothing")
    return names


def named(given: Sequence[str], batch: str | None, *, what: str) -> list[str]:
    """What a command line names, in arguments or a batch, each once. Raises UsageError."""
    names = list(dict.fromkeys([*given, *read_batch(batch)]))
    if not names:
        raise UsageError(f"no {what} was named", hint=f"name a {what}, or add --batch FILE")
    return names
