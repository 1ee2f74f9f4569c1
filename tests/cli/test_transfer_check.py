"""`project transfer-check`: each fault is found before the first write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from xnatctl.sandbox.faults import Fault

from .conftest import Ends

Call = Callable[..., Any]
CHECK = ("project", "transfer-check", "-P", "STUDY", "--dest-project", "COPY", "-o", "json")


def no_such_project(ends: Ends) -> None:
    project = ends.here.store.find_project("STUDY")
    assert project is not None
    ends.here.store.delete(project, remove_files=True)


def a_login_that_may_only_read(ends: Ends) -> None:
    project = ends.there.store.create_project("COPY")
    ends.there.accounts.set_role(project, "reader", "collaborator")


def a_type_that_is_unknown_there(ends: Ends) -> None:
    subject = ends.here.store.find_subject("SUB1", ends.here.store.find_project("STUDY"))
    assert subject is not None
    ends.here.store.create_experiment(subject, "ODD1", "odd:strangeSessionData")


def a_script_of_the_site(ends: Ends) -> None:
    ends.there.store.set_setting("", "anon_script", '(0010,0030) := ""')
    ends.there.store.set_setting("", "anon_enabled", "true")


def a_script_of_the_project(ends: Ends) -> None:
    ends.there.store.create_project("COPY")
    ends.there.store.set_setting("COPY", "anon_script", '(0010,0030) := ""')
    ends.there.store.set_setting("COPY", "anon_enabled", "true")


def a_label_of_another_subject(ends: Ends) -> None:
    store = ends.there.store
    other = store.create_subject(store.create_project("COPY"), "SOMEBODY")
    store.create_experiment(other, "SUB1_MR1")


def a_mode_that_archives_by_itself(ends: Ends) -> None:
    ends.there.store.create_project("COPY")
    ends.there.store.set_setting("COPY", "prearchive_code", "5")


CASES = [
    (no_such_project, "source: project", "FAIL", "is missing"),
    (a_login_that_may_only_read, "destination: project", "FAIL", "may not edit COPY"),
    (a_type_that_is_unknown_there, "destination: data types", "FAIL", "odd:strangeSessionData"),
    (a_script_of_the_site, "destination: anonymisation", "WARN", "the site's script"),
    (a_script_of_the_project, "destination: anonymisation", "WARN", "the project's script"),
    (a_label_of_another_subject, "destination: labels", "FAIL", "SUB1_MR1"),
    (a_mode_that_archives_by_itself, "destination: prearchive", "OK", "overwriting"),
]


@pytest.mark.parametrize(
    ("spoil", "check", "status", "words"), CASES, ids=[one[0].__name__ for one in CASES]
)
def test_a_fault_is_found_before_anything_is_written(
    xnatctl: Call,
    ends: Ends,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Ends], None],
    check: str,
    status: str,
    words: str,
) -> None:
    ends.there.accounts.add("reader", "reader")
    if spoil is a_login_that_may_only_read:
        monkeypatch.setenv("XNAT_DEST_USER", "reader")
        monkeypatch.setenv("XNAT_DEST_PASS", "reader")
    spoil(ends)

    done = xnatctl(*CHECK)

    (row,) = [one for one in done.json() if one["check"] == check]
    assert row["status"] == status, row
    assert words in row["detail"]
    assert done.code == int(status == "FAIL"), done.out
    for method in ("PUT", "POST", "DELETE"):
        written = ends.there.counters.count(method, "/data/projects")
        assert written == 0


def test_both_ends_and_their_versions_clocks_and_limits_are_told(xnatctl: Call, ends: Ends) -> None:
    rows = {one["check"]: one for one in xnatctl(*CHECK).json()}

    assert {one["status"] for one in rows.values()} == {"OK"}
    assert "XNAT 1." in rows["source: reachable"]["detail"]
    for end in ("source", "destination"):
        assert rows[f"{end}: clock"]["detail"].endswith("s apart")
    assert rows["destination: body limit"]["detail"] == "none found"
    assert rows["destination: plugins"]["detail"] == "none is missing"
    assert rows["destination: project"]["detail"] == "COPY will be created"


@contextmanager
def narrow_proxy(upstream: str, most: int) -> Iterator[str]:
    """A proxy that refuses larger bodies by what their header announces, as web servers do."""
    where = urlsplit(upstream)

    class Relay(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *words: object) -> None:
            pass

        def handle_expect_100(self) -> bool:
            if int(self.headers.get("Content-Length", 0)) > most:
                self.close_connection = True
                self.send_error(413)
                return False
            return super().handle_expect_100()

        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            link = HTTPConnection(str(where.hostname), where.port)
            headers = {name: text for name, text in self.headers.items() if name != "Expect"}
            link.request(self.command, self.path, body, headers)
            answer = link.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, text in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            link.close()

        do_GET = do_PUT = do_POST = do_DELETE = relay

    with ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_proxy_that_takes_only_small_bodies_is_found(
    xnatctl: Call, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    with narrow_proxy(ends.there.url, 1_000_000) as url:
        monkeypatch.setenv("XNAT_DEST_URL", url)
        done = xnatctl(*CHECK)

    (row,) = [one for one in done.json() if one["check"] == "destination: body limit"]
    assert (row["status"], done.code) == ("FAIL", 1), row
    assert "413" in row["detail"]


def test_a_plugin_that_only_the_source_has_is_named(xnatctl: Call, ends: Ends) -> None:
    ends.there.faults.add(Fault("GET /xapi/plugins*", "status", nth=1, times=9, status=404))

    rows = {one["check"]: one for one in xnatctl(*CHECK).json()}

    assert rows["destination: plugins"]["status"] == "WARN"
    assert rows["destination: plugins"]["detail"].startswith("only at the source: ")


def test_clocks_that_are_apart_are_told(
    xnatctl: Call, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xnatctl.cli.transfer_check.CLOCK_TOLERANCE_S", -1.0)

    rows = {one["check"]: one for one in xnatctl(*CHECK).json()}

    assert [rows[f"{end}: clock"]["status"] for end in ("source", "destination")] == ["WARN"] * 2
