"""`xnatctl scan`: list and show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncclick as click

from xnatctl.errors import NotFound

from .group import Group, Lazy
from .lookup import find_session
from .options import list_options, project_option, session_option, subject_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.model import Scan
    from xnatctl.ui.shape import Shape

scan = Group(
    "scan",
    help="Scans of a session: list, show, download and change them.",
    lazy={
        "download": Lazy("xnatctl.cli.download:scan_download", "Download some, verified."),
        "set": Lazy("xnatctl.cli.scan_set:scan_set", "Set type, quality or note."),
        "delete": Lazy("xnatctl.cli.deleting:scan_delete", "Delete some with their files."),
    },
)


@scan.command("list")
@session_option
@project_option
@subject_option
@list_options
async def list_(
    app: App, *, session: str, project: str | None, subject: str | None, shape: Shape
) -> None:
    """List the scans of a session.

    \b
    Examples:
      xnatctl scan list -E XNAT_E00001
      xnatctl scan list -P STUDY -E SUB001_MR1 --filter 'quality:usable' --sort-by id
      xnatctl scan list -P STUDY -E SUB001_MR1 -o json | jq length
    """
    from xnatctl.ui.console import Column

    async with app.xnat() as xnat:
        found = await find_session(app, xnat, session, project=project, subject=subject)
        scans = await xnat.list_scans(found.id)
    frames = Column("frames", right=True)
    app.console.rows(
        [_row(one) for one in scans],
        ["id", "type", "series_description", "quality", frames],
        shape=shape,
    )


@scan.command("show")
@click.argument("scan_id", metavar="SCAN")
@session_option
@project_option
@subject_option
async def show(
    app: App, *, scan_id: str, session: str, project: str | None, subject: str | None
) -> None:
    """Show one scan and the labels of its resources.

    \b
    Examples:
      xnatctl scan show -E XNAT_E00001 3
      xnatctl scan show -P STUDY -E SUB001_MR1 3 -o json
    """
    from xnatctl.model import Ref

    async with app.xnat() as xnat:
        found = await find_session(app, xnat, session, project=project, subject=subject)
        scans = {one.id: one for one in await xnat.list_scans(found.id)}
        if scan_id not in scans:
            raise NotFound(
                f"no scan {scan_id} in session {found.label}",
                why=f"its scans are {', '.join(scans) or 'none'}",
                hint=f"xnatctl scan list -E {found.id}",
            )
        ref = Ref(found.project, session=found.label, session_id=found.id).at("scans", scan_id)
        resources = await xnat.list_resources(ref)
    record = {**_row(scans[scan_id]), "resources": [one.label for one in resources]}
    app.console.record(record)


def _row(one: Scan) -> dict[str, str]:
    return {
        "id": one.id,
        "type": one.type,
        "series_description": one.series_description,
        "quality": one.quality,
        "frames": one.frames,
        "note": one.note,
    }
