"""What the sandbox knows of the XNAT data model, as plain tables.

Only data and tiny look-ups live here: namespaces, which fields are XML attributes, which are
numbers, the short names (aliases) that listings and query fields use, the order of elements in a
session document, and the types a site knows. No I/O, no state.
"""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


XNAT = "http://nrg.wustl.edu/xnat"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
XSI_TYPE = f"{{{XSI}}}type"
NAMESPACES = {
    "xnat": XNAT,
    "xsi": XSI,
    "xdat": "http://nrg.wustl.edu/security",
    "cat": "http://nrg.wustl.edu/catalog",
    "wrk": "http://nrg.wustl.edu/workflow",
    "prov": "http://www.nbirn.net/prov",
    "arc": "http://nrg.wustl.edu/arc",
    "icr": "http://icr.ac.uk/icr",
    "fs": "http://nrg.wustl.edu/fs",
}

MODALITIES = {
    "MR": "mr", "PT": "pet", "CT": "ct", "US": "us", "CR": "cr", "DX": "dx", "MG": "mg",
    "NM": "nm", "XA": "xa", "RF": "rf", "IO": "io", "GM": "gm", "SM": "sm", "XC": "xc",
    "ES": "es", "EPS": "eps", "ECG": "ecg", "HD": "hd", "RTIMAGE": "rt", "MEG": "meg",
    "EEG": "eeg", "OPT": "opt",
}  # fmt: skip
SCAN_ONLY = {"SEG": "seg", "SR": "sr", "OT": "sc", "SC": "sc"}

SESSION_TYPES = frozenset(f"xnat:{name}SessionData" for name in MODALITIES.values()) | {
    "xnat:petmrSessionData",
    "xnat:otherDicomSessionData",
    "xnat:imageSessionData",
}
SCAN_TYPES = (
    frozenset(f"xnat:{name}ScanData" for name in MODALITIES.values())
    | frozenset(f"xnat:{name}ScanData" for name in SCAN_ONLY.values())
    | {"xnat:petmrScanData", "xnat:otherDicomScanData"}
)
OTHER_TYPES = {
    "xnat:projectData": "project", "xnat:subjectData": "subject",
    "xnat:qcManualAssessorData": "assessor", "xnat:qcAssessmentData": "assessor",
    "xnat:subjectVariablesData": "experiment", "icr:roiCollectionData": "assessor",
    "xnat:imageScanData": "scan", "xnat:imageSessionData": "experiment",
    "xnat:reconstructedImageData": "reconstruction",
}  # fmt: skip

# Root elements whose names do not follow from the type's name.
ROOTS = {
    "xnat:qcManualAssessorData": "xnat:QCManualAssessment",
    "xnat:qcAssessmentData": "xnat:QCAssessment",
    "xnat:subjectVariablesData": "xnat:SubjectVariables",
}
UPPERCASED = {*MODALITIES.values(), "petmr"}

ATTRIBUTES = {
    "project": {"ID", "secondary_ID", "active", "acronym"},
    "subject": {"ID", "project", "group", "src", "label", "initials"},
    "experiment": {
        "ID", "project", "label", "visit_id", "visit", "version", "original", "protocol",
        "UID", "modality", "acquisition_site",
    },
    "scan": {"ID", "UID", "type", "project", "image_session_ID"},
    "reconstruction": {"ID", "baseScanType", "type"},
}  # fmt: skip
ATTRIBUTES["assessor"] = ATTRIBUTES["experiment"]
NESTED_ATTRIBUTES = {
    "scanner": {"manufacturer", "model"},
    "voxelRes": {"x", "y", "z", "units"},
    "fov": {"x", "y", "z"},
    "matrix": {"x", "y"},
    "share": {"label", "project"},
    "field": {"name"},
}

NUMERIC = frozenset(
    _words("""xnat_abstractresource_id file_count file_size yob age education weight height ses
    gestational_age post_menstrual_age birth_weight frames tr te ti flip x y z x1
    percentComplete parameters/tr parameters/te parameters/ti parameters/flip
    parameters/voxelRes/x parameters/voxelRes/y parameters/voxelRes/z
    parameters/fov/x parameters/fov/y""")
)

_DEMOGRAPHICS = _words(
    "dob yob age gender handedness ses education educationDesc race ethnicity weight height "
    "gestational_age post_menstrual_age birth_weight"
)
_VALIDATION = ("method", "status", "date", "notes")
_PI = {"pi_firstname": "investigator/firstname", "pi_lastname": "investigator/lastname"}
ALIASES: dict[str, dict[str, str]] = {
    "project": {
        "alias": "aliases/alias/alias",
        "pi_firstname": "PI/firstname",
        "pi_lastname": "PI/lastname",
        "note": "note",
    },
    "subject": {name: f"demographics/{name}" for name in _DEMOGRAPHICS} | _PI,
    "experiment": {f"validation_{name}": f"validation/{name}" for name in _VALIDATION}
    | {"studyInstanceUID": "UID"}
    | _PI,
    "scan": {f"validation_{name}": f"validation/{name}" for name in _VALIDATION},
    "reconstruction": {},
}
ALIASES["assessor"] = ALIASES["experiment"]

# Elements that carry a type of their own when a field path creates them.
TYPED = {"demographics": "xnat:demographicData"}

