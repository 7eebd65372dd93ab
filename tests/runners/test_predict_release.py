"""Whoever reads a stream of predictions leaves nothing behind: no run, no model, no handler of interrupts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from torch import Tensor, nn

from lineside.bus import Bus
from lineside.runners.predictor import Predictor
from lineside.schemas import PredictBatchEnd, RunEnd

from .predictions import doubler
from .support import PATIENCE, aevents_of_run, events_of_run

WAYS: list[dict[str, Any]] = [{"overlap": True}, {"overlap": False}, {"prefetch": 0}]


class Failing(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        raise KeyError("no such layer")


@pytest.mark.parametrize("settings", WAYS, ids=repr)
@pytest.mark.parametrize("awaited", [False, True])
def test_a_run_that_failed_keeps_neither_its_model_nor_its_reader_alive(
    settings: dict[str, Any], awaited: bool
) -> None:
    async def read_async(predictor: Predictor[Tensor]) -> None:
        async with predictor.stream([[1.0]]) as stream:
            async for _ in stream:
                pass

    def read(predictor: Predictor[Tensor]) -> None:
        with predictor.stream([[1.0]]) as stream:
            list(stream)

    def fail() -> weakref.ref[nn.Module]:
        predictor = Predictor(Failing(), device="cpu", **settings)
        with pytest.raises(KeyError):
            asyncio.run(read_async(predictor)) if awaited else read(predictor)
        for thread in threading.enumerate():
            if thread.name == f"lineside-{predictor.run_id}":  # it ends a moment after the error is told
                thread.join(PATIENCE)
        return weakref.ref(predictor.model)

    models = [fail() for _ in range(3)]
    gc.collect()
    assert [model() for model in models] == [None] * 3


def test_a_reader_whose_loop_ends_with_his_error_releases_the_predictor(bus: Bus) -> None:
    before = signal.getsignal(signal.SIGINT)
    predictor = doubler(bus, batch_size=1)

    async def read() -> None:
        stream = predictor.stream(range(10**9))
        async for _ in stream:
            raise ValueError("the reader's own")

    with pytest.raises(ValueError, match="own"):
        asyncio.run(read())
    gc.collect()
    assert [end.outcome for end in events_of_run(bus) if isinstance(end, RunEnd)] == ["stopped"]
    assert predictor.run([1]).results == (2,)
    assert signal.getsignal(signal.SIGINT) == before


async def test_a_reader_whose_task_ends_with_his_error_releases_the_predictor(bus: Bus) -> None:
    predictor = doubler(bus, batch_size=1)

    async def read() -> None:
        stream = predictor.stream(range(10**9))
        async for _ in stream:
            raise ValueError("the reader's own")

    task = asyncio.create_task(read())
    await asyncio.wait([task])
    assert isinstance(task.exception(), ValueError)
    del task
    gc.collect()
    assert isinstance((await aevents_of_run(bus))[-1], RunEnd)
    assert (await predictor.start([1])).results == (2,)


def test_an_interrupt_that_ends_an_event_loop_leaves_the_handler_as_it_was(bus: Bus) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    async def read() -> None:
        async for result in doubler(bus, batch_size=1).stream(range(10**9)):
            if result == 6:
                os.kill(os.getpid(), signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(read())
        gc.collect()
        assert isinstance(events_of_run(bus)[-1], RunEnd)
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_results_that_nobody_reads_any_more_are_forgotten(bus: Bus) -> None:
    class Result:
        pass

    made: list[weakref.ref[Result]] = []

    def finish(outputs: Tensor, batch: object) -> list[Result]:
        results = [Result() for _ in outputs]
        made.extend(map(weakref.ref, results))
        return results

    def inputs() -> Iterator[float]:
        yield from range(100)

    predictor = Predictor(nn.Identity(), postprocess=finish, bus=bus, device="cpu", batch_size=4)
    stream = predictor.stream(inputs())
    with bus.stream(PredictBatchEnd) as computed:
        next(stream)
        for _ in range(3):  # the one at hand, and those ahead of it
            next(computed)
    stream.close()
    gc.collect()
    assert len(made) == 12
    assert [result() for result in made if result() is not None] == []
    assert stream.run is not None
    assert stream.run.result(PATIENCE).outcome == "stopped"


async def test_the_end_of_a_stream_that_is_read_on_the_loop_of_the_bus_is_no_deadlock() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the run's thread has told the end, and not what came of it
    try:
        async with Bus() as bus:

            @bus.on(RunEnd)
            async def served(event: RunEnd) -> None: ...

            predictor = doubler(bus, batch_size=2)
            for _ in range(150):
                assert list(predictor.stream(range(4))) == [0, 2, 4, 6]
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("settings", WAYS, ids=repr)
async def test_once_a_reader_that_was_cancelled_is_awaited_the_next_stream_begins(
    bus: Bus, settings: dict[str, Any]
) -> None:
    predictor = doubler(bus, batch_size=1, **settings)
    reading = asyncio.Event()

    async def read() -> None:
        async for _ in predictor.stream(range(10**9)):
            reading.set()

    reader = asyncio.create_task(read())
    await reading.wait()
    reader.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reader
    assert [result async for result in predictor.stream([1, 2])] == [2, 4]
