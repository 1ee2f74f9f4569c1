"""Item XML made fit for another server: what goes, what stays, what is written in."""

from __future__ import annotations

import pytest

from xnatctl.xnat.metadata import (
    assessor_fingerprint,
    covers,
    fingerprint,
    for_assessor,
    for_project,
    for_session,
    for_subject,
    inner_shares,
    people,
    project_fingerprint,
)
from xnatctl.xnat.xmldoc import NS_XNAT, XSI, XSI_TYPE, Element, parse_xml

HEAD = (
    'xmlns:xnat="http://nrg.wustl.edu/xnat" xmlns:fs="http://nrg.wustl.edu/fs" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="http://nrg.wustl.edu/xnat http://a.example/xnat.xsd"'
)

SESSION = f"""<xnat:MRSession ID="A_E1" project="SRC" label="MR1" UID="1.2.3" modality="MR" {HEAD}>
<!--hidden_fields[xnat_mrSessionData_id="A_E1"]-->
<xnat:sharing><xnat:share label="X" project="OTHER"/></xnat:sharing>
<xnat:resources><xnat:resource label="NOTES" URI="/data/a/notes_catalog.xml" file_count="2"/>
</xnat:resources>
<xnat:date>2024-02-28</xnat:date>
<xnat:note>5 &lt; 6 &amp; ünï</xnat:note>
<xnat:fields><xnat:field name="cohort"><!--hidden_fields[x="1"]-->A</xnat:field></xnat:fields>
<xnat:subject_ID>A_S1</xnat:subject_ID>
<xnat:scanner manufacturer="ACME" model="T1">SCANNER</xnat:scanner>
<xnat:prearchivePath>/data/prearchive/SRC/2024/MR1</xnat:prearchivePath>
<xnat:scans>
<xnat:scan ID="3" UID="1.2.3.3" type="T1w" project="SRC" xnat_imagescandata_id="77"
 xsi:type="xnat:mrScanData"><xnat:image_session_ID>A_E1</xnat:image_session_ID>
<xnat:quality>usable</xnat:quality><xnat:file label="DICOM" URI="/data/a/3_catalog.xml"/>
</xnat:scan>
<xnat:scan ID="4" type="T2w" xsi:type="xnat:mrScanData"/>
</xnat:scans>
<xnat:reconstructions><xnat:reconstructedImage ID="R1"><xnat:in><xnat:file label="I"/></xnat:in>
<xnat:out><xnat:file label="O"/></xnat:out><xnat:type>mean</xnat:type></xnat:reconstructedImage>
</xnat:reconstructions>
<xnat:assessors><xnat:assessor ID="A_E2" label="QC" xsi:type="fs:fsData"><fs:volume>5</fs:volume>
<xnat:out><xnat:file label="PDF" file_count="1"/></xnat:out></xnat:assessor></xnat:assessors>
</xnat:MRSession>""".encode()


def root_of(body: bytes) -> Element:
    return parse_xml(body, "the result")


def names_in(root: Element) -> list[str]:
    return [node.tag.rpartition("}")[2] for node in root.iter()]


# --- sessions --------------------------------------------------------------------------------


def test_a_session_takes_project_and_label_of_its_new_place_and_loses_its_id() -> None:
    root = root_of(for_session(SESSION, project="DST", label="NEW"))

    assert (root.get("project"), root.get("label"), root.get("ID")) == ("DST", "NEW", None)
    assert root.get(f"{{{XSI}}}schemaLocation") is None


def test_nothing_of_the_sources_database_travels_with_a_session() -> None:
    body = for_session(SESSION, project="DST", label="NEW")

    names = names_in(root_of(body))
    for name in ("sharing", "resources", "subject_ID", "assessors", "file", "in", "out"):
        assert name not in names
    assert "image_session_ID" not in names
    assert "prearchivePath" not in names
    for word in (b"A_E1", b"A_S1", b"SRC", b"hidden_fields", b"/data/", b"xnat_imagescandata_id"):
        assert word not in body


