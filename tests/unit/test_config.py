"""Profiles, the environment and flags; the cached login; where passwords are found."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from xnatctl.config import Config, Overrides, load
from xnatctl.credentials import LoginCache, complete
from xnatctl.errors import ConfigError, LocalFault, MissingExtra

# As 0.6.0 writes it, with its six hours of time-out.
OLD_FILE = """\
version: 1
default_profile: prod
output_format: table
profiles:
  prod:
    url: https://xnat.example.org/
    verify_ssl: true
    timeout: 21600
    default_project: STUDY
    username: smith
    password: hunter22
    workers: 4
  dev:
    url: https://dev.example.org
    verify_ssl: false
    timeout: 30
    default_project: null
    password_source: keyring
log_file: /tmp/x.log
update_check: false
"""


def config(text: str, tmp_path: Path, environ: Mapping[str, str] | None = None) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return load(path, environ or {})


def test_a_file_of_0_6_0_loads_as_it_is(tmp_path: Path) -> None:
    loaded = config(OLD_FILE, tmp_path)
    assert loaded.warnings == ()
    server = loaded.resolve()
    assert (server.name, server.url) == ("prod", "https://xnat.example.org")
    assert (server.default_project, server.workers) == ("STUDY", 4)
    assert loaded.resolve("dev").verify_ssl is False


def test_the_six_hours_that_0_6_0_wrote_into_every_file_count_as_not_set(tmp_path: Path) -> None:
    loaded = config(OLD_FILE, tmp_path)
    assert loaded.resolve("prod").timeout is None
    assert loaded.resolve("dev").timeout == 30


def test_the_table_that_0_6_0_wrote_into_every_file_leaves_the_format_open(tmp_path: Path) -> None:
    assert config(OLD_FILE, tmp_path).output_format is None
    assert config("output_format: json\n", tmp_path).output_format == "json"


def test_a_missing_file_is_an_empty_configuration(tmp_path: Path) -> None:
    loaded = load(tmp_path / "none.yaml", {})
    assert loaded.profiles == {}
    with pytest.raises(ConfigError, match="no profile is configured"):
        loaded.resolve()


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"HOME": "/h"}, "/h/.config/xnatctl/config.yaml"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/xnatctl/config.yaml"),
        ({"HOME": "/h", "XNATCTL_CONFIG": "/y/my.yaml"}, "/y/my.yaml"),
    ],
)
def test_the_file_is_where_the_environment_says(environ: dict[str, str], path: str) -> None:
    assert load(environ=environ).path == Path(path)


def test_malformed_yaml_is_named_with_file_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config("profiles:\n  prod:\n    url: [a\n  x: y\n", tmp_path)
    assert "config.yaml is not valid YAML" in caught.value.message
    assert "line 4, column" in caught.value.why


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n", "is not a configuration"),
        ("profiles: 3\n", "profiles must be a mapping"),
        ("profiles: {prod: 3}\n", "profiles.prod must be a mapping"),
        ("profiles: {prod: {url: [1]}}\n", "profiles.prod.url must be a text"),
        ("profiles: {prod: {username: x}}\n", "profiles.prod has no url"),
        ("profiles: {prod: {url: ftp://x}}\n", "profiles.prod.url is not the address"),
        ("profiles: {prod: {url: 'https://u:p@x'}}\n", "must not carry a user name"),
        ("profiles: {p: {url: 'https://x', workers: many}}\n", "p.workers must be a whole number"),
        ("profiles: {p: {url: 'https://x', verify_ssl: maybe}}\n", "verify_ssl must be true or"),
        ("profiles: {p: {url: 'https://x:port'}}\n", "profiles.p.url is not a URL"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config(text, tmp_path)
    assert words in caught.value.message


def test_an_address_with_a_password_is_refused_without_repeating_the_password(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError) as caught:
        config("profiles: {prod: {url: 'https://u:hunter22@x'}}\n", tmp_path)
    assert "hunter22" not in str(caught.value)


def test_an_unknown_key_warns_with_the_nearest_one_and_fails_nothing(tmp_path: Path) -> None:
    loaded = config(
        "profiles: {prod: {url: 'https://x', defalt_project: A}}\ncolour: 1\n", tmp_path
    )
    assert any("'profiles.prod.defalt_project'" in one for one in loaded.warnings)
    assert any("did you mean 'default_project'?" in one for one in loaded.warnings)
    assert any("'colour'" in one for one in loaded.warnings)


def test_quoted_numbers_and_words_for_true_are_understood(tmp_path: Path) -> None:
    text = "profiles: {prod: {url: 'https://x', workers: '8', verify_ssl: 'no', timeout: '5'}}\n"
    server = config(text, tmp_path).resolve("prod")
    assert (server.workers, server.verify_ssl, server.timeout) == (8, False, 5.0)


def test_an_unknown_profile_is_answered_with_the_nearest_and_the_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config(OLD_FILE, tmp_path).resolve("prd")
    assert "did you mean 'prod'?" in caught.value.why
    assert "dev, prod" in caught.value.why
    assert caught.value.exit_code == 2


def test_a_readable_file_with_a_password_warns(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(OLD_FILE)
    path.chmod(0o644)
    assert any("chmod 600" in one for one in load(path, {}).warnings)


# -- the environment ---------------------------------------------------------------------------


def test_xnat_url_is_used_whatever_the_default_profile_is_called(tmp_path: Path) -> None:
    server = config(OLD_FILE, tmp_path, {"XNAT_URL": "https://env.example.org/"}).resolve()
    assert (server.name, server.url) == ("default", "https://env.example.org")
    assert server.origin["url"] == "XNAT_URL"


def test_xnat_url_does_not_get_the_secrets_of_the_default_profile(tmp_path: Path) -> None:
    server = config(OLD_FILE, tmp_path, {"XNAT_URL": "https://env.example.org"}).resolve()
    assert complete(server, {}).password is None


def test_a_profile_that_is_named_comes_before_xnat_url(tmp_path: Path) -> None:
    loaded = config(OLD_FILE, tmp_path, {"XNAT_URL": "https://env.example.org"})
    assert loaded.resolve("dev").url == "https://dev.example.org"


def test_xnat_profile_names_the_profile(tmp_path: Path) -> None:
    assert config(OLD_FILE, tmp_path, {"XNAT_PROFILE": "dev"}).resolve().name == "dev"


def test_a_flag_comes_before_the_environment_and_that_before_the_profile(tmp_path: Path) -> None:
    environ = {"XNAT_USER": "env", "XNAT_TIMEOUT": "7"}
    loaded = config(OLD_FILE, tmp_path, environ)
    assert loaded.resolve().username == "env"
    assert loaded.resolve().origin["username"] == "XNAT_USER"
    assert loaded.resolve().timeout == 7
    flagged = loaded.resolve(flags=Overrides(username="flag"))
    assert (flagged.username, flagged.origin["username"]) == ("flag", "flag")
    assert config(OLD_FILE, tmp_path).resolve().origin["username"] == "profile prod"


@pytest.mark.parametrize("word", ["maybe", "2"])
def test_a_switch_that_is_neither_true_nor_false_is_refused(word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="XNAT_VERIFY_SSL must be true or false"):
        config(OLD_FILE, tmp_path, {"XNAT_VERIFY_SSL": word}).resolve()


def test_the_credentials_of_the_source_never_reach_a_destination(tmp_path: Path) -> None:
    environ = {"XNAT_USER": "src", "XNAT_PASS": "srcpass", "XNAT_TOKEN": "srctoken"}
    server = config(OLD_FILE, tmp_path, environ).resolve("dev", role="destination")
    assert (server.username, server.password, server.token) == (None, None, None)


def test_a_destination_has_variables_of_its_own(tmp_path: Path) -> None:
    environ = {
        "XNAT_DEST_URL": "https://dest.example.org",
        "XNAT_DEST_USER": "d",
        "XNAT_DEST_PASS": "dp",
    }
    server = config(OLD_FILE, tmp_path, environ).resolve(role="destination")
    assert (server.url, server.username, server.password) == (
        "https://dest.example.org",
        "d",
        "dp",
    )
    assert config(OLD_FILE, tmp_path, environ).resolve().username == "smith"


def test_a_command_with_no_destination_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no destination was named") as caught:
        config(OLD_FILE, tmp_path).resolve(role="destination")
    assert "--dest-profile" in caught.value.hint


def test_no_secret_is_in_the_repr_of_a_server(tmp_path: Path) -> None:
    environ = {"XNAT_PASS": "topsecret", "XNAT_TOKEN": "tokensecret"}
    loaded = config(OLD_FILE, tmp_path, environ)
    shown = repr(loaded) + repr(loaded.resolve()) + repr(loaded.profiles)
    assert not any(one in shown for one in ("topsecret", "tokensecret", "hunter22"))


# -- writing -----------------------------------------------------------------------------------


def test_saving_keeps_keys_that_nobody_knows_and_is_for_the_owner_only(tmp_path: Path) -> None:
    loaded = config(OLD_FILE + "colour: red\n", tmp_path)
    loaded.with_profile("new", {"url": "https://new.example.org"}).save()
    again = load(loaded.path, {})
    assert again.raw["colour"] == "red"
    assert again.raw["profiles"]["prod"]["workers"] == 4
    assert again.resolve("new").url == "https://new.example.org"
    assert loaded.path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["config.yaml"]


def test_the_first_profile_becomes_the_default(tmp_path: Path) -> None:
    loaded = load(tmp_path / "deep" / "config.yaml", {})
    loaded.with_profile("prod", {"url": "https://x"}).save()
    assert load(loaded.path, {}).current == "prod"


def test_changing_one_configuration_leaves_the_old_one_alone(tmp_path: Path) -> None:
    loaded = config(OLD_FILE, tmp_path)
    loaded.without_profile("dev")
    assert "dev" in loaded.raw["profiles"]


def test_a_file_of_a_later_version_is_not_overwritten(tmp_path: Path) -> None:
    loaded = config(OLD_FILE.replace("version: 1", "version: 2"), tmp_path)
    with pytest.raises(ConfigError, match="was not changed"):
        loaded.with_default("dev").save()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((ConfigError, LocalFault)) as caught:
        load(tmp_path / "file" / "config.yaml", {}).with_profile("a", {"url": "https://x"}).save()
    assert "config.yaml" in caught.value.message


# -- logins and passwords ----------------------------------------------------------------------


def test_a_login_is_kept_in_the_form_of_0_6_0(tmp_path: Path) -> None:
    cache = LoginCache(tmp_path / ".session")
    cache.keep(url="https://a", username="u", token="T1")
    raw = json.loads(cache.path.read_text())
    assert {"version", "token", "url", "username", "created_at", "expires_at"} <= raw.keys()
    assert (raw["version"], raw["token"]) == (1, "T1")
    assert cache.path.stat().st_mode & 0o777 == 0o600
    assert datetime.fromisoformat(raw["expires_at"]) > datetime.now()


def test_a_login_that_0_6_0_wrote_is_used(tmp_path: Path) -> None:
    now = datetime.now()
    old = {
        "version": 1,
        "token": "OLD",
        "url": "https://a",
        "username": "u",
        "created_at": (now - timedelta(minutes=60)).isoformat(),
        "expires_at": (now + timedelta(minutes=5)).isoformat(),
        "last_used_at": (now - timedelta(minutes=10)).isoformat(),
    }
    path = tmp_path / ".session"
    path.write_text(json.dumps(old))
    path.chmod(0o600)
    found = LoginCache(path).find("https://a", "u")
    assert found is not None
    assert found.token == "OLD"


def test_logins_to_two_servers_are_kept_beside_each_other(tmp_path: Path) -> None:
    cache = LoginCache(tmp_path / ".session")
    cache.keep(url="https://a", username="u", token="TA")
    cache.keep(url="https://b", username="u", token="TB")
    first, second = cache.find("https://a"), cache.find("https://b")
    assert first is not None
    assert second is not None
    assert (first.token, second.token) == ("TA", "TB")
    cache.forget("https://b")
    assert cache.find("https://b") is None
    assert cache.find("https://a") is not None


def test_a_login_of_another_user_is_not_used(tmp_path: Path) -> None:
    cache = LoginCache(tmp_path / ".session")
    cache.keep(url="https://a", username="u", token="TA")
    assert cache.find("https://a", "v") is None


def test_a_login_that_was_idle_too_long_is_not_used(tmp_path: Path) -> None:
    cache = LoginCache(tmp_path / ".session")
    cache.keep(url="https://a", username="u", token="TA")
    raw = json.loads(cache.path.read_text())
    raw["last_used_at"] = (datetime.now() - timedelta(minutes=16)).isoformat()
    cache.path.write_text(json.dumps(raw))
    assert cache.find("https://a") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "token": "x"}', '{"token": "x"}'])
def test_a_broken_cache_is_no_login_and_no_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / ".session"
    path.write_text(text)
    path.chmod(0o600)
    assert LoginCache(path).find("https://a") is None


def test_a_cache_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    cache = LoginCache(tmp_path / ".session")
    cache.keep(url="https://a", username="u", token="TA")
    cache.path.chmod(0o644)
    assert cache.find("https://a") is None


def test_a_password_comes_from_the_environment_before_any_other_place(tmp_path: Path) -> None:
    environ = {"XNAT_PASS": "env"}
    assert complete(config(OLD_FILE, tmp_path, environ).resolve(), environ).password == "env"


def test_netrc_comes_before_the_profile(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine xnat.example.org login smith password fromnetrc\n")
    netrc.chmod(0o600)
    server = complete(config(OLD_FILE, tmp_path).resolve(), {"NETRC": str(netrc)})
    assert (server.password, server.origin["password"]) == ("fromnetrc", str(netrc))


def test_netrc_of_another_user_is_passed_over(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine xnat.example.org login jones password fromnetrc\n")
    netrc.chmod(0o600)
    server = complete(config(OLD_FILE, tmp_path).resolve(), {"NETRC": str(netrc)})
    assert server.password == "hunter22"


def test_a_netrc_that_others_can_read_is_refused_with_the_cure(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine xnat.example.org login smith password fromnetrc\n")
    netrc.chmod(0o644)
    with pytest.raises(ConfigError, match="was not used") as caught:
        complete(config(OLD_FILE, tmp_path).resolve(), {"NETRC": str(netrc)})
    assert caught.value.hint.startswith("chmod 600")


def test_a_password_in_a_configuration_that_others_can_read_is_refused_with_the_cure(
    tmp_path: Path,
) -> None:
    found = config(OLD_FILE, tmp_path)
    found.path.chmod(0o640)
    with pytest.raises(ConfigError, match="was not used") as caught:
        complete(found.resolve(), {"XNATCTL_CONFIG": str(found.path), "HOME": str(tmp_path)})
    assert caught.value.hint == f"chmod 600 {found.path}"


def test_a_credential_command_is_asked_before_the_password_in_the_file(tmp_path: Path) -> None:
    text = OLD_FILE.replace("workers: 4", "credential_command: echo fromcommand")
    loaded = config(text, tmp_path)
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    assert complete(loaded.resolve(), environ).password == "fromcommand"


def test_a_credential_command_that_fails_says_how(tmp_path: Path) -> None:
    text = OLD_FILE.replace("workers: 4", "credential_command: sh -c 'echo no key >&2; exit 3'")
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    with pytest.raises(ConfigError) as caught:
        complete(config(text, tmp_path).resolve(), environ)
    assert "exit code 3: no key" in caught.value.why


def test_the_password_of_a_profile_is_not_used_for_another_user(tmp_path: Path) -> None:
    environ = {"XNAT_USER": "jones", "HOME": str(tmp_path)}
    assert complete(config(OLD_FILE, tmp_path, environ).resolve(), environ).password is None


def test_a_profile_whose_password_is_in_the_keychain_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(MissingExtra) as caught:
        complete(config(OLD_FILE, tmp_path).resolve("dev"), {"HOME": str(tmp_path)})
    assert caught.value.hint == "pip install 'xnatctl[keyring]'"
