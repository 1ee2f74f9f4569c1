"""xnatpy, pyxnat and xnatctl 0.6 drive the sandbox, unmodified.

What a client believes is checked in its driver; here the sandbox itself is asked what became of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import pytest

from tests.integration.everything import add_the_rest
from xnatctl.sandbox import window
from xnatctl.sandbox.seed import seed

from .conftest import PYXNAT, XNATCTL06, XNATPY, Bench, Foreign

CLIENTS = [
    pytest.param(client, id=f"{client.name}") for client in (XNATPY, PYXNAT, XNATCTL06)
]  # fmt: skip


def tree(bench: Bench, sandbox: Any = None) -> Any:
    """All that a sandbox holds."""
    sandbox = sandbox or bench.full
    return json.loads(b"".join(window.inspect(sandbox.store, sandbox)))


def sessions(held: Any) -> dict[str, Any]:
    """The sessions of the project DEMO by label."""
    project = next(project for project in held["projects"] if project["id"] == "DEMO")
    return {one["label"]: one for subject in project["subjects"] for one in subject["sessions"]}


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_level_is_listed_and_its_metadata_read(bench: Bench, client: Foreign) -> None:
    before = tree(bench)
    assert len(await bench.run(client, "look")) >= 7
    assert tree(bench) == before
    assert bench.full.counters.count("DELETE", "/data/JSESSION", 200) >= 1


@pytest.mark.parametrize("client", CLIENTS)
async def test_files_are_downloaded_singly_and_as_zips(bench: Bench, client: Foreign) -> None:
    assert len(await bench.run(client, "fetch")) >= 4


@pytest.mark.parametrize("client", CLIENTS)
async def test_what_a_client_makes_it_can_fill_and_delete(bench: Bench, client: Foreign) -> None:
    before = tree(bench)
    assert len(await bench.run(client, "write")) >= 7
    assert tree(bench) == before


@pytest.mark.parametrize("client", CLIENTS)
async def test_dicom_is_imported_and_archived(bench: Bench, client: Foreign) -> None:
    await bench.run(client, "take-in")
    session = sessions(tree(bench))["NEW_MR1"]
    assert session["xsi_type"] == "xnat:mrSessionData"
    if client is not XNATCTL06:  # Which deletes the scan at the end.
        (scan,) = session["scans"]
        assert len(scan["resources"][0]["files"]) == 4


@pytest.mark.parametrize("client", [pytest.param(XNATCTL06, id=XNATCTL06.name)])
async def test_a_project_is_transferred_between_two_sandboxes(
    bench: Bench, client: Foreign
) -> None:
    await bench.run(client, "transfer")
    there = sessions(tree(bench, bench.bare))
    here = sessions(tree(bench))
    assert there.keys() == here.keys()
    for label, session in there.items():
        assert {scan["id"] for scan in session["scans"]} == {
            scan["id"] for scan in here[label]["scans"]
        }


@pytest.mark.parametrize("dicom", [pytest.param("copy", marks=pytest.mark.long), "import"])
@pytest.mark.parametrize("client", [pytest.param(XNATPY, id=XNATPY.name)])
async def test_what_our_transfer_carried_reads_the_same_at_both_ends(
    bench: Bench, client: Foreign, dicom: str
) -> None:
    add_the_rest(bench.full.store)
    seed(bench.full.store, "nasty")
    for project in ("OTHER", "NASTY2"):
        bench.bare.store.create_project(project)
    names = {"XNAT": bench.full.url, "XNAT_DEST": bench.bare.url}
    env = {"PATH": os.environ["PATH"], "HOME": str(bench.folder)}
    for prefix, url in names.items():
        env |= {f"{prefix}_URL": url, f"{prefix}_USER": "admin", f"{prefix}_PASS": "admin"}
    for project in ("DEMO", "NASTY"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "xnatctl", "project", "transfer", "-P", project,
            "--dest-project", project, "--dicom", dicom, "--yes",
            "--accept", "catalog-name,unsafe-name", env=env,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, said

    assert len(await bench.run(client, "compare")) >= 20
