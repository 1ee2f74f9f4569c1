"""A sandbox a test, and a small client that hides nothing of the protocol."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings


def basic(login: str, password: str) -> dict[str, str]:
    """The Authorization header of a login."""
    return {"Authorization": "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer read whole."""

    status: int
    headers: Any
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of a ResultSet."""
        found: list[dict[str, str]] = self.json()["ResultSet"]["Result"]
        return found

    @property
    def names(self) -> list[str]:
        """The members of a zip, which is tested while it is read."""
        with zipfile.ZipFile(io.BytesIO(self.body)) as archive:
            assert archive.testzip() is None
            return archive.namelist()


class Client:
    """Requests to one sandbox as one user; redirects are not followed."""

    def __init__(self, sandbox: Sandbox, login: str = "admin", password: str = "") -> None:
        self.sandbox = sandbox
        self.login = login
        headers = basic(login, password or login) if login else {}
        self.http = aiohttp.ClientSession(
            headers={"User-Agent": "sandbox-tests", **headers},
            cookie_jar=aiohttp.CookieJar(unsafe=True),
        )

    async def __call__(
        self,
        line: str,
        data: Any = None,
        *,
        kind: str = "",
        headers: dict[str, str] | None = None,
        chunked: bool = False,
    ) -> Answer:
        """`await client("PUT /data/projects/P?name=x", body, kind="text/xml")`."""
        method, _, path = line.partition(" ")
        data = io.BytesIO(data) if isinstance(data, bytes) else data
        sent = {"Content-Type": kind, **(headers or {})} if kind else dict(headers or {})
        url = URL(self.sandbox.url + path, encoded=True)
        async with self.http.request(
            method, url, data=data, headers=sent, allow_redirects=False, chunked=chunked or None
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def put(self, path: str, data: bytes, query: str = "", *, kind: str = "") -> Answer:
        """Upload a file in-body."""
        mark = "&" if query else ""
        return await self(
            f"PUT {path}?inbody=true{mark}{query}",
            data,
            kind=kind or "application/octet-stream",
        )

    async def names(self, path: str) -> list[str]:
        """The paths of a files listing, sorted."""
        return sorted(row["URI"].split("/files/", 1)[1] for row in (await self(f"GET {path}")).rows)

    async def close(self) -> None:
        await self.http.close()


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start sandboxes: `client = await start(require_login=False)`; stopped by themselves."""
    opened: list[Client] = []

    async def begin(login: str = "admin", *, root: str = "root", **settings: Any) -> Client:
        settings.setdefault("sweep_s", 3600.0)
        sandbox = Sandbox(tmp_path / root, settings=Settings(**settings))
        await sandbox.start()
        opened.append(Client(sandbox, login))
        return opened[-1]

    yield begin
    for client in opened:
        await client.close()
        await client.sandbox.stop()


@pytest.fixture
async def xnat(start: Start) -> Client:
    """An administrator's client of a fresh sandbox with project P, subject S, session E, scan 3."""
    client: Client = await start(users={"admin": "admin", "alice": "alice", "bob": "bob"})
    await fill(client)
    return client


@pytest.fixture
async def alice(xnat: Client) -> AsyncIterator[Client]:
    """Another user of the same sandbox, without any role."""
    client = Client(xnat.sandbox, "alice")
    yield client
    await client.close()


SESSION = "/data/projects/P/subjects/S/experiments/E"


async def fill(client: Client) -> None:
    """Project P (prearchive code 0), subject S, MR session E, scan 3 with a resource DICOM."""
    for line in (
        "PUT /data/projects/P",
        "PUT /data/projects/P/prearchive_code/0",
        "PUT /data/projects/P/subjects/S",
        f"PUT {SESSION}?xsiType=xnat:mrSessionData&date=2024-02-28",
        f"PUT {SESSION}/scans/3?xsiType=xnat:mrScanData&type=T1w&quality=usable",
        f"PUT {SESSION}/scans/3/resources/DICOM?format=DICOM&content=RAW",
    ):
        assert (await client(line)).status in (200, 201), line


def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()
