"""Imports go down only: the table of rooms, and who may import whom.

Every `import` statement counts, also one inside a function or under `TYPE_CHECKING`: a type is a
dependency too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import xnatctl

ROOT = Path(xnatctl.__file__).parent

LEAVES = {"errors", "model"}

# Room -> what it may import: rooms, or single modules of one. A room is a folder or a file directly
# below the package.
ALLOWED: dict[str, set[str]] = {
    "__init__": LEAVES | {"_version", "engine.events", "engine.types", "library", "xnat"},
    "__main__": {"cli"},
    "_version": set(),
    "errors": set(),
    "model": set(),
    "retry": LEAVES,
    "config": LEAVES,
    "credentials": LEAVES | {"config"},
    "transport": LEAVES | {"retry", "_version"},
    "zipstream": {"errors"},
    "dicom": {"errors"},
    "xnat": LEAVES | {"transport"},
    "engine": LEAVES | {"retry", "zipstream"},
    "endpoints": LEAVES | {"dicom", "engine", "retry", "xnat", "zipstream"},
    "routes": LEAVES | {"endpoints", "engine", "retry", "xnat"},
    "bench": LEAVES | {"engine"},
    "cluster": LEAVES | {"engine"},
    "ui": LEAVES | {"engine.events", "engine.types"},
    "cli": LEAVES
    | {
        "_version",
        "bench",
        "cluster",
        "config",
        "credentials",
        "dicom",
        "engine",
        "retry",
        "routes",
        "ui",
        "xnat",
    },
    "library": LEAVES | {"cli.app", "cli.runs", "config", "engine", "routes", "xnat"},
    "sandbox": set(),
}

# What single files may import beyond their room.
FILES: dict[str, set[str]] = {
    "cli/app.py": {"transport"},
    "cli/sandbox.py": {"sandbox"},
}

# Endpoints are leaves: these pairs are the only ties between two of them.
ENDPOINTS_SHARE = {
    "bodies",
    "catalogue",
    "entries",
    "repack",
    "tarring",
    "manifest",
    "disk",
    "names",
    "parts",
}
ENDPOINTS_WRAP = {
    ("xnat_source", "items"),
    ("prearchive", "archive"),
    ("prearchive", "importable"),
    ("prearchive", "routing"),
    ("removal", "archive"),
    ("upload", "archive"),
    ("folder", "archive"),
    ("zipped", "local"),
    ("bundle", "local"),
    ("bids", "local"),
    ("unpack", "local"),
}

# Libraries that only some rooms may touch.
RESERVED = {
    "aiohttp": {"transport", "sandbox"},
    "yarl": {"transport", "sandbox"},
    "requests": set(),
    "httpx": set(),
    "dask": {"cluster"},
    "dask_jobqueue": {"cluster"},
    "distributed": {"cluster"},
}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, and where the statement stands."""

    file: str
    line: int
    module: str

    @property
    def room(self) -> str:
        return self.file.partition("/")[0].removesuffix(".py")

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports_in(path: Path, root: Path) -> Iterator[Import]:
    """Every import of a file, relative ones made absolute; a name that is a module counts as it."""
    file = path.relative_to(root).as_posix()
    package = ["xnatctl", *path.relative_to(root).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(file, node.lineno, _module(root, base, alias.name))


def _module(root: Path, base: str, name: str) -> str:
    if base.partition(".")[0] != "xnatctl":
        return base
    place = root.joinpath(*base.split(".")[1:], name)
    return f"{base}.{name}" if place.is_dir() or place.with_suffix(".py").is_file() else base


def violations(root: Path) -> list[str]:
    """A sentence for every import that the tables do not allow."""
    found = []
    for path in sorted(root.rglob("*.py")):
        for one in imports_in(path, root):
            if problem := _problem(one):
                found.append(f"{one}: {problem}")
    return found


def _problem(one: Import) -> str:
    head, *parts = one.module.split(".")
    if head != "xnatctl":
        allowed = RESERVED.get(head)
        if allowed is None or one.room in allowed:
            return ""
        return f"{one.room} may not import {head}"
    if one.room not in ALLOWED:
        return f"{one.room} is not in the table of rooms"
    if not parts:
        return f"{one.room} may not import the package itself"
    if parts[0] == one.room:
        return _inside(one, parts[1:])
    granted = ALLOWED[one.room] | FILES.get(one.file, set())
    if parts[0] in granted or ".".join(parts[:2]) in granted:
        return ""
    return f"{one.room} may not import {parts[0]}"


def _inside(one: Import, rest: list[str]) -> str:
    if one.room != "endpoints" or not rest:
        return ""
    mine = Path(one.file).stem
    if rest[0] in ENDPOINTS_SHARE or (mine, rest[0]) in ENDPOINTS_WRAP:
        return ""
    return f"the endpoint {mine} may not import the endpoint {rest[0]}"


def test_imports_go_down_only() -> None:
    found = violations(ROOT)
    assert not found, "\n" + "\n".join(found)


def test_every_room_is_in_the_table() -> None:
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.rglob("*.py")}
    assert rooms <= set(ALLOWED)


