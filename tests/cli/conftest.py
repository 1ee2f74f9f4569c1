"""A sandbox a module, a home a test, and the program called as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from anyio.from_thread import start_blocking_portal

from xnatctl.cli.main import run
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.store import Store

PASSWORD = "admin"


@dataclass(frozen=True, slots=True)
class Result:
    """What a command answered."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def fill(store: Store) -> None:
    """A project with two subjects, three imaging sessions, an experiment that is none, and text
    that a terminal must not be given.
    """
    project = store.create_project("STUDY", fields={"description": "Ageing [red] study"})
    store.create_project("EMPTY", fields={"description": "é"})
    for label, count in (("SUB1", 2), ("SUB2", 1)):
        subject = store.create_subject(project, label)
        for number in range(1, count + 1):
            session = store.create_experiment(
                subject, f"{label}_MR{number}", fields={"date": f"2024-0{number}-01"}
            )
            for scan, kind in (("3", "T1w"), ("10", "T2w")):
                made = store.create_scan(
                    session, scan, fields={"type": kind, "quality": "usable", "note": "a\x9b31mb"}
                )
                resource = store.create_resource(made, "NIFTI", format="NIFTI")
                store.add_file(resource, "a.nii", b"x" * 1000)
                store.refresh_stats(resource)
            notes = store.create_resource(session, "NOTES", format="TXT")
            store.add_file(notes, "n.txt", b"hello")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A running sandbox, filled; its event loop lives in a thread of its own."""
    with start_blocking_portal() as portal:
        sandbox = Sandbox(tmp_path_factory.mktemp("sandbox"))
        fill(sandbox.store)
        with portal.wrap_async_context_manager(sandbox):
            yield sandbox


@pytest.fixture(scope="module")
def destination(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Another one, with nothing in it."""
    with start_blocking_portal() as portal:
        sandbox = Sandbox(tmp_path_factory.mktemp("destination"))
        with portal.wrap_async_context_manager(sandbox):
            yield sandbox


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and an environment that says nothing of XNAT."""
    for name in [one for one in os.environ if one.startswith(("XNAT", "XDG_", "CLICOLOR"))]:
        monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def xnatctl(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """The program in this process: `xnatctl("project", "list")`."""

    def call(*argv: str) -> Result:
        capsys.readouterr()
        code = run(argv)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return call


class Ends(NamedTuple):
    """Two servers, the first filled."""

    here: Sandbox
    there: Sandbox


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """Source and destination by the environment alone, for this test."""
    with start_blocking_portal() as portal:
        here, there = Sandbox(tmp_path / "here"), Sandbox(tmp_path / "there")
        fill(here.store)
        with (
            portal.wrap_async_context_manager(here),
            portal.wrap_async_context_manager(there),
        ):
            for prefix, one in (("XNAT", here), ("XNAT_DEST", there)):
                monkeypatch.setenv(f"{prefix}_URL", one.url)
                monkeypatch.setenv(f"{prefix}_USER", "admin")
                monkeypatch.setenv(f"{prefix}_PASS", PASSWORD)
            yield Ends(here, there)


@pytest.fixture
def signed_in(server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The environment names the sandbox and its administrator."""
    monkeypatch.setenv("XNAT_URL", server.url)
    monkeypatch.setenv("XNAT_USER", "admin")
    monkeypatch.setenv("XNAT_PASS", PASSWORD)
    return server


def process(*argv: str, **more: Any) -> subprocess.Popen[str]:
    """The program as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "xnatctl", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=more.pop("stdin", subprocess.DEVNULL),
        text=True,
        **more,
    )
