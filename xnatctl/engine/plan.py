"""What has to move, decided by comparing two inventories and never by clocks. Pure.

`decide` gives every item its verdict, `pack` puts many small files into one archive.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from .types import Item, Left, Member, Stamp, Unit, Verdict

OnConflict = Literal["skip", "fail", "merge", "replace"]

SMALL_MEAN = 1024 * 1024
MANY = 50
# XNAT looks such paths up in more than one decoding; only an archive carries them faithfully (1.8).
UNSAFE_NAME = "unsafe-name"
"""The code of a file whose name neither a URL nor an archive can carry: its resource's archive
cannot be read either."""
ODD_CHARACTERS = frozenset("+%#;[],")
ANOTHER_SERIES = "another series has this scan ID"
"""A difference that nothing is written over: what hangs on that scan is the other series'."""


def same(left: Stamp, right: Stamp) -> bool:
    """Whether two stamps are of equal bodies, as far as both sides know."""
    if left.objects != right.objects:
        return False
    if left.uid and right.uid and left.uid != right.uid:
        return False
    if left.size is not None and right.size is not None and left.size != right.size:
        return False
    return not (left.digest and right.digest) or left.digest == right.digest


def expected(item: Item) -> dict[str, Stamp]:
    """What the sink's inventory has to say after the item has arrived, by key."""
    if item.kind == "document":
        return {}
    if item.kind == "import":
        return {item.key: Stamp(objects=len(item.members), uid=item.uid)}
    if item.kind == "zip":
        return {one.key: Stamp(one.size, one.digest) for one in item.members}
    return {item.key: Stamp(item.size, item.digest)}


def decide(
    unit: Unit, inventory: Mapping[str, Stamp], *, known: Mapping[str, str], overwrite: bool
) -> Unit:
    """The unit with a verdict on each item. `known` has the digests of an earlier run by key.

    `overwrite` replaces what differs; without it that is a conflict and stays as it is.
    """
    return replace(
        unit, items=tuple(_judge(item, inventory, known, overwrite) for item in unit.items)
    )


def _judge(
    item: Item, inventory: Mapping[str, Stamp], known: Mapping[str, str], overwrite: bool
) -> Item:
    if item.verdict is Verdict.LEAVE:
        return item
    if item.kind == "document":
        there = inventory.get(item.key)
        unchanged = there is not None and (there.digest or known.get(item.key)) == item.digest
        return replace(item, verdict=Verdict.KEEP if unchanged else Verdict.COPY)
    (wanted,) = expected(item).values()
    there = inventory.get(item.key)
    if there is None:
        return replace(item, verdict=Verdict.COPY)
    if not same(wanted, there):
        # What is there is what an earlier run wrote: the source has changed since.
        ours = bool(there.digest) and known.get(item.key) == there.digest
        return _differs(item, wanted, there, overwrite or ours)
    if item.kind == "import" and known.get(item.key, item.digest) != item.digest:
        return _differs(item, Stamp(digest=item.digest), Stamp(digest=known[item.key]), overwrite)
    return replace(item, verdict=Verdict.KEEP)


def _differs(item: Item, wanted: Stamp, there: Stamp, overwrite: bool) -> Item:
    reason = difference(wanted, there)
    if overwrite and item.kind != "import":
        return replace(item, verdict=Verdict.REPLACE, reason=reason)
    return replace(item, verdict=Verdict.CONFLICT, reason=reason)


def surplus(unit: Unit, inventory: Mapping[str, Stamp]) -> tuple[str, ...]:
    """Keys of files, of assessors and of shares that the sink has and the source has not.

    What the selection leaves out is not looked at, nor are the files of a scan that was imported:
    they are compared as a whole.
    """
    expecting = {key for item in unit.items for key in (item.key, *expected(item))}
    expecting |= {member.key for item in unit.items for member in item.members}
    apart = {item.key for item in unit.items if item.kind == "import"} | unit.aside
    return tuple(
        key
        for key in inventory
        if ("/files/" in key or key.startswith("shares/") or "/shares/" in key or is_assessor(key))
        and key not in expecting
        and key.partition("/files/")[0] not in apart
    )


def is_assessor(key: str) -> bool:
    """Whether the key is that of an assessor's document."""
    return key.startswith("assessors/") and key.count("/") == 2 and key.endswith(".xml")


def settle(unit: Unit, inventory: Mapping[str, Stamp], *, policy: OnConflict, ours: bool) -> Unit:
    """The unit under the policy for what exists differently at the sink.

    It exists differently when something differs from the source, or when it holds files that the
    source does not have and no earlier run of ours knows of it. `fail` and `skip` then write
    nothing of the unit, `merge` adds what is missing and leaves what differs, `replace` overwrites
    that. Extra files of a unit of ours are deletions at the source; they are noted and stay.
    """
    unit = replace(unit, extra=surplus(unit, inventory))
    if unit.kind not in ("session", "experiment"):
        return unit
    extra = [key for key in unit.extra if "/files/" in key]
    differing = [item for item in unit.items if item.verdict is Verdict.CONFLICT]
    if extra and ours:
        notes = (*unit.notes, f"{len(extra)} files are only at the destination: {extra[0]}")
        unit = replace(unit, notes=notes)
    if not differing and (ours or not extra):
        return unit
    reason = f"{differing[0].key}: {differing[0].reason}" if differing else f"{extra[0]} is extra"
    if policy == "skip":
        left = Left(unit.key, "exists", f"exists differently at the destination: {reason}")
        return replace(unit, items=(), left=(*unit.left, left))
    if policy == "fail":
        return replace(unit, conflict=reason)
    if policy == "merge":
        return unit
    return replace(
        unit,
        items=tuple(
            replace(item, verdict=Verdict.REPLACE)
            if item.verdict is Verdict.CONFLICT and item.reason != ANOTHER_SERIES
            else item
            for item in unit.items
        ),
    )


