from __future__ import annotations

import asyncio
import gc
import queue
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineside.bus import Bus
from lineside.runners.errors import RunnerBusy
from lineside.runners.predict.errors import StreamBusy
from lineside.runners.predictor import Predictor, PredictStream
from lineside.schemas import Event, PredictBatchEnd, PredictEnd, RunEnd
from tests.turns import begin, turn

from .predictions import doubler, sequence
from .support import PATIENCE, aevents_of_run, events_of_run, types


async def counting(taken: list[int], count: int = 10**9) -> AsyncIterator[int]:
    try:
        for i in range(count):
            taken.append(i)
            await turn()
            yield i
    finally:
        taken.append(-1)


# ---- how far ahead


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_the_predictor_stays_so_many_batches_ahead_of_its_reader_and_no_more(bus: Bus, prefetch: int) -> None:
    asked = 0
    ahead: list[int] = []

    def source() -> Iterator[int]:
        for i in range(12):
            ahead.append(i + 1 - asked)
            yield i

    with (
        bus.stream(PredictBatchEnd) as computed,
        doubler(bus, batch_size=1, prefetch=prefetch).stream(source()) as results,
    ):
        for batch in range(12 - prefetch):
            asked += 1
            assert next(results) == 2 * batch
            wait_for_batch(computed, batch + prefetch)
    assert max(ahead) == prefetch


def wait_for_batch(computed: Iterator[PredictBatchEnd], batch: int) -> None:
    assert any(event.batch == batch for event in computed)


async def test_a_slow_async_reader_slows_the_predictor_too(bus: Bus) -> None:
    taken: list[int] = []
    stream = doubler(bus, batch_size=1, prefetch=2).stream(counting(taken))
    async with bus.stream(PredictBatchEnd) as computed, stream:
        assert await anext(stream) == 0
        async for event in computed:
            if event.batch == 2:
                break
        assert taken == [0, 1, 2]
    assert taken[-1] == -1


