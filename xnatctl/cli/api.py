"""`xnatctl api`: any request to any route, with the login, the retries and the errors of the rest.

A GET below /data gets `format=json` unless it says otherwise or names files: without it XNAT
answers items as pages. A body for `…/files/NAME` gets `inbody=true`, without which XNAT looks for a
form.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_plus, urlsplit

import anyio
import asyncclick as click

from xnatctl.errors import LocalFault, UsageError

from .changes import Change, Consent, carry_out, consent_options, planned
from .group import Group, option
from .options import Function, dry_run_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App

api = Group("api", help="Any request to the server's REST API: get, post, put, delete.")

TYPES = {".json": "application/json", ".xml": "application/xml", ".txt": "text/plain"}
PARAMS = option(
    "--params",
    metavar="NAME=VALUE",
    multiple=True,
    help="A query parameter; servers log these, so no secrets here. May be repeated.",
)


@dataclass(frozen=True, slots=True)
class Request:
    """What goes over the wire: an encoded path with its query, and a body."""

    method: str
    path: str
    body: bytes | None = None
    content_type: str = ""


def body_options(function: Function) -> Function:
    """`-d --file -t`, passed as `data`, `file`, `content_type`."""
    for one in (
        option(
            "-d", "--data", metavar="TEXT", help="The body; - is standard input. $VAR is filled in."
        ),
        option("--file", metavar="FILE", help="A file as the body; - is standard input."),
        option("-f", "old_file", hidden=True),
        option("--content-type", metavar="TYPE", help="What the body is.  [default: guessed]"),
        option("-t", "old_type", hidden=True),
    ):
        function = one(function)
    return function


@api.command("get")
@click.argument("path")
@PARAMS
@option("--out", metavar="FILE", help="Write the answer into a file, whatever it is.")
async def get(app: App, *, path: str, params: tuple[str, ...], out: str | None) -> None:
    """Send a GET request.

    \b
    Examples:
      xnatctl api get /data/projects
      xnatctl api get /data/projects/STUDY/subjects --params columns=ID,label -o csv
      xnatctl api get '/data/experiments/XNAT_E00001/scans/3/files?format=zip' --out scan3.zip
    """
    request = Request("GET", full_path("GET", path, params))
    if out is not None:
        await _save(app, request.path, out)
        return
    async with app.xnat() as xnat:
        reply = await xnat.transport.request("GET", request.path)
    show(app, reply.body, request.path)


@api.command("post")
@click.argument("path")
@PARAMS
@body_options
@dry_run_option
async def post(app: App, *, path: str, params: tuple[str, ...], dry_run: bool, **body: Any) -> int:
    """Send a POST request.

    \b
    Examples:
      xnatctl api post /data/projects --data '{"ID": "NEW"}'
      printf %s "$SECRET" | xnatctl api post /xapi/xsync/credentials -d - -t text/plain
    """
    return await _send(app, "POST", path, params, body, dry_run=dry_run)


@api.command("put")
@click.argument("path")
@PARAMS
@body_options
@dry_run_option
async def put(app: App, *, path: str, params: tuple[str, ...], dry_run: bool, **body: Any) -> int:
    """Send a PUT request.

    \b
    Examples:
      xnatctl api put /data/projects/STUDY/accessibility/protected
      xnatctl api put /data/projects/STUDY/resources/BIDS/files/params.json --file params.json
    """
    return await _send(app, "PUT", path, params, body, dry_run=dry_run)


@api.command("delete")
@click.argument("path")
@PARAMS
@consent_options
async def delete(app: App, *, path: str, params: tuple[str, ...], consent: Consent) -> int:
    """Send a DELETE request.

    \b
    Examples:
      xnatctl api delete /data/projects/STUDY/resources/TMP --yes
    """
    request = Request("DELETE", full_path("DELETE", path, params))
    async with app.xnat() as xnat:

        async def do() -> None:
            await xnat.transport.request("DELETE", request.path, slow=True)

        change = Change("DELETE", request.path, do)
        question = f"Delete {request.path}?"
        return await carry_out(app, [change], question=question, consent=consent)


async def _send(
    app: App,
    method: str,
    path: str,
    params: tuple[str, ...],
    body: Mapping[str, Any],
    *,
    dry_run: bool,
) -> int:
    content, kind = read_body(body, app.environ)
    request = Request(
        method, full_path(method, path, params, has_body=content is not None), content, kind
    )
    if dry_run:
        detail = f"{len(content)} bytes of {kind}" if content is not None else "no body"
        return await planned(app, method, request.path, detail)
    async with app.xnat() as xnat:
        reply = await xnat.transport.request(
            method,
            request.path,
            body=request.body,
            content_type=request.content_type,
            slow=True,
            allow=(301, 303),
        )
    app.console.say(f"[{reply.status}] {method} {request.path}")
    if reply.body:
        show(app, reply.body, request.path)
    return 0


def full_path(method: str, path: str, params: tuple[str, ...], *, has_body: bool = False) -> str:
    """The encoded path with its query. Raises UsageError for an address of somewhere else."""
    parts = urlsplit(path)
    if parts.scheme or parts.netloc:
        raise UsageError(
            f"{path} is an address, not a path",
            why="the server is that of the profile",
            hint=f"xnatctl api {method.lower()} {parts.path or '/data/projects'}",
        )
    if bad := [one for one in params if "=" not in one]:
        raise UsageError(f"--params {bad[0]!r} is not NAME=VALUE")
    pairs = [_pair(unquote_plus(one)) for one in parts.query.split("&") if one]
    pairs += [_pair(one) for one in params]
    names = {name for name, _ in pairs}
    clean = "/" + quote(parts.path.lstrip("/"), safe="/%:@!$&'()*+,;=-._~[]")
    if method == "GET" and clean.startswith("/data/") and "format" not in names:
        pairs += [] if "/files" in clean else [("format", "json")]
    if has_body and re.search(r"/files/.", clean) and "inbody" not in names:
        pairs.append(("inbody", "true"))
    query = "&".join(f"{quote(k, safe=':/[]=,')}={quote(v, safe='/:,')}" for k, v in pairs)
    return f"{clean}?{query}" if query else clean


def _pair(text: str) -> tuple[str, str]:
    """Name and value; an `=` inside brackets belongs to the name (`fields/field[name=x]/field`)."""
    found = re.match(r"((?:[^=\[]|\[[^\]]*\])*)=(.*)", text, re.DOTALL)
    return (found.group(1), found.group(2)) if found else (text, "")


def read_body(given: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[bytes | None, str]:
    """The body and its type. Raises UsageError for two bodies, LocalFault for an unreadable one."""
    data, file = given.get("data"), given.get("file") or given.get("old_file")
    kind = given.get("content_type") or given.get("old_type") or ""
    if data is not None and file is not None:
        raise UsageError("--data and --file exclude each other")
    if data is None and file is None:
        return None, kind
    if "-" in (data, file):
        content = sys.stdin.buffer.read()
    elif file is not None:
        try:
            content = Path(file).expanduser().read_bytes()
        except OSError as error:
            raise LocalFault(f"{file} cannot be read", why=error.strerror or "") from error
        kind = kind or TYPES.get(Path(file).suffix.lower(), "application/octet-stream")
    else:
        content = _filled(str(data), environ).encode()
    return content, kind or ("application/json" if _is_json(content) else "text/plain")


def _filled(text: str, environ: Mapping[str, str]) -> str:
    """`$VAR` and `${VAR}` out of the environment; unknown ones stay as they are."""
    return re.sub(
        r"\$(?:\{(\w+)\}|(\w+))",
        lambda found: environ.get(found.group(1) or found.group(2), found.group()),
        text,
    )


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def show(app: App, body: bytes, path: str) -> None:
    """The answer on stdout: JSON in the chosen format, a table where one was asked for, text as it
    is.
    """
    console = app.console
    try:
        data = json.loads(body)
    except ValueError:
        _show_text(app, body, path)
        return
    rows = _rows(data)
    if rows is not None and not console.is_plain and console.format in ("table", "csv", "tsv"):
        from xnatctl.ui.console import Column

        names = list(dict.fromkeys(name for row in rows for name in row))
        console.rows(rows, [Column(name, name) for name in names], key=names[0] if names else "")
        return
    console.document(data)


def _rows(data: Any) -> list[dict[str, Any]] | None:
    if isinstance(data, dict) and isinstance(data.get("ResultSet"), dict):
        data = data["ResultSet"].get("Result")
    if isinstance(data, list) and all(isinstance(one, dict) for one in data):
        return data
    return None


def _show_text(app: App, body: bytes, path: str) -> None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise UsageError(
            f"the answer of {path} is {len(body)} bytes and no text", hint="add --out FILE"
        ) from None
    if app.console.is_machine:
        app.console.warn(f"the answer of {path} is no JSON and comes as it is")
    app.console.write(text if not text or text.endswith("\n") else text + "\n")


async def _save(app: App, path: str, name: str) -> None:
    """Stream the answer into a part file that takes the name when it is whole."""
    import aiofiles

    out = await anyio.Path(name).expanduser()
    part = out.with_name(f"{out.name}.part")
    try:
        async with (
            app.xnat() as xnat,
            xnat.transport.stream(path, slow=True, expect="any") as chunks,
            aiofiles.open(part, "wb") as file,
        ):
            async for chunk in chunks:
                await file.write(chunk)
            size = await file.tell()
        await part.replace(out)
    except OSError as error:
        raise LocalFault(f"{out} cannot be written", why=error.strerror or "") from error
    finally:
        await part.unlink(missing_ok=True)
    app.console.say(f"{size:,} bytes in {out}")
