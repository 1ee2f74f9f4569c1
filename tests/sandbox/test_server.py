"""The sandbox as a whole: starting, stopping, restarting, scale, and what it may import."""

from __future__ import annotations

import ast
import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

import xnatctl.sandbox
from xnatctl.sandbox.bodies import Generated
from xnatctl.sandbox.database import SandboxError
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings
from xnatctl.sandbox.store import Store

from .conftest import SESSION, Client, Start, basic, fill

HERE = Path(xnatctl.sandbox.__file__).parent


@pytest.mark.parametrize("path", sorted(HERE.glob("*.py")), ids=lambda path: path.name)
def test_the_sandbox_imports_nothing_else_of_the_package(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"{path.name}:{node.lineno} leaves the sandbox"
            names = [node.module or ""] if node.level == 0 else []
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not [name for name in names if name.startswith("xnatctl")], f"{path.name}: {names}"


async def test_starting_and_stopping_an_empty_sandbox_is_quick(tmp_path: Path) -> None:
    began = time.perf_counter()
    for number in range(5):
        async with Sandbox(tmp_path / str(number)) as sandbox:
            assert sandbox.url.startswith("http://127.0.0.1:")
    assert time.perf_counter() - began < 1.5


async def test_a_restart_keeps_everything_but_the_logins(start: Start) -> None:
    first = await start()
    await fill(first)
    await first.put(f"{SESSION}/scans/3/resources/DICOM/files/a", b"abc")
    session = (await first("POST /data/JSESSION")).text
    await first.sandbox.stop()
    second = await start()
    assert (await second(f"GET {SESSION}/scans/3/resources/DICOM/files/a")).body == b"abc"
    assert (await second("GET /data/projects/P/prearchive_code")).text == "0"
    anonymous = Client(second.sandbox, "")
    answer = await anonymous("GET /data/projects", headers={"Cookie": f"JSESSIONID={session}"})
    assert answer.status == 401
    await anonymous.close()


async def test_a_port_in_use_is_said_in_a_sentence(tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "a") as first:
        second = Sandbox(tmp_path / "b")
        with pytest.raises(SandboxError, match="cannot listen on") as caught:
            await second.start(port=int(first.url.rpartition(":")[2]))
        assert "another port" in caught.value.fix
        second.store.close()


def test_a_folder_that_is_a_file_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SandboxError, match="cannot be used"):
        Store(tmp_path / "file")


def test_a_damaged_folder_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "sandbox.db").write_bytes(b"this is not a database " * 100)
    with pytest.raises(SandboxError, match="is damaged"):
        Store(tmp_path)


def test_data_of_another_version_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.db.execute("UPDATE meta SET value='99' WHERE key='version'")
    store.close()
    with pytest.raises(SandboxError, match="version 99"):
        Store(tmp_path)


async def test_a_context_path_is_part_of_every_address_but_not_of_answers(start: Start) -> None:
    client = await start(context="/xnat")
    await fill(client)
    assert client.sandbox.url.endswith("/xnat")
    row = (await client("GET /data/projects/P/subjects")).rows[0]
    assert row["URI"].startswith("/data/subjects/")
    files = (await client(f"GET {SESSION}/files")).json()["ResultSet"]
    assert {"key": "URI", "serverRoot": "/xnat"} in files["Columns"]


async def test_a_client_may_wait_for_leave_to_send(xnat: Client) -> None:
    path = f"{SESSION}/scans/3/resources/DICOM/files/a"
    url = f"{xnat.sandbox.url}{path}?inbody=true"
    async with xnat.http.put(url, data=b"abc", expect100=True) as answer:
        assert answer.status == 200
    assert (await xnat(f"GET {path}")).body == b"abc"


async def test_a_proxy_limit_refuses_large_bodies_with_413(start: Start) -> None:
    client = await start(max_body=10)
    await fill(client)
    path = f"{SESSION}/scans/3/resources/DICOM/files"
    assert (await client.put(f"{path}/a", b"1" * 11)).status == 413
    assert (await client.put(f"{path}/b", b"1" * 10)).status == 200


# ---- scale ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 sessions and 20,000 files."""
    root = tmp_path_factory.mktemp("crowd")
    store = Store(root)
    with store.transaction():
        project = store.create_project("BIG")
        for number in range(30):
            subject = store.create_subject(project, f"S{number}")
            for visit in range(100):
                session = store.create_experiment(
                    subject, f"S{number}_{visit}", fields={"date": "2024-01-01"}
                )
        resource = store.create_resource(session, "MANY")
        store.add_generated(
            resource, [(f"{i // 100}/{i}.bin", Generated(1000, i % 256)) for i in range(20_000)]
        )
    store.close()
    return root


