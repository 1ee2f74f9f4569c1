"""The table of faults itself: its rows, who tries them, and how it gets into a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.ledger import BEGIN, ELSEWHERE, END, ROWS, Row, table, write
from tests.faults.weather import FAIR_ONLY, FUNCTIONAL, LEFT_OUT

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_test_that_belongs_to_a_row_exists(name: str) -> None:
    path, _, start = name.partition("::")
    assert f"def {start}" in (ROOT / path).read_text("utf-8")
    assert ELSEWHERE[name] in ROWS


def test_every_row_is_tried_by_a_test() -> None:
    files = [path for path in (ROOT / "tests").rglob("*.py") if path.name != "ledger.py"]
    said = "".join(path.read_text("utf-8") for path in files)
    tried = {row for row in ROWS if f'"{row}"' in said} | set(ELSEWHERE.values())
    assert tried == set(ROWS)


def test_every_functional_test_meets_bad_weather_or_says_why_not() -> None:
    found = {path.stem for path in (ROOT / "tests/integration").glob("test_*.py")}
    assert found == FUNCTIONAL | set(LEFT_OUT)
    said = "".join(path.read_text("utf-8") for path in (ROOT / "tests/integration").glob("*.py"))
    assert all(f"def {name}(" in said for name in FAIR_ONLY)


def test_a_table_adds_up_and_leaves_out_what_was_not_tried() -> None:
    one, two = list(ROWS)[:2]
    lines = table({one: Row(tries=3), two: Row(tries=4, failed=1)})
    assert [line.count("|") for line in lines] == [8] * 5
    assert lines[2].startswith(f"| {one} |") and "| 3 | 0 | 0 | 0 | 0 |" in lines[2]
    assert "| 7 | 1 | 0 | 0 | 0 |" in lines[4]


def test_a_page_keeps_all_but_its_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", "utf-8")
    write(page, ["new"])
    write(page, ["newer", "rows"])
    assert page.read_text("utf-8") == f"before\n{BEGIN}\nnewer\nrows\n{END}\nafter\n"
