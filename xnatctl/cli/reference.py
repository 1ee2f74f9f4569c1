"""The command tree as documents: `docs/commands.md` and man pages.

    python -m xnatctl.cli.reference            writes docs/commands.md below the current folder
    python -m xnatctl.cli.reference --man DIR  writes a man page for each command

Both come out of the tree that parses, so they cannot say what a command does not do; a test
compares the file with the tree.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncclick as click

from xnatctl._version import __version__

from .group import GLOBAL_OPTIONS, Group, folded
from .root import EPILOG, root

Rows = list[tuple[str, str]]
MAN_COLUMNS = 72


@dataclass(frozen=True, slots=True)
class Page:
    """One command or group: its words, its texts, its options by heading."""

    path: str
    usage: str
    summary: str
    text: str
    examples: tuple[str, ...]
    options: dict[str, Rows]
    commands: Rows


def pages() -> Iterator[Page]:
    """Every group and command, parents before children, in the order of the help."""
    yield from _pages(root, click.Context(root, info_name="xnatctl"))


def _pages(command: click.Command, ctx: click.Context) -> Iterator[Page]:
    yield _page(command, ctx)
    if isinstance(command, Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            if below is not None and not below.hidden:
                yield from _pages(below, click.Context(below, info_name=name, parent=ctx))


def _page(command: click.Command, ctx: click.Context) -> Page:
    text, _, listed = (command.help or "").replace("\b\n", "").partition("Examples:")
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    examples = tuple(line.strip() for line in listed.splitlines() if line.strip())
    usage = " ".join([ctx.command_path, *_pieces(command, ctx)])
    commands: Rows = []
    if isinstance(command, Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            if below is not None and not below.hidden:
                commands.append((name, below.get_short_help_str(200)))
    return Page(
        ctx.command_path,
        usage,
        paragraphs[0],
        "\n\n".join(paragraphs[1:]),
        examples,
        _options(command, ctx),
        commands,
    )


def _pieces(command: click.Command, ctx: click.Context) -> list[str]:
    pieces = command.collect_usage_pieces(ctx)
    return [piece for piece in pieces if piece]


def _options(command: click.Command, ctx: click.Context) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    shared = {id(one) for one in GLOBAL_OPTIONS}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None or (id(param) in shared and ctx.parent is not None):
            continue
        if {"-h", "--help"} & set(param.opts):
            continue
        found.setdefault(getattr(param, "group", "Options"), []).append(record)
    own = found.pop("Options", [])
    return found | {"Options": own} if own else found


# --- Markdown ------------------------------------------------------------------------------------


def markdown() -> str:
    """The reference of all commands as one document."""
    parts = [
        "# Commands",
        "<!-- Made by `make reference` out of the command tree; changes by hand get lost. -->",
    ]
    for page in pages():
        parts += _markdown(page)
    parts += ["## Exit codes", f"```text\n{_codes()}\n```"]
    return "\n\n".join(parts) + "\n"


def _markdown(page: Page) -> Iterator[str]:
    depth = min(page.path.count(" ") + 2, 4)
    yield f"{'#' * depth} {page.path}"
    yield page.summary
    if page.text:
        yield page.text
    yield f"```text\n{page.usage}\n```"
    if page.commands:
        yield "\n".join(f"- `{name}`: {words}" for name, words in page.commands)
    if page.examples:
        yield "```sh\n" + "\n".join(page.examples) + "\n```"
    for heading, rows in page.options.items():
        lines = [f"- `{names}`: {words}" if words else f"- `{names}`" for names, words in rows]
        yield f"{heading}:\n\n" + "\n".join(lines)


def _codes() -> str:
    text = EPILOG.replace("\b\n", "")
    return "\n".join(line for line in text.splitlines() if line.startswith("  "))


# --- man pages -----------------------------------------------------------------------------------


def man(page: Page) -> str:
    """One man page in the macros of `man(7)`."""
    name = page.path.replace(" ", "-")
    lines = [
        f'.TH "{name.upper()}" 1 "" "xnatctl {__version__}" "xnatctl"',
        ".ad l",
        ".nh",
        ".SH NAME",
        f"{_roff(name)} \\- {_roff(page.summary.rstrip('.'))}",
        ".SH SYNOPSIS",
        _roff(page.usage),
        ".SH DESCRIPTION",
        _roff(page.summary),
    ]
    for paragraph in filter(None, page.text.split("\n\n")):
        lines += [".PP", _roff(paragraph)]
    if page.commands:
        lines += [".SH COMMANDS", *_listed(page.commands)]
    for heading, rows in page.options.items():
        lines += [f'.SH "{_roff(heading.upper())}"', *_listed(rows)]
    if page.examples:
        lines += [".SH EXAMPLES", ".nf", *map(_roff, _examples(page)), ".fi"]
    lines += [".SH EXIT STATUS", ".nf", *map(_roff, _codes().splitlines()), ".fi"]
    if page.path != "xnatctl":
        lines += [".SH SEE ALSO", ".BR xnatctl (1)"]
    return "\n".join(lines) + "\n"


def _examples(page: Page) -> list[str]:
    lines = (folded(f"  {line}", MAN_COLUMNS) for line in page.examples)
    return "\n".join(lines).splitlines()


def _listed(rows: Rows) -> Iterator[str]:
    for names, words in rows:
        yield ".TP"
        yield f".B {_roff(names)}"
        yield _roff(words) or "\\&"


def _roff(text: str) -> str:
    """Text that roff prints as it is: no escapes, no requests, hyphens that can be copied."""
    text = " ".join(text.split()) if "\n" in text else text
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")
    text = re.sub(r"[^\x00-\x7f]", lambda found: f"\\[u{ord(found.group()):04X}]", text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def write_man(folder: Path) -> int:
    """Write all man pages and return how many."""
    folder.mkdir(parents=True, exist_ok=True)
    made = list(pages())
    for page in made:
        (folder / f"{page.path.replace(' ', '-')}.1").write_text(man(page), "utf-8")
    return len(made)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the reference of all commands.")
    parser.add_argument("--man", metavar="DIR", help="write man pages into this folder instead")
    given = parser.parse_args()
    if given.man:
        write_man(Path(given.man))
    else:
        Path("docs/commands.md").write_text(markdown(), "utf-8")


if __name__ == "__main__":
    main()
