"""Falling behind the memory window: `drop`, `latest` and `wait`, and nothing lost without a word."""

from __future__ import annotations

import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lineside.bus import Bus
from lineside.schemas import Event, EventsMissed
from tests.turns import turn

from .support import KINDS, PATIENCE, Beat, Gated, Kind, Tick, Tock, collect, numbers, wait_for_lag

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


class Note(Event, name="tests.overflow.Note", urgent=False):
    text: str


def covered(gap: EventsMissed) -> set[int]:
    return set(range(gap.first, gap.last + 1))


def test_delivered_and_missed_are_what_was_published() -> None:
    slow, missed = Gated(), list[EventsMissed]()
    with Bus(window=256) as bus:
        bus.subscribe(missed.append, EventsMissed)
        subscription = bus.subscribe(slow, Tick, name="slow", overflow="drop")
        bus.publish(Tick, n=1)
        assert slow.entered.wait(PATIENCE)
        for n in range(2, 5001):
            bus.publish(Tick, n=n)
        slow.open()
        bus.drain()
        bus.drain()
    delivered = {event.seq for event in slow.got}
    announced = [gap for gap in missed if gap.subscription == "slow"]
    assert len(delivered) == len(slow.got) == subscription.stats.delivered
    assert sum(gap.count for gap in announced) == subscription.stats.missed > 0
    assert len(delivered) + subscription.stats.missed == 5000
    assert {gap.reason for gap in announced} == {"overflow"}
    lost = set[int]().union(*map(covered, announced))
    assert lost | delivered == set(range(1, 5001))  # nobody else published: positions are Ticks
    assert not lost & delivered
    assert [event.seq for event in slow.got] == sorted(delivered)


@EVERY_KIND
def test_a_reader_that_falls_behind_reads_the_rest_back_from_disk(kind: Kind) -> None:
    slow, missed = Gated(), list[EventsMissed]()
    with Bus(window=256) as bus:
        bus.subscribe(missed.append, EventsMissed)
        bus.subscribe(slow, Tick)
        subscription = collect(bus, kind, Tick, slow.got.append)
        bus.publish(Tick, n=0)
        assert slow.entered.wait(PATIENCE)
        for n in range(1, 5000):
            bus.publish(Tick, n=n)
        slow.open()
        bus.drain()
        bus.drain()
        assert subscription.stats.delivered == 5000
        assert subscription.stats.missed == 0
    assert sorted(numbers(slow.got)) == sorted([*range(5000), *range(5000)])
    assert not missed


def test_a_stream_that_nobody_read_gives_everything_after_the_close() -> None:
    with Bus(window=64) as bus:
        streams = [bus.stream(cls) for cls in (Tick, Tock, Beat)]
        for n in range(3000):
            bus.publish(Tick if n % 3 else Tock, n=n)
        bus.drain()
    wanted = [[n for n in range(3000) if n % 3], [n for n in range(3000) if n % 3 == 0], list(range(3000))]
    assert [numbers(stream) for stream in streams] == wanted
    assert not any(stream.missed for stream in streams)


def test_nothing_goes_to_disk_where_nobody_falls_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr("lineside.bus.bus.JournalWriter.temporary", made.append)
    got: list[Beat] = []
    with Bus(window=256) as bus:
        bus.subscribe(got.append, Tick)
        rare = bus.stream(Tock)
        bus.stream(Tick, overflow="drop")
        for n in range(5000):
            bus.publish(Tick, n=n)
            if n % 100 == 0:
                bus.drain()
        assert not rare.missed
    assert len(got) == 5000
    assert not made


def test_a_gap_counts_only_events_of_the_subscription() -> None:
    slow, missed = Gated(), list[EventsMissed]()
    with Bus(window=256) as bus:
        bus.subscribe(missed.append, EventsMissed)
        subscription = bus.subscribe(slow, Tick, overflow="drop")
        bus.publish(Tick, n=0)
        assert slow.entered.wait(PATIENCE)
        for n in range(1, 3001):
            bus.publish(Tick if n % 3 == 0 else Tock, n=n)
        slow.open()
        bus.drain()
        bus.drain()
    assert subscription.stats.delivered + subscription.stats.missed == 1001
    for gap in missed:
        assert (gap.first - 1) % 3 == 0  # the positions of Ticks are 1, 4, 7 …
        assert (gap.last - 1) % 3 == 0
        assert gap.count == (gap.last - gap.first) // 3 + 1


