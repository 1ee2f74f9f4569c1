"""`xnatctl doctor`: what could keep commands from working, looked at one by one, with fixes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from xnatctl.errors import XnatctlError
from xnatctl.ui.render import visible

from .group import command, option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.config import Server

Row = dict[str, str]

CLOCK_TOLERANCE_S = 60.0
ENOUGH_BYTES = 2 * 1024**3
EXTRAS = {
    "keyring": ("keyring", "passwords in the keychain"),
    "dicom": ("pynetdicom", "sending DICOM over the network"),
    "dask": ("distributed", "runs on many machines"),
    "speed": ("isal", "faster checksums"),
}


class Findings:
    """Rows of OK, WARN and FAIL, in the order in which they were found."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, check: str, status: str, detail: str, fix: str = "") -> None:
        self.rows.append({"check": check, "status": status, "detail": detail, "fix": fix})

    @contextmanager
    def about(self, check: str) -> Iterator[None]:
        """An error in here becomes a row with its own fix."""
        try:
            yield
        except XnatctlError as error:
            self.add(check, "FAIL", str(error), error.hint)

    @property
    def failed(self) -> bool:
        return any(row["status"] == "FAIL" for row in self.rows)


@command("doctor")
@option("--fix", is_flag=True, help="Mend what can be mended here: the rights of private files.")
async def doctor(app: App, *, fix: bool) -> int:
    """Check the configuration, the way to the server, the login and this machine.

    \b
    Examples:
      xnatctl doctor
      xnatctl doctor -p prod --fix
    """
    found = Findings()
    server = _config(app, found)
    for name in ("config.yaml", ".session"):
        _private(app, found, name, fix=fix)
    if server is not None:
        await _server(app, found, server)
    _machine(app, found)
    _print(app, found.rows)
    return int(found.failed)


def _print(app: App, rows: list[Row]) -> None:
    """A line a check for people, with its fix below it: a table would be wider than a terminal."""
    console = app.console
    if console.format != "table" or console.quiet:
        console.rows(rows, ["check", "status", "detail", "fix"], key="check")
        return
    wide = max(len(row["check"]) for row in rows)
    for row in rows:
        console.write(f"{row['status']:<4}  {row['check']:<{wide}}  {visible(row['detail'])}\n")
        if row["fix"]:
            console.write(f"{'':{wide + 6}}  fix: {row['fix']}\n")


def _config(app: App, found: Findings) -> Server | None:
    with found.about("configuration"):
        config = app.config
        server = app.server()
        where = str(config.path) if config.path.exists() else "the environment"
        found.add("configuration", "OK", f"profile {server.name} ({server.url}) from {where}")
        if not server.verify_ssl:
            found.add("certificates", "WARN", "not checked", "name a ca_bundle instead")
        return server
    return None


def _private(app: App, found: Findings, name: str, *, fix: bool) -> None:
    """A file with secrets is nobody else's business."""
    from xnatctl.config import directory

    path = directory(app.environ) / name
    if not path.exists():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        found.add(f"rights of {name}", "OK", f"{mode:o}")
    elif fix:
        path.chmod(0o600)
        found.add(f"rights of {name}", "OK", f"were {mode:o}, are 600 now")
    else:
        found.add(
            f"rights of {name}", "WARN", f"{mode:o}: others may read it", "xnatctl doctor --fix"
        )


async def _server(app: App, found: Findings, server: Server) -> None:
    import anyio

    parts = urlsplit(server.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        addresses = await anyio.getaddrinfo(parts.hostname or "", port, type=socket.SOCK_STREAM)
    except OSError as error:
        found.add("name", "FAIL", f"{parts.hostname}: {error.strerror or error}", "check the URL")
        return
    found.add("name", "OK", f"{parts.hostname} is {addresses[0][4][0]}")
    with found.about("connection"):
        started = time.monotonic()
        async with app.stranger(server) as xnat:
            version, clock = await xnat.version(), await xnat.clock()
        took = (time.monotonic() - started) * 500
        found.add("connection", "OK", f"XNAT {version or 'of unknown version'}, {took:.0f} ms")
        if clock is not None:
            apart = abs((datetime.now(UTC) - clock).total_seconds())
            status = "OK" if apart <= CLOCK_TOLERANCE_S else "WARN"
            found.add("clock", status, f"{apart:.0f} s apart", "" if status == "OK" else "use NTP")
        await _login(app, found, server)


async def _login(app: App, found: Findings, server: Server) -> None:
    with found.about("login"):
        async with app.xnat(server) as xnat:
            name = await xnat.whoami()
            if name.lower() == "guest":
                found.add("login", "FAIL", "the server takes us for a guest", "xnatctl auth login")
                return
            readable = await xnat.list_projects()
            editable = await xnat.list_projects(editable=True)
        found.add("login", "OK", name)
        detail = f"{len(readable)} to read, {len(editable)} to change"
        found.add("projects", "OK" if readable else "WARN", detail)


def _machine(app: App, found: Findings) -> None:
    from .runs import state_path

    places = {"work folder": Path.cwd(), "state": state_path(app.environ).parent}
    for name, folder in places.items():
        there = next(one for one in (folder, *folder.parents) if one.exists())
        if not os.access(there, os.W_OK):
            found.add(name, "FAIL", f"{there} cannot be written", "choose another folder")
            continue
        free = shutil.disk_usage(there).free
        status = "OK" if free >= ENOUGH_BYTES else "WARN"
        found.add(name, status, f"{there}: {free / 1024**3:.1f} GiB free")
    for extra, (module, what) in EXTRAS.items():
        if importlib.util.find_spec(module):
            found.add(f"extra {extra}", "OK", what)
        else:
            detail = f"not installed: {what}"
            found.add(f"extra {extra}", "OK", detail, f"pip install 'xnatctl[{extra}]'")
