"""`--cluster` as it is typed: processes that are killed, interrupted, and started again."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trustme
from distributed import Client

from tests.cluster.processes import (
    LOGIN,
    finished,
    is_whole,
    project,
    scheduler,
    transfer,
    wait_for,
    worker,
    workers_of,
)
from tests.faults.children import Servers, servers
from tests.faults.judge import unit_statuses

pytestmark = pytest.mark.long


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Servers]:
    with servers(tmp_path) as made:
        yield made


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("mode", ["import", "copy"])
def test_any_number_of_workers_leaves_the_same_with_one_login_each(
    ends: Servers, count: int, mode: str
) -> None:
    code, out, err = finished(transfer(ends, "--dicom", mode, cluster=f"local:{count}"))
    assert code == 0, err
    assert json.loads(out)["success"] is True
    assert is_whole(ends, mode)
    for sandbox in (ends.here, ends.there):
        # One of each worker, and ours.
        assert count <= sandbox.counters.count("POST", "JSESSION", 200) <= count + 1


@pytest.mark.parametrize("seed", range(6))
def test_workers_killed_at_random_lose_and_double_nothing(ends: Servers, seed: int) -> None:
    chance = random.Random(seed)
    mode = ("import", "copy")[seed % 2]
    events = ends.home / "1.jsonl"
    process = transfer(ends, "--dicom", mode, cluster="local:3", events=events)
    wait_for(process, events, "item_started")
    killed = 0
    for _ in range(3):
        time.sleep(chance.uniform(0.0, 0.8))
        if process.poll() is None and (workers := workers_of(process.pid)):
            os.kill(chance.choice(workers), signal.SIGKILL)
            killed += 1
    code, _, err = finished(process)
    assert code == 0, err
    assert killed
    assert is_whole(ends, mode)


def test_a_worker_of_which_dask_takes_leave_is_started_again(ends: Servers) -> None:
    events = ends.home / "1.jsonl"
    # No process is back so soon: Dask gives it up as it does after 15 s on a busy machine.
    hasty = {**LOGIN, "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "0.1s"}
    process = transfer(ends, "--dicom", "copy", cluster="local:1", events=events, environ=hasty)
    wait_for(process, events, "item_started")
    for pid in workers_of(process.pid):
        os.kill(pid, signal.SIGKILL)
    code, _, err = finished(process)
    assert code == 0, err
    assert "it is run again" in err
    assert is_whole(ends, "copy")


@pytest.mark.parametrize("seed", range(4))
def test_a_coordinator_killed_at_random_is_followed_by_one_that_finishes(
    ends: Servers, seed: int
) -> None:
    chance = random.Random(seed)
    mode = ("import", "copy")[seed % 2]
    events = ends.home / "1.jsonl"
    with ExitStack() as stack:
        address = stack.enter_context(scheduler(ends.home))
        for _ in range(2):
            stack.enter_context(worker(ends.home, address))
        first = transfer(ends, "--dicom", mode, cluster=address, events=events)
        wait_for(first, events, "item_started")
        time.sleep(chance.uniform(0.0, 1.0))
        first.kill()
        first.communicate()
        # The workers go on with what they have until the next coordinator comes.
        code, _, err = finished(transfer(ends, "--dicom", mode, cluster=address))
    assert code == 0, err
    assert is_whole(ends, mode)
    assert unit_statuses(ends.state) == {"done"}


def test_a_coordinator_killed_with_its_local_workers_is_followed_by_one_that_finishes(
    ends: Servers,
) -> None:
    events = ends.home / "1.jsonl"
    first = transfer(ends, cluster="local:2", events=events)
    wait_for(first, events, "item_done", 2)
    workers = workers_of(first.pid)
    first.kill()
    first.communicate()
    code, _, err = finished(transfer(ends, cluster="local:2"))
    assert code == 0, err
    assert is_whole(ends, "import")
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_ctrl_c_in_a_terminal_ends_a_run_of_local_workers_with_130(ends: Servers) -> None:
    events = ends.home / "1.jsonl"
    first = transfer(ends, "--dicom", "copy", cluster="local:2", events=events)
    wait_for(first, events, "item_done", 3)
    os.killpg(first.pid, signal.SIGINT)
    code, out, err = finished(first)
    assert code == 130, err
    assert json.loads(out)["interrupted"] == "Ctrl-C"
    assert "Traceback" not in err
    code, _, err = finished(transfer(ends, "--dicom", "copy", cluster="local:2"))
    assert code == 0, err
    assert is_whole(ends, "copy")


def test_a_typed_password_becomes_a_token_of_the_run_which_is_revoked(ends: Servers) -> None:
    environ = {name: one for name, one in LOGIN.items() if "DEST" not in name}
    command = ("--dest-user", "admin", "--dest-pass-stdin")
    process = transfer(ends, *command, cluster="local:2", environ=environ)
    code, _, err = finished(process, "admin\n")
    assert code == 0, err
    assert is_whole(ends, "import")
    counters = ends.there.counters
    assert counters.count("GET", "tokens/issue", 200) == 1
    assert counters.count("GET", "tokens/invalidate", 200) == 1


def test_workers_without_a_login_are_named_with_their_host(ends: Servers) -> None:
    with scheduler(ends.home) as address, worker(ends.home, address, environ={}):
        code, _, err = finished(transfer(ends, cluster=address))
    assert code == 3, err
    assert f"on {os.uname().nodename} (127.0.0.1): no login for" in err
    assert "Traceback" not in err


def certify(home: Path) -> None:
    """Certificates for all processes with this home."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(home / "tls-1.pem"))
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(home / "tls-2.pem"))


