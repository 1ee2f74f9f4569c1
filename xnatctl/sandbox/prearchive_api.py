"""Requests about the prearchive: listings, one session and its actions.

The services that work on many sessions are in `prearchive_services.py`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aiohttp import web

from .accounts import EDIT
from .archiving import ArchiveRefused, Wish, archive
from .bodies import safe_path
from .prearchive import UNASSIGNED, Entry
from .receiving import Spool
from .sending import Body, send_archive, send_file
from .web import Call, Refusal, empty, json, pause, table, text

if TYPE_CHECKING:
    from .server import Sandbox

COLUMNS = (
    "project", "timestamp", "lastmod", "uploaded", "scan_date", "scan_time", "subject",
    "folderName", "name", "tag", "status", "url", "autoarchive", "prevent_anon",
    "prevent_auto_commit", "SOURCE", "VISIT", "PROTOCOL", "TIMEZONE",
)  # fmt: skip
_RESOURCES = ("category", "cat_id", "label", "file_count", "file_size")


# ---- who and which -------------------------------------------------------------------------


def may(call: Call, project: str) -> bool:
    """Whether the caller may work in a project's prearchive; Unassigned is for administrators."""
    if project == UNASSIGNED:
        return call.user.admin
    item = call.store.find_project(project)
    return item is not None and call.accounts.rights(call.user, item) >= EDIT


def entry_of(call: Call, project: str, stamp: str, folder: str) -> Entry:
    """An entry that the caller may use; 403 or 404."""
    if not may(call, project):
        raise Refusal(403, "Invalid permissions for the prearchive of this project")
    entry = call.sandbox.prearchive.find(project, stamp, folder)
    if entry is None:
        raise Refusal(404, f"Unable to find prearchive session {stamp}/{folder}")
    return entry


def source(call: Call, src: str) -> Entry:
    """The entry that a `src` address names; 400 for another address."""
    parts = [unquote(part) for part in src.split("/") if part]
    while parts and parts[0] in ("data", "REST"):
        parts.pop(0)
    if len(parts) != 5 or parts[:2] != ["prearchive", "projects"]:
        raise Refusal(400, f"Invalid prearchive source: {src}")
    return entry_of(call, *parts[2:])


def sources(call: Call) -> list[Entry]:
    """The entries that a service is asked to work on."""
    found = [source(call, src) for src in call.all("src")]
    if not found and call.param("timestamp") and call.param("folder"):
        project = call.param("project") or UNASSIGNED
        found = [entry_of(call, project, call.param("timestamp"), call.param("folder"))]
    if not found:
        raise Refusal(400, "No source was given")
    return found


# ---- building and archiving ----------------------------------------------------------------


async def build(sandbox: Sandbox, entry: Entry) -> Entry:
    """Build an entry: _BUILDING for as long as is set, then READY."""
    prearchive = sandbox.prearchive
    if sandbox.settings.build_s:
        entry = prearchive.set_status(entry, "_BUILDING")
        await pause(sandbox.settings.build_s)
        entry = prearchive.get(entry.id) or entry
    return prearchive.build(entry)


def import_wish(login: str, entry: Entry, *, overwrite: bool = False) -> Wish:
    """How an import (or the automatic archiving) archives: by the parameters stored with it.

    Any `overwrite`, even `none`, allows merging; `delete` and `overwrite_files` replace.
    """
    given = entry.options.get("overwrite")
    files = entry.option("overwrite_files") not in ("", "false", "0")
    delete = given in ("delete", "override")
    return Wish(
        login=login,
        merge=given is not None or overwrite,
        replace=delete or files or overwrite,
        quarantine=entry.option("quarantine") == "true",
        trigger=entry.option("triggerPipelines") not in ("false", "0"),
        fields={key: value for key, value in entry.options.items() if ":" in key},
    )


