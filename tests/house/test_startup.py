"""Help and version start fast because they import next to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

# `anyio` is not among them: it loads what it consists of when that is used.
HEAVY = {"aiohttp", "asyncio", "rich", "ssl", "yaml", "msgspec", "sqlite3", "pydicom", "jinja2"}
CALL = """
import sys
from xnatctl.cli.main import run
code = run(sys.argv[1:])
print("\\n".join(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "argv",
    [
        ("--version",),
        ("--help",),
        ("-h",),
        (),
        ("project", "--help"),
        ("project", "list", "--help"),
        ("project", "transfer", "--help"),
        ("session", "download", "--help"),
        ("sandbox", "serve", "--help"),
    ],
)
def test_help_imports_nothing_heavy(argv: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALL, *argv], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0
    assert "xnatctl" in done.stdout
    assert not HEAVY & set(done.stderr.split())


def test_no_help_of_any_command_imports_what_only_its_work_needs() -> None:
    code = "import sys; from xnatctl.cli.reference import pages; n = len(list(pages()))"
    code += "; print(n, *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    number, *loaded = done.stdout.split()
    assert int(number) > 100
    assert not HEAVY & set(loaded)


def test_the_version_imports_only_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALL, "--version"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    ours = {name for name in done.stderr.split() if name.startswith(("xnatctl", "asyncclick"))}
    assert ours == {"xnatctl", "xnatctl._version", "xnatctl.cli", "xnatctl.cli.main"}


def test_a_usage_error_starts_no_event_loop() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALL, "project", "list", "--nope"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert not {"asyncio", "aiohttp", "rich", "yaml"} & set(done.stderr.split())
