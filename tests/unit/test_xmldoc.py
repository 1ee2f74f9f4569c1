"""Item XML: read safely, changed, and written with every namespace it came with."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatctl.errors import BadReply, XnatctlError
from xnatctl.xnat import xmldoc
from xnatctl.xnat.xmldoc import NS_XNAT, XSI_TYPE, Document, canonical_element, parse_xml

XNAT = 'xmlns:xnat="http://nrg.wustl.edu/xnat"'
XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
FS = 'xmlns:fs="http://nrg.wustl.edu/fs"'


def rewritten(text: str) -> bytes:
    return Document(text.encode()).to_bytes()


# --- reading ---------------------------------------------------------------------------------


BOMB = (
    '<!DOCTYPE a [<!ENTITY x "ha">'
    + "".join(f'<!ENTITY x{n} "&x{n - 1 or ""};&x{n - 1 or ""};">' for n in range(1, 20))
    + "]><a>&x19;</a>"
)


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE a><a/>",
        '<!DOCTYPE a SYSTEM "http://example.org/a.dtd"><a/>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        f"<!--{'x' * 10_000}--><!DOCTYPE a><a/>",
        f"{' ' * 10_000}<!DOCTYPE a><a/>",
        BOMB,
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_doctype_is_refused_wherever_it_stands(text: str, encoding: str) -> None:
    with pytest.raises(BadReply, match="DOCTYPE, which is refused"):
        parse_xml(text.encode(encoding), "/data/x")


def test_words_that_look_like_a_doctype_are_text() -> None:
    root = parse_xml(b"<a><![CDATA[<!DOCTYPE x> <!ENTITY y>]]></a>", "x")

    assert root.text == "<!DOCTYPE x> <!ENTITY y>"


def test_a_document_beyond_all_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xmldoc, "MAX_XML", 100)
    with pytest.raises(BadReply, match="200 bytes"):
        parse_xml(b"<a>" + b" " * 193 + b"</a>", "x")


@given(st.binary(max_size=80) | st.text(alphabet='<>/a:!-[]&;"= ?x', max_size=40).map(str.encode))
def test_no_document_raises_anything_but_our_errors(body: bytes) -> None:
    try:
        document = Document(body, "/data/x")
    except XnatctlError as error:
        assert "/data/x" in error.message
    else:
        parse_xml(document.to_bytes(), "again")


# --- writing ---------------------------------------------------------------------------------


def test_a_document_is_written_with_the_prefixes_it_came_with() -> None:
    text = rewritten(
        f'<xnat:MRSession {XNAT} {XSI} ID="E"><xnat:note>x</xnat:note></xnat:MRSession>'
    )

    assert text.startswith(b"<xnat:MRSession ")
    assert b"<xnat:note>x</xnat:note>" in text
    assert b"ns0" not in text


def test_foreign_namespaces_survive() -> None:
    text = rewritten(
        f"<fs:Freesurfer {FS} {XNAT} {XSI}><xnat:date>2024-01-01</xnat:date>"
        "<fs:measures><fs:volume>5</fs:volume></fs:measures></fs:Freesurfer>"
    )

    assert text.startswith(b"<fs:Freesurfer ")
    assert b"<fs:volume>5</fs:volume>" in text


def test_a_prefix_that_only_occurs_in_a_type_stays_declared() -> None:
    text = rewritten(
        f"<xnat:MRSession {XNAT} {XSI} {FS}><xnat:assessors>"
        '<xnat:assessor ID="A" xsi:type="fs:fsData"/></xnat:assessors></xnat:MRSession>'
    )

    assert b'xmlns:fs="http://nrg.wustl.edu/fs"' in text.partition(b">")[0]
    assert b'xsi:type="fs:fsData"' in text


def test_a_prefix_that_is_declared_deep_inside_stays_declared() -> None:
    text = rewritten(
        f"<xnat:MRSession {XNAT}><xnat:assessors><xnat:assessor {XSI} {FS} "
        'xsi:type="fs:fsData"/></xnat:assessors></xnat:MRSession>'
    )

    root = ElementTree.fromstring(text)
    (assessor,) = root.iter(f"{NS_XNAT}assessor")
    assert assessor.get(XSI_TYPE) == "fs:fsData"
    assert b'xmlns:fs="http://nrg.wustl.edu/fs"' in text


def test_an_empty_root_is_closed_as_it_was() -> None:
    text = rewritten(f'<xnat:Subject {XNAT} {XSI} {FS} xsi:type="fs:x"/>')

    assert text.rstrip().endswith(b"/>")
    assert ElementTree.fromstring(text).tag == f"{NS_XNAT}Subject"


def test_one_document_does_not_disturb_another() -> None:
    first = f'<a:Root xmlns:a="http://one" {XSI}><a:x xsi:type="a:t"/></a:Root>'
    second = f'<a:Root xmlns:a="http://two" {XSI}><a:x xsi:type="a:t"/></a:Root>'

    before, other, after = rewritten(first), rewritten(second), rewritten(first)

    assert before == after
    assert b'xmlns:a="http://one"' in before
    assert b'xmlns:a="http://two"' in other
    assert b"http://one" not in other


def test_characters_that_mean_something_in_xml_survive() -> None:
    note = "5 < 6 & \"seven\" > 'six' ]]> ünï 日本"
    document = Document(f"<xnat:Subject {XNAT}><xnat:note/></xnat:Subject>".encode())
    document.set_child("note", note)
    document.root.set("label", note)

    again = parse_xml(document.to_bytes(), "x")

    assert again.findtext(f"{NS_XNAT}note") == note
    assert again.get("label") == note


def test_a_namespace_with_an_ampersand_stays_well_formed() -> None:
    text = rewritten(f'<xnat:S {XNAT} {XSI} xmlns:q="http://q?a=1&amp;b=2" xsi:type="q:t"/>')

    assert parse_xml(text, "x").get(XSI_TYPE) == "q:t"


NAMES = st.sampled_from(["xnat:a", "xnat:b", "fs:c", "d"])
TEXTS = st.text("<>&\"' ünx\n\t", max_size=6)


@st.composite
def documents(draw: st.DrawFn, depth: int = 3) -> str:
    """Documents in three namespaces, with text and attributes that need care."""
    name = draw(NAMES)
    attributes = "".join(
        f" {key}={_quoted(draw(TEXTS))}"
        for key in draw(st.lists(st.sampled_from(["k", "l", "fs:m"]), unique=True, max_size=2))
    )
    inner = _escaped(draw(TEXTS))
    if depth:
        for _ in range(draw(st.integers(0, 2))):
            inner += draw(documents(depth - 1)) + _escaped(draw(TEXTS))
    where = f" {XNAT} {XSI} {FS}" if depth == 3 else ""
    return f"<{name}{where}{attributes}>{inner}</{name}>"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(text: str) -> str:
    escaped = _escaped(text).replace('"', "&quot;").replace("\n", "&#10;").replace("\t", "&#9;")
    return f'"{escaped}"'


@given(documents())
def test_what_is_read_and_written_says_the_same(text: str) -> None:
    root = parse_xml(text.encode(), "x")
    again = parse_xml(rewritten(text), "x")

    assert ElementTree.tostring(again) == ElementTree.tostring(root)


# --- changing --------------------------------------------------------------------------------


def test_elements_are_dropped_by_path() -> None:
    document = Document(
        f"<xnat:S {XNAT}><xnat:scans><xnat:scan><xnat:file/><xnat:note/><xnat:file/></xnat:scan>"
        "<xnat:scan><xnat:file/></xnat:scan></xnat:scans><xnat:file/></xnat:S>".encode()
    )

    document.drop("scans/scan/file", "sharing")

    assert len(list(document.root.iter(f"{NS_XNAT}file"))) == 1
    assert len(list(document.root.iter(f"{NS_XNAT}note"))) == 1
    document.drop("file")
    assert not list(document.root.iter(f"{NS_XNAT}file"))


def test_a_child_that_is_not_there_is_not_made() -> None:
    document = Document(f"<xnat:S {XNAT}/>".encode())

    document.set_child("note", "x")
    document.drop_attributes("ID")

    assert list(document.root) == []


# --- comparing -------------------------------------------------------------------------------


def test_equal_content_has_equal_bytes_whatever_its_spelling() -> None:
    one = f'<xnat:S {XNAT} a="1" b="2"><!--c--><xnat:note>x</xnat:note></xnat:S>'
    other = (
        '<q:S xmlns:q="http://nrg.wustl.edu/xnat" b="2" a="1">\n  <q:note>\n x </q:note>\n</q:S>'
    )

    assert canonical_element(parse_xml(one.encode(), "x")) == canonical_element(
        parse_xml(other.encode(), "x")
    )


def test_another_value_has_other_bytes() -> None:
    bodies = [
        f"<xnat:S {XNAT}><xnat:note>{inside}</xnat:note></xnat:S>"
        for inside in ("x", "y", "", "<xnat:x/>", "<xnat:x>x</xnat:x>")
    ]

    assert len({canonical_element(parse_xml(one.encode(), "x")) for one in bodies}) == len(bodies)
