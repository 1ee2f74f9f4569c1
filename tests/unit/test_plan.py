"""What has to move: verdicts, packing, what remains after a failure. Tables of cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatctl.engine.plan import (
    ANOTHER_SERIES,
    MANY,
    SMALL_MEAN,
    UNSAFE_NAME,
    decide,
    difference,
    expected,
    needs_zip,
    pack,
    remaining,
    same,
    settle,
    signature,
    zip_of,
)
from xnatctl.engine.types import Item, Left, Member, Stamp, Unit, Verdict
from xnatctl.model import Ref

REF = Ref("P", "S", "E", resource="R")
LANE = "resources/R"
A, B = "a" * 32, "b" * 32


def file(
    path: str = "x.bin",
    *,
    size: int | None = 10,
    digest: str = A,
    lane: str = LANE,
    verdict: Verdict = Verdict.COPY,
) -> Item:
    return Item(
        key=f"{lane}/files/{path}",
        kind="file",
        lane=lane,
        ref=REF,
        path=path,
        size=size,
        digest=digest,
        verdict=verdict,
    )


def document(digest: str = A) -> Item:
    return Item("session.xml", "document", "session.xml", REF, path="session", digest=digest)


def scan(count: int = 3, *, digest: str = A, uid: str = "1.2.3") -> Item:
    members = tuple(Member(f"k{n}", f"{n}.dcm", 5, A) for n in range(count))
    lane = "scans/1/resources/DICOM"
    return Item(lane, "import", "import", REF, members=members, digest=digest, uid=uid, stage=0)


def unit(*items: Item, left: tuple[Left, ...] = ()) -> Unit:
    return Unit("U", "session", REF, REF, items=items, left=left)


def verdict_on(
    item: Item,
    there: Stamp | None,
    *,
    known: dict[str, str] | None = None,
    overwrite: bool = False,
) -> tuple[Verdict, str]:
    inventory = {} if there is None else {item.key: there}
    (judged,) = decide(unit(item), inventory, known=known or {}, overwrite=overwrite).items
    return judged.verdict, judged.reason


# --- comparing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (Stamp(1, A), Stamp(1, A), True),
        (Stamp(1, A), Stamp(1, B), False),
        (Stamp(1, A), Stamp(2, A), False),
        (Stamp(1, A), Stamp(1, ""), True),
        (Stamp(1, ""), Stamp(2, ""), False),
        (Stamp(None, A), Stamp(1, A), True),
        (Stamp(None, A), Stamp(1, B), False),
        (Stamp(None, ""), Stamp(7, ""), True),
        (Stamp(objects=2), Stamp(objects=2), True),
        (Stamp(objects=2), Stamp(objects=3), False),
        (Stamp(objects=2, uid="1"), Stamp(objects=2, uid="2"), False),
        (Stamp(objects=2, uid="1"), Stamp(objects=2), True),
    ],
)
def test_stamps_are_equal_as_far_as_both_sides_know(left: Stamp, right: Stamp, equal: bool) -> None:
    assert same(left, right) is equal
    assert same(right, left) is equal


@given(
    st.builds(
        Stamp,
        st.none() | st.integers(0, 3),
        st.sampled_from(["", A, B]),
        st.integers(1, 2),
        st.sampled_from(["", "1", "2"]),
    ),
    st.builds(
        Stamp,
        st.none() | st.integers(0, 3),
        st.sampled_from(["", A, B]),
        st.integers(1, 2),
        st.sampled_from(["", "1", "2"]),
    ),
)
def test_every_difference_has_words(left: Stamp, right: Stamp) -> None:
    assert same(left, left)
    if not same(left, right):
        assert difference(left, right)


# --- verdicts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "overwrite", "verdict", "reason"),
    [
        (None, False, Verdict.COPY, ""),
        (None, True, Verdict.COPY, ""),
        (Stamp(10, A), False, Verdict.KEEP, ""),
        (Stamp(10, ""), False, Verdict.KEEP, ""),
        (Stamp(10, B), False, Verdict.CONFLICT, "another digest"),
        (Stamp(10, B), True, Verdict.REPLACE, "another digest"),
        (Stamp(11, A), False, Verdict.CONFLICT, "10 bytes here, 11 there"),
        (Stamp(11, ""), True, Verdict.REPLACE, "10 bytes here, 11 there"),
    ],
)
def test_a_file_is_judged_by_what_the_sink_lists(
    there: Stamp | None, overwrite: bool, verdict: Verdict, reason: str
) -> None:
    assert verdict_on(file(), there, overwrite=overwrite) == (verdict, reason)


def test_a_file_that_an_earlier_run_wrote_is_replaced_when_the_source_has_changed() -> None:
    item = file(digest=A)

    assert verdict_on(item, Stamp(10, B), known={item.key: B})[0] is Verdict.REPLACE
    assert verdict_on(item, Stamp(10, "c" * 32), known={item.key: B})[0] is Verdict.CONFLICT


@pytest.mark.parametrize(
    ("there", "known", "verdict"),
    [
        (None, {}, Verdict.COPY),
        (None, {"session.xml": A}, Verdict.COPY),
        (Stamp(), {}, Verdict.COPY),
        (Stamp(), {"session.xml": A}, Verdict.KEEP),
        (Stamp(), {"session.xml": B}, Verdict.COPY),
    ],
)
def test_a_document_is_written_unless_it_is_known_to_be_unchanged(
    there: Stamp | None, known: dict[str, str], verdict: Verdict
) -> None:
    assert verdict_on(document(), there, known=known)[0] is verdict


@pytest.mark.parametrize(
    ("there", "known", "verdict"),
    [
        (None, {}, Verdict.COPY),
        (Stamp(objects=3, uid="1.2.3"), {}, Verdict.KEEP),
        (Stamp(objects=3), {}, Verdict.KEEP),
        (Stamp(objects=3), {"scans/1/resources/DICOM": A}, Verdict.KEEP),
        (Stamp(objects=3), {"scans/1/resources/DICOM": B}, Verdict.CONFLICT),
        (Stamp(objects=2), {}, Verdict.CONFLICT),
        (Stamp(objects=3, uid="1.2.4"), {}, Verdict.CONFLICT),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_imported_scan_that_differs_is_a_conflict_and_never_merged(
    there: Stamp | None, known: dict[str, str], verdict: Verdict, overwrite: bool
) -> None:
    assert verdict_on(scan(), there, known=known, overwrite=overwrite)[0] is verdict


def test_what_is_to_be_left_stays_left() -> None:
    item = file(verdict=Verdict.LEAVE)

    assert verdict_on(item, None)[0] is Verdict.LEAVE
    assert verdict_on(item, Stamp(10, A))[0] is Verdict.LEAVE


def test_only_what_is_copied_or_replaced_moves() -> None:
    items = [file(f"{one}.bin", verdict=one) for one in Verdict]

    assert {one.verdict for one in unit(*items).to_move} == {Verdict.COPY, Verdict.REPLACE}


# --- packing ---------------------------------------------------------------------------------


def small(count: int, *, size: int = 10, lane: str = LANE) -> list[Item]:
    return [file(f"{number:03}.bin", size=size, lane=lane) for number in range(count)]


@pytest.mark.parametrize(
    ("items", "kinds"),
    [
        (small(1), ["file"]),
        (small(2), ["zip"]),
        (small(MANY + 1, size=SMALL_MEAN * 2), ["zip"]),
        (small(MANY, size=SMALL_MEAN * 2), ["file"] * MANY),
        (small(3, size=SMALL_MEAN), ["file"] * 3),
        ([file(size=0)], ["zip"]),
        ([file(size=None)], ["zip"]),
        ([file("a+b")], ["zip"]),
        ([file("100%.txt")], ["zip"]),
        ([file("a#b"), file("c", size=SMALL_MEAN * 9)], ["zip"]),
        ([], []),
    ],
)
def test_files_travel_in_one_archive_where_that_is_cheaper_or_needed(
    items: list[Item], kinds: list[str]
) -> None:
    packed = pack(unit(*items), accepts_zip=True)

    assert [item.kind for item in packed.items] == kinds
    assert sum(item.files for item in packed.items) == len(items)
    assert sum(item.bytes for item in packed.items) == sum(item.bytes for item in items)


def test_an_archive_is_named_by_its_resource_and_names_its_members() -> None:
    (packed,) = pack(unit(*small(2)), accepts_zip=True).items

    assert (packed.key, packed.lane, packed.kind) == (LANE, LANE, "zip")
    assert [one.key for one in packed.members] == [item.key for item in small(2)]
    assert expected(packed) == {item.key: Stamp(10, A) for item in small(2)}


def test_resources_are_packed_each_for_itself() -> None:
    items = [*small(3), *small(3, lane="resources/Q"), file("big", size=SMALL_MEAN * 2, lane="r/B")]

    packed = pack(unit(*items), accepts_zip=True)

    assert sorted((item.key, item.kind) for item in packed.items) == [
        ("r/B/files/big", "file"),
        ("resources/Q", "zip"),
        ("resources/R", "zip"),
    ]


def test_a_few_missing_files_of_a_large_resource_travel_alone() -> None:
    kept = [replace(one, verdict=Verdict.KEEP) for one in small(100)]
    missing = [file(f"new{number}.bin") for number in range(3)]

    packed = pack(unit(*kept, *missing), accepts_zip=True)

    assert {item.kind for item in packed.items} == {"file"}


def test_what_stays_is_not_packed() -> None:
    kept = replace(file("kept.bin"), verdict=Verdict.KEEP)
    clash = replace(file("clash.bin"), verdict=Verdict.CONFLICT)

    packed = pack(unit(kept, clash, *small(4)), accepts_zip=True)

    assert kept in packed.items
    assert clash in packed.items
    (archive,) = [item for item in packed.items if item.kind == "zip"]
    assert len(archive.members) == 4


def test_documents_and_scans_to_import_are_never_packed() -> None:
    packed = pack(unit(document(), scan(), *small(4)), accepts_zip=True)

    assert sorted(item.kind for item in packed.items) == ["document", "import", "zip"]


def test_a_sink_that_takes_no_archives_gets_files() -> None:
    whole = unit(*small(100))

    assert pack(whole, accepts_zip=False) == whole


def test_a_resource_whose_archive_cannot_be_read_is_not_packed() -> None:
    lost = Left(f"{LANE}/files/back\\slash", UNSAFE_NAME, "it holds a backslash")

    packed = pack(unit(*small(4), left=(lost,)), accepts_zip=True)

    assert {item.kind for item in packed.items} == {"file"}


def test_an_archive_replaces_when_any_of_its_members_does() -> None:
    plain, other = small(2)

    assert zip_of(LANE, [plain, other]).verdict is Verdict.COPY
    changed = replace(other, verdict=Verdict.REPLACE)
    assert zip_of(LANE, [plain, changed]).verdict is Verdict.REPLACE


FILES = st.lists(
    st.builds(
        file,
        st.text("ab+%.", min_size=1, max_size=4),
        size=st.none() | st.integers(0, 3 * SMALL_MEAN),
        lane=st.sampled_from(["resources/R", "resources/Q"]),
        verdict=st.sampled_from(list(Verdict)),
    ),
    unique_by=lambda item: item.key,
    max_size=12,
)


@given(FILES)
def test_packing_neither_loses_nor_doubles_a_file(items: list[Item]) -> None:
    packed = pack(unit(*items), accepts_zip=True)

    keys = [one.key for item in packed.items for one in (item.members or (item,))]
    assert sorted(keys) == sorted(item.key for item in items)
    moving = {one.key for item in packed.to_move for one in (item.members or (item,))}
    assert moving == {item.key for item in unit(*items).to_move}
    for item in packed.to_move:
        if item.kind == "file":
            assert not needs_zip(item)


# --- what remains after a failure ------------------------------------------------------------


def test_a_file_that_arrived_although_its_answer_was_lost_is_not_sent_again() -> None:
    item = file()

    assert remaining(item, {item.key: Stamp(10, A)}) == []


def test_a_file_that_is_missing_or_wrong_is_sent_again_over_what_is_there() -> None:
    item = file()
    again = replace(item, verdict=Verdict.REPLACE)

    assert remaining(item, {}) == [again]
    assert remaining(item, {item.key: Stamp(9, "")}) == [again]
    assert remaining(item, {item.key: Stamp(10, B)}) == [again]


def test_a_document_is_always_sent_again() -> None:
    assert remaining(document(), {"session.xml": Stamp()}) == [document()]


def test_of_an_archive_only_what_is_missing_is_sent_again() -> None:
    items = small(10)
    archive = zip_of(LANE, items)
    there = {item.key: Stamp(10, A) for item in items}

    assert remaining(archive, there) == []
    (most,) = remaining(archive, {items[0].key: Stamp(10, A)})
    assert (most.kind, len(most.members)) == ("zip", 9)
    few = remaining(archive, {key: there[key] for key in list(there)[:8]})
    assert [(one.kind, one.key) for one in few] == [("file", item.key) for item in items[8:]]
    assert {one.verdict for one in few} == {Verdict.REPLACE}


def test_a_member_that_arrived_damaged_is_sent_again() -> None:
    items = small(10)
    there = {item.key: Stamp(10, A) for item in items} | {items[4].key: Stamp(10, B)}

    (again,) = remaining(zip_of(LANE, items), there)

    assert (again.kind, again.key) == ("file", items[4].key)


def test_an_archive_that_is_given_up_goes_file_by_file_where_names_allow() -> None:
    items = [*small(4), file("odd#name"), file("empty", size=0)]

    rest = remaining(zip_of(LANE, items), {}, split=True)

    assert [one.path for one in rest if one.kind == "file"] == [item.path for item in items[:4]]
    (archive,) = [one for one in rest if one.kind == "zip"]
    assert [one.path for one in archive.members] == ["odd#name", "empty"]


@given(FILES.filter(bool), st.data(), st.booleans())
def test_what_remains_is_exactly_what_the_sink_lacks(
    items: list[Item], data: st.DataObject, split: bool
) -> None:
    items = [replace(item, lane=LANE) for item in items]
    there = set(data.draw(st.lists(st.sampled_from([item.key for item in items]))))
    inventory = {item.key: Stamp(item.size, item.digest) for item in items if item.key in there}

    rest = remaining(zip_of(LANE, items), inventory, split=split)

    keys = [one.key for item in rest for one in (item.members or (item,))]
    assert sorted(keys) == sorted({item.key for item in items} - there)
    for item in rest:
        if item.kind == "file":
            assert not needs_zip(item)


# --- what exists differently at the sink -----------------------------------------------------


def settled(policy: str, *, extra: bool = False, ours: bool = False, clash: bool = False) -> Unit:
    verdict = Verdict.CONFLICT if clash else Verdict.COPY
    whole = unit(file("a.bin", verdict=verdict), file("b.bin"))
    inventory = {f"{LANE}/files/extra.bin": Stamp(1, A)} if extra else {}
    return settle(whole, inventory, policy=policy, ours=ours)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["skip", "fail", "merge", "replace"])
def test_a_unit_that_exists_equal_or_in_part_is_simply_completed(policy: str) -> None:
    assert settled(policy) == unit(file("a.bin"), file("b.bin"))


@pytest.mark.parametrize("how", [{"clash": True}, {"extra": True}])
def test_a_unit_that_exists_differently_is_skipped_failed_or_merged(how: dict[str, bool]) -> None:
    skipped = settled("skip", **how)
    assert skipped.items == ()
    assert [one.code for one in skipped.left] == ["exists"]

    failed = settled("fail", **how)
    assert failed.conflict

    merged = settled("merge", **how)
    assert not merged.conflict
    assert merged.items[1].verdict is Verdict.COPY


def test_replace_writes_over_what_differs() -> None:
    assert [one.verdict for one in settled("replace", clash=True).items] == [
        Verdict.REPLACE,
        Verdict.COPY,
    ]


def test_files_that_only_the_destination_has_are_noted_and_stay() -> None:
    noted = settled("fail", extra=True, ours=True)

    assert not noted.conflict
    assert "only at the destination" in noted.notes[0]


def test_what_the_selection_leaves_out_is_not_taken_for_extra() -> None:
    aside = replace(unit(file("a.bin")), aside=frozenset({"scans/9/resources/DICOM"}))
    there = {"scans/9/resources/DICOM/files/x.dcm": Stamp(1, A), f"{LANE}/files/a.bin": Stamp(1, A)}

    assert settle(aside, there, policy="fail", ours=False) == aside


def test_assessors_and_shares_that_only_the_destination_has_are_extra_but_no_conflict() -> None:
    there = {"assessors/QC/assessor.xml": Stamp(), "shares/OTHER": Stamp(), "session.xml": Stamp()}

    found = settle(unit(document()), there, policy="fail", ours=False)

    assert found.extra == ("assessors/QC/assessor.xml", "shares/OTHER")
    assert not found.conflict


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [("3 objects here, 2 there", Verdict.REPLACE), (ANOTHER_SERIES, Verdict.CONFLICT)],
)
def test_replace_imports_a_scan_anew_unless_another_series_is_there(
    reason: str, verdict: Verdict
) -> None:
    clash = replace(scan(), verdict=Verdict.CONFLICT, reason=reason)

    (item,) = settle(unit(clash), {}, policy="replace", ours=True).items

    assert item.verdict is verdict


# --- plans that are kept ---------------------------------------------------------------------


def test_the_signature_of_a_plan_changes_when_either_end_does() -> None:
    plan = unit(file("a.bin"), file("b.bin"))
    changes = [
        unit(file("a.bin"), file("b.bin", digest=B)),
        unit(file("a.bin"), file("b.bin", size=11)),
        unit(file("a.bin"), file("b.bin", verdict=Verdict.KEEP)),
        unit(file("a.bin")),
        replace(plan, conflict="it exists"),
        replace(plan, key="V"),
    ]

    assert signature(plan) == signature(unit(file("b.bin"), file("a.bin")))
    assert len({signature(one) for one in [plan, *changes]}) == len(changes) + 1
