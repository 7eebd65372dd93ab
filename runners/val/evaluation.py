"""`Evaluator`: the validation that `Validator` and `Trainer` share, from ``ValStart`` to ``ValEnd``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from ...schemas import Event, ValBatchEnd, ValBatchStart, ValEnd, ValStart
from ..feed import Batch, Feed
from ..inference import evaluating
from ..objective import Loss, Objective
from ..scalars import Mean, Scalars, Snapshot
from .metrics import Fitness, Meters


class Reporter(Protocol):
    """What an evaluation needs of the runner it is a part of."""

    def reach(self, event: type[Event], /, **fields: object) -> None:
        """Say that a stage is reached."""
        ...

    def reach_when(self, snapshot: Snapshot, event: type[Event], /, **fields: object) -> None:
        """Say so, with fields that are on their way."""
        ...


@dataclass(frozen=True)
class Setting:
    """Where and how to compute."""

    device: torch.device
    scalars: Scalars
    precision: Callable[[], AbstractContextManager[object]]
    """The context of the forward pass."""
    add_up: Callable[[Sequence[float]], list[float]]
    """Adds numbers up over the processes of a distributed run."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    metrics: dict[str, float]
    losses: dict[str, float]
    """Means by name, weighted by batch size; a total that is the sum of parts is left out."""
    fitness: float | None
    batches: int
    samples: int
    duration: float
    speed: dict[str, float]
    """Milliseconds a sample, by part."""


@dataclass
class _Tally:
    """What is counted on the way."""

    loss: Mean
    names: tuple[str, ...] = ()
    batches: int = 0
    samples: int = 0
    data: float = 0.0
    inference: float = 0.0
    metrics: float = 0.0

    def speed(self) -> dict[str, float]:
        """Return milliseconds a sample, by part."""
        parts = {"data": self.data, "inference": self.inference, "metrics": self.metrics}
        return {part: 1000 * seconds / max(self.samples, 1) for part, seconds in parts.items()}


class Evaluator:
    """Evaluates a module on the validation data, and reports every stage."""

    def __init__(
        self,
        reporter: Reporter,
        setting: Setting,
        feed: Feed,
        objective: Objective,
        meters: Meters,
        fitness: Fitness,
    ) -> None:
        self.feed = feed
        self._reporter = reporter
        self._setting = setting
        self._objective = objective
        self._meters = meters
        self._fitness = fitness

    def evaluate(self, model: nn.Module, interrupted: Callable[[], bool], epoch: int = 0) -> Evaluation | None:
        """Evaluate `model` in eval mode; every submodule gets back the mode it had.

        `interrupted` is asked between two batches: true breaks the evaluation off, and None is returned.
        """
        begin = time.perf_counter()
        tally = _Tally(Mean(self._setting.scalars))
        self._meters.reset(self._setting.device)
        self._reporter.reach(ValStart, epoch=epoch, batches=self.feed.batches)
        with evaluating(model):
            for batch in self.feed.epoch():
                self._evaluate_batch(model, batch, epoch, tally)
                if interrupted():
                    return None
        evaluation = self._conclude(tally, begin)
        self._reach_end(evaluation, epoch)
        return evaluation

    def _evaluate_batch(self, model: nn.Module, batch: Batch, epoch: int, tally: _Tally) -> None:
        where = {"epoch": epoch, "batch": batch.index, "batches": batch.batches, "batch_size": batch.size}
        self._reporter.reach(ValBatchStart, **where)
        loss = self._compute(model, batch, tally)
        tally.batches += 1
        tally.samples += batch.size
        tally.data += batch.waited
        if loss is None:
            self._reporter.reach(ValBatchEnd, **where, losses={})
            return
        snapshot = self._setting.scalars.take(list(loss.parts.values()), _LossFields(loss.names))
        tally.names = loss.names
        tally.loss.add(snapshot, batch.size)
        self._reporter.reach_when(snapshot, ValBatchEnd, **where)

    def _compute(self, model: nn.Module, batch: Batch, tally: _Tally) -> Loss | None:
        # The runner's hooks are not in here: what they make must not become inference tensors.
        with torch.inference_mode(), self._setting.scalars.computing:
            begin = time.perf_counter()
            with self._setting.precision():
                evaluated = self._objective.evaluate(model, batch.data, outputs=bool(self._meters))
            computed = time.perf_counter()
            self._meters.update(evaluated.outputs, evaluated.targets)
        tally.inference += computed - begin
        tally.metrics += time.perf_counter() - computed
        return evaluated.loss

    def _conclude(self, tally: _Tally, begin: float) -> Evaluation:
        with torch.inference_mode():
            metrics = self._meters.compute(self._setting.scalars)
        *sums, weight = self._setting.add_up([*tally.loss.sums(), tally.loss.weight])
        losses = {name: total / weight for name, total in zip(tally.names, sums, strict=True)}
        return Evaluation(
            metrics=metrics,
            losses=losses,
            fitness=self._fitness.of(metrics, losses),
            batches=tally.batches,
            samples=tally.samples,
            duration=time.perf_counter() - begin,
            speed=tally.speed(),
        )

    def _reach_end(self, evaluation: Evaluation, epoch: int) -> None:
        self._reporter.reach(
            ValEnd,
            epoch=epoch,
            batches=evaluation.batches,
            samples=evaluation.samples,
            metrics=evaluation.metrics,
            losses=evaluation.losses,
            fitness=evaluation.fitness,
            duration=evaluation.duration,
            speed=evaluation.speed,
        )


@dataclass(frozen=True)
class _LossFields:
    """Makes the fields of `ValBatchEnd` of a loss's values."""

    names: tuple[str, ...] = field(default=())

    def __call__(self, values: Sequence[float]) -> Mapping[str, object]:
        return {"losses": dict(zip(self.names, values, strict=True))}
