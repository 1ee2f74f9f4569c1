"""The shape of every command: lazily loaded groups, global options anywhere, grouped help.

The parser never runs a command. A command's `invoke` returns a `Job`, which `main` runs afterwards,
so parsing and `--help` need no event loop, and a signal is handled in one place.

Groups load their commands by name out of a static table, so that `--help` imports none of them.
Imports little but asyncclick: what is imported here is paid for by every `--help`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from typing import Any

import asyncclick as click
from asyncclick.core import ParameterSource

from .names import PROFILE

FORMATS = ("table", "json", "jsonl", "yaml", "csv", "tsv")
WIDEST_NAME = 26  # a longer one has a line of its own in the help

# A word of a command line; an option takes along the word behind it, which may be its value.
_WORD = re.compile(r"""(?:\|\s+)?(?:-{1,2}\w[\w-]*\s+(?!-\w|--))?(?:'[^']*'|"[^"]*"|[^\s'"])+""")

Rows = list[tuple[str, str]]
NAMES = {"help_option_names": ["-h", "--help"]}


@dataclass(frozen=True, slots=True)
class Job:
    """What the command line asked for: `call()` is the command's coroutine."""

    call: Callable[[], Any]
    path: str


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command that is imported when it is used: `target` is `module:attribute`."""

    target: str
    help: str
    section: str = "Commands"

    def load(self) -> click.Command:
        module, _, name = self.target.partition(":")
        found = getattr(import_module(module), name)
        if not isinstance(found, (Command, Group)):
            raise TypeError(f"{self.target} was not made by `group.command` or `group.Group`")
        return found


def command(name: str, **kwargs: Any) -> Callable[[Any], Command]:
    """A command for a group's `lazy` table, or for the root's."""
    decorate: Callable[[Any], Command] = click.command(name, cls=Command, **kwargs)
    return decorate


class Option(click.Option):
    """An option that stands below a heading of its own in the help."""

    def __init__(self, *args: Any, group: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What stands in brackets: a default, but no `x>=1`, which the error says when it is so."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


def option(*names: str, group: str = "Options", **kwargs: Any) -> Callable[[Any], Any]:
    """`asyncclick.option`, with the heading under which the help shows it."""
    return click.option(*names, cls=Option, group=group, **kwargs)


def _note(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Tell the app what was typed; the innermost place wins, since it is parsed last."""
    name = param.name or ""
    if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE and ctx.obj is not None:
        ctx.obj.note_option(name, value)
    return value


def _global(*names: str, **kwargs: Any) -> Option:
    return Option(names, group="Global options", expose_value=False, callback=_note, **kwargs)


GLOBAL_OPTIONS = (
    _global(
        "-p",
        "--profile",
        metavar="NAME",
        type=PROFILE,
        help="Server to talk to; see `config show`.",
    ),
    _global(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        metavar="FORMAT",
        help=f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}.  [default: table, or tsv in a pipe]",
    ),
    _global(
        "-q", "--quiet", is_flag=True, help="Lists print IDs only; transfers print errors only."
    ),
    _global("-v", "--verbose", count=True, help="Say more; -vv shows every HTTP request."),
    _global("--debug", is_flag=True, help="Show a traceback when something fails."),
    _global(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        metavar="WHEN",
        help="auto, always or never.  [default: auto]",
    ),
    _global("--no-color", is_flag=True, help="The same as --color never."),
    _global("--no-headers", is_flag=True, help="Leave out the header of tables, CSV and TSV."),
    _global("--log-file", metavar="FILE", help="Write a full log as JSON lines."),
    _global(
        "--progress",
        type=click.Choice(["auto", "bar", "plain", "none"]),
        metavar="HOW",
        help="How a transfer shows its progress: auto, bar, plain or none.",
    ),
    _global(
        "--events",
        metavar="FILE",
        help="Write each event of a transfer as a JSON line; - is stdout.",
    ),
)


class Command(click.Command):
    """A command that is returned as a `Job` instead of being run, called with the app first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["context_settings"] = {**NAMES, **(kwargs.get("context_settings") or {})}
        super().__init__(*args, **kwargs)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return _with_globals(self, super().get_params(ctx))

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        with formatter.indentation():
            room = formatter.width - formatter.current_indent
            lines = cleandoc(self.help or "").splitlines()
            formatter.write_text("\n".join(folded(line, room) for line in lines))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)
        if ctx.parent is not None:
            formatter.write_paragraph()
            formatter.write_text("Global options such as -p and -o: see `xnatctl --help`.")

    async def invoke(self, ctx: click.Context) -> Any:
        callback, params = self.callback, dict(ctx.params)
        assert callback is not None
        return Job(lambda: callback(ctx.obj, **params), ctx.command_path)


class Group(click.Group):
    """A noun. `lazy` names commands that other modules hold."""

    command_class = Command

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy] | None = None, **kwargs: Any) -> None:
        kwargs["context_settings"] = {**NAMES, **(kwargs.get("context_settings") or {})}
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return _with_globals(self, super().get_params(ctx))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *(name for name in self.lazy if name not in self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in self.lazy:
            self.add_command(self.lazy[cmd_name].load(), cmd_name)
        return super().get_command(ctx, cmd_name)

    async def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return await super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=self.list_commands(ctx), ctx=ctx
            ) from None

    async def invoke(self, ctx: click.Context) -> Any:
        if not ctx._protected_args:
            raise click.exceptions.NoArgsIsHelpError(ctx)
        return await super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        _write_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, Rows] = {}
        for name in self.list_commands(ctx):
            if name in self.lazy:
                known = self.lazy[name]
                sections.setdefault(known.section, []).append((name, known.help))
            elif not self.commands[name].hidden:
                words = self.commands[name].get_short_help_str(200)
                sections.setdefault("Commands", []).append((name, words))
        _write_lists(formatter, sections)


Group.group_class = Group


def _with_globals(command: click.Command, params: list[click.Parameter]) -> list[click.Parameter]:
    """The command's own parameters, then the global ones whose names it does not use itself."""
    taken = {name for param in command.params for name in param.opts}
    return [*params, *(one for one in GLOBAL_OPTIONS if not taken & set(one.opts))]


def _write_options(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    sections: dict[str, Rows] = {}
    for param in command.get_params(ctx):
        group = getattr(param, "group", "Options")
        record = param.get_help_record(ctx)
        if record is None or (group == "Global options" and ctx.parent is not None):
            continue
        sections.setdefault(group, []).append(record)
    own = sections.pop("Options")  # never empty: --help is one of them
    _write_lists(formatter, {**sections, "Options": own})


def folded(line: str, room: int) -> str:
    """A command line that is too long for the terminal, in lines that can be copied as they are."""
    if not line.startswith("  ") or len(line) <= room:
        return line
    lines = [" "]
    for word in _WORD.findall(line):
        if len(lines[-1]) + len(word) + 3 > room:
            lines.append("     ")
        lines[-1] += f" {word}"
    return " \\\n".join(lines)


def _write_lists(formatter: click.HelpFormatter, sections: Mapping[str, Rows]) -> None:
    """Names and what they are for, in columns that line up from section to section."""
    names = [name for rows in sections.values() for name, _ in rows]
    wide = max(len(name) for name in names if len(name) <= WIDEST_NAME)
    for title, rows in sections.items():
        with formatter.section(title):
            formatter.write_dl([(name.ljust(wide), words) for name, words in rows], col_max=wide)
