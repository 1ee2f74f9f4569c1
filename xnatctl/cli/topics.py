"""`xnatctl help`: what holds for many commands, told once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncclick as click

from xnatctl.errors import UsageError

from .group import Group, command

if TYPE_CHECKING:
    from xnatctl.cli.app import App

TOPICS = {
    "exit-codes": """\
What a command says to the script that called it.

  0  done
  1  failed, or some items failed; differences found by an audit
  2  wrong usage, or a configuration that makes no sense
  3  authentication
  4  the network, or a server that gave up
  5  not found
  6  no permission
  7  declined at a prompt
  8  what arrived is not what was sent
  9  conflict, or locked by another run
  130, 143  ended by Ctrl-C or SIGTERM

The format of the output never changes the code. When several apply: 130 or
143, then 8, then 1.
""",
    "environment": """\
Variables that are read: a flag comes before one, a profile behind it.

  XNAT_URL            the server; no profile is needed then
  XNAT_USER, XNAT_PASS, XNAT_TOKEN
                      the login there; never used for a destination
  XNAT_PROFILE        the profile, as -p
  XNAT_VERIFY_SSL, XNAT_CA_BUNDLE, XNAT_TIMEOUT
                      with XNAT_URL
  XNAT_DEST_URL, XNAT_DEST_USER, XNAT_DEST_PASS, XNAT_DEST_TOKEN
                      the server to write to
  XNATCTL_LOG_FILE    a full log as JSON lines, as --log-file
  XNATCTL_DEBUG       tracebacks, as --debug
  XNATCTL_CONFIG      the file of profiles, if not ~/.config/xnatctl/config.yaml
  XDG_STATE_HOME      where runs are remembered (default ~/.local/state)
  XDG_CACHE_HOME      where names for completion are kept (default ~/.cache)
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE
                      as everywhere
  NO_COLOR, CLICOLOR, FORCE_COLOR, TERM
                      whether there is colour

`xnatctl config explain` shows every setting of a connection with its origin.
""",
    "output": """\
Results are on stdout, everything for people on stderr.

  -o table    for people; the default on a terminal
  -o tsv      a header and tab-separated lines; the default in a pipe
  -o csv      the same with commas
  -o json     one JSON value: an array for a list, an object for anything else
  -o jsonl    one JSON value a line; a transfer writes events, a summary last
  -o yaml     the same value as YAML

  -q          lists print IDs, one a line; transfers print errors only
  --no-headers     leaves out the header of tables, CSV and TSV
  --columns a,b    chooses fields, in every format

An error is three lines on stderr (error, why, fix); with -o json one object
with code, message, why, hint and retryable. Control characters of a server are
shown as escapes.
""",
    "filters": """\
Every list takes the same options, in any format.

  --filter FIELD:GLOB     rows whose field matches; may be repeated for more
  --sort-by FIELD[:desc]  numbers as numbers, rows without a value last
  --limit N               at most N rows, after filter and order
  --columns A,B           these fields only

Globs know * ? and [abc]; capitals and small letters are alike.

  xnatctl session list -P STUDY --filter 'label:SUB0*' --sort-by date:desc
""",
    "checkpoint": """\
A run can be stopped at any time; run again, it goes on where it was.

What has to move is decided by comparing what the source has with what the
destination has. The state store (`xnatctl state path`) makes that cheap and
remembers what a server cannot tell; with it deleted, a second run still moves
nothing that is already there.

The first Ctrl-C or SIGTERM ends new work and gives what is under way 30
seconds; the second stops at once. The command that goes on is printed, and
`xnatctl run resume` is another. A killed run is finished by the next one.

  xnatctl project transfer-status -P STUDY
  xnatctl project transfer-history
""",
    "profiles": """\
A profile is a named server in ~/.config/xnatctl/config.yaml.

  xnatctl config init --url https://xnat.example.org    the first one
  xnatctl config add-profile dev --url https://dev…     another one
  xnatctl config use-context dev                        the default from now on
  xnatctl -p dev project list                           for one command

Passwords come from XNAT_PASS, the login that `auth login` keeps, netrc, a
credential_command, or the keychain (`config set-password`); never from an
argument.
""",
}


@command("help")
@click.argument("words", metavar="[TOPIC | COMMAND...]", nargs=-1)
async def help_(app: App, *, words: tuple[str, ...]) -> None:
    """Explain a topic, or a command as its --help does; without one, list the topics.

    \b
    Examples:
      xnatctl help
      xnatctl help exit-codes
      xnatctl help project transfer
    """
    if not words:
        app.console.write(_list())
    elif words[0] in TOPICS and len(words) == 1:
        app.console.write(TOPICS[words[0]])
    else:
        app.console.write(_command_help(words))


def _list() -> str:
    formatter = click.Context(click.Command("help")).make_formatter()
    formatter.write("Topics, for `xnatctl help TOPIC`:\n\n")
    with formatter.indentation():
        formatter.write_dl([(name, text.splitlines()[0]) for name, text in TOPICS.items()])
    return formatter.getvalue()


def _command_help(words: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    from .root import root

    found: click.Command = root
    ctx = click.Context(root, info_name="xnatctl")
    for at, word in enumerate(words):
        below = found.get_command(ctx, word) if isinstance(found, Group) else None
        if below is None:
            known = [*TOPICS, *(found.list_commands(ctx) if isinstance(found, Group) else ())]
            close, before = get_close_matches(word, known, n=1), words[:at]
            raise UsageError(
                f"there is no topic or command {' '.join(words)!r}",
                hint=" ".join(["xnatctl help", *before, *close]),
            )
        found = below
        ctx = click.Context(found, info_name=word, parent=ctx)
    return found.get_help(ctx) + "\n"
