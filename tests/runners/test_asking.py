"""What a run does in between when somebody asks: a checkpoint, an evaluation on other data."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lineside.bus import Bus
from lineside.runners import (
    CheckpointUnwritable,
    InvalidArgument,
    JobRefused,
    Run,
    RunEnded,
    StageNotReached,
    Trainer,
    Validator,
    ValResult,
    WouldDeadlock,
)
from lineside.schemas import (
    Event,
    FitEpochEnd,
    ModelSave,
    PretrainRoutineStart,
    RunEnd,
    Teardown,
    TrainBatchEnd,
    TrainBatchStart,
    TrainEnd,
    TrainEpochEnd,
    TrainEpochStart,
    TrainStart,
    ValBatchEnd,
    ValEnd,
    ValEvent,
    ValStart,
)
from tests.turns import begin

from .shaking import shaken
from .support import PATIENCE, V, make_loader, make_model, make_trainer, names, of, same_state, seed_torch, start
from .test_resuming import own_generator, state_of, trainer_for_resuming


def losses_of(run: Run[Any]) -> dict[tuple[int, int], float]:
    """The loss of every training batch of `run`, which is over."""
    return {(event.epoch, event.batch): event.loss for event in of(run.stream(TrainBatchEnd), TrainBatchEnd)}


async def resume(folder: Path) -> tuple[Trainer, Run[Any]]:
    """Resume what is in `folder` to the end, as another process would."""
    seed_torch(99)
    again = trainer_for_resuming(folder, own_generator(), resume=folder / "run", model=make_model(5))
    run = again.start()
    await run
    return again, run


async def saved_at(trainer: Trainer, folder: Path, stage: type[Event], where: Callable[[Any], bool]) -> Run[Any]:
    """Run `trainer` to its end, and ask for a checkpoint at a stage; what the run has on disk then goes to `folder`."""
    run = start(trainer)
    async with run.hold(stage, where=where):
        assert run.state == "held"
        path = await run.checkpoint()
        shutil.copytree(path.parent, folder / "run")
    await run
    return run


STAGES: dict[str, tuple[type[Event], Callable[[Any], bool], tuple[int, int]]] = {
    "before the first epoch": (TrainStart, lambda event: True, (0, 0)),
    "at an epoch's begin": (TrainEpochStart, lambda event: event.epoch == 1, (1, 0)),
    "within an epoch": (TrainBatchEnd, lambda event: (event.epoch, event.batch) == (1, 0), (1, 1)),
    "at an epoch's last batch": (TrainBatchEnd, lambda event: (event.epoch, event.batch) == (1, 2), (2, 0)),
    "when the batches are done": (TrainEpochEnd, lambda event: event.epoch == 1, (2, 0)),
    "within a validation": (ValBatchEnd, lambda event: event.epoch == 1, (2, 0)),
    "after a validation": (ValEnd, lambda event: event.epoch == 1, (2, 0)),
    "when it was saved": (ModelSave, lambda event: event.epoch == 1, (2, 0)),
    "at an epoch's end": (FitEpochEnd, lambda event: event.epoch == 1, (2, 0)),
}


@pytest.mark.parametrize("stage", STAGES)
async def test_a_run_goes_on_exactly_from_a_checkpoint_that_was_asked_for(tmp_path: Path, stage: str) -> None:
    event, where, first = STAGES[stage]
    trainer = trainer_for_resuming(tmp_path / "one", own_generator())
    run = await saved_at(trainer, tmp_path / "two", event, where)
    expected = state_of(trainer)
    again, resumed = await resume(tmp_path / "two")
    whole, rest = losses_of(run), losses_of(resumed)
    assert rest == {key: loss for key, loss in whole.items() if key >= first}
    assert same_state(state_of(again), expected)


async def test_a_checkpoint_of_a_resumed_run_that_has_not_gone_on_yet_is_the_one_it_was_resumed_from(
    tmp_path: Path,
) -> None:
    _, where, first = STAGES["within an epoch"]
    trainer = trainer_for_resuming(tmp_path / "one", own_generator())
    run = await saved_at(trainer, tmp_path / "two", TrainBatchEnd, where)
    again = trainer_for_resuming(
        tmp_path / "two", own_generator(), resume=tmp_path / "two" / "run", model=make_model(5)
    )
    await saved_at(again, tmp_path / "three", TrainEpochStart, lambda event: event.epoch == 1)
    _, resumed = await resume(tmp_path / "three")
    assert losses_of(resumed) == {key: loss for key, loss in losses_of(run).items() if key >= first}


async def test_the_weights_of_a_checkpoint_within_the_final_evaluation_are_the_models_own(tmp_path: Path) -> None:
    trainer = trainer_for_resuming(tmp_path, own_generator(), fitness="loss", mode="max")  # the first epoch is the best
    run = start(trainer)
    finals: list[ValResult] = []
    async with run.hold(ValStart, where=lambda event: run_is_over(trainer)):
        await run.checkpoint(tmp_path / "asked.pt")
        finals.append(await run.evaluate(make_loader(8, shuffle=False)))
    await run
    saved = torch.load(tmp_path / "asked.pt", weights_only=True)
    assert same_state(saved["model"], trainer.model.state_dict())
    assert trainer.ema is not None
    assert same_state(saved["ema"]["module.0.weight"], trainer.ema.get_parameter("0.weight"))
    last = [event for event in of(run.stream(ValEnd), ValEnd) if not event.aside][-2]
    assert finals[0].losses == last.losses


def run_is_over(trainer: Trainer) -> bool:
    return trainer.progress.epoch == 3


@pytest.mark.parametrize("stage", [TrainBatchStart, "optimizer_step"])
async def test_a_checkpoint_within_a_batch_is_refused_where_the_run_waits_and_else_made_behind_it(
    tmp_path: Path, stage: Any
) -> None:
    trainer = make_trainer(tmp_path)
    run = start(trainer)
    free = asyncio.Event()

    async def ask() -> Path:
        await free.wait()
        return await run.checkpoint()

    outside = await begin(ask())
    async with run.hold(stage) as event:
        with pytest.raises(JobRefused, match="within a batch"):
            await run.checkpoint()
        free.set()
        with pytest.raises(JobRefused, match="within a batch"):  # and the one from outside waits
            await run.checkpoint()
        assert not outside.done()
    saved = torch.load(await outside, weights_only=True)["progress"]
    assert (saved["epoch"], saved["batch"]) >= (event.epoch, event.batch + 1)
    await run


async def test_a_checkpoint_within_a_window_is_made_at_its_end(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, accumulate=3)
    run = start(trainer)
    async with run.hold(TrainBatchEnd, where=lambda event: event.batch == 0) as event:
        with pytest.raises(JobRefused, match="a window of batches"):
            await run.checkpoint()
        run.pause()
    saved = torch.load(await run.checkpoint(), weights_only=True)["progress"]
    assert (saved["epoch"], saved["batch"], saved["step"]) == (event.epoch, 3, event.epoch + 1)
    assert run.state == "paused"
    run.resume()
    await run


async def test_a_checkpoint_is_the_last_one_of_the_run_and_says_so(tmp_path: Path) -> None:
    with Bus() as bus:
        trainer = make_trainer(tmp_path, bus=bus, validate=False)
        run = start(trainer)
        async with run.hold(TrainBatchEnd, where=lambda event: event.epoch == 1):
            path = await run.checkpoint()
            assert path == trainer.last == tmp_path / "run" / "last.pt"
            other = await run.checkpoint(str(tmp_path / "other.pt"))
            assert (other, trainer.last) == (tmp_path / "other.pt", path)
        await run
        saves = of(run.stream(ModelSave), ModelSave)
    assert [(save.epoch, save.step, save.path) for save in saves[1:3]] == [(1, 4, path), (1, 4, other)]
    assert saves[1].bytes > 0
    assert len(saves) == 4


async def test_a_paused_run_is_saved_and_evaluated_and_stays_paused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    run = start(trainer)
    async with run.hold(TrainBatchEnd):
        run.pause()
    step = trainer.progress.step
    assert (await run.checkpoint()).is_file()
    assert (await run.evaluate(make_loader(8))).samples == 8
    assert (run.state, trainer.progress.step) == ("paused", step)
    run.resume()
    assert (await run).step == 6


def test_a_script_asks_without_a_loop(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=None, max_steps=10**9)
    run = trainer.start()
    assert run.checkpoint().result(PATIENCE).is_file()
    with run.hold(TrainEpochEnd):
        assert run.checkpoint().result(PATIENCE).is_file()
        assert run.evaluate(make_loader(8)).result(PATIENCE).outcome == "completed"
    run.pause()
    asked = run.evaluate(make_loader(8))
    assert asked.result(PATIENCE).metrics.keys() == {"accuracy"}
    assert asked.done()
    run.stop()
    assert run.result(PATIENCE).outcome == "stopped"


@pytest.mark.parametrize("timeout", [None, PATIENCE])
async def test_hooks_may_ask_the_run_that_waits_for_them(tmp_path: Path, timeout: float | None) -> None:
    trainer = make_trainer(tmp_path, epochs=1)
    found: list[Any] = []

    @trainer.hook(TrainEpochEnd, timeout=timeout)
    async def in_a_task(event: Event, trainer: Trainer) -> None:
        found.extend(await asyncio.gather(run.checkpoint(), run.evaluate(make_loader(8))))

    @trainer.hook(TrainEpochEnd, timeout=timeout)
    def in_a_thread(event: Event, trainer: Trainer) -> None:
        found.append(run.checkpoint().result(PATIENCE))
        found.append(run.evaluate(make_loader(8)).result(PATIENCE))

    @trainer.hook(PretrainRoutineStart, Teardown, RunEnd)
    def too_soon_or_too_late(event: Event, trainer: Trainer) -> None:
        if started.is_set():
            with pytest.raises((JobRefused, RunEnded), match="not begun to train yet, or has ended|ended before"):
                run.checkpoint().result(PATIENCE)
            found.append(event.type)

    started = threading.Event()
    held = threading.Event()
    trainer.hook("RunStart")(lambda event, trainer: held.wait(PATIENCE))
    run = trainer.start()
    started.set()
    held.set()
    await run
    assert [type(one).__name__ for one in found[1:5]] == ["PosixPath", "ValResult", "PosixPath", "ValResult"]
    assert found[0] == "PretrainRoutineStart"
    assert found[5:] == ["Teardown", "RunEnd"]


async def test_training_goes_on_as_if_no_evaluation_had_been_asked_for(tmp_path: Path) -> None:
    other = make_loader(16)  # shuffled by the global generator, from which dropout draws too
    runs: list[Any] = []
    for attempt in ("alone", "asked"):
        trainer = trainer_for_resuming(tmp_path / attempt, own_generator(), model=make_model(), epochs=20)
        run = start(trainer)
        if attempt == "asked":
            for stage in (TrainBatchStart, "optimizer_step", TrainBatchEnd, TrainEpochEnd, ValBatchEnd, FitEpochEnd):
                async with run.hold(stage):
                    modes = [module.training for module in trainer.model.modules()]
                    held, seen = trainer.batch, trainer.metrics
                    assert (await run.evaluate(other)).samples == 16
                    assert modes == [module.training for module in trainer.model.modules()]
                    assert trainer.batch is held
                    assert trainer.metrics == seen
        await run
        own = [event for event in run.stream(ValEnd, FitEpochEnd) if not getattr(event, "aside", False)]
        runs.append((losses_of(run), [event.metrics for event in own], state_of(trainer)))
    assert runs[0][:2] == runs[1][:2]
    assert same_state(runs[0][2], runs[1][2])


async def test_an_evaluation_is_that_of_a_validator_and_told_aside(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=2, ema_decay=0.5, save=False)
    hooked: list[Event] = []
    trainer.hook(ValEvent)(lambda event, trainer: hooked.append(event))
    run = start(trainer)
    other = make_loader(16, batch_size=8, shuffle=False)
    async with run.hold(TrainBatchEnd, where=lambda event: event.epoch == 1) as held:
        found = await run.evaluate(other)
        assert trainer.ema is not None
        accuracy = {"accuracy": MulticlassAccuracy(2, average="micro")}
        alone = Validator(trainer.ema, other, loss=nn.CrossEntropyLoss(), metrics=accuracy, device="cpu").run()
        given = await run.evaluate(other, metrics=MulticlassF1Score(2))
    await run
    assert (found.run, found.outcome, found.batches) == (run.id, "completed", 2)
    assert (found.metrics, found.losses, found.fitness) == (alone.metrics, alone.losses, alone.fitness)
    assert list(given.metrics) == ["MulticlassF1Score"]
    told = [event for event in run.stream(ValEvent) if event.aside]
    assert names(told) == V * 2
    assert {event.epoch for event in told} == {held.epoch}  # type: ignore[attr-defined]
    assert told[5].metrics == found.metrics  # type: ignore[attr-defined]
    assert not any(event.aside for event in hooked)  # type: ignore[attr-defined]


async def test_a_stop_breaks_an_evaluation_off(tmp_path: Path) -> None:
    run = start(make_trainer(tmp_path))

    def endless() -> Any:
        while True:
            yield from make_loader(8)

    class Endless:
        def __iter__(self) -> Any:
            return endless()

    async with run.hold(TrainBatchEnd):
        asked = await begin(_evaluate(run, Endless()))
        async for event in run.stream(ValBatchEnd):
            if event.aside:
                break
        run.stop("enough")
        found = await asked
    assert (found.outcome, found.reason) == ("stopped", "enough")
    assert (await run).outcome == "stopped"


async def _evaluate(run: Run[Any], data: Any) -> ValResult:
    return await run.evaluate(data)


async def test_cancelling_who_waits_for_an_evaluation_breaks_it_off_and_the_run_goes_on(tmp_path: Path) -> None:
    run = start(make_trainer(tmp_path))

    class Endless:
        def __iter__(self) -> Any:
            while True:
                yield from make_loader(8)

    asked = await begin(_evaluate(run, Endless()))
    async for event in run.stream(ValBatchEnd):
        if event.aside:
            break
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert (await run).outcome == "completed"


async def test_what_goes_wrong_in_an_evaluation_reaches_who_asked_and_not_the_run(tmp_path: Path) -> None:
    run = start(make_trainer(tmp_path))
    async with run.hold(TrainBatchEnd):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            await run.evaluate([(torch.zeros(2, 3), torch.zeros(2).long())])
        with pytest.raises(InvalidArgument, match="the evaluation data is 5"):
            await run.evaluate(5)  # type: ignore[arg-type]
        with pytest.raises(CheckpointUnwritable):
            await run.checkpoint(tmp_path / "nowhere" / "asked.pt")
        (tmp_path / "file").touch()
        with pytest.raises(CheckpointUnwritable):
            await run.checkpoint(tmp_path / "file" / "asked.pt")
        with pytest.raises(JobRefused, match="is a folder; name a file in it"):
            await run.checkpoint(tmp_path)
    assert (await run).outcome == "completed"


async def test_what_no_future_can_raise_reaches_who_asked_for_an_evaluation_too(tmp_path: Path) -> None:
    class Exhausted(MulticlassAccuracy):
        def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
            raise StopIteration

    async def ask() -> ValResult:
        return await run.evaluate(make_loader(8), metrics=Exhausted(2))

    run = start(make_trainer(tmp_path))
    async with run.hold(TrainBatchEnd):
        with pytest.raises(RuntimeError, match=r"run.evaluate\(\) raised StopIteration") as caught:
            await asyncio.wait_for(ask(), PATIENCE)
        assert isinstance(caught.value.__cause__, StopIteration)
    assert (await run).outcome == "completed"


async def test_data_of_which_the_run_has_the_only_iterator_is_refused(tmp_path: Path) -> None:
    own = iter(list(make_loader()) * 2)
    run = start(make_trainer(tmp_path, train=own, epochs=None, max_steps=6))
    async with run.hold(TrainBatchEnd):
        with pytest.raises(JobRefused, match="it is reading that data itself"):
            await run.evaluate(own)
    run.stop()
    await run


async def test_a_run_that_saves_nothing_asks_where_to(tmp_path: Path) -> None:
    run = start(make_trainer(tmp_path, save=False))
    async with run.hold(TrainBatchEnd):
        with pytest.raises(JobRefused, match=r"save=False .* checkpoint\(path=...\)"):
            await run.checkpoint()
        assert (await run.checkpoint(tmp_path / "asked.pt")).is_file()
    await run


async def test_other_runs_cannot_be_asked() -> None:
    run = Validator(make_model(), make_loader(8), loss=nn.CrossEntropyLoss(), device="cpu").start()
    for ask in (run.checkpoint, lambda: run.evaluate(make_loader(8))):
        with pytest.raises((JobRefused, RunEnded), match="only the run of a Trainer|ended before"):
            await ask()
    await run


async def test_what_was_not_done_when_the_run_ended_fails(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    run = start(trainer)
    async with run.hold(TrainEnd):
        last = run.checkpoint()
        assert (await last).is_file()
    await run
    with pytest.raises(RunEnded, match=r"ended before run.checkpoint\(\) came"):
        run.checkpoint()


async def test_what_is_asked_for_in_the_last_moments_is_done_or_fails(tmp_path: Path) -> None:
    run = start(make_trainer(tmp_path, save=False))
    async with run.hold(Teardown):
        asked = await begin(_evaluate_outside(run))
    with pytest.raises(RunEnded):
        await asked
    await run


async def test_what_is_asked_for_while_the_run_stands_behind_its_loops_end_is_answered(tmp_path: Path) -> None:
    with shaken(1):
        run = start(make_trainer(tmp_path, save=False))
        async with run.hold(Teardown):
            for _ in range(30):
                with pytest.raises(RunEnded):
                    await _evaluate_outside(run)
        await run


async def _evaluate_outside(run: Run[Any]) -> ValResult:
    def ask() -> ValResult:
        return run.evaluate(make_loader(8)).result(PATIENCE)

    return await asyncio.get_running_loop().run_in_executor(None, ask)


async def test_waiting_for_it_too_short_a_time_says_so(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    reached, open_ = threading.Event(), threading.Event()

    @trainer.hook(TrainBatchEnd)
    def wait(event: Event, trainer: Trainer) -> None:
        reached.set()
        assert open_.wait(PATIENCE)

    run = trainer.start()
    assert await asyncio.to_thread(reached.wait, PATIENCE)
    asked = run.checkpoint()
    with pytest.raises(StageNotReached, match=r"did not reach run.checkpoint\(\) within 0.01 s"):
        await asyncio.to_thread(asked.result, 0.01)
    with pytest.raises(WouldDeadlock, match="use `await`"):
        asked.result()
    open_.set()
    assert (await asked).is_file()
    await run
