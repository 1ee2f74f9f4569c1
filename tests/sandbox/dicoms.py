"""Small genuine DICOM objects for imports."""

from __future__ import annotations

import io

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from .conftest import zipped


def dicom(
    number: int = 1,
    *,
    study: str = "1.2.3",
    series: str = "1.2.3.3",
    scan: int = 3,
    patient: str = "S",
    label: str = "E",
    comments: str = "",
    modality: str = "MR",
    padding: int = 0,
) -> bytes:
    """One object of a series; `padding` makes it larger."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = UID(f"{series}.{number}")
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = MRImageStorage
    data.SOPInstanceUID = f"{series}.{number}"
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    data.Modality, data.SeriesNumber, data.InstanceNumber = modality, scan, number
    data.SeriesDescription = "t1 mprage"
    data.StudyDate, data.StudyTime = "20240228", "093000"
    data.PatientName, data.PatientID = patient, label
    data.InstitutionName = "Somewhere"
    if comments:
        data.PatientComments = comments
    data.Rows = data.Columns = 2
    data.BitsAllocated, data.SamplesPerPixel, data.PixelRepresentation = 8, 1, 0
    data.PixelData = b"\1\2\3\4" + b"\0" * padding
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


def study(count: int = 3, **facts: object) -> bytes:
    """A zip of a series."""
    return zipped(
        {f"{i}.dcm": dicom(i, **facts) for i in range(1, count + 1)}  # type: ignore[arg-type]
    )
