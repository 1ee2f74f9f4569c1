"""What a user of xnatctl 0.6 types, in five groups: its own program, many commands a process."""

from __future__ import annotations

import importlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# By name: these are modules of the other program that is called xnatctl, and of its libraries.
cli: Any = importlib.import_module("xnatctl.cli.main").cli
runner: Any = importlib.import_module("click.testing").CliRunner()


def _run(line: str, *more: str) -> str:
    done = runner.invoke(cli, [*line.split(), *more])
    if done.exit_code:
        raise AssertionError(f"{line}: exit {done.exit_code}\n{done.output}") from done.exception
    return str(done.stdout)


def _read(line: str, *more: str) -> Any:
    return json.loads(_run(line, *more, "-o", "json"))


def _connect(*urls: str) -> None:
    os.environ |= {"XNAT_USER": "admin", "XNAT_PASS": "admin"}
    for name, url in zip(("one", "two"), urls, strict=False):
        _run(f"config add-profile {name} --url {url}")
    _run("auth login -p one")


def look(folder: Path, url: str) -> Iterator[str]:
    """Every level is listed and its metadata read."""
    _connect(url)
    assert "admin" in _run("whoami -p one")
    assert "1.8" in _run("health ping -p one")
    yield "logs in and asks who it is"
    assert _run("project list -p one -q").split() == ["DEMO"]
    assert "Demonstration study" in _run("project show DEMO -p one")
    yield "lists and shows projects"
    assert len(_read("subject list -P DEMO -p one")) == 3
    assert "DEMO_001_MR2" in _run("subject show DEMO_001 -P DEMO -p one")
    assert "cohort" in _run("subject vars DEMO_001 -P DEMO -p one")
    yield "lists subjects and reads custom variables"
    assert len(_read("session list -P DEMO -p one")) == 8
    assert "PHYSIO" in _run("session show -E DEMO_001_MR1 -P DEMO -p one")
    assert "Rita" in _run("session vars -E DEMO_001_MR1 -P DEMO -p one")
    yield "lists sessions and shows one"
    assert len(_read("scan list -E DEMO_001_MR1 -P DEMO -p one")) == 4
    assert "NIFTI" in _run("scan show -E DEMO_001_MR1 2 -P DEMO -p one")
    yield "lists scans and shows one"
    session = _run("session list -P DEMO -p one -q").split()[0]
    assert "DICOM" in _run(f"resource list {session} --scan 2 -p one")
    assert "PHYSIO" in _run(f"resource show {session} PHYSIO -p one")
    yield "lists resources and shows one"
    assert "admin" in _run("project users DEMO -p one")
    _run("auth logout -p one")
    yield "lists users and logs out"


def fetch(folder: Path, url: str) -> Iterator[str]:
    """Scans, sessions and resources are downloaded."""
    _connect(url)
    _run(f"scan download -E DEMO_001_MR1 --scans 2 -P DEMO -p one --out {folder}/scan")
    with zipfile.ZipFile(folder / "scan" / "DEMO_001_MR1" / "scans.zip") as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 29
    yield "downloads a scan as a zip"
    _run(f"session download -E DEMO_001_MR1 -P DEMO -p one --out {folder}/session --extract")
    assert sum(path.is_file() for path in (folder / "session").rglob("*")) == 59
    yield "downloads a session into a folder"
    session = _run("session list -P DEMO -p one -q").split()[0]
    _run(f"resource download {session} PHYSIO -p one -f {folder}/physio.zip")
    assert len(zipfile.ZipFile(folder / "physio.zip").namelist()) == 2
    yield "downloads a resource"
    _run("auth logout -p one")
    yield "logs out"


