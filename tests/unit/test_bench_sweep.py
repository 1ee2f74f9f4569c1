"""What a sweep concludes, from simulated measurements: no clock, no server."""

from __future__ import annotations

from typing import Any

import pytest

from xnatctl.bench.sample import resources_of, sets_of
from xnatctl.bench.sweep import Spread, Step, Verb, advise, limit_of, spread, why_stop
from xnatctl.engine.types import Item, Unit
from xnatctl.model import Ref

SETTINGS = (1, 2, 4, 8, 16, 32)
MB = 10**6


def flat(seconds: float) -> Spread:
    return Spread(seconds, seconds, seconds)


def step(at_once: int, mb_per_s: float, *, wait: float = 0.01, **more: Any) -> Step:
    """A second of requests of 1 MB. In a closed loop each takes at_once / rate."""
    verb: Verb = more.pop("verb", "download")
    return Step(
        verb,
        MB,
        at_once,
        1.0,
        requests=round(mb_per_s),
        files=round(mb_per_s),
        bytes=round(mb_per_s * MB),
        first_byte_s=None if verb == "upload" else flat(wait),
        answer_s=flat(more.pop("answer", wait)) if verb != "download" else None,
        request_s=flat(at_once / mb_per_s),
        **more,
    )


def climbed(steps: list[Step]) -> list[Step]:
    """As many of the steps as a sweep would make."""
    for number in range(1, len(steps) + 1):
        if why_stop(steps[:number]):
            return steps[:number]
    return steps


def knee_at_8(*, server: bool) -> list[Step]:
    """Ten MB/s a connection up to eight; then requests queue, at the server or on the link."""
    found = []
    for at_once in SETTINGS:
        rate = 10.0 * min(at_once, 8)
        queued = at_once / rate - 0.1
        found.append(step(at_once, rate, wait=0.01 + (queued if server else 0.0)))
    return found


def test_nobody_climbs_beyond_two_steps_that_brought_nothing() -> None:
    steps = climbed(knee_at_8(server=True))
    assert [one.concurrency for one in steps] == list(SETTINGS)
    assert why_stop(steps) == "more than 8 at once brought nothing"
    assert [one.concurrency for one in climbed([step(at, 50) for at in SETTINGS])] == [1, 2, 4]


def test_a_knee_at_eight_is_what_is_recommended() -> None:
    advice = advise({MB: knee_at_8(server=True)})
    assert advice is not None
    assert advice.workers == 8


def test_time_that_is_added_before_the_first_byte_is_the_servers() -> None:
    assert limit_of(knee_at_8(server=True)).where == "source"


def test_time_that_is_added_while_bytes_move_is_the_links() -> None:
    limit = limit_of(knee_at_8(server=False))
    assert limit.where == "link"
    assert "0% of it before the first byte" in limit.why


def test_an_upload_that_waits_for_its_answers_is_held_by_the_destination() -> None:
    steps = [step(at, 20, verb="upload", answer=at / 20 - 0.01) for at in (1, 2, 4)]
    assert limit_of(steps).where == "destination"


@pytest.mark.parametrize(("source", "sink"), [(3.0, 1.0), (1.0, 3.0)])
def test_a_transfer_is_held_by_the_end_that_is_waited_for(source: float, sink: float) -> None:
    steps = [
        step(
            at,
            20,
            verb="transfer",
            wait=at / 20 - 0.02,
            answer=at / 20 - 0.02,
            source_wait_s=source,
            sink_wait_s=sink,
        )
        for at in (1, 2, 4)
    ]
    assert limit_of(steps).where == ("source" if source > sink else "destination")


def test_speed_that_grows_with_every_connection_is_held_by_the_latency_of_the_link() -> None:
    steps = [step(at, 2.0 * at) for at in SETTINGS]
    assert climbed(steps) == steps
    limit = limit_of(steps)
    assert (limit.where, "not reached with 32" in limit.why) == ("link", True)
    advice = advise({MB: steps})
    assert advice is not None
    assert (advice.workers, advice.why) == (32, "the most that was tried was the fastest")


