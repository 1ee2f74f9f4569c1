"""The rules of the command line each name what proves them, and that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "rules.md"


def test_every_rule_names_what_proves_it() -> None:
    rules = re.split(r"^\d+\. ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    assert len(rules) == 43
    assert [rule for rule in rules if not re.search(r"`test_\w+`", rule)] == []


def test_every_test_that_the_rules_name_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8")))
    known = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert named - known == set()
