"""What the commands do, from Python: `connect` and `transfer`. Import them from `xnatctl`.

Profiles, environment variables, the kept login and the state store are those of the commands, so a
transfer begun here can be continued there. Nothing is printed but warnings about the configuration:
events go to `on_event`, errors are `xnatctl.XnatctlError` and its kinds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from xnatctl import routes
from xnatctl.cli.app import App
from xnatctl.cli.runs import open_state, workers
from xnatctl.config import Overrides, Role, Server
from xnatctl.engine.events import Bus, Observer
from xnatctl.engine.runner import Options, Stop
from xnatctl.engine.types import Report, Rule, Selection
from xnatctl.errors import ConfigError
from xnatctl.model import Dicom, Ref
from xnatctl.xnat.client import Xnat


@asynccontextmanager
async def connect(
    profile: str | None = None,
    *,
    url: str | None = None,
    username: str | None = None,
    password: str | None = None,
) -> AsyncIterator[Xnat]:
    """A connection to a server with a login: a profile's, the environment's, or one that is named.

    A login that was named is ended at the end of the block; another is kept for the next command.
    Raises ConfigError, AuthError, Unreachable.
    """
    app = App()
    flags = Overrides(url=url, username=username, password=password)
    async with app.xnat(app.server(profile, flags=flags)) as xnat:
        yield xnat


async def transfer(
    project: str,
    *,
    source: str | None = None,
    destination: str,
    dest_project: str | None = None,
    dicom: Dicom = "import",
    rules: Sequence[Rule] = (),
    max_workers: int | None = None,
    dry_run: bool = False,
    on_event: Observer | None = None,
) -> Report:
    """Bring a project to another server; what is there already and equal stays as it is.

    `source` and `destination` name profiles; None is the profile that commands use. `rules` are
    those of `xnatctl project transfer --include/--exclude`. Returns the report: `exit_code` is 0
    when everything is there, and `left` names what could not be. Raises what could not be begun
    with: ConfigError, AuthError, NotFound, Locked.
    """
    app = App()
    here = app.server(source)
    there = _server(app, destination, "destination")
    stop = Stop()
    options = Options(
        verb="transfer",
        command=f"xnatctl.transfer({project!r}, destination={destination!r})",
        workers=workers(max_workers, here, there),
        dry_run=dry_run,
    )
    bus = Bus(*filter(None, [on_event]))
    async with app.xnat(here) as one, app.xnat(there) as other, open_state(app) as state:
        return await routes.transfer(
            routes.Desk(state, bus, options, stop),
            one,
            other,
            Selection(Ref(project), rules=tuple(rules)),
            project=dest_project or project,
            dicom=dicom,
        )


def _server(app: App, profile: str, role: Role) -> Server:
    if not profile:
        raise ConfigError("no destination was named", hint="destination='PROFILE'")
    return app.server(profile, role=role)
