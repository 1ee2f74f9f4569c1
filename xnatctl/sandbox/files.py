"""Resources and files of any level: listing, downloading, deleting. Uploads are in `uploads.py`.

A path selects items (`scans/3,5`, `scans/ALL`, a scan type), resources (labels or numeric ids) and
perhaps a file. What is selected is a list of `Held`: a resource with the item it hangs on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from mimetypes import guess_type

from aiohttp import web

from . import finding, inside, uploads
from .accounts import DELETE, EDIT, READ
from .assembly import catalog_text
from .bodies import Generated, safe_path
from .catalog import File, Resource
from .routing import Place
from .sending import Body, send_archive, send_file
from .store import Item
from .web import Call, Refusal, empty, table, text

_RESOURCE_COLUMNS = (
    "xnat_abstractresource_id", "label", "element_name", "category", "cat_id", "cat_desc",
    "file_count", "file_size", "tags", "content", "format",
)  # fmt: skip
_FILE_COLUMNS = (
    "Name", "Size", "URI", "collection", "file_tags", "file_format", "file_content", "cat_ID",
    "digest",
)  # fmt: skip
_CATEGORY = {"scan": "scans", "assessor": "assessors", "reconstruction": "reconstructions"}
_ARCHIVES = ("zip", "tar", "tar.gz")


@dataclass(frozen=True, slots=True)
class Held:
    """A resource and the item it hangs on."""

    item: Item
    resource: Resource


async def handle(call: Call, place: Place) -> web.StreamResponse:
    """Answer a request for `resources`, `resources/R` or `files`."""
    if place.rest and call.method != "GET":
        raise Refusal(400, f"Illegal file path: {'/'.join(place.rest)}")
    if place.node == "resources":
        if call.method == "POST":
            await call.form()
            return create_resource(call, place, call.param("label"))
        return list_resources(call, place)
    if place.node == "resource":
        if call.method == "PUT":
            return create_resource(call, place, place.ids["resource"])
        if call.method == "DELETE":
            return delete_resource(call, place)
        return catalog(call, place)
    if call.method in ("PUT", "POST"):
        return await uploads.upload(call, place, target(call, place))
    if call.method == "DELETE":
        return delete_file(call, place)
    return await get_files(call, place)


# ---- what is selected ----------------------------------------------------------------------


def target(call: Call, place: Place) -> Item:
    """The one item that something is written to."""
    if "," in place.ids.get("scan", "") and "project" not in place.ids:
        raise Refusal(404, "Unable to find the specified scan")
    return finding.locate(call, place)


def _unslash(token: str) -> str:
    return token.replace("[SLASH]", "/").replace("[COMMA]", ",")


def _wanted(call: Call, session: Item, kind: str, selector: str) -> list[Item]:
    """Scans, assessors or reconstructions by selector: ALL, *, NULL, a list of IDs or types."""
    items = call.store.children(session, kind)
    if selector in ("ALL", "*"):
        return items
    tokens = [_unslash(token) for token in selector.split(",")]

    def matches(item: Item) -> bool:
        names = {item.code, item.label}
        if kind == "scan":
            kept = call.store.fields(item).get("type", "")
            names.add(kept or "NULL")
        else:
            names.add(item.xsi)
        return bool(names & set(tokens)) or bool({item.code, item.label} & {selector})

    return [item for item in items if matches(item)]


def select_items(call: Call, place: Place) -> list[Item]:
    """The items that a path selects, of one session or of several; 404 where there are none."""
    sessions = place.ids.get("experiment", "").split(",")
    if len(sessions) > 1:
        found = []
        for one in sessions:
            with suppress(Refusal):
                ids = {**place.ids, "experiment": _unslash(one)}
                found += select_items(call, Place(place.node, ids))
        if not found:
            raise Refusal(404, "Unable to find the specified experiment")
        return found
    for kind in ("scan", "assessor", "reconstruction"):
        if kind in place.ids:
            ids = {k: v for k, v in place.ids.items() if k not in (kind, "bucket", "resource")}
            session = finding.locate(call, Place(f"{kind}s", ids))
            found = _wanted(call, session, kind, place.ids[kind])
            if not found:
                raise Refusal(404, f"Unable to find the specified {kind}")
            return found
    return [finding.locate(call, place)]


def held(call: Call, place: Place) -> list[Held]:
    """Every resource that a path selects, before labels are looked at.

    `all=true` on a session adds the resources of its scans, reconstructions and assessors.
    """
    items = select_items(call, place)
    bucket = place.ids.get("bucket")
    if place.deepest == "experiment" and call.flag("all"):
        for session in tuple(items):
            for kind in ("scan", "reconstruction", "assessor"):
                items += call.store.children(session, kind)
    out = []
    for item in items:
        own = bucket or ("out" if item.kind in ("assessor", "reconstruction") else "")
        out += [Held(item, resource) for resource in call.store.resources(item, own)]
    return out


def selected(call: Call, place: Place) -> list[Held]:
    """The resources of a path with their labels or numeric ids applied."""
    everything = held(call, place)
    if "resource" not in place.ids:
        return everything
    wanted = place.ids["resource"]
    tokens = {wanted, *wanted.split(",")}
    found = [
        one
        for one in everything
        if str(one.resource.id) in tokens
        or (one.resource.label in tokens and not one.resource.label.isdigit())
    ]
    if not found and wanted.isdigit():
        _refuse_foreign_number(call, int(wanted))
    return found


def _refuse_foreign_number(call: Call, number: int) -> None:
    try:
        other = call.store.resource(number)
    except (KeyError, OverflowError):
        raise Refusal(404, f"Unable to find resource {number}") from None
    if call.accounts.item_rights(call.user, call.store.item(other.item)) < READ:
        raise Refusal(403, "Specified user account has insufficient privileges for this resource")


# ---- resources -----------------------------------------------------------------------------


def list_resources(call: Call, place: Place) -> web.Response:
    """The table of resources."""
    rows = []
    for one in held(call, place):
        item, resource = one.item, one.resource
        count, size = resource.file_count, resource.file_size
        if call.flag("file_stats") or call.flag("cache_file_stats"):
            count, size = call.store.row(
                "SELECT count(*), coalesce(sum(size),0) FROM files WHERE resource=?", resource.id
            )
            if call.flag("cache_file_stats"):
                call.store.refresh_stats(resource)
        scan = item.kind == "scan"
        rows.append(
            {
                "xnat_abstractresource_id": resource.id, "label": resource.label,
                "element_name": "xnat:resourceCatalog",
                "category": _CATEGORY.get(item.kind, "resources"),
                "cat_id": item.code if item.kind in _CATEGORY else "",
                "cat_desc": call.store.fields(item).get("type", "") if scan else (
                    item.label if item.kind in _CATEGORY else ""
                ),
                "file_count": count, "file_size": size, "tags": resource.tags,
                "content": resource.content, "format": resource.format,
            }
        )  # fmt: skip
    return table(call, _RESOURCE_COLUMNS, rows, title="Resources", described=True)


def create_resource(call: Call, place: Place, label: str) -> web.Response:
    """PUT …/resources/LABEL or POST …/resources?label=: 409 when there is one."""
    if not label:
        raise Refusal(400, "A resource needs a label")
    item = target(call, Place(place.deepest, place.ids))
    finding.require(call, item, EDIT)
    if "'" in label:
        raise Refusal(400, "Possible SQL Injection Attempt")
    by_put = call.method == "PUT"
    if by_put and label.isdigit():
        _refuse_foreign_number(call, int(label))
        raise Refusal(409, f"The resource {label} exists")
    bucket = place.ids.get("bucket", "out" if item.kind in ("assessor", "reconstruction") else "")
    if any(r.label == label for r in call.store.resources(item, bucket)):
        raise Refusal(409, "Specified resource already exists.")
    resource = call.store.create_resource(
        item,
        label,
        bucket=bucket,
        format=call.stored(call.param("format")),
        content=call.stored(call.param("content")),
        description=call.stored(call.param("description")),
        tags=call.stored(call.param("tags")),
    )
    return empty() if by_put else text(str(resource.id))


def delete_resource(call: Call, place: Place) -> web.Response:
    """DELETE …/resources/A,B: a missing one is 200, too; some of a list missing is 207."""
    item = target(call, Place(place.deepest, place.ids))
    finding.require(call, item, DELETE)
    found = selected(call, place)
    for one in found:
        call.store.delete_resource(one.resource, remove_files=call.flag("removeFiles"))
    names = {name for one in found for name in (one.resource.label, str(one.resource.id))}
    wanted = set(place.ids["resource"].split(","))
    return empty(207 if found and wanted - names and place.ids["resource"] not in names else 200)


def catalog(call: Call, place: Place) -> web.Response:
    """GET …/resources/LABEL: the catalog document."""
    found = selected(call, place)
    if not found:
        raise Refusal(404, "Unable to find the specified resource")
    body = catalog_text(call.store, found[0].resource, call.user.login)
    return text(body, media="text/xml")


# ---- files ---------------------------------------------------------------------------------


def base_uri(call: Call, item: Item, resource: Resource) -> str:
    """The URI of a resource's files, by accession ID and numeric id."""
    if item.kind == "project":
        parent = f"/data/projects/{item.code}"
    elif item.kind == "subject":
        project = call.store.item(item.project).code
        parent = f"/data/projects/{project}/subjects/{item.code}"
    elif item.kind in ("scan", "assessor", "reconstruction"):
        session = call.store.item(item.parent or 0)
        parent = f"/data/experiments/{session.code}/{item.kind}s/{item.code}"
        if resource.bucket:
            parent += f"/{resource.bucket}"
    else:
        parent = f"/data/experiments/{item.code}"
    return f"{parent}/resources/{resource.id}/files"


