"""Made-up imaging data, the same on every run: DICOM series, NIfTI volumes, pictures, documents.

Nothing here reads a clock or a random source: every UID, name and pixel follows from the arguments.

A synthetic series is a head-like phantom: three ellipsoids, one in another, with a gradient along
each axis, so that a flipped or swapped slice shows. The header of a series is written once by
pydicom; each slice is that header with four values of fixed width patched in, and its pixels,
which are rows of arithmetic progressions. So hundreds of slices take a moment, without numpy.

Genuine files are those that the installed pydicom carries for its own tests. They get the UIDs,
the patient and the series number of the session that they are put into; pixels, transfer syntax
and everything else stay.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import sys
import warnings
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

UID_ROOT = "1.2.826.0.1.3680043.10.1562."
_MARK_POSITION = -999.25
_SOP_CLASSES = {
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}

GENUINE = {
    "MR": (
        "MR_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ),
    "CT": ("CT_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"),
    "OT": ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle_2frame.dcm", "image_dfl.dcm"),
    "SEG": ("liver_1frame.dcm",),
    "SR": ("test-SR.dcm",),
    "US": ("examples_ybr_color.dcm",),
}
"""Genuine files by modality: uncompressed of each byte order, RLE, JPEG, JPEG-LS, JPEG 2000,
deflated; multi-frame, segmentation, report."""


def uid(*parts: object) -> str:
    """A UID of 64 characters that follows from the parts."""
    seed = "/".join(map(str, parts)).encode()
    number = int.from_bytes(hashlib.sha512(seed).digest(), "big")
    return UID_ROOT + str(number)[: 64 - len(UID_ROOT)]


@dataclass(frozen=True, slots=True)
class Study:
    """What all objects of one session share. `date` is YYYYMMDD, `time` HHMMSS."""

    label: str
    patient_id: str
    patient_name: str
    date: str = "20240301"
    time: str = "101500"
    sex: str = "O"
    birth_date: str = ""

    @property
    def uid(self) -> str:
        """The Study Instance UID."""
        return uid("study", self.label)


@dataclass(frozen=True, slots=True)
class Series:
    """One synthetic scan: `columns` x `rows` x `slices` voxels of `voxel_mm`."""

    study: Study
    scan: str
    number: int
    modality: str = "MR"
    description: str = "T1w"
    columns: int = 128
    rows: int = 128
    slices: int = 16
    voxel_mm: tuple[float, float, float] = (1.5, 1.5, 4.0)

    @property
    def uid(self) -> str:
        """The Series Instance UID."""
        return uid("series", self.study.label, self.scan)


# --- voxels -------------------------------------------------------------------------------------

# Ellipsoids, outermost first: centre and half axes as fractions of the field of view, base value.
_ELLIPSOIDS = (
    ((0.50, 0.50, 0.50), (0.42, 0.46, 0.48), 300),
    ((0.50, 0.48, 0.50), (0.36, 0.40, 0.42), 700),
    ((0.42, 0.55, 0.45), (0.10, 0.13, 0.20), 1500),
)


def plane(series: Series, z: int) -> bytes:
    """The voxels of slice `z`, from 0: unsigned 16 bit, little endian, row after row."""
    columns, rows = series.columns, series.rows
    voxels = array("H", bytes(2 * columns * rows))
    for (cx, cy, cz), (ax, ay, az), base in _ELLIPSOIDS:
        dz = ((z + 0.5) / series.slices - cz) / az
        for y in range(rows):
            dy = ((y + 0.5) / rows - cy) / ay
            inside = 1 - dy * dy - dz * dz
            if inside <= 0:
                continue
            half = ax * inside**0.5
            left = max(0, round((cx - half) * columns))
            right = min(columns, round((cx + half) * columns))
            first = base + left + 2 * y + 3 * z
            voxels[y * columns + left : y * columns + right] = array(
                "H", range(first, first + right - left)
            )
    if sys.byteorder == "big":
        voxels.byteswap()
    return voxels.tobytes()


# --- synthetic DICOM ----------------------------------------------------------------------------


def series_files(series: Series) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each slice as a complete DICOM file."""
    head = _encode(_series_header(series))
    marks = _slice_elements(series, 0, _MARK_POSITION)
    pixels = struct.pack("<2H2s2xI", 0x7FE0, 0x0010, b"OW", 2 * series.columns * series.rows)
    for z in range(series.slices):
        values = _slice_elements(series, z + 1, (z - series.slices / 2) * series.voxel_mm[2])
        data = head
        for mark, value in zip(marks, values, strict=True):
            data = data.replace(mark, value)
        yield f"{series.modality}-{z + 1:04d}.dcm", data + pixels + plane(series, z)


