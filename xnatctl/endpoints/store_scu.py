"""A DICOM receiver as a sink: objects by C-STORE, over several associations at once.

1. Each object is put into a file of its own while it arrives, and leaves it by one of the lines.
2. A line is one association. It offers the transfer syntax of each object as it is, and for
   uncompressed ones also plain little endian, into which pydicom converts where nothing else is
   accepted. An object that the association cannot take opens another one.
3. An object counts as sent when the receiver has answered for it; after a failure only the others
   are sent again. Nothing more can be known: C-STORE has no listing.

What holds the usual client back is the socket: the receiver's small answer waits for our delayed
acknowledgement. Here every read asks for an immediate one (`TCP_QUICKACK`, Linux), and nothing of
ours is held back either (`TCP_NODELAY`).
"""

from __future__ import annotations

import logging
import socket
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from xnatctl.dicom.head import Head, quiet, read_head
from xnatctl.engine.ports import Chunks, Inventory
from xnatctl.engine.types import Item, Stamp, Unit
from xnatctl.errors import (
    Busy,
    ConfigError,
    MissingExtra,
    Refused,
    Unreachable,
    Untrusted,
    first_known,
)
from xnatctl.zipstream import Event as ZipEvent
from xnatctl.zipstream import MemberData, MemberEnd, MemberStart

if TYPE_CHECKING:
    from pynetdicom.association import Association

