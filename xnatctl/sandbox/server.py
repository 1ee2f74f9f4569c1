"""The sandbox's web server: a socket, logins, and which part answers which path.

`Sandbox` is the whole thing; `run` serves it until a signal. A request goes

1. to the faults, which may spoil it;
2. through the login (cookie, Basic, anonymous), with XNAT's symptoms of a lost session;
3. to the part that answers its first path segments;
4. back with the session cookies, counted.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import random
import re
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import unquote_plus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from . import archive, faults, importing, prearchive_api, schemas, site, window, xapi
from .accounts import GUEST, Accounts, User
from .archiving import Wish
from .counters import Counters
from .database import SandboxError
from .faults import Fault, Faults, FaultyOutlet, spoils_answer
from .prearchive import Prearchive
from .sending import Outlet
from .settings import Settings
from .store import Item, Store, now
from .web import Call, Refusal, csrf_token, empty, error, parameter, segments, text

BROWSERS = re.compile(r".*(Mozilla|AppleWebKit|MSIE|Opera).*")
LOGIN_PAGE = (
    "<html><head><title>XNAT Login</title></head><body><form name='form1' method='post' "
    "action='/login'><h3>Log in</h3><input name='username'/><input name='password' "
    "type='password'/></form></body></html>"
)
T = TypeVar("T")
_log = logging.getLogger(__name__)
_OPEN = {"JSESSION", "auth", "version"}
_ITEMS = ("projects", "subjects", "experiments")


@dataclass(slots=True)
class Listened:
    """What a progress listener has heard: (status, message), and whose it is."""

    login: str
    session: str
    said: list[tuple[str, str]] = field(default_factory=list)


class Sandbox:
    """An XNAT to practise on, below one folder.

    `await start()` … `await stop()`, or `async with Sandbox(root) as sandbox:`. `url` is where it
    listens (with the context path), `store` its data, `counters` what it has seen.
    """

    def __init__(self, root: Path, *, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.store = Store(
            root, site_id=self.settings.site_id, discard_bodies=self.settings.discard_bodies
        )
        self.accounts = Accounts(self.store, self.settings)
        self.counters = Counters()
        self.faults = Faults()
        self.prearchive = Prearchive(self.store, self.settings)
        self.prearchive.recover()
        self.locks: set[str] = set()
        self.random = random.Random(self.settings.site_id)
        self.creating: set[int] = set()
        self.downloads: dict[str, tuple[str, dict[str, Any]]] = {}
        self.messages: dict[str, Listened] = {}
        self.started = time.time()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.url = ""
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Sandbox:
        if not self.url:
            await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 is any free one. Raises SandboxError when the port is taken."""
        server = web.Server(self._answer, access_log=None, lingering_time=2.0)
        self._runner = web.ServerRunner(server, shutdown_timeout=self.settings.shutdown_s)
        await self._runner.setup()
        site_ = web.TCPSite(self._runner, host, port, backlog=512)
        try:
            await site_.start()
        except OSError as problem:
            await self._runner.cleanup()
            raise SandboxError(
                f"the sandbox cannot listen on {host}:{port}",
                problem.strerror or str(problem),
                "Stop the other program or choose another port",
            ) from problem
        bound = self._runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{bound}{self.settings.context}"
        self.spawn(self._sweeper())

    async def stop(self) -> None:
        """Stop listening, end what is open, close the data."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.url = ""
        self.store.close()

    async def _sweeper(self) -> None:
        while True:
            await asyncio.sleep(self.settings.sweep_s)
            await prearchive_api.sweep(self)

    # ---- what the parts use ---------------------------------------------------------------

    def outlet(self, call: Call, writer: AbstractStreamWriter) -> Outlet:
        """The way to the client's socket for a large answer."""
        return FaultyOutlet(call, writer) if spoils_answer(call) else Outlet(call, writer)

    def short_archive(self, call: Call) -> int:
        """How many members an archive is to lack."""
        return sum(fault.at or 1 for fault in call.faults if fault.kind == "short-archive")

    def workflow(
        self, item: Item, project: str, pipeline: str, status: str, login: str, details: str = ""
    ) -> int:
        """Record a workflow; returns its number."""
        cursor = self.store.db.execute(
            "INSERT INTO workflows(item, project, data_type, pipeline, status, launched, login, "
            "details) VALUES(?,?,?,?,?,?,?,?)",
            (item.code, project, item.xsi, pipeline, status, now(), login, details),
        )
        return int(cursor.lastrowid or 0)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something beside the requests; it is cancelled when the sandbox stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def archived(self, session: Item, project: Item, wish: Wish) -> None:
        """A session has arrived in the archive: its workflows begin."""
        self.workflow(session, project.code, "Transferred", "Complete", wish.login)
        if wish.trigger:
            self.run_workflow(session, project.code, "xnat_tools/AutoRun.xml", wish.login)

    def run_workflow(self, item: Item, project: str, pipeline: str, login: str) -> int:
        """Record a workflow that is complete at once, or after `autorun_s`."""
        status = "Queued" if self.settings.autorun_s else "Complete"
        number = self.workflow(item, project, pipeline, status, login)
        if self.settings.autorun_s:
            self.spawn(self._end_workflow(number))
        return number

    async def _end_workflow(self, number: int) -> None:
        await asyncio.sleep(self.settings.autorun_s)
        self.store.db.execute(
            "UPDATE workflows SET status='Complete' WHERE id=? AND status='Queued'", (number,)
        )

    def script(self, project: str) -> str:
        """The anonymisation script of a project (or of the site, `""`), empty when off."""
        if self.store.setting(project, "anon_enabled", "false") != "true":
            return ""
        return self.store.setting(project, "anon_script")

    def filtered(self, project: str, description: str) -> bool:
        """Whether the series import filters of the site or the project drop a series."""
        for scope in ("", project):
            patterns = self.store.setting(scope, "series_filter").splitlines()
            if any(re.search(pattern, description) for pattern in patterns if pattern):
                return True
        return False

    def listened(self, call: Call, status: str, message: str) -> None:
        """Tell the progress listener that a request names, if it does."""
        if name := call.param("http-session-listener"):
            mine = self.messages.get(name)
            if mine is None or mine.login != call.user.login:
                mine = self.messages[name] = Listened(call.user.login, call.session)
            mine.said.append((status, message))

    # ---- one request ----------------------------------------------------------------------

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        with self.counters.request(request.method) as seen:
            api = "data"
            try:
                path = self._path(request)
                api = path[0] if path else ""
                drawn = self._faults_for(request, path)
                if drawn:
                    await faults.before(self, request, drawn)
                call = self._call(request, path)
                call.faults = drawn
                try:
                    answer = await self._spoiled(call) if drawn else await self._route(call)
                finally:
                    seen.route = call.route or f"/{api}/?"
                    self.counters.received(call.received)
                self.cookies(answer, call.session)
            except Refusal as refusal:
                answer = error(refusal, api=api)
            except ConnectionError:
                raise
            except Exception as problem:
                if request.writer.output_size:
                    raise
                _log.exception("%s %s", request.method, request.raw_path)
                shown = f"Internal Server Error: {type(problem).__name__}"
                answer = error(Refusal(500, shown), api=api)
            seen.status = answer.status
            if isinstance(answer, web.Response) and answer.body is not None:
                self.counters.sent(answer.content_length or 0)
            return answer

    async def _spoiled(self, call: Call) -> web.StreamResponse:
        if any(fault.kind == "login-page" for fault in call.faults):
            return text(LOGIN_PAGE, media="text/html")
        return await faults.after(call, await self._route(faults.as_guest(call)))

    def _faults_for(self, request: web.BaseRequest, path: list[str]) -> list[Fault]:
        if not self.faults.armed() or path[:1] == ["sandbox"]:
            return []
        query = unquote_plus(request.raw_path.partition("?")[2])
        return self.faults.drawn(request.method, "/" + "/".join(path), query)

    def _path(self, request: web.BaseRequest) -> list[str]:
        raw = request.raw_path if request.raw_path.startswith("/") else request.rel_url.raw_path
        context = self.settings.context
        if context:
            if not raw.startswith(context + "/"):
                raise Refusal(404, "The requested resource is not available")
            raw = raw[len(context) :]
        return segments(raw)

    def _call(self, request: web.BaseRequest, path: list[str]) -> Call:
        query = request.raw_path.partition("?")[2].partition("#")[0]
        params = [parameter(pair) for pair in query.split("&") if pair]
        user, session = self._login(request, path)
        return Call(request, self, path, params, user, session)

    def _login(self, request: web.BaseRequest, path: list[str]) -> tuple[User, str]:
        """Who asks, and the session id to answer with; raises the symptom of a lost session."""
        if not self.settings.initialized and path[:1] not in (["setup"], ["sandbox"]):
            raise Refusal(302, "", {"Location": f"{self.settings.context}/setup"})
        ident = request.cookies.get("JSESSIONID", "")
        known = self.accounts.resume(ident) if ident else None
        header = request.headers.get("Authorization", "")
        if header.startswith("Basic "):
            login, password = _basic(header)
            if known is not None and not known.guest and known.login == login:
                return known, ident
            user = self.accounts.check(login, password)
            if user is not None and user.login in self.settings.expired_passwords:
                raise Refusal(403, "Your password has expired")
            fresh = self.accounts.open(user) if user is not None else None
            if user is None or fresh is None:
                raise self._unauthorized()
            return user, fresh
        if known is not None and not known.guest:
            return known, ident
        if self._is_open(path) or not self.settings.require_login:
            return GUEST, ident if known is not None else self.accounts.open_anonymous()
        raise self._lost(request, path)

    @staticmethod
    def _unauthorized() -> Refusal:
        return Refusal(
            401,
            "The request requires user authentication",
            {"WWW-Authenticate": 'Basic realm="XNAT Protected Area"'},
        )

    def _lost(self, request: web.BaseRequest, path: list[str]) -> Refusal:
        """What a request without a living session meets: 401, or 302 for a browser."""
        agent = request.headers.get("User-Agent", "")
        browser = BROWSERS.match(agent) and "XNATDesktopClient" not in agent
        data = path[:1] in (["data"], ["REST"], ["xapi"], ["fs"])
        if data and not browser:
            return self._unauthorized()
        return Refusal(302, "", {"Location": f"{self.settings.context}/app/template/Login.vm"})

    @staticmethod
    def _is_open(path: list[str]) -> bool:
        if path[:1] in (["data"], ["REST"]):
            return (path[1:2] != [] and path[1] in _OPEN) or path[1:3] == ["services", "auth"]
        if path[:2] == ["xapi", "siteConfig"]:
            return True
        return path[:1] in (["app"], ["sandbox"], ["schemas"], ["setup"], [""])

    def cookies(self, answer: web.StreamResponse, session: str) -> None:
        """Set the session's cookies on an answer that has not been begun."""
        if answer.prepared or "Set-Cookie" in answer.headers:
            return
        path = self.settings.context or "/"
        answer.headers.add("Set-Cookie", f"JSESSIONID={session}; Path={path}; HttpOnly")
        millis = int(time.time() * 1000)
        timeout = int(self.settings.session_timeout_s * 1000)
        answer.headers.add(
            "Set-Cookie", f'SESSION_EXPIRATION_TIME="{millis},{timeout}"; Path={path}'
        )

    async def _route(self, call: Call) -> web.StreamResponse:
        path = call.path
        head = path[0] if path else ""
        self._check_csrf(call)
        if head in ("data", "REST"):
            second = path[1] if len(path) > 1 else ""
            if second == "archive" and len(path) > 2 and path[2] not in _ITEMS:
                if path[2] not in ("investigators", "user", "pipelines"):
                    raise Refusal(404, "The server has not found anything matching the request URI")
                del path[1]
            elif second in ("archive", *_ITEMS):
                return await archive.handle(call)
            if second == "prearchive":
                return await prearchive_api.handle(call)
            if path[1:3] == ["services", "import"]:
                call.route = "/data/services/import"
                return await importing.run(call)
            return await site.data(call)
        if head == "xapi":
            return await xapi.handle(call)
        if head == "schemas":
            return schemas.schema([part for part in path[1:] if part])
        if head == "sandbox":
            return await window.handle(call)
        if path[:3] == ["app", "template", "Login.vm"]:
            call.route = "/app/template/Login.vm"
            return text(LOGIN_PAGE, media="text/html")
        if head == "setup":
            return text("<html><body><h3>Set up your XNAT</h3></body></html>", media="text/html")
        if head == "":
            return empty(302)
        raise Refusal(404, "The requested resource is not available")

    @staticmethod
    def _check_csrf(call: Call) -> None:
        agent = call.request.headers.get("User-Agent", "")
        if call.method == "GET" or not BROWSERS.match(agent):
            return
        if "XNATDesktopClient" in agent or "JAVA" in agent:
            return
        if call.param("XNAT_CSRF") != csrf_token(call.session):
            raise Refusal(500, "InvalidCsrfException: CSRF token is missing or wrong")


def _basic(header: str) -> tuple[str, str]:
    """Login and password of a Basic header; empty ones where it is not readable."""
    try:
        decoded = base64.b64decode(header[6:].strip()).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return "", ""
    login, _, password = decoded.partition(":")
    return login, password


async def run(
    root: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    settings: Settings | None = None,
    announce: Callable[[Sandbox], None],
) -> None:
    """Serve until SIGINT or SIGTERM. `announce` is called once, when the sandbox listens.

    Raises SandboxError when the folder or the port cannot be used.
    """
    sandbox = Sandbox(root, settings=settings)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        await sandbox.start(host, port)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        announce(sandbox)
        await ended.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await sandbox.stop()
