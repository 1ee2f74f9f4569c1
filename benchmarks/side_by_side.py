"""The same command lines with two programs against two equal sandboxes: exit codes and JSON keys.

    python benchmarks/side_by_side.py --other PATH_OF_AN_OTHER_XNATCTL

Each program has a sandbox of its own with the demonstration study, so that what one changes the
other does not see. Lines that differ are printed, and options that only the other has;
docs/migrating-from-0.6.md says why they do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import asyncclick as click
from startup import OURS, sandbox

from xnatctl.cli.group import Group
from xnatctl.cli.root import root

_VERB = re.compile(r"[a-z][a-z-]*")

LINES = """\
config init --url {url} --profile extra --no-login
config init --url {url} --profile extra --no-login
config add-profile other --url {url} --project DEMO --timeout 60
config show
config show -p other
config use-context other
config current-context
config use-context extra
config remove-profile other --yes
config remove-profile nope --yes
config set-password nope --password-stdin
whoami
health ping
auth login --username admin --password admin
auth test
auth status
auth logout
project list
project show DEMO
project show NOPE
project create MADE --name Made --description text --pi Smith --accessibility protected
project create MADE
project create OTHER
project users DEMO
project users NOPE
project access DEMO
project requests DEMO
project access DEMO --set protected --yes
project access DEMO --set private --dry-run
project grant DEMO admin --role owner --dry-run
project grant MADE kim --role member --yes
project revoke MADE kim --yes
project transfer-status -P DEMO
project transfer-history -P DEMO
project transfer-init -P DEMO --dest-project X -f start.yaml
project transfer-check -P DEMO --dest-project MADE
subject list -P DEMO
subject list -P DEMO --filter label:*1 --sort-by label:desc --limit 1 --columns label
subject show DEMO_001 -P DEMO
subject show NOPE -P DEMO
subject vars DEMO_001 -P DEMO
subject vars set DEMO_001 cohort=B -P DEMO --yes
subject vars DEMO_001 -P DEMO
subject share DEMO_001 --into OTHER -P DEMO --yes
subject unshare DEMO_001 --from OTHER -P DEMO --yes
subject unshare DEMO_001 --from DEMO -P DEMO --yes
subject share DEMO_001 --into NOPE -P DEMO --yes
subject delete DEMO_003 -P DEMO --dry-run
subject delete NOPE -P DEMO --yes
subject rename -P DEMO --pattern ^DEMO_002$ --to SECOND
subject rename -P DEMO --mapping missing.json
session list -P DEMO
session list -P DEMO --subject DEMO_001
session list -P DEMO --modality MR
session list -P NOPE
session show -P DEMO -E DEMO_001_MR1
session show -P DEMO -E NOPE
session vars -P DEMO -E DEMO_001_MR1
session vars set -P DEMO -E DEMO_001_MR1 rater=Kim --yes
session share -P DEMO -E DEMO_001_MR1 --into OTHER --yes
session unshare -P DEMO -E DEMO_001_MR1 --from OTHER --yes
session normalize-labels -P DEMO --dry-run
session unshare -P DEMO -E DEMO_001_MR1 --from DEMO --yes
session download -P DEMO -E DEMO_001_MR1 --out down --workers 4
session download -P DEMO -E NOPE --out down
scan list -P DEMO -E DEMO_001_MR1
scan list -P DEMO -E NOPE
scan show -P DEMO -E DEMO_001_MR1 1
scan show -P DEMO -E DEMO_001_MR1 99
scan download -P DEMO -E DEMO_001_MR1 --scans 1 --scans 2 --out scans
scan delete -P DEMO -E DEMO_001_MR2 --scans 1 --dry-run
scan delete -P DEMO -E DEMO_001_MR2 --scans 1 --yes
scan delete -P DEMO -E DEMO_001_MR2 --scans 99 --yes
resource list -P DEMO
resource show SANDBOX_E00001 PHYSIO
resource download SANDBOX_E00001 PHYSIO --file physio.zip
resource download SANDBOX_E00001 NOPE --file nope.zip
resource download SANDBOX_E00001 PHYSIO
session upload down -P OTHER -S UP -E UP_1 --prearchive
prearchive list
prearchive list --project NOPE
pipeline list --project DEMO
pipeline list --project NOPE
pipeline run nope -E SANDBOX_E00001
pipeline status 1
pipeline jobs
pipeline cancel 99999
admin refresh-catalogs DEMO --option checksum --limit 1
admin audit
admin version
admin plugins
admin plugins list
admin plugins show nope
admin site-config get
admin site-config get siteId
admin site-config get nope
admin user list
admin user show admin
admin user show NOPE
admin user groups admin
admin user roles admin
admin user add kim DEMO_member
admin user groups kim
admin user remove kim -P DEMO --yes
admin user roles kim --grant Administrator --yes
admin user disable kim
admin user disable kim --yes
admin user enable kim --yes
admin user kill-sessions kim --yes
subject delete DEMO_003 -P DEMO --yes
api get /data/projects
api get /data/projects/NOPE
api put /data/projects/DEMO/accessibility/private
api post /data/projects/DEMO/nope
api delete /data/projects/NOPE --yes
completion bash
-p nope project list
project list --nope
"""
KIM = {"username": "kim", "firstName": "Kim", "lastName": "Lee", "email": "kim@example.org"}


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
    # Commands that the other gives no format to.
    plain = words[0] in ("config", "completion") and words[:2] != ["config", "show"]
    form = [] if plain or words[:2] == ["project", "transfer-init"] else ["-o", "json"]
    done = subprocess.run(
        [*command, *words, *form],
        env=environ,
        cwd=environ["HOME"],
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


def theirs_alone(other: str, verbs: tuple[str, ...], environ: dict[str, str]) -> set[str]:
    """The long options in the help of their command that ours does not take."""
    done = subprocess.run(
        [other, *verbs, "--help"], env=environ, capture_output=True, text=True, check=False
    )
    shown = re.findall(r"^ +(?:-\w, )?(--[a-z-]+)(?:/(--[a-z-]+))?", done.stdout, re.MULTILINE)
    ctx = click.Context(root)
    found: click.Command = root
    for verb in verbs:
        below = found.get_command(ctx, verb) if isinstance(found, Group) else None
        if below is None:
            return {" ".join(verbs)}
        found = below
    taken = {name for one in found.get_params(ctx) for name in (*one.opts, *one.secondary_opts)}
    return {name for pair in shown for name in pair if name} - taken - {"--help"}


def same(ours: Answer, theirs: Answer) -> bool:
    """Whether a script made for theirs works with ours: fields may only be added."""
    fits = theirs.keys is None or (ours.keys is not None and set(theirs.keys) <= set(ours.keys))
    return ours.code == theirs.code and fits


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--other", required=True, help="the other xnatctl")
    other = str(Path(parser.parse_args().other).resolve())
    different = 0
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        with sandbox(top / "a") as ours_at, sandbox(top / "b") as theirs_at:
            homes = [(ours_at, top / "ours"), (theirs_at, top / "theirs")]
            environs = [_home(url, home) for url, home in homes]
            lines = LINES.splitlines()
            for line in lines:
                ours, theirs = (
                    ask(command, line.format(url=environ["XNAT_URL"]).split(), environ)
                    for command, environ in zip((OURS, [other]), environs, strict=True)
                )
                if not same(ours, theirs):
                    different += 1
                    print(f"{line}\n    ours    {ours}\n    theirs  {theirs}")
            verbs = {tuple(itertools.takewhile(_VERB.fullmatch, line.split())) for line in lines}
            known = sorted({two for one in verbs for two in (one[:2], one[:3]) if _is_command(two)})
            for one in known:
                if missing := theirs_alone(other, one, environs[1]):
                    different += 1
                    print(f"{' '.join(one)}\n    not ours: {', '.join(sorted(missing))}")
    print(f"{len(lines)} lines and {len(known)} commands, {different} differences")
    return 0


def _is_command(verbs: tuple[str, ...]) -> bool:
    found: click.Command | None = root
    ctx = click.Context(root)
    for verb in verbs:
        found = found.get_command(ctx, verb) if isinstance(found, Group) else None
    return found is not None and not isinstance(found, Group)


def _home(url: str, home: Path) -> dict[str, str]:
    """An empty home, a second user at the server, and an environment that names it."""
    home.mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith("XNAT")}
    login = {"XNAT_URL": url, "XNAT_USER": "admin", "XNAT_PASS": "admin", "HOME": str(home)}
    words = ["api", "post", "/xapi/users", "--data", json.dumps(KIM)]
    subprocess.run([*OURS, *words], env={**clean, **login}, capture_output=True, check=True)
    return {**clean, **login}


if __name__ == "__main__":
    sys.exit(main())
