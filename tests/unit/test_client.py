"""The REST vocabulary: what single requests mean, and answers that only look like success."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aioresponses import aioresponses

from xnatctl.errors import BadReply, NotFound
from xnatctl.model import Ref
from xnatctl.retry import Backoff
from xnatctl.transport import Credentials, Transport
from xnatctl.xnat.client import Xnat

BASE = "https://xnat.example"
SESSION = Ref("P", "S", "MR1", "X_E1")
FILES = f"{BASE}/data/experiments/X_E1/files?all=true&format=json"
WHO = f"{BASE}/xapi/users/username"
ITEM = {"items": [{"meta": {"xsi:type": "xnat:mrSessionData"}, "data_fields": {"ID": "X_E1"}}]}


@pytest.fixture
async def xnat(mocked: aioresponses) -> AsyncIterator[Xnat]:
    mocked.post(f"{BASE}/data/JSESSION", body="6F1C0A9D2B6F1C0A", repeat=True)
    policy = Backoff(attempts=2, base=0.0)
    async with Transport(BASE, Credentials("alice", "pw"), policy=policy) as transport:
        yield Xnat(transport)


def table(*rows: dict[str, str]) -> dict[str, object]:
    return {"ResultSet": {"Result": list(rows)}}


async def body(data: bytes) -> AsyncIterator[bytes]:
    yield data


# --- empty lists -----------------------------------------------------------------------------


async def test_an_empty_list_counts_when_the_login_is_ours(
    mocked: aioresponses, xnat: Xnat
) -> None:
    mocked.get(FILES, payload=table())
    mocked.get(WHO, body="alice")

    assert await xnat.list_files(SESSION, deep=True) == []


async def test_the_empty_list_of_a_guest_is_asked_for_again_with_a_login(
    mocked: aioresponses, xnat: Xnat
) -> None:
    row = {"URI": "/data/experiments/X_E1/resources/5/files/a", "Name": "a", "Size": "1"}
    mocked.get(FILES, payload=table())
    mocked.get(WHO, body="guest")
    mocked.get(FILES, payload=table(row))

    assert [one.path for one in await xnat.list_files(SESSION, deep=True)] == ["a"]


async def test_the_empty_table_of_a_guest_is_asked_for_again_with_a_login(
    mocked: aioresponses, xnat: Xnat
) -> None:
    address = f"{BASE}/data/projects/P/subjects?format=json"
    mocked.get(address, payload=table())
    mocked.get(WHO, body="guest")
    mocked.get(address, payload=table({"ID": "X_S1", "label": "S"}))

    assert [one.label for one in await xnat.list_subjects("P")] == ["S"]


async def test_a_route_that_fell_through_to_an_item_is_no_empty_list(
    mocked: aioresponses, xnat: Xnat
) -> None:
    mocked.get(FILES, payload=ITEM)

    with pytest.raises(BadReply):
        await xnat.list_files(SESSION, deep=True)


# --- items -----------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["[]", "{}", '{"items":[]}', '{"items":["x"]}', "null", "5"])
async def test_an_answer_without_an_item_is_an_error(
    mocked: aioresponses, xnat: Xnat, answer: str
) -> None:
    address = f"{BASE}/data/projects/P?format=json"
    mocked.get(address, body=answer, content_type="application/json")

    with pytest.raises(BadReply):
        await xnat.find_project("P")


async def test_a_project_that_is_not_there_is_none(mocked: aioresponses, xnat: Xnat) -> None:
    mocked.get(f"{BASE}/data/projects/P?format=json", status=404)
    mocked.get(WHO, body="alice", repeat=True)

    assert await xnat.find_project("P") is None


async def test_a_label_is_looked_up_in_its_project_and_an_id_anywhere(
    mocked: aioresponses, xnat: Xnat
) -> None:
    mocked.get(f"{BASE}/data/projects/P/experiments/MR1?format=json", payload=ITEM)
    mocked.get(f"{BASE}/data/experiments/X_E1?format=json", payload=ITEM)

    assert (await xnat.resolve_session("MR1", "P")).id == "X_E1"
    assert (await xnat.resolve_session("X_E1")).xsi_type == "xnat:mrSessionData"


async def test_a_session_that_is_missing_says_what_to_add(mocked: aioresponses, xnat: Xnat) -> None:
    mocked.get(f"{BASE}/data/experiments/MR1?format=json", status=404)
    mocked.get(WHO, body="alice", repeat=True)

    with pytest.raises(NotFound) as caught:
        await xnat.resolve_session("MR1")
    assert "-P" in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "version"),
    [('{"version":"1.8.10"}', "1.8.10"), ("{}", ""), ("[]", ""), ('{"version":null}', "")],
)
async def test_the_version_is_read_where_the_server_tells_it(
    mocked: aioresponses, xnat: Xnat, answer: str, version: str
) -> None:
    address = f"{BASE}/xapi/siteConfig/buildInfo"
    mocked.get(address, body=answer, content_type="application/json")

    assert await xnat.version() == version


# --- writing ---------------------------------------------------------------------------------

PUT = f"{BASE}/data/experiments/X_E1/resources/R/files/a.txt?inbody=true&update-stats=false"


async def test_a_file_that_was_there_already_is_named_by_the_answer(
    mocked: aioresponses, xnat: Xnat
) -> None:
    mocked.put(PUT, body='{"duplicates":["a.txt"]}', content_type="text/html")
    ref = SESSION.in_resource("R")

    assert await xnat.put_file(ref, "a.txt", body(b"x"), size=1, overwrite=False) == ["a.txt"]


async def test_a_file_that_was_stored_is_answered_with_nothing(
    mocked: aioresponses, xnat: Xnat
) -> None:
    mocked.put(f"{PUT}&overwrite=true", body="")
    ref = SESSION.in_resource("R")

    assert await xnat.put_file(ref, "a.txt", body(b"x"), size=1, overwrite=True) == []


async def test_an_answer_that_breaks_off_is_not_taken_for_success(
    mocked: aioresponses, xnat: Xnat
) -> None:
    mocked.put(PUT, body='{"duplicates":["a.t')
    ref = SESSION.in_resource("R")

    with pytest.raises(BadReply):
        await xnat.put_file(ref, "a.txt", body(b"x"), size=1, overwrite=False)


async def test_a_resource_that_exists_is_as_good_as_made(mocked: aioresponses, xnat: Xnat) -> None:
    address = f"{BASE}/data/experiments/X_E1/resources/R?format=TXT"
    mocked.put(address, status=200)
    mocked.put(address, status=409)
    ref = SESSION.in_resource("R")

    assert await xnat.ensure_resource(ref, format="TXT", content="") is True
    assert await xnat.ensure_resource(ref, format="TXT", content="") is False


async def test_a_document_is_sent_with_its_length_and_answers_with_an_id(
    mocked: aioresponses, xnat: Xnat
) -> None:
    address = f"{BASE}/data/projects/P/subjects/S"
    mocked.put(address, body="X_S00001\n", status=201)

    assert await xnat.put_xml("/data/projects/P/subjects/S", b"<xml/>") == "X_S00001"