@pytest.mark.parametrize(
    ("file", "code", "sentence"),
    [
        (
            "engine/plan.py",
            "import os\nfrom xnatctl.xnat.client import Xnat",
            "engine/plan.py:2 imports xnatctl.xnat.client: engine may not import xnat",
        ),
        (
            "engine/plan.py",
            "def later():\n    from xnatctl import transport",
            "engine/plan.py:2 imports xnatctl.transport: engine may not import transport",
        ),
        (
            "engine/plan.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import xnatctl.xnat.paths",
            "engine/plan.py:3 imports xnatctl.xnat.paths: engine may not import xnat",
        ),
        (
            "ui/progress.py",
            "from xnatctl.engine import runner",
            "ui/progress.py:1 imports xnatctl.engine.runner: ui may not import engine",
        ),
        (
            "endpoints/local.py",
            "from .archive import ArchiveSink",
            "endpoints/local.py:1 imports xnatctl.endpoints.archive: "
            "the endpoint local may not import the endpoint archive",
        ),
        (
            "sandbox/store.py",
            "from xnatctl.errors import NotFound",
            "sandbox/store.py:1 imports xnatctl.errors: sandbox may not import errors",
        ),
        (
            "cli/scan.py",
            "from xnatctl.transport import Transport",
            "cli/scan.py:1 imports xnatctl.transport: cli may not import transport",
        ),
        (
            "xnat/client.py",
            "import aiohttp.web",
            "xnat/client.py:1 imports aiohttp.web: xnat may not import aiohttp",
        ),
        (
            "new_room/thing.py",
            "from xnatctl.errors import NotFound",
            "new_room/thing.py:1 imports xnatctl.errors: new_room is not in the table of rooms",
        ),
    ],
)
def test_a_wrong_import_is_named_in_a_sentence(
    tmp_path: Path, file: str, code: str, sentence: str
) -> None:
    for name in ("transport.py", "errors.py", "xnat/client.py", "xnat/paths.py"):
        _write(tmp_path / name, '"""Nothing."""\n')
    _write(tmp_path / "engine/runner.py", '"""Nothing."""\n')
    _write(tmp_path / "endpoints/archive.py", '"""Nothing."""\n')
    _write(tmp_path / file, code)
    assert violations(tmp_path) == [sentence]


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("cli/app.py", "from xnatctl.transport import Transport"),
        ("cli/sandbox.py", "from xnatctl.sandbox.server import Sandbox"),
        ("endpoints/prearchive.py", "from .archive import ArchiveSink"),
        ("endpoints/local.py", "from .catalogue import Catalogue"),
        ("ui/progress.py", "from xnatctl.engine.events import Event"),
        ("engine/copy.py", "from .ports import Source\nfrom xnatctl.errors import Corrupt"),
        ("transport.py", "import aiohttp"),
    ],
)
def test_an_import_of_the_table_is_allowed(tmp_path: Path, file: str, code: str) -> None:
    _write(tmp_path / file, code)
    assert violations(tmp_path) == []


def _write(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code, "utf-8")
