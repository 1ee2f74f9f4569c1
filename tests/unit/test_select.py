"""Selections as predicates."""

from __future__ import annotations

import pytest

from xnatctl.engine.select import recent, selects
from xnatctl.engine.types import Rule, Selection
from xnatctl.model import Ref


def selection(*rules: Rule, since: str = "") -> Selection:
    return Selection(Ref("P"), rules, since)


def include(what: str, *patterns: str) -> Rule:
    return Rule(what, patterns)  # type: ignore[arg-type]


def exclude(what: str, *patterns: str) -> Rule:
    return Rule(what, patterns, include=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "name", "taken"),
    [
        ([], "S1", True),
        ([include("subject", "S1")], "S1", True),
        ([include("subject", "S1")], "S2", False),
        ([include("subject", "S1", "S2")], "S2", True),
        ([include("subject", "S1"), include("subject", "S2")], "S2", True),
        ([include("subject", "S?")], "S1", True),
        ([include("subject", "S?")], "S12", False),
        ([include("subject", "S*")], "S12", True),
        ([include("subject", "[AB]*")], "B7", True),
        ([include("subject", "s*")], "S1", False),
        ([exclude("subject", "S1")], "S1", False),
        ([exclude("subject", "S1")], "S2", True),
        ([include("subject", "S*"), exclude("subject", "S1")], "S1", False),
        ([exclude("subject", "S1"), include("subject", "S*")], "S1", False),
        ([include("session", "X")], "S1", True),
        ([exclude("session", "*")], "S1", True),
        ([include("subject")], "S1", False),
        ([exclude("subject")], "S1", True),
    ],
)
def test_include_rules_narrow_and_exclude_rules_always_win(
    rules: list[Rule], name: str, taken: bool
) -> None:
    assert selects(selection(*rules), "subject", name) is taken


def test_any_name_of_a_thing_is_enough() -> None:
    chosen = selection(include("session", "XNAT_E00001"))

    assert selects(chosen, "session", "LABEL", "XNAT_E00001")
    assert not selects(selection(exclude("session", "LABEL")), "session", "LABEL", "XNAT_E00001")


@pytest.mark.parametrize(
    ("since", "date", "kept"),
    [
        ("", "2020-01-01", True),
        ("2024-03-01", "2024-03-01", True),
        ("2024-03-01", "2024-02-29", False),
        ("2024-03-01", "2025-01-01", True),
        ("2024-03-01", "2024-03-01 10:11:12.0", True),
        ("2024-03-01", "", True),
    ],
)
def test_a_session_is_recent_from_its_date_on(since: str, date: str, kept: bool) -> None:
    assert recent(selection(since=since), date) is kept
