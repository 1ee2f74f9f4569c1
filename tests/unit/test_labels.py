"""New labels out of rules, and the order in which they can be given."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatctl.cli.labels import (
    Numbered,
    Rename,
    mapping_rule,
    normal_labels,
    pattern_rule,
    patterns_rule,
    renames,
)
from xnatctl.errors import ConfigError, Conflict, UsageError


def test_a_chain_is_ordered_so_that_each_label_is_free() -> None:
    plan = renames(["A", "B", "C"], {"A": "B", "B": "C", "C": "D"}.get, may_merge=True)
    assert plan == [Rename("C", "D"), Rename("B", "C"), Rename("A", "B")]


def test_two_labels_cannot_be_exchanged() -> None:
    with pytest.raises(Conflict, match="exchanged"):
        renames(["A", "B"], {"A": "B", "B": "A"}.get, may_merge=True)


def test_a_label_that_somebody_keeps_means_a_merge_or_a_conflict() -> None:
    assert renames(["A", "B"], {"A": "b"}.get, may_merge=True) == [Rename("A", "b", merge=True)]
    with pytest.raises(Conflict):
        renames(["A", "B"], {"A": "b"}.get, may_merge=False)


def test_two_that_get_one_new_label_become_one() -> None:
    plan = renames(["A1", "A2"], pattern_rule("(A).", "{1}", project="P"), may_merge=True)
    assert plan == [Rename("A1", "A"), Rename("A2", "A", merge=True)]


def test_another_case_of_the_same_label_is_a_rename() -> None:
    assert renames(["a"], {"a": "A"}.get, may_merge=False) == [Rename("a", "A")]


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdefgh"), max_size=6),
    st.sets(st.sampled_from("abcdef")),
)
def test_whatever_the_mapping_nothing_is_renamed_onto_a_living_label(
    mapping: dict[str, str], labels: set[str]
) -> None:
    try:
        plan = renames(sorted(labels), mapping.get, may_merge=True)
    except Conflict:
        return
    living = set(labels)
    for one in plan:
        living.remove(one.old)
        assert (one.new in living) == one.merge
        living.add(one.new)


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "ä"])
def test_a_label_that_the_server_would_refuse_is_refused_here(bad: str) -> None:
    with pytest.raises(UsageError):
        renames(["A"], {"A": bad}.get, may_merge=True)


def test_a_template_names_groups_that_exist() -> None:
    with pytest.raises(UsageError, match="group"):
        pattern_rule("(A)", "{2}", project="P")("A")
    with pytest.raises(UsageError, match="regular"):
        pattern_rule("(", "{1}", project="P")


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}'])
def test_a_file_that_is_no_mapping_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"map\.json"):
        mapping_rule(path)


def test_a_patterns_file_without_the_project_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "patterns.json"
    path.write_text('{"patterns": [{"project": "X", "match": "a", "to": "b"}]}')
    with pytest.raises(ConfigError, match="project P"):
        patterns_rule(path, project="P")


def test_visits_are_dates_and_sessions_are_times_of_one_subject_and_modality() -> None:
    found, skipped = normal_labels(
        [
            Numbered("c", "S", "MR", "2024-02-01", "09:00"),
            Numbered("b", "S", "MR", "2024-01-01", "11:00"),
            Numbered("a", "S", "MR", "2024-01-01", "10:00"),
            Numbered("d", "S", "CT", "2024-03-01"),
            Numbered("e", "S", "", "2024-03-01"),
            Numbered("f", "S", "MR", ""),
        ]
    )
    assert found == {
        "a": "S_01_SE01_MR",
        "b": "S_01_SE02_MR",
        "c": "S_02_SE01_MR",
        "d": "S_01_SE01_CT",
    }
    assert skipped == {"e": "no imaging modality", "f": "no date"}
