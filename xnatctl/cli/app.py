"""What every command is given: the options that hold everywhere, the configuration, the console,
and the one place that opens connections.

Everything is made when it is first asked for, so a command pays only for what it uses. Heavy
imports stand inside the functions that need them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

from xnatctl.errors import AuthError, UsageError, XnatctlError

if TYPE_CHECKING:
    from pathlib import Path

    import anyio

    from xnatctl.config import Config, Overrides, Role, Server
    from xnatctl.credentials import LoginCache
    from xnatctl.engine.events import Bus
    from xnatctl.transport import Turn
    from xnatctl.ui.console import Console, Format
    from xnatctl.xnat.client import Xnat


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options as they were typed; None or empty where they were not."""

    profile: str | None = None
    output: str | None = None
    quiet: bool = False
    verbose: int = 0
    debug: bool = False
    color: str = "auto"
    no_headers: bool = False
    log_file: str | None = None
    progress: str = "auto"
    events: str | None = None


@dataclass(frozen=True, slots=True)
class Endurance:
    """How much a run puts up with; None where nothing was said. Times in seconds."""

    retries: int | None = None
    max_failures: int | None = None
    deadline: float | None = None
    stall: float | None = None


class App:
    """One invocation of the program."""

    # Seconds between the first signal and cancelling what is in flight, and what closing may take.
    grace_s = 30.0
    closing_s = 5.0

    # Whether nobody else's code runs in this process.
    owns_process = False

    def __init__(
        self, argv: tuple[str, ...] = (), environ: Mapping[str, str] | None = None
    ) -> None:
        self.argv = argv
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self.settings = Settings(debug=bool(self.environ.get("XNATCTL_DEBUG")))
        self.stopping: anyio.Event | None = None
        self.ask_to_stop: Callable[[str, int], None] | None = None
        self.begin_log: Callable[[str], None] | None = None
        self.secrets: set[str] = set()
        self.endurance = Endurance()

    def use(self, config: Config, profile: str) -> None:
        """Go on with another configuration and profile, such as those just written."""
        self.settings = replace(self.settings, profile=profile)
        self.__dict__["config"] = config

    def note_option(self, name: str, value: Any) -> None:
        """A global option was typed. Called by the parser."""
        if name == "no_color":
            name, value = "color", "never"
        self.settings = replace(self.settings, **{name: value})
        self.__dict__.pop("console", None)

    # -- configuration and the terminal -----------------------------------------------------------

    @cached_property
    def console(self) -> Console:
        from xnatctl.ui.console import Console

        settings = self.settings
        return Console(
            environ=self.environ,
            output=cast("Format | None", settings.output),
            quiet=settings.quiet,
            headers=not settings.no_headers,
            color=settings.color,
        )

    @cached_property
    def config(self) -> Config:
        """The configuration; its warnings are said once. Raises ConfigError."""
        from xnatctl import config

        loaded = config.load(environ=self.environ)
        for warning in loaded.warnings:
            self.console.warn(warning)
        if loaded.log_file and self.begin_log is not None:
            self.begin_log(loaded.log_file)
        if loaded.output_format and self.settings.output is None:
            self._adopt_format(loaded.output_format)
        return loaded

    def _adopt_format(self, name: str) -> None:
        from xnatctl.ui.console import FORMATS

        if name not in FORMATS:
            self.console.warn(
                f"{self.config_path}: output_format {name!r} is none of {', '.join(FORMATS)}"
            )
            return
        self.note_option("output", name)

    @property
    def config_path(self) -> Path:
        from xnatctl import config

        return config.path_of(self.environ)

    @cached_property
    def logins(self) -> LoginCache:
        from xnatctl.config import directory
        from xnatctl.credentials import LoginCache

        return LoginCache(directory(self.environ) / ".session")

    # -- servers ----------------------------------------------------------------------------------

    def server(
        self, profile: str | None = None, *, role: Role = "source", flags: Overrides | None = None
    ) -> Server:
        """The server that a command means; `-p` names the source unless `profile` does."""
        from xnatctl.config import Overrides

        if role == "source":
            profile = profile or self.settings.profile
        return self.config.resolve(profile, role=role, flags=flags or Overrides())

    def project(self, given: str | None) -> str:
        """The project of `-P`, else the profile's default. Raises UsageError when there is none."""
        if found := given or self.server().default_project:
            return found
        raise UsageError(
            "no project was named",
            why="neither -P nor the profile's default_project says which",
            hint="add -P PROJECT",
        )

    async def signed_in(self, server: Server) -> Server:
        """The server with whatever login is known: a token, a cached one, a password.

        A password that was named for this command is tried, not passed over for a cached login.
        Raises AuthError when nothing is known.
        """
        from anyio import to_thread

        from xnatctl.credentials import complete

        if server.token is None and server.password is None:
            cached = self.logins.find(server.url, server.username)
            if cached is not None:
                origin = {**server.origin, "token": "session cache"}
                server = replace(
                    server, token=cached.token, username=cached.username, origin=origin
                )
        server = await to_thread.run_sync(complete, server, self.environ, abandon_on_cancel=True)
        self.secrets |= {one for one in (server.password, server.token) if one}
        if server.token or (server.username and server.password is not None):
            return server
        why = f"no {'password' if server.username else 'user name'} is known for it"
        if old := self.logins.latest(server.url, server.username):
            why = f"that of {old.username} ended at {old.expires:%H:%M}, and no password is known"
        kind = "" if server.role == "source" else "DEST_"
        raise AuthError(
            f"no login for {server.name} ({server.url})",
            at=server.url,
            why=why,
            hint=f"xnatctl auth login -p {server.name}, or set XNAT_{kind}USER and XNAT_{kind}PASS",
        )

    @asynccontextmanager
    async def xnat(
        self, server: Server | None = None, *, keep: bool | None = None
    ) -> AsyncIterator[Xnat]:
        """A connection to a server (the current one if None), with a login, until the end of the
        block.

        The login is kept for the next command (`keep`; by default unless its password or token was
        named for this command only), else ended.
        """
        server = await self.signed_in(server or self.server())
        turn = None
        if keep is None:
            keep = not any(self._is_named(server, what) for what in ("password", "token"))
            turn = partial(self._turn, server) if keep else None
        known: list[str] = [server.token] if server.token else []
        given = server.token if self._is_named(server, "token") else None

        def learn(token: str) -> None:
            known.append(token)
            self.secrets.add(token)
            if keep and server.username:
                self.remember(server.url, server.username, token)

        async with self._connection(server, on_token=learn, turn=turn) as xnat:
            try:
                yield xnat
            except AuthError as error:
                if error.at not in ("", server.url):
                    raise  # of another server, inside the block
                self.logins.forget(server.url, server.username)
                known.clear()
                if (place := server.origin.get("password", "")) and place != "flag":
                    error.hint = f"correct what {place} says: it comes before a kept login"
                raise
            finally:
                if known and keep and server.username:
                    self.remember(server.url, server.username, known[-1])
                elif known and known[-1] != given:
                    await self._log_out(xnat)

    @asynccontextmanager
    async def _turn(self, server: Server, lost: str) -> AsyncIterator[str]:
        """One login at a time for all processes: who waited finds that of the one before."""
        async with self.logins.turn():
            kept = self.logins.find(server.url, server.username)
            token = kept.token if kept is not None and kept.token != lost else ""
            self.secrets |= {token} if token else set()
            yield token

    @asynccontextmanager
    async def stranger(self, server: Server) -> AsyncIterator[Xnat]:
        """A connection without a login, for what a server tells anybody."""
        # A cookie that no server knows keeps the transport from logging in first.
        async with self._connection(replace(server, username="", token="none")) as xnat:
            yield xnat

    @asynccontextmanager
    async def _connection(
        self,
        server: Server,
        *,
        on_token: Callable[[str], None] | None = None,
        turn: Turn | None = None,
    ) -> AsyncIterator[Xnat]:
        import anyio

        with _certificates_unread() if self.owns_process else nullcontext():
            from xnatctl.transport import Credentials, Timeouts, Transport
        from xnatctl.xnat.client import Xnat

        if not server.verify_ssl:
            self.console.warn(f"the certificate of {server.url} is not checked")
        stall = self.endurance.stall or server.timeout
        transport = Transport(
            server.url,
            Credentials(server.username or "", server.password or "", server.token or ""),
            name=server.name,
            verify_ssl=server.verify_ssl,
            ca_bundle=server.ca_bundle or "",
            timeouts=Timeouts() if stall is None else Timeouts(stall=stall),
            on_token=on_token,
            turn=turn,
        )
        await transport.__aenter__()
        try:
            yield Xnat(transport)
        finally:
            # Closing takes turns of the loop, which a cancelled command would not be given.
            with anyio.CancelScope(shield=True):
                await transport.__aexit__(None, None, None)

    async def _log_out(self, xnat: Xnat) -> None:
        """End the session at the server, which limits how many a user may have."""
        import anyio

        with anyio.move_on_after(self.closing_s, shield=True):
            try:
                await xnat.transport.logout()
            except XnatctlError as error:
                _log("the session was not ended: %s", error)

    def remember(self, url: str, username: str, token: str) -> None:
        """Keep a login for the next command; a folder that cannot be written costs only that."""
        try:
            self.logins.keep(url=url, username=username, token=token)
        except XnatctlError as error:
            _log("the login was not kept: %s", error)

    @staticmethod
    def _is_named(server: Server, what: str) -> bool:
        place = server.origin.get(what, "")
        return place == "flag" or place.startswith("XNAT_")

    # -- runs -------------------------------------------------------------------------------------

    @contextmanager
    def graceful(self, ask: Callable[[str, int], None]) -> Iterator[None]:
        """While inside, the first Ctrl-C or SIGTERM cancels nothing but calls `ask(why, code)`: no
        new work. What still goes on when grace and closing time are over is cancelled.
        """
        self.ask_to_stop = ask
        try:
            yield
        finally:
            self.ask_to_stop = None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Bus]:
        """The bus of a run with its observers: progress, `--events`, `-o jsonl`."""
        from xnatctl.cli.watch import watching

        async with watching(self) as bus:
            yield bus


@contextmanager
def _certificates_unread() -> Iterator[None]:
    """Inside, nothing reads the certificates of the system.

    aiohttp reads them twice while it is imported, a seventh of the time that a simple command
    takes. The transport reads them itself where it talks by TLS; the contexts that aiohttp made
    here trust nobody. Only for a process that is ours: elsewhere others may rely on them.
    """
    from ssl import SSLContext

    SSLContext.set_default_verify_paths = lambda self: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del SSLContext.set_default_verify_paths  # what it inherits is back


def _log(message: str, *values: object) -> None:
    import logging

    logging.getLogger("xnatctl.cli").info(message, *values)
