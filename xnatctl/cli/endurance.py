"""Options for how much a run puts up with: tries, failures, time, silence."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import asyncclick as click

from .app import Endurance
from .group import option
from .options import SPAN, TRANSFER, Function

if TYPE_CHECKING:
    from xnatctl.cli.app import App


def endurance_options(function: Function) -> Function:
    """`--retries --max-failures --deadline --stall-timeout`, kept as `app.endurance`."""

    @option(
        "--retries",
        type=click.IntRange(min=0),
        metavar="N",
        group=TRANSFER,
        help="Tries after the first, for each file or archive.  [default: 7]",
    )
    @option(
        "--max-failures",
        type=click.IntRange(min=1),
        metavar="N",
        group=TRANSFER,
        help="Begin nothing new after N sessions have failed.",
    )
    @option(
        "--deadline",
        type=SPAN,
        metavar="6h",
        group=TRANSFER,
        help="Begin nothing new after so long; the same command goes on later.",
    )
    @option(
        "--stall-timeout",
        type=SPAN,
        metavar="60s",
        group=TRANSFER,
        help="Give a connection up on which nothing moves for so long.",
    )
    @functools.wraps(function)
    def wrapped(
        app: App,
        *,
        retries: int | None,
        max_failures: int | None,
        deadline: float | None,
        stall_timeout: float | None,
        **rest: Any,
    ) -> Any:
        app.endurance = Endurance(retries, max_failures, deadline, stall_timeout)
        return function(app, **rest)

    return wrapped
