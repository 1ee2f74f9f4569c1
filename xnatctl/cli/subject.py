"""`xnatctl subject`: list and show."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import asyncclick as click

from .group import Group, Lazy
from .lookup import find_subject
from .names import project_at
from .options import list_options, project_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.ui.shape import Shape

subject = Group(
    "subject",
    help="Subjects of a project: list, show, download, share and change them.",
    lazy={
        "download": Lazy("xnatctl.cli.download:subject_download", "Download its sessions."),
        "vars": Lazy("xnatctl.cli.vars:subject_vars", "Custom variables: show and set them."),
        "share": Lazy("xnatctl.cli.sharing:subject_share", "Share one into another project."),
        "unshare": Lazy("xnatctl.cli.sharing:subject_unshare", "Take a share back."),
        "rename": Lazy("xnatctl.cli.renaming:subject_rename", "Give new labels, or merge."),
        "delete": Lazy("xnatctl.cli.deleting:subject_delete", "Delete with all sessions."),
    },
)

FIRST_SESSIONS = 10


@subject.command("list")
@project_option
@list_options
async def list_(app: App, *, project: str | None, shape: Shape) -> None:
    """List the subjects of a project with the number of their imaging sessions.

    \b
    Examples:
      xnatctl subject list -P STUDY
      xnatctl subject list -P STUDY --filter 'label:SUB*' --sort-by label --limit 10
      xnatctl subject list -P STUDY -q
    """
    await run_list(app, app.project(project), shape)


async def run_list(app: App, project: str, shape: Shape) -> None:
    from xnatctl.ui.console import Column

    async with app.xnat() as xnat:
        async with project_at(xnat, project):
            subjects = await xnat.list_subjects(project)
        sessions = await xnat.list_experiments(project)
    counts = Counter(one.subject_id for one in sessions if one.is_imaging)
    rows = [
        {"id": one.id, "label": one.label, "sessions": counts.get(one.id, 0)} for one in subjects
    ]
    app.console.rows(
        rows, ["id", "label", Column("sessions", right=True)], key="label", shape=shape
    )


@subject.command("show")
@click.argument("subject_label", metavar="SUBJECT")
@project_option
async def show(app: App, *, subject_label: str, project: str | None) -> None:
    """Show one subject: its sessions, and the projects that it is shared into.

    \b
    Examples:
      xnatctl subject show SUB001 -P STUDY
    """
    await run_show(app, app.project(project), subject_label)


async def run_show(app: App, project: str, label: str) -> None:
    from xnatctl.xnat import paths

    async with app.xnat() as xnat:
        found = await find_subject(xnat, project, label)
        sessions = await xnat.list_experiments(project, found.id)
        shares = await xnat.rows(paths.shares(paths.subject_by_id(found.id)))
    labels = [one.label for one in sessions]
    record = {
        "id": found.id,
        "label": found.label,
        "project": found.project,
        "session_count": len(labels),
        "sessions": labels[:FIRST_SESSIONS],
        "shared_projects": [
            _share(row, found.label) for row in shares if row.get("ID") != found.project
        ],
    }
    if len(labels) > FIRST_SESSIONS:
        record["sessions_truncated"] = True
    app.console.record(record, key="label")


def _share(row: dict[str, str], label: str) -> str:
    """A project that the subject is shared into, with its label there when it differs."""
    there = row.get("label") or label
    return row.get("ID", "") + (f" (as {there})" if there != label else "")
