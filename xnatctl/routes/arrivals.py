"""The routing of the destination while a run imports: changed, put back, set by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

from xnatctl.endpoints.catalogue import SETTINGS
from xnatctl.endpoints.routing import FACT, Routing
from xnatctl.engine.events import Note
from xnatctl.engine.state import Pair, locked
from xnatctl.errors import Locked, PermissionDenied, XnatctlError, words
from xnatctl.xnat.client import Xnat

from .desk import Desk


@asynccontextmanager
async def routed(desk: Desk, pair: Pair, routing: Routing) -> AsyncIterator[None]:
    """What a run changes in the project's routing is put back, now or by the next run."""
    if desk.options.dry_run:
        yield
        return
    locks = desk.state.locks
    with locked(locks, pair), suppress(PermissionDenied):
        known = await desk.state.known(pair, SETTINGS)
        mine = known is not None and FACT in known.facts
        if code := await routing.release(only_expired=not mine):
            desk.bus.emit(
                Note(f"an earlier run had left the prearchive manual; it is {code} again")
            )
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(20.0, shield=True):
            try:
                with locked(locks, pair):
                    known = await desk.state.known(pair, SETTINGS)
                    if known is not None and FACT in known.facts:
                        await routing.release()
            except Locked:
                pass  # another run between these ends goes on, and puts it back at its own end
            except XnatctlError as error:
                hint = "xnatctl prearchive settings --restore puts it back"
                text = f"the prearchive of the project is still manual: {words(error)}; {hint}"
                desk.bus.emit(Note(text, level="warning"))


def routing_by_hand(xnat: Xnat, project: str) -> Routing:
    """What becomes of arrivals in a project, for whoever sets it by hand."""
    return Routing(xnat, project, holder="")
