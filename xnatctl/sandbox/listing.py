"""Tables of items: columns, filters, sorting and paging of the classic listings.

Values come from each row's flat fields, so a list of ten thousand sessions parses no XML. A column
is named by a short name (`gender`) or by a schema path (`xnat:mrSessionData/coil`); the answer's
key is the short name as it was asked for, or the path in lower case (two clients that read real
servers look for it so), unknown names are dropped without a word. Where a list of sessions is asked
for a path of scans (`xnat:mrScanData/ID`), it has a row for each such scan.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web

from . import documents
from .store import Item, timestamp
from .vocabulary import ALIASES, COLUMNS, KIND_TYPES, SCAN_TYPES
from .web import Call, Refusal, table

DEFAULTS = {
    "project": ("ID", "secondary_ID", "name", "description", "pi_firstname", "pi_lastname", "URI"),
    "subject": ("ID", "project", "label", "insert_date", "insert_user", "URI"),
    "experiment": ("ID", "project", "date", "xsiType", "label", "insert_date", "URI"),
    "assessor": (
        "ID", "project", "label", "date", "xsiType", "insert_date", "session_ID",
        "session_label", "URI",
    ),
    "scan": (
        "xnat_imagescandata_id", "ID", "type", "quality", "xsiType", "note",
        "series_description", "URI",
    ),
    "reconstruction": ("xnat_reconstructedimagedata_id", "ID", "type", "baseScanType", "URI"),
}  # fmt: skip
_PAGED = ("subject", "experiment")
_CONTROL = {
    "format", "columns", "sortBy", "sortOrder", "limit", "offset", "fields", "recent", "xsiType",
    "accessible", "restrict", "permissions", "dataType", "XNAT_CSRF",
}  # fmt: skip
# Paths that a listing answers under their short name, however they were spelled.
_SHORT = {
    "xnat:subjectassessordata/subject_id": "subject_ID",
    "xnat:subjectdata/label": "subject_label",
    "xnat:subjectdata/project": "subject_project",
    "xnat:imagesessiondata/id": "session_ID",
    "xnat:imagesessiondata/label": "session_label",
}
# Root types that are no type of their own: their rows say which one and whose they are.
_ABSTRACT = {"", "xnat:experimentdata", "xnat:subjectassessordata", "xnat:imagesessiondata"}
_SCANS = {"xnat:imagescandata", *(name.lower() for name in SCAN_TYPES)}
_TYPED = re.compile(r"\[@xsi:type=[^\]]*\]")
_OWN = {"id": "ID", "subject_id": "subject_ID"}
_decode = msgspec.json.Decoder(dict[str, str]).decode

_SELECT = """
SELECT i.id, i.kind, i.code, {label}, i.xsi, i.inserted, i.modified, i.author, i.fields,
       {project}, u.code, u.label, u.kind, g.code, g.label
