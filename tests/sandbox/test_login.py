"""Logins: cookies, expiry and its symptoms, users and rights, tokens."""

from __future__ import annotations

import asyncio

import pytest

from .conftest import SESSION, Client, Start, basic, fill

WHO = "GET /xapi/users/username"


async def test_a_login_gives_a_cookie_that_is_enough(xnat: Client) -> None:
    opened = await xnat("POST /data/JSESSION")
    anonymous = Client(xnat.sandbox, "")
    cookie = {"Cookie": f"JSESSIONID={opened.text}"}
    assert (await anonymous(WHO, headers=cookie)).text == "admin"
    await anonymous("DELETE /data/JSESSION", headers=cookie)
    assert (await anonymous(WHO, headers=cookie)).status == 401
    await anonymous.close()


async def test_the_expiration_cookie_has_its_quotes(xnat: Client) -> None:
    cookies = (await xnat(WHO)).headers.getall("Set-Cookie")
    expiration = next(c for c in cookies if c.startswith("SESSION_EXPIRATION_TIME"))
    assert expiration.startswith('SESSION_EXPIRATION_TIME="') and ",900000" in expiration


async def test_every_request_without_a_cookie_makes_a_session(xnat: Client) -> None:
    before = xnat.sandbox.accounts.held("admin")
    for _ in range(3):
        bare = Client(xnat.sandbox)
        await bare(WHO)
        await bare.close()
    assert xnat.sandbox.accounts.held("admin") == before + 3


async def test_the_login_beyond_the_limit_fails_with_401(start: Start) -> None:
    client = await start(max_sessions=1)
    assert (await client(WHO)).status == 200
    other = Client(client.sandbox)
    assert (await other(WHO)).status == 401
    await other.close()


async def test_an_open_address_answers_an_anonymous_session_with_200(xnat: Client) -> None:
    anonymous = Client(xnat.sandbox, "")
    assert (await anonymous("POST /data/JSESSION")).status == 200
    assert (await anonymous(WHO)).status == 401
    assert (await anonymous("GET /xapi/siteConfig/buildInfo")).json()["version"]
    await anonymous.close()
    wrong = Client(xnat.sandbox, "admin", "wrong")
    assert (await wrong("POST /data/JSESSION")).status == 401
    await wrong.close()


@pytest.mark.parametrize(
    ("agent", "status"),
    [("curl/8", 401), ("", 401), ("Mozilla/5.0", 302), ("XNATDesktopClient Mozilla", 401)],
)
async def test_a_lost_session_looks_different_to_browsers(
    xnat: Client, agent: str, status: int
) -> None:
    anonymous = Client(xnat.sandbox, "")
    answer = await anonymous("GET /data/projects", headers={"User-Agent": agent})
    assert answer.status == status
    if status == 302:
        page = await anonymous("GET /app/template/Login.vm")
        assert (page.status, "<form" in page.text) == (200, True)
    else:
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    await anonymous.close()


async def test_browsers_need_a_CSRF_token_to_write(xnat: Client) -> None:
    browser = {"User-Agent": "Mozilla/5.0"}
    assert (await xnat("PUT /data/projects/Q", headers=browser)).status == 500
    opened = (await xnat("GET /data/JSESSION?CSRF=true")).text
    token = opened.partition("XNAT_CSRF=")[2]
    path = f"PUT /data/projects/Q?XNAT_CSRF={token}"
    assert (await xnat(path, headers=browser)).status == 200


async def test_an_expired_login_on_an_open_site_is_a_guest_who_sees_nothing(
    start: Start,
) -> None:
    client = await start(require_login=False, session_timeout_s=0.05)
    await fill(client)
    opened = (await client("POST /data/JSESSION")).text
    anonymous = Client(client.sandbox, "")
    cookie = {"Cookie": f"JSESSIONID={opened}"}
    assert len((await anonymous("GET /data/projects", headers=cookie)).rows) == 1
    await asyncio.sleep(0.08)
    answer = await anonymous("GET /data/projects", headers=cookie)
    assert (answer.status, answer.rows) == (200, [])
    assert (await anonymous(f"GET {SESSION}?format=json")).status == 404
    assert (await anonymous(WHO, headers=cookie)).status == 401
    await anonymous.close()


async def test_a_session_lives_as_long_as_it_is_used(start: Start) -> None:
    client = await start(session_timeout_s=0.15)
    opened = (await client("POST /data/JSESSION")).text
    anonymous = Client(client.sandbox, "")
    cookie = {"Cookie": f"JSESSIONID={opened}"}
    for _ in range(4):
        await asyncio.sleep(0.06)
        assert (await anonymous(WHO, headers=cookie)).status == 200
    await asyncio.sleep(0.2)
    assert (await anonymous(WHO, headers=cookie)).status == 401
    await anonymous.close()


