"""What every run needs beside its ends, and a run over one pair of them, alone on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from xnatctl.endpoints.archive import Remember
from xnatctl.endpoints.bundle_reader import BundleReader
from xnatctl.endpoints.xnat_source import Archive
from xnatctl.engine.events import Bus, Note
from xnatctl.engine.limits import Limits
from xnatctl.engine.pace import Pace, Paced
from xnatctl.engine.ports import Dispatcher, Sink, Source
from xnatctl.engine.runner import Options, Run, Stop
from xnatctl.engine.state import Pair, StateStore, locked
from xnatctl.engine.types import Report, Selection
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.fields import Fields

if TYPE_CHECKING:
    from .exports import ExportEnds
    from .transfers import TransferEnds


@dataclass(frozen=True, slots=True)
class Desk:
    """What every run needs beside its ends: state, observers, a way to stop, and how to behave."""

    state: StateStore
    bus: Bus
    options: Options
    stop: Stop
    pace: Pace | None = None
    hands: Hands | None = None


class Hands(Protocol):
    """Other processes that units can be given to."""

    def dispatcher(self, ends: TransferEnds | ExportEnds, pace: Pace | None) -> Dispatcher:
        """One for the run between these ends, which each of the processes makes for itself."""
        ...


async def run(
    desk: Desk,
    source: Source,
    sink: Sink,
    selection: Selection,
    *,
    ends: TransferEnds | ExportEnds | None = None,
    limits: Limits | None = None,
) -> Report:
    """One run over one pair of ends, alone on it: the lock dies with this process.

    With `ends` its units may be run by the desk's other hands. A plan is always made here.
    """
    if desk.pace is not None:
        source = Paced(
            source,
            desk.pace,
            say=lambda text: desk.bus.emit(Note(text)),
            stopped=desk.stop.asked,
        )
    away = desk.hands if ends and not desk.options.dry_run else None
    work = Run(
        source,
        sink,
        options=desk.options,
        state=desk.state,
        bus=desk.bus,
        limits=limits,
        dispatcher=away.dispatcher(ends, desk.pace) if away and ends else None,
        stop=desk.stop,
    )
    if desk.options.dry_run:
        return await work(selection)
    with locked(desk.state.path.parent / "locks", work.pair):
        return await work(selection)


def remembering(state: StateStore, pair: Pair) -> Remember:
    async def remember(unit: str, facts: Mapping[str, str | None]) -> None:
        await state.remember(pair, unit, facts)

    return remember


def fields_of(archive: Archive) -> Fields | BundleReader | None:
    """What knows the custom fields of an archive."""
    if isinstance(archive, BundleReader):
        return archive
    return Fields(archive) if isinstance(archive, Xnat) else None
