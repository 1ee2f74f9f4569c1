"""A project with one of each kind of thing that a project owns, and two accounts of it.

`add_the_rest` puts into the demonstration study what it does not have. `account` is what a server
holds, by labels: identifiers that each server gives by itself are named after what they stand for.
"""

from __future__ import annotations

import json
from typing import Any

from xnatctl.sandbox import documents, window
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.store import Item, Store

SESSION = "DEMO_001_MR1"
_XNAT = 'xmlns:xnat="http://nrg.wustl.edu/xnat"'

_PROJECT = f"""<xnat:Project {_XNAT} xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<xnat:investigators>
<xnat:investigator><xnat:firstname>Grace</xnat:firstname><xnat:lastname>Second</xnat:lastname>
<xnat:institution>Hospital &amp; more</xnat:institution></xnat:investigator>
</xnat:investigators>
<xnat:publications>
<xnat:publication type="journal"><xnat:title>On &lt;things&gt;</xnat:title>
<xnat:uri>https://example.org/1</xnat:uri></xnat:publication>
</xnat:publications>
<xnat:studyProtocol ID="DEMO_xnat_subjectData" data-type="xnat:subjectData" name="Subjects"
 xsi:type="xnat:datatypeProtocol"><xnat:definitions>
<xnat:definition ID="cohorts" data-type="xnat:subjectData" project-specific="1"><xnat:fields>
<xnat:field name="cohort" datatype="string" type="custom" required="0"/></xnat:fields>
</xnat:definition></xnat:definitions></xnat:studyProtocol>
</xnat:Project>"""

_READING = f"""<xnat:SubjectVariables {_XNAT}>
<xnat:date>2024-03-04</xnat:date><xnat:note>{{session}}</xnat:note>
<xnat:variables><xnat:variable name="seen in">{{session}}</xnat:variable></xnat:variables>
</xnat:SubjectVariables>"""

SETTINGS = {
    "accessibility": "protected",
    "prearchive_code": "0",
    "quarantine_code": "1",
    "anon_script": 'version "6.3"\n(0010,0030) := "19000101"\n',
    "anon_enabled": "true",
}


def add_the_rest(store: Store) -> None:
    """One of each: people, publications, definitions, settings, fields, shares, references."""
    project = store.find_project("DEMO")
    assert project is not None
    element = project.element()
    documents.merge(element, documents.parse(_PROJECT.encode()))
    store.update(project, element=element)
    for name, value in SETTINGS.items():
        store.set_setting("DEMO", name, value)
    session = store.find_experiment(SESSION, project)
    subject = store.find_subject("DEMO_001", project)
    assert session is not None and subject is not None
    scan = store.find_child(session, "scan", "2")
    assessor = store.find_child(session, "assessor", f"{SESSION}_QC1")
    reconstruction = store.find_child(session, "reconstruction", "T1_mean")
    assert scan is not None and assessor is not None and reconstruction is not None
    for one in (project, subject, session, scan, assessor):
        values = {"name": one.label or one.code, "list": [1, "ü"], "deep": {"x": None}}
        store.set_record("custom-fields", str(one.id), values)
    for one, side in ((assessor, "in"), (reconstruction, "in")):
        resource = store.create_resource(one, "INPUT", bucket=side, description="went in")
        store.add_file(resource, "a/input.txt", b"went into it\n")
    other = store.create_project("OTHER")
    store.share(subject, other, "SHARED_001")
    store.share(session, other, "SHARED_001_MR1")
    store.share(assessor, other, "SHARED_QC")
    store.share(scan, other, "2")
    # It sorts before the session that it names.
    text = _READING.format(session=session.code)
    store.create_experiment(subject, "A_reading", "xnat:subjectVariablesData", doc=text)


def account(sandbox: Sandbox, project: str) -> dict[str, Any]:
    """All that a server holds of a project, by place: fields, resources, files, shares."""
    store = sandbox.store
    tree = json.loads(b"".join(window.inspect(store, sandbox, project)))
    (held,) = tree["projects"]
    names = {
        one["id"]: one["label"]
        for subject in held["subjects"]
        for one in (subject, *subject["sessions"], *_inner(subject, "assessors"))
    }
    settings = {name: store.setting(project, name, "").strip() for name in SETTINGS}
    found: dict[str, Any] = {"settings": settings}
    for place, item in _things(held):
        found[place] = {
            "type": item.get("xsi_type"),
            "fields": {
                path: names.get(value, value)
                for path, value in item["fields"].items()
                if path not in ("ID", "project", "label")
                and "investigatordata_id" not in path
                and not (path == "imageSession_ID" and names[value] == place.split("/")[1])
            },
        }
        for one in item["resources"]:
            label = f"{place}/{one['bucket']}/{one['label']}"
            if label in found:  # XNAT holds two of a label, and makes only one
                label += "_2"
            found[label] = [one[name] for name in ("format", "content", "tags", "description")]
            for file in one["files"]:
                found[f"{label}/{file['path']}"] = (file["size"], file["md5"])
    owned = [item for item in store.find("1=1") if _project(store, item) == project]
    found["custom fields"] = {
        _name(store, item): values
        for item in owned
        if (values := store.record("custom-fields", str(item.id)))
    }
    found["shares"] = {
        _name(store, item): shares for item in owned if (shares := dict(store.shares(item)))
    }
    return found


def _inner(subject: Any, what: str) -> list[Any]:
    return [one for session in subject["sessions"] for one in session[what]]


def _things(project: Any) -> list[tuple[str, Any]]:
    found = [("project", project)]
    for subject in project["subjects"]:
        found.append((subject["label"], subject))
        for session in subject["sessions"]:
            place = f"{subject['label']}/{session['label']}"
            found.append((place, session))
            for level in ("scans", "assessors", "reconstructions"):
                found += [
                    (f"{place}/{level}/{one['label'] or one['id']}", one) for one in session[level]
                ]
    return found


def _name(store: Store, item: Item) -> str:
    return f"{item.kind} {item.label or item.code}"


def _project(store: Store, item: Item) -> str:
    return item.code if item.kind == "project" else store.item(item.project).code