def test_a_reader_of_rare_events_misses_nothing_in_a_flood_of_others() -> None:
    got, missed = list[Beat](), list[EventsMissed]()
    with Bus(window=256) as bus:
        bus.subscribe(missed.append, EventsMissed)
        with bus.stream(Tock) as stream:  # nobody reads it during the flood
            for n in range(3000):
                bus.publish(Tick, n=n)
            bus.publish(Tock, n=1)
            got.append(next(stream))
        bus.drain()
    assert numbers(got) == [1]
    assert not missed


def test_the_memory_window_is_bounded_in_events() -> None:
    with Bus(window=300) as bus, bus.stream(Tick):
        for n in range(5000):
            bus.publish(Tick, n=n)
        bus.drain()
        assert bus.stats().memory <= 300 + 2 * 256  # it lets go of chunks


class Letter(Event, name="tests.Letter", urgent=False):
    text: str


@pytest.mark.parametrize("as_instance", [False, True])
def test_the_memory_window_is_bounded_in_bytes(as_instance: bool) -> None:
    text = "x" * 100_000
    with Bus(window_bytes=1 << 20) as bus, bus.stream(Letter):
        for _ in range(200):
            if as_instance:
                bus.publish(Letter(text=text))
            else:
                bus.publish(Letter, text=text)
            bus.drain()
        assert bus.stats().memory <= 20


@EVERY_KIND
def test_latest_gives_the_newest_of_each_type(kind: Kind) -> None:
    gate, got = threading.Event(), list[Beat]()
    entered = threading.Event()

    def see(event: Beat) -> None:
        entered.set()
        assert gate.wait(PATIENCE)
        got.append(event)

    with Bus() as bus:
        display = collect(bus, kind, Beat, see, overflow="latest")
        bus.publish(Tick, n=0)
        assert entered.wait(PATIENCE)
        for n in range(1, 101):
            bus.publish(Tick, n=n)
            if n % 10 == 5:
                bus.publish(Tock, n=1000 + n)
        wait_for_lag(display, 111)
        gate.set()
        bus.drain()
    assert numbers(got)[-2:] == [1095, 100]
    assert [event.seq for event in got] == sorted(event.seq for event in got)
    assert display.stats.delivered + display.stats.missed == 111
    assert display.stats.missed >= 100


def test_superseded_events_are_no_gap() -> None:
    missed = list[EventsMissed]()
    with Bus() as bus:
        bus.subscribe(missed.append, EventsMissed)
        with bus.stream(Tick, overflow="latest") as stream:
            for n in range(100):
                bus.publish(Tick, n=n)
            bus.drain()
            assert next(stream).n == 99
            assert stream.missed == 99
        bus.drain()
    assert not missed


