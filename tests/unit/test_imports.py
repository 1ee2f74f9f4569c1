"""What imports and the archive service answer, and what to make of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aioresponses import aioresponses
from hypothesis import given
from hypothesis import strategies as st

from xnatctl.errors import (
    BadReply,
    Busy,
    Conflict,
    NotFound,
    PermissionDenied,
    Refused,
    ServerFault,
    Unreachable,
    XnatctlError,
)
from xnatctl.model import PrearchiveEntry
from xnatctl.retry import Backoff
from xnatctl.transport import Credentials, Reply, Transport
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.imports import Imports, StillArchiving, classify, entry_of, uris

BASE = "https://xnat.example"
ENTRY = PrearchiveEntry("P", "20240301_101112345", "MR1", "MR1", "READY")
ARCHIVE = (
    f"{BASE}/data/services/archive?src=/prearchive/projects/P/20240301_101112345/MR1"
    "&project=P&subject=S&session=MR1&auto-archive=false&triggerPipelines=false"
)


@pytest.fixture
async def imports(mocked: aioresponses) -> AsyncIterator[Imports]:
    mocked.post(f"{BASE}/data/JSESSION", body="6F1C0A9D2B6F1C0A", repeat=True)
    mocked.get(f"{BASE}/xapi/users/username", body="alice", repeat=True)
    policy = Backoff(attempts=2, base=0.0)
    async with Transport(BASE, Credentials("alice", "pw"), policy=policy) as transport:
        yield Imports(Xnat(transport))


async def archive(imports: Imports) -> str:
    return await imports.archive(ENTRY, project="P", subject="S", session="MR1")


# --- classes of failures ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 409, 423, 500])
@pytest.mark.parametrize("archiving", [False, True])
@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Session processing in progress: MR1", Busy),
        ("Concurrent modification is discouraged", Busy),
        ("Duplicate archive attempt", Busy),
        ("Destination session in use", Busy),
        ("Concurrent file sends of the same data is not supported.", Busy),
        ("Prearc destination is locked", Busy),
        ("Session already exists, retry with overwrite enabled", Conflict),
        ("File already exists with matching files", Conflict),
        ("A session with the same resources", Conflict),
        ("Session already contains a scan (3) with the same UID", Conflict),
        ("Invalid modification of session subject via archive process", Refused),
        ("Unable to deduce session label", Refused),
        ("unable to identify destination project", Refused),
        ("Upload did not include parsable files for session generation", Refused),
        ("Upload included files for multiple imaging sessions", Refused),
        ("unable to read DICOM object 3.dcm", Refused),
    ],
)
def test_a_failure_is_classed_by_its_message_whatever_its_status(
    status: int, archiving: bool, message: str, kind: type[XnatctlError]
) -> None:
    met = ServerFault("POST failed", why=f"HTTP {status}, {message}", status=status)

    found = classify(met, archiving=archiving)

    assert type(found) is kind
    assert (found.status, found.why) == (status, met.why)


@pytest.mark.parametrize(
    ("met", "archiving", "kind"),
    [
        (ServerFault("x", status=502), True, StillArchiving),
        (ServerFault("x", status=504), True, StillArchiving),
        (ServerFault("x", why="did not complete within 600 s", status=500), True, StillArchiving),
        (ServerFault("x", why="something broke", status=500), True, Refused),
        (ServerFault("x", status=502), False, ServerFault),
        (ServerFault("x", status=500), False, ServerFault),
        (Unreachable("cut", sent=True), True, StillArchiving),
        (Unreachable("nobody there"), True, Unreachable),
        (Unreachable("cut", sent=True), False, Unreachable),
        (PermissionDenied("x", why="Session already exists", status=403), True, PermissionDenied),
        (NotFound("x", status=404), True, NotFound),
        (Busy("x", status=503), True, Busy),
    ],
)
def test_a_lost_answer_of_the_archive_means_look_and_never_send_again(
    met: XnatctlError, archiving: bool, kind: type[XnatctlError]
) -> None:
    assert type(classify(met, archiving=archiving)) is kind


def test_still_archiving_is_not_tried_again() -> None:
    assert not StillArchiving("x").retryable


# --- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", []),
        (b"\r\n", []),
        (b"/data/prearchive/projects/P/T/S\r\n", ["/data/prearchive/projects/P/T/S"]),
        (b"/data/a", ["/data/a"]),
        (b"/data/a\r\n/data/b\r\n", ["/data/a", "/data/b"]),
    ],
)
def test_an_answer_is_a_list_of_addresses(body: bytes, found: list[str]) -> None:
    assert uris(Reply(200, {}, body, "x")) == found


@pytest.mark.parametrize(
    "uri",
    [
        "/data/prearchive/projects/P/20240301_101112345/MR1",
        "/prearchive/projects/P/20240301_101112345/MR1",
        "https://x/ctx/data/prearchive/projects/P/20240301_101112345/MR1?x=y",
    ],
)
def test_an_entry_is_known_by_its_address(uri: str) -> None:
    entry = entry_of(uri)

    assert (entry.project, entry.timestamp, entry.folder) == ("P", "20240301_101112345", "MR1")
    assert not entry.is_ours


@pytest.mark.parametrize("uri", ["", "/data/archive/projects/P/subjects/S/experiments/E", "/x"])
def test_what_is_no_entry_is_an_error(uri: str) -> None:
    with pytest.raises(BadReply):
        entry_of(uri)


@given(st.text())
def test_no_address_raises_anything_but_our_errors(uri: str) -> None:
    try:
        entry_of(uri)
    except BadReply:
        pass


# --- requests --------------------------------------------------------------------------------


async def test_archiving_answers_with_the_address_of_the_session(
    mocked: aioresponses, imports: Imports
) -> None:
    mocked.post(ARCHIVE, body="/data/archive/projects/P/subjects/S/experiments/MR1\r\n")

    assert (await archive(imports)).endswith("/experiments/MR1")


@pytest.mark.parametrize("status", [301, 303])
async def test_a_redirect_of_the_archive_is_a_success(
    mocked: aioresponses, imports: Imports, status: int
) -> None:
    where = "/data/archive/projects/LOGIN/subjects/S/experiments/MR1"
    mocked.post(ARCHIVE, status=status, headers={"Location": where}, body="")

    assert await archive(imports) == (where if status == 303 else "")


async def test_archiving_is_sent_once_when_its_answer_is_lost(
    mocked: aioresponses, imports: Imports
) -> None:
    mocked.post(ARCHIVE, status=504)
    mocked.post(ARCHIVE, body="a second session")

    with pytest.raises(StillArchiving):
        await archive(imports)


async def test_an_entry_that_is_gone_is_none_and_deleting_it_is_done(
    mocked: aioresponses, imports: Imports
) -> None:
    address = f"{BASE}/data/prearchive/projects/P/20240301_101112345/MR1"
    mocked.get(f"{address}?format=json", status=404)
    mocked.delete(address, status=404)

    assert await imports.find_entry(ENTRY) is None
    await imports.delete(ENTRY)


async def test_an_entry_is_read_with_its_state_and_marks(
    mocked: aioresponses, imports: Imports
) -> None:
    address = f"{BASE}/data/prearchive/projects/P/20240301_101112345/MR1"
    row = {
        "project": "P",
        "timestamp": "20240301_101112345",
        "folderName": "MR1",
        "name": "MR1",
        "status": "RECEIVING",
        "SOURCE": "uploader",
        "prevent_auto_commit": "true",
    }
    mocked.get(f"{address}?format=json", payload={"ResultSet": {"Result": [row]}})

    found = await imports.find_entry(ENTRY)

    assert found is not None
    assert (found.status, found.is_ours) == ("RECEIVING", True)


async def test_scans_of_an_entry_are_read_whatever_the_case_of_the_keys(
    mocked: aioresponses, imports: Imports
) -> None:
    address = f"{BASE}/data/prearchive/projects/P/20240301_101112345/MR1/scans?format=json"
    mocked.get(address, payload={"ResultSet": {"Result": [{"ID": "1"}, {"id": "2"}]}})

    assert await imports.list_entry_scans(ENTRY) == ["1", "2"]
