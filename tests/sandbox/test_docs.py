"""What docs/sandbox.md promises: its five lines run, its tables are complete."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from xnatctl.sandbox.faults import KINDS
from xnatctl.sandbox.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "sandbox.md"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_the_five_lines_of_the_page_do_what_they_say(tmp_path: Path) -> None:
    found = re.search(r"```sh\n(.*?)```", PAGE.read_text(), re.S)
    assert found is not None
    lines = found[1].strip().splitlines()
    assert len(lines) == 5
    script = "\n".join(lines).replace("8095", str(free_port()))
    script = re.sub(r"--root \S+", f"--root {tmp_path}/practice", script)
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-m", "-c", script + "\nwait"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert '"label":"DEMO_' in done.stdout, done
    assert "ID,project,label" in done.stdout


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_fault_is_explained(kind: str) -> None:
    assert f"`{kind}`" in PAGE.read_text().partition("## Faults")[2]


def test_every_switch_that_the_page_names_exists() -> None:
    text = PAGE.read_text().partition("## The traps")[2].partition("## Faults")[0]
    known = {field.name for field in dataclasses.fields(Settings)}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text)) - {"file_count", "prevent_auto_commit"}
    assert named and named <= known
