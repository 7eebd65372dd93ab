from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus
from lineside.runners import Hook, HookInterrupted, InvalidHook, Trainer, UnreachableStage
from lineside.schemas import (
    BatchEnd,
    Event,
    FitEpochEnd,
    ModelSave,
    NotAnEvent,
    OptimizerStep,
    RunEnd,
    RunStart,
    SubscriberFailed,
    TrainBatchEnd,
    TrainEpochEnd,
    TrainEpochStart,
    UnknownEventName,
    ValBatchEnd,
)
from tests.turns import turn

from .support import PATIENCE, follow, make_trainer


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return make_trainer(tmp_path, epochs=1)


def test_hooks_are_called_in_the_order_of_their_registration_with_event_and_runner(trainer: Trainer) -> None:
    calls: list[Any] = []

    @trainer.hook(TrainEpochEnd)
    def first(event: TrainEpochEnd, runner: Trainer) -> None:
        calls.append(("first", event.samples, runner is trainer))

    @trainer.hook(TrainEpochEnd)
    async def second(event: TrainEpochEnd, runner: Trainer) -> None:
        await turn()
        calls.append(("second", event.samples, runner is trainer))

    trainer.add_callback("on_train_epoch_end", lambda trainer: calls.append(("third", trainer.epoch, trainer.losses)))
    trainer.run()
    assert calls == [("first", 12, True), ("second", 12, True), ("third", 0, trainer.losses)]


def test_a_hook_gets_an_event_that_is_stamped_with_its_run(trainer: Trainer) -> None:
    seen: list[Event] = []
    trainer.hook(RunStart)(lambda event, _: seen.append(event))
    result = trainer.run()
    assert [(event.run, event.attempt, event.rank) for event in seen] == [(result.run, 1, 0)]


def test_a_hook_may_be_registered_for_types_families_names_or_everything(trainer: Trainer) -> None:
    seen: dict[str, list[str]] = {"types": [], "family": [], "name": [], "everything": []}
    trainer.hook(TrainEpochStart, TrainEpochEnd)(lambda event, _: seen["types"].append(event.type))
    trainer.hook(BatchEnd)(lambda event, _: seen["family"].append(event.type))
    trainer.hook("on_val_end", "ModelSave")(lambda event, _: seen["name"].append(event.type))
    trainer.hook()(lambda event, _: seen["everything"].append(event.type))
    events = follow(trainer)
    assert seen["types"] == ["TrainEpochStart", "TrainEpochEnd"]
    assert seen["family"] == [event.type for event in events if isinstance(event, (TrainBatchEnd, ValBatchEnd))]
    assert seen["name"] == ["ValEnd", "ModelSave", "ValEnd"]
    assert seen["everything"] == [event.type for event in events]


def test_a_hook_may_change_the_gradients_before_the_step(trainer: Trainer) -> None:
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}

    @trainer.hook(OptimizerStep)
    def freeze(event: OptimizerStep, runner: Trainer) -> None:
        for parameter in runner.model.parameters():
            parameter.grad = None

    trainer.run()
    assert all(value.equal(before[name]) for name, value in trainer.model.named_parameters())


def test_a_callback_may_be_async_too_and_is_awaited(trainer: Trainer) -> None:
    done: list[bool] = []

    async def callback(runner: Trainer) -> None:
        await asyncio.to_thread(len, "")
        done.append(runner.model.training)

    trainer.add_callback("on_fit_epoch_end", callback)
    trainer.hook(FitEpochEnd)(lambda event, runner: done.append(True))
    trainer.run()
    assert done == [True] * 4


def test_a_hook_can_be_removed_and_is_a_context_manager(trainer: Trainer) -> None:
    calls: list[str] = []

    @trainer.hook(TrainEpochStart)
    def first(event: Event, runner: Trainer) -> None:
        calls.append("first")

    assert isinstance(first, Hook)
    first.remove()
    first.remove()
    with trainer.add_callback("on_train_epoch_start", lambda _: calls.append("second")):
        pass
    trainer.run()
    assert calls == []
    first(TrainEpochStart(epoch=0, epochs=1, batches=1, lr={}), trainer)
    assert calls == ["first"]


def test_what_is_registered_or_removed_during_a_stage_counts_from_the_next_one_on(trainer: Trainer) -> None:
    calls: list[str] = []

    def late(event: TrainBatchEnd, runner: Trainer) -> None:
        calls.append(f"late {event.batch}")

    @trainer.hook(TrainBatchEnd)
    def adds(event: TrainBatchEnd, runner: Trainer) -> None:
        if event.batch == 0:
            trainer.hook(TrainBatchEnd)(late)
            removed.remove()

    @trainer.hook(TrainBatchEnd)
    def removed(event: TrainBatchEnd, runner: Trainer) -> None:
        calls.append(f"removed {event.batch}")

    trainer.run()
    assert calls == ["removed 0", "late 1", "late 2"]


