"""Changing what an archive holds: renames, deletions, shares, single fields. No policy.

A 200 proves nothing here (XNAT 1.8): the flat PUT of a session's field answers it and keeps
nothing, values in a query are stored XML-escaped, and some deletions fail in silence. So fields
travel as XML to the subject-scoped address, and are read back afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from xml.etree import ElementTree

from xnatctl.errors import NotFound, PermissionDenied, Refused
from xnatctl.model import Ref, Session

from . import paths
from .client import Xnat
from .parse import Row, cell
from .xmldoc import NS_XNAT, XSI, Document

Put = Callable[[], Awaitable[None]]


class Edits:
    """One server, changed item by item."""

    def __init__(self, xnat: Xnat) -> None:
        self._xnat = xnat
        self._transport = xnat.transport

    # --- names ---------------------------------------------------------------------------------

    async def rename_subject(self, project: str, subject_id: str, label: str) -> None:
        """Change a subject's label. Raises Conflict where the label is in use."""
        await self._xnat.put_item(paths.subject(project, subject_id), {"label": label})

    async def rename_session(self, session: Session, label: str) -> None:
        """Change a session's label, which moves its folder and can take hours; never replayed.

        `label=` makes XNAT drop every other field of the request, so it goes alone.
        """
        await self._transport.request(
            "PUT", _scoped(session), params={"label": label}, replay=False, slow=True
        )

    async def move_session(self, session: Session, subject: str) -> None:
        """Give a session to another subject of its project: the subject in the URL wins."""
        path = paths.session(Ref(session.project, subject=subject, session=session.label))
        await self._keeping_visit(session, path, lambda: self._touch(session, path))

    async def _touch(self, session: Session, path: str) -> None:
        await self._xnat.put_item(path, {"xsiType": session.xsi_type})

    # --- fields --------------------------------------------------------------------------------

    async def variables(self, path: str) -> dict[str, str]:
        """The custom variables of a subject or session, by name."""
        return variables_of(await self._xnat.xml(path))

    async def set_subject_variables(
        self, project: str, subject_id: str, values: Mapping[str, str]
    ) -> None:
        path = paths.subject(project, subject_id)
        await self._xnat.put_xml(path, with_variables(await self._xnat.xml(path), values))
        await self._check_variables(path, values)

    async def set_session_variables(self, session: Session, values: Mapping[str, str]) -> None:
        """Every PUT of a session clears its visit and protocol (XNAT 1.8), so those come back."""
        flat = paths.experiment(session.id)
        xml = with_variables(await self._xnat.xml(flat), values)
        path = _scoped(session)

        async def put() -> None:
            await self._xnat.put_xml(path, xml)

        await self._keeping_visit(session, path, put)
        await self._check_variables(flat, values)

    async def set_scan(self, session_id: str, scan: str, values: Mapping[str, str]) -> None:
        """Change `type`, `quality` or `note` of a scan. Raises Refused where it did not stay."""
        path = paths.scan(session_id, scan)
        await self._xnat.put_xml(path, with_scan_values(await self._xnat.xml(path), values))
        found = scan_values(await self._xnat.xml(path))
        for name, value in values.items():
            if found.get(name, "") != value:
                raise Refused(f"{self._xnat.name} took {name} of scan {scan} and did not keep it")

    async def _check_variables(self, path: str, values: Mapping[str, str]) -> None:
        kept = await self.variables(path)
        folded = {name.lower(): value for name, value in kept.items()}
        for name, value in values.items():
            if folded.get(name.lower()) != value:
                raise Refused(f"{self._xnat.name} took the variable {name} and did not keep it")

    async def _keeping_visit(self, session: Session, path: str, put: Put) -> None:
        before = (await self._xnat.get_session(session.id)) if session.id else None
        await put()
        again = {"visit": before.visit, "protocol": before.protocol} if before else {}
        again = {name: value for name, value in again.items() if value}
        if again:
            await self._xnat.put_item(path, {**again, "xsiType": session.xsi_type})

    # --- people ------------------------------------------------------------------------------

    async def introduce(self, people: Iterable[Mapping[str, str]]) -> None:
        """See that the site knows these investigators, by first and last name.

        They are records that projects share: one that is there stays as it is. A server that has no
        such list, or does not let us add to it, takes them out of the project's document.
        """
        wanted = {_name_of(one): one for one in people if one.get("lastname")}
        if not wanted:
            return
        try:
            found = await self._transport.request("GET", paths.INVESTIGATORS, expect="json")
            for one in found.json():
                wanted.pop(_name_of(one), None)
            for person in wanted.values():
                body = json.dumps(person).encode()
                await self._transport.request(
                    "POST",
                    paths.INVESTIGATORS,
                    body=body,
                    content_type="application/json",
                    replay=False,
                )
        except (NotFound, PermissionDenied):
            return

    # --- shares and deletions ------------------------------------------------------------------

    async def list_shares(self, owner: str) -> list[tuple[str, str]]:
        """Projects that what stands at a path belongs to or is shared into, with labels there."""
        rows: list[Row] = await self._xnat.rows(paths.shares(owner))
        return [(cell(row, "ID"), cell(row, "label")) for row in rows]

    async def unshare(self, owner: str, project: str) -> None:
        """Take a share back. Asked for the primary project, XNAT deletes the thing itself: the
        caller has looked.
        """
        await self._transport.request("DELETE", paths.shares(owner, project))

    async def delete(self, path: str) -> None:
        """Delete what stands at a path, with its files: without them a label stays blocked.

        XNAT swallows some faults of a deletion, so the thing is looked for afterwards. Raises
        Refused when it is still there.
        """
        await self._transport.request("DELETE", path, params={"removeFiles": "true"}, slow=True)
        try:
            await self._xnat.item(path)
        except NotFound:
            return
        raise Refused(f"{self._xnat.name} answered that it deleted {path}, and still has it")


