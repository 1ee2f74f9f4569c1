"""Processing at the server: pipelines of a project, wrappers of the container service, and the
workflows that both leave.

A stock server has `/projects/P/pipelines` and `…/pipelines/STEP/experiments/E`; the container
service is a plugin, and its routes answer 404 without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xnatctl.errors import NotFound

from . import paths
from .client import Xnat
from .parse import Row, cell
from .xmldoc import Document

ACTIONS = ("triggerPipelines", "pullDataFromHeaders", "fixScanTypes")
"""Words that stand where a pipeline's step does, and need no pipeline."""


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A command of the container service in the form that runs on XNAT's data. `root` is the input
    that names what it runs on.
    """

    id: str
    name: str
    command: str
    description: str = ""
    version: str = ""
    image: str = ""
    root: str = "session"


@dataclass(frozen=True, slots=True)
class Job:
    """A workflow as the server tells it. Times are the server's own text."""

    id: str
    status: str
    pipeline: str = ""
    experiment: str = ""
    project: str = ""
    message: str = ""
    started: str = ""
    ended: str = ""
    percent: str = ""

    @property
    def is_open(self) -> bool:
        return not self.status.lower().startswith(("complete", "failed", "killed", "error"))

    @property
    def is_good(self) -> bool:
        return self.status.lower().startswith("complete")


class Pipelines:
    def __init__(self, xnat: Xnat) -> None:
        self._xnat = xnat
        self._transport = xnat.transport

    async def of_project(self, project: str) -> list[Row]:
        """The pipelines of a project as the server's rows. For owners."""
        return await self._xnat.rows(paths.pipelines(project))

    async def list_wrappers(self) -> dict[str, Wrapper] | None:
        """Wrappers by name; None where the server has no container service."""
        try:
            reply = await self._transport.request("GET", paths.COMMANDS, expect="json")
        except NotFound:
            return None
        found = reply.json()
        commands = found if isinstance(found, list) else []
        wrappers = [_wrapper(one, inner) for one in commands for inner in one.get("xnat") or ()]
        return {one.name: one for one in wrappers}

    async def run_step(
        self, project: str, step: str, session_id: str, params: Mapping[str, str]
    ) -> str:
        """Queue a pipeline's step; the answer, which says no more than that it was taken."""
        path = paths.pipeline_run(project, step, session_id)
        reply = await self._transport.request("POST", path, params=params, replay=False)
        return reply.text.strip()

    async def launch(
        self, project: str, wrapper: Wrapper, session_id: str, params: Mapping[str, str]
    ) -> dict[str, Any]:
        """Start a container. The answer has a workflow's number and no container's."""
        body = {wrapper.root: f"/archive/experiments/{session_id}", **params}
        reply = await self._transport.request(
            "POST",
            paths.wrapper_launch(project, wrapper.id, wrapper.root),
            body=json.dumps(body).encode(),
            content_type="application/json",
            expect="json",
            replay=False,
        )
        found = reply.json()
        return found if isinstance(found, dict) else {"result": found}

    async def jobs(self, **filters: str) -> list[Job]:
        """Workflows by `experiment`, `project`, `status`."""
        given = {key: value for key, value in filters.items() if value}
        return [_job(row) for row in await self._xnat.rows(paths.WORKFLOWS, given)]

    async def job(self, number: str) -> Job:
        """One workflow. Raises NotFound."""
        xml = await self._xnat.xml(paths.workflow(number))
        return _job({**_flat(xml), "jobid": number})

    async def find_container(self, number: str) -> dict[str, Any] | None:
        """The container whose ID or workflow has this number; None without one, or the plugin."""
        try:
            reply = await self._transport.request("GET", paths.CONTAINERS, expect="json")
        except NotFound:
            return None
        found = reply.json()
        for one in found if isinstance(found, list) else []:
            if number in (str(one.get("id")), str(one.get("workflow-id"))):
                return dict(one)
        return None

    async def kill_container(self, number: str) -> None:
        path = f"{paths.CONTAINERS}/{paths.segment(number)}/kill"
        await self._transport.request("POST", path, replay=True)

    async def mark_killed(self, number: str) -> None:
        """Close a workflow. What the pipeline engine runs for it is not stopped by this."""
        params = {"wrk:workflowData/status": "Killed"}
        await self._transport.request("PUT", paths.workflow(number), params=params)


def _wrapper(command: Mapping[str, Any], one: Mapping[str, Any]) -> Wrapper:
    inputs = one.get("external-inputs") or [{}]
    return Wrapper(
        id=str(one.get("id", "")),
        name=str(one.get("name", "")),
        command=str(command.get("id", "")),
        description=str(one.get("description") or command.get("description") or ""),
        version=str(command.get("version") or ""),
        image=str(command.get("image") or ""),
        root=str(inputs[0].get("name") or "session"),
    )


def _flat(xml: bytes) -> Row:
    """Attributes and simple children of a document as one row."""
    root = Document(xml).root
    row = {name.rpartition("}")[2]: value for name, value in root.attrib.items()}
    for child in root:
        row.setdefault(child.tag.rpartition("}")[2], (child.text or "").strip())
    return row


def _job(row: Row) -> Job:
    status = cell(row, "status")
    ended = "" if not status else cell(row, "end_time", "completion_time")
    return Job(
        id=cell(row, "jobid", "wrk_workflowdata_id", "workflow_id"),
        status=status,
        pipeline=cell(row, "pipeline_name"),
        experiment=cell(row, "id"),
        project=cell(row, "externalid"),
        message=cell(row, "step_description", "current_step_id", "details"),
        started=cell(row, "launch_time"),
        ended=ended,
        percent=cell(row, "percentageComplete"),
    )
