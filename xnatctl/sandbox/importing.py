"""The import service: DICOM objects out of a request body into the prearchive.

XARs are taken by `xar.py`, what the inbox holds by `inbox.py`.

1. The body is one zip or tar (DICOM-zip, SI) or one object (gradual-DICOM). Entries are taken as
   they arrive; a multipart body is put aside first, as its fields may come last.
2. Each object's head is read. What is no DICOM object ends the import with 400 — what came before
   it stays — unless it is to be ignored.
3. The object's project, subject and session come from the parameters, else from the object. A
   project that is unknown or not writable is ignored without a word.
4. The site's script and the importer's own meta information change the bytes, then the object is
   put into its entry: the one that the study is being received into, or a new one.
5. With a commit the entries are built, and archived where that was asked for or is the rule.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from . import cache, prearchive_api, xar
from .accounts import EDIT
from .archiving import ArchiveRefused
from .bodies import safe_segment
from .dicom import (
    HEAD,
    Facts,
    NotDicom,
    anonymise,
    file_name,
    read_facts,
    rewrite_meta,
    timestamp,
)
from .members import ARCHIVES, members
from .prearchive import RECEIVING, UNASSIGNED, Entry
from .receiving import Spool, read_file
from .unzip import BadZip
from .web import Call, Refusal, error, text

if TYPE_CHECKING:
    from .server import Sandbox

_HANDLERS = ("DICOM-zip", "SI", "gradual-DICOM")
_MEDIA = {"application/zip": ".zip", "application/x-tar": ".tar", "application/x-gtar": ".tar.gz"}
_TOUCH_S = 0.02
_LABEL = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Destination:
    """What `dest` says: prearchive or archive, and the names in it."""

    archive: bool = False
    project: str = ""
    subject: str = ""
    session: str = ""
    stamp: str = ""
    folder: str = ""


@dataclass(slots=True)
class Import:
    """One import while it runs."""

    call: Call
    handler: str
    destination: Destination
    options: dict[str, str]
    ignore: bool
    entries: dict[tuple[str, str, str], Entry] = field(default_factory=dict)
    homes: dict[tuple[str, str, str], tuple[str, str, str]] = field(default_factory=dict)
    skipped: int = 0
    filtered: int = 0
    script: str = ""
    touched: float = 0.0

    def __post_init__(self) -> None:
        self.script = self._script()

    @property
    def sandbox(self) -> Sandbox:
        return self.call.sandbox

    # ---- one object ----------------------------------------------------------------------

    async def take(self, name: str, pieces: AsyncIterator[Any]) -> None:
        """Read one entry of the archive; archives in it are opened."""
        if name.lower().endswith(ARCHIVES):
            await self.unpack(name, pieces)
            return
        spool = Spool(self.call.store)
        head = bytearray()
        facts: Facts | None = None
        script = self.script
        try:
            async for piece in pieces:
                if facts is None or script:
                    head += piece
                else:
                    await spool.feed(piece)
                if facts is None and len(head) >= HEAD:
                    facts = read_facts(bytes(head))
                    if not script:
                        await spool.feed(self._meta(bytes(head)))
            if facts is None:
                facts = read_facts(bytes(head))
                if not script:
                    await spool.feed(self._meta(bytes(head)))
            if script:
                changed = await asyncio.to_thread(anonymise, bytes(head), script, {})
                facts = read_facts(changed)
                await spool.feed(self._meta(changed))
        except NotDicom:
            spool.drop()
            if self.ignore:
                self.skipped += 1
                async for _ in pieces:
                    pass
                return
            raise
        except BaseException:
            spool.drop()
            raise
        await self._store(name, facts, spool)

    def _meta(self, head: bytes) -> bytes:
        return rewrite_meta(head) if self.call.settings.rewrite_meta else head

    def _script(self) -> str:
        """The site's script, which is the same for all objects of an import."""
        if self.options.get("prevent_anon") == "true" or not self.call.settings.anonymize_site:
            return ""
        return self.sandbox.script("")

    async def _store(self, name: str, facts: Facts, spool: Spool) -> None:
        prearchive = self.sandbox.prearchive
        digests = await spool.finish()
        entry = self._entry(facts)
        if self.sandbox.filtered(entry.project, facts.description):
            self.filtered += 1
            spool.drop()
            return
        scan = prearchive.scan_for(entry, facts)
        wanted = name.rpartition("/")[2]
        if self.call.flag("rename") or not wanted:
            wanted = file_name(facts)
        wanted = prearchive.free_name(entry, scan, wanted, facts.uid)
        try:
            body = spool.keep_at(prearchive.object_path(entry, scan, wanted))
        except OSError as problem:
            spool.drop()
            status = 400 if self.handler == "gradual-DICOM" else 507
            raise Refusal(status, f"unable to store DICOM object: {problem.strerror}") from problem
        prearchive.add(entry, scan, wanted, digests, facts, body)
        if time.time() - self.touched > _TOUCH_S:
            self.touched = time.time()
            prearchive.touch(entry)

    # ---- where it goes -------------------------------------------------------------------

    def _home(self, facts: Facts) -> tuple[str, str, str]:
        """(project, subject label, session label) of an object."""
        known = (facts.study, facts.patient_id, facts.comments)
        if known not in self.homes:
            routing = facts.routing()
            project = self._project(facts, routing)
            subject = self.destination.subject or self._param("subject", "SUBJECT_ID")
            subject = subject or routing.get("subject", "") or facts.patient_name
            session = self.destination.session or self._param("session", "EXPT_LABEL")
            session = session or routing.get("session", "") or facts.patient_id
            self.homes[known] = (
                project,
                _LABEL.sub("_", subject),
                _LABEL.sub("_", session) or "dicom_upload",
            )
        return self.homes[known]

    def _param(self, *names: str) -> str:
        return next((value for name in names if (value := self.call.param(name))), "")

    def _project(self, facts: Facts, routing: dict[str, str]) -> str:
        asked = self.destination.project or self._param("project", "PROJECT_ID")
        for name in (
            asked, routing.get("project", ""), facts.study_description, facts.accession,
        ):  # fmt: skip
            if not name:
                continue
            project = self.call.store.find_project(name)
            if project is not None and self.call.accounts.rights(self.call.user, project) >= EDIT:
                return project.code
        return UNASSIGNED

    def _entry(self, facts: Facts) -> Entry:
        """The entry that an object goes into."""
        project, subject, session = self._home(facts)
        key = (project, facts.study, session)
        if key in self.entries:
            return self.entries[key]
        prearchive = self.sandbox.prearchive
        named = self.destination
        if named.stamp and named.folder and named.project == project:
            entry = prearchive.find(project, named.stamp, named.folder)
        else:
            entry = prearchive.receiving(project, facts.study, session)
        if entry is None:
            entry = prearchive.create(
                project,
                named.folder or session,
                subject=subject,
                tag=facts.study,
                options=self.options,
                stamp=named.stamp,
                folder=named.folder,
            )
        elif entry.tag and entry.tag != facts.study:
            raise Refusal(400, "Upload included files for multiple imaging sessions")
        elif entry.busy and "ARCHIVING" not in entry.status:
            raise Refusal(400, "Prearc destination is locked: session processing in progress")
        elif entry.status not in RECEIVING and "ARCHIVING" not in entry.status:
            entry = prearchive.set_status(entry, "RECEIVING")
        self.entries[key] = entry
        if self.handler == "SI" and len(self.entries) > 1:
            raise Refusal(400, "Upload included files for multiple imaging sessions")
        return entry

    # ---- archives ------------------------------------------------------------------------

    async def unpack(self, name: str, pieces: AsyncIterator[Any]) -> None:
        """Take every entry of an archive."""
        async for entry, data in members(name.lower(), pieces):
            await self.take(entry, data)