def list_files(call: Call, chosen: Iterable[Held], folder: str = "") -> web.Response:
    """The table of files: from the catalog, never from the disk."""
    columns = list(_FILE_COLUMNS)
    locator = call.param("locator")
    if locator:
        columns.insert(3, locator)
    rows = _file_rows(call, chosen, folder, locator)
    return table(call, columns, rows, title="Files", described=True, counted=False)


def _file_rows(
    call: Call, chosen: Iterable[Held], folder: str, locator: str
) -> Iterator[dict[str, str]]:
    """Rows of a files listing, one resource at a time."""
    recursive = call.flag("recursive", True)
    filtered = bool(call.param("file_format") or call.param("file_content"))
    for one in chosen:
        base, disk = base_uri(call, one.item, one.resource), ""
        if locator:
            disk = str(call.store.resource_folder(one.resource))
        for path, size, md5, form, content, tags in call.store.rows(
            "SELECT path, size, md5, format, content, tags FROM files WHERE resource=? ORDER BY id",
            one.resource.id,
        ):
            if folder and not _in_folder(path, folder, recursive):
                continue
            if filtered and not (
                _filter(call, "file_format", form) and _filter(call, "file_content", content)
            ):
                continue
            row = {
                "Name": path.rpartition("/")[2], "Size": size, "URI": f"{base}/{path}",
                "collection": one.resource.label, "file_tags": tags, "file_format": form,
                "file_content": content, "cat_ID": one.resource.id,
                "digest": md5 if call.settings.checksums else "",
            }  # fmt: skip
            if locator:
                row[locator] = f"{disk}/{safe_path(path)}"
            yield row
            if call.flag("listContents") and path.endswith((".zip", ".xar", ".zar")):
                yield from _contents(call, one.resource, path, row)


