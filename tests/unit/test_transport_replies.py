"""The transport against scripted sequences of answers: logins, pauses, refusals, redirects."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from aioresponses import aioresponses
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from xnatctl.errors import (
    AuthError,
    BadReply,
    Busy,
    ConfigError,
    Conflict,
    NotFound,
    PermissionDenied,
    Refused,
    ServerFault,
    Unreachable,
    XnatctlError,
)
from xnatctl.retry import Backoff
from xnatctl.transport import (
    Credentials,
    Timeouts,
    Transport,
    encode_query,
    first_words,
    redact,
)

BASE = "https://xnat.example/ctx"
LOGIN = f"{BASE}/data/JSESSION"
THING = f"{BASE}/data/projects"
WHO = f"{BASE}/xapi/users/username"
TOKEN = "6F1C0A9D2B6F1C0A"
SECRET = "s3cret-pässword"
LOGIN_PAGE = (
    "<!DOCTYPE html><html><head><title>XNAT</title></head><body><form action='login'>"
    "<input name='username'><input type='password'></form></body></html>"
)


class Clock:
    """Sleeps that take no time, and how long they were to be."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await anyio.sleep(min(seconds, 0.02))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def transport(clock: Clock, mocked: aioresponses) -> AsyncIterator[Transport]:
    """A transport whose login succeeds, as often as it is tried."""
    mocked.post(LOGIN, body=TOKEN, repeat=True)
    async with make(clock) as made:
        yield made


def make(clock: Clock, **options: Any) -> Transport:
    options.setdefault("policy", Backoff(attempts=4, base=0.001, cap=0.002, longest_after=600.0))
    return Transport(
        BASE + "/",
        options.pop("credentials", Credentials("alice", SECRET)),
        name="site",
        timeouts=Timeouts(),
        sleep=clock.sleep,
        **options,
    )


def asked(mocked: aioresponses, method: str, url: str) -> int:
    return len(mocked.requests.get((method, URL(url)), []))


# --- login -----------------------------------------------------------------------------------


