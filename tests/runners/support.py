"""Small models, data and trainers that the tests of the runners share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lineside.bus import Bus
from lineside.runners import ReadyRunner, Run, Trainer, TrainResult
from lineside.schemas import Event, RunEnd, RunStart, TrainStart

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
    seed_torch(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 2))


def seed_torch(seed: int) -> None:
    torch.default_generator.manual_seed(seed)


def make_data(size: int = 12, seed: int = 1) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 4, generator=generator)
    return TensorDataset(inputs, (inputs.sum(1) > 0).long())


def make_loader(size: int = 12, batch_size: int = 4, **options: Any) -> DataLoader[tuple[Tensor, ...]]:
    settings: dict[str, Any] = {"shuffle": True, **options}
    return DataLoader(make_data(size), batch_size, **settings)


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
    settings: dict[str, Any] = {"device": "cpu", "epochs": 2, "directory": folder / "run"}
    arguments = {**parts, **settings, **overrides}
    return Trainer(model or make_model(), make_loader() if train is None else train, bus=bus, **arguments)


class Gate:
    """Keeps a run at a stage until it is opened."""

    def __init__(self, trainer: Trainer, stage: type[Event] = TrainStart) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        trainer.hook(stage)(self._wait)

    def _wait(self, event: Event, trainer: Trainer) -> None:
        self.reached.set()
        assert self._open.wait(PATIENCE)

    def open(self) -> None:
        self._open.set()


def start(trainer: Trainer) -> Run[TrainResult]:
    """Start a run whose loop begins when the caller next waits on its event loop: what it waits for is not missed."""
    gate = Gate(trainer, RunStart)
    loop = asyncio.get_running_loop()

    def open_after(turns: int) -> None:
        if turns:
            loop.call_soon(open_after, turns - 1)
        else:
            gate.open()

    run = trainer.start()
    loop.call_soon(open_after, 5)  # a task that the caller makes begins to wait a turn or two later
    return run


def make_optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.Adam(parameters, lr=0.05)


def sgd(rate: float) -> Callable[[Iterable[nn.Parameter]], Optimizer]:
    """Plain gradient descent."""
    return lambda parameters: torch.optim.SGD(parameters, lr=rate)


def scheduled(kind: type[LRScheduler], *arguments: Any, **options: Any) -> Callable[[Optimizer], LRScheduler]:
    """A function that makes a scheduler of that kind."""
    make: Callable[..., LRScheduler] = kind
    return lambda optimizer: make(optimizer, *arguments, **options)


def follow(runner: ReadyRunner[Any, Any]) -> list[Event]:
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
    if isinstance(one, Mapping):
        pairs = cast("Mapping[str, object]", one)
        return pairs.keys() == other.keys() and all(same_state(pairs[key], other[key]) for key in pairs)
    if isinstance(one, (list, tuple)):
        items = cast("Sequence[object]", one)
        return len(items) == len(other) and all(map(same_state, items, other))
    return bool(one == other)


def events_of_run(bus: Bus, run: str | None = None) -> list[Event]:
    """Wait for a run to end, the only one unless told otherwise, and return its events."""
    found: list[Event] = []
    with bus.stream(Event, since="start") as events:
        for event in events:
            if run in (None, event.run):
                found.append(event)
                if isinstance(event, RunEnd):
                    break
    return found


async def aevents_of_run(bus: Bus) -> list[Event]:
    """Like `events_of_run`, without holding up the loop."""
    async with bus.stream(RunEnd, since="start") as ends:
        await anext(ends)
    return events_of_run(bus)


def types(events: Iterable[Event]) -> list[str]:
    return [event.type for event in events]


def stop_at(trainer: Trainer, stage: type[Event], epoch: int, batch: int = -1) -> None:
    @trainer.hook(stage)
    def stop(event: Any, trainer: Trainer) -> None:
        if event.epoch == epoch and getattr(event, "batch", batch) == batch:
            trainer.stop()
