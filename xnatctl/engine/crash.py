"""Named points at which a run kills itself, so that tests can do it everywhere.

`XNATCTL_CRASH_AT=unit-begun` sends SIGKILL to this process where it passes that point for the first
time, `unit-begun:3` for the third. Without the variable a point is one comparison of strings.
"""

from __future__ import annotations

import os
import signal
from itertools import count

_POINT, _, _NTH = os.environ.get("XNATCTL_CRASH_AT", "").partition(":")
_passes = count(1)


def at(point: str) -> None:
    """Die here if that was asked for."""
    if point == _POINT and next(_passes) == int(_NTH or 1):
        os.kill(os.getpid(), signal.SIGKILL)
