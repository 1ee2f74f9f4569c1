"""`xnatctl session`: list and show. Downloading lives in a module of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xnatctl.errors import UsageError

from .group import Group, Lazy, option
from .lookup import find_session
from .names import project_at
from .options import SELECTION, list_options, project_option, session_option, subject_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.ui.shape import Shape

session = Group(
    "session",
    help="Imaging sessions: list, show, download, share and change them.",
    lazy={
        "download": Lazy("xnatctl.cli.download:session_download", "Download one, verified."),
        "upload": Lazy("xnatctl.cli.upload:session_upload", "Upload DICOM as one, verified."),
        "upload-exam": Lazy(
            "xnatctl.cli.upload:session_upload_exam", "Upload DICOM and the files beside it."
        ),
        "upload-dicom": Lazy(
            "xnatctl.cli.upload_dicom:session_upload_dicom", "Send DICOM to a receiver (C-STORE)."
        ),
        "vars": Lazy("xnatctl.cli.vars:session_vars", "Custom variables: show and set them."),
        "share": Lazy("xnatctl.cli.sharing:session_share", "Share one into another project."),
        "unshare": Lazy("xnatctl.cli.sharing:session_unshare", "Take a share back."),
        "rename": Lazy("xnatctl.cli.renaming:session_rename", "Give new labels."),
        "normalize-labels": Lazy(
            "xnatctl.cli.renaming:normalize_labels", "Bring labels into one form."
        ),
        "delete": Lazy("xnatctl.cli.deleting:session_delete", "Delete some with their scans."),
    },
)

# What people say, where XNAT's type says something else.
ALIASES = {"OCT": "OPT", "PT": "PET"}


@session.command("list")
@project_option
@subject_option
@option("--modality", metavar="MR|PET|CT|…", group=SELECTION, help="Sessions of one modality.")
@option("--all", "everything", is_flag=True, group=SELECTION, help="Other experiments too.")
@list_options
async def list_(
    app: App,
    *,
    project: str | None,
    subject: str | None,
    modality: str | None,
    everything: bool,
    shape: Shape,
) -> None:
    """List the imaging sessions of a project or of one subject.

    \b
    Examples:
      xnatctl session list -P STUDY
      xnatctl session list -P STUDY -S SUB001 -o json | jq -r '.[].id'
      xnatctl session list -P STUDY --modality MR --sort-by date:desc --limit 10
    """
    if modality is not None and not modality.strip():
        raise UsageError("--modality is empty", hint="--modality MR")
    found = await sessions_of(app, app.project(project), subject)
    wanted = modality.strip().upper() if modality else None
    wanted = ALIASES.get(wanted or "", wanted)
    rows = [
        row
        for row, is_imaging in found
        if (everything or is_imaging) and wanted in (None, row["modality"])
    ]
    _print(app, rows, shape)


async def sessions_of(
    app: App, project: str, subject: str | None
) -> list[tuple[dict[str, str], bool]]:
    """A row for every experiment, and whether it is an imaging session."""
    async with app.xnat() as xnat:
        of = f" or no subject {subject} in it" if subject else ""
        async with project_at(xnat, project, of):
            found = await xnat.list_experiments(project, subject)
    return [
        (
            {
                "id": one.id,
                "label": one.label,
                "subject": one.subject,
                "date": one.date,
                "modality": one.modality,
            },
            one.is_imaging,
        )
        for one in found
    ]


def _print(app: App, rows: list[dict[str, str]], shape: Shape) -> None:
    app.console.rows(rows, ["id", "label", "subject", "date", "modality"], shape=shape)


@session.command("show")
@session_option
@project_option
async def show(app: App, *, session: str, project: str | None) -> None:
    """Show one session with its scans, its resources, and the projects that it is shared into.

    \b
    Examples:
      xnatctl session show -E XNAT_E00001
      xnatctl session show -P STUDY -E SUB001_MR1 -o json
    """
    await run_show(app, session, project)


async def run_show(app: App, session: str, project: str | None) -> None:
    from xnatctl.model import Ref
    from xnatctl.xnat import paths

    async with app.xnat() as xnat:
        found = await find_session(app, xnat, session, project=project)
        ref = Ref(found.project, session=found.label, session_id=found.id)
        scans = await xnat.rows(paths.scans(found.id))
        resources = await xnat.rows(paths.resources(ref))
        shares = await xnat.rows(paths.shares(paths.session(ref)))
    document: dict[str, Any] = {
        "id": found.id,
        "label": found.label,
        "subject": found.subject or found.subject_id,
        "project": found.project,
        "date": found.date,
        "xsi_type": found.xsi_type,
        "scans": scans,
        "resources": resources,
        "shared_projects": [
            {"project": row.get("ID", ""), "label": row.get("label", "")}
            for row in shares
            if row.get("ID") != found.project
        ],
    }
    print_session(app, document)


def print_session(app: App, document: dict[str, Any]) -> None:
    """The whole document for programs; for people and pipes one table after another."""
    from xnatctl.ui.console import Column
    from xnatctl.ui.render import size_cell

    console = app.console
    if console.quiet or console.format in ("json", "jsonl", "yaml"):
        console.record(document)
        return
    parts = {"scans", "resources", "shared_projects"}
    facts = {key: value for key, value in document.items() if key not in parts}
    console.record(facts, titles={"xsi_type": "Type"})
    scans = [
        {
            "id": row.get("ID", ""),
            "type": row.get("type", ""),
            "series": row.get("series_description", ""),
            "quality": row.get("quality", ""),
        }
        for row in document["scans"]
    ]
    resources = [
        {
            "label": row.get("label", ""),
            "format": row.get("format", ""),
            "count": row.get("file_count", ""),
            "size": row.get("file_size", ""),
        }
        for row in document["resources"]
    ]
    shown: tuple[tuple[str, list[dict[str, str]], dict[str, str]], ...] = (
        ("Scans", scans, {}),
        ("Resources", resources, {}),
        ("Shared into", document["shared_projects"], {"label": "Label there"}),
    )
    figures = {
        "count": Column("count", "Files", right=True),
        "size": Column("size", right=True, show=size_cell),
    }
    for title, rows, titles in shown:
        if rows:
            console.heading(f"{title} ({len(rows)})")
            columns = {key: Column(key, titles.get(key, "")) for key in rows[0]} | figures
            console.rows(rows, [columns[key] for key in rows[0]])
