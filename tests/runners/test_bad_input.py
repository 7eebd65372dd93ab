from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics.classification import MulticlassAccuracy

from lineside.bus import Bus
from lineside.runners import (
    EmptyData,
    ExhaustedData,
    InvalidArgument,
    InvalidBatch,
    InvalidConfig,
    InvalidModel,
    InvalidObjective,
    RunnerConfig,
    TrainConfig,
    Trainer,
    UnknownFitness,
    UnsavableState,
    ValConfig,
    Validator,
)
from lineside.schemas import LinesideError

from .support import make_data, make_loader, make_model, make_optimizer, make_trainer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs: Input should be greater than or equal to 1, got 0"),
        ({"epoch": 3}, "epoch: there is no such setting"),
        ({"clip_norm": -1.0}, "clip_norm: Input should be greater than 0, got -1.0"),
        ({"amp": "fp8"}, "amp: Input should be 'off', 'bf16' or 'fp16', got 'fp8'"),
        ({"ema_decay": 1.0}, "ema_decay: Input should be less than 1"),
        ({"device": "gpu"}, "device: String should match pattern"),
        ({"name": "a name"}, "name: String should match pattern"),
        ({"name": "x" * 65}, "name: String should match pattern"),
        ({"epochs": None}, "epochs=None needs another limit: set max_steps or max_seconds"),
        ({"save_every_steps": 9, "save": False}, "save_every_steps says how often to save, and save=False never does"),
        ({"resume": "run", "overwrite": True}, "resume continues a run and overwrite replaces one"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        TrainConfig(**settings)
    assert message in str(caught.value)
    with pytest.raises(InvalidConfig):
        Trainer(make_model(), [], loss=nn.MSELoss(), optimizer=make_optimizer, **settings)


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(InvalidConfig) as caught:
        TrainConfig(epochs=0, accumulate=0)
    assert str(caught.value).count("\n  - ") == 2


def test_overrides_replace_settings_and_keep_the_others() -> None:
    config = TrainConfig(epochs=7, accumulate=2)
    assert config.with_(epochs=3) == TrainConfig(epochs=3, accumulate=2)
    assert ValConfig().with_(amp="bf16").amp == "bf16"
    with pytest.raises(ValueError, match="frozen"):
        config.epochs = 2  # type: ignore[misc]


@pytest.mark.parametrize("config", [RunnerConfig, TrainConfig, ValConfig])
def test_every_setting_is_described(config: type[RunnerConfig]) -> None:
    assert [name for name, field in config.model_fields.items() if not field.description] == []


def len_of(parameters: Iterator[Any]) -> int:
    return len(list(parameters))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": nn.Linear}, InvalidModel, "expected a torch.nn.Module; call it first"),
        ({"loss": None}, InvalidObjective, "neither loss nor step was given; pass one"),
        (
            {"step": max},
            InvalidObjective,
            "both loss and step was given",
        ),
        ({"loss": "mse"}, InvalidObjective, "'mse' is not callable"),
        ({"loss": nn.MSELoss}, InvalidObjective, r"MSELoss is a class of modules; make one of it: MSELoss\("),
        ({"config": {"epochs": 3}}, InvalidArgument, "of type dict; expected a TrainConfig; settings can also"),
        ({"config": ValConfig()}, InvalidArgument, "of type ValConfig; expected a TrainConfig"),
        ({"bus": "runs/"}, InvalidArgument, "bus is 'runs/' of type str; expected a lineside.Bus"),
        ({"train": 3}, InvalidArgument, "the training data is 3 of type int; expected an iterable of batches"),
        ({"val": 3}, InvalidArgument, "the validation data is 3"),
        ({"metrics": {"accuracy": len}}, InvalidArgument, "is no metric; expected a torchmetrics Metric"),
        ({"optimizer": "adam"}, InvalidArgument, "the optimizer is 'adam' of type str; expected a torch Optimizer"),
        ({"optimizer": len_of}, InvalidArgument, "the optimizer is 6 of type int"),
        ({"scheduler": 3}, InvalidArgument, "the scheduler is 3 of type int"),
        (
            {"metrics": {"mAP@.5": MulticlassAccuracy(2)}},
            InvalidArgument,
            "a metric is named 'mAP@.5'; expected text wi",
        ),
        ({"metrics": {0: MulticlassAccuracy(2)}}, InvalidArgument, "a metric is named 0; expected text without a dot"),
        ({"val": None}, InvalidArgument, "metrics needs validation data"),
        ({"val": None, "metrics": None, "patience": 2}, InvalidArgument, "patience needs validation data"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_in_the_constructor(
    tmp_path: Path, arguments: dict[str, Any], error: type[LinesideError], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_trainer(tmp_path, **arguments)


def test_an_optimizer_that_computes_the_loss_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="LBFGS calls for the loss several times a step; use one whose step"):
        make_trainer(tmp_path, optimizer=torch.optim.LBFGS)


def test_an_optimizer_of_another_model_is_refused(tmp_path: Path) -> None:
    other = torch.optim.SGD(make_model().parameters(), lr=0.1)
    with pytest.raises(InvalidArgument, match="has none of the model's parameters; make it of model.parameters"):
        make_trainer(tmp_path, optimizer=other)


def test_a_scheduler_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    other = torch.optim.SGD(make_model().parameters(), lr=0.1)
    with pytest.raises(InvalidArgument, match="the scheduler changes another optimizer"):
        make_trainer(tmp_path, scheduler=lr_scheduler.StepLR(other, 1))


def test_a_plateau_scheduler_cannot_step_every_step(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="set schedule='epoch'"):
        make_trainer(tmp_path, scheduler=lr_scheduler.ReduceLROnPlateau, schedule="step")


def nothing_was_published(trainer: Trainer | Validator) -> bool:
    return trainer.bus.stats().published == 0


@pytest.mark.parametrize("which", ["train", "val"])
def test_an_empty_loader_is_refused_before_anything_begins(tmp_path: Path, which: str) -> None:
    empty: dict[str, Any] = {which: make_loader(3, drop_last=True, shuffle=False)}
    with Bus() as bus:
        trainer = make_trainer(tmp_path, bus=bus, **empty)
        name = {"train": "training", "val": "validation"}[which]
        with pytest.raises(EmptyData, match=f"the {name} data gave no batch; check the dataset's length"):
            trainer.run()
        with pytest.raises(EmptyData):
            trainer.start()
        assert nothing_was_published(trainer)
    assert not list(tmp_path.iterdir())


class Nothing(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(())


def test_an_empty_loader_without_a_length_is_refused_after_its_first_pass(tmp_path: Path) -> None:
    with pytest.raises(EmptyData, match="the training data gave no batch"):
        make_trainer(tmp_path, train=DataLoader(Nothing(), 4)).run()
    with pytest.raises(EmptyData, match="the validation data gave no batch"):
        make_trainer(tmp_path / "other", val=DataLoader(Nothing(), 4)).run()


def test_an_iterator_that_can_be_read_once_is_refused_in_the_second_epoch(tmp_path: Path) -> None:
    with pytest.raises(ExhaustedData, match="gave no batch in epoch 1: it is an iterator .* e.g. a DataLoader"):
        make_trainer(tmp_path, train=iter(make_loader())).run()
    once = make_trainer(tmp_path / "once", train=iter(make_loader()), epochs=1, save=False)
    assert once.run().epochs == 1
    with pytest.raises(ExhaustedData, match="it is an iterator at its end"):
        once.run()


@pytest.mark.parametrize("batch", [torch.zeros(4, 4), (torch.zeros(4, 4),), {"inputs": torch.zeros(4, 4)}])
def test_a_batch_that_is_no_pair_is_refused(tmp_path: Path, batch: Any) -> None:
    with pytest.raises(InvalidBatch, match=r"a batch is a pair \(inputs, targets\), got .* pass step="):
        make_trainer(tmp_path, train=[batch]).run()


def test_a_step_with_metrics_is_told_that_they_compare_pairs(tmp_path: Path) -> None:
    def step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return cast("Tensor", model(batch["inputs"])).mean()

    data = [{"inputs": torch.zeros(4, 4)}]
    message = r"with metrics=..., a batch is a pair \(inputs, targets\), got dict of length 1; .* leave metrics out"
    with pytest.raises(InvalidBatch, match=message):
        make_trainer(tmp_path, loss=None, step=step, train=data, val=data).run()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "loss is None of type NoneType; expected a scalar tensor"),
        (0.5, "loss is 0.5 of type float"),
        ({}, "the loss is an empty mapping"),
        ({"ce": 1}, "ce is 1 of type int"),
        (torch.zeros(4), r"loss is a tensor of shape \(4,\); .* reduce it, e.g. with .mean"),
    ],
)
def test_a_loss_that_cannot_be_minimised_is_refused(tmp_path: Path, value: Any, message: str) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Any:
        return value

    with pytest.raises(InvalidObjective, match=message):
        make_trainer(tmp_path, loss=loss).run()


