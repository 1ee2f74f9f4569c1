"""Commands on routes that the sandbox does not have, against scripted answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from aioresponses import aioresponses

from xnatctl.cli import pipeline

Call = Callable[..., Any]
URL = "http://xnat.test"
SESSION = {
    "items": [
        {
            "meta": {"xsi:type": "xnat:mrSessionData"},
            "data_fields": {"ID": "X_E1", "label": "S1_MR1", "project": "P", "subject_ID": "X_S1"},
        }
    ]
}
SUBJECT = {"items": [{"meta": {}, "data_fields": {"ID": "X_S1", "label": "S1"}}]}
COMMANDS = [
    {
        "id": 1,
        "name": "dcm2niix",
        "version": "1.0",
        "image": "xnat/dcm2niix:1.0",
        "xnat": [
            {
                "id": 3,
                "name": "dcm2niix-session",
                "description": "NIfTI of a session",
                "external-inputs": [{"name": "session", "type": "Session"}],
            }
        ],
    }
]


def table(*rows: dict[str, str]) -> dict[str, Any]:
    return {"ResultSet": {"Result": list(rows), "totalRecords": str(len(rows))}}


def workflow(status: str, **more: str) -> str:
    fields = {"ID": "X_E1", "ExternalID": "P", "pipeline_name": "dcm", "status": status, **more}
    words = " ".join(f'{name}="{value}"' for name, value in fields.items())
    return f'<wrk:Workflow xmlns:wrk="http://nrg.wustl.edu/workflow" {words}/>'


class Script:
    """Answers by method and path, whatever the query; `sent` are the bodies that came."""

    def __init__(self, mocked: aioresponses) -> None:
        self.mocked = mocked

    def __call__(
        self, method: str, path: str, answer: Any = "", *, status: int = 200, times: int = 0
    ) -> None:
        is_text = isinstance(answer, str)
        kind = "text/xml" if is_text and answer.startswith("<") else "text/plain"
        self.mocked.add(
            re.compile(re.escape(URL + path) + r"(\?.*)?$"),
            method=method,
            status=status,
            body=answer if is_text else json.dumps(answer),
            content_type=kind if is_text else "application/json",
            repeat=times or True,
        )

    def sent(self, method: str, path: str) -> list[Any]:
        return [
            call.kwargs.get("data")
            for (verb, url), calls in self.mocked.requests.items()
            if verb == method and url.path == path
            for call in calls
        ]


@pytest.fixture
def script(mocked: aioresponses, monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setenv("XNAT_URL", URL)
    monkeypatch.setenv("XNAT_USER", "kim")
    monkeypatch.setenv("XNAT_TOKEN", "0123456789ABCDEF")
    monkeypatch.setattr(pipeline, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(pipeline, "APPEAR_S", 0.2)
    answers = Script(mocked)
    answers("GET", "/xapi/users/username", "kim")
    answers("GET", "/data/experiments/X_E1", SESSION)
    answers("GET", "/data/projects/P/experiments/S1_MR1", SESSION)
    answers("GET", "/data/projects/P/subjects/X_S1", SUBJECT)
    return answers


# --- pipelines of a stock server -----------------------------------------------------------------


def test_pipelines_and_wrappers_are_listed_together(xnatctl: Call, script: Script) -> None:
    row = {"Name": "dcm", "Description": "converts", "Version": "2", "path": "/opt/dcm.xml"}
    script("GET", "/data/projects/P/pipelines", table(row))
    script("GET", "/xapi/commands", COMMANDS)
    rows = xnatctl("pipeline", "list", "--project", "P", "-o", "json").json()
    assert rows[0] == row | {"name": "dcm", "kind": "pipeline"}
    assert rows[1]["name"] == "dcm2niix-session"
    assert rows[1]["kind"] == "container"
    assert rows[1]["path"] == "xnat/dcm2niix:1.0"


def test_who_may_not_see_pipelines_still_sees_wrappers(xnatctl: Call, script: Script) -> None:
    script("GET", "/data/projects/P/pipelines", status=403)
    script("GET", "/xapi/commands", COMMANDS)
    done = xnatctl("pipeline", "list", "-P", "P", "-q")
    assert (done.code, done.out) == (0, "dcm2niix-session\n")
    script("GET", "/data/projects/Q/pipelines", status=404)
    script("GET", "/data/projects", table())
    assert xnatctl("pipeline", "list", "-P", "Q").code == 5


def test_a_pipeline_runs_and_its_workflow_is_the_job(xnatctl: Call, script: Script) -> None:
    script("GET", "/data/projects/P/pipelines", table({"Name": "dcm"}))
    script("GET", "/data/services/workflows", table({"jobid": "7", "id": "X_E1"}), times=1)
    script("POST", "/data/projects/P/pipelines/dcm/experiments/X_E1", "submitted")
    fresh = {"jobid": "8", "id": "X_E1", "pipeline_name": "dcm", "status": "Queued"}
    script("GET", "/data/services/workflows", table(fresh, {"jobid": "7", "id": "X_E1"}))
    done = xnatctl("pipeline", "run", "dcm", "--experiment", "X_E1", "--param", "a=b", "-o", "json")
    assert done.code == 0
    assert done.json() == {
        "success": True,
        "pipeline": "dcm",
        "experiment": "X_E1",
        "job_id": "8",
        "result": "submitted",
    }


def test_waiting_for_a_job_that_fails_exits_1(xnatctl: Call, script: Script) -> None:
    script("GET", "/data/projects/P/pipelines", table({"Name": "dcm"}))
    script("GET", "/data/services/workflows", table(), times=1)
    script("POST", "/data/projects/P/pipelines/dcm/experiments/X_E1")
    script("GET", "/data/services/workflows", table({"jobid": "8", "id": "X_E1"}))
    script("GET", "/data/workflows/8", workflow("Running"), times=1)
    script("GET", "/data/workflows/8", workflow("Failed (convert)"))
    done = xnatctl("pipeline", "run", "dcm", "-E", "S1_MR1", "-P", "P", "--wait", "-o", "json")
    assert done.code == 1
    assert done.json() | {"success": False, "status": "Failed (convert)"} == done.json()
    assert "job 8: Running" in done.err


def test_an_unknown_pipeline_is_named_with_those_that_exist(xnatctl: Call, script: Script) -> None:
    script("GET", "/data/projects/P/pipelines", table({"Name": "dcm"}))
    script("GET", "/xapi/commands", COMMANDS)
    done = xnatctl("pipeline", "run", "dmc", "-E", "X_E1")
    assert done.code == 5
    assert "dcm, dcm2niix-session" in done.err


def test_a_dry_run_starts_nothing(xnatctl: Call, script: Script) -> None:
    script("GET", "/data/projects/P/pipelines", table({"Name": "dcm"}))
    plan = xnatctl("pipeline", "run", "dcm", "-E", "X_E1", "--dry-run", "-o", "json").json()
    assert plan[0] | {"action": "run", "target": "pipeline dcm"} == plan[0]


# --- the container service -----------------------------------------------------------------------


def test_a_wrapper_is_launched_on_the_session_and_followed_by_its_workflow(
    xnatctl: Call, script: Script
) -> None:
    script("GET", "/data/projects/P/pipelines", status=404)
    script("GET", "/xapi/commands", COMMANDS)
    launch = "/xapi/projects/P/wrappers/3/root/session/launch"
    script("POST", launch, {"status": "success", "workflow-id": "881"})
    script("GET", "/data/workflows/881", workflow("Complete"))
    done = xnatctl(
        *("pipeline", "run", "dcm2niix-session", "-e", "X_E1", "--param", "bids=y"),
        *("--wait", "-o", "json"),
    )
    assert done.code == 0
    assert done.json() | {"success": True, "job_id": "881", "status": "Complete"} == done.json()
    (body,) = script.sent("POST", launch)
    assert json.loads(body) == {"session": "/archive/experiments/X_E1", "bids": "y"}


def test_a_launch_that_the_service_refuses_exits_1(xnatctl: Call, script: Script) -> None:
    script("GET", "/data/projects/P/pipelines", status=403)
    script("GET", "/xapi/commands", COMMANDS)
    answer = {"status": "failure", "message": "no such mount"}
    script("POST", "/xapi/projects/P/wrappers/3/root/session/launch", answer)
    done = xnatctl("pipeline", "run", "dcm2niix-session", "-E", "X_E1", "-o", "json")
    assert done.code == 1
    assert done.json()["result"]["message"] == "no such mount"


# --- jobs ----------------------------------------------------------------------------------------


def test_a_status_has_its_four_fields_and_the_rest(xnatctl: Call, script: Script) -> None:
    more = {"launch_time": "2024-03-01 10:00:00.0", "step_description": "converting"}
    script("GET", "/data/workflows/881", workflow("Running", percentageComplete="40", **more))
    document = xnatctl("pipeline", "status", "881", "-o", "json").json()
    assert (
        document
        | {
            "status": "Running",
            "message": "converting",
            "start_time": "2024-03-01 10:00:00.0",
            "end_time": "",
        }
        == document
    )
    assert document["raw"]["percent"] == "40"


def test_watching_goes_on_to_the_end_and_fails_with_the_job(xnatctl: Call, script: Script) -> None:
    for status in ("Queued", "Running"):
        script("GET", "/data/workflows/9", workflow(status), times=1)
    script("GET", "/data/workflows/9", workflow("Killed"))
    done = xnatctl("pipeline", "status", "9", "--watch", "--interval", "0", "-q")
    assert (done.code, done.out) == (1, "Killed\n")
    script("GET", "/data/workflows/10", status=404)
    assert xnatctl("pipeline", "status", "10").code == 5


def test_jobs_are_rows_of_the_workflows(xnatctl: Call, script: Script) -> None:
    row = {
        "jobid": "8",
        "id": "X_E1",
        "externalid": "P",
        "pipeline_name": "dcm",
        "status": "Running",
        "launch_time": "2024-03-01 10:00:00.0",
    }
    script("GET", "/data/services/workflows", table(row))
    rows = xnatctl("pipeline", "jobs", "-s", "Running", "-o", "json").json()
    assert rows == [
        {
            "job_id": "8",
            "pipeline": "dcm",
            "experiment": "X_E1",
            "project": "P",
            "status": "Running",
            "start_time": "2024-03-01 10:00:00.0",
        }
    ]


def test_cancelling_kills_the_container_of_the_workflow(xnatctl: Call, script: Script) -> None:
    script("GET", "/xapi/containers", [{"id": 5, "workflow-id": "881"}])
    script("POST", "/xapi/containers/5/kill")
    assert xnatctl("pipeline", "cancel", "881", "--yes").code == 0
    assert len(script.sent("POST", "/xapi/containers/5/kill")) == 1


def test_cancelling_on_a_stock_server_closes_the_workflow(xnatctl: Call, script: Script) -> None:
    script("GET", "/xapi/containers", status=404)
    script("GET", "/data/workflows/8", workflow("Running"), times=1)
    script("PUT", "/data/workflows/8")
    script("GET", "/data/workflows/8", workflow("Killed"))
    assert xnatctl("pipeline", "cancel", "8", "--yes").code == 0
    assert xnatctl("pipeline", "cancel", "8", "--yes").code == 1


# --- accounts ------------------------------------------------------------------------------------


def test_roles_are_granted_and_read_back(xnatctl: Call, script: Script) -> None:
    script("GET", "/xapi/users/bob/roles", [], times=2)
    script("PUT", "/xapi/users/bob/roles/Administrator")
    roles = ("admin", "user", "roles", "bob", "--grant", "Administrator")
    done = xnatctl(*roles, "--yes")
    assert done.code == 1
    assert "as before" in done.err
    script("GET", "/xapi/users/bob/roles", [], times=1)
    script("GET", "/xapi/users/bob/roles", ["Administrator"])
    assert xnatctl(*roles, "--yes").code == 0


def test_an_account_is_disabled_and_read_back(xnatctl: Call, script: Script) -> None:
    script("GET", "/xapi/users/bob", {"username": "bob", "enabled": True}, times=1)
    script("PUT", "/xapi/users/bob/enabled/false")
    script("GET", "/xapi/users/bob", {"username": "bob", "enabled": False})
    assert xnatctl("admin", "user", "disable", "bob", "--yes").code == 0


def test_a_site_setting_is_changed_and_read_back(xnatctl: Call, script: Script) -> None:
    script("GET", "/xapi/siteConfig/siteId", '"OLD"', times=1)
    script("POST", "/xapi/siteConfig/siteId")
    script("GET", "/xapi/siteConfig/siteId", "NEW")
    assert xnatctl("admin", "site-config", "set", "siteId", "NEW", "--yes").code == 0
    assert script.sent("POST", "/xapi/siteConfig/siteId") == [b"NEW"]


def test_a_list_of_users_that_is_hidden_blocks_a_grant_unless_mail_is_fine(
    xnatctl: Call, script: Script
) -> None:
    script("GET", "/data/projects/P/users", table({"login": "kim", "displayname": "Owners"}))
    script("GET", "/xapi/users", status=403)
    script("PUT", "/data/projects/P/users/member/bob")
    grant = ("project", "grant", "P", "bob", "--role", "member", "--yes")
    assert xnatctl(*grant).code == 6
    assert script.sent("PUT", "/data/projects/P/users/member/bob") == []
    assert xnatctl(*grant, "--invite").code == 0


def test_a_rename_whose_answer_is_lost_is_looked_for(
    xnatctl: Call, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xnatctl.cli import renaming

    monkeypatch.setattr(renaming, "LOOK_EVERY_S", 0.0)
    row = {"ID": "X_E1", "label": "S1_MR1", "project": "P", "subject_label": "S1"}
    renamed = json.loads(json.dumps(SESSION).replace("S1_MR1", "NEW"))
    script.mocked.clear()
    script("GET", "/xapi/users/username", "kim")
    script("GET", "/data/projects/P/experiments/S1_MR1", SESSION)
    script("GET", "/data/projects/P/subjects/X_S1", SUBJECT)
    script("GET", "/data/projects/P/experiments", table(row))
    script("PUT", "/data/projects/P/subjects/S1/experiments/S1_MR1", status=504)
    script("GET", "/data/experiments/X_E1", SESSION, times=2)
    script("GET", "/data/experiments/X_E1", renamed)
    done = xnatctl("session", "rename", "-P", "P", "-E", "S1_MR1", "--to", "NEW")
    assert done.code == 0, done.err
    assert len(script.sent("PUT", "/data/projects/P/subjects/S1/experiments/S1_MR1")) == 1
