"""The same command lines with two programs against two equal sandboxes: exit codes and JSON keys.

    python benchmarks/side_by_side.py --other PATH_OF_AN_OTHER_XNATCTL

Each program has a sandbox of its own with the demonstration study, so that what one changes the
other does not see. Lines that differ are printed; docs/migrating-from-0.6.md says why they do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from startup import OURS, sandbox

LINES = """\
project list
project show DEMO
project users DEMO
project access DEMO
project requests DEMO
project access DEMO --set protected --yes
project access DEMO --set private --dry-run
project grant DEMO admin --role owner --dry-run
project users NOPE
subject list -P DEMO
subject show DEMO_001 -P DEMO
subject show NOPE -P DEMO
subject vars DEMO_001 -P DEMO
subject vars set DEMO_001 cohort=B -P DEMO --yes
subject delete DEMO_003 -P DEMO --dry-run
subject delete NOPE -P DEMO --yes
subject unshare DEMO_001 --from DEMO -P DEMO --yes
subject share DEMO_001 --into NOPE -P DEMO --yes
subject rename -P DEMO --pattern ^DEMO_002$ --to SECOND
session list -P DEMO
session list -P DEMO --modality MR
session show -P DEMO -E DEMO_001_MR1
session show -P DEMO -E NOPE
session vars -P DEMO -E DEMO_001_MR1
session vars set -P DEMO -E DEMO_001_MR1 rater=Kim --yes
session normalize-labels -P DEMO --dry-run
session unshare -P DEMO -E DEMO_001_MR1 --from DEMO --yes
scan list -P DEMO -E DEMO_001_MR1
scan list -P DEMO -E NOPE
scan show -P DEMO -E DEMO_001_MR1 1
scan delete -P DEMO -E DEMO_001_MR2 --scans 1 --dry-run
scan delete -P DEMO -E DEMO_001_MR2 --scans 1 --yes
resource list -P DEMO
admin refresh-catalogs DEMO --option checksum --limit 1
admin version
admin plugins
admin site-config get
admin site-config get siteId
admin user list
admin user show admin
admin user show NOPE
admin user groups admin
admin user roles admin
admin audit
pipeline list --project DEMO
pipeline jobs
pipeline status 1
api get /data/projects
api get /data/projects/NOPE
api put /data/projects/DEMO/accessibility/private
whoami
health ping
auth status
auth test
prearchive list
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An exit code, and the keys of what was printed: of an object, or of the rows of an array."""

    code: int
    keys: tuple[str, ...] | None

    def __str__(self) -> str:
        if self.keys is None:
            return f"exit {self.code}, no JSON"
        return f"exit {self.code}, {', '.join(self.keys) or 'nothing in it'}"


def ask(command: list[str], words: list[str], environ: dict[str, str]) -> Answer:
    done = subprocess.run(
        [*command, *words, "-o", "json"],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    try:
        data = json.loads(done.stdout)
    except ValueError:
        return Answer(done.returncode, None)
    if isinstance(data, list):
        data = data[0] if data else {}
    return Answer(done.returncode, tuple(data) if isinstance(data, dict) else ())


def same(ours: Answer, theirs: Answer) -> bool:
    """Whether a script made for theirs works with ours: fields may only be added."""
    fits = theirs.keys is None or (ours.keys is not None and set(theirs.keys) <= set(ours.keys))
    return ours.code == theirs.code and fits


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--other", required=True, help="the other xnatctl")
    given = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with sandbox(root / "a") as ours_at, sandbox(root / "b") as theirs_at:
            homes = [(OURS, ours_at, root / "ours"), ([given.other], theirs_at, root / "theirs")]
            environs = []
            for _, url, home in homes:
                home.mkdir()
                clean = {k: v for k, v in os.environ.items() if not k.startswith("XNAT")}
                login = {"XNAT_URL": url, "XNAT_USER": "admin", "XNAT_PASS": "admin"}
                environs.append({**clean, **login, "HOME": str(home)})
            lines = LINES.splitlines()
            for line in lines:
                ours = ask(OURS, line.split(), environs[0])
                theirs = ask([given.other], line.split(), environs[1])
                if not same(ours, theirs):
                    different += 1
                    print(f"{line}\n    ours    {ours}\n    theirs  {theirs}")
    print(f"{len(lines) - different} of {len(lines)} lines are the same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
