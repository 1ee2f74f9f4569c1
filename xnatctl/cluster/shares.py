"""The budget of a run, shared out over its workers: slots of both ends, and bytes a second.

1. The run's own gates are the budget. `absorb` shows them what all workers saw, as if one process
   had seen it; only they widen or narrow.
2. `share_out` gives everybody an equal part. What one gives up is handed on only when it is out of
   use there, so that all workers together never use more than the budget allows.
3. Where there are more workers than slots some have no share, and get no unit (`pick`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from statistics import median

import anyio

from xnatctl.engine.limits import Limits, Sample

from .members import Member
from .wire import News, Share

ENDS = (0, 1)
KINDS = (0, 1, 2)
Tell = Callable[[Member, News], Awaitable[bool]]
"""Whether the member has taken the news in."""


class Shares:
    """The shares of `members`, by address. `rate` says how many bytes a second all may move, 0 for
    any number.
    """

    def __init__(
        self,
        members: Mapping[str, Member],
        limits: Limits,
        *,
        rate: Callable[[], float],
        tell: Tell,
    ) -> None:
        self._members = members
        self._limits = limits
        self._rate = rate
        self._tell = tell
        self._samples: dict[Member, tuple[Sample, Sample]] = {}

    def note(self, member: Member, samples: tuple[Sample, Sample]) -> None:
        """What a member saw at both ends since its last letter."""
        self._samples[member] = samples

    def absorb(self) -> None:
        """What members saw since the last time goes to the gates, as of one host's clients."""
        here = set(self._members.values())
        seen = {member: both for member, both in self._samples.items() if member in here}
        self._samples.clear()
        if not seen:
            return
        for member, (source, sink) in seen.items():
            member.peaks = (source.peak, sink.peak)
        for end, gate in zip(ENDS, (self._limits.source, self._limits.sink), strict=True):
            peak = sum(member.peaks[end] for member in here)
            gate.absorb(merged([both[end] for both in seen.values()], peak))

    def most_at_work(self) -> int:
        return min(len(self._members), self._limits.source.limit, self._limits.sink.limit)

    def pick(self, *, alone: bool) -> Member | None:
        """A member with a share and a place for one more unit; `alone`: one with nothing to do."""
        busy = sum(1 for one in self._members.values() if one.leases)
        most = self.most_at_work()
        if busy > most:
            return None  # the budget has shrunk: those who wait for a share come first
        able = [
            one
            for one in self._members.values()
            if min(one.share[:2])
            and len(one.leases) < one.places
            and (one.leases or busy < most)
            and not (alone and one.leases)
            and not any(lease.alone for lease in one.leases.values())
        ]
        return min(able, key=lambda one: len(one.leases) / min(one.share[:2]), default=None)

    async def share_out(self) -> None:
        """Bring the shares into line with the budget."""
        order = sorted(self._members.values(), key=lambda one: (not one.leases, one.number))
        chosen = order[: self.most_at_work()]
        rate = self._rate()
        # A part of nothing would be no cap at all.
        cap = max(int(rate), len(chosen)) if rate else 0
        limits = (self._limits.source.limit, self._limits.sink.limit, cap)
        parts = zip(*(_parts(limit, len(chosen)) for limit in limits), strict=True)
        wanted: dict[Member, Share] = dict.fromkeys(order, (0, 0, 0))
        wanted |= dict(zip(chosen, parts, strict=True))
        changing = [one for one in order if wanted[one] != one.share or _holds_on(one)]
        if not changing:
            return
        await self._give({one: _each(min, one.share, wanted[one]) for one in changing})
        free = [limits[at] - sum(_used(one, at) for one in order) for at in KINDS]
        grown = {}
        for one in chosen:
            more = [max(0, min(wanted[one][at] - one.share[at], free[at])) for at in KINDS]
            # Without a part of the cap its slots would know none; the next time there is one.
            if any(more) and (not cap or one.share[2] + more[2]):
                free = [free[at] - more[at] for at in KINDS]
                grown[one] = _each(lambda old, plus: old + plus, one.share, more)
        await self._give(grown)

    async def _give(self, shares: Mapping[Member, Share]) -> None:
        async def one(member: Member, mine: Share) -> None:
            # Counted before it is told: what is under way may have arrived.
            before, member.share = member.share, _each(max, member.share, mine)
            if await self._tell(member, News(share=mine)):
                member.share = mine
            else:
                member.share = _each(max, before, mine)

        async with anyio.create_task_group() as tasks:
            for member, mine in shares.items():
                tasks.start_soon(one, member, mine)


def merged(samples: list[Sample], peak: int) -> Sample:
    """What one process would have seen that did all of it."""
    firsts = [one.first_byte_s for one in samples if one.first_byte_s is not None]
    return Sample(
        seconds=max(one.seconds for one in samples),
        bytes=sum(one.bytes for one in samples),
        completions=sum(one.completions for one in samples),
        refusals=sum(one.refusals for one in samples),
        peak=peak,
        first_byte_s=median(firsts) if firsts else None,
        lag_s=median(one.lag_s for one in samples),
    )


def _parts(limit: int, among: int) -> list[int]:
    each, more = divmod(limit, among) if among else (0, 0)
    return [each + (number < more) for number in range(among)]


def _each(function: Callable[[int, int], int], one: Iterable[int], other: Iterable[int]) -> Share:
    first, second, third = map(function, one, other)
    return first, second, third


def _used(member: Member, at: int) -> int:
    return max(member.share[at], member.held[at])


def _holds_on(member: Member) -> bool:
    return any(member.held[at] > member.share[at] for at in KINDS)
