"""The only HTTP client: one `Transport` a server. It knows HTTP and XNAT's login, and no route but
that of the login.

What it takes care of, so that nothing above has to:

1. one login, shared by all requests: a cookie from `POST /data/JSESSION`, renewed once for all who
find it expired.
   Expiry looks like 401, a redirect to the login page, or that page with status 200 (XNAT 1.8, by
   User-Agent);
2. replaying requests that are safe to replay, with pauses; a server that answers 429 or 503 pauses
all requests to it; 3. every exception of aiohttp becomes one of ours, with the redacted URL in it;
4. bodies are streamed both ways, and a stall (no byte for `stall` seconds) ends a request.

Redirects are never followed: 301 and 303 mean success on some routes, and credentials must not
travel.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import getproxies

import aiohttp
import anyio
import msgspec
from aiohttp.helpers import get_env_proxy_for_url
from yarl import URL

from xnatctl._version import __version__
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
    SessionLost,
    Unreachable,
    Untrusted,
    XnatctlError,
)
from xnatctl.retry import Backoff, Sleep, is_retryable

log = logging.getLogger("xnatctl.http")

T = TypeVar("T")
Params = Mapping[str, str] | None
Expect = Literal["json", "xml", "text", "binary", "any"]
# A context around each login. It is given the token that is lost, or nothing, and yields one that
# somebody else has got meanwhile, or nothing: then this one logs in.
Turn = Callable[[str], AbstractAsyncContextManager[str]]

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
WHOAMI = "/xapi/users/username"
SMALL_BODY = 64 * 1024
READ_BUFFER = 128 * 1024
ERROR_BODY = 64 * 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `stall` is the longest silence while a body moves or an answer is awaited.

    A zip of stored members is silent while the server computes a checksum over the next member, and
    an archive request while it archives, so `slow_stall` is minutes.
    """

    connect: float = 10.0
    stall: float = 60.0
    slow_stall: float = 660.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to log in. `token` is a JSESSIONID that another process may have obtained."""

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer read whole. The URL is as it was asked: `redact` it before it is shown."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadReply(
                f"{redact(self.url)} did not answer with JSON", why=str(error)
            ) from error


class Transport:
    """A connection to one server, used as an async context."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        name: str = "",
        verify_ssl: bool = True,
        ca_bundle: str = "",
        timeouts: Timeouts | None = None,
        policy: Backoff | None = None,
        on_token: Callable[[str], None] | None = None,
        turn: Turn | None = None,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self.name = name or self.url
        self.username = credentials.username
        self.requests = 0
        self.timeouts = timeouts or Timeouts()
        self._credentials = credentials
        self._policy = policy or Backoff(attempts=5, cap=20.0)
        self._on_token = on_token
        self._turn = turn or _alone
        self._sleep = sleep
        self._verify_ssl = verify_ssl
        self._ca_bundle = ca_bundle
        self._session: aiohttp.ClientSession | None = None
        self._login_lock = anyio.Lock()
        self._generation = 0
        self._is_refused = False
        self._check_lock = anyio.Lock()
        self._checks = self._checked = 0
        self._was_ours = True
        self._paused_until = 0.0

    async def __aenter__(self) -> Transport:
        if not _is_address(self.url):
            raise ConfigError(
                f"{redact(self.url)!r} is not the address of a server",
                hint="give one like https://xnat.example.org",
            )
        jar = aiohttp.CookieJar(unsafe=True, quote_cookie=False)
        if self._credentials.token:
            jar.update_cookies({"JSESSIONID": self._credentials.token}, URL(self.url))
            self._generation = 1
        proxy, proxy_login = _proxy(self.url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, limit_per_host=0, ttl_dns_cache=300, keepalive_timeout=15, ssl=self._ssl()
            ),
            cookie_jar=jar,
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            proxy=proxy,
            proxy_auth=proxy_login,
            headers={"User-Agent": f"xnatctl/{__version__}", "Accept-Encoding": "identity"},
        )
        # aiohttp repeats GET, PUT and DELETE by itself when a kept connection was dropped, which
        # for a streamed body would send what is left of it. Repeating is decided here alone.
        self._session._retry_connection = False
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _ssl(self) -> ssl.SSLContext | bool:
        if not self._verify_ssl:
            return False
        if not self._needs_tls():
            return True
        try:
            context = ssl.create_default_context(cafile=self._ca_bundle or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the CA bundle {self._ca_bundle} cannot be used", why=str(error)
            ) from error
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _needs_tls(self) -> bool:
        """Whether the server, or a proxy on the way to it, is talked to by TLS."""
        return any(url.startswith("https:") for url in (self.url, *getproxies().values()))

    # --- the four ways to talk -----------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params = None,
        body: bytes | None = None,
        content_type: str = "",
        expect: Expect = "any",
        replay: bool | None = None,
        slow: bool = False,
        allow: tuple[int, ...] = (),
    ) -> Reply:
        """Send a request whose body fits in memory, and read the answer whole.

        It is replayed after a failure when `replay` says so (default: GET, HEAD, PUT and DELETE),
        and in any case when nothing had been sent or the server asked for a pause. Statuses in
        `allow` are answers, not errors.
        """
        replay = method in IDEMPOTENT if replay is None else replay
        failed = 0
        while True:
            try:
                return await self._with_login(
                    lambda: self._once(
                        method, path, params, body, content_type, expect, slow, allow
                    )
                )
            except XnatctlError as error:
                failed += 1
                if not self._worth_another(error, method, failed, replay):
                    raise
                pause = self._policy.pause(failed, error)
                log.info("%s %s failed (%s); again in %.1f s", method, path, error, pause)
                await self._sleep(pause)

    @asynccontextmanager
    async def stream(
        self, path: str, *, params: Params = None, slow: bool = False, expect: Expect = "binary"
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """GET a body in chunks as they arrive. One attempt: who consumes it decides on another."""
        response = await self._with_login(
            lambda: self._open_body(path, params=params, slow=slow, expect=expect)
        )
        try:
            yield self._chunks(response)
        finally:
            response.close()

    async def send(
        self,
        method: str,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        params: Params = None,
        length: int | None = None,
        content_type: str = "application/octet-stream",
        slow: bool = False,
        allow: tuple[int, ...] = (),
    ) -> Reply:
        """Send a streamed body, once; chunked unless its `length` is known.

        `Expect: 100-continue` holds a large body back until the server wants it, so that a lost
        login or a refusal costs no bytes. An error raised by `chunks` comes out as it is, and the
        request is left incomplete.
        """
        if self._generation == 0:
            await self._login(0)
        generation = self._generation
        source = _Watched(chunks, self.timeouts.slow_stall if slow else self.timeouts.stall)
        headers = {"Content-Type": content_type}
        if length is not None:
            headers["Content-Length"] = str(length)
        try:
            with source.patience:
                response = await self._open(
                    method,
                    path,
                    params=params,
                    data=source,
                    headers=headers,
                    expect100=length is None or length > SMALL_BODY,
                    slow=slow,
                    expect="any",
                    allow=allow,
                )
                reply = await self._read(response)
            if source.patience.cancelled_caught:
                raise Unreachable(
                    f"{method} {redact(self.url + path)} stalled",
                    why=f"{self.name} took nothing more of the body",
                    sent=True,
                )
        except SessionLost:
            await self._login(generation)
            raise
        except XnatctlError as error:
            if source.failure is not None:
                raise source.failure from error
            if isinstance(error, (NotFound, PermissionDenied)) and not await self._is_ours():
                raise SessionLost(f"the login at {self.name} expired during an upload") from error
            raise
        finally:
            await source.finish()
        if _is_login_page(reply):
            await self._login(generation)
            raise SessionLost(f"the login at {self.name} expired during an upload")
        return reply

    async def whoami(self) -> str:
        """The login name behind our cookie; `guest` or an AuthError means that there is none."""
        reply = await self.request("GET", WHOAMI, expect="text")
        return reply.text.strip().strip('"')

    async def confirm_login(self) -> bool:
        """Whether the cookie is still ours; if not, a new login is made and False returned.

        A site that needs no login answers an expired cookie with a guest's empty lists, so an empty
        list counts only after this.
        """
        return await self._is_ours()

    async def logout(self) -> None:
        """End the server's session; sites limit how many a user may have."""
        await self._once("DELETE", "/data/JSESSION", None, None, "", "any", False, (401, 403, 404))
        self._generation = 0

    # --- login ---------------------------------------------------------------------------------

    async def login(self) -> str:
        """Log in anew and return the JSESSIONID."""
        await self._login(self._generation)
        return self._token()

    async def _with_login(self, call: Callable[[], Awaitable[T]]) -> T:
        if self._generation == 0:
            await self._login(0)
        generation = self._generation
        try:
            return await call()
        except SessionLost:
            await self._login(generation)
        except (NotFound, PermissionDenied):
            # To a guest, which an expired login is on an open site, private things are missing.
            if await self._is_ours():
                raise
        try:
            return await call()
        except SessionLost as error:
            raise AuthError(
                f"{self.name} keeps asking for a login", at=self.url, why=error.message
            ) from error

    async def _is_ours(self) -> bool:
        """Whether the cookie still stands for our user; if not, there is a new one now.

        Who asks while a question is on its way shares the next one: only what was asked after an
        answer had come says something about that answer.
        """
        seen = self._checks
        async with self._check_lock:
            if self._checked > seen:
                return self._was_ours
            self._checks = number = self._checks + 1
            self._was_ours = await self._ask_whose()
            self._checked = number
            return self._was_ours

    async def _ask_whose(self) -> bool:
        if self._generation == 0:
            await self._login(0)
        generation = self._generation
        try:
            reply = await self._once("GET", WHOAMI, None, None, "", "text", False, ())
        except SessionLost:
            await self._login(generation)
            return False
        except XnatctlError:
            return True
        if self._is_me(reply.text):
            return True
        await self._login(generation)
        return False

    def _is_me(self, answer: str) -> bool:
        name = answer.strip().strip('"').lower()
        mine = self.username.rpartition("/")[2].lower()
        return name == mine if mine else name != "guest"

    async def _login(self, seen: int) -> None:
        """Log in unless somebody else did since `seen`."""
        async with self._login_lock:
            if self._generation != seen:
                return
            if self._is_refused:
                # Some twenty failed logins lock an account: the same password is not tried again.
                raise self._refusal()
            if not self._credentials.username:
                raise AuthError(
                    f"the login at {self.name} has expired"
                    if seen
                    else f"no login for {self.name}",
                    at=self.url,
                    hint="xnatctl auth login, or set XNAT_USER and XNAT_PASS",
                )
            assert self._session is not None
            async with self._turn(self._token() if seen else "") as known:
                self._session.cookie_jar.clear()
                if known:
                    self._hold(known)
                else:
                    await self._post_login()
                if self._on_token is not None:
                    self._on_token(self._token())
            self._generation += 1

    async def _post_login(self) -> None:
        basic = aiohttp.encode_basic_auth(
            self._credentials.username, self._credentials.password, "utf-8"
        )
        try:
            response = await self._open(
                "POST",
                "/data/JSESSION",
                headers={"Authorization": basic},
                expect="text",
            )
            token = (await self._read(response)).text.strip()
        except SessionLost as error:
            self._is_refused = True
            raise self._refusal() from error
        if not re.fullmatch(r"[\w.!-]{8,}", token):
            raise BadReply(f"{self.url} does not answer a login like an XNAT server")
        if not self._token():
            self._hold(token)

    def _hold(self, token: str) -> None:
        assert self._session is not None
        self._session.cookie_jar.update_cookies({"JSESSIONID": token}, URL(self.url))

    def _refusal(self) -> AuthError:
        return AuthError(
            f"{self.name} refused the login of {self._credentials.username}",
            at=self.url,
            why="user name or password is wrong, or the account is locked or expired",
        )

    def _token(self) -> str:
        assert self._session is not None
        cookies = self._session.cookie_jar.filter_cookies(URL(self.url + "/data"))
        return cookies["JSESSIONID"].value if "JSESSIONID" in cookies else ""

    # --- one exchange --------------------------------------------------------------------------

    def _worth_another(self, error: XnatctlError, method: str, failed: int, replay: bool) -> bool:
        if failed >= self._policy.attempts or not is_retryable(error):
            return False
        if isinstance(error, Busy):
            return True
        if isinstance(error, Unreachable) and not error.sent:
            return True
        # XNAT answers 500 to permanent faults too: a second try, no more.
        return replay and not (isinstance(error, ServerFault) and failed >= 2)

    async def _once(
        self,
        method: str,
        path: str,
        params: Params,
        body: bytes | None,
        content_type: str,
        expect: Expect,
        slow: bool,
        allow: tuple[int, ...],
    ) -> Reply:
        headers = {"Content-Type": content_type} if content_type else {}
        response = await self._open(
            method,
            path,
            params=params,
            data=body,
            headers=headers,
            slow=slow,
            expect=expect,
            allow=allow,
        )
        reply = await self._read(response)
        if _is_login_page(reply):
            raise SessionLost(f"{self.name} answered with its login page")
        return reply

    async def _open(
        self,
        method: str,
        path: str,
        *,
        params: Params = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        expect100: bool = False,
        slow: bool = False,
        expect: Expect = "any",
        allow: tuple[int, ...] = (),
    ) -> aiohttp.ClientResponse:
        """Send, wait for the head of the answer, and raise what its status means."""
        assert self._session is not None, "the transport is used as a context"
        await self._wait_for_pause()
        url = self.url + path + encode_query(params)
        stall = self.timeouts.slow_stall if slow else self.timeouts.stall
        self.requests += 1
        started = time.monotonic()
        if isinstance(data, _Watched):
            data.wait()
        try:
            response = await self._session.request(
                method,
                URL(url, encoded=True),
                data=data,
                headers=headers,
                expect100=expect100,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self.timeouts.connect, sock_read=stall
                ),
            )
        except Exception as error:
            raise self._map(error, method, url) from error
        if log.isEnabledFor(logging.DEBUG):
            seconds = time.monotonic() - started
            log.debug("%s %s -> %d in %.3f s", method, redact(url), response.status, seconds)
        try:
            await self._raise_for_status(response, method, url, expect, allow)
        except BaseException:
            response.close()
            raise
        return response

    async def _open_body(
        self, path: str, *, params: Params, slow: bool, expect: Expect
    ) -> aiohttp.ClientResponse:
        """Open a body to be streamed. A page may be a file, or the login page in place of it."""
        response = await self._open("GET", path, params=params, slow=slow, expect=expect)
        if response.content_type == "text/html" and not await self._is_ours():
            response.close()
            raise SessionLost(f"{self.name} answered with its login page")
        return response

    async def _raise_for_status(
        self,
        response: aiohttp.ClientResponse,
        method: str,
        url: str,
        expect: Expect,
        allow: tuple[int, ...],
    ) -> None:
        status = response.status
        page = expect in ("json", "xml", "binary") and response.content_type == "text/html"
        if status in allow or (200 <= status < 300 and not page):
            return
        where = f"{method} {redact(url)}"
        if status == 401 or (status in (301, 302, 303, 307) and _to_login(response)):
            raise SessionLost(f"{self.name} asks for a login", status=status)
        if 300 <= status < 400 and status != 304:
            location = redact(response.headers.get("Location", ""))
            raise Refused(
                f"{where} is redirected, which is not followed",
                why=f"HTTP {status} to {location}" if location else f"HTTP {status}",
                hint="if the server has moved, give its new address",
                status=status,
            )
        if 200 <= status < 400:
            if page:
                raise SessionLost(
                    f"{where} answered with a page instead of {expect}", status=status
                )
            return
        why = first_words(await self._some(response))
        why = f"HTTP {status}" + (f", {why}" if why else "")
        if status == 403:
            raise PermissionDenied(f"{self.name} does not allow {where}", why=why, status=status)
        if status == 404:
            raise NotFound(f"{where} found nothing", why=why, status=status)
        if status == 409:
            raise Conflict(f"{where} is in conflict", why=why, status=status)
        if status in (408, 423, 425, 429, 503):
            after = _retry_after(response.headers.get("Retry-After", ""))
            if status in (429, 503) and after is not None:
                self._paused_until = max(
                    self._paused_until,
                    time.monotonic() + min(after, self._policy.longest_after),
                )
            raise Busy(f"{self.name} is busy", why=why, status=status, after=after)
        if status >= 500 and status != 501:
            raise ServerFault(f"{where} failed", why=why, status=status)
        raise Refused(f"{self.name} refused {where}", why=why, status=status)

    async def _read(self, response: aiohttp.ClientResponse) -> Reply:
        url = str(response.url)
        try:
            body = await response.read()
        except Exception as error:
            raise self._map(error, response.method, url) from error
        finally:
            response.release()
        return Reply(response.status, response.headers, body, url)

    async def _some(self, response: aiohttp.ClientResponse) -> str:
        try:
            return (await response.content.read(ERROR_BODY)).decode("utf-8", "replace")
        except (aiohttp.ClientError, OSError, TimeoutError):
            return ""

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except Exception as error:
            raise self._map(error, "GET", redact(str(response.url))) from error

    async def _wait_for_pause(self) -> None:
        while (pause := self._paused_until - time.monotonic()) > 0:
            # A spread of a tenth keeps waiting requests from arriving all at once.
            await self._sleep(pause * (1.0 + 0.1 * self._policy.rng.random()) + 0.001)

    def _map(self, error: Exception, method: str, url: str) -> Exception:
        """One of ours for an exception of aiohttp; others, such as those of a body, stay
        themselves.
        """
        if isinstance(error, XnatctlError):
            return error
        where = f"{method} {redact(url)}"
        why = _reason(error)
        if isinstance(
            error, (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError)
        ):
            return Untrusted(f"the certificate of {self.name} cannot be verified", why=why)
        if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):
            return ConfigError(f"{redact(url)!r} is not a usable address", why=why)
        if isinstance(error, aiohttp.ClientConnectorSSLError) and "WRONG_VERSION" in why:
            hint = f"check that {self.url} speaks TLS, or name it with http://"
            return Untrusted(f"{self.name} does not answer by TLS", why=why, hint=hint)
        if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
            return Unreachable(
                f"{self.name} cannot be reached", why=why, hint=f"check that {self.url} is up"
            )
        if isinstance(error, (aiohttp.ServerTimeoutError, TimeoutError)):
            return Unreachable(f"{where} stalled", why=why, sent=True)
        if isinstance(error, (aiohttp.ClientError, OSError, EOFError)):
            return Unreachable(f"{where} broke off", why=why, sent=True)
        return error


