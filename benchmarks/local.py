"""Between a server and this machine: a session, a project, small files both ways, one big file."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from measure import (
    CLIENTS,
    CURL,
    OURS,
    Contender,
    Failed,
    Measured,
    Row,
    Server,
    counted,
    fresh,
    large,
    login,
    race,
    servers,
    theirs,
    timed,
)

_XNATPY = """
import sys, xnat
url, label, out = sys.argv[1:]
with xnat.connect(url, user="admin", password="admin", loglevel="ERROR") as server:
    server.projects["LARGE"].experiments[label].download_dir(out, verbose=False)
"""
LABEL = "LARGE_00001_MR1"
ZIPS = "curl, archives"
FEW = 1000


def emptied(folder: Path) -> Path:
    """A folder with nothing in it, on a disk with nothing to write: no earlier round is in
    anybody's time.

    Many files are put aside, because ext4 looks long for places of new ones just after it has
    forgotten thousands. Few are deleted, which spares the disk their bytes.
    """
    if folder.exists():
        if sum(1 for _ in folder.rglob("*")) > FEW:
            folder.rename(folder.with_name(f"{folder.name}-{fresh()}"))
        else:
            shutil.rmtree(folder)
    folder.mkdir(parents=True)
    os.sync()
    return folder


def session(
    name: str, seed: str, *, rounds: int, part: str = "", cpu_goal: float = 0.0, goal: float = 0.0
) -> Row:
    """`session download` beside those who fetch the same files. Only ours proves each of them.

    The ceiling is curl on the archives that ours asks for. Everybody else gets the seed `part`, if
    there is one.
    """
    _, files, size = large(seed)
    row = Row(name, f"{files:,} files, {size / 1e6:,.0f} MB", size, files, 1, ZIPS)
    if cpu_goal:
        row.goals["xnatctl 0.6.0"] = ("cpu_s", cpu_goal)
    if goal:
        row.goals["xnatctl 0.6.0"] = ("seconds", goal)
    with servers(seed) as (here, _, folder):
        contenders = [
            Contender("xnatctl", lambda _: download(here, folder)),
            Contender(ZIPS, lambda _: curl_zips(here, folder)),
        ]
        if not part:
            contenders += _others(here, folder, 1.0)
        race(row, rounds, contenders)
    if part:
        share = large(part)[1] / files
        with servers(part) as (here, _, folder):
            race(row, 1, _others(here, folder, share))
    return row


def _others(here: Server, folder: Path, share: float) -> list[Contender]:
    names = addresses(here)
    return [
        Contender("curl -Z", lambda _: parallel_curl(here, folder, names), share),
        Contender("aria2c", lambda _: aria2(here, folder, names), share, is_peer=True),
        *_slow(here, folder, share),
    ]


def _slow(here: Server, folder: Path, share: float) -> list[Contender]:
    return [
        Contender("xnatctl 0.6.0", lambda _: _download_06(here, folder), share, 1, is_peer=True),
        Contender(
            "xnatctl 0.6.0, then md5sum",
            lambda _: _proven_06(here, folder),
            share,
            1,
            is_peer=True,
        ),
        Contender("xnatpy", lambda _: _xnatpy(here, folder), share, 1, is_peer=True),
    ]


def download(here: Server, folder: Path, *more: str) -> Measured:
    out = emptied(folder / "out")
    command = [*OURS, "session", "download", "-P", "LARGE", "-E", LABEL, "--out", str(out)]
    return counted(lambda: timed([*command, *more], login(here, folder, fresh())), here)


def _proven_06(here: Server, folder: Path) -> Measured:
    """With every byte hashed, as ours does; its own `--verify` does not find what it wrote."""
    got = _download_06(here, folder)
    read = timed(f"find {folder}/out -type f -print0 | xargs -0 md5sum > {folder}/sums")
    return replace(got, seconds=got.seconds + read.seconds, cpu_s=got.cpu_s + read.cpu_s)


def _download_06(here: Server, folder: Path) -> Measured:
    out = str(emptied(folder / "out"))
    words = f"session download -p one -P LARGE -E {LABEL} -w 4 --extract --out {out}"
    return theirs(here, folder, *words.split())


def _xnatpy(here: Server, folder: Path) -> Measured:
    if not CLIENTS.exists():
        raise Failed("not installed; `make clients` does that")
    out = str(emptied(folder / "out"))
    return timed([str(CLIENTS), "-c", _XNATPY, here.url, LABEL, out])


def addresses(here: Server) -> list[str]:
    """The path of every file of the project's sessions."""
    rows = here.get("/data/projects/LARGE/experiments?format=json")["ResultSet"]["Result"]
    found = []
    for row in rows:
        files = here.get(f"/data/experiments/{row['ID']}/files?format=json&all=true")
        found += [one["URI"] for one in files["ResultSet"]["Result"]]
    return found


