"""How what was written gets onto the disk: files by their contents, folders by their names.

Many small files cost a flush of the disk each when they are synced one by one. `syncfs` has a whole
file system written out at once, which is five times as fast for a batch of them. It is trusted
where it is known to write data, journal and disk cache, and to report errors: Linux since 5.8, on
the file systems below. Everywhere else each file is synced.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import resource
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

AT_ONCE = 8
"""From so many files on, their file system is synced in place of each of them."""
OTHERS = 128
"""Handles that are left to sockets, the state store, and what Python opens."""

_WHOLE = {0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0x01021994: "tmpfs"}
_STATFS_BYTES = 256


def spare_handles(wanted: int) -> int:
    """How many of `wanted` files this process may have open beside all else.

    A soft limit is raised where the hard one lets it: that of macOS is 256.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted + OTHERS:
        return wanted
    with suppress(OSError, ValueError):
        most = wanted + OTHERS if hard == resource.RLIM_INFINITY else min(wanted + OTHERS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return max(AT_ONCE, min(wanted, soft - OTHERS))


def flush(handles: Sequence[int]) -> None:
    """Return when the contents of these open files are on the disk.

    The first of each file system must have been opened before any of them was written: errors are
    reported to it from then on. Raises OSError.
    """
    for some in _by_file_system(handles):
        if len(some) >= AT_ONCE and _syncs_whole(some[0]):
            _syncfs(some[0])
        else:
            for handle in some:
                _start_writing_out(handle)
            for handle in some:
                _fdatasync(handle)


def flush_folders(folders: Iterable[Path]) -> None:
    """Return when the names in these folders are on the disk. Raises OSError."""
    for folder in folders:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _by_file_system(handles: Sequence[int]) -> Iterable[list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for handle in handles:
        found[os.fstat(handle).st_dev].append(handle)
    return found.values()


def _fdatasync(handle: int) -> None:
    getattr(os, "fdatasync", os.fsync)(handle)  # which macOS has not


def _start_writing_out(handle: int) -> None:
    """Have the system begin to write what it holds of a file; Linux understands this advice so."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


@functools.cache
def _libc() -> ctypes.CDLL | None:
    """The C library of a system whose `syncfs` reports errors."""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if sys.platform != "linux" or not version or tuple(map(int, version.groups())) < (5, 8):
        return None
    with suppress(OSError):
        library = ctypes.CDLL(None, use_errno=True)
        if hasattr(library, "syncfs") and hasattr(library, "fstatfs"):
            return library
    return None


def _syncs_whole(handle: int) -> bool:
    library = _libc()
    if library is None:
        return False
    facts = ctypes.create_string_buffer(_STATFS_BYTES)
    if library.fstatfs(handle, facts) != 0:
        return False
    return ctypes.c_long.from_buffer(facts).value in _WHOLE  # `f_type` comes first


def _syncfs(handle: int) -> None:
    library = _libc()
    assert library is not None, "asked for by _syncs_whole"
    if library.syncfs(handle) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
