"""`--cluster`: where units are run, beside this process.

Workers of this machine find the credentials that we found. Only what was typed for this command
they cannot find: for that the server issues an alias token, which they get through their
environment, and which is revoked at the end.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio

from xnatctl.errors import UsageError, XnatctlError, words

from .group import option
from .options import TRANSFER, Function

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.cluster.coordinator import Coordinator
    from xnatctl.cluster.crew import Crew, Spec
    from xnatctl.config import Server
    from xnatctl.engine.pace import Pace
    from xnatctl.routes import Desk, ExportEnds, TransferEnds
    from xnatctl.xnat.client import Xnat


def cluster_option(function: Function) -> Function:
    """`--cluster`, passed as `cluster: Spec | None`."""
    return option(
        "--cluster",
        metavar="WHERE",
        group=TRANSFER,
        callback=_parsed,
        help="Use other processes too: local:4, tcp://SCHEDULER:8786 or slurm:FILE.yaml.",
    )(function)


def _parsed(ctx: Any, param: Any, value: str | None) -> Spec | None:
    if value is None:
        return None
    from xnatctl.cluster.crew import parse_spec

    return parse_spec(value)


def fewest(spec: Spec | None) -> int:
    """A bound that leaves something to do for each worker."""
    return 2 * spec.expected if spec is not None else 0


@dataclass(slots=True)
class Hands:
    """Workers, and where they find the ends: servers, the export that is read, or written."""

    crew: Crew
    servers: Sequence[Server]
    folder: Path | None = None
    sign: Path | None = field(default=None, init=False)

    def dispatcher(self, ends: TransferEnds | ExportEnds, pace: Pace | None) -> Coordinator:
        from xnatctl.routes import TransferEnds

        from .remote import Address, RemoteExport, RemoteTransfer

        *first, last = [Address.of(server) for server in self.servers]
        if isinstance(ends, TransferEnds):
            source = self.folder.absolute() if self.folder is not None else first[0]
            return self.crew.dispatcher(RemoteTransfer(ends, source, last), pace)
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sign = self.folder.absolute() / f".xnatctl-{uuid4().hex[:16]}.part"
        self.sign.touch()
        return self.crew.dispatcher(RemoteExport(ends, last, self.sign), pace)


@asynccontextmanager
async def helped(
    app: App,
    spec: Spec | None,
    work: Desk,
    *ends: tuple[Server, Xnat],
    folder: Path | None = None,
) -> AsyncIterator[Desk]:
    """The desk with the workers of `--cluster`, if any; `ends` are servers with our connections."""
    if spec is None or work.options.dry_run:
        yield work
        return
    from xnatctl.cluster.crew import QUEUES, SECRET, open_crew

    async with AsyncExitStack() as stack:
        environ = {name: one for name, one in app.environ.items() if os.environ.get(name) != one}
        if spec.is_local:
            for server, xnat in ends:
                if server.origin.get("password") == "flag":
                    environ |= await stack.enter_async_context(_alias(app, server, xnat))
        elif spec.kind in QUEUES and (hidden := sorted(SECRET & app.environ.keys())):
            app.console.warn(
                f"{', '.join(hidden)} stay here: batch systems store what jobs are given; the jobs "
                "log in by `xnatctl auth login`, netrc or a profile with credential_command"
            )
        crew = await stack.enter_async_context(
            open_crew(spec, slots=work.options.workers, environ=environ)
        )
        hands = Hands(crew, [server for server, _ in ends], folder)
        try:
            yield replace(work, hands=hands)
        finally:
            if hands.sign is not None:
                hands.sign.unlink(missing_ok=True)


@asynccontextmanager
async def _alias(app: App, server: Server, xnat: Xnat) -> AsyncIterator[dict[str, str]]:
    """Variables with a login that is good until the end of the block."""
    from xnatctl.xnat.admin import Admin

    admin = Admin(xnat)
    try:
        token = await admin.issue_token()
    except XnatctlError as error:
        raise UsageError(
            f"local workers cannot log in to {server.name} with a password that was typed",
            why=f"it issues no token: {words(error)}",
            hint="set the variables XNAT_PASS and XNAT_DEST_PASS, or use a profile",
        ) from error
    alias, secret = str(token["alias"]), str(token["secret"])
    app.secrets.add(secret)
    prefix = "XNAT_" if server.role == "source" else "XNAT_DEST_"
    try:
        yield {f"{prefix}USER": alias, f"{prefix}PASS": secret}
    finally:
        with anyio.move_on_after(app.closing_s, shield=True):
            try:
                await admin.revoke_token(alias)
            except XnatctlError as error:
                app.console.warn(f"the token {alias} at {server.name} was not revoked: {error}")
