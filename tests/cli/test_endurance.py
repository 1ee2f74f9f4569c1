"""`--retries --max-failures --deadline --stall-timeout`, as they are typed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Result
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.server import Sandbox

Call = Callable[..., Result]
ANY_BODY = "GET */files/*"


@pytest.fixture
def faulty(signed_in: Sandbox) -> Iterator[Sandbox]:
    yield signed_in
    signed_in.faults.clear()


def fetch(xnatctl: Call, tmp_path: Path, *more: str) -> Result:
    command = ("session", "download", "-P", "STUDY", "-E", "SUB1_MR1", "--out", str(tmp_path / "o"))
    return xnatctl(*command, "-o", "json", *more)


def test_no_retry_means_one_try(xnatctl: Call, faulty: Sandbox, tmp_path: Path) -> None:
    faulty.faults.add(Fault(ANY_BODY, "cut", nth=1, at=10))

    assert fetch(xnatctl, tmp_path, "--retries", "0").code != 0
    assert fetch(xnatctl, tmp_path, "--retries", "0").code == 0


def test_retries_are_counted_after_the_first_try(
    xnatctl: Call, faulty: Sandbox, tmp_path: Path
) -> None:
    faulty.faults.add(Fault(ANY_BODY, "cut", at=10))

    assert fetch(xnatctl, tmp_path, "--retries", "1", "-w", "1").code != 0
    (seen,) = [one.fired for one in faulty.faults.armed()]
    assert seen == 4  # two files, two tries each


def test_nothing_new_is_begun_after_the_deadline(
    xnatctl: Call, faulty: Sandbox, tmp_path: Path
) -> None:
    faulty.faults.add(Fault(ANY_BODY, "latency", seconds=1.5))

    result = fetch(xnatctl, tmp_path, "--deadline", "1s", "-w", "1")
    assert result.code == 1
    shown = xnatctl("run", "show", "-o", "json").json()
    assert shown["interrupted"] == "the deadline of 1 s is over"
    faulty.faults.clear()
    assert fetch(xnatctl, tmp_path).code == 0
    assert len(list(tmp_path.rglob("*.nii"))) == 2


def test_a_silent_connection_is_given_up_after_the_time_that_was_named(
    xnatctl: Call, faulty: Sandbox, tmp_path: Path
) -> None:
    faulty.faults.add(Fault(ANY_BODY, "stall", nth=1, at=10, seconds=30.0))

    began = time.monotonic()
    assert fetch(xnatctl, tmp_path, "--stall-timeout", "1s").code == 0
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--retries", "-1"), ("--max-failures", "0"), ("--deadline", "soon"), ("--stall-timeout", "")],
)
def test_what_makes_no_sense_is_a_usage_error(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path, flag: str, value: str
) -> None:
    result = fetch(xnatctl, tmp_path, flag, value)
    assert result.code == 2
    assert flag in result.err
