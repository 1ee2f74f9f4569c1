"""The command lines that scripts were written with: their spelling, the fields of their JSON, what
is on stdout, and the exit code.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from xnatctl.cli.main import run
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings

SUMMARY = {
    "operation",
    "session_id",
    "project",
    "output_dir",
    "source",
    "scans",
    "files",
    "bytes",
    "duration_seconds",
    "status",
    "items",
    "verification",
    "skipped_unsafe_entries",
}
SESSION = ("-P", "DEMO", "-E", "DEMO_001_MR1")
_NUMBERS = count(1)


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def first(self) -> set[str]:
        return set(self.json[0])


Program = Callable[..., Done]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sandbox, Sandbox]]:
    with start_blocking_portal() as portal:
        settings = Settings(pipelines=("recon",), autorun_s=0.3)
        prod = Sandbox(tmp_path_factory.mktemp("prod"), settings=settings)
        dev = Sandbox(tmp_path_factory.mktemp("dev"))
        seed(prod.store, "demo")
        with portal.wrap_async_context_manager(prod), portal.wrap_async_context_manager(dev):
            yield prod, dev


@pytest.fixture
def program(
    servers: tuple[Sandbox, Sandbox],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Program:
    """The program with a file of profiles as 0.6.0 wrote it, in a folder of its own."""
    folder = home / ".config" / "xnatctl"
    folder.mkdir(parents=True)
    lines = ["version: 1", "default_profile: prod", "output_format: table", "profiles:"]
    for name, server in zip(("prod", "dev"), servers, strict=True):
        facts = {
            "url": server.url,
            "username": "admin",
            "password": "admin",
            "verify_ssl": "true",
            "timeout": "21600",
            "workers": "4",
        }
        lines += [f"  {name}:", *(f"    {key}: {value}" for key, value in facts.items())]
    file = folder / "config.yaml"
    file.touch(0o600)
    file.write_text("\n".join(lines) + "\n")

    def call(*argv: str, **environ: str) -> Done:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr("sys.stdin", io.StringIO())
            for name, value in environ.items():
                patch.setenv(name, value)
            code = run(argv)
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def dicom(servers: tuple[Sandbox, Sandbox], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of DICOM."""
    folder, alone = tmp_path_factory.mktemp("dicom"), tmp_path_factory.mktemp("home")
    login = {"XNAT_URL": servers[0].url, "XNAT_USER": "admin", "XNAT_PASS": "admin"}
    words = ("session", "download", *SESSION, "-r", "DICOM", "--out", str(folder), "-q")
    subprocess.run(
        [sys.executable, "-m", "xnatctl", *words],
        env={**os.environ, **login, "HOME": str(alone)},
        check=True,
    )
    return folder


def upload(program: Program, dicom: Path, label: str) -> Done:
    """A session in the prearchive of INBOX."""
    program("project", "create", "INBOX", "--exist-ok")
    words = ("-P", "INBOX", "-S", "SUB1", "-E", label, "--prearchive", "--workers", "4")
    return program("session", "upload", str(dicom), *words, "-o", "json")


# --- uploads and the prearchive ------------------------------------------------------------------


def test_session_upload_to_the_prearchive_prints_one_summary(program: Program, dicom: Path) -> None:
    done = upload(program, dicom, "UP_MR1")
    assert done.code == 0, done.err
    assert done.json.keys() >= SUMMARY
    assert done.json | {"operation": "upload", "status": "success", "session_id": "UP_MR1"} == (
        done.json
    )
    assert done.json["files"] > 0 < done.json["bytes"]


def test_prearchive_list_has_the_rows_of_the_server(program: Program, dicom: Path) -> None:
    upload(program, dicom, "LIST_MR1")
    done = program("prearchive", "list", "--project", "INBOX", "-o", "json")
    assert done.code == 0
    assert done.first >= {
        "project",
        "timestamp",
        "name",
        "folderName",
        "status",
        "scan_date",
        "subject",
        "tag",
    }
    quiet = program("prearchive", "list", "-P", "INBOX", "-q").out
    row = next(one for one in done.json if one["name"] == "LIST_MR1")
    assert f"INBOX/{row['timestamp']}/LIST_MR1" in quiet


def test_prearchive_archive_answers_with_the_experiment(program: Program, dicom: Path) -> None:
    upload(program, dicom, "ARC_MR1")
    rows = program("prearchive", "list", "--project", "INBOX", "-o", "json").json
    row = next(one for one in rows if one["name"] == "ARC_MR1")
    where = ("INBOX", row["timestamp"], "ARC_MR1")
    labels = ("--subject", "SUB9", "--label", "SUB9_MR1")
    done = program("prearchive", "archive", *where, *labels, "-o", "json")
    assert done.code == 0, done.err
    assert done.json.keys() >= {"success", "project", "session", "experiment_uri", "result"}
    assert program("session", "show", "-P", "INBOX", "-E", "SUB9_MR1").code == 0
    assert program("prearchive", "archive", *where, *labels).code == 5


