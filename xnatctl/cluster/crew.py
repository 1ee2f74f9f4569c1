"""Where workers come from: `--cluster local:N`, `tcp://HOST:PORT`, `slurm:FILE.yaml` and its like.

    local:4                processes of this machine, over TLS with a certificate made for the run
    tcp://… or tls://…     a Dask scheduler that is there, with the workers it has
    slurm:FILE.yaml        jobs of a batch system through dask-jobqueue; pbs, sge, lsf are others

Certificates for the last two are those of Dask's own configuration (`distributed.comm.tls`); jobs
get some that are made for the run where there are none. Batch systems store the environment of who
submits with the job, so what is secret in it is taken out for as long as jobs are submitted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import warnings
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xnatctl.engine.pace import Pace
from xnatctl.errors import ConfigError, MissingExtra, Unreachable, UsageError, words

from .wire import Ends, Timing

if TYPE_CHECKING:
    from distributed import Client

    from .coordinator import Coordinator

QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
HINT = "--cluster local:4, tcp://SCHEDULER:8786, or slurm:FILE.yaml (also pbs, sge, lsf)"

ANY_PORT = "127.0.0.1:0"
REVIVE_S = 1.0

SECRET = frozenset(f"XNAT_{end}{kind}" for end in ("", "DEST_") for kind in ("PASS", "TOKEN"))
"""Variables that no batch system may see."""

_DASK: dict[str, object] = {
    # Each order names its worker; moving it to another is for us to decide.
    "distributed.scheduler.work-stealing": False,
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.active-memory-manager.start": False,
    # Pages for a browser, which nobody asked for and anybody could read.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # Looks at itself that nobody reads, several times a second in each process.
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "10s",
    # The scheduler keeps the last letters, which nobody reads twice.
    "distributed.admin.low-level-log-length": 50,
}


@dataclass(frozen=True, slots=True)
class Spec:
    """What `--cluster` says: a kind, and a number, an address or the keys of a file."""

    kind: str
    count: int = 0
    address: str = ""
    keys: Mapping[str, Any] = field(default_factory=dict)
    jobs: int = 1
    wait_s: float = 3600.0

    @property
    def is_local(self) -> bool:
        return self.kind == "local"

    @property
    def expected(self) -> int:
        """How many workers there will be, as far as it is known beforehand."""
        return self.count or self.jobs * int(self.keys.get("processes", 1))


def parse_spec(text: str) -> Spec:
    """Raises UsageError, or ConfigError for a file that cannot be used."""
    kind, _, rest = text.partition(":")
    if kind == "local":
        if not rest.isdigit() or not 1 <= int(rest) <= 256:
            raise UsageError(f"--cluster {text} has no number of workers", hint="--cluster local:4")
        return Spec("local", count=int(rest))
    if kind in ("tcp", "tls"):
        host, _, port = rest.removeprefix("//").rpartition(":")
        if not host or not port.isdigit():
            raise UsageError(
                f"--cluster {text} is no address", hint=f"--cluster {kind}://SCHEDULER:8786"
            )
        return Spec(kind, address=text)
    if kind in QUEUES:
        return _read_queue(kind, Path(rest).expanduser())
    raise UsageError(f"--cluster {text} is none of the known kinds", hint=HINT)


def _read_queue(kind: str, path: Path) -> Spec:
    import yaml

    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
        if not isinstance(raw, dict):
            raise ValueError("it is no table of keys")
        jobs, wait_s = int(raw.pop("jobs", 1)), float(raw.pop("wait", 3600))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path or '(no file)'} does not describe jobs for {kind}",
            why=str(error).partition("\n")[0],
            hint=f"--cluster {kind}:FILE.yaml with queue, cores, memory, walltime, jobs",
        ) from error
    return Spec(kind, keys=raw, jobs=jobs, wait_s=wait_s)


@dataclass(frozen=True, slots=True)
class Crew:
    """Workers to hand units to, for one run after the other."""

    client: Client
    spec: Spec
    slots: int
    timing: Timing

    def dispatcher(self, ends: Ends, pace: Pace | None = None) -> Coordinator:
        from .coordinator import Coordinator

        return Coordinator(
            self.client,
            ends,
            slots=self.slots,
            timing=self.timing,
            pace=pace,
            is_local=self.spec.is_local,
        )


@asynccontextmanager
async def open_crew(
    spec: Spec,
    *,
    slots: int,
    environ: Mapping[str, str] | None = None,
    timing: Timing | None = None,
) -> AsyncIterator[Crew]:
    """Workers until the end of the block; `environ` is added to that of local ones.

    Raises MissingExtra, ConfigError, Unreachable.
    """
    try:
        import dask.config
        import distributed
    except ImportError as error:
        raise MissingExtra(
            "many machines need the package distributed",
            why=str(error),
            hint="pip install 'xnatctl[dask]'",
        ) from error
    for name in ("distributed", "tornado"):
        # What matters to a user is told as notes of the run.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="Sending large graph")
    timing = timing or Timing()
    connect = {"distributed.comm.timeouts.connect": f"{timing.connect_s}s"}
    with dask.config.set({**_DASK, **connect}):
        async with AsyncExitStack() as stack:
            where: Any = spec.address
            if spec.is_local:
                where = await _local(stack, spec, slots=slots, environ=environ or {})
            elif spec.kind in QUEUES:
                where = await _queued(stack, spec)
                timing = replace(timing, arrive_s=spec.wait_s)
            try:
                client = distributed.Client(
                    where, asynchronous=True, set_as_default=False, timeout=timing.connect_s
                )
                await stack.enter_async_context(client)
            except (OSError, TimeoutError, TypeError, ValueError) as error:
                raise Unreachable(
                    f"no Dask scheduler answers at {where}",
                    why=words(error),
                    hint="start one with `dask scheduler`; a tls:// address needs the certificates "
                    "of distributed.comm.tls in Dask's configuration",
                ) from error
            yield Crew(client, spec, slots, timing)


async def _local(
    stack: AsyncExitStack, spec: Spec, *, slots: int, environ: Mapping[str, str]
) -> Any:
    from distributed import LocalCluster
    from distributed.security import Security

    try:
        # Whoever can talk to a scheduler can run code as its user: not every user of this machine.
        security = Security.temporary()
    except ImportError as error:
        raise MissingExtra(
            "local workers need the package cryptography",
            why="what goes between them is encrypted",
            hint="pip install 'xnatctl[dask]'",
        ) from error
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="xnatctl-workers-"))
    cluster = LocalCluster(
        n_workers=spec.count,
        threads_per_worker=slots,
        processes=True,
        memory_limit=0,
        host="127.0.0.1",
        protocol="tls://",
        security=security,
        dashboard_address=ANY_PORT,
        local_directory=folder,
        env=dict(environ),
        asynchronous=True,
    )
    await stack.enter_async_context(cluster)
    keeping = asyncio.create_task(_keep_up(cluster, spec.count), name="xnatctl workers")
    stack.push_async_callback(asyncio.wait, [keeping])
    stack.callback(keeping.cancel)
    return cluster


async def _keep_up(cluster: Any, count: int) -> None:
    """Start a worker again where Dask gives up: one that dies while it starts ends its nanny, and
    what has not come back within 15 s is forgotten.
    """
    from distributed import Status

    while True:
        await asyncio.sleep(REVIVE_S)
        for name, nanny in list(cluster.workers.items()):
            if nanny.status in (Status.closed, Status.failed):
                del cluster.workers[name]
        if len(cluster.workers) < count:
            cluster.scale(count)


async def _queued(stack: AsyncExitStack, spec: Spec) -> Any:
    try:
        import dask_jobqueue
    except ImportError as error:
        raise MissingExtra(
            f"{spec.kind} needs the package dask-jobqueue",
            why=str(error),
            hint="pip install 'xnatctl[dask]'",
        ) from error
    from distributed import Status

    kind = getattr(dask_jobqueue, QUEUES[spec.kind])
    if unknown := spec.keys.keys() - _understood(kind):
        raise ConfigError(
            f"the file of --cluster {spec.kind} has unknown keys: {', '.join(sorted(unknown))}",
            hint="the keys are those of dask-jobqueue, beside `jobs` and `wait`",
        )
    keys = {**spec.keys}
    keys["scheduler_options"] = {"dashboard_address": ANY_PORT, **keys.get("scheduler_options", {})}
    if not keys.keys() & {"protocol", "security"}:
        keys |= _encrypted(stack, keys.get("shared_temp_directory"))
    try:
        cluster = kind(asynchronous=True, **keys)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the file of --cluster {spec.kind} is not understood",
            why=str(error).partition("\n")[0],
        ) from error
    await stack.enter_async_context(cluster)
    # As `scale` does it in the background, where a refusal would end as a line in a log.
    for _ in range(spec.jobs):
        cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        with _without(SECRET):
            await cluster
    except (OSError, RuntimeError) as error:
        for job in cluster.workers.values():
            # Closing the cluster cancels what was submitted, and fails at jobs that never began.
            job.status = Status.closed
        raise ConfigError(
            f"{spec.kind} does not take the jobs of --cluster",
            why=str(error).strip().rpartition("\n")[2],
            hint=f"{kind.job_cls.submit_command} says the same to a script with these keys",
        ) from error
    return cluster


def _encrypted(stack: AsyncExitStack, folder: str | None) -> dict[str, object]:
    """Keys for TLS, by Dask's configuration or by certificates that jobs read in a shared folder
    that none but this user can look into.
    """
    import dask.config
    from distributed.security import Security

    if dask.config.get("distributed.comm.tls.ca-file", None):
        return {"security": Security(), "protocol": "tls://"}
    shared = Path(folder).expanduser() if folder else Path.home()
    try:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix=".xnatctl-jobs-", dir=shared))
    except OSError as error:
        raise ConfigError(
            f"{shared} takes no certificates for the jobs",
            why=words(error),
            hint="shared_temp_directory names a folder that this machine and the jobs can see",
        ) from error
    paths = {}
    for name, text in Security.temporary().get_tls_config_for_role("worker").items():
        if name in ("ca_file", "cert", "key"):
            paths[name] = str(Path(made, f"{name}.pem"))
            Path(paths[name]).write_text(text)
    options = {"tls_ca_file": paths.pop("ca_file"), "require_encryption": True}
    for role in ("scheduler", "worker", "client"):
        options |= {f"tls_{role}_{name}": path for name, path in paths.items()}
    return {"security": Security(**options), "protocol": "tls://"}


@contextmanager
def _without(names: Collection[str]) -> Iterator[None]:
    """This process's environment without these variables."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _understood(kind: Any) -> set[str]:
    """The keys of a cluster of this kind: its own, and those of its jobs and their bases."""
    found: set[str] = set()
    for one in (*kind.__mro__, *kind.job_cls.__mro__):
        if "__init__" in vars(one) and one is not object:
            found |= signature(one.__init__).parameters.keys()
    return found
