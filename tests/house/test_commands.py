"""Rules that hold for every command, and for the one file that writes to the terminal."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import asyncclick as click
import pytest

from xnatctl.cli.group import GLOBAL_OPTIONS, Command, Group
from xnatctl.cli.root import EPILOG, root
from xnatctl.cli.topics import TOPICS

PACKAGE = Path(__file__).parents[2] / "xnatctl"


def tree(group: Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, Group):
            yield from tree(command, (*path, name))
        else:
            assert isinstance(command, Command)
            yield (*path, name), command


COMMANDS = dict(tree(root))
EVERY = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


@EVERY
def test_every_command_says_what_it_does_in_its_first_sentence(path: tuple[str, ...]) -> None:
    first = (COMMANDS[path].help or "").strip().split("\n\n")[0]
    assert re.match(r"[A-Z].*[.]$", " ".join(first.split())), first


@EVERY
def test_every_example_begins_with_the_command_that_it_shows(path: tuple[str, ...]) -> None:
    lines = [line.strip() for line in (COMMANDS[path].help or "").splitlines()]
    examples = [line for line in lines if "xnatctl " in line and not line.startswith("xnatctl.")]
    assert len(lines) == 1 or examples or "Examples:" not in lines
    for line in examples:
        assert "xnatctl" in line
        words = line[line.index("xnatctl ") :].split()[1:]
        nouns = [word for word in words if word in path]
        assert nouns[: len(path)] == list(path), line


@EVERY
def test_no_line_of_a_help_is_wider_than_80_columns(path: tuple[str, ...]) -> None:
    ctx = click.Context(COMMANDS[path], info_name=" ".join(("xnatctl", *path)), terminal_width=80)
    assert [line for line in COMMANDS[path].get_help(ctx).splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("topic", TOPICS)
def test_no_line_of_a_topic_is_wider_than_a_help(topic: str) -> None:
    assert [line for line in TOPICS[topic].splitlines() if len(line) > 80] == []


@EVERY
def test_every_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    for param in COMMANDS[path].params:
        if isinstance(param, click.Option) and not param.hidden:
            assert param.help, param.opts
            assert param.help.endswith((".", "]")), param.opts


@EVERY
def test_no_option_is_spelled_like_a_global_one_unless_it_means_the_same(
    path: tuple[str, ...],
) -> None:
    spelled = {name for one in GLOBAL_OPTIONS for name in one.opts}
    own = {name for param in COMMANDS[path].params for name in param.opts}
    same = {"--profile"} if path == ("config", "init") else set()
    assert own & spelled == same


# The last words of commands that change nothing, and the first words of those that only write here.
READS = re.compile(
    "list|show|status|explain|compare|doctor|inspect|kinds|get|help|version|whoami|ping|test|verify"
    r"|validate|audit|list-tags|jobs|users|requests|groups|transfer-\w+|compare|apply"
)
LOCAL = {"config", "completion", "sandbox", "state", "run", "cluster"}
WRITES_HERE = {("auth", "login"), ("auth", "logout"), ("bench", "apply")}


@EVERY
def test_a_command_that_changes_a_server_can_show_its_plan(path: tuple[str, ...]) -> None:
    has = any("--dry-run" in param.opts for param in COMMANDS[path].params)
    assert has or READS.fullmatch(path[-1]) or path[0] in LOCAL or path in WRITES_HERE


@pytest.mark.parametrize("path", [one for one in COMMANDS if one[-1] == "list"], ids=" ".join)
def test_every_list_is_filtered_sorted_cut_and_chosen_from(path: tuple[str, ...]) -> None:
    names = {name for param in COMMANDS[path].params for name in param.opts}
    assert {"--filter", "--sort-by", "--limit", "--columns"} <= names or path[0] == "sandbox"


def test_one_letter_means_one_thing_everywhere() -> None:
    meaning: dict[str, set[str]] = {}
    for command in COMMANDS.values():
        for param in (*command.params, *GLOBAL_OPTIONS):
            short = [name for name in param.opts if re.fullmatch(r"-\w", name)]
            long = [name for name in param.opts if name.startswith("--")]
            for name in short:
                meaning.setdefault(name, set()).update(long)
    assert {name: words for name, words in meaning.items() if len(words) > 1} == {}


def test_the_help_names_every_exit_code() -> None:
    from xnatctl import errors

    known = {
        one.exit_code
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.XnatctlError)
    }
    for code in known | {0, 143}:
        assert re.search(rf"\b{code}\b", EPILOG), code


def test_only_the_console_writes_to_the_terminal() -> None:
    """`main` may, for a version that imports nothing and for a help that the parser made."""
    allowed = {"ui/console.py", "cli/main.py"}
    writes = r"print\(|sys\.(stdout|stderr)\b|click\.(secho|progressbar|echo_via_pager)\("
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name in allowed or name.startswith("sandbox/"):
            continue
        source = path.read_text()
        for node in ast.walk(ast.parse(source)) if re.search(writes, source) else ():
            text = ast.unparse(node) if isinstance(node, ast.Call | ast.Attribute) else ""
            if re.match(writes, text):
                found.append(f"{name}:{getattr(node, 'lineno', 0)} {text}")
    assert found == []
