"""The seed `nasty`: one of everything that has ever broken a transfer, in two small projects.

Each thing stands in a place of its own where it can spoil nothing but itself, and the tables below
say what it is for. Nothing here is beyond what an XNAT really holds after some years of use.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from itertools import islice

from . import phantom
from .phantom import Series, Study
from .seed_parts import fill, new_project, scan_fields, synthetic_scan
from .store import Item, Store

LONG_NAME = "long-" + "x" * 191 + ".dcm"
"""A file name of 200 characters."""

WIDE_NAME = "ü" * 125 + ".txt"
"""A file name of 254 bytes in half as many characters."""

NAMES = (
    "plain.txt",
    "with blank.txt",
    " leading blank.txt",
    "trailing blank ",
    "two  blanks.txt",
    "ünïcödé.txt",
    "日本語のファイル.txt",
    "émoji-🧠.txt",
    "composed-\u00e9.txt",
    "composed-e\u0301.txt",
    "hash#mark.txt",
    "percent%20sign.txt",
    "100%.txt",
    "plus+plus.txt",
    "amp&ersand.txt",
    "semi;colon.txt",
    "br[ack]ets.txt",
    "br{ac}es (and) more.txt",
    "com,ma.txt",
    "apo'strophe.txt",
    'quo"te.txt',
    "question?mark.txt",
    "star*.txt",
    "co:lon.txt",
    "pi|pe.txt",
    "<angle>.txt",
    "equals=a&b=c.txt",
    "dollar$HOME.txt",
    "tilde~.txt",
    "back`tick`.txt",
    "at@sign!.txt",
    "-rf",
    ".hidden",
    ".folder/.hidden",
    "...",
    "dots..in..name.txt",
    "no_extension",
    "ends.with.dot.",
    "Case.txt",
    "case.txt",
    "case.TXT",
    "a/same.txt",
    "b/same.txt",
    "a/b/same.txt",
    "a/b/c/d/e/f/g/deep.txt",
    "files/files/inner.txt",
    "1/folder-named-as-a-scan.txt",
    "resources/DICOM/files/looks-like-a-url.txt",
    LONG_NAME,
    WIDE_NAME,
)
"""File names that a URL, a shell, a file system or a zip may trip over."""

UNFIT_FOR_ZIP = ("back\\slash.txt", "C:/drive.txt", "notes_catalog.xml")
"""Names that an archive cannot carry, or that the server leaves out of one."""

_FREE_TEXT = "5 < 6 & \"seven\" > 'six'; 100 % naïve — 日本\nsecond line"

_FS = """<fs:asegRegionAnalysis xmlns:fs="http://nrg.wustl.edu/fs"
 xmlns:xnat="http://nrg.wustl.edu/xnat">
<xnat:date>2024-03-02</xnat:date>
<fs:mr_ID>1</fs:mr_ID>
<fs:regions>
<fs:region name="Left-Hippocampus" hemisphere="left"><fs:Volume>3920.5</fs:Volume></fs:region>
<fs:region name="Right-Hippocampus" hemisphere="right"><fs:Volume>4011.25</fs:Volume></fs:region>
</fs:regions>
</fs:asegRegionAnalysis>"""

_ICR = """<icr:RoiCollection xmlns:icr="http://icr.ac.uk/icr"
 xmlns:xnat="http://nrg.wustl.edu/xnat">
