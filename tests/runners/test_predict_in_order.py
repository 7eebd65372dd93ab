"""In order, whoever reads a stream with `for` computes it: in his thread, batch by batch, and only what he asks for."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lineside.bus import Bus
from lineside.runners.errors import WouldDeadlock
from lineside.runners.predictor import PredictBatch, Predictor, PredictResult
from lineside.runners.run import Run
from lineside.schemas import PredictBatchEnd, PredictBatchStart, PredictEnd, RunEnd, RunStart

from .predictions import Double, doubler, numbers, sequence
from .support import events_of_run, types

PATIENCE = 60.0


class Traced(Double):
    """Notes the thread of every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def forward(self, value: Tensor) -> Tensor:
        self.threads.append(threading.get_ident())
        return super().forward(value)


def traced(bus: Bus | None = None, **config: Any) -> tuple[Predictor[int], list[int]]:
    """Return a predictor, and the threads that it does anything in."""
    model = Traced()
    threads = model.threads

    def prepare(inputs: list[int]) -> Tensor:
        threads.append(threading.get_ident())
        return torch.tensor(inputs)

    def finish(outputs: Tensor, batch: PredictBatch) -> list[int]:
        threads.append(threading.get_ident())
        return numbers(outputs, batch)

    settings: dict[str, Any] = {"batch_size": 1, "overlap": False, **config}
    return Predictor(model, preprocess=prepare, postprocess=finish, bus=bus, device="cpu", **settings), threads


@pytest.mark.parametrize("settings", [{"overlap": False}, {"overlap": True, "prefetch": 0}])
def test_who_reads_with_for_computes_everything_in_his_own_thread(bus: Bus, settings: dict[str, Any]) -> None:
    predictor, threads = traced(bus, **settings)

    @predictor.hook(RunStart, PredictBatchEnd, PredictEnd, RunEnd)
    def note(event: object, predictor: Predictor[int]) -> None:
        threads.append(threading.get_ident())

    def source() -> Iterator[int]:
        for i in range(3):
            threads.append(threading.get_ident())
            yield i

    assert list(predictor.stream(source())) == [0, 2, 4]
    assert threads == [threading.get_ident()] * (3 * 5 + 3)
    assert types(events_of_run(bus)) == sequence(3)


def test_nothing_is_computed_that_was_not_asked_for() -> None:
    predictor, threads = traced(prefetch=5)
    stream = predictor.stream(range(100))
    assert [next(stream), next(stream)] == [0, 2]
    assert stream.run is not None
    stream.run.stop("enough")
    assert stream.run.result(PATIENCE).batches == 2
    assert list(stream) == []
    assert len(threads) == 2 * 3


async def test_on_an_event_loop_another_thread_computes() -> None:
    predictor, threads = traced()
    assert list(predictor.stream(range(3))) == [0, 2, 4]
    assert [result async for result in predictor.stream(range(3))] == [0, 2, 4]
    assert threading.get_ident() not in threads


def test_any_thread_may_read_the_next_result() -> None:
    predictor, threads = traced()
    stream = predictor.stream(range(20))
    results: list[int] = []
    for _ in range(20):
        with ThreadPoolExecutor(1) as pool:  # a thread that is gone before the next result is read
            results.append(pool.submit(next, stream).result())
    assert results == [2 * i for i in range(20)]
    assert list(stream) == []
    assert threading.get_ident() not in threads


def test_with_overlap_the_first_batch_alone_is_computed_by_who_waits_for_it() -> None:
    predictor, threads = traced(overlap=True)
    assert list(predictor.stream(range(5))) == [2 * i for i in range(5)]
    here = threading.get_ident()
    assert threads[:3] == [here] * 3
    assert here not in threads[3:]


