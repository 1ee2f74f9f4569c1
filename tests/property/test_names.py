"""Names on a disk: each can be held there, is never that of another file, and is found again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatctl.endpoints.names import DEEPEST, Names, fold, look, true_place

LONG = ("x" * 255, "x" * 256, "X" * 256, "ü" * 130, "b" * 900)
ODD = st.sampled_from(
    (
        *(
            "",
            ".",
            "..",
            "...",
            "@~",
            "@~~",
            "~",
            "%",
            "@",
            "a",
            "A",
            "@~a",
            "@~@~a",
            "a@3Ab",
            "a%3Ab",
            "a:b",
        ),
        *("CON", "aux.txt", "a ", "a.", "\0", "\n", ".xnatctl-0123456789abcdef.part", *LONG),
        *("ü", "\xe9", "e\u0301", "ß", "ss", "\u212a", "\ud800", "\udcff"),
    )
)
PART = ODD | st.text(st.characters(exclude_characters="/"), max_size=6)
PLACES = st.sets(st.lists(PART, min_size=1, max_size=5).map("/".join), min_size=1, max_size=8)
DISKS = st.builds(
    Names,
    longest=st.sampled_from([255, 240, 143]),
    strict=st.booleans(),
    folds=st.booleans(),
    ascii_only=st.booleans(),
    bag=st.booleans(),
)


@given(PLACES, DISKS)
def test_no_two_files_get_one_name_and_every_name_can_be_held(
    places: set[str], disk: Names
) -> None:
    odd = disk.clashes(places)
    named = {true: odd.get(true) or disk.place(true) for true in places}

    alike = [fold(one) if disk.folds else one for one in named.values()]
    assert len(set(alike)) == len(places)
    folders = {one[:at] for one in alike for at in range(len(one)) if one[at] == "/"}
    assert folders.isdisjoint(alike)
    for one in named.values():
        assert len(one.encode()) <= DEEPEST
        for part in one.split("/"):
            assert part not in ("", ".", "..")
            assert len(part.encode()) <= disk.longest
            assert "\0" not in part
            assert not (disk.ascii_only and not part.isascii())
            assert not (disk.bag and (set(part) & set("%\r\n") or part.strip() != part))
            assert not (disk.strict and (part[-1] in ". " or set(part) & set('"*:<>?|\\\n')))


@given(PLACES, DISKS)
def test_the_true_name_is_read_back_unless_a_digest_stands_for_it(
    places: set[str], disk: Names
) -> None:
    for true, named in [*disk.clashes(places).items(), *((one, disk.place(one)) for one in places)]:
        has_digest = any(part.startswith(("@~~", "@~@~~")) for part in named.split("/"))
        assert true_place(named) == (None if has_digest else true)


@given(
    st.lists(st.sampled_from(["a", "b.dcm", "Scan 3", "ü.txt", "100%"]), min_size=1).map("/".join)
)
def test_what_the_disk_holds_keeps_its_name(place: str) -> None:
    assert Names().place(place) == place


@pytest.mark.parametrize(
    ("true", "named"),
    [
        ("a:b", "@~a@3Ab"),
        ("100%: all@.", "@~100%@3A all@40@2E"),
        ("CON.txt", "@~CON.txt"),
        ("..", "@~.@2E"),
        ("@~a", "@~@40~a"),
        ("x" * 300 + ".dcm", "@~~"),
    ],
)
def test_a_changed_name_still_shows_the_true_one(true: str, named: str) -> None:
    found = Names(strict=True).place(true)
    assert found.startswith(named)
    assert found.endswith(true[-1:]) or "@2E" in found


def test_this_disk_is_looked_at_and_nothing_is_left_there(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    found = look(folder)

    assert found.longest == min(255, os.pathconf(tmp_path, "PC_NAME_MAX"))
    assert found.folds == (tmp_path / "A" == tmp_path / "a" or _is_there(tmp_path))
    assert list(tmp_path.iterdir()) == []


def _is_there(folder: Path) -> bool:
    (folder / "a").touch()
    try:
        return (folder / "A").exists()
    finally:
        (folder / "a").unlink()
