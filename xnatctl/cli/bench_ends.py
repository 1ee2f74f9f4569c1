"""What a benchmark reads, and where it writes: found on the server, or made and removed again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from xnatctl import routes
from xnatctl.bench.probe import Tally
from xnatctl.bench.sample import resources_of
from xnatctl.engine.ports import Sink, Source
from xnatctl.engine.types import Item, Unit
from xnatctl.errors import NotFound, Vanished, XnatctlError, words
from xnatctl.model import Ref, Session
from xnatctl.ui.render import size as size_words
from xnatctl.xnat import paths
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.edits import Edits

from .app import App
from .bench_sweep import Once, Sweep
from .lookup import find_session

PREFIX = "xnatctl-bench-"
LOOKED_AT = 20
"""So many projects where none was named, and sessions of one, are looked into."""
MOST_FILES = 20_000
CLEANING_S = 60.0
TRIES = 5


# --- what is there -------------------------------------------------------------------------------


async def find_sessions(
    app: App, xnat: Xnat, project: str | None, session: str | None
) -> tuple[str, list[Session]]:
    """The project and its sessions: as named, or of the first project that has some."""
    if session:
        one = await find_session(app, xnat, session, project=project)
        return one.project, [one]
    if named := project or app.server().default_project:
        if await xnat.find_project(named) is None:
            raise NotFound(f"no project {named} at {xnat.name}", hint="xnatctl project list")
        return named, await _imaging(xnat, named)
    for candidate in (await xnat.list_projects())[:LOOKED_AT]:
        if found := await _imaging(xnat, candidate.id):
            return candidate.id, found
    raise NotFound(f"no project with sessions at {xnat.name}", hint="name one with -P")


async def _imaging(xnat: Xnat, project: str) -> list[Session]:
    return [one for one in await xnat.list_experiments(project) if one.is_imaging]


async def find_files(source: Source, sessions: list[Session]) -> list[tuple[Item, ...]]:
    """The files of each resource of the first sessions."""
    units: list[Unit] = []
    files = 0
    for one in sessions[:LOOKED_AT]:
        ref = Ref(one.project, one.subject or one.subject_id, one.label, one.id)
        light = Unit(one.id, "session", ref, ref, one.label, facts={"xsi_type": one.xsi_type})
        try:
            units.append(await source.describe(light))
        except Vanished:
            continue
        files += len(units[-1].items)
        if files > MOST_FILES:
            break
    return resources_of(units)


def listings(project: str, sessions: list[Session]) -> list[tuple[str, dict[str, str]]]:
    """Requests for lists, as browsing and planning make them: paths with their parameters."""
    asked: list[tuple[str, dict[str, str]]] = [
        (paths.PROJECTS, {}),
        (paths.subjects(project), {}),
        (paths.experiments(project), {}),
    ]
    for one in sessions[:LOOKED_AT]:
        ref = Ref(project, session_id=one.id)
        asked += [(paths.scans(one.id), {}), (paths.files(ref), {"all": "true"})]
    return [(path, {"format": "json", **params}) for path, params in asked]


def api_step(xnat: Xnat, asked: list[tuple[str, dict[str, str]]]) -> Once:
    """So many listings at once, one after another in turn, until there is enough."""

    async def once(at_once: int, tally: Tally) -> None:
        turn = 0

        async def ask() -> None:
            nonlocal turn
            while not tally.enough.is_set():
                path, params = asked[turn % len(asked)]
                turn += 1
                opened = xnat.transport.stream(path, params=params, expect="json")
                try:
                    async with tally.watch(opened, files=0, size=0) as chunks:
                        async for _ in chunks:
                            pass
                except XnatctlError:
                    continue  # the tally has counted it, and ends the step after a few

        async with anyio.create_task_group() as tasks:
            for _ in range(at_once):
                tasks.start_soon(ask)

    return once


# --- what is made --------------------------------------------------------------------------------


def reading(
    source: routes.Bodies, sets: list[tuple[Item, ...]], project: str, names: Iterator[str]
) -> Callable[[], tuple[Source, Sink]]:
    """Files that are there over and over, into nothing."""

    def ends() -> tuple[Source, Sink]:
        def place(_: int) -> Ref:
            return Ref(project, resource=next(names))

        return routes.Repeated(source, sets, place), routes.DiscardSink()

    return ends


def writing(
    desk: routes.Desk,
    bodies: routes.Bodies,
    sets: list[tuple[Item, ...]],
    xnat: Xnat,
    target: Ref,
    names: Iterator[str],
    *,
    times: int | None = None,
) -> Callable[[], tuple[Source, Sink]]:
    """The same files over and over, each time into another resource of the target."""

    def ends() -> tuple[Source, Sink]:
        def place(_: int) -> Ref:
            return replace(target, resource=next(names))

        source = routes.Repeated(bodies, sets, place, times=times)
        return source, routes.archive_sink(desk, source, xnat, target.project)

    return ends


async def prepare(
    desk: routes.Desk, sweep: Sweep, made: routes.MadeUp, xnat: Xnat, target: Ref
) -> tuple[Item, ...]:
    """Put one set of made-up files into the resource that `target` names: what is read there.

    Nothing where --max-bytes does not leave enough. Raises what kept it from arriving.
    """
    files = made.files()
    size = sum(one.size or 0 for one in files)
    if size > sweep.bytes_left:
        sweep.note(f"files of {size_words(made.size)} are more than what --max-bytes leaves")
        return ()
    sweep.bytes_left -= size
    name = iter([target.resource or ""])
    source, sink = writing(desk, made, [files], xnat, target, name, times=1)()
    report = await routes.bench(desk, source, sink, at_once=1)
    if not report.success:
        raise XnatctlError(
            f"{target} could not be written",
            why=report.problems[0].error if report.problems else "",
        )
    return tuple(replace(one, ref=target) for one in files)


@asynccontextmanager
async def own_subject(
    app: App, sweep: Sweep, xnat: Xnat, project: str, label: str
) -> AsyncIterator[None]:
    """A subject that is there for the block alone. What is left of it is said, and remembered."""
    await routes.check_editable(xnat, project)
    for one in await xnat.list_subjects(project):
        if one.label.startswith(PREFIX):
            app.console.warn(
                f"{project} holds {one.label}: if no benchmark is running, remove it with "
                f"`xnatctl subject delete {one.label} -P {project} -p {xnat.name}`"
            )
    place = f"{project}/{label} at {xnat.name}"
    try:
        await xnat.put_item(paths.subject(project, label), {})
        yield
    finally:
        fault = await _removed(xnat, project, label)
        if fault:
            sweep.left.append(place)
            app.console.fail(
                f"{place} could not be removed: {fault}",
                hint=f"xnatctl subject delete {label} -P {project} -p {xnat.name} --yes",
            )
        else:
            sweep.removed.append(place)


async def _removed(xnat: Xnat, project: str, label: str) -> str:
    """Delete the subject until a listing has it no more; what keeps it there, if something does."""
    fault = f"it was not done within {CLEANING_S:.0f} s"
    with anyio.move_on_after(CLEANING_S, shield=True):
        for _ in range(TRIES):
            try:
                if label not in {one.label for one in await xnat.list_subjects(project)}:
                    return ""
                await Edits(xnat).delete(paths.subject(project, label))
            except XnatctlError as error:
                fault = words(error)
                await anyio.sleep(1.0)
    return fault