def _slice_elements(series: Series, number: int, position: float) -> tuple[bytes, ...]:
    """The encoded values that differ between slices, each as long as in any other slice."""
    corner = _corner(series)
    return (
        uid("object", series.study.label, series.scan, number).encode(),
        _element(0x0020, 0x0013, "IS", f"{number:08d}"),
        _element(0x0020, 0x0032, "DS", f"{corner}\\{corner}\\{position:+010.3f}"),
        _element(0x0020, 0x1041, "DS", f"{position:+010.3f}"),
    )


def _corner(series: Series) -> str:
    return f"{-series.columns * series.voxel_mm[0] / 2:+08.2f}"


def _element(group: int, element: int, vr: str, text: str) -> bytes:
    value = text.encode() + b" " * (len(text) % 2)
    return struct.pack("<2H2sH", group, element, vr.encode(), len(value)) + value


def _series_header(series: Series) -> Dataset:
    """The data set of a series without pixels, its slice values being those of slice 0."""
    study, corner = series.study, _corner(series)
    data = _object(study, _SOP_CLASSES[series.modality], uid("object", study.label, series.scan, 0))
    data.ImageType = ["ORIGINAL", "PRIMARY", *_IMAGE_TYPE[series.modality]]
    data.SeriesDate = data.AcquisitionDate = data.ContentDate = study.date
    data.SeriesTime = data.AcquisitionTime = data.ContentTime = study.time
    data.Modality = series.modality
    data.Manufacturer = "Sandbox Imaging"
    data.ManufacturerModelName = f"Phantom {series.modality}"
    data.InstitutionName = "Sandbox Hospital"
    data.StationName = f"{series.modality}01"
    data.SoftwareVersions = "1.0"
    data.SeriesDescription = data.ProtocolName = series.description
    data.PatientPosition = "HFS"
    data.BodyPartExamined = "HEAD"
    data.SeriesInstanceUID = series.uid
    data.SeriesNumber = series.number
    data.AcquisitionNumber = 1
    data.InstanceNumber = f"{0:08d}"
    data.ImagePositionPatient = [corner, corner, f"{_MARK_POSITION:+010.3f}"]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.FrameOfReferenceUID = uid("frame", study.label)
    data.SliceLocation = f"{_MARK_POSITION:+010.3f}"
    data.SliceThickness = data.SpacingBetweenSlices = series.voxel_mm[2]
    data.PixelSpacing = [series.voxel_mm[1], series.voxel_mm[0]]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = series.rows, series.columns
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = 0
    data.WindowCenter, data.WindowWidth = 1200, 2400
    _ADD[series.modality](data, series)
    return data


