"""`xnatctl project`: list, show, create. The transfer commands live in `transfer`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import Conflict

from .changes import planned
from .group import Group, Lazy, option
from .names import PROJECT, project_at, remember_projects
from .options import dry_run_option, list_options

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.ui.shape import Shape

_TRANSFER = "xnatctl.cli.transfer"
_INFO = "xnatctl.cli.transfer_info"
_EXPORT = "xnatctl.cli.export"
_CHECK = "xnatctl.cli.transfer_check"
_MEMBERS = "xnatctl.cli.members"
project = Group(
    "project",
    help="Projects: list, show, create and transfer them, and say who may see them.",
    lazy={
        "export": Lazy(f"{_EXPORT}:project_export", "Export a project to disk, again and again."),
        "import": Lazy(f"{_EXPORT}:project_import", "Bring an export into an XNAT."),
        "transfer": Lazy(f"{_TRANSFER}:transfer", "Copy a project to another server."),
        "audit": Lazy("xnatctl.cli.audit:project_audit", "Compare a project with a list."),
        "transfer-plan": Lazy(f"{_TRANSFER}:transfer_plan", "Show what a transfer would do."),
        "transfer-check": Lazy(f"{_CHECK}:transfer_check", "Look at both ends beforehand."),
        "transfer-init": Lazy(f"{_INFO}:transfer_init", "Write a starter file for --config."),
        "transfer-status": Lazy(f"{_INFO}:transfer_status", "Show the latest transfer."),
        "transfer-history": Lazy(f"{_INFO}:transfer_history", "List the transfers run here."),
        "transfer-map": Lazy(f"{_INFO}:transfer_map", "List what IDs became."),
        "transfer-report": Lazy(f"{_INFO}:transfer_report", "Show the account of a transfer."),
        "users": Lazy(f"{_MEMBERS}:users", "List its users and their roles."),
        "grant": Lazy(f"{_MEMBERS}:grant", "Give a user a role."),
        "revoke": Lazy(f"{_MEMBERS}:revoke", "Take a user's roles away."),
        "access": Lazy(f"{_MEMBERS}:access", "Show or change who may read it."),
        "requests": Lazy(f"{_MEMBERS}:requests", "List the requests for access."),
    },
)


@project.command("list")
@list_options
async def list_(app: App, *, shape: Shape) -> None:
    """List the projects that you may read.

    \b
    Examples:
      xnatctl project list
      xnatctl project list --filter 'name:Study*' --sort-by name
      xnatctl project list -q
    """
    await run_list(app, shape)


async def run_list(app: App, shape: Shape) -> None:
    async with app.xnat() as xnat:
        found = await xnat.list_projects()
    rows = [
        {"id": one.id, "name": one.name, "pi": one.pi, "description": one.description}
        for one in found
    ]
    remember_projects(app.environ, xnat.url, [one.id for one in found])
    app.console.rows(rows, ["id", "name", "pi", "description"], shape=shape)


@project.command("show")
@click.argument("project_id", metavar="PROJECT", type=PROJECT)
async def show(app: App, *, project_id: str) -> None:
    """Show one project: its names, access and how much it holds.

    \b
    Examples:
      xnatctl project show STUDY
      xnatctl project show STUDY -o json
    """
    await run_show(app, project_id)


async def run_show(app: App, project_id: str) -> None:
    async with app.xnat() as xnat:
        async with project_at(xnat, project_id):
            item = await xnat.get_project(project_id)
        fields = item.get("data_fields", {})
        own = str(fields.get("ID", project_id))
        access = await xnat.accessibility(own)
        subjects = await xnat.list_subjects(own)
        sessions = [one for one in await xnat.list_experiments(own) if one.is_imaging]
    record = {
        "id": own,
        "name": fields.get("name", ""),
        "secondary_id": fields.get("secondary_ID", ""),
        "pi": _investigator(item),
        "description": fields.get("description", ""),
        "accessibility": access,
        "subjects": len(subjects),
        "sessions": len(sessions),
    }
    app.console.record(record, titles={"pi": "PI", "secondary_id": "Secondary ID"})


@project.command("create")
@click.argument("project_id", metavar="PROJECT", type=PROJECT)
@option("--name", help="Full name.  [default: the ID]")
@option("--description", help="What the project is about.")
@option("--pi", metavar="NAME", help="Last name of the principal investigator.")
@option(
    "--accessibility",
    type=click.Choice(["public", "protected", "private"]),
    default="private",
    show_default=True,
    help="Who may read it.",
)
@option("--exist-ok", is_flag=True, help="Succeed when the project exists already.")
@dry_run_option
async def create(
    app: App,
    *,
    project_id: str,
    name: str | None,
    description: str | None,
    pi: str | None,
    accessibility: str,
    exist_ok: bool,
    dry_run: bool,
) -> int:
    """Create a project; you become its owner.

    \b
    Examples:
      xnatctl project create STUDY --name 'Ageing study' --pi Smith
      xnatctl project create STUDY --exist-ok
    """
    options = Create(project_id, name, description, pi, accessibility, exist_ok, dry_run)
    return await run_create(app, options)


@dataclass(frozen=True, slots=True)
class Create:
    project: str
    name: str | None = None
    description: str | None = None
    pi: str | None = None
    accessibility: str = "private"
    exist_ok: bool = False
    dry_run: bool = False


async def run_create(app: App, options: Create) -> int:
    """Looks for the project first: a PUT of an existing one changes it and answers 200."""
    async with app.xnat() as xnat:
        known = await xnat.find_project(options.project)
        if known is not None and not options.exist_ok:
            raise Conflict(
                f"project {options.project} exists already at {xnat.name}",
                hint="add --exist-ok if that is what you want",
            )
        if options.dry_run:
            action = "create" if known is None else "keep"
            return await planned(app, action, f"project {options.project}", options.accessibility)
        if known is None:
            await xnat.create_project(
                options.project,
                name=options.name or "",
                description=options.description or "",
                pi_lastname=options.pi or "",
                accessibility=options.accessibility,
            )
    words = "Project created" if known is None else "Project exists"
    app.console.say(f"{words}: {options.project}")
    if app.console.is_machine:
        app.console.document(
            {"success": True, "project": options.project, "created": known is None}
        )
    return 0


def _investigator(item: Mapping[str, Any]) -> str:
    """The PI's last name, which XNAT puts among the fields or into a child; empty without one."""
    for child in item.get("children", []):
        if child.get("field") == "PI" and child.get("items"):
            return str(child["items"][0].get("data_fields", {}).get("lastname", ""))
    return str(item.get("data_fields", {}).get("PI/lastname", ""))
