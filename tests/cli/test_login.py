"""Who we are at a server: logins that are kept, ended, refused and passed over."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.cli.conftest import process
from xnatctl.cli.app import App
from xnatctl.credentials import LoginCache

Call = Callable[..., Any]


@pytest.fixture
def profile(xnatctl: Call, server: Any) -> str:
    """A profile `lab` for the sandbox, with a user name and no password."""
    done = xnatctl("config", "add-profile", "lab", "--url", server.url, "-u", "admin")
    assert done.code == 0
    return "lab"


def type_password(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_a_login_is_kept_for_the_next_commands(
    xnatctl: Call, profile: str, server: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert xnatctl("whoami").code == 3
    type_password(monkeypatch, "admin\n")
    done = xnatctl("auth", "login", "--password-stdin", "-o", "json")
    assert done.code == 0
    document = done.json()
    assert document | {"status": "authenticated", "username": "admin", "profile": "lab"} == document
    assert document.keys() >= {"requested_username", "url", "expires_at"}
    cache = home / ".config" / "xnatctl" / ".session"
    assert cache.stat().st_mode & 0o777 == 0o600
    before = json.loads(cache.read_text())["token"]
    sessions = len(server.accounts.sessions)
    shown = xnatctl("whoami", "-o", "json").json()
    assert len(server.accounts.sessions) == sessions
    assert shown["username"] == "admin"
    assert shown.keys() == {"username", "server", "profile", "default_project", "auth_mode"}
    assert json.loads(cache.read_text())["token"] == before


def test_logging_out_ends_the_session_here_and_at_the_server(
    xnatctl: Call, profile: str, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_password(monkeypatch, "admin\n")
    xnatctl("auth", "login", "--password-stdin")
    token = json.loads((Path.home() / ".config/xnatctl/.session").read_text())["token"]
    assert xnatctl("auth", "logout").code == 0
    assert xnatctl("whoami").code == 3
    monkeypatch.setenv("XNAT_TOKEN", token)
    assert xnatctl("whoami").code == 3
    monkeypatch.delenv("XNAT_TOKEN")
    again = xnatctl("auth", "logout")
    assert again.code == 0
    assert "no session is kept" in again.err


def test_a_wrong_password_exits_3_and_keeps_nothing(
    xnatctl: Call, profile: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_password(monkeypatch, "wrong\n")
    done = xnatctl("auth", "login", "--password-stdin")
    assert (done.code, done.out) == (3, "")
    assert "lab refused the login of admin" in done.err
    assert "wrong" not in done.err.replace("is wrong", "")
    assert not (home / ".config" / "xnatctl" / ".session").exists()


def test_a_password_that_was_named_is_tried_even_where_a_login_is_kept(
    xnatctl: Call, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_password(monkeypatch, "admin\n")
    xnatctl("auth", "login", "--password-stdin")
    monkeypatch.setenv("XNAT_PASS", "wrong")
    done = xnatctl("whoami")
    assert done.code == 3
    assert "fix: correct what XNAT_PASS says" in done.err


def test_a_login_of_the_environment_is_ended_with_the_command(
    xnatctl: Call, signed_in: Any, home: Path
) -> None:
    before = len(signed_in.accounts.sessions)
    for _ in range(3):
        assert xnatctl("whoami").code == 0
    assert len(signed_in.accounts.sessions) == before
    assert not (home / ".config" / "xnatctl" / ".session").exists()


def test_a_kept_login_that_the_server_ended_is_replaced_without_a_word(
    xnatctl: Call, profile: str, server: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = home / ".config" / "xnatctl" / "config.yaml"
    config.write_text(config.read_text() + "    password: admin\n")
    assert xnatctl("whoami").code == 0
    cache = home / ".config" / "xnatctl" / ".session"
    stale = json.loads(cache.read_text())
    stale["token"] = "0" * 32
    cache.write_text(json.dumps(stale))
    done = xnatctl("whoami")
    assert (done.code, done.err) == (0, "")
    assert json.loads(cache.read_text())["token"] != "0" * 32


def test_a_kept_login_that_the_server_ended_is_forgotten_when_no_password_is_known(
    xnatctl: Call, profile: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_password(monkeypatch, "admin\n")
    xnatctl("auth", "login", "--password-stdin")
    cache = home / ".config" / "xnatctl" / ".session"
    stale = json.loads(cache.read_text())
    stale["token"] = "0" * 32
    cache.write_text(json.dumps(stale))
    assert xnatctl("whoami").code == 3
    assert not cache.exists()


def test_a_token_of_the_environment_needs_no_password(
    xnatctl: Call, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_password(monkeypatch, "admin\n")
    xnatctl("auth", "login", "--password-stdin")
    cache = Path.home() / ".config/xnatctl/.session"
    monkeypatch.setenv("XNAT_TOKEN", json.loads(cache.read_text())["token"])
    cache.unlink()
    assert xnatctl("whoami", "-q").out == "admin\n"
    assert xnatctl("whoami", "-q").out == "admin\n"
    assert not cache.exists()


def test_a_password_on_the_command_line_is_refused_before_anything_else(xnatctl: Call) -> None:
    done = xnatctl("auth", "login", "--password", "hunter22")
    assert done.code == 2
    assert "error: --password is refused" in done.err
    assert "hunter22" not in done.err


def test_an_empty_pipe_is_no_password(
    xnatctl: Call, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_password(monkeypatch, "")
    assert xnatctl("auth", "login", "--password-stdin").code == 2


def test_a_password_that_nobody_can_type_names_the_ways_to_give_it(
    xnatctl: Call, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_password(monkeypatch, "")
    done = xnatctl("auth", "login")
    assert done.code == 2
    assert "--password-stdin" in done.err


def test_the_status_of_a_login_asks_no_server(
    xnatctl: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("XNAT_PASS", "secret1")
    done = xnatctl("auth", "status", "-o", "json")
    assert done.json() == {
        "url": "http://127.0.0.1:1",
        "env_username": "(not set)",
        "env_password": "(set)",
        "env_token": "(not set)",
        "session_cached": False,
    }
    assert "secret1" not in done.out


def test_a_login_is_tested(xnatctl: Call, signed_in: Any) -> None:
    document = xnatctl("auth", "test", "-o", "json").json()
    login = {"status": "authenticated", "url": signed_in.url, "username": "admin"}
    assert document == {
        **login,
        "firstname": "Admin",
        "lastname": "Sandbox",
        "email": "admin@localhost",
        "enabled": True,
    }


def test_a_ping_tells_of_the_server_and_of_the_login(
    xnatctl: Call, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_URL", server.url)
    stranger = xnatctl("health", "ping", "-o", "json")
    assert stranger.code == 0
    assert stranger.json() | {"url": server.url, "status": "ok", "authenticated": False} == (
        stranger.json()
    )
    assert isinstance(stranger.json()["latency_ms"], int)
    monkeypatch.setenv("XNAT_USER", "admin")
    monkeypatch.setenv("XNAT_PASS", "admin")
    assert xnatctl("health", "ping", "-o", "json").json()["authenticated"] is True


def test_a_server_that_does_not_answer_exits_4_and_says_which(
    xnatctl: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("xnatctl.retry.Backoff.pause", lambda *_: 0.0)
    done = xnatctl("health", "ping")
    assert (done.code, done.out) == (4, "")
    assert "http://127.0.0.1:1" in done.err


def test_the_configuration_names_a_log_file_when_nothing_else_does(
    xnatctl: Call, profile: str, home: Path, tmp_path: Path
) -> None:
    config = home / ".config" / "xnatctl" / "config.yaml"
    config.write_text(f"log_file: {tmp_path}/c.log\n" + config.read_text())
    xnatctl("auth", "status")
    assert json.loads((tmp_path / "c.log").read_text())["message"] == "xnatctl auth status"
    xnatctl("auth", "status", "--log-file", f"{tmp_path}/f.log")
    assert len((tmp_path / "c.log").read_text().splitlines()) == 1
    assert (tmp_path / "f.log").exists()


def test_no_secret_reaches_the_log(xnatctl: Call, signed_in: Any, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    done = xnatctl("whoami", "-vv", "--log-file", str(log))
    text = log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines
    assert all({"at", "level", "logger", "message"} <= one.keys() for one in lines)
    assert "YWRtaW46YWRtaW4" not in text + done.err


# --- many processes ------------------------------------------------------------------------------


@pytest.fixture
def known(xnatctl: Call, server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A profile whose password every command can find, so that each may log in."""
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    netrc = tmp_path / "netrc"
    netrc.touch(0o600)
    netrc.write_text("machine 127.0.0.1 login admin password admin\n")
    assert xnatctl("config", "add-profile", "lab", "--url", server.url, "-u", "admin").code == 0


