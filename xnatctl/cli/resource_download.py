"""`resource download`: the files of one resource, as an archive or below a folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import UsageError

from .download import Errand, Manner, run_download
from .endurance import endurance_options
from .group import command, option
from .lookup import find_session, missing
from .options import (
    SELECTION,
    TRANSFER,
    dry_run_option,
    project_option,
    subject_option,
    workers_option,
)
from .unattended import unattended_options

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.engine.types import Unit
    from xnatctl.model import Ref
    from xnatctl.xnat.client import Xnat


@command("download")
@click.argument("words", metavar="[SESSION] LABEL", nargs=-1, required=True)
@project_option
@subject_option
@option("--scan", metavar="SCAN", group=SELECTION, help="That of one scan of the session.")
@option("--assessor", metavar="LABEL", group=SELECTION, help="That of one assessor of it.")
@option("--reconstruction", metavar="ID", group=SELECTION, help="That of one reconstruction.")
@option(
    "--side",
    type=click.Choice(["in", "out"]),
    default="out",
    show_default=True,
    group=SELECTION,
    help="Of an assessor or reconstruction: what went in, or what came out.",
)
@option(
    "-f",
    "--output-file",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F.zip",
    help="One archive, proven whole before it gets this name.",
)
@option("--file", "old_file", type=click.Path(path_type=Path, dir_okay=False), hidden=True)
@option(
    "--extract",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The files themselves, below this folder.",
)
@option("--overwrite", is_flag=True, group=TRANSFER, help="Replace what differs.")
@option("--verify", is_flag=True, group=TRANSFER, help="Read everything on disk again too.")
@workers_option
@endurance_options
@unattended_options
@dry_run_option
async def resource_download(
    app: App,
    *,
    words: tuple[str, ...],
    project: str | None,
    subject: str | None,
    file: Path | None,
    old_file: Path | None,
    folder: Path | None,
    **values: Any,
) -> int:
    """Download one resource of a project, subject, session, scan, assessor or reconstruction.

    SESSION is an accession ID, or a label together with -P. Without it, -P means a resource of the
    project itself and -P with -S one of the subject.

    \b
    Examples:
      xnatctl resource download XNAT_E00001 NOTES -f notes.zip
      xnatctl resource download -P STUDY SUB001_MR1 NIFTI --scan 2 --extract nifti
      xnatctl resource download -P STUDY docs -f docs.zip
    """
    if len(words) > 2:
        raise UsageError("two names at most are expected: SESSION and LABEL")
    file = file or old_file
    if (file is None) == (folder is None):
        wrong = "-f and --extract exclude each other" if file else "say where the resource shall go"
        raise UsageError(wrong, hint="-f FILE.zip for an archive, or --extract DIR")
    place = {name: values.pop(name) for name in ("scan", "assessor", "reconstruction", "side")}
    manner = Manner(out=folder or (file or Path()).parent, **values)

    async def errand(xnat: Xnat) -> Errand:
        from xnatctl.engine.types import Selection
        from xnatctl.routes import Folder, Zip

        session = words[0] if len(words) == 2 else None
        owner = await _resource_owner(
            app, xnat, session=session, project=project, subject=subject, **place
        )
        ref = owner.in_resource(words[-1])
        ids = {"session_id": ref.session_id or "", "project": ref.project, "resource": words[-1]}
        named = shlex.join(["xnatctl", "resource", "list", "-P", ref.project, *words[:-1]])
        with missing(f"no resource {words[-1]} of {owner}", named):
            await xnat.list_files(ref)
        if file is not None:
            name = ref.session or ref.subject or ref.project
            into: Folder | Zip = Zip(file, lambda unit, key: f"{name}/{key}", manner.verify)
        else:
            into = Folder(manner.out, in_resource, manner.verify)
        return Errand(Selection(ref), into, file or manner.out, ids)

    return await run_download(app, manner, errand)


async def _resource_owner(
    app: App,
    xnat: Xnat,
    *,
    session: str | None,
    project: str | None,
    subject: str | None,
    scan: str | None,
    assessor: str | None,
    reconstruction: str | None,
    side: Any,
) -> Ref:
    """What the resource hangs on. Raises UsageError, NotFound."""
    from xnatctl.model import Ref

    below = [one for one in (scan, assessor, reconstruction) if one is not None]
    if len(below) > 1:
        raise UsageError("--scan, --assessor and --reconstruction exclude each other")
    if session is None:
        if below:
            raise UsageError("a scan or an assessor needs its session", hint="name it before LABEL")
        return Ref(app.project(project), subject=subject)
    found = await find_session(app, xnat, session, project=project, subject=subject)
    ref = Ref(found.project, found.subject, session=found.label, session_id=found.id)
    if scan is not None:
        return ref.at("scans", scan)
    if assessor is not None:
        return ref.at("assessors", assessor, side)
    if reconstruction is not None:
        return ref.at("reconstructions", reconstruction, side)
    return ref


def in_resource(unit: Unit, key: str) -> str:
    """The path of a file inside its resource."""
    return key.partition("/files/")[2]
