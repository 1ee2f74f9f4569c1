"""What is written counts when it is on the disk, whichever way the file system takes it there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from xnatctl.endpoints import disk
from xnatctl.endpoints.local import _write_batch
from xnatctl.zipstream import Chunk


class Calls:
    """Stands for the system's calls, and remembers which were made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, whole: bool) -> None:
        self.whole: list[int] = []
        self.each: list[int] = []
        monkeypatch.setattr(disk, "_syncs_whole", lambda handle: whole)
        monkeypatch.setattr(disk, "_syncfs", self.whole.append)
        monkeypatch.setattr(disk, "_fdatasync", self.each.append)


@pytest.fixture
def handles(tmp_path: Path) -> Iterator[list[int]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context((tmp_path / str(number)).open("wb")).fileno()
            for number in range(disk.AT_ONCE)
        ]


def test_many_files_are_synced_by_their_file_system_at_once(
    handles: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch, whole=True)
    disk.flush(handles)
    assert (calls.whole, calls.each) == ([handles[0]], [])


def test_a_few_files_are_synced_each(handles: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, whole=True)
    disk.flush(handles[1:])
    assert (calls.whole, calls.each) == ([], handles[1:])


def test_where_a_file_system_is_not_known_each_file_is_synced(
    handles: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch, whole=False)
    disk.flush(handles)
    assert (calls.whole, calls.each) == ([], handles)


def test_an_old_system_does_not_report_errors_and_is_not_trusted(
    handles: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = os.uname()
    old = os.uname_result((facts.sysname, facts.nodename, "5.7.19", facts.version, facts.machine))
    monkeypatch.setattr(os, "uname", lambda: old)
    disk._libc.cache_clear()
    try:
        assert not disk._syncs_whole(handles[0])
    finally:
        disk._libc.cache_clear()


def test_the_calls_of_this_system_work(handles: list[int]) -> None:
    for handle in handles:
        os.write(handle, b"x")
    disk.flush(handles)
    if disk._syncs_whole(handles[0]):
        with pytest.raises(OSError, match="Bad file descriptor"):
            disk._syncfs(1_000_000)


def test_a_batch_that_cannot_be_flushed_leaves_nothing_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "3").write_text("former")

    def full(handles: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xnatctl.endpoints.local.flush", full)
    with pytest.raises(OSError, match="No space left"):
        _write_batch([(f"{tmp_path}/{number}", [b"new"], "") for number in range(10)], False)
    assert [one.name for one in tmp_path.iterdir()] == ["3"]
    assert (tmp_path / "3").read_text() == "former"


def test_a_file_in_pieces_is_whole_however_little_the_system_takes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.writev
    monkeypatch.setattr(os, "writev", lambda handle, rest: whole(handle, [rest[0][:3]]))
    pieces: list[Chunk] = [b"abcdefg", b"", memoryview(b"hij"), b"k"]
    _write_batch([(f"{tmp_path}/file", pieces, "")], False)
    assert (tmp_path / "file").read_bytes() == b"abcdefghijk"


def test_batches_fit_into_what_a_process_may_have_open(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from xnatctl.endpoints.local import LocalSink, _write_batch
soft, hard = map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
most = LocalSink(Path(sys.argv[1]))._batch_files
_write_batch([(f"{sys.argv[1]}/{number}", [b"x"], "") for number in range(most)], False)
print(most)
"""
    for soft, hard, most in ((256, 4096, 256), (160, 160, 16)):
        command = [sys.executable, "-c", script, str(tmp_path), str(soft), str(hard)]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        assert said.stdout == f"{most}\n"