async def test_a_loop_is_woken_once_for_a_batch_and_its_executor_is_left_alone(bus: Bus) -> None:
    loop, woken = asyncio.get_running_loop(), 0
    wake = loop.call_soon_threadsafe

    def counted(*args: Any, **keywords: Any) -> asyncio.Handle:
        nonlocal woken
        woken += 1
        return wake(*args, **keywords)

    class Refusing(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("the shared executor was used")

    loop.set_default_executor(Refusing())
    loop.call_soon_threadsafe = counted  # type: ignore[method-assign,assignment]
    stream = doubler(bus, batch_size=10).stream(range(100))
    assert [result async for result in stream] == [2 * i for i in range(100)]
    batches, end, run = 10, 1, 1
    assert woken <= batches + end + run


async def test_results_that_are_always_there_do_not_keep_other_tasks_from_running() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await turn()

    task = asyncio.create_task(other())
    async for _ in doubler(batch_size=1, prefetch=50).stream(range(50)):
        pass
    task.cancel()
    assert turns >= 50


# ---- readers who leave


def breaks(stream: PredictStream[int]) -> None:
    for _ in stream:
        break


def raises(stream: PredictStream[int]) -> None:
    with suppress(ZeroDivisionError):
        for result in stream:
            print(1 / result)


def drops(stream: PredictStream[int]) -> None:
    next(stream)


def leaves_a_cycle(stream: PredictStream[int]) -> None:
    next(stream)
    cycle: list[object] = [stream]
    cycle.append(cycle)


def closes(stream: PredictStream[int]) -> None:
    next(stream)
    stream.close()
    stream.close()
    assert next(stream, None) is None


def leaves_the_block(stream: PredictStream[int]) -> None:
    with stream:
        next(stream)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("leave", [breaks, raises, drops, leaves_a_cycle, closes, leaves_the_block])
def test_a_reader_who_leaves_releases_the_predictor(
    bus: Bus, leave: Callable[[PredictStream[int]], None], overlap: bool
) -> None:
    left: list[bool] = []

    def source() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            left.append(True)

    predictor = doubler(bus, batch_size=1, name="left", overlap=overlap)
    leave(predictor.stream(source()))
    gc.collect()
    events = events_of_run(bus)
    check_abandoned(events)
    assert left
    assert predictor.run([1]).results == (2,)


def check_abandoned(events: list[Event]) -> None:
    *_, end, over = events
    assert types(events) == sequence((len(events) - 4) // 3)
    assert isinstance(end, PredictEnd)
    assert isinstance(over, RunEnd)
    assert (over.outcome, over.reason) == ("stopped", "the stream was abandoned")


async def abreaks(stream: PredictStream[int]) -> None:
    async for _ in stream:
        break


async def araises(stream: PredictStream[int]) -> None:
    with suppress(ZeroDivisionError):
        async for result in stream:
            print(1 / result)


async def is_cancelled(stream: PredictStream[int]) -> None:
    read = asyncio.Event()

    async def read_on(stream: PredictStream[int]) -> None:
        async for _ in stream:
            read.set()

    task = asyncio.create_task(read_on(stream))
    del stream
    await read.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def acloses(stream: PredictStream[int]) -> None:
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    assert [result async for result in stream] == []


async def leaves_the_async_block(stream: PredictStream[int]) -> None:
    async with stream:
        await anext(stream)


async def reads_with_both(stream: PredictStream[int]) -> None:
    await anext(stream)
    next(stream)


ASYNC_LEAVERS = [abreaks, araises, is_cancelled, acloses, leaves_the_async_block]


# A reader who blocks the loop would block an async source on it.
@pytest.mark.parametrize(("leave", "asynchronous"), [*product(ASYNC_LEAVERS, (False, True)), (reads_with_both, False)])
async def test_an_async_reader_who_leaves_releases_the_predictor(
    bus: Bus, leave: Callable[[PredictStream[int]], Awaitable[None]], asynchronous: bool
) -> None:
    taken: list[int] = []
    source: Any = counting(taken) if asynchronous else range(10**9)
    predictor = doubler(bus, batch_size=1)
    await leave(predictor.stream(source))
    gc.collect()
    check_abandoned(await aevents_of_run(bus))
    result = await predictor.start([1])
    assert result.results == (2,)
    assert not asynchronous or taken[-1] == -1


def test_a_loop_that_ends_under_its_reader_releases_the_predictor(bus: Bus) -> None:
    taken: list[int] = []
    streams: list[PredictStream[int]] = []

    async def read() -> None:
        streams.append(doubler(bus, batch_size=1).stream(counting(taken)))
        await anext(streams[0])

    asyncio.run(read())
    events = events_of_run(bus)
    check_abandoned(events)
    assert taken[-1] == -1
    assert len(list(streams[0])) <= len(taken)


@pytest.mark.filterwarnings("ignore:Exception ignored .*<coroutine object AsyncInputs._serve")  # asyncio's own words
@pytest.mark.parametrize("orderly", [True, False], ids=["orderly", "abruptly"])
def test_a_loop_that_ends_while_its_source_is_read_releases_the_predictor(orderly: bool) -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    loops: list[asyncio.AbstractEventLoop] = []
    left: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    async def read(bus: Bus, turns: int) -> PredictStream[int]:
        loops.append(asyncio.get_running_loop())
        stream = doubler(bus, batch_size=1).stream(source())
        reading = asyncio.ensure_future(anext(stream))
        for _ in range(turns):
            await turn()
        reading.cancel()
        return stream

    def end(turns: int) -> None:
        with Bus() as bus:
            if orderly:
                stream = asyncio.run(read(bus, turns))
            else:
                loop = asyncio.new_event_loop()
                stream = loop.run_until_complete(read(bus, turns))
                loop.close()
            assert isinstance(events_of_run(bus)[-1], RunEnd)
            assert stream.run is not None
            with suppress(ResourceWarning):  # of asyncio, where the source was begun while the loop ended
                assert stream.run.result(30).outcome == "stopped"
        left.update(asyncio.all_tasks(loops.pop()))

    for turns in range(1, 20):
        end(turns)
    deadline = time.monotonic() + PATIENCE
    while left and time.monotonic() < deadline:
        gc.collect()  # a thread may have them a moment longer; here they may say that nobody awaits them
    assert not left


async def test_after_a_timeout_a_reader_reads_on_without_loss() -> None:
    gate = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        yield 1
        await gate.wait()
        yield 2

    async with doubler(batch_size=1).stream(source()) as stream:
        assert await anext(stream) == 2
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await anext(stream)
        gate.set()
        assert [result async for result in stream] == [4]


@pytest.mark.parametrize("overlap", [True, False])
def test_the_next_run_waits_for_a_stream_that_was_left(bus: Bus, overlap: bool) -> None:
    predictor = doubler(bus, batch_size=1, overlap=overlap)
    for _ in range(20):
        assert next(predictor.stream(range(10))) == 0
    assert predictor.run([3]).results == (6,)


async def test_the_next_async_run_waits_for_a_stream_that_was_left(bus: Bus) -> None:
    predictor = doubler(bus, batch_size=1)
    for _ in range(20):
        assert await anext(predictor.stream(counting([]))) == 0
    assert (await predictor.start([3])).results == (6,)


# ---- one at a time


def test_a_predictor_does_one_run_at_a_time() -> None:
    predictor = doubler(batch_size=1)
    with predictor.stream(range(10)) as stream:
        next(stream)
        for attempt in (lambda: next(predictor.stream([1])), lambda: predictor.run([1]), lambda: predictor.start([1])):
            with pytest.raises(RunnerBusy):
                attempt()
        assert next(stream) == 2
    assert list(predictor.stream([1])) == [2]


async def test_a_stream_has_one_reader_at_a_time() -> None:
    async with doubler().stream(counting([], 0)) as stream:
        first, second = await asyncio.gather(anext(stream, None), anext(stream, None), return_exceptions=True)
    assert first is None
    assert isinstance(second, StreamBusy)


async def test_closing_a_stream_ends_the_read_of_another_task() -> None:
    async def silent() -> AsyncIterator[int]:
        reading.set()
        await asyncio.Event().wait()
        yield 1

    reading = asyncio.Event()
    stream = doubler().stream(silent())
    task = asyncio.create_task(anext(stream, None))
    await reading.wait()
    await stream.aclose()
    assert await task is None


# ---- stopping, pausing


@pytest.mark.parametrize("overlap", [True, False])
def test_a_hook_can_stop_a_stream(bus: Bus, overlap: bool) -> None:
    predictor = doubler(bus, batch_size=1, overlap=overlap)

    @predictor.hook(PredictBatchEnd)
    def enough(event: PredictBatchEnd, predictor: Predictor[int]) -> None:
        if event.results == (6,):
            predictor.stop("found it")

    assert list(predictor.stream(range(10**9))) == [0, 2, 4, 6]
    *_, end = events = events_of_run(bus)
    assert types(events) == sequence(4)
    assert isinstance(end, RunEnd)
    assert (end.outcome, end.reason) == ("stopped", "found it")


@pytest.mark.parametrize("overlap", [True, False])
def test_a_stop_ends_the_wait_for_a_reader(bus: Bus, overlap: bool) -> None:
    stream = doubler(bus, batch_size=1, prefetch=1, overlap=overlap).stream(range(10**9))
    next(stream)
    assert stream.run is not None
    stream.run.stop("enough")
    assert stream.run.result(timeout=30).reason == "enough"
    assert list(stream) in ([], [2])


def test_a_paused_prediction_goes_on_where_it_stood(bus: Bus) -> None:
    predictor = doubler(bus, batch_size=1)
    paused: queue.SimpleQueue[None] = queue.SimpleQueue()

    @predictor.hook(PredictBatchEnd)
    def pause(event: PredictBatchEnd, predictor: Predictor[int]) -> None:
        predictor.pause()
        paused.put(None)

    run = predictor.start(range(3))
    for _ in run.stream(PredictBatchEnd):
        paused.get(timeout=30)  # the event may come before its hooks are called
        run.resume()
    assert run.result(timeout=30).results == (0, 2, 4)


def test_a_reader_who_leaves_ends_a_pause(bus: Bus) -> None:
    predictor = doubler(bus, batch_size=1)

    @predictor.hook(PredictBatchEnd)
    def pause(event: PredictBatchEnd, predictor: Predictor[int]) -> None:
        predictor.pause()

    breaks(predictor.stream(range(10**9)))
    check_abandoned(events_of_run(bus))


# ---- any schedule of readers


async def read_and_give_up(stream: PredictStream[int]) -> list[int]:
    """Begin a read and cancel it; a result that was there by then counts."""
    task = await begin(anext(stream))
    task.cancel()
    try:
        return [await task]
    except (asyncio.CancelledError, StopAsyncIteration):
        return []


async def read_one(stream: PredictStream[int]) -> list[int]:
    return [result async for result in _first(stream)]


async def _first(stream: PredictStream[int]) -> AsyncIterator[int]:
    with suppress(StopAsyncIteration):
        yield await anext(stream)


@settings(deadline=None, max_examples=60)
@given(
    steps=st.lists(st.sampled_from(["sync", "elsewhere", "here", "there", "gives up"]), max_size=25),
    inputs=st.integers(0, 12),
    batch_size=st.integers(1, 4),
    prefetch=st.integers(0, 3),
    overlap=st.booleans(),
)
def test_any_mixture_of_readers_gets_every_result_once_and_in_order(
    steps: list[str], inputs: int, batch_size: int, prefetch: int, overlap: bool
) -> None:
    read: list[int] = []
    with (
        Bus() as bus,
        asyncio.Runner() as here,
        asyncio.Runner() as there,
        ThreadPoolExecutor(1) as elsewhere,
    ):
        predictor = doubler(bus, batch_size=batch_size, prefetch=prefetch, overlap=overlap)
        with predictor.stream(range(inputs)) as stream:
            for step in steps:
                match step:
                    case "sync":
                        read += [result for result in [next(stream, None)] if result is not None]
                    case "elsewhere":
                        read += [
                            result for result in [elsewhere.submit(next, stream, None).result()] if result is not None
                        ]
                    case "here":
                        read += here.run(read_one(stream))
                    case "there":
                        read += there.run(read_one(stream))
                    case _:
                        read += here.run(read_and_give_up(stream))
            whole = read + list(stream)
        assert whole == [2 * i for i in range(inputs)]
        if steps or inputs:
            assert types(events_of_run(bus)) == sequence(-(-inputs // batch_size))


async def test_many_streams_are_read_at_once() -> None:
    async def read(i: int) -> list[int]:
        predictor = doubler(batch_size=1 + i % 3, prefetch=i % 4)
        return [result async for result in predictor.stream(range(20))]

    assert await asyncio.gather(*map(read, range(12))) == [[2 * i for i in range(20)]] * 12
