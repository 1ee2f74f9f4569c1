"""The seed `demo`: a small study as a hospital would keep it, one of everything, nothing odd.

Project DEMO: three subjects, seven sessions (MR, CT, PET, US) with synthetic and genuine DICOM,
NIfTI with sidecars, snapshots, resources at each level, demographics, custom variables, a
reconstruction and a quality assessment.
"""

from __future__ import annotations

import json

from . import phantom
from .phantom import GENUINE, Series, Study
from .seed_parts import fill, new_project, synthetic_scan
from .store import Item, Store

_SUBJECTS = {
    "DEMO_001": {"gender": "female", "yob": "1984", "handedness": "right", "group": "patient"},
    "DEMO_002": {"gender": "male", "yob": "1979", "handedness": "left", "group": "patient"},
    "DEMO_003": {"gender": "female", "yob": "1990", "handedness": "right", "group": "control"},
}
# label -> modality, date, visit
_SESSIONS = {
    "DEMO_001_MR1": ("MR", "20240301", "baseline"),
    "DEMO_001_MR2": ("MR", "20240912", "followup"),
    "DEMO_002_MR1": ("MR", "20240304", "baseline"),
    "DEMO_002_CT1": ("CT", "20240305", "baseline"),
    "DEMO_003_CT1": ("CT", "20240311", "baseline"),
    "DEMO_003_PET1": ("PT", "20240312", "baseline"),
    "DEMO_003_US1": ("US", "20240313", "baseline"),
}
# scan ID -> modality, description, (columns, rows, slices), millimetres a voxel
_SYNTHETIC = {
    "MR": {
        "1": ("MR", "localizer", (64, 64, 3), (4.0, 4.0, 20.0)),
        "2": ("MR", "T1w", (192, 192, 24), (1.0, 1.0, 5.0)),
        "3": ("MR", "T2w", (128, 128, 16), (1.5, 1.5, 6.0)),
    },
    "CT": {
        "1": ("CT", "Topogram", (128, 128, 2), (2.0, 2.0, 1.0)),
        "2": ("CT", "Head 5.0 H30s", (256, 256, 16), (1.0, 1.0, 5.0)),
    },
    "PT": {
        "1": ("CT", "CT AC", (128, 128, 24), (2.0, 2.0, 4.0)),
        "2": ("PT", "FDG static", (128, 128, 24), (2.0, 2.0, 4.0)),
    },
    "US": {},
}
# session -> scan ID -> modality of genuine files
_GENUINE = {
    "DEMO_001_MR1": {"4": "MR"},
    "DEMO_002_MR1": {"4": "MR"},
    "DEMO_002_CT1": {"3": "CT", "4": "SEG", "5": "SR", "6": "OT"},
    "DEMO_003_CT1": {"3": "CT"},
    "DEMO_003_US1": {"1": "US"},
}
_SCAN_TYPES = {"OT": "sc", "SEG": "seg", "SR": "sr", "US": "us", "MR": "mr", "CT": "ct"}
_SESSION_TYPES = {"MR": "mr", "CT": "ct", "PT": "pet", "US": "us"}

_QC = """<xnat:QCManualAssessment xmlns:xnat="http://nrg.wustl.edu/xnat"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<xnat:date>2024-03-02</xnat:date>
<xnat:note>read on screen &amp; paper</xnat:note>
<xnat:rater>Rita Rater</xnat:rater>
<xnat:stereotacticMarker>0</xnat:stereotacticMarker>
<xnat:incidentalFindings>none</xnat:incidentalFindings>
<xnat:scans>
<xnat:scan xsi:type="xnat:mrQcScanData"><xnat:imageScan_ID>2</xnat:imageScan_ID>
<xnat:coverage>1</xnat:coverage><xnat:motion>1</xnat:motion>
<xnat:rating scale="1-5">4</xnat:rating><xnat:pass>1</xnat:pass></xnat:scan>
<xnat:scan xsi:type="xnat:mrQcScanData"><xnat:imageScan_ID>3</xnat:imageScan_ID>
<xnat:coverage>1</xnat:coverage><xnat:motion>3</xnat:motion>
<xnat:rating scale="1-5">2</xnat:rating><xnat:pass>0</xnat:pass></xnat:scan>
</xnat:scans>
<xnat:comments>Motion in the second scan.</xnat:comments>
<xnat:pass>1</xnat:pass>
</xnat:QCManualAssessment>"""


def seed_demo(store: Store) -> None:
    """Write the project DEMO. Raises SeedError when there is one."""
    project = _project(store)
    subjects = {label: _subject(store, project, label) for label in _SUBJECTS}
    for label, (modality, date, visit) in _SESSIONS.items():
        owner = label[:8]
        study = Study(
            label,
            patient_id=owner,
            patient_name=f"Demo^{owner[-3:]}",
            date=date,
            sex=_SUBJECTS[owner]["gender"][0].upper(),
            birth_date=f"{_SUBJECTS[owner]['yob']}0615",
        )
        session = _session(store, subjects[owner], study, modality, visit)
        _scans(store, session, study, modality)
    first = store.find_experiment("DEMO_001_MR1", project)
    if first is not None:
        _derived(store, first)


