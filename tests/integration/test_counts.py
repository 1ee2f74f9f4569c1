"""What the destination counts of its resources, which nobody sees in a listing of files."""

from __future__ import annotations

from tests.integration.conftest import Bench
from xnatctl.sandbox.faults import Fault


def counts(demo: Bench) -> list[int | None]:
    """The cached number of files of every resource that has any, at the destination."""
    rows = demo.there.store.db.execute(
        "SELECT r.file_count FROM resources r "
        "WHERE EXISTS (SELECT 1 FROM files f WHERE f.resource = r.id)"
    )
    return [row[0] for row in rows]


async def test_a_run_that_ended_before_the_catalogs_were_refreshed_has_it_done_by_the_next(
    demo: Bench,
) -> None:
    demo.there.faults.add(Fault("POST */refresh/catalog*", "status", status=400))
    report = await demo.transfer()
    assert report.exit_code == 1
    assert None in counts(demo)
    demo.there.faults.clear()
    report = await demo.transfer()
    assert report.exit_code == 0
    assert report.files == 0
    assert None not in counts(demo)
