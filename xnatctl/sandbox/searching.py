"""The search engine: `POST /data/search` with an `xdat:search` document, and saved searches.

1. The document names a root type, the fields to show, and criteria in nested sets joined by AND or
   OR.
2. Rows are the items of that type (or of what it is a super-type of) in projects that the caller
   may read, each with its subject and project at hand for fields of theirs.
3. A field's key is its ID in lower case; of another element than the root it begins with that
   element's name (`xnat_subjectdata_gender`), as clients of real servers look for it.

Display fields that are no field of the schema (`SUBJECT_LABEL`, `GENDER_TEXT`, `PROJECT_OWNERS`,
`PROJ_MR_COUNT`) are those that pyxnat asks for.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from aiohttp import web

from . import documents
from .accounts import READ
from .listing import Row, own_rows
from .vocabulary import COLUMNS, OTHER_TYPES, SCAN_TYPES, SESSION_TYPES, display_columns, root_of
from .web import Call, Refusal, empty, table, text

_SAVED = ("id", "brief_description", "description", "root_element_name", "user")
_DISPLAY_FIELD = (
    "FIELD_ID", "HEADER", "SUMMARY", "TYPE", "REQUIRES_VALUE", "DESC", "ELEMENT_NAME", "SRC",
)  # fmt: skip
_SPECIAL = {
    "project": {
        "PROJECT_ACCESS", "PROJECT_OWNERS", "PROJ_MR_COUNT", "PROJ_CT_COUNT", "PROJ_PET_COUNT",
        "PROJ_UT_COUNT",
    },
    "subject": {"SUBJECT_ID", "SUBJECT_LABEL", "GENDER_TEXT", "HANDEDNESS_TEXT", "ADD_IDS"},
    "experiment": {"SESSION_ID", "EXPT_ID"},
}  # fmt: skip
_ALIASES = {
    "subject": {
        "SUBJECT_ID": "ID", "SUBJECT_LABEL": "label", "GENDER_TEXT": "gender",
        "HANDEDNESS_TEXT": "handedness",
    },
    "experiment": {"SESSION_ID": "ID", "EXPT_ID": "ID"},
}  # fmt: skip
_SUPER = {"xnat:imageSessionData", "xnat:experimentData", "xnat:subjectAssessorData"}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an element, such as LABEL of xnat:mrSessionData."""

    element: str
    name: str

    @classmethod
    def of(cls, path: str) -> Field:
        element, slash, name = path.partition("/")
        if not slash:
            raise Refusal(400, f"{path!r} is no field: it lacks its element")
        return cls(element, name)


Test = Callable[[Row], bool]


async def handle(call: Call, rest: list[str]) -> web.StreamResponse:
    """Answer a path below /data/search."""
    match call.method, rest:
        case "POST", []:
            return _found(call, _document(await call.body()))
        case "GET", ["elements"]:
            return _elements(call)
        case "GET", ["elements", name]:
            return _element(call, name)
        case "GET", ["saved"]:
            saved = call.store.records("search").values()
            return table(call, _SAVED, [one for one in saved if _may_see(call, one)])
        case method, ["saved", name, *more]:
            return await _saved(call, method, name, more)
    raise Refusal(404, "The server has not found anything matching the request URI")


# ---- what there is to search ---------------------------------------------------------------


def _elements(call: Call) -> web.Response:
    counts = dict(call.store.rows("SELECT xsi, count(*) FROM items GROUP BY xsi"))
    rows = [
        {
            "ELEMENT_NAME": name, "SINGULAR": root_of(name).partition(":")[2],
            "PLURAL": root_of(name).partition(":")[2] + "s", "SECURED": "true",
            "COUNT": counts.get(name, 0),
        }
        for name in sorted({*SESSION_TYPES, *SCAN_TYPES, *OTHER_TYPES})
    ]  # fmt: skip
    return table(call, ("ELEMENT_NAME", "SINGULAR", "PLURAL", "SECURED", "COUNT"), rows)


