"""Which of the files that exist are read by a benchmark, and in which sets. Pure."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from xnatctl.engine.plan import SMALL_MEAN, needs_zip
from xnatctl.engine.types import Item, Unit

MOST_SETS = 512
NEAR = 4
"""A file belongs to a size when it is at most so many times larger or smaller."""


def resources_of(units: Iterable[Unit]) -> list[tuple[Item, ...]]:
    """The files of each resource, of all units."""
    found: list[tuple[Item, ...]] = []
    for unit in units:
        lanes: dict[str, list[Item]] = defaultdict(list)
        for item in unit.items:
            if item.kind == "file":
                lanes[item.lane].append(item)
        found += map(tuple, lanes.values())
    return found


def sets_of(
    resources: Sequence[tuple[Item, ...]], size: int, *, most_bytes: int
) -> list[tuple[Item, ...]]:
    """What is read at once: a whole resource of small files, which comes as one archive, or a file.

    `size` 0 takes files as they are; no set is larger than `most_bytes`. The order is mixed, and
    the same each time.
    """
    sets: list[tuple[Item, ...]] = []
    for files in resources:
        fitting = [one for one in files if one.size and _is_near(one.size, size)]
        total = sum(one.size or 0 for one in fitting)
        if 1 < len(fitting) == len(files) and total < SMALL_MEAN * len(files):
            sets.append(files)
        else:
            sets += [(one,) for one in fitting if not needs_zip(one)]
    fitting_sets = [one for one in sets if bytes_of(one) <= most_bytes]
    random.Random(1).shuffle(fitting_sets)
    return fitting_sets[:MOST_SETS]


def bytes_of(files: Sequence[Item]) -> int:
    return sum(one.size or 0 for one in files)


def _is_near(size: int, wanted: int) -> bool:
    return not wanted or wanted <= size * NEAR <= wanted * NEAR * NEAR
