"""Names that are completed or looked for when a word is nearly one: profiles, and projects.

A Tab must not wait for a server and must not ask for a password, so projects come from a small file
beside the caches of other programs, which every `project list` writes anew. Whatever is wrong with
it, or with the configuration, a Tab says nothing and completes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import NotFound, XnatctlError

if TYPE_CHECKING:
    from pathlib import Path

    from asyncclick.shell_completion import CompletionItem

    from xnatctl.xnat.client import Xnat

Environ = Mapping[str, str]


class Name(click.ParamType[str]):
    """A text that is one of the names that `known` finds, without being checked to be one."""

    name = "text"

    def __init__(self, known: Callable[[Environ, str | None], list[str]]) -> None:
        self._known = known

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from asyncclick.shell_completion import CompletionItem

        try:
            found = self._known(ctx.obj.environ, ctx.obj.settings.profile)
        except (XnatctlError, OSError, ValueError):
            return []
        return [CompletionItem(one) for one in found if one.startswith(incomplete)]


def _profiles(environ: Environ, profile: str | None) -> list[str]:
    from xnatctl.config import load

    return sorted(load(environ=environ).profiles)


def _projects(environ: Environ, profile: str | None) -> list[str]:
    from xnatctl.config import load

    url = load(environ=environ).resolve(profile).url
    return [str(one) for one in _read(_file(environ)).get(url, [])]


PROFILE = Name(_profiles)
PROJECT = Name(_projects)


def remember_projects(environ: Environ, url: str, projects: list[str]) -> None:
    """Keep what a server lists for the next Tab; a cache that cannot be written costs only that."""
    import json
    import logging

    from xnatctl.config import write_private

    file = _file(environ)
    try:
        known = _read(file)
        if known.get(url) != projects:
            write_private(file, json.dumps({**known, url: projects}))
    except (XnatctlError, OSError) as error:
        logging.getLogger("xnatctl.cli").info("names were not kept: %s", error)


def _file(environ: Environ) -> Path:
    from pathlib import Path

    base = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "~")) / ".cache")
    return Path(base).expanduser() / "xnatctl" / "projects.json"


def _read(file: Path) -> dict[str, Any]:
    import json

    try:
        found = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@asynccontextmanager
async def project_at(xnat: Xnat, project: str, also: str = "") -> AsyncIterator[None]:
    """What is not found in here is the project: say so, with the project that may have been meant.

    `also` says what else it may be that is missing.
    """
    from difflib import get_close_matches

    try:
        yield
    except NotFound as error:
        try:
            known = {one.id.casefold(): one.id for one in await xnat.list_projects()}
        except XnatctlError:
            known = {}  # what it may have been is no more than a kindness
        close = get_close_matches(project.casefold(), known, n=1)
        raise NotFound(
            f"no project {project} at {xnat.name}{also}",
            why=f"did you mean {known[close[0]]}?" if close else error.why,
            hint="xnatctl project list",
        ) from error
