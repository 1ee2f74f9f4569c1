"""Projects, subjects, sessions, scans and assessors: statuses, shapes and traps of the API."""

from __future__ import annotations

import pytest

from .conftest import SESSION, Client, Start, fill

XML = 'xmlns:xnat="http://nrg.wustl.edu/xnat" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


async def labels(client: Client, path: str = "/data/projects/P/experiments") -> set[str]:
    return {row["label"] for row in (await client(f"GET {path}")).rows}


async def session_json(client: Client) -> dict[str, object]:
    found = (await client(f"GET {SESSION}?format=json")).json()["items"][0]["data_fields"]
    assert isinstance(found, dict)
    return found


# ---- shapes --------------------------------------------------------------------------------


async def test_every_cell_of_a_list_is_a_string_and_so_is_the_count(xnat: Client) -> None:
    table = (await xnat(f"GET {SESSION}/scans?columns=ID,frames,type")).json()["ResultSet"]
    assert table["totalRecords"] == "1"
    assert table["Result"] == [
        {"ID": "3", "frames": "", "type": "T1w", "URI": table["Result"][0]["URI"]}
    ]
    assert table["Result"][0]["URI"].startswith("/data/experiments/SANDBOX_E")


async def test_an_empty_list_is_200_with_no_rows(xnat: Client) -> None:
    answer = await xnat(f"GET {SESSION}/assessors")
    assert (answer.status, answer.rows) == (200, [])


async def test_a_project_has_lower_case_columns_where_accessible_is_asked(xnat: Client) -> None:
    assert "ID" in (await xnat("GET /data/projects")).rows[0]
    row = (await xnat("GET /data/projects?accessible=true")).rows[0]
    assert (row["id"], row["project_access"]) == ("P", "private")


async def test_a_session_is_shown_with_typed_fields_and_its_children(xnat: Client) -> None:
    await xnat(f"PUT {SESSION}/scans/3?xnat:mrScanData/frames=12")
    item = (await xnat(f"GET {SESSION}?format=json")).json()["items"][0]
    assert item["meta"]["xsi:type"] == "xnat:mrSessionData"
    scan = next(c for c in item["children"] if c["field"] == "scans/scan")["items"][0]
    assert scan["data_fields"]["frames"] == 12
    assert scan["children"][0]["items"][0]["data_fields"]["label"] == "DICOM"


async def test_a_document_keeps_elements_and_name_spaces_that_nobody_knows(xnat: Client) -> None:
    body = (
        f'<xnat:MRSession {XML} xmlns:x="http://example.org/x" label="E2">'
        "<xnat:date>2024-01-01</xnat:date><xnat:odd>1</xnat:odd>"
        '<x:thing a="b">text</x:thing></xnat:MRSession>'
    )
    path = "/data/projects/P/subjects/S/experiments/E2"
    assert (await xnat(f"PUT {path}", body, kind="text/xml")).status == 201
    shown = (await xnat(f"GET {path}?format=xml")).text
    assert "<xnat:odd>1</xnat:odd>" in shown
    assert '<x:thing a="b">text</x:thing>' in shown
    assert 'xmlns:x="http://example.org/x"' in shown


async def test_lists_come_as_csv_and_xml_too(xnat: Client) -> None:
    csv = (await xnat("GET /data/projects/P/subjects?format=csv")).text.splitlines()
    assert csv[0].startswith("ID,project,label") and '"S"' in csv[1]
    xml = (await xnat("GET /data/projects/P/subjects?format=xml")).text
    assert '<ResultSet totalRecords="1">' in xml and "<column>label</column>" in xml


async def test_dates_are_filtered_by_ranges_with_slashes(xnat: Client) -> None:
    base = "GET /data/projects/P/experiments?xsiType=xnat:mrSessionData&date="
    assert len((await xnat(base + "02/01/2024-03/05/2024")).rows) == 1
    assert (await xnat(base + "03/01/2024-03/05/2024")).rows == []


