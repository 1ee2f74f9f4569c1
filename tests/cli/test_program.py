"""The program as a process: signals, pipes, streams that are closed, terminals, errors."""

from __future__ import annotations

import os
import pty
import signal
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from anyio.from_thread import start_blocking_portal

from tests.unit.wire import wire

Call = Callable[..., Any]

# A job that says when it runs and what became of it. `graceful` decides how it takes a signal.
JOB = """
import sys
import anyio
from xnatctl.cli.app import App
from xnatctl.cli.group import Job
from xnatctl.cli.run import supervise

app = App(("project", "transfer", "-P", "MY STUDY"))
app.grace_s = float(sys.argv[2])

async def plain():
    try:
        print("running", flush=True)
        await anyio.sleep(30)
    finally:
        print("cleaned", flush=True)

async def graceful():
    asked = anyio.Event()
    def ask(why, code):
        print("asked", why, code, flush=True)
        asked.set()
    with app.graceful(ask):
        try:
            print("running", flush=True)
            await asked.wait()
            await anyio.sleep(float(sys.argv[3]))
            print("finished", flush=True)
        finally:
            print("cleaned", flush=True)

async def stubborn():
    with anyio.CancelScope(shield=True):
        print("running", flush=True)
        await anyio.sleep(30)

sys.exit(supervise(app, Job(globals()[sys.argv[1]], "job")))
"""


def job(name: str, *, grace: float = 5.0, work: float = 0.0) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", JOB, name, str(grace), str(work)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "running\n"
    return started


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_after_its_cleaning_up(number: signal.Signals, code: int) -> None:
    process = job("plain")
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (code, "cleaned\n")
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_lets_a_run_finish_what_is_under_way(
    number: signal.Signals, code: int
) -> None:
    process = job("graceful")
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    why = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert (process.returncode, out) == (code, f"asked {why} {code}\nfinished\ncleaned\n")
    assert "xnatctl project transfer -P 'MY STUDY'" in err


def test_the_second_signal_ends_a_run_at_once() -> None:
    process = job("graceful", work=30)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("asked")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, "cleaned\n")


def test_a_run_that_does_not_finish_in_its_grace_is_ended() -> None:
    process = job("graceful", grace=-4.9, work=30)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 143
    assert out.endswith("cleaned\n")


def test_the_third_signal_kills_a_process_that_hears_nothing() -> None:
    process = job("stubborn")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT


