"""What a sink promises, of the one that sends to a DICOM receiver: whole objects or none."""

from __future__ import annotations

import gc
import io
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from pynetdicom import AE, AllStoragePresentationContexts, evt

from tests.contract.rigs import chunks_of
from tests.contract.test_sinks import Broken, breaking_off, events_of
from xnatctl.endpoints.store_scu import Peer, StoreSink
from xnatctl.engine.types import Item, Member, Unit
from xnatctl.engine.verify import compare
from xnatctl.errors import Corrupt, Refused, Unreachable
from xnatctl.model import Ref
from xnatctl.sandbox.phantom import Series, Study, series_files

SERIES = Series(Study("MR1", "SUBJ", "Doe^Jane"), "3", 3, columns=64, rows=64, slices=6)
BODIES = [body for _, body in series_files(SERIES)]
OBJECTS = {f"{pydicom.dcmread(io.BytesIO(body)).SOPInstanceUID}.dcm": body for body in BODIES}
ARCHIVE = io.BytesIO()
with zipfile.ZipFile(ARCHIVE, "w") as _writer:
    for _name, _body in OBJECTS.items():
        _writer.writestr(_name, _body)


@dataclass
class Receiver:
    """Somebody else's receiver, and the UIDs that it has taken; `refuse` is answered to all."""

    port: int = 0
    taken: list[str] = field(default_factory=list)
    refuse: int = 0

    def store(self, event: evt.Event) -> int:
        if self.refuse:
            return self.refuse
        self.taken.append(str(event.dataset.SOPInstanceUID))
        return 0

    @property
    def names(self) -> set[str]:
        return {f"{uid}.dcm" for uid in self.taken}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    entity = AE("RECEIVER")
    entity.supported_contexts = AllStoragePresentationContexts
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, made.store)]
    )
    assert server is not None and server.socket is not None
    made.port = server.socket.getsockname()[1]
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
async def sink(receiver: Receiver) -> AsyncIterator[StoreSink]:
    peer = Peer("127.0.0.1", receiver.port, "RECEIVER", timeout=5.0)
    async with StoreSink(peer, lines=2) as made:
        yield made


def unit() -> Unit:
    ref = Ref("RECEIVER")
    members = (
        Member(name.removesuffix(".dcm"), name, len(body), "") for name, body in OBJECTS.items()
    )
    item = Item(
        f"scans/3/{SERIES.uid}", "import", "import", ref, members=tuple(members), uid=SERIES.uid
    )
    return Unit("U1", "session", ref, ref, "U1", items=(item,))


async def test_nothing_is_listed_before_it_was_answered_for(sink: StoreSink) -> None:
    assert await sink.inventory(unit()) == {}


async def test_what_was_answered_for_is_listed_under_the_key_of_the_source(
    sink: StoreSink, receiver: Receiver
) -> None:
    one = unit()
    await sink.begin(one)
    await sink.begin(one)
    (item,) = one.items
    await sink.put_many(one, item, events_of(item, chunks_of(ARCHIVE.getvalue())))
    await sink.seal(one, 0)
    await sink.seal(one, 0)
    assert receiver.names == set(OBJECTS)
    assert compare(one.items, await sink.inventory(one)) == []


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
async def test_an_archive_that_breaks_off_sends_whole_objects_or_none_and_can_go_again(
    sink: StoreSink, receiver: Receiver, share: float
) -> None:
    one = unit()
    (item,) = one.items
    body = ARCHIVE.getvalue()
    await sink.begin(one)
    with pytest.raises(Broken):
        await sink.put_many(one, item, events_of(item, breaking_off(body, int(len(body) * share))))
    assert receiver.names <= set(OBJECTS) and len(receiver.taken) < len(OBJECTS)
    assert await sink.inventory(one) == {}
    await sink.abandon(one)
    await sink.abandon(one)

    await sink.put_many(one, item, events_of(item, chunks_of(body)))
    assert sorted(receiver.taken) == sorted(name.removesuffix(".dcm") for name in OBJECTS)


async def test_a_damaged_object_never_leaves_us(sink: StoreSink, receiver: Receiver) -> None:
    one = unit()
    (item,) = one.items
    body = bytearray(ARCHIVE.getvalue())
    spoiled = list(OBJECTS)[3]
    body[body.index(OBJECTS[spoiled]) + 5000] ^= 1
    with pytest.raises(Corrupt):
        await sink.put_many(one, item, events_of(item, chunks_of(bytes(body))))
    assert spoiled not in receiver.names


async def test_a_refusal_is_no_arrival(sink: StoreSink, receiver: Receiver) -> None:
    one = unit()
    (item,) = one.items
    receiver.refuse = 0xC000
    with pytest.raises(Refused):
        await sink.put_many(one, item, events_of(item, chunks_of(ARCHIVE.getvalue())))
    assert await sink.inventory(one) == {}


# pynetdicom leaves the socket of a connection that was refused to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    one = unit()
    (item,) = one.items
    async with StoreSink(Peer("127.0.0.1", 9, "NOBODY", timeout=1.0), lines=1) as sink:
        with pytest.raises(Unreachable):
            await sink.put_many(one, item, events_of(item, chunks_of(ARCHIVE.getvalue())))
    gc.collect()


async def test_a_file_that_is_no_object_is_refused(sink: StoreSink) -> None:
    one = unit()
    with pytest.raises(Refused):
        await sink.put(one, one.items[0], chunks_of(b"text"))
