"""What of a project is meant: the options that narrow it, and the YAML file that does the same.

The file's form is that of 0.6.0's `project transfer --config`, whose files load unchanged:

    source_project: STUDY
    dest_project: STUDY
    filtering:
      imaging_sessions:
        sync_type: include            # all, none, include, exclude
        xsi_types:
          - xsi_type: xnat:mrSessionData
            scan_types: {sync_type: exclude, items: [localizer]}
            scan_resources: {sync_type: include, items: [DICOM, NIFTI]}
            resources: {sync_type: all}
            session_assessors: {sync_type: none}
      project_resources: {sync_type: all}
      subject_resources: {sync_type: all}
      subject_assessors: {sync_type: all}
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xnatctl.errors import ConfigError, UsageError

from .group import option
from .options import SELECTION, Function

if TYPE_CHECKING:
    from xnatctl.engine.types import Rule

What = Literal[
    "subject",
    "session",
    "type",
    "experiment-type",
    "assessor-type",
    "scan",
    "scan-type",
    "resource",
]


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The selection options as typed."""

    include: Mapping[What, tuple[str, ...]] = field(default_factory=dict)
    exclude: Mapping[What, tuple[str, ...]] = field(default_factory=dict)
    since: str = ""

    def rules(self) -> tuple[Rule, ...]:
        from xnatctl.engine.types import Rule

        return tuple(
            Rule(what, patterns, include=include)
            for include, chosen in ((True, self.include), (False, self.exclude))
            for what, patterns in chosen.items()
            if patterns
        )


_OPTIONS: tuple[tuple[str, What, str], ...] = (
    ("subject", "subject", "subjects by label or ID"),
    ("session", "session", "sessions by label or ID"),
    ("type", "type", "imaging sessions by xsi type or modality"),
    ("scan-type", "scan-type", "scans by type"),
    ("resource", "resource", "resources by label"),
)


def selection_options(function: Function) -> Function:
    """`--subject --session --type --scan-type --resource`, `--exclude-…`, `--since`, as
    `narrowed`.
    """

    @functools.wraps(function)
    def wrapped(app: Any, *, since: str | None, **values: Any) -> Any:
        include: dict[What, tuple[str, ...]] = {}
        exclude: dict[What, tuple[str, ...]] = {}
        for name, what, _ in _OPTIONS:
            key = name.replace("-", "_")
            include[what] = values.pop(f"only_{key}")
            exclude[what] = values.pop(f"not_{key}")
        narrowed = Narrowed(include, exclude, checked_date(since))
        return function(app, narrowed=narrowed, **values)

    decorated: Function = option(
        "--since", metavar="DATE", group=SELECTION, help="Sessions dated on or after (YYYY-MM-DD)."
    )(wrapped)
    for name, _, words in reversed(_OPTIONS):
        key = name.replace("-", "_")
        decorated = option(
            f"--exclude-{name}",
            f"not_{key}",
            multiple=True,
            metavar="GLOB",
            group=SELECTION,
            help=f"Leave out {words}.",
        )(decorated)
        decorated = option(
            f"--{name}",
            f"only_{key}",
            multiple=True,
            metavar="GLOB",
            group=SELECTION,
            help=f"Only {words}; may be repeated.",
        )(decorated)
    return decorated


def checked_date(text: str | None) -> str:
    """An ISO date, as XNAT's own dates are. Raises UsageError."""
    if not text:
        return ""
    from datetime import date

    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise UsageError(
            f"--since {text} is not a date", why=str(error), hint="--since 2024-03-01"
        ) from error


@dataclass(frozen=True, slots=True)
class TransferFile:
    """What a transfer's YAML file says. None where it is silent."""

    source_project: str | None = None
    dest_project: str | None = None
    max_failures: int | None = None
    retries: int | None = None
    workers: int | None = None
    archive_wait: float | None = None
    poll: float | None = None
    rules: tuple[Rule, ...] = ()


