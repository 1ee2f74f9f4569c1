"""Faults: each kind does what its sentence says, and one that never fired is found."""

from __future__ import annotations

import asyncio
import io
import json
import time
import zipfile

import aiohttp
import pytest

from xnatctl.sandbox.bodies import Generated
from xnatctl.sandbox.faults import KINDS, Fault, Faults

from .conftest import SESSION, Client, Start, basic, zipped

FILES = f"{SESSION}/scans/3/resources/DICOM/files"
BODY = b"0123456789" * 50_000


@pytest.fixture
async def server(xnat: Client) -> Client:
    """A sandbox with a file of half a megabyte and a small one."""
    await xnat.put(f"{FILES}/big", BODY)
    await xnat.put(f"{FILES}/small", b"abc")
    return xnat


def arm(client: Client, match: str, kind: str, **how: float) -> None:
    client.sandbox.faults.add(Fault(match, kind, **how))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cut", "reset"])
@pytest.mark.parametrize("name", ["big", "small?format=json", "big?format=zip"])
async def test_a_broken_body_is_an_error_to_its_reader(
    server: Client, kind: str, name: str
) -> None:
    arm(server, "GET */files/*", kind, nth=1, at=1)
    with pytest.raises(aiohttp.ClientError):
        await server(f"GET {FILES}/{name}")
    assert (await server(f"GET {FILES}/{name}")).status == 200
    assert server.sandbox.faults.unused() == []


async def test_a_cut_body_ends_exactly_where_it_was_told_to(server: Client) -> None:
    arm(server, "GET */big", "cut", at=300_000)
    received = 0
    with pytest.raises(aiohttp.ClientPayloadError):
        url = server.sandbox.url + FILES + "/big"
        async with server.http.get(url) as answer:
            async for piece in answer.content.iter_any():
                received += len(piece)
    assert received == 300_000


@pytest.mark.parametrize("kind", ["cut", "reset"])
async def test_a_broken_upload_stores_nothing(server: Client, kind: str) -> None:
    arm(server, "PUT */files/*", kind, at=200_000)
    with pytest.raises(aiohttp.ClientError):
        await server.put(f"{FILES}/new", BODY)
    server.sandbox.faults.clear()
    assert await server.names(FILES) == ["big", "small"]


async def test_one_bit_of_the_body_is_flipped(server: Client) -> None:
    arm(server, "GET */files/*", "flip", at=2, times=0)
    assert (await server(f"GET {FILES}/small")).body == b"abb"
    body = (await server(f"GET {FILES}/big")).body
    assert body[2] == BODY[2] ^ 1 and body[3:] == BODY[3:]


async def test_a_flipped_byte_in_a_zip_leaves_the_framing_alone(server: Client) -> None:
    arm(server, "GET *format=zip*", "flip", at=1000)
    body = (await server(f"GET {FILES}?format=zip")).body
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is not None


async def test_a_short_archive_ends_politely_without_a_member(server: Client) -> None:
    arm(server, "GET *format=zip", "short-archive")
    assert len((await server(f"GET {FILES}?format=zip")).names) == 1
    server.sandbox.faults.clear()
    assert len((await server(f"GET {FILES}?format=zip")).names) == 2


async def test_a_truncating_store_answers_200(server: Client) -> None:
    arm(server, "PUT */files/*", "truncate-stored", at=100)
    assert (await server.put(f"{FILES}/new", BODY)).status == 200
    row = next(row for row in (await server(f"GET {FILES}")).rows if row["Name"] == "new")
    assert row["Size"] == "100"


async def test_a_lost_answer_has_done_its_work(server: Client) -> None:
    arm(server, "PUT */files/*", "lose-answer")
    with pytest.raises(aiohttp.ClientError):
        await server.put(f"{FILES}/new", b"abc")
    server.sandbox.faults.clear()
    assert "new" in await server.names(FILES)


