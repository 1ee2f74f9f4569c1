"""How a worker process makes the two ends of a run: addresses as plain data, logins of its own.

Nothing secret comes along. A worker looks for credentials as every command does: in its
environment, the login cache, netrc, its own profiles with their `credential_command`, the keychain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from anyio import to_thread

from xnatctl.cluster.wire import MakeSink, Remember
from xnatctl.config import Overrides, Role, Server
from xnatctl.engine.ports import Sink, Source
from xnatctl.errors import ConfigError, Unreachable
from xnatctl.routes import ExportEnds, TransferEnds, open_bundle
from xnatctl.xnat.client import Xnat

from .app import App


@dataclass(frozen=True, slots=True)
class Address:
    """A server without what may not travel. `username` only where it was typed for this command."""

    name: str
    url: str
    role: Role
    username: str | None
    verify_ssl: bool
    ca_bundle: str | None
    timeout: float | None

    @classmethod
    def of(cls, server: Server) -> Address:
        # Beside a typed password the worker has a token, or an account of its own.
        typed = [server.origin.get(name) == "flag" for name in ("username", "password")]
        return cls(
            server.name,
            server.url,
            server.role,
            server.username if typed == [True, False] else None,
            server.verify_ssl,
            server.ca_bundle,
            server.timeout,
        )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Xnat]:
        """A connection from here, with a login that has been tried."""
        app = App()
        app.settings = replace(app.settings, quiet=True)
        flags = Overrides(
            url=self.url,
            username=self.username,
            verify_ssl=self.verify_ssl,
            ca_bundle=self.ca_bundle,
            timeout=self.timeout,
        )
        known = self.name in app.config.profiles
        name = self.name if known or self.role == "source" else None
        async with app.xnat(app.server(name, role=self.role, flags=flags)) as xnat:
            try:
                await xnat.whoami()
            except Unreachable as error:
                error.why = f"{self.url}: {error.why}"
                raise
            yield xnat


@dataclass(frozen=True, slots=True)
class RemoteTransfer:
    """A transfer from a server, or an export on a disk that this machine sees too."""

    ends: TransferEnds
    source: Address | Path
    destination: Address

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Source, MakeSink]]:
        async with self.destination.connected() as there:
            make = partial(self.ends.sink, there)
            if isinstance(self.source, Path):
                bundle = await to_thread.run_sync(open_bundle, self.source)
                if bundle.project != self.ends.selection.ref.project:
                    raise ConfigError(
                        f"{self.source} is an export of {bundle.project} there",
                        hint="the folder must be the same on every machine",
                    )
                yield self.ends.source(bundle), make
                return
            async with self.source.connected() as here:
                yield self.ends.source(here), make


@dataclass(frozen=True, slots=True)
class RemoteExport:
    """An export into a folder that every machine sees: `sign` is a file that lies there."""

    ends: ExportEnds
    source: Address
    sign: Path

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Source, MakeSink]]:
        if not await to_thread.run_sync(self.sign.is_file):
            raise ConfigError(
                f"{self.sign.parent} is another folder there",
                why="a file that was just written into it is missing",
                hint="--out must be one shared folder, under one path on every machine",
            )
        async with self.source.connected() as here:
            yield self.ends.source(here), self._sink

    def _sink(self, remember: Remember) -> Sink:
        return self.ends.sink(remember)
