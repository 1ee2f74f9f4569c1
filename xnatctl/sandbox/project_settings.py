"""What hangs on a project beside its data: its settings, members, and the list of projects."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import quoteattr

from aiohttp import web

from . import automation, documents, finding, listing, processing, site
from .accounts import DELETE, EDIT, GROUP_NAMES, READ, ROLES
from .database import PREARCHIVE_CODE
from .routing import Place
from .store import Item
from .web import Call, Refusal, empty, table, text

_TEXTS = {
    "prearchive_code": PREARCHIVE_CODE,
    "quarantine_code": "0",
    "current_arc": "arc001",
    "scan_type_mapping": "true",
    "accessibility": "private",
}

# Parameters that ask for the longer list of projects: some by the caller's role, some for all that
# he may see. Nobody has favourites here.
_BY_ROLE = {
    "owner": ("owner",), "member": ("owner", "member"), "collaborator": ("collaborator",),
    "users": tuple(ROLES),
}  # fmt: skip
_BY_ALL = ("accessible", "admin", "recent", "activeSince", "prearc_code", "data")


def _project(call: Call, place: Place, need: int) -> Item:
    project = call.store.find_project(place.ids["project"])
    if project is None or call.accounts.rights(call.user, project) < READ:
        raise Refusal(404, f"Unable to identify project: {place.ids['project']}")
    if call.accounts.rights(call.user, project) < need:
        raise Refusal(403, "Specified user account has insufficient privileges for this project")
    return project


async def handle(call: Call, place: Place) -> web.StreamResponse | None:
    """Answer a settings suffix of /projects/P, or None when the suffix is none of them."""
    name = place.rest[0]
    if name not in _TEXTS and name not in (
        "users",
        "groups",
        "pars",
        "config",
        "pipelines",
        "scan_types",
        "investigators",
        "automation",
        "protocols",
    ):
        return None
    call.route += f"/{name}"
    if name == "users":
        return _users(call, place)
    if name == "groups":
        return await _groups(call, _project(call, place, READ), place.rest[1:])
    if name == "config":
        return await site.config(call, _project(call, place, READ), place.rest[1:])
    if name == "pipelines":
        return processing.pipelines(call, _project(call, place, READ), place.rest[1:])
    if name == "automation":
        return await automation.handle(call, _project(call, place, READ), place.rest[1:])
    if name == "protocols":
        return await _protocol(call, _project(call, place, READ), place.rest[1:])
    if name == "pars":
        return table(call, ("par_id", "proj_id", "level", "create_date"), [])
    if name == "scan_types":
        project = _project(call, place, READ)
        types = {
            row.get("type") or ""
            for row in listing.own_rows(call, "i.kind='scan' AND i.project=?", project.id)
        }
        return table(call, ("type",), [{"type": kind} for kind in sorted(types)])
    if name == "investigators":
        return table(call, ("xnat_investigatordata_id", "firstname", "lastname"), [])
    return await _text_setting(call, place, name)


async def _protocol(call: Call, project: Item, rest: list[str]) -> web.Response:
    """The definitions of custom variables for a type: a document that is empty until it is PUT."""
    if len(rest) != 1:
        raise Refusal(404, "A data type must be named")
    xsi = rest[0]
    if call.method == "PUT":
        finding.require_project(call, project, DELETE)
        element = await call.document()
        if element is None:
            raise Refusal(417, "Need PUT Contents")
        call.store.set_record(f"protocol:{project.code}", xsi, documents.write(element))
        return empty()
    kept = call.store.record(f"protocol:{project.code}", xsi)
    if kept is None:
        name = f"{project.code}_{xsi.replace(':', '_')}"
        kept = (
            f'<xnat:DatatypeProtocol xmlns:xnat="http://nrg.wustl.edu/xnat" ID={quoteattr(name)} '
            f"name={quoteattr(xsi)} data-type={quoteattr(xsi)}/>"
        )
    return text(f'<?xml version="1.0" encoding="UTF-8"?>\n{kept}', media="text/xml")


async def _text_setting(call: Call, place: Place, name: str) -> web.StreamResponse:
    if call.method == "GET":
        project = _project(call, place, READ)
        return text(call.store.setting(project.code, name, _TEXTS[name]))
    if call.method != "PUT":
        raise Refusal(405, "The method is not allowed")
    project = _project(call, place, DELETE if name == "accessibility" else EDIT)
    value = place.rest[1] if len(place.rest) > 1 else (await call.body()).decode().strip()
    if name in ("prearchive_code", "quarantine_code"):
        value = {"true": "1", "false": "0"}.get(value.lower(), value)
        if not value.lstrip("-").isdigit():
            raise Refusal(400, f"{value} is not a number")
        if (
            name == "prearchive_code"
            and value in ("4", "5")
            and not call.settings.site_auto_archive
        ):
            raise Refusal(403, "The site does not allow projects to archive automatically")
    if name == "accessibility" and value not in ("public", "protected", "private"):
        raise Refusal(400, f"{value} is not an accessibility")
    call.store.set_setting(project.code, name, value)
    return empty()


def _group_id(project: Item, role: str) -> str:
    return f"{project.code}_{role}" if role in ROLES else role


async def _groups(call: Call, project: Item, rest: list[str]) -> web.Response:
    """The groups of a project; owners make and delete groups of their own.

    Rights come as parameters such as `xnat:mrSessionData_E=1` (D delete, E edit or C create, R
    read): the widest of them holds for the whole project.
    """
    own = f"groups:{project.code}"
    groups = call.accounts.groups(project)
    if call.method in ("PUT", "DELETE"):
        finding.require_project(call, project, DELETE)
        await call.form()
        if not rest or rest[0] in {_group_id(project, role) for role in ROLES}:
            raise Refusal(403, "This group cannot be changed")
        if call.method == "DELETE":
            if rest[0] not in groups:
                raise Refusal(404, f"There is no group {rest[0]}")
            call.store.set_record(own, rest[0], None)
            call.store.db.execute(
                "DELETE FROM members WHERE project=? AND role=?", (project.id, rest[0])
            )
            return empty()
        marks = {key[-2:] for key, value in call.params if value not in ("", "0", "false")}
        rights = DELETE if "_D" in marks else EDIT if marks & {"_E", "_C"} else READ
        shown = call.param("displayname", rest[0])
        call.store.set_record(own, rest[0], {"displayname": shown, "rights": rights})
        return empty()
    rows = [
        {"id": _group_id(project, role), "displayname": shown, "tag": project.code}
        for role, (shown, _) in groups.items()
        if not rest or rest[0] == _group_id(project, role)
    ]
    if rest and not rows:
        raise Refusal(404, f"There is no group {rest[0]}")
    return table(call, ("id", "displayname", "tag"), rows)


def _users(call: Call, place: Place) -> web.StreamResponse:
    """Members: GET lists, PUT /users/GROUP/LOGIN adds, DELETE takes away.

    A login that the site does not know is taken for an e-mail address and invited: the mail shows
    up in the records as `mails`, the table as before.
    """
    project = _project(call, place, DELETE)
    if call.method in ("PUT", "DELETE") and len(place.rest) >= 3:
        role = _role(call, project, place.rest[1])
        for login in place.rest[2].split(" , "):
            if login == "guest":
                raise Refusal(412, "guest cannot be added to a project")
            if call.method == "DELETE":
                call.accounts.set_role(project, login, "")
            elif call.accounts.user(login) is None:
                mails = call.store.record("mails", "all") or []
                call.store.set_record("mails", "all", [*mails, login])
            else:
                call.accounts.set_role(project, login, role)
    rows, groups = [], call.accounts.groups(project)
    for login, role in call.store.rows(
        "SELECT login, role FROM members WHERE project=? ORDER BY rowid", project.id
    ):
        user = call.accounts.user(login)
        if user is not None:
            rows.append(
                {
                    "GROUP_ID": _group_id(project, role), "displayname": groups[role][0],
                    "login": login, "firstname": user.firstname, "lastname": user.lastname,
                    "email": user.email,
                }
            )  # fmt: skip
    columns = ("GROUP_ID", "displayname", "login", "firstname", "lastname", "email")
    return table(call, columns, rows)


def _role(call: Call, project: Item, group: str) -> str:
    for role, (shown, _) in call.accounts.groups(project).items():
        if group.lower() in (role, shown.lower(), f"{project.code}_{role}".lower()):
            return role
    raise Refusal(404, f"There is no group {group}")


def list_projects(call: Call) -> web.Response:
    """`/data/projects`: the plain list, or the lower-case one that `accessible=true` asks for."""
    visible = call.accounts.visible(call.user)
    need = {"edit": EDIT, "delete": DELETE}.get(call.param("restrict"))
    if need is not None:
        visible = [p for p in visible if call.accounts.rights(call.user, p) >= need]
    if any(call.has(name) for name in (*_BY_ROLE, *_BY_ALL, "favorite")):
        return _accessible(call, visible)
    marks = ",".join(str(p.id) for p in visible) or "0"
    return listing.answer(call, "project", listing.own_rows(call, f"i.id IN ({marks})"))


def _accessible(call: Call, visible: list[Item]) -> web.Response:
    number = call.user.number
    columns = (
        "id", "name", "description", "secondary_id", "pi", "project_invs", "project_access",
        "project_access_img", "insert_date", "insert_user", f"user_role_{number}",
        f"last_accessed_{number}", "quarantine_status", "prearchive_code", "URI",
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for project in visible:
        role = call.accounts.role(project, call.user.login)
        if not any(call.has(name) for name in _BY_ALL) and not any(
            call.flag(name) and role in roles for name, roles in _BY_ROLE.items()
        ):
            continue
        fields = call.store.fields(project)
        access = call.accounts.access(project)
        pi = ", ".join(
            name for name in (fields.get("PI/lastname"), fields.get("PI/firstname")) if name
        )
        rows.append(
            {
                "id": project.code, "name": fields.get("name", project.code),
                "description": fields.get("description"),
                "secondary_id": fields.get("secondary_ID"), "pi": pi, "project_access": access,
                "project_access_img": f"/@WEBAPP/images/{access}.gif",
                "insert_date": project.inserted, "insert_user": project.author,
                f"user_role_{number}": GROUP_NAMES.get(role, ""), "URI": _uri(project),
                "prearchive_code": call.store.prearchive_code(project.code),
            }
        )  # fmt: skip
    return table(call, columns, rows)


def _uri(project: Item) -> str:
    """The URI of a project as tables give it."""
    return f"/data/projects/{project.code}"