async def test_a_paged_list_has_no_total(xnat: Client) -> None:
    table = (await xnat("GET /data/projects/P/experiments?limit=1")).json()["ResultSet"]
    assert "totalRecords" not in table and len(table["Result"]) == 1


async def test_pages_without_an_order_overlap_and_miss_rows(xnat: Client) -> None:
    for number in range(20):
        await xnat(f"PUT /data/projects/P/subjects/T{number}")
    pages = [f"GET /data/projects/P/subjects?limit=7&offset={start}" for start in (0, 7, 14)]
    loose = [row["label"] for page in pages for row in (await xnat(page)).rows]
    assert len(loose) == 21 and len(set(loose)) < 21
    sure = [r["label"] for page in pages for r in (await xnat(page + "&sortBy=label")).rows]
    assert len(set(sure)) == 21


async def test_unknown_columns_are_dropped_without_a_word(xnat: Client) -> None:
    row = (await xnat("GET /data/projects/P/subjects?columns=label,nonsense")).rows[0]
    assert "nonsense" not in row and row["label"] == "S"


# ---- routing -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["scans", "files", "nonsense/deeper"])
async def test_an_unknown_suffix_is_answered_by_the_longest_known_route(
    xnat: Client, suffix: str
) -> None:
    answer = await xnat(f"GET /data/projects/P/experiments/E/{suffix}?format=json")
    assert answer.status == 200
    assert "items" in answer.json() and "ResultSet" not in answer.json()


async def test_prefix_routing_can_be_switched_off(start: Start) -> None:
    client = await start(prefix_routing=False)
    await fill(client)
    assert (await client("GET /data/projects/P/experiments/E/scans?format=json")).status == 404


async def test_writing_below_an_unknown_suffix_is_400_and_harms_nothing(xnat: Client) -> None:
    for verb in ("PUT", "DELETE"):
        assert (await xnat(f"{verb} /data/projects/P/experiments/E/scans/3")).status == 400
    assert await labels(xnat) == {"E"}


async def test_the_archive_and_REST_prefixes_mean_the_same(xnat: Client) -> None:
    plain = (await xnat("GET /data/projects/P/subjects")).body
    assert (await xnat("GET /data/archive/projects/P/subjects")).body == plain
    assert (await xnat("GET /REST/projects/P/subjects")).body == plain


async def test_encoded_slashes_are_refused_by_the_container(xnat: Client) -> None:
    assert (await xnat("GET /data/projects/P%2FX")).status == 400


async def test_a_label_does_not_resolve_on_the_flat_route(xnat: Client) -> None:
    assert (await xnat("GET /data/experiments/E?format=json")).status == 404


# ---- projects ------------------------------------------------------------------------------


async def test_a_project_is_200_and_empty_whether_new_or_old(xnat: Client) -> None:
    for _ in range(2):
        answer = await xnat("PUT /data/projects/NEW?description=x")
        assert (answer.status, answer.body) == (200, b"")


async def test_project_ids_clash_whatever_their_case(xnat: Client) -> None:
    assert (await xnat("PUT /data/projects/p")).status == 409


async def test_the_id_of_a_deleted_project_is_never_free_again(xnat: Client) -> None:
    await xnat("PUT /data/projects/GONE")
    assert (await xnat("DELETE /data/projects/GONE?removeFiles=true")).status == 200
    assert (await xnat("PUT /data/projects/GONE")).status == 403
    assert (await xnat("PUT /data/projects/gone")).status == 403


async def test_bad_characters_in_a_project_id_are_417(xnat: Client) -> None:
    assert (await xnat("PUT /data/projects/a%20b")).status == 417


async def test_new_projects_archive_by_themselves_until_told_otherwise(xnat: Client) -> None:
    await xnat("PUT /data/projects/NEW")
    assert (await xnat("GET /data/projects/NEW/prearchive_code")).text == "4"
    await xnat("PUT /data/projects/NEW/prearchive_code/0")
    assert (await xnat("GET /data/projects/NEW/prearchive_code")).text == "0"


async def test_an_accessibility_that_does_not_exist_is_400(xnat: Client) -> None:
    assert (await xnat("PUT /data/projects/P/accessibility/open")).status == 400
    assert (await xnat("PUT /data/projects/P/accessibility/public")).status == 200