def _contents(
    call: Call, resource: Resource, path: str, row: dict[str, str]
) -> Iterator[dict[str, str]]:
    """Rows for what is inside an archive that is stored as a file."""
    file = call.store.find_file(resource, path)
    body = body_of(call, resource, file) if file is not None else None
    if body is None or not body.present():
        return
    for name, size in inside.members(body):
        base = name.rpartition("/")[2]
        yield {**row, "Name": base, "Size": str(size), "URI": f"{row['URI']}!/{name}", "digest": ""}


def _in_folder(path: str, folder: str, recursive: bool) -> bool:
    inside = path.removeprefix(folder.rstrip("/") + "/")
    return inside != path and (recursive or "/" not in inside)


def _filter(call: Call, name: str, value: str) -> bool:
    wanted = call.param(name)
    return not wanted or value in wanted.split(",") or (wanted == "NULL" and not value)


async def get_files(call: Call, place: Place) -> web.StreamResponse:
    """List files, send one, or send many as an archive."""
    chosen = selected(call, place)
    form = call.param("format").lower()
    name = uploads.file_name(call, place.file)
    if "resource" in place.ids and not chosen:
        raise _missing(call)
    if call.has("index"):
        return await _nth(call, chosen)
    if not name or name.endswith("/"):
        if form == "xcat":
            return text(_catalogs(call, chosen), media="text/xml")
        if form in _ARCHIVES:
            bodies = archive_bodies(call, place, chosen)
            return await send_archive(call, bodies, _archive_name(chosen), form)
        return list_files(call, chosen, name)
    for one in chosen:
        file = call.store.find_file(one.resource, name)
        if file is not None:
            found = body_of(call, one.resource, file)
            if not found.present():
                raise _missing(call)
            if form in _ARCHIVES and not name.endswith(form):
                return await send_archive(call, [found], name.rpartition("/")[2], form)
            return await send_file(call, found)
    if (found_inside := _inner(call, chosen, name)) is not None:
        return found_inside
    if any(
        _in_folder(f.path, name, True) for one in chosen for f in call.store.files(one.resource)
    ):
        if form in _ARCHIVES:
            bodies = archive_bodies(call, place, chosen, name)
            return await send_archive(call, bodies, _archive_name(chosen), form)
        return list_files(call, chosen, name)
    raise _missing(call)


