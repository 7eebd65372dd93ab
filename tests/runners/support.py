"""Small models, data and trainers that the tests of the runners share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lineside.bus import Bus
from lineside.runners import Runner, Trainer
from lineside.schemas import Event

PATIENCE = 60.0
"""Seconds after which a wait that should have ended has failed."""

STEP = ["OptimizerStep", "ParamsUpdate", "BeforeZeroGrad"]
T = ["TrainBatchStart", *STEP, "TrainBatchEnd"]
"""A batch that completes its window."""
A = ["TrainBatchStart", "TrainBatchEnd"]
"""A batch that only accumulates."""
V = ["ValStart", "ValBatchStart", "ValBatchEnd", "ValBatchStart", "ValBatchEnd", "ValEnd"]
"""A validation of two batches."""
OPENING = ["RunStart", "PretrainRoutineStart", "PretrainRoutineEnd", "TrainStart"]
CLOSING = ["TrainEnd", "Teardown", "RunEnd"]


def make_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 2))


def make_data(size: int = 12, seed: int = 1) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 4, generator=generator)
    return TensorDataset(inputs, (inputs.sum(1) > 0).long())


def make_loader(size: int = 12, batch_size: int = 4, **options: Any) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(make_data(size), batch_size, **{"shuffle": True, **options})


def make_trainer(
    folder: Path,
    *,
    model: nn.Module | None = None,
    train: Iterable[Any] | None = None,
    validate: bool = True,
    bus: Bus | None = None,
    **overrides: Any,
) -> Trainer:
    """Three batches an epoch, two of validation; Adam, cross entropy, accuracy, on the CPU."""
    parts: dict[str, Any] = {"loss": nn.CrossEntropyLoss(), "optimizer": make_optimizer}
    if validate:
        parts["val"] = make_loader(8, shuffle=False)
        parts["metrics"] = {"accuracy": MulticlassAccuracy(2, average="micro")}
    settings = {"device": "cpu", "epochs": 2, "directory": folder / "run"}
    arguments = {**parts, **settings, **overrides}
    return Trainer(model or make_model(), make_loader() if train is None else train, bus=bus, **arguments)


def make_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.05)


def follow(runner: Runner[Any, Any]) -> list[Event]:
    """Run `runner` to its end, however it ends, and return what it published."""
    run = runner.start()
    events = list(run.stream())
    assert run.done() or run.result(PATIENCE) is not None
    return events


def names(events: Iterable[Event]) -> list[str]:
    return [event.type for event in events]


def of(events: Iterable[Event], cls: type[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, cls)]


def same_state(one: Any, other: Any) -> bool:
    """Whether two states hold the same values, bit for bit."""
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same_state, one, other))
    return bool(one == other)