# ---- subjects ------------------------------------------------------------------------------


async def test_a_typo_in_a_label_makes_an_empty_subject(xnat: Client) -> None:
    answer = await xnat("PUT /data/projects/P/subjects/S_?gender=male")
    assert answer.status == 201 and answer.text.startswith("SANDBOX_S")
    assert await labels(xnat, "/data/projects/P/subjects") == {"S", "S_"}


async def test_subject_labels_match_whatever_their_case(xnat: Client) -> None:
    upper = (await xnat("GET /data/projects/P/subjects/S?format=json")).json()
    assert (await xnat("GET /data/projects/P/subjects/s?format=json")).json() == upper
    assert (await xnat("PUT /data/projects/P/subjects/s?gender=male")).status == 200


async def test_query_values_are_stored_escaped_and_document_values_are_not(xnat: Client) -> None:
    await xnat("PUT /data/projects/P/subjects/S?src=O%27Brien")
    row = (await xnat("GET /data/projects/P/subjects?columns=src")).rows[0]
    assert row["src"] == "O&apos;Brien"
    body = f'<xnat:Subject {XML} src="O&apos;Brien"/>'
    assert (await xnat("PUT /data/projects/P/subjects/S", body, kind="text/xml")).status == 200
    row = (await xnat("GET /data/projects/P/subjects?columns=src")).rows[0]
    assert row["src"] == "O'Brien"


async def test_custom_variables_are_fields_by_name(xnat: Client) -> None:
    key = "xnat:subjectData/fields/field%5Bname=cohort%5D/field"
    await xnat(f"PUT /data/projects/P/subjects/S?{key}=A")
    item = (await xnat("GET /data/projects/P/subjects/S?format=json")).json()["items"][0]
    child = next(c for c in item["children"] if c["field"] == "fields/field")
    assert child["items"][0]["data_fields"] == {"name": "cohort", "field": "A"}


async def test_renaming_drops_every_other_field_of_the_request(xnat: Client) -> None:
    answer = await xnat("PUT /data/projects/P/subjects/S?label=S2&gender=male")
    assert (answer.status, answer.body) == (200, b"")
    row = (await xnat("GET /data/projects/P/subjects?columns=label,gender")).rows[0]
    assert (row["label"], row["gender"]) == ("S2", "")


async def test_a_subject_cannot_be_moved_by_a_field(xnat: Client) -> None:
    await xnat("PUT /data/projects/Q")
    assert (await xnat("PUT /data/projects/P/subjects/S?project=Q")).status == 409


# ---- sessions ------------------------------------------------------------------------------


async def test_a_session_without_type_or_document_is_417(xnat: Client) -> None:
    path = "/data/projects/P/subjects/S/experiments/E2"
    assert (await xnat(f"PUT {path}?date=2024-01-01")).status == 417
    assert (await xnat(f"PUT {path}?xsiType=xnat:ctSessionData")).status == 201
    assert (await xnat(f"PUT {path}?xsiType=xnat:ctSessionData")).status == 200


async def test_a_chunked_document_counts_as_no_body(xnat: Client) -> None:
    path = "/data/projects/P/subjects/S/experiments/E2"
    body = f"<xnat:MRSession {XML}/>".encode()

    async def pieces() -> object:
        yield body

    assert (await xnat(f"PUT {path}", pieces(), kind="text/xml")).status == 417
    assert (await xnat(f"PUT {path}", body, kind="text/xml")).status == 201


async def test_malformed_and_foreign_documents_are_422(xnat: Client) -> None:
    for body in ("<xnat:MRSession", f"<xnat:Subject {XML}/>", "<!DOCTYPE a><a/>"):
        assert (await xnat(f"PUT {SESSION}", body, kind="text/xml")).status == 422


async def test_a_missing_subject_is_made_with_the_session(xnat: Client) -> None:
    await xnat("PUT /data/projects/P/subjects/NEW/experiments/E2?xsiType=xnat:mrSessionData")
    assert await labels(xnat, "/data/projects/P/subjects") == {"S", "NEW"}


