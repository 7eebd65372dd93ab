from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lineside.runners import InvalidArgument, Trainer
from lineside.schemas import FitEpochEnd, OptimizerStep, ParamsUpdate, TrainBatchEnd, TrainEpochStart

from .support import (
    follow,
    make_data,
    make_loader,
    make_model,
    make_trainer,
    of,
    same_state,
    scheduled,
    seed_torch,
    sgd,
)


def linear() -> nn.Linear:
    seed_torch(0)
    return nn.Linear(4, 2)


def trained(folder: Path, **overrides: Any) -> dict[str, Tensor]:
    trainer = make_trainer(folder, model=linear(), optimizer=sgd(0.1), validate=False, save=False, **overrides)
    trainer.run()
    return dict(trainer.model.state_dict())


def test_the_loop_trains_as_a_loop_written_by_hand_does(tmp_path: Path) -> None:
    model = linear()
    optimizer = sgd(0.1)(model.parameters())
    for _ in range(2):
        for inputs, targets in make_loader(shuffle=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert same_state(trained(tmp_path, train=make_loader(shuffle=False)), dict(model.state_dict()))


@pytest.mark.parametrize("size", [12, 10], ids=["whole windows", "a shorter last window"])
def test_accumulated_batches_step_like_one_large_batch(tmp_path: Path, size: int) -> None:
    large = trained(tmp_path, train=make_loader(size, 4, shuffle=False))
    small = trained(tmp_path, train=make_loader(size, 2, shuffle=False), accumulate=2)
    for name, value in large.items():
        torch.testing.assert_close(small[name], value)


def test_gradients_are_clipped_before_the_hook_sees_them(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, validate=False, epochs=1, clip_norm=1e-3)
    norms: list[tuple[float, float]] = []

    @trainer.hook(OptimizerStep)
    def measure(event: OptimizerStep, trainer: Trainer) -> None:
        gradients = [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
        assert event.grad_norm is not None
        norms.append((event.grad_norm, float(nn.utils.get_total_norm(gradients))))

    trainer.run()
    assert len(norms) == 3
    assert all(before > 1e-3 for before, _ in norms)
    assert [after for _, after in norms] == pytest.approx([1e-3] * 3, rel=1e-2)


def test_the_moving_average_is_that_of_torch(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, ema_decay=0.5)
    reference = AveragedModel(trainer.model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)  # type: ignore[no-untyped-call]
    trainer.hook(ParamsUpdate)(lambda _, trainer: reference.update_parameters(trainer.model))
    trainer.run()
    assert trainer.ema is not None
    assert same_state(dict(trainer.ema.state_dict()), dict(reference.module.state_dict()))
    assert not same_state(dict(trainer.ema.state_dict()), dict(trainer.model.state_dict()))


def test_the_moving_average_is_what_is_validated(tmp_path: Path) -> None:
    validated: list[nn.Module] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()

        def forward(self, inputs: Tensor) -> Tensor:
            if not self.training:
                validated.append(self)
            outputs: Tensor = self.linear(inputs)
            return outputs

    trainer = make_trainer(tmp_path, model=Spy(), ema_decay=0.9, epochs=1)
    trainer.run()
    assert set(map(id, validated)) == {id(trainer.ema)}


def test_a_schedule_by_epoch_changes_the_rate_between_epochs(tmp_path: Path) -> None:
    events = follow(make_trainer(tmp_path, epochs=3, scheduler=scheduled(lr_scheduler.StepLR, 1, gamma=0.1)))
    rates = [event.lr["0"] for event in of(events, TrainEpochStart)]
    assert rates == pytest.approx([0.05, 0.005, 0.0005])


def test_a_schedule_by_step_changes_the_rate_after_each_step(tmp_path: Path) -> None:
    scheduler = scheduled(lr_scheduler.LinearLR, 0.5, 1.0, 2)
    events = follow(make_trainer(tmp_path, epochs=1, schedule="step", scheduler=scheduler))
    assert [event.lr["0"] for event in of(events, OptimizerStep)] == pytest.approx([0.025, 0.0375, 0.05])
    assert [event.lr["0"] for event in of(events, TrainBatchEnd)] == pytest.approx([0.025, 0.0375, 0.05])


def test_the_rates_are_named_by_the_groups_of_the_optimizer(tmp_path: Path) -> None:
    def groups(parameters: Any) -> torch.optim.Optimizer:
        first, *rest = parameters
        return torch.optim.SGD([{"params": [first], "name": "stem", "lr": 0.1}, {"params": rest, "lr": 0.2}])

    events = follow(make_trainer(tmp_path, optimizer=groups, epochs=1))
    assert of(events, TrainEpochStart)[0].lr == {"stem": 0.1, "1": 0.2}


@pytest.mark.parametrize(
    ("settings", "mode"),
    [({}, "max"), ({"fitness": "loss"}, "min"), ({"metrics": None}, "min"), ({"mode": "min"}, "min")],
)
def test_a_plateau_scheduler_gets_what_is_to_be_improved_as_it_was_computed(
    tmp_path: Path, settings: dict[str, Any], mode: str
) -> None:
    seen: list[float] = []

    class Plateau(lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: Any = None) -> None:  # type: ignore[override]  # as torch's own has it
            seen.append(float(metrics))
            super().step(metrics, epoch)  # pyright: ignore[reportUnknownMemberType]

    events = follow(make_trainer(tmp_path, scheduler=scheduled(Plateau, mode=mode), **settings))
    fitness = [event.fitness for event in of(events, FitEpochEnd) if not event.final]
    assert seen == [value if mode == "max" else -value for value in fitness]


def test_a_plateau_scheduler_reduces_the_rate_when_the_accuracy_stands_still(tmp_path: Path) -> None:
    scheduler = scheduled(lr_scheduler.ReduceLROnPlateau, mode="max", patience=0)
    trainer = make_trainer(tmp_path, model=linear(), optimizer=sgd(1e-6), epochs=3, scheduler=scheduler)
    rates = [event.lr["0"] for event in of(follow(trainer), TrainEpochStart)]
    assert rates == pytest.approx([1e-6, 1e-6, 1e-7])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "max"),
        ({"fitness": "accuracy"}, "max"),
        ({"fitness": "loss"}, "min"),
        ({"metrics": None}, "min"),
        ({"mode": "min"}, "min"),
        ({"fitness": "loss", "mode": "max"}, "max"),
        ({"validate": False}, "min"),
    ],
)
def test_a_plateau_scheduler_that_looks_the_other_way_is_refused_in_the_constructor(
    tmp_path: Path, settings: dict[str, Any], expected: str
) -> None:
    given = {"max": "min", "min": "max"}[expected]
    scheduler = scheduled(lr_scheduler.ReduceLROnPlateau, mode=given)
    with pytest.raises(InvalidArgument, match=f"make it with mode='{expected}'"):
        make_trainer(tmp_path, scheduler=scheduler, **settings)


