"""Batches that wait for more inputs only so long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lineside.bus import Bus
from lineside.runners import InvalidConfig
from lineside.schemas import PredictBatchEnd
from tests.turns import turn

from .predictions import doubler
from .support import PATIENCE, events_of_run

SHORT, LONG = 0.01, 1000.0


def sizes(bus: Bus) -> list[int]:
    return [event.batch_size for event in events_of_run(bus) if isinstance(event, PredictBatchEnd)]


async def test_a_batch_of_an_async_source_goes_when_it_has_waited_and_the_read_goes_on(bus: Bus) -> None:
    more, cancelled = asyncio.Event(), False

    async def source() -> AsyncIterator[int]:
        nonlocal cancelled
        try:
            yield 1
            yield 2
            await more.wait()
            for i in range(3, 8):
                yield i
        except asyncio.CancelledError:
            cancelled = True
            raise

    async with doubler(bus, batch_size=4, max_wait=SHORT).stream(source()) as stream:
        assert [await anext(stream), await anext(stream)] == [2, 4]
        more.set()
        assert [result async for result in stream] == [6, 8, 10, 12, 14]
    assert not cancelled
    ends = [event for event in events_of_run(bus) if isinstance(event, PredictBatchEnd)]
    assert ends[0].inputs == ("0", "1")
    assert [name for event in ends for name in event.inputs] == [str(i) for i in range(7)]


@pytest.mark.parametrize("overlap", [True, False])
def test_a_batch_of_a_plain_source_goes_when_it_has_waited_and_the_read_goes_on(bus: Bus, overlap: bool) -> None:
    more = threading.Event()

    def source() -> Iterator[int]:
        yield from (1, 2)
        assert more.wait(PATIENCE)
        yield from range(3, 8)

    with doubler(bus, batch_size=4, max_wait=SHORT, overlap=overlap).stream(source()) as stream:
        assert [next(stream), next(stream)] == [2, 4]
        more.set()
        assert list(stream) == [6, 8, 10, 12, 14]
    assert sum(sizes(bus)) == 7
    assert sizes(bus)[0] in (1, 2)


async def test_no_batch_goes_before_its_time_while_it_can_become_full(bus: Bus) -> None:
    async def source() -> AsyncIterator[int]:
        for i in range(10):
            await turn()
            yield i

    results = await doubler(bus, batch_size=4, max_wait=LONG).start(source())
    assert results.results == tuple(2 * i for i in range(10))
    assert sizes(bus) == [4, 4, 2]


@pytest.mark.parametrize("overlap", [True, False])
def test_a_plain_source_that_is_quick_gives_full_batches(bus: Bus, overlap: bool) -> None:
    predictor = doubler(bus, batch_size=4, max_wait=LONG, overlap=overlap)
    assert predictor.run(range(10)).results == tuple(2 * i for i in range(10))
    assert sizes(bus) == [4, 4, 2]


async def test_with_no_time_to_wait_a_batch_takes_what_is_there(bus: Bus) -> None:
    waiting: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncIterator[int]:
        while True:
            yield await waiting.get()

    async with doubler(bus, batch_size=4, max_wait=0).stream(source()) as stream:
        for gathered in ([1, 2, 3], [4], [5, 6, 7, 8]):
            for value in gathered:
                waiting.put_nowait(value)
            assert [await anext(stream) for _ in gathered] == [2 * value for value in gathered]
    assert sizes(bus)[:3] == [3, 1, 4]


@pytest.mark.parametrize("source", ["plain", "async"])
async def test_an_error_of_the_source_comes_after_what_had_waited(source: str) -> None:
    gate = threading.Event()

    def plain() -> Iterator[int]:
        yield 1
        assert gate.wait(PATIENCE)
        raise ConnectionError("the camera is gone")

    async def slow() -> AsyncIterator[int]:
        yield 1
        while not gate.is_set():
            await turn()
        raise ConnectionError("the camera is gone")

    given: Any = plain() if source == "plain" else slow()
    async with doubler(batch_size=4, max_wait=SHORT).stream(given) as stream:
        assert await anext(stream) == 2
        gate.set()
        with pytest.raises(ConnectionError):
            await anext(stream)


async def test_a_reader_who_leaves_while_a_batch_waits_ends_the_source(bus: Bus) -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    stream = doubler(bus, batch_size=4, max_wait=SHORT).stream(source())
    assert await anext(stream) == 2
    await stream.aclose()
    await closed.wait()


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidConfig, match="max_wait"):
        doubler(max_wait=seconds)
