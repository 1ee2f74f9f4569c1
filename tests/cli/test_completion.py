"""Completion as real shells ask for it; a shell that is not installed is skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = """
source <("$PROGRAM" completion bash)
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_xnatctl_completion "$PROGRAM"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
autoload -Uz compinit && compinit -u -D
source <(xnatctl completion zsh)
whence -w _xnatctl_completion
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
def test_zsh_takes_the_script(program: Path) -> None:
    assert "_xnatctl_completion: function" in shell(["zsh", "-f", "-c", ZSH], program)


@needs("fish")
def test_fish_completes_commands(program: Path) -> None:
    script = "xnatctl completion fish | source; complete -C 'xnatctl pro'"
    out = shell(["fish", "--no-config", "-c", script], program)
    assert "project" in out


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
