"""What a user of xnatpy does, in groups of steps."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xnat


def _connect(url: str) -> Any:
    return xnat.connect(url, user="admin", password="admin", loglevel="ERROR")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def look(folder: Path, url: str) -> Iterator[str]:
    """Every level is listed and its metadata read."""
    with _connect(url) as server:
        assert server.logged_in_user == "admin"
        yield "connects, and builds its classes from the schemas"
        project = server.projects["DEMO"]
        assert project.name == "Demonstration study"
        assert [resource.label for resource in project.resources.values()] == ["docs"]
        yield "lists projects and a project's resources"
        subject = project.subjects["DEMO_001"]
        assert sorted(one.label for one in project.subjects.values())[0] == "DEMO_001"
        assert (subject.demographics.gender, subject.demographics.yob) == ("female", 1984)
        assert (subject.group, subject.fields["cohort"]) == ("patient", "A")
        yield "reads a subject's demographics and custom variables"
        assert len(project.experiments) == 8
        session = subject.experiments["DEMO_001_MR1"]
        assert type(session).__name__ == "MrSessionData"
        assert session.date == datetime.date(2024, 3, 1)
        assert session.scanner.model == "Phantom MR"
        assert dict(session.fields) == {"rater": "Rita", "fasting": "no"}
        assert session.status == "active"
        assert session.subject.label == "DEMO_001"
        yield "reads a session of its own class"
        scan = session.scans["2"]
        assert session.scans["T1w"] is scan
        assert (scan.type, scan.quality, scan.frames) == ("T1w", "usable", 24)
        assert scan.parameters.voxel_res.x == 1.0
        yield "reads scans by ID and by type"
        assert {one.label for one in scan.resources.values()} == {"DICOM", "NIFTI", "SNAPSHOTS"}
        assert len(scan.resources["DICOM"].files) == scan.resources["DICOM"].file_count == 24
        yield "lists resources and files"
        assessor = session.assessors["DEMO_001_MR1_QC1"]
        assert (assessor.rater, len(assessor.scans)) == ("Rita Rater", 2)
        assert next(iter(session.reconstructions.values())).id == "T1_mean"
        yield "reads an assessor and a reconstruction"
        assert "admin" in server.users
        assert "admin" in project.users
        assert server.access_levels.keys() == {"DEMO"}
        yield "lists users and access levels"
    yield "logs out"


def fetch(folder: Path, url: str) -> Iterator[str]:
    """Files are downloaded singly and as zips."""
    with _connect(url) as server:
        session = server.projects["DEMO"].experiments["DEMO_001_MR1"]
        scan = session.scans["2"]
        scan.download(str(folder / "scan.zip"), verbose=False)
        with zipfile.ZipFile(folder / "scan.zip") as archive:
            assert archive.testzip() is None
            assert len(archive.namelist()) == 29
        yield "downloads a scan as a zip"
        first = scan.resources["DICOM"].files["MR-0001.dcm"]
        first.download(str(folder / "one.dcm"), verbose=False)
        assert (folder / "one.dcm").stat().st_size == int(first.size)
        yield "downloads a file"
        with first.open() as stream:
            assert stream.read(132)[128:] == b"DICM"
        assert scan.read_dicom().Modality == "MR"
        yield "reads a DICOM header out of a remote file"
        names = [row["desc"] for row in scan.dicom_dump()]
        assert "Patient's Name" in names
        yield "asks the server for a DICOM dump"
        scan.resources["DICOM"].download_dir(str(folder / "resource"), verbose=False)
        assert len(_files(folder / "resource")) == 24
        yield "downloads a resource into a folder"
        session.download_dir(str(folder / "session"), verbose=False)
        assert len(_files(folder / "session")) == 59
        yield "downloads a session into a folder"
    yield "logs out"


def write(folder: Path, url: str) -> Iterator[str]:
    """Items are created, changed, filled and deleted again."""
    with _connect(url) as server:
        project = server.projects["DEMO"]
        subject = server.classes.SubjectData(parent=project, label="NEW")
        subject.demographics.gender = "female"
        subject.fields["cohort"] = "Z"
        subject.clearcache()
        assert subject.demographics.gender == "female"
        assert dict(subject.fields) == {"cohort": "Z"}
        yield "creates a subject with demographics and a custom variable"
        session = server.classes.MrSessionData(parent=subject, label="NEW_MR1")
        session.date = "2024-05-05"
        session.clearcache()
        assert session.date == datetime.date(2024, 5, 5)
        yield "creates a session and sets its date"
        scan = server.classes.MrScanData(parent=session, type="T1w")
        scan.quality = "questionable"
        scan.clearcache()
        assert scan.quality == "questionable"
        yield "creates a scan"
        notes = scan.create_resource("NOTES")
        notes.upload(str(folder / "files" / "a.txt"), "a.txt")
        notes.clearcache()
        assert [file.name for file in notes.files.values()] == ["a.txt"]
        yield "creates a resource and uploads a file"
        for way in ("per_file", "tar_memory", "tgz_file"):
            bag = session.create_resource(way)
            bag.upload_dir(str(folder / "files"), method=way)
            bag.clearcache()
            paths = {file.uri.partition("/files/")[2] for file in bag.files.values()}
            assert paths == {"a.txt", "sub/b.txt"}, (way, paths)
        yield "uploads a directory file by file and as an archive"
        session.label = "NEW_MR2"
        project.clearcache()
        assert "NEW_MR2" in project.experiments
        yield "renames a session"
        bag = project.experiments["NEW_MR2"].resources["per_file"]
        bag.files["a.txt"].delete()
        bag.clearcache()
        assert [file.name for file in bag.files.values()] == ["b.txt"]
        assert bag.id  # It is asked for again after the deletion, and must be known by then.
        bag.delete()
        yield "deletes a file and a resource"
        session.scans["T1w"].delete()
        project.experiments["NEW_MR2"].delete()
        project.clearcache()
        project.subjects["NEW"].delete()
        assert "NEW" not in project.subjects
        yield "deletes a scan, a session and a subject"
    yield "logs out"


def take_in(folder: Path, url: str) -> Iterator[str]:
    """DICOM is imported, looked at in the prearchive, and archived."""
    with _connect(url) as server:
        send = server.services.import_
        study = str(folder / "study.zip")
        entry = send(
            study, project="DEMO", subject="NEW", experiment="NEW_MR1",
            destination="/prearchive", import_handler="DICOM-zip",
        )  # fmt: skip
        assert (entry.project, entry.subject, entry.label) == ("DEMO", "NEW", "NEW_MR1")
        yield "imports a DICOM zip into the prearchive"
        assert [one.label for one in server.prearchive.find(project="DEMO")] == ["NEW_MR1"]
        scan = entry.scans["3"]
        assert scan.series_description == "t1 mprage"
        assert len(scan.files) == 4
        yield "lists the prearchive, its scans and files"
        entry.download(str(folder / "entry.zip"))
        with zipfile.ZipFile(folder / "entry.zip") as archive:
            assert sum(name.endswith(".dcm") for name in archive.namelist()) == 4
        yield "downloads a prearchive session"
        session = entry.archive(project="DEMO", subject="NEW", experiment="NEW_MR1")
        assert [one.id for one in session.scans.values()] == ["3"]
        yield "archives it"
        server.services.refresh_catalog(session, checksum=True, populate_stats=True)
        yield "refreshes the catalogs"
        second = send(
            study, project="DEMO", subject="NEW", experiment="NEW_MR2", destination="/prearchive"
        )
        second.delete()
        assert server.prearchive.find(project="DEMO") == []
        yield "deletes a prearchive session"
        session = send(
            study, project="DEMO", subject="NEW", experiment="NEW_MR3", destination="/archive"
        )
        assert session.label == "NEW_MR3"
        yield "imports a DICOM zip straight into the archive"
        token = server.services.issue_token()
        with xnat.connect(url, user=token.alias, password=token.secret, loglevel="ERROR") as other:
            assert other.logged_in_user == "admin"
        yield "logs in by an alias token"
    yield "logs out"


def _values(item: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(item, name, None) for name in names}


def _resources(item: Any) -> dict[str, Any]:
    """Of two resources of one label the second is called as it arrives at another server."""
    found: dict[str, Any] = {}
    for one in item.resources.values():
        label = f"{one.label}_2" if one.label in found else one.label
        found[label] = (one.format, one.content, len(one.files))
    return found


def _session(server: Any, session: Any) -> dict[str, Any]:
    said = _values(session, "date", "time", "note", "acquisition_site", "operator", "visit_id")
    said["type"] = type(session).__name__
    said["fields"] = dict(session.fields)
    said["resources"] = _resources(session)
    if not hasattr(session, "scans"):
        return said
    said["scanner"] = _values(session.scanner, "manufacturer", "model")
    for scan in session.scans.values():
        values = _values(scan, "type", "quality", "note", "series_description", "frames", "uid")
        said[f"scan {scan.id}"] = (type(scan).__name__, values, _resources(scan))
    # xnatpy makes no objects of types whose plugin's schema the server does not offer.
    for row in server.get_json(f"{session.uri}/assessors")["ResultSet"]["Result"]:
        (item,) = server.get_json(f"/data/experiments/{row['ID']}")["items"]
        apart = ("ID", "imageSession_ID")
        held = {name: one for name, one in item["data_fields"].items() if name not in apart}
        said[f"assessor {row['label']}"] = (row["xsiType"], held)
    for one in session.reconstructions.values():
        said[f"reconstruction {one.id}"] = _values(one, "type", "base_scan_type")
    return said


def _project(server: Any, name: str) -> dict[str, Any]:
    project, names = server.projects[name], {}
    said: dict[str, Any] = {"": _resources(project)}
    said["project"] = _values(project, "name", "description", "keywords")
    for subject in project.subjects.values():
        (item,) = server.get_json(f"/data/subjects/{subject.id}")["items"]
        if item["data_fields"]["project"] != name:  # shared into the project
            continue
        values = _values(subject.demographics, "gender", "yob", "handedness")
        said[subject.label] = (values, subject.group, dict(subject.fields), _resources(subject))
        for session in subject.experiments.values():
            said[f"{subject.label}/{session.label}"] = _session(server, session)
            names[session.id] = session.label
    # Each server gives accession IDs of its own, so a text that is one is told by its label.
    for values in said.values():
        if isinstance(values, dict) and values.get("note") in names:
            values["note"] = names[values["note"]]
    return said


def _unlike(mine: Any, theirs: Any, place: str) -> Iterator[str]:
    """Where two accounts differ. Where the first says nothing the second may: an import fills in
    what the headers say. Three files of UNFIT are those that nothing can carry.
    """
    if isinstance(mine, dict | tuple) and type(mine) is type(theirs) and len(mine) == len(theirs):
        for name in mine if isinstance(mine, dict) else range(len(mine)):
            if isinstance(mine, dict) and name not in theirs:
                yield f"{place}/{name} is missing"
            elif name != "UNFIT":
                yield from _unlike(mine[name], theirs[name], f"{place}/{name}")
    elif mine not in (None, "", {}) and mine != theirs:
        yield f"{place}: {mine} and {theirs}"


def compare(folder: Path, here: str, there: str) -> Iterator[str]:
    """What one server says of two projects, the other says too."""
    for name in ("DEMO", "NASTY"):
        with _connect(here) as source:
            mine = _project(source, name)
        with _connect(there) as sink:
            theirs = _project(sink, name)
        assert mine.keys() == theirs.keys(), ascii(mine.keys() ^ theirs.keys())
        for place, said in mine.items():
            unlike = list(_unlike(said, theirs[place], place))
            assert not unlike, unlike
            yield f"reads the same of {place or f'the resources of {name}'}"


GROUPS = {"look": look, "fetch": fetch, "write": write, "take-in": take_in, "compare": compare}
