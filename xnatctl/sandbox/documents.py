"""Item documents: XML elements, the flat fields taken from them, and the item JSON.

Every item keeps its own document (without its scans, assessors, shares and resource entries,
which are rows of the store), so that unknown elements and foreign name spaces survive a round
trip. Everything here is pure: strings and elements in, strings and elements out.

Field paths are XNAT's: `demographics/gender`, `fields/field[name=cohort]/field`, optionally
below a type (`xnat:mrSessionData/fieldStrength`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import Any
from xml.etree import ElementTree as ET

from .vocabulary import (
    ALIASES,
    ATTRIBUTES,
    KIND_TYPES,
    LISTS,
    NAMESPACES,
    NESTED_ATTRIBUTES,
    NUMERIC,
    ORDER,
    SUPERTYPES,
    TYPED,
    XNAT,
    XSI_TYPE,
    root_of,
    type_of,
)

for _prefix, _uri in NAMESPACES.items():
    ET.register_namespace(_prefix, _uri)

_known = {uri: prefix for prefix, uri in NAMESPACES.items()}
_STEP = re.compile(r"([A-Za-z_][\w.-]*)(?:\[@?([A-Za-z_][\w.-]*|xsi:type)=['\"]?(.*?)['\"]?\])?$")


class BadXml(ValueError):
    """The text is not an XML document that the sandbox accepts; the message says why."""


def parse(text: bytes | str) -> ET.Element:
    """The root element of a document. Raises BadXml for malformed input and for any DOCTYPE.

    Prefixes of foreign name spaces are remembered, so that they are written as they came.
    """
    data = text.encode() if isinstance(text, str) else text
    if b"<!DOCTYPE" in data:
        raise BadXml("DOCTYPE is disallowed in documents")
    root: ET.Element | None = None
    try:
        for event, value in ET.iterparse(io.BytesIO(data), events=("start", "start-ns")):
            if event == "start-ns":
                prefix, uri = value
                if prefix and uri not in _known and not re.match(r"ns\d+$", prefix):
                    ET.register_namespace(prefix, uri)
                    _known[uri] = prefix
            elif root is None:
                root = value
    except ET.ParseError as error:
        raise BadXml(str(error)) from error
    if root is None:
        raise BadXml("the document is empty")
    return root


def write(root: ET.Element, *, declaration: bool = False) -> str:
    """The text of an element; prefixes used only inside xsi:type values are declared too."""
    elements = [element for element in root.iter() if isinstance(element.tag, str)]
    tags = {element.tag.partition("}")[0][1:] for element in elements}
    uris = {prefix: uri for uri, prefix in _known.items()}
    added = []
    for prefix in {e.get(XSI_TYPE, "").partition(":")[0] for e in elements} - {""}:
        if prefix in uris and uris[prefix] not in tags:
            root.set(f"xmlns:{prefix}", uris[prefix])
            added.append(f"xmlns:{prefix}")
    text = ET.tostring(root, encoding="unicode")
    for name in added:
        del root.attrib[name]
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}' if declaration else text


def qualified(prefixed: str) -> str:
    """ElementTree's name for a prefixed one; an unknown prefix is made a name space of its own."""
    prefix, _, local = prefixed.rpartition(":")
    uri = next((uri for uri, known in _known.items() if known == prefix), None)
    if uri is None:
        uri = f"http://nrg.wustl.edu/{prefix or 'xnat'}"
        if prefix:
            ET.register_namespace(prefix, uri)
            _known[uri] = prefix
    return f"{{{uri}}}{local}"


def prefixed(tag: str) -> str:
    """The prefixed name of an ElementTree name."""
    uri, _, local = tag.rpartition("}")
    return f"{_known.get(uri[1:], 'xnat')}:{local}" if uri else f"xnat:{local}"


def local(tag: str) -> str:
    """The name without its name space."""
    return tag.rpartition("}")[2]


def xsi_of(root: ET.Element) -> str:
    """The type of an element: its xsi:type, else what its name says."""
    return root.get(XSI_TYPE) or type_of(prefixed(root.tag))


def new(kind: str, xsi: str = "") -> ET.Element:
    """An empty document of a kind: `new("experiment", "xnat:mrSessionData")`."""
    if kind == "scan":
        element = ET.Element(f"{{{XNAT}}}scan")
        element.set(XSI_TYPE, xsi)
        return element
    if kind == "reconstruction":
        return ET.Element(f"{{{XNAT}}}reconstructedImage")
    return ET.Element(qualified(root_of(xsi or KIND_TYPES[kind])))


def child(parent: ET.Element, name: str) -> ET.Element | None:
    """The first child of this local name, whatever its name space."""
    return next((element for element in parent if local(element.tag) == name), None)


def take(parent: ET.Element, name: str) -> list[ET.Element]:
    """Remove the children of this local name; returns them."""
    found = [element for element in parent if local(element.tag) == name]
    for element in found:
        parent.remove(element)
    return found


def place(parent: ET.Element, element: ET.Element) -> None:
    """Insert a child where the schema's order wants it."""
    rank = ORDER.get(local(element.tag), len(ORDER))
    for index, other in enumerate(parent):
        if ORDER.get(local(other.tag), len(ORDER)) > rank:
            parent.insert(index, element)
            return
    parent.append(element)


def _is_list(element: ET.Element) -> bool:
    """Whether an element only wraps repeated ones (`fields`, `scans`)."""
    if element.attrib or len(element) == 0 or len({entry.tag for entry in element}) > 1:
        return False
    return local(element.tag) in LISTS or (
        len(element) > 1 and all(entry.attrib or len(entry) for entry in element)
    )