def _object(study: Study, sop_class: str, sop_uid: str) -> Dataset:
    """The patient and study part of any object."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID, data.SOPInstanceUID = sop_class, sop_uid
    data.StudyDate, data.StudyTime = study.date, study.time
    data.AccessionNumber = hashlib.sha256(study.label.encode()).hexdigest()[:12].upper()
    data.ReferringPhysicianName = "Referring^Rita"
    data.StudyDescription = "Sandbox phantom"
    data.PatientName, data.PatientID = study.patient_name, study.patient_id
    data.PatientBirthDate, data.PatientSex = study.birth_date, study.sex
    data.StudyInstanceUID = study.uid
    data.StudyID = "1"
    return data


_IMAGE_TYPE = {"MR": ("M", "ND"), "CT": ("AXIAL",), "PT": ()}


def _add_mr(data: Dataset, series: Series) -> None:
    data.ScanningSequence, data.SequenceVariant, data.ScanOptions = "GR", "SK", ""
    data.MRAcquisitionType = "3D"
    data.RepetitionTime, data.EchoTime, data.InversionTime = 2300, 2.98, 900
    data.FlipAngle, data.EchoTrainLength = 9, 1
    data.MagneticFieldStrength, data.ImagedNucleus = 3, "1H"


def _add_ct(data: Dataset, series: Series) -> None:
    data.KVP, data.XRayTubeCurrent, data.ExposureTime = 120, 200, 500
    data.ConvolutionKernel = "H30s"
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -1024, 1, "HU"


def _add_pt(data: Dataset, series: Series) -> None:
    data.Units, data.CountsSource = "BQML", "EMISSION"
    data.SeriesType = ["STATIC", "IMAGE"]
    data.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"]
    data.DecayCorrection, data.NumberOfSlices = "START", series.slices
    data.ActualFrameDuration, data.FrameReferenceTime = 600_000, 0
    data.RescaleIntercept, data.RescaleSlope = 0, 4
    drug = Dataset()
    drug.Radiopharmaceutical = "Fluorodeoxyglucose"
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 370_000_000, 6586.2
    drug.RadiopharmaceuticalStartTime = "091500"
    data.RadiopharmaceuticalInformationSequence = [drug]


_ADD = {"MR": _add_mr, "CT": _add_ct, "PT": _add_pt}


def _encode(data: Dataset) -> bytes:
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Envelope:
    """Headers for bodies of `size` bytes whose pixels come from elsewhere.

    `header(n)` is everything before the pixels of object `n` (from 1); all headers of a series
    are of one length, and `size` minus that length bytes of any kind make the file complete.
    """

    series: Series
    size: int
    _template: bytes

    SMALLEST = 4_096
    LARGEST = 512_000_000

    @classmethod
    def of(cls, series: Series, size: int) -> Envelope:
        """Raises ValueError for a size that is odd or not between SMALLEST and LARGEST."""
        if size % 2 or not cls.SMALLEST <= size <= cls.LARGEST:
            raise ValueError(f"{size} bytes are no size for a DICOM file of this kind")
        data = _series_header(series)
        data.ImageComments = ""
        room = size - len(_encode(data)) - 12
        data.Columns = next(n for n in (16, 256, 4096) if room // (2 * n) < 1 << 16)
        data.Rows = room // (2 * data.Columns)
        data.ImageComments = " " * (room % (2 * data.Columns))
        pixels = 2 * data.Columns * data.Rows
        tail = struct.pack("<2H2s2xI", 0x7FE0, 0x0010, b"OW", pixels)
        return cls(series, size, _encode(data) + tail)

    def header(self, number: int) -> bytes:
        marks = _slice_elements(self.series, 0, _MARK_POSITION)
        values = _slice_elements(self.series, number, number % 1000 - 500.0)
        header = self._template
        for mark, value in zip(marks, values, strict=True):
            header = header.replace(mark, value)
        return header


# --- genuine DICOM ------------------------------------------------------------------------------


def genuine(name: str, study: Study, scan: str, number: int, instance: int = 1) -> bytes:
    """A file of pydicom's own, re-labelled for a scan of a session.

    Raises FileNotFoundError when the installed pydicom does not carry it.
    """
    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of them are odd on purpose
        data = pydicom.dcmread(path)
        data.PatientName, data.PatientID = study.patient_name, study.patient_id
        data.StudyInstanceUID = study.uid
        data.StudyDate, data.StudyTime = study.date, study.time
        data.SeriesInstanceUID = uid("series", study.label, scan)
        data.SeriesNumber = number
        data.InstanceNumber = instance
        data.SOPInstanceUID = uid("genuine", study.label, scan, name, instance)
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        out = io.BytesIO()
        data.save_as(out, enforce_file_format=True)
    return out.getvalue()


# --- other formats ------------------------------------------------------------------------------


def nifti(series: Series) -> bytes:
    """The volume of a series as a gzipped NIfTI-1 file."""
    dx, dy, dz = series.voxel_mm
    header = bytearray(352)  # 348 and the empty extension mark
    struct.pack_into("<i", header, 0, 348)
    dimensions = (3, series.columns, series.rows, series.slices, 1, 1, 1, 1)
    struct.pack_into("<8h", header, 40, *dimensions)
    struct.pack_into("<2h", header, 70, 512, 16)  # unsigned 16 bit
    struct.pack_into("<8f", header, 76, 1, dx, dy, dz, 1, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    header[123] = 2  # millimetres
    struct.pack_into("<80s", header, 148, series.description.encode()[:79])
    struct.pack_into("<2h", header, 252, 0, 1)  # no quaternion, an affine by rows
    origin = (-dx * series.columns / 2, -dy * series.rows / 2, -dz * series.slices / 2)
    affine = (dx, 0, 0, origin[0], 0, dy, 0, origin[1], 0, 0, dz, origin[2])
    struct.pack_into("<12f", header, 280, *affine)
    header[344:348] = b"n+1\0"
    voxels = b"".join(plane(series, z) for z in range(series.slices))
    return gzip.compress(bytes(header) + voxels, compresslevel=1, mtime=0)


def sidecar(series: Series) -> bytes:
    """The JSON that stands beside a NIfTI file in the manner of BIDS."""
    facts = {
        "Modality": series.modality,
        "Manufacturer": "Sandbox Imaging",
        "ManufacturersModelName": f"Phantom {series.modality}",
        "SeriesDescription": series.description,
        "SeriesNumber": series.number,
        "SeriesInstanceUID": series.uid,
        "SliceThickness": series.voxel_mm[2],
        "ConversionSoftware": "sandbox",
    }
    return json.dumps(facts, indent=2).encode() + b"\n"


def _grey(series: Series, step: int) -> tuple[int, int, list[bytes]]:
    """Width, height and rows of 7-bit grey of the middle slice, each `step`-th pixel."""
    voxels = array("H", plane(series, series.slices // 2))
    if sys.byteorder == "big":
        voxels.byteswap()
    rows = [
        bytes(
            min(127, value >> 4) for value in voxels[y * series.columns :][: series.columns][::step]
        )
        for y in range(0, series.rows, step)
    ]
    return len(rows[0]), len(rows), rows


def png(series: Series, step: int = 1) -> bytes:
    """The middle slice as a grey PNG picture."""
    width, height, rows = _grey(series, step)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    lines = b"".join(b"\0" + bytes(2 * value for value in row) for row in rows)
    head = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def gif(series: Series, step: int = 1) -> bytes:
    """The middle slice as a GIF picture, as XNAT's snapshots are.

    Codes stay eight bits wide because the dictionary is cleared before it grows past that, so
    pixels are their own codes.
    """
    width, height, rows = _grey(series, step)
    palette = b"".join(bytes((2 * grey, 2 * grey, 2 * grey)) for grey in range(128))
    pixels = b"".join(rows)
    codes = b"".join(b"\x80" + pixels[at : at + 120] for at in range(0, len(pixels), 120)) + b"\x81"
    blocks = (codes[at : at + 255] for at in range(0, len(codes), 255))
    body = b"".join(bytes((len(block),)) + block for block in blocks)
    screen = struct.pack("<6s2H3B", b"GIF89a", width, height, 0xF6, 0, 0)
    image = struct.pack("<B4HB", 0x2C, 0, 0, width, height, 0)
    return screen + palette + image + b"\x07" + body + b"\0;"


def pdf(text: str) -> bytes:
    """A one-page PDF with one line of ASCII text."""
    content = f"BT /F1 14 Tf 72 770 Td ({text}) Tj ET"
    objects = (
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    out, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    end = f"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return f"{out}xref\n0 6\n0000000000 65535 f \n{table}{end}".encode()
