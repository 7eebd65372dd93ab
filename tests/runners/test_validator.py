from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from lineside.runners import Validator
from lineside.schemas import Event, RunEnd, ValBatchEnd, ValBatchStart, ValEnd, ValStart

from .support import PATIENCE, V, follow, make_data, make_loader, make_model, names, of


def make_validator(**overrides: Any) -> Validator:
    arguments: dict[str, Any] = {
        "model": make_model(),
        "data": make_loader(8, shuffle=False),
        "loss": nn.CrossEntropyLoss(),
        "metrics": {"accuracy": MulticlassAccuracy(2, average="micro")},
        "device": "cpu",
    }
    return Validator(**{**arguments, **overrides})


def test_a_validation_reaches_its_stages_in_this_order() -> None:
    assert names(follow(make_validator())) == ["RunStart", *V, "RunEnd"]


@pytest.mark.parametrize("stage", [ValStart, ValBatchStart, ValBatchEnd, ValEnd])
def test_an_exception_in_a_hook_at_any_stage_fails_the_run(stage: type[Event]) -> None:
    validator = make_validator()

    @validator.hook(stage)
    def refuse(event: Event, validator: Validator) -> None:
        raise LookupError(event.type)

    run = validator.start()
    events = list(run.stream())
    with pytest.raises(LookupError):
        run.result(PATIENCE)
    expected = ["RunStart", *V]
    assert names(events) == [*expected[: expected.index(stage.__name__) + 1], "RunEnd"]
    assert isinstance(events[-1], RunEnd)
    assert events[-1].outcome == "failed"
    assert validator.model.training


def test_a_stop_breaks_the_validation_off() -> None:
    validator = make_validator()
    validator.add_callback("on_val_batch_start", lambda validator: validator.stop("enough"))
    run = validator.start()
    assert names(run.stream()) == ["RunStart", "ValStart", "ValBatchStart", "ValBatchEnd", "RunEnd"]
    result = run.result(PATIENCE)
    assert (result.outcome, result.reason, result.metrics) == ("stopped", "enough", {})
    assert (result.batches, result.samples) == (1, 4)


def test_the_result_is_what_the_model_does_in_eval_mode() -> None:
    model = make_model().eval()
    inputs, targets = make_data(8).tensors
    with torch.no_grad():
        outputs = model(inputs)
    result = make_validator(model=model).run()
    accuracy = float((outputs.argmax(1) == targets).float().mean())
    assert result.metrics == {"accuracy": pytest.approx(accuracy)}
    assert result.fitness == pytest.approx(accuracy)
    assert result.losses == {"loss": pytest.approx(float(nn.functional.cross_entropy(outputs, targets)))}
    assert (result.batches, result.samples) == (2, 8)
    assert result.speed.keys() == {"data", "inference", "metrics"}


def test_every_submodule_gets_back_the_mode_it_had_and_hooks_may_compute() -> None:
    model = make_model()
    model[1].eval()  # frozen statistics
    validator = make_validator(model=model)
    modes: list[bool] = []

    @validator.hook(ValBatchEnd)
    def train_a_little(event: ValBatchEnd, validator: Validator) -> None:
        modes.append(validator.model.training)
        (torch.ones(2, requires_grad=True) * 2).sum().backward()  # type: ignore[no-untyped-call]

    validator.run()
    assert modes == [False, False]
    assert [module.training for module in model] == [True, False, True, True, True]


def test_a_single_metric_is_named_by_its_class_and_a_collection_by_its_keys() -> None:
    assert make_validator(metrics=MulticlassAccuracy(2)).run().metrics.keys() == {"MulticlassAccuracy"}
    collection = MetricCollection({"accuracy": MulticlassAccuracy(2), "f1": MulticlassF1Score(2)})
    assert make_validator(metrics=collection).run().metrics.keys() == {"accuracy", "f1"}


def test_a_vector_of_metrics_is_numbered_and_a_matrix_left_out() -> None:
    metrics = {"accuracy": MulticlassAccuracy(2, average=None), "confusion": MulticlassConfusionMatrix(2)}
    assert make_validator(metrics=metrics).run().metrics.keys() == {"accuracy/0", "accuracy/1"}


def test_callbacks_see_the_batch_in_work_and_the_metrics_at_the_end() -> None:
    validator = make_validator()
    losses: list[float] = []
    ends: list[Any] = []

    def note(validator: Validator) -> None:
        assert validator.loss is not None
        losses.append(validator.loss.item())

    validator.add_callback("on_val_batch_end", note)
    validator.add_callback(
        "on_val_end", lambda validator: ends.append((validator.metrics, validator.losses, validator.fitness))
    )
    events = follow(validator)
    end = of(events, ValEnd)[0]
    assert losses == [event.losses["loss"] for event in of(events, ValBatchEnd)]
    assert ends == [(end.metrics, end.losses, end.fitness)]
    assert (validator.batch, validator.loss) == (None, None)


def test_metrics_begin_anew_in_every_run() -> None:
    validator = make_validator()
    assert validator.run().metrics == validator.run().metrics


def test_the_loss_is_the_fitness_where_there_is_no_metric() -> None:
    result = make_validator(metrics=None).run()
    assert result.fitness == pytest.approx(-result.losses["loss"])


@pytest.mark.parametrize(("name", "mode", "sign"), [("loss", None, -1), ("loss", "max", 1), ("accuracy", "min", -1)])
def test_the_fitness_can_be_chosen_and_larger_is_always_better(name: str, mode: str | None, sign: int) -> None:
    result = make_validator(fitness=name, mode=mode).run()
    assert result.fitness == pytest.approx(sign * {**result.metrics, **result.losses}[name])


def test_a_validation_without_a_loss_has_metrics_only() -> None:
    events = follow(make_validator(loss=None))
    assert of(events, ValBatchEnd)[0].losses == {}
    assert of(events, ValEnd)[0].metrics.keys() == {"accuracy"}


def test_a_step_takes_batches_of_any_form() -> None:
    def step(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = model(batch["x"])
        return {"size": outputs.pow(2).mean(), "spread": outputs.std()}

    data = [{"x": torch.randn(4, 4)}, {"x": torch.randn(3, 4)}]
    result = make_validator(data=data, loss=None, metrics=None, step=step).run()
    assert result.losses.keys() == {"size", "spread"}
    assert result.samples == 7


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = make_model()

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(inputs)}


def test_a_metric_that_cannot_take_what_the_model_returns_is_named_with_what_it_was_given() -> None:
    metrics = {"accuracy": MulticlassAccuracy(2)}
    validator = Validator(Named(), make_loader(8, shuffle=False), metrics=metrics, device="cpu")
    with pytest.raises(AttributeError) as caught:
        validator.run()
    (note,) = caught.value.__notes__
    assert note.startswith(
        "raised by metrics=... (accuracy), which compare what the model returned, a dict with 'logits'"
    )
    assert "with the targets, a tensor of shape (4,);" in note