def parse_destination(dest: str) -> Destination:
    """The meaning of a `dest` parameter. Raises Refusal 400 for a malformed one."""
    parts = [part for part in dest.split("/") if part]
    while parts and parts[0] in ("data", "REST"):
        parts.pop(0)
    match parts:
        case [] | ["prearchive"]:
            return Destination()
        case ["prearchive", "projects", project]:
            return Destination(project=project)
        case ["prearchive", "projects", project, stamp]:
            return Destination(project=project, stamp=stamp)
        case ["prearchive", "projects", project, stamp, folder]:
            return Destination(project=project, stamp=stamp, folder=folder, session=folder)
        case ["archive"]:
            return Destination(archive=True)
        case ["archive", "projects", project]:
            return Destination(archive=True, project=project)
        case ["archive", "projects", project, "subjects", subject]:
            return Destination(archive=True, project=project, subject=subject)
        case [
            "archive", "projects", project, "subjects", subject, "experiments", session
        ]:  # fmt: skip
            return Destination(archive=True, project=project, subject=subject, session=session)
        case ["archive", "projects", project, "experiments", session]:
            return Destination(archive=True, project=project, session=session)
        case ["archive", "subjects" | "experiments" as kind, ident]:
            return Destination(archive=True, **{kind[:-1]: ident})
    raise Refusal(400, f"Invalid destination format: {dest}")


