"""The account of a past run, out of the state store: a table, JSON, or a page that opens
offline.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from .console import Column, Console
from .render import size, span
from .report import gone_sentence, imported, left_sentence

FIGURES = ("copied", "kept", "left", "failed", "files", "bytes", "files_kept")


class Remembered(Protocol):
    """A run as the state store gives it back."""

    @property
    def id(self) -> str: ...
    @property
    def verb(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def sink(self) -> str: ...
    @property
    def command(self) -> str: ...
    @property
    def started(self) -> float: ...
    @property
    def ended(self) -> float | None: ...
    @property
    def status(self) -> str: ...
    @property
    def report(self) -> Mapping[str, Any]: ...


def account_json(run: Remembered) -> dict[str, Any]:
    """The run with its totals, problems and what was left behind. Times in UTC, sizes in bytes."""
    report = dict(run.report)
    return {
        "run_id": run.id,
        "verb": run.verb,
        "status": run.status,
        "source": run.source,
        "destination": run.sink,
        "command": run.command,
        "started": _at(run.started),
        "ended": _at(run.ended),
        "duration_s": report.pop("seconds", None),
        **report,
    }


def _at(moment: float | None) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds") if moment else ""


def category_rows(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"kind": kind, **{name: counts.get(name, 0) for name in FIGURES}}
        for kind, counts in data.get("by_kind", {}).items()
    ]


def print_account(data: Mapping[str, Any], console: Console) -> None:
    columns = [Column("kind")]
    columns += [
        Column(name, right=True, show=size) if name == "bytes" else Column(name, right=True)
        for name in FIGURES
    ]
    console.rows(category_rows(data), columns, key="kind")
    verified = data.get("verified", {})
    for how, number in verified.items():
        console.say(f"verified by {how}: {number} files")
    if changed := imported(data["verb"], verified):
        console.say(changed)
    for one in data.get("left", []):
        console.warn(left_sentence(one))
    for one in data.get("gone", []):
        console.say(gone_sentence(one["key"], one["code"], one["reason"]))
    for one in data.get("remarks", []):
        console.say(f"{one['label'] or one['key']}: {one['text']}")
    for one in data.get("problems", []):
        console.fail(f"{one['key']}: {one['error']}")
    console.say(f"run {data['run_id']}: {data['status']}, {span(data['duration_s'] or 0.0)}")


def to_html(data: Mapping[str, Any]) -> str:
    """One page without anything from elsewhere. Server text is escaped by the template engine."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("xnatctl", "ui")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["size"] = size
    return environment.get_template("account.html").render(
        run=data,
        rows=category_rows(data),
        figures=FIGURES,
        verified=data.get("verified", {}),
        imported=imported(data["verb"], data.get("verified", {})),
        left=data.get("left", []),
        gone=data.get("gone", []),
        remarks=data.get("remarks", []),
        problems=data.get("problems", []),
        good=data.get("exit_code") == 0 and data["status"] == "done",
    )
