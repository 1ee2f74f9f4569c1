"""Move imaging data between XNAT servers, disks and scripts.

`connect` and `transfer` do from Python what the commands do; see docs/library.md. They are imported
when they are first used, so that `import xnatctl` and the commands stay light.
"""

from __future__ import annotations

from xnatctl._version import __version__

TYPE_CHECKING = False  # that of `typing`, whose import every start would pay for
if TYPE_CHECKING:
    from typing import Any

    from xnatctl.engine.events import Event
    from xnatctl.engine.types import Report, Rule
    from xnatctl.errors import XnatctlError
    from xnatctl.library import connect, transfer
    from xnatctl.model import Ref
    from xnatctl.xnat.client import Xnat

__all__ = [
    "Event",
    "Ref",
    "Report",
    "Rule",
    "Xnat",
    "XnatctlError",
    "__version__",
    "connect",
    "transfer",
]

_HOME = {
    "Event": "xnatctl.engine.events",
    "Ref": "xnatctl.model",
    "Report": "xnatctl.engine.types",
    "Rule": "xnatctl.engine.types",
    "Xnat": "xnatctl.xnat.client",
    "XnatctlError": "xnatctl.errors",
    "connect": "xnatctl.library",
    "transfer": "xnatctl.library",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module 'xnatctl' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
