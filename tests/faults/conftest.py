"""Faults are tried on the same two servers that the verbs are."""

from __future__ import annotations

from tests.integration.conftest import demo, nasty, seeds

__all__ = ["demo", "nasty", "seeds"]