async def test_a_PUT_through_another_subject_moves_the_session(xnat: Client) -> None:
    path = "/data/projects/P/subjects/OTHER/experiments/E"
    assert (await xnat(f"GET {path}?format=json")).status == 200
    assert (await xnat(f"PUT {path}?note=x")).status == 200
    row = (await xnat("GET /data/projects/P/experiments?columns=subject_label")).rows[0]
    assert row["subject_label"] == "OTHER"


async def test_scan_lists_need_a_subject_that_exists(xnat: Client) -> None:
    path = "/data/projects/P/subjects/NOBODY/experiments/E/scans"
    assert (await xnat(f"GET {path}")).status == 404


async def test_every_PUT_clears_visit_and_protocol_unless_it_fills_an_empty_one(
    xnat: Client,
) -> None:
    await xnat(f"PUT {SESSION}?visit=v1&protocol=p1")
    assert (await session_json(xnat))["visit"] == "v1"
    await xnat(f"PUT {SESSION}?note=x")
    assert not {"visit", "protocol"} & set(await session_json(xnat))
    await xnat(f"PUT {SESSION}?visit=v1")
    await xnat(f"PUT {SESSION}?visit=v1")
    assert "visit" not in await session_json(xnat)


async def test_the_label_of_a_document_beats_that_of_the_URL(xnat: Client) -> None:
    body = f'<xnat:MRSession {XML} label="B"/>'
    path = "/data/projects/P/subjects/S/experiments/A"
    assert (await xnat(f"PUT {path}", body, kind="text/xml")).status == 201
    assert await labels(xnat) == {"E", "B"}


async def test_the_project_of_a_document_becomes_primary_and_the_URLs_a_share(
    xnat: Client,
) -> None:
    await xnat("PUT /data/projects/Q")
    body = f'<xnat:MRSession {XML} project="Q"/>'
    await xnat("PUT /data/projects/P/subjects/S/experiments/X", body, kind="text/xml")
    found = xnat.sandbox.store.find("label='X'")[0]
    assert xnat.sandbox.store.item(found.project).code == "Q"
    assert xnat.sandbox.store.shares(found) == [("P", "X")]


async def test_the_ID_of_a_document_is_kept_when_free_and_aims_when_taken(xnat: Client) -> None:
    path = "/data/projects/P/subjects/S/experiments"
    body = f'<xnat:MRSession {XML} ID="SRC_E00077"/>'
    assert (await xnat(f"PUT {path}/NEW", body, kind="text/xml")).text == "SRC_E00077"
    body = f'<xnat:MRSession {XML} ID="SRC_E00077"><xnat:note>hit</xnat:note></xnat:MRSession>'
    assert (await xnat(f"PUT {path}/OTHER", body, kind="text/xml")).status == 200
    assert await labels(xnat) == {"E", "NEW"}
    await xnat("PUT /data/projects/Q")
    elsewhere = "/data/projects/Q/subjects/S/experiments/Z"
    assert (await xnat(f"PUT {elsewhere}", body, kind="text/xml")).status == 409
    bad = f'<xnat:MRSession {XML} ID="a b"/>'
    assert (await xnat(f"PUT {path}/Y", bad, kind="text/xml")).status == 417


async def test_a_document_merges_unless_deletion_is_allowed(xnat: Client) -> None:
    await xnat(f"PUT {SESSION}?note=kept")
    body = f'<xnat:MRSession {XML} project="P"><xnat:date>2024-03-01</xnat:date></xnat:MRSession>'
    await xnat(f"PUT {SESSION}", body, kind="text/xml")
    assert (await session_json(xnat))["note"] == "kept"
    assert len((await xnat(f"GET {SESSION}/scans")).rows) == 1
    await xnat(f"PUT {SESSION}?allowDataDeletion=true", body, kind="text/xml")
    assert "note" not in await session_json(xnat)
    assert (await xnat(f"GET {SESSION}/scans")).rows == []


