"""NIfTI files of scans in the layout of BIDS, by rules of the user.

1. Files of one scan that differ in their extension only are one image with its sidecars, whichever
   of the wanted resources they lie in.
2. The first rule whose patterns fit the scan's type or description, and the file's name, names
   it; what no rule fits is not wanted.
3. Images of a session that get the same name are numbered `run-01`, `run-02` by scan ID.
4. These paths are the keys of the items, so that what is there already is kept like in any other
   folder, and nothing is downloaded twice.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio.to_thread

from xnatctl.engine.ports import Inventory
from xnatctl.engine.types import Unit
from xnatctl.errors import ConfigError, Conflict

from .catalogue import parse_key
from .local import Digests, FileStamp, LocalSink
from .manifest import HOME, replace_file

BIDS_VERSION = "1.9.0"
_IMAGES = (".nii.gz", ".nii")
_GRADIENTS = (".bval", ".bvec")
_TABLES = dict.fromkeys(("events", "beh", "aslcontext", "blood"), ".tsv")
_TABLES |= {"physio": ".tsv.gz", "stim": ".tsv.gz"}
_EXTENSIONS = (*_IMAGES, *_GRADIENTS, ".tsv.gz", ".tsv", ".json")
_FOLDERS = "anat beh dwi eeg fmap func ieeg meg micr motion mrs nirs perf pet"
_NAME = re.compile(
    rf"(?:{_FOLDERS.replace(' ', '|')})/(?:[a-z]+-[A-Za-z0-9]+_)*(?P<suffix>[A-Za-z0-9]+)"
)
# The entities that stand behind `run` in a BIDS name (1.9.0, appendix "Entity table").
_AFTER_RUN = re.compile(
    r"(mod|echo|flip|inv|mt|part|proc|hemi|space|split|recording|chunk|seg|res|den|label|desc)-"
)


@dataclass(frozen=True, slots=True)
class Naming:
    """One rule: what fits `scan` and `file` (patterns) gets `name`, as `func/task-rest_bold`."""

    scan: str
    name: str
    file: str = "*"

    def fits(self, texts: Iterable[str], stem: str) -> bool:
        pattern = self.scan.lower()
        return fnmatchcase(stem.rpartition("/")[2].lower(), self.file.lower()) and any(
            text and fnmatchcase(text.lower(), pattern) for text in texts
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """The whole file of rules."""

    namings: tuple[Naming, ...]
    resources: tuple[str, ...] = ("NIFTI", "BIDS")
    subject: str = "{subject}"
    session: str = "{session}"
    name: str = ""

    @classmethod
    def parse(cls, data: Any, where: str) -> Rules:
        """Out of the data of a YAML file. Raises ConfigError that names what is wrong."""
        if not isinstance(data, dict) or not isinstance(data.get("rules"), list):
            raise ConfigError(
                f"{where} holds no rules",
                why="`rules:` has to be a list",
                hint="rules: [{scan: 'T1w*', name: anat/T1w}]",
            )
        known = ("rules", "resources", "subject", "session", "name")
        if unknown := [key for key in data if key not in known]:
            raise ConfigError(
                f"{where}: {unknown[0]!r} is not known", hint=f"known: {', '.join(known)}"
            )
        namings = [_naming(one, f"{where}, rule {at}") for at, one in enumerate(data["rules"], 1)]
        plain = cls(tuple(namings))
        some = data.get("resources", plain.resources)
        rules = replace(
            plain,
            resources=tuple(map(str, some if isinstance(some, (list, tuple)) else [some])),
            subject=str(data.get("subject", plain.subject)),
            session=str(data.get("session", plain.session)),
            name=str(data.get("name", plain.name)),
        )
        for text in (rules.subject, rules.session):
            try:
                text.format(subject="x", session="y")
            except (KeyError, ValueError, IndexError, AttributeError) as error:
                raise ConfigError(
                    f"{where}: {text!r} cannot be filled in",
                    why="only {subject} and {session} may stand in braces",
                ) from error
        return rules


def _naming(data: Any, where: str) -> Naming:
    if not isinstance(data, dict) or not {"scan", "name"} <= data.keys() <= {
        "scan",
        "name",
        "file",
    }:
        raise ConfigError(
            f"{where} is none",
            why="a rule has `scan` and `name`, and may have `file`",
            hint="- {scan: 'T1w*', name: anat/T1w}",
        )
    naming = Naming(**{key: str(text) for key, text in data.items()})
    if not _NAME.fullmatch(naming.name):
        raise ConfigError(
            f"{where}: {naming.name!r} is no BIDS name",
            why=f"it is a folder ({_FOLDERS}), a slash, entities and a suffix",
            hint="func/task-rest_bold",
        )
    return naming


def labels_of(unit: Unit, rules: Rules) -> tuple[str, str]:
    """The labels of subject and session, of which BIDS allows letters and digits only."""
    facts = {"subject": unit.ref.subject or "", "session": unit.ref.session or ""}
    both = (text.format(**facts) for text in (rules.subject, rules.session))
    subject, session = (re.sub(r"[^A-Za-z0-9]", "", text) for text in both)
    return subject, session


def find_twins(units: Iterable[Unit], rules: Rules) -> dict[str, str]:
    """By the key of each session that another one has the same labels as: the other's label."""
    found: dict[tuple[str, str], list[Unit]] = defaultdict(list)
    for unit in units:
        found[labels_of(unit, rules)].append(unit)
    several = [some for some in found.values() if len(some) > 1]
    return {one.key: some[some[0] is one].label for some in several for one in some}