async def test_a_status_comes_before_the_work_and_status_after_behind_it(
    server: Client,
) -> None:
    arm(server, "PUT */files/one*", "status", status=503, seconds=7)
    answer = await server.put(f"{FILES}/one", b"1")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
    arm(server, "PUT */files/two*", "status-after", status=500)
    assert (await server.put(f"{FILES}/two", b"1")).status == 500
    assert await server.names(FILES) == ["big", "small", "two"]


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [("login-page", 200, "<form"), ("login-redirect", 302, ""), ("guest", 404, "")],
)
async def test_the_symptoms_of_a_lost_login_can_be_had_at_will(
    server: Client, kind: str, status: int, text: str
) -> None:
    arm(server, "GET /data/*", kind, nth=1)
    answer = await server(f"GET {SESSION}?format=json")
    assert answer.status == status and text in answer.text
    assert (await server(f"GET {SESSION}?format=json")).status == 200


async def test_a_login_expires_in_the_middle(server: Client) -> None:
    opened = (await server("POST /data/JSESSION")).text
    cookie = {"Cookie": f"JSESSIONID={opened}"}
    anonymous = Client(server.sandbox, "")
    arm(server, "GET /data/*", "expire-login", nth=2)
    assert (await anonymous("GET /data/projects", headers=cookie)).status == 200
    assert (await anonymous("GET /data/projects", headers=cookie)).status == 401
    again = await anonymous("GET /data/projects", headers=basic("admin", "admin"))
    assert again.status == 200
    await anonymous.close()


async def test_a_stalled_body_stands_still_and_goes_on(server: Client) -> None:
    arm(server, "GET */big", "stall", at=1000, seconds=0.2)
    began = time.monotonic()
    assert (await server(f"GET {FILES}/big")).body == BODY
    assert time.monotonic() - began >= 0.2


async def test_latency_bandwidth_and_dripping_take_their_time(server: Client) -> None:
    for kind, how in (
        ("latency", {"seconds": 0.1}),
        ("bandwidth", {"rate": 5_000_000}),
        ("drip", {"rate": 100_000, "seconds": 0.03}),
    ):
        arm(server, "GET */big", kind, **how)
        began = time.monotonic()
        assert (await server(f"GET {FILES}/big")).body == BODY
        assert time.monotonic() - began >= 0.09, kind
        server.sandbox.faults.clear()


async def test_beyond_its_capacity_a_server_refuses(server: Client) -> None:
    arm(server, "GET */small", "capacity", at=1, seconds=0.05)
    answers = await asyncio.gather(*(server(f"GET {FILES}/small") for _ in range(8)))
    statuses = [answer.status for answer in answers]
    assert statuses.count(503) >= 4 and statuses.count(200) >= 1


# ---- matching ------------------------------------------------------------------------------


def test_a_fault_fires_on_the_nth_match_and_as_often_as_it_says() -> None:
    faults = Faults()
    faults.add(Fault("GET */a", "cut", nth=2, times=2))
    fired = [bool(faults.drawn("GET", "/x/a", "")) for _ in range(5)]
    assert fired == [False, True, True, False, False]
    assert not faults.drawn("PUT", "/x/a", "") and not faults.drawn("GET", "/x/b", "")


def test_chance_is_the_same_with_every_run() -> None:
    def run() -> list[bool]:
        faults = Faults(seed=4)
        faults.add(Fault("GET *", "cut", probability=0.5))
        return [bool(faults.drawn("GET", "/", "")) for _ in range(20)]

    assert run() == run() and 0 < sum(run()) < 20


def test_a_pattern_may_name_the_query_or_leave_it_out() -> None:
    assert Fault("GET …/files", "cut").matches("GET", "/data/files", "format=zip")
    assert Fault("GET */files*format=zip*", "cut").matches("GET", "/files", "a=1&format=zip")
    assert not Fault("GET */files*format=zip*", "cut").matches("GET", "/files", "")


def test_an_unused_fault_is_told() -> None:
    faults = Faults()
    unused = Fault("GET /never", "cut")
    faults.add(unused)
    assert faults.unused() == [unused]


