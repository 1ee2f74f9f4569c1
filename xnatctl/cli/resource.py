"""`xnatctl resource`: list. Downloading lives in a module of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncclick as click

from xnatctl.errors import UsageError

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
    help="Resources, the labelled folders of files: list and download.",
    lazy={"download": Lazy("xnatctl.cli.download:resource_download", "Download one, verified.")},
)

FIELDS = ("label", "format", "file_count", "file_size", "content")


@resource.command("list")
@click.argument("session", required=False)
@project_option
@subject_option
@option("--scan", metavar="SCAN", group=SELECTION, help="Those of one scan of the session.")
@list_options
async def list_(
    app: App,
    *,
    session: str | None,
    project: str | None,
    subject: str | None,
    scan: str | None,
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
    from xnatctl.xnat import paths

    async with app.xnat() as xnat:
        ref = await find_owner(
            app, xnat, session=session, project=project, subject=subject, scan=scan
        )
        found = await xnat.rows(paths.resources(ref))
    rows = [{key: row.get(key, "") for key in FIELDS} for row in found]
    titles = {"file_count": "Files", "file_size": "Size"}
    columns = [Column(key, titles.get(key, ""), right=key in titles) for key in FIELDS]
    app.console.rows(rows, columns, key="label", shape=shape)


async def find_owner(
    app: App,
    xnat: Xnat,
    *,
    session: str | None,
    project: str | None,
    subject: str | None,
    scan: str | None,
) -> Ref:
    """What the resources hang on. Raises UsageError when nothing was named, NotFound."""
    from xnatctl.model import Ref

    if session is None:
        if scan is not None:
            raise UsageError("--scan needs its session", hint="name it before the options")
        if project is None and subject is None:
            raise UsageError(
                "nothing was named whose resources could be meant",
                hint="name a session, or a project with -P",
            )
        return Ref(app.project(project), subject=subject)
    found = await find_session(app, xnat, session, project=project, subject=subject)
    ref = Ref(found.project, session=found.label, session_id=found.id)
    return ref.at("scans", scan) if scan is not None else ref