def test_a_cluster_over_tls_needs_only_the_configuration_of_dask(ends: Servers) -> None:
    certify(ends.home)
    with scheduler(ends.home, protocol="tls") as address, worker(ends.home, address):
        assert address.startswith("tls://")
        code, _, err = finished(transfer(ends, "--dicom", "copy", cluster=address))
        assert code == 0, err
        assert is_whole(ends, "copy")
        for pem in ends.home.glob("tls-*.pem"):
            pem.unlink()
        code, _, err = finished(transfer(ends, cluster=address))
    assert code == 4
    assert f"no Dask scheduler answers at {address}" in err
    assert "distributed.comm.tls" in err


def test_no_secret_is_seen_in_process_lists_logs_or_the_state_of_dask(ends: Servers) -> None:
    marked = "marked-9f2c"
    for sandbox in (ends.here, ends.there):
        sandbox.accounts.add("admin", marked, admin=True)
    known = {**LOGIN, "XNAT_PASS": marked, "XNAT_DEST_PASS": marked}
    debug = {"DASK_LOGGING__DISTRIBUTED": "debug"}
    seen = ""
    with scheduler(ends.home) as address:
        for password, code in ((marked, 0), (f"{marked}-wrong", 3)):
            environ = {**known, **debug, "XNAT_DEST_PASS": password}
            events = ends.home / f"{code}.jsonl"
            with worker(ends.home, address, environ=environ):
                process = transfer(ends, cluster=address, environ=known, events=events)
                if not code:
                    wait_for(process, events, "item_started")
                seen += "".join(map(_command_line, Path("/proc").iterdir()))
                with Client(address, set_as_default=False) as client:
                    if not code:
                        state = ends.home / "state"
                        client.dump_cluster_state(str(state), format="yaml")
                        seen += state.with_suffix(".yaml").read_text()
                    found, out, err = finished(process)
                    assert found == code, err
                    seen += out + err + repr(client.get_worker_logs())
                    seen += repr(client.get_scheduler_logs())
        seen += (ends.home / "workers.log").read_text()
    for place in ("distributed.cli.dask_worker", "out-of-band function 'join'", "task_groups"):
        assert place in seen
    assert marked not in seen


def _command_line(process: Path) -> str:
    with suppress(OSError):
        return (process / "cmdline").read_text("utf-8", "replace")
    return ""


def test_a_worker_without_tls_is_not_let_in(ends: Servers) -> None:
    certify(ends.home)
    with scheduler(ends.home, protocol="tls") as address:
        plain = ends.home / "plain"
        plain.mkdir()
        events = ends.home / "1.jsonl"
        with worker(plain, address.replace("tls://", "tcp://")), worker(ends.home, address):
            code, _, err = finished(transfer(ends, cluster=address, events=events))
            assert code == 0, err
            assert is_whole(ends, "import")
            log = (plain / "workers.log").read_text()
        assert "Nanny failed to start" in log
        assert "Registered to" not in log


def rows(folder: Path) -> dict[str, object]:
    """What a manifest says of each file, without when it was written; other files by content."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "manifest.jsonl" and ".xnatctl" not in path.parts:
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        found[f"row of {row['path']}"] = {
            name: value for name, value in row.items() if name not in ("time", "mtime_ns")
        }
    return found


def test_an_export_by_workers_is_the_export_of_one_process_and_is_imported_again(
    ends: Servers,
) -> None:
    one, many = ends.home / "one", ends.home / "many"
    code, _, err = finished(project(ends, "export", "-P", "DEMO", "--out", str(one)))
    assert code == 0, err
    by_two = ("export", "-P", "DEMO", "--out", str(many), "--cluster", "local:2")
    code, out, err = finished(project(ends, *by_two))
    assert code == 0, err
    assert json.loads(out)["finished"] is True
    assert rows(many) == rows(one)
    code, out, err = finished(project(ends, *by_two))
    assert (code, json.loads(out)["files"]) == (0, 0), err
    command = ("import", "--from", str(many), "--yes", "--dicom", "copy", "--cluster", "local:2")
    code, _, err = finished(project(ends, *command, url=ends.there.url))
    assert code == 0, err
    assert is_whole(ends, "copy")


def test_snapshots_by_workers_share_what_has_not_changed(ends: Servers) -> None:
    command = ("export", "-P", "DEMO", "--snapshot", "--cluster", "local:2")
    for _ in range(2):
        code, _, err = finished(project(ends, *command, "--out", str(ends.home / "nights")))
        assert code == 0, err
    first, second = sorted(one for one in (ends.home / "nights").glob("run-*"))
    assert rows(first) == rows(second)
    assert not list(ends.home.rglob(".xnatctl-*.part"))
