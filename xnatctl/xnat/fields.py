"""JSON custom fields, the newer kind beside the custom variables of documents (XNAT 1.8.8 on).

They stand in no document and in no listing, so each thing has to be asked by itself.
"""

from __future__ import annotations

import json
from typing import Any

from xnatctl.errors import NotFound, PermissionDenied

from .client import Xnat

Values = dict[str, Any]


class Fields:
    """The custom fields of whatever stands at a path of /data."""

    def __init__(self, xnat: Xnat) -> None:
        self._xnat = xnat
        self._is_known = True

    async def read(self, owner: str) -> Values:
        """All fields of a thing; empty where it has none, and where the server knows no such API.

        The first thing that is asked decides that: it exists, since it has just been read.
        """
        if not self._is_known:
            return {}
        try:
            reply = await self._xnat.transport.request("GET", field_path(owner), expect="json")
        except (NotFound, PermissionDenied):
            self._is_known = False
            return {}
        found = reply.json()
        return found if isinstance(found, dict) else {}

    async def write(self, owner: str, values: Values) -> None:
        """Set these fields; others stay. Raises NotFound where the server knows no such API."""
        await self._xnat.transport.request(
            "PUT",
            field_path(owner),
            body=json.dumps(values).encode(),
            content_type="application/json",
        )


def field_path(owner: str) -> str:
    """Where the custom fields are of what stands at a path of /data."""
    return f"{owner.replace('/data/', '/xapi/custom-fields/', 1)}/fields"
