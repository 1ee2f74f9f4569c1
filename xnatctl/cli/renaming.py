"""`subject rename`, `session rename` and `session normalize-labels`.

A rename moves the folder of a session, which can outlast any connection: when the answer is lost,
the label is looked at until it has changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from xnatctl.errors import Conflict, NotFound, Refused, UsageError, XnatctlError

from .changes import Change, Consent, carry_out, consent_options
from .group import command, option
from .labels import (
    Numbered,
    Rename,
    Rule,
    mapping_rule,
    normal_labels,
    pattern_rule,
    patterns_rule,
    renames,
)
from .lookup import find_session
from .names import project_at
from .options import SELECTION, optional_session_option, project_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.model import Session
    from xnatctl.xnat.client import Xnat
    from xnatctl.xnat.edits import Edits

# Seconds for which a rename without an answer is waited for, and between two looks.
RENAME_MOST_S = 4 * 3600.0
LOOK_EVERY_S = 5.0

MAPPING = option(
    "--mapping", metavar="FILE", group=SELECTION, help="JSON file with old and new labels."
)
PATTERN = option(
    "--pattern", metavar="REGEX", group=SELECTION, help="Labels that match, with groups."
)


@dataclass(frozen=True, slots=True)
class RenameOptions:
    consent: Consent
    mapping: str | None = None
    pattern: str | None = None
    to: str | None = None
    patterns_file: str | None = None

    def rule(self, project: str) -> Rule:
        """The one rule that was given. Raises UsageError for none or several."""
        given = [self.mapping, self.pattern, self.patterns_file]
        if sum(one is not None for one in given) != 1:
            raise UsageError(
                "one way of renaming is needed",
                why="--mapping, --pattern with --to, and --patterns-file exclude each other",
                hint=r"--pattern '^(\w+)_v1$' --to '{1}'",
            )
        if self.mapping is not None:
            return mapping_rule(Path(self.mapping))
        if self.patterns_file is not None:
            return patterns_rule(Path(self.patterns_file), project=project)
        if self.to is None:
            raise UsageError("--pattern needs --to", hint=r"--pattern '^(\w+)_v1$' --to '{1}'")
        return pattern_rule(self.pattern or "", self.to, project=project)


@command("rename")
@project_option
@MAPPING
@PATTERN
@option("--to", metavar="TEMPLATE", help="The new label; {1} is the pattern's first group.")
@option(
    "--patterns-file",
    metavar="FILE",
    group=SELECTION,
    help="JSON file with patterns by project; the first that matches counts.",
)
@consent_options
async def subject_rename(
    app: App,
    *,
    project: str | None,
    mapping: str | None,
    pattern: str | None,
    to: str | None,
    patterns_file: str | None,
    consent: Consent,
) -> int:
    """Give subjects new labels; one whose new label is another's is merged into that one.

    A merge moves the sessions and deletes the subject that is left empty, so it is asked for.

    \b
    Examples:
      xnatctl subject rename -P STUDY --mapping new-labels.json --dry-run
      xnatctl subject rename -P STUDY --pattern '^(\\w+)_visit\\d+$' --to '{1}' --yes
      xnatctl subject rename -P STUDY --patterns-file patterns.json
    """
    options = RenameOptions(consent, mapping, pattern, to, patterns_file)
    return await run_subject_rename(app, app.project(project), options)


async def run_subject_rename(app: App, project: str, options: RenameOptions) -> int:
    from xnatctl.xnat.edits import Edits

    rule = options.rule(project)
    async with app.xnat() as xnat:
        async with project_at(xnat, project):
            subjects = await xnat.list_subjects(project)
        own = {one.label: one.id for one in subjects if one.project == project}
        plan = renames([one.label for one in subjects], rule, may_merge=True)
        for one in plan:
            if one.old not in own:
                raise Conflict(f"{one.old} belongs to another project and cannot be renamed here")
        work = _Subjects(xnat, Edits(xnat), project, own)
        changes = [work.change(one) for one in plan]
        merges = sum(one.merge for one in plan)
        question = f"Merge {merges} subjects into others, and delete them?" if merges else ""
        return await carry_out(app, changes, question=question, consent=options.consent)


class _Subjects:
    """Renames of one project. `ids` grows as labels pass from one subject to another."""

    def __init__(self, xnat: Xnat, edits: Edits, project: str, ids: dict[str, str]) -> None:
        self.xnat = xnat
        self.edits = edits
        self.project = project
        self.ids = {label.casefold(): number for label, number in ids.items()}

    def change(self, one: Rename) -> Change:
        async def do() -> None:
            await (self.merge(one) if one.merge else self.rename(one))

        action = "merge" if one.merge else "rename"
        return Change(action, f"subject {one.old}", do, f"into {one.new}" if one.merge else one.new)

    async def rename(self, one: Rename) -> None:
        number = self.ids[one.old.casefold()]
        await self.edits.rename_subject(self.project, number, one.new)
        fields = (await self.xnat.get_subject(self.project, number)).get("data_fields", {})
        if str(fields.get("label")) != one.new:
            raise Refused(f"{self.xnat.name} answered well, and {one.old} has its old label")
        self.ids[one.new.casefold()] = self.ids.pop(one.old.casefold())

    async def merge(self, one: Rename) -> None:
        """Sessions move first; what still holds something is never deleted."""
        from xnatctl.model import Ref
        from xnatctl.xnat import paths

        number, target = self.ids[one.old.casefold()], self.ids[one.new.casefold()]
        for session in await self._sessions(number):
            await self.edits.move_session(session, target)
        left = [session.label for session in await self._sessions(number)]
        resources = await self.xnat.list_resources(Ref(self.project, subject=number))
        left += [f"resource {resource.label}" for resource in resources]
        if left:
            raise Refused(
                f"{one.old} was not deleted",
                why=f"it still has {', '.join(left)}",
                hint=f"move them to {one.new}, then xnatctl subject delete {one.old}",
            )
        await self.edits.delete(paths.subject(self.project, number))
        del self.ids[one.old.casefold()]

    async def _sessions(self, subject: str) -> list[Session]:
        found = await self.xnat.list_experiments(self.project, subject)
        return [one for one in found if not one.parent]


@command("rename")
@optional_session_option("One session, with its new label in --to.")
@project_option
@MAPPING
@PATTERN
@option("--to", metavar="LABEL", help="The new label, or its template with --pattern.")
@consent_options
async def session_rename(
    app: App,
    *,
    session: str | None,
    project: str | None,
    mapping: str | None,
    pattern: str | None,
    to: str | None,
    consent: Consent,
) -> int:
    """Give sessions new labels. Their folders at the server move, which may take long.

    \b
    Examples:
      xnatctl session rename -P STUDY -E SUB001_MR1 --to SUB001_BASELINE
      xnatctl session rename -P STUDY --pattern '^(\\w+)_MR1$' --to '{1}_BASE' --dry-run
    """
    options = RenameOptions(consent, mapping, pattern, to)
    async with app.xnat() as xnat:
        if session is None:
            home = app.project(project)
            return await rename_sessions(app, xnat, home, options.rule(home), options)
        if mapping or pattern or not to:
            raise UsageError("-E needs --to LABEL and nothing else", hint="--to NEW_LABEL")
        found = await find_session(app, xnat, session, project=project)
        home, new = found.project, to
        old = found.label

        def rule(label: str) -> str | None:
            return new if label == old else None

        return await rename_sessions(app, xnat, home, rule, options)


async def rename_sessions(
    app: App, xnat: Xnat, project: str, rule: Rule, options: RenameOptions
) -> int:
    from xnatctl.xnat.edits import Edits

    async with project_at(xnat, project):
        found = await xnat.list_experiments(project)
    sessions = {one.label: one for one in found}
    plan = renames(list(sessions), rule, may_merge=False)
    for one in plan:
        if sessions[one.old].project != project or sessions[one.old].parent:
            raise Conflict(f"{one.old} is no session of {project} itself and keeps its label")
    edits = Edits(xnat)
    changes = [_session_change(xnat, edits, sessions[one.old], one) for one in plan]
    question = f"Rename {len(changes)} sessions?" if len(changes) > 1 else ""
    return await carry_out(app, changes, question=question, consent=options.consent)


def _session_change(xnat: Xnat, edits: Edits, session: Session, one: Rename) -> Change:
    async def do() -> None:
        try:
            await edits.rename_session(session, one.new)
        except Conflict as error:
            raise Conflict(
                f"{one.old} cannot be renamed now", why=error.why, hint="wait for its workflows"
            ) from error
        except XnatctlError as error:
            if not error.retryable or not getattr(error, "sent", True):
                raise
            await _until_renamed(xnat, session, one.new, error)
        if (now := await _label_of(xnat, session)) != one.new:
            raise Refused(f"{xnat.name} answered well, and {one.old} has the label {now}")

    return Change("rename", f"session {one.old}", do, one.new)


async def _until_renamed(xnat: Xnat, session: Session, label: str, error: XnatctlError) -> None:
    """The answer was lost, which says nothing of the work: look until it is done."""
    with anyio.move_on_after(RENAME_MOST_S):
        while True:
            if await _label_of(xnat, session) == label:
                return
            await anyio.sleep(LOOK_EVERY_S)
    raise error


async def _label_of(xnat: Xnat, session: Session) -> str:
    return (await xnat.resolve_session(session.id)).label


@command("normalize-labels")
@project_option
@option(
    "--subject-pattern",
    metavar="REGEX",
    group=SELECTION,
    help="Sessions of subjects whose label matches, only.",
)
@consent_options
async def normalize_labels(
    app: App, *, project: str | None, subject_pattern: str | None, consent: Consent
) -> int:
    """Bring session labels into the form SUBJECT_VISIT_SEn_MODALITY.

    VISIT counts the dates of a subject in one modality, n the sessions of one date, such as
    SUB001_02_SE01_MR.

    \b
    Examples:
      xnatctl session normalize-labels -P STUDY --dry-run
      xnatctl session normalize-labels -P STUDY --subject-pattern '^STUDY_' --yes
    """
    options = RenameOptions(consent)
    home = app.project(project)
    async with app.xnat() as xnat:
        numbered = await _numbered(xnat, home, subject_pattern)
        if not numbered:
            raise NotFound(f"no session in {home} whose subject matches {subject_pattern!r}")
        normal, skipped = normal_labels(numbered)
        for label, why in skipped.items():
            app.console.say(f"left as it is: {label} ({why})")
        return await rename_sessions(app, xnat, home, normal.get, options)


async def _numbered(xnat: Xnat, project: str, subject_pattern: str | None) -> Sequence[Numbered]:
    from xnatctl.xnat import paths
    from xnatctl.xnat.parse import cell, modality_of

    try:
        known = re.compile(subject_pattern or "")
    except re.error as error:
        raise UsageError(f"{subject_pattern!r} is no regular expression", why=str(error)) from error
    columns = "ID,label,project,subject_label,xsiType,date,time"
    async with project_at(xnat, project):
        rows = await xnat.rows(paths.experiments(project), {"columns": columns})
    return [
        Numbered(
            cell(row, "label"),
            cell(row, "subject_label"),
            modality_of(cell(row, "xsiType")),
            cell(row, "date"),
            cell(row, "time"),
        )
        for row in rows
        if known.search(cell(row, "subject_label")) and cell(row, "project") in ("", project)
    ]