def _project(store: Store) -> Item:
    project = new_project(
        store,
        "DEMO",
        {
            "name": "Demonstration study",
            "description": "Phantoms and public sample files; nobody's data.",
            "keywords": "demo phantom",
            "alias": "DEMO_STUDY",
            "pi_firstname": "Ada",
            "pi_lastname": "Investigator",
        },
    )
    protocol = {
        "README.txt": b"Made up by the sandbox. Delete it, change it, break it.\n",
        "protocol/protocol.pdf": phantom.pdf("Demonstration study: imaging protocol"),
        "participants.csv": b"subject,gender,yob\n"
        + b"".join(f"{s},{f['gender']},{f['yob']}\n".encode() for s, f in _SUBJECTS.items()),
    }
    fill(
        store,
        project,
        "docs",
        protocol,
        format="MIXED",
        content="DOCUMENTS",
        description="Study papers",
        tags="study,papers",
    )
    return project


def _subject(store: Store, project: Item, label: str) -> Item:
    cohort = "A" if _SUBJECTS[label]["group"] == "patient" else "B"
    variables = {
        "fields/field[name=cohort]/field": cohort,
        "fields/field[name=consent]/field": "yes",
    }
    subject = store.create_subject(project, label, fields=_SUBJECTS[label] | variables)
    files = {
        "consent.pdf": phantom.pdf(f"Consent of {label}"),
        "visits.json": json.dumps({"visits": ["baseline", "followup"]}).encode() + b"\n",
    }
    fill(store, subject, "consent", files, format="PDF", content="CONSENT")
    return subject


def _session(store: Store, subject: Item, study: Study, modality: str, visit: str) -> Item:
    fields = {
        "date": f"{study.date[:4]}-{study.date[4:6]}-{study.date[6:]}",
        "time": "10:15:00",
        "UID": study.uid,
        "modality": modality,
        "visit": visit,
        "acquisition_site": "Sandbox Hospital",
        "operator": "Olga Operator",
        "note": f"{visit}, phantom",
        "dcmPatientId": study.patient_id,
        "dcmPatientName": study.patient_name,
        "scanner": f"{modality}01",
        "scanner/manufacturer": "Sandbox Imaging",
        "scanner/model": f"Phantom {modality}",
        "fields/field[name=rater]/field": "Rita",
        "fields/field[name=fasting]/field": "no",
    }
    if modality == "MR":
        fields |= {"fieldStrength": "3.0", "coil": "Head_32"}
    kind = f"xnat:{_SESSION_TYPES[modality]}SessionData"
    session = store.create_experiment(subject, study.label, kind, fields=fields)
    rows = "".join(f"{n * 0.02:.2f},{(n * 37) % 101}\n" for n in range(500))
    files = {
        "pulse.csv": f"second,pulse\n{rows}".encode(),
        "log/scanner.txt": f"{study.label}: start\n{study.label}: end\n".encode(),
    }
    fill(store, session, "PHYSIO", files, format="CSV", content="PHYSIO")
    return session


def _scans(store: Store, session: Item, study: Study, modality: str) -> None:
    for ident, (kind, description, shape, voxel_mm) in _SYNTHETIC[modality].items():
        columns, rows, slices = shape
        series = Series(
            study, ident, int(ident), kind, description, columns, rows, slices, voxel_mm
        )
        doubtful = {"quality": "questionable", "note": "moved"} if ident == "3" else {}
        scan = synthetic_scan(store, session, series, **doubtful)
        if slices < 10:
            continue
        name = f"{study.label}_{ident}"
        volume = {f"{name}.nii.gz": phantom.nifti(series), f"{name}.json": phantom.sidecar(series)}
        fill(store, scan, "NIFTI", volume, format="NIFTI", content="NIFTI_RAW")
        pictures = {
            f"{name}_qc.gif": phantom.gif(series),
            f"{name}_qc_t.gif": phantom.gif(series, step=2),
            f"{name}.png": phantom.png(series),
        }
        fill(store, scan, "SNAPSHOTS", pictures, format="GIF", content="SNAPSHOTS")
    for ident, kind in _GENUINE.get(study.label, {}).items():
        fields = {
            "type": f"{kind} samples",
            "series_description": f"{kind} samples",
            "quality": "usable",
            "UID": phantom.uid("series", study.label, ident),
            "frames": str(len(GENUINE[kind])),
            "modality": kind,
        }
        scan = store.create_scan(session, ident, f"xnat:{_SCAN_TYPES[kind]}ScanData", fields=fields)
        samples = {
            name: phantom.genuine(name, study, ident, int(ident), instance)
            for instance, name in enumerate(GENUINE[kind], 1)
        }
        fill(store, scan, "DICOM", samples, format="DICOM", content="RAW")


def _derived(store: Store, session: Item) -> None:
    """A reconstruction and a quality assessment of the first MR session."""
    series = Series(Study(session.label, "DEMO_001", "Demo^001"), "2", 2)
    reconstruction = store.create_reconstruction(
        session, "T1_mean", fields={"type": "mean", "baseScanType": "T1w"}
    )
    volume = {"mean.nii.gz": phantom.nifti(series)}
    fill(store, reconstruction, "NIFTI", volume, format="NIFTI", content="MEAN")
    assessor = store.create_assessor(session, f"{session.label}_QC1", doc=_QC)
    report = {
        "report.pdf": phantom.pdf(f"Quality of {session.label}"),
        "figures/t1.png": phantom.png(series),
        "scores.json": b'{"2": 4, "3": 2}\n',
    }
    fill(store, assessor, "REPORT", report, format="MIXED", content="QC", bucket="out")