class _Watched:
    """A body under watch, for what aiohttp does not do with one:

    1. it remembers what it failed with; aiohttp says only that the connection closed;
    2. it ends the request when its next chunk is not asked for within `stall` seconds; aiohttp
       watches for silence only after the body;
    3. it is closed when the request has ended; aiohttp's writer, a task of its own, may just be
       waiting for a chunk then.
    """

    def __init__(self, chunks: AsyncIterator[bytes], stall: float) -> None:
        self._chunks = chunks
        self._stall = stall
        self._timer: asyncio.TimerHandle | None = None
        self._until: float | None = None
        self._reading = asyncio.Lock()
        self._reader: asyncio.Task[Any] | None = None
        self._has_ended = False
        self.patience = anyio.CancelScope()
        self.failure: Exception | None = None

    def wait(self) -> None:
        """From now on the other side has to take something."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + self._stall
        if self._timer is None:
            self._timer = loop.call_at(self._until, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all chunks, which goes on for as long as something was taken meanwhile."""
        self._timer = None
        if self._until is None:
            return
        if self._until > loop.time():
            self._timer = loop.call_at(self._until, self._look, loop)
        else:
            self.patience.cancel()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._reader = asyncio.current_task()
        while True:
            self._until = None
            async with self._reading:
                if self._has_ended:
                    # Just to stop would complete the request.
                    raise ConnectionAbortedError("the request has ended")
                try:
                    chunk = await anext(self._chunks)
                except StopAsyncIteration:
                    return
                except Exception as error:
                    self.failure = error
                    raise
            self.wait()
            yield chunk

    async def finish(self) -> None:
        """Close the body, after whoever reads from it has let go of it."""
        self._until = None
        if self._timer is not None:
            self._timer.cancel()
        self._has_ended = True
        if self._reading.locked() and self._reader is not None:
            self._reader.cancel()
        with anyio.CancelScope(shield=True):
            async with self._reading:
                if isinstance(self._chunks, AsyncGenerator):
                    await self._chunks.aclose()


