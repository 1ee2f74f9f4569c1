"""Figures of a run, read by the parser of those who collect them."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as old_format

from xnatctl.engine.events import ItemDone, RunDone, RunStarted, UnitDone
from xnatctl.engine.types import Outcome, Report, UnitOutcome
from xnatctl.ui.metrics import Metrics

SOURCE = 'https://x.org/a"b\\c'


def families(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def values(text: str) -> dict[str, float]:
    found = {}
    for family in families(text):
        (sample,) = family.samples
        found[sample.name.removeprefix("xnatctl_run_")] = sample.value
    old = {one.name for one in old_format(text)}
    assert old == {f"xnatctl_run_{name}" for name in found}
    return found


def finished(code: int) -> Metrics:
    metrics = Metrics()
    feed(metrics, code)
    return metrics


def feed(metrics: Metrics, code: int) -> None:
    metrics(RunStarted("r", "export", SOURCE, "file:///out", at=1000.0))
    metrics(ItemDone("u", Outcome("k", "copied", files=3, bytes=300)))
    metrics(UnitDone(UnitOutcome("u", "session", "u", "copied", files=3, bytes=300, files_kept=4)))
    report = Report("r", "export", SOURCE, "file:///out", 1000.0, files=3, bytes=300)
    metrics(RunDone(replace(report, exit_code=code, retries=2)))


def test_collectors_can_read_the_figures_and_they_are_those_of_the_report() -> None:
    found = values(finished(0).text())
    expected = {
        "running": 0,
        "exit_code": 0,
        "files_moved": 3,
        "bytes_moved": 300,
        "files_kept": 4,
        "units_done": 1,
        "units_failed": 0,
        "retries": 2,
        "start_time_seconds": 1000,
    }
    assert found | expected == found
    assert found["last_success_time_seconds"] == found["end_time_seconds"] > 1000


def test_labels_are_escaped_so_that_they_come_back_as_they_were() -> None:
    (family, *_) = families(finished(0).text())
    assert family.samples[0].labels == {"verb": "export", "source": SOURCE, "sink": "file:///out"}


def test_while_a_run_goes_on_the_figures_say_so() -> None:
    metrics = Metrics()
    metrics(RunStarted("r", "export", "s", "k"))
    metrics(ItemDone("u", Outcome("k", "copied", files=2, bytes=20)))
    found = values(metrics.text())
    assert (found["running"], found["exit_code"], found["end_time_seconds"]) == (1, -1, 0)
    assert (found["files_moved"], found["bytes_moved"]) == (2, 20)


def test_the_last_success_outlives_a_run_that_fails() -> None:
    good = finished(0)
    bad = Metrics(good.text())
    feed(bad, 1)
    before, after = values(good.text()), values(bad.text())
    assert after["exit_code"] == 1
    assert after["last_success_time_seconds"] == before["last_success_time_seconds"] > 0


def test_a_run_that_never_began_has_an_end() -> None:
    metrics = Metrics()
    metrics.end(3)
    assert values(metrics.text())["exit_code"] == 3