@pytest.mark.parametrize("overlap", [False, True])
def test_an_interrupt_of_a_forward_pass_reaches_the_reader_and_stops_the_run(bus: Bus, overlap: bool) -> None:
    interrupted = 0 if overlap else 2  # the reader computes the first batch, and without overlap the others

    class Interrupted(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            if int(value) == interrupted:
                signal.raise_signal(signal.SIGINT)
            return value

    predictor = Predictor(Interrupted(), postprocess=numbers, bus=bus, device="cpu", batch_size=1, overlap=overlap)
    read: list[int] = []
    stream = predictor.stream(range(5))
    with pytest.raises(KeyboardInterrupt):
        read.extend(stream)
    assert read == list(range(interrupted))
    assert list(stream) == [interrupted]  # the batch at hand is finished
    assert [(end.outcome, end.reason) for end in events_of_run(bus) if isinstance(end, RunEnd)] == [
        ("stopped", "interrupted")
    ]
    assert stream.run is not None
    assert stream.run.result(PATIENCE).outcome == "stopped"
    assert list(predictor.stream([7])) == [7]


def test_a_second_interrupt_is_raised_at_once_and_so_are_those_after_it(bus: Bus) -> None:
    through: list[int] = []

    class Interrupted(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            if int(value) == 1:
                signal.raise_signal(signal.SIGINT)
                through.append(int(value))
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            through.append(int(value))
            return value

    predictor = Predictor(Interrupted(), postprocess=numbers, bus=bus, device="cpu", batch_size=1, overlap=False)
    with pytest.raises(KeyboardInterrupt):
        list(predictor.stream(range(5)))
    assert through == [0, 1]
    assert types(events_of_run(bus))[-1] == "RunEnd"
    assert list(predictor.stream([7])) == [7]


@pytest.mark.parametrize("where", ["another thread", "the same thread"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_second_reader_who_is_refused_leaves_the_interrupt_of_the_first_alone(
    bus: Bus, where: str, when: str
) -> None:
    seen: list[str] = []

    def read_too() -> None:
        try:
            next(stream)
        except BaseException as error:
            seen.append(type(error).__name__)

    class Interrupted(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            if int(value) == 1:
                if when == "before":
                    signal.raise_signal(signal.SIGINT)
                if where == "the same thread":
                    read_too()
                else:
                    thread = threading.Thread(target=read_too)
                    thread.start()
                    thread.join()
                if when == "after":
                    signal.raise_signal(signal.SIGINT)
                seen.append("through")
            return value

    predictor = Predictor(Interrupted(), postprocess=numbers, bus=bus, device="cpu", batch_size=1, overlap=False)
    stream = predictor.stream(range(5))
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert seen == ["StreamBusy", "through"]
    assert [(end.outcome, end.reason) for end in events_of_run(bus) if isinstance(end, RunEnd)] == [
        ("stopped", "interrupted")
    ]


def test_an_interrupt_while_the_preprocessing_runs_a_loop_of_its_own_stops_the_run(bus: Bus) -> None:
    async def prepared(values: list[int]) -> Tensor:
        if 1 in values:
            signal.raise_signal(signal.SIGINT)
        return torch.tensor(values)

    def prepare(values: list[int]) -> Tensor:
        return asyncio.run(prepared(values))

    predictor = Predictor(Double(), preprocess=prepare, bus=bus, device="cpu", batch_size=1, overlap=False)
    with pytest.raises(KeyboardInterrupt):
        list(predictor.stream(range(5)))
    assert [(end.outcome, end.reason) for end in events_of_run(bus) if isinstance(end, RunEnd)] == [
        ("stopped", "interrupted")
    ]


def test_an_interrupt_of_a_stream_that_another_one_reads_stops_both_once_its_batch_is_through(bus: Bus) -> None:
    through: list[str] = []

    class Interrupted(nn.Module):
        def __init__(self, name: str, at: int | None) -> None:
            super().__init__()
            self.name, self.at = name, at

        def forward(self, value: Tensor) -> Tensor:
            if int(value) == self.at:
                signal.raise_signal(signal.SIGINT)
            through.append(f"{self.name} {int(value)}")
            return value

    settings: dict[str, Any] = {"device": "cpu", "batch_size": 1, "overlap": False}
    inner = Predictor(Interrupted("inner", 1), postprocess=numbers, **settings)
    outer = Predictor(Interrupted("outer", None), postprocess=numbers, bus=bus, **settings)
    source = inner.stream(range(5))
    with pytest.raises(KeyboardInterrupt):
        list(outer.stream(source))
    assert through == ["inner 0", "outer 0", "inner 1"]
    assert source.run is not None
    assert source.run.result(PATIENCE).reason == "interrupted"
    assert [(end.outcome, end.reason) for end in events_of_run(bus) if isinstance(end, RunEnd)] == [
        ("stopped", "interrupted")
    ]


def test_an_interrupt_that_would_only_cancel_its_task_is_raised_where_the_reader_blocks_an_event_loop(bus: Bus) -> None:
    def interrupting(values: list[int]) -> Tensor:
        if 2 in values:
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
        return torch.tensor(values)

    async def read() -> None:
        for _ in predictor.stream(range(5)):
            pass

    predictor = Predictor(
        nn.Identity(), preprocess=interrupting, bus=bus, device="cpu", batch_size=1, prefetch=0, overlap=False
    )

    def leave_it_to_the_loop(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGINT, leave_it_to_the_loop)
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(read())
    finally:
        signal.signal(signal.SIGINT, before)
    assert [(end.outcome, end.reason) for end in events_of_run(bus) if isinstance(end, RunEnd)] == [
        ("stopped", "interrupted")
    ]


def test_a_hook_that_waits_for_the_run_of_its_reader_is_refused(bus: Bus) -> None:
    predictor, _ = traced(bus)
    stream = predictor.stream(range(3))

    @predictor.hook(PredictBatchStart)
    def wait(event: PredictBatchStart, predictor: Predictor[int]) -> None:
        assert stream.run is not None
        stream.run.result()

    with pytest.raises(WouldDeadlock, match="return from the hook first"):
        list(stream)
    assert [end.outcome for end in events_of_run(bus) if isinstance(end, RunEnd)] == ["failed"]


def test_a_run_that_is_stopped_while_nobody_reads_ends_by_itself(bus: Bus) -> None:
    stream = doubler(bus, batch_size=1, overlap=False).stream(range(10**9))
    assert next(stream) == 0
    steering = bus.steering.get(stream.run.id) if stream.run else None
    assert steering is not None
    steering.stop("from elsewhere")
    *_, end = events_of_run(bus)  # waits for the run's end
    assert isinstance(end, RunEnd)
    assert (end.outcome, end.reason) == ("stopped", "from elsewhere")


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_done_to_a_run_while_it_is_read_it_ends_once_and_loses_nothing_before(bus: Bus, seed: int) -> None:
    chance = random.Random(seed)
    total, moves = chance.randint(1, 40), [chance.choice(["pause", "resume", "resume"]) for _ in range(6)]
    last = chance.choice(["stop", "close", "drop", "nothing"])
    reading = threading.Event()

    def source() -> Iterator[int]:
        for i in range(total):
            reading.set()
            yield i

    predictor = doubler(bus, batch_size=chance.randint(1, 3), overlap=chance.random() < 0.3)
    streams = [predictor.stream(source())]

    def disturb() -> Run[PredictResult[int]]:
        assert reading.wait(PATIENCE)
        run = streams[0].run
        assert run is not None
        for move in moves:
            getattr(run, move)()
        run.resume()
        if last == "stop":
            run.stop("enough")
        elif last == "close":
            streams[0].close()
        return run

    with ThreadPoolExecutor(1) as pool:
        disturbed = pool.submit(disturb)
        count = chance.randint(1, total) if last == "drop" else total
        read = list(islice(streams[0], count))
        run = disturbed.result(PATIENCE)
    if last == "drop":
        streams.clear()
    else:
        assert list(streams[0]) == []
    assert run.result(PATIENCE).outcome in ("stopped", "completed")
    assert read == [2 * i for i in range(len(read))]
    assert len(read) == count or last in ("stop", "close")
    events = events_of_run(bus)
    assert types(events) == sequence((len(events) - 4) // 3)
    assert predictor.run([1]).results == (2,)
