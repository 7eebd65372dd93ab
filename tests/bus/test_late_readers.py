"""A late or returning reader is a cursor that starts further back."""

from __future__ import annotations

from pathlib import Path

import pytest

from lineside.bus import Bus
from lineside.schemas import Event, EventsMissed

from .support import KINDS, Beat, Kind, Tick, Tock, collect, numbers

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@EVERY_KIND
def test_a_late_reader_gets_what_was_and_then_what_comes_in_order(bus: Bus, kind: Kind) -> None:
    got: list[Beat] = []
    for n in range(500):
        bus.publish(Tick, n=n)
    collect(bus, kind, Beat, got.append, since="start")
    for n in range(500, 1000):
        bus.publish(Tick, n=n)
    bus.drain()
    assert numbers(got) == list(range(1000))


@EVERY_KIND
def test_a_returning_reader_goes_on_after_the_position_it_had(bus: Bus, kind: Kind) -> None:
    first: list[Beat] = []
    then: list[Beat] = []
    with collect(bus, kind, Tick, first.append):
        bus.publish(Tick, n=1)
        bus.drain()
    bus.publish(Tick, n=2)
    collect(bus, kind, Tick, then.append, since=first[-1].seq)
    bus.publish(Tick, n=3)
    bus.drain()
    assert numbers(first) == [1]
    assert numbers(then) == [2, 3]


@EVERY_KIND
def test_a_late_reader_gets_what_only_the_disk_remembers_any_more(tmp_path: Path, kind: Kind) -> None:
    got: list[Beat] = []
    with Bus(tmp_path, window=16) as bus:
        bus.publish(Tick, n=0)
        for n in range(1, 201):
            bus.publish(Tock, n=n)
        bus.flush()  # and no Tick is in memory, nor has anybody ever asked for one
        collect(bus, kind, Beat, got.append, since="start")
        bus.publish(Tock, n=201)
        bus.drain()
    assert numbers(got) == list(range(202))


def test_the_position_of_the_bus_is_where_a_reader_can_begin(bus: Bus) -> None:
    got: list[Beat] = []
    bus.publish(Tick, n=1)
    bus.drain()
    here = bus.position
    bus.publish(Tick, n=2)
    bus.subscribe(got.append, Tick, since=here)
    bus.drain()
    assert here == 1
    assert numbers(got) == [2]


def test_a_mark_is_behind_all_that_was_published_though_nothing_was_numbered_yet(bus: Bus) -> None:
    for n in range(200):
        bus.publish(Tick, n=n)
    mark = bus.mark()
    bus.publish(Tick, n=200)
    got: list[Beat] = []
    bus.subscribe(got.append, Tick, since=mark)
    bus.drain()
    assert numbers(got) == [200]


def test_a_position_that_is_not_reached_yet_means_now(bus: Bus) -> None:
    got: list[Beat] = []
    bus.publish(Tick, n=1)
    bus.subscribe(got.append, Tick, since=1000)
    bus.publish(Tick, n=2)
    bus.drain()
    assert numbers(got) == [2]


def test_a_late_reader_of_a_family_gets_only_its_members(bus: Bus) -> None:
    got: list[Event] = []
    bus.publish(EventsMissed, subscription=None, count=1, first=1, last=1, reason="overflow")
    bus.publish(Tick, n=1)
    bus.publish(Tock(n=2))
    bus.subscribe(got.append, Beat, since="start")
    bus.drain()
    assert [(type(event), event.seq) for event in got] == [(Tick, 2), (Tock, 3)]


def test_a_late_reader_hears_of_fields_that_did_not_fit_and_that_nobody_had_read(bus: Bus) -> None:
    got: list[Beat] = []
    missed: list[EventsMissed] = []
    bus.subscribe(missed.append, EventsMissed)
    bus.publish(Tick, n="many")
    bus.publish(Tick, n=1)
    bus.drain()
    assert bus.stats().invalid == 0  # nothing subscribed: nothing built
    bus.subscribe(got.append, Tick, since="start")
    bus.drain()
    bus.drain()
    assert numbers(got) == [1]
    assert [(gap.first, gap.last, gap.count, gap.reason) for gap in missed] == [(1, 1, 1, "invalid")]


def test_a_reader_that_begins_before_the_window_is_told_what_is_gone() -> None:
    got: list[Beat] = []
    missed: list[EventsMissed] = []
    with Bus(window=256) as bus:
        bus.subscribe(missed.append, EventsMissed)
        for n in range(1, 2001):
            bus.publish(Tick, n=n)
        bus.drain()
        with bus.subscribe(got.append, Tick, since=10, name="late") as late:
            bus.drain()
            bus.drain()
    assert [event.seq for event in got] == list(range(got[0].seq, 2001))
    assert late.missed == got[0].seq - 11
    assert [(gap.subscription, gap.first, gap.last) for gap in missed] == [("late", 11, got[0].seq - 1)]


def test_late_streams_get_the_past_too(bus: Bus) -> None:
    for n in range(10):
        bus.publish(Tick, n=n)
    with bus.stream(Tick, since=5) as stream:
        assert numbers(event for _, event in zip(range(5), stream, strict=False)) == [5, 6, 7, 8, 9]


def test_the_start_is_the_oldest_event_in_memory_and_nothing_before_it_was_missed() -> None:
    got: list[Beat] = []
    with Bus(window=64) as bus:
        for n in range(1000):
            bus.publish(Tick, n=n)
        late = bus.subscribe(got.append, Tick, since="start")
        never = bus.subscribe(got.append, Tock, since="start")
        bus.drain()
        assert numbers(got) == list(range(1000 - len(got), 1000))
        assert (late.stats.missed, never.stats.missed) == (0, 0)
