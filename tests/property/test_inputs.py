"""Whatever a file, a variable or an argument holds: it is read, or refused by one of our errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xnatctl import config, credentials
from xnatctl.cli.selection import load_labels, load_transfer_file
from xnatctl.dicom.head import Unfit, read_head
from xnatctl.endpoints import bodies
from xnatctl.endpoints.bids import Rules
from xnatctl.endpoints.bundle_reader import BundleReader
from xnatctl.endpoints.manifest import read_manifest
from xnatctl.engine.pace import Window, parse_rate
from xnatctl.engine.state import StateStore
from xnatctl.errors import LocalFault, XnatctlError

pytestmark = pytest.mark.timeout(900)
FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
)


def trees(*keys: str) -> st.SearchStrategy[Any]:
    """Data of a YAML file that knows some of the right keys."""
    names = st.sampled_from(keys) | st.text(max_size=5) | st.integers() | st.none()
    return st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )


CONFIG = trees("version", "profiles", "default_profile", "default", "url", "username", "password")
CONFIGS = CONFIG | st.fixed_dictionaries(
    {"profiles": st.dictionaries(st.text(max_size=4), CONFIG, max_size=2)}
) | st.fixed_dictionaries(
    {
        "profiles": st.fixed_dictionaries(
            {
                "default": st.dictionaries(
                    st.sampled_from(
                        ["url", "verify_ssl", "timeout", "workers", "ca_bundle", "password"]
                    ),
                    SCALARS,
                )
            }
        )
    }
)  # fmt: skip
TRANSFERS = trees(
    "source_project", "filtering", "imaging_sessions", "xsi_types", "sync_type", "items",
    "scan_types", "resources", "project_resources", "max_failures", "all", "include",
)  # fmt: skip


def only_ours(work: Callable[[], object]) -> None:
    try:
        work()
    except XnatctlError as error:
        assert str(error)


VARIABLES = ("XNAT_URL", "XNAT_TIMEOUT", "XNAT_VERIFY_SSL", "XNAT_PROFILE", "XNAT_DEST_URL")
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@FOLDER
@given(CONFIGS, st.dictionaries(st.sampled_from(VARIABLES), TEXT))
def test_no_configuration_raises_anything_but_our_errors(
    tmp_path: Path, data: Any, environ: dict[str, str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data), "utf-8")
    environ = {"HOME": str(tmp_path), **environ}

    def work() -> None:
        found = config.load(path, environ)
        for name in (None, "default", *found.profiles):
            only_ours(lambda name=name: found.resolve(name))  # type: ignore[misc]
        only_ours(lambda: found.resolve(role="destination"))

    only_ours(work)


@FOLDER
@given(st.binary(max_size=80))
def test_no_bytes_in_the_place_of_a_file_raise_anything_but_our_errors(
    tmp_path: Path, noise: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(noise)

    for work in (
        lambda: config.load(path, {"HOME": str(tmp_path)}),
        lambda: load_transfer_file(path),
        lambda: load_labels(path),
        lambda: list(read_manifest(path)),
        lambda: credentials.LoginCache(path).find("http://x"),
    ):
        only_ours(work)
    with ExitStack() as kept:
        only_ours(lambda: list(bodies.find(path, kept)))


@FOLDER
@given(TRANSFERS)
def test_no_transfer_file_raises_anything_but_our_errors(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "transfer.yaml"
    path.write_text(yaml.safe_dump(data), "utf-8")
    only_ours(lambda: load_transfer_file(path))
    only_ours(lambda: load_labels(path))


@given(trees("rules", "resources", "subject", "session", "name", "scan", "file"))
def test_no_rules_raise_anything_but_our_errors(data: Any) -> None:
    only_ours(lambda: Rules.parse(data, "rules.yaml"))
    only_ours(lambda: Rules.parse({"rules": [data], "subject": str(data)}, "rules.yaml"))


@FOLDER
@given(st.lists(trees("path", "size", "md5", "sha256", "source"), max_size=3))
def test_no_manifest_raises_anything_but_our_errors(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(f"{json.dumps(row, default=str)}\n" for row in rows), "utf-8")
    only_ours(lambda: list(read_manifest(path)))
    only_ours(lambda: BundleReader(tmp_path))


@FOLDER
@given(st.sampled_from([b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0"]), st.binary())
def test_no_archive_raises_anything_but_our_errors(
    tmp_path: Path, start: bytes, rest: bytes
) -> None:
    path = tmp_path / "export"
    path.write_bytes(start + rest)
    with ExitStack() as kept:
        only_ours(lambda: list(bodies.find(path, kept)))


@FOLDER
@given(st.binary(max_size=300), st.booleans())
def test_no_object_s_head_is_too_damaged_to_be_told(
    tmp_path: Path, noise: bytes, marked: bool
) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"\0" * 128 + b"DICM" + noise if marked else noise)
    with path.open("rb") as file:
        try:
            read_head(file, path.stat().st_size)
        except Unfit as error:
            assert str(error)


@given(st.text(max_size=20) | st.from_regex(r"\d{0,3}:?\d{0,2}[+-]\d{1,2}:\d{2}(-\d\d:\d\d)?"))
def test_no_rate_and_no_window_raise_anything_but_our_errors(text: str) -> None:
    only_ours(lambda: parse_rate(text))
    only_ours(lambda: Window.parse(text))


@settings(FOLDER, max_examples=100)
@given(st.integers(0, 20_000), st.binary(min_size=1, max_size=60))
async def test_a_store_with_damage_anywhere_is_used_or_refused_in_words(
    tmp_path: Path, at: int, noise: bytes
) -> None:
    path = tmp_path / "state.db"
    for old in ("state.db", "state.db-wal", "state.db-shm"):
        (tmp_path / old).unlink(missing_ok=True)
    async with StateStore.open(path) as store:
        await store.keep_local_digests((f"f{n}", n, n, "d" * 32) for n in range(200))
    whole = bytearray(path.read_bytes())
    whole[at % len(whole) : at % len(whole) + len(noise)] = noise
    path.write_bytes(whole)
    try:
        async with StateStore.open(path) as store:
            await store.local_digests([(f"f{n}", n, n) for n in range(200)])
            await store.keep_local_digests([("new", 1, 1, "d")])
            await store.runs()
    except LocalFault as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("text", ["22:00+01:00-06:00", "22-06", "25:00-26:00", ""])
def test_windows_that_people_have_typed_are_read_or_refused(text: str) -> None:
    only_ours(lambda: Window.parse(text))