def program(
    *argv: str, environ: Mapping[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xnatctl", *argv],
        env={**os.environ, **(environ or {})},
        capture_output=not more,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=30,
        check=False,
        **more,
    )


def test_a_reader_that_goes_away_is_no_error(signed_in: Any, tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        set -o pipefail
        {sys.executable} -m xnatctl project list -o json 2>{tmp_path}/err | true
        """
    )
    done = subprocess.run(["bash", "-c", script], timeout=30, check=False)
    assert done.returncode == 0
    assert (tmp_path / "err").read_text() == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_streams_that_are_closed_are_no_error(signed_in: Any, closed: str) -> None:
    script = f"{sys.executable} -m xnatctl project list {closed}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_a_locale_without_utf8_gets_escapes(signed_in: Any) -> None:
    environ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = program("project", "list", environ=environ)
    assert done.returncode == 0
    assert "\\xe9" in done.stdout


def on_terminal(*argv: str, **environ: str) -> str:
    """What the program writes to a terminal of 80 columns, escapes and all."""
    master, slave = pty.openpty()
    size = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}
    with os.fdopen(slave, "wb", buffering=0) as end:
        subprocess.run(
            [sys.executable, "-m", "xnatctl", *argv],
            env={**os.environ, **size, **environ},
            stdin=end,
            stdout=end,
            stderr=end,
            timeout=30,
            check=False,
        )
    text = b""
    with os.fdopen(master, "rb", buffering=0) as source:
        try:
            while chunk := source.read(65536):
                text += chunk
        except OSError:
            pass  # Linux says EIO when the other end is closed
    return text.decode()


def test_a_terminal_gets_a_table_and_colour(signed_in: Any) -> None:
    text = on_terminal("project", "list")
    assert "DESCRIPTION" in text
    assert "Ageing [red] study" in text
    assert "\x1b[1m" in text


@pytest.mark.parametrize(
    ("argv", "environ"),
    [((), {"NO_COLOR": "1"}), (("--no-color",), {}), (("--color", "never"), {})],
)
def test_a_terminal_without_colour_gets_no_escapes(
    signed_in: Any, argv: tuple[str, ...], environ: dict[str, str]
) -> None:
    text = on_terminal("project", "list", *argv, **environ)
    assert "DESCRIPTION" in text
    assert "\x1b" not in text


def test_a_dumb_terminal_gets_a_table_without_escapes(signed_in: Any) -> None:
    text = on_terminal("project", "list", TERM="dumb")
    assert "DESCRIPTION" in text
    assert "\x1b" not in text


def test_an_error_on_a_terminal_is_three_lines(signed_in: Any) -> None:
    text = on_terminal("project", "show", "NOPE", "--no-color")
    assert [line.split(":")[0].strip() for line in text.splitlines()] == ["error", "why", "fix"]


# -- errors and usage ----------------------------------------------------------------------------


def test_no_arguments_show_the_help_and_a_noun_alone_is_a_usage_error(xnatctl: Call) -> None:
    root = xnatctl()
    assert (root.code, root.err) == (0, "")
    assert root.out.startswith("Usage: xnatctl")
    noun = xnatctl("project")
    assert (noun.code, noun.out) == (2, "")
    assert "Usage: xnatctl project" in noun.err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("projct",), "did you mean project?"),
        (("project", "lst"), "did you mean list?"),
        (("project", "list", "--limt", "1"), "did you mean --limit?"),
        (("project", "list", "--limit", "x"), "'x' is not a whole number"),
        (("help", "session", "downlod"), "fix: xnatctl help session download"),
        (("project", "list", "-o", "xml"), "is not one of"),
        (("scan", "list"), "missing option '-E' / '--experiment'"),
        (("project", "list", "extra"), "unexpected extra argument"),
    ],
)
def test_a_line_that_makes_no_sense_exits_2_and_names_what_is_near(
    xnatctl: Call, argv: tuple[str, ...], words: str
) -> None:
    done = xnatctl(*argv)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "fix: xnatctl" in done.err


def test_a_fault_of_ours_is_one_line_and_a_traceback_only_with_debug(
    xnatctl: Call, signed_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom [red]")

    monkeypatch.setattr("xnatctl.ui.console.Console.rows", broken)
    done = xnatctl("project", "list")
    assert done.code == 1
    assert "error: internal error: RuntimeError: boom [red]" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in xnatctl("project", "list", "--debug").err
    monkeypatch.setenv("XNATCTL_DEBUG", "1")
    assert "Traceback" in xnatctl("project", "list").err


def test_a_log_file_that_cannot_be_written_is_named(xnatctl: Call, signed_in: Any) -> None:
    done = xnatctl("project", "list", "--log-file", "/nowhere/x.log")
    assert (done.code, done.out) == (1, "")
    assert "/nowhere/x.log" in done.err


def test_a_listing_loads_nothing_that_moves_data(signed_in: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "xnatctl", "project", "list"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "xnatctl.transport" in loaded
    heavy = {"rich", "yaml", "jinja2", "sqlite3", "pydicom", "aiofiles", "aiohttp.web"}
    assert not heavy & loaded
    rooms = ("xnatctl.engine", "xnatctl.endpoints", "xnatctl.routes", "xnatctl.sandbox")
    assert not [name for name in loaded if name.startswith(rooms)]


@pytest.mark.parametrize(("trusted", "code"), [(True, 0), (False, 4)])
def test_the_authorities_of_the_system_are_those_that_are_trusted(
    trusted: bool, code: int, tmp_path: Path
) -> None:
    ours, other = trustme.CA(), trustme.CA()
    (ours if trusted else other).cert_pem.write_to_path(tmp_path / "system.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.issue_cert("127.0.0.1").configure_cert(context)

    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(wire(tls=context)) as server,
    ):
        where = {"XNAT_URL": server.url, "XNAT_TOKEN": "0123456789ABCDEF"}
        system = {"SSL_CERT_FILE": str(tmp_path / "system.pem"), "SSL_CERT_DIR": "/nowhere"}
        done = program("api", "get", "/data/version", environ=where | system)
    assert done.returncode == code, done.stderr
    assert bool(server.asked) is trusted


def test_a_certificate_that_is_not_checked_is_said_each_time(
    xnatctl: Call, signed_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_VERIFY_SSL", "false")
    assert "warning: the certificate of" in xnatctl("project", "list").err
    assert "warning: the certificate of" in xnatctl("project", "list", "-q").err
