"""Names of files on a disk, made of names that a disk may refuse; and back.

A name that the file system holds stays as it is. Any other one begins with `@~`:

1. `@~` and the name, in which what is refused, and every `@`, is written as its bytes: `a:b` is
   `@~a@3Ab` where colons are refused. `true_name` reads that back.
2. What is too long for that is `@~~`, a digest of the true name, `~` and its end. Only a list that
   was written beside it knows the true one.
3. `@~@~` begins the name of a file where a folder of that name is needed too.

Two names never become one: what begins with `@~` itself is written as in 1. Where the file system
does not tell `A` from `a`, all names of a folder that differ in that alone have their capitals and
what is not ASCII written as in 1.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from xnatctl.errors import LocalFault

from .parts import PREFIX, SUFFIX, is_part

MARK = "@~"
LONGEST = 255
DEEPEST = 2000
"""Bytes of a path below the root; PATH_MAX of Linux (4,096) leaves as much for the root."""

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+=,-]{0,120}"
_PLAIN = re.compile(f"{_PART}(?:/{_PART})*")
"""A path of which every disk that is not strict holds each part, as most are."""
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?:\..*)?", re.I | re.S
)
_BYTES = re.compile(r"(?:@[0-9A-F]{2})+")
_NO_NAMES = frozenset({"", ".", ".."})
_REFUSED = frozenset('"*:<>?|\\\x7f') | {chr(code) for code in range(32)}
"""What no file system made for Windows takes."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a file system takes: names of so many bytes; `strict` is one made for Windows, `folds`
    one that does not tell upper from lower case and `forgets` one that lists names in another case
    than they were given, `ascii_only` one that takes nothing else. A `bag` has lists in which not
    every tool reads a percent sign, the end of a line, or a blank at the edge as it is meant.
    """

    longest: int = LONGEST
    strict: bool = False
    folds: bool = False
    forgets: bool = False
    ascii_only: bool = False
    bag: bool = False

    def place(self, true: str) -> str:
        """The relative path for a true one, both with slashes."""
        if not self.strict and len(true) < DEEPEST and _PLAIN.fullmatch(true):
            return true
        parts = true.split("/")
        return self._short(parts, [self.name(part) for part in parts])

    def name(self, true: str, *, apart: bool = False, beside: bool = False) -> str:
        """The name for one part of a path. `apart`: another one differs in case alone. `beside`:
        a folder has this name.
        """
        if not (apart or beside) and self._holds(true):
            return true
        found = MARK + (MARK if beside else "") + self._escaped(true, apart)
        return found if len(found.encode()) <= self.longest else self._digest(true, beside)

    def clashes(self, places: Collection[str]) -> dict[str, str]:
        """The paths of those that cannot be named each by itself: what else there is decides."""
        folders = _folders(places)
        twins = _twins(places) if self.folds else frozenset()
        found = {}
        for true in places:
            if true not in folders and not twins:
                continue
            parts = true.split("/")
            above = ["/".join(parts[: at + 1]) for at in range(len(parts))]
            names = [
                self.name(part, apart=path in twins, beside=path == true and true in folders)
                for part, path in zip(parts, above, strict=True)
            ]
            if (named := self._short(parts, names)) != self.place(true):
                found[true] = named
        return found

    def _holds(self, true: str) -> bool:
        if true in ("", ".", "..") or true.startswith(MARK) or "\0" in true or is_part(true):
            return False
        try:
            if len(true.encode()) > self.longest:
                return False
        except UnicodeEncodeError:
            return False
        if self.ascii_only and not true.isascii():
            return False
        if self.bag and ("%" in true or "\n" in true or "\r" in true or true.strip() != true):
            return False
        is_odd = true[-1] in ". " or _DEVICE.fullmatch(true) or not _REFUSED.isdisjoint(true)
        return not (self.strict and is_odd)

    def _escaped(self, true: str, apart: bool) -> str:
        last = len(true) - 1
        return "".join(
            "".join(f"@{byte:02X}" for byte in one.encode("utf-8", "surrogatepass"))
            if one == "@"
            or (self.bag and one == "%")
            or one in _REFUSED
            or "\ud800" <= one <= "\udfff"
            or (at == 0 and one == "~")
            or (at in (0, last) and one.isspace())
            or (at == last and one == ".")
            or (self.ascii_only and not one.isascii())
            or (apart and (one.isupper() or not one.isascii()))
            else one
            for at, one in enumerate(true)
        )

    def _digest(self, true: str, beside: bool = False) -> str:
        digest = hashlib.sha256(true.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        head = f"{MARK}{MARK if beside else ''}~{digest}~"
        ends = (self._escaped(true[-length:], apart=False) for length in (80, 20))
        room = self.longest - len(head)
        return head + next((end for end in ends if len(end.encode()) <= room), "")

    def _short(self, parts: list[str], names: list[str]) -> str:
        """The path; what is too deep is one name below as many folders as there is room for."""
        found = "/".join(names)
        if len(found) * 4 <= DEEPEST or len(found.encode()) <= DEEPEST:
            return found
        kept: list[str] = []
        room = DEEPEST - self.longest
        for name in names[:-1]:
            room -= len(name.encode()) + 1
            if room < 0:
                break
            kept.append(name)
        return "/".join([*kept, self._digest("/".join(parts[len(kept) :]))])


def true_name(name: str) -> str | None:
    """The true name of one part of a path; None where a digest stands for it."""
    if not name.startswith(MARK):
        return name
    text = name.removeprefix(MARK).removeprefix(MARK)
    return None if text.startswith("~") else _BYTES.sub(_unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    return bytes.fromhex(found[0].replace("@", "")).decode("utf-8", "surrogatepass")


def true_place(place: str) -> str | None:
    """The true path; None where a digest stands for a part of it."""
    if MARK not in place:
        return place
    parts = [true_name(name) for name in place.split("/")]
    known = [one for one in parts if one is not None]
    return "/".join(known) if len(known) == len(parts) else None


def fold(text: str) -> str:
    """What a file system that does not tell upper from lower case may take for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def path_below(root: Path, place: str) -> Path:
    """The path of `place` below `root`. Raises LocalFault as `check_place` does."""
    check_place(place)
    return root.joinpath(*place.split("/"))


