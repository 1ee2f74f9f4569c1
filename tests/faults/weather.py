"""Functional tests once more, while requests fail at random: a schedule of faults out of one seed.

Each request of a sandbox may draw one fault that fits it; the same request never draws twice, so
whatever tries again gets over it. The seed stands in the test's name; `XNATCTL_FAULT_SEED=N` with
`--all` repeats a schedule.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from urllib.parse import unquote_plus

import pytest
from aiohttp.web import BaseRequest

from tests.integration import conftest, uploading
from xnatctl.retry import Backoff
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.server import Sandbox

FUNCTIONAL = {
    "test_transfer",
    "test_download",
    "test_increments",
    "test_export",
    "test_metadata",
    "test_prearchive",
    "test_upload",
    "test_conflicts",
    "test_deletions",
}
LEFT_OUT = {
    "test_bad_input": "what is wrong there is wrong for good, at an end",
    "test_members": "it is about logins and groups; users are written by single requests",
    "test_counts": "it brings a fault of its own",
    "test_defects_of_06": "each brings the fault of which it tells",
    "test_download_faults": "each brings a fault of its own",
    "test_everything": "its accounts are of one run each; other modules try its verbs",
    "test_export_nights": "programs of their own, which a schedule in this process does not reach",
    "test_routing": "its server ignores the marks by which an entry is known after a lost answer",
    "test_upload_dicom": "its receivers are real programs, which draw no faults",
}
"""Modules of tests that are not functional ones of a transfer, download or upload, and why."""
FAIR_ONLY = {
    "test_an_unchanged_session_costs_three_requests_and_six_without_the_state_store",  # counts them
    "test_a_failed_upload_leaves_its_entry_and_the_same_command_goes_on_in_it",  # must fail
}
SEED = "XNATCTL_FAULT_SEED"
CHANCE = 0.06

LOGIN = frozenset({"expire-login", "login-page", "login-redirect"})

_SHORT = Fault("* *", "status", status=503, seconds=0.01)
_GONE = Fault("* *", "expire-login")
_LOST = Fault("* *", "lose-answer")
BY_REQUEST: dict[str, tuple[Fault, ...]] = {
    "GET */files/*": (
        Fault("* *", "cut", at=20),
        Fault("* *", "reset", at=1),
        Fault("* *", "login-page"),
        _SHORT,
        _GONE,
    ),
    "GET */files?*format=zip*": (
        Fault("* *", "cut", at=700),
        Fault("* *", "reset", at=300),
        Fault("* *", "short-archive"),
        Fault("* *", "login-redirect"),
        _SHORT,
        _GONE,
    ),
    "GET *": (
        Fault("* *", "cut", at=5),
        Fault("* *", "status", status=500),
        Fault("* *", "login-page"),
        _SHORT,
        _GONE,
    ),
    "PUT */files/*": (
        Fault("* *", "reset", at=10),
        Fault("* *", "status-after", status=500),
        Fault("* *", "status", status=502),
        _LOST,
        _SHORT,
        _GONE,
    ),
    "PUT *": (_LOST, _SHORT, _GONE),
    "POST */services/import*": (Fault("* *", "reset", at=100), _LOST, _SHORT, _GONE),
    "POST */services/archive*": (Fault("* *", "status-after", status=502), _LOST, _SHORT),
    "DELETE *": (_SHORT, _GONE),
}

MILD = {"GET */files?*format=zip*": 2, "POST */services/import*": 1, "POST */services/archive*": 1}
"""An import is tried as a whole, so that its faults add up."""


class Weather:
    """The schedule: which request meets what."""

    def __init__(self, seed: int, *, mild: bool = False) -> None:
        """`mild`: few enough that one run gets over all of them, an import's one unit too."""
        self.mild = mild
        self.left = dict(MILD)
        self.seed = seed
        self.met: set[str] = set()
        self.once: frozenset[str] = frozenset()
        self.struck: list[str] = []

    def strike(self, method: str, path: str, query: str) -> list[Fault]:
        line = f"{method} {path}?{query}"
        # Out of the request itself, so that the order of requests changes nothing.
        dice = random.Random(f"{self.seed} {line}")
        for pattern, faults in BY_REQUEST.items():
            if fnmatchcase(line, pattern):
                if line in self.met or dice.random() >= CHANCE or "JSESSION" in path:
                    return []
                if self.mild and pattern in self.left:
                    if not self.left[pattern]:
                        return []
                    self.left[pattern] -= 1
                self.met.add(line)
                fault = dice.choice([one for one in faults if one.kind not in self.once])
                if fault.kind in LOGIN:
                    # A login that is lost twice in a row is final, and rightly so.
                    self.once = LOGIN
                self.struck.append(f"{fault.kind} {line}")
                return [fault]
        return []

    def over(self, patch: pytest.MonkeyPatch) -> None:
        """Let every sandbox draw, where a test has armed nothing for a request itself."""
        plain = Sandbox._faults_for

        def drawn(sandbox: Sandbox, request: BaseRequest, path: list[str]) -> list[Fault]:
            query = unquote_plus(request.raw_path.partition("?")[2])
            mine = plain(sandbox, request, path)
            return mine or self.strike(request.method, "/" + "/".join(path), query)

        patch.setattr(Sandbox, "_faults_for", drawn)


@pytest.fixture(autouse=True)
def weather(request: pytest.FixtureRequest) -> Iterator[None]:
    """The schedule of a test that has one."""
    seed = getattr(request, "param", None)
    if seed is None:
        yield
        return
    schedule = Weather(seed, mild=True)
    monkeypatch = request.getfixturevalue("monkeypatch")
    schedule.over(monkeypatch)
    for module in (conftest, uploading):
        # As many tries as a command has.
        monkeypatch.setattr(module, "QUICK", replace(conftest.QUICK, attempts=Backoff().attempts))
    yield
    print("faults drawn:", *schedule.struck, sep="\n  ")  # noqa: T201 - shown when a test fails


def forecast(metafunc: pytest.Metafunc) -> None:
    """Let functional tests run twice: in fair weather, and under the schedule."""
    name = metafunc.module.__name__.rpartition(".")[2]
    test = metafunc.function.__name__
    if test in FAIR_ONLY or name not in FUNCTIONAL or "integration" not in metafunc.module.__name__:
        return
    seed = int(os.environ[SEED])
    marks = [pytest.mark.fault("random faults under every functional test")]
    if hash_of(metafunc.definition.nodeid) % 40:
        marks.append(pytest.mark.long)
    params = [
        pytest.param(None, id="fair"),
        pytest.param(seed + hash_of(metafunc.definition.nodeid), marks=marks, id=f"faults{seed}"),
    ]
    metafunc.parametrize("weather", params, indirect=True)


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    return sum(text.encode())