def test_prearchive_delete_says_so_on_stderr_alone(program: Program, dicom: Path) -> None:
    upload(program, dicom, "DEL_MR1")
    rows = program("prearchive", "list", "--project", "INBOX", "-o", "json").json
    row = next(one for one in rows if one["name"] == "DEL_MR1")
    where = ("INBOX", row["timestamp"], "DEL_MR1")
    assert program("prearchive", "delete", *where).code == 2
    done = program("prearchive", "delete", *where, "--yes")
    assert (done.code, done.out) == (0, "")
    assert "DEL_MR1" in done.err


# --- browsing ------------------------------------------------------------------------------------


def test_session_show_has_its_fields_and_exits_5_for_a_missing_one(program: Program) -> None:
    done = program("session", "show", *SESSION, "-o", "json")
    assert set(done.json) == {
        "id",
        "label",
        "subject",
        "project",
        "date",
        "xsi_type",
        "scans",
        "resources",
        "shared_projects",
    }
    assert "ID" in done.json["scans"][0]
    missing = program("session", "show", "-P", "DEMO", "-E", "NOPE", "-o", "json")
    assert (missing.code, missing.out) == (5, "")


def test_session_list_of_a_subject_is_an_array_with_ids(program: Program) -> None:
    words = ("session", "list", "-P", "DEMO", "--subject", "DEMO_001")
    done = program(*words, "--output", "json")
    assert done.first == {"id", "label", "subject", "date", "modality"}
    assert program(*words, "-q").out.split() == [row["id"] for row in done.json]


def test_resource_list_takes_an_accession_id_or_a_label_and_keeps_strings(
    program: Program,
) -> None:
    number = program("session", "show", *SESSION, "-q").out.strip()
    done = program("resource", "list", number, "--scan", "1", "--output", "json")
    assert done.first == {"label", "format", "file_count", "file_size", "content"}
    assert isinstance(done.json[0]["file_count"], str)
    labelled = program(
        "resource", "list", "DEMO_001_MR1", "-P", "DEMO", "--scan", "1", "-o", "json"
    )
    assert labelled.json == done.json


def test_scan_list_is_an_array_and_nothing_for_a_missing_session(program: Program) -> None:
    done = program("scan", "list", *SESSION, "--output", "json")
    assert done.first == {"id", "type", "series_description", "quality", "frames", "note"}
    missing = program("scan", "list", "-P", "DEMO", "-E", "NOPE", "--output", "json")
    assert (missing.code, missing.out) == (5, "")


def test_projects_and_subjects_are_arrays(program: Program) -> None:
    assert program("project", "list", "-o", "json").first == {"id", "name", "pi", "description"}
    subjects = program("subject", "list", "-P", "DEMO", "-o", "json")
    assert subjects.first == {"id", "label", "sessions"}


# --- downloads -----------------------------------------------------------------------------------


def test_session_download_makes_the_tree_and_a_second_run_is_a_no_op(
    program: Program, tmp_path: Path
) -> None:
    number = program("session", "show", *SESSION, "-q").out.strip()
    words = (
        "session",
        "download",
        "-E",
        number,
        "--out",
        "D",
        "--workers",
        "4",
        "--profile",
        "prod",
    )
    first = program(*words, "-o", "json")
    assert first.code == 0, first.err
    assert first.json.keys() >= SUMMARY
    assert first.json | {"operation": "download", "session_id": number} == first.json
    files = sorted(path for path in (tmp_path / "D").rglob("*") if path.is_file())
    assert any("resources/DICOM/files" in path.as_posix() for path in files)
    again = program(*words, "--quiet")
    assert (again.code, again.out) == (0, "")
    assert sorted(path for path in (tmp_path / "D").rglob("*") if path.is_file()) == files


def test_resource_download_writes_a_sound_zip_without_noise(
    program: Program, tmp_path: Path
) -> None:
    number = program("session", "show", *SESSION, "-q").out.strip()
    words = ("resource", "download", number, "DICOM", "--scan", "1")
    done = program(*words, "--file", "F.zip", "-o", "json")
    assert done.code == 0, done.err
    assert "deprecat" not in done.err
    assert done.json.keys() >= SUMMARY
    assert zipfile.ZipFile(tmp_path / "F.zip").testzip() is None
    assert program(*words).code == 2
    nothing = program("resource", "download", number, "NOPE", "--file", "G.zip")
    assert (nothing.code, (tmp_path / "G.zip").exists()) == (5, False)


# --- the server ----------------------------------------------------------------------------------


def test_refresh_catalogs_prints_what_it_did(program: Program) -> None:
    words = ("admin", "refresh-catalogs", "DEMO", "--option", "checksum", "--limit", "2")
    done = program(*words, "-o", "json")
    assert done.code == 0
    assert set(done.json) == {"project", "refreshed", "failed", "count"}
    assert done.json["count"] == 2


