"""`--users`: who has a role in a project, and who is in a group of its own."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Bench
from xnatctl.sandbox.server import Sandbox

READERS = {"displayname": "Blind readers", "rights": 1}


def roles(sandbox: Sandbox) -> dict[str, str]:
    project = sandbox.store.find_project("DEMO")
    assert project is not None
    rows = sandbox.store.rows("SELECT login, role FROM members WHERE project=?", project.id)
    return dict(rows)


@pytest.fixture
def staffed(demo: Bench) -> Bench:
    """Four people at the source, one of them in a group of the project's own; the last is not known
    at the destination.
    """
    project = demo.here.store.find_project("DEMO")
    assert project is not None
    demo.here.store.set_record("groups:DEMO", "DEMO_blind", READERS)
    for login, role in (
        ("olga", "owner"),
        ("mara", "member"),
        ("bob", "DEMO_blind"),
        ("eve", "collaborator"),
    ):
        demo.here.accounts.add(login, "secret")
        demo.here.accounts.set_role(project, login, role)
        if login != "eve":
            demo.there.accounts.add(login, "secret")
    return demo


async def test_roles_go_to_logins_that_are_known_and_groups_that_are_there_the_rest_is_named(
    staffed: Bench,
) -> None:
    first = await staffed.transfer(users=True)

    assert {one.key: one.code for one in first.left} == {
        "settings/users": "unknown-user",
        "settings/groups": "custom-group",
    }
    assert (first.exit_code, first.units_failed) == (1, 0)
    assert roles(staffed.there).items() >= {("olga", "owner"), ("mara", "member")}
    assert "bob" not in roles(staffed.there)
    assert staffed.there.store.record("mails", "all") is None

    staffed.there.store.set_record("groups:DEMO", "DEMO_blind", READERS)
    second = await staffed.transfer(users=True)

    assert [one.code for one in second.left] == ["unknown-user"]
    assert roles(staffed.there)["bob"] == "DEMO_blind"


async def test_users_come_into_a_project_that_was_there_too_and_only_once(staffed: Bench) -> None:
    staffed.there.accounts.add("eve", "secret")
    staffed.there.store.create_project("DEMO")
    staffed.there.store.set_record("groups:DEMO", "DEMO_blind", READERS)

    assert (await staffed.transfer(users=True)).exit_code == 0
    assert roles(staffed.there) == roles(staffed.here)

    again = await staffed.transfer(users=True)
    assert (again.units_done, again.exit_code) == (0, 0)


async def test_nobody_gets_a_role_unless_asked_for(staffed: Bench) -> None:
    assert (await staffed.transfer()).exit_code == 0
    assert "olga" not in roles(staffed.there)
