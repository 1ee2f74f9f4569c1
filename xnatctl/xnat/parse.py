"""Replies of XNAT into records. Pure; every odd reply of the server has its case here.

Tables come as `{"ResultSet": {"Result": [...]}}` with string cells whose key case differs from
route to route. A reply without a ResultSet where one is due means that the route fell through to a
shorter one, which answers an item (XNAT matches routes by prefix): that is an error, never an empty
list.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from urllib.parse import unquote

import msgspec

from xnatctl.errors import BadReply
from xnatctl.model import (
    Assessor,
    File,
    Level,
    PrearchiveEntry,
    Project,
    Ref,
    Resource,
    Scan,
    Session,
    SessionDetail,
    Side,
    Subject,
)

from .xmldoc import NS_XNAT, XSI_TYPE, Element, parse_xml

Row = dict[str, str]

MODALITIES = re.compile(r"^\w+:(?P<modality>\w+?)SessionData$")


def parse_rows(body: bytes, where: str) -> list[Row]:
    """The rows of a table with their keys as sent; absent cells are empty strings."""
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadReply(f"{where} did not answer with a table", why=str(error)) from error
    table = reply.get("ResultSet") if isinstance(reply, dict) else None
    result = table.get("Result") if isinstance(table, dict) else None
    if not isinstance(result, list):
        raise BadReply(f"{where} answered something else than a table")
    return [
        {str(key): _text(value) for key, value in row.items()}
        for row in result
        if isinstance(row, dict)
    ]


def cell(row: Row, *names: str) -> str:
    """The first non-empty of the named cells; the case of keys differs between handlers."""
    for name in names:
        if row.get(name):
            return row[name]
    lower = {key.lower(): value for key, value in row.items()}
    for name in names:
        if value := lower.get(name.lower()):
            return value
    return ""


def parse_project(row: Row) -> Project:
    pi = " ".join(filter(None, (cell(row, "pi_firstname"), cell(row, "pi_lastname"))))
    return Project(
        id=cell(row, "ID"),
        name=cell(row, "name"),
        description=cell(row, "description"),
        secondary_id=cell(row, "secondary_ID"),
        pi=pi or cell(row, "pi"),
    )


def parse_subject(row: Row, project: str) -> Subject:
    subject_id = cell(row, "ID") or cell(row, "URI").rpartition("/")[2]
    return Subject(
        id=subject_id,
        label=cell(row, "label") or subject_id,
        project=cell(row, "project") or project,
    )


def parse_session(row: Row, project: str) -> Session:
    session_id = cell(row, "ID") or cell(row, "URI").rpartition("/")[2]
    xsi_type = cell(row, "xsiType")
    parent = cell(row, "session_ID")
    return Session(
        id=session_id,
        label=cell(row, "label") or session_id,
        project=cell(row, "project") or project,
        subject=cell(row, "subject_label"),
        subject_id=cell(row, "subject_ID"),
        xsi_type=xsi_type,
        date=cell(row, "date"),
        modality=cell(row, "modality") or modality_of(xsi_type),
        parent=parent if parent != session_id else "",
        modified=cell(row, "last_modified"),
    )


def modality_of(xsi_type: str) -> str:
    """`xnat:mrSessionData` is MR; empty for what is no imaging session."""
    found = MODALITIES.match(xsi_type)
    return found.group("modality").upper() if found else ""


def parse_scan(row: Row) -> Scan:
    return Scan(
        id=cell(row, "ID"),
        xsi_type=cell(row, "xsiType"),
        type=cell(row, "type"),
        uid=cell(row, "UID"),
        quality=cell(row, "quality"),
        note=cell(row, "note"),
        series_description=cell(row, "series_description"),
        frames=cell(row, "frames"),
    )


def parse_resource(row: Row, ref: Ref) -> Resource:
    level, item = cell(row, "category"), cell(row, "cat_id")
    if level in ("scans", "assessors", "reconstructions") and item and not ref.level:
        ref = ref.at(level, item)  # type: ignore[arg-type]
    label = cell(row, "label")
    number = cell(row, "xnat_abstractresource_id")
    return Resource(
        id=number,
        label=label or number,
        ref=ref.in_resource(label or number),
        format=cell(row, "format"),
        content=cell(row, "content"),
        tags=cell(row, "tags"),
        file_count=_int(cell(row, "file_count")),
        file_size=_int(cell(row, "file_size")),
    )


class _FileRow(msgspec.Struct):
    URI: str
    Name: str | None = ""
    Size: str | int | None = ""
    collection: str | None = ""
    file_tags: str | None = ""
    file_format: str | None = ""
    file_content: str | None = ""
    cat_ID: str | int | None = ""
    digest: str | None = ""


class _FileTable(msgspec.Struct):
    Result: list[_FileRow]


class _FileReply(msgspec.Struct):
    ResultSet: _FileTable


_FILES = msgspec.json.Decoder(_FileReply)


def parse_files(body: bytes, where: str) -> list[File]:
    """The rows of a file listing. Long ones are common, so they are decoded straight into
    structs.
    """
    try:
        rows = _FILES.decode(body).ResultSet.Result
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadReply(f"{where} did not answer with a list of files", why=str(error)) from error
    return [_parse_file(row) for row in rows]


_IN_RESOURCE = re.compile(r"/resources/[^/]+/files/")


def _parse_file(row: _FileRow) -> File:
    name = row.Name or ""
    head, found, path = _split_uri(row.URI)
    if not found:
        path = name
    # XNAT does not say whether it encoded the URI. The name in the same row decides; a name that
    # holds a percent sign itself stays as it is.
    if "%" in path and not path.endswith(name) and unquote(path).endswith(name):
        path = unquote(path)
    return File(
        path=path,
        size=_int(str(row.Size)),
        digest=(row.digest or "").lower(),
        uri=row.URI,
        resource_id=str(row.cat_ID or "") or head.rpartition("/")[2],
        resource=row.collection or "",
        format=row.file_format or "",
        content=row.file_content or "",
        tags=row.file_tags or "",
    )


def _split_uri(uri: str) -> tuple[str, str, str]:
    """What stands before and behind `/files/`: behind a resource, since a project, a subject or a
    resource may be called `files` too.
    """
    if found := _IN_RESOURCE.search(uri):
        return uri[: found.end() - len("/files/")], "/files/", uri[found.end() :]
    return uri.partition("/files/")


_PLACE = re.compile(
    r"/(?:experiments/[^/]+)(?:/(?P<level>scans|assessors|reconstructions)/(?P<item>[^/]+)"
    r"(?:/(?P<side>in|out))?)?/(?:resources|files)(?:/|$)"
)


def place_of(uri: str) -> tuple[Level | None, str | None, Side | None]:
    """Which scan, assessor or reconstruction of a session a file's URI lies under."""
    found = _PLACE.search(uri)
    if not found or not found["level"]:
        return None, None, None
    item = unquote(found["item"]).replace("[SLASH]", "/").replace("[COMMA]", ",")
    return found["level"], item, found["side"]  # type: ignore[return-value]


