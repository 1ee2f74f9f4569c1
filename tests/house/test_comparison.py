"""The comparison with 0.6.0 names a test for every defect, and the test is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_defect_of_the_comparison_has_the_test_that_it_names() -> None:
    page = (ROOT / "docs" / "comparison.md").read_text("utf-8")
    table = page.partition("<!-- defects: begin -->")[2].partition("<!-- defects: end -->")[0]
    rows = re.findall(r"^\| (\d+) \| .+ \| `(test_\w+)` \|$", table, re.MULTILINE)
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))
    }

    assert [int(number) for number, _ in rows] == list(range(1, 22))
    assert {name for _, name in rows} <= defined
