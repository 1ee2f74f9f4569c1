"""Snapshots get their names: none is ever another's, whatever the clock says."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from xnatctl.endpoints.nightly import UNFINISHED, name_snapshot, previous_snapshot
from xnatctl.errors import LocalFault

NOON = datetime(2024, 3, 2, 12)


def finish(root: Path, moment: datetime) -> Path:
    (root / UNFINISHED).mkdir()
    (root / UNFINISHED / "made").write_text(str(moment))
    return name_snapshot(root, moment)


def test_a_clock_that_was_set_back_and_nights_in_one_second_keep_what_is_there(
    tmp_path: Path,
) -> None:
    moments = [NOON, NOON, NOON, NOON, NOON - timedelta(days=1), NOON - timedelta(days=1), NOON]
    found = [finish(tmp_path, moment) for moment in moments]

    assert len(set(found)) == len(moments)
    assert [(one / "made").read_text() for one in found] == [str(one) for one in moments]
    assert previous_snapshot(tmp_path) == found[-1]
    assert [one.name for one in found[:3]] == [
        *("run-2024-03-02", "run-2024-03-02T120000", "run-2024-03-02T120000-2"),
    ]


def test_when_the_latest_was_removed_the_last_that_is_there_counts(tmp_path: Path) -> None:
    first = finish(tmp_path, NOON)
    last = finish(tmp_path, NOON + timedelta(days=1))
    last.rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    assert previous_snapshot(tmp_path) == first


def test_a_folder_in_the_place_of_the_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    with pytest.raises(LocalFault, match="it is no link to a snapshot"):
        previous_snapshot(tmp_path)


def test_a_try_to_switch_that_died_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".latest").symlink_to("nowhere")
    assert finish(tmp_path, NOON) == previous_snapshot(tmp_path)
    assert not (tmp_path / ".latest").is_symlink()
