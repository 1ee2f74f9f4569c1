"""The rest of the classic API: login, tokens, services, workflows, config, user cache."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from . import automation, cache, documents, finding, prearchive_services, searching
from .accounts import DELETE, EDIT, READ
from .files import body_of, held
from .listing import own_rows
from .refresh import refresh
from .routing import parse
from .sending import Body
from .store import Item
from .web import Call, Refusal, csrf_token, empty, json, table, text

_CONFIG = (
    "tool", "path", "project", "user", "create_date", "reason", "contents", "unversioned",
    "version", "status",
)  # fmt: skip
_INVESTIGATOR = (
    "xnat_investigatordata_id", "title", "firstname", "lastname", "institution", "department",
    "email", "phone",
)  # fmt: skip
_WORKFLOW = (
    "label", "id", "externalid", "pipeline_name", "launch_time", "jobid", "status",
    "current_step_launch_time", "current_step_id",
)  # fmt: skip


async def data(call: Call) -> web.StreamResponse:
    """Answer a /data path outside of the archive."""
    path = [part for part in call.path[1:] if part]
    call.route = "/data/" + "/".join(path[:2])
    match path:
        case ["JSESSION"]:
            return _jsession(call)
        case ["auth"]:
            return text(f"User '{call.user.login}' is logged in")
        case ["services", name, *rest]:
            call.route = f"/data/services/{name}" + (f"/{rest[0]}" if rest else "")
            return await _service(call, name, rest)
        case ["users"]:
            rows = [
                {
                    "xdat_user_id": user.number, "login": user.login, "email": user.email,
                    "firstname": user.firstname, "lastname": user.lastname,
                }
                for user in call.accounts.users()
            ]  # fmt: skip
            columns = ("xdat_user_id", "login", "firstname", "lastname", "email")
            return table(call, columns, rows)
        case ["user", "cache", "resources", *rest]:
            call.route = "/data/user/cache/resources"
            return await cache.handle(call, rest)
        case ["user", login, "sessions"]:
            call.route = "/data/user/{login}/sessions"
            return json({login: call.accounts.held(login)})
        case ["automation", *rest]:
            call.route = "/data/automation/" + (rest[0] if rest else "")
            return await automation.handle(call, None, rest)
        case ["config", *rest]:
            call.route = "/data/config"
            return await config(call, None, rest)
        case ["search", *rest]:
            call.route = "/data/search/" + (rest[0] if rest else "")
            return await searching.handle(call, rest)
        case ["workflows", *rest]:
            call.route = "/data/workflows"
            return await _workflow_item(call, rest)
        case ["status", name]:
            call.route = "/data/status/{listener}"
            told = call.sandbox.messages.get(name)
            said = told.said if told is not None and told.session == call.session else []
            final = ("COMPLETED", "FAILED")
            messages = [{"status": s, "msg": m, "terminal": s in final} for s, m in said]
            return json({"msgs": [messages]})
        case ["investigators"]:
            return table(call, _INVESTIGATOR, call.store.records("investigator").values())
        case ["scan_types"]:
            return _distinct(call, "type")
        case ["scanners"]:
            return _distinct(call, "scanner")
        case ["pars"]:
            return table(call, ("par_id", "proj_id", "level", "create_date"), [])
    raise Refusal(404, "The server has not found anything matching the request URI")


async def _service(call: Call, name: str, rest: list[str]) -> web.StreamResponse:
    match [name, *rest]:
        case ["auth"]:
            return await _login_service(call)
        case ["tokens", *further]:
            return _tokens(call, further)
        case ["refresh", "catalog"]:
            return await _refresh(call)
        case ["archive"]:
            return await prearchive_services.archive_service(call)
        case ["validate-archive"]:
            return await prearchive_services.validate_service(call)
        case ["prearchive", action]:
            return await prearchive_services.queue_service(call, action)
        case ["workflows", *further]:
            return _workflows(call, further)
        case ["dicomdump"]:
            return _dicomdump(call)
        case ["move-files"]:
            return await cache.move_files(call)
    raise Refusal(404, "There is no such service")


# ---- login ---------------------------------------------------------------------------------


def _jsession(call: Call) -> web.Response:
    if call.method == "DELETE":
        call.accounts.end(call.session)
        return empty()
    token = f"; XNAT_CSRF={csrf_token(call.session)}" if call.flag("CSRF") else ""
    return text(call.session + token)


async def _login_service(call: Call) -> web.Response:
    if call.method not in ("PUT", "POST"):
        raise Refusal(405, "The method is not allowed")
    await call.form()
    user = call.accounts.check(call.param("username"), call.param("password"))
    session = call.accounts.open(user) if user is not None else None
    if session is None:
        raise Refusal(401, "Unable to authenticate with the given credentials")
    call.session = session
    return text(session)


def _tokens(call: Call, rest: list[str]) -> web.Response:
    if call.user.guest:
        raise Refusal(403, "Guests have no tokens")
    store = call.store
    match rest:
        case ["issue"]:
            return json(call.accounts.issue(call.user.login))
        case ["issue", "user", login]:
            if not call.user.admin and login != call.user.login:
                raise Refusal(403, "Only administrators may issue tokens for others")
            if call.accounts.user(login) is None:
                raise Refusal(404, f"There is no user {login}")
            return json(call.accounts.issue(login))
        case ["show"]:
            return json(call.accounts.tokens(call.user.login))
        case ["validate", alias, secret]:
            row = store.row("SELECT secret, login, expires FROM tokens WHERE alias=?", alias)
            if row is None or row[2] < time.time():
                raise Refusal(404, "There is no such token")
            # What a wrong secret answers is not documented: an object without `valid`.
            return json({"valid": row[1]} if row[0] == secret else {})
        case ["invalidate", alias, *_]:
            store.db.execute("DELETE FROM tokens WHERE alias=?", (alias,))
            return json({"result": "OK"})
    raise Refusal(404, "There is no such token service")


# ---- services ------------------------------------------------------------------------------


async def _refresh(call: Call) -> web.Response:
    if call.method not in ("POST", "PUT"):
        raise Refusal(405, "The method is not allowed")
    await call.form()
    if not call.all("resource"):
        raise Refusal(400, "No resource was given")
    options = {name for value in call.all("options") for name in value.split(",") if name}
    for address in call.all("resource"):
        refresh(call, address, options, need=EDIT)
    return empty()


def _dicomdump(call: Call) -> web.Response:
    """`?src=/archive/…/scans/3&field=00100010`: the tags of the first object."""
    import pydicom

    parts = [part for part in call.param("src").split("/") if part]
    while parts and parts[0] in ("data", "REST", "archive"):
        parts.pop(0)
    place = parse(parts)
    if place.short and place.rest[:1] == ["scans"] and len(place.rest) == 2:
        place.ids["scan"] = place.rest.pop()  # This service, unlike the archive, routes it.
        place.rest.clear()
    if place.deepest not in ("scan", "experiment") or place.rest:
        raise Refusal(400, "A source must be given")
    bodies: list[Body] = [
        body_of(call, one.resource, file)
        for one in held(call, place)
        for file in call.store.files(one.resource)
        if one.resource.format == "DICOM" or file.path.endswith(".dcm")
    ]
    present = next((body for body in bodies if body.present()), None)
    if present is None:
        raise Refusal(404, "There is no DICOM object")
    with present.open() as source:
        dataset = pydicom.dcmread(source, stop_before_pixels=True, force=True)
    wanted = {field.lower() for field in call.all("field")}
    rows = [
        {
            "tag1": str(element.tag).replace(", ", ",").upper(), "tag2": "", "vr": element.VR,
            "value": str(element.value), "desc": element.name,
        }
        for element in dataset
        if not wanted or f"{element.tag:08x}" in wanted or element.keyword.lower() in wanted
    ]  # fmt: skip
    return table(call, ("tag1", "tag2", "vr", "value", "desc"), rows)


# ---- workflows -----------------------------------------------------------------------------


def _workflows(call: Call, rest: list[str]) -> web.Response:
    """The table of workflows, by pipeline, experiment, project and status."""
    if rest[:1] == ["workflowid"]:
        where, values = "id=?", [rest[1] if len(rest) > 1 else "0"]
    else:
        where, values = "1", []
        for column, wanted in (
            ("pipeline", rest[0] if rest else ""), ("item", call.param("experiment")),
            ("project", call.param("project")), ("status", call.param("status")),
        ):  # fmt: skip
            if wanted:
                where += f" AND {column}=?"
                values.append(wanted)
    found = call.store.rows(
        "SELECT id, item, project, pipeline, status, launched FROM workflows "
        f"WHERE {where} ORDER BY id DESC",
        *values,
    )
    if call.param("display") == "LATEST":
        found = found[:1]
    rows = []
    for number, item, project, pipeline, status, launched in found:
        owner = call.store.find_project(project)
        if owner is None or call.accounts.rights(call.user, owner) < READ:
            continue
        session = finding.find_experiment(call, item, owner)
        rows.append(
            {
                "label": session.label if session else "", "id": item, "externalid": project,
                "pipeline_name": pipeline, "launch_time": launched, "jobid": number,
                "status": status, "current_step_launch_time": launched, "current_step_id": "1",
            }
        )  # fmt: skip
    return table(call, _WORKFLOW, rows)


async def _workflow_item(call: Call, rest: list[str]) -> web.Response:
    """PUT makes or changes a workflow (`wrk:workflowData/…` fields), GET shows one."""
    fields = {
        key.partition("/")[2]: value
        for key, value in call.params
        if key.startswith("wrk:workflowData/")
    }
    if call.method == "PUT" and not rest:
        missing = {"id", "launch_time", "data_type", "pipeline_name"} - set(fields)
        if missing:
            raise Refusal(400, f"Missing {', '.join(sorted(missing))}")
        item = finding.find_experiment(call, fields["id"], None)
        if item is None:
            raise Refusal(404, f"There is no item {fields['id']}")
        finding.require(call, item, EDIT)
        project = call.store.item(item.project).code
        status = fields.get("status", "Queued")
        number = call.sandbox.workflow(
            item, project, fields["pipeline_name"], status, call.user.login
        )
        return text(str(number))
    row = call.store.row(
        "SELECT id, item, project, data_type, pipeline, status, launched, details FROM workflows "
        "WHERE id=?",
        rest[0] if rest else 0,
    )
    if row is None:
        raise Refusal(404, "There is no such workflow")
    if call.method == "PUT":
        status = fields.get("status", row[5])
        call.store.db.execute("UPDATE workflows SET status=? WHERE id=?", (status, row[0]))
        return text(str(row[0]))
    root = documents.new("experiment", "wrk:workflowData")
    root.attrib.update(
        {"ID": row[1], "data_type": row[3], "ExternalID": row[2], "pipeline_name": row[4],
         "status": row[5], "launch_time": row[6]}
    )  # fmt: skip
    if call.param("format") == "json":
        return json({"items": [documents.to_json(root)]})
    return text(documents.write(root, declaration=True), media="text/xml")


# ---- distinct values -----------------------------------------------------------------------


def _distinct(call: Call, column: str) -> web.Response:
    visible = ",".join(str(p.id) for p in call.accounts.visible(call.user)) or "0"
    rows = own_rows(call, f"i.kind='scan' AND i.project IN ({visible})")
    values = sorted({row.get(column) or "" for row in rows} - {""})
    return table(call, (column,), [{column: value} for value in values])


# ---- config service ------------------------------------------------------------------------


async def config(call: Call, project: Item | None, rest: list[str]) -> web.Response:
    """`config/{tool}/{path}` of the site or of a project: raw contents, versioned."""
    scope = project.code if project is not None else ""
    if call.method == "PUT":
        if project is None and not call.user.admin:
            raise Refusal(403, "Only administrators may change the site's configuration")
        if project is not None:
            finding.require_project(call, project, DELETE)
    if len(rest) < 2:
        stored = call.store.records(f"config:{scope}")
        tools = sorted({key.partition("/")[0] for key in stored})
        if rest:
            rows = [record for key, record in stored.items() if key.startswith(f"{rest[0]}/")]
            if not rows:
                raise Refusal(404, f"Couldn't find config for tool {rest[0]}")
            return table(call, _CONFIG, rows)
        return table(call, ("tool",), [{"tool": tool} for tool in tools])
    key = "/".join(rest)
    record: dict[str, Any] | None = call.store.record(f"config:{scope}", key)
    if call.method == "PUT":
        return await _put_config(call, scope, key, record)
    if record is None:
        raise Refusal(404, f"Couldn't find config for {key}")
    if call.flag("contents"):
        return text(str(record["contents"]))
    return table(call, _CONFIG, [record])


async def _put_config(
    call: Call, scope: str, key: str, record: dict[str, Any] | None
) -> web.Response:
    record = record or {"contents": "", "version": 0, "status": "enabled"}
    if call.has("status"):
        record["status"] = call.param("status")
    else:
        record["contents"] = (await call.body()).decode("utf-8", "replace")
        record["version"] = int(record["version"]) + 1
    tool, _, path = key.partition("/")
    record |= {
        "tool": tool, "path": path, "project": scope, "user": call.user.login,
        "create_date": time.strftime("%Y-%m-%d %H:%M:%S.0"), "reason": call.param("reason"),
        "unversioned": "false",
    }  # fmt: skip
    call.store.set_record(f"config:{scope}", key, record)
    if tool == "seriesImportFilter":
        enabled = record["status"] == "enabled"
        call.store.set_setting(scope, "series_filter", str(record["contents"]) if enabled else "")
    return text("", 201 if record["version"] == 1 else 200)
