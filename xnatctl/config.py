"""Profiles: named servers in a YAML file, and how a flag, the environment and a profile add up.

What lives here: reading and writing `~/.config/xnatctl/config.yaml`, checking it, and `resolve`,
which turns a profile name and flags into a `Server`. What may not: the network, and secrets that
cost something to get (netrc, a credential command, the keychain): those are in `credentials`.

A value is taken from the first place that has it: flag, environment, profile, default. The place is
kept in `Server.origin`, so that it can be shown.

1. Which server: `--profile`; `XNAT_PROFILE`; `XNAT_URL`, a server of its own named `default`,
   whatever the default profile is called; the file's `default_profile`.
2. A destination has its own variables (`XNAT_DEST_URL`, `_USER`, `_PASS`, `_TOKEN`): those of the
   source never reach it, or a password of one site would be posted to another.
3. A password belongs to a user name: a profile's password is not used for another user.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from xnatctl.errors import ConfigError, LocalFault

Role = Literal["source", "destination"]
Environ = Mapping[str, str]

VERSION = 1
# A value that 0.6.0 wrote into every profile, whether asked to or not: six hours without a byte
# would hide every stall, so it counts as "not set".
OLD_DEFAULT_TIMEOUT = 21600.0

_TOP: dict[str, type] = {
    "version": int,
    "default_profile": str,
    "output_format": str,
    "log_file": str,
    "update_check": bool,
    "profiles": dict,
}
_PROFILE: dict[str, type] = {
    "url": str,
    "username": str,
    "password": str,
    "password_source": str,
    "credential_command": str,
    "verify_ssl": bool,
    "ca_bundle": str,
    "timeout": float,
    "default_project": str,
    "workers": int,
    "overwrite": str,
    "direct_archive": bool,
    "archive_mode": str,
    "extract": bool,
}
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


@dataclass(frozen=True, slots=True)
class Profile:
    """One named server as the file has it; None where the file says nothing."""

    name: str
    url: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_source: str | None = None
    credential_command: str | None = None
    verify_ssl: bool | None = None
    ca_bundle: str | None = None
    timeout: float | None = None
    default_project: str | None = None
    workers: int | None = None
    overwrite: str | None = None
    direct_archive: bool | None = None
    archive_mode: str | None = None
    extract: bool | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """Where to connect and as whom. `url` has no trailing slash; `timeout` is seconds without a
    byte, None for the default.

    `password` is None until something named one: a flag, the environment, or `credentials`.
    `origin` says where each value came from: `flag`, the name of a variable, `profile prod`,
    `default`.
    """

    name: str
    url: str
    role: Role = "source"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    verify_ssl: bool = True
    ca_bundle: str | None = None
    timeout: float | None = None
    default_project: str | None = None
    workers: int | None = None
    profile: Profile | None = field(default=None, repr=False)
    origin: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What flags say of a server; None where no flag was given."""

    url: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    verify_ssl: bool | None = None
    ca_bundle: str | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The file as it was read, and the environment beside it. Changing methods return a new one."""

    path: Path
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    default_profile: str = "default"
    output_format: str | None = None
    log_file: str | None = None
    warnings: tuple[str, ...] = ()
    environ: Environ = field(default_factory=dict, repr=False)

    @property
    def current(self) -> str:
        """The name of the server that a command without `--profile` talks to."""
        if name := self.environ.get("XNAT_PROFILE"):
            return name
        return "default" if self.environ.get("XNAT_URL") else self.default_profile

    def profile(self, name: str) -> Profile:
        """Raises ConfigError, with the names that exist, when there is no such profile."""
        if found := self.profiles.get(name):
            return found
        if not self.profiles:
            raise ConfigError(
                f"there is no profile {name!r}",
                why=f"no profile is configured in {self.path}",
                hint="xnatctl config init --url https://xnat.example.org",
            )
        from difflib import get_close_matches

        close = get_close_matches(name, self.profiles, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"there is no profile {name!r}",
            why=f"{meant}profiles in {self.path}: {', '.join(sorted(self.profiles))}",
            hint=f"xnatctl config add-profile {name} --url https://xnat.example.org",
        )

    def resolve(
        self, name: str | None = None, *, role: Role = "source", flags: Overrides = Overrides()
    ) -> Server:
        """The server that `name` (the current one if None), the environment and flags mean.

        Raises ConfigError for an unknown profile, a URL that is none, or a variable that cannot
        be understood.
        """
        profile, url_variable = self._chosen(name, role, flags)
        prefix = "XNAT_" if role == "source" else "XNAT_DEST_"
        pick = _Picker(self.environ, profile, flags)
        username = pick.text("username", prefix + "USER")
        password = pick.given("password", prefix + "PASS")
        server = Server(
            name=profile.name,
            role=role,
            url=check_url(pick.text("url", url_variable) or "", f"profiles.{profile.name}.url"),
            username=username,
            password=password,
            token=pick.given("token", prefix + "TOKEN"),
            verify_ssl=pick.boolean("verify_ssl", prefix + "VERIFY_SSL", default=True),
            ca_bundle=pick.text("ca_bundle", prefix + "CA_BUNDLE"),
            timeout=pick.number("timeout", prefix + "TIMEOUT"),
            default_project=pick.text("default_project", ""),
            workers=pick.count("workers"),
            profile=profile,
            origin=pick.origin,
        )
        if profile.url and server.url != profile.url.rstrip("/"):
            # Another server than the profile's: its secrets are not for this one.
            return replace(server, profile=None)
        return server

    def _chosen(self, name: str | None, role: Role, flags: Overrides) -> tuple[Profile, str]:
        """The profile, and the variable that stands in for its address, if one does."""
        if role == "destination":
            if name:
                return self.profile(name), ""
            if url := flags.url or self.environ.get("XNAT_DEST_URL"):
                return Profile("destination", url=url), "XNAT_DEST_URL"
            raise ConfigError(
                "no destination was named",
                why="neither a profile nor a URL says where to write",
                hint="add --dest-profile NAME, or set XNAT_DEST_URL",
            )
        url = self.environ.get("XNAT_URL")
        chosen = name or self.current
        if url and chosen == "default":
            return Profile("default", url=url), "XNAT_URL"
        if flags.url and chosen not in self.profiles:
            return Profile(chosen, url=flags.url), ""
        return self.profile(chosen), ""

    def with_profile(
        self,
        name: str,
        values: Mapping[str, Any],
        *,
        default: bool = False,
        without: Iterable[str] = (),
    ) -> Config:
        """A profile added or changed; its keys that are not named stay as they were."""
        raw = _deep(self.raw)
        profiles = raw.setdefault("profiles", {})
        kept = {key: one for key, one in profiles.get(name, {}).items() if key not in without}
        profiles[name] = {**kept, **values}
        if default:
            raw["default_profile"] = name
        return _parse(raw, self.path, self.environ)

    def without_profile(self, name: str) -> Config:
        self.profile(name)
        raw = _deep(self.raw)
        del raw["profiles"][name]
        return _parse(raw, self.path, self.environ)

    def with_default(self, name: str) -> Config:
        self.profile(name)
        return _parse({**_deep(self.raw), "default_profile": name}, self.path, self.environ)

    def save(self) -> None:
        """Write the file anew, whole or not at all, readable by its owner only."""
        import yaml

        version = self.raw.get("version", VERSION)
        if isinstance(version, int) and version > VERSION:
            raise ConfigError(
                f"{self.path} was not changed",
                why=f"it is of version {version}, and this program knows {VERSION}",
                hint="update xnatctl, or edit the file by hand",
            )
        raw = {"version": VERSION, "default_profile": self.default_profile, **self.raw}
        text = yaml.safe_dump(raw, sort_keys=False, default_flow_style=False, allow_unicode=True)
        write_private(self.path, text)


class _Picker:
    """Takes each value from the first place that has it, and notes the place."""

    def __init__(self, environ: Environ, profile: Profile, flags: Overrides) -> None:
        self.environ = environ
        self.profile = profile
        self.flags = flags
        self.origin: dict[str, str] = {}

    def _first(self, name: str, variable: str, *, from_profile: bool = True) -> tuple[Any, str]:
        if (flag := getattr(self.flags, name, None)) is not None:
            return flag, "flag"
        if variable and (value := self.environ.get(variable)):
            return value, variable
        if from_profile and (known := getattr(self.profile, name)) is not None:
            return known, f"profile {self.profile.name}"
        return None, "default"

    def text(self, name: str, variable: str) -> str | None:
        value, self.origin[name] = self._first(name, variable)
        return None if value is None else str(value)

    def count(self, name: str) -> int | None:
        value, self.origin[name] = self._first(name, "")
        return None if value is None else int(value)

    def given(self, name: str, variable: str) -> str | None:
        """A secret that a flag or the environment hands over; a profile's is looked up later."""
        value, place = self._first(name, variable, from_profile=False)
        if value is not None:
            self.origin[name] = place
        return None if value is None else str(value)

    def boolean(self, name: str, variable: str, *, default: bool) -> bool:
        value, place = self._first(name, variable)
        self.origin[name] = place
        return default if value is None else bool(_typed(value, bool, place))

    def number(self, name: str, variable: str) -> float | None:
        value, place = self._first(name, variable)
        self.origin[name] = place
        if value is None:
            return None
        number = float(_typed(value, float, place))
        return None if number == OLD_DEFAULT_TIMEOUT and place.startswith("profile") else number


