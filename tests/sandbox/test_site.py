"""The other services: users, config, scripts, custom fields, workflows, schemas, searches."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any
from xml.etree import ElementTree as ET

import aiohttp
import pytest

from .conftest import SESSION, Client, Start, fill, zipped
from .dicoms import study

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def packed(value: Any) -> bytes:
    return json.dumps(value).encode()


async def test_users_are_described_to_administrators_and_to_themselves(
    xnat: Client, alice: Client
) -> None:
    assert set((await xnat("GET /xapi/users")).json()) == {"admin", "alice", "bob"}
    assert (await xnat("GET /xapi/users/alice")).json()["username"] == "alice"
    assert (await alice("GET /xapi/users/profile/alice")).json()["admin"] is False
    assert (await alice("GET /xapi/users/bob")).status == 403
    assert (await xnat("GET /xapi/users/nobody")).status == 404
    assert (await xnat("GET /xapi/users/admin/roles")).json() == ["Administrator"]
    await xnat("PUT /xapi/users/alice/groups", packed(["P_member"]), kind=JSON)
    assert (await alice("GET /xapi/users/alice/groups")).json() == ["P_member"]
    assert (await alice("GET /xapi/access/projects")).json()[0]["role"] == "member"
    assert [row["login"] for row in (await xnat("GET /data/users")).rows][:1] == ["admin"]


async def test_an_administrator_makes_users(xnat: Client, alice: Client) -> None:
    carol = packed({"username": "carol", "password": "secret"})
    assert (await alice("POST /xapi/users", carol, kind=JSON)).status == 403
    assert (await xnat("POST /xapi/users", carol, kind=JSON)).status == 201
    assert (await xnat("POST /xapi/users", carol, kind=JSON)).status == 409
    client = Client(xnat.sandbox, "carol", "secret")
    assert (await client("GET /xapi/users/username")).text == "carol"
    await client.close()


async def test_roles_and_the_right_to_log_in_are_given_and_taken(
    xnat: Client, alice: Client
) -> None:
    who = "GET /xapi/users/username"
    role = "/xapi/users/alice/roles"
    assert (await alice(f"PUT {role}/Administrator")).status == 403
    for line, body in ((f"PUT {role}/Administrator", b""), (f"PUT {role}", b'["Administrator"]')):
        assert (await xnat(line, body, kind=JSON)).json() == ["Administrator"]
        assert (await alice("GET /xapi/users/bob")).status == 200
        assert (await xnat(f"DELETE {role}/Administrator")).json() == []
        assert (await alice("GET /xapi/users/bob")).status == 403
    assert (await alice("PUT /xapi/users/bob/enabled/false")).status == 403
    token = (await alice("GET /data/services/tokens/issue")).json()
    assert (await xnat("PUT /xapi/users/alice/enabled/false")).json() is False
    assert (await alice(who)).status == 401
    by_token = Client(xnat.sandbox, token["alias"], token["secret"])
    assert (await by_token(who)).status == 401
    assert (await xnat("GET /xapi/users/alice")).json()["enabled"] is False
    assert (await xnat("PUT /xapi/users/alice/enabled/maybe")).status == 400
    await xnat("PUT /xapi/users/alice/enabled/true")
    assert (await alice(who)).text == "alice"
    await by_token.close()


async def test_site_properties_are_kept(xnat: Client, alice: Client, start: Start) -> None:
    one = "/xapi/siteConfig/siteDescriptionText"
    assert (await alice(f"POST {one}", "Mine", kind="text/plain")).status == 403
    assert (await xnat(f"POST {one}", "Ours", kind="text/plain")).status == 200
    assert (await xnat("POST /xapi/siteConfig", b'{"checksums": true}', kind=JSON)).status == 200
    await xnat.sandbox.stop()
    again = await start()
    assert (await again(f"GET {one}")).text == "Ours"
    assert (await again("GET /xapi/siteConfig")).json()["checksums"] is True
    assert (await again("GET /xapi/siteConfig/unheard")).status == 404


async def test_a_pipeline_leaves_a_workflow_and_is_the_owners(start: Start) -> None:
    users = {"admin": "admin", "alice": "alice"}
    xnat = await start(pipelines=("convert",), autorun_s=0.1, users=users)
    await fill(xnat)
    alice = Client(xnat.sandbox, "alice")
    await xnat("PUT /data/projects/P/users/member/alice")
    assert (await alice("GET /data/projects/P/pipelines")).status == 403
    rows = (await xnat("GET /data/projects/P/pipelines")).rows
    assert [row["Name"] for row in rows] == ["convert"]
    assert (await alice("POST /data/projects/P/pipelines/convert/experiments/E")).status == 200
    row = (await xnat("GET /data/services/workflows")).rows[0]
    assert (row["pipeline_name"], row["status"]) == ("convert", "Queued")
    assert (await xnat(f"PUT {SESSION}?label=X")).status == 409
    await asyncio.sleep(0.15)
    assert (await xnat("GET /data/services/workflows")).rows[0]["status"] == "Complete"
    for step, status in (("fixScanTypes", 200), ("unheard", 404)):
        line = f"POST /data/projects/P/pipelines/{step}/experiments/E"
        assert (await xnat(line)).status == status
    await alice.close()


async def test_a_container_is_followed_by_its_workflow(start: Start) -> None:
    xnat = await start(containers=True, autorun_s=30.0)
    await fill(xnat)
    (command,) = (await xnat("GET /xapi/commands")).json()
    wrapper = command["xnat"][0]["id"]
    ident = xnat.sandbox.store.find("label='E'")[0].code
    launch = f"POST /xapi/projects/P/wrappers/{wrapper}/root/session/launch"
    body = packed({"session": f"/archive/experiments/{ident}"})
    answer = (await xnat(launch, body, kind=JSON)).json()
    assert answer["status"] == "success" and "container-id" not in answer
    number = answer["workflow-id"]
    shown = (await xnat(f"GET /data/workflows/{number}?format=xml")).text
    assert 'status="Queued"' in shown and f'ID="{ident}"' in shown
    (container,) = (await xnat("GET /xapi/containers")).json()
    assert (container["workflow-id"], container["status"]) == (number, "Queued")
    path = f"/xapi/containers/{container['id']}"
    assert ident in (await xnat(f"GET {path}/logs/stdout")).text
    assert (await xnat(f"POST {path}/kill")).status == 200
    assert (await xnat(f"GET {path}")).json()["status"] == "Killed"
    form = {"session": ident}
    assert (await xnat(f"POST /xapi/wrappers/{wrapper}/launch", form)).status == 200
    assert (await xnat(launch, b"{}", kind=JSON)).status == 400
    enabled = f"/xapi/projects/P/wrappers/{wrapper}/enabled"
    assert (await xnat(f"PUT {enabled}?enable=false")).json() is False
    assert (await xnat(launch, body, kind=JSON)).status == 403
    assert (await xnat("GET /xapi/containers/99")).status == 404


async def test_the_site_tells_its_version_and_properties(xnat: Client) -> None:
    version = (await xnat("GET /xapi/siteConfig/buildInfo")).json()["version"]
    assert (await xnat("GET /xapi/siteConfig/buildInfo/version")).text == version
    assert (await xnat("GET /xapi/siteConfig/siteId")).text == "SANDBOX"
    assert (await xnat("GET /data/version")).status == 404
    assert isinstance((await xnat("GET /xapi/plugins")).json(), dict)
    assert (await xnat("GET /xapi/events/all")).status == 405
    assert (await xnat("GET /xapi/commands")).status == 404


async def test_configuration_is_versioned_and_404_before_it_is_set(xnat: Client) -> None:
    path = "/data/projects/P/config/tool/some/path"
    assert (await xnat(f"GET {path}")).status == 404
    for text in ("one", "two"):
        await xnat(f"PUT {path}?inbody=true", text, kind="text/plain")
    row = (await xnat(f"GET {path}")).rows[0]
    assert (row["contents"], row["version"], row["path"]) == ("two", "2", "some/path")
    assert (await xnat(f"GET {path}?contents=true")).text == "two"
    await xnat(f"PUT {path}?status=disabled")
    assert (await xnat(f"GET {path}")).rows[0]["status"] == "disabled"


async def test_scripts_are_204_until_set_and_can_be_switched_off(
    xnat: Client, alice: Client
) -> None:
    assert (await xnat("GET /xapi/anonymize/site")).status == 204
    assert (await alice("PUT /xapi/anonymize/site", "x", kind="text/plain")).status == 403
    await xnat("PUT /xapi/anonymize/projects/P", "- (0010,0010)", kind="text/plain")
    assert (await xnat("GET /xapi/anonymize/projects/P")).text == "- (0010,0010)"
    off = "PUT /xapi/anonymize/projects/P/enabled?enable=false"
    assert (await xnat(off)).status == 415
    assert (await xnat(off, b"", kind=JSON)).json() is False
    assert (await xnat("GET /xapi/anonymize/projects/P")).status == 204
    assert (await xnat("GET /xapi/anonymize/projects/NOPE")).status == 500


@pytest.mark.parametrize(
    "path", ["projects/P", "projects/P/subjects/S", "experiments/{id}", "experiments/{id}/scans/3"]
)
async def test_custom_fields_are_kept_at_every_level(xnat: Client, path: str) -> None:
    ident = xnat.sandbox.store.find("label='E'")[0].code
    base = f"/xapi/custom-fields/{path.format(id=ident)}/fields"
    assert (await xnat(f"GET {base}")).json() == {}
    await xnat(f"PUT {base}", packed({"a": 1, "b": "x"}), kind=JSON)
    assert (await xnat(f"GET {base}/b")).text == "x"
    assert (await xnat(f"DELETE {base}/b")).status == 200
    assert (await xnat(f"DELETE {base}/b")).status == 404
    assert (await xnat(f"GET {base}")).json() == {"a": 1}
    assert (await xnat(f"PUT {base}", b"[]", kind=JSON)).status == 400


async def test_investigators_are_shared_records(xnat: Client) -> None:
    given = {"firstname": "Ada", "lastname": "Low", "title": "Dr"}
    made = (await xnat("POST /xapi/investigators", packed(given), kind=JSON)).json()
    path = f"/xapi/investigators/{made['xnatInvestigatordataId']}"
    assert (await xnat(f"PUT {path}", packed(given), kind=JSON)).status == 304
    assert (await xnat("GET /data/investigators")).rows[0]["lastname"] == "Low"
    assert (await xnat(f"DELETE {path}")).json() is True
    assert (await xnat(f"GET {path}")).status == 404


async def test_types_are_listed_with_their_counts(xnat: Client) -> None:
    rows = {row["ELEMENT_NAME"]: row for row in (await xnat("GET /data/search/elements")).rows}
    assert rows["xnat:mrSessionData"]["COUNT"] == "1"
    assert rows["xnat:mrSessionData"]["SINGULAR"] == "MRSession"
    shown = (await xnat("GET /data/search/elements/xnat:mrSessionData")).rows
    assert "LABEL" in [row["FIELD_ID"] for row in shown]
    assert (await xnat("GET /data/search/elements/xnat:teaData")).status == 404
    assert (await xnat("GET /data/scan_types")).rows == [{"type": "T1w"}]


async def test_the_schema_is_well_formed_and_knows_its_types(xnat: Client) -> None:
    assert "xnat" in (await xnat("GET /xapi/schemas")).json()
    root = ET.fromstring((await xnat("GET /schemas/xnat/xnat.xsd")).body)
    xs = "{http://www.w3.org/2001/XMLSchema}"
    types = {element.get("name") for element in root.findall(f"{xs}complexType")}
    assert {"mrSessionData", "mrScanData", "subjectData", "projectData"} <= types
    for extension in root.iter(f"{xs}extension"):
        base = extension.get("base") or ""
        assert base == "xs:string" or base.partition(":")[2] in types


async def test_workflows_follow_an_archived_session(xnat: Client) -> None:
    line = "POST /data/services/import?dest=/archive&project=P&subject=S&session=E2"
    await xnat(line, study(), kind="application/zip")
    ident = xnat.sandbox.store.find("label='E2'")[0].code
    rows = (await xnat(f"GET /data/services/workflows?experiment={ident}&display=LATEST")).rows
    assert [row["label"] for row in rows] == ["E2"]
    number = rows[0]["jobid"]
    document = (await xnat(f"GET /data/workflows/{number}?format=xml")).text
    assert 'status="Complete"' in document
    assert (await xnat("PUT /data/workflows?wrk:workflowData/id=x")).status == 400
    query = "&".join(
        f"wrk:workflowData/{name}={value}"
        for name, value in (
            ("id", ident), ("launch_time", "now"), ("data_type", "xnat:mrSessionData"),
            ("pipeline_name", "mine"), ("status", "Running"),
        )
    )  # fmt: skip
    mine = (await xnat(f"PUT /data/workflows?{query}")).text
    assert (await xnat("PUT /data/projects/P/subjects/S/experiments/E2?label=X")).status == 409
    await xnat(f"PUT /data/workflows/{mine}?wrk:workflowData/status=Complete")
    assert (await xnat("PUT /data/projects/P/subjects/S/experiments/E2?label=X")).status == 200


async def test_a_listener_hears_of_the_end_of_an_import(xnat: Client) -> None:
    line = "POST /data/services/import?project=P&subject=S&session=E2&http-session-listener=tok"
    await xnat(line, study(), kind="application/zip")
    messages = (await xnat("GET /data/status/tok?format=json")).json()["msgs"][0]
    assert messages[-1]["status"] == "COMPLETED" and messages[-1]["terminal"]
    assert (await xnat("GET /xapi/event_tracking/tok")).json()["succeeded"] is True
    assert (await xnat("GET /xapi/event_tracking/other")).status == 404


async def test_the_tags_of_an_object_can_be_dumped(xnat: Client) -> None:
    line = "POST /data/services/import?dest=/archive&project=P&subject=S&session=E2"
    await xnat(line, study(), kind="application/zip")
    src = "/archive/projects/P/subjects/S/experiments/E2/scans/3"
    rows = (await xnat(f"GET /data/services/dicomdump?src={src}&field=00100020")).rows
    assert [(row["tag1"], row["value"]) for row in rows] == [("(0010,0020)", "E")]


async def test_whole_documents_are_stored_through_the_newer_api(xnat: Client) -> None:
    space = 'xmlns:xnat="http://nrg.wustl.edu/xnat"'
    body = (
        f'<xnat:MRSession {space} project="P" label="N">'
        "<xnat:subject_ID>S</xnat:subject_ID></xnat:MRSession>"
    )
    path = "PUT /xapi/archive/upload/xml"
    assert (await xnat(path, body, kind="application/xml")).status == 400
    path += "?allowDataDeletion=false"
    answer = await xnat(path, body, kind="application/xml")
    assert answer.text.startswith("/archive/experiments/SANDBOX_E")
    assert (await xnat(path, "<!DOCTYPE x><x/>", kind="application/xml")).status == 400


async def test_catalogs_are_refreshed_through_the_newer_api(xnat: Client) -> None:
    files = f"{SESSION}/resources/R/files"
    await xnat(f"PUT {files}/u.zip?extract=true", zipped({"a": b"1"}), kind="application/zip")
    folder = xnat.sandbox.store.archive / "P/arc001/E/RESOURCES/R"
    (folder / "dropped").write_bytes(b"22")
    (folder / "a").unlink()
    assert await xnat.names(files) == ["a"]
    path = "PUT /xapi/archive/catalogs/refresh/Append,Delete,PopulateStats"
    answer = await xnat(path, packed([f"/archive{SESSION[5:]}/resources/R"]), kind=JSON)
    assert answer.status == 200
    assert await xnat.names(files) == ["dropped"]
    row = (await xnat(f"GET {SESSION}/resources")).rows[0]
    assert (row["file_count"], row["file_size"]) == ("1", "2")


async def test_reconstructions_have_inputs_and_outputs(xnat: Client) -> None:
    path = f"{SESSION}/reconstructions/R1"
    assert (await xnat(f"PUT {path}?type=seg&baseScanType=T1w")).status == 200
    await xnat.put(f"{path}/in/resources/I/files/a", b"1")
    await xnat.put(f"{path}/out/resources/O/files/b", b"2")
    assert await xnat.names(f"{path}/files") == ["b"]
    assert await xnat.names(f"{path}/in/files") == ["a"]
    row = (await xnat(f"GET {SESSION}/reconstructions")).rows[0]
    assert (row["ID"], row["type"], row["baseScanType"]) == ("R1", "seg", "T1w")
    document = ET.parse(io.StringIO((await xnat(f"GET {SESSION}?format=xml")).text))
    files = [element.get("label") for element in document.iter() if element.tag.endswith("}file")]
    assert {"I", "O"} <= set(files)


SCRIPT = {"scriptLabel": "Mark", "content": "println 1", "description": "marks", "language": "py"}


async def test_scripts_are_kept_with_their_versions_and_are_the_administrators(
    xnat: Client, alice: Client
) -> None:
    path = "/data/automation/scripts"
    assert (await xnat(f"GET {path}/mark")).status == 404
    assert (await xnat(f"PUT {path}/mark", packed(SCRIPT), kind=JSON)).status == 200
    assert (await xnat(f"PUT {path}/mark", b"content=2", kind=FORM)).status == 200
    assert (await xnat(f"PUT {path}/mark", b"x", kind="text/plain")).status == 415
    assert (await xnat(f"PUT {path}/mark", b"", kind=JSON)).status == 400
    assert (await xnat(f"PUT {path}", packed(SCRIPT), kind=JSON)).status == 405
    assert (await xnat(f"GET {path}")).rows == [
        {"Script ID": "mark", "Script Label": "Mark", "Language": "py", "Description": "marks"}
    ]
    now, then = (await xnat(f"GET {path}/mark")).json(), (await xnat(f"GET {path}/mark/1")).json()
    assert (now["content"], now["scriptLabel"], then["content"]) == ("2", "Mark", "println 1")
    assert (await alice(f"GET {path}")).rows[0]["Script ID"] == "mark"
    assert (await alice(f"GET {path}/mark")).status == 403
    assert (await alice(f"DELETE {path}/mark")).status == 403


async def test_triggers_belong_to_the_site_or_a_project_and_go_with_their_script(
    xnat: Client, alice: Client
) -> None:
    site, project = "/data/automation", "/data/projects/P/automation"
    await xnat(f"PUT {site}/scripts/mark", packed(SCRIPT), kind=JSON)
    wish = {"event": "Transferred", "scriptId": "mark", "eventClass": "W", "filters": {"a": ["b"]}}
    made = await xnat(f"PUT {project}/triggers", packed(wish), kind=JSON)
    assert (made.status, made.text) == (200, "P-mark-Transferred")
    assert (await xnat(f"PUT {site}/triggers", packed(wish), kind=JSON)).status == 200
    assert (await xnat(f"PUT {site}/triggers", packed({"event": "E"}), kind=JSON)).status == 400
    assert (await xnat(f"PUT {site}/triggers", b"a=1", kind=FORM)).status == 415
    assert len((await xnat(f"GET {site}/triggers")).rows) == 2
    assert [row["scope"] for row in (await xnat(f"GET {site}/handlers")).rows] == ["site"]
    assert [row["entityId"] for row in (await xnat(f"GET {project}/handlers")).rows] == ["P"]
    assert (await alice(f"GET {project}/triggers")).status == 404
    one = f"{project}/triggers/P-mark-Transferred"
    changed = packed({"description": "new"})
    assert (await xnat(f"PUT {one}", changed, kind=JSON)).text == "P-mark-Transferred"
    assert (await xnat(f"GET {one}")).json()["description"] == "new"
    assert (await xnat(f"DELETE {project}/triggers")).status == 405
    assert (await xnat(f"DELETE {one}")).status == 200
    assert (await xnat(f"GET {one}")).status == 404
    await xnat(f"DELETE {site}/scripts/mark")
    assert (await xnat(f"GET {site}/triggers")).rows == []
    await xnat("POST /data/services/import?project=P&subject=S&session=E2&dest=/archive", study(1),
               kind="application/zip")  # fmt: skip
    events = [row["event_id"] for row in (await xnat(f"GET {site}/events")).rows]
    assert "Transferred" in events


async def test_receivers_are_edited_by_administrators(
    xnat: Client, alice: Client, start: Start
) -> None:
    path = "/xapi/dicomscp"
    assert [one["aeTitle"] for one in (await alice(f"GET {path}")).json()] == ["XNAT"]
    assert "dicomObjectIdentifier" in (await alice(f"GET {path}/identifiers")).json()
    other = packed({"aeTitle": "B", "port": 8105})
    assert (await alice(f"POST {path}", other, kind=JSON)).status == 403
    assert (await alice(f"GET {path}/1")).status == 403
    assert (await xnat(f"POST {path}", other, kind=JSON)).json()["id"] == 2
    assert (await xnat(f"POST {path}", other, kind=JSON)).status == 409
    assert (await xnat(f"POST {path}", packed({"colour": 1}), kind=JSON)).status == 400
    assert (await xnat(f"POST {path}", b"[]", kind=JSON)).status == 400
    changed = await xnat(f"PUT {path}/2", packed({"whitelist": ["x"]}), kind=JSON)
    assert (changed.json()["whitelist"], changed.json()["port"]) == (["x"], 8105)
    assert (await xnat(f"PUT {path}/2/enabled/true")).json()["enabled"] is True
    assert [one["enabled"] for one in (await xnat(f"PUT {path}/stop")).json()] == [False, False]
    assert (await xnat(f"GET {path}/2/enabled")).json() is False
    assert (await xnat(f"DELETE {path}/2")).status == 200
    assert (await xnat(f"GET {path}/2")).status == 404
    assert len((await xnat(f"GET {path}")).json()) == 1


async def test_definitions_of_custom_variables_are_a_document_for_each_type(
    xnat: Client, alice: Client
) -> None:
    path = "/data/projects/P/protocols/xnat:mrSessionData"
    root = ET.fromstring((await xnat(f"GET {path}")).text)
    assert root.get("data-type") == "xnat:mrSessionData"
    root.set("name", "ours")
    sent = ET.tostring(root)
    assert (await alice(f"PUT {path}", sent, kind="text/xml")).status == 404
    await xnat("PUT /data/projects/P/users/member/alice")
    assert (await alice(f"PUT {path}", sent, kind="text/xml")).status == 403
    assert (await xnat(f"PUT {path}", sent, kind="text/xml")).status == 200
    assert ET.fromstring((await xnat(f"GET {path}")).text).get("name") == "ours"
    assert ET.fromstring((await xnat(f"GET {path[:-14]}ctSessionData")).text).get("name") != "ours"


CACHE = "/data/user/cache/resources"


async def test_files_of_the_cache_are_listed_sent_and_deleted(xnat: Client, alice: Client) -> None:
    await xnat.put(f"{CACHE}/X/files/a/b.txt", b"12")
    assert (await xnat(f"GET {CACHE}/X/files")).rows == [
        {"Name": "b.txt", "Size": "2", "URI": f"{CACHE}/X/files/a/b.txt"}
    ]
    assert (await xnat(f"GET {CACHE}/X/files/a/b.txt")).body == b"12"
    assert (await alice(f"GET {CACHE}/X/files/a/b.txt")).status == 404
    assert (await alice(f"GET {CACHE}")).rows == []
    form = aiohttp.FormData()
    form.add_field("file", b"345", filename="c.txt", content_type="text/plain")
    async with xnat.http.put(f"{xnat.sandbox.url}{CACHE}/X/files", data=form) as answer:
        assert answer.status == 200
    assert (await xnat(f"GET {CACHE}/X/files/c.txt")).body == b"345"
    assert (await xnat(f"DELETE {CACHE}/X")).status == 200
    assert (await xnat(f"GET {CACHE}")).rows == []


async def test_files_move_from_the_cache_into_resources(xnat: Client, alice: Client) -> None:
    service, resource = "POST /data/services/move-files", f"{SESSION}/resources/R"
    for name in ("a.txt", "d/b.txt", "d/c.txt"):
        await xnat.put(f"{CACHE}/X/files/{name}", name.encode())
    move = f"{service}?src=/user/cache/resources/X/files"
    target = resource.removeprefix("/data")
    assert (await xnat(f"{move}/a.txt&dest=/archive{target}/files/new.txt")).status == 200
    assert (await xnat(f"{service}?/user/cache/resources/X/files/d={target}/files/sub")).status == (
        200
    )
    assert await xnat.names(f"{resource}/files") == ["new.txt", "sub/b.txt", "sub/c.txt"]
    assert (await xnat(f"GET {resource}/files/sub/b.txt")).body == b"d/b.txt"
    assert (await xnat(f"GET {CACHE}")).rows == []
    await xnat.put(f"{CACHE}/X/files/a.txt", b"again")
    onto = f"{move}/a.txt&dest={target}/files/new.txt"
    assert (await xnat(onto)).status == 409
    assert (await xnat(f"{onto}&overwrite=true")).status == 200
    assert (await xnat(f"GET {resource}/files/new.txt")).body == b"again"
    assert (await xnat(service)).status == 400
    assert (await xnat(f"{move}/a.txt")).status == 400
    assert (await xnat(f"{move}/a.txt&dest=/nowhere")).status == 400
    assert (await xnat(f"{service}?src=/etc/passwd&dest={target}/files/x")).status == 400
    assert (await xnat(f"{move}/none&dest={target}/files/x")).status == 404
    await alice.put(f"{CACHE}/X/files/a.txt", b"1")
    assert (await alice(f"{move}/a.txt&dest={target}/files/x")).status == 404
    await xnat("PUT /data/projects/P/users/collaborator/alice")
    assert (await alice(f"{move}/a.txt&dest={target}/files/x")).status == 403


async def test_a_document_may_be_a_part_of_a_form_and_an_assessor(xnat: Client) -> None:
    xml = (
        '<xnat:QCManualAssessment project="P" label="B" xmlns:xnat="http://nrg.wustl.edu/xnat">'
        "<xnat:imageSession_ID>E</xnat:imageSession_ID></xnat:QCManualAssessment>"
    )
    for sent, status in ((xml, 200), (xml.replace(">E<", ">NONE<"), 400)):
        form = aiohttp.FormData()
        form.add_field("item", sent, filename="i.xml", content_type="text/xml")
        url = f"{xnat.sandbox.url}/xapi/archive/upload/xml"
        async with xnat.http.post(url, data=form) as answer:
            assert answer.status == status, await answer.text()
    rows = (await xnat(f"GET {SESSION}/assessors")).rows
    assert [(row["label"], row["xsiType"]) for row in rows] == [("B", "xnat:qcManualAssessorData")]
