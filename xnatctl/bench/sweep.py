"""What a sweep concludes: when to stop climbing, where the limit lies, what to set. Pure.

Requests are answered in a closed loop, so where more of them at once bring no more speed, each of
them takes longer. Where that time was added says what the limit is:

1. refusals: whoever refused;
2. this process near one core: this machine;
3. speed that still grows with every connection: the latency of the link, or what it gives to one;
4. all cores of the machine busy, a good part of one by this process: this machine;
5. more time before the first byte (for writes: before the answer): the server behind it;
6. more time while bytes move: the link. In a transfer the end that was waited for longer counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

Where = Literal["source", "destination", "link", "this machine", "unknown"]
Verb = Literal["download", "upload", "transfer", "api"]

GAIN = 0.05
"""A step that brings less than this is flat; after two of them nobody climbs further."""
SCALES = 0.5
"""Speed that grows by this part of what was added in connections is not at its limit."""
GOOD_ENOUGH = 0.95
FEWEST = 5
"""From fewer requests than this in a step nothing is concluded about where their time went."""
ONE_CORE = 0.85
ALL_CORES = 0.95
OUR_PART = 0.2
"""Busy cores are our limit when this process has at least this much of one; else they are taken by
others, which may or may not slow it down."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles. Of times, p95 is what 95 % stayed below; of speeds, what 95 % reached."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Step:
    """One setting, measured for `seconds` after its warm-up. Sizes in bytes, times in seconds.

    `size` is that of a file, 0 where files come as they are. `requests` are bodies that ended;
    one archive of small files is one. `source_wait_s` and `sink_wait_s` are summed over all of
    them.
    """

    verb: Verb
    size: int
    concurrency: int
    seconds: float
    requests: int
    files: int
    bytes: int
    first_byte_s: Spread | None = None
    answer_s: Spread | None = None
    request_s: Spread | None = None
    request_bytes_per_s: Spread | None = None
    refused: int = 0
    errors: int = 0
    blame: Where = "unknown"
    fault: str = ""
    cpu_s: float = 0.0
    machine_busy: float | None = None
    peak_memory: int = 0
    source_wait_s: float = 0.0
    sink_wait_s: float = 0.0

    @property
    def speed(self) -> float:
        """Bytes a second, of `api` requests a second: what is compared within one sweep."""
        return (self.requests if self.verb == "api" else self.bytes) / max(self.seconds, 1e-9)

    @property
    def is_clean(self) -> bool:
        return not (self.refused or self.errors)

    @property
    def cpu_share(self) -> float:
        """How much of one core this process took."""
        return self.cpu_s / max(self.seconds, 1e-9)

    @property
    def cpu_s_per_gb(self) -> float | None:
        return self.cpu_s / (self.bytes / 1e9) if self.bytes else None


@dataclass(frozen=True, slots=True)
class Limit:
    """Where the limit of one size lies, and what says so."""

    where: Where
    why: str


@dataclass(frozen=True, slots=True)
class Advice:
    """How many at once a profile should allow."""

    workers: int
    why: str


def why_stop(steps: Sequence[Step]) -> str:
    """Why nobody should climb further, in words; empty while it may pay."""
    last = steps[-1]
    if last.refused:
        return f"{last.refused} requests were refused with {last.concurrency} at once"
    if last.errors:
        return f"{last.errors} requests failed with {last.concurrency} at once"
    if len(steps) < 3:
        return ""
    before = max(one.speed for one in steps[:-2])
    if max(one.speed for one in steps[-2:]) < before * (1 + GAIN):
        knee = min(one.concurrency for one in steps[:-2] if one.speed == before)
        return f"more than {knee} at once brought nothing"
    return ""


def advise(sweeps: Mapping[int, Sequence[Step]]) -> Advice | None:
    """The smallest setting that is nearly the best for all sizes together; None without a clean
    step.

    A size that was not measured that far counts with its last step, unless that was refused.
    """
    known = [list(steps) for steps in sweeps.values() if any(one.is_clean for one in steps)]
    tried = sorted({one.concurrency for steps in known for one in steps})
    scores = {at: score for at in tried if (score := _score(known, at)) is not None}
    if not scores:
        return None
    best = max(scores.values())
    chosen = min(at for at, score in scores.items() if score >= GOOD_ENOUGH * best)
    share = scores[chosen] / best
    if chosen == max(tried):
        return Advice(chosen, "the most that was tried was the fastest")
    if refused := [one for steps in known for one in steps if not one.is_clean]:
        least = min(one.concurrency for one in refused)
        if least > chosen:
            return Advice(
                chosen, f"{share:.0%} of the best speed; {least} at once met refusals or failures"
            )
    return Advice(chosen, f"{share:.0%} of the best speed with the fewest at once")


