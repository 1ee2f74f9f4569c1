"""The transport against a server that speaks bytes: bodies, cookies, cuts, stalls, TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme

from tests.unit.wire import TOKEN, Asked, Wire, wire
from xnatctl.errors import (
    Corrupt,
    NotFound,
    PermissionDenied,
    Refused,
    SessionLost,
    Unreachable,
    Untrusted,
)
from xnatctl.retry import Backoff
from xnatctl.transport import SMALL_BODY, WHOAMI, Credentials, Timeouts, Transport

BIG = bytes(range(256)) * 4096
QUICK = Timeouts(connect=2.0, stall=0.25, slow_stall=2.0)


def make(server: Wire, **options: Any) -> Transport:
    options.setdefault("timeouts", QUICK)
    options.setdefault("policy", Backoff(attempts=3, base=0.001, cap=0.002))
    return Transport(server.url, Credentials("alice", "pw"), name="site", **options)


@pytest.fixture
async def server() -> AsyncIterator[Wire]:
    async with wire() as server:
        yield server


@pytest.fixture
async def transport(server: Wire) -> AsyncIterator[Transport]:
    async with make(server) as transport:
        yield transport


async def pieces(body: bytes, size: int = 16_384) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def read(transport: Transport, path: str = "/file", **options: Any) -> bytes:
    async with transport.stream(path, **options) as chunks:
        return b"".join([chunk async for chunk in chunks])


# --- logins ----------------------------------------------------------------------------------


async def test_cookies_of_the_login_travel_with_every_request(
    server: Wire, transport: Transport
) -> None:
    await transport.request("GET", "/x")
    await transport.request("GET", "/y")

    login, *others = server.asked
    assert login.headers["authorization"].startswith("Basic ")
    for asked in others:
        assert "authorization" not in asked.headers
        assert f"JSESSIONID={TOKEN}1" in asked.headers["cookie"]
    assert server.logins == 1


async def test_the_program_does_not_pretend_to_be_a_browser(
    server: Wire, transport: Transport
) -> None:
    await transport.request("GET", "/x")

    headers = server.asked[-1].headers
    assert headers["user-agent"].startswith("xnatctl/")
    assert "Mozilla" not in headers["user-agent"]
    assert headers["accept-encoding"] == "identity"


async def test_many_that_find_the_login_expired_make_one_new_login(
    server: Wire, transport: Transport
) -> None:
    async def answer(asked: Asked) -> None:
        await asyncio.sleep(0.01)
        if f"{TOKEN}2" in asked.headers["cookie"]:
            asked.answer(200, b"fine")
        else:
            asked.answer(401)

    server.answer = answer
    await transport.login()
    replies: list[str] = []

    async def ask() -> None:
        replies.append((await transport.request("GET", "/x")).text)

    async with anyio.create_task_group() as tasks:
        for _ in range(32):
            tasks.start_soon(ask)
    assert replies == ["fine"] * 32
    assert server.logins == 2


async def test_a_token_of_another_process_travels_as_a_cookie(server: Wire) -> None:
    async with Transport(server.url, Credentials(token=TOKEN)) as transport:
        await transport.request("GET", "/x")

    assert server.logins == 0
    assert server.asked[0].headers["cookie"] == f"JSESSIONID={TOKEN}"


# --- downloads -------------------------------------------------------------------------------


async def test_a_body_of_known_length_arrives_whole(server: Wire, transport: Transport) -> None:
    async def answer(asked: Asked) -> None:
        asked.answer(200, BIG)

    server.answer = answer
    assert await read(transport) == BIG


async def test_a_chunked_body_arrives_whole(server: Wire, transport: Transport) -> None:
    async def answer(asked: Asked) -> None:
        asked.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(BIG), 50_000):
            part = BIG[start : start + 50_000]
            asked.send(f"{len(part):x}\r\n".encode(), part, b"\r\n")
        asked.send(b"0\r\n\r\n")

    server.answer = answer
    assert await read(transport) == BIG


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CUTS = {
    "short-length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 999,
    "no-terminator": CHUNKED + b"5\r\nhello\r\n",
    "middle-of-a-chunk": CHUNKED + b"ffff\r\nhello",
    "no-body-at-all": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
    "middle-of-the-head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "nothing": b"",
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("cut", CUTS)
async def test_a_cut_body_is_an_error(
    server: Wire, transport: Transport, cut: str, reset: bool
) -> None:
    async def answer(asked: Asked) -> None:
        asked.send(CUTS[cut])
        await asked.writer.drain()
        await asyncio.sleep(0.01)
        if reset:
            asked.reset()
        else:
            asked.writer.close()

    server.answer = answer
    with pytest.raises(Unreachable, match=r"GET http://127\.0\.0\.1") as caught:
        await read(transport)
    assert caught.value.sent


async def test_a_cut_answer_is_asked_for_again(server: Wire, transport: Transport) -> None:
    async def answer(asked: Asked) -> None:
        if server.count("GET", "/x") < 3:
            asked.send(CUTS["short-length"])
            asked.writer.close()
        else:
            asked.answer(200, b"whole")

    server.answer = answer
    assert (await transport.request("GET", "/x")).body == b"whole"


async def test_a_body_that_stalls_is_given_up(server: Wire, transport: Transport) -> None:
    async def answer(asked: Asked) -> None:
        asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
        await asyncio.sleep(60)

    server.answer = answer
    with pytest.raises(Unreachable, match="stalled"):
        await read(transport)


async def test_a_server_that_never_answers_is_given_up(server: Wire, transport: Transport) -> None:
    async def answer(asked: Asked) -> None:
        await asyncio.sleep(60)

    server.answer = answer
    with pytest.raises(Unreachable, match="stalled"):
        await read(transport)


async def test_a_slow_request_may_be_silent_for_longer(server: Wire, transport: Transport) -> None:
    async def answer(asked: Asked) -> None:
        await asyncio.sleep(0.3)
        asked.answer(200, b"at last")

    server.answer = answer
    assert await read(transport, slow=True) == b"at last"


async def test_a_body_that_trickles_is_not_given_up(server: Wire, transport: Transport) -> None:
    async def answer(asked: Asked) -> None:
        asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")
        for _ in range(12):
            await asyncio.sleep(0.03)
            asked.send(b"x")
            await asked.writer.drain()

    server.answer = answer
    assert await read(transport) == b"x" * 12


async def test_a_body_that_ends_with_its_connection_cannot_be_told_from_a_whole_one(
    server: Wire, transport: Transport
) -> None:
    # Who reads has to prove it: an HTTP/1.0 hop gives no length and no end.
    async def answer(asked: Asked) -> None:
        asked.send(b"HTTP/1.0 200 OK\r\n\r\n" + BIG[:1000])
        await asked.writer.drain()
        asked.writer.close()

    server.answer = answer
    assert await read(transport) == BIG[:1000]


async def test_a_stream_that_is_left_early_closes_its_connection(
    server: Wire, transport: Transport
) -> None:
    gone = asyncio.Event()

    async def answer(asked: Asked) -> None:
        asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
        try:
            while True:
                asked.send(BIG)
                await asked.writer.drain()
        except ConnectionError:
            gone.set()

    server.answer = answer
    async with transport.stream("/x") as chunks:
        async for _ in chunks:
            break
    await asyncio.wait_for(gone.wait(), 2.0)


async def test_a_slow_reader_holds_the_server_back(server: Wire, transport: Transport) -> None:
    sent = 0

    async def answer(asked: Asked) -> None:
        nonlocal sent
        asked.send(f"HTTP/1.1 200 OK\r\nContent-Length: {64 * len(BIG)}\r\n\r\n".encode())
        for _ in range(64):
            asked.send(BIG)
            await asked.writer.drain()
            sent += len(BIG)

    server.answer = answer
    async with transport.stream("/x") as chunks:
        async for _ in chunks:
            break
        await asyncio.sleep(0.05)
        assert sent < 32 * len(BIG)


# --- uploads ---------------------------------------------------------------------------------


async def send(
    transport: Transport, chunks: AsyncIterator[bytes], *, length: int | None = None
) -> bytes:
    return (await transport.send("PUT", "/up", chunks, length=length)).body


async def echo(asked: Asked) -> None:
    if "expect" in asked.headers:
        asked.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    asked.answer(200, str(len(await asked.read())).encode())


@pytest.mark.parametrize("length", [None, len(BIG)])
async def test_a_body_is_sent_whole(server: Wire, transport: Transport, length: int | None) -> None:
    server.answer = echo

    assert await send(transport, pieces(BIG), length=length) == str(len(BIG)).encode()
    asked = server.asked[-1]
    assert bytes(asked.body) == BIG
    assert asked.whole
    assert asked.headers["content-type"] == "application/octet-stream"
    assert asked.headers.get("content-length") == (str(length) if length else None)


async def test_a_small_body_is_sent_without_asking_first(
    server: Wire, transport: Transport
) -> None:
    server.answer = echo

    await send(transport, pieces(BIG[:SMALL_BODY]), length=SMALL_BODY)
    assert "expect" not in server.asked[-1].headers
    await send(transport, pieces(BIG), length=len(BIG))
    assert server.asked[-1].headers["expect"] == "100-continue"


async def test_a_lost_login_costs_no_byte_of_a_large_body(
    server: Wire, transport: Transport
) -> None:
    async def answer(asked: Asked) -> None:
        if f"{TOKEN}1" in asked.headers["cookie"]:
            asked.answer(401)
            await asyncio.sleep(0.02)
            asked.body += asked.reader._buffer  # type: ignore[attr-defined]
            asked.writer.close()
        else:
            await echo(asked)

    server.answer = answer
    produced = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal produced
        async for piece in pieces(BIG):
            produced += len(piece)
            yield piece

    with pytest.raises(SessionLost):
        await send(transport, body(), length=len(BIG))
    assert produced == 0
    assert bytes(server.asked[1].body) == b""

    # The next attempt has a new login.
    assert await send(transport, pieces(BIG), length=len(BIG)) == str(len(BIG)).encode()
    assert server.logins == 2


async def test_a_body_that_is_too_large_for_the_server_is_refused_before_it_is_sent(
    server: Wire, transport: Transport
) -> None:
    async def answer(asked: Asked) -> None:
        asked.answer(413, b"<h1>413</h1>")
        asked.writer.close()

    server.answer = answer
    with pytest.raises(Refused) as caught:
        await send(transport, pieces(BIG), length=len(BIG))
    assert caught.value.status == 413


@pytest.mark.parametrize("length", [None, len(BIG)])
@pytest.mark.parametrize("after", [0, 1, 40])
async def test_the_error_of_a_body_comes_out_and_the_server_sees_it_unfinished(
    server: Wire, transport: Transport, length: int | None, after: int
) -> None:
    server.answer = echo

    async def broken() -> AsyncIterator[bytes]:
        number = 0
        async for piece in pieces(BIG):
            if number == after:
                raise Corrupt("the source was cut")
            number += 1
            yield piece

    with pytest.raises(Corrupt, match="the source was cut"):
        await send(transport, broken(), length=length)
    await asyncio.sleep(0.02)

    asked = server.asked[-1]
    assert not asked.whole
    assert len(asked.body) < len(BIG)


async def test_an_answer_that_comes_before_the_whole_body_ends_the_upload(
    server: Wire, transport: Transport
) -> None:
    # An importer has all it wants before the directory at the end of an archive. Whether what was
    # sent is what is there, a listing tells.
    async def answer(asked: Asked) -> None:
        asked.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asked.reader.read(1000)
        asked.answer(200, b"stored")
        await asked.writer.drain()
        await asked.read()

    server.answer = answer
    produced = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal produced
        while True:
            await asyncio.sleep(0.001)
            produced += 1
            yield BIG[:1000]

    with anyio.fail_after(5):
        assert await send(transport, endless()) == b"stored"
    before = produced
    await asyncio.sleep(0.02)
    assert produced == before


@pytest.mark.parametrize("end", ["reset", "close", "refuse"])
async def test_a_body_is_closed_when_its_request_has_ended(
    server: Wire, transport: Transport, end: str
) -> None:
    async def answer(asked: Asked) -> None:
        if asked.path == "/xapi/users/username":
            asked.answer(200, b"alice")
            return
        asked.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asked.reader.read(1000)
        if end == "refuse":
            asked.answer(403)
            await asked.writer.drain()
            asked.writer.close()
        elif end == "close":
            asked.writer.close()
        else:
            asked.reset()

    server.answer = answer
    closed = []

    async def waiting() -> AsyncIterator[bytes]:
        try:
            yield BIG[:1000]
            await asyncio.sleep(10)
            yield BIG[1000:]
        finally:
            closed.append(True)

    body = waiting()
    with pytest.raises((Unreachable, PermissionDenied)):
        await send(transport, body)
    assert closed == [True]
    with pytest.raises(StopAsyncIteration):
        await anext(body)
    assert not server.asked[1].whole


async def test_a_server_that_goes_away_during_an_upload_is_unreachable(
    server: Wire, transport: Transport
) -> None:
    async def answer(asked: Asked) -> None:
        asked.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asked.reader.read(1000)
        asked.reset()

    server.answer = answer
    with pytest.raises(Unreachable) as caught:
        await send(transport, pieces(BIG), length=len(BIG))
    assert caught.value.sent
    assert server.count("PUT", "/up") == 1


async def test_a_server_that_reads_no_further_is_given_up(
    server: Wire, transport: Transport
) -> None:
    async def answer(asked: Asked) -> None:
        asked.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(60)

    server.answer = answer

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield BIG

    with pytest.raises(Unreachable, match="stalled"), anyio.fail_after(5):
        await send(transport, endless())


async def test_a_server_that_never_asks_for_the_body_is_given_up(
    server: Wire, transport: Transport
) -> None:
    async def answer(asked: Asked) -> None:
        await asyncio.sleep(60)

    server.answer = answer
    with pytest.raises(Unreachable, match="stalled"), anyio.fail_after(5):
        await send(transport, pieces(BIG), length=len(BIG))


async def test_a_source_that_takes_its_time_is_no_stall_of_the_server(
    server: Wire, transport: Transport
) -> None:
    server.answer = echo

    async def slow() -> AsyncIterator[bytes]:
        yield BIG[:1000]
        await asyncio.sleep(0.3)
        yield BIG[1000:]

    assert await send(transport, slow(), length=len(BIG)) == str(len(BIG)).encode()


async def test_an_upload_whose_answer_is_lost_is_not_sent_twice(
    server: Wire, transport: Transport
) -> None:
    async def answer(asked: Asked) -> None:
        asked.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asked.read()
        asked.writer.close()

    server.answer = answer
    with pytest.raises(Unreachable):
        await send(transport, pieces(BIG), length=len(BIG))
    assert server.count("PUT", "/up") == 1
    assert server.asked[-1].whole


async def test_an_upload_that_is_cancelled_leaves_the_request_unfinished(
    server: Wire, transport: Transport
) -> None:
    server.answer = echo
    half_way = anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield BIG
        half_way.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, transport, endless())
        await half_way.wait()
        tasks.cancel_scope.cancel()
    await asyncio.sleep(0.02)
    assert not server.asked[-1].whole


# --- connections -----------------------------------------------------------------------------


async def test_a_connection_is_kept_for_the_next_request(
    server: Wire, transport: Transport
) -> None:
    for _ in range(5):
        await transport.request("GET", "/x")

    assert server.connections == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_kept_connection_that_was_dropped_costs_one_replay(
    server: Wire, transport: Transport, method: str
) -> None:
    async def answer(asked: Asked) -> None:
        if server.count(method, "/x") == 2:
            asked.writer.close()
        else:
            asked.answer(200, b"fine")

    server.answer = answer
    await transport.request(method, "/x")
    assert (await transport.request(method, "/x")).text == "fine"
    assert server.count(method, "/x") == 3


async def test_a_post_on_a_dropped_connection_is_not_repeated(
    server: Wire, transport: Transport
) -> None:
    async def answer(asked: Asked) -> None:
        asked.writer.close()

    server.answer = answer
    with pytest.raises(Unreachable) as caught:
        await transport.request("POST", "/x")
    assert caught.value.sent
    assert server.count("POST", "/x") == 1


async def test_an_upload_on_a_dropped_connection_is_not_repeated_with_what_is_left_of_it(
    server: Wire, transport: Transport
) -> None:
    async def answer(asked: Asked) -> None:
        if server.count("PUT", "/up") == 2:
            await asked.reader.read(1000)
            asked.writer.close()
        else:
            await echo(asked)

    server.answer = answer
    await send(transport, pieces(b"x" * 5000), length=5000)
    with pytest.raises(Unreachable):
        await send(transport, pieces(b"y" * 5000), length=5000)
    assert server.count("PUT", "/up") == 2


async def test_nobody_listening_is_tried_again_and_then_said() -> None:
    async with wire() as server:
        url = server.url
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    policy = Backoff(attempts=3, base=0.001)
    async with Transport(url, Credentials("a", "b"), policy=policy, sleep=sleep) as transport:
        with pytest.raises(Unreachable) as caught:
            await transport.request("POST", "/x")
    assert not caught.value.sent
    assert "refused" in caught.value.why.lower()
    assert len(slept) == 2


async def test_a_host_that_does_not_exist_is_said() -> None:
    async with Transport(
        "http://no-such-host.invalid", Credentials("a", "b"), policy=Backoff(attempts=1)
    ) as transport:
        with pytest.raises(Unreachable, match="cannot be reached"):
            await transport.request("GET", "/x")


async def test_what_is_no_http_is_an_error(server: Wire, transport: Transport) -> None:
    async def answer(asked: Asked) -> None:
        asked.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        asked.writer.close()

    server.answer = answer
    with pytest.raises(Unreachable):
        await read(transport)


# --- TLS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def secure(authority: trustme.CA) -> AsyncIterator[Wire]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with wire(tls=context) as server:
        yield server


async def test_an_unknown_authority_is_not_trusted_and_not_tried_again(secure: Wire) -> None:
    async with make(secure) as transport:
        with pytest.raises(Untrusted) as caught:
            await transport.request("GET", "/x")
    assert "--ca-bundle" in caught.value.hint
    assert secure.asked == []
    assert secure.connections <= 1


async def test_an_authority_that_is_named_is_trusted(
    secure: Wire, authority: trustme.CA, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)

    async with make(secure, ca_bundle=str(bundle)) as transport:
        assert (await transport.request("GET", "/x")).status == 200


async def test_a_certificate_of_another_host_is_not_trusted(
    authority: trustme.CA, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.example").configure_cert(context)

    async with wire(tls=context) as server:
        async with make(server, ca_bundle=str(bundle)) as transport:
            with pytest.raises(Untrusted):
                await transport.request("GET", "/x")
        assert server.asked == []


async def test_verification_can_be_turned_off(secure: Wire) -> None:
    async with make(secure, verify_ssl=False) as transport:
        assert (await transport.request("GET", "/x")).status == 200


async def test_speaking_plainly_to_a_secure_server_is_unreachable(secure: Wire) -> None:
    secure.url = secure.url.replace("https", "http")
    async with make(secure, policy=Backoff(attempts=1)) as transport:
        with pytest.raises(Unreachable):
            await transport.request("GET", "/x")


async def test_who_asks_while_the_login_is_being_confirmed_shares_the_next_answer(
    server: Wire, transport: Transport
) -> None:
    async def answer(asked: Asked) -> None:
        if asked.path == WHOAMI:
            await asyncio.sleep(0.02)
            asked.answer(200, b"alice", "Content-Type: text/plain")
        else:
            asked.answer(404)

    server.answer = answer
    await transport.login()

    async def ask() -> None:
        with pytest.raises(NotFound):
            await transport.request("GET", "/missing")

    async with anyio.create_task_group() as tasks:
        for _ in range(12):
            tasks.start_soon(ask)
    assert server.count("GET", "/missing") == 12
    assert server.count("GET", WHOAMI) == 2


async def test_a_proxy_that_the_environment_names_is_asked_for_the_whole_address(
    server: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(asked: Asked) -> None:
        if asked.path.endswith("/data/JSESSION"):
            asked.answer(200, TOKEN.encode(), "Content-Type: text/plain")
        else:
            asked.answer(200, b"fine", "Content-Type: text/plain")

    server.answer = answer
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with Transport("http://xnat.example", Credentials("alice", "pw")) as transport:
        await transport.request("GET", "/x")
    assert [one.path for one in server.asked] == [
        "http://xnat.example/data/JSESSION",
        "http://xnat.example/x",
    ]