<xnat:date>2024-03-03</xnat:date>
<icr:UID>{uid}</icr:UID>
<icr:collectionType>RTSTRUCT</icr:collectionType>
<icr:references><icr:seriesUID>{series}</icr:seriesUID></icr:references>
<icr:name>Lesions &amp; more</icr:name>
</icr:RoiCollection>"""

_VARIABLES = """<xnat:SubjectVariables xmlns:xnat="http://nrg.wustl.edu/xnat">
<xnat:date>2024-03-04</xnat:date>
<xnat:note>no images here</xnat:note>
<xnat:variables>
<xnat:variable name="mmse">29</xnat:variable>
<xnat:variable name="verdict">naïve &amp; &lt;well&gt;</xnat:variable>
</xnat:variables>
</xnat:SubjectVariables>"""


def seed_nasty(store: Store) -> None:
    """Write the projects NASTY and NASTY2. Raises SeedError when there is one of them."""
    project = new_project(
        store,
        "NASTY",
        {"name": "Nasty things", "description": _FREE_TEXT, "keywords": "a,b c;d"},
    )
    other = new_project(store, "NASTY2", {"name": "Nasty things, second part"})
    fill(store, project, "empty", {}, description="holds nothing")
    fill(store, project, "papers", {"a paper.pdf": phantom.pdf("Nasty"), "empty.txt": b""})
    subject = store.create_subject(
        project,
        "NASTY_001",
        fields={
            "gender": "unknown",
            "group": 'A & B <"C">',
            "fields/field[name=Odd Name]/field": _FREE_TEXT,
            "fields/field[name=empty-ish]/field": "0",
        },
    )
    fill(store, subject, "DATA", {"same.txt": b"subject\n"})
    session = _names(store, subject)
    _scans(store, subject)
    _twins(store, subject)
    _assessors(store, session)
    store.create_experiment(subject, "NASTY_001_empty", "xnat:mrSessionData")
    store.create_experiment(subject, "NASTY_001_vars", "xnat:subjectVariablesData", doc=_VARIABLES)
    store.create_subject(project, "NASTY_no_session")
    _shares(store, project, other, subject, session)


def _study(label: str) -> Study:
    return Study(label, "NASTY_001", "Nasty^Näme^^Dr.")


def _body(name: str) -> bytes:
    return f"the contents of {name!r}\n".encode()


def _names(store: Store, subject: Item) -> Item:
    """A session whose resources hold every kind of file name."""
    session = store.create_experiment(
        subject,
        "NASTY_001_names",
        "xnat:mrSessionData",
        fields={"note": _FREE_TEXT, "visit_id": "V 1", "date": "2024-02-29"},
    )
    fill(store, session, "NAMES", {name: _body(name) for name in NAMES}, tags="odd,names")
    fill(store, session, "UNFIT", {name: _body(name) for name in UNFIT_FOR_ZIP})
    fill(store, session, "EMPTY", {})
    fill(store, session, "ZERO", {"zero.bin": b"", "folder/zero.txt": b"", "one.bin": b"\0"})
    fill(store, session, "12345", {"numeric-label.txt": b"the label is a number\n"})
    fill(store, session, "TWICE", {"first.txt": b"first\n", "same.txt": b"first\n"})
    fill(store, session, "TWICE", {"second.txt": b"second\n", "same.txt": b"second\n"})
    fill(store, session, "Mixed", {"same.txt": b"mixed case label\n"})
    fill(store, session, "MIXED", {"same.txt": b"upper case label\n"})
    fill(store, session, "with blank & more", {"same.txt": b"label with blanks\n"})
    fill(store, session, "ARCHIVES", _archives())
    grouped = fill(store, session, "GROUPS", {"plain.txt": b"as the resource\n"}, format="TXT")
    store.add_file(grouped, "other.csv", b"a,b\n", format="CSV", content="TABLE", tags="x,y=z")
    return session


def _archives() -> dict[str, bytes]:
    """Files that are archives themselves, some of them broken."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(zipfile.ZipInfo("inner.txt"), "inside")
    whole = inner.getvalue()
    return {
        "whole.zip": whole,
        "two.zip": whole + whole,
        "cut.zip": whole[:40],
        "data.csv.gz": gzip.compress(b"a,b\n1,2\n", mtime=0),
        "not-really.zip": b"plain text\n",
    }