async def test_deletion_needs_the_project_in_the_document(xnat: Client) -> None:
    body = f"<xnat:MRSession {XML}/>"
    answer = await xnat(f"PUT {SESSION}?allowDataDeletion=true", body, kind="text/xml")
    assert answer.status == 409


async def test_deletion_drops_resources_that_the_document_does_not_name(xnat: Client) -> None:
    await xnat(f"PUT {SESSION}/resources/MISC")
    body = (
        f'<xnat:MRSession {XML} project="P"><xnat:scans><xnat:scan ID="3" '
        'xsi:type="xnat:mrScanData"/></xnat:scans></xnat:MRSession>'
    )
    await xnat(f"PUT {SESSION}?allowDataDeletion=true", body, kind="text/xml")
    assert len((await xnat(f"GET {SESSION}/scans")).rows) == 1
    assert (await xnat(f"GET {SESSION}/resources?all=true")).rows == []


async def test_fields_sent_to_the_flat_address_are_lost(xnat: Client) -> None:
    ident = (await xnat("GET /data/projects/P/experiments")).rows[0]["ID"]
    assert (await xnat(f"PUT /data/experiments/{ident}?note=lost")).status == 200
    assert "note" not in await session_json(xnat)


async def test_renaming_a_session_moves_its_folder_and_a_taken_label_is_409(xnat: Client) -> None:
    files = f"{SESSION}/scans/3/resources/DICOM/files"
    await xnat.put(f"{files}/a.dcm", b"abc")
    await xnat("PUT /data/projects/P/subjects/S/experiments/E2?xsiType=xnat:mrSessionData")
    assert (await xnat(f"PUT {SESSION}?label=E2")).status == 409
    assert (await xnat(f"PUT {SESSION}?label=E9")).status == 200
    assert (await xnat(f"GET {files.replace('/E/', '/E9/')}/a.dcm")).body == b"abc"
    assert (xnat.sandbox.store.archive / "P/arc001/E9/SCANS/3/DICOM/a.dcm").read_bytes() == b"abc"


async def test_renaming_a_session_drops_every_other_field_of_the_request(xnat: Client) -> None:
    answer = await xnat(f"PUT {SESSION}?label=E9&note=lost")
    assert (answer.status, answer.body) == (200, b"")
    row = (await xnat("GET /data/projects/P/experiments?columns=label,note")).rows[0]
    assert (row["label"], row["note"]) == ("E9", "")


async def test_a_typo_in_a_label_makes_an_empty_session(xnat: Client) -> None:
    answer = await xnat(f"PUT {SESSION}_?xsiType=xnat:mrSessionData&note=meant%20for%20E")
    assert answer.status == 201
    assert await labels(xnat) == {"E", "E_"}
    assert (await xnat(f"GET {SESSION}_/scans")).rows == []


async def test_an_open_workflow_refuses_renames_and_deletes(xnat: Client) -> None:
    item = xnat.sandbox.store.find("label='E'")[0]
    xnat.sandbox.workflow(item, "P", "AutoRun", "Queued", "admin")
    assert (await xnat(f"PUT {SESSION}?label=E9")).status == 409
    assert (await xnat(f"DELETE {SESSION}")).status == 409


async def test_sessions_and_assessors_share_one_name_space(xnat: Client) -> None:
    qc = "?xsiType=xnat:qcManualAssessorData"
    assert (await xnat(f"PUT {SESSION}/assessors/E{qc}")).status == 409
    assert (await xnat(f"PUT {SESSION}/assessors/QC{qc}")).status == 201
    assert (await xnat(f"PUT {SESSION}/assessors/QC{qc}&label=X")).status == 400
    assert {"E", "QC"} == await labels(xnat)


# ---- scans ---------------------------------------------------------------------------------


async def test_a_scan_is_200_and_empty_and_cannot_change_its_type(xnat: Client) -> None:
    answer = await xnat(f"PUT {SESSION}/scans/4?xsiType=xnat:mrScanData")
    assert (answer.status, answer.body) == (200, b"")
    assert (await xnat(f"PUT {SESSION}/scans/4?xsiType=xnat:ctScanData")).status == 409
    assert (await xnat(f"PUT {SESSION}/scans/5")).status == 417
    assert (await xnat(f"PUT {SESSION}/scans/5?xsiType=xnat:imageScanData")).status == 400


