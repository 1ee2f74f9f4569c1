"""Manners that hold for every command: how much it says, where it looks, what it does not do."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncclick as click
import pytest
from anyio.from_thread import start_blocking_portal

from tests.unit.wire import wire
from xnatctl.cli.options import SPAN

Call = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("signed_in")


def test_once_verbose_says_more_and_twice_shows_every_request(xnatctl: Call) -> None:
    quiet, more, most = (xnatctl("project", "list", *words) for words in ((), ("-v",), ("-vv",)))
    assert quiet.err == ""
    assert quiet.out == more.out == most.out
    assert "GET /data/projects" not in more.err
    assert "/data/projects?format=json -> 200" in most.err


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(wire()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("XNAT_URL", "http://xnat.example.test")
        monkeypatch.setenv("XNAT_TOKEN", "0123456789ABCDEF")
        words = [sys.executable, "-m", "xnatctl", "api", "get", "/data/version"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert proxy.asked[0].path.startswith("http://xnat.example.test/data/version")


def test_the_versions_are_one_object_and_no_server_is_asked(
    xnatctl: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_URL", "http://127.0.0.1:9")
    done = xnatctl("version", "--json")
    assert done.code == 0
    found = done.json()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"xnatctl", "aiohttp", "pynetdicom", "isal", "keyring"} <= set(found)
    assert done.out == xnatctl("version", "-o", "json").out


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("30s", 30), ("5m", 300), ("2h", 7200), ("1.5 d", 129600)]
)
def test_a_duration_has_a_unit_or_is_in_seconds(text: str, seconds: float) -> None:
    assert SPAN.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "h", "5 weeks", "-3s", "inf", "nan"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(click.BadParameter, match="30s, 5m or 2h"):
        SPAN.convert(text, None, None)


def test_creating_shows_its_plan_and_creates_nothing(xnatctl: Call) -> None:
    done = xnatctl("project", "create", "PLANNED", "--dry-run", "-o", "json")
    assert done.code == 0
    assert [(row["action"], row["target"]) for row in done.json()] == [
        ("create", "project PLANNED")
    ]
    assert xnatctl("project", "show", "PLANNED").code == 5


def test_variables_are_set_on_every_session_of_a_batch(xnatctl: Call, tmp_path: Path) -> None:
    batch = tmp_path / "sessions.txt"
    batch.write_text("SUB1_MR1\nSUB2_MR1\n")
    words = ("session", "vars", "set", "-P", "STUDY", "rater=Kim", "--batch", str(batch), "--yes")
    done = xnatctl(*words, "-o", "json")
    assert done.code == 0, done.err
    assert [row["status"] for row in done.json()] == ["done", "done"]
    for label in ("SUB1_MR1", "SUB2_MR1"):
        shown = xnatctl("session", "vars", "-P", "STUDY", "-E", label, "-o", "json").json()
        assert {"name": "rater", "value": "Kim"} in shown


def test_setting_variables_of_nothing_says_what_to_name(xnatctl: Call) -> None:
    done = xnatctl("session", "vars", "set", "-P", "STUDY", "rater=Kim", "--yes")
    assert done.code == 2
    assert "--batch FILE" in done.err


def test_a_no_at_the_prompt_exits_7_and_changes_nothing(xnatctl: Call) -> None:
    master, slave = pty.openpty()
    os.write(master, b"n\n")
    words = [sys.executable, "-m", "xnatctl", "subject", "delete", "SUB2", "-P", "STUDY"]
    done = subprocess.run(
        words, stdin=slave, capture_output=True, text=True, timeout=30, check=False
    )
    os.close(master)
    os.close(slave)
    assert (done.returncode, done.stdout) == (7, "")
    assert "[y/N]" in done.stderr
    assert xnatctl("subject", "show", "SUB2", "-P", "STUDY").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("scan", "delete", "-P", "STUDY", "-E", "SUB1_MR1", "-s", "3", "--dry-run"),
        ("pipeline", "jobs", "-e", "SANDBOX_E00001"),
        ("pipeline", "jobs", "-s", "Running"),
        ("admin", "refresh-catalogs", "STUDY", "-e", "SUB1_MR1", "--dry-run"),
    ],
)
def test_letters_that_0_6_0_announced_to_go_still_work(
    xnatctl: Call, words: tuple[str, ...]
) -> None:
    assert xnatctl(*words, "-o", "json").code == 0


def test_scans_may_be_named_one_by_one(xnatctl: Call, tmp_path: Path) -> None:
    words = ("-P", "STUDY", "-E", "SUB1_MR1", "-S", "SUB1", "--scans", "3", "--scans", "10")
    done = xnatctl("scan", "download", *words, "--out", str(tmp_path), "-o", "json")
    assert (done.code, [item["id"] for item in done.json()["items"]]) == (0, ["3", "10"])


def test_a_project_that_is_nearly_named_is_said(xnatctl: Call) -> None:
    done = xnatctl("subject", "list", "-P", "STUDI")
    assert done.code == 5
    assert done.err.splitlines()[1:] == [
        "  why: did you mean STUDY?",
        "  fix: xnatctl project list",
    ]


def test_a_session_that_is_missing_names_the_command_that_lists_them(xnatctl: Call) -> None:
    done = xnatctl("session", "show", "-P", "STUDY", "-E", "NOPE")
    assert "fix: xnatctl session list -P STUDY" in done.err


def test_every_error_of_a_program_is_one_object_with_its_code(xnatctl: Call) -> None:
    for words in (("project", "show", "NOPE"), ("project", "show"), ("session", "list")):
        done = xnatctl(*words, "-o", "json")
        found = json.loads(done.err)
        assert found["code"] == done.code != 0
        assert {"message", "why", "hint", "retryable", "error"} <= set(found)