# Key -> its type. The second group is accepted for the sake of older files and has no effect here:
# verification and metadata are not optional, and increments are decided by comparing both ends.
_KEYS: dict[str, type | tuple[type, ...]] = {
    "source_project": str,
    "dest_project": str,
    "max_failures": int,
    "scan_retry_count": int,
    "scan_workers": int,
    "archive_wait_timeout": (int, float),
    "archive_poll_interval": (int, float),
    "filtering": dict,
    "sync_new_only": bool,
    "scan_retry_delay": (int, float),
    "verify_after_transfer": bool,
    "transfer_xml_metadata": bool,
    "max_pending_archives": int,
}
_FILTERS = ("imaging_sessions", "project_resources", "subject_resources", "subject_assessors")
_SESSION_KEYS = ("sync_type", "xsi_types")
_TYPE_KEYS = ("xsi_type", "scan_types", "scan_resources", "resources", "session_assessors")
_LIST_KEYS = ("sync_type", "items", "xsi_types")
_SYNC = ("all", "none", "include", "exclude")


def load_transfer_file(path: Path) -> TransferFile:
    """Read a transfer's YAML file. ConfigError names the line and the nearest key."""
    data, lines = load_yaml(path)
    return _Reader(path, lines).read(data)


def load_labels(path: Path) -> dict[str, str]:
    """New labels by `subject/OLD` and `session/OLD`. Raises ConfigError for what XNAT cannot
    hold.
    """
    data, lines = load_yaml(path)
    reader = _Reader(path, lines)
    found: dict[str, str] = {}
    for group, names in reader.mapping(data, "", ("subjects", "sessions")).items():
        if not isinstance(names, dict):
            raise reader.wrong(group, "it has to be a mapping of old to new labels")
        for old, new in names.items():
            label = str(new)
            if not re.fullmatch(r"[A-Za-z0-9_-]+", label):
                raise reader.wrong(f"{group}.{old}", f"{label!r} cannot be a label")
            if label in [found[one] for one in found if one.startswith(group[:-1])]:
                raise reader.wrong(f"{group}.{old}", f"{label} is given twice")
            found[f"{group.removesuffix('s')}/{old}"] = label
    return found


def load_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    """The data of a YAML file and the line of each key. Raises ConfigError."""
    import yaml

    try:
        text = path.read_text("utf-8")
        return yaml.safe_load(text) or {}, _lines_of(yaml.compose(text))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", why=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text", why=str(error)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{path} is not valid YAML", why=f"{where}{problem}") from error