async def test_scan_fields_of_another_type_and_custom_ones_are_ignored(xnat: Client) -> None:
    custom = "xnat:mrScanData/fields/field%5Bname=q%5D/field=1"
    answer = await xnat(f"PUT {SESSION}/scans/3?xnat:ctScanData/note=x&{custom}")
    assert answer.status == 200
    item = (await xnat(f"GET {SESSION}/scans/3?format=json")).json()["items"][0]
    assert "note" not in item["data_fields"]
    assert all(child["field"] == "file" for child in item["children"])


# ---- sharing and deleting ------------------------------------------------------------------


async def test_a_shared_session_is_listed_with_the_label_it_has_there(xnat: Client) -> None:
    await xnat("PUT /data/projects/Q")
    assert (await xnat(f"PUT {SESSION}/projects/Q?label=EQ")).status == 200
    assert (await xnat(f"PUT {SESSION}/projects/Q?label=EQ")).status == 409
    row = (await xnat("GET /data/projects/Q/experiments")).rows[0]
    assert (row["label"], row["project"]) == ("EQ", "Q")
    shown = (await xnat("GET /data/projects/Q/experiments/EQ?format=json")).json()
    assert shown["items"][0]["data_fields"]["project"] == "P"


async def test_deleting_through_a_sharing_project_only_ends_the_share(xnat: Client) -> None:
    await xnat("PUT /data/projects/Q")
    await xnat(f"PUT {SESSION}/projects/Q?label=EQ")
    assert (await xnat("DELETE /data/projects/Q/experiments/EQ")).status == 200
    assert await labels(xnat) == {"E"}
    assert await labels(xnat, "/data/projects/Q/experiments") == set()


async def test_unsharing_from_the_primary_project_deletes_the_item(xnat: Client) -> None:
    assert (await xnat(f"DELETE {SESSION}/projects/P")).status == 200
    assert await labels(xnat) == set()


async def test_unsharing_what_was_never_shared_is_200_for_sessions_403_for_subjects(
    xnat: Client,
) -> None:
    await xnat("PUT /data/projects/Q")
    assert (await xnat(f"DELETE {SESSION}/projects/Q")).status == 200
    assert (await xnat("DELETE /data/projects/P/subjects/S/projects/Q")).status == 403
    assert await labels(xnat) == {"E"}


async def test_a_move_with_a_label_clash_says_409_and_moves_all_the_same(xnat: Client) -> None:
    await xnat("PUT /data/projects/Q/subjects/T")
    await xnat("PUT /data/projects/Q")
    await xnat("PUT /data/projects/Q/subjects/T/experiments/E?xsiType=xnat:mrSessionData")
    assert (await xnat(f"PUT {SESSION}/projects/Q?primary=true&label=E")).status == 409
    assert await labels(xnat) == set()
    assert len((await xnat("GET /data/projects/Q/experiments")).rows) == 2


async def test_a_subject_shared_without_a_label_takes_its_accession_ID(xnat: Client) -> None:
    await xnat("PUT /data/projects/Q")
    assert (await xnat("PUT /data/projects/P/subjects/S/projects/Q")).status == 200
    row = (await xnat("GET /data/projects/Q/subjects")).rows[0]
    assert row["label"] == row["ID"]


async def test_files_left_behind_by_a_delete_block_their_label(xnat: Client) -> None:
    await xnat.put(f"{SESSION}/scans/3/resources/DICOM/files/a.dcm", b"abc")
    assert (await xnat(f"DELETE {SESSION}")).status == 200
    again = f"PUT {SESSION}?xsiType=xnat:mrSessionData"
    assert (await xnat(again)).status == 409
    assert (await xnat(f"DELETE {SESSION}")).status == 404
    other = f"{SESSION}2"
    await xnat(f"PUT {other}?xsiType=xnat:mrSessionData")
    await xnat.put(f"{other}/resources/R/files/a", b"abc")
    await xnat(f"DELETE {other}?removeFiles=true")
    assert (await xnat(f"PUT {other}?xsiType=xnat:mrSessionData")).status == 201


