"""Who belongs to a project: its users by role, and the requests to become one."""

from __future__ import annotations

import builtins
from dataclasses import dataclass

from . import paths
from .client import Xnat
from .parse import Row, cell

_ROLES = {"owners": "owner", "members": "member", "collaborators": "collaborator"}


@dataclass(frozen=True, slots=True)
class Member:
    """A user's place in one project. `role` is owner, member, collaborator or a group's name;
    `group` is what XNAT calls it, such as `STUDY_owner`.
    """

    login: str
    role: str
    group: str
    email: str = ""
    firstname: str = ""
    lastname: str = ""


class Members:
    def __init__(self, xnat: Xnat) -> None:
        self._xnat = xnat

    async def list(self, project: str) -> list[Member]:
        """Everybody who has a role; somebody with two comes twice. Owners and administrators may
        ask.
        """
        rows = await self._xnat.rows(f"{paths.project(project)}/users")
        return [_member(row, project) for row in rows]

    async def remove(self, project: str, group: str, login: str) -> None:
        await self._xnat.transport.request("DELETE", paths.member(project, group, login))

    async def requests(self, project: str) -> builtins.list[Row]:
        """The requests for access as the server's rows; answered ones stay in the list."""
        return await self._xnat.rows(f"{paths.project(project)}/pars")


def _member(row: Row, project: str) -> Member:
    shown, group = cell(row, "displayname"), cell(row, "GROUP_ID")
    role = _ROLES.get(shown.lower()) or group.removeprefix(f"{project}_") or shown
    return Member(
        login=cell(row, "login"),
        role=role,
        group=group or shown,
        email=cell(row, "email"),
        firstname=cell(row, "firstname"),
        lastname=cell(row, "lastname"),
    )
