"""What administrators do: users, site settings, plugins, workflows, and tokens of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from xnatctl.errors import BadReply

from . import paths
from .client import Xnat
from .parse import Row


class Admin:
    def __init__(self, xnat: Xnat) -> None:
        self._xnat = xnat
        self._transport = xnat.transport

    # --- the site ------------------------------------------------------------------------------

    async def build_info(self) -> dict[str, Any]:
        """Version and build; its keys vary from release to release."""
        return await self._object(paths.BUILD_INFO)

    async def plugins(self) -> dict[str, dict[str, Any]]:
        """What is known of each plugin, by its ID."""
        found = await self._object(paths.PLUGINS)
        return {name: info if isinstance(info, dict) else {} for name, info in found.items()}

    async def site_config(self) -> dict[str, Any]:
        """All site settings. For administrators."""
        return await self._object(paths.SITE_CONFIG)

    async def site_setting(self, key: str) -> Any:
        """One site setting; servers answer it as JSON or as bare text."""
        path = f"{paths.SITE_CONFIG}/{paths.segment(key)}"
        reply = await self._transport.request("GET", path)
        try:
            return json.loads(reply.text)
        except ValueError:
            return reply.text.strip()

    async def set_site_setting(self, key: str, value: str) -> None:
        path = f"{paths.SITE_CONFIG}/{paths.segment(key)}"
        await self._transport.request(
            "POST", path, body=value.encode(), content_type="text/plain", replay=True
        )

    async def workflows(self, **filters: str) -> list[Row]:
        """Workflow rows by `experiment`, `project`, `status`, in the server's order."""
        given = {key: value for key, value in filters.items() if value}
        return await self._xnat.rows(paths.WORKFLOWS, given)

    # --- users ---------------------------------------------------------------------------------

    async def profiles(self) -> list[dict[str, Any]]:
        """All users. Where the site keeps the list to administrators, raises PermissionDenied."""
        found = await self._json(f"{paths.USERS}/profiles")
        if not isinstance(found, list):
            raise BadReply(f"{self._xnat.name} did not answer with a list of users")
        return [one for one in found if isinstance(one, dict)]

    async def profile(self, login: str) -> dict[str, Any]:
        return await self._object(paths.user(login))

    async def groups(self, login: str) -> list[str]:
        return [str(one) for one in await self._json(paths.user(login, "groups"))]

    async def roles(self, login: str) -> list[str]:
        return [str(one) for one in await self._json(paths.user(login, "roles"))]

    async def add_groups(self, login: str, groups: Sequence[str]) -> None:
        await self._transport.request(
            "PUT",
            paths.user(login, "groups"),
            body=json.dumps(list(groups)).encode(),
            content_type="application/json",
        )

    async def grant_role(self, login: str, role: str) -> None:
        await self._transport.request("PUT", paths.user(login, "roles", role))

    async def revoke_role(self, login: str, role: str) -> None:
        await self._transport.request("DELETE", paths.user(login, "roles", role))

    async def enable(self, login: str, *, enabled: bool) -> None:
        path = paths.user(login, "enabled", str(enabled).lower())
        await self._transport.request("PUT", path)

    async def active(self) -> dict[str, int]:
        """How many sessions each logged-in user has. Servers answer a count or the sessions."""
        return {
            str(name): _count(value)
            for name, value in (await self._object(paths.ACTIVE_USERS)).items()
        }

    async def kill_sessions(self, login: str) -> None:
        path = f"{paths.ACTIVE_USERS}/{paths.segment(login)}"
        await self._transport.request("DELETE", path)

    # --- tokens --------------------------------------------------------------------------------

    async def issue_token(self) -> dict[str, Any]:
        """A new alias token of ours: `alias` serves as user name, `secret` as password. GET it is,
        though it makes something, so it is not replayed.
        """
        path = f"{paths.TOKENS}/issue"
        reply = await self._transport.request("GET", path, expect="json", replay=False)
        found = reply.json()
        if not isinstance(found, dict) or not found.get("alias"):
            raise BadReply(f"{self._xnat.name} did not answer with a token")
        return found

    async def tokens(self) -> list[dict[str, Any]]:
        found = await self._json(f"{paths.TOKENS}/show")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    async def revoke_token(self, alias: str) -> None:
        path = f"{paths.TOKENS}/invalidate/{paths.segment(alias)}"
        await self._transport.request("GET", path)

    async def _json(self, path: str) -> Any:
        return (await self._transport.request("GET", path, expect="json")).json()

    async def _object(self, path: str) -> dict[str, Any]:
        found = await self._json(path)
        if not isinstance(found, Mapping):
            raise BadReply(f"{path} did not answer with an object")
        return dict(found)


def _count(value: Any) -> int:
    if isinstance(value, Mapping):
        value = value.get("sessions", value.get("count", len(value)))
    if isinstance(value, (list, dict)):
        return len(value)
    return int(value) if str(value).isdigit() else 1
