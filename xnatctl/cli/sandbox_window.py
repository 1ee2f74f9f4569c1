"""`xnatctl sandbox fault|inspect`: what a running sandbox holds, and what shall go wrong in it.

These speak HTTP like everything else: the sandbox can be another process or another machine.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import NotFound, UsageError

from .group import Group, command, option
from .options import CONNECTION, list_options

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.client import Xnat

fault = Group("fault", help="Faults of a running sandbox: add, list and clear them.")

FAULTS = "/sandbox/faults"

url_option = option(
    "--url",
    metavar="URL",
    group=CONNECTION,
    help="Address of the sandbox; it asks for no login.  [default: the server of the profile]",
)


@fault.command("add")
@click.argument("match", metavar="'METHOD PATH'")
@click.argument("kind")
@option("--nth", type=int, help="Which matching request, counted from 1; 0 means by chance.")
@option("--times", type=int, help="How many from there on; 0 means all.")
@option("--probability", type=float, help="With --nth 0: how likely each is met.")
@option("--at", type=int, metavar="BYTES", help="Where in the body.")
@option("--seconds", type=float, help="How long a pause, or Retry-After.")
@option("--rate", type=int, metavar="BYTES", help="Bytes a second, or a piece.")
@option("--status", type=int, help="The HTTP status to answer.")
@url_option
async def add(app: App, *, match: str, kind: str, url: str | None, **values: Any) -> None:
    """Let something go wrong: requests that match meet the fault.

    PATH has wildcards, such as 'GET */files*'. `sandbox fault kinds` tells what there is.

    \b
    Examples:
      xnatctl sandbox fault add 'GET */files*' cut --nth 1 --at 4096
      xnatctl sandbox fault add 'PUT */files/*' status --status 503 --nth 0 --probability 0.1
    """
    given = {name: value for name, value in values.items() if value is not None}
    async with _sandbox(app, url) as xnat:
        reply = await xnat.transport.request(
            "POST",
            FAULTS,
            body=json.dumps({"match": match, "kind": kind, **given}).encode(),
            content_type="application/json",
            allow=(400,),
        )
        if reply.status == 400:
            raise UsageError("the sandbox took no fault", why=reply.text.strip())
        ids = reply.json()["ids"]
        armed = (await xnat.transport.request("GET", FAULTS, expect="json")).json()
    app.console.record(next(one for one in armed if one["id"] in ids), titles={"id": "ID"})


@fault.command("list")
@url_option
@list_options
async def list_(app: App, *, url: str | None, shape: Shape) -> None:
    """List the faults of the sandbox with how often each was met.

    \b
    Examples:
      xnatctl sandbox fault list --url http://127.0.0.1:8095
    """
    from xnatctl.ui.console import Column

    async with _sandbox(app, url) as xnat:
        rows = (await xnat.transport.request("GET", FAULTS, expect="json")).json()
    names = ("id", "match", "kind", "nth", "times", "seen", "fired")
    app.console.rows(rows, [Column(name) for name in names], shape=shape)


@fault.command("clear")
@click.argument("number", metavar="[ID]", required=False)
@url_option
async def clear(app: App, *, number: str | None, url: str | None) -> None:
    """Take one fault away, or all.

    \b
    Examples:
      xnatctl sandbox fault clear
    """
    async with _sandbox(app, url) as xnat:
        armed = (await xnat.transport.request("GET", FAULTS, expect="json")).json()
        path = f"{FAULTS}/{number}" if number else FAULTS
        await xnat.transport.request("DELETE", path)
    for one in armed:
        if str(one["id"]) == (number or str(one["id"])) and not one["fired"]:
            met = f"met {one['seen']} requests, and spoiled none" if one["seen"] else "met nothing"
            app.console.warn(f"fault {one['id']} ({one['match']}) {met}")
    app.console.say(f"fault {number} is gone" if number else "no faults are left")


@fault.command("kinds")
@url_option
@list_options
async def kinds(app: App, *, url: str | None, shape: Shape) -> None:
    """List the kinds of faults and what each does.

    \b
    Examples:
      xnatctl sandbox fault kinds
    """
    from xnatctl.ui.console import Column

    async with _sandbox(app, url) as xnat:
        found = (await xnat.transport.request("GET", f"{FAULTS}/kinds", expect="json")).json()
    rows = [{"kind": name, "effect": words} for name, words in found.items()]
    app.console.rows(rows, [Column("kind"), Column("effect")], key="kind", shape=shape)


@command("inspect")
@option("-P", "--project", metavar="PROJECT", help="One project alone.")
@option("--counters", is_flag=True, help="The requests that it has answered, instead.")
@url_option
async def inspect(app: App, *, project: str | None, counters: bool, url: str | None) -> None:
    """Print all that a running sandbox holds, as JSON: items, files, digests.

    \b
    Examples:
      xnatctl sandbox inspect -P DEMO > before.json
      xnatctl sandbox inspect --url http://127.0.0.1:8095 --counters
    """
    path = "/sandbox/counters" if counters else "/sandbox/inspect"
    params = {"project": project} if project else None
    async with _sandbox(app, url) as xnat:
        reply = await xnat.transport.request("GET", path, params=params, expect="json")
    app.console.document(reply.json())


@asynccontextmanager
async def _sandbox(app: App, url: str | None) -> AsyncIterator[Xnat]:
    """The server, which has to be a sandbox. Raises NotFound for a real one."""
    from xnatctl.config import Server, check_url

    server = Server(url, check_url(url, "--url")) if url else app.server()
    async with app.stranger(server) as xnat:
        try:
            yield xnat
        except NotFound as error:
            raise NotFound(
                f"{server.url} has nothing there",
                why=f"either it is no sandbox, or {error.why or error.message}",
                hint="xnatctl sandbox serve",
            ) from error
