"""Faults as data: what goes wrong, with which request, and where in its bytes.

A `Fault` is the same in a test (`sandbox.faults.add(Fault(...))`) and as JSON posted to
`/sandbox/faults`. It counts the requests that it matches and fires on the nth, on some by chance,
or on all. Bodies of requests are spoiled while they are read, bodies of answers in a
`FaultyOutlet`, which then takes the place of the plain way to the socket.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import random
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from .accounts import GUEST
from .sending import Outlet
from .web import Call, Refusal

if TYPE_CHECKING:
    from .server import Sandbox

KINDS = {
    "cut": "the body ends after `at` bytes, the connection is closed without its proper end",
    "reset": "the connection is reset after `at` bytes of the body",
    "stall": "after `at` bytes nothing moves for `seconds`",
    "drip": "the body goes in pieces of `rate` bytes with pauses of `seconds`",
    "bandwidth": "the body goes at `rate` bytes a second",
    "latency": "the request is begun after `seconds`",
    "capacity": "each takes `seconds`, more beyond `at` at once, and 503 beyond twice as many",
    "status": "`status` is answered (with Retry-After `seconds`), nothing is done",
    "status-after": "the work is done, `status` is answered",
    "lose-answer": "the work is done, the connection is closed without an answer",
    "expire-login": "the session of the request ends, the request meets what follows from that",
    "login-page": "the login page is answered with 200",
    "login-redirect": "302 to the login page is answered",
    "guest": "the request runs as guest",
    "flip": "one bit of byte `at` of the answer's body is flipped",
    "short-archive": "an archive lacks its first `at` (or one) members and ends properly",
    "truncate-stored": "only `at` bytes of an uploaded body are stored, the answer is 200",
}
_OUTGOING = {"cut", "reset", "stall", "drip", "bandwidth", "flip"}
_INCOMING = {"cut", "reset", "stall", "bandwidth"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    `match` is a method and a path with wildcards: `PUT */files/*`, `GET */files*format=zip*`,
    `* /data/experiments/*`; `…` is a wildcard too, a pattern without a query matches any query.
    `nth` is the matching request to spoil, counted from 1, and `times` how many from there on (0:
    all); `nth` 0 spoils each by `probability`. What `at`, `seconds`, `rate` and `status` mean
    stands in `KINDS`.
    """

    match: str
    kind: str
    nth: int = 0
    times: int = 1
    probability: float = 1.0
    at: int = 0
    seconds: float = 0.0
    rate: int = 0
    status: int = 503

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(
                f"there is no fault of the kind {self.kind!r}; there are {', '.join(sorted(KINDS))}"
            )
        verb, _, path = self.match.partition(" ")
        if not path or not (verb == "*" or verb.isupper()):
            raise ValueError(
                f"{self.match!r} matches nothing: give a method and a path, as in 'GET */files*'"
            )
        for name in ("nth", "times", "at", "seconds", "rate"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be below 0")
        if not 0 <= self.probability <= 1:
            raise ValueError("a probability is from 0 to 1")
        if self.kind in ("drip", "bandwidth") and self.rate <= 0:
            raise ValueError(f"a fault of the kind {self.kind} needs a rate above 0")

    def matches(self, method: str, path: str, query: str) -> bool:
        """Whether a request is meant."""
        pattern = self.match.replace("…", "*")
        line = f"{method} {path}"
        return fnmatch.fnmatchcase(line, pattern) or bool(
            query and fnmatch.fnmatchcase(f"{line}?{query}", pattern)
        )


@dataclass(slots=True)
class Armed:
    """A fault with what has become of it."""

    id: int
    fault: Fault
    seen: int = 0
    fired: int = 0

    def describe(self) -> dict[str, Any]:
        """The fault and its counts, for JSON."""
        return {"id": self.id, **asdict(self.fault), "seen": self.seen, "fired": self.fired}


class Faults:
    """The faults of a sandbox."""

    def __init__(self, seed: int = 0) -> None:
        self._armed: list[Armed] = []
        self._random = random.Random(seed)
        self._next = 1

    def add(self, fault: Fault) -> int:
        """Arm a fault; returns its number."""
        self._armed.append(Armed(self._next, fault))
        self._next += 1
        return self._next - 1

    def remove(self, number: int) -> bool:
        """Disarm one fault; whether there was one of that number."""
        before = len(self._armed)
        self._armed = [armed for armed in self._armed if armed.id != number]
        return len(self._armed) < before

    def clear(self) -> None:
        """Disarm all faults."""
        self._armed.clear()

    def armed(self) -> list[Armed]:
        """Every armed fault."""
        return list(self._armed)

    def unused(self) -> list[Fault]:
        """Faults that have never fired."""
        return [armed.fault for armed in self._armed if not armed.fired]

    def drawn(self, method: str, path: str, query: str) -> list[Fault]:
        """The faults that fire with this request."""
        out = []
        for armed in self._armed:
            fault = armed.fault
            if not fault.matches(method, path, query):
                continue
            armed.seen += 1
            if fault.nth:
                last = fault.nth + fault.times if fault.times else armed.seen + 1
                fires = fault.nth <= armed.seen < last
            else:
                fires = self._random.random() < fault.probability
            if fires:
                armed.fired += 1
                out.append(fault)
        return out


def from_json(value: Any) -> Fault:
    """A fault from its JSON. Raises ValueError with a sentence for what is wrong."""
    if not isinstance(value, dict):
        raise ValueError("a fault is an object with at least `match` and `kind`")
    known = set(Fault.__dataclass_fields__)
    unknown = sorted(set(value) - known)
    if unknown:
        raise ValueError(f"a fault has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    try:
        return Fault(**value)
    except TypeError as error:
        raise ValueError(f"a fault needs `match` and `kind` ({error})") from error


# ---- before and after the work -------------------------------------------------------------


async def before(sandbox: Sandbox, request: web.BaseRequest, faults: list[Fault]) -> None:
    """Spoil a request before it is looked at."""
    for fault in faults:
        if fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
        elif fault.kind == "capacity":
            active = sandbox.counters.active
            if active > 2 * fault.at:
                raise Refusal(503, "Service Unavailable", {"Retry-After": "1"})
            await asyncio.sleep(fault.seconds * max(1.0, active / max(fault.at, 1)) ** 2)
        elif fault.kind == "status":
            headers = {"Retry-After": f"{fault.seconds:g}"} if fault.seconds else {}
            raise Refusal(fault.status, "the sandbox was told to fail", headers)
        elif fault.kind == "login-redirect":
            context = sandbox.settings.context
            raise Refusal(302, "", {"Location": f"{context}/app/template/Login.vm"})
        elif fault.kind == "expire-login":
            sandbox.accounts.end(request.cookies.get("JSESSIONID", ""))


def as_guest(call: Call) -> Call:
    """Let a request run as guest where a fault says so."""
    if any(fault.kind == "guest" for fault in call.faults):
        call.user = GUEST
    return call


async def after(call: Call, answer: web.StreamResponse) -> web.StreamResponse:
    """Spoil an answer whose work is done."""
    for fault in call.faults:
        if fault.kind == "lose-answer":
            reset(call.request)
            raise ConnectionResetError("the answer is lost")
        if fault.kind == "status-after" and not answer.prepared:
            raise Refusal(fault.status, "the sandbox was told to fail")
    if isinstance(answer, web.Response) and not answer.prepared and spoils_answer(call):
        return await _resend(call, answer)
    return answer


def spoils_answer(call: Call) -> bool:
    """Whether the answer's body must go through a `FaultyOutlet`."""
    if call.method != "GET":
        return any(fault.kind in ("flip", "drip") for fault in call.faults)
    return any(fault.kind in _OUTGOING for fault in call.faults)


async def _resend(call: Call, answer: web.Response) -> web.StreamResponse:
    body = answer.body if isinstance(answer.body, bytes) else b""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(body)
    call.sandbox.cookies(response, call.session)
    writer = await response.prepare(call.request)
    if writer is None:
        raise ConnectionResetError("the client is gone")
    writer.send_headers()
    await FaultyOutlet(call, writer).write(body)
    await response.write_eof()
    return response


def reset(request: web.BaseRequest) -> None:
    """Reset a connection: what is buffered is lost, the client gets RST."""
    transport = request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


# ---- bodies --------------------------------------------------------------------------------


async def incoming(call: Call, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A request's body with its faults."""
    faults = [f for f in call.faults if f.kind in _INCOMING or f.kind == "truncate-stored"]
    position = 0
    stalled = False
    async for piece in pieces:
        position += len(piece)
        for fault in faults:
            if fault.kind == "truncate-stored":
                piece = piece[: max(0, fault.at - (position - len(piece)))]
            elif fault.kind == "bandwidth":
                await asyncio.sleep(len(piece) / fault.rate)
            elif position < fault.at:
                continue
            elif fault.kind == "stall":
                if not stalled:
                    stalled = True
                    await asyncio.sleep(fault.seconds)
            else:
                if fault.kind == "cut" and call.request.transport is not None:
                    call.request.transport.close()
                else:
                    reset(call.request)
                raise ConnectionResetError("the sandbox was told to break off")
        if piece:
            yield piece


class FaultyOutlet(Outlet):
    """The way to the socket for a body with faults; positions count the body's own bytes."""

    def __init__(self, call: Call, writer: AbstractStreamWriter) -> None:
        super().__init__(call, writer)
        self._request = call.request
        self._faults = [fault for fault in call.faults if fault.kind in _OUTGOING]
        self._position = 0
        self._stalled = False

    async def write(
        self, data: bytes | memoryview, *, before: bytes = b"", after: bytes = b""
    ) -> None:
        start, self._position = self._position, self._position + len(data)
        out = bytearray(data)
        stop: Fault | None = None
        for fault in self._faults:
            inside = start <= fault.at < self._position
            if fault.kind == "flip" and inside:
                out[fault.at - start] ^= 1
            elif fault.kind == "stall" and self._position > fault.at and not self._stalled:
                self._stalled = True
                head = fault.at - start
                await super().write(before + bytes(out[:head]))
                before, out = b"", out[head:]
                await asyncio.sleep(fault.seconds)
            elif fault.kind in ("cut", "reset") and (inside or self._position > fault.at):
                stop = fault
                del out[max(0, fault.at - start) :]
        await self._paced(before + bytes(out) + (b"" if stop else after))
        if stop is not None:
            await self.writer.drain()
            if stop.kind == "reset":
                reset(self._request)
            else:
                self.transport.close()
            raise ConnectionResetError("the sandbox was told to break off")

    async def _paced(self, data: bytes) -> None:
        slow = next((f for f in self._faults if f.kind in ("drip", "bandwidth")), None)
        if slow is None:
            await super().write(data)
            return
        step = slow.rate if slow.kind == "drip" else max(1, min(slow.rate // 10, 1 << 16))
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            await super().write(piece)
            await asyncio.sleep(slow.seconds if slow.kind == "drip" else len(piece) / slow.rate)

    async def pour(self, file: BinaryIO, offset: int, count: int) -> None:
        while count:
            data = os.pread(file.fileno(), min(count, 1 << 16), offset)
            if not data:
                raise ConnectionResetError("the file has shrunk")
            offset += len(data)
            count -= len(data)
            await self.write(data)
