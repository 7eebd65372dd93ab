"""Reading, preprocessing and postprocessing beside the forward pass: what overlaps, and what stays as it was."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from lineside.bus import Bus
from lineside.runners import Predictor, Run, WouldDeadlock
from lineside.runners.predict import schedule
from lineside.runners.predict.schedule import DEPTH
from lineside.runners.predictor import PredictBatch
from lineside.schemas import PredictBatchEnd, PredictBatchStart, PredictPostprocessEnd
from tests.turns import turn

from .predictions import Double, doubler, numbers, sequence
from .support import PATIENCE, events_of_run, types


def left() -> list[str]:
    """Return the threads of predictions that do not end; a run has its result a moment before its thread ends."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("lineside-predict")]
    for thread in threads:
        thread.join(PATIENCE)
    return [thread.name for thread in threads if thread.is_alive()]


class Noted(Double):
    """Notes in `log` which input it computes; batches of one."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def forward(self, value: Tensor) -> Tensor:
        self.log.append(f"forward {int(value)}")
        return super().forward(value)


def noting(log: list[str], bus: Bus | None = None, **settings: Any) -> Predictor[int]:
    """A predictor of batches of one that notes every step it takes."""

    def prepare(inputs: list[int]) -> Tensor:
        log.append(f"preprocess {inputs[0]}")
        return torch.tensor(inputs)

    def finish(outputs: Tensor, batch: PredictBatch) -> list[int]:
        log.append(f"postprocess {batch.images[0]}")
        return numbers(outputs, batch)

    return Predictor(
        Noted(log), preprocess=prepare, postprocess=finish, bus=bus, device="cpu", batch_size=1, **settings
    )


# ---- what overlaps


@pytest.mark.parametrize("streamed", [True, False])
def test_the_next_batches_are_prepared_and_computed_while_results_are_made_of_the_last(streamed: bool) -> None:
    prepared, computed = threading.Event(), threading.Event()

    class Third(Double):
        def forward(self, value: Tensor) -> Tensor:
            if int(value) == 2:
                assert prepared.wait(PATIENCE), "nobody prepares the fourth batch during the forward pass of the third"
                computed.set()
            return super().forward(value)

    def prepare(inputs: list[int]) -> Tensor:
        if inputs == [3]:
            prepared.set()
        return torch.tensor(inputs)

    def finish(outputs: Tensor, batch: PredictBatch) -> list[int]:
        if batch.images == [1]:
            assert computed.wait(PATIENCE), "nobody computes the third batch during the postprocessing of the second"
        return numbers(outputs, batch)

    predictor = Predictor(Third(), preprocess=prepare, postprocess=finish, device="cpu", batch_size=1, prefetch=3)
    results = list(predictor.stream(range(6))) if streamed else list(predictor.run(range(6)).results)
    assert results == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("settings", [{"overlap": False}, {"prefetch": 0}])
def test_without_overlap_a_batch_is_done_before_the_next_is_read(settings: dict[str, Any]) -> None:
    log: list[str] = []
    assert list(noting(log, **settings).stream(range(3))) == [0, 2, 4]
    assert log == [f"{step} {i}" for i in range(3) for step in ("preprocess", "forward", "postprocess")]


@pytest.mark.parametrize("overlap", [True, False])
def test_results_and_events_are_the_same_with_overlap_and_without(bus: Bus, overlap: bool) -> None:
    result = doubler(bus, batch_size=3, overlap=overlap).run(range(20))
    assert result.results == tuple(2 * i for i in range(20))
    events = events_of_run(bus)
    assert types(events) == sequence(7)
    ends = [event for event in events if isinstance(event, PredictBatchEnd)]
    assert [event.batch for event in ends] == list(range(7))
    assert [name for event in ends for name in event.inputs] == [str(i) for i in range(20)]
    assert all(event.speed.keys() == {"preprocess", "inference", "postprocess"} for event in ends)


def test_no_more_batches_are_on_their_way_than_there_are_threads_for() -> None:
    log: list[str] = []
    read: list[int] = []
    finished = 0
    ahead: list[int] = []

    def source() -> Iterator[int]:
        for i in range(50):
            read.append(i)
            ahead.append(len(read) - finished)
            yield i

    predictor = noting(log)

    @predictor.hook(PredictBatchEnd)
    def count(event: PredictBatchEnd, predictor: Predictor[int]) -> None:
        nonlocal finished
        finished += 1

    predictor.run(source())
    assert max(ahead) <= DEPTH + 1  # a hook comes before its batch is done with


async def test_what_was_read_of_an_async_source_is_computed_though_the_source_has_ended() -> None:
    ended, loop = threading.Event(), asyncio.get_running_loop()

    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        yield 3
        ended.set()

    async def turns() -> None:
        for _ in range(100):
            await turn()

    def late(outputs: Tensor, batch: PredictBatch) -> list[int]:
        if batch.images == [2]:  # the first is computed before anything more is read
            assert ended.wait(PATIENCE)
            asyncio.run_coroutine_threadsafe(turns(), loop).result(PATIENCE)
        return numbers(outputs, batch)

    predictor = Predictor(Double(), postprocess=late, device="cpu", batch_size=1)
    assert (await predictor.start(source())).results == (2, 4, 6)


# ---- hooks


def test_a_hook_sees_a_batch_before_anything_is_computed_of_it() -> None:
    log: list[str] = []
    predictor = noting(log)

    @predictor.hook(PredictBatchStart)
    def see(event: PredictBatchStart, predictor: Predictor[int]) -> None:
        log.append(f"hook {event.batch}")

    predictor.run(range(4))
    assert log == [f"{step} {i}" for i in range(4) for step in ("hook", "preprocess", "forward", "postprocess")]


def test_so_does_one_that_is_registered_on_the_way_from_the_batches_that_are_begun_then() -> None:
    log: list[str] = []
    predictor = noting(log)

    @predictor.hook(PredictBatchEnd)
    def register(event: PredictBatchEnd, predictor: Predictor[int]) -> None:
        if event.batch == 3:
            predictor.hook(PredictBatchStart)(lambda event, _: log.append(f"hook {event.batch}"))

    assert predictor.run(range(20)).results == tuple(2 * i for i in range(20))
    steps = [
        f"{step} {i}" for i in range(3 + DEPTH + 2, 20) for step in ("hook", "preprocess", "forward", "postprocess")
    ]
    assert log[-len(steps) :] == steps


def test_hooks_are_called_in_the_thread_of_the_run_with_the_batch_whose_stage_it_is() -> None:
    seen: list[tuple[int, object, object, int]] = []
    predictor = doubler(batch_size=1)

    def see(event: PredictPostprocessEnd | PredictBatchEnd, predictor: Predictor[int]) -> None:
        results = list(predictor.results)
        seen.append((event.batch, predictor.batch.images, results, threading.get_ident()))

    predictor.hook(PredictPostprocessEnd, PredictBatchEnd)(see)
    predictor.run(range(10))
    assert seen == [(i, [i], [2 * i], threading.get_ident()) for i in range(10) for _ in range(2)]


# ---- threads


@pytest.mark.parametrize("kind", ["generator", "dataset"])
def test_a_source_is_read_and_closed_by_one_thread(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "GRACE", PATIENCE)
    readers: list[int] = []

    def source() -> Iterator[int]:
        try:
            for i in range(20):
                readers.append(threading.get_ident())
                yield i
        finally:
            readers.append(threading.get_ident())
            raise ConnectionError("not closed well")

    class Streamed(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return source()

    stream = doubler(batch_size=1).stream(source() if kind == "generator" else Streamed())
    assert [next(stream) for _ in range(10)] == [2 * i for i in range(10)]
    run = stream.run
    stream.close()
    assert run is not None
    with pytest.raises(ConnectionError, match="not closed well"):
        run.result(PATIENCE)
    assert len(readers) > 10
    assert len(set(readers)) == 1


def completes(predictor: Predictor[int]) -> None:
    predictor.run(range(10))


def is_stopped(predictor: Predictor[int]) -> None:
    predictor.hook(PredictBatchEnd)(lambda event, predictor: predictor.stop("enough"))
    predictor.run(range(10**9))


def fails_in_a_hook(predictor: Predictor[int]) -> None:
    def refuse(event: PredictBatchEnd, predictor: Predictor[int]) -> None:
        raise RuntimeError("no")

    predictor.hook(PredictBatchEnd)(refuse)
    with pytest.raises(RuntimeError, match="no"):
        predictor.run(range(10**9))


def fails_at_the_start(predictor: Predictor[int]) -> None:
    def gone() -> Iterator[int]:
        raise ConnectionError("gone")
        yield 1

    with pytest.raises(ConnectionError):
        predictor.run(gone())


def is_left(predictor: Predictor[int]) -> None:
    with predictor.stream(range(10**9)) as stream:
        next(stream)


@pytest.mark.parametrize("end", [completes, is_stopped, fails_in_a_hook, fails_at_the_start, is_left])
@pytest.mark.parametrize("max_wait", [None, 60.0])
def test_a_run_leaves_no_thread_behind(end: Callable[[Predictor[int]], None], max_wait: float | None) -> None:
    end(doubler(batch_size=1, max_wait=max_wait))
    assert left() == []


def test_a_stop_ends_the_wait_for_a_batch_that_must_not_be_computed_ahead(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "GRACE", PATIENCE)
    gathered = threading.Event()
    predictor = doubler(batch_size=1)
    predictor.hook(PredictBatchEnd)(lambda event, predictor: predictor.pause() if event.batch == 12 else None)

    @predictor.hook(PredictBatchEnd)
    def register(event: PredictBatchEnd, predictor: Predictor[int]) -> None:
        if event.batch == 3:
            predictor.hook(PredictBatchStart)(lambda event, predictor: None)

    def source() -> Iterator[int]:
        for i in range(10**9):
            if i == 13:
                gathered.set()
            yield i

    run = predictor.start(source())
    assert gathered.wait(PATIENCE)
    time.sleep(0.05)  # not waited for: by then the batch is likely to be handed over, which is the case of interest
    run.stop("enough")
    assert run.result(PATIENCE).batches == 13
    assert left() == []
    assert "left behind" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("max_wait", [None, 60.0])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_source_that_hangs_can_be_abandoned(
    bus: Bus, caplog: pytest.LogCaptureFixture, streamed: bool, max_wait: float | None
) -> None:
    gate, hanging, closed, first = (threading.Event() for _ in range(4))

    def source() -> Iterator[int]:
        try:
            yield 1
            hanging.set()
            assert gate.wait(PATIENCE)
            yield 2
        finally:
            closed.set()

    predictor = doubler(bus, batch_size=1, max_wait=max_wait)
    predictor.hook(PredictBatchEnd)(lambda event, predictor: first.set())
    if streamed:
        with predictor.stream(source()) as stream:
            assert next(stream) == 2
            assert hanging.wait(PATIENCE)
    else:
        run: Run[Any] = predictor.start(source())
        assert hanging.wait(PATIENCE)
        assert first.wait(PATIENCE)
        run.stop("enough")
        assert run.result(PATIENCE).results == (2,)
    assert "is left behind" in caplog.text
    assert predictor.run([3]).results == (6,)  # the predictor is free, whatever becomes of the source
    gate.set()
    assert closed.wait(PATIENCE)
    assert left() == []


@pytest.mark.parametrize("step", ["preprocess", "forward", "postprocess"])
def test_a_step_that_waits_for_its_own_run_is_refused(step: str) -> None:
    runs: list[Run[Any]] = []
    begun = threading.Event()
    calls = dict.fromkeys(["preprocess", "forward", "postprocess"], 0)

    def waits(this: str, value: Any) -> Any:
        assert begun.wait(PATIENCE)
        calls[this] += 1
        if this == step and calls[this] == 2:  # each step has its thread by now
            runs[0].result(PATIENCE)
        return value

    class Waits(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return cast(Tensor, waits("forward", value))

    predictor: Predictor[Any] = Predictor(
        Waits(),
        preprocess=lambda inputs: waits("preprocess", torch.tensor(inputs)),
        postprocess=lambda outputs, batch: waits("postprocess", outputs.tolist()),
        device="cpu",
        batch_size=1,
    )
    runs.append(predictor.start(range(5)))
    begun.set()
    with pytest.raises(WouldDeadlock):
        runs[0].result(PATIENCE)


class Listens(nn.Module):
    """Notes under which of torch's settings it is called."""

    def __init__(self, seen: list[object]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, value: Tensor) -> Tensor:
        self.seen.append((torch.is_inference_mode_enabled(), torch.get_num_threads(), threading.get_ident()))
        return value


@pytest.mark.parametrize("streamed", [True, False])
def test_every_thread_works_under_the_settings_of_the_one_that_began(streamed: bool) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    seen: dict[str, list[object]] = {"preprocess": [], "postprocess": []}
    computed: list[Any] = []

    def note(step: str) -> None:
        seen[step].append((torch.is_autocast_enabled("cpu"), torch.get_default_device().type, variable.get()))

    def prepare(inputs: list[int]) -> Tensor:
        note("preprocess")
        return torch.zeros(len(inputs), device="cpu")

    def finish(outputs: Tensor, batch: PredictBatch) -> list[int]:
        note("postprocess")
        assert not torch.is_grad_enabled()
        return numbers(outputs, batch)

    predictor = Predictor(Listens(computed), preprocess=prepare, postprocess=finish, device="cpu", batch_size=1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        assert len(list(predictor.stream(range(3))) if streamed else predictor.run(range(3)).results) == 3
    assert seen == {step: [(True, "meta", "set")] * 3 for step in seen}
    assert [each[:2] for each in computed] == [(True, torch.get_num_threads())] * 3
    assert [each[2] == threading.get_ident() for each in computed] == [True, False, False]
