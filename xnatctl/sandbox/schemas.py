"""XML schemas of the types that the sandbox knows, generated from its own tables.

Clients that build classes from a site's schemas ask for `/xapi/schemas` (the names) and
`/xapi/schemas/{name}`, browsers for `/schemas/{name}/{name}.xsd`. What they get is our own short
description of the types: names, super-types, attributes and elements, not the schema that XNAT
ships. Three things of it matter to such clients and are kept: lists are a wrapping element around
a repeated one, custom fields are text with a `name`, and `xdat:element displayIdentifiers` names
the attribute by which people call an entry.
"""

from __future__ import annotations

from functools import cache

from aiohttp import web

from .vocabulary import NAMESPACES, SCAN_TYPES, SESSION_TYPES, root_of
from .web import Refusal, json, text

_DEMOGRAPHICS = (
    "dob yob age gender handedness ses education educationDesc race ethnicity weight height "
    "gestational_age post_menstrual_age birth_weight"
)
_EXPERIMENT = (
    "date time duration delay note acquisition_site investigator:investigatorData "
    "validation:validationData"
)
_SESSION = (
    "scanner@manufacturer@model operator dcmAccessionNumber dcmPatientId dcmPatientName "
    "dcmPatientBirthDate session_type prearchivePath scans*scan:imageScanData "
    "reconstructions*reconstructedImage:reconstructedImageData "
    "assessors*assessor:imageAssessorData"
)
_RESOURCES = "resources*resource:abstractResource"
_SHARES = "sharing*share:projectParticipant"
_FIELDS = "fields*field@name"

# name: (super-type, attributes, elements). `a:type` is an element of a type, `a@b@c` a text with
# attributes, `a*b:type` or `a*b@c` a list of such. Types without a prefix are of `xnat`.
_TYPES: dict[str, tuple[str, str, str]] = {
    "abstractResource": ("", "label note", "tags*tag@name"),
    "resource": ("abstractResource", "URI format content description", ""),
    "resourceSeries": ("abstractResource", "path pattern count content format description", ""),
    "resourceCatalog": ("resource", "file_count file_size", ""),
    "projectParticipant": ("", "label project visit", ""),
    "validationData": ("", "", "method status date notes"),
    "studyProtocol": ("", "ID name data-type", ""),
    "investigatorData": ("", "ID title", "firstname lastname institution department email phone"),
    "projectData": (
        "",
        "ID secondary_ID active",
        f"name type description keywords aliases*alias@source {_RESOURCES} "
        f"PI:investigatorData investigators*investigator:investigatorData {_FIELDS} "
        "studyProtocol*:studyProtocol",
    ),
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
    "qcManualAssessorData": (
        "imageAssessorData", "",
        "rater stereotacticMarker incidentalFindings scans*scan:qcScanData comments pass payable",
    ),
    "qcScanData": ("", "", "imageScan_ID coverage motion rating pass comments"),
    "mrQcScanData": ("qcScanData", "", ""),
    "qcAssessmentData": ("imageAssessorData", "type", ""),
    "imageScanData": (
        "",
        "ID UID type project image_session_ID",
        "note quality condition series_description documentation "
        "scanner@manufacturer@model modality frames startTime file*:abstractResource",
    ),
    "reconstructedImageData": (
        "", "ID type baseScanType",
        "image_session_ID in*file:abstractResource out*file:abstractResource",
    ),
}  # fmt: skip
# Types that have no name: they are written where an element is of one.
_GROUPS = {
    "parameters": ("", "voxelRes:lengths orientation fov:lengths matrix:lengths tr te ti flip"),
    "lengths": ("x y z units", ""),
}
_ROI = {"roiCollectionData": ("xnat:imageAssessorData", "", "collectionType subjectID name UID")}
_SIMPLE = {
    name: kind
    for kind, names in {
        "date": "date dob dcmPatientBirthDate",
        "time": "time startTime",
        "integer": "yob age ses education frames file_count",
        "long": "file_size",
        "float": "weight height gestational_age post_menstrual_age birth_weight "
        "tr te ti flip x y z",
    }.items()
    for name in names.split()
}
_SHOWN = {"subjectData": "label", "experimentData": "label", "abstractResource": "label"}
_SPACES = {
    "xdat": "http://nrg.wustl.edu/xdat",
    "xnat": NAMESPACES["xnat"],
    "icr": NAMESPACES["icr"],
}


