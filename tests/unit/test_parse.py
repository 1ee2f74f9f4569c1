"""Replies into records: every odd reply of a server, and no input that raises anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatctl.errors import BadReply, XnatctlError
from xnatctl.model import Ref
from xnatctl.xnat.parse import (
    cell,
    digest_of,
    modality_of,
    parse_entry,
    parse_files,
    parse_project,
    parse_resource,
    parse_rows,
    parse_scan,
    parse_session,
    parse_session_xml,
    parse_subject,
    place_of,
    type_of_root,
)
from xnatctl.xnat.xmldoc import parse_xml

LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>XNAT</title></head><body>Log in</body></html>"
EXPERIMENT = b'{"items":[{"meta":{"xsi:type":"xnat:mrSessionData"},"data_fields":{"ID":"E1"}}]}'


def table(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"ResultSet": {"Result": list(rows), "totalRecords": "1"}}).encode()


# --- tables ----------------------------------------------------------------------------------


def test_rows_come_as_strings_whatever_the_cells_are() -> None:
    body = table({"a": "x", "b": 5, "c": None, "d": True, "e": 1.5, "f": ""})

    assert parse_rows(body, "x") == [
        {"a": "x", "b": "5", "c": "", "d": "true", "e": "1.5", "f": ""}
    ]


def test_an_empty_table_has_no_rows() -> None:
    assert parse_rows(b'{"ResultSet":{"Result":[]}}', "x") == []


@pytest.mark.parametrize(
    "body",
    [
        LOGIN_PAGE,
        EXPERIMENT,
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"ResultSet":null}',
        b'{"ResultSet":[]}',
        b'{"ResultSet":{}}',
        b'{"ResultSet":{"Result":null}}',
        b'{"ResultSet":{"Result":{}}}',
        b'{"ResultSet":{"Result":[{"a":"x"',
        b'{"ResultSet":{"Result":[]}} and more',
        b"\xff\xfe\x00",
        b"[" * 5000,
    ],
)
def test_what_is_no_table_is_an_error_and_never_an_empty_list(body: bytes) -> None:
    with pytest.raises(BadReply, match="/data/x"):
        parse_rows(body, "/data/x")
    with pytest.raises(BadReply, match="/data/x"):
        parse_files(body, "/data/x")


def test_a_cell_is_found_whatever_the_case_of_its_key() -> None:
    row = {"ID": "", "id": "5", "SeCoNdArY_id": "s"}

    assert cell(row, "ID") == "5"
    assert cell(row, "secondary_ID") == "s"
    assert cell(row, "label", "ID") == "5"
    assert cell(row, "label") == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
CELLS = st.dictionaries(
    st.sampled_from(
        ["ID", "id", "URI", "label", "Name", "Size", "cat_ID", "digest", "file_count", "category"]
    ),
    st.none() | st.integers() | st.text(max_size=12) | st.floats() | st.booleans(),
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_reply_raises_anything_but_our_errors(body: bytes) -> None:
    for parse in (parse_rows, parse_files, parse_session_xml):
        with_where = (body, "/data/x")
        try:
            parse(*with_where)
        except XnatctlError as error:
            assert "/data/x" in error.message


@given(st.lists(CELLS, max_size=3))
def test_no_row_raises_anything_but_our_errors(rows: list[dict[str, Any]]) -> None:
    body = table(*rows)
    try:
        found = parse_rows(body, "x")
    except BadReply:  # what Python writes of infinity is no JSON
        return
    for row in found:
        parse_project(row)
        parse_subject(row, "P")
        parse_session(row, "P")
        parse_scan(row)
        parse_resource(row, Ref("P"))
        parse_entry(row)
    try:
        parse_files(body, "x")
    except BadReply:
        pass


# --- things ----------------------------------------------------------------------------------


def test_projects_come_with_the_keys_of_either_handler() -> None:
    one = parse_project(
        {"ID": "P", "name": "N", "secondary_ID": "S", "pi_firstname": "A", "pi_lastname": "B"}
    )
    other = parse_project({"id": "P", "name": "N", "secondary_id": "S", "pi": "A B"})

    assert one == other
    assert (one.id, one.secondary_id, one.pi) == ("P", "S", "A B")


def test_a_subject_without_a_label_is_called_by_its_id() -> None:
    assert parse_subject({"ID": "X_S1", "label": ""}, "P").label == "X_S1"
    assert parse_subject({"URI": "/data/subjects/X_S1", "label": "L"}, "P").id == "X_S1"
    assert parse_subject({"ID": "X_S1"}, "P").project == "P"


def test_a_session_is_read_out_of_a_listing() -> None:
    session = parse_session(
        {
            "ID": "X_E1",
            "label": "MR1",
            "project": "P",
            "xsiType": "xnat:mrSessionData",
            "subject_ID": "X_S1",
            "subject_label": "S",
            "date": "2024-01-01",
        },
        "Q",
    )

    assert (session.id, session.label, session.project) == ("X_E1", "MR1", "P")
    assert (session.subject, session.subject_id, session.modality) == ("S", "X_S1", "MR")
    assert session.is_imaging
    assert session.parent == ""


def test_an_assessor_in_a_listing_names_its_session_and_a_session_does_not_name_itself() -> None:
    assert parse_session({"ID": "A1", "session_ID": "E1"}, "P").parent == "E1"
    assert parse_session({"ID": "E1", "session_ID": "E1"}, "P").parent == ""


@pytest.mark.parametrize(
    ("xsi_type", "modality"),
    [
        ("xnat:mrSessionData", "MR"),
        ("xnat:petmrSessionData", "PETMR"),
        ("xnat:otherDicomSessionData", "OTHERDICOM"),
        ("xnat:subjectVariablesData", ""),
        ("xnat:qcManualAssessorData", ""),
        ("", ""),
    ],
)
def test_the_modality_is_in_the_type_of_an_imaging_session(xsi_type: str, modality: str) -> None:
    assert modality_of(xsi_type) == modality


def test_a_resource_of_a_deep_listing_hangs_where_its_row_says() -> None:
    ref = Ref("P", "S", "E", "X_E1")
    row = {"xnat_abstractresource_id": "12", "label": "DICOM", "category": "scans", "cat_id": "3"}

    found = parse_resource({**row, "file_count": "176", "file_size": "92211200"}, ref)

    assert found.ref == ref.at("scans", "3").in_resource("DICOM")
    assert (found.id, found.file_count, found.file_size) == ("12", 176, 92211200)
    own = parse_resource({**row, "category": "resources", "cat_id": ""}, ref)
    assert own.ref == ref.in_resource("DICOM")
    assert parse_resource(row, ref.at("scans", "5")).ref.item == "5"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", None),
        ("0", 0),
        ("176", 176),
        ("176.0", 176),
        ("1.0E3", 1000),
        ("null", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("9007199254740993", 9007199254740993),
        ("-1", None),
    ],
)
def test_counts_are_numbers_or_unknown(text: str, count: int | None) -> None:
    assert parse_resource({"label": "R", "file_count": text}, Ref("P")).file_count == count


def test_a_resource_without_a_label_is_called_by_its_number() -> None:
    found = parse_resource({"xnat_abstractresource_id": "12", "label": ""}, Ref("P"))

    assert (found.label, found.ref.resource) == ("12", "12")


@pytest.mark.parametrize(
    ("row", "ours"),
    [
        ({"SOURCE": "uploader", "prevent_auto_commit": "true"}, True),
        ({"source": "uploader", "PREVENT_AUTO_COMMIT": "TRUE"}, True),
        ({"SOURCE": "uploader", "prevent_auto_commit": "false"}, False),
        ({"SOURCE": "", "prevent_auto_commit": "true"}, False),
        ({}, False),
    ],
)
def test_a_prearchive_entry_is_ours_only_with_both_marks(row: dict[str, str], ours: bool) -> None:
    assert parse_entry(row).is_ours is ours


def test_a_prearchive_entry_knows_folder_and_label() -> None:
    entry = parse_entry({"project": "P", "timestamp": "T", "folderName": "F", "name": "L"})

    assert (entry.folder, entry.name) == ("F", "L")
    assert parse_entry({"name": "L"}).folder == "L"


# --- files -----------------------------------------------------------------------------------


def files(*rows: dict[str, Any]) -> list[tuple[str, int | None, str]]:
    return [(one.path, one.size, one.digest) for one in parse_files(table(*rows), "x")]


URI = "/data/experiments/X_E1/scans/3/resources/12/files/"


@pytest.mark.parametrize(
    ("uri", "name", "path"),
    [
        ("a.dcm", "a.dcm", "a.dcm"),
        ("sub/a.dcm", "a.dcm", "sub/a.dcm"),
        ("files/a.dcm", "a.dcm", "files/a.dcm"),
        ("a b.txt", "a b.txt", "a b.txt"),
        ("a%20b.txt", "a b.txt", "a b.txt"),
        ("a%20b.txt", "a%20b.txt", "a%20b.txt"),
        ("100%.txt", "100%.txt", "100%.txt"),
        ("100%25.txt", "100%.txt", "100%.txt"),
        ("s%20b/a%20b.txt", "a b.txt", "s b/a b.txt"),
        ("%C3%BC.txt", "ü.txt", "ü.txt"),
        ("ü.txt", "ü.txt", "ü.txt"),
        ("a+b.txt", "a+b.txt", "a+b.txt"),
    ],
)
def test_the_name_in_a_row_tells_whether_its_uri_is_encoded(uri: str, name: str, path: str) -> None:
    assert files({"URI": URI + uri, "Name": name})[0][0] == path


def test_a_path_is_what_stands_behind_the_resource_even_when_things_are_called_files() -> None:
    row = {"URI": "/data/projects/files/resources/12/files/a.txt", "Name": "a.txt"}
    assert files(row)[0][0] == "a.txt"
    row = {"URI": "/data/projects/P/resources/files/files/a.txt", "Name": "a.txt"}
    assert files(row)[0][0] == "a.txt"
    row = {"URI": URI + "resources/7/files/a.txt", "Name": "a.txt"}
    assert files(row)[0][0] == "resources/7/files/a.txt"


def test_a_row_without_a_usable_uri_is_called_by_its_name() -> None:
    assert files({"URI": "/odd", "Name": "a.dcm"})[0][0] == "a.dcm"


@pytest.mark.parametrize(
    ("size", "digest", "found"),
    [
        ("10", "ABCDEF", (10, "abcdef")),
        (10, "", (10, "")),
        ("", None, (None, "")),
        (None, "x", (None, "x")),
        ("0", "", (0, "")),
        ("5368709120", "", (5368709120, "")),
        ("1.5E3", "", (1500, "")),
        ("odd", "", (None, "")),
    ],
)
def test_sizes_and_digests_are_read_or_unknown(
    size: object, digest: object, found: tuple[int | None, str]
) -> None:
    assert files({"URI": URI + "a", "Name": "a", "Size": size, "digest": digest})[0][1:] == found


def test_a_file_knows_its_resource_by_number_and_label() -> None:
    (one,) = parse_files(table({"URI": URI + "a", "collection": "DICOM", "cat_ID": 12}), "x")
    (other,) = parse_files(table({"URI": URI + "a", "collection": "DICOM"}), "x")

    assert (one.resource_id, one.resource) == ("12", "DICOM")
    assert other.resource_id == "12"


def test_absent_and_null_cells_of_a_file_are_empty() -> None:
    row = {
        "URI": URI + "a",
        "Name": None,
        "collection": None,
        "file_tags": None,
        "file_format": None,
        "file_content": None,
        "cat_ID": None,
    }

    (one,) = parse_files(table(row), "x")

    assert (one.path, one.resource, one.format, one.content) == ("a", "", "", "")


def test_a_file_without_an_address_is_an_error() -> None:
    with pytest.raises(BadReply):
        parse_files(table({"Name": "a.dcm"}), "x")


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        (URI + "a", ("scans", "3", None)),
        ("/data/experiments/E1/resources/5/files/a", (None, None, None)),
        ("/data/experiments/E1/assessors/A1/out/resources/5/files/a", ("assessors", "A1", "out")),
        ("/data/experiments/E1/assessors/A1/in/files/a", ("assessors", "A1", "in")),
        ("/data/experiments/E1/assessors/A1/resources/5/files/a", ("assessors", "A1", None)),
        (
            "/data/experiments/E1/reconstructions/R1/out/resources/5/files/a",
            ("reconstructions", "R1", "out"),
        ),
        ("/data/experiments/E1/scans/3%20b/resources/5/files/a", ("scans", "3 b", None)),
        ("/data/experiments/E1/scans/3[SLASH]b/resources/5/files/a", ("scans", "3/b", None)),
        ("/data/projects/P/resources/5/files/scans/3/resources/1/files/a", (None, None, None)),
        ("/data/projects/P/subjects/S/resources/5/files/a", (None, None, None)),
        ("", (None, None, None)),
    ],
)
def test_the_uri_of_a_file_tells_where_it_hangs(
    uri: str, place: tuple[str | None, str | None, str | None]
) -> None:
    assert place_of(uri) == place


@given(st.text())
def test_no_uri_is_too_odd_to_be_placed(uri: str) -> None:
    place_of(uri)
    files({"URI": uri, "Name": uri[-3:]})


# --- documents -------------------------------------------------------------------------------

SESSION = b"""<?xml version="1.0" encoding="UTF-8"?>
<xnat:MRSession ID="X_E1" project="P" label="MR1" UID="1.2.3" modality="MR" visit="V1"
 xmlns:xnat="http://nrg.wustl.edu/xnat" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<!--hidden_fields[xnat_mrSessionData_id="X_E1"]-->