def test_a_process_near_one_core_is_the_limit_whatever_the_times_say() -> None:
    steps = [step(at, 300 if at > 1 else 200, cpu_s=0.6 if at == 1 else 0.93) for at in (1, 2, 4)]
    limit = limit_of(steps)
    assert limit.where == "this machine"
    assert "93%" in limit.why


def test_a_machine_whose_cores_are_all_busy_is_the_limit() -> None:
    limit = limit_of([step(at, 100, cpu_s=0.3, machine_busy=0.99) for at in (1, 2, 4)])
    assert limit.where == "this machine"


def test_cores_that_others_keep_busy_are_named_and_not_blamed() -> None:
    held = [step(at, 20, wait=at / 20 - 0.01, cpu_s=0.05, machine_busy=1.0) for at in (1, 2, 4)]
    limit = limit_of(held)
    assert (limit.where, "all cores were busy" in limit.why) == ("source", True)
    scaling = [step(at, 20 * at, cpu_s=0.05, machine_busy=1.0) for at in (1, 2, 4)]
    assert limit_of(scaling).where == "link"


def test_a_refusal_ends_the_climb_and_is_the_limit_and_is_not_recommended() -> None:
    steps = [step(at, 10.0 * at) for at in SETTINGS]
    steps[3] = step(8, 85, refused=2, blame="destination")
    made = climbed(steps)
    assert [one.concurrency for one in made] == [1, 2, 4, 8]
    assert why_stop(made) == "2 requests were refused with 8 at once"
    assert limit_of(made).where == "destination"
    advice = advise({MB: made})
    assert advice is not None
    assert advice.workers == 4
    assert "8 at once met refusals" in advice.why


def test_failures_end_the_climb_too() -> None:
    assert why_stop([step(1, 10, errors=1)]) == "1 requests failed with 1 at once"


def test_nothing_is_recommended_where_every_step_was_refused() -> None:
    assert advise({MB: [step(1, 1, refused=3)]}) is None
    assert advise({}) is None


def test_nothing_is_concluded_from_a_handful_of_requests() -> None:
    limit = limit_of([step(at, 3, wait=at / 3 - 0.01) for at in (1, 2, 4)])
    assert (limit.where, "--duration" in limit.why) == ("unknown", True)


def test_one_step_alone_tells_no_limit() -> None:
    assert limit_of([step(4, 10)]).where == "unknown"
    assert limit_of([]).where == "unknown"


def test_a_size_that_was_refused_early_holds_the_others_back() -> None:
    small = [step(1, 1), step(2, 2, refused=1)]
    large = [step(at, 10.0 * at) for at in SETTINGS]
    advice = advise({1000: small, MB: large})
    assert advice is not None
    assert advice.workers == 1


def test_percentiles_of_speeds_say_what_nearly_all_reached() -> None:
    values = [float(number) for number in range(1, 101)]
    assert spread(values) == Spread(50.0, 95.0, 99.0)
    assert spread(values, of_speeds=True) == Spread(51.0, 6.0, 2.0)
    assert spread([]) is None


# --- which files are read -----------------------------------------------------------------------


def unit(*sizes: int, lane: str = "resources/R") -> Unit:
    ref = Ref("P", resource="R")
    items = tuple(
        Item(f"{lane}/files/{n}", "file", lane, ref, path=str(n), size=size)
        for n, size in enumerate(sizes)
    )
    return Unit("u", "session", ref, ref, items=items)


def test_small_files_are_read_as_their_whole_resource_and_large_ones_alone() -> None:
    found = resources_of([unit(1000, 2000, 3000), unit(5 * MB, 6 * MB)])
    sets = sets_of(found, 0, most_bytes=10**9)
    assert sorted(len(one) for one in sets) == [1, 1, 3]


def test_a_size_takes_what_is_near_it_and_no_archive_of_what_is_not() -> None:
    found = resources_of([unit(1000, 2000, 500_000)])
    sets = sets_of(found, 1500, most_bytes=10**9)
    assert sorted(one[0].size or 0 for one in sets) == [1000, 2000]
    assert all(len(one) == 1 for one in sets)


def test_nothing_larger_than_what_may_be_moved_is_read() -> None:
    found = resources_of([unit(5 * MB), unit(MB)])
    assert [one[0].size for one in sets_of(found, 0, most_bytes=2 * MB)] == [MB]
