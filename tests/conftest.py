"""What all tests share: hypothesis' pace, the long tests, the table of faults, aioresponses."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses, core
from hypothesis import HealthCheck, settings

from tests.faults.ledger import ROWS, Ledger, rows_of
from tests.faults.weather import SEED, forecast, weather

__all__ = ["weather"]

# The same examples on every machine, few enough for every run; `thorough` looks for new ones.
settings.register_profile(
    "quick",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="Run what is marked `long` too.")
    parser.addoption("--fault-table", metavar="PAGE", help="Print the table of faults; write it.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; run with --all")
    config.addinivalue_line("markers", "fault(*rows): tries these rows of the table of faults")
    seed = random.randrange(1, 10**6) if config.getoption("--all") else 1
    os.environ.setdefault(SEED, str(seed))  # before workers are started, which inherit it
    if config.getoption("--fault-table") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Ledger(), "ledger")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    forecast(metafunc)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        rows = rows_of(item)
        if unknown := set(rows) - set(ROWS):
            raise pytest.UsageError(f"{item.nodeid}: no rows of the table: {unknown}")
        if rows:
            item.user_properties.append(("faults", "|".join(rows)))
    if not config.getoption("--all"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]


class _Answer(aiohttp.ClientResponse):
    """aioresponses (0.7.9) makes responses without the writer that aiohttp 3.14 asks for."""

    def __init__(self, *args: Any, **named: Any) -> None:
        named.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **named)


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses]:
    """Scripted answers by method and URL, in the order in which they are given."""
    monkeypatch.setattr(core, "ClientResponse", _Answer)
    with aioresponses() as answers:
        yield answers
