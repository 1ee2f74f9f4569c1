"""Seeds: what they hold, that they are the same on every run, and that the server serves them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import itertools
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pydicom
import pytest

from xnatctl.sandbox import phantom
from xnatctl.sandbox.assembly import assemble
from xnatctl.sandbox.bodies import chunks
from xnatctl.sandbox.catalog import File, Resource
from xnatctl.sandbox.documents import write
from xnatctl.sandbox.seed import Large, parse, seed
from xnatctl.sandbox.seed_nasty import LONG_NAME, NAMES, UNFIT_FOR_ZIP
from xnatctl.sandbox.seed_parts import SeedError
from xnatctl.sandbox.server import Sandbox
from xnatctl.sandbox.store import Item, Store

SERIES = phantom.Series(phantom.Study("S_MR1", "S", "Name^First"), "3", 3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "sandbox")
    yield made
    made.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the demo seed, only to be read."""
    made = Store(tmp_path_factory.mktemp("demo"))
    seed(made, "demo")
    yield made
    made.close()


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the nasty seed, only to be read."""
    made = Store(tmp_path_factory.mktemp("nasty"))
    seed(made, "nasty")
    yield made
    made.close()


def every_file(store: Store, label: str = "%") -> Iterator[tuple[Item, Resource, File]]:
    rows = store.rows("SELECT id FROM resources WHERE label LIKE ? ORDER BY id", label)
    for (number,) in rows:
        resource = store.resource(number)
        for file in store.files(resource):
            yield store.item(resource.item), resource, file


def body(store: Store, resource: Resource, file: File) -> bytes:
    recipe = file.generated()
    if recipe is not None:
        return b"".join(bytes(chunk) for chunk in chunks(recipe))
    return store.file_path(resource, file).read_bytes()


def named(store: Store, kind: str, label: str) -> Item:
    (found,) = store.find("kind=? AND label=?", kind, label)
    return found


def labels(store: Store, item: Item) -> list[str]:
    return [resource.label for resource in store.resources(item)]


# --- phantom ------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["MR", "CT", "PT"])
def test_a_synthetic_series_is_valid_dicom_with_its_own_uids(modality: str) -> None:
    series = phantom.Series(SERIES.study, "7", 7, modality, "head", 64, 32, 5)
    objects = [pydicom.dcmread(io.BytesIO(data)) for _, data in phantom.series_files(series)]
    assert len({each.SOPInstanceUID for each in objects}) == 5
    assert {each.SeriesInstanceUID for each in objects} == {series.uid}
    assert {each.StudyInstanceUID for each in objects} == {series.study.uid}
    assert [each.InstanceNumber for each in objects] == [1, 2, 3, 4, 5]
    places = [float(each.SliceLocation) for each in objects]
    assert places == sorted(set(places))
    for z, each in enumerate(objects):
        assert each.file_meta.MediaStorageSOPInstanceUID == each.SOPInstanceUID
        assert each.file_meta.MediaStorageSOPClassUID == each.SOPClassUID
        assert float(each.ImagePositionPatient[2]) == places[z]
        assert (each.Modality, each.SeriesNumber, each.PatientPosition) == (modality, 7, "HFS")
        assert (each.Rows, each.Columns, each.PatientID) == (32, 64, "S")
        assert each.PixelData == phantom.plane(series, z)


def test_a_slice_that_is_mirrored_along_any_axis_shows() -> None:
    values = struct.unpack("<16384H", phantom.plane(SERIES, 8))
    rows = [values[at : at + 128] for at in range(0, 16384, 128)]
    assert [row[::-1] for row in rows] != rows
    assert rows[::-1] != rows
    assert phantom.plane(SERIES, 6) != phantom.plane(SERIES, 9)


@pytest.mark.parametrize("name", [name for names in phantom.GENUINE.values() for name in names])
def test_a_genuine_file_keeps_its_pixels_and_syntax_under_new_labels(name: str) -> None:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    before = pydicom.dcmread(path)
    after = pydicom.dcmread(io.BytesIO(phantom.genuine(name, SERIES.study, "4", 4, 2)))
    assert after.get("PixelData") == before.get("PixelData")
    assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
    assert after.SOPClassUID == before.SOPClassUID
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert after.StudyInstanceUID == SERIES.study.uid
    assert (after.SeriesNumber, after.InstanceNumber, after.PatientID) == (4, 2, "S")


@pytest.mark.parametrize("size", [4096, 5000, 50_002, 3_000_000, 40_000_000])
def test_an_envelope_and_any_bytes_make_a_dicom_file_of_the_size(size: int) -> None:
    envelope = phantom.Envelope.of(SERIES, size)
    first, last = envelope.header(1), envelope.header(1_000_000)
    assert len(first) == len(last)
    data = pydicom.dcmread(io.BytesIO(last + bytes(size - len(last))))
    assert len(data.PixelData) == data.Rows * data.Columns * 2
    assert data.InstanceNumber == 1_000_000
    assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
    assert data.SOPInstanceUID != pydicom.dcmread(io.BytesIO(first), force=True).SOPInstanceUID


@pytest.mark.parametrize("size", [4094, 5001, 512_000_002])
def test_an_envelope_refuses_sizes_that_no_file_can_have(size: int) -> None:
    with pytest.raises(ValueError, match="no size for a DICOM file"):
        phantom.Envelope.of(SERIES, size)


def test_a_nifti_volume_says_its_shape_and_holds_its_voxels() -> None:
    data = gzip.decompress(phantom.nifti(SERIES))
    assert struct.unpack_from("<i", data) == (348,)
    assert struct.unpack_from("<4h", data, 40) == (3, 128, 128, 16)
    assert struct.unpack_from("<3f", data, 80) == (1.5, 1.5, 4.0)
    assert data[344:348] == b"n+1\0"
    assert data[352 : 352 + 32768] == phantom.plane(SERIES, 0)
    assert len(data) == 352 + 16 * 32768
    assert json.loads(phantom.sidecar(SERIES))["SeriesInstanceUID"] == SERIES.uid


def test_a_png_picture_has_sound_chunks() -> None:
    data = phantom.png(SERIES, step=2)
    at, found = 8, {}
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + content),)
        found[kind] = content
        at += 12 + length
    assert found[b"IHDR"][:8] == struct.pack(">2I", 64, 64)
    lines = zlib.decompress(found[b"IDAT"])
    assert len(lines) == 64 * 65
    assert len(set(lines)) > 20


def test_a_gif_picture_unpacks_to_its_pixels() -> None:
    data = phantom.gif(SERIES)
    assert data[:10] == b"GIF89a" + struct.pack("<2H", 128, 128)
    at, codes = 13 + 3 * 128 + 11, b""
    while data[at]:
        codes += data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
    assert data[at:] == b"\0;"
    clear, stop = 0x80, 0x81
    assert codes[0] == clear and codes[-1] == stop
    pieces = codes[1:-1].split(bytes((clear,)))
    assert max(map(len, pieces)) < 126  # a longer run would widen the codes
    assert len(b"".join(pieces)) == 128 * 128 and max(b"".join(pieces)) < clear


def test_a_pdf_finds_its_objects_where_it_says() -> None:
    data = phantom.pdf("Hello")
    table = data[int(data.split(b"startxref\n")[1].split()[0]) :].splitlines()
    for number, line in enumerate(table[3:8], 1):
        assert data[int(line[:10]) :].startswith(b"%d 0 obj" % number)


# --- demo ---------------------------------------------------------------------------------------


def test_demo_has_subjects_sessions_and_files_of_several_kinds(demo: Store) -> None:
    subjects = demo.find("kind='subject'")
    sessions = demo.find("kind='experiment'")
    count, size = demo.row("SELECT count(*), sum(size) FROM files")
    assert len(subjects) >= 3 and len(sessions) >= 5
    assert {session.xsi for session in sessions} >= {"xnat:mrSessionData", "xnat:ctSessionData"}
    assert 300 <= count <= 600
    assert 15_000_000 <= size <= 40_000_000
    found = {resource.label for _, resource, _ in every_file(demo)}
    assert found == {"DICOM", "NIFTI", "SNAPSHOTS", "PHYSIO", "consent", "docs", "REPORT"}


def test_demo_is_the_same_on_every_run(demo: Store, tmp_path: Path) -> None:
    again = Store(tmp_path / "again")
    seed(again, "demo")

    def content(store: Store) -> Any:
        files = [(i.folder, r.folder, f.path, f.md5, f.mtime) for i, r, f in every_file(store)]
        return files, [(item.code, item.label, item.doc) for item in store.find("1")]

    assert content(again) == content(demo)
    again.close()


def test_demo_files_are_what_their_digests_say(demo: Store) -> None:
    for _, resource, file in every_file(demo):
        data = body(demo, resource, file)
        assert (len(data), hashlib.md5(data).hexdigest()) == (file.size, file.md5)
        assert zlib.crc32(data) == file.crc


def test_demo_dicom_agrees_with_the_items_that_hold_it(demo: Store) -> None:
    seen, syntaxes = set(), set()
    for scan, resource, file in every_file(demo, "DICOM"):
        data = pydicom.dcmread(demo.file_path(resource, file), stop_before_pixels=True)
        session = demo.item(scan.parent or 0)
        subject = demo.item(session.parent or 0)
        assert data.StudyInstanceUID == demo.fields(session)["UID"]
        assert data.SeriesInstanceUID == demo.fields(scan)["UID"]
        assert str(data.SeriesNumber) == scan.code
        assert data.PatientID == subject.label == demo.fields(session)["dcmPatientId"]
        seen.add(data.SOPInstanceUID)
        syntaxes.add(data.file_meta.TransferSyntaxUID)
    assert len(seen) == sum(1 for _ in every_file(demo, "DICOM"))
    assert len(syntaxes) >= 8


def test_demo_counts_the_files_of_each_resource(demo: Store) -> None:
    for (number,) in demo.rows("SELECT id FROM resources"):
        resource = demo.resource(number)
        files = demo.files(resource)
        assert (resource.file_count, resource.file_size) == (
            len(files),
            sum(file.size for file in files),
        )


def test_demo_has_metadata_at_every_level(demo: Store) -> None:
    project = named(demo, "project", "DEMO")
    assert {"name", "description", "keywords", "PI/lastname"} <= set(demo.fields(project))
    assert demo.find_project("DEMO_STUDY") == project
    subject = demo.fields(named(demo, "subject", "DEMO_001"))
    assert subject["demographics/gender"] == "female"
    assert subject["demographics/yob"] == "1984"
    assert subject["demographics/handedness"] == "right"
    assert subject["group"] == "patient"
    assert subject["fields/field[name=cohort]/field"] == "A"
    session = named(demo, "experiment", "DEMO_001_MR1")
    assert demo.fields(session)["fields/field[name=rater]/field"] == "Rita"
    scan = demo.find_child(session, "scan", "3")
    assert scan is not None
    facts = demo.fields(scan)
    assert (facts["type"], facts["quality"], facts["note"]) == ("T2w", "questionable", "moved")
    assert facts["series_description"] == "T2w"


def test_demo_has_an_assessor_with_nested_elements_and_files(demo: Store) -> None:
    assessor = named(demo, "assessor", "DEMO_001_MR1_QC1")
    assert assessor.xsi == "xnat:qcManualAssessorData"
    text = write(assemble(demo, assessor))
    assert '<xnat:rating scale="1-5">4</xnat:rating>' in text
    assert text.count("mrQcScanData") == 2
    (report,) = demo.resources(assessor)
    assert (report.bucket, report.file_count) == ("out", 3)


def test_demo_has_a_reconstruction_with_a_file(demo: Store) -> None:
    reconstruction = named(demo, "reconstruction", "T1_mean")
    assert demo.fields(reconstruction)["type"] == "mean"
    assert [resource.file_count for resource in demo.resources(reconstruction)] == [1]


# --- large --------------------------------------------------------------------------------------


def test_large_makes_the_numbers_that_it_was_asked_for(store: Store) -> None:
    seed(store, "large:2x3x2x5@8k")
    counts = dict(store.rows("SELECT kind, count(*) FROM items GROUP BY kind"))
    assert counts == {"project": 1, "subject": 2, "experiment": 6, "scan": 12}
    assert store.row("SELECT count(*), sum(size) FROM files") == (60, 480_000)
    assert {resource.label for _, resource, _ in every_file(store)} == {"DATA"}
    assert not any(path.is_file() for path in store.archive.rglob("*"))


def test_large_bodies_are_what_their_digests_say(store: Store) -> None:
    seed(store, "large:1x1x2x3@30k")
    for _, resource, file in every_file(store):
        data = body(store, resource, file)
        assert (len(data), hashlib.md5(data).hexdigest(), zlib.crc32(data)) == (
            file.size,
            file.md5,
            file.crc,
        )


def test_large_has_at_most_256_contents_and_neighbours_differ(store: Store) -> None:
    seed(store, "large:1x2x3x100@100")
    digests = [file.md5 for _, _, file in every_file(store)]
    assert len(set(digests)) == 256
    assert all(a != b for a, b in itertools.pairwise(digests))


def test_large_dicom_files_are_valid_and_all_different(store: Store) -> None:
    seed(store, "large:1x2x2x3@6k,dicom")
    seen = set()
    for scan, resource, file in every_file(store):
        data = body(store, resource, file)
        assert (resource.label, resource.format, resource.content) == ("DICOM", "DICOM", "RAW")
        assert (len(data), hashlib.md5(data).hexdigest()) == (6000, file.md5)
        parsed = pydicom.dcmread(io.BytesIO(data))
        session = store.item(scan.parent or 0)
        assert parsed.StudyInstanceUID == store.fields(session)["UID"]
        assert parsed.SeriesInstanceUID == store.fields(scan)["UID"]
        assert str(parsed.SeriesNumber) == scan.code
        assert len(parsed.PixelData) == parsed.Rows * parsed.Columns * 2
        seen.add(parsed.SOPInstanceUID)
    assert len(seen) == 12


def test_large_is_the_same_on_every_run(store: Store, tmp_path: Path) -> None:
    again = Store(tmp_path / "again")
    for each in (store, again):
        seed(each, "large:1x1x2x3@6k,dicom")
    assert [f.md5 for _, _, f in every_file(store)] == [f.md5 for _, _, f in every_file(again)]
    again.close()


def test_large_takes_its_label_and_project_from_options(store: Store) -> None:
    seed(store, "large:1x1x1x1@0,resource=NIFTI,project=BIG-1")
    ((_, resource, file),) = every_file(store)
    assert (resource.label, file.size, file.md5) == ("NIFTI", 0, hashlib.md5(b"").hexdigest())
    assert store.find_project("BIG-1") is not None


def test_sizes_are_written_with_units_of_a_thousand() -> None:
    for text, size in (("17", 17), ("8k", 8_000), ("3M", 3_000_000), ("2G", 2_000_000_000)):
        plan = parse(f"large:1x2x3x4@{text}")
        assert plan == Large(1, 2, 3, 4, size, dicom=False, resource="DATA", project="LARGE")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("", "no seed named ''"),
        ("Demo", "no seed named 'Demo'"),
        ("large", "'' is not SUBJECTSx"),
        ("large:1x2x3@8k", "'1x2x3@8k' is not SUBJECTSx"),
        ("large:1x2x3x4", "is not SUBJECTSx"),
        ("large:1x2x3x4@8K", "is not SUBJECTSx"),
        ("large:1x2x3x-4@8k", "is not SUBJECTSx"),
        ("large:1x2x3x4@8k,dicm", "the option 'dicm' is unknown"),
        ("large:1x2x3x4@8k,dicom=yes", "the option 'dicom=yes' is unknown"),
        ("large:1x2x3x4@8k,resource", "the option 'resource' is unknown"),
        ("large:1x2x3x4@8k,project=a b", "'a b' may hold letters"),
        ("large:1x2x3x4@8,dicom", "even size from 4096"),
        ("large:1x2x3x4@8001,dicom", "even size from 4096"),
    ],
)
def test_a_spec_that_cannot_be_read_is_one_sentence_with_a_way_out(spec: str, why: str) -> None:
    with pytest.raises(SeedError) as caught:
        parse(spec)
    assert caught.value.what == f"the seed {spec!r} cannot be read"
    assert why in caught.value.why
    assert "large:10x2x5x100@500k" in caught.value.fix


def test_a_seed_never_lands_in_a_project_that_is_there(store: Store) -> None:
    store.create_project("nasty2")
    with pytest.raises(SeedError, match="it has, or had, a project NASTY2"):
        seed(store, "nasty")
    assert [item.code for item in store.find("1")] == ["nasty2"]


# --- nasty --------------------------------------------------------------------------------------


def test_nasty_names_hold_what_breaks_urls_shells_and_file_systems(nasty: Store) -> None:
    session = named(nasty, "experiment", "NASTY_001_names")
    (resource,) = [r for r in nasty.resources(session) if r.label == "NAMES"]
    paths = [file.path for file in nasty.files(resource)]
    assert sorted(paths) == sorted(NAMES)
    text = "".join(paths)
    assert set(" #%+&;[],'") <= set(text)
    assert len(LONG_NAME) == 200
    assert {"Case.txt", "case.txt", "case.TXT", ".hidden"} <= set(paths)
    assert len({p.rpartition("/")[2] for p in paths}) < len(paths)
    assert max(len(p.encode()) for p in paths) > 250


def test_nasty_files_are_what_their_digests_say(nasty: Store) -> None:
    for _, resource, file in every_file(nasty):
        data = body(nasty, resource, file)
        assert (len(data), hashlib.md5(data).hexdigest()) == (file.size, file.md5)


def test_nasty_resources_are_empty_double_numeric_or_twins(nasty: Store) -> None:
    session = named(nasty, "experiment", "NASTY_001_names")
    found = labels(nasty, session)
    assert found.count("TWICE") == 2
    assert {"Mixed", "MIXED", "12345", "EMPTY", "UNFIT", "with blank & more"} <= set(found)
    sizes = {r.label: (r.file_count, r.file_size) for r in nasty.resources(session)}
    assert sizes["EMPTY"] == (0, 0)
    assert sizes["ZERO"] == (3, 1)
    assert sizes["UNFIT"][0] == len(UNFIT_FOR_ZIP)


def test_nasty_scans_are_odd_each_in_one_way(nasty: Store) -> None:
    session = named(nasty, "experiment", "NASTY_001_scans")
    scans = {scan.code: scan for scan in nasty.children(session, "scan")}
    assert {"1", "1-MR1", "4.2", "10", "11"} <= set(scans)
    assert labels(nasty, scans["10"]) == ["NIFTI", "FOLDERS"]
    assert labels(nasty, scans["11"]) == []
    assert labels(nasty, scans["14"]) == ["DICOM", "DICOM"]
    assert nasty.fields(scans["6"])["type"] == "1"
    assert "type" not in nasty.fields(scans["8"])
    numbers: dict[str, set[tuple[str, str]]] = {}
    studies = set()
    for scan, resource, file in every_file(nasty, "DICOM"):
        if scan.parent != session.id or not file.path.endswith(".dcm") or not file.size:
            continue
        data = pydicom.dcmread(nasty.file_path(resource, file))
        key = (scan.code, data.SeriesInstanceUID)
        numbers.setdefault(str(data.SeriesNumber), set()).add(key)
        studies.add(data.StudyInstanceUID)
    assert {code for code, _ in numbers["1"]} == {"1", "1-MR1"}
    assert len({series for _, series in numbers["1"]}) == 2
    assert len(studies) == 2
    (damaged,) = nasty.resources(scans["12"])
    assert {f.path: f.size for f in nasty.files(damaged)}["empty.dcm"] == 0


def test_nasty_items_have_foreign_types_twins_and_nothing_below(nasty: Store) -> None:
    assert nasty.children(named(nasty, "subject", "NASTY_no_session"), "experiment") == []
    assert nasty.children(named(nasty, "experiment", "NASTY_001_empty"), "scan") == []
    assert named(nasty, "experiment", "NASTY_001_twin") != named(
        nasty, "experiment", "NASTY_001_TWIN"
    )
    assert named(nasty, "experiment", "NASTY_001_vars").xsi == "xnat:subjectVariablesData"
    stats = write(assemble(nasty, named(nasty, "assessor", "NASTY_FS")))
    assert '<fs:region name="Left-Hippocampus" hemisphere="left"><fs:Volume>3920.5<' in stats
    rois = write(assemble(nasty, named(nasty, "assessor", "NASTY_ROI")))
    assert "<icr:collectionType>RTSTRUCT</icr:collectionType>" in rois


def test_nasty_items_are_shared_both_ways(nasty: Store) -> None:
    assert nasty.shares(named(nasty, "subject", "NASTY_001")) == [("NASTY2", "SHARED_001")]
    session = named(nasty, "experiment", "NASTY_001_names")
    assert nasty.shares(session) == [("NASTY2", "SHARED_001_names")]
    assert nasty.shares(named(nasty, "experiment", "GUEST_CT1")) == [("NASTY", "GUEST_CT1")]


# --- as the server shows them -------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["demo", "nasty", "large:2x1x1x3@6k,dicom"])
async def test_every_seeded_session_is_listed_and_downloaded_whole(
    spec: str, tmp_path: Path
) -> None:
    async with Sandbox(tmp_path) as sandbox:
        seed(sandbox.store, spec)
        login = {"Authorization": f"Basic {base64.b64encode(b'admin:admin').decode()}"}
        sessions = [
            i for i in sandbox.store.find("kind='experiment'") if i.xsi.endswith("SessionData")
        ]
        async with aiohttp.ClientSession(headers=login) as client:
            for session in sessions:
                url = f"{sandbox.url}/data/experiments/{session.code}"
                async with client.get(f"{url}/files?all=true&format=json") as reply:
                    rows = (await reply.json())["ResultSet"]["Result"]
                expected = sorted(
                    (file.size, file.md5)
                    for item, resource, file in every_file(sandbox.store)
                    if session.id in (item.id, item.parent) and resource.bucket != "in"
                )
                assert sorted((int(row["Size"]), row["digest"]) for row in rows) == expected
                async with client.get(f"{url}/files?all=true&format=zip") as reply:
                    if not rows:
                        assert reply.status == 404
                        continue
                    data = await reply.read()
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    for info in archive.infolist():
                        hashed = hashlib.md5(archive.read(info)).hexdigest()
                        assert (info.file_size, hashed) in expected
