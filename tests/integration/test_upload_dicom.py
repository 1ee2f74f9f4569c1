"""C-STORE against DCMTK's `storescp` and Orthanc, judged by what they stored."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from tests.integration.uploading import (
    QUICK,
    STUDY,
    odd_syntaxes,
    series,
    uids_on_disk,
    write_export,
    write_series,
)
from xnatctl import routes
from xnatctl.engine.events import Bus
from xnatctl.engine.runner import Options, Stop
from xnatctl.engine.state import StateStore
from xnatctl.engine.types import Report

STORESCP = shutil.which("storescp")
ORTHANC = shutil.which("Orthanc")
needs_storescp = pytest.mark.skipif(STORESCP is None, reason="DCMTK's storescp is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def receiver(folder: Path, *options: str) -> Iterator[int]:
    """A stock receiver that writes into a folder."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    command = [STORESCP or "", "--fork", "+xa", "-od", str(folder), *options, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def orthanc(folder: Path) -> Iterator[tuple[int, int]]:
    """An Orthanc with an empty store; its DICOM and its HTTP port."""
    folder.mkdir()
    dicom, http = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomPort": dicom,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "UnknownSopClassAccepted": True,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [ORTHANC or "", str(folder / "orthanc.json")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", dicom)) == 0:
                    break
            time.sleep(0.02)
        yield dicom, http
    finally:
        process.terminate()
        process.wait()


def uids_at(http: int) -> set[str]:
    """The SOP Instance UIDs that an Orthanc has."""
    url = f"http://127.0.0.1:{http}/instances?expand"
    with urllib.request.urlopen(url) as answer:
        return {one["MainDicomTags"]["SOPInstanceUID"] for one in json.load(answer)}


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[routes.Desk]:
    async with StateStore.open(folder / "state.db") as state:
        yield routes.Desk(state, Bus(), Options("upload-dicom", workers=1, policy=QUICK), Stop())


async def store(path: Path, peer: routes.Peer, *, lines: int = 2) -> Report:
    async with desk(path.parent) as work:
        return await routes.store(work, routes.Dicoms(path), peer, lines=lines)


def peer(port: int, **more: object) -> routes.Peer:
    return replace(routes.Peer("127.0.0.1", port, "STORESCP", timeout=5.0), **more)  # type: ignore[arg-type]


@needs_storescp
async def test_every_object_reaches_a_stock_receiver_by_several_associations(
    tmp_path: Path,
) -> None:
    export = write_export(tmp_path / "export")
    write_series(export / "second", series(2, study=replace(STUDY, label="SECOND")))
    (export / "notes.txt").write_text("notes")
    with receiver(tmp_path / "got") as port:
        report = await store(export, peer(port), lines=3)
    assert report.exit_code == 0, report.problems
    assert (report.files, report.units_done) == (11, 2)
    assert uids_on_disk(tmp_path / "got") == uids_on_disk(export)


@needs_storescp
async def test_objects_of_other_encodings_are_offered_as_they_are(tmp_path: Path) -> None:
    export = odd_syntaxes(tmp_path / "export")
    with receiver(tmp_path / "got") as port:
        report = await store(export, peer(port))
    assert report.exit_code == 0, report.problems
    assert uids_on_disk(tmp_path / "got") == uids_on_disk(export)


@needs_storescp
async def test_uncompressed_objects_are_converted_for_a_receiver_that_knows_nothing_else(
    tmp_path: Path,
) -> None:
    export = write_export(tmp_path / "export")
    folder = tmp_path / "got"
    with receiver(folder, "+xi") as port:
        report = await store(export, peer(port))
    assert report.exit_code == 0, report.problems
    assert uids_on_disk(folder) == uids_on_disk(export)


@needs_storescp
async def test_an_encoding_that_the_receiver_does_not_take_is_named(tmp_path: Path) -> None:
    export = odd_syntaxes(tmp_path / "export")
    for path in export.iterdir():
        if path.name != "MR_small_RLE.dcm":
            path.unlink()
    with receiver(tmp_path / "got", "+xi") as port:
        report = await store(export, peer(port))
    assert report.exit_code == 1
    assert "accepted no context" in report.problems[0].error


# pynetdicom leaves the socket of a connection that was refused to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_nobody_at_the_port_is_said_in_words(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    report = await store(export, peer(free_port()))
    assert report.exit_code == 1
    assert report.problems[0].error_kind == "unreachable"


@needs_storescp
async def test_many_objects_over_one_association_lose_no_answer(tmp_path: Path) -> None:
    export = tmp_path / "export"
    write_series(export, series(3, slices=150))
    with receiver(tmp_path / "got") as port:
        report = await store(export, peer(port), lines=1)
    assert report.exit_code == 0, report.problems
    assert report.retries == 0
    assert uids_on_disk(tmp_path / "got") == uids_on_disk(export)


@needs_storescp
async def test_tls_works_with_an_authority_of_ones_own_and_not_without(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    (tmp_path / "key.pem").write_bytes(server.private_key_pem.bytes())
    (tmp_path / "cert.pem").write_bytes(server.cert_chain_pems[0].bytes())
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ("+tls", str(tmp_path / "key.pem"), str(tmp_path / "cert.pem"), "-ic")
    with receiver(tmp_path / "got", *tls) as port:
        trusting = peer(port, tls=True, ca_bundle=str(tmp_path / "ca.pem"))
        report = await store(export, trusting)
        assert report.exit_code == 0, report.problems
        assert uids_on_disk(tmp_path / "got") == uids_on_disk(export)
        refused = await store(export, peer(port, tls=True))
        assert refused.exit_code == 1
        assert refused.problems[0].error_kind == "untrusted"


@pytest.mark.skipif(ORTHANC is None, reason="Orthanc is not installed")
async def test_orthanc_has_every_object_that_was_sent(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    odd_syntaxes(export / "odd")
    with orthanc(tmp_path / "orthanc") as (dicom, http):
        report = await store(export, replace(peer(dicom), called="ORTHANC"), lines=3)
        assert report.exit_code == 0, report.problems
        assert uids_at(http) == uids_on_disk(export)