def _element(call: Call, name: str) -> web.Response:
    if not (columns := display_columns(name)):
        raise Refusal(404, f"There is no type {name}")
    fields = {one.upper(): one for one in columns} | {
        one: one for one in _SPECIAL.get(_kind_of(name), ())
    }
    rows = [
        {
            "FIELD_ID": ident, "HEADER": header, "SUMMARY": header, "TYPE": "string",
            "REQUIRES_VALUE": "false", "DESC": "", "ELEMENT_NAME": name, "SRC": "0",
        }
        for ident, header in sorted(fields.items())
    ]  # fmt: skip
    return table(call, _DISPLAY_FIELD, rows)


def _kind_of(element: str) -> str:
    """The kind of items that an element stands for. Raises Refusal 400 for an unknown type."""
    if element in SCAN_TYPES:
        return "scan"
    if element in SESSION_TYPES or element in _SUPER:
        return "experiment"
    if element in OTHER_TYPES:
        return OTHER_TYPES[element]
    raise Refusal(400, f"There is no type {element}")


# ---- searching -----------------------------------------------------------------------------


def _document(body: bytes) -> ET.Element:
    try:
        root = documents.parse(body)
    except documents.BadXml as error:
        raise Refusal(400, f"The search is no XML: {error}") from error
    if not _text(root, "root_element_name"):
        raise Refusal(400, "The search names no root element")
    return root


def _text(parent: ET.Element, name: str) -> str:
    found = documents.child(parent, name)
    return (found.text or "").strip() if found is not None else ""


def _found(call: Call, document: ET.Element) -> web.Response:
    """The table that a search document asks for."""
    search = _Search(call, _text(document, "root_element_name"))
    named = [one for one in document if documents.local(one.tag) == "search_field"]
    named.sort(key=lambda one: int(_text(one, "sequence") or 0))
    fields = [Field(_text(one, "element_name"), _text(one, "field_ID")) for one in named]
    fields = fields or [Field(search.element, name) for name in ("ID", "LABEL", "PROJECT")]
    tests = [search.test(one) for one in document if documents.local(one.tag) == "search_where"]
    keys = [search.key(field) for field in fields]
    rows = [
        {key: search.value(row, field) for key, field in zip(keys, fields, strict=True)}
        for row in search.rows()
        if all(test(row) for test in tests)
    ]
    return table(call, keys, rows)


class _Search:
    """The items of one root type, and the values of fields on them."""

    def __init__(self, call: Call, element: str) -> None:
        self.call = call
        self.element = element
        self.kind = _kind_of(element)
        readable = [
            one for one in call.accounts.visible(call.user)
            if call.accounts.rights(call.user, one) >= READ
        ]  # fmt: skip
        self.marks = ",".join(str(one.id) for one in readable) or "0"
        self.projects = {row.code: row for row in self._of_kind("project")}
        self.subjects = {row.code: row for row in self._of_kind("subject")}

    def _of_kind(self, kind: str) -> list[Row]:
        return own_rows(self.call, f"i.kind=? AND i.project IN ({self.marks})", kind)

    def rows(self) -> Iterator[Row]:
        """The items of the root type, in the order in which they were made."""
        for row in self._of_kind(self.kind):
            if self.kind in ("project", "subject", "reconstruction") or row.xsi == self.element:
                yield row
            elif self.element in _SUPER or self.element == "xnat:imageScanData":
                is_image = row.xsi.endswith("SessionData")
                if is_image or self.element != "xnat:imageSessionData":
                    yield row

    def key(self, field: Field) -> str:
        name = field.name.lower()
        if field.element == self.element:
            return name
        return f"{field.element.replace(':', '_').lower()}_{name}"

    def value(self, row: Row, field: Field) -> str:
        """A field of an item, or of the subject or project that it belongs to."""
        kind = _kind_of(field.element)
        owner: Row | None = row
        if kind != row.kind and kind == "subject":
            owner = self.subjects.get(row.get("subject_ID") or "")
        elif kind != row.kind and kind == "project":
            owner = self.projects.get(row.project)
        elif kind != row.kind:
            return ""
        if owner is None:
            return ""
        if owner.kind == "project" and field.name.upper() in _SPECIAL["project"]:
            return self._of_project(owner, field.name.upper())
        name = _ALIASES.get(owner.kind, {}).get(field.name.upper(), "")
        known = {one.upper(): one for one in COLUMNS[owner.kind]}
        name = name or known.get(field.name.upper()) or f"{field.element}/{field.name}"
        try:
            return owner.get(name) or ""
        except KeyError:
            return ""

    def _of_project(self, project: Row, name: str) -> str:
        call = self.call
        item = call.store.item(project.id)
        if name == "PROJECT_ACCESS":
            return call.accounts.access(item)
        if name == "PROJECT_OWNERS":
            owners = [u for u in call.accounts.users() if call.accounts.role(item, u.login)]
            return " <br/> ".join(
                f"{one.firstname} {one.lastname}"
                for one in owners
                if call.accounts.role(item, one.login) == "owner"
            )
        modality = name.split("_")[1].lower()
        (count,) = call.store.row(
            "SELECT count(*) FROM items WHERE project=? AND xsi=?",
            item.id, f"xnat:{modality}SessionData",
        )  # fmt: skip
        return str(count or "")

    # ---- criteria ----------------------------------------------------------------------------

    def test(self, group: ET.Element) -> Test:
        """What a set of criteria says of a row; an empty set says nothing."""
        tests = [
            self._criterion(one) if documents.local(one.tag) == "criteria" else self.test(one)
            for one in group
            if documents.local(one.tag) in ("criteria", "child_set")
        ]
        if (group.get("method") or "AND").upper() == "OR" and tests:
            return lambda row: any(test(row) for test in tests)
        return lambda row: all(test(row) for test in tests)

    def _criterion(self, one: ET.Element) -> Test:
        field = Field.of(_text(one, "schema_field"))
        _kind_of(field.element)
        how, wanted = _text(one, "comparison_type").upper(), _text(one, "value")
        compare = _COMPARISONS.get(how)
        if compare is None:
            raise Refusal(400, f"There is no comparison {how!r}")
        return lambda row: compare(self.value(row, field), wanted)


