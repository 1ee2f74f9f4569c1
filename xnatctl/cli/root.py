"""The table of commands: name, where it is, and its line in the help. Imports none of them."""

from __future__ import annotations

import asyncclick as click

from .group import Group, Lazy

TRANSFER, INSPECT, SERVER, SETUP = "Transfer", "Browse", "Server", "Set up"

EPILOG = """
\b
Exit codes:
  0  done                          5  not found
  1  failed, or some items failed  6  no permission
  2  wrong usage or configuration  7  declined at a prompt
  3  authentication                8  verification mismatch
  4  network, gave up              9  conflict, or locked by another run
  130, 143  ended by Ctrl-C or SIGTERM
"""

HELP = """\
Move imaging data between XNAT servers, disks and scripts: verified and resumable.

\b
Examples:
  xnatctl config init --url https://xnat.example.org
  xnatctl session list -P STUDY -o json
  xnatctl session download -P STUDY -E SUB001_MR1 --out data
"""

_AT = "xnatctl.cli"
COMMANDS = {
    "project": Lazy(f"{_AT}.project:project", "Projects: list, create, transfer.", TRANSFER),
    "session": Lazy(f"{_AT}.session:session", "Imaging sessions: list, show, download.", TRANSFER),
    "resource": Lazy(f"{_AT}.resource:resource", "Folders of files: list, download.", TRANSFER),
    "prearchive": Lazy(
        f"{_AT}.prearchive:prearchive", "Sessions that wait to be archived.", TRANSFER
    ),
    "subject": Lazy(f"{_AT}.subject:subject", "Subjects of a project.", INSPECT),
    "scan": Lazy(f"{_AT}.scan:scan", "Scans of a session.", INSPECT),
    "pipeline": Lazy(f"{_AT}.pipeline:pipeline", "Processing at the server.", SERVER),
    "admin": Lazy(f"{_AT}.admin:admin", "Catalogs, users, plugins, settings.", SERVER),
    "api": Lazy(f"{_AT}.api:api", "Any request to the REST API.", SERVER),
    "run": Lazy(f"{_AT}.run_log:run", "Runs made from here: list, show, resume.", TRANSFER),
    "local": Lazy(f"{_AT}.local:local", "Exports and archives on this disk.", TRANSFER),
    "whoami": Lazy(f"{_AT}.auth:whoami", "Show who you are at the server.", SERVER),
    "health": Lazy(f"{_AT}.auth:health", "Check that the server answers.", SERVER),
    "dicom": Lazy(f"{_AT}.dicom:dicom", "DICOM files: inspect, change, anonymize.", INSPECT),
    "auth": Lazy(f"{_AT}.auth:auth", "Log in and out.", SETUP),
    "config": Lazy(f"{_AT}.config:config", "Profiles: named servers.", SETUP),
    "doctor": Lazy(f"{_AT}.checkup:doctor", "Find out why something does not work.", SETUP),
    "bench": Lazy(f"{_AT}.bench:bench", "How fast a server is from here.", SERVER),
    "state": Lazy(f"{_AT}.state:state", "The file that remembers runs.", SETUP),
    "version": Lazy(f"{_AT}.versions:version", "What is installed here, and its versions.", SETUP),
    "completion": Lazy(f"{_AT}.completion:completion", "Completion for your shell.", SETUP),
    "help": Lazy(f"{_AT}.topics:help_", "Explain a topic or a command.", SETUP),
    "sandbox": Lazy(f"{_AT}.sandbox:sandbox", "A practice server on this machine.", SETUP),
}


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from xnatctl._version import __version__

        click.echo(f"xnatctl {__version__}")
        raise click.exceptions.Exit(0)


root = Group(
    "xnatctl",
    lazy=COMMANDS,
    help=HELP,
    epilog=EPILOG,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version and exit.",
        )
    ],
)