FROM items i LEFT JOIN items p ON p.id=i.project LEFT JOIN items u ON u.id=i.parent
LEFT JOIN items g ON g.id=u.parent
"""


@dataclass(slots=True)
class Row:
    """One item of a listing with what it hangs on; `values` caches the decoded fields.

    `scan` is the one that a session's row is joined with.
    """

    id: int
    kind: str
    code: str
    label: str
    xsi: str
    inserted: str
    modified: str
    author: str
    packed: str
    project: str
    up_code: str | None
    up_label: str | None
    up_kind: str | None
    grand_code: str | None
    grand_label: str | None
    values: dict[str, str] | None = None
    scan: Row | None = None

    def get(self, name: str) -> str | None:
        """A column's value; None where the item has none, KeyError for an unknown name."""
        if self.kind == "experiment" and name.partition("/")[0].lower() in _SCANS:
            return self.scan.get(name) if self.scan is not None else None
        name = _SHORT.get(name.lower(), name)
        own = self._own(name)
        if own is not None:
            return own
        if self.values is None:
            self.values = _decode(self.packed)
        path = documents.resolve_path(self.kind, self.xsi, _TYPED.sub("", name))
        if path is None:
            return None
        own = self._own(_OWN.get(path.lower(), path)) if path != name else None
        if own is not None:
            return own
        value = self.values.get(path)
        if value is None and "/" not in name and name not in COLUMNS[self.kind]:
            raise KeyError(name)
        return value

    def _own(self, name: str) -> str | None:
        match name:
            case "ID":
                return self.code
            case "label":
                return self.label
            case "project":
                return self.project
            case "xsiType":
                return self.xsi
            case "insert_date":
                return self.inserted
            case "insert_user":
                return self.author
            case "last_modified":
                return self.modified
            case "URI":
                return self.uri()
            case "xnat_imagescandata_id" | "xnat_reconstructedimagedata_id":
                return str(self.id)
            case "subject_ID":
                return (self.up_code if self.kind == "experiment" else self.grand_code) or ""
            case "subject_label":
                return (self.up_label if self.kind == "experiment" else self.grand_label) or ""
            case "subject_project":
                return self.project
            case "session_ID":
                return (self.up_code if self.kind != "experiment" else self.code) or ""
            case "session_label":
                return (self.up_label if self.kind != "experiment" else self.label) or ""
        return None

    def uri(self) -> str:
        match self.kind:
            case "project":
                return f"/data/projects/{self.code}"
            case "subject":
                return f"/data/subjects/{self.code}"
            case "scan":
                return f"/data/experiments/{self.up_code}/scans/{self.code}"
            case "reconstruction":
                return f"/data/experiments/{self.up_code}/reconstructions/{self.code}"
        return f"/data/experiments/{self.code}"


def own_rows(call: Call, where: str, *values: Any) -> list[Row]:
    """Rows of items by an SQL condition on `i`, with their own labels and primary projects."""
    sql = _SELECT.format(label="i.label", project="p.code") + f"WHERE {where} ORDER BY i.id"
    return [Row(*row) for row in call.store.rows(sql, *values)]


def shared_rows(call: Call, project: Item, where: str, *values: Any) -> list[Row]:
    """Rows shared into a project, under the label and project they have there."""
    sql = (
        _SELECT.format(label="s.label", project="?")
        + f"JOIN shares s ON s.item=i.id AND s.project=? WHERE {where} ORDER BY i.id"
    )
    return [Row(*row) for row in call.store.rows(sql, project.code, project.id, *values)]


def _matches(value: str | None, wanted: str, numeric: bool) -> bool:
    text = value or ""
    for option in wanted.split(","):
        if "%" in option or "*" in option:
            if fnmatch.fnmatchcase(text.lower(), option.lower().replace("%", "*")):
                return True
        elif numeric and "-" in option and not option.startswith("-"):
            low, _, high = option.partition("-")
            if _ordered(low) <= _ordered(text) <= _ordered(high):
                return True
        elif _ordered(text) == _ordered(option) if numeric else text == option:
            return True
    return False


def _ordered(text: str) -> tuple[int, float, str]:
    for form in ("%Y-%m-%d", "%m/%d/%Y"):
        try:
            return (0, datetime.strptime(text, form).timestamp(), "")
        except ValueError:
            continue
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)


