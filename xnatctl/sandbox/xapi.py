"""The newer API below /xapi: identity, users, site, custom fields, investigators, scripts, XML.

Refusals are plain text here. What needs an administrator says so with 403.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from aiohttp import web

from . import documents, downloads, finding, prearchive_api, processing, receivers, schemas
from .accounts import DELETE, EDIT, READ, User
from .refresh import refresh
from .routing import parse
from .store import Item
from .web import Call, Refusal, empty, json, text

_SITE = ("siteId", "siteUrl", "siteHome", "siteDescriptionText", "requireLogin")
_Record = dict[str, Any]
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="XNAT Protected Area"'}


async def handle(call: Call) -> web.StreamResponse:
    """Answer a path below /xapi."""
    path = [part for part in call.path[1:] if part]
    call.route = "/xapi/" + "/".join(path[:2])
    match path:
        case ["siteConfig", *rest]:
            return await _site(call, rest)
        case ["users", *rest]:
            return await _users(call, rest)
        case ["access", "projects"]:
            return json(
                [
                    {"ID": p.code, "name": call.store.fields(p).get("name", p.code),
                     "role": call.accounts.role(p, call.user.login)}
                    for p in call.accounts.visible(call.user)
                ]
            )  # fmt: skip
        case ["access", "cache", "flush"] if call.method == "DELETE":
            _admin(call)
            call.accounts.changed.clear()
            return empty()
        case ["plugins"]:
            return json({"sandboxPlugin": {"id": "sandboxPlugin", "name": "Sandbox",
                                           "version": call.settings.version}})  # fmt: skip
        case ["schemas", *rest]:
            return schemas.listing(rest)
        case ["direct-archive", project, tag, name]:
            call.route = "/xapi/direct-archive/{project}/{tag}/{label}"
            return await prearchive_api.direct(call, project, tag, name)
        case ["anonymize", *rest]:
            return await _anonymize(call, rest)
        case ["custom-fields", *rest]:
            call.route = "/xapi/custom-fields"
            return await _custom_fields(call, rest)
        case ["investigators", *rest]:
            return await _investigators(call, rest)
        case ["archive", "upload", "xml"]:
            call.route = "/xapi/archive/upload/xml"
            return await _upload_xml(call)
        case ["archive", "catalogs", "refresh", *rest]:
            call.route = "/xapi/archive/catalogs/refresh"
            return await _refresh(call, rest)
        case ["archive", *rest]:
            return await downloads.handle(call, rest)
        case ["dicomscp", *rest]:
            return await receivers.handle(call, rest)
        case ["event_tracking", key]:
            return _tracking(call, key)
        case ["commands" | "containers" | "wrappers" | "projects", *_]:
            return await processing.handle(call, path)
        case ["events", *_]:
            raise Refusal(405, "Event Service is disabled")
    raise Refusal(404, "")


def _admin(call: Call) -> None:
    if not call.user.admin:
        raise Refusal(403, "Only administrators may do this")


async def _site(call: Call, rest: list[str]) -> web.Response:
    """Build, and site properties. Those that are set are kept; they change nothing."""
    settings = call.settings
    build = {
        "version": settings.version, "buildNumber": "Manual", "commit": "sandbox",
        "buildDate": "Fri Mar 01 10:11:12 UTC 2024", "timestamp": "1709287872000",
    }  # fmt: skip
    values = {
        "siteId": settings.site_id, "siteUrl": call.sandbox.url, "siteHome": "/",
        "siteDescriptionText": "A sandbox", "requireLogin": settings.require_login,
        "sessionTimeout": f"{settings.session_timeout_s:g} seconds",
        **(call.store.record("site", "properties") or {}),
    }  # fmt: skip
    match call.method, rest:
        case "POST" | "PUT", [] | [_]:
            _admin(call)
            given = {rest[0]: (await call.body()).decode()} if rest else await call.json(_Record)
            kept = call.store.record("site", "properties") or {}
            call.store.set_record("site", "properties", kept | dict(given))
            return empty()
        case _, ["buildInfo"]:
            return json(build)
        case _, ["buildInfo", name] if name in build:
            return text(build[name])
        case _, ["uptime"]:
            return json({"seconds": int(time.time() - call.sandbox.started)})
        case _, [name] if name in values and (name in _SITE or call.user.admin):
            return text(str(values[name]))
        case _, []:
            _admin(call)
            return json(values)
    raise Refusal(404 if call.user.admin else 403, "")


# ---- users ---------------------------------------------------------------------------------


def _profile(user: User) -> dict[str, Any]:
    return {
        "id": user.number, "username": user.login, "firstName": user.firstname,
        "lastName": user.lastname, "email": user.email, "admin": user.admin,
        "enabled": user.enabled, "verified": True, "secured": True,
    }  # fmt: skip


async def _users(call: Call, rest: list[str]) -> web.StreamResponse:
    accounts = call.accounts
    match rest:
        case ["username"]:
            if call.user.guest:
                raise Refusal(401, "", _CHALLENGE)
            return text(call.user.login)
        case []:
            if call.method == "POST":
                _admin(call)
                given = await call.json(dict[str, str])
                if not given.get("username"):
                    raise Refusal(400, "A user needs a name")
                if accounts.user(given["username"]) is not None:
                    raise Refusal(409, "The user exists")
                made = accounts.add(given["username"], given.get("password", ""))
                return json(_profile(made), 201)
            _may_list(call)
            return json([user.login for user in accounts.users()])
        case ["projects"]:
            editable = [
                p.code for p in accounts.visible(call.user) if accounts.rights(call.user, p) >= EDIT
            ]
            return json(editable)
        case ["profiles"]:
            _may_list(call)
            return json([_profile(user) for user in accounts.users()])
        case ["active"]:
            return json({user.login: accounts.held(user.login) for user in accounts.users()})
        case ["active", login]:
            if call.method == "DELETE":
                _admin(call)
                return json(accounts.end_all(login))
            return json({"sessions": accounts.held(login), "username": login})
        case ["profile", login] | [login]:
            return json(_profile(_other(call, login)))
        case [login, "roles", *named]:
            return await _roles(call, _other(call, login), named)
        case [login, "enabled", *flag]:
            return _enabled(call, _other(call, login), flag)
        case [login, "groups"]:
            return await _groups(call, _other(call, login))
    raise Refusal(404, "")


def _may_list(call: Call) -> None:
    if call.settings.restrict_user_list:
        _admin(call)


def _other(call: Call, login: str) -> User:
    if login != call.user.login:
        _admin(call)
    user = call.accounts.user(login)
    if user is None:
        raise Refusal(404, f"There is no user {login}")
    return user


async def _roles(call: Call, user: User, named: list[str]) -> web.Response:
    """The site roles of a user: only `Administrator` means anything here. PUT adds, DELETE takes.

    Roles stand in the path, or for PUT in the body as a list.
    """
    if call.method in ("PUT", "DELETE"):
        _admin(call)
        roles = named or (await call.json(list[str]) if call.method == "PUT" else [])
        if "Administrator" in roles:
            call.accounts.change(user.login, admin=call.method == "PUT")
    changed = _other(call, user.login)
    return json(["Administrator"] if changed.admin else [])


def _enabled(call: Call, user: User, flag: list[str]) -> web.Response:
    """Whether a user may log in; `PUT …/enabled/false` also ends his sessions."""
    if call.method == "PUT":
        _admin(call)
        if flag not in (["true"], ["false"]):
            raise Refusal(400, "enabled is true or false")
        call.accounts.change(user.login, enabled=flag == ["true"])
    return json(_other(call, user.login).enabled)


async def _groups(call: Call, user: User) -> web.Response:
    accounts = call.accounts
    projects = call.store.find("kind='project'")
    if call.method == "PUT":
        _admin(call)
        for group in await call.json(list[str]):
            code, _, role = str(group).rpartition("_")
            project = call.store.find_project(code)
            if project is None or role not in ("owner", "member", "collaborator"):
                raise Refusal(404, f"There is no group {group}")
            accounts.set_role(project, user.login, role)
    return json([f"{p.code}_{role}" for p in projects if (role := accounts.role(p, user.login))])


# ---- scripts -------------------------------------------------------------------------------


async def _anonymize(call: Call, rest: list[str]) -> web.Response:
    """Scripts of the site and of projects, and whether they run."""
    scope, project = "", None
    match rest:
        case ["default"]:
            return text('version "6.3"\n')
        case ["site", *more]:
            pass
        case ["projects", code, *more]:
            project = call.store.find_project(code)
            if project is None:
                raise Refusal(500, f"There is no project {code}")
            scope = project.code
        case _:
            raise Refusal(404, "")
    if call.method == "PUT":
        if project is None:
            _admin(call)
        else:
            finding.require_project(call, project, DELETE)
    elif project is not None:
        finding.require_project(call, project, READ)
    store = call.store
    if more == ["enabled"]:
        if call.method == "PUT":
            if call.media != "application/json":
                raise Refusal(415, "Unsupported Media Type")
            store.set_setting(scope, "anon_enabled", call.param("enable", "false"))
        return json(store.setting(scope, "anon_enabled", "false") == "true")
    if call.method == "PUT":
        store.set_setting(scope, "anon_script", (await call.body()).decode("utf-8", "replace"))
        store.set_setting(scope, "anon_enabled", "true")
        return empty()
    script = call.sandbox.script(scope)
    return text(script) if script else empty(204)


# ---- custom fields -------------------------------------------------------------------------


async def _custom_fields(call: Call, rest: list[str]) -> web.Response:
    """JSON custom fields: GET/PUT …/fields, GET/DELETE …/fields/{name}."""
    if "fields" not in rest:
        raise Refusal(404, "")
    at = len(rest) - 1 - rest[::-1].index("fields")
    place = parse(rest[:at])
    if place.rest or place.deepest == "root":
        raise Refusal(404, "")
    item = finding.locate(call, place)
    name = rest[at + 1] if len(rest) > at + 1 else ""
    held: dict[str, Any] = call.store.record("custom-fields", str(item.id)) or {}
    if call.method == "GET":
        if not name:
            return json(held)
        if name not in held:
            raise Refusal(404, f"There is no field {name}")
        return text(str(held[name]))
    if call.accounts.item_rights(call.user, item) < EDIT:
        raise Refusal(403, "You may not change this item")
    if call.method == "PUT":
        held |= await call.json(_Record)
    elif name not in held:
        raise Refusal(404, f"There is no field {name}")
    else:
        del held[name]
    call.store.set_record("custom-fields", str(item.id), held)
    call.store.touch(item)
    return json(held)


# ---- investigators -------------------------------------------------------------------------


async def _investigators(call: Call, rest: list[str]) -> web.Response:
    """Shared records of people; JSON names are those of the newer API, rows those of the table."""
    store = call.store
    number = rest[0] if rest else ""
    record = store.record("investigator", number) if number else None
    if number and record is None:
        raise Refusal(404, f"There is no investigator {number}")
    if call.method == "GET":
        if record is not None:
            return json(_investigator(record))
        return json([_investigator(one) for one in store.records("investigator").values()])
    if call.method == "DELETE":
        _admin(call)
        store.set_record("investigator", number, None)
        return json(True)
    given = await call.json(_Record)
    names = ("title", "firstname", "lastname", "institution", "department", "email", "phone")
    fresh = {name: str(given.get(name) or "") for name in names}
    if call.method == "PUT":
        fresh["xnat_investigatordata_id"] = number
        if fresh == record:
            return empty(304)
    else:
        number = str(store.next_number("investigator"))
        fresh["xnat_investigatordata_id"] = number
    store.set_record("investigator", number, fresh)
    return json(_investigator(fresh))


def _investigator(record: dict[str, Any]) -> dict[str, Any]:
    out = {k: v for k, v in record.items() if k != "xnat_investigatordata_id"}
    return {
        "xnatInvestigatordataId": int(record["xnat_investigatordata_id"]), **out,
        "primaryProjects": [], "investigatorProjects": [],
    }  # fmt: skip


# ---- documents and catalogs ----------------------------------------------------------------


async def _upload_xml(call: Call) -> web.Response:
    """Store an item described fully in XML; a DOCTYPE is refused, so is what names no project."""
    if call.method == "PUT" and not call.has("allowDataDeletion"):
        raise Refusal(400, "The parameter allowDataDeletion is required")
    sent = await _item_part(call) if call.media.startswith("multipart/") else await call.body()
    try:
        element = documents.parse(sent)
    except documents.BadXml as error:
        raise Refusal(400, str(error)) from error
    xsi = documents.xsi_of(element)
    code, label = element.get("project", ""), element.get("label", "")
    if xsi == "xnat:projectData":
        raise Refusal(400, "Projects are stored through /data/projects")
    project = call.store.find_project(code)
    if project is None or call.accounts.rights(call.user, project) < EDIT:
        raise Refusal(403, f"You may not write to the project {code}")
    if not label:
        raise Refusal(400, "cvc-complex-type: the item has no label")
    if xsi == "xnat:subjectData":
        found = call.store.find_subject(label, project)
        if found is None:
            call.store.create_subject(project, label, element, author=call.user.login)
        else:
            call.store.update(found, element=_merged(call, found, element))
        return text(f"/archive/projects/{code}/subjects/{label}")
    above = documents.child(element, "imageSession_ID")
    if above is not None:
        session = finding.find_experiment(call, above.text or "", project)
        if session is None:
            raise Refusal(400, f"cvc-complex-type: there is no session {above.text!r}")
        replace = call.flag("allowDataDeletion")
        number = call.store.store_child(
            session, "assessor", element, author=call.user.login, replace=replace
        )
        return text(f"/archive/experiments/{call.store.item(number).code}")
    return _upload_session(call, project, label, element)


async def _item_part(call: Call) -> bytes:
    """The part `item` of a form."""
    async for part in call.parts():
        if part.name == "item":
            return bytes(await part.read())
    raise Refusal(400, "Required request part 'item' is not present")


def _merged(call: Call, item: Item, element: Any) -> Any:
    if call.flag("allowDataDeletion"):
        return element
    base = item.element()
    documents.merge(base, element)
    return base


def _upload_session(call: Call, project: Item, label: str, element: Any) -> web.Response:
    store = call.store
    wanted = documents.child(element, "subject_ID")
    ident = (wanted.text or "") if wanted is not None else ""
    subject = store.find_subject(ident, project)
    if subject is None:
        raise Refusal(400, f"cvc-complex-type: there is no subject {ident!r}")
    found = store.find_experiment(label, project)
    if found is None:
        found = store.create_experiment(subject, label, doc=element, author=call.user.login)
    else:
        if found.xsi != documents.xsi_of(element):
            raise Refusal(409, f"{label} exists with the type {found.xsi}")
        replace = call.flag("allowDataDeletion")
        found = store.update(found, element=_merged(call, found, element), replace=replace)
        store.store_children(found, element, author=call.user.login, replace=replace)
    return text(f"/archive/experiments/{found.code}")


async def _refresh(call: Call, rest: list[str]) -> web.Response:
    options = {name for part in rest for name in part.split(",")}
    spelled = {"append", "checksum", "delete", "populateStats"}
    wanted = {name for name in spelled if name.lower() in {o.lower() for o in options}}
    for address in await call.json(list[str]):
        refresh(call, str(address), wanted, need=EDIT)
    return empty()


def _tracking(call: Call, key: str) -> web.Response:
    told = call.sandbox.messages.get(key)
    if told is None or told.login != call.user.login:
        raise Refusal(404, "")
    status, message = told.said[-1]
    done = {"COMPLETED": True, "FAILED": False}.get(status)
    said = [{"status": status, "message": message} for status, message in told.said]
    return json(
        {
            "key": key, "payload": msgspec.json.encode({"entryList": said}).decode(),
            "succeeded": done, "finalMessage": None if done is None else message,
        }
    )  # fmt: skip
