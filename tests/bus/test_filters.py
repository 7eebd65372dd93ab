"""Which events reach a callback: types, families, names and the filters of its policy."""

from __future__ import annotations

from typing import Any

import pytest
from typing_extensions import Unpack

from lineside.bus import Bus, PolicyKeywords
from lineside.schemas import Event, SubscriberFailed

from .support import KINDS, Beat, Kind, Tick, Tock, collect, numbers

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def filtered(bus: Bus, count: int = 20, **policy: Unpack[PolicyKeywords]) -> list[int]:
    got: list[Beat] = []
    with bus.subscribe(got.append, Tick, **policy) as subscription:
        for n in range(count):
            bus.publish(Tick, n=n)
        bus.drain()
    assert subscription.stats.delivered == len(got)
    assert policy.get("once") or subscription.stats.filtered == count - len(got)
    return numbers(got)


def test_where_lets_through_what_it_is_true_for(bus: Bus) -> None:
    assert filtered(bus, where=lambda event: event.n % 5 == 2) == [2, 7, 12, 17]


def test_every_takes_the_first_and_then_every_nth(bus: Bus) -> None:
    assert filtered(bus, every=6) == [0, 6, 12, 18]


def test_once_takes_the_first_only(bus: Bus) -> None:
    assert filtered(bus, once=True) == [0]


@EVERY_KIND
def test_once_ends_the_subscription(bus: Bus, kind: Kind) -> None:
    got: list[Beat] = []
    subscription = collect(bus, kind, Tick, got.append, once=True)
    for n in range(3):
        bus.publish(Tick, n=n)
    bus.drain()
    assert numbers(got) == [0]
    assert subscription.stats.state == "ended"


def test_a_stream_of_one_event_ends_after_it(bus: Bus) -> None:
    stream = bus.stream(Tick, once=True)
    for n in range(3):
        bus.publish(Tick, n=n)
    assert numbers(stream) == [0]


def test_every_and_once_count_what_where_lets_through(bus: Bus) -> None:
    assert filtered(bus, where=lambda event: event.n % 2 == 1, every=3) == [1, 7, 13, 19]
    assert filtered(bus, where=lambda event: event.n > 7, once=True) == [8]


@EVERY_KIND
def test_run_keeps_other_runs_out(bus: Bus, kind: Kind) -> None:
    got: list[Beat] = []
    collect(bus, kind, Tick, got.append, run="b")
    sources = {run: bus.source(run) for run in "abc"}
    for n in range(9):
        sources["abc"[n % 3]].publish(Tick, n=n)
    bus.publish(Tick(n=9, run="b"))
    bus.publish(Tick, n=10)
    bus.drain()
    assert numbers(got) == [1, 4, 7, 9]


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ((Tick,), [1]),
        ((Tock,), [2]),
        ((Tick, Tock), [1, 2]),
        ((Tick, Beat, "tests.Tick"), [1, 2]),  # once each, however often it is named
        ((Beat,), [1, 2]),
        ((Event,), [1, 2]),
        ((), [1, 2]),
        (("tests.Tick",), [1]),
        (("on_tests.tock",), [2]),
        (("tests.Beat",), [1, 2]),
        (("Event",), [1, 2]),
    ],
)
def test_events_are_subscribed_by_class_by_family_by_name_and_by_callback_name(
    bus: Bus, types: tuple[Any, ...], expected: list[int]
) -> None:
    got: list[Event] = []
    bus.subscribe(got.append, *types)
    bus.publish(Tick, n=1)
    bus.publish(Tock(n=2))
    bus.drain()
    assert numbers(got) == expected


def test_an_event_class_that_is_defined_later_reaches_its_family(bus: Bus) -> None:
    got: list[Event] = []
    bus.subscribe(got.append, Beat)

    class Tack(Beat, name="tests.Tack"): ...

    bus.publish(Tack, n=1)
    bus.drain()
    assert [type(event) for event in got] == [Tack]


@EVERY_KIND
def test_a_predicate_that_raises_is_a_failure_of_its_subscription_alone(bus: Bus, kind: Kind) -> None:
    got: list[Beat] = []
    neighbour: list[Beat] = []
    failures: list[SubscriberFailed] = []
    picky = collect(bus, kind, Tick, got.append, name="picky", where=lambda event: 12 / event.n > 2)
    bus.subscribe(neighbour.append, Tick)
    bus.subscribe(failures.append, SubscriberFailed)
    for n in (3, 0, 4):
        bus.publish(Tick, n=n)
    bus.drain()
    bus.drain()
    assert numbers(got) == [3, 4]
    assert numbers(neighbour) == [3, 0, 4]
    assert (picky.stats.delivered, picky.stats.failed, picky.stats.filtered) == (2, 1, 0)
    assert [(failure.subscription, failure.error.type) for failure in failures] == [("picky", "ZeroDivisionError")]


def test_a_stream_hands_the_error_of_its_predicate_to_its_reader(bus: Bus) -> None:
    with bus.stream(Tick, where=lambda event: 12 / event.n > 2) as stream:
        for n in (3, 0, 4):
            bus.publish(Tick, n=n)
        assert next(stream).n == 3
        with pytest.raises(ZeroDivisionError):
            next(stream)
        assert next(stream).n == 4
    assert (stream.stats.delivered, stream.stats.failed) == (2, 1)