def names_of(unit: Unit, rules: Rules) -> dict[str, str]:
    """The path in the dataset of every file of a session that gets one, by key. Pure."""
    # Name -> (scan, path without its extension) -> extension -> key
    images: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for key in sorted(one.key for one in unit.items):
        parsed = parse_key(key)
        if parsed is None or parsed[1][0] != "scans":
            continue
        scan, inside = parsed[1][1] or "", parsed[2]
        extension = next((one for one in _EXTENSIONS if inside.endswith(one)), "")
        stem = inside.removesuffix(extension)
        if extension and (name := _name_for(scan, stem, unit.facts, rules)):
            files = images.setdefault(name, defaultdict(dict))[scan, stem]
            files.setdefault(extension, key)
    subject, session = labels_of(unit, rules)
    found: dict[str, str] = {}
    for name, stems in images.items():
        folder, rest = name.split("/")
        chosen = {stem: files for stem in stems if (files := _fitting(stems[stem], rest))}
        order = sorted(chosen, key=lambda stem: (_natural(stem[0]), stem[1]))
        for number, place in enumerate(order, 1):
            full = _numbered(rest, number) if len(order) > 1 else rest
            base = f"sub-{subject}/ses-{session}/{folder}/sub-{subject}_ses-{session}_{full}"
            found |= {key: f"{base}{extension}" for extension, key in chosen[place].items()}
    return found


def _name_for(scan: str, stem: str, facts: Mapping[str, str], rules: Rules) -> str:
    texts = [facts.get(f"scan-{what}:{scan}", "") for what in ("type", "description")]
    return next((one.name for one in rules.namings if one.fits(texts, stem)), "")


def _fitting(files: Mapping[str, str], name: str) -> dict[str, str]:
    """Of the files of one stem those that BIDS knows together; none without an image or table."""
    suffix = name.rpartition("_")[2]
    first = (_TABLES[suffix],) if suffix in _TABLES else _IMAGES
    found = [one for one in first if one in files][:1]
    beside = (*_GRADIENTS, ".json") if suffix in ("dwi", "epi") else (".json",)
    return {one: files[one] for one in (*found, *beside) if one in files} if found else {}


def _numbered(name: str, number: int) -> str:
    """The name with its run, which BIDS wants before some entities and the suffix."""
    parts = [one for one in name.split("_") if not one.startswith("run-")]
    place = next((at for at, part in enumerate(parts) if _AFTER_RUN.match(part)), len(parts) - 1)
    return "_".join([*parts[:place], f"run-{number:02d}", *parts[place:]])


def _natural(text: str) -> list[tuple[int, str]]:
    """`2` before `10`, `2-MR1` after `2`."""
    return [(int(digits or 0), rest) for digits, rest in re.findall(r"(\d*)(\D*)", text)]


