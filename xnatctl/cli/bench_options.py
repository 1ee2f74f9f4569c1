"""The options that all benchmarks share, as one record: what is tried, how long, how much."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncclick as click

from .group import option
from .options import OUTPUT, SPAN, Function, dry_run_option

SWEEP = "Sweep"
MOST_AT_ONCE = 256
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


class Bytes(click.ParamType[int]):
    """A size such as `8k`, `1M` or `2GB`, in powers of two."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(?i)(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", str(value).strip())
        size = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
        if size < 1:
            self.fail(f"{value!r} is no size such as 8k, 1M or 2G", param, ctx)
        return size


class Several(click.ParamType[tuple[int, ...]]):
    """Several values with commas between them, in their order and each once."""

    def __init__(self, kind: click.ParamType[int], name: str) -> None:
        self.kind = kind
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        parts = [part for part in str(value).split(",") if part.strip()]
        if not parts:
            self.fail("it names nothing", param, ctx)
        return tuple(sorted({self.kind.convert(part.strip(), param, ctx) for part in parts}))


BYTES = Bytes()
SIZES = Several(BYTES, "sizes")
COUNTS = Several(click.IntRange(1, MOST_AT_ONCE), "counts")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """How a sweep is made; `sizes` is None where none were named."""

    concurrency: tuple[int, ...]
    duration: float
    max_bytes: int
    html: Path | None
    dry_run: bool
    sizes: tuple[int, ...] | None = None


def bench_options(function: Function) -> Function:
    """`--concurrency --duration --max-bytes --html --dry-run`, and `--size` where the command has
    it, passed as `options: BenchOptions`.
    """

    @option(
        "--concurrency",
        type=COUNTS,
        default="1,2,4,8,16,32",
        show_default=True,
        metavar="N,N",
        group=SWEEP,
        help="How many requests at once are tried.",
    )
    @option(
        "--duration",
        type=SPAN,
        default="60s",
        show_default=True,
        metavar="TIME",
        group=SWEEP,
        help="How long all steps together take, about.",
    )
    @option(
        "--max-bytes",
        type=BYTES,
        default="2G",
        show_default=True,
        metavar="SIZE",
        group=SWEEP,
        help="How much is moved at most.",
    )
    @option(
        "--html",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        group=OUTPUT,
        help="Write a page with plots, which opens offline.",
    )
    @dry_run_option
    @functools.wraps(function)
    def wrapped(app: Any, **values: Any) -> Any:
        names = ("concurrency", "duration", "max_bytes", "html", "dry_run", "sizes")
        mine = {name: values.pop(name) for name in names if name in values}
        return function(app, options=BenchOptions(**mine), **values)

    return wrapped


def size_option(default: str | None, words: str) -> Callable[[Function], Function]:
    return option(
        "--size",
        "sizes",
        type=SIZES,
        default=default,
        show_default=default is not None,
        metavar="SIZE,SIZE",
        group=SWEEP,
        help=words,
    )
