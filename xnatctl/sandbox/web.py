"""What a request is to the sandbox, and the shapes of its answers.

`Call` carries one request with who makes it. The reply functions write XNAT's forms: tables of
string cells (`ResultSet`) as JSON, CSV or XML, plain texts, empty bodies, and the HTML page of the
classic API's errors. No rule of XNAT's lives here beyond those of parameters and of escaping.
"""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, unquote_plus
from xml.sax.saxutils import escape as xml_escape

import msgspec
from aiohttp import BodyPartReader, web

from . import documents
from .settings import Settings
from .store import Store

if TYPE_CHECKING:
    from .accounts import Accounts, User
    from .faults import Fault
    from .server import Sandbox

T = TypeVar("T")
_BRACKETED = re.compile(r"([^=]*(?:\[|%5[Bb]).*?(?:\]|%5[Dd])[^=]*)=(.*)$", re.S)
_PIECE = 1 << 18
_FALSE = {"false", "0"}
_ENTITIES = {"'": "&apos;", '"': "&quot;"}


class Refusal(Exception):
    """An answer that ends the handling of a request."""

    def __init__(
        self, status: int, message: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(slots=True)
class Call:
    """One request: where it goes, with which parameters, and who makes it."""

    request: web.BaseRequest
    sandbox: Sandbox
    path: list[str]
    params: list[tuple[str, str]]
    user: User
    session: str
    route: str = ""
    begun: bool = False
    received: int = 0
    notes: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.sandbox.store

    @property
    def settings(self) -> Settings:
        return self.sandbox.settings

    @property
    def accounts(self) -> Accounts:
        return self.sandbox.accounts

    @property
    def method(self) -> str:
        return "GET" if self.request.method == "HEAD" else self.request.method

    @property
    def media(self) -> str:
        """The request's media type without parameters, lower case."""
        return self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def param(self, name: str, default: str = "") -> str:
        """A parameter as it was sent (the first of that name)."""
        return next((value for key, value in self.params if key == name), default)

    def all(self, name: str) -> list[str]:
        """Every value of a parameter."""
        return [value for key, value in self.params if key == name]

    def has(self, name: str) -> bool:
        """Whether a parameter was sent at all."""
        return any(key == name for key, _ in self.params)

    def flag(self, name: str, default: bool = False) -> bool:
        """XNAT's idea of a flag: anything but `false` and `0` counts as true, even nothing."""
        if not self.has(name):
            return default
        return self.param(name).lower() not in _FALSE

    def stored(self, value: str) -> str:
        """A query value as XNAT stores it: XML-escaped."""
        return xml_escape(value, _ENTITIES) if self.settings.escape_query else value

    async def begin(self) -> None:
        """Say `100 Continue` to a client that waits for it. Called before the first read."""
        if self.begun:
            return
        self.begun = True
        if self.request.headers.get("Expect", "").lower() == "100-continue":
            transport = self.request.transport
            if transport is not None:
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The request's body as it arrives. A cut body raises the client's connection error."""
        if self.faults:
            from .faults import incoming

            async for chunk in incoming(self, self._arriving()):
                yield chunk
            return
        async for chunk in self._arriving():
            yield chunk

    async def _arriving(self) -> AsyncIterator[bytes]:
        await self.begin()
        while True:
            chunk = await self.request.content.readany()
            if not chunk:
                return
            self.received += len(chunk)
            yield chunk

    async def body(self, limit: int = 1 << 26) -> bytes:
        """A small body whole (documents, forms); 413 beyond `limit` bytes."""
        out = bytearray()
        async for chunk in self.chunks():
            out += chunk
            if len(out) > limit:
                raise Refusal(413, "the request body is too large")
        return bytes(out)

    async def form(self) -> None:
        """Merge urlencoded body fields into the parameters."""
        if self.media == "application/x-www-form-urlencoded":
            text = (await self.body()).decode("utf-8", "replace")
            self.params += parse_qsl(text, keep_blank_values=True)

    async def json(self, form: type[T]) -> T:
        """The body as JSON of a form; 400 for anything else."""
        try:
            return msgspec.json.decode(await self.body(), type=form)
        except (msgspec.DecodeError, msgspec.ValidationError) as problem:
            raise Refusal(400, f"The body is not what is expected: {problem}") from problem

    async def parts(self) -> AsyncIterator[BodyPartReader]:
        """The parts of a multipart body; 400 for what is none."""
        await self.begin()
        try:
            async for part in await self.request.multipart():
                if isinstance(part, BodyPartReader):
                    yield part
        except (ValueError, AssertionError) as problem:
            raise Refusal(400, f"The multipart body cannot be read: {problem}") from problem

    async def document(self) -> Any:
        """The XML document of a request, or None where XNAT sees no body.

        Only an entity of known size counts: a chunked XML body is treated as absent. Malformed
        XML is 422.
        """
        length = self.request.content_length
        wanted = (
            self.media in ("text/xml", "application/xml")
            or self.param("req_format") == "xml"
            or self.flag("inbody")
        )
        if self.media == "multipart/form-data":
            data = await self._xml_part()
        elif wanted and length:
            data = await self.body()
        else:
            if self.param("req_format") == "form":
                await self.form()
            return None
        if data is None:
            return None
        try:
            return documents.parse(data)
        except documents.BadXml as error:
            raise Refusal(422, f"unable to parse the document: {error}") from error

    async def _xml_part(self) -> bytes | None:
        found = None
        async for part in self.parts():
            if (part.filename or "").endswith(".xml"):
                found = bytes(await part.read())
            else:
                value = bytes(await part.read()).decode("utf-8", "replace")
                self.params.append((part.name or "", value))
        return found


def parameter(pair: str) -> tuple[str, str]:
    """Key and value of a query's part; an equals sign inside brackets belongs to the key.

    `fields/field[name=cohort]/field=A` is sent literally by some clients, encoded by others.
    """
    match = _BRACKETED.match(pair)
    key, value = match.groups() if match else pair.partition("=")[::2]
    return unquote_plus(key), unquote_plus(value)


def segments(raw_path: str) -> list[str]:
    """The decoded segments of a request path.

    Tomcat refuses encoded slashes with 400 (not in the query) and cuts `;…` off each segment.
    """
    path = raw_path.partition("?")[0]
    if "%2f" in path.lower() or "%5c" in path.lower():
        raise Refusal(400, "Invalid URI: encoded slashes are not allowed")
    parts = path.split("/")
    return [unquote(part.partition(";")[0]) for part in parts[1:]]


def text(body: str, status: int = 200, media: str = "text/plain", **headers: str) -> web.Response:
    """A text answer."""
    return web.Response(
        text=body, status=status, content_type=media, headers=headers, charset="utf-8"
    )


def empty(status: int = 200) -> web.Response:
    """An empty text/plain answer."""
    return web.Response(status=status, body=b"", content_type="text/plain")


def json(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


def error(refusal: Refusal, *, api: str) -> web.Response:
    """A refusal as its API words it: an HTML page below /data, else plain text."""
    if api in ("xapi", "sandbox"):
        response = text(refusal.message, refusal.status)
    else:
        reason = escape(refusal.message)
        response = text(
            f"<html>\n<head>\n   <title>Status page</title>\n</head>\n<body>\n<h3>{reason}</h3>\n"
            f"<p>You can get technical details <a href=\"http://www.w3.org\">here</a>.</p>\n"
            "</body>\n</html>\n",
            refusal.status,
            "text/html",
        )  # fmt: skip
    response.headers.update(refusal.headers)
    return response


def table(
    call: Call,
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    *,
    title: str = "",
    described: bool = False,
    counted: bool = True,
) -> web.Response:
    """A `ResultSet` in the format asked for: JSON (also when nothing is said), CSV or XML.

    Every cell is a string and None is empty. `described` adds `Columns` (with the server root of
    URI columns) and `title`; `counted` adds `totalRecords` as a string.
    """
    wanted = _form(call)
    if wanted == "csv":
        return text(_csv(columns, rows), media="text/csv")
    if wanted == "xml":
        return text(_xml(columns, rows), media="text/xml")
    if wanted == "html":
        return text(_html(columns, rows), media="text/html")
    tail: dict[str, Any] = {}
    if described:
        root = call.settings.context
        tail["title"] = title
        tail["Columns"] = [
            {"key": name, "serverRoot": root} if name == "URI" else {"key": name}
            for name in columns
        ]
    pieces = _json_pieces(columns, rows, tail, counted=counted)
    body = next(pieces)
    second = next(pieces, None)
    if second is None:
        return web.Response(body=body, content_type="application/json")
    if call.faults:
        return web.Response(body=b"".join((body, second, *pieces)), content_type="application/json")
    return web.Response(
        body=_sent(call, itertools.chain((body, second), pieces)), content_type="application/json"
    )


def _form(call: Call) -> str:
    """The form of a table: what `format` says, else the first known media type of Accept."""
    asked = call.param("format").lower() or call.request.headers.get("Accept", "").lower()
    for token in asked.split(","):
        name = token.partition(";")[0].strip().rpartition("/")[2]
        if name in ("json", "csv", "xml", "html", "*"):
            return name
    return "json"


def _json_pieces(
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    tail: dict[str, Any],
    *,
    counted: bool,
) -> Iterator[bytes]:
    """The JSON of a table in pieces of a quarter of a MiB, so that long ones need no memory."""
    encode = msgspec.json.encode
    out = bytearray(b'{"ResultSet":{"Result":[')
    count = 0
    for count, row in enumerate(rows, 1):
        cells = {name: "" if (cell := row.get(name)) is None else str(cell) for name in columns}
        out += encode(cells) if count == 1 else b"," + encode(cells)
        if len(out) >= _PIECE:
            yield bytes(out)
            out.clear()
    if counted:
        tail = {**tail, "totalRecords": str(count)}
    out += b"]" + (b"," + encode(tail)[1:-1] if tail else b"") + b"}}"
    yield bytes(out)


async def _sent(call: Call, pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        call.sandbox.counters.sent(len(piece))
        yield piece


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    out.write(",".join(columns) + "\n")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for row in rows:
        writer.writerow(["" if row.get(name) is None else row.get(name) for name in columns])
    return out.getvalue()


def _xml(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    def cells(row: Mapping[str, Any]) -> str:
        return "".join(
            f"<cell>{xml_escape('' if row.get(n) is None else str(row.get(n)))}</cell>"
            for n in columns
        )

    listed = [f"<row>{cells(row)}</row>" for row in rows]
    head = "".join(f"<column>{xml_escape(name)}</column>" for name in columns)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ResultSet totalRecords="{len(listed)}">'
        f"<results><columns>{head}</columns><rows>{''.join(listed)}</rows></results></ResultSet>"
    )


def _html(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(row.get(n) or ''))}</td>" for n in columns) + "</tr>"
        for row in rows
    )
    return f"<html><body><table><tr>{head}</tr>{body}</table></body></html>"


def csrf_token(session: str) -> str:
    """The CSRF token of a session."""
    return session[::-1].lower()


async def pause(seconds: float) -> None:
    """Wait, unless there is nothing to wait for."""
    if seconds > 0:
        await asyncio.sleep(seconds)
