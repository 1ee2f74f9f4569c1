"""What the source has no more of what earlier runs brought: found, told, deleted if allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from xnatctl.endpoints.removal import Removal
from xnatctl.engine.events import Note
from xnatctl.engine.gone import Gone
from xnatctl.engine.report import summary
from xnatctl.engine.runner import status_of
from xnatctl.engine.state import Pair, locked
from xnatctl.engine.types import Left, Report
from xnatctl.errors import XnatctlError, words

from .desk import Desk

Allowed = Callable[[Sequence[Gone], float], bool]
"""Whether all this may be deleted, which is such a part of the project."""


async def with_gone(
    desk: Desk,
    pair: Pair,
    report: Report,
    found: Sequence[Gone],
    *,
    removal: Removal | None,
    asked: bool,
) -> Report:
    """The report with what is gone at the source, deleted by `removal` where there is one.

    What stays although its deletion was `asked` for makes the run fail.
    """
    if removal is not None:
        with locked(desk.state.locks, pair):
            rows = [await _delete(desk, pair, removal, one) for one in found]
    else:
        rows = [Left(str(one), "stays", one.why_not) for one in found]
    failed = asked and any(one.code == "stays" for one in rows)
    report = replace(report, gone=tuple(rows), exit_code=report.exit_code or int(failed))
    if not desk.options.dry_run:
        await desk.state.end_run(report.run_id, status_of(report), summary(report))
    return report


async def _delete(desk: Desk, pair: Pair, removal: Removal, gone: Gone) -> Left:
    if gone.why_not:
        return Left(str(gone), "stays", gone.why_not)
    try:
        await removal.take_away(gone)
    except XnatctlError as error:
        return Left(str(gone), "stays", words(error))
    keys = [key for key in gone.unit.extra if key == gone.key or key.startswith(f"{gone.key}/")]
    await desk.state.forget(pair, gone.unit.key, keys if gone.key else None)
    if "shares/" in gone.key:
        fact = {f"share:{gone.key.removeprefix('shares/')}": None}
        await desk.state.remember(pair, gone.unit.key, fact)
    if gone.key.startswith("assessors/"):
        fact = {f"assessor:{gone.key.split('/')[1]}": None}
        await desk.state.remember(pair, gone.unit.key, fact)
    desk.bus.emit(Note(f"deleted at the destination: {gone}"))
    return Left(str(gone), "deleted", "")
