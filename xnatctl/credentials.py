"""Secrets: where a password comes from, and the login that is kept between two commands.

A password is looked for in this order, and the first place that has one wins: what `config.resolve`
already found (standard input, a flag file, the environment); netrc; the profile's
`credential_command`; the profile's `password`; the keychain. The cached login stands between the
environment and netrc: who names a password wants that one tried.

The cache `.session` keeps the form that 0.6.0 reads and writes: one JSON object with version,
token, url, username and naive local times. Logins to further servers stand in `also`, a key which
0.6.0 passes over. A token is good for 15 minutes after its last use (XNAT's default); a server that
disagrees answers 401 and the caller logs in again. Processes that need a login at the same time
take turns (`LoginCache.turn`): one logs in, and the others find what it got.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio

from xnatctl.config import Environ, Profile, Server, path_of, write_private
from xnatctl.errors import ConfigError, MissingExtra

IDLE_MINUTES = 15
KEYCHAIN = "xnatctl"


@dataclass(frozen=True, slots=True)
class Login:
    """A cached login. Times are local and naive, as 0.6.0 writes them."""

    token: str
    url: str
    username: str
    created: datetime
    used: datetime

    def __repr__(self) -> str:
        return f"Login(url={self.url!r}, username={self.username!r}, token=…)"

    @property
    def expires(self) -> datetime:
        return self.used + timedelta(minutes=IDLE_MINUTES)


class LoginCache:
    """The file of cached logins. Unreadable, foreign or exposed content counts as no login."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, url: str, username: str | None = None) -> Login | None:
        """The login to `url`, as `username` if one is named, unless it has been idle too long."""
        login = self.latest(url, username)
        return login if login is not None and datetime.now() < login.expires else None

    def latest(self, url: str, username: str | None = None) -> Login | None:
        """The same, though it has been idle too long."""
        fits = (one for one in self._read() if one.url == url)
        return next((one for one in fits if username in (None, one.username)), None)

    def keep(self, *, url: str, username: str, token: str) -> Login:
        """Store a login, or note that it was used just now."""
        now = datetime.now()
        others = [one for one in self._read() if (one.url, one.username) != (url, username)]
        known = self.find(url, username)
        created = known.created if known and known.token == token else now
        login = Login(token, url, username, created, now)
        fresh = [one for one in others if now < one.expires]
        self._write([login, *fresh])
        return login

    def forget(self, url: str, username: str | None = None) -> Login | None:
        """Remove the login and return it, if there was one."""
        logins = self._read()
        gone = [one for one in logins if one.url == url and username in (None, one.username)]
        if gone:
            self._write([one for one in logins if one not in gone])
        return gone[0] if gone else None

    @asynccontextmanager
    async def turn(self, patience_s: float = 10.0) -> AsyncIterator[None]:
        """While inside, no other process is in here: a lock that ends with its process.

        Who has waited for `patience_s` goes on without it, and so does who cannot have one.
        """
        lock = self._open_lock()
        try:
            with anyio.move_on_after(patience_s):
                while lock is not None and not _is_locked(lock):  # noqa: ASYNC110 - another process
                    await anyio.sleep(0.05)
            yield
        finally:
            if lock is not None:
                os.close(lock)

    def _open_lock(self) -> int | None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError:
            return None

    def _read(self) -> list[Login]:
        try:
            if os.name == "posix" and self.path.stat().st_mode & 0o077:
                return []
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            also = raw.get("also") or []
            return [_login(one) for one in (raw, *also) if one.get("token")]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []

    def _write(self, logins: list[Login]) -> None:
        if not logins:
            self.path.unlink(missing_ok=True)
            return
        first, *others = [_row(one) for one in logins]
        document = {"version": 1, **first} | ({"also": others} if others else {})
        write_private(self.path, json.dumps(document))


