from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lineside.bus import Bus, BusClosed
from lineside.runners import (
    InvalidArgument,
    JobRefused,
    Predictor,
    RunEnded,
    RunnerBusy,
    StageNotReached,
    Trainer,
    TrainResult,
    UnreachableStage,
)
from lineside.schemas import (
    Event,
    FitEpochEnd,
    OptimizerSkip,
    PredictStart,
    RunEnd,
    RunStart,
    TrainBatchEnd,
    TrainBatchStart,
    TrainEpochEnd,
    TrainEpochStart,
)
from tests.turns import begin, turn

from .support import PATIENCE, Gate, make_trainer, start


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return make_trainer(tmp_path)


@pytest.fixture
def gate(trainer: Trainer) -> Gate:
    return Gate(trainer)


async def test_a_started_run_can_be_streamed_and_awaited(trainer: Trainer) -> None:
    run = trainer.start()
    losses = [event.losses["loss"] async for event in run.stream(TrainEpochEnd)]
    result = await run
    assert isinstance(result, TrainResult)
    assert len(losses) == 2
    assert (result.run, result.outcome, result.epochs, result.step) == (run.id, "completed", 2, 6)
    assert run.done()
    assert run.state == "completed"


def test_a_stream_begins_with_the_first_event_of_its_run_and_ends_with_the_last(tmp_path: Path) -> None:
    with Bus() as bus:
        make_trainer(tmp_path, bus=bus).run()
        run = make_trainer(tmp_path, bus=bus, overwrite=True).start()
        run.result(PATIENCE)
        late = list(run.stream())
    assert isinstance(late[0], RunStart)
    assert isinstance(late[-1], RunEnd)
    assert {event.run for event in late} == {run.id}


def test_the_bus_of_a_runner_is_closed_with_the_run_and_the_next_run_has_another(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save=False)
    first = trainer.bus
    trainer.run()
    assert trainer.bus is first
    with pytest.raises(BusClosed):
        first.stream()
    trainer.run()
    assert trainer.bus is not first


def test_a_stream_of_a_run_that_is_over_can_still_be_read_from_its_own_bus(trainer: Trainer) -> None:
    run = trainer.start()
    run.result(PATIENCE)
    assert [event.epoch for event in run.stream(FitEpochEnd)] == [0, 1, 1]


