"""`project transfer --delete-extra` as it is typed: told, limited, asked for, done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from xnatctl.sandbox.server import Sandbox

from .conftest import fill

Call = Callable[..., Any]
LINE = ("project", "transfer", "-P", "STUDY", "--dest-project", "COPY")
GONE = "subjects/SUB1/sessions/SUB1_MR2"


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sandbox, Sandbox]]:
    """Both servers by the environment alone, the first filled."""
    with start_blocking_portal() as portal:
        here, there = Sandbox(tmp_path / "here"), Sandbox(tmp_path / "there")
        fill(here.store)
        with (
            portal.wrap_async_context_manager(here),
            portal.wrap_async_context_manager(there),
        ):
            for prefix, one in (("XNAT", here), ("XNAT_DEST", there)):
                monkeypatch.setenv(f"{prefix}_URL", one.url)
                monkeypatch.setenv(f"{prefix}_USER", "admin")
                monkeypatch.setenv(f"{prefix}_PASS", "admin")
            yield here, there


def drop(sandbox: Sandbox) -> None:
    store = sandbox.store
    session = store.find_experiment("SUB1_MR2", store.find_project("STUDY"))
    assert session is not None
    store.delete(session, remove_files=True)


def held(sandbox: Sandbox) -> bool:
    store = sandbox.store
    return store.find_experiment("SUB1_MR2", store.find_project("COPY")) is not None


def test_deletions_are_told_refused_above_the_limit_and_done_within_it(
    xnatctl: Call, ends: tuple[Sandbox, Sandbox], tmp_path: Path
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
    xnatctl: Call, ends: tuple[Sandbox, Sandbox], narrow: tuple[str, ...]
) -> None:
    refused = xnatctl(*LINE, "--yes", "--delete-extra", *narrow)
    assert refused.code == 2
    assert "--delete-extra needs the whole project" in refused.err


def test_who_says_no_at_the_prompt_keeps_what_is_there(
    xnatctl: Call, ends: tuple[Sandbox, Sandbox], monkeypatch: pytest.MonkeyPatch
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
