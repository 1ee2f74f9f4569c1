"""How much happens at once: one gate a host. A relay holds a slot of each, always the source's
first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio


class Gate:
    """At most `limit` requests to one host at a time."""

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self._limiter = anyio.CapacityLimiter(limit)

    @property
    def limit(self) -> int:
        return int(self._limiter.total_tokens)

    @property
    def in_use(self) -> int:
        return self._limiter.borrowed_tokens

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        borrower = object()
        await self._limiter.acquire_on_behalf_of(borrower)
        try:
            yield
        finally:
            self._limiter.release_on_behalf_of(borrower)


@dataclass(frozen=True, slots=True)
class Limits:
    """The gates of a run. A local end has a gate too: a disk is a host like any other."""

    source: Gate
    sink: Gate

    @classmethod
    def fixed(cls, workers: int) -> Limits:
        return cls(Gate("source", workers), Gate("sink", workers))
