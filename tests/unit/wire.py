"""A server that speaks bytes: it answers as told, well or badly, and notes what it was sent."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

TOKEN = "6F1C0A9D2B6F1C0A"


@dataclass
class Asked:
    """One request as it arrived. `body` grows while it is read."""

    method: str
    path: str
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    """Whether the body was read to its end."""

    async def read(self) -> bytes:
        """The body, which may end early; `whole` tells."""
        if self.headers.get("transfer-encoding") == "chunked":
            await self._read_chunks()
        else:
            left = int(self.headers.get("content-length", "0"))
            while left and (data := await self.reader.read(min(left, 65536))):
                self.body += data
                left -= len(data)
            self.whole = not left
        return bytes(self.body)

    async def _read_chunks(self) -> None:
        while line := await self.reader.readline():
            size = int(line, 16)
            self.body += await self.reader.readexactly(size)
            await self.reader.readline()
            if not size:
                self.whole = True
                return

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def answer(self, status: int, body: bytes = b"", *headers: str) -> None:
        head = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", *headers, "", ""]
        self.send("\r\n".join(head).encode(), body)

    def reset(self) -> None:
        """Break the connection off as a crashed server does."""
        self.writer.transport.abort()


Answer = Callable[[Asked], Awaitable[None]]


@dataclass
class Wire:
    """The server. `answer` meets everything but logins; without one a body comes back."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    logins: int = 0
    connections: int = 0
    answer: Answer | None = None

    def count(self, method: str, path: str) -> int:
        return sum(one.method == method and one.path == path for one in self.asked)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                method, path, _ = lines[0].split(" ")
                headers = dict(line.split(": ", 1) for line in lines[1:] if line)
                lower = {name.lower(): value for name, value in headers.items()}
                asked = Asked(method, path, lower, reader, writer)
                self.asked.append(asked)
                await self._one(asked)
                await writer.drain()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, asked: Asked) -> None:
        if asked.path == "/data/JSESSION":
            self.logins += 1
            token = f"{TOKEN}{self.logins}"
            asked.answer(
                200,
                token.encode(),
                f"Set-Cookie: JSESSIONID={token}; Path=/; HttpOnly",
                'Set-Cookie: SESSION_EXPIRATION_TIME="1735689600000,900000"; Path=/',
                "Content-Type: text/plain",
            )
        elif self.answer is not None:
            await self.answer(asked)
        else:
            asked.answer(200, await asked.read())


@asynccontextmanager
async def wire(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """A running server; whatever is still connected at the end is broken off."""
    made = Wire()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await made.serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
