"""`xnatctl resource`: list, and what every command on resources needs to find them. What reads and
writes files lives in modules of its own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import NotFound, UsageError

from .group import Group, Lazy, option
from .lookup import find_session, missing
from .options import SELECTION, Function, list_options, project_option, subject_option

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
        "download": Lazy(
            "xnatctl.cli.resource_download:resource_download", "Download one, verified."
        ),
        "upload": Lazy("xnatctl.cli.resource_edit:upload", "Upload a file or folder, verified."),
        "delete": Lazy("xnatctl.cli.resource_edit:delete", "Delete one with its files."),
        "refresh": Lazy("xnatctl.cli.resource_edit:refresh", "Have a catalog looked through."),
    },
)

FIELDS = ("label", "format", "file_count", "file_size", "content")


@dataclass(frozen=True, slots=True)
class Where:
    """What a resource hangs on, as it was typed beside the session."""

    project: str | None
    subject: str | None
    scan: str | None
    assessor: str | None

    async def find(self, app: App, xnat: Xnat, session: str | None) -> Ref:
        """Raises UsageError when nothing was named, NotFound."""
        from xnatctl.model import Ref

        if self.scan is not None and self.assessor is not None:
            raise UsageError("--scan and --assessor name two different things")
        if session is None:
            if self.scan is not None or self.assessor is not None:
                raise UsageError(
                    "a scan or an assessor needs its session", hint="name it before the options"
                )
            return Ref(app.project(self.project), subject=self.subject)
        found = await find_session(app, xnat, session, project=self.project, subject=self.subject)
        ref = Ref(found.project, found.subject, found.label, found.id)
        if self.assessor is not None:
            return ref.at("assessors", await _assessor(xnat, ref, self.assessor), "out")
        return ref.at("scans", self.scan) if self.scan is not None else ref


def where_options(function: Function) -> Function:
    """`-P -S --scan --assessor`, passed as `where: Where`."""

    @project_option
    @subject_option
    @option("--scan", metavar="SCAN", group=SELECTION, help="Of one scan of the session.")
    @option("--assessor", metavar="LABEL", group=SELECTION, help="Of one of its assessors.")
    @functools.wraps(function)
    def wrapped(
        app: App,
        *,
        project: str | None,
        subject: str | None,
        scan: str | None,
        assessor: str | None,
        **rest: Any,
    ) -> Any:
        return function(app, where=Where(project, subject, scan, assessor), **rest)

    return wrapped


@resource.command("list")
@click.argument("session", required=False)
@where_options
@list_options
async def list_(app: App, *, session: str | None, where: Where, shape: Shape) -> None:
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

    async with app.xnat() as xnat:
        found = await resources_of(xnat, await where.find(app, xnat, session))
    rows = [{key: row.get(key, "") for key in FIELDS} for row in found]
    app.console.rows(
        rows,
        [
            "label",
            "format",
            Column("file_count", "Files", right=True),
            Column("file_size", "Size", right=True, show=size_cell),
            "content",
        ],
        key="label",
        shape=shape,
    )


async def resources_of(xnat: Xnat, owner: Ref) -> list[dict[str, str]]:
    """The rows of what hangs there. Raises NotFound, which names the owner."""
    from xnatctl.xnat import paths

    with missing(f"no {owner}"):
        return await xnat.rows(paths.resources(owner))


async def _assessor(xnat: Xnat, session: Ref, name: str) -> str:
    """The label of an assessor that was named by label or ID. Raises NotFound."""
    from xnatctl.xnat import paths

    for row in await xnat.rows(f"{paths.session(session)}/assessors"):
        if name in (row.get("label"), row.get("ID")):
            return row.get("label") or name
    raise NotFound(f"no assessor {name} of session {session.session}")
