"""Names in a BIDS dataset, whatever a session holds; judged by the community's own validator."""

from __future__ import annotations

import pytest
from bids_validator import BIDSValidator
from hypothesis import given
from hypothesis import strategies as st

from xnatctl.endpoints.bids import Rules, find_twins, names_of
from xnatctl.engine.types import Item, Unit
from xnatctl.model import Ref

RULES = Rules.parse(
    {
        "rules": [
            {"scan": "t1*", "name": "anat/T1w"},
            {"scan": "rest*", "file": "*events*", "name": "func/task-rest_events"},
            {"scan": "rest*", "name": "func/task-rest_echo-1_part-mag_bold"},
            {"scan": "dti*", "name": "dwi/dir-AP_dwi"},
            {"scan": "field*", "file": "*_e1", "name": "fmap/magnitude1"},
            {"scan": "*", "name": "anat/acq-other_run-3_T2w"},
        ]
    },
    "rules.yaml",
)
NAMES = st.sampled_from(
    [
        f"{stem}{extension}"
        for stem in ("a", "b", "deep/a", "a_e1", "x events", "1.2.840")
        for extension in (
            *(".nii.gz", ".nii", ".json", ".bval", ".bvec", ".tsv", ".tsv.gz", ".txt", ""),
        )
    ]
)
SCANS = st.dictionaries(
    st.sampled_from(["1", "2", "10", "2-MR1", "a b"]),
    st.tuples(
        st.sampled_from(["T1w", "REST bold", "dti_64", "fieldmap", "else", ""]),
        st.dictionaries(st.sampled_from(["NIFTI", "BIDS"]), st.sets(NAMES, max_size=8)),
    ),
)


def session(
    scans: dict[str, tuple[str, dict[str, set[str]]]],
    *,
    subject: str = "SUB_01",
    label: str = "SUB_01-MR1",
) -> Unit:
    ref = Ref("P", subject, label)
    items = []
    for scan, (_, resources) in scans.items():
        for resource, files in resources.items():
            lane = f"scans/{scan}/resources/{resource}"
            items += [Item(f"{lane}/files/{one}", "file", lane, ref, one) for one in files]
    facts = {f"scan-type:{scan}": kind for scan, (kind, _) in scans.items()}
    return Unit(f"subjects/{subject}/sessions/{label}", "session", ref, ref, label, facts=facts,
                items=tuple(items))  # fmt: skip


@given(SCANS)
def test_every_name_is_a_bids_name_and_no_two_files_get_the_same(
    scans: dict[str, tuple[str, dict[str, set[str]]]],
) -> None:
    unit = session(scans)
    names = names_of(unit, RULES)

    assert set(names) <= {item.key for item in unit.items}
    assert len(set(names.values())) == len(names)
    validator = BIDSValidator()
    for name in names.values():
        assert validator.is_bids(f"/{name}"), name


@given(SCANS)
def test_names_do_not_depend_on_the_order_in_which_files_are_listed(
    scans: dict[str, tuple[str, dict[str, set[str]]]],
) -> None:
    unit = session(scans)
    turned = session(dict(reversed(scans.items())))
    assert names_of(turned, RULES) == names_of(unit, RULES)


@pytest.mark.parametrize(
    ("extensions", "kept"),
    [
        ((".nii", ".nii.gz", ".json"), {".nii.gz", ".json"}),
        ((".json", ".bval", ".bvec"), set()),
        ((".nii.gz", ".bval", ".bvec", ".tsv"), {".nii.gz", ".bval", ".bvec"}),
    ],
)
def test_an_image_takes_the_sidecars_along_that_bids_knows(
    extensions: tuple[str, ...], kept: set[str]
) -> None:
    unit = session({"4": ("dti", {"NIFTI": {f"a{one}" for one in extensions}})})
    found = {name.partition("_dwi")[2] for name in names_of(unit, RULES).values()}
    assert found == kept


def test_sessions_of_one_label_know_of_each_other_and_the_others_do_not() -> None:
    labels = ("A-1", "A_1", "B1", "A1")
    units = [session({}, subject="S", label=label) for label in labels]
    found = {key.rpartition("/")[2]: twin for key, twin in find_twins(units, RULES).items()}
    assert found == {"A-1": "A_1", "A_1": "A-1", "A1": "A-1"}
