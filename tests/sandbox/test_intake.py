"""Imports, the prearchive and archiving: who goes where, when, and what stands in the way."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Any

import aiohttp
import pydicom
import pytest

from xnatctl.sandbox.prearchive import Entry

from .conftest import Answer, Client, Start, fill, zipped
from .dicoms import dicom, study

IMPORT = "POST /data/services/import?import-handler=DICOM-zip"
INTO_E2 = "project=P&subject=S&session=E2"
ZIP = "application/zip"


async def send(client: Client, query: str = INTO_E2, body: bytes | None = None) -> Answer:
    return await client(f"{IMPORT}&{query}", body or study(), kind=ZIP)


def entries(client: Client) -> list[Entry]:
    return client.sandbox.prearchive.entries()


async def archived(client: Client, label: str = "E2") -> dict[str, int]:
    """Files of each scan of a session in the archive."""
    rows = (
        await client(f"GET /data/projects/P/subjects/S/experiments/{label}/resources?all=true")
    ).rows
    return {row["cat_id"]: int(row["file_count"]) for row in rows}


async def until(client: Client, status: str) -> None:
    """Wait until the only entry has a status."""
    for _ in range(200):
        if [entry.status for entry in entries(client)] == [status]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError([entry.status for entry in entries(client)])


# ---- where things go -----------------------------------------------------------------------


async def test_an_import_answers_the_address_of_a_receiving_session(xnat: Client) -> None:
    answer = await send(xnat)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/uri-list")
    assert answer.text.endswith("/E2\r\n")
    row = (await xnat("GET /data/prearchive/projects/P")).rows[0]
    assert (row["status"], row["name"], row["subject"], row["tag"]) == (
        "RECEIVING", "E2", "S", "1.2.3",
    )  # fmt: skip
    assert "/data" + row["url"] == answer.text.strip()


@pytest.mark.parametrize("project", ["NOPE", "Q"])
async def test_an_unknown_or_forbidden_project_is_ignored_without_a_word(
    xnat: Client, alice: Client, project: str
) -> None:
    await xnat("PUT /data/projects/Q")
    answer = await send(alice, f"project={project}&subject=S&session=E2")
    assert answer.status == 200
    assert answer.text.startswith("/data/prearchive/projects/Unassigned/")
    assert (await alice("GET /data/prearchive")).rows == []


async def test_identity_comes_from_comments_and_names_where_nothing_else_tells(
    xnat: Client,
) -> None:
    body = zipped({"1": dicom(comments="Project:P Subject:from Session:text")})
    assert (await send(xnat, "", body)).text.strip().endswith("/text")
    assert (entries(xnat)[0].project, entries(xnat)[0].subject) == ("P", "from")
    body = zipped({"1": dicom(study="9", patient="A^B", label="x y")})
    await send(xnat, "project=P", body)
    assert (entries(xnat)[1].subject, entries(xnat)[1].name) == ("A_B", "x_y")


async def test_a_study_goes_on_in_its_folder_while_it_is_received(xnat: Client) -> None:
    first = await send(xnat)
    second = await send(xnat, body=study(2, series="1.2.3.4", scan=4))
    assert first.text == second.text
    await xnat(f"POST {first.text.strip()}?action=build")
    third = await send(xnat, body=study(2, series="1.2.3.5", scan=5))
    assert third.text != first.text


async def test_a_named_folder_takes_more_even_after_it_was_built(xnat: Client) -> None:
    uri = (await send(xnat)).text.strip()
    await xnat(f"POST {uri}?action=build")
    assert entries(xnat)[0].status == "READY"
    again = await send(xnat, f"dest={uri[5:]}", study(2, series="1.2.3.4", scan=4))
    assert again.text.strip() == uri
    assert [entry.status for entry in entries(xnat)] == ["RECEIVING"]
    other = await send(xnat, f"dest={uri[5:]}", study(1, study="9.9"))
    assert other.status == 400


async def test_two_studies_in_one_zip_become_two_sessions(xnat: Client) -> None:
    body = zipped({"a": dicom(study="1.1", label="A"), "b": dicom(study="1.2", label="B")})
    answer = await send(xnat, "project=P&subject=S", body)
    assert [line.rpartition("/")[2] for line in answer.text.split("\r\n")] == ["A", "B", ""]


async def test_another_series_of_the_same_number_becomes_a_scan_of_its_own(xnat: Client) -> None:
    body = zipped({"a": dicom(1, series="1.7"), "b": dicom(1, series="1.8")})
    await send(xnat, body=body)
    found = xnat.sandbox.prearchive.objects(entries(xnat)[0])
    assert {one.scan for one in found} == {"3", "3-MR1"}


async def test_a_malformed_destination_is_400_and_an_unknown_handler_404(xnat: Client) -> None:
    assert (await send(xnat, "dest=/nowhere")).status == 400
    answer = await xnat("POST /data/services/import?import-handler=PAR", study(), kind=ZIP)
    assert answer.status == 404


# ---- bodies --------------------------------------------------------------------------------


async def test_octet_streams_and_empty_bodies_are_400(xnat: Client) -> None:
    answer = await xnat(f"{IMPORT}&{INTO_E2}", study(), kind="application/octet-stream")
    assert answer.status == 400
    assert (await xnat(f"{IMPORT}&{INTO_E2}", b"", kind=ZIP)).status == 400


async def test_a_form_may_name_its_fields_after_its_file(xnat: Client) -> None:
    form = aiohttp.FormData()
    form.add_field("image_archive", study(), filename="up.zip")
    for name, value in (("project", "P"), ("subject", "S"), ("session", "E7")):
        form.add_field(name, value)
    answer = await xnat(IMPORT, form)
    assert answer.text.strip().endswith("/E7")
    assert not list((xnat.sandbox.store.root / "tmp").iterdir())


async def test_one_object_is_added_to_a_receiving_session(xnat: Client) -> None:
    line = "POST /data/services/import?PROJECT_ID=P&SUBJECT_ID=S&EXPT_LABEL=G"
    for number in (1, 2):
        answer = await xnat(line, dicom(number), kind="application/dicom")
        assert answer.text.strip().endswith("/G")
    assert len(xnat.sandbox.prearchive.objects(entries(xnat)[0])) == 2


async def test_a_bad_entry_is_400_and_what_came_before_stays(xnat: Client) -> None:
    body = zipped({"1.dcm": dicom(1), "README": b"no dicom", "2.dcm": dicom(2)})
    assert (await send(xnat, body=body)).status == 400
    assert [e.status for e in entries(xnat)] == ["RECEIVING"]
    assert len(xnat.sandbox.prearchive.objects(entries(xnat)[0])) == 1
    assert (await send(xnat, INTO_E2 + "&Ignore-Unparsable=true", body)).status == 200
    assert len(xnat.sandbox.prearchive.objects(entries(xnat)[0])) == 2


async def test_a_truncated_zip_leaves_a_partial_session(xnat: Client) -> None:
    body = zipped({"1.dcm": dicom(1), "2.dcm": dicom(2, padding=50_000)}, method=0)
    assert (await send(xnat, body=body[:20_000])).status == 400
    assert len(xnat.sandbox.prearchive.objects(entries(xnat)[0])) == 1


async def test_nothing_importable_is_400(xnat: Client) -> None:
    body = zipped({"README": b"x"})
    answer = await send(xnat, INTO_E2 + "&Ignore-Unparsable=true", body)
    assert answer.status == 400 and "parsable" in answer.text


async def test_an_import_changes_bytes_but_not_pixels(xnat: Client) -> None:
    sent = dicom(1)
    uri = (await send(xnat, body=zipped({"1.dcm": sent}))).text.strip()
    got = (await xnat(f"GET {uri}/scans/3/resources/DICOM/files/1.dcm")).body
    assert got != sent
    before, after = (pydicom.dcmread(io.BytesIO(data)) for data in (sent, got))
    assert before == after


async def test_large_objects_pass_through_a_file(xnat: Client) -> None:
    body = zipped({"1.dcm": dicom(1, padding=3_000_000)}, method=0)
    await send(xnat, body=body)
    found = xnat.sandbox.prearchive.objects(entries(xnat)[0])
    assert found[0].size > 3_000_000
    assert not list((xnat.sandbox.store.root / "tmp").iterdir())


async def test_an_archive_inside_the_archive_is_opened(xnat: Client) -> None:
    assert (await send(xnat, body=zipped({"inner.zip": study(3)}))).status == 200
    assert len(xnat.sandbox.prearchive.objects(entries(xnat)[0])) == 3


async def test_a_file_of_the_users_cache_can_be_imported(xnat: Client) -> None:
    await xnat.put("/data/user/cache/resources/X/files/up.zip", study())
    answer = await xnat(f"{IMPORT}&{INTO_E2}&src=/user/cache/resources/X/files/up.zip")
    assert answer.status == 200
    missing = await xnat(f"{IMPORT}&src=/user/cache/resources/X/files/no.zip")
    assert missing.status == 404


async def test_files_of_the_inbox_are_imported_behind_the_answer(xnat: Client) -> None:
    inbox = xnat.sandbox.store.root / "inbox"
    folder = inbox / "scanner"
    folder.mkdir(parents=True)
    for number in (1, 2):
        (folder / f"{number}").write_bytes(dicom(number))
    (folder / "notes.txt").write_text("no DICOM")
    line = "POST /data/services/import?import-handler=inbox&http-session-listener=tok"
    for path, status in (("/etc/passwd", 404), ("../sandbox.db", 400), ("", 400)):
        assert (await xnat(f"{line}&path={path}")).status == status
    answer = await xnat(f"{line}&{INTO_E2}&path={folder}&cleanupAfterImport=true")
    assert answer.status == 200 and "submitted" in answer.text
    await until(xnat, "READY")
    (entry,) = entries(xnat)
    assert (entry.project, entry.name, entry.subject) == ("P", "E2", "S")
    assert len(xnat.sandbox.prearchive.objects(entry)) == 2
    assert [one.name for one in folder.iterdir()] == ["notes.txt"]
    messages = (await xnat("GET /data/status/tok")).json()["msgs"][0]
    assert messages[-1]["status"] == "COMPLETED"


# ---- scripts -------------------------------------------------------------------------------


async def test_the_sites_script_runs_on_arrival_unless_it_is_prevented(xnat: Client) -> None:
    script = 'version "6.3"\n(0008,0080) := "HIDDEN"\n- (0010,0020)\n'
    await xnat("PUT /xapi/anonymize/site", script, kind="text/plain")
    uri = (await send(xnat, body=study(1, label="SECRET"))).text.strip()
    got = (await xnat(f"GET {uri}/scans/3/resources/DICOM/files/1.dcm")).body
    data = pydicom.dcmread(io.BytesIO(got))
    assert data.InstitutionName == "HIDDEN" and "PatientID" not in data
    query = "project=P&subject=S&session=E3&prevent_anon=true"
    uri = (await send(xnat, query, study(1, study="5.5"))).text.strip()
    got = (await xnat(f"GET {uri}/scans/3/resources/DICOM/files/1.dcm")).body
    assert pydicom.dcmread(io.BytesIO(got)).InstitutionName == "Somewhere"


async def test_the_projects_script_runs_on_the_way_into_the_archive(xnat: Client) -> None:
    script = "(0010,0020) := session\n"
    await xnat("PUT /xapi/anonymize/projects/P", script, kind="text/plain")
    await send(xnat, INTO_E2 + "&dest=/archive")
    files = "/data/projects/P/subjects/S/experiments/E2/scans/3/resources/DICOM/files"
    got = (await xnat(f"GET {files}/1.dcm")).body
    assert pydicom.dcmread(io.BytesIO(got)).PatientID == "E2"
    upload = await xnat.put(f"{files}/raw.dcm", dicom(label="RAW"))
    assert upload.status == 200
    assert (await xnat(f"GET {files}/raw.dcm")).body == dicom(label="RAW")


async def test_the_series_filter_drops_series_silently(xnat: Client) -> None:
    await xnat("PUT /data/config/seriesImportFilter/config?inbody=true", "^t1", kind="text/plain")
    answer = await send(xnat)
    assert answer.status == 200
    assert not xnat.sandbox.prearchive.objects(entries(xnat)[0])


# ---- by itself -----------------------------------------------------------------------------


async def test_an_idle_session_archives_itself_half_done(start: Start) -> None:
    client = await start(idle_build_s=0.1, sweep_s=0.05)
    await client("PUT /data/projects/P")
    await send(client)
    for _ in range(100):
        if not entries(client):
            break
        await asyncio.sleep(0.02)
    assert await archived(client) == {"3": 3}


@pytest.mark.parametrize("flag", ["SOURCE=uploader", "prevent_auto_commit=true"])
async def test_flags_keep_the_builder_away(start: Start, flag: str) -> None:
    client = await start(idle_build_s=0.0, sweep_s=0.02)
    await fill(client)
    await send(client, f"{INTO_E2}&{flag}")
    await asyncio.sleep(0.1)
    assert [entry.status for entry in entries(client)] == ["RECEIVING"]


async def test_flags_that_a_server_does_not_honour_show_in_the_row(start: Start) -> None:
    client = await start(import_flags=False, idle_build_s=0.0, sweep_s=0.02)
    await fill(client)
    await send(client, INTO_E2 + "&SOURCE=uploader&prevent_auto_commit=true")
    row = (await client("GET /data/prearchive/projects/P")).rows[0]
    assert (row["SOURCE"], row["prevent_auto_commit"]) == ("", "false")
    await until(client, "READY")


async def test_automatic_archiving_onto_an_existing_session_ends_in_CONFLICT(
    start: Start,
) -> None:
    client = await start(idle_build_s=0.0, sweep_s=0.02)
    await fill(client)
    await client("PUT /data/projects/P/prearchive_code/4")
    await send(client, "project=P&subject=S&session=E")
    await until(client, "CONFLICT")
    uri = "/data" + entries(client)[0].url
    assert "already exists" in (await client(f"GET {uri}/logs")).text


# ---- the prearchive ------------------------------------------------------------------------


async def test_a_built_session_is_described_from_its_objects(xnat: Client) -> None:
    uri = (await send(xnat, body=study(4))).text.strip()
    assert (await xnat(f"GET {uri}?format=xml")).status == 404
    assert (await xnat(f"POST {uri}?action=build")).status == 200
    document = (await xnat(f"GET {uri}?format=xml")).text
    assert "<xnat:MRSession" in document and 'UID="1.2.3"' in document
    assert "<xnat:frames>4</xnat:frames>" in document
    rows = (await xnat(f"GET {uri}/scans")).rows
    assert [(row["ID"], row["xsiType"]) for row in rows] == [("3", "xnat:mrScanData")]
    files = (await xnat(f"GET {uri}/scans/3/resources/DICOM/files")).rows
    assert {row["Name"] for row in files} == {f"{i}.dcm" for i in range(1, 5)}
    assert len((await xnat(f"GET {uri}?format=zip")).names) == 4


async def test_a_built_type_follows_the_modalities(xnat: Client) -> None:
    members = {"a": dicom(1, series="1", modality="CT"), "b": dicom(1, series="2", modality="PT")}
    uri = (await send(xnat, body=zipped(members))).text.strip()
    await xnat(f"POST {uri}?action=build")
    assert "<xnat:PETSession" in (await xnat(f"GET {uri}?format=xml")).text


async def test_building_takes_its_time_and_shows_it(start: Start) -> None:
    client = await start(build_s=0.1)
    await fill(client)
    uri = (await send(client)).text.strip()
    building = asyncio.create_task(client(f"POST {uri}?action=build"))
    await until(client, "_BUILDING")
    assert (await client(f"POST {uri}?action=commit")).status == 409
    assert (await client(f"DELETE {uri}")).status == 409
    assert (await building).status == 200
    assert entries(client)[0].status == "READY"


async def test_a_commit_is_200_or_301_with_the_address_in_the_body(xnat: Client) -> None:
    uri = (await send(xnat)).text.strip()
    plain = await xnat(f"POST {uri}?action=commit")
    assert (plain.status, plain.text.strip()) == (200, uri)
    archive = await xnat(f"POST {uri}?action=commit&AA=true")
    assert archive.status == 301 and "Location" not in archive.headers
    assert archive.text == "/data/archive/projects/P/subjects/S/experiments/E2\r\n"
    assert await archived(xnat) == {"3": 3}


async def test_a_session_moves_to_another_project_with_301(xnat: Client) -> None:
    await xnat("PUT /data/projects/Q")
    uri = (await send(xnat)).text.strip()
    answer = await xnat(f"POST {uri}?action=move&newProject=Q")
    assert answer.status == 301
    assert answer.text.strip() == uri.replace("/P/", "/Q/")
    assert (await xnat(f"GET {answer.text.strip()}/scans/3/resources/DICOM/files/1.dcm")).status


async def test_rebuild_is_a_service_and_not_an_action(xnat: Client) -> None:
    uri = (await send(xnat)).text.strip()
    assert (await xnat(f"POST {uri}?action=rebuild")).status == 400
    answer = await xnat(f"POST /data/services/prearchive/rebuild?src={uri[5:]}")
    assert answer.status == 200
    await until(xnat, "READY")


async def test_deleting_a_session_frees_it_and_a_second_time_is_404(xnat: Client) -> None:
    uri = (await send(xnat)).text.strip()
    assert (await xnat(f"DELETE {uri}/scans/3")).status == 400
    assert (await xnat(f"DELETE {uri}")).status == 200
    assert (await xnat(f"DELETE {uri}")).status == 404
    queued = (await send(xnat)).text.strip()
    await xnat(f"POST /data/services/prearchive/delete?src={queued}")
    await asyncio.sleep(0.02)
    assert entries(xnat) == []


async def test_what_a_stop_broke_off_is_in_ERROR_after_the_start(xnat: Client) -> None:
    await send(xnat)
    prearchive = xnat.sandbox.prearchive
    prearchive.set_status(entries(xnat)[0], "_ARCHIVING")
    prearchive.recover()
    assert [entry.status for entry in entries(xnat)] == ["ERROR"]


# ---- archiving -----------------------------------------------------------------------------


async def service(client: Client, query: str = "", **settings: Any) -> Answer:
    """Archive the only entry by the archive service."""
    uri = entries(client)[0].url
    return await client(f"POST /data/services/archive?src={uri}{query}")


async def test_the_service_answers_the_archive_address_with_labels(xnat: Client) -> None:
    await send(xnat)
    answer = await service(xnat)
    assert (answer.status, answer.text) == (
        200, "/data/archive/projects/P/subjects/S/experiments/E2\r\n",
    )  # fmt: skip
    assert await archived(xnat) == {"3": 3}
    folder = xnat.sandbox.store.archive / "P/arc001/E2/SCANS/3/DICOM"
    assert sorted(path.name for path in folder.iterdir()) == ["1.dcm", "2.dcm", "3.dcm"]
    again = await xnat("POST /data/services/archive?src=/prearchive/projects/P/1/E2")
    assert again.status == 404


async def test_an_automatic_project_answers_303_unless_told_not_to(xnat: Client) -> None:
    await xnat("PUT /data/projects/P/prearchive_code/4")
    await send(xnat)
    answer = await service(xnat)
    assert answer.status == 303
    assert answer.headers["Location"].endswith("/data/archive/projects/P/subjects/S/experiments/E2")
    await send(xnat, "project=P&subject=S&session=E3", study(study="5"))
    assert (await service(xnat, "&auto-archive=false")).status == 200


async def test_the_service_merges_without_being_asked_and_conflicts_are_500(
    xnat: Client,
) -> None:
    await send(xnat, INTO_E2 + "&dest=/archive")
    await send(xnat, body=study(2, series="1.2.3.4", scan=4))
    assert (await service(xnat)).status == 200
    assert await archived(xnat) == {"3": 3, "4": 2}
    await send(xnat)
    answer = await service(xnat)
    assert answer.status == 500 and "Unable to archive" in answer.text
    assert entries(xnat)[0].status == "CONFLICT"


async def test_append_at_the_service_replaces_files(xnat: Client) -> None:
    await send(xnat, INTO_E2 + "&dest=/archive")
    await send(xnat)
    assert (await service(xnat, "&overwrite=append")).status == 200
    assert await archived(xnat) == {"3": 3}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("&overwrite=none", 400),
        ("&overwrite=append", 400),
        ("&overwrite=append&overwrite_files=true", 200),
        ("&overwrite=delete", 200),
    ],
)
async def test_an_import_onto_the_same_files_needs_leave_to_replace(
    xnat: Client, query: str, status: int
) -> None:
    await send(xnat, INTO_E2 + "&dest=/archive")
    answer = await send(xnat, INTO_E2 + "&dest=/archive" + query)
    assert answer.status == status
    assert await archived(xnat) == {"3": 3}


@pytest.mark.parametrize(("prunes", "left"), [(False, 3), (True, 1)])
async def test_whether_delete_drops_what_the_new_data_lack_depends_on_the_server(
    start: Start, prunes: bool, left: int
) -> None:
    client = await start(overwrite_delete_prunes=prunes)
    await fill(client)
    await send(client, INTO_E2 + "&dest=/archive")
    await send(client, INTO_E2 + "&dest=/archive&overwrite=delete", study(1))
    assert await archived(client) == {"3": left}


@pytest.mark.parametrize(("query", "status"), [("", 400), ("&overwrite=none", 200)])
async def test_any_overwrite_even_none_turns_merging_on(
    xnat: Client, query: str, status: int
) -> None:
    await send(xnat, INTO_E2 + "&dest=/archive")
    more = study(2, series="1.2.3.4", scan=4)
    assert (await send(xnat, INTO_E2 + "&dest=/archive" + query, more)).status == status


async def test_the_legacy_code_with_overwrite_is_always_400(xnat: Client) -> None:
    assert (await send(xnat, INTO_E2 + "&prearchive_code=1&overwrite=append")).status == 400


@pytest.mark.parametrize(
    ("facts", "query", "message"),
    [
        ({"study": "9"}, "", "UID"),
        ({"series": "7"}, "", "already contains a scan"),
        ({"modality": "CT"}, "", "modality"),
        ({}, "&subject=OTHER", "subject"),
    ],
)
async def test_conflicts_are_told_by_their_message(
    xnat: Client, facts: dict[str, Any], query: str, message: str
) -> None:
    await send(xnat, INTO_E2 + "&dest=/archive")
    await send(xnat, INTO_E2, study(1, **facts))
    answer = await service(xnat, query)
    assert answer.status == 500 and message in answer.text
    rows = await xnat(f"POST /data/services/validate-archive?src={entries(xnat)[0].url}{query}")
    assert any(message in row["message"] for row in rows.rows)


async def test_the_status_of_a_conflict_depends_on_the_door(xnat: Client) -> None:
    await send(xnat, INTO_E2 + "&dest=/archive")
    assert (await send(xnat, INTO_E2 + "&dest=/archive")).status == 400
    si = "POST /data/services/import?import-handler=SI&dest=/archive&" + INTO_E2
    assert (await xnat(si, study(), kind=ZIP)).status == 409
    for entry in entries(xnat):
        xnat.sandbox.prearchive.delete(entry)
    await send(xnat)
    assert (await service(xnat)).status == 500


async def test_an_archive_that_takes_too_long_is_500_and_goes_on(start: Start) -> None:
    client = await start(archive_s=0.15, archive_timeout_s=0.03)
    await fill(client)
    await send(client)
    answer = await service(client)
    assert answer.status == 500 and "configured timeout" in answer.text
    assert entries(client)[0].status == "_ARCHIVING"
    assert (await service(client)).status == 403
    await asyncio.sleep(0.25)
    assert entries(client) == []
    assert await archived(client) == {"3": 3}


async def test_a_merge_copies_the_whole_destination_first(start: Start) -> None:
    client = await start(merge_rate=1_000_000)
    await fill(client)
    big = zipped({"1.dcm": dicom(1, padding=200_000)})
    began = time.monotonic()
    await send(client, INTO_E2 + "&dest=/archive", big)
    assert time.monotonic() - began < 0.2
    more = INTO_E2 + "&dest=/archive&overwrite=append"
    await send(client, more, study(1, series="7", scan=7))
    assert time.monotonic() - began >= 0.2


async def test_a_second_archive_into_the_same_session_is_423(start: Start) -> None:
    client = await start(archive_s=0.15)
    await fill(client)
    await send(client)
    first = asyncio.create_task(service(client))
    await until(client, "_ARCHIVING")
    other = entries(client)[0]
    uri = client.sandbox.prearchive.create("P", "E2", subject="S", tag="1.2.3", options={}).url
    answer = await client(f"POST /data/services/archive?src={uri}")
    assert answer.status == 423
    assert (await first).status == 200 and other.name == "E2"


async def test_several_sources_are_archived_behind_the_answer(xnat: Client) -> None:
    await send(xnat)
    await send(xnat, "project=P&subject=S&session=E3", study(study="5"))
    query = "&".join(f"src={entry.url}" for entry in entries(xnat))
    answer = await xnat(f"POST /data/services/archive?{query}")
    assert [row["status"] for row in answer.rows] == ["QUEUED_ARCHIVING"] * 2
    await asyncio.sleep(0.05)
    assert entries(xnat) == []


async def test_unassigned_sessions_need_a_project_to_be_archived(xnat: Client) -> None:
    await send(xnat, "project=NOPE&subject=S&session=E2")
    assert (await service(xnat)).status == 400
    assert (await service(xnat, "&project=P")).status == 200


async def test_direct_archive_answers_an_address_of_its_own(xnat: Client) -> None:
    answer = await send(xnat, INTO_E2 + "&Direct-Archive=true")
    uri = answer.text.strip()
    assert uri == "/xapi/direct-archive/P/1.2.3/E2"
    assert (await xnat("GET /data/prearchive/projects/P")).rows == []
    assert (await xnat(f"GET {uri}")).json()["status"] == "RECEIVING"
    assert (await xnat(f"POST {uri}")).status == 200
    assert await archived(xnat) == {"3": 3}


async def test_a_workflow_may_stay_open_after_archiving(start: Start) -> None:
    client = await start(autorun_s=0.1)
    await fill(client)
    await send(client, INTO_E2 + "&dest=/archive")
    path = "/data/projects/P/subjects/S/experiments/E2"
    assert (await client(f"PUT {path}?label=E3")).status == 409
    await asyncio.sleep(0.15)
    assert (await client(f"PUT {path}?label=E3")).status == 200


async def test_quarantine_is_kept_with_the_session(xnat: Client) -> None:
    await send(xnat)
    await service(xnat, "&quarantine=true")
    assert xnat.sandbox.store.find("label='E2'")[0].status == "quarantine"


async def test_files_beside_the_scans_go_into_the_archive_with_their_session(xnat: Client) -> None:
    uri = (await xnat(f"{IMPORT}&project=P&subject=S&session=N", study(1), kind=ZIP)).text.strip()
    assert (await xnat.put(f"{uri}/resources/NOTES/files/a/n.txt", b"123")).status == 200
    row = (await xnat(f"GET {uri}/resources")).rows[0]
    assert (row["label"], row["file_count"], row["file_size"]) == ("NOTES", "1", "3")
    assert (await xnat(f"GET {uri}/resources/NOTES/files")).rows[0]["Name"] == "n.txt"
    assert (await xnat(f"GET {uri}/resources/NOTES/files/a/n.txt")).body == b"123"
    assert (await xnat(f"GET {uri}/resources/NOTES/files/none")).status == 404
    assert (await xnat(f"PUT {uri}/resources/NOTES/junk")).status == 400
    await xnat(f"POST {uri}?action=build")
    archived = await xnat(f"POST /data/services/archive?src={uri}&auto-archive=false")
    files = f"{archived.text.strip()}/resources/NOTES/files"
    assert await xnat.names(files) == ["a/n.txt"]
    assert (await xnat(f"GET {files}/a/n.txt")).body == b"123"


async def test_a_cached_file_with_a_listener_is_imported_behind_the_answer(xnat: Client) -> None:
    await xnat.put("/data/user/cache/resources/X/files/s.zip", study(1))
    src = "src=/user/cache/resources/X/files/s.zip&http-session-listener=tok"
    answer = await xnat(f"{IMPORT}&project=P&{src}")
    assert (answer.status, "submitted" in answer.text) == (200, True)
    for _ in range(200):
        told = (await xnat("GET /xapi/event_tracking/tok")).json()
        if told["succeeded"] is not None:
            break
        await asyncio.sleep(0.01)
    assert told["succeeded"] is True
    assert len((await xnat("GET /data/prearchive/projects/P")).rows) == 1


async def test_a_listener_is_heard_by_its_owner_and_in_its_session_only(
    xnat: Client, alice: Client
) -> None:
    assert (await xnat(f"{IMPORT}&http-session-listener=t", b"junk", kind=ZIP)).status == 400
    told = (await xnat("GET /data/status/t")).json()["msgs"][0]
    assert [one["status"] for one in told] == ["PROCESSING", "FAILED"]
    assert (await alice("GET /xapi/event_tracking/t")).status == 404
    assert (await xnat("GET /xapi/event_tracking/t")).json()["succeeded"] is False
    xnat.http.cookie_jar.clear()
    assert (await xnat("GET /data/status/t")).json()["msgs"] == [[]]


async def test_errors_of_an_import_come_with_200_where_html_is_asked_for(xnat: Client) -> None:
    answer = await xnat(f"{IMPORT}&format=html", b"junk", kind=ZIP)
    assert (answer.status, "not a zip archive" in answer.text) == (200, True)


async def test_an_import_says_whether_it_is_quarantined_and_starts_pipelines(start: Start) -> None:
    client = await start(autorun_s=60.0)
    await fill(client)
    line = f"{IMPORT}&project=P&subject=S&session=Q&dest=/archive"
    line += "&quarantine=true&triggerPipelines=false"
    assert (await client(line, study(1), kind=ZIP)).status == 200
    session = "/data/projects/P/subjects/S/experiments/Q"
    assert (await client(f"GET {session}/status")).text == "quarantine"
    code = client.sandbox.store.find("label='Q'")[0].code
    flows = (await client(f"GET /data/services/workflows?experiment={code}")).rows
    assert [row["pipeline_name"] for row in flows] == ["Transferred"]