async def test_an_administrator_ends_the_sessions_of_a_user(xnat: Client, alice: Client) -> None:
    opened = (await alice("POST /data/JSESSION")).text
    await xnat("DELETE /xapi/users/active/alice")
    anonymous = Client(xnat.sandbox, "")
    cookie = {"Cookie": f"JSESSIONID={opened}"}
    assert (await anonymous(WHO, headers=cookie)).status == 401
    await anonymous.close()


async def test_the_login_service_takes_a_form(xnat: Client) -> None:
    anonymous = Client(xnat.sandbox, "")
    form = "application/x-www-form-urlencoded"
    line = "POST /data/services/auth"
    opened = await anonymous(line, b"username=alice&password=alice", kind=form)
    assert opened.status == 200
    cookie = {"Cookie": f"JSESSIONID={opened.text}"}
    assert (await anonymous(WHO, headers=cookie)).text == "alice"
    assert (await anonymous(line, b"username=alice&password=no", kind=form)).status == 401
    await anonymous.close()


# ---- rights --------------------------------------------------------------------------------


async def test_what_may_not_be_read_is_404_and_what_may_not_be_written_403(
    xnat: Client, alice: Client
) -> None:
    assert (await alice(f"GET {SESSION}?format=json")).status == 404
    assert (await alice("GET /data/projects/P/subjects")).status == 404
    await xnat("PUT /data/projects/P/users/collaborator/alice")
    assert (await alice(f"GET {SESSION}?format=json")).status == 200
    assert (await alice("PUT /data/projects/P/subjects/T")).status == 403
    assert (await alice(f"DELETE {SESSION}")).status == 403
    await xnat("PUT /data/projects/P/users/member/alice")
    assert (await alice("PUT /data/projects/P/subjects/T")).status == 201
    assert (await alice(f"DELETE {SESSION}")).status == 403
    await xnat("PUT /data/projects/P/users/owner/alice")
    assert (await alice(f"DELETE {SESSION}")).status == 200


async def test_a_list_of_projects_can_be_limited_to_those_that_may_be_edited(
    xnat: Client, alice: Client
) -> None:
    await xnat("PUT /data/projects/P/users/collaborator/alice")
    assert len((await alice("GET /data/projects")).rows) == 1
    assert (await alice("GET /data/projects?restrict=edit")).rows == []
    assert (await alice("GET /xapi/users/projects")).json() == []


async def test_a_project_becomes_usable_a_moment_after_its_creation(start: Start) -> None:
    client = await start(permission_lag_s=0.1, users={"admin": "admin", "alice": "alice"})
    alice = Client(client.sandbox, "alice")
    assert (await alice("PUT /data/projects/MINE")).status == 200
    assert (await alice("PUT /data/projects/MINE/subjects/S")).status == 404
    await asyncio.sleep(0.15)
    assert (await alice("PUT /data/projects/MINE/subjects/S")).status == 201
    await alice.close()


async def test_sharing_lets_members_of_the_other_project_read(xnat: Client, alice: Client) -> None:
    await xnat("PUT /data/projects/Q")
    await xnat("PUT /data/projects/Q/users/member/alice")
    ident = xnat.sandbox.store.find("label='E'")[0].code
    assert (await alice(f"GET /data/experiments/{ident}?format=json")).status == 404
    await xnat(f"PUT {SESSION}/projects/Q?label=EQ")
    assert (await alice(f"GET /data/experiments/{ident}?format=json")).status == 200
    assert (await alice(f"GET /data/experiments/{ident}/scans")).status == 200
    assert (await alice(f"PUT /data/experiments/{ident}/resources/R")).status == 403


async def test_an_unknown_login_is_invited_by_mail(xnat: Client) -> None:
    answer = await xnat("PUT /data/projects/P/users/member/who@example.org")
    assert answer.status == 200
    assert [row["login"] for row in answer.rows] == ["admin"]
    assert xnat.sandbox.store.record("mails", "all") == ["who@example.org"]


async def test_members_are_listed_for_owners_only(xnat: Client, alice: Client) -> None:
    await xnat("PUT /data/projects/P/users/Members/alice")
    rows = (await xnat("GET /data/projects/P/users")).rows
    assert {row["login"]: row["GROUP_ID"] for row in rows} == {
        "admin": "P_owner", "alice": "P_member",
    }  # fmt: skip
    assert (await alice("GET /data/projects/P/users")).status == 403


async def test_listing_subjects_without_any_readable_project_is_500(alice: Client) -> None:
    assert (await alice("GET /data/subjects")).status == 500


# ---- tokens --------------------------------------------------------------------------------


async def test_an_alias_token_logs_in_until_it_is_invalidated(xnat: Client) -> None:
    token = (await xnat("GET /data/services/tokens/issue")).json()
    anonymous = Client(xnat.sandbox, "")
    header = basic(token["alias"], token["secret"])
    assert (await anonymous(WHO, headers=header)).text == "admin"
    valid = await xnat(f"GET /data/services/tokens/validate/{token['alias']}/{token['secret']}")
    assert valid.json() == {"valid": "admin"}
    assert (await xnat("GET /data/services/tokens/validate/none/x")).status == 404
    await xnat(f"GET /data/services/tokens/invalidate/{token['alias']}")
    fresh = Client(xnat.sandbox, "")
    assert (await fresh(WHO, headers=header)).status == 401
    await fresh.close()
    await anonymous.close()


