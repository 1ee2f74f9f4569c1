"""`xnatctl pipeline`: processing at the server, by its pipelines or by its container service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import asyncclick as click

from xnatctl.errors import Incomplete, NotFound, PermissionDenied, Refused, UsageError

from .changes import Change, Consent, carry_out, consent_options, planned
from .group import Group, option
from .lookup import find_session, missing
from .names import project_at
from .options import (
    SELECTION,
    SPAN,
    dry_run_option,
    list_options,
    optional_session_option,
    project_option,
)

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.model import Session
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.pipelines import Job, Pipelines, Wrapper

pipeline = Group("pipeline", help="Processing at the server: list, run and watch it.")

# Seconds between two looks while `pipeline run --wait` waits.
LOOK_EVERY_S = 5.0
# Seconds for which the workflow of a pipeline just queued is looked for.
APPEAR_S = 30.0


@pipeline.command("list")
@project_option
@list_options
async def list_(app: App, *, project: str | None, shape: Shape) -> None:
    """List what can be run: the project's pipelines, and the wrappers of the container service.

    \b
    Examples:
      xnatctl pipeline list --project STUDY
      xnatctl pipeline list -P STUDY --filter 'name:dcm*'
    """
    from xnatctl.xnat.pipelines import Pipelines

    home = project or app.server().default_project
    async with app.xnat() as xnat:
        pipelines = Pipelines(xnat)
        wrappers = await pipelines.list_wrappers()
        if home is None and wrappers is None:
            raise NotFound(
                f"{xnat.name} has no container service",
                why="its pipelines are listed by project",
                hint="add -P PROJECT",
            )
        rows: list[dict[str, str]] = []
        if home:
            async with project_at(xnat, home):
                rows = await _pipelines(app, pipelines, home, wrappers)
    rows += [_wrapper_row(one) for one in (wrappers or {}).values()]
    app.console.rows(rows, ["name", "description", "version", "path"], key="name", shape=shape)


async def _pipelines(
    app: App, pipelines: Pipelines, project: str, wrappers: dict[str, Wrapper] | None
) -> list[dict[str, str]]:
    """Rows of the project's pipelines. Who may not see them still sees the wrappers."""
    from xnatctl.xnat.parse import cell

    try:
        found = await pipelines.of_project(project)
    except PermissionDenied:
        if wrappers is None:
            raise
        app.console.warn(f"only owners of {project} see its pipelines")
        return []
    return [{**row, "name": cell(row, "name"), "kind": "pipeline"} for row in found]


def _wrapper_row(one: Wrapper) -> dict[str, str]:
    return {
        "name": one.name,
        "description": one.description,
        "version": one.version,
        "path": one.image,
        "kind": "container",
        "wrapper_id": one.id,
        "command_id": one.command,
    }


@dataclass(frozen=True, slots=True)
class RunPipeline:
    name: str
    session: str
    project: str | None = None
    params: tuple[str, ...] = ()
    wait: bool = False
    timeout: float = 3600.0
    dry_run: bool = False


@pipeline.command("run")
@click.argument("name")
@optional_session_option("What it runs on: an accession ID, or a label together with -P.")
@option("-e", "old_session", hidden=True)
@project_option
@option("--param", "params", metavar="NAME=VALUE", multiple=True, help="A parameter of it.")
@option("--wait", is_flag=True, help="Wait until it has ended; fail if it failed.")
@option("--timeout", type=SPAN, metavar="5m", default="1h", help="How long.  [default: 1h]")
@dry_run_option
async def run(
    app: App,
    *,
    name: str,
    session: str | None,
    old_session: str | None,
    project: str | None,
    params: tuple[str, ...],
    wait: bool,
    timeout: float,
    dry_run: bool,
) -> int:
    """Run a pipeline, or a wrapper of the container service, on a session.

    \b
    Examples:
      xnatctl pipeline run dcm2niix -E XNAT_E00001
      xnatctl pipeline run dcm2niix -P STUDY -E SUB001_MR1 --param bids=y --wait
    """
    target = session or old_session
    if target is None:
        raise UsageError("no session was named", hint="add -E ID")
    wanted = RunPipeline(name, target, project, params, wait, timeout, dry_run)
    return await run_run(app, wanted)


