"""`xnatctl sandbox serve`, as a process: what it says, what it keeps, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


def serve(root: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "xnatctl", "sandbox", "serve"),
            *("--port", "0", "--root", str(root), *more),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def address(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


def stop(
    started: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM
) -> tuple[str, str]:
    started.send_signal(number)
    return started.communicate(timeout=10)


def test_a_sandbox_is_served_until_a_signal_and_finds_its_data_again(
    xnatctl: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_USER", "admin")
    monkeypatch.setenv("XNAT_PASS", "mine")
    commands = {signal.SIGINT: ("project", "create", "KEPT"), signal.SIGTERM: ("project", "list")}
    for number, command in commands.items():
        started = serve(tmp_path / "data", "-q", "--user", "admin:mine")
        try:
            monkeypatch.setenv("XNAT_URL", address(started))
            done = xnatctl(*command, "-q")
        finally:
            _, err = stop(started, number)
        assert (started.returncode, err) == (0, "")
        assert done.code == 0, done.err
    assert done.out == "KEPT\n"


def test_what_a_person_must_know_is_said_and_a_program_gets_one_object(tmp_path: Path) -> None:
    started = serve(tmp_path / "one")
    assert address(started).startswith("Sandbox at http://127.0.0.1:")
    _, err = stop(started)
    assert "Login: admin / admin" in err
    assert str(tmp_path / "one") in err
    started = serve(tmp_path / "two", "-o", "json")
    assert started.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        text += started.stdout.readline()
    stop(started)
    document = json.loads(text)
    assert document["url"].startswith("http://127.0.0.1:")
    assert document["users"] == ["admin"]


def test_a_seed_is_planted_once(
    xnatctl: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_USER", "admin")
    monkeypatch.setenv("XNAT_PASS", "admin")
    for _ in range(2):
        started = serve(tmp_path / "data", "-q", "--seed", "large:2x1x1x3@1k")
        try:
            monkeypatch.setenv("XNAT_URL", address(started))
            listed = xnatctl("session", "list", "-P", "LARGE", "-q")
        finally:
            stop(started)
        assert len(listed.out.split()) == 2


def test_what_servers_differ_in_can_be_set(
    xnatctl: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = serve(
        tmp_path, "-q", "--set", "version=1.9.2", "--set", "require_login=no", "--set", "sweep_s=9"
    )
    try:
        monkeypatch.setenv("XNAT_URL", address(started))
        found = xnatctl("health", "ping", "-o", "json").json()
        with urllib.request.urlopen(f"{os.environ['XNAT_URL']}/data/projects") as answer:
            assert answer.status == 200
    finally:
        stop(started)
    assert "1.9.2" in json.dumps(found)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("--seed", "nonsense"), 2, "the seed 'nonsense' cannot be read"),
        (("--seed", "large:many"), 2, "cannot be read"),
        (("--set", "patience=1"), 2, "there are site_id, version"),
        (("--set", "require_login=perhaps"), 2, "it is yes or no"),
        (("--set", "archive_s=soon"), 2, "it is like 0.0"),
        (("--user", "nobody"), 2, "--user cannot be understood"),
        (("--root", "/proc/nowhere"), 1, "/proc/nowhere"),
        (("--port", "99999"), 2, "99999"),
    ],
)
def test_what_a_sandbox_cannot_use_is_named(
    xnatctl: Call, tmp_path: Path, argv: tuple[str, ...], code: int, words: str
) -> None:
    done = xnatctl("sandbox", "serve", "--port", "0", "--root", str(tmp_path / "data"), *argv)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert "Traceback" not in done.err


def test_a_port_in_use_is_named_with_what_to_do(xnatctl: Call, server: Any, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]
    done = xnatctl("sandbox", "serve", "--port", port, "--root", str(tmp_path / "data"))
    assert done.code == 1
    assert f"127.0.0.1:{port}" in done.err
    assert "choose another port" in done.err


def test_an_address_is_all_that_the_window_needs(xnatctl: Call, server: Any) -> None:
    here = ("--url", server.url)
    match = ("GET /data/projects*", "status", "--status", "503")
    added = xnatctl("sandbox", "fault", "add", *match, *here, "-o", "json")
    assert (added.code, added.err) == (0, "")
    listed = xnatctl("sandbox", "fault", "list", *here, "-o", "json").json()
    assert [one["id"] for one in listed] == [added.json()["id"]]
    cleared = xnatctl("sandbox", "fault", "clear", str(listed[0]["id"]), *here)
    assert cleared.code == 0
    assert f"fault {listed[0]['id']} (GET /data/projects*) met nothing" in cleared.err
    assert xnatctl("sandbox", "fault", "list", *here, "-o", "json").json() == []
    assert "cut" in xnatctl("sandbox", "fault", "kinds", *here, "-q").out.split()
    tree = xnatctl("sandbox", "inspect", *here, "-P", "STUDY").json()
    assert [one["id"] for one in tree["projects"]] == ["STUDY"]
    assert xnatctl("sandbox", "inspect", *here, "--counters").json()["requests"]


def test_a_fault_that_makes_no_sense_is_refused_in_a_sentence(xnatctl: Call, server: Any) -> None:
    done = xnatctl("sandbox", "fault", "add", "GET", "cut", "--url", server.url)
    assert done.code == 2
    assert "'GET' matches nothing: give a method and a path" in done.err
    assert "<" not in done.err


def test_an_address_that_is_none_is_named(xnatctl: Call) -> None:
    done = xnatctl("sandbox", "inspect", "--url", "ftp://here")
    assert done.code != 0
    assert "--url" in done.err and "Traceback" not in done.err
