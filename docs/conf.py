"""Sphinx: the Markdown files of this folder as one site that opens offline."""

from xnatctl._version import __version__

project = "xnatctl"
author = "The xnatctl developers"
copyright = "2026, the xnatctl developers"
release = version = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "man"]
html_theme = "furo"
html_title = f"xnatctl {__version__}"
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
