from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lineside.runners import NonFiniteLoss, Trainer
from lineside.schemas import (
    BeforeZeroGrad,
    Event,
    FitEpochEnd,
    ModelSave,
    NonFinite,
    OptimizerSkip,
    OptimizerStep,
    ParamsUpdate,
    PretrainRoutineEnd,
    PretrainRoutineStart,
    RunEnd,
    RunStart,
    Teardown,
    TrainBatchEnd,
    TrainBatchStart,
    TrainEnd,
    TrainEpochEnd,
    TrainEpochStart,
    TrainStart,
    ValBatchEnd,
    ValBatchStart,
    ValEnd,
    ValEvent,
    ValStart,
)

from .support import CLOSING, OPENING, PATIENCE, STEP, A, T, V, follow, make_loader, make_trainer, names, of, sgd

EPOCH = ["TrainEpochStart", *T, *T, *T, "TrainEpochEnd", *V, "ModelSave", "FitEpochEnd"]
FINAL = [*V, "FitEpochEnd"]

STAGES: list[type[Event]] = [
    RunStart,
    PretrainRoutineStart,
    PretrainRoutineEnd,
    TrainStart,
    TrainEpochStart,
    TrainBatchStart,
    OptimizerStep,
    ParamsUpdate,
    BeforeZeroGrad,
    TrainBatchEnd,
    TrainEpochEnd,
    ValStart,
    ValBatchStart,
    ValBatchEnd,
    ValEnd,
    ModelSave,
    FitEpochEnd,
    TrainEnd,
    Teardown,
    RunEnd,
]


def test_training_with_validation_reaches_its_stages_in_this_order(tmp_path: Path) -> None:
    assert names(follow(make_trainer(tmp_path))) == [*OPENING, *EPOCH, *EPOCH, *FINAL, *CLOSING]


def test_training_without_validation_has_no_validation_and_no_final_evaluation(tmp_path: Path) -> None:
    epoch = ["TrainEpochStart", *T, *T, *T, "TrainEpochEnd", "ModelSave", "FitEpochEnd"]
    assert names(follow(make_trainer(tmp_path, validate=False))) == [*OPENING, *epoch, *epoch, *CLOSING]


def test_without_saving_there_are_no_checkpoints_and_no_final_evaluation(tmp_path: Path) -> None:
    epoch = ["TrainEpochStart", *T, *T, *T, "TrainEpochEnd", *V, "FitEpochEnd"]
    assert names(follow(make_trainer(tmp_path, save=False, epochs=1))) == [*OPENING, *epoch, *CLOSING]
    assert not list(tmp_path.iterdir())


def test_optimizer_events_come_inside_the_batch_that_completes_its_window(tmp_path: Path) -> None:
    events = follow(make_trainer(tmp_path, validate=False, epochs=1, accumulate=2))
    epoch = ["TrainEpochStart", *A, *T, *T, "TrainEpochEnd", "ModelSave", "FitEpochEnd"]
    assert names(events) == [*OPENING, *epoch, *CLOSING]


def test_the_last_window_is_completed_where_the_loader_has_no_length(tmp_path: Path) -> None:
    class Endless:
        def __iter__(self) -> Any:
            return iter(make_loader())

    events = follow(make_trainer(tmp_path, train=Endless(), validate=False, epochs=1, accumulate=2))
    assert names(events) == [
        *OPENING,
        "TrainEpochStart",
        *A,
        *T,
        *T,
        "TrainEpochEnd",
        "ModelSave",
        "FitEpochEnd",
        *CLOSING,
    ]
    assert of(events, TrainBatchEnd)[0].batches is None


def test_validation_every_second_epoch_and_in_the_last_one(tmp_path: Path) -> None:
    events = follow(make_trainer(tmp_path, epochs=3, validate_every=2))
    unvalidated = ["TrainEpochStart", *T, *T, *T, "TrainEpochEnd", "ModelSave", "FitEpochEnd"]
    assert names(events) == [*OPENING, *unvalidated, *EPOCH, *EPOCH, *FINAL, *CLOSING]
    assert [event.fitness is None for event in of(events, FitEpochEnd)] == [True, False, False, False]


def test_an_early_stop_completes_the_run_and_gives_the_reason(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, model=nn.Linear(4, 2), optimizer=sgd(0.0), epochs=9, patience=2)
    events = follow(trainer)
    assert names(events) == [*OPENING, *EPOCH, *EPOCH, *EPOCH, *FINAL, *CLOSING]
    end = events[-1]
    assert isinstance(end, RunEnd)
    assert (end.outcome, end.reason) == ("completed", "no improvement in 2 validations")


