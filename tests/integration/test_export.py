"""Exports over several nights, judged by the disk and by what the server was asked for."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import bagit
import pytest

from tests.integration.conftest import Bench, connect
from tests.integration.everything import SESSION, account, add_the_rest
from tests.integration.oracle import files_of, leftovers
from tests.integration.test_everything import differing
from xnatctl import routes
from xnatctl.endpoints.manifest import Ledger
from xnatctl.engine.events import Event, ItemDone
from xnatctl.engine.runner import Stop
from xnatctl.engine.types import Report, Rule, Selection
from xnatctl.errors import Conflict, LocalFault
from xnatctl.model import Ref
from xnatctl.retry import Waiting
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.store import Store


async def export(
    bench: Bench,
    out: Path,
    *,
    stop_after: int | None = None,
    selection: Selection | None = None,
    **into: Any,
) -> routes.Exported:
    """One night. With `stop_after` it is asked to stop when so many items are done."""
    stop = Stop()
    bench.events.clear()

    def watch(event: Event) -> None:
        done = sum(isinstance(one, ItemDone) for one in bench.events)
        if stop_after is not None and done >= stop_after and not stop.asked.is_set():
            stop.ask("enough", 143)

    bench.here.counters.reset()
    async with bench.desk("export", stop=stop) as desk, connect(bench.here) as source:
        desk.bus.add(watch)
        return await routes.export(
            desk, source, selection or Selection(Ref("DEMO")), into=routes.Export(out, **into)
        )


def tree(root: Path) -> dict[str, bytes]:
    """What a reader of an export sees: all but our own folder."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".xnatctl" not in path.parts
    }


def data(root: Path) -> dict[str, bytes]:
    return {name: body for name, body in tree(root).items() if "/files/" in name}


def rows(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]


def digests(root: Path) -> list[str]:
    return sorted(hashlib.md5(body).hexdigest() for body in data(root).values())


def at_server(bench: Bench) -> list[str]:
    return sorted(one[4] for one in files_of(bench.source, "DEMO"))


def session_folder(root: Path, label: str) -> Path:
    return root / "subjects" / label[:8] / "sessions" / label


def change(store: Store) -> int:
    """A night's changes: a file more, a file altered, a session gone. The bytes that arrive."""
    project = store.find_project("DEMO")
    assert project is not None
    session = store.find_experiment("DEMO_002_MR1", project)
    gone = store.find_experiment("DEMO_003_US1", project)
    assert session is not None and gone is not None
    own = next(one for one in store.resources(session) if one.label == "PHYSIO")
    store.add_file(own, "new.csv", b"n" * 1234)
    store.add_file(own, "pulse.csv", b"p" * 4321)
    store.refresh_stats(own)
    store.delete(gone, remove_files=True)
    return 1234 + 4321


