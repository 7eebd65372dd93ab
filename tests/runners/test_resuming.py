"""Resuming: a run that was stopped, or died, ends like one that was not."""

from __future__ import annotations

import random
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, RandomSampler

from lineside.bus import Bus
from lineside.runners import (
    InvalidBatch,
    Trainer,
)
from lineside.schemas import (
    Event,
    FitEpochEnd,
    ModelSave,
    PretrainRoutineEnd,
    RunStart,
    TrainBatchEnd,
    TrainEpochEnd,
    TrainEpochStart,
    TrainStart,
    ValBatchEnd,
)

from .support import (
    CLOSING,
    OPENING,
    PATIENCE,
    T,
    V,
    follow,
    make_data,
    make_loader,
    make_model,
    make_trainer,
    names,
    of,
    same_state,
    scheduled,
    seed_torch,
    sgd,
    stop_at,
)

Loader = Callable[[], Any]


class Jittered(Dataset[tuple[Tensor, Tensor]]):
    """Data whose augmentation draws from every global generator."""

    def __init__(self) -> None:
        self._data = make_data()

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, target = self._data[index]
        noise = random.random() + float(np.random.rand()) + torch.rand(1)
        return inputs + 0.01 * noise, target


class Unsized:
    """An iterable of batches without a length, shuffled by the global generator."""

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(12)
        for start in range(0, 12, 4):
            indices = order[start : start + 4]
            yield tuple(tensor[indices] for tensor in make_data().tensors)


def own_generator() -> DataLoader[Any]:
    return make_loader(generator=torch.Generator().manual_seed(7))


def own_sampler_generator() -> DataLoader[Any]:
    sampler = RandomSampler(make_data(), generator=torch.Generator().manual_seed(7))
    return make_loader(shuffle=False, sampler=sampler)


LOADERS: dict[str, Loader] = {
    "the global generator": make_loader,
    "a generator of the loader": own_generator,
    "a generator of the sampler": own_sampler_generator,
    "random augmentation": lambda: DataLoader(Jittered(), 4, shuffle=True),
    "no length": Unsized,
}


def trainer_for_resuming(folder: Path, train: Any, **overrides: Any) -> Trainer:
    settings: dict[str, Any] = {
        "epochs": 3,
        "seed": 3,
        "ema_decay": 0.9,
        "clip_norm": 1.0,
        "scheduler": scheduled(lr_scheduler.StepLR, 1, gamma=0.5),
    }
    return make_trainer(folder, train=train, **{**settings, **overrides})


def state_of(trainer: Trainer) -> dict[str, Any]:
    assert trainer.ema is not None
    assert trainer.scheduler is not None
    return {
        "model": trainer.model.state_dict(),
        "ema": trainer.ema.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
        "progress": trainer.progress.state(),
        "draw": torch.rand(3),
    }


def interrupted_and_resumed(
    folder: Path, loader: Loader, stage: type[Event], epoch: int, batch: int, **overrides: Any
) -> Trainer:
    first = trainer_for_resuming(folder, loader(), **overrides)
    stop_at(first, stage, epoch, batch)
    assert first.run().outcome == "stopped"
    seed_torch(99)  # another process knows nothing of the first one's generators
    random.seed(99)
    np.random.seed(99)
    again = trainer_for_resuming(folder, loader(), resume=folder / "run", model=make_model(5), **overrides)
    assert again.run().outcome == "completed"
    return again


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize(
    ("stage", "epoch", "batch"),
    [
        (TrainBatchEnd, 0, 0),
        (TrainBatchEnd, 1, 1),
        (TrainBatchEnd, 1, 2),
        (TrainEpochEnd, 1, -1),
        (ValBatchEnd, 1, 0),
        (FitEpochEnd, 1, -1),
    ],
    ids=["first batch", "mid-epoch", "last batch", "before validation", "in validation", "between epochs"],
)
def test_a_run_that_was_stopped_and_resumed_ends_like_one_that_was_not(
    tmp_path: Path, loader: Loader, stage: type[Event], epoch: int, batch: int
) -> None:
    whole = trainer_for_resuming(tmp_path / "whole", loader())
    whole.run()
    expected = state_of(whole)
    resumed = interrupted_and_resumed(tmp_path / "parts", loader, stage, epoch, batch)
    actual = state_of(resumed)
    assert [name for name in expected if not same_state(expected[name], actual[name])] == []


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_resuming_is_exact_with_accumulation_too(tmp_path: Path, loader: Loader) -> None:
    options: dict[str, Any] = {"accumulate": 2, "schedule": "step"}
    whole = trainer_for_resuming(tmp_path / "whole", loader(), **options)
    whole.run()
    expected = state_of(whole)
    resumed = interrupted_and_resumed(tmp_path / "parts", loader, TrainBatchEnd, 1, 0, **options)
    assert same_state(expected, state_of(resumed))


