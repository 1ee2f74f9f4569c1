"""What a transfer carries: xnatctl 0.6 beside ours, counted by category on the servers themselves.

    python benchmarks/carried.py [--other PYTHON_OF_0.6] [--doc docs/comparison.md]

The demonstration study is copied to three empty sandboxes: once by 0.6, twice by ours (by import,
and as exact copy). Then the trees of all four servers are asked for with `GET /sandbox/inspect` and
compared by plain counting, with none of our client's or engine's code. A file counts as carried
when the same place holds a file of its name with the same MD5, a value when it stands under the
same name; identifiers that each server gives by itself are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.settings import Settings

ROOT = Path(__file__).parents[1]
OTHER = ROOT / ".venv-xnat06" / "bin" / "python"
MARKS = ("<!-- carried: begin -->", "<!-- carried: end -->")
GIVEN = {
    "ID", "project", "subject_ID", "image_session_ID", "imageSession_ID", "session_ID", "label",
}  # fmt: skip
Held = dict[str, set[tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Contender:
    """A program, how it is called, what has to be done first, and the words of its transfer."""

    name: str
    command: tuple[str, ...]
    first: str
    more: str


@dataclass(frozen=True, slots=True)
class Run:
    """What a transfer ended with, and what it left at the destination."""

    name: str
    code: int
    requests: int
    held: Held


def held(tree: Any) -> Held:
    """Everything of the project DEMO in an inspected server, by category."""
    out: Held = {}

    def note(category: str, *key: str) -> None:
        out.setdefault(category, set()).add(key)

    (project,) = (one for one in tree["projects"] if one["id"] == "DEMO")
    for category, where, item in _items(project):
        if category != "project":
            note(f"{category}s", *where)
        for path, value in item["fields"].items():
            if path not in GIVEN:
                custom = path.startswith("fields/")
                note(
                    f"{category} {'custom variables' if custom else 'values'}", *where, path, value
                )
        for resource in item["resources"]:
            place = (*where, resource["bucket"], resource["label"])
            note(f"{category} resources", *place)
            for name in ("format", "content", "tags", "description"):
                if resource[name]:
                    note("resource formats, contents, tags", *place, name, resource[name])
            dicom = category == "scan" and resource["label"] == "DICOM"
            kind = "DICOM objects, byte for byte" if dicom else f"{category} files"
            for file in resource["files"]:
                note(kind, *place, file["path"], file["md5"])
            if dicom:
                for number, _ in enumerate(resource["files"]):
                    note("DICOM objects", *place, str(number))
    return out


def _items(project: Any) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    yield "project", (), project
    for subject in project["subjects"]:
        at = (subject["label"],)
        yield "subject", at, subject
        for session in subject["sessions"]:
            below = (*at, session["label"])
            yield "session", below, session
            for scan in session["scans"]:
                yield "scan", (*below, scan["id"]), scan
            for assessor in session["assessors"]:
                yield "assessor", (*below, assessor["label"]), assessor
            for reconstruction in session["reconstructions"]:
                yield "reconstruction", (*below, reconstruction["id"]), reconstruction


async def get(url: str) -> Any:
    """The JSON behind an address."""

    def read() -> Any:
        with urlopen(url, timeout=60) as answer:
            return json.load(answer)

    return await asyncio.to_thread(read)


async def transfer(contender: Contender, source: str, target: str, home: Path) -> tuple[int, int]:
    """Copy DEMO with a program; its exit code and how many requests the two servers had."""
    before = await requests(source, target)
    environ = {
        "PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8",
        "XNAT_USER": "admin", "XNAT_PASS": "admin",
        "XNAT_DEST_USER": "admin", "XNAT_DEST_PASS": "admin",
    }  # fmt: skip
    (home / "06.yaml").write_text(
        "source_project: DEMO\ndest_project: DEMO\narchive_poll_interval: 0.2\n", encoding="utf-8"
    )
    code = 0
    for line in (
        f"config add-profile one --url {source}",
        f"config add-profile two --url {target}",
        contender.first,
        f"project transfer -p one -P DEMO --dest-project DEMO --dest-profile two {contender.more}",
    ):
        if not line:
            continue
        process = await asyncio.create_subprocess_exec(
            *contender.command, *line.split(), env=environ, cwd=home,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        code = process.returncode or 0
        if code:
            print(f"{contender.name}: {line}: exit {code}\n{said.decode()}")
    return code, await requests(source, target) - before


async def requests(*urls: str) -> int:
    """How many requests these servers have answered, those of this window not counted."""
    total = 0
    for url in urls:
        rows = (await get(f"{url}/sandbox/counters"))["requests"]
        total += sum(row["count"] for row in rows if not row["route"].startswith("/sandbox"))
    return total


async def compare(contenders: list[Contender], folder: Path) -> tuple[Held, list[Run]]:
    """What the source holds, and what each contender has carried of it."""
    runs = []
    # 0.6 leaves its uploads to what the server does with a session that has been idle.
    quick = Settings(site_id="TARGET", idle_build_s=0.5, sweep_s=0.1)
    async with AsyncExitStack() as stack:
        source = Sandbox(folder / "source", settings=Settings(site_id="SOURCE"))
        seed(source.store, "demo")
        await stack.enter_async_context(source)
        there = held(await get(f"{source.url}/sandbox/inspect"))
        for number, contender in enumerate(contenders):
            home = folder / f"home{number}"
            home.mkdir()
            target = Sandbox(folder / f"target{number}", settings=quick)
            await stack.enter_async_context(target)
            code, count = await transfer(contender, source.url, target.url, home)
            runs.append(
                Run(contender.name, code, count, held(await get(f"{target.url}/sandbox/inspect")))
            )
    return there, runs


def table(there: Held, runs: list[Run]) -> str:
    """The comparison as a Markdown table."""
    lines = [
        "| of the demonstration study | there | " + " | ".join(run.name for run in runs) + " |",
        "|---" * (len(runs) + 2) + "|",
    ]
    for category, wanted in there.items():
        counts = [len(wanted & run.held.get(category, set())) for run in runs]
        shown = [str(count) if count == len(wanted) else f"**{count}**" for count in counts]
        lines.append(f"| {category} | {len(wanted)} | " + " | ".join(shown) + " |")
    lines.append("| exit code | | " + " | ".join(str(run.code) for run in runs) + " |")
    lines.append(
        "| requests to both servers | | " + " | ".join(str(r.requests) for r in runs) + " |"
    )
    return "\n".join(lines)


def missing(there: Held, run: Run) -> Iterator[str]:
    """The first few of what was not carried, by category, for a person who wonders."""
    for category, wanted in there.items():
        lacking = sorted(wanted - run.held.get(category, set()))
        yield from (f"{category}: {' / '.join(key)[:120]}" for key in lacking[:4])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--other", default=str(OTHER), metavar="PYTHON")
    parser.add_argument("--doc", type=Path, help="Put the table between the marks of this file.")
    parser.add_argument("--missing", action="store_true", help="Name what was not carried, too.")
    options = parser.parse_args()
    if not Path(options.other).exists():
        print(f"{options.other} is missing; run `make clients`, or name one with --other")
        return 2
    other = (options.other, "-m", "xnatctl")
    ours = (sys.executable, "-m", "xnatctl")
    contenders = [
        Contender("xnatctl 0.6.0", other, "project create DEMO -p two", "--yes --config 06.yaml"),
        Contender("ours, by import", ours, "", "--yes --dicom import"),
        Contender("ours, `--dicom copy`", ours, "", "--yes --dicom copy"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        there, runs = asyncio.run(compare(contenders, Path(folder)))
    text = table(there, runs)
    print(text)
    for run in runs if options.missing else []:
        print(f"\n{run.name} did not carry:")
        for line in missing(there, run):
            print("  " + line)
    if options.doc:
        page = options.doc.read_text(encoding="utf-8")
        head, begin, rest = page.partition(MARKS[0])
        _, end, tail = rest.partition(MARKS[1])
        options.doc.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