<xnat:sharing><xnat:share label="X1" project="OTHER"/></xnat:sharing>
<xnat:resources>
  <xnat:resource label="NOTES" xnat_abstractresource_id="5" xsi:type="xnat:resourceCatalog"
   format="TXT" description="some notes"><xnat:tags><xnat:tag>a</xnat:tag>
   <xnat:tag name="k">b</xnat:tag></xnat:tags></xnat:resource>
</xnat:resources>
<xnat:fields><xnat:field name="cohort">A</xnat:field><xnat:field name="empty"/></xnat:fields>
<xnat:subject_ID>X_S1</xnat:subject_ID>
<xnat:date>2024-02-28</xnat:date>
<xnat:scans>
  <xnat:scan ID="3" UID="1.2.3.3" type="T1w" xsi:type="xnat:mrScanData">
    <xnat:quality>usable</xnat:quality><xnat:note>fine</xnat:note><xnat:frames>176</xnat:frames>
    <xnat:file label="DICOM" xnat_abstractresource_id="12" format="DICOM" content="RAW"
     file_count="176" file_size="92211200" xsi:type="xnat:resourceCatalog"/>
  </xnat:scan>
  <xnat:scan ID="4/a" xsi:type="xnat:mrScanData"/>
</xnat:scans>
<xnat:reconstructions>
  <xnat:reconstructedImage ID="R1">
    <xnat:in><xnat:file label="SRC" xnat_abstractresource_id="7"/></xnat:in>
    <xnat:out><xnat:file label="OUT" xnat_abstractresource_id="8"/></xnat:out>
  </xnat:reconstructedImage>
