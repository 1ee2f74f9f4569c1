"""Taking away at an archive what the source does not have any more; `engine.gone` says what.

XNAT deletes the thing itself where a share was meant, keeps files that block a label later, and
swallows some faults (1.8). So each thing's own project is read first, deletions go through its own
address with `removeFiles=true`, and it is looked for afterwards.
"""

from __future__ import annotations

from xnatctl.engine.gone import Gone
from xnatctl.engine.types import Unit
from xnatctl.errors import Conflict, Refused
from xnatctl.model import Ref
from xnatctl.xnat import paths
from xnatctl.xnat.client import Xnat
from xnatctl.xnat.edits import Edits

from .archive import ArchiveSink, place_in


class Removal:
    """Deletes in the project that `archive` writes into."""

    def __init__(self, xnat: Xnat, archive: ArchiveSink) -> None:
        self._xnat = xnat
        self._archive = archive
        self._edits = Edits(xnat)

    async def take_away(self, gone: Gone) -> None:
        """Delete one thing. Raises Conflict where it is not what it was taken for."""
        unit, key = gone.unit, gone.key
        owner = self._archive.at(unit, place_in(""))
        if unit.kind != "project":
            await self._check_own(unit, paths.owner(owner))
        if not key:
            await self._whole(unit, owner)
        elif "shares/" in key:
            above = key.rpartition("shares/")[0].rstrip("/")
            thing = self._archive.at(unit, place_in(above))
            await self._unshare(unit, paths.owner(thing), key.rpartition("/")[2])
        elif "/resources/" in f"/{key}":
            await self._files(unit, key)
        else:
            await self._edits.delete(paths.owner(self._archive.at(unit, place_in(key))))

    async def _check_own(self, unit: Unit, path: str) -> None:
        found = (await self._xnat.item(path)).get("data_fields", {})
        owner = str(found.get("project", ""))
        if owner.casefold() != unit.target.project.casefold():
            raise Conflict(f"{unit.label} belongs to project {owner} at the destination")

    async def _whole(self, unit: Unit, ref: Ref) -> None:
        if unit.kind == "subject":
            held = await self._xnat.list_experiments(ref.project, ref.subject)
            if held:
                raise Conflict(f"subject {unit.label} still has {held[0].label}")
        await self._edits.delete(paths.owner(ref))

    async def _unshare(self, unit: Unit, owner: str, project: str) -> None:
        if project.casefold() == unit.target.project.casefold():
            raise Conflict(f"{owner} belongs to {project}; to unshare it there would delete it")
        await self._edits.unshare(owner, project)

    async def _files(self, unit: Unit, key: str) -> None:
        """One file, or a resource; a resource is addressed by its number, since labels repeat."""
        lane, _, path = key.partition("/files/")
        catalogue = await self._archive.catalogue(unit)
        ref = self._archive.at(unit, catalogue.places[lane], catalogue.ids[lane])
        if path:
            await self._xnat.transport.request("DELETE", paths.file(ref, path))
        else:
            await self._xnat.delete_resource(ref)
        if key in (await self._archive.catalogue(unit)).inventory():
            raise Refused(f"{self._xnat.name} answered that it deleted {key}, and still has it")
        if path:
            owner = self._archive.at(unit, place_in(""))
            await self._xnat.refresh_catalog(paths.archive_uri(owner))