def test_max_steps_in_the_middle_of_an_epoch_close_it_normally(tmp_path: Path) -> None:
    events = follow(make_trainer(tmp_path, epochs=None, max_steps=5))
    second = ["TrainEpochStart", *T, *T, "TrainEpochEnd", *V, "ModelSave", "FitEpochEnd"]
    assert names(events) == [*OPENING, *EPOCH, *second, *FINAL, *CLOSING]
    assert (events[-1].outcome, events[-1].reason) == ("completed", "max_steps=5 reached")  # type: ignore[attr-defined]


def test_max_seconds_in_the_middle_of_an_epoch_close_it_normally(tmp_path: Path) -> None:
    events = follow(make_trainer(tmp_path, epochs=None, max_seconds=1e-9))
    epoch = ["TrainEpochStart", *T, "TrainEpochEnd", *V, "ModelSave", "FitEpochEnd"]
    # The time is up before the first epoch: none is begun.
    assert names(events) in ([*OPENING, *CLOSING], [*OPENING, *epoch, *FINAL, *CLOSING])
    assert (events[-1].outcome, events[-1].reason) == ("completed", "max_seconds=1e-09 reached")  # type: ignore[attr-defined]


def test_a_stop_from_a_hook_in_the_middle_of_an_epoch_saves_and_ends(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)

    @trainer.hook(TrainBatchEnd)
    def stop(event: TrainBatchEnd, trainer: Trainer) -> None:
        if event.batch == 1:
            trainer.stop("seen enough")

    events = follow(trainer)
    assert names(events) == [*OPENING, "TrainEpochStart", *T, *T, "ModelSave", *CLOSING]
    assert (events[-1].outcome, events[-1].reason) == ("stopped", "seen enough")  # type: ignore[attr-defined]
    assert of(events, TrainEnd)[0].epochs == 0


