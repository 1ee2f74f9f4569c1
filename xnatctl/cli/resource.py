"""`xnatctl resource`: list. What reads and writes files lives in modules of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncclick as click

from xnatctl.errors import NotFound, UsageError

from .group import Group, Lazy, option
from .lookup import find_session
from .options import SELECTION, list_options, project_option, subject_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.model import Ref
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.client import Xnat

resource = Group(
    "resource",
    help="Resources, the labelled folders of files: list, show, download, upload, delete.",
    lazy={
        "show": Lazy("xnatctl.cli.resource_edit:show", "Show one with its files."),
        "download": Lazy("xnatctl.cli.download:resource_download", "Download one, verified."),
        "upload": Lazy("xnatctl.cli.resource_edit:upload", "Upload a file or folder, verified."),
        "delete": Lazy("xnatctl.cli.resource_edit:delete", "Delete one with its files."),
        "refresh": Lazy("xnatctl.cli.resource_edit:refresh", "Have a catalog looked through."),
    },
)

FIELDS = ("label", "format", "file_count", "file_size", "content")


@resource.command("list")
@click.argument("session", required=False)
@project_option
@subject_option
@option("--scan", metavar="SCAN", group=SELECTION, help="Those of one scan of the session.")
@option("--assessor", metavar="LABEL", group=SELECTION, help="Those of one of its assessors.")
@list_options
async def list_(
    app: App,
    *,
    session: str | None,
    project: str | None,
    subject: str | None,
    scan: str | None,
    assessor: str | None,
    shape: Shape,
) -> None:
    """List the resources of a session, a scan, a subject or a project.

    SESSION is an accession ID, or a label together with -P. Without it, -P lists those of the
    project itself and -P with -S those of the subject.

    \b
    Examples:
      xnatctl resource list XNAT_E00001 -o json | jq -r '.[].label'
      xnatctl resource list XNAT_E00001 --scan 3
      xnatctl resource list -P STUDY -S SUB001
    """
    from xnatctl.ui.console import Column
    from xnatctl.ui.render import size_cell
    from xnatctl.xnat import paths

    async with app.xnat() as xnat:
        ref = await find_owner(
            app,
            xnat,
            session=session,
            project=project,
            subject=subject,
            scan=scan,
            assessor=assessor,
        )
        found = await xnat.rows(paths.resources(ref))
    rows = [{key: row.get(key, "") for key in FIELDS} for row in found]
    titles = {"file_count": "Files", "file_size": "Size"}
    columns = [Column(key, titles.get(key, ""), right=key in titles) for key in FIELDS]
    columns[FIELDS.index("file_size")] = Column("file_size", "Size", right=True, show=size_cell)
    app.console.rows(rows, columns, key="label", shape=shape)


async def find_owner(
    app: App,
    xnat: Xnat,
    *,
    session: str | None,
    project: str | None,
    subject: str | None,
    scan: str | None,
    assessor: str | None = None,
) -> Ref:
    """What the resources hang on. Raises UsageError when nothing was named, NotFound."""
    from xnatctl.model import Ref

    if scan is not None and assessor is not None:
        raise UsageError("--scan and --assessor name two different things")
    if session is None:
        if scan is not None or assessor is not None:
            raise UsageError(
                "a scan or an assessor needs its session", hint="name it before the options"
            )
        if project is None and subject is None:
            raise UsageError(
                "nothing was named whose resources could be meant",
                hint="name a session, or a project with -P",
            )
        return Ref(app.project(project), subject=subject)
    found = await find_session(app, xnat, session, project=project, subject=subject)
    ref = Ref(found.project, found.subject, found.label, found.id)
    if assessor is not None:
        return ref.at("assessors", await _assessor(xnat, ref, assessor), "out")
    return ref.at("scans", scan) if scan is not None else ref


async def _assessor(xnat: Xnat, session: Ref, name: str) -> str:
    """The label of an assessor that was named by label or ID. Raises NotFound."""
    from xnatctl.xnat import paths

    for row in await xnat.rows(f"{paths.session(session)}/assessors"):
        if name in (row.get("label"), row.get("ID")):
            return row.get("label") or name
    raise NotFound(f"no assessor {name} of session {session.session}")
