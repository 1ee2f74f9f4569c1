"""Resources and files: uploads with their rules, downloads with their shapes."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree as ET

import aiohttp
import pytest

from xnatctl.sandbox.bodies import Generated, chunks

from .conftest import SESSION, Client, Start, fill, zipped

RESOURCE = f"{SESSION}/scans/3/resources/DICOM"
FILES = f"{RESOURCE}/files"
ZIP = "application/zip"


async def slowly(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0.02)


def on_disk(root: Path, name: str) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and path.name == name]


# ---- uploading -----------------------------------------------------------------------------


async def test_an_upload_is_recorded_with_size_and_digest_and_lies_on_disk(xnat: Client) -> None:
    answer = await xnat.put(f"{FILES}/sub/a.dcm", b"abc")
    assert (answer.status, answer.body) == (200, b"")
    row = (await xnat(f"GET {FILES}")).rows[0]
    assert (row["Name"], row["Size"]) == ("a.dcm", "3")
    assert row["digest"] == hashlib.md5(b"abc").hexdigest()
    assert row["URI"].endswith("/files/sub/a.dcm")
    path = xnat.sandbox.store.archive / "P/arc001/E/SCANS/3/DICOM/sub/a.dcm"
    assert path.read_bytes() == b"abc"


async def test_an_upload_without_edit_right_answers_200_and_stores_nothing(
    xnat: Client, alice: Client
) -> None:
    await xnat("PUT /data/projects/P/users/collaborator/alice")
    answer = await alice.put(f"{FILES}/a.dcm", b"abc")
    assert (answer.status, answer.body) == (200, b"")
    assert await xnat.names(FILES) == []


async def test_the_silent_refusal_can_be_made_a_403(start: Start) -> None:
    client = await start(silent_refusal=False, users={"admin": "admin", "alice": "alice"})
    await fill(client)
    await client("PUT /data/projects/P/users/collaborator/alice")
    other = Client(client.sandbox, "alice")
    assert (await other.put(f"{FILES}/a.dcm", b"abc")).status == 403
    await other.close()


async def test_an_existing_file_stays_and_is_reported_with_200(xnat: Client) -> None:
    await xnat.put(f"{FILES}/sub/a.dcm", b"abc")
    answer = await xnat.put(f"{FILES}/sub/a.dcm", b"other")
    assert (answer.status, answer.json()) == (200, {"duplicates": ["sub/a.dcm"]})
    assert (await xnat(f"GET {FILES}/sub/a.dcm")).body == b"abc"
    assert (await xnat.put(f"{FILES}/sub/a.dcm", b"other", "overwrite=true")).body == b""
    assert (await xnat(f"GET {FILES}/sub/a.dcm")).body == b"other"


async def test_empty_and_chunked_bodies_fail_unless_they_are_zips(xnat: Client) -> None:
    assert (await xnat.put(f"{FILES}/empty", b"")).status == 500
    octets = {"Content-Type": "application/octet-stream"}
    answer = await xnat(f"PUT {FILES}/c?inbody=true", slowly(b"abc"), headers=octets)
    assert answer.status == 500
    body = zipped({"x": b""})
    answer = await xnat(f"PUT {FILES}/c.zip?extract=true", slowly(body), kind=ZIP)
    assert answer.status == 200
    assert await xnat.names(FILES) == ["x"]


async def test_a_body_that_is_neither_known_nor_in_body_is_400(xnat: Client) -> None:
    answer = await xnat(f"PUT {FILES}/a.json", b"{}", kind="application/json")
    assert answer.status == 400
    answer = await xnat(f"PUT {FILES}/a.json?inbody=true", b"{}", kind="application/json")
    assert answer.status == 200


async def test_a_form_uploads_its_file_under_the_name_of_the_URL(xnat: Client) -> None:
    form = aiohttp.FormData()
    form.add_field("file", b"abc", filename="local.txt")
    assert (await xnat(f"POST {FILES}/there.txt", form)).status == 200
    assert await xnat.names(FILES) == ["there.txt"]
    again = aiohttp.FormData()
    again.add_field("file", b"abc", filename="local.txt")
    assert (await xnat(f"POST {FILES}/b.txt?inbody=true", again)).status == 406


async def test_extraction_happens_at_the_root_of_the_resource(xnat: Client) -> None:
    body = zipped({"in/a": b"1", "b": b"", "x_catalog.xml": b"<c/>", "../out": b"no"})
    answer = await xnat(f"PUT {FILES}/folder/up.zip?extract=true&inbody=true", body, kind=ZIP)
    assert answer.status == 200
    assert await xnat.names(FILES) == ["b", "in/a"]


async def test_extraction_reports_duplicates_and_stores_the_rest(xnat: Client) -> None:
    await xnat.put(f"{FILES}/a", b"old")
    body = zipped({"a": b"new", "b": b"2"})
    answer = await xnat(f"PUT {FILES}/up.zip?extract=true", body, kind=ZIP)
    assert answer.json() == {"duplicates": ["a"]}
    assert (await xnat(f"GET {FILES}/a")).body == b"old"
    assert (await xnat(f"GET {FILES}/b")).body == b"2"


async def test_a_truncated_zip_is_500_and_what_came_before_stays(xnat: Client) -> None:
    body = zipped({"a": b"1" * 100, "b": os.urandom(10_000)})
    answer = await xnat(f"PUT {FILES}/up.zip?extract=true", body[:5000], kind=ZIP)
    assert answer.status == 500
    assert await xnat.names(FILES) == ["a"]


async def test_stored_members_with_a_trailing_descriptor_cannot_be_read(xnat: Client) -> None:
    out = io.BytesIO()

    class Unseekable(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            return out.write(data)  # type: ignore[arg-type]

    with zipfile.ZipFile(Unseekable(), "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a", b"abc")
    answer = await xnat(f"PUT {FILES}/up.zip?extract=true", out.getvalue(), kind=ZIP)
    assert answer.status == 500 and "EXT descriptor" in answer.text


@pytest.mark.parametrize("name", ["up.tar", "up.tar.gz", "up.tgz"])
async def test_tars_are_unpacked_with_long_names(xnat: Client, name: str) -> None:
    out = io.BytesIO()
    long = "d/" * 80 + "x" * 120
    with tarfile.open(fileobj=out, mode="w:gz" if name.endswith("gz") else "w") as archive:
        for member, data in ((long, b"1"), ("b", b"22")):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    answer = await xnat.put(f"{FILES}/{name}", out.getvalue(), "extract=true")
    assert answer.status == 200
    assert await xnat.names(FILES) == ["b", long]
    cut = await xnat.put(
        f"{FILES}/{name}", out.getvalue()[: len(out.getvalue()) // 4], "extract=true"
    )
    assert cut.status == 500


async def test_overlapping_uploads_into_one_resource_end_in_500_and_an_orphan(
    xnat: Client,
) -> None:
    body = zipped({"slow": b"1"})
    slow = asyncio.create_task(
        xnat(f"PUT {FILES}/up.zip?extract=true", slowly(body[:20], body[20:]), kind=ZIP)
    )
    await asyncio.sleep(0.01)
    assert (await xnat.put(f"{FILES}/quick", b"2")).status == 200
    assert (await slow).status == 500
    assert await xnat.names(FILES) == ["quick"]
    on_disk = xnat.sandbox.store.archive / "P/arc001/E/SCANS/3/DICOM/slow"
    assert on_disk.read_bytes() == b"1"
    await xnat(f"POST /data/services/refresh/catalog?resource={RESOURCE[5:]}&options=append")
    assert await xnat.names(FILES) == ["quick", "slow"]


async def test_two_first_uploads_make_two_resources_of_one_label(xnat: Client) -> None:
    body = zipped({"a": b"1"})
    path = f"{SESSION}/resources/NEW/files/up.zip?extract=true"
    await asyncio.gather(
        *(xnat(f"PUT {path}", slowly(body[:20], body[20:]), kind=ZIP) for _ in range(2))
    )
    labels = [row["label"] for row in (await xnat(f"GET {SESSION}/resources")).rows]
    assert labels == ["NEW", "NEW"]


async def test_an_upload_rewrites_the_format_and_content_of_its_resource(xnat: Client) -> None:
    await xnat.put(f"{FILES}/a.txt", b"abc", "format=TXT&content=NOTES")
    row = (await xnat(f"GET {SESSION}/scans/3/resources")).rows[0]
    assert (row["format"], row["content"]) == ("TXT", "NOTES")


async def test_counts_stay_stale_until_the_catalog_is_refreshed(xnat: Client) -> None:
    await xnat.put(f"{FILES}/a", b"abc", "update-stats=false")
    row = (await xnat(f"GET {SESSION}/scans/3/resources")).rows[0]
    assert (row["file_count"], row["file_size"]) == ("", "")
    await xnat(f"POST /data/services/refresh/catalog?resource={SESSION[5:]}&options=populateStats")
    row = (await xnat(f"GET {SESSION}/scans/3/resources")).rows[0]
    assert (row["file_count"], row["file_size"]) == ("1", "3")


async def test_names_with_plus_percent_and_semicolon_cannot_be_addressed(xnat: Client) -> None:
    names = ["a+b", "c%20d", "e;f"]
    await xnat(f"PUT {FILES}/u.zip?extract=true", zipped(dict.fromkeys(names, b"1")), kind=ZIP)
    assert await xnat.names(FILES) == names
    for encoded in ("a%2Bb", "c%2520d", "e%3Bf"):
        assert (await xnat(f"GET {FILES}/{encoded}")).status == 404
    inside = (await xnat(f"GET {FILES}?format=zip")).names
    assert [name.rpartition("/")[2] for name in inside] == names


async def test_a_hash_must_be_encoded_and_a_comma_need_not(xnat: Client) -> None:
    for encoded, name in (("a%23b", "a#b"), ("c,d", "c,d"), ("e%5Bf%5D", "e[f]")):
        await xnat.put(f"{FILES}/{encoded}", b"1")
        assert (await xnat(f"GET {FILES}/{encoded}")).status == 200
        assert name in await xnat.names(FILES)


async def test_files_of_a_deleted_resource_reappear_when_its_catalog_is_refreshed(
    xnat: Client,
) -> None:
    await xnat.put(f"{FILES}/old", b"1")
    assert (await xnat(f"DELETE {RESOURCE}")).status == 200
    assert (await xnat(f"PUT {RESOURCE}")).status == 200
    assert await xnat.names(FILES) == []
    await xnat(f"POST /data/services/refresh/catalog?resource={RESOURCE[5:]}&options=append")
    assert await xnat.names(FILES) == ["old"]
    await xnat(f"DELETE {RESOURCE}?removeFiles=true")
    await xnat(f"PUT {RESOURCE}")
    await xnat(f"POST /data/services/refresh/catalog?resource={RESOURCE[5:]}&options=append")
    assert await xnat.names(FILES) == []


async def test_a_single_catalog_cannot_be_uploaded(xnat: Client) -> None:
    assert (await xnat.put(f"{FILES}/x_catalog.xml", b"<c/>")).status == 500


# ---- resources -----------------------------------------------------------------------------


async def test_putting_a_resource_again_is_409(xnat: Client) -> None:
    assert (await xnat(f"PUT {RESOURCE}")).status == 409
    assert (await xnat(f"PUT {SESSION}/resources/NEW")).status == 200


async def test_numeric_labels_are_taken_for_ids(xnat: Client) -> None:
    assert (await xnat(f"PUT {SESSION}/resources/4711")).status == 404
    made = await xnat(f"POST {SESSION}/resources?label=4711")
    assert made.status == 200
    assert (await xnat.put(f"{SESSION}/resources/4711/files/a", b"1")).status == 404
    assert (await xnat.put(f"{SESSION}/resources/{made.text}/files/a", b"1")).status == 200


async def test_deleting_a_resource_that_is_not_there_is_200(xnat: Client) -> None:
    for _ in range(2):
        assert (await xnat(f"DELETE {RESOURCE}?removeFiles=true")).status == 200
    assert (await xnat(f"GET {SESSION}/scans/3/resources")).rows == []


async def test_a_folder_prefix_deletes_everything_below(xnat: Client) -> None:
    for name in ("d/a", "d/b", "c"):
        await xnat.put(f"{FILES}/{name}", b"1")
    assert (await xnat(f"DELETE {FILES}/d")).status == 200
    assert await xnat.names(FILES) == ["c"]
    assert (await xnat(f"DELETE {FILES}/d")).status == 404


async def test_the_deep_listing_names_where_each_resource_hangs(xnat: Client) -> None:
    await xnat(f"PUT {SESSION}/assessors/QC?xsiType=xnat:qcManualAssessorData")
    await xnat(f"PUT {SESSION}/assessors/QC/out/resources/REPORT")
    await xnat(f"PUT {SESSION}/assessors/QC/in/resources/INPUT")
    await xnat(f"PUT {SESSION}/resources/MISC")
    rows = (await xnat(f"GET {SESSION}/resources?all=true")).rows
    assert {(row["category"], row["label"]) for row in rows} == {
        ("resources", "MISC"), ("scans", "DICOM"), ("assessors", "REPORT"),
    }  # fmt: skip
    inputs = (await xnat(f"GET {SESSION}/assessors/QC/in/resources")).rows
    assert [row["label"] for row in inputs] == ["INPUT"]


# ---- downloading ---------------------------------------------------------------------------


async def test_a_file_has_its_length_and_time_and_knows_no_ranges(xnat: Client) -> None:
    await xnat.put(f"{FILES}/a.dcm", b"abcdef")
    answer = await xnat(f"GET {FILES}/a.dcm", headers={"Range": "bytes=2-3"})
    assert (answer.status, answer.body) == (200, b"abcdef")
    assert answer.headers["Content-Length"] == "6"
    assert "Accept-Ranges" not in answer.headers
    since = {"If-Modified-Since": answer.headers["Last-Modified"]}
    assert (await xnat(f"GET {FILES}/a.dcm", headers=since)).status == 304


async def test_a_catalogued_file_that_is_gone_is_listed_skipped_and_404(xnat: Client) -> None:
    await xnat.put(f"{FILES}/a", b"1")
    await xnat.put(f"{FILES}/b", b"2")
    (xnat.sandbox.store.archive / "P/arc001/E/SCANS/3/DICOM/a").unlink()
    assert await xnat.names(FILES) == ["a", "b"]
    assert (await xnat(f"GET {FILES}/a")).status == 404
    assert (await xnat(f"GET {FILES}/a?accept-not-found=true")).status == 204
    assert len((await xnat(f"GET {FILES}?format=zip")).names) == 1


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        (f"{FILES}?format=zip", "E/scans/3-T1w/resources/DICOM/files/d/a"),
        (f"{SESSION}/scans/ALL/files?format=zip", "E/scans/3-T1w/resources/DICOM/files/d/a"),
        (f"{SESSION}/scans/T1w/files?format=zip", "E/scans/3-T1w/resources/DICOM/files/d/a"),
        (f"{SESSION}/files?all=true&format=zip", "E/scans/3/resources/DICOM/files/d/a"),
        (f"{FILES}?format=zip&structure=simplified", "E/scans/3/DICOM/d/a"),
        (f"{FILES}?format=zip&structure=improved", "scans/3_T1w/DICOM/d/a"),
        (f"{FILES}?format=zip&structure=legacy", "E/SCANS/3/DICOM/d/a"),
    ],
)
async def test_entry_paths_differ_with_the_road(xnat: Client, path: str, entry: str) -> None:
    await xnat.put(f"{FILES}/d/a", b"1")
    answer = await xnat(f"GET {path}")
    assert answer.names == [entry]
    assert "Content-Length" not in answer.headers


async def test_a_list_of_sessions_is_downloaded_as_one(xnat: Client) -> None:
    other = "/data/projects/P/subjects/S/experiments/E2"
    await xnat(f"PUT {other}?xsiType=xnat:mrSessionData")
    await xnat.put(f"{FILES}/a", b"1")
    await xnat.put(f"{other}/resources/R/files/b", b"2")
    both = "/data/projects/P/subjects/S/experiments/E,E2"
    scans = (await xnat(f"GET {both}/scans/ALL/files?format=zip")).names
    assert scans == ["E/scans/3-T1w/resources/DICOM/files/a"]
    every = (await xnat(f"GET {both}/files?all=true&format=zip")).names
    assert sorted(every) == ["E/scans/3/resources/DICOM/files/a", "E2/resources/R/files/b"]
    assert await xnat.names(f"{both}/files?all=true") == ["a", "b"]
    none = "/data/projects/P/subjects/S/experiments/X,Y"
    assert (await xnat(f"GET {none}/files")).status == 404


async def test_a_folder_that_is_called_like_its_scan_is_mangled_in_archives(
    xnat: Client, start: Start
) -> None:
    await xnat.put(f"{FILES}/x/3/a", b"1")
    (found,) = (await xnat(f"GET {FILES}?format=zip")).names
    assert found == "E/scans/3-T1w/resources/DICOM/files/x/3-T1w/a"
    (found,) = (await xnat(f"GET {SESSION}/files?all=true&format=zip")).names
    assert found == "E/scans/3/resources/DICOM/files/x/3/a"
    sane = await start(root="sane", mangle_entries=False)
    await fill(sane)
    await sane.put(f"{FILES}/x/3/a", b"1")
    (found,) = (await sane(f"GET {FILES}?format=zip")).names
    assert found == "E/scans/3-T1w/resources/DICOM/files/x/3/a"


async def test_names_in_listings_are_base_names_and_may_be_equal(xnat: Client) -> None:
    for name in ("a/1.dcm", "b/1.dcm"):
        await xnat.put(f"{FILES}/{name}", name.encode())
    rows = (await xnat(f"GET {FILES}")).rows
    assert [row["Name"] for row in rows] == ["1.dcm", "1.dcm"]
    assert [row["URI"].partition("/files/")[2] for row in rows] == ["a/1.dcm", "b/1.dcm"]


async def test_zips_are_stored_unless_deflation_is_asked_for(xnat: Client) -> None:
    big = b"0" * 600_000
    await xnat.put(f"{FILES}/big", big)
    await xnat.put(f"{FILES}/small", b"1")
    for query, method in (("", zipfile.ZIP_STORED), ("&compression=8", zipfile.ZIP_DEFLATED)):
        body = (await xnat(f"GET {FILES}?format=zip{query}")).body
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            assert archive.testzip() is None
            assert {info.compress_type for info in archive.infolist()} == {method}
            assert archive.read("E/scans/3-T1w/resources/DICOM/files/big") == big


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
async def test_files_come_as_a_tar(xnat: Client, form: str) -> None:
    await xnat.put(f"{FILES}/a", b"abc" * 100_000)
    body = (await xnat(f"GET {FILES}?format={form}")).body
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        member = archive.extractfile(archive.getmembers()[0])
        assert member is not None and member.read() == b"abc" * 100_000


async def test_nothing_at_all_to_send_is_404(xnat: Client) -> None:
    assert (await xnat(f"GET {FILES}?format=zip")).status == 404
    assert (await xnat(f"GET {SESSION}/scans/9/files?format=zip")).status == 404


async def test_generated_bodies_are_the_same_alone_and_in_a_zip(xnat: Client) -> None:
    store = xnat.sandbox.store
    scan = store.find("kind='scan'")[0]
    recipe = Generated(700_001, 7, b"head")
    store.add_generated(store.resources(scan)[0], [("g", recipe), ("h", Generated(3_000_000, 9))])
    wanted = b"".join(chunks(recipe))
    assert len(wanted) == 700_001
    assert (await xnat(f"GET {FILES}/g")).body == wanted
    body = (await xnat(f"GET {FILES}?format=zip")).body
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        assert archive.read("E/scans/3-T1w/resources/DICOM/files/g") == wanted
    row = next(row for row in (await xnat(f"GET {FILES}")).rows if row["Name"] == "g")
    assert row["digest"] == hashlib.md5(wanted).hexdigest()


async def test_discarded_bodies_keep_size_and_digest_only(start: Start, tmp_path: Path) -> None:
    client = await start(discard_bodies=True)
    await fill(client)
    body = os.urandom(3_000_000)
    await client.put(f"{FILES}/a", body)
    row = (await client(f"GET {FILES}")).rows[0]
    assert (row["Size"], row["digest"]) == ("3000000", hashlib.md5(body).hexdigest())
    assert (await client(f"GET {FILES}/a")).status == 404
    assert not on_disk(tmp_path, "a")


async def test_names_that_a_disk_refuses_are_kept(xnat: Client) -> None:
    names = ["x" * 255 + "ü" * 20, "%41", "a b", "CASE", "case", ".hidden", "…/é"]
    await xnat(f"PUT {FILES}/u.zip?extract=true", zipped(dict.fromkeys(names, b"1")), kind=ZIP)
    assert await xnat.names(FILES) == sorted(names)
    assert len((await xnat(f"GET {FILES}?format=zip")).names) == len(names)


async def test_two_downloads_prepared_in_one_second_share_their_id(
    xnat: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await xnat.put(f"{FILES}/a", b"abc")
    monkeypatch.setattr("time.strftime", lambda *_: "20240301_101112")
    ident = xnat.sandbox.store.find("label='E'")[0].code
    body = {"sessions": [f"P:S:E:{ident}"], "scan_types": ["T1w"], "scan_formats": ["DICOM"]}
    prepared = []
    for asked in (body, {**body, "options": ["projectIncludedInPath"]}):
        answer = await xnat("POST /xapi/archive/downloadwithsize", aiohttp.JsonPayload(asked))
        prepared.append(answer.json())
    assert prepared[0] == prepared[1] == {
        "id": "admin-20240301_101112", "size": "3", "resourcesOfUnknownSize": "0",
    }  # fmt: skip
    names = (await xnat(f"GET /xapi/archive/download/{prepared[0]['id']}/zip")).names
    assert names == ["P/E/scans/3-T1w/resources/DICOM/files/a"]


async def test_a_stored_archive_can_be_looked_into(xnat: Client) -> None:
    await xnat.put(f"{FILES}/a.zip", zipped({"in/x.txt": b"123", "y": b""}))
    for inner in ("a.zip!/in/x.txt", "a.zip/in/x.txt"):
        assert (await xnat(f"GET {FILES}/{inner}")).body == b"123"
    assert (await xnat(f"GET {FILES}/a.zip!/none")).status == 404
    rows = (await xnat(f"GET {FILES}?listContents=true")).rows
    assert [(row["Name"], row["Size"]) for row in rows[1:]] == [("x.txt", "3"), ("y", "0")]
    assert rows[1]["URI"].endswith("/files/a.zip!/in/x.txt")
    assert len((await xnat(f"GET {FILES}")).rows) == 1


async def test_a_file_can_be_chosen_by_its_place_in_the_list(xnat: Client) -> None:
    for name in ("a", "b"):
        await xnat.put(f"{FILES}/{name}", name.encode())
    assert (await xnat(f"GET {FILES}?index=1")).body == b"b"
    assert (await xnat(f"GET {FILES}?index=2")).status == 404


async def test_the_files_of_many_resources_are_one_catalog(xnat: Client) -> None:
    await xnat.put(f"{FILES}/a", b"1")
    await xnat.put(f"{SESSION}/resources/R/files/b", b"2")
    text = (await xnat(f"GET {SESSION}/files?all=true&format=xcat")).text
    entries = [
        one.get("URI", "") for one in ET.fromstring(text).iter() if one.tag.endswith("entry")
    ]
    assert sorted(entries) == ["a", "b"]


async def test_a_list_of_resources_of_which_some_are_missing_is_deleted_with_207(
    xnat: Client,
) -> None:
    for label in ("A", "B"):
        await xnat(f"PUT {SESSION}/resources/{label}")
    assert (await xnat(f"DELETE {SESSION}/resources/A,NONE")).status == 207
    assert (await xnat(f"DELETE {SESSION}/resources/B")).status == 200
    assert (await xnat(f"GET {SESSION}/resources")).rows == []


async def test_the_head_of_an_archive_has_no_body(xnat: Client) -> None:
    await xnat.put(f"{FILES}/a", b"1")
    head = await xnat(f"HEAD {FILES}?format=zip")
    assert (head.status, head.body) == (200, b"")
    assert (await xnat(f"GET {FILES}?format=zip")).names


async def test_files_of_the_servers_disk_are_uploaded_by_reference(xnat: Client) -> None:
    inbox = xnat.sandbox.store.root / "inbox"
    (inbox / "d" / "e").mkdir(parents=True)
    (inbox / "d" / "a").write_bytes(b"1")
    (inbox / "d" / "e" / "b").write_bytes(b"2")
    base = f"{SESSION}/resources/R/files"
    assert (await xnat(f"PUT {base}/x?reference={inbox}/d/a")).status == 200
    assert (await xnat(f"PUT {base}?reference={inbox}/d&delete=true")).status == 200
    assert await xnat.names(base) == ["a", "e/b", "x"]
    assert not (inbox / "d" / "a").exists()
    (inbox / "d" / "c").write_bytes(b"3")
    answer = await xnat(f"PUT {base}/later?reference=/d/c&async=true")
    number = answer.json()["workflowId"]
    for _ in range(100):
        row = (await xnat(f"GET /data/services/workflows/workflowid/{number}")).rows[0]
        if row["status"] == "Complete":
            break
        await asyncio.sleep(0.01)
    assert (await xnat(f"GET {base}/later")).body == b"3"
    assert (await xnat(f"PUT {base}/p?reference=/etc/passwd")).status == 404
    assert (await xnat(f"PUT {base}/p?reference=../../etc/passwd")).status == 400


async def test_a_prepared_download_takes_assessors_and_is_deflated(xnat: Client) -> None:
    await xnat.put(f"{FILES}/a", b"1" * 1000)
    await xnat(f"PUT {SESSION}/assessors/A?xsiType=xnat:qcManualAssessorData")
    await xnat.put(f"{SESSION}/assessors/A/out/resources/QC/files/q", b"2")
    ident = xnat.sandbox.store.find("label='E'")[0].code
    body = {"sessions": [f"P:S:E:{ident}"], "scan_types": ["T1w"], "options": ["simplified"],
            "assessors": ["xnat:qcManualAssessorData"]}  # fmt: skip
    prepared = await xnat("POST /xapi/archive/download", aiohttp.JsonPayload(body))
    answer = await xnat(f"GET /xapi/archive/download/{prepared.text}/zip")
    assert answer.names == ["E/scans/3/DICOM/a", "E/assessors/A/out/QC/q"]
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.infolist()[0].compress_type == zipfile.ZIP_DEFLATED