def directory(environ: Environ) -> Path:
    """The folder of the configuration: that of XNATCTL_CONFIG, else below XDG_CONFIG_HOME."""
    if explicit := environ.get("XNATCTL_CONFIG"):
        return Path(explicit).expanduser().parent
    base = environ.get("XDG_CONFIG_HOME") or str(_home(environ) / ".config")
    return Path(base) / "xnatctl"


def path_of(environ: Environ) -> Path:
    """The file of the configuration, whether it exists or not."""
    if explicit := environ.get("XNATCTL_CONFIG"):
        return Path(explicit).expanduser()
    return directory(environ) / "config.yaml"


def load(path: Path | None = None, environ: Environ | None = None) -> Config:
    """Read the configuration; a missing file is an empty one.

    Raises ConfigError, with line and column or with the path of the key, when it makes no sense.
    """
    environ = os.environ if environ is None else environ
    path = path or path_of(environ)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _parse({}, path, environ)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} cannot be read", why=f"byte {error.start} is not UTF-8", hint=f"edit {path}"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", why=error.strerror or str(error)) from error
    config = _parse(_yaml(text, path), path, environ)
    return replace(config, warnings=config.warnings + _exposed(config))


def _yaml(text: str, path: Path) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        raw = yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise ConfigError(
            f"{path} is not valid YAML",
            why=f"{where}: {error.problem or error.context}",
            hint=f"edit {path}",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML", why=str(error).splitlines()[0]) from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path} is not a configuration",
            why="its top level must be a mapping such as `profiles:`",
            hint=f"edit {path}",
        )
    return raw


