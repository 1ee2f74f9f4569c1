"""Who works for a run: workers that have joined it, what is in their hands, what keeps others out.

`enlist` asks every worker who it is, and lets those that fit open both ends. Whatever keeps one
from working is an error that goes with the name of its host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import anyio
from distributed import Client, Future

from xnatctl.errors import XnatctlError, words

from .wire import Hello, Job, Joined, Result, Share, packed, versions
from .worker import hello, join

_numbers = count()

Trouble = tuple[str, XnatctlError]
"""A host, and what keeps its worker from working."""


@dataclass(eq=False, slots=True)
class Member:
    """A worker as the coordinator sees it: what it may use, what it uses, what is in its hands."""

    address: str
    host: str
    seat: str
    places: int
    number: int = field(default_factory=lambda: next(_numbers))
    heard: float = field(default_factory=anyio.current_time)
    leases: dict[str, Lease] = field(default_factory=dict)
    share: Share = (0, 0, 0)
    held: Share = (0, 0, 0)
    peaks: tuple[int, int] = (0, 0)
    talks: set[anyio.CancelScope] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class Lease:
    """A unit in the hands of a worker, `alone` or among others, until its result came or the worker
    is lost.
    """

    token: str
    member: Member
    alone: bool = False
    order: bytes = b""
    future: Future | None = None
    ended: anyio.Event = field(default_factory=anyio.Event)
    result: Result | None = None
    why_lost: str = ""
    writing: anyio.Lock = field(default_factory=anyio.Lock)

    def end(self, result: Result | None = None, *, why_lost: str = "") -> None:
        if not self.ended.is_set():
            self.result, self.why_lost = result, why_lost
            self.ended.set()


async def enlist(
    client: Client, job: Job, workers: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Member], list[Trouble]]:
    """New members out of workers, by address; and what keeps the others out."""
    hosts = {address: f"{facts['host']}" for address, facts in workers.items()}
    troubles: list[Trouble] = []
    fit = []
    greetings = await client.run(hello, workers=list(workers), on_error="return")
    for address, greeting in greetings.items():
        if isinstance(greeting, Hello):
            hosts[address] = f"{greeting.host} ({hosts[address]})"
            trouble = _mismatch(greeting)
        else:
            trouble = _absent(greeting)
        if trouble:
            troubles.append((hosts[address], trouble))
        else:
            fit.append(address)
    answers = {}
    if fit:
        answers = await client.run(join, packed(job), workers=fit, on_error="return")
    members = []
    for address, answer in answers.items():
        if isinstance(answer, Joined):
            places = int(workers[address]["nthreads"])
            members.append(Member(address, hosts[address], answer.seat, places))
        else:
            troubles.append((hosts[address], _absent(answer)))
    return members, troubles


def summed(troubles: list[Trouble], among: int) -> XnatctlError:
    """One error for all, of the kind of the first."""
    error = troubles[0][1]
    told = [f"on {host}: {one}" for host, one in troubles]
    error.message = f"{len(troubles)} of {among} workers cannot work"
    error.why = "; ".join(told)
    return error


def _mismatch(greeting: Hello) -> XnatctlError | None:
    ours = versions()
    differing = [
        f"{name} {greeting.versions.get(name, 'missing')} there, {mine} here"
        for name, mine in ours.items()
        if greeting.versions.get(name) != mine
    ]
    if not differing:
        return None
    return XnatctlError(", ".join(differing), hint="install the same versions on every machine")


def _absent(error: object) -> XnatctlError:
    if isinstance(error, XnatctlError):
        return error
    if isinstance(error, (ImportError, AttributeError)):
        return XnatctlError(
            f"xnatctl is missing there, or another version: {error}",
            hint="pip install 'xnatctl[dask]' in the environment of every worker",
        )
    return XnatctlError(words(error) if isinstance(error, BaseException) else str(error))
