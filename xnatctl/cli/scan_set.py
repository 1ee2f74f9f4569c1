"""`xnatctl scan set`: the type, quality and note of scans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import asyncclick as click

from xnatctl.errors import NotFound, UsageError

from .changes import Change, Consent, carry_out, consent_options
from .group import command, option
from .lookup import find_session
from .options import project_option, session_option, subject_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.xnat.edits import Edits


@command("set")
@click.argument("scans", metavar="SCAN...", nargs=-1, required=True)
@session_option
@project_option
@subject_option
@option("--type", "type_", metavar="TYPE", help="What kind of scan it is, such as T1w.")
@option("--quality", metavar="WORD", help="Usually usable, questionable or unusable.")
@option("--note", metavar="TEXT", help="A remark.")
@consent_options
async def scan_set(
    app: App,
    *,
    scans: tuple[str, ...],
    session: str,
    project: str | None,
    subject: str | None,
    type_: str | None,
    quality: str | None,
    note: str | None,
    consent: Consent,
) -> int:
    """Set the type, quality or note of scans.

    \b
    Examples:
      xnatctl scan set 3 -E XNAT_E00001 --quality unusable --note 'moved <1 mm>' --yes
      xnatctl scan set 3 4 -P STUDY -E SUB001_MR1 --type T1w --dry-run
    """
    from xnatctl.xnat.edits import Edits

    given = {"type": type_, "quality": quality, "note": note}
    values = {name: value for name, value in given.items() if value is not None}
    if not values:
        raise UsageError("nothing was given to set", hint="add --type, --quality or --note")
    async with app.xnat() as xnat:
        found = await find_session(app, xnat, session, project=project, subject=subject)
        known = [one.id for one in await xnat.list_scans(found.id)]
        if absent := [one for one in scans if one not in known]:
            raise NotFound(
                f"no scan {', '.join(absent)} in session {found.label}",
                why=f"its scans are {', '.join(known) or 'none'}",
            )
        edits = Edits(xnat)
        changes = [_change(edits, found.id, one, values) for one in dict.fromkeys(scans)]
        question = f"Change {len(changes)} scans of {found.label}?" if len(changes) > 1 else ""
        return await carry_out(app, changes, question=question, consent=consent)


def _change(edits: Edits, session_id: str, scan: str, values: Mapping[str, str]) -> Change:
    async def do() -> None:
        await edits.set_scan(session_id, scan, values)

    words = ", ".join(f"{name}={value}" for name, value in values.items())
    return Change("set", f"scan {scan}", do, words)