def _name_of(person: Mapping[str, str]) -> tuple[str, str]:
    first, last = (str(person.get(name) or "").casefold() for name in ("firstname", "lastname"))
    return first, last


def _scoped(session: Session) -> str:
    return paths.session(
        Ref(session.project, subject=session.subject or session.subject_id, session=session.label)
    )


def variables_of(xml: bytes) -> dict[str, str]:
    return {
        node.get("name", ""): node.text or ""
        for node in Document(xml).root.findall(f"{NS_XNAT}fields/{NS_XNAT}field")
    }


def with_variables(xml: bytes, values: Mapping[str, str]) -> bytes:
    """A document that holds nothing but the item's name and all its variables, changed.

    A PUT merges, so what is left out stays. Names are compared without regard to case, since forms
    of XNAT write them in small letters.
    """
    document = _bare(xml, keep=("fields",), attributes=("label", "project"))
    group = document.root.find(f"{NS_XNAT}fields")
    if group is None:
        group = ElementTree.SubElement(document.root, f"{NS_XNAT}fields")
    known = {node.get("name", "").lower(): node for node in group}
    for name, value in values.items():
        node = known.get(name.lower())
        if node is None:
            node = ElementTree.SubElement(group, f"{NS_XNAT}field", {"name": name})
        node.text = value
    return document.to_bytes()


def scan_values(xml: bytes) -> dict[str, str]:
    root = Document(xml).root
    found = {name: root.findtext(NS_XNAT + name) or "" for name in ("quality", "note")}
    return {"type": root.get("type", ""), **found}


def with_scan_values(xml: bytes, values: Mapping[str, str]) -> bytes:
    """A document that names the scan and the values to change, nothing else."""
    document = _bare(xml, keep=(), attributes=("ID", "type"))
    for name, value in values.items():
        if name == "type":
            document.root.set("type", value)
        else:
            ElementTree.SubElement(document.root, NS_XNAT + name).text = value
    return document.to_bytes()


def _bare(xml: bytes, *, keep: tuple[str, ...], attributes: tuple[str, ...]) -> Document:
    document = Document(xml)
    root = document.root
    for child in list(root):
        if child.tag not in [NS_XNAT + name for name in keep]:
            root.remove(child)
    for name in list(root.attrib):
        if name not in (*attributes, f"{{{XSI}}}type"):
            del root.attrib[name]
    return document
