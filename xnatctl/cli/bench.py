"""`xnatctl bench`: how fast a server is from here, where the limit lies, and what to set.

`download` and `api` only read. `upload` and `transfer` write made-up files below a subject of their
own, which is removed at the end, whatever that end is.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncclick as click

from xnatctl.errors import ConfigError, NotFound, UsageError

from .bench_options import BenchOptions, bench_options, size_option
from .group import Group, option
from .options import (
    BY_ID_OR_LABEL,
    SELECTION,
    Destination,
    destination_options,
    optional_session_option,
    project_option,
    yes_option,
)
from .transfer import ends as both_ends

if TYPE_CHECKING:
    from xnatctl.bench.sweep import Verb
    from xnatctl.cli.app import App
    from xnatctl.cli.bench_sweep import Sweep

bench = Group("bench", help="How fast a server is from here, and what limits it.")

PREFIX = "xnatctl-bench-"
MADE = "8k,1M,16M"
RESULTS = click.Path(path_type=Path, dir_okay=False)


@bench.command("download")
@project_option
@optional_session_option(f"{BY_ID_OR_LABEL} Else the first sessions of the project.")
@size_option(None, "Read files of about these sizes only.  [default: as they come]")
@bench_options
async def download(
    app: App, *, project: str | None, session: str | None, options: BenchOptions
) -> int:
    """Read files that are there, over and over, and keep none of them.

    Without -P the first project that has sessions is read.

    \b
    Examples:
      xnatctl bench download -P STUDY
      xnatctl bench download -P STUDY -E SUB001_MR1 --concurrency 1,4,16 --duration 30s
      xnatctl bench download --size 64k,1M --html report.html -o json > A.json
    """
    from xnatctl import routes
    from xnatctl.bench.sample import sets_of
    from xnatctl.ui.render import size as size_words

    from .bench_ends import find_files, find_sessions, reading
    from .bench_report import finish, plan_only, side
    from .bench_sweep import engine_step, typical, workbench

    sweep = _sweep(app, "download", options)
    server = app.server()
    if options.dry_run:
        return plan_only(app, sweep, f"read from {server.url} and write nothing")
    async with app.xnat(server) as xnat, workbench("bench") as desk:
        with app.graceful(sweep.ask):
            place, sessions = await find_sessions(app, xnat, project, session)
            source = routes.archive_source(xnat, place)
            found = await find_files(source, sessions)
            names = (f"F{number}" for number in count())
            for size in sweep.plan.sizes:
                sets = sets_of(found, size, most_bytes=options.max_bytes // 4)
                if not sets:
                    sweep.note(f"no files of about {size_words(size)}" if size else "no files")
                    continue

                ends = reading(source, sets, place, names)
                await sweep.climb(size, engine_step(desk, ends), least=typical(sets))
        if not sweep.findings.steps and not sweep.findings.interrupted:
            raise NotFound(
                f"nothing in project {place} can be read for this",
                why="; ".join(sweep.findings.notes),
                hint="name another -P or -E, or other sizes with --size",
            )
        here = await side(server, xnat)
    return finish(app, sweep, server, html=options.html, source=here, project=place)


@bench.command("upload")
@project_option
@size_option(MADE, "Sizes of the files that are made up.")
@yes_option
@bench_options
async def upload(app: App, *, project: str | None, yes: bool, options: BenchOptions) -> int:
    """Write made-up files into a project, and remove them afterwards.

    They go below a subject xnatctl-bench-…, which is deleted at the end, also after Ctrl-C.

    \b
    Examples:
      xnatctl bench upload -P SANDBOX --yes
      xnatctl bench upload -P SANDBOX --size 1M,64M --concurrency 1,2,4,8 --yes
    """
    from xnatctl import routes
    from xnatctl.model import Ref

    from .bench_ends import own_subject, writing
    from .bench_report import finish, plan_only, side
    from .bench_sweep import engine_step, typical, workbench

    where, label = _named(project), _label()
    sweep = _sweep(app, "upload", options)
    server = app.server()
    what = f"made-up files below a subject {label} in project {where} at {server.url}"
    if options.dry_run:
        return plan_only(app, sweep, f"write {what}, and remove them")
    if not yes:
        app.console.confirm(f"Write {what}, and remove them afterwards?")
    async with app.xnat(server) as xnat, workbench("bench") as desk:
        there = await side(server, xnat)
        names = (f"B{number:05d}" for number in count())
        with app.graceful(sweep.ask):
            async with own_subject(app, sweep, xnat, where, label):
                for size in sweep.plan.sizes:
                    made = routes.MadeUp(size)
                    sets, target = [made.files()], Ref(where, label)
                    ends = writing(desk, made, sets, xnat, target, names)
                    await sweep.climb(size, engine_step(desk, ends), least=typical(sets))
    return finish(app, sweep, server, html=options.html, destination=there, project=where)


@bench.command("transfer")
@project_option
@option("--dest-project", metavar="PROJECT", group=SELECTION, help="[default: that of -P].")
@size_option(MADE, "Sizes of the files that are made up.")
@destination_options
@yes_option
@bench_options
async def transfer(
    app: App,
    *,
    project: str | None,
    dest_project: str | None,
    destination: Destination,
    yes: bool,
    options: BenchOptions,
) -> int:
    """Copy made-up files from one server to another, and remove them from both afterwards.

    They lie below a subject xnatctl-bench-… at each end, which is deleted at the end, also after
    Ctrl-C.

    \b
    Examples:
      xnatctl bench transfer -p prod -P SANDBOX --dest-profile dev --yes
      xnatctl bench transfer -P TEST --dest-profile dev --dest-project TEST2 --size 1M --yes
    """
    from xnatctl import routes
    from xnatctl.model import Ref

    from .bench_ends import own_subject, prepare, writing
    from .bench_report import finish, plan_only, side
    from .bench_sweep import engine_step, typical, workbench

    where, label = _named(project), _label()
    there = dest_project or where
    sweep = _sweep(app, "transfer", options)
    source, sink = both_ends(app, destination)
    what = (
        f"made-up files below a subject {label} in project {where} at {source.url} and in {there} "
        f"at {sink.url}"
    )
    if options.dry_run:
        return plan_only(app, sweep, f"write {what}, and remove them")
    if not yes:
        app.console.confirm(f"Write {what}, and remove them afterwards?")
    async with app.xnat(source) as here, app.xnat(sink) as far, workbench("bench") as desk:
        sides = await side(source, here), await side(sink, far)
        names = (f"B{number:05d}" for number in count())
        reader = routes.archive_source(here, where)
        with app.graceful(sweep.ask):
            async with (
                own_subject(app, sweep, here, where, f"{label}-from"),
                own_subject(app, sweep, far, there, f"{label}-to"),
            ):
                for size in sweep.plan.sizes:
                    if sweep.is_over:
                        break
                    kept = Ref(where, f"{label}-from", resource=f"SIZE_{size}")
                    files = await prepare(desk, sweep, routes.MadeUp(size), here, kept)
                    if not files:
                        break
                    sets = [files]
                    ends = writing(desk, reader, sets, far, Ref(there, f"{label}-to"), names)
                    await sweep.climb(size, engine_step(desk, ends), least=typical(sets))
    return finish(
        app,
        sweep,
        sink,
        html=options.html,
        source=sides[0],
        destination=sides[1],
        project=where,
    )


@bench.command("api")
@project_option
@bench_options
async def api(app: App, *, project: str | None, options: BenchOptions) -> int:
    """Ask for lists of projects, subjects, sessions, scans and files, and change nothing.

    \b
    Examples:
      xnatctl bench api
      xnatctl bench api -P STUDY --concurrency 1,2,4,8 --duration 20s
    """
    from .bench_ends import api_step, find_sessions, listings
    from .bench_report import finish, plan_only, side

    sweep = _sweep(app, "api", options)
    server = app.server()
    if options.dry_run:
        return plan_only(app, sweep, f"ask {server.url} for lists")
    async with app.xnat(server) as xnat:
        with app.graceful(sweep.ask):
            place, sessions = await find_sessions(app, xnat, project, None)
            await sweep.climb(0, api_step(xnat, listings(place, sessions)), least=0)
        here = await side(server, xnat)
    return finish(app, sweep, server, html=options.html, source=here, project=place)


@bench.command("compare")
@click.argument("old", metavar="A.json", type=RESULTS)
@click.argument("new", metavar="B.json", type=RESULTS)
async def compare(app: App, *, old: Path, new: Path) -> int:
    """Divide the figures of one result by those of another, row by row.

    \b
    Examples:
      xnatctl bench compare A.json B.json
      xnatctl bench compare A.json B.json -o json
    """
    from xnatctl.bench.result import load

    from .bench_report import show_comparison

    return show_comparison(app, load(old), load(new))


@bench.command("apply")
@click.argument("workers", metavar="WORKERS", type=click.IntRange(min=1))
async def apply(app: App, *, workers: int) -> None:
    """Set how many things at once a profile allows, as a benchmark has recommended.

    \b
    Examples:
      xnatctl bench apply 8 -p prod
    """
    server = app.server()
    if server.profile is None or server.profile.name not in app.config.profiles:
        raise ConfigError(
            f"{server.url} is no profile", why="it comes from the environment", hint="add -p NAME"
        )
    name = server.profile.name
    app.config.with_profile(name, {"workers": workers}).save()
    app.console.say(f"profile {name}: workers {workers}")


def _sweep(app: App, verb: Verb, options: BenchOptions) -> Sweep:
    from .bench_sweep import Plan, Sweep

    sizes = options.sizes or (0,)
    return Sweep(app, verb, Plan(sizes, options.concurrency, options.duration, options.max_bytes))


def _named(project: str | None) -> str:
    """A project to write into is named, never guessed."""
    if not project:
        raise UsageError("this writes, and no project was named for it", hint="add -P PROJECT")
    return project


def _label() -> str:
    return f"{PREFIX}{uuid4().hex[:8]}"
