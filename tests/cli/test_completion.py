"""Completion as real shells ask for it; a shell that is not installed is skipped."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xnatctl.config import Config

BASH = """
source <("$PROGRAM" completion bash)
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_xnatctl_completion "$PROGRAM"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
autoload -Uz compinit && compinit -u -D; PS1=; source <(xnatctl completion zsh); echo rea''dy
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    found = folder / "xnatctl"
    found.write_text(f'#!/bin/sh\nexec {sys.executable} -m xnatctl "$@"\n')
    found.chmod(0o755)
    return found


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(shell), reason=f"{shell} is not installed")


def shell(command: list[str], program: Path) -> str:
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PROGRAM": str(program), "PATH": path}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs("bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("xnatctl pro", {"project"}),
        ("xnatctl project gr", {"grant"}),
        ("xnatctl subject vars s", {"set", "show"}),
        ("xnatctl project grant STUDY kim --ro", {"--role"}),
        ("xnatctl project grant STUDY kim --role m", {"member"}),
        ("xnatctl project list -o j", {"json", "jsonl"}),
    ],
)
def test_bash_completes_commands_options_and_values(
    program: Path, words: str, expected: set[str]
) -> None:
    script = BASH.format(words=words)
    out = shell(["bash", "--norc", "-c", script], program)
    assert set(out.split()) == expected


@needs("zsh")
def test_zsh_completes_a_command_on_a_terminal(program: Path, names: None) -> None:
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    child, terminal = pty.fork()
    if child == 0:
        environ = {**os.environ, "PATH": path, "TERM": "dumb"}
        os.execvpe("zsh", ["zsh", "-f", "-i"], environ)
    try:
        typed(terminal, ZSH, until="ready")
        typed(terminal, "xnatctl proj\t", until="project ")
        typed(terminal, "show ST\t", until="STUDY")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


def typed(terminal: int, keys: str, *, until: str) -> None:
    """Type, and read until it answers."""
    os.write(terminal, keys.encode())
    seen = ""
    while until not in seen:
        assert select.select([terminal], [], [], 30)[0], seen
        seen += os.read(terminal, 4096).decode()


@needs("fish")
@pytest.mark.parametrize(
    ("words", "expected"), [("xnatctl pro", "project"), ("xnatctl -p d", "dev")]
)
def test_fish_completes_commands_and_names(
    program: Path, names: None, words: str, expected: str
) -> None:
    script = f"xnatctl completion fish | source; complete -C '{words}'"
    out = shell(["fish", "--no-config", "-c", script], program)
    assert expected in out


@pytest.fixture
def names(home: Path) -> None:
    """Two profiles, and projects that an earlier list saw at one of them."""
    where = Config(path=home / ".config" / "xnatctl" / "config.yaml", environ={})
    for name in ("prod", "dev"):
        where = where.with_profile(name, {"url": f"https://{name}.example.org"})
    where.with_default("prod").save()
    cache = home / ".cache" / "xnatctl" / "projects.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(json.dumps({"https://prod.example.org": ["STUDY", "OTHER"]}))


@needs("bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("xnatctl -p ", {"dev", "prod"}),
        ("xnatctl config use-context d", {"dev"}),
        ("xnatctl session list -P S", {"STUDY"}),
        ("xnatctl project show ", {"STUDY", "OTHER"}),
        ("xnatctl -p dev project show ", set()),
        ("xnatctl -p nope project show ", set()),
    ],
)
def test_names_of_profiles_and_projects_are_completed_without_a_server(
    program: Path, names: None, words: str, expected: set[str]
) -> None:
    # A last word that is empty is a word too.
    script = BASH.format(words=words + ("''" if words.endswith(" ") else ""))
    assert set(shell(["bash", "--norc", "-c", script], program).split()) == expected


def test_a_list_of_projects_is_what_the_next_tab_knows(
    xnatctl: Callable[..., Any], signed_in: Any, home: Path
) -> None:
    assert xnatctl("project", "list", "-q").code == 0
    known = json.loads((home / ".cache" / "xnatctl" / "projects.json").read_text())
    assert {url: set(found) for url, found in known.items()} == {signed_in.url: {"STUDY", "EMPTY"}}


def test_completion_needs_no_configuration_and_no_event_loop(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "xnatctl"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("{broken")
    code = (
        "import sys; from xnatctl.cli.main import run; run([]); "
        "print('LOADED', sorted({'asyncio', 'aiohttp', 'yaml'} & set(sys.modules)), "
        "file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "_XNATCTL_COMPLETE": "bash_complete",
            "COMP_WORDS": "xnatctl ses",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "plain,session" in done.stdout
    assert "LOADED []" in done.stderr
