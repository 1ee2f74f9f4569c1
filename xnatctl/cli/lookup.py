"""From what a person types to a thing on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xnatctl.errors import NotFound

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.model import Session
    from xnatctl.xnat.client import Xnat


async def find_session(
    app: App, xnat: Xnat, session: str, *, project: str | None, subject: str | None = None
) -> Session:
    """The session by accession ID, or by label within the project. Raises NotFound.

    A profile's default project only helps to find a label: an ID of another project is found too.
    A subject that is named must be that of the session.
    """
    default = None if project else app.server().default_project
    try:
        found = await xnat.resolve_session(session, project or default)
    except NotFound:
        if default is None:
            raise
        found = await xnat.resolve_session(session)
    if subject and subject not in (found.subject, found.subject_id):
        raise NotFound(
            f"no session {session} of subject {subject}",
            why=f"it belongs to subject {found.subject or found.subject_id}",
        )
    return found
