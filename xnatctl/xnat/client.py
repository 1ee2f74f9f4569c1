"""The REST vocabulary: one method is one request (or says otherwise), no policy.

An empty or unexpected list counts only while the login is really ours, since a site that needs none
shows a guest's empty lists to an expired cookie; `_rows` checks that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from xnatctl.errors import BadReply, Conflict, NotFound, PermissionDenied, ServerFault
from xnatctl.model import File, Project, Ref, Resource, Scan, Session, SessionDetail, Subject
from xnatctl.transport import Reply, Transport

from . import paths
from .parse import (
    Row,
    cell,
    parse_files,
    parse_project,
    parse_resource,
    parse_rows,
    parse_scan,
    parse_session,
    parse_session_xml,
    parse_subject,
)

_JSON = {"format": "json"}
_EXPERIMENT_COLUMNS = (
    "ID,label,project,date,xsiType,modality,subject_ID,subject_label,session_ID,insert_date,"
    "last_modified"
)


class Xnat:
    """One server, browsed and changed."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.name = transport.name
        self.url = transport.url

    # --- the site ------------------------------------------------------------------------------

    async def whoami(self) -> str:
        return await self.transport.whoami()

    async def version(self) -> str:
        """The server's version, such as `1.8.10`; empty where it hides it."""
        try:
            reply = await self.transport.request("GET", paths.BUILD_INFO, expect="json")
        except NotFound:
            return ""
        info = reply.json()
        return str(info.get("version") or "") if isinstance(info, dict) else ""

    async def rows(self, path: str, params: Mapping[str, str] | None = None) -> list[Row]:
        """Any table, its cells as strings with the server's own keys."""
        rows = await self._rows_once(path, params)
        if not rows and not await self.transport.confirm_login():
            rows = await self._rows_once(path, params)
        return rows

    async def _rows_once(self, path: str, params: Mapping[str, str] | None) -> list[Row]:
        reply = await self.transport.request(
            "GET", path, params={**_JSON, **(params or {})}, expect="json"
        )
        return parse_rows(reply.body, path)

    async def list_elements(self) -> set[str]:
        """The data types that the site knows, such as `xnat:mrSessionData`."""
        return {cell(row, "ELEMENT_NAME") for row in await self.rows(paths.ELEMENTS)}

    async def list_plugins(self) -> dict[str, str]:
        """Plugin IDs with their versions; empty where they may not be read."""
        try:
            reply = await self.transport.request("GET", paths.PLUGINS, expect="json")
        except (NotFound, PermissionDenied):
            return {}
        found = reply.json()
        if not isinstance(found, dict):
            return {}
        return {
            str(name): str(info.get("version", "") if isinstance(info, dict) else "")
            for name, info in found.items()
        }

    async def site_anonymises(self) -> bool:
        """Whether a site-wide script changes what is imported; False where it may not be read."""
        try:
            reply = await self.transport.request("GET", paths.SITE_ANONYMISATION)
        except (NotFound, PermissionDenied, ServerFault):
            return False
        return reply.text.strip().lower() == "true"

    async def clock(self) -> datetime | None:
        """The server's time as its answers are stamped."""
        reply = await self.transport.request("GET", paths.BUILD_INFO, allow=(403, 404))
        try:
            return parsedate_to_datetime(reply.headers.get("Date", ""))
        except ValueError:
            return None

    # --- browse --------------------------------------------------------------------------------

    async def list_projects(self, *, editable: bool = False) -> list[Project]:
        params = {"restrict": "edit"} if editable else None
        return [parse_project(row) for row in await self.rows(paths.PROJECTS, params)]

    async def find_project(self, project: str) -> str | None:
        """The project's own ID if it is readable; an alias is answered with the ID."""
        try:
            item = await self.item(paths.project(project))
        except NotFound:
            return None
        return str(item.get("data_fields", {}).get("ID", project))

    async def get_project(self, project: str) -> dict[str, Any]:
        """The item of the project as JSON."""
        return await self.item(paths.project(project))

    async def list_subjects(self, project: str) -> list[Subject]:
        rows = await self.rows(paths.subjects(project))
        return [parse_subject(row, project) for row in rows]

    async def get_subject(self, project: str, subject: str) -> dict[str, Any]:
        return await self.item(paths.subject(project, subject))

    async def list_experiments(self, project: str, subject: str | None = None) -> list[Session]:
        """All experiments, assessors included, in one unpaged request: pages have no stable
        order.
        """
        rows = await self.rows(
            paths.experiments(project, subject), {"columns": _EXPERIMENT_COLUMNS}
        )
        return [parse_session(row, project) for row in rows]

    async def resolve_session(self, session: str, project: str | None = None) -> Session:
        """A session by accession ID, or by label within a project. NotFound says what to add."""
        path = paths.experiment(session)
        if project:
            path = f"{paths.experiments(project)}/{paths.segment(session)}"
        try:
            item = await self.item(path)
        except NotFound as error:
            place = f"in project {project}" if project else f"at {self.name}"
            hint = "" if project else "a label needs its project: add -P PROJECT"
            raise NotFound(f"no session {session} {place}", why=error.why, hint=hint) from error
        data = item.get("data_fields", {})
        found = {key: str(value) for key, value in data.items()}
        found["xsiType"] = str(item.get("meta", {}).get("xsi:type", ""))
        return parse_session(found, project or found.get("project", ""))

    async def get_session(self, session_id: str) -> SessionDetail:
        """The experiment with scans, assessors and their resources, out of its XML."""
        path = paths.experiment(session_id)
        return parse_session_xml(await self.xml(path), path)

    async def list_scans(self, session_id: str) -> list[Scan]:
        path = paths.scans(session_id)
        columns = "ID,type,quality,xsiType,note,series_description,UID,frames"
        return [parse_scan(row) for row in await self.rows(path, {"columns": columns})]

    async def list_resources(self, ref: Ref, *, deep: bool = False) -> list[Resource]:
        """The resources of one thing; `deep` adds those of a session's scans and assessors."""
        rows = await self.rows(paths.resources(ref), {"all": "true"} if deep else None)
        return [parse_resource(row, ref) for row in rows]

    async def list_files(self, ref: Ref, *, deep: bool = False) -> list[File]:
        """Files with size and MD5 as catalogued; `deep` covers everything below a session."""
        params = {**_JSON, "all": "true"} if deep else _JSON
        path = paths.files(ref)
        files = parse_files(await self._files(path, params), path)
        if not files and not await self.transport.confirm_login():
            files = parse_files(await self._files(path, params), path)
        return files

    async def _files(self, path: str, params: Mapping[str, str]) -> bytes:
        return (await self.transport.request("GET", path, params=params, expect="json")).body

    async def item(self, path: str) -> dict[str, Any]:
        """One item as XNAT's JSON: `meta`, `data_fields`, `children`."""
        reply = await self.transport.request("GET", path, params=_JSON, expect="json")
        answer = reply.json()
        items = answer.get("items") if isinstance(answer, dict) else None
        if not items or not isinstance(items[0], dict):
            raise BadReply(f"{path} did not answer with an item")
        found: dict[str, Any] = items[0]
        return found

    async def xml(self, path: str) -> bytes:
        reply = await self.transport.request("GET", path, params={"format": "xml"}, expect="xml")
        return reply.body

    async def item_json(self, path: str) -> bytes:
        """The item as the server's JSON, unparsed."""
        return (await self.transport.request("GET", path, params=_JSON, expect="json")).body

    async def get_settings(self, project: str) -> dict[str, str]:
        """The settings of a project that it has, by name; those that may not be read are
        missing.
        """
        found = {}
        for name in paths.SETTINGS:
            try:
                reply = await self.transport.request(
                    "GET", paths.setting(project, name), params={"contents": "true"}, allow=(204,)
                )
            except (NotFound, PermissionDenied, ServerFault):
                continue
            text = reply.text.strip()
            # A route that a server does not have falls through to the project's document.
            if reply.status != 204 and text and not text.startswith(("<", '{"items"')):
                found[name] = text
        return found

    async def get_prearchive_code(self, project: str) -> str:
        """What becomes of arriving sessions: 0 manual, 4 archived, 5 archived with overwriting."""
        path = paths.setting(project, "prearchive_code")
        return (await self.transport.request("GET", path)).text.strip()

    async def list_members(self, project: str) -> list[tuple[str, str]]:
        """Logins with their roles (`Owners`, `Members`, `Collaborators` or a custom group's)."""
        rows = await self.rows(f"{paths.project(project)}/users")
        return sorted((cell(row, "login"), cell(row, "displayname")) for row in rows)

    async def list_groups(self, project: str) -> list[str]:
        """The names of a project's groups, its own as well as the three of every project."""
        rows = await self.rows(f"{paths.project(project)}/groups")
        return sorted(cell(row, "displayname") for row in rows)

    async def list_logins(self) -> set[str]:
        """All login names of the site."""
        reply = await self.transport.request("GET", paths.USERS, expect="json")
        return {str(name) for name in reply.json()}

    async def add_member(self, project: str, login: str, role: str) -> None:
        """Give a login of this site a role. One it does not know would be mailed an invitation."""
        await self.transport.request("PUT", paths.member(project, role, login))

    async def accessibility(self, project: str) -> str:
        """`public`, `protected` or `private`."""
        path = paths.setting(project, "accessibility")
        return (await self.transport.request("GET", path, expect="text")).text.strip()

    async def put_setting(self, project: str, name: str, value: str) -> None:
        """Change one setting. Short values stand in the path, a script is the body."""
        path = paths.setting(project, name)
        if name in paths.SETTINGS_IN_PATH:
            await self.transport.request("PUT", f"{path}/{paths.segment(value)}")
        else:
            body = value.encode()
            params = {"inbody": "true"} if path.startswith("/data") else None
            await self.transport.request(
                "PUT", path, params=params, body=body, content_type="text/plain"
            )

    async def share(self, owner: str, project: str, label: str) -> bool:
        """Share what stands at the path `owner` into a project; False when the label is taken
        there.

        Sharing twice is a conflict for XNAT, so that is looked up.
        """
        try:
            await self.transport.request(
                "PUT", paths.shares(owner, project), params={"label": label} if label else None
            )
        except Conflict:
            rows = await self.rows(paths.shares(owner))
            return any(cell(row, "ID") == project for row in rows)
        return True

    # --- read bodies ---------------------------------------------------------------------------

    def open_file(self, ref: Ref, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """One file. Never with `format`: XNAT would wrap it in an archive."""
        return self.transport.stream(paths.file(ref, path), expect="any")

    def open_zip(self, ref: Ref) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """All files of a resource as a zip that the server writes while it is read; no length."""
        return self.transport.stream(paths.files(ref), params={"format": "zip"}, slow=True)

    # --- create and change ---------------------------------------------------------------------

    async def create_project(self, project: str, **fields: str) -> None:
        params = {key: value for key, value in fields.items() if value}
        params.setdefault("name", project)
        params.setdefault("secondary_ID", project)
        await self.transport.request("PUT", paths.project(project), params=params)

    async def put_xml(
        self, path: str, xml: bytes, *, params: Mapping[str, str] | None = None
    ) -> str:
        """Create or update an item from its XML and return the accession ID, if the answer has one.

        Sent with its length: a chunked XML body is taken for none (XNAT 1.8).
        """
        reply = await self.transport.request(
            "PUT", path, params=params, body=xml, content_type="text/xml"
        )
        return _last_segment(reply)

    async def put_item(self, path: str, params: Mapping[str, str]) -> str:
        """Create or update an item from fields; values are XML-escaped by XNAT, so no free text
        here.
        """
        return _last_segment(await self.transport.request("PUT", path, params=params))

    async def ensure_resource(self, ref: Ref, **metadata: str) -> bool:
        """Create a resource folder; False when it was there already (409)."""
        params = {key: value for key, value in metadata.items() if value}
        try:
            await self.transport.request("PUT", paths.resource(ref), params=params)
        except Conflict:
            return False
        return True

    async def delete_resource(self, ref: Ref) -> None:
        """Delete a resource with its files. XNAT answers 200 for one that is not there, too."""
        await self.transport.request(
            "DELETE", paths.resource(ref), params={"removeFiles": "true"}, slow=True
        )

    async def create_numbered_resource(self, ref: Ref, **metadata: str) -> str:
        """Create a resource whose label is a number, and return its ID.

        In a URL XNAT takes such a label for an ID, so the label goes into the query, and the
        resource is addressed by its ID ever after.
        """
        for one in await self.list_resources(ref):
            if one.label == ref.resource and one.ref.level == ref.level:
                return one.id
        params = {key: value for key, value in metadata.items() if value}
        params["label"] = ref.resource or ""
        await self.transport.request("POST", paths.resources(ref), params=params, replay=False)
        for one in await self.list_resources(ref):
            if one.label == ref.resource:
                return one.id
        raise BadReply(f"{self.name} took the resource {ref} and does not list it")

    async def put_file(
        self, ref: Ref, path: str, chunks: AsyncIterator[bytes], *, size: int, overwrite: bool
    ) -> list[str]:
        """Store one file and return the paths that the server says it had already (and kept).

        An empty or chunked body is refused by XNAT, so `size` is at least 1. A 200 is no proof:
        without edit right XNAT answers the same and stores nothing.
        """
        params = {"inbody": "true", "update-stats": "false"}
        if overwrite:
            params["overwrite"] = "true"
        reply = await self.transport.send(
            "PUT", paths.file(ref, path), chunks, params=params, length=size
        )
        return _duplicates(reply)

    async def put_archive(
        self, ref: Ref, name: str, chunks: AsyncIterator[bytes], *, length: int | None = None
    ) -> list[str]:
        """Have a zip unpacked at the root of a resource; member names are paths inside it."""
        params = {"inbody": "true", "extract": "true", "overwrite": "true", "update-stats": "false"}
        reply = await self.transport.send(
            "PUT",
            paths.file(ref, name),
            chunks,
            params=params,
            length=length,
            content_type="application/zip",
            slow=True,
        )
        return _duplicates(reply)

    async def refresh_catalog(self, *uris: str, options: str = "populateStats") -> None:
        """Recount or repair catalogs. The options are always named: without them XNAT does all it
        can.
        """
        for uri in uris:
            await self.transport.request(
                "POST",
                paths.REFRESH,
                params={"resource": uri, "options": options},
                replay=True,
                slow=True,
            )


def _last_segment(reply: Reply) -> str:
    return reply.text.strip().rpartition("/")[2]


def _duplicates(reply: Reply) -> list[str]:
    """The names in `{"duplicates": [...]}`, which XNAT sends with status 200 and type text/html."""
    if not reply.body.lstrip().startswith(b"{"):
        return []
    answer = reply.json()
    names = answer.get("duplicates", []) if isinstance(answer, dict) else []
    return [str(name) for name in names]
