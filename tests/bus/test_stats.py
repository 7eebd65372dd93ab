"""What the bus says of itself: names, counters, representations."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable

from lineside.bus import Bus
from lineside.schemas import Event

from .support import PATIENCE, Gated, Tick, wait_for_lag


def test_a_garbage_collection_in_between_does_not_disturb_the_counting(bus: Bus) -> None:
    def publish(phase: str, info: dict[str, int]) -> None:
        bus.publish(Tick, n=1)

    thresholds = gc.get_threshold()
    gc.callbacks.append(publish)
    gc.set_threshold(1)
    try:
        for _ in range(50):
            bus.stats()
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(publish)
    bus.drain(PATIENCE)
    assert bus.stats().published == bus.position


def test_names_say_which_callback_it_is(bus: Bus) -> None:
    class Writer:
        def __call__(self, event: Event) -> None: ...

        def write(self, event: Event) -> None: ...

    def see(event: Event) -> None: ...

    callbacks: list[Callable[[Event], None]] = [
        see,
        Writer(),
        Writer().write,
        functools.partial(see),
        lambda event: None,
        print,
    ]
    names = [bus.subscribe(callback, Tick).name for callback in callbacks]
    names += [bus.subscribe("builtins:print", Tick).name, bus.subscribe(see, Tick, name="mine").name]
    assert names == ["see-1", "Writer-2", "Writer.write-3", "see-4", "<lambda>-5", "print-6", "print-7", "mine"]


def test_a_subscription_counts_what_became_of_its_events(bus: Bus) -> None:
    stuck = Gated()
    subscription = bus.subscribe(stuck, Tick, where=lambda event: event.n != 1, name="stuck")
    for n in range(3):
        bus.publish(Tick, n=n)
    assert stuck.entered.wait(PATIENCE)
    wait_for_lag(subscription, 3)
    before = subscription.stats
    assert (before.name, before.lane, before.state) == ("stuck", "thread", "active")
    assert (before.delivered, before.filtered, before.failed, before.missed, before.lag) == (0, 0, 0, 0, 3)
    stuck.open()
    bus.drain()
    after = subscription.stats
    assert (after.delivered, after.filtered, after.failed, after.missed, after.lag) == (2, 1, 0, 0, 0)
    assert after.seconds > 0


def test_the_bus_counts_what_was_published(bus: Bus) -> None:
    with bus.stream(Tick) as stream:
        for n in range(10):
            bus.publish(Tick, n=n)
        bus.publish(Tick, n="many")
        bus.drain()
        bus.drain()
        stats = bus.stats()
        assert (stats.published, stats.waiting, stats.invalid, stats.refused) == (12, 0, 1, 0)  # and one EventsMissed
        assert stats.memory == 12
        assert [other.name for other in stats.subscriptions] == ["stream-1"]
        assert stream.stats == stats.subscriptions[0]
        assert repr(bus) == "<Bus 12 events, 1 subscriptions>"


def test_nothing_is_built_where_nothing_is_subscribed(bus: Bus) -> None:
    built: list[int] = []

    class Dear(Event, name="tests.Dear"):
        n: int

        def model_post_init(self, context: object, /) -> None:
            built.append(self.n)

    bus.publish(Dear, n=1)
    bus.drain()
    assert not built
    bus.subscribe(print, Dear, where=lambda _: False)
    bus.subscribe(print, Dear, where=lambda _: False)
    bus.publish(Dear, n=2)
    bus.drain()
    assert built == [2]  # once, whatever the number of readers