async def run_run(app: App, wanted: RunPipeline) -> int:
    from xnatctl.xnat.pipelines import Pipelines

    params = _params(wanted.params)
    async with app.xnat() as xnat:
        found = await find_session(app, xnat, wanted.session, project=wanted.project)
        pipelines = Pipelines(xnat)
        wrapper = await _choose(pipelines, found.project, wanted.name)
        if wanted.dry_run:
            what = "container" if wrapper else "pipeline"
            detail = f"on {found.label} ({found.id})"
            return await planned(app, "run", f"{what} {wanted.name}", detail)
        app.console.say(f"Starting {wanted.name} on {found.label} …")
        if wrapper is not None:
            result: Any = await pipelines.launch(found.project, wrapper, found.id, params)
            job = str(result.get("workflow-id", ""))
            good = str(result.get("status", "success")).lower() == "success"
        else:
            job, result = await _queue(pipelines, found, wanted.name, params)
            good = True
        ended = None
        if good and wanted.wait:
            ended = await _waited(app, pipelines, job, wanted.timeout)
            good = ended.is_good
    document = {
        "success": good,
        "pipeline": wanted.name,
        "experiment": found.id,
        "job_id": job,
        "result": result,
    }
    if ended is not None:
        document["status"] = ended.status
    app.console.say(f"{wanted.name}: {ended.status if ended else 'submitted'}")
    app.console.record(document, key="job_id")
    return int(not good)


async def _choose(pipelines: Pipelines, project: str, name: str) -> Wrapper | None:
    """The wrapper of that name; None for a pipeline of the project. Raises NotFound for neither.

    Who may not list pipelines may still run them.
    """
    from xnatctl.xnat.parse import cell
    from xnatctl.xnat.pipelines import ACTIONS

    if name in ACTIONS:
        return None
    known: list[str] | None
    try:
        known = [
            cell(row, "name", "step_id", "stepId") for row in await pipelines.of_project(project)
        ]
    except (NotFound, PermissionDenied):
        known = None
    if known is not None and name in known:
        return None
    wrappers = await pipelines.list_wrappers()
    if wrappers and name in wrappers:
        return wrappers[name]
    if known is None and wrappers is None:
        return None
    names = ", ".join([*(known or ()), *(wrappers or ())]) or "nothing"
    raise NotFound(
        f"no pipeline {name} in project {project}",
        why=f"there is {names}",
        hint=f"xnatctl pipeline list -P {project}",
    )


async def _queue(
    pipelines: Pipelines, session: Session, name: str, params: dict[str, str]
) -> tuple[str, str]:
    """The number of the workflow that appears, if one does, and the server's answer."""
    before = {one.id for one in await pipelines.jobs(experiment=session.id)}
    answer = await pipelines.run_step(session.project, name, session.id, params)
    with anyio.move_on_after(APPEAR_S):
        while True:
            now = await pipelines.jobs(experiment=session.id)
            if fresh := [one for one in now if one.id and one.id not in before]:
                return fresh[0].id, answer
            await anyio.sleep(min(LOOK_EVERY_S, APPEAR_S))
    return "", answer


async def _waited(app: App, pipelines: Pipelines, job: str, timeout: float) -> Job:
    if not job:
        raise Incomplete(
            "the server took it and shows no workflow to wait for", hint="xnatctl pipeline jobs"
        )
    with anyio.move_on_after(timeout):
        return await _watch(app, pipelines, job, LOOK_EVERY_S)
    raise Incomplete(
        f"job {job} has not ended within {timeout:g} s",
        hint=f"xnatctl pipeline status {job} --watch",
    )


async def _watch(app: App, pipelines: Pipelines, job: str, interval: float) -> Job:
    said = ""
    while True:
        found = await pipelines.job(job)
        words = f"{found.status} {found.percent and found.percent + ' %'} {found.message}".strip()
        if words != said:
            app.console.say(f"job {job}: {words}")
            said = words
        if not found.is_open:
            return found
        await anyio.sleep(interval)