def parse_entry(row: Row) -> PrearchiveEntry:
    return PrearchiveEntry(
        project=cell(row, "project"),
        timestamp=cell(row, "timestamp"),
        folder=cell(row, "folderName", "name"),
        name=cell(row, "name"),
        status=cell(row, "status"),
        subject=cell(row, "subject"),
        study_uid=cell(row, "tag"),
        url=cell(row, "url"),
        source=cell(row, "SOURCE"),
        prevent_auto_commit=cell(row, "prevent_auto_commit").lower() == "true",
    )


def parse_session_xml(body: bytes, where: str) -> SessionDetail:
    """The structure of an experiment out of its XML: scans, assessors, resources, shares,
    fields.
    """
    root = parse_xml(body, where)
    session = Session(
        id=root.get("ID", ""),
        label=root.get("label", "") or root.get("ID", ""),
        project=root.get("project", ""),
        subject_id=_child(root, "subject_ID"),
        xsi_type=root.get(XSI_TYPE, "") or type_of_root(root),
        date=_child(root, "date"),
        modality=root.get("modality", ""),
        parent=_child(root, "imageSession_ID"),
    )
    ref = Ref(session.project, session=session.label, session_id=session.id)
    return SessionDetail(
        session=session,
        uid=root.get("UID", ""),
        xml=body,
        scans=tuple(_scan(one, ref) for one in _all(root, "scans", "scan")),
        assessors=tuple(_assessor(one, ref) for one in _all(root, "assessors", "assessor")),
        reconstructions=tuple(
            _reconstruction(one, ref) for one in _all(root, "reconstructions", "reconstructedImage")
        ),
        resources=_resources(_all(root, "resources", "resource"), ref) + _sided(root, ref),
        shares=tuple(
            (one.get("project", ""), one.get("label", "")) for one in _all(root, "sharing", "share")
        ),
        visit=root.get("visit", ""),
        protocol=_child(root, "protocol") or root.get("protocol", ""),
        fields={
            one.get("name", ""): (one.text or "").strip() for one in _all(root, "fields", "field")
        },
    )