def test_an_empty_audit_is_an_empty_array(program: Program) -> None:
    words = ("admin", "audit", "--project", "DEMO", "--since", "7d", "--action", "no such thing")
    done = program(*words, "-o", "json")
    assert (done.code, done.out) == (0, "[]\n")


def test_pipeline_list_is_an_array_and_a_missing_project_exits_5(program: Program) -> None:
    done = program("pipeline", "list", "--project", "DEMO", "-o", "json")
    assert (done.code, done.json[0]["name"]) == (0, "recon")
    table = program("pipeline", "list", "--project", "DEMO").out.splitlines()[0]
    assert table.split("\t") == ["name", "description", "version", "path"]
    assert program("pipeline", "list", "--project", "NOPE").code == 5


def test_pipeline_run_prints_its_job_and_status_its_four_fields(program: Program) -> None:
    number = program("session", "show", *SESSION, "-q").out.strip()
    made = program("pipeline", "run", "recon", "--experiment", number, "-o", "json")
    assert made.code == 0, made.err
    assert made.json.keys() >= {"success", "pipeline", "experiment", "job_id", "result"}
    job = made.json["job_id"]
    done = program("pipeline", "status", job, "--watch", "--interval", "0.2", "-o", "json")
    assert done.json.keys() >= {"status", "message", "start_time", "end_time"}
    assert (done.code, done.json["status"]) == (0, "Complete")
    assert program("pipeline", "status", "99999").code == 5
    told = program("admin", "audit", "--project", "DEMO", "--since", "7d", "-o", "json")
    assert told.first >= {"timestamp", "user", "action", "resource", "project"}


def test_project_create_prints_nothing_on_stdout(program: Program) -> None:
    name = f"MADE{next(_NUMBERS)}"
    done = program("project", "create", name, "--accessibility", "protected")
    assert (done.code, done.out, done.err) == (0, "", f"Project created: {name}\n")
    assert program("project", "create", name).code == 9


# --- transfers -----------------------------------------------------------------------------------


def test_a_transfer_and_what_is_told_of_it(program: Program, tmp_path: Path) -> None:
    ends = ("-P", "DEMO", "--dest-profile", "dev", "--dest-project", "X")
    fields = {
        "source",
        "destination",
        "source_project",
        "dest_project",
        "subjects_synced",
        "subjects_failed",
        "subjects_skipped",
        "experiments_synced",
        "success",
        "dry_run",
    }
    plan = program("project", "transfer", "-p", "prod", *ends, "--dry-run", "-o", "json")
    assert (plan.code, plan.json["dry_run"]) == (0, True)
    check = program("project", "transfer-check", "-p", "prod", *ends, "-o", "json")
    assert check.first == {"check", "status", "detail"}
    done = program("project", "transfer", "-p", "prod", *ends, "--yes", "-o", "json")
    assert done.code == 0, done.err
    assert done.json.keys() >= fields
    assert done.json["success"] is True
    again = program("project", "transfer", "-p", "prod", *ends, "--yes", "-o", "json")
    assert (again.code, again.json["files"]) == (0, 0)
    status = program("project", "transfer-status", "-P", "DEMO", "-o", "json")
    assert set(status.json) >= {
        "sync_id",
        "status",
        "started",
        "ended",
        "subjects_synced",
        "subjects_failed",
        "subjects_skipped",
        "destination",
        "dest_project",
    }
    history = program("project", "transfer-history", "-P", "DEMO", "-o", "json")
    assert history.first >= {"id", "status", "started", "dest", "synced", "failed"}
    assert program("project", "transfer-init", "-f", "start.yaml").code == 0
    assert "source_project" in (tmp_path / "start.yaml").read_text()


# --- where settings come from --------------------------------------------------------------------


def test_the_environment_names_a_server_whatever_the_default_profile_is_called(
    program: Program, servers: tuple[Sandbox, Sandbox]
) -> None:
    login = {"XNAT_USER": "admin", "XNAT_PASS": "admin"}
    there = program("whoami", "-o", "json", XNAT_URL=servers[1].url, **login)
    assert there.json["server"] == servers[1].url
    named = program("whoami", "-o", "json", XNAT_PROFILE="dev")
    assert named.json["profile"] == "dev"


def test_the_source_s_login_never_reaches_a_destination(program: Program) -> None:
    ends = ("-P", "DEMO", "--dest-profile", "dev", "--dest-project", "X", "-o", "json")
    login = {"XNAT_USER": "admin", "XNAT_PASS": "wrong"}
    done = program("project", "transfer-check", "-p", "prod", *ends, **login)
    rows = {row["check"]: row["status"] for row in done.json} if done.out else {}
    assert done.code in (1, 3)
    assert rows.get("destination: login", "OK") == "OK"


def test_global_options_may_stand_before_the_command(program: Program) -> None:
    before = program("-o", "json", "-p", "prod", "project", "list")
    assert before.json == program("project", "list", "-p", "prod", "--output", "json").json
