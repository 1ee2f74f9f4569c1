"""From a place to the items of the store, with the refusals that belong to the way there."""

from __future__ import annotations

from .accounts import READ
from .routing import Place
from .store import Item
from .web import Call, Refusal


def project_of(call: Call, place: Place, need: int = READ) -> Item:
    """The project of the URL; 404 when missing or unreadable, 403 without the needed right."""
    project = call.store.find_project(place.ids["project"])
    if project is None:
        raise Refusal(404, f"Unable to identify project: {place.ids['project']}")
    rights = call.accounts.rights(call.user, project)
    if rights < READ and not (need == READ and call.accounts.access(project) == "protected"):
        raise Refusal(404, f"Unable to identify project: {place.ids['project']}")
    if rights < need:
        raise Refusal(403, "Specified user account has insufficient privileges for this project")
    return project


def locate(call: Call, place: Place) -> Item:
    """The deepest item of the URL (project … scan); 404 when missing or unreadable.

    On subject-scoped paths the subject must exist in the project, but the session need not be
    its own; accession IDs are looked up before labels below the flat form.
    """
    item = _locate(call, place)
    if item.kind != "project" and call.accounts.item_rights(call.user, item) < READ:
        raise Refusal(404, "Unable to find the specified item")
    return item


def _locate(call: Call, place: Place) -> Item:
    ids = place.ids
    project = project_of(call, place) if "project" in ids else None
    item: Item | None = project
    if "subject" in ids and "experiment" not in ids:
        item = call.store.find_subject(ids["subject"], project)
    if "experiment" in ids:
        lists = place.node in ("scans", "assessors", "reconstructions") or place.deepest != (
            "experiment"
        )
        scoped = project is not None and "subject" in ids and lists
        if scoped and call.store.find_subject(ids["subject"], project) is None:
            raise Refusal(404, f"Unable to identify subject: {ids['subject']}")
        item = (
            # Lists below a session look for an accession ID first, the session itself for a label.
            (find_experiment(call, ids["experiment"], None) if scoped else None)
            or find_experiment(call, ids["experiment"], project)
        )
    for kind in ("scan", "assessor", "reconstruction"):
        if kind in ids and item is not None:
            item = call.store.find_child(item, kind, ids[kind])
    if item is None:
        raise Refusal(404, "Unable to find the specified " + place.deepest)
    return item


def find_experiment(call: Call, ident: str, project: Item | None) -> Item | None:
    """A session, other subject assessor or image assessor by label (in a project) or ID."""
    found = call.store.find_experiment(ident, project)
    return found or call.store.find_experiment(ident, project, "assessor")


def require(call: Call, item: Item, need: int) -> None:
    """403 without the right on an item."""
    if call.accounts.item_rights(call.user, item) < need:
        raise Refusal(403, "Specified user account has insufficient privileges for this item")


def require_project(call: Call, project: Item, need: int) -> None:
    """403 without the right in a project."""
    if call.accounts.rights(call.user, project) < need:
        raise Refusal(403, "Specified user account has insufficient privileges for this project")