def _parse(raw: dict[str, Any], path: Path, environ: Environ) -> Config:
    """Check every known key, warn of every unknown one."""
    warnings: list[str] = []
    top = _checked(raw, _TOP, "", path, warnings)
    profiles: dict[str, Profile] = {}
    for key, value in (top.get("profiles") or {}).items():
        where = f"profiles.{key}"
        if not isinstance(value, dict):
            raise _wrong(path, where, "a mapping with at least `url:`", value)
        fields = _checked(value, _PROFILE, where, path, warnings)
        if not fields.get("url"):
            raise ConfigError(
                f"{path}: {where} has no url",
                why="a profile needs the address of its server",
                hint=f"add `url: https://…` below {where}",
            )
        check_url(fields["url"], f"{path}: {where}.url")
        profiles[str(key)] = Profile(name=str(key), **fields)
    only = next(iter(profiles)) if len(profiles) == 1 else "default"
    shape = top.get("output_format")
    return Config(
        path=path,
        raw=raw,
        profiles=profiles,
        default_profile=top.get("default_profile") or only,
        # 0.6.0 writes `table` into every file: the default, which depends on the terminal here.
        output_format=None if shape == "table" else shape,
        log_file=top.get("log_file"),
        warnings=tuple(warnings),
        environ=environ,
    )


def _checked(
    raw: Mapping[Any, Any], known: Mapping[str, type], where: str, path: Path, warnings: list[str]
) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, value in raw.items():
        at = f"{where}.{key}" if where else str(key)
        kind = known.get(str(key))
        if kind is None:
            from difflib import get_close_matches

            close = get_close_matches(str(key), known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            warnings.append(f"{path}: the key {at!r} is unknown and ignored{meant}")
        elif value is not None:
            checked[str(key)] = value if kind is dict else _typed(value, kind, f"{path}: {at}")
            if kind is dict and not isinstance(value, dict):
                raise _wrong(path, at, "a mapping", value)
    return checked


def _typed(value: Any, kind: type, where: str) -> Any:
    """`value` as `kind`; quoted numbers and yes/no texts are understood, as 0.6.0 did."""
    if kind is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if kind is bool:
        word = str(value).strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
    elif kind in (int, float) and not isinstance(value, bool):
        try:
            return kind(value)
        except (TypeError, ValueError):
            pass
    raise ConfigError(f"{where} must be {_WORDS[kind]}", why=f"it is {value!r}")


def _wrong(path: Path, where: str, wanted: str, value: object) -> ConfigError:
    return ConfigError(f"{path}: {where} must be {wanted}", why=f"it is {value!r}")


def _exposed(config: Config) -> tuple[str, ...]:
    named = sorted(name for name, one in config.profiles.items() if one.password)
    if not named or os.name != "posix" or not config.path.stat().st_mode & 0o077:
        return ()
    return (
        f"{config.path} holds a password ({', '.join(named)}) and others can read it: "
        f"chmod 600 {config.path}",
    )


def check_url(url: str, where: str) -> str:
    """The URL of a server without its trailing slashes. Raises ConfigError when it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{where} is not a URL", why=f"{url!r}: {error}") from error
    if parts.username or parts.password:
        raise ConfigError(
            f"{where} must not carry a user name or a password",
            why="addresses end up in logs",
            hint="use `username:` in the profile and xnatctl auth login",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"{where} is not the address of a server",
            why=f"{url!r} does not begin with http:// or https:// and a host",
            hint="write it as https://xnat.example.org",
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"{where} must end with its path", why=f"{url!r} has a ? or a #")
    return url.rstrip("/")


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner can read it. Raises LocalFault."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LocalFault(
            f"{path} could not be written",
            why=error.strerror or str(error),
            hint="check the folder's rights and free space, or set XNATCTL_CONFIG",
        ) from error


def _home(environ: Environ) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def _deep(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested mappings, so that a changed configuration leaves the old one alone."""
    return {key: _deep(value) if isinstance(value, dict) else value for key, value in raw.items()}
