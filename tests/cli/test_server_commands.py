"""The commands about the server itself, against a sandbox: admin, api, tokens, doctor, help."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from xnatctl.cli.admin import oldest
from xnatctl.cli.api import full_path
from xnatctl.cli.topics import TOPICS
from xnatctl.errors import UsageError
from xnatctl.sandbox.server import Sandbox

Call = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("signed_in")


# --- users and members ---------------------------------------------------------------------------


@pytest.fixture
def kim(server: Sandbox) -> str:
    server.accounts.add("kim", "secret")
    return "kim"


def test_a_user_is_given_a_role_and_loses_it(xnatctl: Call, kim: str) -> None:
    grant = ("project", "grant", "STUDY", kim, "--role", "member")
    planned = xnatctl(*grant, "--dry-run", "-o", "json").json()
    assert planned[0]["target"] == "kim member of STUDY"
    assert xnatctl(*grant, "--yes").code == 0
    rows = xnatctl("project", "users", "STUDY", "-o", "json").json()
    assert {row["username"]: row["role"] for row in rows}["kim"] == "member"
    assert "already" in xnatctl(*grant, "--yes").err
    assert xnatctl("project", "revoke", "STUDY", kim, "--yes").code == 0
    assert xnatctl("project", "users", "STUDY", "-q").out.split() == ["admin"]
    assert xnatctl("project", "revoke", "STUDY", kim, "--yes").code == 5


def test_a_name_that_the_server_does_not_know_is_not_mailed(xnatctl: Call, server: Sandbox) -> None:
    done = xnatctl("project", "grant", "STUDY", "nobody@example.org", "--role", "member", "--yes")
    assert done.code == 5
    assert "invitation" in done.err
    assert not server.store.record("mails", "all")


def test_users_are_listed_shown_and_put_into_groups(xnatctl: Call, kim: str) -> None:
    row = xnatctl("admin", "user", "list", "--filter", "username:kim", "-o", "json").json()[0]
    assert row.keys() == {"username", "email", "enabled", "verified", "last_login"}
    assert xnatctl("admin", "user", "show", kim, "-o", "json").json()["username"] == "kim"
    assert xnatctl("admin", "user", "add", kim, "--projects", "STUDY").code == 0
    groups = xnatctl("admin", "user", "groups", kim, "-o", "json").json()
    assert groups == [{"group": "STUDY_member"}]
    assert xnatctl("admin", "user", "remove", kim, "-P", "STUDY", "--yes").code == 0
    assert xnatctl("admin", "user", "groups", kim, "-o", "json").json() == []
    assert xnatctl("admin", "user", "show", "nobody").code == 5


def test_sessions_of_a_user_are_listed_and_ended(xnatctl: Call, server: Sandbox, kim: str) -> None:
    user = server.accounts.user(kim)
    assert user is not None
    server.accounts.open(user)
    rows = xnatctl("admin", "user", "list", "--active", "-o", "json").json()
    assert {row["username"]: row["sessions"] for row in rows}["kim"] == 1
    assert xnatctl("admin", "user", "kill-sessions", kim, "--yes").code == 0
    assert server.accounts.held(kim) in (0, [])


def test_roles_are_listed(xnatctl: Call) -> None:
    roles = xnatctl("admin", "user", "roles", "admin", "-o", "json").json()
    assert roles == [{"role": "Administrator"}]


# --- the site ------------------------------------------------------------------------------------


def test_the_version_needs_no_login(xnatctl: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XNAT_USER")
    monkeypatch.delenv("XNAT_PASS")
    assert xnatctl("admin", "version", "-o", "json").json()["version"] == "1.8.10"
    assert xnatctl("admin", "version", "-q").out == "1.8.10\n"


def test_plugins_are_listed_with_or_without_the_verb(xnatctl: Call) -> None:
    listed = xnatctl("admin", "plugins", "list", "-o", "json").json()
    assert xnatctl("admin", "plugins", "-o", "json").json() == listed
    assert listed[0].keys() == {"id", "name", "version"}
    shown = xnatctl("admin", "plugins", "show", listed[0]["id"], "-o", "json").json()
    assert shown["id"] == listed[0]["id"]
    assert xnatctl("admin", "plugins", "show", "nope").code == 5


def test_a_site_setting_is_shown(xnatctl: Call) -> None:
    assert xnatctl("admin", "site-config", "get", "siteId", "-q").out == "SANDBOX\n"
    assert xnatctl("admin", "site-config", "get", "-o", "json").json()["siteId"] == "SANDBOX"
    assert xnatctl("admin", "site-config", "get", "nope").code == 5


def test_catalogs_are_refreshed_experiment_by_experiment(xnatctl: Call, server: Sandbox) -> None:
    done = xnatctl("admin", "refresh-catalogs", "STUDY", "-o", "json")
    document = done.json()
    assert done.code == 0
    assert document.keys() == {"project", "refreshed", "failed", "count"}
    assert document["count"] == len(document["refreshed"]) > 2
    one = xnatctl("admin", "refresh-catalogs", "STUDY", "-E", "SUB1_MR1", "-o", "json").json()
    assert one["count"] == 1
    assert xnatctl("admin", "refresh-catalogs", "STUDY", "-e", "NOPE").code == 5
    assert xnatctl("admin", "refresh-catalogs", "NOPE").code == 5


def test_a_dry_run_refreshes_nothing(xnatctl: Call, server: Sandbox) -> None:
    before = server.counters.count("POST", "refresh")
    rows = xnatctl("admin", "refresh-catalogs", "STUDY", "--limit", "1", "--dry-run", "-o", "json")
    assert len(rows.json()) == 1
    assert server.counters.count("POST", "refresh") == before


def test_the_audit_tells_what_was_done(xnatctl: Call) -> None:
    assert xnatctl("admin", "audit", "-P", "EMPTY", "-o", "json").out == "[]\n"
    label = "AUDITED"
    xnatctl("session", "rename", "-P", "STUDY", "-E", "SUB2_MR1", "--to", label)
    rows = xnatctl("admin", "audit", "-P", "STUDY", "--since", "1d", "-o", "json").json()
    assert rows[0].keys() >= {"timestamp", "user", "action", "resource", "project"}
    assert (rows[0]["resource"], rows[0]["project"]) == (label, "STUDY")
    none = xnatctl("admin", "audit", "-P", "STUDY", "--action", "no such", "-o", "json")
    assert none.json() == []


def test_since_is_a_span_or_a_date() -> None:
    now = datetime(2024, 3, 8, 12, tzinfo=UTC)
    assert oldest("7d", now) == "2024-03-01 12:00:00"
    assert oldest("90m", now) == "2024-03-08 10:30:00"
    assert oldest("2024-01-31") == "2024-01-31 00:00:00"
    with pytest.raises(UsageError):
        oldest("soon")


# --- any request ---------------------------------------------------------------------------------


def test_a_get_prints_the_json_of_the_server(xnatctl: Call) -> None:
    document = xnatctl("api", "get", "/data/projects/STUDY").json()
    assert document["items"][0]["data_fields"]["ID"] == "STUDY"
    assert xnatctl("api", "get", "data/projects").code == 0


def test_a_get_of_a_list_can_be_a_table(xnatctl: Call) -> None:
    words = ("/data/projects/STUDY/subjects", "--params", "columns=ID,label")
    out = xnatctl("api", "get", *words, "-o", "csv").out
    assert out.splitlines()[0].startswith("ID,label")
    assert len(out.splitlines()) == 3


def test_text_is_printed_as_it_is(xnatctl: Call) -> None:
    assert xnatctl("api", "get", "/data/projects/STUDY/prearchive_code").out == "4\n"
    assert xnatctl("api", "get", "/data/projects/STUDY?format=xml").out.startswith("<?xml")


def test_bytes_go_into_a_file_and_never_to_the_terminal(xnatctl: Call, tmp_path: Path) -> None:
    number = xnatctl("session", "show", "-P", "STUDY", "-E", "SUB1_MR1", "-q").out.strip()
    path = f"/data/experiments/{number}/resources/NOTES/files?format=zip"
    done = xnatctl("api", "get", path)
    assert (done.code, done.out) == (2, "")
    assert "--out" in done.err
    out = tmp_path / "notes.zip"
    assert xnatctl("api", "get", path, "--out", str(out)).code == 0
    assert out.read_bytes().startswith(b"PK")
    assert [one.name for one in tmp_path.glob("*.part")] == []


def test_a_failed_get_leaves_no_file(xnatctl: Call, tmp_path: Path) -> None:
    assert xnatctl("api", "get", "/data/projects/NOPE", "--out", str(tmp_path / "x")).code == 5
    assert list(tmp_path.glob("x*")) == []


def test_a_file_is_put_with_its_bytes(
    xnatctl: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "/data/projects/STUDY/resources/API/files/a.bin"
    assert xnatctl("api", "put", "/data/projects/STUDY/resources/API").code == 0
    source = tmp_path / "a.bin"
    source.write_bytes(b"\x00\xff\x00")
    assert xnatctl("api", "put", place, "--file", str(source)).code == 0
    out = tmp_path / "back"
    assert xnatctl("api", "get", place, "--out", str(out)).code == 0
    assert out.read_bytes() == b"\x00\xff\x00"
    assert xnatctl("api", "delete", "/data/projects/STUDY/resources/API", "--yes").code == 0


def test_a_dry_run_of_a_put_sends_nothing(xnatctl: Call) -> None:
    plan = xnatctl("api", "put", "/data/projects/NEWONE", "--dry-run", "-o", "json").json()
    assert plan[0]["action"] == "PUT"
    assert xnatctl("project", "show", "NEWONE").code == 5


def test_a_body_comes_from_a_pipe_with_variables_left_alone(
    xnatctl: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pipe:
        buffer = io.BytesIO(b"<script>$HOME</script>")

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stdin", Pipe())
    place = "/data/projects/STUDY/resources/PIPE/files/s.txt"
    xnatctl("api", "put", "/data/projects/STUDY/resources/PIPE")
    assert xnatctl("api", "put", place, "-d", "-", "-t", "text/plain").code == 0
    assert xnatctl("api", "get", place).out == "<script>$HOME</script>\n"


def test_an_address_of_another_server_is_refused(xnatctl: Call) -> None:
    done = xnatctl("api", "get", "https://elsewhere.example/data/projects")
    assert done.code == 2
    assert "xnatctl api get /data/projects" in done.err


@pytest.mark.parametrize(
    ("method", "path", "params", "has_body", "full"),
    [
        ("GET", "/data/projects", (), False, "/data/projects?format=json"),
        ("GET", "/data/projects?format=xml", (), False, "/data/projects?format=xml"),
        ("GET", "/xapi/users", (), False, "/xapi/users"),
        ("GET", "/data/x/files/a b.txt", (), False, "/data/x/files/a%20b.txt"),
        ("PUT", "/data/x/files/a", (), True, "/data/x/files/a?inbody=true"),
        ("PUT", "/data/x/files/a", ("inbody=false",), True, "/data/x/files/a?inbody=false"),
        ("PUT", "/data/x", ("a/b[c=d]/e=f&g",), False, "/data/x?a/b[c=d]/e=f%26g"),
    ],
)
def test_a_path_gets_what_xnat_needs_and_no_more(
    method: str, path: str, params: tuple[str, ...], has_body: bool, full: str
) -> None:
    assert full_path(method, path, params, has_body=has_body) == full


# --- tokens --------------------------------------------------------------------------------------


def test_a_token_logs_in_until_it_is_revoked(
    xnatctl: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = xnatctl("auth", "token", "issue", "-o", "json").json()
    assert token.keys() == {"alias", "secret", "username", "expires"}
    listed = xnatctl("auth", "token", "list", "-o", "json").json()
    assert token["alias"] in [row["alias"] for row in listed]
    assert token["secret"] not in json.dumps(listed)
    with monkeypatch.context() as alone:
        alone.setenv("XNAT_USER", token["alias"])
        alone.setenv("XNAT_PASS", token["secret"])
        assert xnatctl("whoami", "-q").out == "admin\n"
    assert xnatctl("auth", "token", "revoke", token["alias"]).code == 2
    assert xnatctl("auth", "token", "revoke", token["alias"], "--yes").code == 0
    assert xnatctl("auth", "token", "revoke", token["alias"], "--yes").code == 5
    with monkeypatch.context() as alone:
        alone.setenv("XNAT_USER", token["alias"])
        alone.setenv("XNAT_PASS", token["secret"])
        assert xnatctl("whoami").code == 3


# --- doctor, help, completion --------------------------------------------------------------------


def test_the_doctor_finds_nothing_wrong_here(xnatctl: Call) -> None:
    done = xnatctl("doctor", "-o", "json")
    assert done.code == 0
    found = {row["check"]: row["status"] for row in done.json()}
    assert found | {"configuration": "OK", "name": "OK", "connection": "OK", "login": "OK"} == found


def test_the_doctor_names_a_wrong_password_and_the_fix(
    xnatctl: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_PASS", "wrong")
    done = xnatctl("doctor", "-o", "json")
    assert done.code == 1
    (row,) = [row for row in done.json() if row["status"] == "FAIL"]
    assert row["check"] == "login"
    assert row["fix"] == "correct what XNAT_PASS says: it comes before a kept login"


def test_the_doctor_goes_on_without_a_configuration(
    xnatctl: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XNAT_URL")
    done = xnatctl("doctor", "-o", "json")
    assert done.code == 1
    found = {row["check"]: row["status"] for row in done.json()}
    assert found["configuration"] == "FAIL"
    assert "work folder" in found


def test_the_doctor_closes_files_that_others_may_read(xnatctl: Call, home: Path) -> None:
    kept = home / ".config" / "xnatctl" / ".session"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("{}")
    kept.chmod(0o644)
    shown = {row["check"]: row for row in xnatctl("doctor", "-o", "json").json()}
    assert shown["rights of .session"]["status"] == "WARN"
    xnatctl("doctor", "--fix")
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_can_be_read(xnatctl: Call, topic: str) -> None:
    assert xnatctl("help", topic).out == TOPICS[topic]
    assert topic in xnatctl("help").out


def test_help_of_a_command_is_its_help(xnatctl: Call) -> None:
    assert "xnatctl project grant STUDY" in xnatctl("help", "project", "grant").out
    done = xnatctl("help", "exit-code")
    assert done.code == 2
    assert "xnatctl help exit-codes" in done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_calls_the_program_back(xnatctl: Call, shell: str) -> None:
    done = xnatctl("completion", shell)
    assert (done.code, done.err) == (0, "")
    assert f"_XNATCTL_COMPLETE={shell}_complete" in done.out


# --- a running sandbox ---------------------------------------------------------------------------


def test_a_fault_is_added_met_listed_and_cleared(xnatctl: Call, server: Sandbox) -> None:
    added = xnatctl(
        *("sandbox", "fault", "add", "GET /data/projects*", "status", "--nth", "1"),
        *("--status", "403", "-o", "json"),
    )
    assert added.code == 0, added.err
    assert added.json() | {"kind": "status", "status": 403, "nth": 1} == added.json()
    assert xnatctl("project", "list").code == 6
    assert xnatctl("project", "list").code == 0
    rows = xnatctl("sandbox", "fault", "list", "-o", "json").json()
    assert [row["fired"] for row in rows] == [1]
    assert xnatctl("sandbox", "fault", "clear").code == 0
    assert xnatctl("sandbox", "fault", "list", "-o", "json").json() == []


def test_a_fault_that_makes_no_sense_is_refused_in_words(xnatctl: Call) -> None:
    done = xnatctl("sandbox", "fault", "add", "GET /x", "explode")
    assert done.code == 2
    assert "explode" in done.err
    kinds = xnatctl("sandbox", "fault", "kinds", "-q").out.split()
    assert {"cut", "stall", "status"} <= set(kinds)


def test_a_sandbox_is_inspected(xnatctl: Call) -> None:
    assert "SUB1" in json.dumps(xnatctl("sandbox", "inspect", "-P", "STUDY").json())
    assert xnatctl("sandbox", "inspect", "--counters").json()
