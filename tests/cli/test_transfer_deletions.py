"""`project transfer --delete-extra` as it is typed: told, limited, asked for, done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xnatctl.sandbox.server import Sandbox

from .conftest import Ends

Call = Callable[..., Any]
LINE = ("project", "transfer", "-P", "STUDY", "--dest-project", "COPY")
GONE = "subjects/SUB1/sessions/SUB1_MR2"


def drop(sandbox: Sandbox) -> None:
    store = sandbox.store
    session = store.find_experiment("SUB1_MR2", store.find_project("STUDY"))
    assert session is not None
    store.delete(session, remove_files=True)


def held(sandbox: Sandbox) -> bool:
    store = sandbox.store
    return store.find_experiment("SUB1_MR2", store.find_project("COPY")) is not None


def test_deletions_are_told_refused_above_the_limit_and_done_within_it(
    xnatctl: Call, ends: Ends, tmp_path: Path
) -> None:
    here, there = ends
    assert xnatctl(*LINE, "--yes").code == 0
    drop(here)

    told = xnatctl(*LINE, "--yes")
    assert told.code == 0
    assert f"gone at the source, stays: {GONE}" in told.err

    refused = xnatctl(*LINE, "--yes", "--delete-extra")
    assert refused.code == 1
    assert "that would touch 34 % of COPY" in refused.err
    assert "--delete-extra-max 34" in refused.err
    assert held(there)

    planned = xnatctl(*LINE, "--delete-extra", "--dry-run", "-o", "json").json()
    assert [(one["key"], one["code"]) for one in planned["gone"]] == [(GONE, "stays")]
    assert held(there)

    done = xnatctl(*LINE, "--yes", "--delete-extra", "--delete-extra-max", "34", "-o", "json")
    assert done.code == 0, done.err
    assert done.json()["gone"] == [{"key": GONE, "code": "deleted", "reason": ""}]
    assert not held(there)
    report = xnatctl("project", "transfer-report", "-P", "STUDY", "-o", "json").json()
    assert report["gone"] == done.json()["gone"]
    page = tmp_path / "gone.html"
    assert xnatctl("project", "transfer-report", "-P", "STUDY", "--html", str(page)).code == 0
    assert GONE in page.read_text()


@pytest.mark.parametrize("narrow", [("--subject", "SUB1"), ("--since", "2024-01-01")])
def test_deletions_and_a_selection_exclude_each_other(
    xnatctl: Call, ends: Ends, narrow: tuple[str, ...]
) -> None:
    refused = xnatctl(*LINE, "--yes", "--delete-extra", *narrow)
    assert refused.code == 2
    assert "--delete-extra needs the whole project" in refused.err


def test_who_says_no_at_the_prompt_keeps_what_is_there(
    xnatctl: Call, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = ends
    assert xnatctl(*LINE, "--yes").code == 0
    drop(here)
    answers = iter(["y", "n"])
    monkeypatch.setattr("xnatctl.ui.console._is_terminal", lambda stream: True)
    monkeypatch.setattr("builtins.input", lambda prompt="": next(answers))

    done = xnatctl(*LINE, "--delete-extra", "--delete-extra-max", "50")

    assert done.code == 1
    assert f"gone at the source: {GONE} with 3 files" in done.err
    assert f"stays: {GONE}" in done.err
    assert held(there)
