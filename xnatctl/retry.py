"""When to try again and how long to wait: a pure policy; clock, sleep and randomness are handed in.

    async for attempt in attempts(policy):
        async with attempt:
            …

An attempt that raises a retryable error is swallowed and followed by the next one after a pause;
the last one raises.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

import anyio

from xnatctl.errors import Busy, XnatctlError

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a random pause up to `base * 2**n`, never above `cap`. All values in seconds.

    A pause that the server named (Retry-After) is honoured as a minimum, up to `longest_after`.
    """

    attempts: int = 8
    base: float = 0.5
    cap: float = 60.0
    longest_after: float = 600.0
    rng: random.Random = field(default_factory=random.Random, compare=False, repr=False)

    def pause(self, failed: int, error: BaseException | None = None) -> float:
        """Seconds to wait after the `failed`-th failure in a row, counted from 1."""
        jitter = self.rng.uniform(0.0, min(self.cap, self.base * 2.0 ** min(failed - 1, 64)))
        if isinstance(error, Busy) and error.after is not None:
            return min(error.after, self.longest_after) + jitter
        return jitter


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long the server is waited for, in seconds: between looks, to build, and to archive."""

    poll: float = 0.25
    poll_most: float = 5.0
    build: float = 600.0
    archive: float = 10800.0


def is_retryable(error: BaseException) -> bool:
    return isinstance(error, XnatctlError) and error.retryable


class Attempt:
    """One try. As a context it takes in a retryable error unless it is the last try."""

    def __init__(self, number: int, last: bool, retry_on: Callable[[BaseException], bool]) -> None:
        self.number = number
        self.last = last
        self.error: BaseException | None = None
        self._retry_on = retry_on

    async def __aenter__(self) -> Attempt:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self.error = error
        return error is not None and not self.last and self._retry_on(error)


async def attempts(
    policy: Backoff,
    *,
    retry_on: Callable[[BaseException], bool] = is_retryable,
    sleep: Sleep = anyio.sleep,
) -> AsyncIterator[Attempt]:
    """Yield attempts until one succeeds, raises something final, or the policy is used up."""
    for number in range(1, policy.attempts + 1):
        attempt = Attempt(number, number == policy.attempts, retry_on)
        yield attempt
        if attempt.error is None:
            return
        await sleep(policy.pause(number, attempt.error))