def parallel_curl(here: Server, folder: Path, names: Iterable[str], most: int = 8) -> Measured:
    out = emptied(folder / "out")
    lines = [
        f'url = "{here.url}{name}"\noutput = "{out}/{number}"' for number, name in enumerate(names)
    ]
    config = folder / "curl.txt"
    config.write_text("\n".join(lines) + "\n")
    return timed(
        f"{CURL} -Z --parallel-max {most} --no-progress-meter -b '{_cookie(here)}' -K {config}"
    )


def curl_zips(here: Server, folder: Path) -> Measured:
    """One archive a scan, four at a time: the most that this server gives in that form."""
    scans = dict.fromkeys(name.partition("/resources/")[0] for name in addresses(here))
    return parallel_curl(here, folder, [f"{one}/files?format=zip" for one in scans], 4)


def aria2(here: Server, folder: Path, names: Iterable[str]) -> Measured:
    if shutil.which("aria2c") is None:
        raise Failed("aria2c is not installed")
    out = emptied(folder / "out")
    listed = folder / "aria2.txt"
    listed.write_text("".join(f"{here.url}{n}\n out={i}\n" for i, n in enumerate(names)))
    return timed(
        ["aria2c", "-q", "-j", "8", "-x", "1", "--file-allocation=none", "-d", str(out),
         "--header", f"Cookie: {_cookie(here)}", "-i", str(listed)]
    )  # fmt: skip


def _cookie(here: Server) -> str:
    command = [*CURL.split(), "-X", "POST", f"{here.url}/data/JSESSION"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    return f"JSESSIONID={said.stdout}"


def export(seed: str, *, rounds: int) -> Row:
    """`project export`, with all metadata and a manifest of digests, beside curl."""
    sessions, files, size = large(seed)
    load = f"{sessions} sessions, {files:,} files, {size / 1e6:,.0f} MB"
    row = Row("project export", load, size, files, sessions, "curl -Z")

    def ours(here: Server, folder: Path) -> Measured:
        out = emptied(folder / "out")
        command = [*OURS, "project", "export", "-P", "LARGE", "--out", str(out)]
        return counted(lambda: timed(command, login(here, folder, fresh())), here)

    with servers(seed) as (here, _, folder):
        names = addresses(here)
        contenders = [
            Contender("xnatctl", lambda _: ours(here, folder)),
            Contender("curl -Z", lambda _: parallel_curl(here, folder, names)),
        ]
        return race(row, rounds, contenders)


def upload(*, files: int, size: int, some: int, rounds: int, goal: float) -> Row:
    """A folder of small files into a resource; xnatctl 0.6 has `some` of them."""
    row = Row(
        f"{files:,} files of {size // 1000} kB, upload", f"{files * size / 1e6:,.0f} MB",
        files * size, files, 1, "zip, curl",
    )  # fmt: skip
    row.goals["xnatctl 0.6.0"] = ("seconds", goal)
    with servers("large:1x1x1x1@1k") as (here, _, folder):
        body = bytes(range(256)) * (size // 256 + 1)
        for number in range(files):
            path = folder / "files" / f"{number // 1000}" / f"{number}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(number.to_bytes(8, "little") + body[: size - 8])
        small = emptied(folder / "some")
        for number in range(some):
            shutil.copy(folder / "files" / f"{number // 1000}" / f"{number}.bin", small)
        words = f"resource upload -P LARGE {LABEL}".split()

        def ours(_: int) -> Measured:
            command = [*OURS, *words, fresh(), str(folder / "files")]
            return counted(lambda: timed(command, login(here, folder, fresh())), here)

        at = f"{here.url}/data/projects/LARGE/subjects/LARGE_00001/experiments/{LABEL}/resources"

        def packed(_: int) -> Measured:
            return timed(
                f"cd {folder}/files && rm -f ../a.zip && zip -q -r -0 ../a.zip . && "
                f"{CURL} -T ../a.zip -X PUT "
                f"'{at}/{fresh()}/files/a.zip?inbody=true&extract=true' "
                "-H 'Content-Type: application/zip' -o /dev/null"
            )

        def slow(_: int) -> Measured:
            return theirs(here, folder, *words, fresh(), str(small), "-p", "one")

        return race(
            row,
            rounds,
            [
                Contender("xnatctl", ours),
                Contender("zip, curl", packed, is_peer=True),
                Contender("xnatctl 0.6.0", slow, some / files, 1, is_peer=True),
            ],
        )


def one_file(size: str, *, rounds: int) -> Row:
    """One file of `size` (`1G`) to this disk."""
    seed = f"large:1x1x1x1@{size}"
    row = Row("one big file, download", size, large(seed)[2], 1, 1, "curl")
    with servers(seed) as (here, _, folder):
        names = addresses(here)
        contenders = [
            Contender("xnatctl", lambda _: download(here, folder)),
            Contender("curl", lambda _: parallel_curl(here, folder, names)),
            Contender("aria2c", lambda _: aria2(here, folder, names), is_peer=True),
            *_slow(here, folder, 1.0),
        ]
        return race(row, rounds, contenders)
