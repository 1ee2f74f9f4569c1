"""A server behind TLS with a private authority, as hospitals have them: a real nginx in front."""

from __future__ import annotations

import datetime
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from anyio.from_thread import start_blocking_portal

from tests.cli.conftest import process
from xnatctl.sandbox.seed import seed
from xnatctl.sandbox.server import Sandbox

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

CONF = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
    client_max_body_size 0; proxy_request_buffering off; proxy_buffering off;
    location / {{ proxy_pass {url}; proxy_http_version 1.1; proxy_set_header Host $http_host; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with start_blocking_portal() as portal:
        server = Sandbox(tmp_path / "server")
        with portal.wrap_async_context_manager(server):
            portal.call(seed, server.store, "demo")
            yield server


@pytest.fixture
def bundle(tmp_path: Path, authority: trustme.CA) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


class Front:
    """An nginx that speaks TLS for a sandbox."""

    def __init__(self, folder: Path, sandbox: Sandbox, certificate: trustme.LeafCert) -> None:
        folder.mkdir()
        certificate.private_key_pem.write_to_path(folder / "server.key")
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(folder / "server.pem", append=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (folder / "nginx.conf").write_text(CONF.format(folder=folder, port=port, url=sandbox.url))
        self.url = f"https://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", "stderr"],
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"nginx did not start: {(folder / 'error.log').read_text()}")

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def call(front: Front, home: Path, *argv: str, **more: str) -> tuple[int, str]:
    environ = {"HOME": str(home), "XNAT_URL": front.url, "XNAT_USER": "admin"}
    environ |= {"XNAT_PASS": "admin", "PATH": "/usr/bin:/bin", **more}
    running = process(*argv, env=environ, cwd=home)
    out, err = running.communicate(timeout=60)
    return running.returncode, out + err


@pytest.mark.fault("name, address or certificate fails")
def test_a_private_authority_is_trusted_when_it_is_named_and_not_before(
    tmp_path: Path, sandbox: Sandbox, authority: trustme.CA, bundle: Path
) -> None:
    download = ("session", "download", "-P", "DEMO", "-E", "DEMO_003_US1", "--out", "out")
    with Front(tmp_path / "nginx", sandbox, authority.issue_cert("127.0.0.1")) as front:
        code, said = call(front, tmp_path, *download)
        assert code == 4, said
        assert "--ca-bundle" in said
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.dcm"))

        code, said = call(front, tmp_path, *download, XNAT_CA_BUNDLE=str(bundle))
        assert code == 0, said
        assert "not checked" not in said
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.fault("name, address or certificate fails")
def test_a_certificate_that_has_expired_is_refused_at_once(
    tmp_path: Path, sandbox: Sandbox, authority: trustme.CA, bundle: Path
) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    expired = authority.issue_cert(
        "127.0.0.1", not_before=past - datetime.timedelta(days=9), not_after=past
    )
    with Front(tmp_path / "nginx", sandbox, expired) as front:
        code, said = call(front, tmp_path, "project", "list", XNAT_CA_BUNDLE=str(bundle))
    assert code == 4, said
    assert "expired" in said
    assert sandbox.counters.count() == 0


@pytest.mark.long
def test_who_checks_no_certificate_is_warned_each_time(
    tmp_path: Path, sandbox: Sandbox, authority: trustme.CA
) -> None:
    with Front(tmp_path / "nginx", sandbox, authority.issue_cert("127.0.0.1")) as front:
        for _ in range(2):
            code, said = call(front, tmp_path, "project", "list", XNAT_VERIFY_SSL="false")
            assert code == 0, said
            assert "not checked" in said


def test_the_context_of_the_standard_library_agrees(authority: trustme.CA) -> None:
    """The authority is one that nobody trusts by default, or the first test would prove nothing."""
    context = ssl.create_default_context()
    before = context.cert_store_stats()["x509_ca"]
    authority.configure_trust(context)
    assert context.cert_store_stats()["x509_ca"] == before + 1
