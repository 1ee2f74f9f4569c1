"""Sessions as one thing: their folder, and their XAR and back."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest

from .conftest import SESSION, Client, zipped

ZIP = "application/zip"
IMPORT = "POST /data/services/import?import-handler=XAR"
FLAT = "/data/projects/P/experiments/E"


@pytest.fixture
async def full(xnat: Client) -> Client:
    """A session with files at every level."""
    for path, data in {
        f"{SESSION}/scans/3/resources/DICOM/files/a.dcm": b"1",
        f"{SESSION}/scans/3/resources/DICOM/files/sub/b c.dcm": b"22",
        f"{SESSION}/resources/NOTES/files/n.txt": b"333",
        f"{SESSION}/reconstructions/R/in/resources/I/files/i": b"4444",
    }.items():
        if "reconstructions" in path:
            await xnat(f"PUT {SESSION}/reconstructions/R?type=seg")
        assert (await xnat.put(path.replace(" ", "%20"), data)).status == 200
    line = f"PUT {SESSION}/assessors/A?xsiType=xnat:qcManualAssessorData&date=2024-01-01"
    assert (await xnat(line)).status == 201
    await xnat.put(f"{SESSION}/assessors/A/out/resources/QC/files/q", b"55555")
    return xnat


async def files(client: Client, session: str = SESSION) -> dict[str, tuple[str, str]]:
    """Size and digest of every file of a session, by level, label and path."""
    found = {}
    below = ("", "/scans/3", "/reconstructions/R/in", "/assessors/A")
    for level in below:
        for row in (await client(f"GET {session}{level}/files")).rows:
            path = row["URI"].split("/files/", 1)[1]
            found[f"{level}:{row['collection']}:{path}"] = (row["Size"], row["digest"])
    return found


def repacked(xar: bytes, change: Any) -> bytes:
    """A XAR with other names and bodies: `change(name, data)` gives the pair, or None to drop."""
    with zipfile.ZipFile(io.BytesIO(xar)) as archive:
        pairs = [change(name, archive.read(name)) for name in archive.namelist()]
    return zipped(dict(pair for pair in pairs if pair is not None))


async def test_a_xar_that_was_downloaded_goes_back_in(full: Client) -> None:
    before, xml = await files(full), (await full(f"GET {SESSION}?format=xml")).text
    answer = await full(f"GET {FLAT}/XAR?format=xar")
    assert {"E.xml", "E/SCANS/3/DICOM/scan_catalog.xml", "E/SCANS/3/DICOM/a.dcm"} <= set(
        answer.names
    )
    code = xml.partition('ID="')[2].partition('"')[0]
    assert (await full(f"DELETE {SESSION}?removeFiles=true")).status == 200
    back = await full(IMPORT, answer.body, kind=ZIP)
    assert (back.status, back.text) == (200, f"/data/archive/experiments/{code}\r\n")
    assert await files(full) == before != {}
    again = (await full(f"GET {SESSION}?format=json")).json()["items"][0]
    assert again["data_fields"]["date"] == "2024-02-28"
    assert (await full(f"GET {SESSION}/scans/3/resources/DICOM/files/a.dcm")).body == b"1"
    assert (await full(f"GET {SESSION}/resources")).rows[0]["file_count"] == "1"


async def test_a_xar_of_a_known_session_adds_to_it(full: Client) -> None:
    xar = (await full(f"GET {FLAT}/XAR")).body
    await full(f"DELETE {SESSION}/resources/NOTES?removeFiles=true")
    await full.put(f"{SESSION}/scans/3/resources/DICOM/files/later", b"x")
    assert (await full(IMPORT, xar, kind=ZIP)).status == 200
    assert await full.names(f"{SESSION}/resources/NOTES/files") == ["n.txt"]
    assert "later" in await full.names(f"{SESSION}/scans/3/files")


async def test_a_xar_may_lie_in_one_folder_and_lack_catalogs(full: Client) -> None:
    before = await files(full)
    xar = repacked(
        (await full(f"GET {FLAT}/XAR")).body,
        lambda name, data: None if name.endswith("_catalog.xml") else (f"top/{name}", data),
    )
    await full(f"DELETE {SESSION}?removeFiles=true")
    assert (await full(IMPORT, xar, kind=ZIP)).status == 200
    assert await files(full) == before


async def test_a_file_that_no_catalog_names_is_not_in_its_resource(full: Client) -> None:
    xar = (await full(f"GET {FLAT}/XAR")).body
    stray = repacked(xar, lambda name, data: (name.replace("a.dcm", "stray"), data))
    await full(f"DELETE {SESSION}?removeFiles=true")
    assert (await full(IMPORT, stray, kind=ZIP)).status == 200
    assert await full.names(f"{SESSION}/scans/3/files") == ["sub/b c.dcm"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n, d: None if n == "E.xml" else (n, d), "Unable to locate XNAT xml document"),
        (lambda n, d: (n, d.replace(b'project="P"', b'project="X"')), "Invalid project tag"),
        (lambda n, d: (n, d.replace(b"_S00001", b"_S99999")), "Invalid subject"),
        (lambda n, d: (n, d[:-20] if n == "E.xml" else d), "E.xml cannot be read"),
        (lambda n, d: (n.replace("E.xml", "sub/E.xml"), d), "Unable to locate XNAT xml document"),
    ],
)
async def test_a_xar_that_names_nothing_is_400(full: Client, change: Any, said: str) -> None:
    xar = repacked((await full(f"GET {FLAT}/XAR")).body, change)
    answer = await full(IMPORT, xar, kind=ZIP)
    assert answer.status == 400
    assert said in answer.text


async def test_an_assessor_comes_as_a_xar_of_its_own(full: Client) -> None:
    code = (await full(f"GET {SESSION}/assessors")).rows[0]["session_ID"]
    xml = (
        '<xnat:QCManualAssessment project="P" label="B" xmlns:xnat="http://nrg.wustl.edu/xnat" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><xnat:out><xnat:file label="R" '
        'URI="R/R_catalog.xml" xsi:type="xnat:resourceCatalog"/></xnat:out>'
        f"<xnat:imageSession_ID>{code}</xnat:imageSession_ID></xnat:QCManualAssessment>"
    )
    xar = zipped({"B.xml": xml.encode(), "B/R/x": b"1", "B/R/y/z": b"2"})
    assert (await full(IMPORT, xar, kind=ZIP)).status == 200
    assert await full.names(f"{SESSION}/assessors/B/resources/R/files") == ["x", "y/z"]
    stray = zipped({"B.xml": xml.replace(code, "NONE").encode()})
    assert "valid Imaging Session" in (await full(IMPORT, stray, kind=ZIP)).text


async def test_a_xar_needs_the_right_to_edit(full: Client) -> None:
    alice = Client(full.sandbox, "alice")
    xar = (await full(f"GET {FLAT}/XAR")).body
    assert (await alice(IMPORT, xar, kind=ZIP)).status == 403
    await full(f"DELETE {SESSION}?removeFiles=true")
    assert (await alice(IMPORT, xar, kind=ZIP)).status == 403
    await alice.close()


async def test_a_folder_of_a_session_is_listed_packed_and_sent(full: Client) -> None:
    rows = (await full(f"GET {FLAT}/DIR")).rows
    assert {(row["Name"], row["DIR"]) for row in rows} == {
        ("SCANS", "true"), ("RESOURCES", "true"), ("ASSESSORS", "true"), ("PROCESSED", "true"),
    }  # fmt: skip
    deep = (await full(f"GET {FLAT}/DIR/SCANS/3?recursive=true")).rows
    assert {(row["Name"], row["Size"]) for row in deep} == {
        ("DICOM/a.dcm", "1"), ("DICOM/sub/b c.dcm", "2"),
    }  # fmt: skip
    assert (await full(f"GET {FLAT}/DIR/RES*/NOTES/n.txt")).body == b"333"
    packed = await full(f"GET {FLAT}/DIR/SCANS?format=zip")
    assert set(packed.names) == {"SCANS/3/DICOM/a.dcm", "SCANS/3/DICOM/sub/b c.dcm"}
    assert (await full(f"GET {FLAT}/DIR/nothing")).status == 404
    assert (await full(f"GET {FLAT}/DIR/../x")).status == 400


async def test_the_scoped_address_has_neither_folder_nor_xar(full: Client) -> None:
    assert "items" in (await full(f"GET {SESSION}/DIR?format=json")).json()
    assert "items" in (await full(f"GET {SESSION}/XAR?format=json")).json()


async def test_the_objects_of_a_scan_come_as_a_zip(full: Client) -> None:
    answer = await full(f"GET {SESSION}/scans/3/DICOMDIR")
    assert set(answer.names) == {"DICOM/a.dcm", "DICOM/sub/b c.dcm"}


async def test_what_is_meant_for_scripts_is_put_aside(xnat: Client) -> None:
    line = "POST /data/services/import?import-handler=automation"
    answer = await xnat(line, zipped({"a": b"1"}), kind=ZIP)
    place = xnat.sandbox.store.root / answer.text.strip("/\r\n") / "upload.zip"
    assert answer.status == 200
    assert zipfile.ZipFile(place).namelist() == ["a"]
