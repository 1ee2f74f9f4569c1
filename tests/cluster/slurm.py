"""A Slurm of one node, started by hand in a folder of its own: munged, slurmctld, slurmd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cluster.processes import running, until

CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/socket
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_min_interval=2
MpiDefault=none
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000
PartitionName=transfer Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm() -> Iterator[Path]:
    """The folder of one that runs jobs; its `slurm.conf` goes to commands as SLURM_CONF.

    Skips the test where there is none or where it does not start.
    """
    daemons = [shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("munged", "slurmctld")]
    if None in daemons or shutil.which("sbatch") is None or os.geteuid() != 0:
        pytest.skip("a Slurm of one's own needs root and the packages slurm-wlm and munge")
    with ExitStack() as stack:
        # Not in pytest's folder: the path of a socket has 107 bytes at most.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        folder.chmod(0o755)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o600)
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        values = {"host": socket.gethostname().partition(".")[0], "folder": folder}
        text = CONFIGURATION.format(ports=(_free_port(), _free_port()), **values)
        (folder / "slurm.conf").write_text(text)
        files = {"key-file": "munge.key", "socket": "socket", "pid-file": "munged.pid"}
        files |= {"log-file": "munged.log", "seed-file": "seed"}
        munge = [f"--{name}={folder / file}" for name, file in files.items()]
        environ = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
        for command in (
            ["munged", "--foreground", *munge],
            ["slurmctld", "-D", "-f", f"{folder}/slurm.conf"],
            ["slurmd", "-D", "-f", f"{folder}/slurm.conf"],
        ):
            process = stack.enter_context(running(command, environ))
        try:
            until(lambda: "idle" in asked(folder, "sinfo"), alive=lambda: process.poll() is None)
        except AssertionError as error:
            log = (folder / "slurmd.log").read_text("utf-8", "replace").splitlines()[-3:]
            pytest.skip(f"slurmd does not run here: {error}: {'; '.join(log)}")
        yield folder


def asked(folder: Path, *command: str) -> str:
    environ = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return done.stdout


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port