def test_a_hook_that_removes_itself_skips_no_other(trainer: Trainer) -> None:
    calls: list[str] = []

    @trainer.hook(TrainBatchEnd)
    def once(event: TrainBatchEnd, runner: Trainer) -> None:
        calls.append(f"once {event.batch}")
        once.remove()

    trainer.hook(TrainBatchEnd)(lambda event, _: calls.append(f"always {event.batch}"))
    trainer.run()
    assert calls == ["once 0", "always 0", "always 1", "always 2"]


@pytest.mark.parametrize("name", ["on_train_epoch_ende", "train_epoch_end", "onTrainEpochEnd"])
def test_an_unknown_callback_name_is_refused_with_the_closest(trainer: Trainer, name: str) -> None:
    with pytest.raises(UnknownEventName, match=f"no event is named '{name}'"):
        trainer.add_callback(name, lambda _: None)
    with pytest.raises(UnknownEventName):
        trainer.hook(name)(lambda event, runner: None)


def test_a_hook_without_parentheses_is_refused(trainer: Trainer) -> None:
    def forgotten(event: Event, runner: Trainer) -> None: ...

    with pytest.raises(NotAnEvent, match="expected an event class"):
        trainer.hook(forgotten)  # type: ignore[call-overload]


class Keeper:
    """Made of what a callback is called with."""

    def __init__(self, runner: object) -> None: ...

    def __call__(self, runner: object) -> None: ...


def takes_nothing() -> None: ...


def takes_two(one: object, other: object) -> None: ...


def takes_three(one: object, two: object, three: object) -> None: ...


def takes_a_keyword(*, runner: object) -> None: ...


@pytest.mark.parametrize(
    ("callback", "problem"),
    [
        (None, "NoneType is not callable"),
        ("print", "str is not callable"),
        (takes_nothing, r"it takes \(\)"),
        (takes_two, r"missing a required argument: 'other'"),
        (takes_a_keyword, "it takes"),
        (Keeper, "it is a class, of which calls make instances"),
    ],
)
def test_a_callback_that_could_not_be_called_is_refused_when_it_is_registered(
    trainer: Trainer, callback: Any, problem: str
) -> None:
    with pytest.raises(InvalidHook, match=f"{problem}.*expected a function of .runner., e.g. `def on_train_start"):
        trainer.add_callback("on_train_start", callback)


@pytest.mark.parametrize("hook", [42, takes_nothing, takes_three])
def test_a_hook_that_could_not_be_called_is_refused_when_it_is_registered(trainer: Trainer, hook: Any) -> None:
    with pytest.raises(InvalidHook, match="expected a function of .event, runner."):
        trainer.hook(TrainEpochEnd)(hook)


def with_yield(event: object, runner: object) -> Iterator[None]:
    yield


async def async_with_yield(event: object, runner: object) -> AsyncIterator[None]:
    yield


class WithYield:
    def __call__(self, event: object, runner: object) -> Iterator[None]:
        yield


@pytest.mark.parametrize("hook", [with_yield, async_with_yield, WithYield(), partial(with_yield)])
def test_a_generator_function_which_a_call_would_not_run_is_refused_as_a_hook(trainer: Trainer, hook: Any) -> None:
    message = "it has a `yield`, so that a call would run nothing of it; expected a function of .* without it"
    with pytest.raises(InvalidHook, match=message):
        trainer.hook(TrainEpochEnd)(hook)
    with pytest.raises(InvalidHook, match=message):
        trainer.add_callback("on_train_epoch_end", partial(hook, None))


def test_a_plain_hook_that_returns_a_generator_ends_the_run(trainer: Trainer) -> None:
    trainer.hook(TrainEpochEnd)(lambda event, runner: with_yield(event, runner))
    with pytest.raises(InvalidHook, match="it returned a generator, of which nothing runs; expected a function that"):
        trainer.run()


def test_partials_methods_and_callables_with_defaults_are_accepted(trainer: Trainer) -> None:
    calls: list[object] = []

    class Notebook:
        def note(self, event: Event, runner: object, mark: str = "method") -> None:
            calls.append(mark)

        def __call__(self, runner: object) -> None:
            calls.append("object")

    trainer.hook(RunEnd)(Notebook().note)
    trainer.hook(RunEnd)(partial(Notebook().note, mark="partial"))
    trainer.add_callback("on_run_end", Notebook())
    trainer.add_callback("on_run_end", calls.append)
    trainer.run()
    assert calls == ["method", "partial", "object", trainer]


def test_a_callback_that_fails_is_named_as_it_was_registered(trainer: Trainer) -> None:
    class Notebook:
        def __call__(self, runner: object) -> None:
            raise LookupError("lost")

        def __repr__(self) -> str:
            return "<the notebook>"

    trainer.add_callback("on_train_start", Notebook())
    with pytest.raises(LookupError) as caught:
        trainer.run()
    assert caught.value.__notes__ == [f"raised by the hook <the notebook> at TrainStart of run {trainer.run_id}"]