def check_place(place: str) -> None:
    """Refuses a relative path that would lie elsewhere or cannot be a name."""
    if "\0" in place or not _NO_NAMES.isdisjoint(place.split("/")):
        raise LocalFault(f"{place[:200]!r} cannot be the path of a file here")


def look(root: Path) -> Names:
    """What the file system of a folder takes: tried in one of its own, which is gone afterwards.

    Of a folder that is not there yet the one above is asked; of one that cannot be written in
    nothing is known, and nothing will be written.
    """
    there = next((one for one in (root, *root.absolute().parents) if one.is_dir()), Path("/"))
    try:
        longest = min(LONGEST, os.pathconf(there, "PC_NAME_MAX"))
        with tempfile.TemporaryDirectory(prefix=PREFIX, suffix=SUFFIX, dir=there) as folder:
            return Names(
                longest,
                strict=not all(_takes(Path(folder), one) for one in ("a:b", "\x01", "c. ", "nul")),
                folds=_folds(Path(folder)),
                forgets="Case" not in _listed_with(Path(folder), "Case"),
                ascii_only=not _takes(Path(folder), "\xfc-\u65e5"),
            )
    except OSError:
        return Names()


def _listed_with(folder: Path, name: str) -> set[str]:
    """What a folder lists when a file of this name was made in it; nothing where it cannot be."""
    try:
        (folder / name).touch()
    except (OSError, ValueError):
        return set()
    return {one.name for one in folder.iterdir()}


def _takes(folder: Path, name: str) -> bool:
    return fold(name) in map(fold, _listed_with(folder, name))


def _folds(folder: Path) -> bool:
    for one, other in (("one", "ONE"), ("\xe9", "e\u0301")):
        with suppress(OSError, ValueError):
            (folder / one).touch()
            if (folder / other).exists():
                return True
    return False


def folders_above(place: str) -> Iterator[str]:
    """The folders above a path, the nearest first."""
    while "/" in place:
        place = place.rpartition("/")[0]
        yield place


def _folders(places: Collection[str]) -> set[str]:
    found: set[str] = set()
    for place in places:
        for folder in folders_above(place):
            if folder in found:
                break
            found.add(folder)
    return found


def _twins(places: Collection[str]) -> set[str]:
    """The paths of all files and folders of which another one differs in case alone."""
    alike: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in {*places, *_folders(places)}:
        folder, slash, name = path.rpartition("/")
        alike[folder + slash, fold(name)].add(path)
    return {path for some in alike.values() if len(some) > 1 for path in some}