PLAIN = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_UNCOMPRESSED = {*PLAIN, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"}
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
MOST_CONTEXTS = 128
IN_MEMORY = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Peer:
    """The receiver, and who calls it. `timeout` is in seconds, for connecting and for answers."""

    host: str
    port: int
    called: str
    calling: str = "XNATCTL"
    tls: bool = False
    ca_bundle: str = ""
    certificate: str = ""
    key: str = ""
    timeout: float = 60.0

    def __str__(self) -> str:
        return f"{self.called}@{self.host}:{self.port}"

    def context(self) -> ssl.SSLContext | None:
        """How TLS is spoken, None without it. Raises ConfigError."""
        if not self.tls:
            return None
        try:
            made = ssl.create_default_context(cafile=self.ca_bundle or None)
            if self.certificate:
                made.load_cert_chain(self.certificate, self.key or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                "the certificates for TLS cannot be used", why=error.strerror or str(error)
            ) from error
        return made


class Line:
    """One association, opened when it is needed and again when it is not enough. Blocking."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._offers: dict[tuple[str, str], None] = {}
        self._association: Association | None = None
        self._accepted: set[tuple[str, str]] = set()
        self._gate = _Gate()

    def send(self, path: Path) -> None:
        """Send the object in a file. Raises Unreachable, Busy or Refused."""
        with path.open("rb") as file:
            head = read_head(file, path.stat().st_size)
        association = self._open_for(head)
        exact = (head.sop_class, head.syntax) in self._accepted
        with quiet():
            try:
                status = association.send_c_store(path if exact else _dataset(path, head))
            except (ValueError, AttributeError, RuntimeError) as error:
                self.close()
                raise Refused(
                    f"{head.uid} cannot be sent to {self._peer}", why=str(error)
                ) from error
        self._judge(head, status)

    def _judge(self, head: Head, status: Any) -> None:
        code = status.get("Status") if status is not None else None
        if code is None:
            self.close()
            raise Unreachable(f"{self._peer} gave no answer for {head.uid}", sent=True)
        # Bxxx are warnings: stored, with something coerced or left out.
        if code == 0 or 0xB000 <= code < 0xC000:
            return
        words = str(status.get("ErrorComment", "")) or f"status {code:04X}"
        if code in _OUT_OF_RESOURCES:
            raise Busy(f"{self._peer} has no room for {head.uid}", why=words)
        raise Refused(f"{self._peer} refused {head.uid}", why=words)

    def _open_for(self, head: Head) -> Association:
        """An association that takes the object."""
        is_plain = head.syntax in _UNCOMPRESSED
        offers = [(head.sop_class, head.syntax)]
        offers += [(head.sop_class, one) for one in PLAIN if is_plain]
        if self._association is not None and self._association.acse.is_aborted():
            self.close()
        if self._association is None or any(one not in self._offers for one in offers):
            self.close()
            if len(self._offers) + len(offers) > MOST_CONTEXTS:
                self._offers.clear()
            self._offers |= dict.fromkeys(offers)
            self._association = self._associate()
        if not any(one in self._accepted for one in offers):
            raise Refused(
                f"{self._peer} does not take {head.uid}",
                why=f"it accepted no context for class {head.sop_class} in {head.syntax}",
            )
        return self._association

    def _associate(self) -> Association:
        from pynetdicom import AE, _config

        # It tells of everything that is raised below as well, in its own words.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        # Bodies go from file to socket as they are, without being parsed.
        _config.STORE_SEND_CHUNKED_DATASET = True
        _config.LOG_HANDLER_LEVEL = "none"
        peer = self._peer
        entity = AE(peer.calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = peer.timeout
        entity.connection_timeout = peer.timeout
        for sop_class, syntax in self._offers:
            entity.requested_contexts = [*entity.requested_contexts, _context(sop_class, syntax)]
        context = peer.context()
        association = entity.associate(
            peer.host,
            peer.port,
            ae_title=peer.called,
            tls_args=(context, peer.host) if context else None,
        )
        if association.is_established:
            _hasten(association)
            self._gate = _Gate()
            association._reactor_checkpoint = self._gate
            self._gate.reached.wait(peer.timeout)
            self._accepted = {
                (str(one.abstract_syntax), str(one.transfer_syntax[0]))
                for one in association.accepted_contexts
            }
            return association
        if association.is_rejected:
            answer = association.acceptor.primitive
            why = answer.reason_str if answer is not None else "it gave no reason"
            raise Refused(
                f"{peer} rejects us",
                why=why,
                hint="look at --called-aet and --calling-aet, and at what the receiver allows",
            )
        if association.rejected_contexts:
            refused = sorted({str(one.abstract_syntax) for one in association.rejected_contexts})
            raise Refused(
                f"{peer} takes none of what was offered",
                why=f"it accepted no context for class {refused[0]}",
                hint="look at the classes and transfer syntaxes that the receiver accepts",
            )
        if peer.tls:
            raise Untrusted(
                f"{peer} cannot be reached with TLS",
                why="it is not there, speaks no TLS, or its certificate is not one we may trust",
                hint="name the certificate authority with --tls-ca-bundle FILE",
            )
        raise Unreachable(
            f"{peer} cannot be reached",
            why="no association came about",
            hint="look at --host and --port",
        )

    def close(self) -> None:
        """Release the association; it is opened again when it is needed."""
        association, self._association = self._association, None
        self._gate.leave()
        if association is not None and association.is_established:
            association.release()


def _context(sop_class: str, syntax: str) -> Any:
    from pynetdicom.presentation import build_context

    return build_context(sop_class, syntax)


def _dataset(path: Path, head: Head) -> Any:
    """The object in memory, for one that has to be converted or has no meta information."""
    from pydicom import dcmread
    from pydicom.uid import UID

    data = dcmread(path, force=True)
    data.file_meta.TransferSyntaxUID = UID(head.syntax)
    return data


class _Gate(threading.Event):
    """Keeps the thread of an association at rest while a line uses it.

    pynetdicom (3.0) pauses that thread for each message and wakes it afterwards, and where answers
    come fast the thread takes one that was not for it, so the sender waits in vain. Here it is
    paused once; `set`, which would wake it, does nothing until `leave`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self._left = False

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)

    def set(self) -> None:
        if self._left:
            super().set()

    def leave(self) -> None:
        self._left = True
        super().set()