async def test_async_hooks_run_on_the_loop_where_the_run_was_started(trainer: Trainer) -> None:
    loops: list[Any] = []

    @trainer.hook(TrainEpochEnd)
    async def note(event: Event, runner: Trainer) -> None:
        loops.append((asyncio.get_running_loop(), threading.current_thread()))

    await trainer.start()
    assert loops == [(asyncio.get_running_loop(), threading.current_thread())]


def test_async_hooks_of_a_run_without_a_loop_run_on_the_loop_of_the_bus(tmp_path: Path) -> None:
    with Bus() as bus:
        trainer = make_trainer(tmp_path, epochs=1, bus=bus)
        loops: list[Any] = []

        @trainer.hook(TrainEpochEnd)
        async def note(event: Event, runner: Trainer) -> None:
            loops.append(asyncio.get_running_loop())

        trainer.run()
        assert loops == [bus.loop]


def test_an_async_hook_that_raises_fails_the_run(trainer: Trainer) -> None:
    @trainer.hook(TrainEpochEnd)
    async def refuse(event: Event, runner: Trainer) -> None:
        await turn()
        raise TimeoutError("the hook's own")

    with pytest.raises(TimeoutError, match="the hook's own"):
        trainer.run()


def test_a_timeout_in_an_async_hook_ends_the_run_as_it_is_with_its_traceback(trainer: Trainer) -> None:
    own = TimeoutError("the store did not answer")

    async def ask_the_store() -> None:
        raise own

    @trainer.hook(TrainEpochEnd)
    async def ask(event: Event, trainer: Trainer) -> None:
        await ask_the_store()

    with pytest.raises(TimeoutError) as caught:
        trainer.run()
    assert caught.value is own
    assert "ask_the_store" in [entry.name for entry in caught.traceback]


def test_a_loop_that_ends_during_an_async_hook_fails_the_run_instead_of_hanging_it(trainer: Trainer) -> None:
    reached = threading.Event()

    @trainer.hook(TrainEpochEnd)
    async def forever(event: Event, runner: Trainer) -> None:
        reached.set()
        await asyncio.Event().wait()

    async def main() -> Any:
        run = trainer.start()
        await asyncio.to_thread(reached.wait, PATIENCE)
        return run

    run = asyncio.run(main())
    with pytest.raises(HookInterrupted, match="forever did not finish at TrainEpochEnd: its event loop was closed"):
        run.result(PATIENCE)


def test_a_loop_that_is_closed_abruptly_fails_the_run_too(trainer: Trainer) -> None:
    loop = asyncio.new_event_loop()
    closed = threading.Event()

    @trainer.hook(RunStart)
    def wait(event: Event, runner: Trainer) -> None:
        closed.wait(PATIENCE)

    @trainer.hook(TrainEpochEnd)
    async def note(event: Event, runner: Trainer) -> None: ...

    async def main() -> Any:
        return trainer.start()

    run = loop.run_until_complete(main())
    loop.close()
    closed.set()
    with pytest.raises(HookInterrupted):
        run.result(PATIENCE)


def test_a_hook_for_a_stage_of_another_runner_is_refused(trainer: Trainer) -> None:
    with pytest.raises(UnreachableStage, match="this Trainer never reaches PredictStart.*TrainEvent, ValEvent"):
        trainer.add_callback("on_predict_start", lambda trainer: None)
    with pytest.raises(UnreachableStage, match="SubscriberFailed"):
        trainer.hook(TrainEpochEnd, SubscriberFailed)(lambda event, trainer: None)


def test_setting_stop_in_a_callback_stops_the_run_as_in_the_original(trainer: Trainer) -> None:
    def enough(trainer: Trainer) -> None:
        trainer.stop = True  # type: ignore[method-assign, assignment]  # pyright: ignore[reportAttributeAccessIssue]

    trainer.add_callback("on_train_epoch_end", enough)
    result = trainer.run()
    assert (result.outcome, result.epochs) == ("stopped", 0)
    trainer.stop("it is still a method")


def test_the_epoch_is_the_one_at_hand_until_the_next_begins(trainer: Trainer) -> None:
    seen: list[tuple[int, int]] = []

    def note(event: TrainEpochStart | TrainEpochEnd | ModelSave | FitEpochEnd, trainer: Trainer) -> None:
        if not getattr(event, "final", False):
            seen.append((event.epoch, trainer.epoch))

    trainer.hook(TrainEpochStart, TrainEpochEnd, ModelSave, FitEpochEnd)(note)
    trainer.run()
    assert seen
    assert all(of_event == of_trainer for of_event, of_trainer in seen)
