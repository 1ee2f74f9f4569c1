"""What runs in a worker process: a post for each run, with its connections, gates and units.

1. `hello` says who is there; `join` opens the ends, so that what is missing shows at the start;
2. each unit is a task (`run_order`), which brings it to its end by the code that one machine uses;
3. what the unit's life wants to remember goes to the coordinator, which alone writes the state
   store: what must be durable first is asked for and waited for, the rest comes with the result;
4. `tell` brings shares of the budget, a wish to stop, units that are called off, and answers. It
   also renews the lease: a post that hears nothing for too long ends its units by itself, since the
   coordinator will have given them to others.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import signal
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any
from uuid import uuid4

import anyio
from distributed import Worker, get_worker

from xnatctl.engine.events import Bus, BytesMoved, Event, Note
from xnatctl.engine.life import Means, run_unit
from xnatctl.engine.limits import WINDOW_S, Gate, Limits
from xnatctl.engine.pace import Paced
from xnatctl.engine.ports import Source
from xnatctl.engine.runner import Stop
from xnatctl.engine.state import Known, Pair
from xnatctl.errors import XnatctlError, first_known, words

from .wire import (
    Ask,
    Call,
    Held,
    Hello,
    Job,
    Joined,
    Letter,
    MakeSink,
    News,
    Order,
    Result,
    light,
    packed,
    unpacked,
    versions,
)

_posts: dict[str, Post] = {}
"""By run. A process that was restarted has none, and refuses what was meant for its predecessor."""


async def hello() -> Hello:
    return Hello(platform.node(), versions())


async def join(job: bytes, dask_worker: Worker) -> Joined | XnatctlError:
    """Open both ends for a run. Units that a dead coordinator left behind here are ended first."""
    wanted: Job = unpacked(job)
    for old in [one for one in _posts.values() if one.job.pair == wanted.pair]:
        await old.close()
    if wanted.is_local:
        _be_quiet()
    post = Post(wanted, dask_worker)
    _posts[wanted.run] = post
    await post.open()
    return post.trouble or Joined(post.seat)


def _be_quiet() -> None:
    """Leave the terminal to the coordinator: its Ctrl-C reaches every process that it started."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


async def tell(run: str, news: bytes) -> Held | None:
    """Hand over news; None where the run is not known here (any more)."""
    post = _posts.get(run)
    return post.hear(unpacked(news)) if post is not None else None


async def leave(run: str) -> None:
    if (post := _posts.get(run)) is not None:
        await post.close()


async def run_order(run: str, order: bytes) -> bytes:
    """One task: one unit. Raises LookupError in a process for which the order was not meant."""
    wanted: Order = unpacked(order)
    post = _posts.get(run)
    if post is None or post.seat != wanted.seat:
        raise LookupError(f"{get_worker().address} is not the worker that was meant")
    return packed(await post.run(wanted))


