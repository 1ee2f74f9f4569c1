"""What a list shows: filter, order, limit and columns. Pure; the same on every list command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from xnatctl.errors import UsageError

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """The list options of one command, as they were typed."""

    filters: tuple[str, ...] = ()
    sort_by: str | None = None
    limit: int | None = None
    columns: str | None = None


def shaped(rows: Sequence[Row], columns: Sequence[str], shape: Shape) -> list[Row]:
    """The rows that remain, in order. Raises UsageError for a field that no row has.

    1. Filters, all of which must match: a glob over the field, capitals and small letters alike.
    2. Order: numbers as numbers where all values are numbers; rows without a value come last
       whatever the direction.
    3. The limit.
    """
    known = tuple(dict.fromkeys((*columns, *(key for row in rows for key in row))))
    kept = list(rows)
    for text in shape.filters:
        name, colon, glob = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(
                f"--filter {text!r} cannot be understood",
                why="it is FIELD:GLOB",
                hint=f"--filter '{known[0] if known else 'label'}:SUB*'",
            )
        name = _field(name, known, "--filter")
        pattern = glob.strip().casefold()
        kept = [one for one in kept if fnmatchcase(_text(one.get(name)).casefold(), pattern)]
    if shape.sort_by:
        name, _, direction = shape.sort_by.partition(":")
        direction = direction.strip().lower() or "asc"
        if direction not in ("asc", "desc"):
            raise UsageError(
                f"--sort-by {shape.sort_by!r} cannot be understood",
                why="the direction is asc or desc",
                hint=f"--sort-by {name}:desc",
            )
        kept = _sorted(kept, _field(name, known, "--sort-by"), descending=direction == "desc")
    return kept if shape.limit is None else kept[: shape.limit]


def chosen(columns: Sequence[str], rows: Sequence[Row], shape: Shape) -> tuple[str, ...] | None:
    """The columns that `--columns` names, or None when it was not given."""
    if shape.columns is None:
        return None
    known = tuple(dict.fromkeys((*columns, *(key for row in rows for key in row))))
    names = [name for name in shape.columns.split(",") if name.strip()]
    if not names:
        raise UsageError("--columns names no column", hint=f"--columns {','.join(known[:2])}")
    return tuple(_field(name, known, "--columns") for name in names)


def _field(name: str, known: Sequence[str], option: str) -> str:
    name = name.strip()
    if name in known:
        return name
    folded = {one.casefold(): one for one in known}
    if name.casefold() in folded:
        return folded[name.casefold()]
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    raise UsageError(
        f"{option}: there is no field {name!r}",
        why=f"the fields are {', '.join(known)}",
        hint=f"{option} {close[0]}" if close else "",
    )


def _sorted(rows: list[Row], name: str, *, descending: bool) -> list[Row]:
    present = [row for row in rows if row.get(name) not in (None, "")]
    absent = [row for row in rows if row.get(name) in (None, "")]
    numbers = [_number(row.get(name)) for row in present]
    if all(number is not None for number in numbers):
        present.sort(key=lambda row: _number(row.get(name)) or 0.0, reverse=descending)
    else:
        present.sort(key=lambda row: _text(row.get(name)).casefold(), reverse=descending)
    return present + absent


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _text(value: object) -> str:
    return "" if value is None else str(value)
