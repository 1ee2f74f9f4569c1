"""A source and a sink in memory: for tests of the engine, and the shortest reading of the ports."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from xnatctl.errors import NotFound, Vanished
from xnatctl.model import Ref
from xnatctl.zipstream import Event as ZipEvent
from xnatctl.zipstream import MemberData, MemberEnd, MemberStart

from .ports import Chunks, Inventory
from .types import Container, Item, Selection, Stamp, Unit

CHUNK = 64 * 1024


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@dataclass
class MemorySource:
    """Units are the first part of a path, containers the second: `{"u/box/a.txt": b"…"}`."""

    files: dict[str, bytes]
    name: str = "memory:source"
    opened: list[str] = field(default_factory=list)

    async def units(self, selection: Selection) -> AsyncIterator[Unit]:
        keys = sorted({path.partition("/")[0] for path in self.files})
        if not keys:
            raise NotFound("there is nothing in memory")
        for key in keys:
            ref = Ref(key)
            yield Unit(key=key, kind="session", ref=ref, target=ref, label=key)

    async def describe(self, unit: Unit) -> Unit:
        items = []
        for path, data in sorted(self.files.items()):
            head, _, rest = path.partition("/")
            if head == unit.key:
                box, _, name = rest.partition("/")
                items.append(
                    Item(
                        key=f"{box}/files/{name}",
                        kind="file",
                        lane=box,
                        ref=replace(unit.ref, resource=box),
                        path=name,
                        size=len(data),
                        digest=md5(data),
                    )
                )
        if not items:
            raise Vanished(f"{unit.key} is gone")
        boxes = {item.lane: Container(item.lane, item.ref) for item in items}
        return replace(
            unit,
            containers=tuple(boxes.values()),
            items=tuple(items),
            fingerprint=md5(repr(items).encode()),
        )

    @asynccontextmanager
    async def open(self, unit: Unit, item: Item) -> AsyncIterator[Chunks]:
        self.opened.append(item.key)
        if item.kind == "file":
            body = self.files.get(f"{unit.key}/{item.lane}/{item.path}")
            if body is None:
                raise Vanished(f"{item.key} is gone")
            yield _chunks(body)
            return
        archive = io.BytesIO()
        prefix = f"{unit.key}/{item.lane}/"
        with zipfile.ZipFile(archive, "w") as writer:
            for path, data in self.files.items():
                if path.startswith(prefix):
                    writer.writestr(path, data)
        yield _chunks(archive.getvalue())

    def member_path(self, item: Item, name: str) -> str:
        return name.split("/", 2)[2]


@dataclass
class MemorySink:
    """What arrives, by `unit/key`. `sealed` lists the stages that were sealed."""

    files: dict[str, bytes] = field(default_factory=dict)
    name: str = "memory:sink"
    accepts_zip: bool = True
    holds_digests: bool = True
    may_rewrite: bool = False
    sealed: list[str] = field(default_factory=list)

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        return unit

    async def inventory(self, unit: Unit) -> Inventory:
        found: Mapping[str, Stamp] = {
            path.partition("/")[2]: Stamp(len(data), md5(data))
            for path, data in self.files.items()
            if path.partition("/")[0] == unit.key
        }
        return found

    async def begin(self, unit: Unit) -> None:
        pass

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        self.files[f"{unit.key}/{item.key}"] = b"".join([chunk async for chunk in chunks])

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        parts: list[bytes] = []
        async for event in events:
            if isinstance(event, MemberStart):
                parts = []
            elif isinstance(event, MemberData):
                parts.append(bytes(event.plain))
            elif isinstance(event, MemberEnd):
                self.files[f"{unit.key}/{item.lane}/files/{event.name}"] = b"".join(parts)

    async def seal(self, unit: Unit, stage: int) -> None:
        self.sealed.append(f"{unit.key}:{stage}")

    async def abandon(self, unit: Unit) -> None:
        pass


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]