def _hasten(association: Any) -> None:
    """Have nothing on the socket wait: neither what is sent nor acknowledgements."""
    transport = association.dul.socket
    plain = transport.socket
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    quick = getattr(socket, "TCP_QUICKACK", None)
    if quick is None:
        return
    receive = transport.recv

    def recv(count: int) -> Any:
        # The kernel takes the wish back by itself, so it is renewed before each read.
        with suppress(OSError):
            plain.setsockopt(socket.IPPROTO_TCP, quick, 1)
        return receive(count)

    transport.recv = recv


_Ready = tuple[str, Path, list[bytes]]
"""An object on its way out: its name, its file, and what is not in the file yet."""


def _append(path: Path, pieces: list[bytes]) -> None:
    with path.open("ab") as file:
        file.writelines(pieces)


def _send(line: Line, path: Path, rest: list[bytes]) -> None:
    """Complete the file of an object and send it; the file is gone afterwards. Blocking."""
    try:
        _append(path, rest)
        line.send(path)
    finally:
        path.unlink(missing_ok=True)


class StoreSink:
    """Sends the objects of a session to a receiver. Used as an async context."""

    accepts_zip = True
    holds_digests = False
    may_rewrite = True

    def __init__(self, peer: Peer, *, lines: int = 4) -> None:
        try:
            import pynetdicom
        except ImportError as error:
            raise MissingExtra(
                "C-STORE needs an optional package", hint="pip install 'xnatctl[dicom]'"
            ) from error
        del pynetdicom
        self.name = f"dicom://{peer.host}:{peer.port}/{peer.called}"
        self._lines = [Line(peer) for _ in range(lines)]
        self._folder = tempfile.TemporaryDirectory(prefix="xnatctl-")
        self._sent: set[str] = set()

    async def __aenter__(self) -> StoreSink:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            for line in self._lines:
                await anyio.to_thread.run_sync(line.close)
            await anyio.to_thread.run_sync(self._folder.cleanup)

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        return unit

    async def inventory(self, unit: Unit) -> Inventory:
        """What the receiver has answered for in this run."""
        return {
            item.key: Stamp(objects=len(item.members), uid=item.uid)
            for item in unit.items
            if item.members and all(one.path in self._sent for one in item.members)
        }

    async def begin(self, unit: Unit) -> None:
        """Nothing has to be made first."""

    async def put(self, unit: Unit, item: Item, chunks: Chunks) -> None:
        raise Refused(f"{item.key} is no DICOM, and a DICOM receiver takes nothing else")

    async def put_many(self, unit: Unit, item: Item, events: AsyncIterator[ZipEvent]) -> None:
        """Send the members that were not answered for, each over the line that is free."""
        send, receive = anyio.create_memory_object_stream[_Ready](len(self._lines))
        try:
            async with anyio.create_task_group() as tasks:
                for line in self._lines:
                    tasks.start_soon(self._work, line, receive.clone())
                receive.close()
                await self._hand_out(events, send)
        except BaseExceptionGroup as group:
            raise first_known(group) from group

    async def _hand_out(
        self, events: AsyncIterator[ZipEvent], send: MemoryObjectSendStream[_Ready]
    ) -> None:
        """Each member as soon as it is whole; a large one goes to its file on the way."""
        async with send:
            async for start in events:
                assert isinstance(start, MemberStart)
                path = Path(self._folder.name) / start.name
                held: list[bytes] = []
                size = 0
                async for event in events:
                    if isinstance(event, MemberEnd):
                        break
                    assert isinstance(event, MemberData)
                    held.append(bytes(event.plain))
                    size += len(event.plain)
                    if size > IN_MEMORY:
                        await anyio.to_thread.run_sync(_append, path, held)
                        held, size = [], 0
                if start.name not in self._sent:
                    await send.send((start.name, path, held))

    async def _work(self, line: Line, receive: MemoryObjectReceiveStream[_Ready]) -> None:
        async with receive:
            async for name, path, held in receive:
                await anyio.to_thread.run_sync(_send, line, path, held)
                self._sent.add(name)

    async def seal(self, unit: Unit, stage: int) -> None:
        """Nothing has to be finished: the receiver builds its session when nothing more comes."""

    async def abandon(self, unit: Unit) -> None:
        """What was answered for stays with the receiver."""