def _existing_target(call: Call, destination: Destination) -> Destination:
    """Fill in what an accession ID in `dest` stands for; 404 or 403 where it cannot be used."""
    if not destination.archive or destination.project:
        return destination
    store = call.store
    ident = destination.session or destination.subject
    if not ident:
        return destination
    item = store.find_experiment(ident) if destination.session else store.find_subject(ident)
    if item is None:
        raise Refusal(404, f"Unable to identify destination {ident}")
    if call.accounts.item_rights(call.user, item) < EDIT:
        raise Refusal(403, "Specified user account has insufficient privileges")
    project = store.item(item.project).code
    if destination.session:
        subject = store.item(item.parent or 0).label
        return Destination(True, project, subject, item.label)
    return Destination(True, project, item.label)


async def run(call: Call) -> web.StreamResponse:
    """POST /data/services/import.

    A file of the user's cache with a progress listener is imported behind the answer.
    """
    if call.method != "POST":
        raise Refusal(405, "The import service takes POST")
    if call.param("import-handler") == "inbox":
        from . import inbox  # It builds on this module.

        wanted = _existing_target(call, parse_destination(call.param("dest")))
        return inbox.run(call, wanted, _options(call))
    pieces, name = await _body(call)
    call.sandbox.listened(call, "PROCESSING", f"Importing {name or 'an object'}")
    if call.has("src") and call.param("http-session-listener"):
        call.sandbox.spawn(_behind(call, pieces, name))
        return text(f"The import of {name} was submitted")
    try:
        answer = await _run(call, pieces, name)
    except Refusal as refusal:
        call.sandbox.listened(call, "FAILED", refusal.message)
        if call.param("format") == "html":
            return error(Refusal(200, refusal.message), api="data")
        raise
    call.sandbox.listened(call, "COMPLETED", "Successfully imported")
    return answer


async def _behind(call: Call, pieces: AsyncIterator[Any], name: str) -> None:
    try:
        await _run(call, pieces, name)
    except Refusal as refusal:
        call.sandbox.listened(call, "FAILED", refusal.message)
    else:
        call.sandbox.listened(call, "COMPLETED", "Successfully imported")


async def _run(call: Call, pieces: AsyncIterator[Any], name: str) -> web.StreamResponse:
    handler = call.param("import-handler") or "DICOM-zip"
    if call.media == "application/dicom":
        handler = "gradual-DICOM"
    try:
        if handler == "XAR":
            return await xar.receive(call, name, pieces)
        if handler == "automation":
            return await _keep(call, name, pieces)
        if handler not in _HANDLERS:
            raise Refusal(404, f"Unsupported import handler: {handler}")
        return await _dicom(call, handler, name, pieces)
    except (NotDicom, BadZip) as problem:
        raise Refusal(400, str(problem)) from problem
    finally:
        _forget(call)


async def _keep(call: Call, name: str, pieces: AsyncIterator[Any]) -> web.Response:
    """An archive for scripts: it is put aside, the address of its folder is the answer."""
    stamp = timestamp(time.time())
    spool = Spool(call.store)
    await spool.fill(pieces)
    folder = f"automation/{safe_segment(call.user.login)}/{stamp}"
    spool.keep_at(call.store.root / folder / safe_segment(name or "upload"))
    return text(f"/{folder}\r\n", media="text/uri-list")


async def _dicom(
    call: Call, handler: str, name: str, pieces: AsyncIterator[Any]
) -> web.StreamResponse:
    if call.param("prearchive_code") == "1" and call.has("overwrite"):
        raise Refusal(400, "Overwrite cannot be combined with this prearchive code")
    destination = _existing_target(call, parse_destination(call.param("dest")))
    commit = call.param("action") == "commit"
    work = Import(
        call, handler, destination, _options(call), call.flag("Ignore-Unparsable") or commit
    )
    if handler == "gradual-DICOM":
        await work.take("", pieces)
    elif name.endswith(ARCHIVES):
        await work.unpack(name, pieces)
    else:
        raise Refusal(400, "Unsupported format: unable to identify upload format")
    if not work.entries and not work.filtered:
        raise Refusal(400, "Upload did not include parsable files for session generation")
    return await _finish(call, work, commit)


