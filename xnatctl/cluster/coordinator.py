"""The dispatcher that hands units to workers of a Dask cluster, and alone keeps the account.

1. `opened`: every worker says who it is and opens both ends; whatever keeps one from working is an
   error that names its host;
2. `run`: a unit is leased to one worker under a token, as one task that no other worker may take.
   When that worker is lost, the unit is leased again, with what is known of it by then; whatever
   arrives under an old token is not looked at;
3. what a worker wants to remember is written here, into the one state store;
4. the gates of the run are the budget of each host: workers hold shares of it and report what they
   saw, and only here is it decided whether the budget grows. A worker without a share gets no unit;
5. every beat: who came, who went, shares, and renewed leases.

Orders and results travel in small batches: a task of its own for each costs Dask 10 ms, a batch of
ten 20.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from uuid import uuid4

import anyio
from distributed import Client

from xnatctl.engine.events import Note, UnitPlanned
from xnatctl.engine.life import Means, failed
from xnatctl.engine.pace import Pace
from xnatctl.engine.types import Unit, UnitOutcome
from xnatctl.errors import Unreachable, XnatctlError, words

from .members import Lease, Member, Trouble, enlist, summed
from .shares import Shares
from .wire import Ask, Ends, Held, Job, Letter, News, Order, Result, Timing, packed, unpacked
from .worker import leave, run_order, tell

MOST_LEASES = 4
"""A unit that took so many workers down is given up; it may be what kills them."""
MOST_TOGETHER = 2
"""After so many it is run alone, so that it takes no others down, and none takes it."""
BATCH_S = 0.005


class Coordinator:
    """A dispatcher for one run; `slots` units are in the hands of workers at once."""

    def __init__(
        self,
        client: Client,
        ends: Ends,
        *,
        slots: int,
        timing: Timing,
        pace: Pace | None = None,
        is_local: bool = False,
    ) -> None:
        self.slots = slots
        self._client = client
        self._ends = ends
        self._timing = timing
        self._pace = pace
        self._is_local = is_local
        self._means: Means
        self._job: Job
        self._service: asyncio.Task[None]
        self._members: dict[str, Member] = {}
        self._shares: Shares
        self._joining: set[str] = set()
        self._refused: set[str] = set()
        self._outbox: list[Lease] = []
        self._finished: list[Lease] = []
        self._asks: list[tuple[Member, Ask]] = []
        self._mail = asyncio.Event()
        self._freed = asyncio.Event()
        self._planned: set[str] = set()
        self._again = 0

    # --- a run's beginning and end -------------------------------------------------------------

    @asynccontextmanager
    async def opened(self, means: Means) -> AsyncIterator[None]:
        self._means = means
        self._job = Job(
            means.id,
            means.pair,
            means.options,
            self._ends,
            self._timing,
            self._pace,
            self._is_local,
        )
        self._shares = Shares(self._members, means.limits, rate=self._rate, tell=self._tell)
        self._client.subscribe_topic(self._job.topic, self._hear)
        try:
            await self._muster()
            # Not a task of the run's: units that are called off need it until they have ended.
            self._service = asyncio.create_task(self._serve(), name="xnatctl coordinator")
            try:
                yield
            finally:
                self._service.cancel()
                # What ended it has been raised by `tend`.
                await asyncio.wait([self._service])
        finally:
            with anyio.move_on_after(self._timing.closing_s, shield=True):
                await self._client.run(leave, means.id, on_error="ignore")
            self._client.unsubscribe_topic(self._job.topic)
        if self._again:
            self._say(f"{self._again} units were run again, because their worker was lost")

    async def tend(self) -> None:
        """Raises what ends the service, such as that no worker is left."""
        await asyncio.shield(self._service)

    async def _pass_on_stop(self) -> None:
        stop = self._means.stop
        await stop.asked.wait()
        await self._tell_all(News(stop=(stop.why, stop.code)))

    async def _muster(self) -> None:
        """Have every worker join. Raises the first kind of trouble, naming all hosts that have
        one.
        """
        try:
            with anyio.fail_after(self._timing.arrive_s):
                await self._client.wait_for_workers(1)
        except TimeoutError:
            raise Unreachable(
                f"no worker has come to the scheduler at {self._client.scheduler.address}",
                why=f"none within {self._timing.arrive_s:.0f} s",
                hint="start workers, such as: dask worker SCHEDULER:8786",
            ) from None
        troubles = await self._take_in(await self._workers())
        if troubles:
            raise summed(troubles, len(troubles) + len(self._members))
        await self._share_out()

    async def _workers(self) -> dict[str, dict[str, Any]]:
        try:
            identity = await self._client.scheduler.identity(n_workers=-1)
        except OSError as error:
            raise Unreachable("the scheduler does not answer any more", why=str(error)) from error
        found: dict[str, dict[str, Any]] = identity["workers"]
        return found

    async def _take_in(self, workers: dict[str, dict[str, Any]]) -> list[Trouble]:
        members, troubles = await enlist(self._client, self._job, workers)
        self._members.update({member.address: member for member in members})
        return troubles

    # --- units ---------------------------------------------------------------------------------

    async def run(self, unit: Unit) -> UnitOutcome:
        why = ""
        for losses in range(MOST_LEASES):
            lease = await self._leased(alone=losses >= MOST_TOGETHER)
            try:
                known = await self._means.state.known(self._means.pair, unit.key)
                lease.order = packed(Order(lease.member.seat, lease.token, unit, known))
                self._outbox.append(lease)
                self._mail.set()
                try:
                    await lease.ended.wait()
                except BaseException:
                    await self._call_off(lease)
                    raise
            finally:
                self._give_back(lease)
            async with lease.writing:
                pass  # what it has asked for is known to whoever gets the unit next
            if lease.result is not None:
                await self._remember(lease.result)
                if lease.result.outcome is not None:
                    self._planned.discard(unit.key)
                    return lease.result.outcome
            why = lease.why_lost or f"{lease.member.host} did not hear of us for too long"
            self._again += 1
            self._say(f"{unit.key}: {why}; it is run again", level="warning")
        lost = Unreachable(
            f"{unit.key} was lost with {MOST_LEASES} workers",
            why=why,
            hint="it may be what ends them: look at the memory that they have, and into their logs",
        )
        return failed(unit, lost)

    async def _leased(self, *, alone: bool) -> Lease:
        """A place at a worker that has a share of both budgets."""
        while (member := self._shares.pick(alone=alone)) is None:
            self._freed.clear()
            await self._freed.wait()
        lease = Lease(uuid4().hex, member, alone)
        member.leases[lease.token] = lease
        return lease

    def _give_back(self, lease: Lease) -> None:
        lease.member.leases.pop(lease.token, None)
        if lease in self._outbox:
            self._outbox.remove(lease)
        lease.future = None
        self._freed.set()

    async def _call_off(self, lease: Lease) -> None:
        """Have the worker end the unit as a cancelled one ends, and remember what it left."""
        with anyio.move_on_after(self._timing.closing_s, shield=True):
            await self._tell(lease.member, News(call_off=(lease.token,)))
            await lease.ended.wait()
            if lease.result is not None:
                await self._remember(lease.result)

    async def _remember(self, result: Result) -> None:
        with anyio.CancelScope(shield=True):
            for call in result.calls:
                method = getattr(self._means.state, call.method)
                await method(self._means.pair, *call.args, **call.named)

    # --- the service ---------------------------------------------------------------------------

    async def _serve(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._carry_mail, tasks)
            tasks.start_soon(self._watch)
            tasks.start_soon(self._keep_shares)
            tasks.start_soon(self._pass_on_stop)

    async def _carry_mail(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            await self._mail.wait()
            await anyio.sleep(BATCH_S)
            self._mail.clear()
            self._send_orders()
            if self._finished:
                done, self._finished = self._finished, []
                tasks.start_soon(self._collect, done)
            if self._asks:
                asks, self._asks = self._asks, []
                tasks.start_soon(self._answer, asks)

    def _send_orders(self) -> None:
        call = asyncio.get_running_loop().call_soon_threadsafe
        batches = defaultdict(list)
        for lease in self._outbox:
            batches[lease.member.address].append(lease)
        self._outbox = []
        for address, leases in batches.items():
            futures = self._client.map(
                partial(run_order, self._job.run),
                [lease.order for lease in leases],
                key=[f"xnatctl-{lease.token}" for lease in leases],
                workers=[address],
                allow_other_workers=False,
                pure=False,
                retries=0,
            )
            for lease, future in zip(leases, futures, strict=True):
                lease.order, lease.future = b"", future
                # Dask calls back from a thread of its own.
                future.add_done_callback(lambda _, lease=lease: call(self._note_end, lease))

    def _note_end(self, lease: Lease) -> None:
        self._finished.append(lease)
        self._mail.set()

    async def _collect(self, leases: list[Lease]) -> None:
        """Fetch the results of tasks that have ended, all at once."""
        whole = []
        for lease in leases:
            if lease.future is None or lease.ended.is_set():
                continue
            if lease.future.status == "finished":
                whole.append(lease)
            else:
                lease.end(why_lost=f"the worker at {lease.member.host} was lost")
        futures = [lease.future for lease in whole]
        found = await self._client.gather(futures, errors="skip", direct=False) if futures else []
        if len(found) == len(whole):
            for lease, data in zip(whole, found, strict=True):
                lease.end(unpacked(data))
            return
        for lease in whole:
            lease.end(why_lost=f"the worker at {lease.member.host} was lost with its result")

    def _hear(self, event: tuple[float, bytes]) -> None:
        """A letter arrived; one from a worker that was given up is not opened further."""
        letter: Letter = unpacked(event[1])
        member = next((m for m in self._members.values() if m.seat == letter.seat), None)
        if member is None:
            return
        for one in letter.events:
            if isinstance(one, UnitPlanned):
                if one.unit.key in self._planned:
                    continue  # it is run again, and has been counted
                self._planned.add(one.unit.key)
            self._means.bus.emit(one)
        if letter.samples is not None:
            self._shares.note(member, letter.samples)
        if letter.asks:
            self._asks += [(member, ask) for ask in letter.asks]
            self._mail.set()

    async def _answer(self, asks: list[tuple[Member, Ask]]) -> None:
        async def one(member: Member, ask: Ask) -> None:
            error: XnatctlError | None = None
            if (lease := member.leases.get(ask.token)) is None:
                error = XnatctlError("the unit was given to another worker")
            else:
                try:
                    async with lease.writing:
                        await self._remember(Result(None, (ask.call,)))
                except XnatctlError as fault:
                    error = fault
            answers[member].append((ask.number, error))

        answers: dict[Member, list[tuple[int, XnatctlError | None]]] = defaultdict(list)
        async with anyio.create_task_group() as tasks:
            for member, ask in asks:
                tasks.start_soon(one, member, ask)
        async with anyio.create_task_group() as tasks:
            for member, mine in answers.items():
                tasks.start_soon(self._tell, member, News(answers=tuple(mine)))

    # --- every beat ----------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Who came, and who went. It waits for no worker, so that a lost one is missed at once."""
        alone_since = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.sleep(self._timing.beat_s)
                now = anyio.current_time()
                workers = await self._workers()
                self._drop_lost(workers, now)
                for address in workers.keys() - self._members.keys():
                    if address not in self._joining | self._refused:
                        tasks.start_soon(self._welcome, address, workers[address])
                if self._members:
                    alone_since = now
                elif now - alone_since > self._timing.arrive_s:
                    raise Unreachable(
                        "no worker is left",
                        why=f"none has come for {self._timing.arrive_s:.0f} s",
                        hint="the same command goes on with what is left, once there are workers",
                    )

    async def _keep_shares(self) -> None:
        """The budget and its shares; and leases are renewed, well before they run out."""
        told = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.sleep(self._timing.beat_s)
                self._shares.absorb()
                await self._share_out()
                if anyio.current_time() - told >= self._timing.lease_s / 6:
                    told = anyio.current_time()
                    tasks.start_soon(self._tell_all, News())

    def _drop_lost(self, workers: Iterable[str], now: float) -> None:
        """Members that are gone, or whose lease has run out without an answer."""
        patience = 1.25 * self._timing.lease_s
        for member in list(self._members.values()):
            if member.address not in workers:
                self._drop(member, f"the worker at {member.host} was lost")
            elif now - member.heard > patience:
                self._drop(member, f"the worker at {member.host} has not answered for too long")

    def _drop(self, member: Member, why: str) -> None:
        del self._members[member.address]
        for talk in member.talks:
            talk.cancel()
        for lease in member.leases.values():
            if lease.future is not None:
                lease.future.release()
            lease.end(why_lost=why)
        self._say(f"{why}: {len(self._members)} are left", level="warning")

    async def _welcome(self, address: str, facts: dict[str, Any]) -> None:
        """A worker that came later, or came back."""
        self._joining.add(address)
        try:
            with anyio.move_on_after(3 * self._timing.answer_s):
                troubles = await self._take_in({address: facts})
                if member := self._members.get(address):
                    self._say(f"a worker at {member.host} has come: {len(self._members)} are here")
                for host, error in troubles:
                    self._refused.add(address)
                    self._say(f"the worker at {host} is of no use: {words(error)}", level="warning")
        finally:
            self._joining.discard(address)

    async def _share_out(self) -> None:
        await self._shares.share_out()
        self._freed.set()

    def _rate(self) -> float:
        rate = self._pace.rate if self._pace is not None else None
        return rate.bytes_per_s if rate is not None else 0.0

    async def _tell_all(self, news: News) -> None:
        async with anyio.create_task_group() as tasks:
            for member in list(self._members.values()):
                tasks.start_soon(self._tell, member, news)

    async def _tell(self, member: Member, news: News) -> bool:
        """Whether the worker has taken it in. One that has no post for the run any more is lost."""
        if self._members.get(member.address) is not member:
            return False
        found = {}
        with anyio.move_on_after(self._timing.answer_s) as talk, suppress(OSError):
            member.talks.add(talk)
            found = await self._client.run(
                tell, self._job.run, packed(news), workers=[member.address], on_error="return"
            )
        member.talks.discard(talk)
        answer = found.get(member.address, talk)
        if answer is None and self._members.get(member.address) is member:
            self._drop(member, f"the worker at {member.host} has given up its units")
        if not isinstance(answer, Held):
            return False
        member.heard, member.held = anyio.current_time(), answer.held
        return True

    def _say(self, text: str, *, level: str = "info") -> None:
        self._means.bus.emit(Note(text, level=level))