class Post:
    """A worker's part in one run."""

    def __init__(self, job: Job, worker: Worker) -> None:
        # Two workers with one sequence of random pauses would always come back together.
        policy = replace(job.options.policy, rng=Random())
        self.job = replace(job, options=replace(job.options, policy=policy))
        self.seat = uuid4().hex
        self.trouble: XnatctlError | None = None
        self._worker = worker
        probe_after = job.options.probe_after
        self._limits = Limits(
            Gate("source", most=0, fixed=True, probe_after=probe_after),
            Gate("sink", most=0, fixed=True, probe_after=probe_after),
        )
        self._stop = Stop()
        self._bus = Bus(self._note)
        self._events: list[Event] = []
        self._moved: dict[tuple[str, str], BytesMoved] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._called_off: set[str] = set()
        self._left = anyio.Event()
        self._numbers = count()
        self._waiting: dict[int, _Answer] = {}
        self._ready = anyio.Event()
        self._over = anyio.Event()
        self._renewed = 0.0
        self._source: Source
        self._make_sink: MakeSink
        self._life: asyncio.Task[None]

    # --- from the first connection to the last -------------------------------------------------

    async def open(self) -> None:
        """Ready, or `trouble` says why not."""
        self._life = asyncio.create_task(self._live(), name=f"xnatctl {self.job.run}")
        await self._ready.wait()

    async def close(self) -> None:
        """End the units that are left, and the connections."""
        self._over.set()
        await self._life

    async def _live(self) -> None:
        try:
            async with self.job.ends.open() as (source, self._make_sink):
                self._source = source
                if self.job.pace is not None:
                    self._source = Paced(
                        source, self.job.pace, say=self._say, stopped=self._stop.asked
                    )
                self._renewed = anyio.current_time()
                self._ready.set()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._write_letters)
                    tasks.start_soon(self._limits.watch_lag)
                    await self._until_over()
                    self._over.set()
                    for answer in self._waiting.values():
                        answer.error = _unheard()
                        answer.came.set()
                    for scope in self._scopes.values():
                        scope.cancel()
                    while self._scopes:
                        await self._left.wait()
                    tasks.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - told to the coordinator
            known = first_known(error)
            self.trouble = known if isinstance(known, XnatctlError) else XnatctlError(words(known))
        finally:
            if _posts.get(self.job.run) is self:
                del _posts[self.job.run]
            self._ready.set()

    async def _until_over(self) -> None:
        """Until it is closed, or has not heard of the coordinator for the length of a lease."""
        lease = self.job.timing.lease_s
        while not self._over.is_set():
            left = self._renewed + lease - anyio.current_time()
            if left <= 0:
                return
            with anyio.move_on_after(left):
                await self._over.wait()

    # --- units ---------------------------------------------------------------------------------

    async def run(self, order: Order) -> Result:
        memory = _Memory(self, order)
        means = Means(
            id=self.job.run,
            pair=self.job.pair,
            source=self._source,
            sink=self._make_sink(memory.remember),
            options=self.job.options,
            state=memory,
            bus=self._bus,
            limits=self._limits,
            stop=self._stop,
        )
        outcome = None
        with anyio.CancelScope() as scope:
            if order.token in self._called_off:
                scope.cancel()
            self._scopes[order.token] = scope
            try:
                outcome = await run_unit(means, order.unit)
            finally:
                del self._scopes[order.token]
                self._left.set()
                self._left = anyio.Event()
        # An observer must hear of the unit before it hears that it is done.
        self._send()
        return Result(outcome, tuple(memory.calls))

    async def ask(self, token: str, call: Call) -> None:
        """Have the coordinator make a call of the state store; returns when it is durable."""
        if self._over.is_set():
            raise _unheard()
        number = next(self._numbers)
        self._waiting[number] = answer = _Answer()
        self._send(asks=(Ask(token, number, call),))
        try:
            await answer.came.wait()
        finally:
            del self._waiting[number]
        if answer.error is not None:
            raise answer.error

    # --- news in, letters out ------------------------------------------------------------------

    def hear(self, news: News) -> Held:
        self._renewed = anyio.current_time()
        source, sink = self._limits.source, self._limits.sink
        rate = self.job.pace.rate if self.job.pace is not None else None
        if news.share is not None:
            source.resize(news.share[0])
            sink.resize(news.share[1])
            if rate is not None and news.share[2]:
                # Without a share nothing new begins, and what is under way ends as it was going.
                rate.bytes_per_s = news.share[2]
        if news.stop is not None and not self._stop.asked.is_set():
            self._stop.ask(*news.stop)
        for token in news.call_off:
            self._called_off.add(token)
            if scope := self._scopes.get(token):
                scope.cancel()
        for number, error in news.answers:
            if answer := self._waiting.get(number):
                answer.error = error
                answer.came.set()
        in_use = source.in_use, sink.in_use
        return Held((*in_use, int(rate.bytes_per_s) if rate is not None and any(in_use) else 0))

    def _say(self, text: str) -> None:
        self._bus.emit(Note(text))

    def _note(self, event: Event) -> None:
        if isinstance(event, BytesMoved):
            before = self._moved.get((event.unit, event.key))
            total = event.bytes + (before.bytes if before else 0)
            self._moved[event.unit, event.key] = replace(event, bytes=total)
        else:
            self._settle_bytes()
            self._events.append(light(event))

    def _settle_bytes(self) -> None:
        self._events += self._moved.values()
        self._moved.clear()

    async def _write_letters(self) -> None:
        sampled = anyio.current_time()
        while True:
            await anyio.sleep(self.job.timing.flush_s)
            samples = None
            if anyio.current_time() - sampled >= WINDOW_S:
                sampled = anyio.current_time()
                samples = (self._limits.source.take(), self._limits.sink.take())
                if not any(one.completions or one.refusals or one.peak for one in samples):
                    samples = None
            self._settle_bytes()
            if self._events or samples:
                self._send(samples=samples)

    def _send(self, **more: Any) -> None:
        letter = Letter(self.seat, tuple(self._events), **more)
        self._events.clear()
        self._worker.log_event(self.job.topic, packed(letter))


def _unheard() -> XnatctlError:
    return XnatctlError("the coordinator that gave this unit does not listen any more")


class _Answer:
    def __init__(self) -> None:
        self.came = anyio.Event()
        self.error: XnatctlError | None = None


class _Memory:
    """The state store as one unit sees it: what was known at the start, and what it added since."""

    def __init__(self, post: Post, order: Order) -> None:
        self.calls: list[Call] = []
        self._post = post
        self._token = order.token
        self._unit = order.unit.key
        self._known = order.known

    async def known(self, pair: Pair, unit: str) -> Known | None:
        return self._known

    async def mark_unit(
        self,
        pair: Pair,
        unit: str,
        *,
        run: str,
        status: str,
        fingerprint: str = "",
        facts: Mapping[str, str] | None = None,
    ) -> None:
        self._learn(status=status, fingerprint=fingerprint, facts=facts or {})
        named = {"run": run, "status": status, "fingerprint": fingerprint, "facts": facts}
        call = Call("mark_unit", (unit,), named)
        if status == "begun":
            await self._post.ask(self._token, call)
        else:
            self.calls.append(call)

    async def mark_items(
        self, pair: Pair, unit: str, rows: Iterable[tuple[str, str, int | None, str, str]]
    ) -> None:
        kept = tuple(rows)
        digests = dict(self._known.digests) if self._known else {}
        for key, digest, _size, status, _error in kept:
            digests[key] = digest
            if status == "failed":
                del digests[key]
        self._learn(digests=digests)
        self.calls.append(Call("mark_items", (unit, kept)))

    async def remember(self, unit: str, facts: Mapping[str, str | None]) -> None:
        if unit == self._unit:
            self._learn(facts=facts)
        await self._post.ask(self._token, Call("remember", (unit, dict(facts))))

    def _learn(
        self,
        *,
        status: str = "",
        fingerprint: str = "",
        facts: Mapping[str, str | None] | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        old = self._known or Known("begun", "", {}, {})
        merged = {**old.facts, **(facts or {})}
        self._known = Known(
            status or old.status,
            fingerprint or old.fingerprint,
            {name: value for name, value in merged.items() if value is not None},
            old.digests if digests is None else digests,
        )