def _like(value: str, wanted: str) -> bool:
    return fnmatch.fnmatchcase(value.lower(), wanted.lower().replace("%", "*"))


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers before texts, numbers by size; dates are texts that sort well."""
    try:
        return (False, float(value), "")
    except ValueError:
        return (True, 0.0, value)


_COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "=": lambda value, wanted: value == wanted,
    "!=": lambda value, wanted: value != wanted,
    "<": lambda value, wanted: value != "" and _order(value) < _order(wanted),
    ">": lambda value, wanted: value != "" and _order(value) > _order(wanted),
    "<=": lambda value, wanted: value != "" and _order(value) <= _order(wanted),
    ">=": lambda value, wanted: value != "" and _order(value) >= _order(wanted),
    "LIKE": _like,
    "NOT LIKE": lambda value, wanted: not _like(value, wanted),
    "IS": lambda value, wanted: value == ("" if wanted.upper() == "NULL" else wanted),
    "IS NOT": lambda value, wanted: value != ("" if wanted.upper() == "NULL" else wanted),
    "IN": lambda value, wanted: value in [one.strip() for one in wanted.split(",")],
}


# ---- saved searches ------------------------------------------------------------------------


def _may_see(call: Call, saved: Mapping[str, str]) -> bool:
    allowed = saved["allowed"].split(",")
    return call.user.admin or saved["user"] == call.user.login or call.user.login in allowed


async def _saved(call: Call, method: str, name: str, more: list[str]) -> web.StreamResponse:
    """One saved search: its document, which is XML only, and what it finds now."""
    store = call.store
    saved = store.record("search", name)
    if saved is not None and not _may_see(call, saved):
        raise Refusal(403, "This search is somebody else's")
    if method == "PUT" and not more:
        body = await call.body()
        root = _document(body)
        logins = [e.text or "" for e in root.iter() if documents.local(e.tag) == "login"]
        record = {
            "id": name, "brief_description": root.get("brief-description", ""),
            "description": root.get("description", ""), "user": call.user.login,
            "root_element_name": _text(root, "root_element_name"),
            "allowed": ",".join(logins), "document": body.decode("utf-8", "replace"),
        }  # fmt: skip
        store.set_record("search", name, record)
        return empty()
    if method == "DELETE" and not more:
        store.set_record("search", name, None)
        return empty()
    if saved is None or method != "GET":
        raise Refusal(404, f"There is no search {name}")
    if more == ["results"]:
        return _found(call, _document(saved["document"].encode()))
    if more or call.param("format") == "json":
        raise Refusal(404, "A saved search is shown as XML only")
    return text(saved["document"], media="text/xml")