async def test_paths_are_answered_in_lower_case_or_by_their_short_name(xnat: Client) -> None:
    asked = "xnat:subjectAssessorData/subject_ID,xnat:mrSessionData/coil"
    row = (await xnat(f"GET /data/experiments?columns={asked}")).rows[0]
    assert row["subject_ID"].startswith("SANDBOX_S")
    assert "xnat:mrsessiondata/coil" in row
    assert row["xsiType"] == "xnat:mrSessionData"


async def test_a_list_of_sessions_has_a_row_for_each_scan_that_its_columns_name(
    xnat: Client,
) -> None:
    await xnat(f"PUT {SESSION}/scans/4?xsiType=xnat:mrScanData&type=T2w")
    asked = "xsiType=xnat:mrSessionData&columns=label,xnat:mrScanData/ID"
    rows = (await xnat(f"GET /data/experiments?{asked}")).rows
    assert [(row["label"], row["xnat:mrscandata/id"]) for row in rows] == [("E", "3"), ("E", "4")]
    chosen = (await xnat(f"GET /data/experiments?{asked}&xnat:mrScanData/type=T2w")).rows
    assert [row["xnat:mrscandata/id"] for row in chosen] == ["4"]


async def test_a_path_may_name_the_type_of_an_element(xnat: Client) -> None:
    path = "xnat:subjectData/demographics[@xsi:type=xnat:demographicData]/gender"
    await xnat(f"PUT /data/projects/P/subjects/S?{path}=female")
    row = (await xnat("GET /data/projects/P/subjects?columns=gender")).rows[0]
    assert row["gender"] == "female"
    item = (await xnat("GET /data/projects/P/subjects/S?format=json")).json()["items"][0]
    assert item["children"][0]["items"][0]["meta"]["xsi:type"] == "xnat:demographicData"


async def test_a_path_that_is_none_changes_nothing(xnat: Client) -> None:
    path = "xnat:subjectData/fields/field[a%20b=c]/field"
    assert (await xnat(f"PUT /data/projects/P/subjects/S?{path}=x")).status == 200
    assert (await xnat("GET /data/projects/P/subjects/S?format=xml")).status == 200


async def test_only_subjects_and_experiments_come_in_pages(xnat: Client) -> None:
    for scan in ("4", "5"):
        await xnat(f"PUT {SESSION}/scans/{scan}?xsiType=xnat:mrScanData&type=T1w")
    await xnat("PUT /data/projects/P2")
    for path in (f"{SESSION}/scans", "/data/projects"):
        whole = (await xnat(f"GET {path}?limit=1")).json()["ResultSet"]
        assert len(whole["Result"]) > 1
        assert "totalRecords" in whole
    assert (await xnat("GET /data/projects/P/subjects?limit=x")).status == 400


async def test_an_order_holds_within_a_page_only(xnat: Client) -> None:
    for label in ("c", "a", "b"):
        await xnat(f"PUT /data/projects/P/subjects/{label}")
    page = (await xnat("GET /data/projects/P/subjects?limit=3&offset=1&sortBy=label")).rows
    assert [row["label"] for row in page] == ["a", "b", "c"]
    page = (await xnat("GET /data/projects/P/subjects?limit=2&offset=1&sortBy=label")).rows
    assert [row["label"] for row in page] == ["a", "c"]


async def test_recent_experiments_are_those_of_the_last_days(xnat: Client) -> None:
    await xnat(f"PUT {SESSION[:-1]}OLD?xsiType=xnat:mrSessionData")
    xnat.sandbox.store.db.execute("UPDATE items SET inserted='2020-01-01' WHERE label='OLD'")
    assert [row["label"] for row in (await xnat("GET /data/experiments?recent=2")).rows] == ["E"]
    assert len((await xnat("GET /data/experiments?recent=36500")).rows) == 2


