"""`session upload-dicom` as it is typed, with a receiver in this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Result
from tests.integration.uploading import uids_on_disk, write_export

pynetdicom = pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

Call = Callable[..., Result]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """A receiver that the environment names; the UIDs that it was sent."""
    got: set[str] = set()
    lock = threading.Lock()

    def keep(event: Any) -> int:
        with lock:
            got.add(str(event.request.AffectedSOPInstanceUID))
        return 0

    entity = pynetdicom.AE("ARCHIVE")
    entity.supported_contexts = pynetdicom.StoragePresentationContexts
    handlers = [(pynetdicom.evt.EVT_C_STORE, keep)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    monkeypatch.setenv("XNAT_DICOM_HOST", "127.0.0.1")
    monkeypatch.setenv("XNAT_DICOM_PORT", str(server.server_address[1]))
    monkeypatch.setenv("XNAT_DICOM_CALLED_AET", "ARCHIVE")
    yield got
    server.shutdown()


def test_the_environment_names_the_receiver_and_no_login_is_needed(
    xnatctl: Call, receiver: set[str], tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    done = xnatctl("session", "upload-dicom", str(export), "-w", "2", "-o", "json")
    assert done.code == 0, done.err
    assert (done.json()["files"], done.json()["status"]) == (7, "success")
    assert receiver == uids_on_disk(export)


def test_a_dry_run_calls_nobody(xnatctl: Call, receiver: set[str], tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    assert xnatctl("session", "upload-dicom", str(export), "--dry-run").code == 0
    assert receiver == set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_receiver_that_is_not_there_exits_4(xnatctl: Call, tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    line = ("session", "upload-dicom", str(export), "--host", "127.0.0.1", "--port", port)
    done = xnatctl(*line, "--called-aet", "X", "--retries", "0")
    assert done.code == 4, done.err
    assert "cannot be reached" in done.err
    assert xnatctl("session", "upload-dicom", str(export)).code == 2
    assert xnatctl(*line[:2], str(tmp_path / "no"), *line[3:], "--called-aet", "X").code == 5
