"""What all tests share: hypothesis' pace, and aioresponses fit for this aiohttp."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses, core
from hypothesis import HealthCheck, settings

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
