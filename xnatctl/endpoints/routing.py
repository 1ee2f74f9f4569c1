"""Manual routing for the time of a run, on servers that would archive what is not complete yet.

Some servers ignore the marks that keep an import waiting. There the project's prearchive code is
set to manual while a run imports, and a lease in the project's own configuration says who asked for
that, until when, and what the code was before:

1. whoever holds routing writes the old code into the state store and into the lease, then changes
   it; a second run joins the lease that it finds;
2. whoever releases it takes itself out of the lease; the last one puts the old code back;
3. what a dead run left is put back by the next run between the same ends, and by any run once the
   lease has expired.

A code that somebody sets by hand stands in the lease too, so that what was before the first change
is remembered: runs then put back the hand's code, and `restore` what was before it.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

from xnatctl.errors import BadReply, Busy, Locked, NotFound
from xnatctl.xnat import paths
from xnatctl.xnat.client import Xnat

MANUAL = "0"
LEASE_S = 6 * 3600.0
TRIES = 5
FACT = "routing"
"""The fact of the project's settings unit that has the old code while a run of ours holds it."""


@dataclass(slots=True)
class Lease:
    """What the code was, until when each holder wants manual routing (epoch seconds), and the code
    that was set by hand since.
    """

    code: str = ""
    holders: dict[str, dict[str, str | float]] = field(default_factory=dict)
    hand: str = ""

    def without(self, name: str, now: float) -> Lease:
        """The lease without this holder and without those whose time is over."""
        rest = {
            key: one
            for key, one in self.holders.items()
            if key != name and float(one.get("until", 0.0)) > now
        }
        return replace(self, holders=rest)

    @property
    def after(self) -> str:
        """The code for the time after the last holder; empty where nobody holds it."""
        return (self.hand or self.code) if self.holders else ""


class Routing:
    """The routing of one project, for one holder: the pair of ends of a run, of which one runs at
    a time.
    """

    def __init__(
        self,
        xnat: Xnat,
        project: str,
        *,
        holder: str,
        remember: Callable[[Mapping[str, str | None]], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
        lasts: float = LEASE_S,
    ) -> None:
        self._xnat = xnat
        self._project = project
        self._holder = holder
        self._remember = remember
        self._clock = clock
        self._lasts = lasts
        self._until = 0.0
        self._path = f"{paths.project(project)}/config/xnatctl/routing"

    @property
    def is_held(self) -> bool:
        """Whether this process has made sure of manual routing, and the lease is not half over."""
        return self._until - self._clock() > self._lasts / 2

    async def hold(self) -> None:
        """See that nothing archives itself in the project until `release`. May be called again.

        Raises PermissionDenied where the login does not own the project.
        """
        if self.is_held:
            return
        until = self._clock() + self._lasts
        for _ in range(TRIES):
            lease = await self._read()
            code = lease.code or await self._xnat.get_prearchive_code(self._project)
            if self._remember is not None:
                await self._remember({FACT: code})
            mine: dict[str, str | float] = {"host": socket.gethostname(), "until": until}
            holders = {**lease.holders, self._holder: mine}
            await self._write(replace(lease, code=code, holders=holders))
            # Another run may have written at the same moment.
            if self._holder in (await self._read()).holders:
                await self._xnat.put_setting(self._project, "prearchive_code", MANUAL)
                self._until = until
                return
        raise Busy(f"several runs change the routing of {self._project} at once")

    async def release(self, *, only_expired: bool = False) -> str:
        """Give it back, and return the code that was put back: none while others hold it.

        With `only_expired` this holder is one among the others.
        """
        self._until = 0.0
        lease = await self._read()
        if not lease.holders:
            await self._forget()
            return ""
        rest = lease.without("" if only_expired else self._holder, self._clock())
        if rest.holders:
            if rest.holders.keys() != lease.holders.keys():
                await self._write(rest)
            code = ""
        else:
            code = lease.after
            await self._xnat.put_setting(self._project, "prearchive_code", code)
            await self._write(rest if rest.hand else Lease())
        await self._forget()
        return code

    async def wish(self, code: str) -> bool:
        """Have another code put back at the end; False when nobody holds the routing."""
        lease = await self._read()
        if not lease.holders:
            return False
        wanted = replace(lease, hand=code) if lease.hand else replace(lease, code=code)
        await self._write(wanted)
        return True

    async def set_by_hand(self, code: str) -> None:
        """Have this code from now on, and remember what it was before the first change."""
        lease = await self.free()
        before = lease.code or await self._xnat.get_prearchive_code(self._project)
        if before != code:
            await self._write(Lease(before, hand=code))
        await self._xnat.put_setting(self._project, "prearchive_code", code)
        if lease.code == code:
            await self._write(Lease())

    async def restore(self) -> None:
        """Put back what was before runs that died and hands changed it."""
        lease = await self.free()
        if lease.code:
            await self._xnat.put_setting(self._project, "prearchive_code", lease.code)
            await self._write(Lease())

    async def before(self) -> str:
        """The code that will be put back; empty while nobody holds the routing."""
        return (await self._read()).after

    async def free(self) -> Lease:
        """The lease when no run holds it. Raises Locked while one whose time is not over does."""
        lease = (await self._read()).without("", self._clock())
        for one in lease.holders.values():
            left = (float(one["until"]) - self._clock()) / 60
            raise Locked(
                f"a run on {one.get('host')} keeps the routing of {self._project} manual",
                hint=f"it puts it back at its end; if it has died, try again in {left:.0f} min",
            )
        return lease

    async def _forget(self) -> None:
        if self._remember is not None:
            await self._remember({FACT: None})

    async def _read(self) -> Lease:
        try:
            reply = await self._xnat.transport.request(
                "GET", self._path, params={"contents": "true"}, allow=(204,)
            )
        except NotFound:
            return Lease()
        # A server without the config service answers with the project's document.
        if reply.status == 204 or not reply.text.lstrip().startswith('{"code"'):
            return Lease()
        try:
            data = json.loads(reply.text)
            return Lease(str(data["code"]), dict(data["holders"]), str(data.get("hand", "")))
        except (ValueError, KeyError, TypeError) as error:
            raise BadReply(
                f"the lease of {self._project} cannot be read", why=str(error)
            ) from error

    async def _write(self, lease: Lease) -> None:
        text = json.dumps(asdict(lease))
        await self._xnat.transport.request(
            "PUT",
            self._path,
            params={"inbody": "true"},
            body=text.encode(),
            content_type="text/plain",
        )
