"""`xnatctl bench`: each command on a sandbox with a tiny budget, judged by what it leaves there."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from tests.cli.conftest import PASSWORD, Result, process
from xnatctl.sandbox.faults import Fault
from xnatctl.sandbox.server import Sandbox

Call = Callable[..., Result]

QUICK = ("--duration", "0.5s", "--concurrency", "1,2", "--max-bytes", "40M")
MADE = ("--size", "8k,1M")
FIGURES = {
    "size",
    "concurrency",
    "seconds",
    "requests",
    "bytes_per_s",
    "files_per_s",
    "first_byte_p50_s",
    "first_byte_p99_s",
    "request_bytes_per_s_p95",
    "refused",
    "errors",
    "cpu_s_per_gb",
    "peak_memory_bytes",
}


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A second server, with a project of the same name."""
    with start_blocking_portal() as portal:
        sandbox = Sandbox(tmp_path_factory.mktemp("far"))
        sandbox.store.create_project("STUDY")
        with portal.wrap_async_context_manager(sandbox):
            yield sandbox


@pytest.fixture
def both(signed_in: Sandbox, far: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setenv("XNAT_DEST_URL", far.url)
    monkeypatch.setenv("XNAT_DEST_USER", "admin")
    monkeypatch.setenv("XNAT_DEST_PASS", PASSWORD)
    return far


def held(server: Sandbox) -> list[str]:
    """Everything that STUDY holds on the server's disk, and its subjects."""
    store = server.store
    project = store.find_project("STUDY")
    assert project is not None
    found = [one.label for one in store.children(project, "subject")]
    for subject in store.children(project, "subject"):
        for resource in store.resources(subject):
            found.append(f"{subject.label}/{resource.label}")
    return found


def checked(done: Result, verb: str, settings: int) -> Any:
    """The document of a command that went well."""
    assert done.code == 0, done.err
    data = done.json()
    assert (data["kind"], data["version"], data["verb"]) == ("xnatctl-bench", 1, verb)
    slow = "the time of --duration was up" in data["notes"]
    assert len(data["rows"]) == settings or slow, done.err
    for row in data["rows"]:
        assert set(row) >= FIGURES
        assert row["requests"] > 0
        assert row["refused"] == row["errors"] == 0
    assert data["recommended"]["workers"] in data["settings"]["concurrency"]
    assert data["limits"][0]["why"]
    assert data["machine"]["cores"] > 0
    assert data["cleanup"]["left"] == []
    return data


def test_a_download_reads_what_is_there_and_changes_nothing(
    xnatctl: Call, signed_in: Sandbox
) -> None:
    before = held(signed_in)
    data = checked(xnatctl("bench", "download", *QUICK, "-o", "json"), "download", 2)
    assert (data["project"], data["source"]["url"]) == ("STUDY", signed_in.url)
    assert all(row["first_byte_p50_s"] > 0 and row["bytes"] > 0 for row in data["rows"])
    assert sum(row["bytes"] for row in data["rows"]) <= 40 * 2**20
    assert held(signed_in) == before


def test_the_lists_of_a_server_are_asked_for(xnatctl: Call, signed_in: Sandbox) -> None:
    data = checked(xnatctl("bench", "api", "-P", "STUDY", *QUICK, "-o", "json"), "api", 2)
    assert all(row["requests_per_s"] > 0 for row in data["rows"])


def test_an_upload_removes_what_it_wrote(xnatctl: Call, signed_in: Sandbox) -> None:
    before = held(signed_in)
    line = ("bench", "upload", "-P", "STUDY", *MADE, *QUICK)
    data = checked(xnatctl(*line, "--yes", "-o", "json"), "upload", 4)
    assert data["settings"]["sizes"] == [8192, 2**20]
    assert all(row["answer_p50_s"] > 0 for row in data["rows"])
    assert len(data["cleanup"]["removed"]) == 1
    assert held(signed_in) == before


def test_a_transfer_removes_what_it_wrote_at_both_ends(
    xnatctl: Call, signed_in: Sandbox, both: Sandbox
) -> None:
    before = held(signed_in), held(both)
    line = ("bench", "transfer", "-P", "STUDY", *MADE, *QUICK)
    data = checked(xnatctl(*line, "--yes", "-o", "json"), "transfer", 4)
    assert data["destination"]["url"] == both.url
    assert all(row["source_wait_s"] > 0 and row["sink_wait_s"] > 0 for row in data["rows"])
    assert len(data["cleanup"]["removed"]) == 2
    assert (held(signed_in), held(both)) == before


@pytest.mark.parametrize("verb", ["upload", "transfer"])
def test_nothing_is_written_without_a_yes_or_a_project(
    xnatctl: Call, signed_in: Sandbox, both: Sandbox, verb: str
) -> None:
    before = held(signed_in), held(both)
    done = xnatctl("bench", verb, "-P", "STUDY", *QUICK)
    assert (done.code, "--yes" in done.err) == (2, True)
    done = xnatctl("bench", verb, *QUICK, "--yes")
    assert (done.code, "-P PROJECT" in done.err) == (2, True)
    assert xnatctl("bench", verb, "-P", "STUDY", *QUICK, "--dry-run").code == 0
    assert xnatctl("bench", verb, "-P", "NOPE", *QUICK, "--yes").code == 5
    assert (held(signed_in), held(both)) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_upload_removes_what_it_wrote(
    signed_in: Sandbox, number: signal.Signals
) -> None:
    before = held(signed_in)
    line = ("bench", "upload", "-P", "STUDY", "--size", "1M", "--duration", "60s", "--yes")
    running = process(*line, "-o", "json")
    deadline = time.monotonic() + 30
    while len(held(signed_in)) <= len(before) + 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(held(signed_in)) > len(before) + 1
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 128 + number, err
    assert "Traceback" not in err
    assert json.loads(out)["interrupted"]
    assert held(signed_in) == before


def test_a_server_that_refuses_ends_the_climb_and_is_left_clean(
    xnatctl: Call, signed_in: Sandbox
) -> None:
    before = held(signed_in)
    busy = Fault("PUT */files/*", "status", times=0, nth=1)
    signed_in.faults.add(busy)
    try:
        line = ("bench", "upload", "-P", "STUDY", "--size", "1M", *QUICK, "--yes", "-o", "json")
        done = xnatctl(*line)
    finally:
        signed_in.faults.clear()
    data = done.json()
    assert done.code == 1
    assert len(data["rows"]) == 1
    assert data["rows"][0]["refused"] > 0
    assert data["limits"][0]["where"] == "destination"
    assert data["recommended"] is None
    assert held(signed_in) == before


def test_the_page_needs_nothing_from_elsewhere_and_escapes_the_servers_text(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    done = xnatctl("bench", "download", "-P", "STUDY", *QUICK, "--html", str(page))
    assert done.code == 0, done.err
    text = page.read_text("utf-8")
    assert text.count("<svg") >= 3
    assert "<polyline" in text
    assert re.findall(r"(?:src|href|url)\s*[=(]", text) == []

    from xnatctl.bench.page import to_html

    result = xnatctl("bench", "download", "-P", "STUDY", *QUICK, "-o", "json").json()
    result["notes"] = ["<script>alert(1)</script>"]
    assert "<script" not in to_html(result, size=str)


def test_two_results_are_compared_row_by_row(
    xnatctl: Call, signed_in: Sandbox, tmp_path: Path
) -> None:
    old, new = tmp_path / "A.json", tmp_path / "B.json"
    data = xnatctl("bench", "api", "-P", "STUDY", *QUICK, "-o", "json").json()
    old.write_text(json.dumps(data))
    for row in data["rows"]:
        row["requests_per_s"] *= 2
    data["settings"]["duration_s"] = 7.0
    new.write_text(json.dumps(data))
    found = xnatctl("bench", "compare", str(old), str(new), "-o", "json").json()
    assert [row["requests_per_s"] for row in found["rows"]] == [2.0, 2.0]
    assert [row["first_byte_p50_s"] for row in found["rows"]] == [1.0, 1.0]
    assert found["differences"] == ["settings duration s: 0.5 / 7.0"]
    shown = xnatctl("bench", "compare", str(old), str(new), "-o", "table")
    assert "2.00" in shown.out
    assert "settings duration s" in shown.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no JSON"),
        ("[]", "is no result of a benchmark"),
        ('{"kind": "xnatctl-bench", "version": 9}', "version 9"),
        ('{"kind": "xnatctl-bench", "version": 1, "rows": [{}]}', "damaged"),
        ('{"kind": "xnatctl-bench", "version": 1, "verb": "api", "rows": []}', "no setting"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_result_is_refused_in_a_sentence(
    xnatctl: Call, tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "A.json"
    if text is not None:
        path.write_text(text)
    done = xnatctl("bench", "compare", str(path), str(path))
    assert done.code == 2
    assert words in done.err
    assert "internal error" not in done.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--concurrency", "0"), "--concurrency"),
        (("--concurrency", "1,x"), "--concurrency"),
        (("--size", "big"), "--size"),
        (("--size", ","), "--size"),
        (("--max-bytes", "-1"), "--max-bytes"),
        (("--duration", "soon"), "--duration"),
    ],
)
def test_a_wrong_flag_is_named(xnatctl: Call, words: tuple[str, ...], named: str) -> None:
    done = xnatctl("bench", "download", *words)
    assert done.code == 2
    assert named in done.err


def test_the_recommended_setting_is_written_into_the_profile(
    xnatctl: Call, home: Path, server: Sandbox
) -> None:
    assert xnatctl("config", "add-profile", "lab", "--url", server.url).code == 0
    assert xnatctl("bench", "apply", "8", "-p", "lab").code == 0
    rows = xnatctl("config", "explain", "-p", "lab", "-o", "json").json()
    assert [row["value"] for row in rows if row["setting"] == "workers"] == [8]


def test_a_server_of_the_environment_has_no_profile_to_set(
    xnatctl: Call, signed_in: Sandbox
) -> None:
    done = xnatctl("bench", "apply", "8")
    assert (done.code, "add -p NAME" in done.err) == (2, True)
