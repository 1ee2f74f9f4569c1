"""Data as text: JSON, JSON lines, YAML, CSV, TSV, aligned plain columns. Pure; writes nothing.

A server's text is data. Control characters are shown, never sent to a terminal, where they could
move the cursor or retitle the window; brackets are never read as markup.
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .shape import Row

# C0, DEL, C1, and the marks that turn the reading direction of what follows.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Valid in JSON, yet a terminal acts on them.
_JSON_RISK = re.compile(r"[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def visible(text: object) -> str:
    """`text` on one line, each control character as the escape that a programmer would write."""
    return _CONTROL.sub(lambda found: _escape(found.group()), str(text))


def _escape(char: str) -> str:
    code = ord(char)
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def cell(value: object) -> str:
    """A value as a table shows it: nothing for None, yes and no, lists with commas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return visible(json.dumps(value, ensure_ascii=False, default=str))
    if isinstance(value, list | tuple):
        return ", ".join(cell(one) for one in value)
    return visible(value)


def as_json(data: object) -> str:
    text = json.dumps(data, indent=2, ensure_ascii=False, default=str)
    return _JSON_RISK.sub(lambda found: f"\\u{ord(found.group()):04x}", text) + "\n"


def as_json_line(data: object) -> str:
    text = json.dumps(data, ensure_ascii=False, default=str, separators=(",", ":"))
    return _JSON_RISK.sub(lambda found: f"\\u{ord(found.group()):04x}", text) + "\n"


def as_yaml(data: object) -> str:
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    plain = json.loads(json.dumps(data, default=str))
    text = str(yaml.dump(plain, Dumper=dumper, sort_keys=False, allow_unicode=True))
    if _JSON_RISK.search(text):
        text = str(yaml.dump(plain, Dumper=dumper, sort_keys=False, allow_unicode=False))
    return text


def as_csv(rows: Iterable[Row], columns: Sequence[str], *, header: bool) -> str:
    import csv

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows([_flat(row.get(name)) for name in columns] for row in rows)
    return out.getvalue()


def as_tsv(rows: Iterable[Row], columns: Sequence[str], *, header: bool) -> str:
    """One line a row whatever the cells hold: tabs and line ends inside them are escaped."""
    lines = ["\t".join(columns)] if header else []
    lines += ["\t".join(visible(_flat(row.get(name))) for name in columns) for row in rows]
    return "".join(f"{line}\n" for line in lines)


def as_columns(table: Sequence[Sequence[str]], *, header: bool) -> str:
    """Aligned columns for a pipe: nothing is cut and nothing wraps."""
    shown = table if header else table[1:]
    widths = [max((width(row[at]) for row in shown), default=0) for at in range(len(table[0]))]
    lines = []
    for row in shown:
        cells = [text + " " * (widths[at] - width(text)) for at, text in enumerate(row)]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def width(text: str) -> int:
    """Columns of a terminal that `text` takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def size(count: float | None) -> str:
    """Bytes for people: 1.5 GiB. Exact below 1 KiB."""
    if count is None:
        return "?"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def size_cell(value: object) -> str:
    """A size in a table for people; whatever is no number stays what it is."""
    return size(float(str(value))) if str(value).isdigit() else cell(value)


def span(seconds: float | None) -> str:
    """A duration for people: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 file`, `12 files`, `2 entries`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _flat(value: Any) -> str:
    """A cell of CSV or TSV: lists and mappings as JSON, booleans as JSON spells them."""
    if value is None:
        return ""
    if isinstance(value, bool | list | tuple | Mapping):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