@pipeline.command("status")
@click.argument("job_id", metavar="JOB")
@option("--watch", is_flag=True, help="Go on until it has ended; fail if it failed.")
@option(
    "--interval",
    type=SPAN,
    metavar="5m",
    default="30s",
    help="Time between two looks.  [default: 30s]",
)
async def status(app: App, *, job_id: str, watch: bool, interval: float) -> int:
    """Show how far a job is.

    \b
    Examples:
      xnatctl pipeline status 881 -o json | jq -r .status
      xnatctl pipeline status 881 --watch
    """
    from dataclasses import asdict

    from xnatctl.xnat.pipelines import Pipelines

    async with app.xnat() as xnat:
        pipelines = Pipelines(xnat)
        with missing(f"no job {job_id} at {xnat.name}", "xnatctl pipeline jobs"):
            found = await pipelines.job(job_id)
            if watch:
                found = await _watch(app, pipelines, job_id, interval)
    record = {
        "job_id": found.id,
        "status": found.status,
        "message": found.message,
        "start_time": found.started,
        "end_time": found.ended,
        "pipeline": found.pipeline,
        "experiment": found.experiment,
        "project": found.project,
    }
    if app.console.format in ("json", "jsonl", "yaml"):
        app.console.record({**record, "raw": asdict(found)}, key="status")
    else:
        app.console.record(record, key="status", titles={"job_id": "Job"})
    return int(watch and not found.is_good)


@pipeline.command("jobs")
@optional_session_option("Those of one session.")
@project_option
@option("--status", metavar="WORD", group=SELECTION, help="Those in one state, such as Running.")
@option("-e", "old_session", hidden=True)
@option("-s", "old_status", hidden=True)
@list_options
async def jobs(
    app: App,
    *,
    session: str | None,
    old_session: str | None,
    project: str | None,
    status: str | None,
    old_status: str | None,
    shape: Shape,
) -> None:
    """List the jobs that the server has run or runs.

    \b
    Examples:
      xnatctl pipeline jobs -P STUDY --status Running
      xnatctl pipeline jobs -E XNAT_E00001 --sort-by start_time:desc --limit 5
    """
    from xnatctl.ui.console import Column
    from xnatctl.xnat.pipelines import Pipelines

    async with app.xnat() as xnat:
        number = ""
        if named := session or old_session:
            number = (await find_session(app, xnat, named, project=project)).id
        found = await Pipelines(xnat).jobs(
            experiment=number, project=project or "", status=status or old_status or ""
        )
    rows = [
        {
            "job_id": one.id,
            "pipeline": one.pipeline,
            "experiment": one.experiment,
            "project": one.project,
            "status": one.status,
            "start_time": one.started,
        }
        for one in found
    ]
    job = Column("job_id", "Job")
    app.console.rows(
        rows,
        [job, "pipeline", "experiment", "project", "status", "start_time"],
        key="job_id",
        shape=shape,
    )


@pipeline.command("cancel")
@click.argument("job_id", metavar="JOB")
@consent_options
async def cancel(app: App, *, job_id: str, consent: Consent) -> int:
    """Stop a job.

    A container is killed. For a pipeline of a stock server its workflow is closed: what runs may go
    on to its end, and nothing waits for it any more.

    \b
    Examples:
      xnatctl pipeline cancel 881 --yes
    """
    from xnatctl.xnat.pipelines import Pipelines

    async with app.xnat() as xnat:
        pipelines = Pipelines(xnat)
        container = await pipelines.find_container(job_id)
        if container is not None:
            number = str(container.get("id", job_id))
            change = Change("kill", f"container {number}", lambda: pipelines.kill_container(number))
            name = number
        else:
            with missing(f"no job {job_id} at {xnat.name}", "xnatctl pipeline jobs"):
                job = await pipelines.job(job_id)
            if not job.is_open:
                raise Refused(f"job {job_id} has ended already", why=job.status)
            change = Change("cancel", f"job {job_id}", lambda: _closed(pipelines, job_id))
            name = f"{job_id} ({job.pipeline})"
        question = f"Stop job {name}?"
        return await carry_out(app, [change], question=question, consent=consent)


async def _closed(pipelines: Pipelines, job: str) -> None:
    await pipelines.mark_killed(job)
    if (found := await pipelines.job(job)).is_open:
        raise Refused(f"the server answered well, and job {job} is {found.status}")


def _params(words: tuple[str, ...]) -> dict[str, str]:
    if bad := [one for one in words if "=" not in one]:
        raise UsageError(f"--param {bad[0]!r} is not NAME=VALUE")
    return dict(one.split("=", 1) for one in words)
