"""Routes: a `Ref` in, an encoded path out, and no name that could address something else."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from xnatctl.errors import UsageError
from xnatctl.model import PrearchiveEntry, Ref
from xnatctl.xnat import paths

FLAT = Ref("P", "S", "E", "XNAT_E00001")
SCOPED = Ref("P", "S", "E")
ENTRY = PrearchiveEntry("P", "20240101_101112001", "S 1", "S 1", "READY")


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (paths.project("P"), "/data/projects/P"),
        (paths.subjects("P"), "/data/projects/P/subjects"),
        (paths.subject("P", "S 1"), "/data/projects/P/subjects/S%201"),
        (paths.experiments("P"), "/data/projects/P/experiments"),
        (paths.experiments("P", "S"), "/data/projects/P/subjects/S/experiments"),
        (paths.session(FLAT), "/data/experiments/XNAT_E00001"),
        (paths.session(SCOPED), "/data/projects/P/subjects/S/experiments/E"),
        (paths.resources(Ref("P")), "/data/projects/P/resources"),
        (paths.resources(Ref("P", "S")), "/data/projects/P/subjects/S/resources"),
        (paths.resources(FLAT), "/data/experiments/XNAT_E00001/resources"),
        (
            paths.resource(FLAT.at("scans", "3").in_resource("DICOM")),
            "/data/experiments/XNAT_E00001/scans/3/resources/DICOM",
        ),
        (
            paths.files(FLAT.at("assessors", "A", "in").in_resource("R")),
            "/data/experiments/XNAT_E00001/assessors/A/in/resources/R/files",
        ),
        (
            paths.files(FLAT.at("reconstructions", "R1", "out")),
            "/data/experiments/XNAT_E00001/reconstructions/R1/out/files",
        ),
        (
            paths.file(FLAT.in_resource("R"), "sub/a b#c.txt"),
            "/data/experiments/XNAT_E00001/resources/R/files/sub/a%20b%23c.txt",
        ),
        (paths.archive_uri(FLAT), "/archive/experiments/XNAT_E00001"),
        (paths.archive_uri(Ref("P")), "/archive/projects/P"),
        (paths.prearchive("P"), "/data/prearchive/projects/P"),
        (
            paths.prearchive_entry(ENTRY),
            "/data/prearchive/projects/P/20240101_101112001/S%201",
        ),
        (paths.prearchive_src(ENTRY), "/prearchive/projects/P/20240101_101112001/S 1"),
    ],
)
def test_routes_are_spelled_as_the_server_knows_them(path: str, route: str) -> None:
    assert path == route


def test_a_session_is_addressed_by_its_accession_id_wherever_that_is_known() -> None:
    assert paths.owner(FLAT).startswith("/data/experiments/")
    assert paths.owner(SCOPED).startswith("/data/projects/")


def test_a_slash_inside_a_scan_id_is_spelled_as_xnat_does() -> None:
    assert paths.segment("3/a") == "3[SLASH]a"
    assert paths.segment("[x]") == "%5Bx%5D"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_address_something_else_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        paths.project(name)
    with pytest.raises(UsageError):
        paths.subject("P", name)


@pytest.mark.parametrize("path", ["", "a//b", "/a", "a/", "../a", "a/../b", "./a"])
def test_a_file_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        paths.file(FLAT.in_resource("R"), path)


def test_a_name_that_is_not_text_is_refused() -> None:
    with pytest.raises(UsageError):
        paths.project("caf\udce9")


def test_a_session_without_subject_or_id_cannot_be_addressed() -> None:
    with pytest.raises(UsageError, match="P/E"):
        paths.session(Ref("P", session="E"))


def test_a_resource_route_needs_a_resource() -> None:
    with pytest.raises(UsageError):
        paths.resource(FLAT)


@given(st.text(min_size=1).filter(lambda name: name not in (".", "..") and "/" not in name))
def test_every_name_is_one_segment_that_decodes_to_itself(name: str) -> None:
    segment = paths.segment(name)

    assert "/" not in segment and "?" not in segment and "#" not in segment
    assert unquote(segment) == name
    # What aiohttp sends is exactly this: nothing is encoded or decoded once more.
    assert URL(f"http://x/{segment}", encoded=True).raw_path == f"/{segment}"


@given(st.text())
def test_a_name_is_encoded_or_refused_and_nothing_else(name: str) -> None:
    try:
        assert paths.segment(name).isascii()
        assert paths.tail(name).isascii()
    except UsageError:
        pass
