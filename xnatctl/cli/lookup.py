"""From what a person types to a thing on the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from xnatctl.errors import NotFound

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.model import Session, Subject
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
    except NotFound as error:
        if default is None:
            hint = f"xnatctl session list -P {project}" if project else error.hint
            raise NotFound(error.message, why=error.why, hint=hint) from error
        found = await xnat.resolve_session(session)
    owner = await _subject_of(xnat, found)
    if subject and subject.casefold() not in (owner.casefold(), found.subject_id.casefold()):
        raise NotFound(
            f"no session {session} of subject {subject}", why=f"it belongs to subject {owner}"
        )
    return replace(found, subject=owner)


async def find_subject(xnat: Xnat, project: str, subject: str) -> Subject:
    """The subject by label or ID; `project` is its own, not one that it is shared into.

    Raises NotFound.
    """
    from xnatctl.model import Subject

    with missing(
        f"no subject {subject} in project {project}", f"xnatctl subject list -P {project}"
    ):
        fields = (await xnat.get_subject(project, subject)).get("data_fields", {})
    number, label = str(fields.get("ID", subject)), str(fields.get("label", subject))
    return Subject(number, label, str(fields.get("project", project)))


async def _subject_of(xnat: Xnat, session: Session) -> str:
    """The label of the session's subject, which the session's own document does not have."""
    if session.subject or not session.subject_id:
        return session.subject or session.subject_id
    item = await xnat.get_subject(session.project, session.subject_id)
    return str(item.get("data_fields", {}).get("label") or session.subject_id)


@contextmanager
def missing(what: str, hint: str = "") -> Iterator[None]:
    """Say `what` is missing in the user's words, where the server names an address."""
    try:
        yield
    except NotFound as error:
        raise NotFound(what, why=error.why, hint=hint or error.hint) from error