def _scans(store: Store, subject: Item) -> None:
    """A session whose scans are odd, each in one way."""
    study = _study("NASTY_001_scans")
    session = store.create_experiment(
        subject, study.label, "xnat:mrSessionData", fields={"UID": study.uid, "modality": "MR"}
    )

    def series(ident: str, number: int, of: Study = study) -> Series:
        return Series(of, ident, number, "MR", f"odd {ident}", 16, 16, 3)

    synthetic_scan(store, session, series("1", 1))
    # The archive names the second series of one number like this.
    synthetic_scan(store, session, series("1-MR1", 1))
    synthetic_scan(store, session, series("4.2", 4))
    synthetic_scan(store, session, series("UPPER_lower", 5))
    synthetic_scan(store, session, series("6", 6), type="1", note="its type is another's ID")
    synthetic_scan(store, session, series("7", 7), type="T2/FLAIR, 3D (rapid)")
    synthetic_scan(store, session, series("8", 8), type="", quality="", series_description="")
    synthetic_scan(store, session, series("9", 9, _study("NASTY_other_study")))

    only = store.create_scan(session, "10", fields={"type": "no DICOM", "quality": "usable"})
    fill(store, only, "NIFTI", {"only.nii.gz": phantom.nifti(series("10", 10))}, format="NIFTI")
    # In archives XNAT writes the type behind every folder that is called like the scan.
    inside = {"10/volume.txt": b"inside\n", "sub/10/volume.txt": b"deeper\n"}
    fill(store, only, "FOLDERS", {**inside, "10.txt": b"beside\n"})
    store.create_scan(session, "11", fields={"type": "no resource", "note": _FREE_TEXT})

    damaged = series("12", 12)
    scan = store.create_scan(session, "12", fields=scan_fields(damaged))
    files = dict(phantom.series_files(damaged))
    extra = {"empty.dcm": b"", "README.txt": b"not DICOM\n", ".DS_Store": b"\0\0\0\1Bud1"}
    fill(store, scan, "DICOM", files | extra, format="DICOM", content="RAW")

    nested = series("13", 13)
    scan = store.create_scan(session, "13", fields=scan_fields(nested))
    files = {
        f"{folder}/0001.dcm": data
        for folder, (_, data) in zip("abc", phantom.series_files(nested), strict=True)
    }
    fill(store, scan, "DICOM", files, format="DICOM", content="RAW")

    doubled = synthetic_scan(store, session, series("14", 14))
    fill(store, doubled, "DICOM", {"late.dcm": _one(series("15", 14))}, format="DICOM")
    secondary = store.create_scan(
        session, "99", "xnat:scScanData", fields={"type": "screen", "modality": "OT"}
    )
    sample = phantom.genuine("SC_rgb_rle_2frame.dcm", study, "99", 99)
    fill(store, secondary, "secondary", {"screen.dcm": sample}, format="DICOM")


def _one(series: Series) -> bytes:
    return next(islice(phantom.series_files(series), 1))[1]


def _twins(store: Store, subject: Item) -> None:
    """Two sessions whose labels differ in case only."""
    for label in ("NASTY_001_twin", "NASTY_001_TWIN"):
        study = _study(label)
        session = store.create_experiment(
            subject, label, "xnat:ctSessionData", fields={"UID": study.uid, "modality": "CT"}
        )
        synthetic_scan(store, session, Series(study, "1", 1, "CT", "twin", 16, 16, 2))
        fill(store, session, "DATA", {"same.txt": label.encode()})


def _assessors(store: Store, session: Item) -> None:
    """Assessors of types that only plugins know, one with files on both sides."""
    scan = Series(_study("NASTY_001_scans"), "1", 1)
    measured = store.create_assessor(session, "NASTY_FS", "fs:asegRegionAnalysis", _FS)
    fill(store, measured, "DATA", {"mri/aseg.stats": b"# region volume\n"}, bucket="in")
    fill(store, measured, "DATA", {"surf/lh.area": b"\0\1\2\3", "surf/rh.area": b""}, bucket="out")
    text = _ICR.format(uid=phantom.uid("roi"), series=scan.uid)
    drawn = store.create_assessor(session, "NASTY_ROI", "icr:roiCollectionData", text)
    fill(store, drawn, "RTSTRUCT", {"lesions & more.dcm": _body("structure")}, format="DICOM")
    store.create_assessor(session, "NASTY_bare")
    store.create_reconstruction(session, "RECON 1", fields={"type": "a/b & c"})


def _shares(store: Store, project: Item, other: Item, subject: Item, session: Item) -> None:
    """What is seen in both projects: under another label there, and something that came back."""
    store.share(subject, other, "SHARED_001")
    store.share(session, other, "SHARED_001_names")
    guest = store.create_subject(other, "GUEST", fields={"gender": "male"})
    visit = store.create_experiment(guest, "GUEST_CT1", "xnat:ctSessionData")
    fill(store, visit, "DATA", {"guest.txt": b"at home in NASTY2\n"})
    store.share(guest, project, "GUEST")
    store.share(visit, project, "GUEST_CT1")