def test_a_loss_without_gradients_is_refused(tmp_path: Path) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.detach().mean()

    with pytest.raises(InvalidObjective, match="does not depend on the model's parameters"):
        make_trainer(tmp_path, loss=loss).run()


class Parts:
    """Losses that are named otherwise in one batch than in those before."""

    def __init__(self, *batches: tuple[str, ...]) -> None:
        self._batches = itertools.cycle(batches)

    def __call__(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {name: outputs.mean() for name in next(self._batches)}


@pytest.mark.parametrize("names", [(("a",), ("b",)), (("a", "b"), ("a",)), (("a",), ("a", "b"))])
def test_a_loss_that_changes_its_parts_from_batch_to_batch_is_refused(
    tmp_path: Path, names: tuple[tuple[str, ...], ...]
) -> None:
    def message(first: tuple[str, ...], then: tuple[str, ...]) -> str:
        return f"the loss has the parts {', '.join(then)} in this batch, and had {', '.join(first)} in those before"

    with pytest.raises(InvalidObjective, match=message(*names)):
        make_trainer(tmp_path, loss=Parts(*names)).run()
    with pytest.raises(InvalidObjective, match=message(*names)):
        Validator(make_model(), make_loader(), loss=Parts(*names), device="cpu").run()


def trained_steps(trainer: Trainer) -> int:
    with pytest.raises(UnknownFitness, match=r"is not among what validation computes: (accuracy, )?loss"):
        trainer.run()
    return trainer.progress.step


def test_a_fitness_that_is_not_computed_is_refused_in_the_first_batch_with_what_is(tmp_path: Path) -> None:
    assert trained_steps(make_trainer(tmp_path, fitness="f1")) == 0
    assert trained_steps(make_trainer(tmp_path / "other", fitness="f1", metrics=None)) == 0


def test_a_fitness_of_a_step_or_of_a_metric_of_many_numbers_is_looked_for_in_the_validation(tmp_path: Path) -> None:
    def step(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return {"loss": loss} if model.training else {"held": loss}

    class Both(MulticlassAccuracy):
        def compute(self) -> Any:
            return {"one": super().compute(), "other": super().compute()}

    assert make_trainer(tmp_path, loss=None, step=step, fitness="held").run().best_fitness is not None
    trainer = make_trainer(tmp_path / "other", metrics={"accuracy": Both(2)}, fitness="other")
    assert trainer.run().best_fitness is not None


def test_a_metric_and_a_loss_of_the_same_name_are_refused(tmp_path: Path) -> None:
    metrics = {"loss": MulticlassAccuracy(2)}
    for make in (make_trainer, partial(Validator, make_model(), make_loader(), loss=nn.CrossEntropyLoss())):
        arguments = (tmp_path,) if make is make_trainer else ()
        with pytest.raises(InvalidArgument, match="a metric and a loss are both named 'loss'; rename the metric"):
            make(*arguments, metrics=metrics)
    with pytest.raises(InvalidArgument, match="both named 'ce'"):
        make_trainer(tmp_path, loss=Parts(("ce",)), metrics={"ce": MulticlassAccuracy(2)}).run()


def test_state_that_cannot_be_saved_is_refused_before_anything_begins(tmp_path: Path, bus: Bus) -> None:
    class Curious(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"seen": {1, 2}}

        def set_extra_state(self, state: Any) -> None: ...

    trainer = make_trainer(tmp_path, model=Curious(4, 2), bus=bus)
    with pytest.raises(UnsavableState, match=r"\['model'\]\['_extra_state'\]\['seen'\], \{1, 2\} of type set"):
        trainer.run()
    assert nothing_was_published(trainer)
    assert make_trainer(tmp_path, model=Curious(4, 2), save=False).run().epochs == 2


def test_a_validator_that_would_compute_nothing_is_refused() -> None:
    with pytest.raises(InvalidObjective, match="neither loss nor step was given"):
        Validator(make_model(), DataLoader(make_data()))
    with pytest.raises(InvalidObjective, match="neither loss nor step was given"):
        Validator(make_model(), DataLoader(make_data()), metrics={})


def test_a_checkpoint_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="could not be written"):
        make_trainer(tmp_path, directory=tmp_path / "file" / "run").run()