def _score(sweeps: list[list[Step]], at: int) -> float | None:
    """How near to its best each size is, as a geometric mean; None where it must not be set."""
    shares = []
    for steps in sweeps:
        if any(not one.is_clean and one.concurrency <= at for one in steps):
            return None
        best = max(one.speed for one in steps if one.is_clean)
        reached = [one for one in steps if one.concurrency <= at]
        if not reached or best <= 0:
            return None
        shares.append(max(reached, key=lambda one: one.concurrency).speed / best)
    return float(prod(shares) ** (1 / len(shares)))


def limit_of(steps: Sequence[Step]) -> Limit:
    """Where the limit of one size lies. `steps` in the order of their concurrency."""
    if not steps:
        return Limit("unknown", "nothing was measured")
    last = steps[-1]
    if not last.is_clean:
        what = f"{last.refused} refusals" if last.refused else f"{last.errors} failures"
        return Limit(last.blame, f"{what} with {last.concurrency} at once")
    best = max(steps, key=lambda one: one.speed)
    for one in (best, last):
        if one.cpu_share >= ONE_CORE:
            return Limit(
                "this machine",
                f"this process took {one.cpu_share:.0%} of a core with {one.concurrency} at once",
            )
    if len(steps) < 2:
        return Limit("unknown", "one step alone does not tell; let --concurrency name several")
    before = steps[-2]
    added = last.concurrency / before.concurrency - 1
    gained = last.speed / max(before.speed, 1e-9) - 1
    if gained >= SCALES * added:
        return Limit(
            "link",
            f"not reached with {last.concurrency} at once: each connection is as fast as one "
            "alone, so its latency or a cap on each holds them",
        )
    busy = best.machine_busy is not None and best.machine_busy >= ALL_CORES
    cores = f"all cores were busy with {best.concurrency} at once"
    if busy and best.cpu_share >= OUR_PART:
        return Limit(
            "this machine", f"{cores}, {best.cpu_share:.0%} of one of them with this process"
        )
    knee = next(one for one in steps if one.speed >= GOOD_ENOUGH * best.speed)
    found = _by_added_time(knee if knee is not last else steps[0], last)
    return Limit(found.where, f"{found.why}; {cores}, with other work") if busy else found


def _by_added_time(base: Step, last: Step) -> Limit:
    """From `base` to `last` each request got slower; the part that did says what holds it."""
    side = _side(last)
    wait = "the first byte" if side == "source" else "the answer"
    few = min(base.requests, last.requests) < FEWEST
    if few or base.request_s is None or last.request_s is None:
        return Limit("unknown", "too few requests ended within a step; give it a longer --duration")
    then, now = (
        (one.first_byte_s if side == "source" else one.answer_s) or Spread(0.0, 0.0, 0.0)
        for one in (base, last)
    )
    more = last.request_s.p50 - base.request_s.p50
    span = f"from {base.concurrency} to {last.concurrency} at once"
    if more <= 0:
        return Limit("unknown", f"requests took no longer {span}, yet no more of them ended")
    part = min(1.0, max(0.0, (now.p50 - then.p50) / more))
    figures = f"{span} a request took {more * 1000:.0f} ms more, {part:.0%} of it before {wait}"
    if part >= 0.5:
        return Limit(side, figures)
    return Limit("link", figures + (f" (on the side of the {side})" if _is_relay(last) else ""))


def _is_relay(step: Step) -> bool:
    return step.verb == "transfer"


def _side(step: Step) -> Where:
    if _is_relay(step):
        return "source" if step.source_wait_s >= step.sink_wait_s else "destination"
    return "destination" if step.verb == "upload" else "source"


def spread(values: Sequence[float], *, of_speeds: bool = False) -> Spread | None:
    """The percentiles of what was seen, by nearest rank; None of nothing."""
    if not values:
        return None
    ranked = sorted(values, reverse=of_speeds)

    def at(part: float) -> float:
        return ranked[max(0, ceil(part * len(ranked)) - 1)]

    return Spread(at(0.50), at(0.95), at(0.99))
