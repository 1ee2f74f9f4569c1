"""What `--cluster` may say, and one clear sentence for what it may not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xnatctl.cli.remote import Address, RemoteExport
from xnatctl.cluster.crew import QUEUES, Spec, open_crew, parse_spec
from xnatctl.cluster.wire import Timing
from xnatctl.endpoints.bundle import Origin
from xnatctl.engine.types import Selection
from xnatctl.errors import ConfigError, MissingExtra, Unreachable, UsageError
from xnatctl.model import Ref
from xnatctl.routes import ExportEnds


def test_a_number_an_address_and_a_file_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text("queue: long\ncores: 4\nmemory: 8GB\nprocesses: 2\njobs: 3\nwait: 60\n")
    assert parse_spec("local:4") == Spec("local", count=4)
    assert parse_spec("tls://head:8786").address == "tls://head:8786"
    found = parse_spec(f"slurm:{file}")
    assert (found.kind, found.jobs, found.expected, found.wait_s) == ("slurm", 3, 6, 60.0)
    assert found.keys == {"queue": "long", "cores": 4, "memory": "8GB", "processes": 2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("local", "has no number of workers"),
        ("local:0", "has no number of workers"),
        ("local:many", "has no number of workers"),
        ("tcp://head", "is no address"),
        ("tcp://:8786", "is no address"),
        ("condor:jobs.yaml", "is none of the known kinds"),
        ("4", "is none of the known kinds"),
    ],
)
def test_what_makes_no_sense_is_refused_with_an_example(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        parse_spec(text)
    assert "--cluster" in error.value.hint


@pytest.mark.parametrize("content", [None, "", "- a\n", "jobs: many\n", "a: [\n"])
def test_a_file_that_describes_no_jobs_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "jobs.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"jobs\.yaml does not describe jobs for slurm"):
        parse_spec(f"slurm:{file}")


@pytest.mark.parametrize("missing", ["distributed", "cryptography"])
async def test_a_missing_package_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtra) as error:
        async with open_crew(parse_spec("local:1"), slots=1):
            pass
    assert missing in str(error.value)
    assert error.value.hint == "pip install 'xnatctl[dask]'"


async def test_a_scheduler_that_does_not_answer_is_named() -> None:
    with pytest.raises(Unreachable, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        async with open_crew(
            parse_spec("tcp://127.0.0.1:1"), slots=1, timing=Timing(connect_s=0.5)
        ):
            pass


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("slurm", "#SBATCH -p long"),
        ("pbs", "#PBS -q long"),
        ("sge", "#$ -q long"),
        ("lsf", "#BSUB -q long"),
    ],
)
async def test_the_jobs_of_a_batch_system_start_workers_of_our_scheduler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, line: str
) -> None:
    import dask_jobqueue

    scripts: list[str] = []
    real = getattr(dask_jobqueue, QUEUES[kind])

    class Noted(real):  # type: ignore[misc, valid-type]
        def new_worker_spec(self) -> dict[str, object]:
            scripts.append(self.job_script())
            return {}

    monkeypatch.setattr(dask_jobqueue, QUEUES[kind], Noted)
    file = tmp_path / "jobs.yaml"
    file.write_text("queue: long\ncores: 4\nmemory: 8GB\njobs: 3\ninterface: lo\n")
    async with open_crew(parse_spec(f"{kind}:{file}"), slots=4) as crew:
        address = crew.client.scheduler.address
    assert len(scripts) == 3
    script = scripts[0]
    assert line in script
    assert f"dask worker {address}" in script or f"dask_worker {address}" in script


async def test_a_key_that_dask_does_not_know_is_named(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text("queue: long\ncores: 4\nmemory: 8GB\ncoers: 3\n")
    with pytest.raises(ConfigError, match="coers"):
        async with open_crew(parse_spec(f"slurm:{file}"), slots=4):
            pass


async def test_a_folder_that_a_worker_does_not_share_is_named(tmp_path: Path) -> None:
    ends = ExportEnds(Selection(Ref("P")), tmp_path, "name", Origin("url"), whole="file:///x")
    address = Address("default", "http://127.0.0.1:1", "source", None, True, None, None)
    sign = tmp_path / ".xnatctl-0123456789abcdef.part"
    with pytest.raises(ConfigError, match="is another folder there"):
        async with RemoteExport(ends, address, sign).open():
            pass