async def archive_by_import(sandbox: Sandbox, entry: Entry, wish: Wish) -> str:
    """Archive at the end of an import; `overwrite=delete` prunes where the site does so."""
    if sandbox.settings.overwrite_delete_prunes and entry.options.get("overwrite") == "delete":
        wish = replace(wish, merge=True, replace=True, prune=True)
    return await archive(sandbox, entry, wish)


async def sweep(sandbox: Sandbox) -> None:
    """What the server does by itself: build what has been idle, archive it where that is the rule.

    Entries of an uploader, and those that must not be committed by themselves, are left alone.
    """
    prearchive = sandbox.prearchive
    moment = time.time()
    for entry in prearchive.entries():
        if entry.status not in ("RECEIVING", "RECEIVING_INTERRUPT"):
            continue
        if moment - entry.touched < sandbox.settings.idle_build_s:
            continue
        if entry.option("SOURCE") == "uploader" or entry.option("prevent_auto_commit") == "true":
            continue
        built = await build(sandbox, entry)
        rule = prearchive.auto(built)
        if built.status != "READY" or (rule == "Manual" and not built.option("direct")):
            continue
        wish = import_wish("admin", built, overwrite=rule == "AutoArchiveOverwrite")
        try:
            await archive_by_import(sandbox, built, wish)
        except ArchiveRefused:
            continue  # the entry is in CONFLICT and says why


# ---- routes --------------------------------------------------------------------------------


async def handle(call: Call) -> web.StreamResponse:
    """Answer a path below /data/prearchive."""
    parts = [part for part in call.path[2:] if part]
    call.route = "/data/prearchive"
    match parts:
        case [] | ["experiments"]:
            return _list(call, None)
        case ["projects"]:
            return _list(call, None)
        case ["projects", names]:
            call.route += "/projects/{project}"
            return _list(call, names.split(","))
        case ["projects", project, stamp, folder, *rest]:
            call.route += "/projects/{project}/{timestamp}/{session}" + _shape(rest)
            return await _session(call, project, stamp, folder, rest)
    raise Refusal(404, "The server has not found anything matching the request URI")


def _shape(rest: list[str]) -> str:
    names = [part if index % 2 == 0 else "{id}" for index, part in enumerate(rest[:6])]
    return "".join(f"/{name}" for name in names)


def _list(call: Call, projects: list[str] | None) -> web.Response:
    if call.method != "GET":
        raise Refusal(405, "The method is not allowed for the prearchive")
    prearchive = call.sandbox.prearchive
    if call.param("tag"):
        if not call.user.admin:
            raise Refusal(403, "Only administrators may ask by tag")
        found = prearchive.entries(tag=call.param("tag"))
    elif projects is None:
        found = [entry for entry in prearchive.entries() if may(call, entry.project)]
    else:
        for project in projects:
            if not may(call, project):
                raise Refusal(403, f"Invalid permissions for the prearchive of {project}")
        found = [entry for name in projects for entry in prearchive.entries(project=name)]
    rows = [prearchive.row(entry) for entry in found if not entry.option("direct")
            or entry.status in ("CONFLICT", "ERROR")]  # fmt: skip
    return table(call, COLUMNS, rows)


async def _session(
    call: Call, project: str, stamp: str, folder: str, rest: list[str]
) -> web.StreamResponse:
    entry = entry_of(call, project, stamp, folder)
    if rest:
        if call.method == "DELETE":
            raise Refusal(400, "Only whole sessions can be deleted")
        if call.method in ("PUT", "POST") and rest[0] == "resources":
            return await _upload(call, entry, rest[1:])
        if call.method != "GET":
            raise Refusal(400, "Invalid prearchive path")
        return await _below(call, entry, rest)
    if call.method == "DELETE":
        if entry.busy:
            raise Refusal(409, "The session is locked")
        call.sandbox.prearchive.delete(entry)
        return empty()
    if call.method == "POST":
        await call.form()
        return await _action(call, entry)
    wanted = call.param("format").lower()
    if wanted == "zip":
        bodies = [
            _body(call, entry, one.scan, one.name, one.size, one.crc, f"{entry.folder}/SCANS/"
                  f"{one.scan}/DICOM/{one.name}")
            for one in call.sandbox.prearchive.objects(entry)
            if one.body == "disk"
        ]  # fmt: skip
        return await send_archive(call, bodies, entry.folder, "zip")
    if wanted == "json":
        return table(call, COLUMNS, [call.sandbox.prearchive.row(entry)])
    if not entry.doc:
        raise Refusal(404, "The session has not been built")
    return text('<?xml version="1.0" encoding="UTF-8"?>\n' + entry.doc, media="text/xml")