@pytest.mark.parametrize(
    ("match", "kind", "said"),
    [("GET /a", "explode", "no fault of the kind"), ("nonsense", "cut", "matches nothing"),
     ("GET /a", "drip", "needs a rate")],
)  # fmt: skip
def test_a_fault_that_makes_no_sense_says_why(match: str, kind: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Fault(match, kind)


# ---- from a shell --------------------------------------------------------------------------


async def test_faults_are_armed_listed_and_cleared_over_the_wire(server: Client) -> None:
    anonymous = Client(server.sandbox, "")
    fault = json.dumps({"match": "GET /data/projects", "kind": "status", "status": 429, "nth": 1})
    made = await anonymous("POST /sandbox/faults", fault.encode(), kind="application/json")
    assert (made.status, made.json()) == (201, {"ids": [1]})
    assert (await server("GET /data/projects")).status == 429
    listed = (await anonymous("GET /sandbox/faults")).json()[0]
    assert (listed["seen"], listed["fired"], listed["kind"]) == (1, 1, "status")
    assert (await anonymous("DELETE /sandbox/faults/1")).status == 200
    assert (await anonymous("DELETE /sandbox/faults/1")).status == 404
    assert (await anonymous("GET /sandbox/faults")).json() == []
    assert set((await anonymous("GET /sandbox/faults/kinds")).json()) == set(KINDS)
    for wrong in (b"{", b"[1]", b'{"match": "x"}', b'{"match": "G a", "kind": "cut", "z": 1}'):
        bad = await anonymous("POST /sandbox/faults", wrong, kind="application/json")
        assert bad.status == 400
    await anonymous.close()


async def test_counters_tell_routes_statuses_bytes_and_logins(server: Client) -> None:
    await server("DELETE /sandbox/counters")
    await asyncio.gather(*(server(f"GET {FILES}/big") for _ in range(3)))
    await server.put(f"{FILES}/more", b"1" * 1000)
    seen = (await server("GET /sandbox/counters")).json()
    route = "/files/…"
    gets = [row for row in seen["requests"] if row["method"] == "GET" and route in row["route"]]
    assert [(row["status"], row["count"]) for row in gets] == [(200, 3)]
    assert seen["bytes_out"] >= 3 * len(BODY) and seen["bytes_in"] >= 1000
    assert seen["peak"] >= 2 and seen["logins"] >= 1
    assert server.sandbox.counters.count("GET", route, 200) == 3


async def test_the_whole_tree_can_be_inspected(server: Client) -> None:
    await server("PUT /data/projects/Q")
    await server(f"PUT {SESSION}/projects/Q?label=EQ")
    await server(f"PUT {FILES}/u.zip?extract=true", zipped({"d/x": b"1"}), kind="application/zip")
    tree = (await server("GET /sandbox/inspect")).json()
    assert [project["id"] for project in tree["projects"]] == ["P", "Q"]
    session = tree["projects"][0]["subjects"][0]["sessions"][0]
    assert (session["label"], session["shares"]) == ("E", {"Q": "EQ"})
    files = session["scans"][0]["resources"][0]["files"]
    assert [(file["path"], file["size"]) for file in files] == [
        ("big", len(BODY)), ("small", 3), ("d/x", 1),
    ]  # fmt: skip
    only = (await server("GET /sandbox/inspect?project=Q")).json()
    assert [project["id"] for project in only["projects"]] == ["Q"]


async def test_a_seeded_giant_needs_no_memory_to_be_spoiled(start: Start) -> None:
    client = await start()
    store = client.sandbox.store
    project = store.create_project("G")
    resource = store.create_resource(project, "R")
    store.add_file(resource, "g", Generated(50_000_000, 1))
    arm(client, "GET */g", "cut", at=40_000_000)
    with pytest.raises(aiohttp.ClientPayloadError):
        await client("GET /data/projects/G/resources/R/files/g")
