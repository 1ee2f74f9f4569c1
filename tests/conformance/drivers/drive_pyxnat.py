"""What a user of pyxnat does, in four groups."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyxnat
from pyxnat.core.manage import PreArchive


def _connect(url: str) -> Any:
    return pyxnat.Interface(server=url, user="admin", password="admin")


def look(folder: Path, url: str) -> Iterator[str]:
    """Every level is listed and its metadata read."""
    server = _connect(url)
    assert server.select.projects().get() == ["DEMO"]
    yield "connects and lists projects"
    project = server.select.project("DEMO")
    assert project.exists()
    assert project.attrs.get("name") == "Demonstration study"
    assert [resource.label() for resource in project.resources()] == ["docs"]
    yield "reads a project"
    labels = ["DEMO_001", "DEMO_002", "DEMO_003"]
    assert [subject.label() for subject in project.subjects()] == labels
    subject = project.subject("DEMO_001")
    path = "xnat:subjectData/demographics[@xsi:type=xnat:demographicData]/yob"
    assert subject.attrs.mget(["gender", path]) == ["female", "1984"]
    assert subject.attrs.get("xnat:subjectData/fields/field[name=cohort]/field") == "A"
    yield "reads a subject's demographics and custom variables"
    session = subject.experiment("DEMO_001_MR1")
    assert session.datatype() == "xnat:mrSessionData"
    assert session.attrs.get("xnat:mrSessionData/date") == "2024-03-01"
    assert session.xpath("//xnat:scans/xnat:scan/@ID") == ["1", "2", "3", "4"]
    assert len(project.experiments().get()) == 8
    yield "reads a session by fields and by its XML"
    scan = session.scan("2")
    assert scan.attrs.mget(["type", "quality"]) == ["T1w", "usable"]
    assert session.scans().get() == ["1", "2", "3", "4"]
    yield "reads scans"
    assert [one.label() for one in session.assessors()] == ["DEMO_001_MR1_QC1"]
    assert session.reconstructions().get() == ["T1_mean"]
    yield "lists assessors and reconstructions"
    assert [one.label() for one in scan.resources()] == ["DICOM", "NIFTI", "SNAPSHOTS"]
    assert len(scan.resource("DICOM").files().get()) == 24
    assert scan.resource("DICOM").attributes()["file_count"] == "24"
    yield "lists resources and files"
    array = server.array
    sessions = array.experiments(project_id="DEMO", experiment_type="xnat:mrSessionData").data
    assert len(sessions) == 3
    assert array.experiments(experiment_id=sessions[0]["ID"]).data[0]["subject_ID"]
    scans = array.scans(
        project_id="DEMO", experiment_type="xnat:mrSessionData", scan_type="xnat:mrScanData"
    ).data
    assert len(scans) == 11
    yield "asks for tables of sessions and of their scans"
    assert "xnat:mrSessionData" in server.inspect.datatypes()
    assert "xnat:mrSessionData/LABEL" in server.inspect.datatypes("xnat:mrSessionData", "*")
    yield "asks for types and their fields"
    kind = "xnat:mrSessionData"
    wanted = [(f"{kind}/PROJECT", "=", "DEMO"), (f"{kind}/DATE", ">", "2024-03-01"), "AND"]
    found = server.select(kind, [f"{kind}/LABEL"]).where(wanted)
    assert "DEMO_001_MR1" not in [row["label"] for row in found.data] != []
    yield "searches"
    for item in (project, subject, session):
        assert repr(item).startswith("<") and "DEMO" in repr(item)
    assert "female" in repr(subject) and "4 scans" in repr(session)
    yield "shows a project, a subject and a session as text"
    assert (project.owners(), project.user_role("admin")) == (["admin"], "owner")
    yield "lists a project's users"
    server.disconnect()
    yield "logs out"


def fetch(folder: Path, url: str) -> Iterator[str]:
    """Files are downloaded singly and as zips."""
    server = _connect(url)
    session = server.select.project("DEMO").subject("DEMO_001").experiment("DEMO_001_MR1")
    resource = session.scan("2").resource("DICOM")
    file = resource.file("MR-0001.dcm")
    file.get(str(folder / "one.dcm"))
    assert str((folder / "one.dcm").stat().st_size) == file.size()
    yield "downloads a file"
    path = Path(resource.get(str(folder), extract=False))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 24
    yield "downloads a resource as a zip"
    assert len(resource.get(str(folder), extract=True)) == 24
    yield "downloads a resource into a folder"
    path = Path(session.scans().download(str(folder), type="ALL", name="scans", extract=False))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 59
    yield "downloads all scans as a zip"
    server.disconnect()
    yield "logs out"


def write(folder: Path, url: str) -> Iterator[str]:
    """Items are created, changed, filled and deleted again."""
    server = _connect(url)
    project = server.select.project("DEMO")
    subject = project.subject("NEW").insert()
    subject.attrs.set("gender", "female")
    variable = "xnat:subjectData/fields/field[name=cohort]/field"
    subject.attrs.mset({variable: "Z", "xnat:subjectData/group": "ctl"})
    assert subject.attrs.mget(["gender", variable, "group"]) == ["female", "Z", "ctl"]
    yield "creates a subject with demographics and a custom variable"
    session = subject.experiment("NEW_MR1")
    session.create(experiments="xnat:mrSessionData", **{"xnat:mrSessionData/date": "2024-05-05"})
    assert session.attrs.get("date") == "2024-05-05"
    yield "creates a session"
    scan = session.scan("5")
    scan.create(scans="xnat:mrScanData", **{"xnat:mrScanData/type": "T2w"})
    assert scan.attrs.get("type") == "T2w"
    yield "creates a scan"
    source = str(folder / "files" / "a.txt")
    file = scan.resource("NOTES").file("a.txt")
    file.put(source, format="TXT", content="note", tags="one")
    assert (file.size(), file.format(), file.content()) == ("2", "TXT", "note")
    yield "uploads a file"
    session.resource("DIR").put_dir(str(folder / "files"))
    assert sorted(session.resource("DIR").files().get()) == ["a.txt", "b.txt"]
    yield "uploads a directory"
    with zipfile.ZipFile(folder / "some.zip", "w") as archive:
        archive.write(source, "deep/a.txt")
    session.resource("ZIP").put_zip(str(folder / "some.zip"), extract=True)
    assert session.resource("ZIP").file("deep/a.txt").exists()
    yield "uploads a zip that the server unpacks"
    other = server.select.project("OTHER").insert()
    session.share("OTHER")
    assert sorted(session.shares().get()) == ["DEMO", "OTHER"]
    session.unshare("OTHER")
    assert session.shares().get() == ["DEMO"]
    other.delete()
    yield "creates a project, shares a session into it and takes it back"
    session.resource("ZIP").file("deep/a.txt").delete()
    session.resource("DIR").delete()
    assert not session.resource("DIR").exists()
    yield "deletes a file and a resource"
    for item in (scan, session, subject):
        item.delete()
        assert not item.exists()
    yield "deletes a scan, a session and a subject"
    server.disconnect()
    yield "logs out"


def take_in(folder: Path, url: str) -> Iterator[str]:
    """DICOM is imported, looked at in the prearchive, and archived."""
    server = _connect(url)
    project = server.select.project("DEMO")
    project.set_prearchive_code("0")
    assert int(project.prearchive_code()) == 0
    yield "sets a project's prearchive code"
    query = "import-handler=DICOM-zip&dest=/prearchive&project=DEMO&subject=NEW&session=NEW_MR1"
    sent = server.post(
        f"/data/services/import?{query}&inbody=true",
        data=(folder / "study.zip").read_bytes(),
        headers={"Content-Type": "application/zip"},
    )
    assert sent.status_code == 200, sent.text
    yield "imports a DICOM zip into the prearchive"
    prearchive = PreArchive(server)
    (entry,) = prearchive.get()
    assert (entry[0], entry[2]) == ("DEMO", "NEW_MR1")
    assert prearchive.get_scans(entry) == "3"
    assert prearchive.get_resources(entry, "3") == "DICOM"
    assert len(prearchive.get_files(entry, "3", "DICOM")) == 4
    yield "lists the prearchive, its scans and files"
    prearchive.reset(entry)
    assert prearchive.status(entry) == "READY"
    yield "builds a prearchive session"
    done = server.post("/data/services/archive?src=" + prearchive.get_uri(entry))
    assert done.status_code == 200, done.text
    assert prearchive.get() == []
    assert project.subject("NEW").experiment("NEW_MR1").scans().get() == ["3"]
    yield "archives it"
    server.disconnect()
    yield "logs out"


GROUPS = {"look": look, "fetch": fetch, "write": write, "take-in": take_in}