def _body(call: Call, entry: Entry, scan: str, name: str, size: int, crc: int, shown: str) -> Body:
    path = call.sandbox.prearchive.object_path(entry, scan, name)
    mtime = path.stat().st_mtime if path.exists() else 0.0
    return Body(shown, size, crc, mtime, path)


async def _action(call: Call, entry: Entry) -> web.StreamResponse:
    """POST ?action=build|commit|move|reset-status|set-status."""
    prearchive = call.sandbox.prearchive
    action = call.param("action")
    if action in ("build", "commit", "move") and entry.busy:
        raise Refusal(409, "The session is locked")
    if action == "build":
        built = await build(call.sandbox, entry)
        return text(f"/data{built.url}\r\n", media="text/uri-list")
    if action == "commit":
        return await _commit(call, entry)
    if action == "move":
        project = call.param("newProject")
        if call.store.find_project(project) is None:
            raise Refusal(400, f"Unable to identify project: {project}")
        if not may(call, project):
            raise Refusal(403, f"Invalid permissions for project {project}")
        moved = prearchive.move(entry, project)
        return text(f"/data{moved.url}\r\n", 301, "text/uri-list")
    if action == "reset-status":
        prearchive.set_status(entry, "READY" if entry.doc else "RECEIVING")
        return empty()
    if action == "set-status":
        prearchive.set_status(entry, call.param("status") or "READY")
        return empty()
    raise Refusal(400, f"Unsupported action: {action}")


async def _commit(call: Call, entry: Entry) -> web.StreamResponse:
    """Build; archive where AA or the project's code says so (301, the address in the body)."""
    built = await build(call.sandbox, entry)
    archive_now = call.flag("AA") or call.flag("auto-archive")
    rule = call.sandbox.prearchive.auto(built)
    if (archive_now or rule != "Manual") and entry.project != UNASSIGNED:
        wish = import_wish(call.user.login, built, overwrite=rule == "AutoArchiveOverwrite")
        try:
            uri = await archive_by_import(call.sandbox, built, wish)
        except ArchiveRefused as refused:
            raise Refusal(refused.status, refused.message) from refused
        return text(f"{uri}\r\n", 301, "text/uri-list")
    return text(f"/data{built.url}\r\n", media="text/uri-list")


async def _upload(call: Call, entry: Entry, rest: list[str]) -> web.Response:
    """PUT `resources/R[/files/F]`: files that go into the archive with the session."""
    if len(rest) != 1 and (rest[1:2] != ["files"] or len(rest) < 3):
        raise Refusal(400, "Invalid prearchive path")
    folder = call.sandbox.prearchive.resource_path(entry, rest[0])
    if len(rest) == 1:
        folder.mkdir(parents=True, exist_ok=True)
        return empty()
    spool = Spool(call.store)
    await spool.fill(call.chunks())
    spool.keep_at(folder / safe_path("/".join(rest[2:])))
    return empty()