def write(folder: Path, url: str) -> Iterator[str]:
    """Items are created, changed, filled and deleted again."""
    _connect(url)
    _run("project create NEW -p one --name New")
    assert _run("project list -p one -q").split() == ["DEMO", "NEW"]
    yield "creates a project"
    _run("api put /data/projects/DEMO/subjects/NEW -p one")
    path = "/data/projects/DEMO/subjects/NEW/experiments/NEW_MR1"
    _run(f"api put {path} --params xsiType=xnat:mrSessionData -p one")
    yield "creates a subject and a session"
    _run("subject vars set NEW -P DEMO cohort=Z -p one --yes")
    assert "Z" in _run("subject vars NEW -P DEMO -p one")
    yield "sets a custom variable"
    rows = _read("session list -P DEMO -S NEW -p one")
    session = str(rows[0].get("id") or rows[0].get("ID"))
    _run(f"resource upload {session} NOTES {folder}/files -p one")
    _run(f"resource download {session} NOTES -p one -f {folder}/notes.zip")
    names = zipfile.ZipFile(folder / "notes.zip").namelist()
    assert sorted(name.partition("/files/")[2] for name in names) == ["a.txt", "sub/b.txt"]
    yield "uploads a directory and downloads it again"
    _run("session share -E NEW_MR1 -P DEMO --into NEW --label THERE -p one --yes")
    assert "THERE" in _run("session list -P NEW -p one")
    _run("session unshare -E NEW_MR1 -P DEMO --from NEW -p one --yes")
    yield "shares a session and takes it back"
    _run("subject delete NEW -P DEMO -p one --yes")
    assert "NEW" not in _run("subject list -P DEMO -p one")
    _run("api delete /data/projects/NEW -p one --yes")
    yield "deletes a subject with its session, and a project"
    _run("auth logout -p one")
    yield "logs out"


def take_in(folder: Path, url: str) -> Iterator[str]:
    """DICOM is uploaded, looked at in the prearchive, and archived."""
    _connect(url)
    _run("prearchive settings -P DEMO --set manual -p one --yes")
    yield "sets a project's prearchive mode"
    with zipfile.ZipFile(folder / "study.zip") as archive:
        archive.extractall(folder / "study")
    for number, mode in enumerate(("zip", "tar", "gradual"), 1):
        to = f"-P DEMO -S NEW -E NEW_MR{number} --mode {mode} --prearchive"
        _run(f"session upload {folder}/study {to} -p one")
        yield f"uploads a folder of DICOM as {mode}"
    rows = _read("prearchive list --project DEMO -p one")
    assert sorted(row["name"] for row in rows) == ["NEW_MR1", "NEW_MR2", "NEW_MR3"], rows
    yield "lists the prearchive"
    entries = {row["name"]: f"DEMO {row['timestamp']} {row['folderName']}" for row in rows}
    _run(f"prearchive archive {entries['NEW_MR1']} -p one")
    assert len(_read("scan list -E NEW_MR1 -P DEMO -p one")) == 1
    yield "archives it"
    _run(f"prearchive delete {entries['NEW_MR2']} -p one --yes")
    assert "NEW_MR2" not in _run("prearchive list --project DEMO -p one")
    yield "deletes a prearchive session"
    _run("scan delete -E NEW_MR1 -P DEMO --scans 3 -p one --yes")
    assert _read("scan list -E NEW_MR1 -P DEMO -p one") == []
    yield "deletes a scan"
    _run("auth logout -p one")
    yield "logs out"


def transfer(folder: Path, url: str, other: str) -> Iterator[str]:
    """A project is copied from one server to another."""
    _connect(url, other)
    _run("project create DEMO -p two")
    (folder / "transfer.yaml").write_text(
        "source_project: DEMO\ndest_project: DEMO\nscan_retry_delay: 0.1\n"
        "archive_poll_interval: 0.05\narchive_wait_timeout: 60\n",
        encoding="utf-8",
    )
    _run("project transfer-check -P DEMO --dest-project DEMO --dest-profile two -p one")
    yield "checks both ends"
    said = _run(
        "project transfer -P DEMO --dest-project DEMO --dest-profile two -p one --yes",
        "--config", f"{folder}/transfer.yaml", "-o", "json",
    )  # fmt: skip
    report = json.loads(said[said.index("{") :])
    assert report["success"], report
    assert report["experiments_synced"] == 7
    yield "transfers a project between two servers"


GROUPS = {"look": look, "fetch": fetch, "write": write, "take-in": take_in, "transfer": transfer}
