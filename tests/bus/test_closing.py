"""What opens is closed: with everything delivered, or with a report of what was left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from pydantic import field_validator

from lineside.bus import Bus, BusClosed, CloseReport, Source, Stream
from lineside.bus.journal import Journal
from lineside.schemas import Event, SubscriberFailed
from tests.turns import begin, turn

from .support import KINDS, PATIENCE, Beat, Gated, Kind, Tick, collect, numbers, wait_for_lag

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@EVERY_KIND
def test_everything_published_before_the_close_is_delivered(kind: Kind) -> None:
    got: list[Beat] = []
    with Bus() as bus:
        collect(bus, kind, Tick, got.append)
        for n in range(1000):
            bus.publish(Tick, n=n)
    assert numbers(got) == list(range(1000))


async def test_an_async_close_delivers_on_its_own_loop() -> None:
    got: list[int] = []

    async def see(event: Tick) -> None:
        await turn()
        got.append(event.n)

    async with Bus() as bus:
        bus.subscribe(see, Tick)
        for n in range(1000):
            bus.publish(Tick, n=n)
    assert got == list(range(1000))


def test_closing_twice_gives_the_same_report() -> None:
    bus = Bus()
    bus.subscribe(print, Tick)
    report = bus.close()
    assert report == CloseReport(left={}, hung=())
    assert report.complete
    assert bus.close() is report
    assert asyncio.run(bus.aclose()) is report
    with bus:
        pass
    assert repr(bus) == "<Bus closed, 0 subscriptions>"


def test_two_threads_may_close_at_once() -> None:
    got: list[Beat] = []
    bus = Bus()
    bus.subscribe(got.append, Tick)
    for n in range(100):
        bus.publish(Tick, n=n)
    with ThreadPoolExecutor(2) as pool:
        closing = [pool.submit(bus.close) for _ in range(2)]
    first, second = (report.result() for report in closing)
    assert first is second
    assert first.complete
    assert numbers(got) == list(range(100))


def test_a_block_that_fails_delivers_too() -> None:
    got: list[Beat] = []

    def work() -> None:
        with Bus() as bus:
            bus.subscribe(got.append, Tick)
            bus.publish(Tick, n=1)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert numbers(got) == [1]


def test_what_is_published_after_the_close_is_counted_and_ignored() -> None:
    bus = Bus()
    got: list[Event] = []
    source = bus.source("late")
    bus.subscribe(got.append, Event)
    bus.publish(Tick, n=1)
    bus.close()
    bus.publish(Tick, n=2)
    source.publish(Tick(n=3))
    assert numbers(got) == [1]
    assert (bus.stats().published, bus.stats().refused) == (1, 2)


async def test_a_closed_bus_takes_no_new_reader() -> None:
    bus = Bus()
    bus.close()
    for attempt in (lambda: bus.subscribe(print), lambda: bus.on(Tick)(print), lambda: bus.stream(Tick)):
        with pytest.raises(BusClosed, match="takes no new subscriptions or streams"):
            attempt()
    with pytest.raises(BusClosed):
        await bus.next(Tick)


@EVERY_KIND
def test_a_callback_that_hangs_is_left_behind_and_reported(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    stuck = Gated()
    got: list[Beat] = []
    bus = Bus()
    collect(bus, kind, Tick, stuck, name="stuck")
    bus.subscribe(got.append, Tick)
    for n in range(3):
        bus.publish(Tick, n=n)
    assert stuck.entered.wait(PATIENCE)
    report = bus.close(timeout=2.0)
    assert report.left == {"stuck": 3}
    assert "stuck" in report.hung
    assert not report.complete
    assert "closed before everything was handled: stuck is 3 positions behind." in caplog.text
    assert "Call bus.drain() before, or give them more than 2 s: Bus(close_timeout=...)" in caplog.text
    assert numbers(got) == [0, 1, 2]
    stuck.open()


@EVERY_KIND
def test_who_has_handled_everything_does_not_hang_however_little_time_there_is(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lineside.bus.ending.END_SECONDS", PATIENCE)
    got: list[Beat] = []
    bus = Bus()
    collect(bus, kind, Tick, got.append)
    bus.publish(Tick, n=1)
    bus.drain()
    report = bus.close(timeout=0)
    assert (report.left, report.hung, numbers(got)) == ({}, (), [1])


def test_a_block_gives_its_subscribers_as_long_as_its_bus_says() -> None:
    entered, let_go = threading.Event(), threading.Event()

    def see(_: Tick) -> None:
        entered.set()
        assert let_go.wait(PATIENCE)

    with Bus(close_timeout=0.2) as bus:
        bus.subscribe(see, Tick, name="slow")
        bus.publish(Tick, n=1)
        assert entered.wait(PATIENCE)
    report = bus.close()
    assert (report.left, report.hung) == ({"slow": 1}, ("slow",))
    let_go.set()


@EVERY_KIND
def test_what_was_handled_of_a_batch_is_not_reported_as_left(kind: Kind) -> None:
    stuck = Gated()
    with Bus() as bus:
        slow = collect(bus, kind, Tick, lambda event: stuck(event) if event.n == 2 else None, name="slow")
        for n in range(5):
            bus.publish(Tick, n=n)
        assert stuck.entered.wait(PATIENCE)
        wait_for_lag(slow, 3)
        report = bus.close(0.2)
    stuck.open()
    assert report.left == {"slow": 3}


@EVERY_KIND
def test_what_fails_while_the_bus_is_closed_is_announced(kind: Kind, tmp_path: Path) -> None:
    let_go = threading.Event()

    def fail(_: Beat) -> None:
        assert let_go.wait(PATIENCE)
        raise ConnectionError("down")

    told: list[Event] = []
    with Bus(tmp_path) as bus:
        bus.subscribe(told.append, SubscriberFailed)
        collect(bus, kind, Tick, fail, name="webhook")
        bus.publish(Tick, n=1)
        closer = threading.Thread(target=bus.close)
        closer.start()
        closer.join(0.3)
        assert closer.is_alive()  # it waits for the callback
        let_go.set()
        closer.join(PATIENCE)
    assert [event.subscription for event in told if isinstance(event, SubscriberFailed)] == ["webhook"]
    assert len(list(Journal(tmp_path).events(SubscriberFailed))) == 1


def test_whoever_begins_a_run_on_a_closed_bus_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with Bus() as bus:
        bus.source("before")
    assert not caplog.records
    bus.source("late")
    assert "nobody will hear of run 'late': this bus is closed" in caplog.text


def test_an_async_callback_that_hangs_is_cancelled_by_the_close() -> None:
    entered, ended = threading.Event(), threading.Event()

    async def see(_: Tick) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    bus = Bus()
    bus.subscribe(see, Tick, name="stuck")
    bus.publish(Tick, n=1)
    assert entered.wait(PATIENCE)
    assert bus.close(timeout=1.0).left == {"stuck": 1}
    assert ended.wait(PATIENCE)


async def test_a_callback_that_hangs_on_the_entered_loop_is_cancelled_by_the_close() -> None:
    entered, ended = asyncio.Event(), asyncio.Event()

    async def see(_: Tick) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    bus = await Bus().__aenter__()
    bus.subscribe(see, Tick, name="stuck")
    bus.publish(Tick, n=1)
    await asyncio.wait_for(entered.wait(), PATIENCE)
    report = await bus.aclose(timeout=1.0)
    assert report.left == {"stuck": 1}
    await asyncio.wait_for(ended.wait(), PATIENCE)


async def test_a_close_that_is_cancelled_ends_everything_without_waiting() -> None:
    stuck = Gated()
    bus = await Bus().__aenter__()
    bus.subscribe(stuck, Tick, name="stuck")
    bus.publish(Tick, n=1)
    assert await asyncio.to_thread(stuck.entered.wait, PATIENCE)
    closing = await begin(bus.aclose(timeout=PATIENCE))
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    stuck.open()
    assert (await bus.aclose()).hung == ("stuck",)
    with pytest.raises(BusClosed):
        bus.stream(Tick)


async def test_a_close_within_a_cancelled_scope_is_finished_first() -> None:
    got: list[Beat] = []
    bus = Bus()
    with anyio.CancelScope() as scope:
        async with bus:
            bus.subscribe(got.append, Tick)
            bus.publish(Tick, n=1)
            scope.cancel()
    assert numbers(got) == [1]
    assert (await bus.aclose()).complete


def test_a_bus_left_open_warns_and_ends_all_its_threads() -> None:
    before = set(threading.enumerate())

    async def see(_: Tick) -> None: ...

    def leave_open() -> tuple[Source, Stream[Tick], list[threading.Thread]]:
        bus = Bus()
        bus.subscribe(print, Tick, where=lambda _: False)
        bus.subscribe(see, Tick)
        stream = bus.stream(Tick, where=lambda _: False)
        bus.publish(Tick, n=1)
        bus.drain()
        return bus.source("orphan"), stream, [thread for thread in threading.enumerate() if thread not in before]

    with pytest.warns(ResourceWarning, match=r"<Bus 1 events, 3 subscriptions> was not closed"):
        source, stream, threads = leave_open()
    assert len(threads) == 3
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert list(stream) == []
    source.publish(Tick, n=2)  # harmless


def test_a_bus_that_is_only_referred_to_by_its_callbacks_is_not_kept_alive() -> None:
    bus = Bus()
    bus.subscribe(bus.publish, Tick, where=lambda _: False)
    bus.close()
    gone = weakref.ref(bus)
    del bus
    gc.collect()
    assert gone() is None


def test_the_statistics_of_a_closed_bus_can_still_be_read() -> None:
    with Bus() as bus:
        subscription = bus.subscribe(print, Tick, where=lambda _: False)
        bus.publish(Tick, n=1)
    assert bus.stats().published == 1
    assert subscription.stats.state == "ended"
    assert subscription.stats.filtered == 1


def test_a_thousand_readers_are_closed() -> None:
    count = 0

    async def see(_: Tick) -> None:
        nonlocal count
        count += 1

    with Bus() as bus:
        for _ in range(1000):
            bus.subscribe(see, Tick)
        bus.publish(Tick, n=1)
    assert count == 1000


class Slow(Event, name="tests.closing.Slow"):
    """Its validator waits for the test."""

    n: int

    @field_validator("n")
    @classmethod
    def wait(cls, n: int) -> int:
        entered.set()
        assert opened.wait(PATIENCE)
        return n


entered, opened = threading.Event(), threading.Event()


def test_a_close_that_finds_the_sequencer_stuck_reports_what_waits_and_ends_the_streams_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lineside.bus.ending.END_SECONDS", PATIENCE)
    entered.clear()
    opened.clear()
    with ThreadPoolExecutor(1) as pool:
        bus = Bus()
        idle = bus.subscribe(lambda event: None, Tick, name="idle")
        reading = pool.submit(numbers, bus.stream(Tick))
        bus.publish(Tick, n=1)
        bus.drain()
        bus.subscribe(lambda event: None, Slow)
        bus.publish(Slow, n=1)
        assert entered.wait(PATIENCE)
        for n in range(2, 12):
            bus.publish(Tick, n=n)
        report = bus.close(timeout=2.0)
        assert report.waiting >= 10
        assert not report.complete
        assert "idle" not in report.hung
        assert idle.stats.state == "ended"
        opened.set()
        assert reading.result(PATIENCE) == list(range(1, 12))


def test_a_close_goes_on_where_an_interrupted_one_stopped() -> None:
    gate = Gated()
    bus = Bus()
    bus.subscribe(gate, Tick)
    bus.publish(Tick, n=1)
    assert gate.entered.wait(PATIENCE)

    async def interrupted() -> None:
        first = asyncio.create_task(bus.aclose(PATIENCE))
        await turn()
        second = asyncio.create_task(bus.aclose(PATIENCE))
        await turn()
        first.cancel()
        gate.open()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        assert isinstance(await second, CloseReport)

    asyncio.run(interrupted())
