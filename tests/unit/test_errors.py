"""The error tree: exit codes, words, and which error of a group is shown."""

from __future__ import annotations

import inspect

import pytest

from xnatctl import errors
from xnatctl.errors import (
    AuthError,
    Busy,
    Cancelled,
    Corrupt,
    NotFound,
    ServerFault,
    SessionLost,
    Unreachable,
    XnatctlError,
    first_known,
)

CLASSES = [
    one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, XnatctlError)
]


def test_the_tree_that_is_drawn_is_the_tree_that_is_there() -> None:
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()
        if len(words) > 2 and words[0][:1].isupper() and words[1].isdigit():
            drawn[words[0]] = (int(words[1]), words[2] == "yes")
    there = {
        one.__name__: (one.exit_code, one.retryable) for one in CLASSES if one is not XnatctlError
    }
    assert drawn == there


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("UsageError", 2),
        ("ConfigError", 2),
        ("AuthError", 3),
        ("Unreachable", 4),
        ("ServerFault", 4),
        ("NotFound", 5),
        ("PermissionDenied", 6),
        ("Declined", 7),
        ("Corrupt", 8),
        ("Conflict", 9),
        ("Locked", 9),
        ("LocalFault", 1),
        ("Incomplete", 1),
        ("Cancelled", 130),
    ],
)
def test_exit_codes_are_those_that_scripts_know(name: str, code: int) -> None:
    assert {one.__name__: one.exit_code for one in CLASSES}[name] == code


def test_reports_name_an_error_by_its_class() -> None:
    assert ServerFault("x").kind == "server-fault"
    assert NotFound("x").kind == "not-found"


def test_an_error_says_what_failed_and_why() -> None:
    error = NotFound("no session S1", why="HTTP 404", hint="add -P PROJECT", status=404)

    assert str(error) == "no session S1: HTTP 404"
    assert (error.hint, error.status) == ("add -P PROJECT", 404)
    assert str(NotFound("no session S1")) == "no session S1"


def test_a_hint_of_the_class_stands_where_none_is_given() -> None:
    assert AuthError("who are you").hint == AuthError.default_hint
    assert SessionLost("expired").hint == AuthError.default_hint
    assert AuthError("who are you", hint="ask somebody").hint == "ask somebody"


def test_errors_carry_what_a_retry_needs() -> None:
    assert Busy("busy", after=3.0).after == 3.0
    assert Unreachable("gone").sent is False
    assert Unreachable("gone", sent=True).sent is True
    assert Cancelled(code=143).code == 143


def test_the_first_of_our_errors_is_shown_out_of_a_group() -> None:
    ours = Corrupt("cut")
    group = BaseExceptionGroup(
        "outer",
        [ValueError("x"), ExceptionGroup("inner", [KeyError("y"), ours]), ServerFault("later")],
    )

    assert first_known(group) is ours


def test_a_group_without_ours_shows_its_first_leaf() -> None:
    leaf = ValueError("x")

    assert first_known(ExceptionGroup("outer", [ExceptionGroup("inner", [leaf])])) is leaf
    assert first_known(leaf) is leaf


def test_why_is_words_and_no_number_of_the_system() -> None:
    error = errors.ConfigError("x.json cannot be read", why=str(OSError(2, "No such file", "x")))
    assert error.why == "No such file: 'x'"
