"""XML schemas of the types that the sandbox knows, generated from its own tables.

Clients that build classes from a site's schemas ask for `/xapi/schemas` and `/schemas/…`. What they
get is our own short description of the types: names, super-types, attributes and elements of
`vocabulary.py`, not the schema that XNAT ships.
"""

from __future__ import annotations

from functools import cache

from aiohttp import web

from .vocabulary import SCAN_TYPES, SESSION_TYPES, XNAT, root_of
from .web import Refusal, json, text

_DEMOGRAPHICS = (
    "dob yob age gender handedness ses education educationDesc race ethnicity weight height "
    "gestational_age post_menstrual_age birth_weight"
)
_EXPERIMENT = "date time duration delay note acquisition_site investigator:investigatorData"
_SESSION = (
    "scanner:scannerType operator dcmAccessionNumber dcmPatientId dcmPatientName "
    "dcmPatientBirthDate session_type prearchivePath scans*scan:imageScanData "
    "reconstructions*reconstructedImage:reconstructedImageData "
    "assessors*assessor:imageAssessorData"
)
_RESOURCES = "resources*resource:abstractResource"
_SHARES = "sharing*share:projectParticipant"
_FIELDS = "fields*field:fieldType"

# name: (super-type, attributes, elements). `a:type` is an element of a type, `a*b:type` a list.
_TYPES: dict[str, tuple[str, str, str]] = {
    "abstractResource": ("", "label note xnat_abstractresource_id", "tags*tag:tagType"),
    "resource": ("abstractResource", "URI format content description", ""),
    "resourceSeries": ("abstractResource", "path pattern count content format description", ""),
    "resourceCatalog": ("resource", "file_count file_size", ""),
    "tagType": ("", "name", ""),
    "fieldType": ("", "name field", ""),
    "scannerType": ("", "manufacturer model", ""),
    "projectParticipant": ("", "label project visit", ""),
    "investigatorData": ("", "ID title", "firstname lastname institution department email phone"),
    "projectData": (
        "",
        "ID secondary_ID active",
        f"name type description keywords aliases*alias:aliasType {_RESOURCES} "
        f"PI:investigatorData investigators*investigator:investigatorData {_FIELDS}",
    ),
    "aliasType": ("", "alias", ""),
    "abstractDemographicData": ("", "", ""),
    "demographicData": ("abstractDemographicData", "", _DEMOGRAPHICS),
    "subjectData": (
        "",
        "ID project group src label initials",
        f"{_SHARES} {_RESOURCES} investigator:investigatorData "
        f"demographics:abstractDemographicData {_FIELDS} "
        "experiments*experiment:subjectAssessorData",
    ),
    "experimentData": (
        "",
        "ID project label visit_id visit version original protocol",
        f"{_SHARES} {_RESOURCES} {_EXPERIMENT} {_FIELDS}",
    ),
    "subjectAssessorData": ("experimentData", "", "subject_ID age"),
    "subjectVariablesData": ("subjectAssessorData", "", ""),
    "imageSessionData": ("subjectAssessorData", "UID modality", _SESSION),
    "derivedData": ("experimentData", "", ""),
    "imageAssessorData": (
        "derivedData", "", "in*file:abstractResource out*file:abstractResource imageSession_ID",
    ),
    "qcManualAssessorData": ("imageAssessorData", "", "rater comments"),
    "qcAssessmentData": ("imageAssessorData", "type", ""),
    "imageScanData": (
        "",
        "ID UID type project image_session_ID",
        "note quality condition series_description documentation scanner:scannerType modality "
        "frames startTime parameters:scanParameters file*:abstractResource",
    ),
    "scanParameters": ("", "", "voxelRes:voxelType fov:voxelType tr te ti flip"),
    "voxelType": ("", "x y z units", ""),
    "reconstructedImageData": (
        "", "ID type baseScanType",
        "image_session_ID in*file:abstractResource out*file:abstractResource",
    ),
}  # fmt: skip


def listing(rest: list[str]) -> web.Response:
    """`/xapi/schemas`: the names of the schemas; `/xapi/schemas/xnat`: the schema."""
    if not rest:
        return json(["xnat"])
    return schema(rest)


def schema(rest: list[str]) -> web.Response:
    """`/schemas/xnat/xnat.xsd` and its short forms."""
    if rest[:1] in (["xnat"], ["xnat.xsd"]) and rest[-1] in ("xnat", "xnat.xsd"):
        return text(_document(), media="text/xml")
    raise Refusal(404, "There is no such schema")


@cache
def _document() -> str:
    types = dict(_TYPES)
    for name in sorted(SESSION_TYPES - {"xnat:imageSessionData"}):
        types[name.partition(":")[2]] = (
            "imageSessionData", "", "coil fieldStrength marker stabilization studyType",
        )  # fmt: skip
    for name in sorted(SCAN_TYPES):
        types[name.partition(":")[2]] = ("imageScanData", "", "coil fieldStrength")
    roots = [
        f'<xs:element name="{root_of("xnat:" + name).partition(":")[2]}" type="xnat:{name}"/>'
        for name in types
        if name.endswith("Data")
    ]
    body = "\n".join(roots + [_type(name, *facts) for name, facts in types.items()])
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<xs:schema targetNamespace="{XNAT}" xmlns:xnat="{XNAT}" '
        'xmlns:xs="http://www.w3.org/2001/XMLSchema" elementFormDefault="qualified" '
        f'attributeFormDefault="unqualified">\n{body}\n</xs:schema>\n'
    )


def _type(name: str, base: str, attributes: str, elements: str) -> str:
    inner = "".join(_element(word) for word in elements.split())
    sequence = f"<xs:sequence>{inner}</xs:sequence>" if inner else ""
    attrs = "".join(f'<xs:attribute name="{a}" type="xs:string"/>' for a in attributes.split())
    content = sequence + attrs
    if base:
        content = (
            f'<xs:complexContent><xs:extension base="xnat:{base}">{content}</xs:extension>'
            "</xs:complexContent>"
        )
    return f'<xs:complexType name="{name}">{content}</xs:complexType>'


def _element(word: str) -> str:
    if "*" in word:
        outer, _, rest = word.partition("*")
        inner, _, kind = rest.partition(":")
        entry = (
            f'<xs:element name="{inner or outer}" type="xnat:{kind}" minOccurs="0" '
            'maxOccurs="unbounded"/>'
        )
        if not inner:
            return entry
        return (
            f'<xs:element name="{outer}" minOccurs="0"><xs:complexType><xs:sequence>{entry}'
            "</xs:sequence></xs:complexType></xs:element>"
        )
    name, _, kind = word.partition(":")
    shown = f"xnat:{kind}" if kind else "xs:string"
    return f'<xs:element name="{name}" type="{shown}" minOccurs="0"/>'
