"""Jobs of a real Slurm as workers: what they leave, what Slurm stores of them, what it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.processes import LOGIN, finished, is_whole, transfer, until
from tests.cluster.slurm import asked, slurm
from tests.faults.children import Servers, servers

pytestmark = pytest.mark.long

DOCS = Path(__file__).parents[2] / "docs/scale.md"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    with slurm() as folder:
        yield folder


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Servers]:
    with servers(tmp_path) as made:
        yield made


def jobs_of(text: str, ends: Servers) -> str:
    """`--cluster` with this file; Slurm's notes on its jobs go to the test's folder."""
    file = ends.home / "jobs.yaml"
    file.write_text(f"{text}\nlog_directory: {ends.home}\n")
    return f"slurm:{file}"


def documented() -> str:
    found = re.search(r"```yaml\n(queue: .*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("mode", ["import", "copy"])
def test_two_jobs_as_documented_leave_what_one_process_leaves_and_see_no_secret_in_slurm(
    cluster: Path, ends: Servers, mode: str
) -> None:
    here = {"SLURM_CONF": f"{cluster}/slurm.conf", **LOGIN}
    (ends.home / ".netrc").write_text("machine 127.0.0.1 login admin password admin\n")
    (ends.home / ".netrc").chmod(0o600)
    text = documented().replace("interface: eth0", "interface: lo")
    process = transfer(ends, "--dicom", mode, cluster=jobs_of(text, ends), environ=here)
    alive = lambda: process.poll() is None  # noqa: E731
    until(lambda: asked(cluster, "squeue", "-h", "-t", "R").count("\n") == 2, alive=alive)
    stored = b"".join(one.read_bytes() for one in cluster.glob("state/hash.*/job.*/*"))
    code, _, err = finished(process)
    assert code == 0, err
    assert is_whole(ends, mode)
    assert b"XNAT_DEST_USER=admin" in stored
    assert b"PASS=" not in stored
    assert "XNAT_DEST_PASS, XNAT_PASS stay here" in err
    assert b"tls://" in stored
    assert not list(ends.home.glob(".xnatctl-jobs-*"))
    until(lambda: not asked(cluster, "squeue", "-h"))


def test_jobs_that_slurm_refuses_end_the_command_with_its_reason(
    cluster: Path, ends: Servers
) -> None:
    here = {"SLURM_CONF": f"{cluster}/slurm.conf", **LOGIN}
    file = jobs_of(documented().replace("transfer", "nights").replace("eth0", "lo"), ends)
    code, _, err = finished(transfer(ends, cluster=file, environ=here))
    assert code == 2, err
    assert "slurm does not take the jobs of --cluster" in err
    assert "Invalid partition name specified" in err
    assert "Traceback" not in err


def test_a_machine_without_the_batch_system_says_which_command_is_missing(ends: Servers) -> None:
    here = {**LOGIN, "PATH": "/opt/none"}
    file = jobs_of("queue: transfer\ncores: 1\nmemory: 1GB\ninterface: lo", ends)
    code, _, err = finished(transfer(ends, cluster=file, environ=here))
    assert code == 2, err
    assert "slurm does not take the jobs of --cluster" in err
    assert "sbatch" in err
