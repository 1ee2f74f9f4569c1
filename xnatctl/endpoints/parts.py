"""Files that are not proven yet: `.xnatctl-<16 hex>.part`, each beside the place it is meant for.

Whoever writes one holds a lock on it that dies with its process. So what a killed run left can be
told from what another run is writing, and is swept away.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PREFIX, SUFFIX = ".xnatctl-", ".part"


def is_part(name: str) -> bool:
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


def part_name() -> str:
    """A new name."""
    return f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"


def part_beside(path: Path) -> Path:
    """A new name beside `path`."""
    return path.with_name(part_name())


def hold(handle: int) -> None:
    """Lock an open part file until it is closed, where the file system has locks."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sweep(folders: Iterable[Path]) -> None:
    """Remove the part files of processes that are dead; what cannot be told stays."""
    for folder in folders:
        with suppress(OSError):
            for part in folder.glob(f"{PREFIX}*{SUFFIX}"):
                _remove_if_free(part)


def _remove_if_free(part: Path) -> None:
    with suppress(OSError):
        handle = os.open(part, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
        finally:
            os.close(handle)
