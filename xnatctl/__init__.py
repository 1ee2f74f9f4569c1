"""Move imaging data between XNAT servers, disks and scripts."""

from xnatctl._version import __version__

__all__ = ["__version__"]