def _is_locked(lock: int) -> bool:
    """Whether the lock is ours now; where the system knows no such locks, it always is."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _login(raw: Mapping[str, Any]) -> Login:
    if raw.get("version", 1) != 1:
        raise ValueError("a cache of another version")
    created = datetime.fromisoformat(raw["created_at"])
    used = raw.get("last_used_at")
    return Login(
        token=str(raw["token"]),
        url=str(raw["url"]),
        username=str(raw["username"]),
        created=created,
        used=datetime.fromisoformat(used) if used else created,
    )


def _row(login: Login) -> dict[str, str]:
    return {
        "token": login.token,
        "url": login.url,
        "username": login.username,
        "created_at": login.created.isoformat(),
        "expires_at": login.expires.isoformat(),
        "last_used_at": login.used.isoformat(),
    }


def complete(server: Server, environ: Environ) -> Server:
    """The server with user name and password, as far as any place knows them.

    May block (a command, a keychain): call it in a thread. Raises ConfigError when a place was
    configured and failed, MissingExtra when the keychain is asked for and not installed.
    """
    if server.password is not None:
        return server
    for look in (_from_netrc, _from_command, _from_profile, _from_keychain):
        if found := look(server, environ):
            user, password, place = found
            return replace(
                server,
                username=user or server.username,
                password=password,
                origin={**server.origin, "password": place},
            )
    return server


Found = tuple[str | None, str, str] | None


def netrc_path(environ: Environ) -> Path:
    if explicit := environ.get("NETRC"):
        return Path(explicit).expanduser()
    return Path(environ.get("HOME") or Path.home()) / ".netrc"


def _from_netrc(server: Server, environ: Environ) -> Found:
    path = netrc_path(environ)
    if not path.is_file():
        return None
    import netrc

    try:
        entry = netrc.netrc(str(path)).authenticators(urlsplit(server.url).hostname or "")
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read", why=str(error), hint=f"edit {path}, or set XNAT_PASS"
        ) from error
    if not entry or not entry[2]:
        return None
    if server.username and entry[0] and entry[0] != server.username:
        return None
    _refuse_exposed(path)
    return entry[0] or None, entry[2], str(path)


def _from_command(server: Server, environ: Environ) -> Found:
    profile = _owner(server)
    if profile is None or not profile.credential_command:
        return None
    try:
        done = subprocess.run(
            shlex.split(profile.credential_command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=dict(environ),
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ConfigError(
            f"the credential_command of profile {profile.name} could not be run", why=str(error)
        ) from error
    password = done.stdout.splitlines()[0] if done.stdout.strip() else ""
    if done.returncode or not password:
        said = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        raise ConfigError(
            f"the credential_command of profile {profile.name} gave no password",
            why=f"exit code {done.returncode}: {said[0]}",
        )
    return None, password, f"credential_command of profile {profile.name}"


def _from_profile(server: Server, environ: Environ) -> Found:
    profile = _owner(server)
    if profile is None or profile.password_source == "keyring" or not profile.password:
        return None
    _refuse_exposed(path_of(environ))
    return None, profile.password, f"profile {profile.name}"


def _refuse_exposed(path: Path) -> None:
    """A password that others can read is not used, so that it is noticed."""
    if os.name == "posix" and path.exists() and path.stat().st_mode & 0o077:
        raise ConfigError(
            f"the password in {path} was not used",
            why="others can read it",
            hint=f"chmod 600 {path}",
        )


def _from_keychain(server: Server, environ: Environ) -> Found:
    profile = _owner(server)
    if profile is None or profile.password_source != "keyring":
        return None
    password = keychain().get_password(KEYCHAIN, keychain_name(profile))
    if password is None:
        raise ConfigError(
            f"the keychain has no password for profile {profile.name}",
            why="the profile says `password_source: keyring`",
            hint=f"xnatctl config set-password {profile.name}",
        )
    return None, str(password), "keychain"


def keychain_name(profile: Profile) -> str:
    """The entry of a profile: its name and address, as 0.6.0 spells it."""
    return f"{profile.name}@{profile.url}"


def keychain() -> Any:
    """The keychain's module. Raises MissingExtra where it is not installed."""
    try:
        import keyring
    except ImportError as error:
        raise MissingExtra(
            "the keychain cannot be used",
            why="the package keyring is not installed",
            hint="pip install 'xnatctl[keyring]'",
        ) from error
    return keyring


def _owner(server: Server) -> Profile | None:
    """The profile whose secrets are meant for this user of this server."""
    profile = server.profile
    if profile is None:
        return None
    if profile.username and server.username and profile.username != server.username:
        return None
    return profile
