"""Whole documents of items, put together from their own document and their rows.

A session's document holds its shares, resources, scans, reconstructions and assessors in the
order of the schema, as a GET of the item shows it.
"""

from __future__ import annotations

import time
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

from . import documents
from .catalog import Resource
from .store import Item, Store
from .vocabulary import XNAT, XSI_TYPE

_HIDDEN = {
    "experiment": "xnat_experimentData_id",
    "subject": "xnat_subjectData_id",
    "project": "xnat_projectData_id",
}


def assemble(store: Store, item: Item, *, hidden: bool = True) -> ET.Element:
    """The complete document of an item."""
    root = item.element()
    if item.kind in ("project", "subject", "experiment", "assessor"):
        root.set("ID", item.code)
    if item.kind in ("subject", "experiment", "assessor"):
        root.set("project", store.item(item.project).code)
        root.set("label", item.label)
    shares = [
        ET.Element(f"{{{XNAT}}}share", {"label": label, "project": code})
        for code, label in store.shares(item)
    ]
    documents.container(root, "sharing", shares)
    _attach(store, item, root)
    parent = store.item(item.parent) if item.parent else None
    if item.kind == "experiment" and parent is not None:
        _text(root, "subject_ID", parent.code)
        for name, kind in (
            ("scans", "scan"), ("reconstructions", "reconstruction"), ("assessors", "assessor"),
        ):  # fmt: skip
            documents.container(
                root, name, [_inner(store, sub) for sub in store.children(item, kind)]
            )
    if item.kind == "assessor" and parent is not None:
        _text(root, "imageSession_ID", parent.code)
    if item.kind in ("scan", "reconstruction") and parent is not None:
        _text(root, "image_session_ID", parent.code)
    if item.kind == "subject":
        sessions = store.children(item, "experiment")
        documents.container(root, "experiments", [_brief(store, sub) for sub in sessions])
    if hidden and item.kind in _HIDDEN:
        root.insert(0, ET.Comment(f'hidden_fields[{_HIDDEN[item.kind]}="{item.id}"]'))
    return root


def _text(root: ET.Element, name: str, value: str) -> None:
    documents.take(root, name)
    element = ET.Element(f"{{{XNAT}}}{name}")
    element.text = value
    documents.place(root, element)


def _inner(store: Store, item: Item) -> ET.Element:
    """A child as it stands inside its session's document."""
    whole = assemble(store, item, hidden=False)
    if item.kind == "assessor":
        inner = ET.Element(f"{{{XNAT}}}assessor", dict(whole.attrib))
        inner.set(XSI_TYPE, item.xsi)
        inner.extend(list(whole))
        return inner
    return whole


def _brief(store: Store, item: Item) -> ET.Element:
    """A session as it stands inside its subject's document: without its scans' resources."""
    element = ET.Element(
        f"{{{XNAT}}}experiment",
        {"ID": item.code, "project": store.item(item.project).code, "label": item.label},
    )
    element.set(XSI_TYPE, item.xsi)
    return element


def _attach(store: Store, item: Item, root: ET.Element) -> None:
    resources = store.resources(item)
    if item.kind == "scan":
        for resource in resources:
            documents.place(root, entry(item, resource, "file"))
    elif item.kind in ("assessor", "reconstruction"):
        for bucket in ("in", "out"):
            documents.container(
                root, bucket, [entry(item, r, "file") for r in resources if r.bucket == bucket]
            )
    else:
        documents.container(root, "resources", [entry(item, r, "resource") for r in resources])


def entry(item: Item, resource: Resource, name: str) -> ET.Element:
    """A resource's catalog entry; the server's own disk path shows in its URI."""
    file = catalog_name(item, resource)
    element = ET.Element(f"{{{XNAT}}}{name}", {"label": resource.label})
    element.set("URI", f"/data/xnat/archive/{item.folder}/{resource.folder}/{file}")
    for key in ("format", "content", "description"):
        if value := getattr(resource, key):
            element.set(key, value)
    element.set("xnat_abstractresource_id", str(resource.id))
    if resource.file_count is not None:
        element.set("file_count", str(resource.file_count))
        element.set("file_size", str(resource.file_size or 0))
    element.set(XSI_TYPE, "xnat:resourceCatalog")
    if resource.tags:
        wrapper = ET.SubElement(element, f"{{{XNAT}}}tags")
        for tag in resource.tags.split(","):
            ET.SubElement(wrapper, f"{{{XNAT}}}tag").text = tag
    return element


def catalog_name(item: Item, resource: Resource) -> str:
    """What the server calls the catalog of a resource in its folder."""
    return "scan_catalog.xml" if item.kind == "scan" else f"{resource.label}_catalog.xml"


def catalog_text(store: Store, resource: Resource, login: str) -> str:
    """The catalog document of a resource."""
    entries = []
    for file in store.files(resource):
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(file.mtime))
        entries.append(
            f"<cat:entry URI={quoteattr(file.path)} ID={quoteattr(file.path)} "
            f'name={quoteattr(file.path.rpartition("/")[2])} size="{file.size}" '
            f'digest="{file.md5}" createdTime="{created}" createdBy="{login}"'
            + (f" format={quoteattr(file.format)}" if file.format else "")
            + (f" content={quoteattr(file.content)}" if file.content else "")
            + "/>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<cat:Catalog ID='
        f"{quoteattr(str(resource.id))} xmlns:cat=\"http://nrg.wustl.edu/catalog\">\n"
        f"<cat:entries>\n{chr(10).join(entries)}\n</cat:entries>\n</cat:Catalog>\n"
    )  # fmt: skip