async def test_an_expired_token_is_401(start: Start) -> None:
    client = await start(token_life_s=0.05)
    token = (await client("GET /data/services/tokens/issue")).json()
    await asyncio.sleep(0.08)
    anonymous = Client(client.sandbox, "")
    answer = await anonymous(WHO, headers=basic(token["alias"], token["secret"]))
    assert answer.status == 401
    await anonymous.close()


async def test_only_administrators_issue_tokens_for_others(xnat: Client, alice: Client) -> None:
    line = "GET /data/services/tokens/issue/user/"
    assert (await xnat(line + "alice")).json()["xdatUserId"] == "alice"
    assert (await alice(line + "bob")).status == 403


async def test_twenty_failures_lock_a_user_out_for_a_while(start: Start) -> None:
    client = await start(max_failures=3, lock_s=0.2)
    wrong = Client(client.sandbox, "admin", "wrong")
    good = Client(client.sandbox, "admin")
    for _ in range(2):
        assert (await wrong("GET /xapi/users/username")).status == 401
    assert (await good("GET /xapi/users/username")).status == 200
    good.http.cookie_jar.clear()
    for _ in range(3):
        assert (await wrong("GET /xapi/users/username")).status == 401
    assert (await good("GET /xapi/users/username")).status == 401
    await asyncio.sleep(0.25)
    assert (await good("GET /xapi/users/username")).status == 200
    await wrong.close()
    await good.close()


async def test_an_expired_password_is_403(start: Start) -> None:
    client = await start(expired_passwords=("admin",))
    assert (await client("GET /data/projects")).status == 403


async def test_a_site_that_is_not_set_up_leads_to_its_setup(start: Start) -> None:
    client = await start(initialized=False)
    answer = await client("GET /data/projects")
    assert (answer.status, answer.headers["Location"]) == (302, "/setup")
    assert (await client("GET /setup")).status == 200


async def test_a_project_has_groups_of_its_own(xnat: Client, alice: Client) -> None:
    groups = "/data/projects/P/groups"
    assert (await alice(f"GET {groups}")).status == 404
    line = f"PUT {groups}/READERS?displayname=Readers&xnat:mrSessionData_R=1"
    assert (await xnat(line)).status == 200
    assert (await xnat("PUT /data/projects/P/users/READERS/alice")).status == 200
    row = (await xnat("GET /data/projects/P/users")).rows[-1]
    assert (row["GROUP_ID"], row["displayname"], row["login"]) == ("READERS", "Readers", "alice")
    assert (await alice(f"GET {SESSION}?format=json")).status == 200
    assert (await alice("PUT /data/projects/P/subjects/NEW")).status == 403
    assert (await xnat(f"PUT {groups}/READERS?xnat:mrSessionData_E=1")).status == 200
    assert (await alice("PUT /data/projects/P/subjects/NEW")).status == 201
    names = [row["id"] for row in (await xnat(f"GET {groups}")).rows]
    assert names == ["P_owner", "P_member", "P_collaborator", "READERS"]
    assert (await xnat(f"GET {groups}/P_member")).rows[0]["displayname"] == "Members"
    assert (await alice(f"DELETE {groups}/READERS")).status == 403
    assert (await xnat(f"DELETE {groups}/P_owner")).status == 403
    assert (await xnat(f"DELETE {groups}/READERS")).status == 200
    assert (await alice(f"GET {SESSION}")).status == 404


async def test_projects_are_listed_by_the_role_that_the_caller_has(
    xnat: Client, alice: Client
) -> None:
    for project, role in {"A": "owner", "B": "member", "C": "collaborator"}.items():
        await xnat(f"PUT /data/projects/{project}")
        await xnat(f"PUT /data/projects/{project}/users/{role}/alice")
    await xnat("PUT /data/projects/D?accessibility=public")
    wanted = {
        "owner": "A", "member": "AB", "collaborator": "C", "users": "ABC", "accessible": "ABCD",
        "recent": "ABCD", "prearc_code": "ABCD", "favorite": "",
    }  # fmt: skip
    for name, projects in wanted.items():
        rows = (await alice(f"GET /data/projects?{name}=true")).rows
        assert "".join(row["id"] for row in rows) == projects, name


async def test_the_list_of_users_can_be_kept_for_administrators(start: Start) -> None:
    client = await start(users={"admin": "admin", "bob": "bob"}, restrict_user_list=True)
    bob = Client(client.sandbox, "bob")
    assert (await bob("GET /xapi/users")).status == 403
    assert (await bob("GET /xapi/users/bob")).status == 200
    assert (await client("GET /xapi/users")).status == 200
    await bob.close()