async def test_the_first_request_logs_in_and_no_other_does(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.get(THING, body="one", repeat=True)

    for _ in range(3):
        assert (await transport.request("GET", "/data/projects")).text == "one"

    assert asked(mocked, "POST", LOGIN) == 1
    assert asked(mocked, "GET", THING) == 3


async def test_the_password_travels_with_the_login_alone(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.get(THING, body="one")

    await transport.request("GET", "/data/projects")

    (login,) = mocked.requests["POST", URL(LOGIN)]
    (request,) = mocked.requests["GET", URL(THING)]
    assert login.kwargs["headers"]["Authorization"].startswith("Basic ")
    assert "Authorization" not in request.kwargs["headers"]
    assert SECRET not in repr(request)


async def test_an_expired_login_is_renewed_and_the_request_replayed(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.get(THING, status=401)
    mocked.get(THING, body="one")

    assert (await transport.request("GET", "/data/projects")).text == "one"
    assert asked(mocked, "POST", LOGIN) == 2


async def test_even_a_request_that_is_never_replayed_is_sent_again_after_a_login(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.post(THING, status=401)
    mocked.post(THING, body="made")

    reply = await transport.request("POST", "/data/projects", replay=False)

    assert reply.text == "made"


async def test_a_server_that_keeps_asking_for_a_login_is_an_error(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.get(THING, status=401, repeat=True)

    with pytest.raises(AuthError, match="site keeps asking for a login"):
        await transport.request("GET", "/data/projects")
    assert asked(mocked, "GET", THING) == 2


@pytest.mark.parametrize(
    "symptom",
    [
        {"status": 302, "headers": {"Location": f"{BASE}/app/template/Login.vm"}},
        {"status": 302, "headers": {"Location": "/setup"}},
        {"status": 200, "body": LOGIN_PAGE, "content_type": "text/html"},
        {"status": 401, "body": LOGIN_PAGE, "content_type": "text/html"},
    ],
)
@pytest.mark.parametrize("expect", ["json", "xml", "text", "any"])
async def test_every_symptom_of_a_lost_session_leads_to_a_login_and_a_replay(
    mocked: aioresponses, transport: Transport, symptom: dict[str, Any], expect: Any
) -> None:
    mocked.get(THING, **symptom)
    mocked.get(THING, body="{}", content_type="application/json")

    assert (await transport.request("GET", "/data/projects", expect=expect)).text == "{}"
    assert asked(mocked, "POST", LOGIN) == 2


async def test_a_page_where_data_is_due_is_taken_for_a_lost_session(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.get(THING, body="<html><body>Maintenance</body></html>", content_type="text/html")
    mocked.get(THING, body="{}", content_type="application/json")

    assert (await transport.request("GET", "/data/projects", expect="json")).text == "{}"


async def test_a_page_that_was_asked_for_is_given(
    mocked: aioresponses, transport: Transport
) -> None:
    page = "<html><body>A report on passwords</body></html>"
    mocked.get(THING, body=page, content_type="text/html")

    assert (await transport.request("GET", "/data/projects")).text == page
    assert asked(mocked, "POST", LOGIN) == 1


async def test_a_wrong_password_is_an_error_of_the_login(
    clock: Clock, mocked: aioresponses
) -> None:
    mocked.post(LOGIN, status=401, repeat=True)

    async with make(clock) as transport:
        with pytest.raises(AuthError) as caught:
            await transport.request("GET", "/data/projects")

    assert "alice" in caught.value.message and caught.value.exit_code == 3
    assert SECRET not in repr(caught.value) + str(caught.value) + caught.value.why
    assert clock.pauses == []


async def test_a_refused_login_is_tried_once_however_many_ask(
    clock: Clock, mocked: aioresponses
) -> None:
    mocked.post(LOGIN, status=401, repeat=True)
    failures = []

    async with make(clock) as transport:

        async def ask() -> None:
            with pytest.raises(AuthError) as caught:
                await transport.request("GET", "/data/projects")
            failures.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask)
        await ask()

    assert len(failures) == 11
    # Twenty failed logins lock an account for an hour.
    assert asked(mocked, "POST", LOGIN) == 1


async def test_without_a_user_name_no_login_is_tried(clock: Clock, mocked: aioresponses) -> None:
    async with make(clock, credentials=Credentials()) as transport:
        with pytest.raises(AuthError) as caught:
            await transport.request("GET", "/data/projects")

    assert "no login for site" in caught.value.message
    assert caught.value.hint
    assert asked(mocked, "POST", LOGIN) == 0


async def test_a_token_is_used_as_it_is_and_not_renewed_without_a_password(
    clock: Clock, mocked: aioresponses
) -> None:
    mocked.get(THING, body="one")
    mocked.get(THING, status=401)

    async with make(clock, credentials=Credentials(token=TOKEN)) as transport:
        assert (await transport.request("GET", "/data/projects")).text == "one"
        with pytest.raises(AuthError, match="expired"):
            await transport.request("GET", "/data/projects")


async def test_a_new_token_is_told_so_that_others_can_use_it(
    clock: Clock, mocked: aioresponses
) -> None:
    tokens: list[str] = []
    mocked.post(LOGIN, body=f"{TOKEN}\n")

    async with make(clock, on_token=tokens.append) as transport:
        assert await transport.login() == TOKEN

    assert tokens == [TOKEN]


@pytest.mark.parametrize("body", ["", "<p>Welcome to our portal</p>", "x", "two words are no id"])
async def test_a_server_that_is_no_xnat_is_told_apart(
    clock: Clock, mocked: aioresponses, body: str
) -> None:
    mocked.post(LOGIN, body=body, repeat=True)

    async with make(clock) as transport:
        with pytest.raises(BadReply, match="does not answer a login like an XNAT"):
            await transport.request("GET", "/data/projects")


@pytest.mark.parametrize(("answer", "ours"), [("alice", True), ('"Alice"', True), ("guest", False)])
async def test_a_login_can_be_confirmed(
    mocked: aioresponses, transport: Transport, answer: str, ours: bool
) -> None:
    mocked.get(WHO, body=answer)

    assert await transport.confirm_login() is ours
    assert asked(mocked, "POST", LOGIN) == (1 if ours else 2)


async def test_a_token_that_became_a_guest_is_no_login(clock: Clock, mocked: aioresponses) -> None:
    mocked.get(WHO, body="guest")

    async with make(clock, credentials=Credentials(token=TOKEN)) as transport:
        with pytest.raises(AuthError):
            await transport.confirm_login()


async def test_logging_out_twice_is_no_error(mocked: aioresponses, transport: Transport) -> None:
    mocked.delete(LOGIN, status=200)
    mocked.delete(LOGIN, status=404)

    await transport.logout()
    await transport.logout()


# --- refusals --------------------------------------------------------------------------------

RESTLET = "<html><body><h3>The label is already in use &amp; kept</h3><p>more</p></body></html>"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (403, PermissionDenied),
        (404, NotFound),
        (405, Refused),
        (409, Conflict),
        (413, Refused),
        (417, Refused),
        (422, Refused),
        (501, Refused),
    ],
)
async def test_a_final_answer_is_an_error_with_the_servers_words_and_no_replay(
    mocked: aioresponses, transport: Transport, status: int, kind: type[XnatctlError]
) -> None:
    mocked.get(THING, status=status, body=RESTLET, content_type="text/html", repeat=True)

    with pytest.raises(kind) as caught:
        await transport.request("GET", "/data/projects")

    assert caught.value.status == status
    assert caught.value.why == f"HTTP {status}, The label is already in use & kept"
    assert asked(mocked, "GET", THING) == 1


async def test_a_status_that_is_allowed_is_an_answer(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.post(THING, status=303, headers={"Location": "/data/archive/projects/LOGIN_STUDY"})

    reply = await transport.request("POST", "/data/projects", allow=(301, 303))

    assert reply.status == 303
    assert reply.headers["Location"].endswith("LOGIN_STUDY")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_never_followed_and_named(
    mocked: aioresponses, transport: Transport, status: int
) -> None:
    elsewhere = "https://elsewhere.example/data/projects"
    mocked.get(THING, status=status, headers={"Location": elsewhere})
    mocked.get(elsewhere, body="stolen")

    with pytest.raises(Refused) as caught:
        await transport.request("GET", "/data/projects", expect="json")

    assert elsewhere in str(caught.value) + caught.value.hint
    assert asked(mocked, "GET", elsewhere) == 0
    assert asked(mocked, "POST", LOGIN) == 1


async def test_a_server_that_moved_says_where_before_it_gets_a_password_twice(
    clock: Clock, mocked: aioresponses
) -> None:
    moved = "https://new.example/data/JSESSION"
    mocked.post(LOGIN, status=301, headers={"Location": moved}, repeat=True)

    async with make(clock) as transport:
        with pytest.raises(Refused) as caught:
            await transport.request("GET", "/data/projects")

    assert "https://new.example" in str(caught.value) + caught.value.hint
    assert asked(mocked, "POST", LOGIN) == 1


# --- faults that pass ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_pause_that_the_server_asks_for_is_kept_before_any_request_is_replayed(
    mocked: aioresponses, transport: Transport, clock: Clock, status: int, method: str
) -> None:
    mocked.add(THING, method=method, status=status, headers={"Retry-After": "0.05"})
    mocked.add(THING, method=method, body="one")
    begun = time.monotonic()

    reply = await transport.request(method, "/data/projects", replay=False)

    assert reply.text == "one"
    assert clock.pauses[0] >= 0.05
    assert time.monotonic() - begun >= 0.05


async def test_a_pause_holds_back_every_other_request_too(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.get(THING, status=503, headers={"Retry-After": "0.1"})
    mocked.get(THING, body="one")
    mocked.get(WHO, body="alice")
    await transport.login()
    order: list[str] = []

    async def thing() -> None:
        await transport.request("GET", "/data/projects")
        order.append("thing")

    begun = time.monotonic()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(thing)
        await anyio.sleep(0.03)
        await transport.whoami()
        waited = time.monotonic() - begun
    assert waited >= 0.1


@pytest.mark.parametrize(
    ("header", "after"),
    [
        ("20", 20.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("soon", None),
        ("", None),
        ("1e999", float("inf")),
        ("Mon, 99 Foo 2024 99:99:99 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
async def test_any_retry_after_is_read_or_ignored(
    mocked: aioresponses, clock: Clock, header: str, after: float | None
) -> None:
    mocked.post(LOGIN, body=TOKEN)
    mocked.get(THING, status=503, headers={"Retry-After": header})

    async with make(clock, policy=Backoff(attempts=1)) as transport:
        with pytest.raises(Busy) as caught:
            await transport.request("GET", "/data/projects")

    assert caught.value.after == after


async def test_a_retry_after_may_be_a_date(mocked: aioresponses, clock: Clock) -> None:
    mocked.post(LOGIN, body=TOKEN)
    date = formatdate(time.time() + 100, usegmt=True)
    mocked.get(THING, status=429, headers={"Retry-After": date})

    async with make(clock, policy=Backoff(attempts=1)) as transport:
        with pytest.raises(Busy) as caught:
            await transport.request("GET", "/data/projects")

    assert caught.value.after is not None
    assert 95 < caught.value.after <= 100


async def test_a_server_that_stays_busy_is_given_up(
    mocked: aioresponses, transport: Transport, clock: Clock
) -> None:
    mocked.get(THING, status=503, repeat=True)

    with pytest.raises(Busy, match="site is busy"):
        await transport.request("GET", "/data/projects")

    assert asked(mocked, "GET", THING) == 4
    assert len(clock.pauses) == 3


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_a_fault_of_the_server_is_tried_a_second_time_and_no_more(
    mocked: aioresponses, transport: Transport, status: int
) -> None:
    mocked.get(THING, status=status, repeat=True)

    with pytest.raises(ServerFault):
        await transport.request("GET", "/data/projects")
    assert asked(mocked, "GET", THING) == 2


async def test_a_fault_that_passes_is_not_seen(mocked: aioresponses, transport: Transport) -> None:
    mocked.put(THING, status=502)
    mocked.put(THING, body="one")

    assert (await transport.request("PUT", "/data/projects", body=b"x")).text == "one"


async def test_what_may_have_had_an_effect_is_not_replayed(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.post(THING, status=500, repeat=True)

    with pytest.raises(ServerFault):
        await transport.request("POST", "/data/projects")
    assert asked(mocked, "POST", THING) == 1


async def test_a_caller_may_say_that_a_post_can_be_replayed(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.post(THING, status=500)
    mocked.post(THING, body="one")

    assert (await transport.request("POST", "/data/projects", replay=True)).text == "one"


NOBODY = aiohttp.ClientConnectorError(
    connection_key=aiohttp.client_reqrep.ConnectionKey("x", 443, True, True, None, None, None),
    os_error=OSError(111, "Connection refused"),
)


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (NOBODY, False),
        (aiohttp.ConnectionTimeoutError("connecting took too long"), False),
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientOSError(104, "Connection reset by peer"), True),
        (aiohttp.SocketTimeoutError("nothing was heard"), True),
        (aiohttp.ClientPayloadError("cut"), True),
        (TimeoutError(), True),
    ],
)
async def test_a_broken_connection_is_replayed_where_that_is_safe(
    mocked: aioresponses, transport: Transport, error: Exception, sent: bool
) -> None:
    mocked.get(THING, exception=error)
    mocked.get(THING, body="one")
    assert (await transport.request("GET", "/data/projects")).text == "one"

    mocked.post(THING, exception=error)
    mocked.post(THING, body="two")
    if sent:
        with pytest.raises(Unreachable) as caught:
            await transport.request("POST", "/data/projects")
        assert caught.value.sent
    else:
        assert (await transport.request("POST", "/data/projects")).text == "two"


async def test_a_server_that_cannot_be_reached_says_what_to_check(
    mocked: aioresponses, clock: Clock
) -> None:
    mocked.post(LOGIN, exception=NOBODY, repeat=True)

    async with make(clock) as transport:
        with pytest.raises(Unreachable) as caught:
            await transport.request("GET", "/data/projects")

    assert caught.value.message == "site cannot be reached"
    assert caught.value.why == "Connection refused"
    assert BASE in caught.value.hint
    assert len(clock.pauses) == 3


# --- bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"{cut", b"", b"\xff", b"[" * 5000])
async def test_an_answer_that_is_no_json_is_an_error(
    mocked: aioresponses, transport: Transport, body: bytes
) -> None:
    mocked.get(THING, body=body, content_type="application/json")
    reply = await transport.request("GET", "/data/projects", expect="json")

    with pytest.raises(BadReply):
        reply.json()


async def test_a_body_is_streamed_as_it_comes(mocked: aioresponses, transport: Transport) -> None:
    mocked.get(THING, body=b"x" * 5000, content_type="application/zip")

    async with transport.stream("/data/projects") as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"x" * 5000


async def test_a_login_page_in_the_place_of_a_file_leads_to_a_login(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.get(THING, body=LOGIN_PAGE, content_type="text/html")
    mocked.get(WHO, body="guest")
    mocked.get(THING, body=b"the file", content_type="application/octet-stream")

    async with transport.stream("/data/projects", expect="any") as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"the file"
    assert asked(mocked, "POST", LOGIN) == 2


async def test_a_file_that_is_a_page_is_given_as_it_is(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.get(THING, body=LOGIN_PAGE, content_type="text/html", repeat=True)
    mocked.get(WHO, body="alice")

    async with transport.stream("/data/projects", expect="any") as chunks:
        assert b"".join([chunk async for chunk in chunks]) == LOGIN_PAGE.encode()
    assert asked(mocked, "POST", LOGIN) == 1


async def test_a_stream_that_cannot_be_opened_is_tried_once(
    mocked: aioresponses, transport: Transport
) -> None:
    mocked.get(THING, status=500, repeat=True)

    with pytest.raises(ServerFault):
        async with transport.stream("/data/projects"):
            pass
    assert asked(mocked, "GET", THING) == 1


# --- addresses, words, secrets ---------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "xnat.example", "ftp://xnat.example", "http://", "http://[::1", "https:///x", "//x"],
)
async def test_what_is_no_address_is_said_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="not the address of a server"):
        async with Transport(url, Credentials("a", "b")):
            pass


@pytest.mark.parametrize(
    "url", ["http://x:99999", "http://x:port", "http://exa mple", "http://ü..x"]
)
async def test_an_address_that_no_request_can_use_is_one_of_our_errors(url: str) -> None:
    with pytest.raises(XnatctlError):
        async with Transport(url, Credentials("a", "b"), policy=Backoff(attempts=1)) as transport:
            await transport.request("GET", "/data/projects")


async def test_a_ca_bundle_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("no certificate")
    for bundle in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        with pytest.raises(ConfigError, match="CA bundle"):
            async with Transport(BASE, Credentials("a", "b"), ca_bundle=str(bundle)):
                pass


async def test_no_error_shows_a_credential(mocked: aioresponses, transport: Transport) -> None:
    path = "/data/services/tokens/validate/alias/TOPSECRET"
    params = {"password": "TOPSECRET", "XNAT_CSRF": "TOPSECRET", "q": "kept"}
    mocked.get(re.compile(".*"), status=404)

    with pytest.raises(NotFound) as caught:
        await transport.request("GET", path, params=params)

    words = f"{caught.value} {caught.value!r} {caught.value.hint}"
    assert "TOPSECRET" not in words
    assert "q=kept" in words
    assert SECRET not in repr(transport._credentials)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://alice:pw@x.example/a?b=c#d", "https://x.example/a?b=c"),
        ("https://x/a?password=pw&x=1", "https://x/a?password=***&x=1"),
        ("https://x/a?TOKEN=pw", "https://x/a?TOKEN=***"),
        ("https://x/tokens/validate/alias/pw", "https://x/tokens/validate/alias/***"),
        ("https://x/plain", "https://x/plain"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert redact(url) == shown


@given(st.text(max_size=30))
def test_no_address_is_too_odd_to_be_shown(url: str) -> None:
    redact(url)
    redact(f"https://alice:{SECRET}@x.example/{url}")


@given(st.text("abc[]:@/?#&= ", max_size=20))
def test_what_stands_before_an_at_sign_is_never_shown(host: str) -> None:
    assert "hunter2" not in redact(f"https://alice:hunter2@{host}")


@pytest.mark.parametrize(
    ("params", "query"),
    [
        (None, ""),
        ({}, ""),
        ({"format": "json"}, "?format=json"),
        ({"a": "x y&z=1", "b": "ü"}, "?a=x%20y%26z%3D1&b=%C3%BC"),
        (
            {"xnat:mrSessionData/fields/field[name=c]/field": "A+B"},
            "?xnat:mrSessionData/fields/field[name=c]/field=A%2BB",
        ),
        ({"resource": "/archive/projects/P"}, "?resource=/archive/projects/P"),
    ],
)
def test_keys_stay_as_xnat_looks_them_up_and_values_are_encoded(
    params: dict[str, str] | None, query: str
) -> None:
    assert encode_query(params) == query


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (RESTLET, "The label is already in use & kept"),
        ("<html><head><title>Error  500</title></head><body>x</body></html>", "Error 500"),
        ("plain words\n and more", "plain words and more"),
        ("<h3></h3>", ""),
        ("", ""),
        ("x" * 500, "x" * 199 + "…"),
    ],
)
def test_an_error_page_is_cut_down_to_what_it_says(page: str, words: str) -> None:
    assert first_words(page) == words


@given(st.text(alphabet="<>h3/title &amp;x\n", max_size=60))
def test_words_of_any_page_are_short_and_one_line(page: str) -> None:
    words = first_words(page)

    assert len(words) <= 200
    assert "\n" not in words