</xnat:reconstructions>
<xnat:assessors>
  <xnat:assessor ID="X_E2" label="QC" xsi:type="xnat:qcManualAssessorData">
    <xnat:out><xnat:file label="PDF" xnat_abstractresource_id="9"/></xnat:out>
  </xnat:assessor>
</xnat:assessors>
</xnat:MRSession>"""


def test_a_session_document_gives_the_structure_of_the_session() -> None:
    detail = parse_session_xml(SESSION, "x")

    session = detail.session
    assert (session.id, session.label, session.project) == ("X_E1", "MR1", "P")
    assert (session.subject_id, session.date, session.xsi_type) == (
        "X_S1",
        "2024-02-28",
        "xnat:mrSessionData",
    )
    assert (detail.uid, detail.visit) == ("1.2.3", "V1")
    assert detail.shares == (("OTHER", "X1"),)
    assert detail.fields == {"cohort": "A", "empty": ""}
    assert detail.xml == SESSION


def test_a_session_document_gives_scans_with_their_resources() -> None:
    scan, bare = parse_session_xml(SESSION, "x").scans

    assert (scan.id, scan.type, scan.uid, scan.quality) == ("3", "T1w", "1.2.3.3", "usable")
    assert (scan.xsi_type, scan.note, scan.frames) == ("xnat:mrScanData", "fine", "176")
    (dicom,) = scan.resources
    assert (dicom.id, dicom.label, dicom.format, dicom.content) == ("12", "DICOM", "DICOM", "RAW")
    assert (dicom.file_count, dicom.file_size) == (176, 92211200)
    assert (dicom.ref.level, dicom.ref.item, dicom.ref.resource) == ("scans", "3", "DICOM")
    assert (bare.id, bare.resources) == ("4/a", ())


def test_a_session_document_gives_what_hangs_on_it_with_sides() -> None:
    detail = parse_session_xml(SESSION, "x")

    (notes,) = detail.resources
    assert (notes.label, notes.description, notes.tags) == ("NOTES", "some notes", "a,b")
    (image,) = detail.reconstructions
    assert [(one.ref.side, one.label) for one in image.resources] == [("in", "SRC"), ("out", "OUT")]
    assert image.xsi_type == "xnat:reconstructedImageData"
    (assessor,) = detail.assessors
    assert (assessor.id, assessor.label) == ("X_E2", "QC")
    assert [(one.ref.level, one.ref.item, one.ref.side) for one in assessor.resources] == [
        ("assessors", "QC", "out")
    ]


@pytest.mark.parametrize(
    ("root", "xsi_type"),
    [
        ("xnat:MRSession", "xnat:mrSessionData"),
        ("xnat:PETMRSession", "xnat:petmrSessionData"),
        ("xnat:CRSession", "xnat:crSessionData"),
        ("xnat:OtherDicomSession", "xnat:otherDicomSessionData"),
        ("xnat:Subject", "xnat:subjectData"),
        ("xnat:Project", "xnat:projectData"),
        ("xnat:QCManualAssessment", "xnat:qcManualAssessorData"),
        ("fs:Freesurfer", "fs:freesurferData"),
    ],
)
def test_the_root_of_a_document_stands_for_its_type(root: str, xsi_type: str) -> None:
    body = (
        f'<{root} xmlns:xnat="http://nrg.wustl.edu/xnat" xmlns:fs="http://nrg.wustl.edu/fs"/>'
    ).encode()

    assert type_of_root(parse_xml(body, "x")) == xsi_type


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no xml",
        LOGIN_PAGE,
        EXPERIMENT,
        SESSION[:-20],
        SESSION + b"<more/>",
        b"<a><b></a>",
        b'<?xml version="1.0" encoding="no-such-encoding"?><a/>',
        b'<?xml version="1.0" encoding="utf-7"?><a/>',
        b"<a>\xff\xfe</a>",
        b"<a>\x00</a>",
        b"<a>&nbsp;</a>",
        b"<x:a/>",
    ],
)
def test_what_is_no_document_is_an_error(body: bytes) -> None:
    with pytest.raises(BadReply, match="/data/x"):
        parse_session_xml(body, "/data/x")


def test_any_document_is_read_as_far_as_it_goes() -> None:
    detail = parse_session_xml(b"<a/>", "x")

    assert (detail.session.id, detail.scans, detail.resources) == ("", (), ())


# --- digests of states -----------------------------------------------------------------------


def test_a_digest_tells_order_and_borders_apart() -> None:
    parts: list[tuple[str, ...]] = [("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), ()]

    assert len({digest_of(*one) for one in parts}) == len(parts)
    assert digest_of("ü") == digest_of("ü".encode())
