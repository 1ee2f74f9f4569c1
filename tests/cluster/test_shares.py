"""All workers together never use more than the budget: slots of either end, or bytes a second."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from xnatctl.cluster.members import Member
from xnatctl.cluster.shares import Shares
from xnatctl.cluster.wire import News
from xnatctl.engine.limits import Gate, Limits


class Site:
    """Workers as the news reach them: what each was last told, and what it has in use."""

    def __init__(self, slots: int, rate: float) -> None:
        self.members: dict[str, Member] = {}
        self.told: dict[Member, tuple[int, int, int]] = {}
        self.used: dict[Member, tuple[int, int, int]] = {}
        self.deaf: set[Member] = set()
        self.rate = rate
        self.limits = Limits(Gate("source", most=slots), Gate("sink", most=slots))
        self.set_slots(slots)
        self.shares = Shares(self.members, self.limits, rate=lambda: self.rate, tell=self._tell)

    def set_slots(self, slots: int) -> None:
        for gate in (self.limits.source, self.limits.sink):
            gate.resize(slots)

    def come(self) -> None:
        number = len(self.told)
        member = Member(f"tcp://{number}", "host", "seat", places=4, heard=0.0)
        self.members[member.address] = member
        self.told[member] = self.used[member] = (0, 0, 0)

    def leave(self) -> None:
        if self.members:
            _, member = self.members.popitem()
            del self.used[member]
            self.told[member] = (0, 0, 0)

    async def _tell(self, member: Member, news: News) -> bool:
        assert news.share is not None
        self.told[member] = news.share
        if member in self.deaf:
            return False  # it has heard, but its answer was lost
        member.held = self.used[member]
        return True

    def use_all(self) -> None:
        """Everybody uses what it was told, and goes on with what it had while it is in use."""
        for member in self.members.values():
            self.used[member] = self.told[member]

    def total(self, kind: int) -> int:
        """The most that all who are here may be using at this moment."""
        return sum(max(self.told[one][kind], self.used[one][kind]) for one in self.members.values())


STEPS = st.lists(
    st.sampled_from(["come", "come", "leave", "use", "use", "idle", "widen", "narrow", "deafen"]),
    min_size=12,
    max_size=25,
)


@given(STEPS, st.integers(1, 9), st.sampled_from([0.0, 1000.0, 50e6]))
@settings(max_examples=50, deadline=None)
async def test_whatever_happens_the_sum_over_all_workers_stays_within_the_budget(
    steps: list[str], slots: int, rate: float
) -> None:
    site = Site(slots, rate)
    for step in steps:
        before = site.total(0), site.total(1)
        if step == "come":
            site.come()
        elif step == "leave":
            site.leave()
        elif step == "use":
            site.use_all()
        elif step == "idle":
            site.used = dict.fromkeys(site.members.values(), (0, 0, 0))
        elif step == "deafen":
            site.deaf = set() if site.deaf else set(list(site.members.values())[:1])
        else:
            site.set_slots(slots * 2 if step == "widen" else max(1, slots // 2))
        await site.shares.share_out()
        # What is under way when the budget narrows ends by itself; nothing is added to it.
        assert site.total(0) <= max(before[0], site.limits.source.limit)
        assert site.total(1) <= max(before[1], site.limits.sink.limit)
        if rate:
            assert site.total(2) <= rate
            assert all(told[2] for told in site.told.values() if any(told[:2]))


async def test_a_cap_of_bytes_is_shared_by_those_at_work_and_a_leaver_gives_its_part_back() -> None:
    site = Site(slots=8, rate=30e6)
    for _ in range(3):
        site.come()
        await site.shares.share_out()
    # One gives up what the last one gets; then it may have it.
    await site.shares.share_out()
    assert {one.share[2] for one in site.members.values()} == {10_000_000}
    site.leave()
    await site.shares.share_out()
    assert {one.share[2] for one in site.members.values()} == {15_000_000}


async def test_where_slots_are_fewer_than_workers_the_cap_goes_to_those_who_have_one() -> None:
    site = Site(slots=2, rate=30e6)
    for _ in range(5):
        site.come()
    await site.shares.share_out()
    rates = [one.share[2] for one in site.members.values()]
    assert sorted(rates) == [0, 0, 0, 15_000_000, 15_000_000]


async def test_a_worker_gets_no_slots_before_there_is_a_part_of_the_cap_for_it() -> None:
    site = Site(slots=8, rate=30e6)
    site.come()
    await site.shares.share_out()
    first = next(iter(site.members.values()))
    site.used[first] = (1, 1, 30_000_000)
    site.come()
    await site.shares.share_out()
    second = list(site.members.values())[1]
    assert second.share == (0, 0, 0)
    site.used[first] = (1, 1, 15_000_000)
    # Its answer is heard, and then what it has given up is there.
    await site.shares.share_out()
    await site.shares.share_out()
    assert second.share == (4, 4, 15_000_000)
