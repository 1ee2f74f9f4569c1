"""Options that several commands share, each with one spelling and one meaning.

A decorator here gathers its options into one record, so a command's function has few parameters:

    @project.command("list")
    @list_options
    async def list_(app: App, *, shape: Shape) -> None: ...
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import UsageError

from .group import option
from .names import PROFILE, PROJECT

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.config import Server

Function = Any  # a command function; click wraps it in ways that no signature can say


class Span(click.ParamType[float]):
    """A duration in seconds, typed as `30`, `30s`, `5m`, `2h` or `1d`."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(value).strip().lower())
        if found is None:
            self.fail(f"{value!r} is no duration such as 30s, 5m or 2h", param, ctx)
        return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


BY_ID_OR_LABEL = "Session: its accession ID, or its label together with -P."
NATURAL = click.IntRange(min=0)
SPAN = Span()
# What a server can do with the catalog of a resource, and what is asked for unless something is.
REFRESHES = ("checksum", "delete", "append", "populateStats")
USUAL_REFRESHES = ("checksum", "append", "populateStats")
SELECTION, OUTPUT, CONNECTION, TRANSFER = "Selection", "Output", "Connection", "Transfer"


def project_option(function: Function) -> Function:
    """`-P/--project`, passed as `project`: None when it was not given."""
    return option(
        "-P",
        "--project",
        metavar="PROJECT",
        type=PROJECT,
        group=SELECTION,
        help="Project ID.  [default: the profile's default_project]",
    )(function)


def subject_option(function: Function) -> Function:
    return option(
        "-S", "--subject", metavar="SUBJECT", group=SELECTION, help="Subject label or ID."
    )(function)


def session_option(function: Function) -> Function:
    """`-E/--experiment`, passed as `session`."""
    return _session("session", BY_ID_OR_LABEL, required=True)(function)


def optional_session_option(words: str) -> Callable[[Function], Function]:
    """The same where it may be left out: None then. `words` say what it is for."""
    return _session("session", words)


def sessions_option(words: str) -> Callable[[Function], Function]:
    """The same several times, passed as `sessions`."""
    return _session("sessions", f"{words} May be repeated.", multiple=True)


def _session(name: str, words: str, **more: Any) -> Callable[[Function], Function]:
    return option(
        "-E", "--experiment", name, metavar="SESSION", group=SELECTION, help=words, **more
    )


def workers_option(function: Function) -> Function:
    """`-w/--workers`, passed as `workers`: None when it was not given."""
    return option(
        "-w",
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        group=TRANSFER,
        help="At most this many things at once.  [default: the profile's workers]",
    )(function)


def yes_option(function: Function) -> Function:
    """`-y/--yes`, passed as `yes`."""
    return option("-y", "--yes", is_flag=True, help="Do not ask for a confirmation.")(function)


def dry_run_option(function: Function) -> Function:
    """`--dry-run`, passed as `dry_run`."""
    return option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")(
        function
    )


def list_options(function: Function) -> Function:
    """`--filter --sort-by --limit --columns`, passed as `shape: Shape`."""

    @option(
        "--filter",
        "filters",
        metavar="FIELD:GLOB",
        multiple=True,
        group=OUTPUT,
        help="Keep rows whose field matches, such as 'label:SUB*'. May be repeated.",
    )
    @option("--sort-by", metavar="FIELD[:desc]", group=OUTPUT, help="Order of the rows.")
    @option("--limit", type=NATURAL, metavar="N", group=OUTPUT, help="At most N rows.")
    @option("--columns", metavar="A,B", group=OUTPUT, help="These fields only, in any format.")
    @functools.wraps(function)
    def wrapped(
        app: App,
        *,
        filters: tuple[str, ...],
        sort_by: str | None,
        limit: int | None,
        columns: str | None,
        **rest: Any,
    ) -> Any:
        from xnatctl.ui.shape import Shape

        return function(app, shape=Shape(filters, sort_by, limit, columns), **rest)

    return wrapped


@dataclass(frozen=True, slots=True)
class Destination:
    """The other server of a command that talks to two."""

    profile: str | None = None
    url: str | None = None
    username: str | None = None
    password_stdin: bool = False

    def server(self, app: App) -> Server:
        """Resolve it; reads the password from standard input if that was asked for."""
        from xnatctl.config import Overrides

        password = read_secret("--dest-pass-stdin") if self.password_stdin else None
        flags = Overrides(url=self.url, username=self.username, password=password)
        return app.server(self.profile, role="destination", flags=flags)


def destination_options(function: Function) -> Function:
    """`--dest-profile` and its hidden relatives, passed as `destination: Destination`."""

    @option("--dest-pass-stdin", is_flag=True, hidden=True)
    @option("--dest-pass", hidden=True, expose_value=False, callback=refuse_secret)
    @option("--dest-user", hidden=True)
    @option("--dest-url", hidden=True)
    @option(
        "--dest-profile",
        metavar="NAME",
        type=PROFILE,
        group=CONNECTION,
        help="Profile of the server to write to.",
    )
    @functools.wraps(function)
    def wrapped(
        app: App,
        *,
        dest_profile: str | None,
        dest_url: str | None,
        dest_user: str | None,
        dest_pass_stdin: bool,
        **rest: Any,
    ) -> Any:
        destination = Destination(dest_profile, dest_url, dest_user, dest_pass_stdin)
        return function(app, destination=destination, **rest)

    return wrapped


def refuse_secret(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """A password as an argument is refused: every user of the machine can read it."""
    if value is not None:
        name = param.opts[0]
        raise UsageError(
            f"{name} is refused",
            why="what is typed on a command line can be read by everybody on this machine",
            hint=f"use {name if name.startswith('--dest') else '--password'}-stdin, "
            "a variable such as XNAT_PASS, or netrc",
        )


def read_secret(name: str) -> str:
    """One line from standard input. Raises UsageError when there is none."""
    line = sys.stdin.readline() if sys.stdin else ""
    secret = line.rstrip("\r\n")
    if not secret:
        raise UsageError(
            f"{name} got no password",
            why="standard input was empty",
            hint=f"printf '%s\\n' \"$PASSWORD\" | xnatctl … {name}",
        )
    return secret
