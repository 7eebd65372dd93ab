"""Publish order, one at a time, and nobody waits for anybody."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lineside.bus import Bus
from lineside.schemas import Event
from tests.turns import turn

from .support import KINDS, PATIENCE, Beat, Gated, Kind, Tick, Tock, collect, numbers

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@EVERY_KIND
def test_events_arrive_in_the_order_they_were_published(bus: Bus, kind: Kind) -> None:
    got: list[Beat] = []
    collect(bus, kind, Beat, got.append)
    for n in range(1000):
        bus.publish(Tock if n % 7 == 0 else Tick, n=n)
    bus.drain()
    assert numbers(got) == list(range(1000))
    assert [event.seq for event in got] == list(range(1, 1001))


@EVERY_KIND
def test_instances_and_raw_fields_keep_their_order_among_each_other(bus: Bus, kind: Kind) -> None:
    got: list[Beat] = []
    collect(bus, kind, Beat, got.append)
    for n in range(0, 100, 2):
        bus.publish(Tick(n=n))
        bus.publish(Tick, n=n + 1)
    bus.drain()
    assert numbers(got) == list(range(100))


def test_each_publishing_thread_keeps_its_order_and_all_readers_see_the_same(bus: Bus) -> None:
    logs: list[list[Beat]] = [[], [], []]
    for log, kind in zip(logs, KINDS, strict=True):
        collect(bus, kind, Beat, log.append)

    def publish(thread: int) -> None:
        for n in range(500):
            bus.publish(Tick, n=thread * 1000 + n)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(publish, range(4)))
    bus.drain()
    assert numbers(logs[0]) == numbers(logs[1]) == numbers(logs[2])
    for thread in range(4):
        own = [n for n in numbers(logs[0]) if n // 1000 == thread]
        assert own == list(range(thread * 1000, thread * 1000 + 500))


def test_an_async_callback_is_not_entered_again_before_it_returned(bus: Bus) -> None:
    inside: list[int] = []
    most = 0

    @bus.on(Tick)
    async def slowly(event: Tick) -> None:  # pyright: ignore[reportUnusedFunction]
        nonlocal most
        inside.append(event.n)
        most = max(most, len(inside))
        for _ in range(3):
            await turn()
        inside.remove(event.n)

    for n in range(50):
        bus.publish(Tick, n=n)
    bus.drain()
    assert most == 1


def test_a_plain_callback_runs_in_one_thread_of_its_own(bus: Bus) -> None:
    one: set[int] = set()
    other: set[int] = set()
    bus.subscribe(lambda _: one.add(threading.get_ident()), Tick)
    bus.subscribe(lambda _: other.add(threading.get_ident()), Tick)
    for n in range(10):
        bus.publish(Tick, n=n)
        bus.drain()
    assert len(one) == len(other) == 1
    assert not one & other
    assert threading.get_ident() not in one | other


@EVERY_KIND
def test_a_subscription_does_not_wait_for_another(bus: Bus, kind: Kind) -> None:
    stuck, done = Gated(), threading.Event()
    got: list[int] = []

    def see(event: Beat) -> None:
        got.append(event.n)
        if event.n == 99:
            done.set()

    bus.subscribe(stuck, Tick)
    collect(bus, kind, Tick, see)
    for n in range(100):
        bus.publish(Tick, n=n)
    assert done.wait(PATIENCE)
    assert got == list(range(100))
    assert not stuck.got
    stuck.open()


@EVERY_KIND
def test_what_a_callback_publishes_is_delivered_after_what_was_published_before(bus: Bus, kind: Kind) -> None:
    story: list[str] = []
    published = threading.Event()

    def answer(event: Beat) -> None:
        assert published.wait(PATIENCE)
        story.append(f"begin {event.n}")
        if event.n < 10:
            bus.publish(Tock, n=event.n + 10)
        story.append(f"end {event.n}")

    collect(bus, kind, Tock, answer)
    bus.publish(Tock, n=1)
    bus.publish(Tock, n=2)
    published.set()
    bus.drain()  # waits for 1 and 2
    bus.drain()  # waits for what they published
    assert story == [f"{word} {n}" for n in (1, 2, 11, 12) for word in ("begin", "end")]


@EVERY_KIND
def test_a_subscription_gets_what_is_published_after_it_was_made(bus: Bus, kind: Kind) -> None:
    got: list[Beat] = []
    bus.publish(Tick, n=1)
    collect(bus, kind, Tick, got.append)
    bus.publish(Tick, n=2)
    bus.drain()
    assert numbers(got) == [2]


@EVERY_KIND
def test_a_subscription_that_cancels_itself_gets_nothing_more(bus: Bus, kind: Kind) -> None:
    got: list[int] = []

    def see(event: Beat) -> None:
        got.append(event.n)
        if event.n == 3:
            subscription.cancel()

    subscription = collect(bus, kind, Tick, see)
    for n in range(10):
        bus.publish(Tick, n=n)
    bus.drain()
    assert got == [0, 1, 2, 3]
    assert subscription.stats.state == "cancelled"


def test_a_subscription_is_a_context_manager_that_cancels_it(bus: Bus) -> None:
    got: list[Beat] = []
    with bus.subscribe(got.append, Tick) as subscription:
        bus.publish(Tick, n=1)
        bus.drain()
    bus.publish(Tick, n=2)
    bus.drain()
    assert numbers(got) == [1]
    assert repr(subscription) == "<Subscription 'list.append-1' cancelled, 1 delivered>"


def test_cancelling_twice_is_cancelling_once(bus: Bus) -> None:
    subscription = bus.subscribe(print, Tick)
    subscription.cancel()
    subscription.cancel()
    bus.drain()
    assert not bus.stats().subscriptions


def test_the_decorator_gives_the_callback_back(bus: Bus) -> None:
    got: list[int] = []

    @bus.on(Tick)
    def see(event: Tick) -> int:
        got.append(event.n)
        return event.n

    assert see(Tick(n=1)) == 1
    bus.publish(Tick, n=2)
    bus.drain()
    assert got == [1, 2]


def test_a_callback_may_be_subscribed_more_than_once(bus: Bus) -> None:
    got: list[Beat] = []
    bus.subscribe(got.append, Tick)
    bus.subscribe(got.append, Beat)
    bus.publish(Tick, n=1)
    bus.drain()
    assert numbers(got) == [1, 1]


def test_a_published_instance_is_not_changed_and_its_copy_is_numbered(bus: Bus) -> None:
    got: list[Beat] = []
    bus.subscribe(got.append, Tick)
    event = Tick(n=1)
    bus.publish(event)
    bus.publish(event)
    bus.drain()
    assert [copy.seq for copy in got] == [1, 2]
    assert event.seq == 0


def test_all_readers_are_handed_the_same_object(bus: Bus) -> None:
    one: list[Beat] = []
    other: list[Beat] = []
    bus.subscribe(one.append, Tick)
    bus.subscribe(other.append, Tick)
    bus.publish(Tick, n=1)
    bus.drain()
    assert one[0] is other[0]


def test_a_source_signs_with_its_run(bus: Bus) -> None:
    got: list[Event] = []
    bus.subscribe(got.append, Tick)
    source = bus.source("run-1", attempt=3, rank=2)
    source.publish(Tick, n=1)
    source.publish(Tick(n=2, run="foreign"))
    bus.publish(Tick(n=3, run="mine", attempt=7))
    bus.publish(Tick, n=4)
    bus.drain()
    assert [(event.run, event.attempt, event.rank) for event in got] == [
        ("run-1", 3, 2),
        ("run-1", 3, 2),
        ("mine", 7, 0),
        ("", 1, 0),
    ]
    assert 0 <= got[0].elapsed <= got[1].elapsed <= source.elapsed()


def test_a_stamped_event_is_signed_but_not_numbered(bus: Bus) -> None:
    event = Tick(n=1)
    stamped = bus.source("run-1", attempt=2).stamp(event)
    assert (stamped.run, stamped.attempt, stamped.seq, stamped.n) == ("run-1", 2, 0, 1)
    assert event.run == ""


def test_order_holds_over_many_events_and_ten_subscriptions() -> None:
    logs: list[list[Beat]] = [[] for _ in range(10)]
    with Bus(window=1 << 16) as bus:
        for index, log in enumerate(logs):
            collect(bus, KINDS[index % 3], Tick, log.append)
        for n in range(20_000):
            bus.publish(Tick, n=n)
        bus.drain()
        assert all(subscription.missed == 0 for subscription in bus.stats().subscriptions)
    assert all(numbers(log) == list(range(20_000)) for log in logs)