def test_all_fields_of_a_session_and_its_scans_travel() -> None:
    root = root_of(for_session(SESSION, project="DST", label="NEW"))

    assert root.get("UID") == "1.2.3"
    assert root.findtext(f"{NS_XNAT}note") == "5 < 6 & ünï"
    assert root.findtext(f"{NS_XNAT}date") == "2024-02-28"
    (field,) = root.iter(f"{NS_XNAT}field")
    assert (field.get("name"), field.text) == ("cohort", "A")
    (scanner,) = root.iter(f"{NS_XNAT}scanner")
    assert dict(scanner.attrib) == {"manufacturer": "ACME", "model": "T1"}
    first, second = root.iter(f"{NS_XNAT}scan")
    assert (first.get("ID"), first.get("UID"), first.get("type")) == ("3", "1.2.3.3", "T1w")
    assert first.get(XSI_TYPE) == "xnat:mrScanData"
    assert first.findtext(f"{NS_XNAT}quality") == "usable"
    assert second.get("ID") == "4"
    (image,) = root.iter(f"{NS_XNAT}reconstructedImage")
    assert image.findtext(f"{NS_XNAT}type") == "mean"


def test_elements_keep_their_order() -> None:
    root = root_of(for_session(SESSION, project="DST", label="NEW"))

    assert [node.tag.rpartition("}")[2] for node in root] == [
        "date",
        "note",
        "fields",
        "scanner",
        "scans",
        "reconstructions",
    ]


def test_scans_take_the_ids_that_an_import_gave_them() -> None:
    root = root_of(
        for_session(SESSION, project="D", label="L", scans={"3": "3-MR1"}, without={"4"})
    )

    assert [scan.get("ID") for scan in root.iter(f"{NS_XNAT}scan")] == ["3-MR1"]


def test_a_document_may_be_prepared_twice() -> None:
    once = for_session(SESSION, project="D", label="L")

    assert for_session(once, project="D", label="L") == once


# --- subjects, projects, assessors -----------------------------------------------------------

SUBJECT = f"""<xnat:Subject ID="A_S1" project="SRC" label="S" group="ctl" {HEAD}>
<xnat:sharing><xnat:share label="X" project="OTHER"/></xnat:sharing>
<xnat:resources><xnat:resource label="R"/></xnat:resources>
<xnat:demographics xsi:type="xnat:demographicData"><xnat:yob>1980</xnat:yob></xnat:demographics>
<xnat:experiments><xnat:experiment ID="A_E1" xsi:type="xnat:mrSessionData"/></xnat:experiments>
</xnat:Subject>""".encode()


def test_a_subject_travels_with_its_demographics_and_without_its_sessions() -> None:
    body = for_subject(SUBJECT, project="DST", label="NEW")

    root = root_of(body)
    assert (root.get("project"), root.get("label"), root.get("ID")) == ("DST", "NEW", None)
    assert root.get("group") == "ctl"
    assert next(root.iter(f"{NS_XNAT}yob")).text == "1980"
    assert b"A_E1" not in body and b"OTHER" not in body


PROJECT = f"""<xnat:Project ID="SRC" secondary_ID="SRC2" {HEAD}>
<xnat:name>The source</xnat:name><xnat:description>about</xnat:description>
<xnat:aliases><xnat:alias>ALIAS</xnat:alias></xnat:aliases>
<xnat:resources><xnat:resource label="R"/></xnat:resources>
<xnat:PI ID="5" xnat_investigatordata_id="5"><xnat:lastname>Curie</xnat:lastname></xnat:PI>
<xnat:investigators><xnat:investigator xnat_investigatordata_id="6">
<xnat:lastname>Meitner</xnat:lastname></xnat:investigator></xnat:investigators>
</xnat:Project>""".encode()


