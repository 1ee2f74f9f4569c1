"""What every source file of the package owes its reader, and what no file of the project says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import xnatctl

PACKAGE = Path(xnatctl.__file__).parent
PROJECT = PACKAGE.parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# The project speaks of itself alone: nothing of how or where it was made.
FOREIGN = re.compile(
    r"(?i)\bissues? +#?\d+\b|\bsessions? +#\d+\b|\bpull request #?\d+|\bagents? \d+\b"
    r"|/wo[r]k/|/tmp/(?:brief|bash_jobs)|\b(?:decisions|xnat-rest|style-models|peers)[.]md\b"
)


def _name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_source_file_opens_with_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{_name(path)} has none"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_nothing_is_printed_behind_the_back_of_the_console(path: Path) -> None:
    lines = [
        f"{_name(path)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not lines


def test_no_file_tells_of_the_making_of_the_project() -> None:
    found = []
    for path in _texts():
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if said := FOREIGN.search(line):
                found.append(f"{_name(path)}:{number} says {said.group()!r}")
    assert not found, "\n" + "\n".join(found)


def _texts() -> list[Path]:
    folders = ("xnatctl", "tests", "docs", "benchmarks", ".ci")
    kinds = {".py", ".md", ".sh", ".yaml", ".yml", ".toml", ".html", ".j2", ""}
    inside = [
        path
        for folder in folders
        for path in (PROJECT / folder).rglob("*")
        if path.is_file() and path.suffix in kinds and "__pycache__" not in path.parts
    ]
    top = [path for path in PROJECT.iterdir() if path.is_file() and path.suffix in kinds]
    return [path for path in inside + top if not path.name.startswith(".git")]


@pytest.mark.parametrize("words", ["see issue {}", "as in issue #{}", "session #{} wrote this"])
def test_words_of_the_making_would_be_found(words: str) -> None:
    assert FOREIGN.search(words.format(12))
