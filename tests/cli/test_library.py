"""The library face: the examples of docs/library.md, run as a notebook would run them."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import xnatctl
from xnatctl.config import Config
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox

DOCUMENT = Path(__file__).parents[2] / "docs" / "library.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)


@pytest.fixture
async def two(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Sandbox, Sandbox]]:
    """`prod` with the demonstration study and an empty `dev`, both with profiles."""
    prod, dev = Sandbox(tmp_path / "prod"), Sandbox(tmp_path / "dev")
    seed(prod.store, "demo")
    async with prod, dev:
        config = Config(path=home / ".config" / "xnatctl" / "config.yaml", environ={})
        for name, server in (("prod", prod), ("dev", dev)):
            facts = {"url": server.url, "username": "admin", "password": "admin"}
            config = config.with_profile(name, facts)
        config.with_default("prod").save()
        monkeypatch.setenv("MY_XNAT", prod.url)
        monkeypatch.setenv("MY_PASSWORD", "admin")
        yield prod, dev


async def execute(block: str, names: dict[str, Any]) -> None:
    code = compile(block, "library.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    found = eval(code, names)
    if inspect.isawaitable(found):
        await found


async def test_the_examples_of_the_document_do_what_they_say(
    two: tuple[Sandbox, Sandbox], capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCKS:
        await execute(block, names)
    out = capsys.readouterr().out
    assert "DEMO Demonstration study" in out
    assert "admin 1.8.10" in out
    assert "RunDone" in out
    assert "no session NO_SUCH in project DEMO 5" in out
    assert "DEMO_001_MR1" in names["labels"]
    assert names["size"] > 0
    assert names["report"].success
    assert names["report"].files > 0
    assert (names["again"].success, names["again"].files) == (True, 0)
    copied = two[1].store.find_project("COPY")
    assert two[1].store.find_experiment("DEMO_001_MR1", copied) is not None


async def test_a_watcher_that_raises_stops_no_transfer(two: tuple[Sandbox, Sandbox]) -> None:
    def watch(event: xnatctl.Event) -> None:
        raise RuntimeError("no")

    report = await xnatctl.transfer(
        "DEMO",
        source="prod",
        destination="dev",
        rules=[xnatctl.Rule("subject", ("DEMO_001",))],
        dry_run=True,
        on_event=watch,
    )
    assert report.dry_run
    assert two[1].store.find_project("DEMO") is None


async def test_a_profile_that_is_not_there_is_named(home: Path) -> None:
    with pytest.raises(xnatctl.XnatctlError, match="nowhere"):
        async with xnatctl.connect("nowhere"):
            raise AssertionError("never reached")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, xnatctl; dir(xnatctl); "
        "print(sorted({'aiohttp', 'anyio', 'asyncio', 'msgspec', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_others_are_not() -> None:
    for name in xnatctl.__all__:
        assert getattr(xnatctl, name) is not None
    assert sorted(dir(xnatctl)) == sorted(xnatctl.__all__)
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = xnatctl.nothing_such
