"""What a step reports beside its loss: told and averaged, and never minimised."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torchmetrics.classification import MulticlassAccuracy

from lineside.runners import InvalidArgument, InvalidObjective, Trainer, Validator
from lineside.schemas import FitEpochEnd, NonFinite, TrainBatchEnd, TrainEpochEnd, ValBatchEnd

from .support import follow, make_data, make_model, make_trainer, of, same_state, stop_at

Batch = dict[str, Tensor]


def make_batches(sizes: tuple[int, ...] = (6, 2)) -> list[Batch]:
    inputs, labels = make_data(sum(sizes)).tensors
    pairs = zip(torch.split(inputs, list(sizes)), torch.split(labels, list(sizes)), strict=True)
    return [{"inputs": one, "labels": other} for one, other in pairs]


def accuracy(outputs: Tensor, batch: Batch) -> Tensor:
    return (outputs.argmax(1) == batch["labels"]).float().mean()


def ce(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    outputs = model(batch["inputs"])
    return nn.functional.cross_entropy(outputs, batch["labels"]), outputs


def plain_step(model: nn.Module, batch: Batch) -> Tensor:
    return ce(model, batch)[0]


def step(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
    loss, outputs = ce(model, batch)
    return loss, {"accuracy": accuracy(outputs, batch), "length": len(outputs)}


def make(folder: Path, a_step: Any = step, **settings: Any) -> Trainer:
    batches = make_batches()
    parts: dict[str, Any] = {"loss": None, "step": a_step, "metrics": None, "train": batches, "val": batches}
    return make_trainer(folder, **{**parts, **settings})


def test_what_a_step_reports_of_batches_of_any_form_is_told_and_leaves_the_training_as_it_is(tmp_path: Path) -> None:
    reporting, plain = make(tmp_path / "reporting", seed=0), make(tmp_path / "plain", plain_step, seed=0)
    told, others = follow(reporting), follow(plain)
    assert same_state(reporting.model.state_dict(), plain.model.state_dict())
    assert [end.loss for end in of(told, TrainBatchEnd)] == [end.loss for end in of(others, TrainBatchEnd)]
    assert [[*end.losses] for end in of(told, TrainBatchEnd)] == [["loss", "accuracy", "length"]] * 4
    assert [end.losses["length"] for end in of(told, TrainEpochEnd)] == [(6 * 6 + 2 * 2) / 8] * 2
    assert (reporting.fitness, reporting.best_fitness) == (plain.fitness, plain.best_fitness)
    last = of(told, FitEpochEnd)[-1]
    assert last.metrics["length"] == 5.0
    assert last.fitness == -last.metrics["loss"]


def test_in_validation_it_is_a_metric_averaged_over_the_samples() -> None:
    batches, model = make_batches(), make_model()
    found = Validator(model, batches, step=step, device="cpu").run()
    model.eval()
    right = [float(accuracy(model(batch["inputs"]), batch)) for batch in batches]
    assert found.metrics == {"accuracy": pytest.approx((6 * right[0] + 2 * right[1]) / 8), "length": 5.0}
    assert [*found.losses] == ["loss"]
    assert found.fitness == -found.losses["loss"]


def test_it_is_told_of_every_batch_of_a_validation(tmp_path: Path) -> None:
    told = follow(make(tmp_path, epochs=1, save=False))
    assert [end.losses["length"] for end in of(told, ValBatchEnd)] == [6.0, 2.0]


def test_it_can_be_the_fitness_of_which_more_is_better(tmp_path: Path) -> None:
    validations = iter([0.2, 0.9, 0.4])

    def rising(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return plain_step(model, batch), {"score": 0.0 if model.training else value[0]}

    value = [0.0]
    trainer = make(tmp_path, rising, epochs=3, fitness="score")
    trainer.add_callback("on_val_start", lambda _: value.__setitem__(0, next(validations, 0.9)))
    result = trainer.run()
    assert (result.best_epoch, result.best_fitness) == (1, 0.9)


def test_one_that_is_not_finite_says_nothing_of_the_loss(tmp_path: Path) -> None:
    def undefined(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return plain_step(model, batch), {"perplexity": math.inf}

    told = follow(make(tmp_path, undefined, on_nonfinite="fail"))
    assert not of(told, NonFinite)
    assert of(told, TrainEpochEnd)[-1].losses["perplexity"] == math.inf


def test_a_run_that_is_resumed_within_an_epoch_counts_it_on_and_keeps_it_out_of_the_loss(tmp_path: Path) -> None:
    first = make(tmp_path, epochs=1, val=None)
    stop_at(first, TrainBatchEnd, 0, 0)
    first.run()
    told = follow(make(tmp_path, epochs=1, val=None, resume=tmp_path / "run"))
    done, batch = of(told, TrainEpochEnd)[0], of(told, TrainBatchEnd)[0]
    assert done.losses["length"] == 5.0
    assert batch.loss == batch.losses["loss"]


def test_a_plateau_scheduler_without_validation_looks_at_the_loss_alone(tmp_path: Path) -> None:
    looked: list[float] = []

    class Plateau(lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
            looked.append(float(metrics))

    trainer = make(tmp_path, scheduler=Plateau, val=None)
    told = follow(trainer)
    assert looked == [end.losses["loss"] for end in of(told, TrainEpochEnd)]


REFUSED: list[tuple[Callable[[Tensor], Any], str]] = [
    (
        lambda loss: (loss, loss),
        "the step returned a tuple of Tensor, Tensor; expected a loss, or a loss and a mapping",
    ),
    (lambda loss: (loss, {}, {}), "the step returned a tuple of Tensor, dict, dict"),
    (lambda loss: (loss, {"loss": 1.0}), "the step reports 'loss' beside its loss, which has a part of that name"),
    (lambda loss: ({"ce": loss}, {"ce": 1.0}), "the step reports 'ce' beside its loss"),
    (
        lambda loss: (loss, {"recall": torch.zeros(3)}),
        r"recall, which the step reports .*, is a tensor of shape \(3,\)",
    ),
    (lambda loss: (loss, {0: 0.5}), "the step reports a number beside its loss under 0, a int; name it by a str"),
    (lambda loss: (loss, {"recall": "high"}), "recall, .*, is 'high'; expected a number, or a dense tensor"),
    (
        lambda loss: (loss, {"recall": torch.tensor(1j)}),
        "recall, .*, is a tensor .* torch.complex64 .*one real element",
    ),
    (lambda loss: (loss, {"recall": 10**400}), "recall, .*, is a number that no float can hold"),
    (lambda loss: loss * (1 + 1j), r"loss is a complex tensor; .*, e\.g\. its \.abs\(\)"),
    (lambda loss: {0: loss}, "the loss has a part under 0, a int; name it by a str"),
    (lambda loss: (None, {"recall": 1.0}), "loss is None of type NoneType"),
]


@pytest.mark.parametrize(("returned", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_a_step_cannot_report_is_refused_with_what_it_can(
    tmp_path: Path, returned: Callable[[Tensor], Any], message: str
) -> None:
    def wrong(model: nn.Module, batch: Batch) -> Any:
        return returned(plain_step(model, batch))

    with pytest.raises(InvalidObjective, match=message):
        make(tmp_path, wrong).run()


def test_a_metric_with_the_name_of_what_a_step_reports_is_refused_in_the_first_batch(tmp_path: Path) -> None:
    def of_pairs(model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, float]]:
        return nn.functional.cross_entropy(model(batch[0]), batch[1]), {"accuracy": 0.5}

    pairs, metrics = [make_data(4).tensors], {"accuracy": MulticlassAccuracy(2)}
    trainer = make(tmp_path, of_pairs, train=pairs, val=pairs, metrics=metrics)
    with pytest.raises(InvalidArgument, match="a metric and what the step reports are both named 'accuracy'; rename"):
        trainer.run()
    assert trainer.progress.step == 0


@pytest.mark.parametrize("number", [np.array(0.5), np.array([0.5]), Decimal("0.5"), torch.tensor([0.5])])
def test_a_step_may_report_a_number_of_any_kind(tmp_path: Path, number: Any) -> None:
    def told(model: nn.Module, batch: Batch) -> Any:
        return plain_step(model, batch), {"share": number}

    assert make(tmp_path, told).run().losses["share"] == 0.5