def _scalars(element: ET.Element, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Paths and texts of everything single-valued below an element."""
    for name, value in element.attrib.items():
        if name != XSI_TYPE and "}" not in name:
            yield f"{prefix}{name}", value
    for sub in element:
        if not isinstance(sub.tag, str) or sub.get(XSI_TYPE) or _is_list(sub):
            continue
        name = local(sub.tag)
        text = (sub.text or "").strip() if len(sub) == 0 else ""
        if text:
            yield f"{prefix}{name}", text
        yield from _scalars(sub, f"{prefix}{name}/")


def flatten(root: ET.Element) -> dict[str, str]:
    """Every value of a document by its path, custom variables as `fields/field[name=N]/field`."""
    out = dict(_scalars(root))
    for sub in root:
        if not isinstance(sub.tag, str):
            continue
        name = local(sub.tag)
        if sub.get(XSI_TYPE):
            out.update((f"{name}/{path}", value) for path, value in _scalars(sub))
        elif _is_list(sub):
            inner = local(sub[0].tag)
            for entry in sub:
                key = entry.get("name")
                step = f"{inner}[name={key}]" if key is not None else inner
                if (entry.text or "").strip():
                    out.setdefault(f"{name}/{step}/{inner}", (entry.text or "").strip())
    return out


def resolve_path(kind: str, xsi: str, key: str) -> str | None:
    """The path below the item for a query key, or None where the key is of another type."""
    head, _, rest = key.partition("/")
    if ":" in head and "[" not in head:
        known = {xsi} | SUPERTYPES[kind]
        if not rest or head.lower() not in {name.lower() for name in known}:
            return None
        return rest
    return ALIASES[kind].get(key, key)


def put(root: ET.Element, kind: str, path: str, value: str) -> None:
    """Set one value; `NULL` and the empty text remove it. A path that is none is ignored."""
    matches = [_STEP.match(step) for step in path.split("/")]
    steps = [match.groups() for match in matches if match]
    if len(steps) < len(matches):
        return
    node = root
    for depth, (name, key, wanted) in enumerate(steps):
        last = depth == len(steps) - 1
        attributes = ATTRIBUTES[kind] if node is root else NESTED_ATTRIBUTES.get(local(node.tag))
        if last and attributes and name in attributes:
            if value in ("", "NULL"):
                node.attrib.pop(name, None)
            else:
                node.set(name, value)
            return
        if last and depth and name == local(node.tag):
            node.text = value
            return
        if key == "xsi:type":
            key = XSI_TYPE
        found = next(
            (
                sub
                for sub in node
                if local(sub.tag) == name and (key is None or sub.get(key) == wanted)
            ),
            None,
        )
        if found is None:
            if value == "NULL":
                return
            space = XNAT if name in ORDER else root.tag.partition("}")[0][1:]
            found = ET.Element(f"{{{space}}}{name}")
            if key is not None:
                found.set(key, wanted or "")
            if name in TYPED:
                found.set(XSI_TYPE, TYPED[name])
            place(node, found)
        if last:
            if value in ("", "NULL"):
                node.remove(found)
            else:
                found.text = value
            return
        node = found


def merge(target: ET.Element, source: ET.Element) -> None:
    """Lay one document over another: what the source does not name stays.

    Attributes and single values are replaced; list entries with a `name` or `ID` replace the
    entry of that name, others are added once.
    """
    target.attrib.update(source.attrib)
    if (source.text or "").strip():
        target.text = source.text
    listing = _is_list(source)
    for sub in source:
        if not isinstance(sub.tag, str):
            continue
        same = [other for other in target if other.tag == sub.tag]
        if listing:
            key = "name" if "name" in sub.attrib else "ID"
            same = [
                o
                for o in same
                if (o.get(key) == sub.get(key) if key in sub.attrib else write(o) == write(sub))
            ]
        if same:
            merge(same[0], sub)
        else:
            place(target, sub)


def _typed(path: str, value: str) -> str | int | float:
    if path in NUMERIC or path.rpartition("/")[2] in ("file_count", "file_size"):
        try:
            return int(value)
        except ValueError:
            try:
                return float(value)
            except ValueError:
                return value
    return value


def to_json(root: ET.Element, meta: dict[str, Any] | None = None) -> dict[str, Any]:
    """One entry of `items`: typed data_fields, children by schema path, empty ones left out."""
    fields: dict[str, Any] = {path: _typed(path, text) for path, text in _scalars(root)}
    if (root.text or "").strip() and len(root) == 0:
        fields[local(root.tag)] = (root.text or "").strip()
    children: dict[str, list[dict[str, Any]]] = {}
    for path, element in _complex(root):
        children.setdefault(path, []).append(to_json(element))
    out: dict[str, Any] = {
        "children": [{"field": path, "items": items} for path, items in children.items()],
        "meta": {"isHistory": False, "xsi:type": xsi_of(root), **(meta or {})},
        "data_fields": fields,
    }
    return out


def _complex(root: ET.Element) -> Iterator[tuple[str, ET.Element]]:
    for sub in root:
        if not isinstance(sub.tag, str):
            continue
        name = local(sub.tag)
        if sub.get(XSI_TYPE):
            yield name, sub
        elif _is_list(sub) or (len(sub) and all(grand.get(XSI_TYPE) for grand in sub)):
            for grand in sub:
                yield f"{name}/{local(grand.tag)}", grand


def container(parent: ET.Element, name: str, entries: Iterable[ET.Element]) -> None:
    """Add `<name>` with the entries to a document, in order; nothing when there are none."""
    listed = list(entries)
    if listed:
        element = ET.Element(f"{{{XNAT}}}{name}")
        element.extend(listed)
        place(parent, element)