def test_a_stop_finishes_the_accumulation_window_first(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, accumulate=2)
    trainer.add_callback("on_train_batch_start", lambda trainer: trainer.stop())
    assert names(follow(trainer)) == [*OPENING, "TrainEpochStart", *A, *T, "ModelSave", *CLOSING]


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (RunStart, [*OPENING, *CLOSING]),
        (PretrainRoutineStart, [*OPENING, *CLOSING]),
        (TrainStart, [*OPENING, *CLOSING]),
        (TrainEpochStart, [*OPENING, "TrainEpochStart", *CLOSING]),
        (TrainBatchStart, [*OPENING, "TrainEpochStart", *T, "ModelSave", *CLOSING]),
        (TrainEpochEnd, [*OPENING, *EPOCH[: EPOCH.index("TrainEpochEnd") + 1], "ModelSave", *CLOSING]),
        (ValBatchEnd, [*OPENING, *EPOCH[: EPOCH.index("ValBatchEnd") + 1], "ModelSave", *CLOSING]),
        (ValEnd, [*OPENING, *EPOCH, *CLOSING]),
        (ModelSave, [*OPENING, *EPOCH, *CLOSING]),
        (FitEpochEnd, [*OPENING, *EPOCH, *CLOSING]),
        (TrainEnd, [*OPENING, *EPOCH, *EPOCH, *FINAL, *CLOSING]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_stop_from_a_hook_at_any_stage(tmp_path: Path, stage: type[Event], expected: list[str]) -> None:
    trainer = make_trainer(tmp_path)
    trainer.hook(stage)(lambda event, trainer: trainer.stop(f"at {event.type}"))
    events = follow(trainer)
    assert names(events) == expected
    outcome = "completed" if stage is TrainEnd else "stopped"  # by then there is nothing left to stop
    assert (events[-1].outcome, events[-2].outcome) == (outcome, outcome)  # type: ignore[attr-defined]


def test_a_stop_during_the_final_evaluation_breaks_it_off(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=1)
    starts = Counter[str]()

    @trainer.hook(ValStart)
    def stop(event: ValStart, trainer: Trainer) -> None:
        starts["val"] += 1
        if starts["val"] == 2:
            trainer.stop("in a hurry")

    events = follow(trainer)
    assert names(events) == [*OPENING, *EPOCH, *V[:3], *CLOSING]
    assert events[-1].reason == "in a hurry"  # type: ignore[attr-defined]


class Refused(Exception):
    pass


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_an_exception_in_a_hook_at_any_stage_fails_the_run(tmp_path: Path, stage: type[Event]) -> None:
    trainer = make_trainer(tmp_path)

    @trainer.hook(stage)
    def refuse(event: Event, trainer: Trainer) -> None:
        raise Refused("no")

    run = trainer.start()
    events = list(run.stream())
    with pytest.raises(Refused) as caught:
        run.result(PATIENCE)

    reached = names(events)
    until = reached.index(stage.__name__) + 1
    missing = [name for name in ("Teardown", "RunEnd") if name not in reached[:until]]
    if issubclass(stage, ValEvent):
        missing.insert(0, "ModelSave")  # the epoch is trained: it is not to be lost
    assert reached[until:] == missing
    assert reached == [*OPENING, *EPOCH, *EPOCH, *FINAL, *CLOSING][:until] + missing
    assert f"at {stage.__name__}" in caught.value.__notes__[0]
    for event in [event for event in events[until:] if isinstance(event, (Teardown, RunEnd))]:
        assert event.error is not None
        assert (event.outcome, event.error.type) == ("failed", f"{__name__}.Refused")
    assert run.state == "failed"


def test_an_exception_in_the_model_fails_the_run_with_its_traceback(tmp_path: Path) -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        raise ZeroDivisionError("in the step")

    trainer = make_trainer(tmp_path, loss=None, step=step, validate=False)
    run = trainer.start()
    events = list(run.stream())
    with pytest.raises(ZeroDivisionError, match="in the step"):
        run.result(PATIENCE)
    assert names(events) == [*OPENING, "TrainEpochStart", "TrainBatchStart", "Teardown", "RunEnd"]
    assert "raise ZeroDivisionError" in events[-1].error.traceback  # type: ignore[attr-defined]


def test_two_hooks_that_fail_one_after_the_other_do_not_hide_the_end(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)

    @trainer.hook(TrainStart, Teardown)
    def refuse(event: Event, trainer: Trainer) -> None:
        raise Refused(event.type)

    with pytest.raises(Refused, match="TrainStart") as caught:
        trainer.run()
    assert any("and then" in note and "Teardown" in note for note in caught.value.__notes__)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    epochs=st.integers(1, 3),
    batches=st.integers(1, 5),
    accumulate=st.integers(1, 3),
    validate=st.booleans(),
    every=st.integers(1, 3),
    stop=st.none() | st.tuples(st.integers(0, 2), st.integers(0, 4)),
)
def test_every_run_follows_the_grammar(
    tmp_path: Path, epochs: int, batches: int, accumulate: int, validate: bool, every: int, stop: tuple[int, int] | None
) -> None:
    trainer = make_trainer(
        tmp_path,
        train=make_loader(4 * batches),
        validate=validate,
        epochs=epochs,
        accumulate=accumulate,
        validate_every=every,
        overwrite=True,
    )

    @trainer.hook(TrainBatchEnd)
    def stop_there(event: TrainBatchEnd, trainer: Trainer) -> None:
        if (event.epoch, event.batch) == stop:
            trainer.stop()

    batch = r"TrainBatchStart (OptimizerStep ParamsUpdate BeforeZeroGrad )?TrainBatchEnd "
    val = r"ValStart (ValBatchStart ValBatchEnd )*ValEnd "
    epoch = rf"TrainEpochStart ({batch})*TrainEpochEnd ({val})?ModelSave FitEpochEnd "
    broken = rf"TrainEpochStart ({batch})*ModelSave "
    end = rf"(({val}FitEpochEnd )?|{broken})TrainEnd Teardown RunEnd "
    grammar = rf"RunStart PretrainRoutineStart PretrainRoutineEnd TrainStart ({epoch})*{end}"
    assert re.fullmatch(grammar, " ".join(names(follow(trainer))) + " ")


