"""What a sandbox has seen: requests by route and status, bytes, concurrency."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Seen:
    """One request while it is answered."""

    method: str
    route: str = "?"
    status: int = 0


class Counters:
    """Counts since the start (or the last `reset`)."""

    def __init__(self) -> None:
        self.reset()
        self.active = 0

    def reset(self) -> None:
        """Begin anew."""
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.bytes_in = 0
        self.bytes_out = 0
        self.peak = 0
        self.began = time.time()

    @contextmanager
    def request(self, method: str) -> Iterator[Seen]:
        """Count one request from its beginning to its end; status 0 means it was broken off."""
        seen = Seen(method)
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            yield seen
        finally:
            self.active -= 1
            self.requests[(seen.method, seen.route, seen.status)] += 1

    def received(self, count: int) -> None:
        """Add bytes of request bodies."""
        self.bytes_in += count

    def sent(self, count: int) -> None:
        """Add bytes of answers' bodies."""
        self.bytes_out += count

    def count(self, method: str = "", route: str = "", status: int | None = None) -> int:
        """How many requests were seen; empty arguments match all, `route` may be a part."""
        return sum(
            number
            for (verb, template, code), number in self.requests.items()
            if method in ("", verb) and route in template and status in (None, code)
        )

    def table(self) -> list[dict[str, object]]:
        """The counts as rows, most frequent first."""
        return [
            {"method": method, "route": route, "status": status, "count": number}
            for (method, route, status), number in self.requests.most_common()
        ]