# The element at the root of a document is named after its type, with a capital and without `Data`;
# XNAT gives the type itself only on nested elements.
_ROOTS = {
    "MRSession": "xnat:mrSessionData",
    "PETSession": "xnat:petSessionData",
    "CTSession": "xnat:ctSessionData",
    "PETMRSession": "xnat:petmrSessionData",
    "QCManualAssessment": "xnat:qcManualAssessorData",
    "QCAssessment": "xnat:qcAssessmentData",
}


def type_of_root(root: Element) -> str:
    """The xsi:type that a root element stands for."""
    namespace, _, name = root.tag.rpartition("}")
    if root.tag.startswith(NS_XNAT):
        return _ROOTS.get(name) or f"xnat:{_lower_head(name)}Data"
    return f"{namespace.lstrip('{').rpartition('/')[2]}:{_lower_head(name)}Data"


def _lower_head(name: str) -> str:
    """`CRSession` is `crSession`: the leading capitals but the last belong to the modality."""
    found = re.match(r"^([A-Z0-9]+)(?=[A-Z][a-z]|$)", name)
    head = found.group(1) if found else name[:1]
    return head.lower() + name[len(head) :]


def _scan(node: Element, session: Ref) -> Scan:
    ref = session.at("scans", node.get("ID", ""))
    return Scan(
        id=node.get("ID", ""),
        xsi_type=node.get(XSI_TYPE, ""),
        type=node.get("type", ""),
        uid=node.get("UID", ""),
        quality=_child(node, "quality"),
        note=_child(node, "note"),
        series_description=_child(node, "series_description"),
        frames=_child(node, "frames"),
        resources=_resources(node.findall(f"{NS_XNAT}file"), ref),
    )


def _assessor(node: Element, session: Ref) -> Assessor:
    label = node.get("label", "") or node.get("ID", "")
    ref = session.at("assessors", label)
    return Assessor(
        id=node.get("ID", ""),
        label=label,
        xsi_type=node.get(XSI_TYPE, ""),
        resources=_resources(_all(node, "resources", "resource"), ref) + _sided(node, ref),
    )


def _reconstruction(node: Element, session: Ref) -> Assessor:
    ref = session.at("reconstructions", node.get("ID", ""))
    return Assessor(
        id=node.get("ID", ""),
        label=node.get("ID", ""),
        xsi_type=node.get(XSI_TYPE, "") or "xnat:reconstructedImageData",
        level="reconstructions",
        resources=_sided(node, ref),
    )


def _sided(node: Element, ref: Ref) -> tuple[Resource, ...]:
    found: tuple[Resource, ...] = ()
    sides: tuple[Side, ...] = ("in", "out")
    for side in sides:
        here = Ref(ref.project, ref.subject, ref.session, ref.session_id, ref.level, ref.item, side)
        found += _resources(_all(node, side, "file"), here)
    return found


def _resources(nodes: Iterable[Element], ref: Ref) -> tuple[Resource, ...]:
    return tuple(_resource(node, ref) for node in nodes)


def _resource(node: Element, ref: Ref) -> Resource:
    number = node.get("xnat_abstractresource_id", "")
    label = node.get("label", "") or number
    tags = [tag.text or "" for tag in node.iter(f"{NS_XNAT}tag")]
    return Resource(
        id=number,
        label=label,
        ref=ref.in_resource(label),
        format=node.get("format", ""),
        content=node.get("content", ""),
        description=node.get("description", ""),
        tags=",".join(filter(None, tags)),
        file_count=_int(node.get("file_count", "")),
        file_size=_int(node.get("file_size", "")),
    )


def _all(node: Element, group: str, name: str) -> list[Element]:
    return node.findall(f"{NS_XNAT}{group}/{NS_XNAT}{name}")


def _child(node: Element, name: str) -> str:
    return (node.findtext(f"{NS_XNAT}{name}") or "").strip()


def _int(text: str) -> int | None:
    """A count or a size, which XNAT may write as `1.5E3`; None for what is neither."""
    try:
        number = int(text) if text.isdecimal() else int(float(text))
    except (ValueError, OverflowError):
        return None
    return number if number >= 0 else None


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def digest_of(*parts: bytes | str) -> str:
    """A short name for a state of things; order matters."""
    whole = hashlib.md5(usedforsecurity=False)
    for part in parts:
        whole.update(part.encode() if isinstance(part, str) else part)
        whole.update(b"\0")
    return whole.hexdigest()