def test_the_payloads_say_what_a_reader_needs(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, name="payloads", clip_norm=1.0, ema_decay=0.9)
    events = follow(trainer)
    start, ready, end = of(events, RunStart)[0], of(events, PretrainRoutineEnd)[0], of(events, TrainEnd)[0]
    assert (start.kind, start.model, start.device, start.world_size) == ("train", "Sequential", "cpu", 1)
    assert start.config["clip_norm"] == 1.0
    assert (ready.parameters, ready.trainable, ready.batches, ready.val_batches) == (74, 74, 3, 2)
    assert {event.run for event in events} == {"payloads"}
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.step for event in of(events, TrainBatchEnd)] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in of(events, OptimizerStep)] == [0, 1, 2, 3, 4, 5]
    assert all(event.grad_norm > 0 for event in of(events, OptimizerStep))
    assert all(event.ema for event in of(events, ParamsUpdate))
    assert {event.batch_size for event in of(events, TrainBatchEnd)} == {4}
    assert of(events, TrainBatchEnd)[0].lr == {"0": 0.05}
    assert (end.epochs, end.step, end.last) == (2, 6, tmp_path / "run" / "last.pt")


def test_by_default_a_run_is_named_by_kind_time_and_chance_and_has_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = make_trainer(tmp_path, directory=None, epochs=1).run()
    assert re.fullmatch(r"train-\d{8}-\d{6}-[0-9a-f]{4}", result.run)
    assert result.last == Path("runs", result.run, "last.pt")
    assert Path("runs", result.run, "last.pt").is_file()


def test_the_mean_losses_are_weighted_by_batch_size(tmp_path: Path) -> None:
    train = make_loader(10)  # batches of 4, 4 and 2
    events = follow(make_trainer(tmp_path, train=train, validate=False, epochs=1))
    losses = [(event.loss, event.batch_size) for event in of(events, TrainBatchEnd)]
    mean = sum(loss * size for loss, size in losses) / 10
    assert of(events, TrainEpochEnd)[0].losses == {"loss": pytest.approx(mean)}
    assert of(events, TrainEpochEnd)[0].samples == 10


def test_a_mapping_of_losses_is_added_up_and_keeps_its_names(tmp_path: Path) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"ce": nn.functional.cross_entropy(outputs, targets), "size": 0.1 * outputs.pow(2).mean()}

    events = follow(make_trainer(tmp_path, loss=loss, epochs=1))
    batch = of(events, TrainBatchEnd)[0]
    assert batch.losses.keys() == {"ce", "size"}
    assert batch.loss == pytest.approx(sum(batch.losses.values()))
    assert of(events, TrainEpochEnd)[0].losses.keys() == {"ce", "size"}
    assert of(events, ValEnd)[0].losses.keys() == {"ce", "size"}


