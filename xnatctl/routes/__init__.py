"""The table of verbs: which source, which sink, and how they are put together. A new verb is a row
here.

    verb               source               sink
    session download   XnatSource           LocalSink: D/LABEL/scans/…, or ZipSink: scans.zip
    subject download   XnatSource           LocalSink: D/SUBJECT/LABEL/scans/…
    resource download  XnatSource           ZipSink: F.zip, or LocalSink: D/…
    project export     XnatSource           BundleSink
      --bids           XnatSource           BidsSink
    project import     XnatSource over a    as project transfer
                       BundleReader
    local extract      ZipSource            LocalSink: beside the archive
    session upload     DicomSource          UploadSink in front of an ArchiveSink
    session            DicomSource          StoreSink: a DICOM receiver
    upload-dicom
    resource upload    FolderSource         ArchiveSink
    project transfer   XnatSource           ArchiveSink (copy), PrearchiveSink in front of it
    (import)
    bench download     XnatSource, again    DiscardSink
    bench upload       MadeUp, again        ArchiveSink
    bench transfer     XnatSource, again    ArchiveSink
"""

from __future__ import annotations

from xnatctl.endpoints.bench import Bodies, DiscardSink, MadeUp, Repeated
from xnatctl.endpoints.bids import Rules
from xnatctl.endpoints.dicom_folder import Exam
from xnatctl.endpoints.entries import Entries, Slot
from xnatctl.endpoints.store_scu import Peer
from xnatctl.endpoints.upload import Intent

from .arrivals import routing_by_hand
from .benches import archive_sink, archive_source, bench
from .deletions import Allowed
from .desk import Desk, Hands, run
from .downloads import Folder, Zip, download, extract
from .exports import (
    Dataset,
    Export,
    Exported,
    ExportEnds,
    export,
    listed_files,
    manifest_rows,
    open_bundle,
    verify_export,
)
from .transfers import TransferEnds, transfer
from .uploads import Dicoms, Uploaded, check_editable, store, upload, upload_resource

__all__ = [
    "Allowed",
    "Bodies",
    "Dataset",
    "Desk",
    "Dicoms",
    "DiscardSink",
    "Entries",
    "Exam",
    "Export",
    "ExportEnds",
    "Exported",
    "Folder",
    "Hands",
    "Intent",
    "MadeUp",
    "Peer",
    "Repeated",
    "Rules",
    "Slot",
    "TransferEnds",
    "Uploaded",
    "Zip",
    "archive_sink",
    "archive_source",
    "bench",
    "check_editable",
    "download",
    "export",
    "extract",
    "listed_files",
    "manifest_rows",
    "open_bundle",
    "routing_by_hand",
    "run",
    "store",
    "transfer",
    "upload",
    "upload_resource",
    "verify_export",
]