def _proxy(url: str) -> tuple[URL | None, aiohttp.BasicAuth | None]:
    """The proxy that the environment names for this server, found once: aiohttp would look for it
    (and into .netrc, whose logins are not for it to send) on a thread, before every request.
    """
    try:
        return get_env_proxy_for_url(URL(url, encoded=True))
    except (LookupError, UnicodeError):
        return None, None


@asynccontextmanager
async def _alone(lost: str) -> AsyncIterator[str]:
    yield ""


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        URL(url, encoded=True)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def encode_query(params: Params) -> str:
    """A query string. Keys keep `:`, `/`, `[`, `]` and `=`: XNAT looks some of them up as sent."""
    if not params:
        return ""
    pairs = (f"{quote(k, safe=':/[]=,')}={quote(v, safe='/:')}" for k, v in params.items())
    return "?" + "&".join(pairs)


_SECRET = re.compile(r"(?i)((?:password|passwd|secret|token|csrf)=)[^&\s]+")


def redact(url: str) -> str:
    """The URL without anything that could be a credential."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    netloc = parts.netloc.rpartition("@")[2]
    path = re.sub(r"(/tokens/(?:validate|invalidate)/[^/]+/)[^/?]+", r"\1***", parts.path)
    return urlunsplit((parts.scheme, netloc, path, _SECRET.sub(r"\1***", parts.query), ""))


def first_words(text: str, most: int = 200) -> str:
    """What an error page says: its `<h3>` (Restlet's pages), its title, or its first words."""
    from html import unescape  # its table of all entities is for errors alone

    for pattern in (r"(?is)<h3>(.*?)</h3>", r"(?is)<title>(.*?)</title>"):
        if found := re.search(pattern, text):
            text = found.group(1)
            break
    words = " ".join(unescape(re.sub(r"(?s)<[^>]*>", " ", text)).split())
    return words if len(words) <= most else words[: most - 1] + "…"


def _to_login(response: aiohttp.ClientResponse) -> bool:
    location = response.headers.get("Location", "").lower()
    return "login" in location or location.rstrip("/").endswith("/setup")


def _is_login_page(reply: Reply) -> bool:
    head = reply.body[:2048].lstrip().lower()
    return head.startswith((b"<!doctype html", b"<html")) and (
        b"login" in reply.body[:16384].lower() and b"password" in reply.body[:65536].lower()
    )


def _retry_after(value: str) -> float | None:
    """Seconds from a Retry-After header, which is a number or an HTTP date (RFC 9110)."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error is not None:
        # asyncio replaces the words of the system by an address; numbers of TLS are its own.
        number = 0 if isinstance(error.os_error, ssl.SSLError) else error.os_error.errno or 0
        text = os.strerror(number) if number > 0 else error.os_error.strerror or text
    return first_words(text)