def _inner(call: Call, chosen: list[Held], name: str) -> web.Response | None:
    """A member of a stored archive, where the path leads into one."""
    parts = inside.split(name)
    for one in chosen if parts else ():
        file = call.store.find_file(one.resource, parts[0]) if parts else None
        body = body_of(call, one.resource, file) if file is not None else None
        if parts and body is not None and body.present():
            data = inside.member(body, parts[1])
            if data is not None:
                media = guess_type(parts[1])[0] or "application/octet-stream"
                return web.Response(body=data, content_type=media)
    return None


async def _nth(call: Call, chosen: list[Held]) -> web.StreamResponse:
    """`index=N`: the file that comes Nth in the list, from 0."""
    everything = [(one, file) for one in chosen for file in call.store.files(one.resource)]
    wanted = call.param("index")
    if not wanted.isdigit() or int(wanted) >= len(everything):
        raise _missing(call)
    one, file = everything[int(wanted)]
    body = body_of(call, one.resource, file)
    if not body.present():
        raise _missing(call)
    return await send_file(call, body)


def _catalogs(call: Call, chosen: list[Held]) -> str:
    """The entries of every chosen resource as one catalog."""
    texts = [catalog_text(call.store, one.resource, call.user.login) for one in chosen]
    entries = "".join(t.partition("<cat:entries>")[2].partition("</cat:entries>")[0] for t in texts)
    head = '<cat:Catalog xmlns:cat="http://nrg.wustl.edu/catalog"><cat:entries>'
    return f"{head}{entries}</cat:entries></cat:Catalog>"


def _missing(call: Call) -> Refusal:
    if call.flag("accept-not-found"):
        return Refusal(204)
    return Refusal(404, "Unable to find file.")