@EVERY_KIND
def test_a_publisher_waits_for_a_reader_that_asked_for_it(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lineside.bus.inbox.GIVE_WAY_SECONDS", 1000.0)  # until the sequencer has looked
    backlog, window = 3, 16
    published = most_ahead = 0
    got: list[int] = []

    def see(event: Beat) -> None:
        nonlocal most_ahead
        most_ahead = max(most_ahead, published - len(got))
        got.append(event.n)

    with Bus(window=window) as bus:
        reader = collect(bus, kind, Tick, see, overflow="wait", backlog=backlog)
        for n in range(500):
            bus.publish(Tick, n=n)
            published += 1
        bus.drain()
    assert got == list(range(500))
    assert reader.missed == 0
    assert most_ahead <= backlog + window + 1  # as many may be published before the sequencer looks


def test_a_reader_that_publishers_wait_for_misses_nothing_in_a_small_window() -> None:
    got, other = list[Beat](), list[Beat]()
    with Bus(window=16) as bus:
        reader = bus.subscribe(got.append, Tick, overflow="wait")
        bus.subscribe(other.append, Tick)
        for n in range(5000):
            bus.publish(Tick, n=n)
        bus.drain()
    assert numbers(got) == list(range(5000))
    assert reader.missed == 0


def test_fields_that_do_not_fit_take_no_place_in_a_backlog() -> None:
    got = list[Beat]()
    with Bus() as bus:
        bus.subscribe(got.append, Tick, overflow="wait", backlog=2)
        for _ in range(10):
            bus.publish(Tick, n="many")
        bus.publish(Tick, n=1)
        bus.drain(PATIENCE)
    assert numbers(got) == [1]


@EVERY_KIND
def test_a_callback_that_publishers_wait_for_may_publish_what_it_reads(kind: Kind) -> None:
    got: list[int] = []

    def double(event: Beat) -> None:
        got.append(event.n)
        if event.n < 100:
            bus.publish(Tick, n=2 * event.n)
            bus.publish(Tick, n=2 * event.n + 1)

    with Bus() as bus:
        collect(bus, kind, Tick, double, overflow="wait", backlog=1)
        bus.publish(Tick, n=1)
        for _ in range(9):
            bus.drain(PATIENCE)
    assert sorted(got) == list(range(1, 200))


@EVERY_KIND
def test_a_callback_that_publishers_wait_for_may_fail(kind: Kind) -> None:
    def fail(event: Beat) -> None:
        raise ValueError(event.n)

    with Bus() as bus:
        reader = collect(bus, kind, Tick, fail, overflow="wait", backlog=1, max_failures=1000)
        for n in range(100):
            bus.publish(Tick, n=n)
        bus.drain(PATIENCE)
    assert reader.stats.failed == 100


def test_a_reader_of_a_stream_that_publishers_wait_for_may_publish_what_it_reads() -> None:
    got: list[int] = []
    with Bus() as bus, bus.stream(Tick, overflow="wait", backlog=1) as stream:
        bus.publish(Tick, n=1)
        for event in stream:
            got.append(event.n)
            if event.n < 100:
                bus.publish(Tick, n=2 * event.n)
                bus.publish(Tick, n=2 * event.n + 1)
            if len(got) == 199:
                break
    assert sorted(got) == list(range(1, 200))


def test_a_late_stream_that_publishers_wait_for_is_told_what_it_missed_without_waiting_for_itself() -> None:
    got = list[Beat]()
    with Bus(window=16) as bus:
        for n in range(100):
            bus.publish(Tick, n=n)
        with bus.stream(Tick, since=0, overflow="wait", backlog=1) as stream:
            got.append(next(stream))
            bus.publish(Tick, n=100)
            bus.publish(Tick, n=101)  # for which there is no room
            for event in stream:
                got.append(event)
                if event.n == 101:
                    break
    assert numbers(got) == list(range(stream.missed, 102))
    assert stream.missed >= 50


class Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.heard = threading.Event()
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = record.getMessage()
        self.heard.set()


def test_a_publisher_that_waits_long_says_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lineside.bus.inbox.LONG_SECONDS", 0.1)
    listener, stuck = Listener(), Gated()
    logging.getLogger("lineside.bus").addHandler(listener)
    try:
        with Bus(window=16) as bus:
            bus.subscribe(stuck, Tick, overflow="wait", backlog=1, name="slow uploader")

            def publish() -> None:
                while not listener.heard.is_set():
                    bus.publish(Tick, n=0)

            publisher = threading.Thread(target=publish, name="training")
            publisher.start()
            assert listener.heard.wait(PATIENCE)
            stuck.open()
            publisher.join()
    finally:
        listener.heard.set()
        logging.getLogger("lineside.bus").removeHandler(listener)
    assert re.match(r"thread 'training' has waited \d+ s to publish: slow uploader asked for it", listener.said)


async def test_a_loop_is_not_stopped_for_a_reader_that_lives_on_it() -> None:
    got: list[int] = []

    async def see(event: Tick) -> None:
        await turn()
        got.append(event.n)

    async with Bus() as bus:
        bus.subscribe(see, Tick, overflow="wait", backlog=1)
        for n in range(100):
            bus.publish(Tick, n=n)
        await bus.adrain(PATIENCE)
    assert got == list(range(100))


def test_cancelling_the_reader_lets_the_publisher_go_on() -> None:
    stuck, through = Gated(), threading.Event()
    with Bus(window=16) as bus:
        reader = bus.subscribe(stuck, Tick, overflow="wait", backlog=1)

        def publish() -> None:
            for n in range(100):
                bus.publish(Tick, n=n)
            through.set()

        publisher = threading.Thread(target=publish)
        publisher.start()
        assert stuck.entered.wait(PATIENCE)
        assert not through.is_set()
        reader.cancel()
        assert through.wait(PATIENCE)
        publisher.join()
        stuck.open()


def test_closing_the_bus_lets_the_publisher_go_on() -> None:
    through = threading.Event()
    bus = Bus(window=16)
    stream = bus.stream(Tick, overflow="wait", backlog=1)  # nobody reads it

    def publish() -> None:
        for n in range(100):
            bus.publish(Tick, n=n)
        through.set()

    publisher = threading.Thread(target=publish)
    publisher.start()
    bus.close(timeout=0.2)
    assert through.wait(PATIENCE)
    publisher.join()
    assert stream.stats.delivered == 0
    assert bus.stats().published + bus.stats().refused >= 100


def test_the_end_of_other_runs_takes_no_place_in_the_backlog_of_a_stream() -> None:
    from lineside.schemas import RunEnd

    with Bus() as bus, bus.stream(Tick, run="mine", overflow="wait", backlog=2) as stream:
        for index in range(10):
            bus.source(f"other-{index}").publish(RunEnd, kind="val", outcome="completed", duration=0)
        mine = bus.source("mine")
        reader = threading.Thread(target=lambda: got.extend(numbers(stream)))
        got: list[int] = []
        reader.start()
        for n in range(10):
            mine.publish(Tick, n=n)
        mine.publish(RunEnd, kind="val", outcome="completed", duration=0)
        reader.join()
    assert got == list(range(10))


def test_an_overflowing_reader_of_everything_does_not_feed_on_its_own_gaps() -> None:
    slow = Gated()
    with Bus(window=256) as bus:
        reader = bus.subscribe(slow, Event)
        bus.publish(Tick, n=0)
        assert slow.entered.wait(PATIENCE)
        for n in range(2000):
            bus.publish(Tick, n=n)
        slow.open()
        for _ in range(3):
            bus.drain()
        assert reader.stats.delivered + reader.stats.missed == bus.position
        assert bus.position < 2020


def test_an_event_larger_than_the_window_reaches_a_reader_that_keeps_up() -> None:
    got: list[int] = []
    with Bus(window_bytes=1 << 20) as bus:
        bus.subscribe(lambda event: got.append(len(event.text)), Note)
        for _ in range(5):
            bus.publish(Note, text="x" * (2 << 20))
            bus.drain()
    assert got == [2 << 20] * 5


def test_large_events_that_fit_the_window_are_not_lost_to_one_another() -> None:
    got: list[int] = []
    with Bus(window_bytes=8 << 20, latency=1000) as bus:
        subscription = bus.subscribe(lambda event: got.append(len(event.text)), Note)
        for _ in range(60):  # published at once, they are numbered in one go
            bus.publish(Note, text="x" * (100 << 10))
        bus.drain()
    assert got == [100 << 10] * 60
    assert not subscription.stats.missed


def test_a_window_of_one_event_is_enough_for_a_reader_that_is_waited_for() -> None:
    got: list[Beat] = []
    with Bus(window=1) as bus:
        bus.subscribe(got.append, Tick, overflow="wait")
        for n in range(20):
            bus.publish(Tick, n=n)
    assert numbers(got) == list(range(20))


def test_history_counts_as_backlog() -> None:
    gate = Gated()
    with Bus(window=1000) as bus, ThreadPoolExecutor(1) as pool:
        for n in range(100):
            bus.publish(Tick, n=n)
        subscription = bus.subscribe(gate, Tick, overflow="wait", backlog=10, since="start")
        assert gate.entered.wait(PATIENCE)

        def publish() -> None:
            for n in range(100, 2000):
                bus.publish(Tick, n=n)

        publishing = pool.submit(publish)
        while not bus.stats().waiting:
            time.sleep(0)  # another thread's turn
        assert bus.position == 100  # what comes after the history waits until it is read
        gate.open()
        publishing.result(PATIENCE)
        bus.drain()
        assert numbers(gate.got) == list(range(2000))
        assert not subscription.stats.missed