def test_a_plateau_scheduler_that_looks_the_other_way_is_refused_as_soon_as_the_fitness_is_known(
    tmp_path: Path,
) -> None:
    def step(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        return {"ce": nn.functional.cross_entropy(model(batch[0]), batch[1])}

    scheduler = scheduled(lr_scheduler.ReduceLROnPlateau, mode="max")
    trainer = make_trainer(tmp_path, scheduler=scheduler, loss=None, step=step, metrics=None, fitness="ce")
    with pytest.raises(InvalidArgument, match="make it with mode='min'"):
        trainer.run()


def test_every_run_of_a_trainer_has_the_schedule_from_its_beginning(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=3, save=False, scheduler=scheduled(lr_scheduler.StepLR, 1, gamma=0.1))
    for _ in range(2):
        rates = [event.lr["0"] for event in of(follow(trainer), TrainEpochStart)]
        assert rates == pytest.approx([0.05, 0.005, 0.0005])


def test_validation_leaves_nothing_in_the_model_that_cannot_be_trained_with(tmp_path: Path) -> None:
    class Cached(nn.Module):
        """Keeps the positions it has computed, for the longest batch so far."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()
            self.positions = torch.zeros(0, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            if len(inputs) > len(self.positions):
                self.positions = torch.ones(len(inputs), 2)
            outputs: Tensor = self.linear(inputs) * self.positions[: len(inputs)]
            return outputs

    trainer = make_trainer(tmp_path, model=Cached(), val=make_loader(8, 8, shuffle=False))
    assert trainer.run().epochs == 2


def test_a_plateau_scheduler_without_validation_gets_the_training_loss(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, validate=False, scheduler=scheduled(lr_scheduler.ReduceLROnPlateau))
    trainer.run()
    assert isinstance(trainer.scheduler, lr_scheduler.ReduceLROnPlateau)
    assert trainer.scheduler.best < float("inf")


def test_the_fitness_may_be_a_loss_and_the_best_epoch_is_where_it_was_least(tmp_path: Path) -> None:
    events = follow(make_trainer(tmp_path, epochs=4, fitness="loss"))
    *epochs, final = of(events, FitEpochEnd)
    best = min(epochs, key=lambda event: event.metrics["loss"])
    assert (final.epoch, final.best_epoch, final.best_fitness) == (best.epoch, best.epoch, -best.metrics["loss"])


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    states: list[dict[str, Tensor]] = []
    for attempt in ("one", "other"):
        trainer = make_trainer(tmp_path / attempt, seed=5)
        trainer.run()
        states.append(dict(trainer.model.state_dict()))
    assert same_state(*states)


def test_deterministic_algorithms_are_used_for_the_length_of_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, deterministic=True, epochs=1)
    during: list[bool] = []
    trainer.add_callback("on_train_start", lambda _: during.append(torch.are_deterministic_algorithms_enabled()))
    trainer.run()
    assert during == [True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_choice_to_be_only_warned_of_algorithms_comes_back_after_a_deterministic_run(tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        make_trainer(tmp_path, deterministic=True, epochs=1).run()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_bf16_computes_the_forward_pass_in_less_precision(tmp_path: Path) -> None:
    dtypes: set[torch.dtype] = set()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        dtypes.add(outputs.dtype)
        return nn.functional.cross_entropy(outputs, targets)

    trainer = make_trainer(tmp_path, loss=loss, amp="bf16", epochs=1)
    trainer.run()
    assert dtypes == {torch.bfloat16}
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}


def test_a_hook_may_freeze_a_part_of_the_model_for_all_epochs(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.add_callback("on_train_start", lambda trainer: trainer.model.get_submodule("1").eval())
    modes: list[bool] = []
    trainer.add_callback("on_train_batch_end", lambda trainer: modes.append(trainer.model.get_submodule("1").training))
    trainer.run()
    assert modes == [False] * 6


def test_a_step_takes_batches_of_any_form(tmp_path: Path) -> None:
    inputs, targets = make_data().tensors
    batches = [{"x": inputs[i : i + 4], "y": targets[i : i + 4]} for i in (0, 4, 8)]

    def step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    trainer = make_trainer(tmp_path, train=batches, val=batches, loss=None, step=step, metrics=None)
    events = follow(trainer)
    assert {event.batch_size for event in of(events, TrainBatchEnd)} == {4}
    assert of(events, FitEpochEnd)[0].metrics.keys() == {"loss"}


def test_a_compiled_model_trains_and_its_weights_keep_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(cast("Any", torch).compile, backend="eager"))
    model = make_model()
    make_trainer(tmp_path, model=model, compile=True, epochs=1).run()
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"].keys() == model.state_dict().keys()