async def test_an_export_holds_every_file_with_its_documents_and_its_digests(
    demo: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = await export(demo, out)

    assert (done.report.exit_code, done.finished, done.folder) == (0, True, out)
    assert digests(out) == at_server(demo)
    found = tree(out)
    session = "subjects/DEMO_001/sessions/DEMO_001_MR1"
    for name in (
        "project.xml",
        "project.json",
        "settings/prearchive_code",
        "subjects/DEMO_001/subject.xml",
        "subjects/DEMO_001/subject.json",
        f"{session}/session.xml",
        f"{session}/session.json",
        f"{session}/assessors/DEMO_001_MR1_QC1/assessor.xml",
        f"{session}/assessors/DEMO_001_MR1_QC1/assessor.json",
        f"{session}/scans/2/resources/NIFTI/files/DEMO_001_MR1_2.nii.gz",
    ):
        assert name in found, name
    listed = rows(out)
    assert {row["path"] for row in listed} == set(found) - {"manifest.jsonl"}
    for row in listed:
        body = found[row["path"]]
        assert row["size"] == len(body)
        assert row["md5"] == hashlib.md5(body).hexdigest()
        assert row["sha256"] == hashlib.sha256(body).hexdigest()
        assert row["server"] == demo.here.url
        assert row["source"].startswith((f"{demo.here.url}/data/", f"{demo.here.url}/xapi/custom"))
        assert row.keys() == {
            *("path", "size", "md5", "sha256", "source", "server", "version", "time")
        }


async def test_every_row_names_an_address_that_gives_the_same_bytes(
    demo: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await export(demo, out)
    async with connect(demo.here) as xnat:
        for row in [one for one in rows(out) if "/custom-fields/" not in one["source"]][::29]:
            path = row["source"].removeprefix(demo.here.url)
            path, _, query = path.partition("?format=")
            params = {"format": query} if query else None
            reply = await xnat.transport.request("GET", path, params=params)
            assert reply.body == (out / row["path"]).read_bytes(), row["path"]


@pytest.mark.parametrize("forget", ["nothing", "the state store", "the pages"])
async def test_a_second_export_moves_no_file_data(demo: Bench, tmp_path: Path, forget: str) -> None:
    out = tmp_path / "out"
    await export(demo, out)
    before = tree(out)
    if forget == "the state store":
        (demo.folder / "state.db").unlink()
    if forget == "the pages":
        shutil.rmtree(out / ".xnatctl" / "units")

    done = await export(demo, out)

    assert (done.report.exit_code, done.report.files, done.report.bytes) == (0, 0, 0)
    assert demo.here.counters.count("GET", "/files/", 200) == 0
    after = tree(out)
    if forget == "the pages":
        # The rows were made anew, so the time of arrival is another.
        assert before.pop("manifest.jsonl") and after.pop("manifest.jsonl")
        assert digests(out) == at_server(demo)
        assert {name for name in after if "/files/" in name} <= set(before)
    else:
        assert after == before


@pytest.mark.parametrize("deletions", ["report", "trash", "delete"])
async def test_the_second_night_of_a_mirror_moves_exactly_the_changes(
    demo: Bench, tmp_path: Path, deletions: Any
) -> None:
    out = tmp_path / "out"
    await export(demo, out)
    lost = {name: body for name, body in tree(out).items() if "DEMO_003_US1" in name}
    moved = change(demo.here.store)

    done = await export(demo, out, deletions=deletions)

    assert done.report.exit_code == 0, done.report.problems
    assert (done.report.files, done.report.bytes) == (2, moved)
    assert set(done.only_here) == set(lost)
    there = {name for name in tree(out) if "DEMO_003_US1" in name}
    assert there == (set(lost) if deletions == "report" else set())
    if deletions != "report":
        assert digests(out) == at_server(demo)
        assert {row["path"] for row in rows(out)} == set(tree(out)) - {"manifest.jsonl"}
    trash = list((out / ".xnatctl" / "trash").rglob("*.dcm"))
    assert bool(trash) == (deletions == "trash")

    third = await export(demo, out, deletions=deletions)
    assert (third.report.files, third.report.exit_code) == (0, 0)
    assert bool(third.only_here) == (deletions == "report")


async def test_a_file_that_left_its_resource_is_found_and_one_of_the_user_is_left_alone(
    demo: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await export(demo, out)
    project = demo.here.store.find_project("DEMO")
    assert project is not None
    session = demo.here.store.find_experiment("DEMO_001_MR1", project)
    assert session is not None
    own = next(one for one in demo.here.store.resources(session) if one.label == "PHYSIO")
    file = demo.here.store.find_file(own, "log/scanner.txt")
    assert file is not None
    demo.here.store.remove_file(own, file)
    folder = session_folder(out, "DEMO_001_MR1") / "resources" / "PHYSIO" / "files"
    (folder / "mine.txt").write_text("a note of my own")

    done = await export(demo, out, deletions="delete")

    assert [name.rpartition("/")[2] for name in done.only_here] == ["scanner.txt"]
    assert not (folder / "log").exists()
    assert (folder / "mine.txt").exists()


@pytest.mark.parametrize("deletions", ["report", "delete"])
@pytest.mark.parametrize("first", ["a file", "a folder"])
async def test_a_file_that_became_a_folder_or_a_folder_a_file_is_followed(
    demo: Bench, tmp_path: Path, first: str, deletions: Any
) -> None:
    out = tmp_path / "out"
    store = demo.here.store
    session = store.find_experiment("DEMO_001_MR1", store.find_project("DEMO"))
    assert session is not None
    own = next(one for one in store.resources(session) if one.label == "PHYSIO")
    names = ["both", "both/inside.txt"][:: 1 if first == "a file" else -1]
    for name in names:
        for file in [one for one in store.files(own) if one.path in names]:
            store.remove_file(own, file)
            shutil.rmtree(store.resource_folder(own) / "both", ignore_errors=True)
        store.add_file(own, name, name.encode())
        store.refresh_stats(own)
        done = await export(demo, out, deletions=deletions)
        assert (done.report.exit_code, done.finished) == (0, True), done.report.problems

    assert set(at_server(demo)) <= set(digests(out))
    third = await export(demo, out, deletions=deletions)
    assert third.report.exit_code == 0
    if deletions == "delete":
        assert digests(out) == at_server(demo)
    listed = {row.get("name", row["path"]).rpartition("/PHYSIO/files/")[2] for row in rows(out)}
    assert names[1] in listed


async def test_a_narrowed_export_takes_nothing_for_deleted(demo: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    await export(demo, out)
    only = Selection(Ref("DEMO"), (Rule("subject", ("DEMO_001",)),))

    done = await export(demo, out, selection=only, deletions="delete")

    assert (done.only_here, done.report.files) == ((), 0)
    assert digests(out) == at_server(demo)
    assert (await export(demo, out, deletions="delete")).only_here == ()
    assert digests(out) == at_server(demo)


async def test_a_file_that_rotted_on_the_disk_is_fetched_again(demo: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    await export(demo, out)
    victims = [next(out.rglob("*.dcm")), out / "subjects" / "DEMO_001" / "subject.xml"]
    for victim in victims:
        victim.write_bytes(b"x" * victim.stat().st_size)

    done = await export(demo, out)

    assert (done.report.exit_code, done.report.files) == (0, 1)
    assert digests(out) == at_server(demo)
    assert victims[1].read_bytes().startswith(b"<?xml")


async def test_three_nights_of_snapshots_move_the_changes_and_one_that_is_cut_damages_nothing(
    demo: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = await export(demo, out, snapshot=True)
    before = tree(first.folder)
    assert (out / "latest").resolve() == first.folder
    assert digests(first.folder) == at_server(demo)
    moved = change(demo.here.store)

    cut = await export(demo, out, snapshot=True, stop_after=1)
    assert (cut.report.exit_code, cut.finished) == (143, False)
    assert (out / "latest").resolve() == first.folder
    assert tree(first.folder) == before

    third = await export(demo, out, snapshot=True)
    assert third.report.exit_code == 0
    assert cut.report.bytes + third.report.bytes == moved
    assert third.folder != first.folder
    assert (out / "latest").resolve() == third.folder
    assert tree(first.folder) == before
    assert digests(third.folder) == at_server(demo)
    assert sorted(p.name for p in out.iterdir() if not p.name.startswith(".")) == sorted(
        ["latest", first.folder.name, third.folder.name]
    )
    same = "subjects/DEMO_001/sessions/DEMO_001_MR1/session.xml"
    assert (first.folder / same).stat().st_ino == (third.folder / same).stat().st_ino
    assert {row["path"] for row in rows(third.folder)} == set(tree(third.folder)) - {
        "manifest.jsonl"
    }


async def test_a_folder_that_holds_something_else_is_refused(demo: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(Conflict, match="holds no export"):
        await export(demo, out)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("other", [{"snapshot": True}, {"bag": True}])
async def test_a_folder_that_holds_another_form_of_export_is_refused(
    demo: Bench, tmp_path: Path, other: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    await export(demo, out)
    before = tree(out)
    with pytest.raises(Conflict, match="holds a mirror of"):
        await export(demo, out, **other)
    assert tree(out) == before


@pytest.mark.parametrize("deletions", ["report", "trash"])
async def test_a_bag_stays_valid_from_night_to_night(
    demo: Bench, tmp_path: Path, deletions: Any
) -> None:
    out = tmp_path / "out"
    await export(demo, out, bag=True)
    assert bagit.Bag(str(out)).validate()
    moved = change(demo.here.store)

    done = await export(demo, out, bag=True, deletions=deletions)

    assert (done.report.bytes, bool(done.only_here)) == (moved, True)
    bag = bagit.Bag(str(out))
    assert bag.validate()
    assert set(bag.payload_files()) == {row["path"] for row in rows(out)}
    if deletions != "report":
        assert digests(out) == at_server(demo)
    await export(demo, out, bag=True, deletions=deletions)
    assert bagit.Bag(str(out)).validate()


async def test_every_snapshot_can_be_a_bag(demo: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = await export(demo, out, bag=True, snapshot=True)
    change(demo.here.store)
    second = await export(demo, out, bag=True, snapshot=True)
    for folder in (first.folder, second.folder, out / "latest"):
        assert bagit.Bag(str(folder)).validate()
    assert digests(second.folder) == at_server(demo)


@pytest.mark.parametrize("bag", [False, True])
async def test_lists_that_a_run_could_not_write_any_more_are_written_by_the_next(
    demo: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bag: bool
) -> None:
    out = tmp_path / "out"
    await export(demo, out, bag=bag)
    change(demo.here.store)

    def fails(ledger: Ledger, bag: object) -> None:
        raise LocalFault("killed just here")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "write_lists", fails)
        with pytest.raises(LocalFault):
            await export(demo, out, bag=bag, deletions="delete")
    old = {row["path"] for row in rows(out)}

    done = await export(demo, out, bag=bag, deletions="delete")

    assert done.report.files == 0
    assert {row["path"] for row in rows(out)} not in (old, set())
    assert sorted(row["md5"] for row in rows(out) if "/files/" in row["path"]) == at_server(demo)
    if bag:
        assert bagit.Bag(str(out)).validate()


async def test_odd_names_are_exported_and_a_second_run_moves_nothing(
    nasty: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    selection = Selection(Ref("NASTY"))
    first = await export(nasty, out, selection=selection)
    assert first.report.units_failed == 0, first.report.problems

    second = await export(nasty, out, selection=selection)

    assert (second.report.units_failed, second.report.files) == (0, 0)
    lost = [one for one in first.report.left if "/files/" in one.key]
    assert len(data(out)) == len(files_of(nasty.source, "NASTY")) - len(lost)


async def inspected(sandbox: Sandbox) -> Any:
    """What the server itself says it holds, without what each server makes up for itself."""
    made_up = {"ID", "subject_ID", "image_session_ID", "imageSession_ID", "session_ID"}

    def plain(node: Any, kind: str) -> Any:
        if isinstance(node, list):
            return sorted((plain(one, kind) for one in node), key=json.dumps)
        if not isinstance(node, dict):
            return node
        fields = node.get("fields", {})
        found = {
            key: plain(value, key)
            for key, value in node.items()
            if key != "fields" and (key != "id" or kind in ("projects", "scans"))
        }
        known = {key: text for key, text in fields.items() if key not in made_up}
        return found | {"fields": known} if "fields" in node else found

    async with connect(sandbox) as xnat:
        reply = await xnat.transport.request("GET", "/sandbox/inspect", params={"project": "DEMO"})
    return plain(json.loads(reply.body), "")


@pytest.mark.parametrize("dicom", ["copy", "import"])
async def test_export_then_import_is_the_same_as_a_transfer(
    demo: Bench, tmp_path: Path, dicom: Any
) -> None:
    waiting = Waiting(poll=0.02, poll_most=0.1, build=10.0, archive=20.0)
    out = tmp_path / "out"
    await export(demo, out)
    transferred = await demo.transfer(dicom=dicom)
    async with Sandbox(tmp_path / "other") as other, connect(other) as sink:
        reports = []
        for _ in range(2):
            async with demo.desk("import") as desk:
                reports.append(
                    await routes.transfer(
                        desk,
                        routes.open_bundle(out),
                        sink,
                        Selection(Ref("DEMO")),
                        project="DEMO",
                        dicom=dicom,
                        waiting=waiting,
                    )
                )
        there, here = await inspected(demo.there), await inspected(other)

    assert [one.exit_code for one in (transferred, *reports)] == [0, 0, 0]
    assert (reports[0].files, reports[1].files) == (transferred.files, 0)
    assert here == there
    assert len(here["projects"][0]["subjects"]) == 3
    assert leftovers(tmp_path / "other") == []


async def imported(bench: Bench, out: Path) -> Report:
    """The export brought into the other server, as it is."""
    async with bench.desk("import") as desk, connect(bench.there) as sink:
        return await routes.transfer(
            desk,
            routes.open_bundle(out),
            sink,
            Selection(Ref("DEMO")),
            project="DEMO",
            dicom="copy",
        )


async def test_an_export_brings_back_one_of_each_thing_custom_fields_included(
    demo: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    add_the_rest(demo.here.store)
    demo.there.store.create_project("OTHER")
    await export(demo, out)

    report = await imported(demo, out)

    assert (report.exit_code, report.left, report.problems) == (0, (), ())
    here, there = account(demo.here, "DEMO"), account(demo.there, "DEMO")
    assert len(here["custom fields"]) == 5
    assert differing(here, there) == {}
    assert (await imported(demo, out)).files == 0


async def test_a_custom_field_that_is_edited_is_in_the_next_export(
    demo: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    add_the_rest(demo.here.store)
    await export(demo, out)
    kept = session_folder(out, SESSION) / "fields.json"
    assert json.loads(kept.read_bytes())["scans/2"]["list"] == [1, "ü"]
    store = demo.here.store
    session = store.find_experiment(SESSION, store.find_project("DEMO"))
    assert session is not None
    store.set_record("custom-fields", str(session.id), {"name": "edited"})

    assert (await export(demo, out)).report.exit_code == 0
    assert json.loads(kept.read_bytes())[""] == {"name": "edited"}
    before = tree(out)
    assert (await export(demo, out)).report.exit_code == 0
    assert tree(out) == before


async def test_custom_fields_that_rotted_on_the_disk_are_not_imported(
    demo: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await export(demo, out)
    (session_folder(out, SESSION) / "fields.json").write_text("[not fields")

    report = await imported(demo, out)

    assert report.exit_code == 8
    assert "fields.json does not hold custom fields" in report.problems[0].error


async def test_an_import_refuses_a_file_that_rotted_in_the_export(
    demo: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await export(demo, out)
    victim = session_folder(out, "DEMO_001_MR1") / "resources/PHYSIO/files/pulse.csv"
    victim.write_bytes(b"x" * victim.stat().st_size)
    report = await imported(demo, out)

    assert report.exit_code == 8
    assert "pulse.csv" in report.problems[0].error
    sent = {one[3] for one in files_of(demo.sink, "DEMO") if one[0] == "DEMO_001_MR1"}
    assert "pulse.csv" not in sent
