"""`Evaluator`: the validation that `Validator` and `Trainer` share, from ``ValStart`` to ``ValEnd``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from ...schemas import ValBatchEnd, ValBatchStart, ValEnd, ValStart
from ..feed import Batch, Feed
from ..identity import Identity
from ..inference import evaluating
from ..objective import Loss, Objective
from ..reporter import Reporter
from ..results import ValResult
from ..scalars import Scalars
from .losses import MeanLosses
from .metrics import Direction, Fitness, Meters, refuse_same_names


@dataclass(frozen=True)
class Setting:
    """Where and how to compute."""

    device: torch.device
    scalars: Scalars
    precision: Callable[[], AbstractContextManager[object]]
    """The context of the forward pass."""
    add_up: Callable[[Sequence[float]], list[float]]
    """Adds numbers up over the processes of a distributed run."""
    alone: bool = False
    """Whether the metrics are of this process only, and no other has to compute them too."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found. One that was broken off has counted, and found nothing."""

    batches: int
    samples: int
    duration: float
    speed: dict[str, float]
    """Milliseconds a sample, by part."""
    complete: bool = False
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    losses: dict[str, float] = field(default_factory=dict[str, float])
    """Means by name, weighted by batch size; a total that is the sum of parts is left out."""
    fitness: float | None = None
    direction: Direction | None = None
    """Which is better of the number that is the fitness."""

    @property
    def scores(self) -> dict[str, float]:
        """Metrics and losses."""
        return {**self.metrics, **self.losses}

    def result(self, run: Identity, duration: float, broken_off: str | None) -> ValResult:
        """Return it as the result of `run`; `broken_off` is why it was, if it was."""
        return ValResult(
            run=run.run,
            attempt=run.attempt,
            outcome="completed" if self.complete else "stopped",
            reason=None if self.complete else broken_off,
            duration=duration,
            metrics=self.metrics,
            losses=self.losses,
            fitness=self.fitness,
            batches=self.batches,
            samples=self.samples,
            speed=self.speed,
        )


class _Tally:
    """What is counted on the way."""

    def __init__(self, scalars: Scalars) -> None:
        self._begin = time.perf_counter()
        self.losses = MeanLosses(scalars)
        self.batches = self.samples = 0
        self.seconds = {"data": 0.0, "inference": 0.0, "metrics": 0.0}

    def evaluation(self) -> Evaluation:
        """Return what was counted."""
        speed = {part: 1000 * seconds / max(self.samples, 1) for part, seconds in self.seconds.items()}
        return Evaluation(self.batches, self.samples, time.perf_counter() - self._begin, speed)


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

    def refuse_names(self, loss: Loss) -> None:
        """Given a loss with its names, refuse what validation would refuse in the end, as far as that is sure.

        Raises:
            UnknownFitness: nothing of the name that is wanted will be computed.
            InvalidArgument: a metric and a loss have the same name.
        """
        names = self._meters.names
        refuse_same_names(names, loss.parts, loss.reported)
        if self._objective.same_in_validation and self._meters.names_are_sure:
            self._fitness.refuse_unknown([*names, *loss.names])

    def evaluate(
        self,
        model: nn.Module,
        interrupted: Callable[[], bool],
        found: Callable[[Evaluation], None],
        epoch: int = 0,
    ) -> Evaluation:
        """Evaluate `model` in eval mode; every submodule gets back the mode it had.

        `interrupted` is asked between two batches: true breaks the evaluation off. `found` gets what a complete one
        has found before ``ValEnd`` is reached.
        """
        tally = _Tally(self._setting.scalars)
        self._meters.reset(self._setting.device)
        self._reporter.reach(ValStart, epoch=epoch, batches=self.feed.batches)
        with evaluating(model):
            complete = self._evaluate_batches(model, interrupted, epoch, tally)
        if not complete:
            return tally.evaluation()
        evaluation = self._conclude(tally)
        found(evaluation)
        self._reach_end(evaluation, epoch)
        return evaluation

    def _evaluate_batches(self, model: nn.Module, interrupted: Callable[[], bool], epoch: int, tally: _Tally) -> bool:
        try:
            for batch in self.feed.epoch(self._setting.device):
                self._evaluate_batch(model, batch, epoch, tally)
                if interrupted():
                    return False
        finally:
            self._reporter.batch = self._reporter.loss = None
        return True

    def _evaluate_batch(self, model: nn.Module, batch: Batch, epoch: int, tally: _Tally) -> None:
        reporter = self._reporter
        where = {"epoch": epoch, "batch": batch.index, "batches": batch.batches, "batch_size": batch.size}
        reporter.batch, reporter.loss = batch.data, None
        reporter.reach(ValBatchStart, **where)
        loss = self._compute(model, batch, tally)
        tally.batches += 1
        tally.samples += batch.size
        tally.seconds["data"] += batch.waited
        if loss is None:
            reporter.reach(ValBatchEnd, **where, losses={})
            return
        reporter.loss = loss.total.detach()
        reporter.reach_when(tally.losses.count(loss, batch.size), ValBatchEnd, **where)

    def _compute(self, model: nn.Module, batch: Batch, tally: _Tally) -> Loss | None:
        # No inference mode: what the model computes once and keeps, a mask say, is to be trained with afterwards.
        with torch.no_grad(), self._setting.scalars.computing:
            begin = time.perf_counter()
            with self._setting.precision():
                evaluated = self._objective.evaluate(model, batch.data, outputs=bool(self._meters))
            computed = time.perf_counter()
            self._meters.update(evaluated.outputs, evaluated.targets)
        tally.seconds["inference"] += computed - begin
        tally.seconds["metrics"] += time.perf_counter() - computed
        return evaluated.loss

    def _conclude(self, tally: _Tally) -> Evaluation:
        apart = self._meters.apart() if self._setting.alone else nullcontext()
        with torch.no_grad(), apart:
            metrics = self._meters.compute(self._setting.scalars)
        losses = tally.losses.means(self._setting.add_up)
        reported = {name: losses.pop(name) for name in tally.losses.reported}
        refuse_same_names(metrics, losses, reported)
        return replace(
            tally.evaluation(),
            complete=True,
            metrics={**metrics, **reported},
            losses=losses,
            fitness=self._fitness.of(metrics, losses, reported),
            direction=self._fitness.direction(metrics, losses, reported),
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