def answer(call: Call, kind: str, rows: Iterable[Row]) -> web.Response:
    """Filter, sort, page and write a listing by the request's parameters."""
    if call.flag("fields"):
        root = {"experiment": "xnat:experimentData", "assessor": "xnat:imageAssessorData",
                "scan": "xnat:imageScanData"}.get(kind) or KIND_TYPES[kind]  # fmt: skip
        rows_ = [
            {"key": name, "xpath": f"{root}/{ALIASES[kind].get(name, name)}"}
            for name in sorted(COLUMNS[kind])
        ]
        return table(call, ("key", "xpath"), rows_)
    listed = list(rows)
    types = call.param("xsiType")
    if types and kind in ("experiment", "assessor"):
        wanted = {name.strip().lower() for name in types.split(",")}
        supers = {"xnat:imagesessiondata", "xnat:experimentdata", "xnat:subjectassessordata"}
        if not wanted & {"xnat:experimentdata"}:
            listed = [
                row
                for row in listed
                if row.xsi.lower() in wanted
                or ("xnat:imagesessiondata" in wanted & supers and row.xsi.endswith("SessionData"))
                or ("xnat:subjectassessordata" in wanted & supers and row.kind == "experiment")
            ]
    if kind == "experiment":
        listed = _joined(call, listed)
    for key, value in call.params:
        if key in _CONTROL or (":" not in key and key not in COLUMNS[kind]):
            continue
        numeric = key.rpartition("/")[2] in ("date", "yob", "age", "dob", "weight", "height")
        listed = [row for row in listed if _matches(_value(row, key), value, numeric)]
    if call.param("recent") and kind == "experiment":
        since = timestamp(time.time() - 86_400 * _number(call, "recent", 0))
        listed = [row for row in listed if row.inserted >= since]
    columns = _columns(call, kind, listed)
    paged = kind in _PAGED and (call.param("limit") not in ("", "*") or call.has("offset"))
    if paged:
        # An order is given to the page, not to the list that it is cut from.
        if not call.param("sortBy") and call.settings.unstable_pages:
            call.sandbox.random.shuffle(listed)
        start, limit = _number(call, "offset", 0), _number(call, "limit", 100)
        listed = listed[start:] if call.param("limit") == "*" else listed[start : start + limit]
    listed = _sorted(call, listed)
    keys = [name.lower() if ":" in name else name for name in columns]
    cells = [
        {key: _value(row, name) for key, name in zip(keys, columns, strict=True)} for row in listed
    ]
    return table(call, keys, cells, counted=not paged)


def _number(call: Call, name: str, default: int) -> int:
    text = call.param(name)
    if text in ("", "*"):
        return default
    if not text.isdigit():
        raise Refusal(400, f"{name} is not a number: {text}")
    return int(text)


def _joined(call: Call, rows: list[Row]) -> list[Row]:
    """A row for each session and scan where a path of scans is asked for, else the rows."""
    names = [*call.param("columns").split(","), *(key for key, _ in call.params)]
    types = {name.strip().partition("/")[0].lower() for name in names} & _SCANS
    if not types:
        return rows
    scans: dict[str | None, list[Row]] = {}
    sessions = ",".join(str(row.id) for row in rows)
    for scan in own_rows(call, f"i.kind='scan' AND i.parent IN ({sessions})"):
        if scan.xsi.lower() in types or "xnat:imagescandata" in types:
            scans.setdefault(scan.up_code, []).append(scan)
    return [replace(row, scan=scan) for row in rows for scan in scans.get(row.code, [None])]


def _value(row: Row, name: str) -> str | None:
    try:
        return row.get(name)
    except KeyError:
        return None


def _columns(call: Call, kind: str, rows: Sequence[Row]) -> list[str]:
    given = [name.strip() for name in call.param("columns").split(",") if name.strip()]
    asked = [_SHORT.get(name.lower(), name) for name in given]
    if not asked:
        columns = list(DEFAULTS[kind])
        if kind == "experiment" and call.param("xsiType").endswith("Data"):
            columns[-1:] = ["subject_ID", "subject_label", "URI"]
        return columns
    known = [
        name
        for name in asked
        if name in COLUMNS[kind] or (":" in name and "/" in name) or re.match(r"\w+/", name)
    ]
    if "ID" not in known:
        known.insert(0, "ID")
    if kind == "experiment" and call.param("xsiType").lower() in _ABSTRACT:
        known += [name for name in ("xsiType", "project") if name not in known]
    return [*dict.fromkeys(known), "URI"] if "URI" not in known else known


def _sorted(call: Call, rows: list[Row]) -> list[Row]:
    key = call.param("sortBy")
    if not key:
        return rows
    for name in reversed(key.split(",")):
        rows.sort(
            key=lambda row, name=name: _ordered(_value(row, name) or ""),  # type: ignore[misc]
            reverse=call.param("sortOrder").upper() == "DESC",
        )
    return rows