class _Reader:
    """Checks the data of one file and knows on which line each key stands."""

    def __init__(self, path: Path, lines: Mapping[str, int]) -> None:
        self._path = path
        self._lines = lines
        self._rules: list[Rule] = []

    def read(self, data: Any) -> TransferFile:
        top = self.mapping(data, "", tuple(_KEYS))
        for key, kind in _KEYS.items():
            value = top.get(key)
            if value is None:
                continue
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise self.wrong(key, f"{value!r} has the wrong type")
        self._filtering(top.get("filtering") or {})
        return TransferFile(
            source_project=top.get("source_project"),
            dest_project=top.get("dest_project"),
            max_failures=top.get("max_failures"),
            retries=top.get("scan_retry_count"),
            workers=top.get("scan_workers"),
            archive_wait=top.get("archive_wait_timeout"),
            poll=top.get("archive_poll_interval"),
            rules=tuple(self._rules),
        )

    def _filtering(self, data: Any) -> None:
        filters = self.mapping(data, "filtering", _FILTERS)
        for key, level in (("project_resources", "project"), ("subject_resources", "subject")):
            self._list(filters.get(key), f"filtering.{key}", "resource", level=level)
        where = "filtering.subject_assessors"
        self._list(filters.get("subject_assessors"), where, "experiment-type")
        where = "filtering.imaging_sessions"
        sessions = self.mapping(filters.get("imaging_sessions") or {}, where, _SESSION_KEYS)
        types = sessions.get("xsi_types") or []
        if not isinstance(types, list):
            raise self.wrong(f"{where}.xsi_types", "it has to be a list")
        names = [self._type(one, f"{where}.xsi_types.{at}") for at, one in enumerate(types)]
        self._sync(sessions.get("sync_type", "all"), names, where, "type")

    def _type(self, data: Any, where: str) -> str:
        one = self.mapping(data, where, _TYPE_KEYS)
        name = one.get("xsi_type")
        if not isinstance(name, str) or not name:
            raise self.wrong(where, "xsi_type is missing")
        for key, what, level in (
            ("scan_types", "scan-type", ""),
            ("scan_resources", "resource", "scans"),
            ("resources", "resource", "own"),
            ("session_assessors", "assessor-type", ""),
        ):
            self._list(one.get(key), f"{where}.{key}", what, level=level, within=name)  # type: ignore[arg-type]
        return name

    def _list(
        self, data: Any, where: str, what: What, *, level: str = "", within: str = ""
    ) -> None:
        if data is None:
            return
        filter_ = self.mapping(data, where, _LIST_KEYS)
        items = filter_.get("items") or filter_.get("xsi_types") or []
        if not isinstance(items, list):
            raise self.wrong(where, "items has to be a list")
        names = [one.get("xsi_type", "") if isinstance(one, dict) else str(one) for one in items]
        self._sync(filter_.get("sync_type", "all"), names, where, what, level=level, within=within)

    def _sync(self, sync: Any, names: list[str], where: str, what: What, **narrow: str) -> None:
        from xnatctl.engine.types import Rule

        if sync not in _SYNC:
            raise self.wrong(f"{where}.sync_type", f"{sync!r} is none of {', '.join(_SYNC)}")
        if sync == "none" or (sync == "include" and not names):
            self._rules.append(Rule(what, ("*",), include=False, **narrow))
        elif sync != "all" and names:
            self._rules.append(Rule(what, tuple(names), include=sync == "include", **narrow))

    def mapping(self, data: Any, where: str, known: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise self.wrong(where, "it has to be a mapping of keys")
        for key in data:
            if key not in known:
                near = get_close_matches(str(key), known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
                place = f"{where}.{key}" if where else str(key)
                raise self.wrong(place, f"{key!r} is not known", hint)
        return data

    def wrong(self, where: str, what: str, hint: str = "") -> ConfigError:
        line = self._lines.get(where)
        place = f", line {line}" if line else ""
        return ConfigError(f"{self._path}{place}: {where or 'the file'}: {what}", hint=hint)


def _lines_of(node: Any, where: str = "") -> dict[str, int]:
    """On which line each key stands, counted from 1."""
    import yaml

    found: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = f"{where}.{key.value}" if where else str(key.value)
            found[place] = key.start_mark.line + 1
            found |= _lines_of(value, place)
    elif isinstance(node, yaml.SequenceNode):
        for at, value in enumerate(node.value):
            place = f"{where}.{at}"
            found[place] = value.start_mark.line + 1
            found |= _lines_of(value, place)
    return found


STARTER = """\
# What `xnatctl project transfer --config FILE` moves. Everything is moved where nothing is said.
source_project: {source}
dest_project: {destination}

# Stop after so many failed sessions; 0 stops at the first.
max_failures: 5
# Tries for one file or archive, and how many things at once.
scan_retry_count: 8
scan_workers: 4
# Seconds to wait for the destination to archive one session.
archive_wait_timeout: 10800

# Each filter: sync_type is all, none, include or exclude; items are labels or patterns.
filtering:
  project_resources: {{sync_type: all}}
  subject_resources: {{sync_type: all}}
  # Experiments that are no imaging sessions, by xsi type.
  subject_assessors: {{sync_type: all}}
  imaging_sessions:
    sync_type: all
    xsi_types:
      # - xsi_type: xnat:mrSessionData
      #   scan_types: {{sync_type: exclude, items: [localizer]}}
      #   scan_resources: {{sync_type: include, items: [DICOM, NIFTI]}}
      #   resources: {{sync_type: all}}
      #   session_assessors: {{sync_type: all}}
"""