def listing(rest: list[str]) -> web.Response:
    """`/xapi/schemas`: the names of the schemas; `/xapi/schemas/xnat`: the schema."""
    if not rest:
        return json(list(_SPACES))
    return schema(rest)


def schema(rest: list[str]) -> web.Response:
    """`/schemas/xnat/xnat.xsd` and its short forms."""
    name = rest[0].removesuffix(".xsd") if rest else ""
    if name not in _SPACES or rest[-1] not in (name, f"{name}.xsd"):
        raise Refusal(404, "There is no such schema")
    return text(_document(name), media="text/xml")


@cache
def _document(prefix: str) -> str:
    types = {"xnat": _xnat_types(), "icr": _ROI}.get(prefix, {})
    roots = [
        f'<xs:element name="{root_of(f"{prefix}:{name}").partition(":")[2]}" '
        f'type="{prefix}:{name}"/>'
        for name in types
        if name.endswith("Data")
    ]
    body = "\n".join(roots + [_type(name, *facts) for name, facts in types.items()])
    spaces = " ".join(f'xmlns:{name}="{space}"' for name, space in _SPACES.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<xs:schema targetNamespace="{_SPACES[prefix]}" {spaces} '
        'xmlns:xs="http://www.w3.org/2001/XMLSchema" '
        'elementFormDefault="qualified" attributeFormDefault="unqualified">\n'
        f"{body}\n</xs:schema>\n"
    )


def _xnat_types() -> dict[str, tuple[str, str, str]]:
    types = dict(_TYPES)
    for name in sorted(SESSION_TYPES - {"xnat:imageSessionData"}):
        types[name.partition(":")[2]] = (
            "imageSessionData", "", "coil fieldStrength marker stabilization studyType",
        )  # fmt: skip
    for name in sorted(SCAN_TYPES):
        types[name.partition(":")[2]] = (
            "imageScanData", "", "coil fieldStrength parameters:parameters",
        )  # fmt: skip
    return types


def _type(name: str, base: str, attributes: str, elements: str) -> str:
    content = _content(attributes, elements)
    if base:
        content = (
            f'<xs:complexContent><xs:extension base="{_qualified(base)}">{content}</xs:extension>'
            "</xs:complexContent>"
        )
    if name in _SHOWN:
        content = _shown(_SHOWN[name]) + content
    return f'<xs:complexType name="{name}">{content}</xs:complexType>'


def _content(attributes: str, elements: str) -> str:
    inner = "".join(_element(word) for word in elements.split())
    return (f"<xs:sequence>{inner}</xs:sequence>" if inner else "") + _attributes(attributes)


def _attributes(names: str) -> str:
    return "".join(
        f'<xs:attribute name="{name}" type="xs:{_SIMPLE.get(name, "string")}"/>'
        for name in names.split()
    )


def _element(word: str) -> str:
    outer, star, inner = word.partition("*")
    if not star:
        return _single(word, "")
    entry = _single(inner if inner[:1] != ":" else outer + inner, ' maxOccurs="unbounded"')
    if inner[:1] == ":":
        return entry
    return (
        f'<xs:element name="{outer}" minOccurs="0"><xs:complexType><xs:sequence>{entry}'
        "</xs:sequence></xs:complexType></xs:element>"
    )


def _single(word: str, many: str) -> str:
    """`name`, `name:type` or `name@attribute@attribute`."""
    label, at, attributes = word.partition("@")
    name, colon, kind = label.partition(":")
    head = f'<xs:element name="{name}" minOccurs="0"{many}'
    if at:
        names = attributes.replace("@", " ")
        return (
            f"{head}>{_shown(names) if many else ''}<xs:complexType><xs:simpleContent>"
            f'<xs:extension base="xs:string">{_attributes(names)}</xs:extension>'
            "</xs:simpleContent></xs:complexType></xs:element>"
        )
    if kind in _GROUPS:
        return f"{head}><xs:complexType>{_content(*_GROUPS[kind])}</xs:complexType></xs:element>"
    shown = _qualified(kind) if colon else f"xs:{_SIMPLE.get(name, 'string')}"
    return f'{head} type="{shown}"/>'


def _shown(name: str) -> str:
    return (
        f'<xs:annotation><xs:appinfo><xdat:element displayIdentifiers="{name}"/></xs:appinfo>'
        "</xs:annotation>"
    )


def _qualified(name: str) -> str:
    return name if ":" in name else f"xnat:{name}"