async def _below(call: Call, entry: Entry, rest: list[str]) -> web.StreamResponse:
    prearchive = call.sandbox.prearchive
    base = f"/data{entry.url}"
    match rest:
        case ["logs", *_]:
            rows = [{"id": number, "entry": line} for number, line in enumerate(entry.log, 1)]
            return table(call, ("id", "entry"), rows[-1:] if rest[1:] == ["last"] else rows)
        case ["resources"]:
            rows = [
                {"category": "resources", "cat_id": "", "label": label,
                 "file_count": len(files), "file_size": sum(f.stat().st_size for _, f in files)}
                for label, files in prearchive.resources(entry).items()
            ]  # fmt: skip
            return table(call, _RESOURCES, rows)
        case ["resources", label, "files", *parts]:
            files = dict(prearchive.resources(entry).get(label, []))
            if not parts:
                where = f"{base}/resources/{label}/files"
                rows = [
                    {"Name": name.rpartition("/")[2], "Size": file.stat().st_size,
                     "URI": f"{where}/{name}"}
                    for name, file in files.items()
                ]  # fmt: skip
                return table(call, ("Name", "Size", "URI"), rows)
            path = files.get("/".join(parts))
            if path is None:
                raise Refusal(404, "Unable to find file.")
            stat = path.stat()
            return await send_file(call, Body(path.name, stat.st_size, 0, stat.st_mtime, path))
        case ["scans"]:
            return _scans(call, entry)
        case ["scans", scan, *further]:
            objects = prearchive.objects(entry, scan)
            if not objects:
                raise Refusal(404, f"Unable to find scan {scan}")
            total = sum(one.size for one in objects)
            match further:
                case []:
                    return _scans(call, entry, scan)
                case ["resources"]:
                    row = {"category": "scans", "cat_id": scan, "label": "DICOM",
                           "file_count": len(objects), "file_size": total}  # fmt: skip
                    return table(call, _RESOURCES, [row])
                case ["resources", "DICOM", "files"]:
                    where = f"{base}/scans/{scan}/resources/DICOM/files"
                    rows = [
                        {"Name": one.name.rpartition("/")[2], "Size": one.size,
                         "URI": f"{where}/{one.name}"}
                        for one in objects
                    ]  # fmt: skip
                    return table(call, ("Name", "Size", "URI"), rows)
                case ["resources", "DICOM", "files", *parts]:
                    name = "/".join(parts)
                    found = next((one for one in objects if one.name == name), None)
                    if found is None or found.body != "disk":
                        raise Refusal(404, "Unable to find file.")
                    return await send_file(
                        call, _body(call, entry, scan, name, found.size, found.crc, name)
                    )
    raise Refusal(404, "The server has not found anything matching the request URI")


def _scans(call: Call, entry: Entry, only: str = "") -> web.Response:
    rows = []
    for code, (facts, _, _) in call.sandbox.prearchive.facts(entry).items():
        if only in ("", code):
            rows.append(
                {
                    "ID": code, "type": facts.description or facts.modality, "xsiType": facts.xsi,
                    "quality": "usable", "series_description": facts.description, "note": "",
                    "URI": f"/data{entry.url}/scans/{code}",
                }
            )  # fmt: skip
    columns = ("ID", "type", "quality", "xsiType", "note", "series_description", "URI")
    return table(call, columns, rows)


async def direct(call: Call, project: str, tag: str, name: str) -> web.StreamResponse:
    """/xapi/direct-archive/P/UID/LABEL: GET tells the state, POST archives now."""
    found = [
        entry
        for entry in call.sandbox.prearchive.entries(tag=tag)
        if entry.project == project and entry.name == name and entry.option("direct")
    ]
    if not found:
        raise Refusal(404, "There is no such direct archive session")
    if not may(call, project):
        raise Refusal(403, "Invalid permissions for this project")
    entry = found[-1]
    if call.method == "GET":
        return json(
            {"project": project, "subject": entry.subject, "session": name, "tag": tag,
             "status": entry.status}
        )  # fmt: skip
    built = await build(call.sandbox, entry)
    try:
        uri = await archive_by_import(call.sandbox, built, import_wish(call.user.login, built))
    except ArchiveRefused as refused:
        raise Refusal(409, refused.message) from refused
    return text(uri)