async def test_thousands_of_sessions_and_files_are_listed_quickly(crowd: Path) -> None:
    async with Sandbox(crowd) as sandbox:
        client = Client(sandbox)
        began = time.perf_counter()
        rows = (await client("GET /data/projects/BIG/experiments?columns=ID,label,date")).rows
        assert len(rows) == 3000 and rows[0]["date"] == "2024-01-01"
        path = "/data/projects/BIG/subjects/S29/experiments/S29_99/files?all=true"
        assert len((await client(f"GET {path}")).rows) == 20_000
        assert time.perf_counter() - began < 4
        await client.close()


async def test_sixty_four_requests_at_once_are_answered(crowd: Path) -> None:
    async with Sandbox(crowd) as sandbox:
        client = Client(sandbox)
        path = "/data/projects/BIG/subjects/S29/experiments/S29_99/resources/MANY/files"
        answers = await asyncio.gather(
            *(client(f"GET {path}/{i // 100}/{i}.bin") for i in range(64))
        )
        assert {(answer.status, len(answer.body)) for answer in answers} == {(200, 1000)}
        await client.close()


SERVE = """
import asyncio, sys
from pathlib import Path
from xnatctl.sandbox.server import run
asyncio.run(run(Path(sys.argv[1]), announce=lambda s: print(s.url, flush=True)))
"""


def memory_peak(pid: int) -> int:
    """The largest resident size of a process so far, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_moves_large_bodies_in_little_memory_and_ends_on_SIGTERM(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    project = store.create_project("P")
    resource = store.create_resource(project, "R")
    store.add_generated(resource, [(f"{i}", Generated(100_000_000, i)) for i in range(3)])
    store.close()
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        asyncio.run(_move_much(url))
        assert memory_peak(server.pid) < 150_000_000
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0


async def _move_much(url: str) -> None:
    base = f"{url}/data/projects/P/resources"
    async with aiohttp.ClientSession(headers=basic("admin", "admin")) as http:
        total = 0
        async with http.get(f"{base}/R/files?format=zip") as answer:
            async for piece in answer.content.iter_any():
                total += len(piece)
        assert total > 300_000_000
        body = Zeros(200_000_000)
        headers = {"Content-Length": str(body.size)}
        line = f"{base}/UP/files/z?inbody=true"
        async with http.put(line, data=body.pieces(), headers=headers) as put:
            assert put.status == 200


class Zeros:
    """A body of zeros that needs no memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def pieces(self) -> object:
        block = bytes(1 << 18)
        left = self.size
        while left:
            yield block[:left]
            left -= min(left, len(block))


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().site_id = "X"  # type: ignore[misc]


MULTIPART = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("line", "body", "kind", "status"),
    [
        ("GET /data/archive", None, "", 404),
        ("PATCH /data/projects/P", b"x", "", 405),
        ("GET /data/projects/P/resources/99999999999999999999/files", None, "", 404),
        ("POST /data/services/import", b"junk", MULTIPART, 400),
        ("POST /data/services/import", b"junk", "multipart/form-data", 400),
        (f"PUT {SESSION}/resources/R/files/x", b"junk", MULTIPART, 400),
        ("PUT /data/projects/P", b"junk", MULTIPART, 400),
        ("PUT /xapi/users/admin/groups", b"5", "application/json", 400),
        ("POST /xapi/users", b"[]", "application/json", 400),
        ("POST /xapi/users", b"{}", "application/json", 400),
        ("POST /xapi/siteConfig", b"[1]", "application/json", 400),
        ("PUT /xapi/archive/catalogs/refresh", b"1", "application/json", 400),
        ("POST /xapi/investigators", b"[]", "application/json", 400),
        ("PUT /xapi/custom-fields/projects/P/fields", b"[1]", "application/json", 400),
        ("GET /data/services/workflows/workflowid/x", None, "", 200),
        ("POST /sandbox/faults", b'{"match": "GET *", "kind": "cut", "nth": -1}', "", 400),
    ],
)
async def test_a_malformed_request_is_answered_as_xnat_would(
    xnat: Client, line: str, body: bytes | None, kind: str, status: int
) -> None:
    answer = await xnat(line, body, kind=kind)
    assert answer.status == status
    assert "Server got itself in trouble" not in answer.text
    if status != 200:
        assert ("<h3>" in answer.text) == (" /data" in line)


async def test_what_the_sandbox_cannot_do_is_a_500_of_its_api(
    xnat: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(type(xnat.sandbox.accounts), "visible", broken)
    answer = await xnat("GET /data/projects")
    assert (answer.status, "<h3>Internal Server Error" in answer.text) == (500, True)
    assert "a defect" not in answer.text
    assert "a defect" in caplog.text