def difference(wanted: Stamp, there: Stamp) -> str:
    """How two stamps differ, in words."""
    if wanted.objects != there.objects:
        return f"{wanted.objects} objects here, {there.objects} there"
    if wanted.uid and there.uid and wanted.uid != there.uid:
        return ANOTHER_SERIES
    if wanted.size is not None and there.size is not None and wanted.size != there.size:
        return f"{wanted.size} bytes here, {there.size} there"
    return "another digest"


def pack(unit: Unit, *, accepts_zip: bool) -> Unit:
    """Join the files of a resource that have to move into one archive where that is cheaper.

    It is where they are many and small, and most of the resource: the source sends an archive of
    all of it. It is needed for empty files, for unknown sizes and for odd names.
    """
    if not accepts_zip:
        return unit
    groups: dict[str, list[Item]] = defaultdict(list)
    totals: dict[str, int] = defaultdict(int)
    unfit = {left.key.partition("/files/")[0] for left in unit.left if left.code == UNSAFE_NAME}
    for item in unit.items:
        if item.kind == "file":
            totals[item.lane] += item.bytes
            if item.verdict in (Verdict.COPY, Verdict.REPLACE):
                groups[item.lane].append(item)
    packed = {
        lane: zip_of(lane, some)
        for lane, some in groups.items()
        if lane not in unfit and _pays(some, totals[lane])
    }
    rest = tuple(
        item
        for item in unit.items
        if item.lane not in packed
        or item.kind != "file"
        or item.verdict not in (Verdict.COPY, Verdict.REPLACE)
    )
    return replace(unit, items=rest + tuple(packed.values()))


def needs_zip(item: Item) -> bool:
    return not item.size or not ODD_CHARACTERS.isdisjoint(item.path)


def _pays(items: list[Item], total: int) -> bool:
    if any(needs_zip(item) for item in items):
        return True
    wanted = sum(item.bytes for item in items)
    small = len(items) > MANY or wanted < SMALL_MEAN * len(items)
    return len(items) > 1 and small and 2 * wanted >= total


def zip_of(lane: str, items: list[Item]) -> Item:
    """One archive item of several file items of one resource."""
    first = items[0]
    verdict = Verdict.REPLACE if any(i.verdict is Verdict.REPLACE for i in items) else Verdict.COPY
    return Item(
        key=lane,
        kind="zip",
        lane=lane,
        ref=first.ref,
        members=tuple(Member(one.key, one.path, one.size, one.digest) for one in items),
        stage=first.stage,
        verdict=verdict,
    )


def signature(unit: Unit) -> str:
    """A digest of what is about to be done with a unit; it changes when either end does.

    What a project holds itself depends on whether this run creates it, so there only the source
    counts.
    """
    if unit.kind == "project":
        return unit.fingerprint
    lines = [
        f"{one.verdict}\t{key}\t{stamp.size}\t{stamp.digest}\t{stamp.objects}"
        for one in unit.items
        for key, stamp in (expected(one) or {one.key: Stamp(digest=one.digest)}).items()
    ]
    whole = "\n".join([unit.key, unit.conflict, *sorted(lines)])
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def remaining(item: Item, inventory: Mapping[str, Stamp], *, split: bool = False) -> list[Item]:
    """What of an item is not at the sink yet, after a failure that may have stored some of it.

    `split` gives up on the archive where its files can go one by one.
    """
    if item.kind == "document":
        return [item]
    wanted = expected(item)
    missing = {key for key, stamp in wanted.items() if not _there(key, stamp, inventory)}
    if not missing:
        return []
    if item.kind != "zip":
        return [replace(item, verdict=Verdict.REPLACE)]
    files = [
        Item(
            key=one.key,
            kind="file",
            lane=item.lane,
            ref=item.ref,
            path=one.path,
            size=one.size,
            digest=one.digest,
            stage=item.stage,
            verdict=Verdict.REPLACE,
        )
        for one in item.members
        if one.key in missing
    ]
    odd = [one for one in files if needs_zip(one)]
    if split or 2 * len(files) <= len(item.members):
        plain = [one for one in files if not needs_zip(one)]
        return plain + ([zip_of(item.lane, odd)] if odd else [])
    return [zip_of(item.lane, files)]


def _there(key: str, stamp: Stamp, inventory: Mapping[str, Stamp]) -> bool:
    found = inventory.get(key)
    return found is not None and same(stamp, found)
