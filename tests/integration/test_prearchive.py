"""Waiting for a server that takes its time, and looking into entries."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.uploading import (
    STUDY,
    connect,
    entries_in,
    receiving,
    series,
    uids_in_archive,
    uids_on_disk,
    write_export,
    write_series,
)
from xnatctl.endpoints.entries import Entries, Slot
from xnatctl.endpoints.upload import Intent
from xnatctl.errors import Conflict, LocalFault, Refused, ServerFault
from xnatctl.retry import Waiting
from xnatctl.sandbox.faults import Fault
from xnatctl.xnat.imports import Imports

PATIENT = Waiting(poll=0.02, poll_most=0.1, build=5.0, archive=5.0)


async def test_an_archive_request_that_times_out_is_waited_for_and_never_sent_again(
    tmp_path: Path,
) -> None:
    export = write_export(tmp_path / "export")
    async with receiving(tmp_path, archive_s=0.4, archive_timeout_s=0.05) as desk:
        done = await desk.upload(export)
        assert done.report.exit_code == 0, done.report.problems
        assert desk.sandbox.counters.count("POST", "/services/archive", 500) == 1
        assert desk.sandbox.counters.count("POST", "/services/archive") == 1
        assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))


async def test_a_conflict_behind_a_lost_answer_is_told_with_the_reason_of_the_log(
    tmp_path: Path,
) -> None:
    async with receiving(tmp_path) as desk:
        await desk.upload(write_export(tmp_path / "export"), intent=Intent("prearchive"))
        (row,) = desk.sandbox.prearchive.entries()
        desk.sandbox.prearchive.set_status(row, "CONFLICT", "the label is taken")
        # The proxy gives up, and what the server came to can only be read from the entry.
        desk.sandbox.faults.add(
            Fault("POST /data/services/archive*", "status", nth=1, times=1, status=504)
        )
        async with connect(desk.sandbox) as xnat:
            (entry,) = await Imports(xnat).list_entries("P")
            with pytest.raises(Conflict, match="the label is taken"):
                await Entries(xnat, waiting=PATIENT).archive(entry, Slot("P", "S1", "E1"))
        assert desk.sandbox.counters.count("POST", "/services/archive") <= 1


async def test_a_server_that_never_ends_archiving_is_told_so_with_the_way_on(
    tmp_path: Path,
) -> None:
    async with receiving(tmp_path, archive_s=5.0, archive_timeout_s=0.05) as desk:
        await desk.upload(write_export(tmp_path / "export"), intent=Intent("prearchive"))
        async with connect(desk.sandbox) as xnat:
            entries = Entries(xnat, waiting=replace(PATIENT, archive=0.2))
            (entry,) = await Imports(xnat).list_entries("P")
            with pytest.raises(ServerFault, match="still archiving") as still:
                await entries.archive(entry, Slot("P", "S1", "E1"))
            assert "do not upload it twice" in still.value.hint


async def test_objects_that_a_server_renamed_are_known_by_their_content(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    async with receiving(tmp_path) as desk:
        await desk.upload(export, intent=Intent("prearchive", mode="gradual"))
        async with connect(desk.sandbox) as xnat:
            entries = Entries(xnat, waiting=PATIENT)
            (entry,) = await Imports(xnat).list_entries("P")
            assert await entries.uids(entry) == uids_on_disk(export)
            assert await entries.studies(entry) == {STUDY.uid}


async def test_an_entry_with_objects_of_another_upload_is_left_alone(tmp_path: Path) -> None:
    export = tmp_path / "export"
    one, *_ = write_series(export, series(3))
    async with receiving(tmp_path) as desk:
        await desk.upload(export, intent=Intent("prearchive"))
        one.unlink()
        done = await desk.upload(export)
        assert done.report.exit_code == 1
        assert "objects of another upload" in done.report.problems[0].error
        assert not (desk.root / "archive/P/arc001/E1").exists()
        assert [len(uids) for uids in entries_in(desk.root).values()] == [4]


async def test_archives_that_cannot_be_read_are_named_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    export = write_export(tmp_path / "export")
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for path in sorted(export.rglob("*.dcm")):
            archive.write(path, path.name if path.parent.name == "t1" else f"2/{path.name}")
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:-200])
    nested = tmp_path / "nested.zip"
    with zipfile.ZipFile(nested, "w") as archive:
        archive.write(whole, "inner.zip")
        archive.write(next(export.rglob("*.dcm")), "a.dcm")
    locked = tmp_path / "locked.zip"
    body = bytearray(whole.read_bytes())
    # Set the bit "encrypted" in every local and central header.
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = body.find(mark)
        while at >= 0:
            body[at + offset] |= 1
            at = body.find(mark, at + 4)
    locked.write_bytes(body)
    async with receiving(tmp_path) as desk:
        with pytest.raises(LocalFault, match=r"cut\.zip is no whole zip"):
            await desk.upload(cut)
        with pytest.raises(Refused) as refused:
            await desk.upload(nested)
        assert "inner.zip: it is an archive" in refused.value.why
        with pytest.raises(Refused) as refused:
            await desk.upload(locked)
        assert "it is encrypted" in refused.value.why
        assert not desk.sandbox.counters.count("POST", "/import")
