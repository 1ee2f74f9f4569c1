"""Run one group of steps of one client: `python run.py DRIVER GROUP FOLDER URL…`.

It is run by the interpreter that has the client installed, not by the one that runs the tests, and
so imports nothing but the standard library. A driver's `GROUPS` are generators: each does one step
after the other with the client and yields the step's name once it has worked.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    """Write `ok STEP` for each step; a step that fails ends the process with its traceback."""
    name, group, folder, *urls = sys.argv[1:]
    driver = importlib.import_module(name)
    for step in driver.GROUPS[group](Path(folder), *urls):
        sys.stdout.write(f"ok {step}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
