"""What a described unit holds: items and containers out of what a server said. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from xnatctl.engine.plan import UNSAFE_NAME
from xnatctl.engine.types import Container, Item, Left, Unit
from xnatctl.model import Ref, Resource
from xnatctl.xnat.fields import Values
from xnatctl.xnat.parse import digest_of
from xnatctl.zipstream import why_unsafe

from .catalogue import FIELDS, NO_FIELDS, Place


def cannot_carry(key: str, path: str) -> Left | None:
    """Why a file of this name cannot arrive, whoever carries it."""
    if path.endswith("_catalog.xml"):
        return Left(key, "catalog-name", "XNAT keeps no file of that name")
    if reason := why_unsafe(path):
        return Left(key, UNSAFE_NAME, f"neither a URL nor an archive can carry its name: {reason}")
    return None


def provenance_item(unit: Unit, text: str) -> Item:
    body = text.encode()
    return Item(
        key="resources/PROVENANCE/files/source.json",
        kind="file",
        lane="resources/PROVENANCE",
        ref=unit.ref,
        path="source.json",
        size=len(body),
        digest=hashlib.md5(body, usedforsecurity=False).hexdigest(),
        body=body,
    )


def fields_item(unit: Unit, values: dict[str, Values] | None, *, stage: int) -> Item:
    """Custom fields as a document; with None they are read when it is written."""
    body = json.dumps(values, sort_keys=True).encode() if values is not None else b""
    return Item(
        key=FIELDS,
        kind="document",
        lane=FIELDS,
        ref=unit.ref,
        path="fields",
        body=body,
        digest=digest_of(body.decode()) if body else NO_FIELDS,
        stage=stage,
    )


def share_items(unit: Unit, shares: tuple[tuple[str, str], ...], below: str) -> list[Item]:
    return [
        share_item(unit, project, label, below)
        for project, label in shares
        if project != unit.target.project
    ]


def share_item(unit: Unit, project: str, label: str, below: str) -> Item:
    """A share as a document: the other project and the label that the thing has there."""
    return Item(
        key=f"{below}shares/{project}",
        kind="document",
        lane="shares",
        ref=unit.ref,
        path="share",
        body=f"{project}\n{label}".encode(),
        digest=digest_of(project, label),
        stage=3,
    )


def container(key: str, ref: Ref, known: tuple[Place, Resource] | None) -> Container:
    if known is None:
        return Container(key, ref)
    one = known[1]
    return Container(key, ref, one.format, one.content, one.description, one.tags)


def resource_at(ref: Ref, place: Place, resource: str) -> Ref:
    level, item, side = place
    return replace(ref, level=level, item=item, side=side, resource=resource)