def body_of(call: Call, resource: Resource, file: File, name: str | None = None) -> Body:
    """Where a catalogued file's bytes come from."""
    recipe: Generated | None = file.generated()
    source = recipe or call.store.file_path(resource, file)
    return Body(name or file.path, file.size, file.crc, file.mtime, source)


def _archive_name(chosen: list[Held]) -> str:
    if not chosen:
        return "files"
    parts = chosen[0].item.folder.split("/")
    if len(parts) >= 3 and parts[1] in ("arc001", "subjects"):
        return parts[2]
    return parts[0]


def archive_bodies(
    call: Call,
    place: Place,
    chosen: list[Held],
    folder: str = "",
    *,
    structure: str | None = None,
) -> Iterator[Body]:
    """The selected files with their paths inside an archive."""
    structure = call.param("structure") if structure is None else structure
    for one in chosen:
        prefix = _entry_prefix(call, place, one, structure)
        plain, typed = f"/{one.item.code}/", _typed_folder(call, place, one, structure)
        for file in call.store.files(one.resource):
            if folder and not _in_folder(file.path, folder, True):
                continue
            if file.body != "none":
                path = prefix + file.path
                if typed:
                    # The first is the scan's folder; a folder in it may have the same name.
                    often = -1 if call.settings.mangle_entries else 1
                    path = path.replace(plain, f"/{typed}/", often)
                yield body_of(call, one.resource, file, path)


def _entry_prefix(call: Call, place: Place, one: Held, structure: str) -> str:
    """The folder of a resource inside an archive, by `structure`."""
    item, resource, store = one.item, one.resource, call.store
    session = store.item(item.parent or 0) if item.kind in _CATEGORY else item
    head = session.label
    if structure == "legacy":
        below = item.folder.removeprefix(session.folder).strip("/")
        return "/".join(part for part in (head, below, resource.folder) if part) + "/"
    middle = ""
    if item.kind == "scan":
        middle = f"scans/{item.code}"
    elif item.kind in _CATEGORY:
        middle = f"{item.kind}s/{item.label}/{resource.bucket}"
    parts: list[str] = [] if structure == "improved" else [head]
    if middle:
        parts.append(middle)
    if structure in ("simplified", "improved"):
        if structure == "improved" and not middle:
            parts.append("resources")
        parts.append(resource.label)
    else:
        parts += ["resources", resource.label, "files"]
    if item.kind == "assessor":
        if call.flag("subjectIncludedInPath"):
            parts.insert(0, store.item(session.parent or 0).label)
        if call.flag("projectIncludedInPath"):
            parts.insert(0, store.item(session.project).code)
    return "/".join(parts) + "/"


def _typed_folder(call: Call, place: Place, one: Held, structure: str) -> str:
    """The folder of a scan with its type, empty where the structure has none."""
    kind = ""
    if one.item.kind == "scan":
        kind = re.sub(r"\W", "_", call.store.fields(one.item).get("type", ""))
    if kind and structure == "improved" and call.param("format") == "zip":
        return f"{one.item.code}_{kind}"
    if kind and not structure and "scan" in place.ids:
        return f"{one.item.code}-{kind}"
    return ""


def delete_file(call: Call, place: Place) -> web.Response:
    """DELETE a file, or everything below a folder prefix; 404 when nothing matches."""
    item = target(call, Place(place.deepest, place.ids))
    finding.require(call, item, DELETE)
    name = uploads.file_name(call, place.file)
    if not name:
        raise Refusal(400, "A file must be named")
    found = False
    for one in selected(call, place):
        for file in call.store.files(one.resource):
            if file.path == name or _in_folder(file.path, name, True):
                found = True
                call.store.remove_file(
                    one.resource, file, remove_bytes=call.flag("removeFiles", True)
                )
        call.store.refresh_stats(one.resource)
    if not found:
        raise Refusal(404, "Unable to find file.")
    return empty()
