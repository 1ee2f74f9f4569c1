"""A fresh inventory against what was read from the source. Pure; nothing is done before this
agrees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .plan import difference, expected, same
from .types import Item, Mismatch, Stamp


def compare(items: Iterable[Item], inventory: Mapping[str, Stamp]) -> list[Mismatch]:
    """Every key that is missing or unequal at the sink."""
    found = []
    for item in items:
        for key, wanted in expected(item).items():
            there = inventory.get(key)
            if there is None:
                found.append(Mismatch(key, "missing"))
            elif not same(wanted, there):
                found.append(Mismatch(key, difference(wanted, there)))
    return found


def level(item: Item, inventory: Mapping[str, Stamp]) -> str:
    """How far the inventory proves the item: `digest`, `size` or `count`, the weakest of its
    files.
    """
    weakest = "digest"
    for key, wanted in expected(item).items():
        there = inventory.get(key, Stamp())
        if wanted.uid or wanted.objects > 1:
            return "count"
        if not (wanted.digest and there.digest):
            if wanted.size is None or there.size is None:
                return "count"
            weakest = "size"
    return weakest