def test_a_run_can_be_interrupted_at_every_batch(tmp_path: Path) -> None:
    whole = trainer_for_resuming(tmp_path / "whole", make_loader())
    whole.run()
    expected = state_of(whole)
    trainer = trainer_for_resuming(tmp_path / "parts", make_loader())
    for attempt in range(1, 10):
        trainer.add_callback("on_train_batch_end", lambda trainer: trainer.stop())
        result = trainer.run()
        assert (result.outcome, result.attempt) == ("stopped", attempt)
        resume = tmp_path / "parts" / "run"
        trainer = trainer_for_resuming(tmp_path / "parts", make_loader(), model=make_model(attempt), resume=resume)
    assert trainer.run().outcome == "completed"
    assert same_state(expected, state_of(trainer))


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_resuming_is_exact_with_batches_made_by_worker_processes(tmp_path: Path) -> None:
    def loader() -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(Jittered(), 4, shuffle=True, num_workers=1)

    whole = trainer_for_resuming(tmp_path / "whole", loader(), epochs=2)
    whole.run()
    expected = state_of(whole)
    resumed = interrupted_and_resumed(tmp_path / "parts", loader, TrainBatchEnd, 0, 1, epochs=2)
    assert same_state(expected, state_of(resumed))


def test_the_events_of_a_resumed_run_go_on_where_it_was_stopped(tmp_path: Path) -> None:
    first = make_trainer(tmp_path, name="night-shift")
    stop_at(first, TrainBatchEnd, 0, 1)
    first.run()
    events = follow(make_trainer(tmp_path, resume=tmp_path / "run"))
    epoch = ["TrainEpochStart", *T, *T, *T, "TrainEpochEnd", *V, "ModelSave", "FitEpochEnd"]
    rest = ["TrainEpochStart", *T, "TrainEpochEnd", *V, "ModelSave", "FitEpochEnd"]
    assert names(events) == [*OPENING, *rest, *epoch, *V, "FitEpochEnd", *CLOSING]
    assert {(event.run, event.attempt) for event in events} == {("night-shift", 2)}
    assert (
        of(events, RunStart)[0].resumed_from
        == of(events, PretrainRoutineEnd)[0].resumed_from
        == tmp_path / "run" / "last.pt"
    )
    assert (of(events, TrainStart)[0].epoch, of(events, TrainStart)[0].step) == (0, 2)
    assert [(event.batch, event.step) for event in of(events, TrainBatchEnd)][:2] == [(2, 3), (0, 4)]
    assert of(events, TrainEpochEnd)[0].batches == 3
    assert of(events, TrainEpochEnd)[0].samples == 12


def test_a_stream_of_a_resumed_run_has_its_own_attempt_only(tmp_path: Path) -> None:
    with Bus() as bus:
        first = make_trainer(tmp_path, bus=bus)
        stop_at(first, TrainBatchEnd, 0, 1)
        first.run()
        bus.drain(PATIENCE)
        run = make_trainer(tmp_path, bus=bus, resume=tmp_path / "run").start()
        assert {event.attempt for event in run.stream()} == {2}


