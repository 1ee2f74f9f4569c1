"""The three ports of the engine: where bodies come from, where they go, and where a unit is run.

Every implementation passes the same contract suite (`tests/contract`), the in-memory pair that the
engine's own tests use included. Implementations are leaves: none of them imports another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from xnatctl.zipstream import Event as ZipEvent

from .state import Known, Pair
from .types import Item, Selection, Stamp, Unit, UnitOutcome

if TYPE_CHECKING:
    from .life import Means

Chunks = AsyncIterator[bytes]
Inventory = Mapping[str, Stamp]


class Source(Protocol):
    """Where bodies come from. Reads only; may be read by many tasks at once."""

    name: str

    def units(self, selection: Selection) -> AsyncIterator[Unit]:
        """The units of the selection, light, each after those it names in `after`.

        Raises NotFound when the root of the selection is missing. Never yields a key twice.
        """
        ...

    async def describe(self, unit: Unit) -> Unit:
        """The unit in full: documents, containers, items with size and digest, fingerprint.

        Raises Vanished when it is gone. What cannot be carried is in `left`, never dropped.
        """
        ...

    def open(self, unit: Unit, item: Item) -> AbstractAsyncContextManager[Chunks]:
        """The body of one item; of a zip item an archive that holds at least its members.

        Each call starts from the first byte. The context closes the connection when it is left
        early. A body that is known to be cut raises Unreachable; the caller proves the rest.
        """
        ...

    def member_path(self, item: Item, name: str) -> str:
        """The path inside its resource of what this source's archive of `item` calls `name`."""
        ...


class Sink(Protocol):
    """Where bodies go. `inventory` tells the truth; everything else is believed only after it.

    `accepts_zip`: many small files may arrive as one archive. `holds_digests`: its inventory has
    MD5s. `may_rewrite`: what is stored may differ from what was sent (an import that anonymises).
    """

    name: str
    accepts_zip: bool
    holds_digests: bool
    may_rewrite: bool

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        """The unit with its items in this sink's form: kinds, stages, lanes, keys. Pure."""
        ...

    async def inventory(self, unit: Unit) -> Inventory:
        """What is there now, freshly listed, by key; empty when nothing is. Never cached.

        Beside files it may name containers (with a count) and documents that exist.
        """
        ...

    async def begin(self, unit: Unit) -> None:
        """Create what must exist first. Idempotent. Raises Conflict where something else is."""
        ...

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        """Store one file or document. What `chunks` broke off leaves nothing that counts as
        whole.
        """
        ...

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        """Store the members of a zip item; each is proven when its MemberEnd arrives.

        After a failure some members may be stored, none of them in part.
        """
        ...

    async def seal(self, unit: Unit, stage: int) -> None:
        """Finish a stage: archive, refresh a catalog, write metadata. Idempotent."""
        ...

    async def abandon(self, unit: Unit) -> None:
        """Leave the unit in a state that a later run can finish; never raises what it can avoid."""
        ...


class Memory(Protocol):
    """What a unit's life is remembered in; `StateStore` says what the calls mean."""

    async def known(self, pair: Pair, unit: str) -> Known | None: ...

    async def mark_unit(
        self,
        pair: Pair,
        unit: str,
        *,
        run: str,
        status: str,
        fingerprint: str = "",
        facts: Mapping[str, str] | None = None,
    ) -> None: ...

    async def mark_items(
        self, pair: Pair, unit: str, rows: Iterable[tuple[str, str, int | None, str, str]]
    ) -> None: ...


class Dispatcher(Protocol):
    """Decides where units are run: in this process, or on other machines."""

    slots: int
    """How many units are handed over at once; read when `opened` has been entered."""

    def opened(self, means: Means) -> AbstractAsyncContextManager[None]:
        """Ready for the units of one run. Raises what keeps it from running any."""
        ...

    async def tend(self) -> None:
        """What goes on beside the units; cancelled when the last one has ended."""
        ...

    async def run(self, unit: Unit) -> UnitOutcome:
        """Bring a unit to its end, as `life.run_unit` does; raises only cancellation."""
        ...
