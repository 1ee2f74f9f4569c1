"""The rest of the classic API and /xapi: login, identity, users, site, services, workflows."""

from __future__ import annotations

import time

from aiohttp import web

from . import prearchive_api
from .accounts import EDIT
from .web import Call, Refusal, empty, json, table, text


async def data(call: Call) -> web.StreamResponse:
    """Answer a /data path outside of the archive."""
    path = [part for part in call.path[1:] if part]
    match path:
        case ["JSESSION"]:
            call.route = "/data/JSESSION"
            return _jsession(call)
        case ["auth"]:
            call.route = "/data/auth"
            return text(f"User '{call.user.login}' is logged in")
        case ["services", "auth"]:
            call.route = "/data/services/auth"
            return await _login_service(call)
        case ["services", "tokens", *rest]:
            call.route = "/data/services/tokens/" + (rest[0] if rest else "")
            return _tokens(call, rest)
        case ["services", "refresh", "catalog"]:
            call.route = "/data/services/refresh/catalog"
            return await _refresh(call)
        case ["services", "archive"]:
            call.route = "/data/services/archive"
            return await prearchive_api.archive_service(call)
        case ["services", "validate-archive"]:
            call.route = "/data/services/validate-archive"
            return await prearchive_api.validate_service(call)
        case ["services", "prearchive", action]:
            call.route = f"/data/services/prearchive/{action}"
            return await prearchive_api.queue_service(call, action)
        case ["users"]:
            call.route = "/data/users"
            rows = [
                {
                    "xdat_user_id": user.number, "login": user.login, "email": user.email,
                    "firstname": user.firstname, "lastname": user.lastname,
                }
                for user in call.accounts.users()
            ]  # fmt: skip
            columns = ("xdat_user_id", "login", "firstname", "lastname", "email")
            return table(call, columns, rows)
    raise Refusal(404, "The server has not found anything matching the request URI")


def _jsession(call: Call) -> web.Response:
    from .server import csrf_token

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


async def _refresh(call: Call) -> web.Response:
    from .refresh import refresh

    if call.method not in ("POST", "PUT"):
        raise Refusal(405, "The method is not allowed")
    await call.form()
    if not call.all("resource"):
        raise Refusal(400, "No resource was given")
    options = {name for value in call.all("options") for name in value.split(",") if name}
    for address in call.all("resource"):
        refresh(call, address, options, need=EDIT)
    return empty()


async def xapi(call: Call) -> web.StreamResponse:
    """Answer a path below /xapi."""
    path = [part for part in call.path[1:] if part]
    match path:
        case ["users", "username"]:
            call.route = "/xapi/users/username"
            if call.user.guest:
                raise Refusal(401, "", {"WWW-Authenticate": 'Basic realm="XNAT Protected Area"'})
            return text(call.user.login)
        case ["direct-archive", project, tag, name]:
            call.route = "/xapi/direct-archive/{project}/{tag}/{label}"
            return await prearchive_api.direct(call, project, tag, name)
        case ["siteConfig", "buildInfo"]:
            call.route = "/xapi/siteConfig/buildInfo"
            return json(
                {
                    "version": call.settings.version, "buildNumber": "Manual", "commit": "v0",
                    "buildDate": "Fri Mar 01 10:11:12 UTC 2024", "timestamp": "1709287872000",
                }
            )  # fmt: skip
        case ["siteConfig", "buildInfo", "version"]:
            call.route = "/xapi/siteConfig/buildInfo/version"
            return text(call.settings.version)
    raise Refusal(404, "")