def logins(server: Any) -> int:
    found: int = server.counters.count("POST", "/JSESSION")
    return found


def test_processes_that_start_together_share_one_login(known: None, server: Any) -> None:
    before = logins(server)
    running = [process("project", "list", "-q") for _ in range(4)]
    for one in running:
        out, err = one.communicate(timeout=60)
        assert (one.returncode, err) == (0, "")
        assert "STUDY" in out
    assert logins(server) == before + 1


def test_a_login_that_ends_under_all_of_them_is_renewed_once(
    known: None, server: Any, xnatctl: Call
) -> None:
    assert xnatctl("whoami").code == 0
    before = logins(server)

    async def together() -> None:
        waiting, gone = [], anyio.Event()

        async def command(number: int) -> None:
            async with App().xnat() as xnat:
                await xnat.whoami()
                waiting.append(number)
                if len(waiting) == 5:
                    server.accounts.sessions.clear()
                    gone.set()
                await gone.wait()
                await anyio.sleep(number * 0.05)  # one after another: each leaves before the next
                await xnat.list_projects()

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(command, number)

    anyio.run(together)
    assert logins(server) == before + 1


def test_who_cannot_have_the_turn_goes_on_without_it(tmp_path: Path) -> None:
    async def both() -> float:
        cache = LoginCache(tmp_path / ".session")
        async with cache.turn():
            started = anyio.current_time()
            async with cache.turn(patience_s=0.1):
                return anyio.current_time() - started

    assert 0.1 <= anyio.run(both) < 5


def test_a_login_that_was_kept_too_long_is_said_to_have_ended(
    xnatctl: Call, profile: str, server: Any, home: Path
) -> None:
    cache = home / ".config" / "xnatctl" / ".session"
    moment = "2024-03-01T12:00:00"
    login = {"version": 1, "token": "x" * 32, "url": server.url, "username": "admin"}
    cache.write_text(json.dumps({**login, "created_at": moment, "last_used_at": moment}))
    cache.chmod(0o600)
    done = xnatctl("project", "list")
    assert done.code == 3
    assert "that of admin ended at 12:15, and no password is known" in done.err


def test_an_address_with_https_of_a_server_without_is_named_as_the_reason(
    xnatctl: Call, signed_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_URL", signed_in.url.replace("http:", "https:"))
    done = xnatctl("whoami")
    assert done.code == 4
    assert "or name it with http://" in done.err
