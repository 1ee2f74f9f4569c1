"""`session upload` into a real server, judged by pydicom over what lies on the server's disk."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from tests.integration.uploading import (
    NAMES,
    STUDY,
    Desk,
    entries_in,
    odd_syntaxes,
    receiving,
    series,
    uids_in_archive,
    uids_on_disk,
    write_export,
    write_names,
    write_series,
)
from xnatctl.endpoints.upload import Intent, Mode
from xnatctl.errors import NotFound, PermissionDenied, Refused
from xnatctl.sandbox.faults import Fault


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with receiving(tmp_path) as made:
        yield made


async def test_an_export_arrives_in_the_archive_object_for_object(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    done = await desk.upload(export)
    assert done.report.exit_code == 0, done.report.problems
    assert done.uri == "/data/archive/projects/P/subjects/S1/experiments/E1"
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))
    assert (done.report.files, done.files_sent) == (7, 7)
    assert done.bytes_sent == sum(one.stat().st_size for one in export.rglob("*.dcm"))
    assert entries_in(desk.root) == {}


async def test_eight_kinds_of_names_all_arrive_and_the_litter_is_named(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_names(tmp_path / "export")
    expected = uids_on_disk(export)
    (export / "notes.txt").write_text("T1 repeated")
    (export / "report.pdf").write_bytes(b"%PDF-1.4 \xe2\xe3 binary")
    (export / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (export / "z copy of IM0008").write_bytes((export / "IM0008").read_bytes())
    done = await desk.upload(export)
    assert done.report.exit_code == 0, done.report.problems
    assert len(expected) == len(NAMES)
    assert uids_in_archive(desk.root, "P", "E1") == sorted(expected)
    assert {one.key: one.code for one in done.report.left} == {
        "notes.txt": "other-file",
        "report.pdf": "other-file",
        ".DS_Store": "junk",
        "z copy of IM0008": "duplicate",
    }


@pytest.mark.parametrize("mode", ["zip", "tar", "gradual"])
async def test_every_mode_brings_the_same_objects(desk: Desk, tmp_path: Path, mode: Mode) -> None:
    export = write_export(tmp_path / "export")
    done = await desk.upload(export, intent=Intent(mode=mode))
    assert done.report.exit_code == 0, done.report.problems
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))


async def test_objects_of_other_encodings_arrive_as_they_are(desk: Desk, tmp_path: Path) -> None:
    export = odd_syntaxes(tmp_path / "export")
    done = await desk.upload(export)
    assert done.report.exit_code == 0, done.report.problems
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "list"])
async def test_archives_and_lists_are_read_like_folders(
    desk: Desk, tmp_path: Path, kind: str
) -> None:
    export = write_export(tmp_path / "export")
    path = tmp_path / f"export.{kind}"
    files = sorted(export.rglob("*.dcm"))
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for one in files:
                archive.write(one, one.relative_to(tmp_path))
    elif kind == "list":
        path.write_text("# an export\nexport/t1\n" + "\n".join(map(str, files[-3:])) + "\n")
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            tar.add(export, "export")
    done = await desk.upload(path)
    assert done.report.exit_code == 0, done.report.problems
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))


async def test_an_upload_for_the_prearchive_waits_there_built_and_whole(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    done = await desk.upload(export, intent=Intent("prearchive"))
    assert done.report.exit_code == 0, done.report.problems
    (entry,) = desk.sandbox.prearchive.entries()
    assert entry.status == "READY"
    assert done.uri.endswith(entry.url)
    assert list(entries_in(desk.root).values()) == [sorted(uids_on_disk(export))]
    again = await desk.upload(export, intent=Intent("prearchive"))
    assert (again.report.exit_code, again.files_sent, again.report.files_kept) == (0, 0, 7)


async def test_what_waits_in_the_prearchive_is_archived_without_being_sent_again(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    await desk.upload(export, intent=Intent("prearchive"))
    done = await desk.upload(export)
    assert (done.report.exit_code, done.files_sent) == (0, 0)
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))
    assert entries_in(desk.root) == {}


async def test_the_same_upload_again_sends_nothing(desk: Desk, tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    await desk.upload(export)
    for forget in (False, True):
        if forget:
            desk.state.unlink()
        done = await desk.upload(export)
        assert (done.report.exit_code, done.files_sent, done.report.files_kept) == (0, 0, 7)


async def test_a_session_that_exists_is_a_conflict_unless_told_otherwise(
    desk: Desk, tmp_path: Path
) -> None:
    first = write_export(tmp_path / "export")
    await desk.upload(first)
    before = uids_in_archive(desk.root, "P", "E1")
    write_series(first / "flair", series(9))
    done = await desk.upload(first)
    assert done.report.exit_code == 1
    assert done.report.problems[0].error_kind == "conflict"
    assert "already" in done.report.problems[0].error
    assert uids_in_archive(desk.root, "P", "E1") == before
    assert entries_in(desk.root) == {}

    more = await desk.upload(first, intent=Intent(overwrite="append"))
    assert more.report.exit_code == 0, more.report.problems
    assert more.files_sent == 4
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(first))


async def test_overwriting_replaces_what_is_there(desk: Desk, tmp_path: Path) -> None:
    export = tmp_path / "export"
    (path,) = write_series(export, series(3, slices=1))
    await desk.upload(export)
    changed = pydicom.dcmread(path)
    changed.StationName = "CHANGED"
    changed.save_as(path)
    done = await desk.upload(export, intent=Intent(overwrite="delete"))
    assert done.report.exit_code == 0, done.report.problems
    (stored,) = (desk.root / "archive/P/arc001/E1/SCANS").rglob("*.dcm")
    assert pydicom.dcmread(stored).StationName == "CHANGED"


async def test_a_label_of_another_subject_is_a_conflict_before_anything_is_sent(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    await desk.upload(export, subject="S1")
    other = write_series(tmp_path / "other", series(3, study=replace(STUDY, label="OTHER")))
    done = await desk.upload(other[0].parent, subject="S2")
    assert done.report.problems[0].error_kind == "conflict"
    assert entries_in(desk.root) == {}


async def test_two_studies_are_refused_by_name_and_one_can_be_chosen(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    other = replace(STUDY, label="OTHER")
    write_series(export / "x", series(3, study=other))
    with pytest.raises(Refused) as refused:
        await desk.upload(export)
    assert STUDY.uid in refused.value.why
    assert other.uid in refused.value.why
    assert not desk.sandbox.counters.count("POST", "/import")
    done = await desk.upload(export, study=other.uid)
    assert done.report.exit_code == 0, done.report.problems
    assert len(uids_in_archive(desk.root, "P", "E1")) == 4


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("scan.dcm", b"not DICOM at all", "called DICOM"),
        ("data.bin", bytes(range(256)) * 4, "is not DICOM"),
        ("inner.zip", b"PK\x03\x04" + bytes(100), "an archive"),
        ("cut", None, "its pixels are gone"),
    ],
)
async def test_a_file_that_nobody_can_explain_refuses_the_upload_before_a_byte_is_sent(
    desk: Desk, tmp_path: Path, name: str, body: bytes | None, words: str
) -> None:
    export = write_export(tmp_path / "export")
    expected = uids_on_disk(export)
    (_, whole), *_ = series_files_of(11)
    (export / name).write_bytes(whole[:-50] if body is None else body)
    with pytest.raises(Refused) as refused:
        await desk.upload(export)
    assert name in refused.value.why
    assert words in refused.value.why
    assert entries_in(desk.root) == {}
    done = await desk.upload(export, lenient=True)
    assert done.report.exit_code == 0, done.report.problems
    assert name in [one.key for one in done.report.left]
    assert uids_in_archive(desk.root, "P", "E1") == sorted(expected)


@pytest.mark.parametrize(("kind", "words"), [("link", "No such file"), ("pipe", "no file but")])
async def test_a_file_that_cannot_be_read_is_named_before_a_byte_is_sent(
    desk: Desk, tmp_path: Path, kind: str, words: str
) -> None:
    export = write_export(tmp_path / "export")
    if kind == "link":
        (export / "odd").symlink_to(tmp_path / "nowhere")
    else:
        os.mkfifo(export / "odd")
    with pytest.raises(Refused) as refused:
        await desk.upload(export)
    assert "odd" in refused.value.why and words in refused.value.why
    assert not desk.sandbox.counters.count("POST", "/import")


def series_files_of(number: int) -> list[tuple[str, bytes]]:
    from xnatctl.sandbox.phantom import series_files

    return list(series_files(series(number)))


async def test_two_objects_with_one_uid_are_a_clash(desk: Desk, tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    path = next(export.rglob("*.dcm"))
    other = pydicom.dcmread(path)
    other.StationName = "ELSEWHERE"
    other.save_as(export / "other.dcm")
    with pytest.raises(Refused, match="cannot be sent"):
        await desk.upload(export)


async def test_a_folder_without_files_or_without_dicom_says_so(desk: Desk, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(NotFound, match="no file"):
        await desk.upload(empty)
    (empty / "a.txt").write_text("text")
    with pytest.raises(Refused, match="no DICOM"):
        await desk.upload(empty)
    with pytest.raises(NotFound, match="nothing at"):
        await desk.upload(tmp_path / "missing")


async def test_a_project_that_is_not_there_is_found_before_anything_is_sent(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    with pytest.raises(NotFound, match="no project NOPE"):
        await desk.upload(export, project="NOPE")
    assert not desk.sandbox.counters.count("POST", "/import")


async def test_a_project_that_may_only_be_read_is_found_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    export = write_export(tmp_path / "export")
    async with receiving(tmp_path, users={"admin": "admin", "reader": "reader"}) as desk:
        desk.sandbox.store.set_setting("P", "accessibility", "public")
        with pytest.raises(PermissionDenied, match="may not write into project P"):
            await desk.upload(export, login="reader")
        assert not desk.sandbox.counters.count("POST", "/import")


async def test_a_dry_run_sends_nothing_and_says_what_it_would_do(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    done = await desk.upload(export, dry_run=True)
    assert done.report.exit_code == 0
    assert not desk.sandbox.counters.count("POST", "/import")
    assert desk.sandbox.prearchive.entries() == []


async def test_a_body_that_is_cut_off_is_sent_again_and_nothing_is_there_twice(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    desk.sandbox.faults.add(Fault("POST /data/services/import*", "cut", nth=2, at=3000))
    done = await desk.upload(export)
    assert done.report.exit_code == 0, done.report.problems
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))
    assert entries_in(desk.root) == {}


async def test_a_lost_answer_of_the_archive_service_is_waited_out_and_never_sent_again(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    desk.sandbox.faults.add(Fault("POST /data/services/archive*", "lose-answer", nth=1))
    done = await desk.upload(export)
    assert done.report.exit_code == 0, done.report.problems
    assert desk.sandbox.counters.count("POST", "/services/archive") == 1
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))


async def test_an_entry_that_was_archived_while_the_server_could_not_be_asked_is_done(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    desk.sandbox.faults.add(Fault("POST /data/services/archive*", "lose-answer", nth=1))
    # The fourth look at the entry is the first after that; all its tries fail.
    look = "GET /data/prearchive/projects/P/*/E1"
    desk.sandbox.faults.add(Fault(look, "status", nth=4, times=3, status=500))
    done = await desk.upload(export)
    assert done.report.exit_code == 0, done.report.problems
    assert desk.sandbox.faults.unused() == []
    assert desk.sandbox.counters.count("POST", "/services/archive") == 1
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))


async def test_a_failed_upload_leaves_its_entry_and_the_same_command_goes_on_in_it(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    # The first series arrives, all tries of the second fail.
    desk.sandbox.faults.add(
        Fault("POST /data/services/import*", "status", nth=2, times=3, status=500)
    )
    failed = await desk.upload(export)
    assert failed.report.exit_code == 1
    (entry,) = desk.sandbox.prearchive.entries()
    assert failed.uri.endswith(entry.url)
    assert not (desk.root / "archive/P/arc001/E1").exists()
    done = await desk.upload(export)
    assert done.report.exit_code == 0, done.report.problems
    assert done.files_sent == 3
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))
    assert entries_in(desk.root) == {}


async def test_without_the_state_store_an_interrupted_upload_is_still_completed_once(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    desk.sandbox.faults.add(
        Fault("POST /data/services/import*", "status", nth=2, times=3, status=500)
    )
    await desk.upload(export)
    desk.state.unlink()
    done = await desk.upload(export)
    assert done.report.exit_code == 0, done.report.problems
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))
    assert entries_in(desk.root) == {}


async def test_objects_that_the_server_refuses_fail_the_upload_and_keep_the_entry(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    path = next((export / "t1").iterdir())
    noise = pydicom.dcmread(path)
    noise.SeriesDescription = "NOISE"
    noise.save_as(path)
    desk.sandbox.store.set_setting("P", "series_filter", "NOISE")
    done = await desk.upload(export)
    assert done.report.exit_code == 1
    assert "1 of 7 objects did not arrive" in done.report.problems[0].error
    assert "sent twice" in done.report.problems[0].error
    assert not (desk.root / "archive/P/arc001/E1").exists()
    (entry,) = desk.sandbox.prearchive.entries()
    assert done.uri.endswith(entry.url)


async def test_a_series_of_which_nothing_was_kept_fails_the_upload(
    desk: Desk, tmp_path: Path
) -> None:
    export = tmp_path / "export"
    write_series(export, replace(series(9), description="NOISE"))
    desk.sandbox.store.set_setting("P", "series_filter", "NOISE")
    done = await desk.upload(export)
    assert done.report.exit_code == 1
    assert "4 of 4 objects did not arrive" in done.report.problems[0].error


async def test_a_server_that_ignores_the_flags_is_refused_where_it_archives_by_itself(
    tmp_path: Path,
) -> None:
    export = write_export(tmp_path / "export")
    async with receiving(tmp_path, import_flags=False) as desk:
        desk.sandbox.store.set_setting("P", "prearchive_code", "4")
        done = await desk.upload(export)
        assert done.report.exit_code == 1
        assert "does not keep uploads waiting" in done.report.problems[0].error
        desk.sandbox.store.set_setting("P", "prearchive_code", "0")
        done = await desk.upload(export)
        assert done.report.exit_code == 0, done.report.problems


async def test_a_direct_upload_reaches_the_archive_without_the_prearchive(
    desk: Desk, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export")
    done = await desk.upload(export, intent=Intent("direct"))
    assert done.report.exit_code == 0, done.report.problems
    assert uids_in_archive(desk.root, "P", "E1") == sorted(uids_on_disk(export))
    assert entries_in(desk.root) == {}