async def test_the_short_names_of_fields_are_listed_with_their_paths(xnat: Client) -> None:
    rows = (await xnat("GET /data/projects/P/subjects?fields=true")).rows
    assert {"key": "gender", "xpath": "xnat:subjectData/demographics/gender"} in rows


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("application/xml", "text/xml"),
        ("text/html,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("image/png", "application/json"),
    ],
)
async def test_a_list_takes_its_form_from_what_is_accepted(
    xnat: Client, accept: str, media: str
) -> None:
    answer = await xnat("GET /data/projects", headers={"Accept": accept})
    assert answer.headers["Content-Type"].startswith(media)
    asked = await xnat("GET /data/projects?format=json", headers={"Accept": accept})
    assert asked.headers["Content-Type"].startswith("application/json")


async def test_a_format_may_be_a_media_type(xnat: Client) -> None:
    assert (await xnat(f"GET {SESSION}?format=application/json")).json()["items"]
    assert (await xnat("GET /data/projects?format=text/csv")).text.startswith("ID,")


async def test_deleting_a_project_that_is_missing_is_400(xnat: Client) -> None:
    assert (await xnat("DELETE /data/projects/NONE")).status == 400


async def test_a_move_takes_only_the_assessors_that_are_named(xnat: Client) -> None:
    await xnat("PUT /data/projects/P2")
    for label in ("A", "B"):
        await xnat(f"PUT {SESSION}/assessors/{label}?xsiType=xnat:qcManualAssessorData")
    assert (await xnat(f"PUT {SESSION}/projects/P2?primary=true&moveAssessors=A")).status == 200
    for project, labels in {"P": {"B"}, "P2": {"E", "A"}}.items():
        rows = (await xnat(f"GET /data/projects/{project}/experiments")).rows
        assert {row["label"] for row in rows} == labels
    moved = (await xnat("GET /data/projects/P2/experiments")).rows[0]["URI"]
    assert [row["ID"] for row in (await xnat(f"GET {moved}/scans")).rows] == ["3"]


async def test_a_subject_is_posted_with_its_project(xnat: Client) -> None:
    assert (await xnat("POST /data/subjects?project=P&label=S2")).status == 201
    assert (await xnat("POST /data/subjects?project=P&label=S2")).status == 409
    assert (await xnat("POST /data/subjects?label=S3")).status == 404
    labels = [row["label"] for row in (await xnat("GET /data/projects/P/subjects")).rows]
    assert labels == ["S", "S2"]


async def test_lists_below_a_session_look_for_an_accession_ID_first(xnat: Client) -> None:
    code = (await xnat("GET /data/projects/P/experiments")).rows[0]["ID"]
    impostor = f"/data/projects/P/subjects/S/experiments/{code}"
    xnat.sandbox.store.create_experiment(
        xnat.sandbox.store.find("label='S'")[0], code, "xnat:ctSessionData"
    )
    shown = (await xnat(f"GET {impostor}?format=json")).json()["items"][0]
    assert shown["meta"]["xsi:type"] == "xnat:ctSessionData"
    assert [row["ID"] for row in (await xnat(f"GET {impostor}/scans")).rows] == ["3"]


async def test_only_what_lies_in_the_archive_is_found_below_its_prefix(xnat: Client) -> None:
    assert (await xnat("GET /data/archive/investigators")).rows == []
    assert "admin" in (await xnat("GET /data/archive/user/admin/sessions")).json()
    for path in ("prearchive", "services/tokens/show", "config", "users", "JSESSION", "nothing"):
        assert (await xnat(f"GET /data/archive/{path}")).status == 404


async def test_a_site_may_want_changes_to_be_justified(start: Start) -> None:
    client = await start(require_reason=True)
    await client("PUT /data/projects/P")
    subject = "/data/projects/P/subjects/S"
    assert (await client(f"PUT {subject}")).status == 500
    assert (await client(f"PUT {subject}?event_reason=why")).status == 201
    assert (await client(f"DELETE {subject}")).status == 403
    assert (await client(f"DELETE {subject}?event_reason=why")).status == 200
