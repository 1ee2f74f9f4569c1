"""Item XML made fit for another server. Pure.

On a PUT the attributes of a document beat the URL: `label` creates another item, `project` makes
the source the primary project, `ID` hits whatever has that ID already (XNAT 1.8). So what belongs
to the source's database is taken out, and what the destination decides is written in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .parse import digest_of
from .xmldoc import NS_XNAT, XSI, Document, Element, canonical_element

_OF_THE_DATABASE = ("ID", f"{{{XSI}}}schemaLocation")
_FILES = (
    "resources",
    "in",
    "out",
    "scans/scan/file",
    "reconstructions/reconstructedImage/in",
    "reconstructions/reconstructedImage/out",
)


def for_project(xml: bytes, *, project: str, unnamed: bool = False) -> bytes:
    """The project's own fields under another ID; investigators are shared records and lose their
    numbers. `unnamed` takes the ID for its name and drops its aliases.
    """
    document = Document(xml)
    root = document.root
    document.drop_attributes(f"{{{XSI}}}schemaLocation")
    root.set("ID", project)
    if "secondary_ID" in root.attrib:
        root.set("secondary_ID", project)
    document.drop("resources", "sharing", "arcSpecification", "studyProtocol/ID")
    if unnamed:
        document.drop("aliases")
        document.set_child("name", project)
        for name in ("secondary_ID", "name"):
            if name in root.attrib:
                root.set(name, project)
    for person in ("PI", "investigators/investigator"):
        for node in root.findall("/".join(NS_XNAT + part for part in person.split("/"))):
            node.attrib.pop("xnat_investigatordata_id", None)
            node.attrib.pop("ID", None)
    return document.to_bytes()


def people(xml: bytes) -> list[dict[str, str]]:
    """The PI and the investigators of a project: what is said of each, by element."""
    root = Document(xml).root
    nodes = [*root.findall(f"{NS_XNAT}PI"), *root.findall(f"{NS_XNAT}investigators/*")]
    found = []
    for node in nodes:
        said = {child.tag.removeprefix(NS_XNAT): child.text or "" for child in node}
        found.append({"title": node.get("title", ""), **said})
    return found


def project_fingerprint(xml: bytes) -> str:
    """A digest of what a project's document says, whatever the project and its names are."""
    return digest_of(canonical_element(Document(for_project(xml, project="P", unnamed=True)).root))


def covers(there: Element, here: Element) -> bool:
    """Whether one element says all that another says; it may say more."""
    if there.tag != here.tag or (there.text or "").strip() != (here.text or "").strip():
        return False
    if any(there.get(name) != value for name, value in here.attrib.items()):
        return False
    rest = [one for one in there if isinstance(one.tag, str)]
    for child in here:
        if not isinstance(child.tag, str):
            continue
        match = next((one for one in rest if covers(one, child)), None)
        if match is None:
            return False
        rest.remove(match)
    return True


def inner_assessors(xml: bytes, *, ids: Mapping[str, str]) -> dict[str, Element]:
    """What each assessor in a session's document says, by label, as on a server of these IDs."""
    document = Document(xml)
    _remap(document, ids)
    found = {}
    for node in document.root.findall(f"{NS_XNAT}assessors/{NS_XNAT}assessor"):
        label = node.get("label", "")
        for name in ("ID", "project", "label"):
            node.attrib.pop(name, None)
        for name in ("resources", "in", "out", "sharing", "imageSession_ID"):
            for child in node.findall(NS_XNAT + name):
                node.remove(child)
        found[label] = node
    return found