def test_every_attempt_has_a_number_of_its_own_though_it_saved_nothing(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1).run()

    def crash(trainer: Trainer) -> None:
        raise RuntimeError("no power")

    attempts: list[int] = []
    for _ in range(3):
        trainer = make_trainer(tmp_path, epochs=2, resume=tmp_path / "run")
        trainer.hook(RunStart)(lambda event, trainer: attempts.append(event.attempt))
        trainer.add_callback("on_train_start", crash)
        with pytest.raises(RuntimeError, match="no power"):
            trainer.run()
    assert attempts == [2, 3, 4]
    assert make_trainer(tmp_path, epochs=2, resume=tmp_path / "run").run().attempt == 5
    assert make_trainer(tmp_path, epochs=1, overwrite=True).run().attempt == 1
    assert make_trainer(tmp_path, epochs=2, resume=tmp_path / "run").run().attempt == 2


def test_a_resumed_run_does_not_keep_what_it_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_trainer(tmp_path, epochs=1).run()
    read: list[weakref.ref[Tensor]] = []
    load = torch.load

    def spy(*arguments: Any, **options: Any) -> Any:
        state = load(*arguments, **options)
        read.append(weakref.ref(state["model"]["0.weight"]))
        return state

    monkeypatch.setattr(torch, "load", spy)
    trainer = make_trainer(tmp_path, resume=tmp_path / "run")
    kept: list[bool] = []
    trainer.add_callback("on_train_start", lambda _: kept.append(read[0]() is not None))
    trainer.run()
    assert kept == [False]


def test_whenever_a_run_is_killed_its_folder_holds_the_best_weights_that_the_last_checkpoint_knows_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, killed = tmp_path / "run", tmp_path / "killed"
    replace = Path.replace

    def replace_and_look(draft: Path, target: Any) -> Path:
        made = replace(draft, target)
        shutil.copytree(folder, killed / str(len(list(killed.iterdir()))))
        return made

    killed.mkdir()
    with monkeypatch.context() as watched:
        watched.setattr(Path, "replace", replace_and_look)
        whole = make_trainer(tmp_path, epochs=4, seed=3, optimizer=sgd(0.1), fitness="loss").run()
    left = [path for path in killed.iterdir() if (path / "last.pt").is_file()]
    assert len(left) > 4
    for path in left:
        settings: dict[str, Any] = {"epochs": 4, "optimizer": sgd(0.1), "fitness": "loss"}
        resumed = make_trainer(tmp_path, **settings, resume=path, directory=path).run()
        assert (resumed.best_fitness, resumed.metrics) == (whole.best_fitness, whole.metrics)


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "schedule": "step"}], ids=["", "accumulated"])
def test_a_run_that_did_its_steps_goes_on_exactly_there_when_it_is_given_more(
    tmp_path: Path, loader: Loader, options: dict[str, Any]
) -> None:
    def trained(folder: Path, steps: int, **more: Any) -> dict[str, Any]:
        trainer = trainer_for_resuming(folder, loader(), epochs=None, max_steps=steps, **options, **more)
        result = trainer.run()
        assert (result.outcome, result.step) == ("completed", steps)
        return {part: state for part, state in state_of(trainer).items() if part != "progress"}

    expected = trained(tmp_path / "whole", 6)
    for steps in (3, 4):  # at the end of an epoch, and within one
        folder = tmp_path / str(steps)
        trained(folder, steps)
        assert same_state(expected, trained(folder, 6, resume=folder / "run", model=make_model(5)))


def test_an_epoch_that_a_limit_ends_is_validated_and_saved_but_not_over(tmp_path: Path) -> None:
    result = make_trainer(tmp_path, epochs=None, max_steps=4).run()
    assert (result.epochs, result.step, result.best_epoch is not None) == (1, 4, True)
    events = follow(make_trainer(tmp_path, epochs=2, resume=tmp_path / "run"))
    assert [(event.epoch, event.batch) for event in of(events, TrainBatchEnd)] == [(1, 1), (1, 2)]
    assert (of(events, TrainEpochEnd)[0].batches, of(events, TrainEpochEnd)[0].samples) == (3, 12)