async def test_next_gives_the_next_matching_event(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()
    waiting = await begin(run.next(TrainBatchEnd, where=lambda event: event.batch == 2))
    gate.open()
    event = await waiting
    assert (event.epoch, event.batch) == (0, 2)
    await run


async def test_next_raises_when_the_run_ends_first(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()
    waiting = await begin(run.next(TrainBatchEnd, where=lambda event: event.batch == 99))
    gate.open()
    with pytest.raises(RunEnded, match="ended before TrainBatchEnd came"):
        await waiting
    await run
    with pytest.raises(RunEnded):
        await run.next(RunEnd)


async def test_next_and_hold_refuse_a_stage_that_the_run_never_reaches(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()
    with pytest.raises(UnreachableStage, match="this Trainer never reaches PredictStart.*TrainEvent, ValEvent"):
        await run.next(TrainEpochEnd, "on_predict_start", timeout=PATIENCE)
    with pytest.raises(UnreachableStage):
        async with run.hold(PredictStart):
            pass
    gate.open()
    await run


async def test_next_gives_up_after_its_timeout(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()
    with pytest.raises(StageNotReached, match=r"did not reach TrainEpochEnd within 0.01 s"):
        await run.next(TrainEpochEnd, timeout=0.01)
    gate.open()
    await run


async def test_the_loop_stands_still_while_it_is_held(trainer: Trainer, tmp_path: Path) -> None:
    run = start(trainer)
    async with run.hold(TrainBatchStart, where=lambda event: event.epoch == 1) as event:
        assert event.batch == 0
        before = [parameter.clone() for parameter in trainer.model.parameters()]
        for group in trainer.optimizer.param_groups:
            group["lr"] = 0.0
        await make_trainer(tmp_path / "another").start()
        assert all(torch.equal(one, other) for one, other in zip(before, trainer.model.parameters(), strict=True))
    await run
    assert all(torch.equal(one, other) for one, other in zip(before, trainer.model.parameters(), strict=True))


def test_a_run_can_be_held_without_a_loop(tmp_path: Path) -> None:
    run = make_trainer(tmp_path, epochs=None, max_steps=10**9).start()
    with run.hold(TrainEpochEnd) as event:
        assert event.type == "TrainEpochEnd"
        assert not run.done()
    run.stop()
    run.result(PATIENCE)


async def test_a_hold_raises_when_the_run_ends_first(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()

    async def hold() -> None:
        async with run.hold(OptimizerSkip):
            raise AssertionError("held at a stage that this run does not reach")

    waiting = await begin(hold())
    gate.open()
    with pytest.raises(RunEnded, match="ended before OptimizerSkip came"):
        await waiting
    await run
    with pytest.raises(RunEnded):
        async with run.hold(TrainEpochEnd):
            pass
    with pytest.raises(RunEnded), run.hold(TrainEpochEnd):  # `await run` is over: nothing needs this loop
        pass


async def test_a_hold_gives_up_after_its_timeout_and_the_run_goes_on(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()
    with pytest.raises(StageNotReached, match="did not reach TrainEpochEnd within 0.01 s"):
        async with run.hold(TrainEpochEnd, timeout=0.01):
            pass
    gate.open()
    assert (await run).outcome == "completed"


async def test_a_hold_that_was_entered_is_refused_a_second_time_and_another_one_holds(tmp_path: Path) -> None:
    run = make_trainer(tmp_path, epochs=None, max_steps=10**9).start()
    hold, late = run.hold(TrainEpochEnd), run.hold(TrainEpochEnd, timeout=0)
    async with hold:
        pass
    with pytest.raises(StageNotReached):
        async with late:
            pass
    for entered in (hold, late):
        with pytest.raises(JobRefused, match=r"cannot do hold\(TrainEpochEnd\) a second time: .* make another"):
            async with entered:
                pass
        with pytest.raises(JobRefused, match="a second time"):
            await asyncio.to_thread(entered.__enter__)
    async with run.hold(TrainEpochEnd):
        assert run.state == "held"
    run.stop()
    await run


async def test_of_two_tasks_that_enter_one_hold_the_second_is_refused_and_the_first_holds(
    trainer: Trainer, gate: Gate
) -> None:
    run = trainer.start()
    hold = run.hold(TrainEpochEnd)
    held, leave = asyncio.Event(), asyncio.Event()

    async def enter() -> None:
        async with hold:
            held.set()
            await leave.wait()

    first = await begin(enter())
    with pytest.raises(JobRefused, match="a second time"):
        await enter()
    gate.open()
    await asyncio.wait_for(held.wait(), PATIENCE)
    assert run.state == "held"
    leave.set()
    await first
    assert (await run).outcome == "completed"


def test_a_sync_hold_gives_up_after_its_timeout(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()
    with pytest.raises(StageNotReached), run.hold(TrainEpochEnd, timeout=0.01):
        pass
    gate.open()
    assert run.result(PATIENCE).outcome == "completed"


async def test_a_holder_that_is_cancelled_lets_the_run_go_on(trainer: Trainer) -> None:
    run = start(trainer)
    held = asyncio.Event()

    async def hold() -> None:
        async with run.hold(TrainEpochStart):
            held.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold())
    await held.wait()
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    assert (await run).outcome == "completed"


async def test_a_holder_that_is_cancelled_just_when_the_stage_is_reached_lets_the_run_go_on(tmp_path: Path) -> None:
    for attempt in range(20):
        trainer = make_trainer(tmp_path / str(attempt), epochs=1, validate=False, save=False)
        run = trainer.start()

        async def hold(run: Any = run) -> None:
            async with run.hold(TrainBatchStart):
                await asyncio.Event().wait()

        holder = asyncio.create_task(hold())
        for _ in range(attempt):
            await turn()
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)
        assert (await run).outcome == "completed"


def test_a_predicate_that_raises_reaches_the_holder_and_not_the_run(tmp_path: Path) -> None:
    run = make_trainer(tmp_path, epochs=None, max_steps=10**9).start()
    with pytest.raises(ZeroDivisionError), run.hold(TrainEpochEnd, where=lambda event: bool(1 / 0)):
        pass
    run.stop("enough")
    assert run.result(PATIENCE).reason == "enough"


def raising(error: Exception) -> Callable[[Event], bool]:
    """A predicate that raises `error`."""

    def where(event: Event) -> bool:
        raise error

    return where


async def test_a_predicate_of_hold_may_raise_what_no_future_can(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()

    async def hold() -> None:
        async with run.hold(TrainBatchEnd, where=raising(StopIteration())):
            pass

    waiting = await begin(hold())
    gate.open()
    with pytest.raises(RuntimeError, match=r"where= of hold\(TrainBatchEnd\) raised StopIteration") as caught:
        await asyncio.wait_for(waiting, PATIENCE)
    assert isinstance(caught.value.__cause__, StopIteration)
    assert (await run).outcome == "completed"


def test_so_may_one_of_a_hold_without_a_loop(tmp_path: Path) -> None:
    run = make_trainer(tmp_path, epochs=None, max_steps=10**9).start()
    with pytest.raises(RuntimeError) as caught, run.hold(TrainBatchEnd, where=raising(StopIteration())):
        pass
    assert isinstance(caught.value.__cause__, StopIteration)
    run.stop()
    run.result(PATIENCE)


async def test_the_error_of_a_predicate_of_next_is_told_from_a_timeout_and_from_the_end(
    trainer: Trainer, gate: Gate
) -> None:
    run = trainer.start()
    own = TimeoutError("mine")
    waits = [
        await begin(run.next(TrainBatchEnd, where=raising(error), timeout=PATIENCE))
        for error in (own, StopIteration(), StopAsyncIteration())
    ]
    gate.open()
    timed_out, *stopped = await asyncio.gather(*waits, return_exceptions=True)
    assert timed_out is own
    for error in stopped:
        assert isinstance(error, RuntimeError)
        assert str(error).startswith("where= raised Stop")
    await run


async def test_a_run_that_is_paused_stands_still_until_it_is_resumed(trainer: Trainer, tmp_path: Path) -> None:
    run = start(trainer)
    async with run.hold(TrainBatchEnd):
        run.pause()
    assert run.state == "paused"
    step = trainer.progress.step
    await make_trainer(tmp_path / "another").start()
    assert trainer.progress.step == step
    run.resume()
    assert (await run).step == 6


async def test_a_run_that_is_paused_can_be_stopped(trainer: Trainer) -> None:
    run = start(trainer)
    async with run.hold(TrainBatchEnd) as event:
        run.pause()
    run.stop("no longer")
    result = await run
    assert (result.outcome, result.reason, result.step) == ("stopped", "no longer", 3 * event.epoch + event.batch + 1)
    assert run.state == "stopped"


async def test_stopping_a_run_that_is_over_changes_nothing(trainer: Trainer) -> None:
    run = trainer.start()
    await run
    run.stop()
    run.pause()
    assert run.state == "completed"
    assert (await run).outcome == "completed"


async def test_cancelling_whoever_awaits_a_run_does_not_stop_it(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()

    async def wait() -> None:
        await run

    waiter = await begin(wait())
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    gate.open()
    assert (await run).outcome == "completed"


async def test_awaiting_a_failed_run_raises_its_error(trainer: Trainer) -> None:
    @trainer.hook(TrainEpochEnd)
    def refuse(event: Event, trainer: Trainer) -> None:
        raise LookupError("lost")

    run = trainer.start()
    for _ in range(2):
        with pytest.raises(LookupError, match="lost"):
            await run


async def test_awaiting_a_run_that_a_timeout_ended_raises_that_very_error_with_its_traceback(trainer: Trainer) -> None:
    own = TimeoutError("the store did not answer")

    @trainer.hook(TrainEpochEnd)
    def ask_the_store(event: Event, trainer: Trainer) -> None:
        raise own

    run = trainer.start()
    with pytest.raises(TimeoutError) as caught:
        await run
    assert caught.value is own
    assert "ask_the_store" in [entry.name for entry in caught.traceback]
    assert own.__notes__


async def true_of_all(event: Event) -> bool:
    return True


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"timeout": "5"}, "was given timeout='5'; expected seconds, or None for any time"),
        ({"timeout": float("nan")}, "was given timeout=nan"),
        ({"timeout": float("inf")}, "was given timeout=inf"),
        ({"where": true_of_all}, "it is async, and the coroutine that a call returns is true of every event"),
        ({"where": 3}, "cannot ask where=3: int is not callable; expected a plain function of one event"),
        ({"where": lambda: True}, r"cannot ask where=.*: it takes \(\)"),
    ],
)
async def test_a_wait_that_could_not_tell_what_it_waits_for_or_how_long_is_refused_at_once(
    trainer: Trainer, gate: Gate, keywords: Any, message: str
) -> None:
    run = trainer.start()
    with pytest.raises(InvalidArgument, match=message):
        run.hold(TrainEpochEnd, **keywords)
    with pytest.raises(InvalidArgument, match=message):
        await run.next(TrainEpochEnd, **keywords)
    if "timeout" in keywords:
        with pytest.raises(InvalidArgument, match=message):
            await asyncio.to_thread(run.result, **keywords)
    gate.open()
    await run


async def test_a_reason_that_is_no_text_is_refused_by_who_is_asked_to_stop(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()
    for reason in (3, None):
        with pytest.raises(InvalidArgument, match="expected the reason as text, or nothing"):
            run.stop(reason)  # type: ignore[arg-type]
    gate.open()
    assert (await run).outcome == "completed"


def test_the_error_of_a_failed_run_that_nobody_asked_for_is_logged_once(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    @trainer.hook(TrainEpochEnd)
    def refuse(event: Event, trainer: Trainer) -> None:
        raise LookupError("lost")

    run = trainer.start()
    name = run.id
    assert list(run.stream(RunEnd))
    for thread in threading.enumerate():
        if thread.name == f"lineside-{name}":
            thread.join(PATIENCE)
    with caplog.at_level(logging.ERROR, "lineside.runners"):
        del run
        gc.collect()
    messages = [record.getMessage() for record in caplog.records if record.name == "lineside.runners"]
    assert messages == [f"run {name} failed, and nobody asked for its result"]


def test_a_result_that_takes_too_long_says_so(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()
    with pytest.raises(StageNotReached, match=r"did not reach its end within 0.01 s; it is still going on"):
        run.result(0.01)
    gate.open()
    run.result(PATIENCE)


def test_a_runner_does_one_run_at_a_time_and_then_another(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save=False)
    gate = Gate(trainer)
    run = trainer.start()
    for again in (trainer.start, trainer.run):
        with pytest.raises(RunnerBusy, match=f"this Trainer is busy with run '{run.id}'.*or make another Trainer$"):
            again()
    gate.open()
    run.result(PATIENCE)
    assert trainer.run().run != run.id


def test_who_asks_a_busy_predictor_is_told_of_the_service_that_gathers_requests() -> None:
    predictor = Predictor(nn.Identity(), device="cpu")
    with predictor.stream(itertools.repeat(torch.zeros(1))) as results:
        next(results)
        with pytest.raises(RunnerBusy, match=r"another Predictor; many requests at a time .* PredictionService"):
            predictor.run([torch.zeros(1)])


# ---- what a failed run leaves


class Large:
    """What a step made, such as the activations that did not fit into memory."""


class Failing(Predictor[Any]):
    """A predictor whose step fails."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), preprocess=self._fail, device="cpu")
        self.held: list[weakref.ref[Large]] = []

    def _fail(self, inputs: list[Any]) -> Any:
        large = Large()
        self.held.append(weakref.ref(large))
        raise MemoryError("too large")

    def is_free(self) -> bool:
        """Whether what the step held is gone, once its thread is."""
        for thread in threading.enumerate():
            if thread.name == f"lineside-{self.run_id}":
                thread.join(PATIENCE)
        return [reference() for reference in self.held] == [None]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_what_a_failed_step_held_is_freed_with_its_error() -> None:
    run, awaited = Failing(), Failing()
    with suppress(MemoryError):
        run.run([1])
    assert run.is_free()
    with suppress(MemoryError):
        await awaited.start([1])
    await turn()  # the loop's own callbacks of the future that was awaited
    assert awaited.is_free()


@pytest.mark.usefixtures("no_collector")
def test_what_a_failed_step_held_is_freed_when_its_result_was_asked_for() -> None:
    predictor = Failing()
    with suppress(MemoryError):
        predictor.start([1]).result(PATIENCE)
    assert predictor.is_free()


# ---- what begins in the last moments


async def test_a_wait_that_begins_when_the_end_was_told_already_ends_with_the_run(trainer: Trainer) -> None:
    gate = Gate(trainer, RunEnd)
    run = trainer.start()
    assert await asyncio.to_thread(gate.reached.wait, PATIENCE)
    assert not run.done()
    with pytest.raises(RunEnded, match="ended before TrainBatchEnd came"):
        await run.next(TrainBatchEnd)
    assert (await run.next(RunEnd)).outcome == "completed"
    gate.open()
    await run


def test_a_hold_whose_time_is_up_when_the_run_ends_says_one_of_the_two(tmp_path: Path) -> None:
    for attempt in range(20):
        run = make_trainer(tmp_path / str(attempt), epochs=1, validate=False, save=False).start()
        with pytest.raises((StageNotReached, RunEnded)), run.hold(OptimizerSkip, timeout=0.001 * attempt):
            pass
        run.result(PATIENCE)