def _options(call: Call) -> dict[str, str]:
    """What is stored with the entry; servers that do not honour the flags show none."""
    options = {name: value for name in ("VISIT", "SUBTYPE", "TIMEZONE", "PROTOCOL") if (
        value := call.param(name)
    )}  # fmt: skip
    if call.settings.import_flags:
        if call.param("SOURCE"):
            options["SOURCE"] = call.param("SOURCE")
        for name in ("prevent_anon", "prevent_auto_commit"):
            if call.flag(name):
                options[name] = "true"
    for name in ("overwrite", "overwrite_files", "quarantine", "triggerPipelines"):
        if call.has(name):
            options[name] = call.param(name)
    if call.flag("Direct-Archive"):
        options["direct"] = "true"
    for key, value in call.params:
        if ":" in key and "/" in key:
            options[key] = call.stored(value)
    return options


async def _body(call: Call) -> tuple[AsyncIterator[Any], str]:
    """The one body of a request and the name that tells its form; fields go to the parameters."""
    if call.has("src"):
        path = cache.located(call, call.param("src"))
        if path is None or not path.is_file():
            raise Refusal(404, f"Unable to find {call.param('src')}")
        return read_file(path), path.name
    if call.media.startswith("multipart/"):
        return await _multipart(call)
    length = call.request.content_length
    if call.media == "application/dicom":
        if not length:
            raise Refusal(400, "The uploaded object has no size")
        return call.chunks(), ""
    if not length and not (length is None and call.media == "application/zip"):
        raise Refusal(400, "unable to identify upload format: no file in the request")
    limit = call.settings.max_body
    if limit is not None and (length or 0) > limit:
        raise Refusal(413, "Request Entity Too Large")
    return call.chunks(), "upload" + _MEDIA.get(call.media, "")


async def _multipart(call: Call) -> tuple[AsyncIterator[Any], str]:
    name = ""
    path = call.store.root / "tmp" / f"form-{secrets.token_hex(8)}"
    async for part in call.parts():
        if part.filename is None:
            value = bytes(await part.read()).decode("utf-8", "replace")
            call.params.append((part.name or "", value))
            continue
        if name:
            path.unlink(missing_ok=True)
            raise Refusal(400, "Only one file may be imported with a request")
        name = part.filename
        with path.open("wb") as file:
            while data := await part.read_chunk(1 << 18):
                call.received += len(data)
                file.write(data)
    if not name:
        raise Refusal(400, "unable to identify upload format: no file in the request")
    call.notes["spooled"] = str(path)
    return read_file(path), name


def _forget(call: Call) -> None:
    if spooled := call.notes.pop("spooled", ""):
        Path(spooled).unlink(missing_ok=True)


async def _finish(call: Call, work: Import, commit: bool) -> web.StreamResponse:
    sandbox = call.sandbox
    asked = call.flag("auto-archive") or call.flag("AA") or call.param("prearchive_code") == "1"
    into_archive = work.destination.archive or asked
    lines = []
    for (project, study, session), entry in work.entries.items():
        current = sandbox.prearchive.get(entry.id)
        if current is None:
            lines.append(f"/data/prearchive/projects/{project}")
            continue
        if current.option("direct") and not into_archive:
            lines.append(f"/xapi/direct-archive/{project}/{study}/{session}")
            continue
        if work.handler == "SI" or commit or into_archive:
            current = await prearchive_api.build(sandbox, current)
        rule = commit and sandbox.prearchive.auto(current) != "Manual"
        if (into_archive or rule) and project != UNASSIGNED:
            wish = prearchive_api.import_wish(call.user.login, current)
            try:
                lines.append(await prearchive_api.archive_by_import(sandbox, current, wish))
            except ArchiveRefused as refused:
                status = refused.status if work.handler == "SI" or refused.status == 423 else 400
                message = f"unable to archive for {project}: {refused.message}"
                raise Refusal(status, message) from refused
            continue
        lines.append("/data" + current.url)
    return text("".join(f"{line}\r\n" for line in lines), media="text/uri-list")