# Order of the children of a session, subject or project document; unknown elements follow.
ORDER = {
    name: rank
    for rank, name in enumerate(
        _words("""name type sharing resources date time duration delay note acquisition_site
        investigator validation fields subject_ID age scanner operator dcmAccessionNumber
        dcmPatientId dcmPatientName dcmPatientBirthDate session_type prearchivePath scans
        reconstructions assessors coil fieldStrength marker stabilization studyType patientID
        patientName description keywords aliases publications PI investigators demographics
        metadata addID experiments image_session_ID imageSession_ID quality condition
        series_description documentation modality frames startTime parameters file in out""")
    )
}

# Elements that only wrap repeated ones.
LISTS = {
    "fields", "aliases", "sharing", "resources", "scans", "reconstructions", "assessors",
    "investigators", "publications", "in", "out",
}  # fmt: skip

# Types whose paths may be set on an item of a kind beside its own type.
SUPERTYPES = {
    "project": {"xnat:projectData"},
    "subject": {"xnat:subjectData"},
    "experiment": {"xnat:experimentData", "xnat:subjectAssessorData", "xnat:imageSessionData"},
    "assessor": {
        "xnat:experimentData", "xnat:derivedData", "xnat:imageAssessorData",
        "xnat:subjectAssessorData",
    },
    "scan": {"xnat:imageScanData"},
    "reconstruction": {"xnat:reconstructedImageData"},
}  # fmt: skip
KIND_TYPES = {
    "project": "xnat:projectData",
    "subject": "xnat:subjectData",
    "reconstruction": "xnat:reconstructedImageData",
}


def root_of(xsi: str) -> str:
    """The root element's prefixed name for a type: `xnat:mrSessionData` → `xnat:MRSession`."""
    if xsi in ROOTS:
        return ROOTS[xsi]
    prefix, _, local = xsi.partition(":")
    local = local.removesuffix("Data")
    for stem in ("Session", "Scan"):
        head = local.removesuffix(stem)
        if head != local and head in UPPERCASED:
            return f"{prefix}:{head.upper()}{stem}"
    return f"{prefix}:{local[:1].upper()}{local[1:]}"


def type_of(root: str) -> str:
    """The type for a prefixed root element: `xnat:MRSession` → `xnat:mrSessionData`."""
    for xsi, name in ROOTS.items():
        if name == root:
            return xsi
    prefix, _, local = root.partition(":")
    for stem in ("Session", "Scan"):
        head = local.removesuffix(stem)
        if head != local and head.lower() in UPPERCASED:
            return f"{prefix}:{head.lower()}{stem}Data"
    return f"{prefix}:{local[:1].lower()}{local[1:]}Data"


def is_session(xsi: str) -> bool:
    """Whether a type is an imaging session (its name ends in SessionData)."""
    return xsi.endswith("SessionData")


def scan_type_for(modality: str) -> str:
    """The scan type that the archive gives to a series of this DICOM modality."""
    name = MODALITIES.get(modality) or SCAN_ONLY.get(modality) or "otherDicom"
    return f"xnat:{name}ScanData"


def session_type_for(modalities: set[str]) -> str:
    """The session type for a study holding series of these DICOM modalities.

    PET wins over CT and MR (a PET/CT is a petSessionData), PET with MR is petmr; a study of
    nothing known is otherDicom.
    """
    if {"PT", "MR"} <= modalities:
        return "xnat:petmrSessionData"
    for modality in ("PT", "MR", "CT"):
        if modality in modalities:
            return f"xnat:{MODALITIES[modality]}SessionData"
    known = sorted(m for m in modalities if m in MODALITIES)
    return f"xnat:{MODALITIES[known[0]] if known else 'otherDicom'}SessionData"


_COMMON = "ID label project URI insert_date insert_user last_modified xsiType"
COLUMNS = {
    "project": set(
        _words(
            _COMMON + " secondary_ID name description keywords alias pi_firstname pi_lastname note"
        )
    ),
    "subject": set(
        _words(_COMMON + " group src handedness pi_firstname pi_lastname") + _DEMOGRAPHICS
    ),
    "experiment": set(
        _words(
            _COMMON + " date time note visit_id visit protocol pi_firstname pi_lastname "
            "validation_method validation_status validation_date validation_notes scanner operator "
            "dcmAccessionNumber dcmPatientId dcmPatientName session_type modality UID "
            "studyInstanceUID coil fieldStrength marker stabilization studyType patientID "
            "patientName scan_start_time injection_start_time subject_ID subject_label "
            "subject_project session_ID session_label acquisition_site"
        )
    ),
    "scan": set(
        _words(
            _COMMON + " type UID note quality condition series_description documentation scanner "
            "modality frames scanTime coil fieldStrength validation_method validation_status "
            "validation_date validation_notes xnat_imagescandata_id startTime"
        )
    ),
    "reconstruction": set(_words(_COMMON + " type baseScanType xnat_reconstructedimagedata_id")),
}
COLUMNS["assessor"] = COLUMNS["experiment"]


def display_columns(xsi: str) -> set[str]:
    """The names by which a search may show the values of a type; none for an unknown type."""
    if xsi in SCAN_TYPES:
        return COLUMNS["scan"]
    if xsi in SESSION_TYPES:
        return COLUMNS["experiment"]
    return COLUMNS[OTHER_TYPES[xsi]] if xsi in OTHER_TYPES else set()
