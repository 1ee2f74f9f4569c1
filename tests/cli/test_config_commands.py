"""`xnatctl config`, on a file in an empty home."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Call = Callable[..., Any]
URL = "https://xnat.example.org"


@pytest.fixture
def file(home: Path) -> Path:
    return home / ".config" / "xnatctl" / "config.yaml"


@pytest.fixture
def two(xnatctl: Call, file: Path) -> Path:
    """Profiles prod (the default) and dev."""
    assert xnatctl("config", "init", "--url", f"{URL}/", "--profile", "prod").code == 0
    more = ("--url", "http://dev", "--project", "P", "--timeout", "30", "--no-verify-ssl")
    assert xnatctl("config", "add-profile", "dev", *more).code == 0
    return file


def test_init_writes_a_first_profile_and_names_the_next_step(xnatctl: Call, file: Path) -> None:
    done = xnatctl("config", "init", "--url", f"{URL}/", "--project", "P", "-o", "json")
    assert done.code == 0
    assert done.json() == {"profile": "default", "url": URL, "default_project": "P"}
    assert "xnatctl auth login -p default" in done.err
    raw = yaml.safe_load(file.read_text())
    assert raw == {
        "version": 1,
        "default_profile": "default",
        "profiles": {"default": {"url": URL, "default_project": "P", "verify_ssl": True}},
    }
    assert file.stat().st_mode & 0o777 == 0o600


def test_init_replaces_a_profile_only_by_force(xnatctl: Call, two: Path) -> None:
    done = xnatctl("config", "init", "--url", "https://new", "--profile", "prod")
    assert (done.code, done.out) == (9, "")
    assert "--force" in done.err
    forced = xnatctl("config", "init", "--url", "https://new", "--profile", "prod", "--force")
    assert forced.code == 0
    raw = yaml.safe_load(two.read_text())
    assert raw["profiles"]["prod"]["url"] == "https://new"
    assert "dev" in raw["profiles"]


def test_init_by_force_mends_a_file_that_cannot_be_read_and_keeps_the_old_one(
    xnatctl: Call, file: Path
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("profiles: [")
    assert xnatctl("config", "init", "--url", URL).code == 2
    assert xnatctl("config", "init", "--url", URL, "--force").code == 0
    assert yaml.safe_load(file.read_text())["profiles"]["default"]["url"] == URL
    assert file.with_name("config.yaml.bak").read_text() == "profiles: ["


def test_init_without_an_address_and_without_a_terminal_says_what_to_add(xnatctl: Call) -> None:
    done = xnatctl("config", "init")
    assert done.code == 2
    assert "--url" in done.err


@pytest.mark.parametrize("url", ["xnat.example.org", "ftp://x", "https://u:pw12@x", "https://"])
def test_an_address_that_is_none_is_refused_and_nothing_is_written(
    xnatctl: Call, file: Path, url: str
) -> None:
    done = xnatctl("config", "add-profile", "p", "--url", url)
    assert done.code == 2
    assert "pw12" not in done.err
    assert not file.exists()


def test_profiles_are_added_switched_and_removed(xnatctl: Call, two: Path) -> None:
    assert xnatctl("config", "current-context").out == "prod\n"
    assert xnatctl("config", "use-context", "dev").code == 0
    assert xnatctl("config", "current-context").out == "dev\n"
    assert xnatctl("config", "add-profile", "dev", "--url", URL).code == 9
    assert xnatctl("config", "remove-profile", "prod", "--yes").code == 0
    assert xnatctl("config", "show", "-q").out == "dev\n"


def test_the_default_profile_is_not_removed(xnatctl: Call, two: Path) -> None:
    before = two.read_text()
    done = xnatctl("config", "remove-profile", "prod", "--yes")
    assert done.code == 2
    assert two.read_text() == before


def test_removing_needs_a_yes_and_a_dry_run_changes_nothing(xnatctl: Call, two: Path) -> None:
    before = two.read_text()
    assert xnatctl("config", "remove-profile", "dev", "--dry-run").code == 0
    done = xnatctl("config", "remove-profile", "dev")
    assert done.code == 2
    assert "add --yes" in done.err
    assert two.read_text() == before


@pytest.mark.parametrize("verb", ["use-context", "remove-profile"])
def test_an_unknown_profile_is_answered_with_the_nearest(
    xnatctl: Call, two: Path, verb: str
) -> None:
    done = xnatctl("config", verb, "prd")
    assert done.code == 2
    assert "did you mean 'prod'?" in done.err


def test_show_has_the_keys_of_the_contract_and_no_password(xnatctl: Call, two: Path) -> None:
    raw = yaml.safe_load(two.read_text())
    raw["profiles"]["prod"]["password"] = "hunter22"
    two.write_text(yaml.safe_dump(raw, sort_keys=False))
    done = xnatctl("config", "show", "-o", "json")
    document = done.json()
    assert document | {"default_profile": "prod", "profiles": ["prod", "dev"]} == document
    assert document["config_file"] == str(two)
    assert document["profile_details"]["dev"] == {
        "url": "http://dev",
        "verify_ssl": False,
        "timeout": 30.0,
        "default_project": "P",
    }
    shown = xnatctl("config", "show")
    assert "hunter22" not in done.out + done.err + shown.out + shown.err
    one = xnatctl("config", "show", "-p", "dev", "-o", "json").json()
    assert one["profiles"] == ["dev"]


def test_a_configuration_with_nothing_in_it_names_the_first_step(xnatctl: Call) -> None:
    for verb in ("show", "current-context"):
        done = xnatctl("config", verb)
        assert (done.code, done.out) == (2, "")
        assert "xnatctl config init" in done.err


def test_a_password_moves_from_the_file_into_the_keychain(
    xnatctl: Call, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[tuple[str, str], str] = {}
    chain = types.ModuleType("keyring")
    chain.set_password = lambda *entry: kept.update({entry[:2]: entry[2]})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", chain)
    raw = yaml.safe_load(two.read_text())
    raw["profiles"]["prod"]["password"] = "hunter22"
    two.write_text(yaml.safe_dump(raw))
    monkeypatch.setattr("sys.stdin", io.StringIO("better33\n"))
    done = xnatctl("config", "set-password", "prod", "--password-stdin")
    assert done.code == 0
    assert kept == {("xnatctl", f"prod@{URL}"): "better33"}
    profile = yaml.safe_load(two.read_text())["profiles"]["prod"]
    assert profile == {"url": URL, "verify_ssl": True, "password_source": "keyring"}


def test_a_keychain_that_is_not_installed_is_named_with_the_line_to_type(
    xnatctl: Call, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    done = xnatctl("config", "set-password", "prod", "--password-stdin")
    assert done.code == 2
    assert "pip install 'xnatctl[keyring]'" in done.err


def test_explain_says_where_each_value_comes_from(
    xnatctl: Call, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_USER", "me")
    monkeypatch.setenv("XNAT_PASS", "hunter22")
    done = xnatctl("config", "explain", "-p", "dev", "-o", "json")
    rows = {one["setting"]: (one["value"], one["origin"]) for one in done.json()}
    assert rows["url"] == ("http://dev", "profile dev")
    assert rows["username"] == ("me", "XNAT_USER")
    assert rows["password"] == ("***", "XNAT_PASS")
    assert rows["ca_bundle"] == (None, "default")
    assert "hunter22" not in done.out


def test_a_malformed_file_is_named_with_line_and_column(xnatctl: Call, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("profiles:\n  prod: {url: [}\n")
    done = xnatctl("whoami")
    assert done.code == 2
    assert f"error: {file} is not valid YAML" in done.err
    assert "line 2, column" in done.err
    assert "Traceback" not in done.err


def test_help_and_version_work_with_a_broken_file(xnatctl: Call, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("profiles: [")
    assert xnatctl("--help").code == 0
    assert xnatctl("--version").code == 0
    assert xnatctl("project", "list", "--help").code == 0


def test_a_format_in_the_file_is_used_unless_the_line_names_one(xnatctl: Call, two: Path) -> None:
    two.write_text(f"output_format: json\n{two.read_text()}")
    assert xnatctl("config", "show").out.startswith("{")
    assert xnatctl("config", "show", "-o", "tsv").out.startswith("profile\t")
