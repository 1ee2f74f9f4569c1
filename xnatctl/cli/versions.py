"""`xnatctl version`: what is installed here. Asks no server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .group import command, option

if TYPE_CHECKING:
    from xnatctl.cli.app import App

# What a report of a fault should name: the parts that talk, and what the extras bring.
PARTS = ("aiohttp", "anyio", "asyncclick", "msgspec", "pydicom", "rich")
EXTRAS = ("pynetdicom", "distributed", "dask-jobqueue", "keyring", "isal")


@command("version")
@option("--json", "as_json", is_flag=True, help="As one JSON object; the same as -o json.")
async def version(app: App, *, as_json: bool) -> None:
    """Show the versions of xnatctl, of Python and of what they use here.

    \b
    Examples:
      xnatctl version
      xnatctl version --json
    """
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed
    from platform import platform, python_version

    from xnatctl._version import __version__

    found: dict[str, str | None] = {
        "xnatctl": __version__,
        "python": python_version(),
        "platform": platform(),
    }
    for name in (*PARTS, *EXTRAS):
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            found[name] = None
    if as_json:
        app.note_option("output", "json")
    titles = {name: name for name in (*PARTS, *EXTRAS, "xnatctl")}
    app.console.record(found, key="xnatctl", titles=titles)
