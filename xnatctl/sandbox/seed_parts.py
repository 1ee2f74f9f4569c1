"""What every seed is made of: resources filled with files, and scans with a synthetic series."""

from __future__ import annotations

from collections.abc import Mapping

from . import phantom
from .bodies import Generated
from .catalog import Resource
from .database import SandboxError
from .store import Item, Store

MTIME = 1_709_290_800.0  # 2024-03-01: the same on every run, like everything else in a seed


class SeedError(SandboxError):
    """A seed that cannot be parsed, or that does not fit what is already there."""


def fill(
    store: Store,
    item: Item,
    label: str,
    files: Mapping[str, bytes | Generated],
    *,
    format: str = "",
    content: str = "",
    description: str = "",
    tags: str = "",
    bucket: str = "",
) -> Resource:
    """A new resource of an item, holding these files by path."""
    resource = store.create_resource(
        item,
        label,
        bucket=bucket,
        format=format,
        content=content,
        description=description,
        tags=tags,
    )
    for path, body in files.items():
        store.add_file(resource, path, body, stats=False, mtime=MTIME)
    store.refresh_stats(resource)
    return store.resource(resource.id)


def new_project(store: Store, code: str, fields: Mapping[str, str] | None = None) -> Item:
    """A new project. Raises SeedError when its ID is or was in use."""
    taken = store.row(
        "SELECT 1 FROM items WHERE kind='project' AND code=? COLLATE NOCASE "
        "UNION SELECT 1 FROM used_codes WHERE code=?",
        code,
        code,
    )
    if taken:
        raise SeedError(
            f"the sandbox cannot be seeded with {code}",
            f"it has, or had, a project {code}",
            "Choose an empty folder, or leave the seed out",
        )
    return store.create_project(code, fields=fields)


def scan_fields(series: phantom.Series) -> dict[str, str]:
    """The metadata that XNAT derives from the objects of a series."""
    x, y, z = series.voxel_mm
    return {
        "type": series.description,
        "series_description": series.description,
        "quality": "usable",
        "UID": series.uid,
        "modality": series.modality,
        "frames": str(series.slices),
        "startTime": "10:15:00",
        "scanner/manufacturer": "Sandbox Imaging",
        "scanner/model": f"Phantom {series.modality}",
        "parameters/voxelRes/x": f"{x:g}",
        "parameters/voxelRes/y": f"{y:g}",
        "parameters/voxelRes/z": f"{z:g}",
        "parameters/fov/x": str(series.columns),
        "parameters/fov/y": str(series.rows),
    }


def synthetic_scan(store: Store, session: Item, series: phantom.Series, **fields: str) -> Item:
    """A new scan with the series as its resource DICOM; `fields` replace derived metadata."""
    kind = {"MR": "mr", "CT": "ct", "PT": "pet"}[series.modality]
    scan = store.create_scan(
        session, series.scan, f"xnat:{kind}ScanData", fields=scan_fields(series) | fields
    )
    files = dict(phantom.series_files(series))
    fill(store, scan, "DICOM", files, format="DICOM", content="RAW")
    return scan