def test_the_parts_of_a_loss_keep_their_names_in_whatever_order_they_come(tmp_path: Path) -> None:
    orders = itertools.cycle([("small", "large"), ("large", "small")])

    def loss(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        values = {"small": outputs.mean() * 0 + 1, "large": outputs.mean() * 0 + 100}
        return {name: values[name] for name in next(orders)}

    events = follow(make_trainer(tmp_path, loss=loss, epochs=1))
    expected = {"small": 1, "large": 100}
    assert {tuple(sorted(event.losses.items())) for event in of(events, TrainBatchEnd)} == {
        (("large", 100), ("small", 1))
    }
    assert of(events, TrainEpochEnd)[0].losses == of(events, ValEnd)[0].losses == expected


def test_the_final_evaluation_is_of_the_best_weights_and_the_model_keeps_the_last(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=6, optimizer=sgd(3.0))
    kept: dict[int, dict[str, Tensor]] = {}

    @trainer.hook(ModelSave)
    def keep(event: ModelSave, trainer: Trainer) -> None:
        kept[event.epoch] = {name: value.clone() for name, value in trainer.model.state_dict().items()}

    *epochs, final = of(follow(trainer), FitEpochEnd)
    best = max(epochs, key=lambda event: (event.fitness, -event.epoch))
    assert final.final
    assert not any(event.final for event in epochs)
    assert (final.epoch, final.fitness, final.losses) == (best.epoch, best.fitness, best.losses)
    assert all(torch.equal(value, kept[5][name]) for name, value in trainer.model.state_dict().items())


def test_callbacks_see_the_batch_and_the_loss_in_work(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=1)
    seen: list[tuple[str, Any, Tensor | None]] = []
    losses: list[float] = []

    @trainer.hook(TrainBatchStart, TrainBatchEnd, TrainEpochEnd, ValBatchEnd)
    def note(event: Any, trainer: Trainer) -> None:
        seen.append((event.type, trainer.batch, trainer.loss))
        if isinstance(event, (TrainBatchEnd, ValBatchEnd)):
            losses.append(event.losses["loss"])

    trainer.run()
    assert [batch and len(batch[0]) for _, batch, _ in seen] == [4, 4, 4, 4, 4, 4, None, 4, 4, 4, 4]
    ends = [loss for name, _, loss in seen if name in ("TrainBatchEnd", "ValBatchEnd") and loss is not None]
    assert [loss.item() for loss in ends] == losses
    assert not any(loss.requires_grad for loss in ends)
    assert all(loss is None for name, _, loss in seen if name in ("TrainBatchStart", "TrainEpochEnd"))
    assert (trainer.batch, trainer.loss) == (None, None)


def test_callbacks_see_the_metrics_just_computed_at_the_end_of_the_validation(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    seen: list[Any] = []
    told: list[Any] = []
    trainer.add_callback("on_val_end", lambda trainer: seen.append((dict(trainer.metrics), trainer.fitness)))

    @trainer.hook(ValEnd)
    def note(event: ValEnd, trainer: Trainer) -> None:
        told.append(({**event.metrics, **event.losses}, event.fitness))

    trainer.run()
    assert len(seen) == 3
    assert seen == told


def test_a_failed_run_lets_go_of_its_batch(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=1)
    trainer.add_callback("on_train_batch_end", lambda trainer: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.run()
    assert (trainer.batch, trainer.loss) == (None, None)


def poisoned_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Nan for the batch that the target 1 leads in."""
    loss = nn.functional.cross_entropy(outputs, targets)
    return loss * math.nan if targets[0] == 1 else loss


def poisoned_trainer(folder: Path, **overrides: Any) -> Trainer:
    good, bad = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 0, 1, 0])
    batches = [(torch.randn(4, 4), good), (torch.randn(4, 4), bad), (torch.randn(4, 4), good)]
    return make_trainer(folder, train=batches, loss=poisoned_loss, validate=False, epochs=1, **overrides)


def test_a_loss_that_is_not_finite_is_reported_behind_its_batch_and_training_goes_on(tmp_path: Path) -> None:
    events = follow(poisoned_trainer(tmp_path))
    assert names(events)[4:-5] == ["TrainEpochStart", *T, *T, "NonFinite", *T, "NonFinite", "TrainEpochEnd"]
    first = of(events, NonFinite)[0]
    assert (first.epoch, first.batch, first.step) == (0, 1, 1)
    assert math.isnan(first.losses["loss"])


def test_a_loss_that_is_not_finite_can_stop_the_run_without_saving_it(tmp_path: Path) -> None:
    events = follow(poisoned_trainer(tmp_path, on_nonfinite="stop"))
    assert names(events) == [*OPENING, "TrainEpochStart", *T, *T, "NonFinite", *CLOSING]
    assert events[-1].reason == "the loss of batch 1 in epoch 0 is not finite"  # type: ignore[attr-defined]


def test_a_loss_that_is_not_finite_can_fail_the_run(tmp_path: Path) -> None:
    run = poisoned_trainer(tmp_path, on_nonfinite="fail").start()
    events = list(run.stream())
    assert names(events) == [*OPENING, "TrainEpochStart", *T, *T, "NonFinite", "Teardown", "RunEnd"]
    with pytest.raises(NonFiniteLoss, match=r"batch 1 in epoch 0 .* \(loss=nan\); lower the learning rate"):
        run.result(PATIENCE)


def test_a_step_that_the_scaler_skips_is_no_step(tmp_path: Path) -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        inputs, _ = batch
        outputs: Tensor = model(inputs)
        return outputs.float().mean() * (1e38 if inputs[0, 0] > 1e3 else 1.0)

    batches = [torch.ones(4, 4), torch.full((4, 4), 1e4), torch.ones(4, 4)]
    train = [(batch, torch.zeros(4)) for batch in batches]
    events = follow(
        make_trainer(
            tmp_path, train=train, loss=None, step=step, validate=False, epochs=1, amp="fp16", model=nn.Linear(4, 2)
        )
    )
    skipped = ["TrainBatchStart", "OptimizerStep", "OptimizerSkip", "BeforeZeroGrad", "TrainBatchEnd"]
    batch_events = [name for name in names(events)[5:] if name != "NonFinite"]
    assert batch_events[:15] == [*T, *skipped, *T]
    assert [event.step for event in of(events, TrainBatchEnd)] == [1, 1, 2]
    assert of(events, OptimizerSkip)[0].scale < 2.0**16
    assert names(events)[5:10] == ["TrainBatchStart", *STEP, "TrainBatchEnd"]