class PowerCut(Exception):
    pass


def cut_the_power_at(trainer: Trainer, epoch: int, batch: int) -> None:
    @trainer.hook(TrainBatchEnd)
    def cut(event: TrainBatchEnd, trainer: Trainer) -> None:
        if (event.epoch, event.batch) == (epoch, batch):
            raise PowerCut


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "schedule": "step"}], ids=["", "accumulated"])
def test_a_run_that_saves_within_epochs_loses_few_steps_and_resumes_exactly(
    tmp_path: Path, loader: Loader, options: dict[str, Any]
) -> None:
    whole = trainer_for_resuming(tmp_path / "whole", loader(), **options)
    whole.run()
    expected = state_of(whole)
    first = trainer_for_resuming(tmp_path / "parts", loader(), save_every_steps=1, **options)
    cut_the_power_at(first, 1, 2)
    with pytest.raises(PowerCut):
        first.run()
    seed_torch(99)
    resume = tmp_path / "parts" / "run"
    resumed = trainer_for_resuming(tmp_path / "parts", loader(), resume=resume, model=make_model(5), **options)
    begun: list[int] = []
    resumed.hook(TrainStart)(lambda event, trainer: begun.append(trainer.progress.batch))
    resumed.run()
    assert begun == [2]
    assert same_state(expected, state_of(resumed))


def test_a_run_saves_within_its_epochs_at_the_latest_every_so_many_steps(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, train=make_loader(20), validate=False, save_every_steps=2)
    saves = [(event.epoch, event.step) for event in of(follow(trainer), ModelSave)]
    assert saves == [(0, 2), (0, 4), (0, 5), (1, 7), (1, 9), (1, 10)]


def test_an_epoch_whose_validation_fails_is_kept_and_validated_after_the_resume(tmp_path: Path) -> None:
    data = make_data(8)
    whole = trainer_for_resuming(tmp_path / "whole", make_loader(), epochs=2)
    whole.run()
    expected = state_of(whole)
    first = trainer_for_resuming(
        tmp_path / "parts", make_loader(), epochs=2, val=[*make_loader(4), tuple(data.tensors[:1])]
    )
    run = first.start()
    reached = names(run.stream())
    with pytest.raises(InvalidBatch):
        run.result(PATIENCE)
    assert reached[-4:] == ["ValBatchStart", "ModelSave", "Teardown", "RunEnd"]
    resume = tmp_path / "parts" / "run"
    resumed = trainer_for_resuming(tmp_path / "parts", make_loader(), epochs=2, resume=resume, model=make_model(5))
    resumed.run()
    assert same_state(expected, state_of(resumed))


def test_a_run_that_is_complete_can_be_continued_with_more_epochs(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1).run()
    result = make_trainer(tmp_path, epochs=3, resume=tmp_path / "run").run()
    assert (result.epochs, result.step, result.attempt) == (3, 9, 2)


def test_resuming_a_complete_run_evaluates_its_best_weights_again(tmp_path: Path) -> None:
    make_trainer(tmp_path).run()
    events = follow(make_trainer(tmp_path, resume=tmp_path / "run" / "last.pt"))
    assert names(events) == [*OPENING, *V, "FitEpochEnd", *CLOSING]


def test_a_resumed_run_knows_its_best_epoch(tmp_path: Path) -> None:
    first = make_trainer(tmp_path, epochs=2)
    before = first.run()
    resumed = make_trainer(tmp_path, epochs=3, resume=tmp_path / "run")
    seen: list[Any] = []
    resumed.hook(TrainEpochStart)(lambda _, trainer: seen.append((trainer.best_fitness, trainer.best)))
    resumed.run()
    assert seen == [(before.best_fitness, before.best)]
