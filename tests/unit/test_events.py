"""The bus: everything to everybody, in order, and nobody who watches can stop a transfer."""

from __future__ import annotations

from xnatctl.engine.events import Bus, BytesMoved, Event, Note


def test_every_observer_sees_every_event_in_order() -> None:
    first: list[Event] = []
    second: list[Event] = []
    bus = Bus(first.append)
    bus.add(second.append)

    events = [BytesMoved("u", "k", number) for number in range(5)]
    for event in events:
        bus.emit(event)

    assert first == second == events


def test_an_observer_that_raises_is_detached_and_reported_once() -> None:
    seen: list[Event] = []
    calls = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise ValueError("no such terminal")

    bus = Bus(broken, seen.append)
    for number in range(3):
        bus.emit(BytesMoved("u", "k", number))

    assert len(calls) == 1
    notes = [event for event in seen if isinstance(event, Note)]
    assert len(notes) == 1
    assert "broken" in notes[0].text and "no such terminal" in notes[0].text
    assert notes[0].level == "warning"
    assert [event.bytes for event in seen if isinstance(event, BytesMoved)] == [0, 1, 2]


def test_observers_that_all_raise_leave_a_bus_that_still_works() -> None:
    def one(event: Event) -> None:
        raise ValueError

    def two(event: Event) -> None:
        raise KeyError

    bus = Bus(one, two)
    bus.emit(Note("x"))
    bus.emit(Note("y"))

    seen: list[Event] = []
    bus.add(seen.append)
    bus.emit(Note("z"))
    assert [event.text for event in seen if isinstance(event, Note)] == ["z"]


def test_an_observer_may_add_another_while_it_watches() -> None:
    late: list[Event] = []

    def first(event: Event) -> None:
        if isinstance(event, Note):
            bus.add(late.append)

    bus = Bus(first)
    bus.emit(Note("now"))
    bus.emit(BytesMoved("u", "k", 1))

    assert [type(event) for event in late] == [BytesMoved]


def test_events_know_when_they_happened() -> None:
    assert Note("x").at <= Note("y").at
    assert Note("x", at=5.0).at == 5.0
