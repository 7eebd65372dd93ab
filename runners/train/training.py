"""`Training`: the loop of one training run, from ``TrainStart`` to ``TrainEnd``."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...schemas import (
    BeforeZeroGrad,
    FitEpochEnd,
    ModelSave,
    OptimizerSkip,
    OptimizerStep,
    ParamsUpdate,
    TrainBatchEnd,
    TrainBatchStart,
    TrainEnd,
    TrainEpochEnd,
    TrainEpochStart,
    TrainStart,
)
from ..config import TrainConfig
from ..control import Control
from ..feed import Batch, Feed
from ..runner import Ending
from ..scalars import Scalars
from ..val.evaluation import Evaluation, Evaluator, Reporter
from . import random_state
from .distributed import Group
from .keeper import Draws, Keeper
from .limits import Limits, Wish
from .losses import EpochLosses
from .progress import Progress
from .schedule import Schedule
from .stepper import Stepper


@dataclass(frozen=True)
class Setup:
    """What a training run works with."""

    config: TrainConfig
    group: Group
    scalars: Scalars
    feed: Feed
    stepper: Stepper
    schedule: Schedule
    keeper: Keeper
    evaluator: Evaluator | None
    """None without validation data."""


class Training:
    """Trains epoch after epoch until a limit is reached or somebody asks for a stop.

    Args:
        reporter: The runner whose stages these are.
        control: What is asked of it.
        elapsed: Gives the seconds since the run began.
        setup: What it works with.
        progress: How far the run has come.
        resumed: Where the random generators stood at the checkpoint that the run goes on from.
    """

    def __init__(
        self,
        reporter: Reporter,
        control: Control,
        elapsed: Callable[[], float],
        setup: Setup,
        progress: Progress,
        resumed: Draws | None,
    ) -> None:
        self._reach = reporter.reach
        self._reach_when = reporter.reach_when
        self._setup = setup
        self._config = setup.config
        self._limits = Limits(setup.config, control, elapsed, setup.group)
        self._losses = EpochLosses(setup.scalars, reporter.reach, setup.config.on_nonfinite, control.stop)
        self._progress = progress
        self._resumed = resumed
        self._ending: Ending | None = None
        self._kept = progress.position
        """The position of the latest checkpoint."""
        self._samples_before = 0
        """Samples of the epoch in work that an earlier attempt was trained on."""
        self._opened: random_state.State | None = None
        """The generators when the loader of the epoch in work was opened."""
        self._trained: random_state.State | None = None
        """The generators when the batches of the epoch in work were done; only while it is validated."""

    def run(self) -> Ending:
        """Train, and return how it ended. Raises whatever ends it otherwise."""
        began = time.perf_counter()
        self._start()
        while not self._over():
            self._fit_epoch()
        ending = self._ending or Ending("completed")
        if ending.outcome == "stopped":
            self._keep_unsaved()
        else:
            self._evaluate_best()
        self._end(time.perf_counter() - began)
        return self._ending or ending

    def _start(self) -> None:
        progress = self._progress
        self._reach(
            TrainStart,
            epoch=progress.epoch,
            epochs=self._config.epochs,
            batches=self._setup.feed.batches,
            step=progress.step,
        )

    # ---- an epoch

    def _fit_epoch(self) -> None:
        """Train, validate and save one epoch; a stop leaves it where it is."""
        began = time.perf_counter()
        resumed, self._resumed = self._resumed, None
        if resumed is not None and resumed.epoch is None:
            self._restore(resumed.now)
            resumed = None
        self._open_epoch()
        self._train_epoch(resumed)
        if self._ending is not None:
            return
        self._close_training(time.perf_counter() - began)
        evaluation = self._validate()
        if self._ending is None:
            self._close_epoch(evaluation, began)

    def _open_epoch(self) -> None:
        progress, setup = self._progress, self._setup
        progress.at_hand = progress.epoch
        setup.feed.set_epoch(progress.epoch)
        setup.stepper.zero_grad()  # of a last window that data with a wrong length left open
        self._losses.open(progress)
        self._samples_before = progress.samples
        self._reach(
            TrainEpochStart,
            epoch=progress.epoch,
            epochs=self._config.epochs,
            batches=setup.feed.batches,
            lr=setup.schedule.rates(),
        )

    def _train_epoch(self, resumed: Draws | None) -> None:
        if self._progress.trained or self._stops():  # all batches were done before the resume; or a hook said so
            return
        for batch in self._batches(resumed):
            complete = self._completes_window(batch)
            self._train_batch(batch, complete=complete)
            if self._leaves_epoch(complete=complete):
                break

    def _batches(self, resumed: Draws | None) -> Iterator[Batch]:
        """Return the batches to come: on resuming, those the interrupted attempt had before it, in the same order."""
        feed, windows = self._setup.feed, self._config.accumulate > 1
        if resumed is None or resumed.epoch is None:
            self._opened = self._draw_state()
            return feed.epoch(mark_last=windows)
        self._opened = resumed.epoch
        self._restore(resumed.epoch)
        now = resumed.now
        return feed.epoch(skip=self._progress.batch, mark_last=windows, skipped=lambda: self._restore(now))

    # ---- a batch

    def _train_batch(self, batch: Batch, *, complete: bool) -> None:
        setup, progress = self._setup, self._progress
        where = {
            "epoch": progress.epoch,
            "batch": batch.index,
            "batches": batch.batches,
            "batch_size": batch.size,
        }
        self._reach(TrainBatchStart, **where, data_seconds=batch.waited)
        began, step, rates = time.perf_counter(), progress.step, setup.schedule.rates()
        with setup.scalars.computing:
            loss = setup.stepper.accumulate(batch.data, self._window(batch), complete=complete)
        if complete:
            self._step_optimizer(where, rates)
        snapshot = self._losses.count(loss, batch.size, progress, batch.index, step)
        progress.count(batch.index, batch.size)
        seconds = time.perf_counter() - began
        self._reach_when(snapshot, TrainBatchEnd, **where, step=progress.step, lr=rates, seconds=seconds)
        self._losses.check()

    def _step_optimizer(self, where: Mapping[str, object], rates: Mapping[str, float]) -> None:
        setup, progress = self._setup, self._progress
        with setup.scalars.computing:
            norm = setup.stepper.finish_gradients()
        if norm is None:
            self._reach(OptimizerStep, **where, step=progress.step, lr=rates)
        else:
            snapshot = setup.scalars.take([norm], _norm_field)
            self._reach_when(snapshot, OptimizerStep, **where, step=progress.step, lr=rates)
        with setup.scalars.computing:
            stepped = setup.stepper.step()
        if stepped:
            progress.step += 1
            self._reach(ParamsUpdate, **where, step=progress.step, ema=setup.stepper.ema is not None)
            setup.schedule.after_step()
        else:
            self._reach(OptimizerSkip, **where, step=progress.step, scale=setup.stepper.scale)
        self._reach(BeforeZeroGrad, **where, step=progress.step)
        setup.stepper.zero_grad()

    def _completes_window(self, batch: Batch) -> bool:
        return batch.last or (batch.index + 1) % self._config.accumulate == 0

    def _window(self, batch: Batch) -> int:
        """Return the batches of the window that `batch` is in; the last window of an epoch may be shorter."""
        whole = self._config.accumulate
        if batch.batches is None:
            return whole
        return max(min(whole, batch.batches - batch.index + batch.index % whole), 1)

    def _leaves_epoch(self, *, complete: bool) -> bool:
        """Between two batches: stand still while paused; at the end of a window, say whether the epoch ends here."""
        if not complete:
            self._limits.interrupted()
            return False
        wish = self._limits.after_window()
        if wish is Wish.STOP:
            self._ending = self._limits.stopped()
        return wish is not Wish.GO_ON or self._limits.steps_done(self._progress)

    # ---- the end of an epoch

    def _close_training(self, duration: float) -> None:
        """The batches of the epoch are done."""
        self._losses.check(wait=True)
        progress = self._progress
        progress.trained = True
        progress.losses = self._losses.means(progress)
        self._reach(
            TrainEpochEnd,
            epoch=progress.epoch,
            epochs=self._config.epochs,
            batches=progress.batch,
            step=progress.step,
            losses=progress.losses,
            lr=self._setup.schedule.rates(),
            duration=duration,
            samples=progress.samples,
            speed=(progress.samples - self._samples_before) / duration,
        )

    def _validate(self) -> Evaluation | None:
        """Validate, if there is validation and it is due; None otherwise, and when a stop came."""
        evaluator = self._setup.evaluator
        wish = self._limits.between()
        if wish is Wish.STOP:
            self._ending = self._limits.stopped()
        if self._ending is not None or evaluator is None or not self._validation_due(last=wish is Wish.TIME_UP):
            return None
        self._trained = self._draw_state()
        evaluation = evaluator.evaluate(self._setup.stepper.evaluated, self._limits.breaks_off, self._progress.epoch)
        if evaluation is None:
            self._ending = self._limits.stopped()
        else:
            self._trained = None
        return evaluation

    def _validation_due(self, *, last: bool) -> bool:
        epoch, config = self._progress.epoch + 1, self._config
        last = last or epoch == config.epochs or self._limits.steps_done(self._progress)
        return last or epoch % config.validate_every == 0

    def _close_epoch(self, evaluation: Evaluation | None, began: float) -> None:
        progress, epoch = self._progress, self._progress.epoch
        improved, fitness = False, None
        if evaluation is not None:
            fitness = evaluation.fitness
            improved = progress.validated({**evaluation.metrics, **evaluation.losses}, fitness)
        self._setup.schedule.after_epoch(fitness if self._setup.evaluator else -sum(progress.losses.values()))
        progress.next_epoch()
        self._save(epoch, fitness, best=improved, draws=Draws(self._draw_state(), None))
        self._reach_fit_epoch_end(epoch, evaluation, progress.losses, time.perf_counter() - began)

    def _reach_fit_epoch_end(
        self,
        epoch: int,
        evaluation: Evaluation | None,
        losses: Mapping[str, float],
        duration: float,
        *,
        final: bool = False,
    ) -> None:
        progress, keeper = self._progress, self._setup.keeper
        self._reach(
            FitEpochEnd,
            epoch=epoch,
            epochs=self._config.epochs,
            final=final,
            losses=losses,
            metrics={} if evaluation is None else {**evaluation.metrics, **evaluation.losses},
            fitness=None if evaluation is None else evaluation.fitness,
            best_fitness=progress.best_fitness,
            best_epoch=progress.best_epoch,
            best=keeper.best,
            last=keeper.last,
            duration=duration,
        )

    # ---- the end of the run

    def _evaluate_best(self) -> None:
        """Validate the best weights once more, as the final word; the model keeps its own."""
        evaluator, progress = self._setup.evaluator, self._progress
        weights = None if evaluator is None else self._setup.keeper.best_weights()
        if evaluator is None or weights is None or progress.best_epoch is None:
            return
        began, model = time.perf_counter(), self._setup.stepper.evaluated
        with _borrowed(model, weights):
            evaluation = evaluator.evaluate(model, self._limits.breaks_off, progress.best_epoch)
        if evaluation is None:
            self._ending = self._limits.stopped()
            return
        progress.metrics = {**evaluation.metrics, **evaluation.losses}
        duration = time.perf_counter() - began
        self._reach_fit_epoch_end(progress.best_epoch, evaluation, progress.best_losses, duration, final=True)

    def _end(self, duration: float) -> None:
        progress, keeper = self._progress, self._setup.keeper
        self._reach(
            TrainEnd,
            epochs=progress.epoch,
            step=progress.step,
            metrics=progress.metrics,
            best_fitness=progress.best_fitness,
            best_epoch=progress.best_epoch,
            best=keeper.best,
            last=keeper.last,
            duration=duration,
        )

    # ---- checkpoints

    def _keep_unsaved(self) -> None:
        """Save where a stop left the run, unless that is on disk already, or worth nothing."""
        progress = self._progress
        if progress.position == self._kept or self._losses.diverged:
            return
        progress.loss_sums = self._losses.sums()
        draws = Draws(self._trained or self._draw_state(), None if progress.trained else self._opened)
        self._save(progress.epoch, None, best=False, draws=draws)

    def _save(self, epoch: int, fitness: float | None, *, best: bool, draws: Draws) -> None:
        if not self._config.save:
            return
        began, keeper, progress = time.perf_counter(), self._setup.keeper, self._progress
        size = keeper.save(progress, draws, best=best)
        self._kept = progress.position
        if self._setup.group.rank == 0:
            self._reach(
                ModelSave,
                epoch=epoch,
                step=progress.step,
                path=keeper.last,
                best=keeper.best if best else None,
                fitness=fitness,
                bytes=size,
                duration=time.perf_counter() - began,
            )

    def _draw_state(self) -> random_state.State:
        return random_state.capture(self._setup.feed.generators())

    def _restore(self, state: random_state.State) -> None:
        random_state.restore(state, self._setup.feed.generators())

    # ---- whether to go on

    def _over(self) -> bool:
        """Between two epochs: whether the run is over; then `_ending` says how."""
        if self._ending is None:
            self._ending = self._limits.reached(self._progress, self._limits.between())
        return self._ending is not None

    def _stops(self) -> bool:
        """Between two stages: whether a stop was asked for; then `_ending` says why."""
        if self._limits.between() is Wish.STOP:
            self._ending = self._limits.stopped()
        return self._ending is not None


def _norm_field(values: Sequence[float]) -> Mapping[str, object]:
    return {"grad_norm": values[0]}


@contextmanager
def _borrowed(model: nn.Module, weights: Mapping[str, Any]) -> Generator[None]:
    """Let `model` have other weights for the length of the block."""
    own = copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    try:
        yield
    finally:
        model.load_state_dict(own)
