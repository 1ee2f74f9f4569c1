"""The reference: docs/commands.md says what the tree says, and the man pages are sound."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from xnatctl.cli.reference import man, markdown, pages, write_man

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {page.path: page for page in pages()}


def test_the_reference_is_that_of_the_commands() -> None:
    written = (DOCS / "commands.md").read_text("utf-8")
    assert written == markdown(), "run `make reference`: docs/commands.md is not what the tree says"


def test_every_command_has_a_page_with_its_options_and_examples() -> None:
    page = PAGES["xnatctl project grant"]
    assert page.usage == "xnatctl project grant [OPTIONS] PROJECT USER"
    assert any("--role" in names for names, _ in page.options["Options"])
    assert page.examples[0].startswith("xnatctl project grant")
    assert ("grant", "Give a user a role in a project.") in PAGES["xnatctl project"].commands


def test_global_options_are_told_once() -> None:
    assert "Global options" in PAGES["xnatctl"].options
    others = [page.path for page in PAGES.values() if "Global options" in page.options]
    assert others == ["xnatctl"]


def test_the_commands_that_the_readme_shows_exist() -> None:
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    for line in readme.splitlines():
        words = line.strip().removeprefix("$ ").split()
        if words[:1] == ["xnatctl"] and len(words) > 2 and words[1].isalpha():
            assert any(f"xnatctl {' '.join(words[1:end])}" in PAGES for end in (2, 3, 4)), line


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_man_pages_are_sound_and_say_what_the_help_says(tmp_path: Path) -> None:
    assert write_man(tmp_path) == len(PAGES)
    files = sorted(tmp_path.glob("*.1"))
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", *files], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    one = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-cbou", str(tmp_path / "xnatctl-project-grant.1")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "xnatctl project grant STUDY smith --role member --yes" in one.stdout


def test_marks_that_roff_would_take_for_its_own_are_escaped() -> None:
    text = man(PAGES["xnatctl subject rename"])
    assert r"\(ha(\ew+)_visit\ed+$" in text
