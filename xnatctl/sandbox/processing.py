"""Processing that is only pretended: pipelines of projects, and the container service.

Nothing is run. What is started becomes a workflow, which is complete at once or `autorun_s` later;
a caller follows it as he would a real one. The container service is a plugin: without
`Settings.containers` its routes are 404, with it there is one command, `debug`, whose wrapper runs
on a session. The answer to a launch names the workflow and no container, as the plugin's does.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from . import finding
from .accounts import DELETE, EDIT, READ
from .store import Item
from .web import Call, Refusal, empty, json, table, text

ACTIONS = ("triggerPipelines", "pullDataFromHeaders", "fixScanTypes")
WRAPPER = 1
COMMAND = {
    "id": 1, "name": "debug", "label": "Debug", "description": "Says what it was started on",
    "version": "1.0", "type": "docker", "image": "sandbox/debug:1.0",
    "command-line": "echo #session#",
    "xnat": [
        {
            "id": WRAPPER, "name": "debug-session", "description": "Says which session it got",
            "contexts": ["xnat:imageSessionData"],
            "external-inputs": [{"name": "session", "type": "Session", "required": True}],
        }
    ],
}  # fmt: skip


def pipelines(call: Call, project: Item, rest: list[str]) -> web.Response:
    """`/projects/P/pipelines`: the list, and `/STEP/experiments/E`, which queues one."""
    finding.require_project(call, project, DELETE if call.method == "GET" else EDIT)
    names = call.settings.pipelines
    match call.method, rest:
        case "GET", []:
            columns = ("Name", "Description", "Version", "path")
            rows = [{"Name": name, "Version": "1", "path": f"{name}.xml"} for name in names]
            return table(call, columns, rows)
        case "POST", [step, "experiments", ident] if step in (*names, *ACTIONS):
            session = finding.find_experiment(call, ident, project)
            if session is None:
                raise Refusal(404, f"Unable to find the experiment {ident}")
            finding.require(call, session, EDIT)
            call.sandbox.run_workflow(session, project.code, step, call.user.login)
            return text("")
        case "POST", [step, *_]:
            raise Refusal(404, f"There is no pipeline {step}")
    raise Refusal(405, "The method is not allowed")


async def handle(call: Call, path: list[str]) -> web.StreamResponse:
    """Answer a path of the container service below /xapi."""
    if not call.settings.containers:
        raise Refusal(404, "")
    match call.method, path:
        case "GET", ["commands"]:
            return json([COMMAND])
        case "GET", ["commands", "1"]:
            return json(COMMAND)
        case method, ["projects", code, "wrappers", wrapper, "enabled"]:
            return _enabled(call, method, _project(call, code), wrapper)
        case "POST", ["projects", code, "wrappers", wrapper, "root", root, "launch"]:
            return await _launch(call, wrapper, root, _project(call, code))
        case "POST", ["wrappers", wrapper, "launch"]:
            return await _launch(call, wrapper, "session", None)
        case "GET", ["containers"]:
            shown = (_shown(call, one) for one in call.store.records("container").values())
            return json([one for one in shown if one is not None])
        case "GET", ["containers", ident]:
            return json(_container(call, ident))
        case "GET", ["containers", ident, "logs", "stdout" | "stderr" as stream]:
            ran = f"{_container(call, ident)['inputs']['session']}\n"
            return text(ran if stream == "stdout" else "")
        case "POST", ["containers", ident, "kill"]:
            number = _container(call, ident)["workflow-id"]
            call.store.db.execute(
                "UPDATE workflows SET status='Killed' WHERE id=? AND status='Queued'", (number,)
            )
            return empty()
    raise Refusal(404, "")


def _project(call: Call, code: str) -> Item:
    project = call.store.find_project(code)
    if project is None or call.accounts.rights(call.user, project) < READ:
        raise Refusal(404, f"There is no project {code}")
    return project


def _enabled(call: Call, method: str, project: Item, wrapper: str) -> web.Response:
    """Whether a project may use the wrapper: it may, until its owner says otherwise."""
    if wrapper != str(WRAPPER):
        raise Refusal(404, f"There is no wrapper {wrapper}")
    if method == "PUT":
        finding.require_project(call, project, DELETE)
        call.store.set_setting(project.code, "wrapper", str(call.flag("enable", True)).lower())
    return json(call.store.setting(project.code, "wrapper", "true") == "true")


async def _launch(call: Call, wrapper: str, root: str, project: Item | None) -> web.Response:
    """Start the command on the session that the body names, as JSON or as a form."""
    if wrapper != str(WRAPPER) or root != "session":
        raise Refusal(404, f"There is no wrapper {wrapper} on {root}")
    if call.media == "application/x-www-form-urlencoded":
        await call.form()
        given: dict[str, Any] = dict(call.params)
    else:
        given = await call.json(dict[str, Any])
    ident = str(given.get(root, "")).rpartition("/")[2]
    session = finding.find_experiment(call, ident, project) if ident else None
    if session is None:
        raise Refusal(400, f"Unable to resolve the input {root}")
    finding.require(call, session, EDIT)
    owner = call.store.item(session.project).code
    if call.store.setting(owner, "wrapper", "true") != "true":
        raise Refusal(403, f"The wrapper is not enabled in {owner}")
    number = call.sandbox.run_workflow(session, owner, "debug-session", call.user.login)
    made = str(call.store.next_number("container"))
    record = {
        "id": int(made), "command-id": 1, "wrapper-id": WRAPPER, "workflow-id": str(number),
        "project": owner, "user-id": call.user.login, "docker-image": COMMAND["image"],
        "inputs": {root: f"/archive/experiments/{session.code}"},
    }  # fmt: skip
    call.store.set_record("container", made, record)
    return json(
        {"status": "success", "params": given, "command-id": 1, "wrapper-id": WRAPPER,
         "workflow-id": str(number)}
    )  # fmt: skip


def _container(call: Call, ident: str) -> dict[str, Any]:
    shown = _shown(call, call.store.record("container", ident))
    if shown is None:
        raise Refusal(404, f"There is no container {ident}")
    return shown


def _shown(call: Call, record: dict[str, Any] | None) -> dict[str, Any] | None:
    """A container with the status of its workflow; None for one that the caller may not see."""
    if record is None:
        return None
    project = call.store.find_project(record["project"])
    if project is None or call.accounts.rights(call.user, project) < READ:
        return None
    (status,) = call.store.row("SELECT status FROM workflows WHERE id=?", record["workflow-id"])
    return {**record, "status": status}
