"""A folder as a source: what is hashed, what is remembered, and in how many steps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from xnatctl.endpoints import folder
from xnatctl.endpoints.folder import FileStamp, FolderSource
from xnatctl.engine.types import Selection
from xnatctl.model import Ref

TARGET = Ref("P", resource="R")


class Memory:
    """Digests in a dict, and how often they were asked for and kept."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.asked = 0
        self.kept: list[int] = []

    async def local_digests(self, files: Iterable[FileStamp]) -> dict[str, str]:
        self.asked += 1
        names = [name for name, _, _ in files]
        return {name: self.known[name] for name in names if name in self.known}

    async def keep_local_digests(self, rows: Iterable[tuple[str, int, int, str]]) -> None:
        some = list(rows)
        self.kept.append(len(some))
        self.known.update((name, digest) for name, _, _, digest in some)


async def described(path: Path, memory: Memory | None) -> dict[str, str]:
    source = FolderSource(path, target=TARGET, digests=memory)
    (unit,) = [unit async for unit in source.units(Selection(TARGET))]
    return {item.path: item.digest for item in (await source.describe(unit)).items}


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    found = {}
    for number in range(7):
        (tmp_path / f"{number}.bin").write_bytes(bytes([number]) * 100)
        found[f"{number}.bin"] = md5(bytes([number]) * 100)
    return found


async def test_digests_are_asked_for_at_once_and_kept_in_batches(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "BATCH_FILES", 3)
    memory = Memory()
    assert await described(tmp_path, memory) == files
    assert (memory.asked, memory.kept) == (1, [3, 3, 1])


async def test_a_batch_ends_where_it_holds_enough_bytes(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "BATCH_BYTES", 200)
    memory = Memory()
    assert await described(tmp_path, memory) == files
    assert memory.kept == [2, 2, 2, 1]


async def test_what_is_remembered_is_not_read_again(tmp_path: Path, files: dict[str, str]) -> None:
    memory = Memory()
    await described(tmp_path, memory)
    memory.known[str(tmp_path / "0.bin")] = "remembered"
    assert (await described(tmp_path, memory))["0.bin"] == "remembered"
    assert memory.kept == [7]


async def test_without_a_memory_everything_is_read(tmp_path: Path, files: dict[str, str]) -> None:
    assert await described(tmp_path, None) == files
    assert await described(tmp_path / "3.bin", None) == {"3.bin": files["3.bin"]}
