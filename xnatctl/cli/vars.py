"""`subject vars` and `session vars`: custom variables, read and set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import asyncclick as click

from xnatctl.errors import UsageError

from .changes import Change, Consent, batch_option, carry_out, consent_options, named
from .fallback import Fallback
from .lookup import find_session, find_subject, missing
from .options import (
    BY_ID_OR_LABEL,
    list_options,
    optional_session_option,
    project_option,
    session_option,
)

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.model import Session
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.client import Xnat
    from xnatctl.xnat.edits import Edits

subject_vars = Fallback(
    "vars",
    usual="show",
    help="Custom variables of a subject: show and set them.\n\n"
    "`subject vars ID` is short for `subject vars show ID`.",
)
session_vars = Fallback(
    "vars",
    usual="show",
    help="Custom variables of a session: show and set them.\n\n"
    "`session vars -E ID` is short for `session vars show -E ID`.",
)


@subject_vars.command("show")
@click.argument("subject", metavar="SUBJECT")
@project_option
@list_options
async def subject_show(app: App, *, subject: str, project: str | None, shape: Shape) -> None:
    """Show the custom variables of a subject.

    \b
    Examples:
      xnatctl subject vars show SUB001 -P STUDY -o json
    """
    from xnatctl.xnat import paths
    from xnatctl.xnat.edits import Edits

    name = app.project(project)
    async with app.xnat() as xnat:
        with missing(f"no subject {subject} in project {name}", f"xnatctl subject list -P {name}"):
            found = await Edits(xnat).variables(paths.subject(name, subject))
    _print(app, found, shape)


@subject_vars.command("set")
@click.argument("words", metavar="[SUBJECT] NAME=VALUE...", nargs=-1, required=True)
@project_option
@batch_option
@consent_options
async def subject_set(
    app: App, *, words: tuple[str, ...], project: str | None, batch: str | None, consent: Consent
) -> int:
    """Set custom variables of a subject, or of all in a batch; others stay as they are.

    \b
    Examples:
      xnatctl subject vars set SUB001 cohort=A visit_ok=yes -P STUDY --yes
      xnatctl subject vars set cohort=A -P STUDY --batch cohort-a.txt --yes
    """
    from xnatctl.xnat.edits import Edits

    names, values = _split(words)
    labels = named(names, batch, what="subject")
    home = app.project(project)
    async with app.xnat() as xnat:
        edits = Edits(xnat)
        changes = [await _subject_change(xnat, edits, home, one, values) for one in labels]
        question = f"Set {_words(values)} of {', '.join(labels[:5])}?"
        return await carry_out(app, changes, question=question, consent=consent)


async def _subject_change(
    xnat: Xnat, edits: Edits, project: str, label: str, values: Mapping[str, str]
) -> Change:
    """A subject is looked for first: a PUT to a name with a typing error makes a new one."""
    found = await find_subject(xnat, project, label)

    async def do() -> None:
        await edits.set_subject_variables(found.project, found.id, values)

    return Change("set", f"subject {label}", do, _words(values))


@session_vars.command("show")
@session_option
@project_option
@list_options
async def session_show(app: App, *, session: str, project: str | None, shape: Shape) -> None:
    """Show the custom variables of a session.

    \b
    Examples:
      xnatctl session vars show -E XNAT_E00001
    """
    from xnatctl.xnat import paths
    from xnatctl.xnat.edits import Edits

    async with app.xnat() as xnat:
        found = await find_session(app, xnat, session, project=project)
        values = await Edits(xnat).variables(paths.experiment(found.id))
    _print(app, values, shape)


@session_vars.command("set")
@optional_session_option(BY_ID_OR_LABEL)
@click.argument("words", metavar="NAME=VALUE...", nargs=-1, required=True)
@project_option
@batch_option
@consent_options
async def session_set(
    app: App,
    *,
    session: str | None,
    words: tuple[str, ...],
    project: str | None,
    batch: str | None,
    consent: Consent,
) -> int:
    """Set custom variables of a session, or of all in a batch; all else stays as it is.

    \b
    Examples:
      xnatctl session vars set -P STUDY -E SUB001_MR1 rater=Kim --yes
      xnatctl session vars set -P STUDY rater=Kim --batch sessions.txt --yes
    """
    from xnatctl.xnat.edits import Edits

    extra, values = _split(words)
    if extra:
        raise UsageError(f"{extra[0]!r} is not NAME=VALUE", hint="name the session with -E")
    names = named([session] if session else [], batch, what="session")
    async with app.xnat() as xnat:
        edits = Edits(xnat)
        found = [await find_session(app, xnat, one, project=project) for one in names]
        changes = [_session_change(edits, one, values) for one in found]
        question = f"Set {_words(values)} of {', '.join(one.label for one in found[:5])}?"
        return await carry_out(app, changes, question=question, consent=consent)


def _session_change(edits: Edits, session: Session, values: Mapping[str, str]) -> Change:
    """XNAT clears visit and protocol on every change, so `edits` sets them again."""

    async def do() -> None:
        await edits.set_session_variables(session, values)

    return Change("set", f"session {session.label}", do, _words(values))


def _split(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Names before the first assignment, and the assignments. Raises UsageError."""
    names = [one for one in words if "=" not in one]
    values = dict(one.split("=", 1) for one in words if "=" in one)
    if not values:
        raise UsageError("no variable was given", hint="add NAME=VALUE")
    if "" in values:
        raise UsageError("a variable has no name", hint="NAME=VALUE")
    if len(names) > 1:
        raise UsageError(
            f"{names[1]!r} is not NAME=VALUE", why="one subject at a time", hint="use --batch"
        )
    return names, values


def _words(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _print(app: App, values: Mapping[str, str], shape: Shape) -> None:
    rows = [{"name": name, "value": value} for name, value in values.items()]
    app.console.rows(rows, ["name", "value"], key="name", shape=shape)