def test_a_project_takes_its_new_id_and_its_people_lose_their_numbers() -> None:
    body = for_project(PROJECT, project="DST")

    root = root_of(body)
    assert (root.get("ID"), root.get("secondary_ID")) == ("DST", "DST")
    assert root.findtext(f"{NS_XNAT}name") == "The source"
    assert root.findtext(f"{NS_XNAT}description") == "about"
    assert [node.text for node in root.iter(f"{NS_XNAT}lastname")] == ["Curie", "Meitner"]
    assert b"xnat_investigatordata_id" not in body
    assert "resources" not in names_in(root)
    assert b"ALIAS" in body


def test_a_project_beside_its_original_is_called_by_its_own_id() -> None:
    body = for_project(PROJECT, project="DST", unnamed=True)

    assert root_of(body).findtext(f"{NS_XNAT}name") == "DST"
    assert b"ALIAS" not in body and b"The source" not in body


ASSESSOR = f"""<fs:Fs ID="A_E2" project="SRC" label="FS" {HEAD}>
<xnat:out><xnat:file label="PDF"/></xnat:out><xnat:imageSession_ID>A_E1</xnat:imageSession_ID>
<fs:basis session="A_E1" other="A_E10">A_E2</fs:basis><fs:note>about A_E1</fs:note>
</fs:Fs>""".encode()


def test_an_assessor_points_at_the_session_and_at_itself_on_the_new_server() -> None:
    body = for_assessor(
        ASSESSOR, project="DST", label="FS", session_id="B_E7", ids={"A_E1": "B_E7", "A_E2": "B_E8"}
    )

    root = root_of(body)
    assert root.findtext(f"{NS_XNAT}imageSession_ID") == "B_E7"
    (basis,) = root.iter("{http://nrg.wustl.edu/fs}basis")
    assert (basis.get("session"), basis.get("other"), basis.text) == ("B_E7", "A_E10", "B_E8")
    (note,) = root.iter("{http://nrg.wustl.edu/fs}note")
    assert note.text == "about A_E1"
    assert root.tag == "{http://nrg.wustl.edu/fs}Fs"
    assert "out" not in names_in(root)


# --- fingerprints ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('file_count="2"', 'file_count="3"'),
        ("/data/a/notes_catalog.xml", "/data/b/notes_catalog.xml"),
        ('<!--hidden_fields[xnat_mrSessionData_id="A_E1"]-->', ""),
        ("<xnat:volume>", "<xnat:volume>"),
        ("\n<xnat:date>", "<xnat:date>"),
        ('<xnat:file label="O"/>', ""),
        ("<fs:volume>5", "<fs:volume>6"),
    ],
)
def test_a_fingerprint_is_blind_to_what_nobody_changed(old: str, new: str) -> None:
    changed = SESSION.decode().replace(old, new).encode()

    assert fingerprint(changed) == fingerprint(SESSION)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("5 &lt; 6", "6 &lt; 5"),
        ('type="T1w"', 'type="T2w"'),
        (">A</xnat:field>", ">B</xnat:field>"),
        ('label="MR1"', 'label="MR2"'),
        ("usable", "questionable"),
        ("mean", "median"),
        ("ACME", "EMCA"),
    ],
)
def test_a_fingerprint_changes_with_what_a_document_says(old: str, new: str) -> None:
    assert old in SESSION.decode()
    changed = SESSION.decode().replace(old, new).encode()

    assert fingerprint(changed) != fingerprint(SESSION)


def test_a_fingerprint_is_the_same_after_any_other_document_was_written() -> None:
    before = fingerprint(SESSION)
    for_assessor(
        ASSESSOR.replace(b"xmlns:fs", b"xmlns:zz").replace(b"fs:", b"zz:"),
        project="P",
        label="L",
        session_id="E",
        ids={},
    )

    assert fingerprint(SESSION) == before


def test_an_assessor_has_a_fingerprint_of_its_own_inside_its_session() -> None:
    first = assessor_fingerprint(SESSION, "A_E2")
    files = SESSION.replace(b'file_count="1"', b'file_count="9"')
    value = SESSION.replace(b"<fs:volume>5", b"<fs:volume>6")
    other = SESSION.replace(b"5 &lt; 6", b"6")

    assert first
    assert assessor_fingerprint(files, "A_E2") == first
    assert assessor_fingerprint(other, "A_E2") == first
    assert assessor_fingerprint(value, "A_E2") != first
    assert assessor_fingerprint(SESSION, "NONE") == ""


