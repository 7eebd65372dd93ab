"""A stream is a cursor read with `async for` or `for`, on any loop or none, at the reader's own pace."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lineside.bus import Bus, Stream
from lineside.schemas import Event, RunEnd
from tests.turns import begin

from .support import PATIENCE, Beat, Tick, Tock, numbers


async def read(stream: Stream[Event]) -> list[int]:
    return numbers([event async for event in stream])


def read_on_a_loop_of_its_own(stream: Stream[Event]) -> list[int]:
    return asyncio.run(read(stream))


def end(bus: Bus, run: str) -> None:
    bus.source(run).publish(RunEnd, kind="train", outcome="completed", duration=0)


async def test_async_for_gives_the_events_in_order_until_the_bus_closes() -> None:
    async with Bus() as bus:
        stream = bus.stream(Tick)
        reading = asyncio.create_task(read(stream))
        for n in range(1000):
            bus.publish(Tick, n=n)
    assert await reading == list(range(1000))


def test_for_gives_the_events_in_order_until_the_bus_closes() -> None:
    with ThreadPoolExecutor(1) as pool, Bus() as bus:
        reading = pool.submit(numbers, bus.stream(Tick))
        for n in range(1000):
            bus.publish(Tick, n=n)
        bus.close()
        assert reading.result(PATIENCE) == list(range(1000))


def test_a_stream_collects_from_the_moment_it_was_made() -> None:
    with Bus() as bus:
        bus.publish(Tick, n=1)
        stream = bus.stream(Tick)
        bus.publish(Tick, n=2)
    assert numbers(stream) == [2]


def test_a_stream_that_was_not_read_before_the_close_still_has_its_events() -> None:
    with Bus() as bus:
        streams = [bus.stream(Beat) for _ in range(3)]
        for n in range(10):
            bus.publish(Tick, n=n)
    assert [numbers(stream) for stream in streams] == [list(range(10))] * 3
    assert list(streams[0]) == []


def test_several_loops_read_at_once() -> None:
    streams: list[Stream[Tick]] = []
    with ThreadPoolExecutor(4) as pool, Bus() as bus:
        streams += [bus.stream(Tick) for _ in range(4)]
        reading = [pool.submit(read_on_a_loop_of_its_own, stream) for stream in streams]
        for n in range(1000):
            bus.publish(Tick, n=n)
        bus.close()
        assert [result.result(PATIENCE) for result in reading] == [list(range(1000))] * 4


def test_one_stream_may_be_read_on_one_loop_after_another_and_without(bus: Bus) -> None:
    async def one() -> int:
        async for event in stream:
            return event.n
        raise AssertionError

    with bus.stream(Tick) as stream:
        for n in range(3):
            bus.publish(Tick, n=n)
        assert [asyncio.run(one()), next(stream).n, asyncio.run(one())] == [0, 1, 2]


async def test_a_reader_that_waits_is_woken_by_an_event_of_a_batch() -> None:
    async with Bus() as bus:
        with bus.stream(Tick) as stream:
            waiting = await begin(anext(stream))
            bus.publish(Tick, n=1)
            assert (await waiting).n == 1


def test_a_reader_in_a_thread_that_waits_is_woken(bus: Bus) -> None:
    with ThreadPoolExecutor(1) as pool, bus.stream(Tick) as stream:
        waiting = pool.submit(next, stream)
        bus.publish(Tick, n=1)
        assert waiting.result(PATIENCE).n == 1


async def test_closing_a_stream_ends_the_one_who_waits_for_it(bus: Bus) -> None:
    stream = bus.stream(Tick)
    waiting = await begin(read(stream))
    stream.close()
    assert await waiting == []
    await stream.aclose()


def test_closing_a_stream_ends_the_thread_that_waits_for_it(bus: Bus) -> None:
    stream = bus.stream(Tick)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(numbers, stream)
        stream.close()
        assert waiting.result(PATIENCE) == []


async def test_closing_a_stream_leaves_what_is_unread(bus: Bus) -> None:
    async with bus.stream(Tick) as stream:
        for n in range(10):
            bus.publish(Tick, n=n)
        assert (await anext(stream)).n == 0
    assert await read(stream) == []
    assert stream.stats.delivered == 1
    assert stream.stats.state == "cancelled"


async def test_leaving_the_loop_over_a_stream_releases_its_subscription(bus: Bus) -> None:
    bus.publish(Tick, n=1)
    async for event in bus.stream(Tick, since="start"):
        assert event.n == 1
        break
    for event in bus.stream(Tick, since="start"):
        assert event.n == 1
        break
    gc.collect()
    bus.drain()
    assert not bus.stats().subscriptions


def test_a_stream_of_one_run_ends_with_it() -> None:
    with Bus() as bus:
        stream = bus.stream(Tick, run="a")
        for run in ("b", "a"):
            bus.source(run).publish(Tick, n=1)
            end(bus, run)
        bus.source("a").publish(Tick, n=2)
        assert [(event.run, event.n) for event in stream] == [("a", 1)]
        assert stream.stats.state == "cancelled"


def test_a_stream_of_one_run_gives_its_end_to_those_who_asked_for_it() -> None:
    with Bus() as bus:
        stream = bus.stream(Event, run="a")
        bus.source("a").publish(Tick, n=1)
        end(bus, "a")
        assert [event.type for event in stream] == ["tests.Tick", "RunEnd"]


def test_a_stream_of_one_run_ends_even_if_its_filter_keeps_the_end_out() -> None:
    with Bus() as bus:
        stream = bus.stream(Event, run="a", where=lambda event: isinstance(event, Tick))
        bus.source("a").publish(Tick, n=1)
        end(bus, "a")
        assert [event.type for event in stream] == ["tests.Tick"]


def test_streams_take_the_filters_of_subscriptions(bus: Bus) -> None:
    with bus.stream(Tick, where=lambda event: event.n > 2, every=2) as stream:
        for n in range(10):
            bus.publish(Tick, n=n)
        assert numbers(event for _, event in zip(range(4), stream, strict=False)) == [3, 5, 7, 9]
        assert stream.stats.filtered == 6


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
async def test_a_predicate_that_raises_what_ends_iterations_does_not_end_the_stream(
    bus: Bus, error: type[Exception]
) -> None:
    def where(event: Tick) -> bool:
        if event.n == 2:
            return True
        raise error

    with bus.stream(Tick, where=where) as stream:
        for n in range(3):
            bus.publish(Tick, n=n)
        with pytest.raises(RuntimeError, match=f"where= raised {error.__name__}") as caught:
            next(stream)
        assert isinstance(caught.value.__cause__, error)
        with pytest.raises(RuntimeError):
            await anext(stream)
        assert next(stream).n == 2
        assert stream.stats.failed == 2


def test_a_slow_stream_says_what_it_missed() -> None:
    with Bus(window=256) as bus, bus.stream(Tick) as stream:
        for n in range(3000):
            bus.publish(Tick, n=n)
        bus.close()
        rest = numbers(stream)
        assert rest == list(range(3000 - len(rest), 3000))
        assert stream.missed == 3000 - len(rest)


def test_the_loop_closed_under_a_reader_harms_nobody() -> None:
    got: list[Beat] = []
    with Bus() as bus:
        stream = bus.stream(Tick)
        bus.subscribe(got.append, Tick)
        loop = asyncio.new_event_loop()

        async def first() -> int:
            return (await anext(stream)).n

        bus.publish(Tick, n=1)
        assert loop.run_until_complete(first()) == 1
        loop.close()
        for n in range(2, 10):
            bus.publish(Tick, n=n)
        bus.drain()
    assert numbers(got) == list(range(1, 10))


async def test_a_cancelled_reader_loses_no_event(bus: Bus) -> None:
    with bus.stream(Tick) as stream:
        waiting = await begin(anext(stream))
        bus.publish(Tick, n=1)
        bus.drain()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await anext(stream)).n == 1


def test_urgent_events_and_those_of_a_batch_keep_their_order_in_a_stream() -> None:
    with Bus() as bus:
        stream = bus.stream(Beat)
        for n in range(100):
            bus.publish(Tock if n % 10 == 9 else Tick, n=n)
    assert numbers(stream) == list(range(100))


def test_a_stream_shows_what_it_is(bus: Bus) -> None:
    with bus.stream(Tick, name="mine") as stream:
        assert repr(stream) == "<Stream <Subscription 'mine' active, 0 delivered>>"


def test_a_stream_that_is_read_while_threads_publish_loses_nothing() -> None:
    with Bus(latency=0.0005) as bus:
        stream = bus.stream(Tick)

        def publish(thread: int) -> None:
            for n in range(500):
                bus.publish(Tick, n=1000 * thread + n)

        threads = [threading.Thread(target=publish, args=(thread,)) for thread in range(3)]
        for thread in threads:
            thread.start()
        got = numbers(event for _, event in zip(range(1500), stream, strict=False))
        for thread in threads:
            thread.join()
    assert sorted(got) == [1000 * thread + n for thread in range(3) for n in range(500)]


def test_a_stream_may_be_read_on_one_loop_after_another() -> None:
    with Bus() as bus:
        stream = bus.stream(Tick)

        async def read_one() -> int:
            return (await anext(stream)).n

        for n in range(3):
            bus.publish(Tick, n=n)
            assert asyncio.run(read_one()) == n
            bus.publish(Tock, n=n)  # comes while no loop is there to be woken
            bus.drain()


def test_the_end_of_a_stream_reaches_every_thread_that_waits_for_it() -> None:
    with ThreadPoolExecutor(2) as pool, Bus() as bus:
        stream = bus.stream(Tick)
        readers = [pool.submit(numbers, stream) for _ in range(2)]
        bus.publish(Tick, n=1)
        bus.close()
        assert sorted(n for reader in readers for n in reader.result(PATIENCE)) == [1]
