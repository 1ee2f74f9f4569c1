"""New labels out of rules: mappings, patterns, the convention of `normalize-labels`. Pure.

1. A rule gives a thing a new label, or none; a label that stays as it is is no change.
2. New labels are checked: only letters, digits, `_`, `-` and `.`.
3. Changes are put in an order in which each new label is free when its turn comes, so that
   A → B and B → C work. Two that want each other's label cannot be ordered.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnatctl.errors import ConfigError, Conflict, UsageError

Rule = Callable[[str], str | None]

LEGAL = re.compile(r"[\w.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rename:
    """`merge` says that the new label is somebody else's, who takes over what the old one has."""

    old: str
    new: str
    merge: bool = False


def mapping_rule(path: Path) -> Rule:
    """Labels out of a JSON object `{"old": "new"}`. Raises ConfigError."""
    data = _json(path)
    if not isinstance(data, dict) or not all(isinstance(one, str) for one in data.values()):
        raise ConfigError(f"{path} is not a mapping", why='it should be {"old": "new", …}')
    return data.get


def pattern_rule(pattern: str, template: str, *, project: str) -> Rule:
    """Labels that a regular expression matches whole or from their beginning.

    `{1}`, `{2}` in the template are its groups, `{project}` the project. Raises UsageError.
    """
    try:
        known = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"{pattern!r} is no regular expression", why=str(error), hint="--pattern '^(.+)_v1$'"
        ) from error

    def rule(label: str) -> str | None:
        found = known.match(label)
        return _filled(template, project, found) if found else None

    return rule


def patterns_rule(path: Path, *, project: str) -> Rule:
    """Rules of one project out of `{"patterns": [{"project", "match", "to"}]}`; the first that
    matches a label counts. Raises ConfigError.
    """
    data = _json(path)
    listed = data.get("patterns") if isinstance(data, dict) else None
    if not isinstance(listed, list):
        raise ConfigError(f"{path} has no list `patterns`")
    rules = []
    for one in listed:
        if not isinstance(one, dict) or not {"match", "to"} <= one.keys():
            raise ConfigError(f"{path}: a pattern needs `match` and `to`", why=str(one))
        if one.get("project", project) == project:
            rules.append(pattern_rule(str(one["match"]), str(one["to"]), project=project))
    if not rules:
        raise ConfigError(f"{path} has no pattern for project {project}")

    def rule(label: str) -> str | None:
        return next((new for one in rules if (new := one(label)) is not None), None)

    return rule


def _filled(template: str, project: str, found: re.Match[str]) -> str:
    text = template.replace("{project}", project)
    for number, group in enumerate(found.groups(), 1):
        text = text.replace(f"{{{number}}}", group or "")
    if re.search(r"\{\w*\}", text):
        raise UsageError(
            f"--to {template!r} names a group that the pattern does not have",
            why=f"it has {len(found.groups())}",
        )
    return text


def _json(path: Path) -> Any:
    try:
        return json.loads(path.expanduser().read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read", why=str(error)) from error


def renames(labels: Collection[str], rule: Rule, *, may_merge: bool) -> list[Rename]:
    """The changes that a rule makes, in an order that works. Raises UsageError, Conflict."""
    wanted: dict[str, str] = {}
    for label in labels:
        new = rule(label)
        if new is None or new == label:
            continue
        if not LEGAL.fullmatch(new):
            raise UsageError(
                f"{label} cannot become {new!r}",
                why="a label has letters, digits, '_', '-' and '.' only",
            )
        wanted[label] = new
    return _ordered(labels, wanted, may_merge=may_merge)


def _ordered(
    labels: Collection[str], wanted: Mapping[str, str], *, may_merge: bool
) -> list[Rename]:
    """XNAT compares labels without regard to case, so `taken` does too."""
    taken = {label.casefold(): label for label in labels}
    left = dict(wanted)
    done: list[Rename] = []
    while left:
        movable = [old for old, new in left.items() if _is_free(taken, left, old, new)]
        if not movable:
            ends = ", ".join(f"{old} → {new}" for old, new in left.items())
            raise Conflict("labels cannot be exchanged", why=ends, hint="rename one by hand first")
        old = movable[0]
        new = left.pop(old)
        merge = taken.get(new.casefold(), old) != old
        if merge and not may_merge:
            raise Conflict(f"{old} cannot become {new}", why=f"{new} is the label of another one")
        del taken[old.casefold()]
        taken.setdefault(new.casefold(), new)
        done.append(Rename(old, new, merge))
    return done


def _is_free(taken: Mapping[str, str], left: Mapping[str, str], old: str, new: str) -> bool:
    """Whether nobody has the label, or who has it keeps it (and takes over)."""
    holder = taken.get(new.casefold())
    return holder is None or holder == old or holder not in left


@dataclass(frozen=True, slots=True)
class Numbered:
    """A session as the naming convention sees it."""

    label: str
    subject: str
    modality: str
    date: str
    time: str = ""


def normal_labels(sessions: Sequence[Numbered]) -> tuple[dict[str, str], dict[str, str]]:
    """`{SUBJECT}_{VISIT:02d}_SE{SESSION:02d}_{MODALITY}` for each session, and why others have
    none.

    Within a subject and a modality, dates are counted as visits and the sessions of one date, by
    time, as sessions.
    """
    normal: dict[str, str] = {}
    skipped: dict[str, str] = {}
    groups: dict[tuple[str, str], list[Numbered]] = defaultdict(list)
    for one in sessions:
        if not one.modality:
            skipped[one.label] = "no imaging modality"
        elif not one.date:
            skipped[one.label] = "no date"
        else:
            groups[one.subject, one.modality].append(one)
    for (subject, modality), members in groups.items():
        dates = sorted({one.date for one in members})
        seen: Counter[str] = Counter()
        for one in sorted(members, key=lambda it: (it.date, it.time, it.label)):
            seen[one.date] += 1
            visit = dates.index(one.date) + 1
            normal[one.label] = f"{subject}_{visit:02d}_SE{seen[one.date]:02d}_{modality}"
    return normal, skipped