def test_an_id_of_the_destination_is_never_taken_for_one_of_the_source() -> None:
    """Two servers of one name number alike: what is E2 here may be E1 there, and E1 here E9."""
    xml = f"""<xnat:QCManualAssessment ID="E5" project="SRC" label="QC" {HEAD}>
    <xnat:imageSession_ID>E1</xnat:imageSession_ID></xnat:QCManualAssessment>"""

    body = for_assessor(
        xml.encode(), project="DST", label="QC", session_id="E2", ids={"E1": "E2", "E2": "E7"}
    )

    assert parse_xml(body, "x").findtext(f"{NS_XNAT}imageSession_ID") == "E2"


def test_references_to_other_sessions_are_mapped_wherever_they_stand() -> None:
    xml = SESSION.replace("5 &lt; 6 &amp; ünï".encode(), b"A_E7")

    body = for_session(xml, project="DST", label="MR1", ids={"A_E7": "B_E1"})

    assert parse_xml(body, "x").findtext(f"{NS_XNAT}note") == "B_E1"


def test_shares_of_scans_and_assessors_are_found_by_where_they_hang() -> None:
    share = '<xnat:sharing><xnat:share label="L" project="P2"/></xnat:sharing>'
    xml = f"""<xnat:MRSession ID="E1" {HEAD}><xnat:scans><xnat:scan ID="a/b">{share}</xnat:scan>
    <xnat:scan ID="4"/></xnat:scans><xnat:assessors><xnat:assessor ID="E2" label="QC">{share}
    </xnat:assessor></xnat:assessors></xnat:MRSession>"""

    assert inner_shares(xml.encode()) == {
        "scans/a%2Fb": [("P2", "L")],
        "assessors/QC": [("P2", "L")],
    }


def test_people_are_told_with_what_is_said_of_them() -> None:
    xml = f"""<xnat:Project ID="P" {HEAD}><xnat:PI title="Dr"><xnat:firstname>A</xnat:firstname>
    <xnat:lastname>B</xnat:lastname></xnat:PI><xnat:investigators><xnat:investigator>
    <xnat:lastname>C</xnat:lastname></xnat:investigator></xnat:investigators></xnat:Project>"""

    assert people(xml.encode()) == [
        {"title": "Dr", "firstname": "A", "lastname": "B"},
        {"title": "", "lastname": "C"},
    ]


def test_a_project_says_the_same_under_another_id_and_name() -> None:
    def project(code: str, text: str) -> bytes:
        return f"""<xnat:Project ID="{code}" secondary_ID="{code}" {HEAD}>
        <xnat:name>{code}</xnat:name><xnat:description>{text}</xnat:description>
        </xnat:Project>""".encode()

    assert project_fingerprint(project("A", "x")) == project_fingerprint(project("B", "x"))
    assert project_fingerprint(project("A", "x")) != project_fingerprint(project("A", "y"))


@pytest.mark.parametrize(
    ("there", "here", "covered"),
    [
        ("<a><b>1</b></a>", "<a><b>1</b></a>", True),
        ("<a x='1' y='2'><b>1</b><c/></a>", "<a x='1'><b>1</b></a>", True),
        ("<a x='1'><b>1</b></a>", "<a x='1' y='2'><b>1</b></a>", False),
        ("<a><b>2</b></a>", "<a><b>1</b></a>", False),
        ("<a><s i='1'><n>x</n></s><s i='2'/></a>", "<a><s i='2'/><s i='1'/></a>", True),
        ("<a><s/></a>", "<a><s/><s/></a>", False),
    ],
)
def test_a_document_covers_what_it_says_too(there: str, here: str, covered: bool) -> None:
    assert covers(parse_xml(there.encode(), "x"), parse_xml(here.encode(), "x")) is covered