class BidsSink(LocalSink):
    """Writes sessions into the dataset at `root`."""

    def __init__(
        self, root: Path, rules: Rules, *, digests: Digests, twins: Mapping[str, str]
    ) -> None:
        super().__init__(root.absolute(), place=lambda unit, key: key, digests=digests)
        self._rules = rules
        self._twins = twins
        self._memory = digests
        self._placed: set[str] = set()

    def _named(self, unit: Unit) -> Unit:
        """The unit with what gets a name, under that. Raises Conflict where two get the same."""
        if not any(parse_key(one.key) for one in unit.items):
            return unit
        names = names_of(unit, self._rules)
        if names:
            self._check(unit, names)
        self._placed.update(names.values())
        items = (replace(one, key=names[one.key]) for one in unit.items if one.key in names)
        return replace(unit, items=tuple(items))

    def _check(self, unit: Unit, names: Mapping[str, str]) -> None:
        """Nothing may have two meanings, whatever order it comes in."""
        subject, session = labels_of(unit, self._rules)
        twin = self._twins.get(unit.key)
        if twin or not (subject and session):
            raise Conflict(
                f"{unit.label} gets the same labels as {twin}"
                if twin
                else f"{unit.label}: no label",
                why=f"it would be sub-{subject} ses-{session}",
                hint="change `subject:` or `session:` in the rules",
            )
        paths = sorted(names.values())
        if double := next((one for one, other in pairwise(paths) if one == other), ""):
            raise Conflict(
                f"two files of {unit.label} would be {double}",
                hint="leave `run-` out of the rules; runs are numbered where there are several",
            )

    async def inventory(self, unit: Unit, former: Iterable[str] = ()) -> Inventory:
        return await super().inventory(self._named(unit), former)

    def prepare(self, unit: Unit, inventory: Inventory) -> Unit:
        return super().prepare(self._named(unit), inventory)

    def may_hold(self, unit: Unit, paths: Iterable[str]) -> bool:
        """Whether any of these files lies where those of the session do."""
        subject, session = labels_of(unit, self._rules)
        return any(path.startswith(f"sub-{subject}/ses-{session}/") for path in paths)

    def keep(self, unit: Unit) -> None:
        """Take the files of a session, as it is described now, for those of this run."""
        self._placed.update(names_of(unit, self._rules).values())

    async def only_here(self) -> list[str]:
        """Files that earlier runs wrote and no session of this one has, such as those of a session
        that is gone, or an image that has become `run-01`. What others put there is theirs.
        """
        found = await anyio.to_thread.run_sync(self._strangers)
        ours = await self._memory.local_digests(found)
        return sorted(Path(path).relative_to(self._root).as_posix() for path in ours)

    def _strangers(self) -> list[FileStamp]:
        found = []
        for path in self._root.glob("sub-*/ses-*/*/*"):
            if path.relative_to(self._root).as_posix() not in self._placed and path.is_file():
                facts = path.stat()
                found.append((str(path), facts.st_size, facts.st_mtime_ns))
        return found

    def describe_dataset(self, source: str) -> None:
        """The files that every dataset has, where they are missing, and a row for each subject."""
        self._root.mkdir(parents=True, exist_ok=True)
        name = self._rules.name or source.rpartition("/")[2]
        facts = {
            "Name": name,
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "GeneratedBy": [{"Name": "xnatctl"}],
            "SourceDatasets": [{"URL": source}],
        }
        texts = {
            "dataset_description.json": json.dumps(facts, indent=2, ensure_ascii=False),
            "README": f"{name}\n\nExported from {source}.",
            ".bidsignore": f"{HOME}/",
            "participants.tsv": "participant_id",
        }
        for file, text in texts.items():
            if not (self._root / file).exists():
                replace_file(self._root / file, (text, "\n"))
        self._list_participants(self._root / "participants.tsv")

    def _list_participants(self, path: Path) -> None:
        """Add those that are missing; columns that somebody filled in stay as they are."""
        lines = path.read_text("utf-8").splitlines()
        known = {line.split("\t")[0] for line in lines}
        fresh = sorted({one.name for one in self._root.glob("sub-*") if one.is_dir()} - known)
        blank = "\tn/a" * (len(lines[0].split("\t")) - 1 if lines else 0)
        if fresh:
            rows = [*lines, *(f"{one}{blank}" for one in fresh)]
            replace_file(path, (f"{row}\n" for row in rows))