def inner_shares(xml: bytes) -> dict[str, list[tuple[str, str]]]:
    """Projects and labels that scans and assessors of a session are shared into, by
    `scans/3` and `assessors/LABEL`.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    root = Document(xml).root
    for level, name, key in (("scans", "scan", "ID"), ("assessors", "assessor", "label")):
        for node in root.findall(f"{NS_XNAT}{level}/{NS_XNAT}{name}"):
            shares = node.findall(f"{NS_XNAT}sharing/{NS_XNAT}share")
            if shares:
                place = f"{level}/{node.get(key, '').replace('/', '%2F')}"
                found[place] = [(one.get("project", ""), one.get("label", "")) for one in shares]
    return found


def for_subject(xml: bytes, *, project: str, label: str) -> bytes:
    document = Document(xml)
    document.drop_attributes(*_OF_THE_DATABASE)
    document.root.set("project", project)
    document.root.set("label", label)
    document.drop("resources", "sharing", "experiments")
    return document.to_bytes()


def for_session(
    xml: bytes,
    *,
    project: str,
    label: str,
    scans: Mapping[str, str] | None = None,
    without: Collection[str] = (),
    ids: Mapping[str, str] | None = None,
) -> bytes:
    """An experiment for another project: all its fields and scans, no files, no assessors, no
    shares.

    `scans` maps scan IDs of the source to those that an import made; `without` names scans to leave
    out; `ids` maps accession IDs of the source to the destination's.
    """
    document = Document(xml)
    _remap(document, ids or {})
    document.drop_attributes(*_OF_THE_DATABASE)
    document.root.set("project", project)
    document.root.set("label", label)
    # Setting again what is there already clears it, so the second PUT alone sets them.
    document.drop_attributes("visit", "protocol")
    document.drop("sharing", "assessors", "protocol", "subject_ID", "image_session_ID", *_FILES)
    document.drop("prearchivePath", "reconstructions/reconstructedImage/image_session_ID")
    for group in document.root.findall(f"{NS_XNAT}scans"):
        for scan in group.findall(f"{NS_XNAT}scan"):
            _forget_numbers(scan.attrib)
            scan_id = scan.get("ID", "")
            if scan_id in without:
                group.remove(scan)
            elif scans and scan_id in scans:
                scan.set("ID", scans[scan_id])
            for name in ("image_session_ID", "sharing"):
                for child in scan.findall(NS_XNAT + name):
                    scan.remove(child)
    return document.to_bytes()


def for_assessor(
    xml: bytes, *, project: str, label: str, session_id: str, ids: Mapping[str, str]
) -> bytes:
    """An assessor under another session. `ids` maps accession IDs of the source to the
    destination's.
    """
    document = Document(xml)
    # First of all: an ID of the destination may well be another thing's at the source.
    _remap(document, ids)
    document.drop_attributes(*_OF_THE_DATABASE)
    document.root.set("project", project)
    document.root.set("label", label)
    document.drop("sharing", "resources", "in", "out")
    document.set_child("imageSession_ID", session_id)
    return document.to_bytes()


def _remap(document: Document, ids: Mapping[str, str]) -> None:
    """Replace whole values that are accession IDs of the source, wherever they stand."""
    for node in document.root.iter():
        text = (node.text or "").strip()
        if text in ids:
            node.text = ids[text]
        for name, value in node.attrib.items():
            if value in ids:
                node.set(name, ids[value])


def _forget_numbers(attributes: dict[str, str]) -> None:
    for name in ("xnat_imagescandata_id", "image_session_ID", "project"):
        attributes.pop(name, None)


def assessor_fingerprint(xml: bytes, assessor_id: str) -> str:
    """The same of one assessor inside its session's document."""
    document = Document(xml)
    for one in document.root.findall(f"{NS_XNAT}assessors/{NS_XNAT}assessor"):
        if one.get("ID") == assessor_id:
            _without_files(one)
            return digest_of(canonical_element(one))
    return ""


def fingerprint(xml: bytes) -> str:
    """A digest of what the document says, blind to what changes without anybody's doing.

    File counts and server paths stand on the catalog elements, so those are left out; the files are
    compared by their own listing.
    """
    document = Document(xml)
    document.drop("assessors", *_FILES)
    return digest_of(canonical_element(document.root))


def _without_files(node: Element) -> None:
    for name in ("resources", "in", "out"):
        for child in node.findall(NS_XNAT + name):
            node.remove(child)
