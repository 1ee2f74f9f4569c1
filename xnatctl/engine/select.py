"""Selections as predicates. Pure: patterns in, yes or no out."""

from __future__ import annotations

from fnmatch import fnmatchcase

from .types import Rule, Selection


def selects(
    selection: Selection, what: str, *names: str, level: str = "", within: str = ""
) -> bool:
    """Whether a thing known by any of `names` is in the selection, as far as rules on `what` go.

    Without include rules everything is in; an exclude rule always wins. Rules for another level or
    another type of session say nothing.
    """
    rules = [
        rule
        for rule in selection.rules
        if rule.what == what
        and rule.level in ("", level)
        and (not rule.within or fnmatchcase(within, rule.within))
    ]
    included = [rule for rule in rules if rule.include]
    if any(_matches(rule, names) for rule in rules if not rule.include):
        return False
    return not included or any(_matches(rule, names) for rule in included)


def recent(selection: Selection, date: str) -> bool:
    """Whether a session's date (ISO) is not before `since`; a session without a date is kept."""
    return not selection.since or not date or date[:10] >= selection.since


def _matches(rule: Rule, names: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in rule.patterns)
