"""From one server to another: big files, small files, one file, mixed sizes, many sessions."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

from measure import (
    CURL,
    Contender,
    Measured,
    Row,
    Server,
    fresh,
    large,
    ours,
    race,
    servers,
    theirs,
    timed,
)

from xnatctl.sandbox.bodies import Generated
from xnatctl.sandbox.store import Store

PIPES, OLD = "curl | curl", "xnatctl 0.6.0"
MOST_PIPES = 50
"""Sessions that curl gets, where there are more: it begins three programs for each."""


def copied(
    name: str,
    seed: str,
    *,
    rounds: int,
    mode: str = "copy",
    goal: float = 0.9,
    part: str = "",
    goal_06: float = 0.0,
) -> Row:
    """Ours against pipes of curl over the same bodies, with an MD5 of each and without, and against
    xnatctl 0.6.0, once, on the seed `part`, by file.
    """
    sessions, files, size = large(seed)
    load = f"{sessions} sessions, {files:,} files, {size / 1e6:,.0f} MB"
    row = Row(name, load, size, files, sessions, PIPES)
    if goal:
        row.goals["curl | md5 | curl"] = ("seconds", goal)
    with servers(seed) as (here, there, folder):
        bodies = _scans(here)
        contenders = [
            Contender(
                "xnatctl",
                lambda _: ours(here, there, folder, fresh(), "--dicom", mode),
            ),
            Contender("curl | md5 | curl", lambda _: pipes(here, there, folder, bodies)),
            Contender(PIPES, lambda _: pipes(here, there, folder, bodies, prove=False)),
        ]
        race(row, rounds, contenders)
    if part:
        row.goals[OLD] = ("seconds", goal_06)
        _by_06(row, part, large(part)[1] / files)
    return row


def pipes(
    here: Server,
    there: Server,
    folder: Path,
    bodies: list[tuple[str, str, str]],
    *,
    prove: bool = True,
) -> Measured:
    """Four pipes at a time over the same bodies, one archive a scan, into scans that are there."""
    project = fresh()
    base = f"{there.url}/data/projects/{project}"
    subject = f"{base}/subjects/S"
    made, work = [f"{CURL} -X PUT '{base}'", f"{CURL} -X PUT '{subject}'"], []
    for number, (path, session, scan) in enumerate(bodies):
        at = f"{subject}/experiments/{session}"
        made += [f"{CURL} -X PUT '{at}?xsiType=xnat:mrSessionData'"]
        made += [f"{CURL} -X PUT '{at}/scans/{scan}?xsiType=xnat:mrScanData'"]
        digest = f"tee >(md5sum > {folder}/md5.{number}) | " if prove else ""
        work.append(
            f"{CURL} '{here.url}{path}?format=zip' | {digest}{CURL} -X PUT -T - "
            f"'{at}/scans/{scan}/resources/DATA/files/{number}.zip?inbody=true&extract=true' "
            "-H 'Content-Type: application/zip' -o /dev/null"
        )
    script = folder / "pipes.sh"
    script.write_text("\n".join(work) + "\n")
    timed("\n".join(f"{line} -o /dev/null" for line in dict.fromkeys(made)))
    return timed(f"xargs -P 4 -d '\\n' -I CMD bash -o pipefail -c CMD < {script}")


def _scans(here: Server, most: int = 1_000_000) -> list[tuple[str, str, str]]:
    """Path, session and scan of the scans of the first `most` sessions."""
    rows = here.get("/data/projects/LARGE/experiments?format=json")["ResultSet"]["Result"]
    found = []
    for row in rows[:most]:
        scans = here.get(f"/data/experiments/{row['ID']}/scans?format=json")
        for scan in scans["ResultSet"]["Result"]:
            path = f"/data/experiments/{row['ID']}/scans/{scan['ID']}/files"
            found.append((path, row["label"], scan["ID"]))
    return found


def against_06(name: str, seed: str, part: str, *, goal: float, rounds: int = 1) -> Row:
    """Ours on all of `seed`, xnatctl 0.6 once on `part` of it; both import. By session."""
    sessions, files, size = large(seed)
    some, some_files, _ = large(part)
    share = some / sessions if some < sessions else some_files / files
    load = f"{sessions:,} sessions, {files:,} files, {size / 1e6:,.0f} MB, DICOM by import"
    row = Row(name, load, size, files, sessions, PIPES)
    row.goals[OLD] = ("seconds", goal)
    with servers(seed) as (here, there, folder):
        bodies = _scans(here, most=MOST_PIPES)
        scans = sessions * int(seed.split("x")[2])
        contenders = [
            Contender("xnatctl", lambda _: ours(here, there, folder, fresh())),
            Contender(
                PIPES,
                lambda _: pipes(here, there, folder, bodies, prove=False),
                len(bodies) / scans,
            ),
        ]
        race(row, rounds, contenders)
    return _by_06(row, part, share)


def _by_06(row: Row, part: str, share: float) -> Row:
    with servers(part) as (here, there, folder):
        run = _transfer_06(here, there, folder)
        return race(row, 1, [Contender(OLD, run, share, is_peer=True)])


def _transfer_06(here: Server, there: Server, folder: Path) -> Callable[[int], Measured]:
    def run(_: int) -> Measured:
        words = "project transfer -p one -P LARGE --dest-project LARGE --dest-profile two --yes"
        setup = ["project create LARGE -p two"]
        return theirs(here, folder, *words.split(), there=there, setup=setup)

    return run


def mixed(*, files: int, total: int, rounds: int) -> Row:
    """Sizes as archives have them: log-normal, so that few files hold most of the bytes."""
    draw = random.Random(9)
    raw = [draw.lognormvariate(0.0, 2.0) for _ in range(files)]
    sizes = [max(1, math.floor(one * total / sum(raw))) for one in raw]
    sessions, total = 8, sum(sizes)

    def fill(root: Path) -> None:
        store = Store(root)
        project = store.create_project("LARGE")
        subject = store.create_subject(project, "S")
        for number in range(sessions):
            session = store.create_experiment(subject, f"MIXED_{number}")
            scan = store.create_scan(session, "1")
            resource = store.create_resource(scan, "DATA")
            part = sizes[number::sessions]
            names = ((f"{n}.bin", Generated(one, n % 256)) for n, one in enumerate(part))
            store.add_generated(resource, names)
        store.close()

    load = f"{files:,} files from {min(sizes):,} bytes to {max(sizes) / 1e6:,.0f} MB"
    row = Row("mixed sizes, relay", load, total, files, sessions, "curl | md5 | curl")
    with servers(fill=fill) as (here, there, folder):
        bodies = _scans(here)
        contenders = [
            Contender("xnatctl", lambda _: ours(here, there, folder, fresh(), "--dicom", "copy")),
            Contender("curl | md5 | curl", lambda _: pipes(here, there, folder, bodies)),
        ]
        return race(row, rounds, contenders)


def unchanged(sessions: int, *, rounds: int) -> Row:
    """The same transfer again, where nothing has to move.

    The files are there beforehand, so that the first run only writes metadata.
    """
    seed = f"large:1x{sessions}x1x1@1k"
    row = Row(f"nothing to do, {sessions:,} sessions", "second run", 0, sessions, sessions)
    with servers(seed, there=[seed]) as (here, there, folder):
        more = ("--dicom", "copy", "--on-conflict", "merge")
        run = Contender("xnatctl, first run", lambda _: ours(here, there, folder, "LARGE", *more))
        race(row, 1, [run])
        run = Contender("xnatctl", lambda _: ours(here, there, folder, "LARGE", *more))
        race(row, rounds, [run])
    each = row.rounds["xnatctl"][0].requests / sessions
    row.notes.append(f"{each:.2f} requests a session in the second run (at most 3)")
    return row
