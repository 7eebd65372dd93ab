"""`Training`: the loop of one training run, from ``TrainStart`` to ``TrainEnd``."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
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
from ..objective import Loss
from ..reporter import Reporter
from ..runner import Ending
from ..scalars import Scalars
from ..val.evaluation import Evaluation, Evaluator, Setting
from . import random_state
from .distributed import Group
from .keeper import Draws, Keeper, Random
from .limits import Limits, Wish
from .losses import EpochLosses
from .progress import Progress
from .schedule import Schedule
from .stepper import Stepper
from .together import Saved, Together


@dataclass(frozen=True)
class Setup:
    """What a training run works with."""

    config: TrainConfig
    device: torch.device
    group: Group
    scalars: Scalars
    feed: Feed
    stepper: Stepper
    schedule: Schedule
    keeper: Keeper
    setting: Setting
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
        self._reporter = reporter
        self._reach = reporter.reach
        self._reach_when = reporter.reach_when
        self._setup = setup
        self._config = setup.config
        self._control = control
        self._together = Together(setup.group, control, self._where_all_stand, self._write_aside)
        self._limits = Limits(setup.config, control, elapsed, setup.group, self._together)
        self._losses = EpochLosses(setup.scalars, reporter, setup.config.on_nonfinite, control.stop)
        self._progress = progress
        self._resumed = resumed
        self._ending: Ending | None = None
        self._kept = progress.position
        """The position of the latest checkpoint."""
        self._kept_step = progress.step
        self._named = False
        """Whether the names of the losses were looked at."""
        self._whole = True
        """Whether the epoch in work is done with its last batch; False where a limit came before."""
        self._samples_before = 0
        """Samples of the epoch in work that an earlier attempt was trained on."""
        self._opened: random_state.State | None = None
        """The generators when the loader of the epoch in work was opened."""
        self._trained: random_state.State | None = None
        """The generators when the batches of the epoch in work were done; None before."""
        self._whole_steps = True
        """Whether the run stands where one that is resumed can go on: not within a batch, or a window of them."""
        self._lent: _Loan | None = None
        """The model, while it has weights that are not its own."""

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
        if self._resumed is not None and self._resumed.epoch is None:
            self._restore(self._resumed.now)
            self._resumed = None
        self._open_epoch()
        self._train_epoch()
        if self._ending is not None:
            return
        self._close_training(time.perf_counter() - began)
        evaluation = self._validate()
        if self._ending is None:
            self._close_epoch(evaluation, began)

    def _open_epoch(self) -> None:
        progress, setup = self._progress, self._setup
        progress.at_hand = progress.epoch
        self._whole, self._trained = True, None
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

    def _train_epoch(self) -> None:
        if self._progress.trained or self._stops():  # all batches were done before the resume; or a hook said so
            return
        try:
            batches = self._batches()
            for batch in batches:
                complete = self._completes_window(batch)
                self._train_batch(batch, complete=complete)
                if self._leaves_epoch(complete=complete):
                    # Read to its end, as ever: some samplers draw once more there.
                    self._whole = self._ending is None and batch.last and next(batches, None) is None
                    break
                if complete and not batch.last:
                    self._keep_every_steps()
        finally:
            self._reporter.batch = self._reporter.loss = None

    def _batches(self) -> Iterator[Batch]:
        """Return the batches to come: on resuming, those the interrupted attempt had before it, in the same order."""
        feed, device, windows = self._setup.feed, self._setup.device, self._config.accumulate > 1
        resumed, self._resumed = self._resumed, None
        if resumed is None or resumed.epoch is None:
            self._opened = self._draw_state()
            return feed.epoch(device, mark_last=windows)
        self._opened = resumed.epoch
        self._restore(resumed.epoch)
        now = resumed.now
        return feed.epoch(device, skip=self._progress.batch, mark_last=windows, skipped=lambda: self._restore(now))

    # ---- a batch

    def _train_batch(self, batch: Batch, *, complete: bool) -> None:
        setup, progress, reporter = self._setup, self._progress, self._reporter
        where = {
            "epoch": progress.epoch,
            "batch": batch.index,
            "batches": batch.batches,
            "batch_size": batch.size,
        }
        reporter.batch, reporter.loss = batch.data, None
        self._whole_steps = False
        self._reach(TrainBatchStart, **where, data_seconds=batch.waited)
        began, step, rates = time.perf_counter(), progress.step, setup.schedule.rates()
        with setup.scalars.computing:
            loss = setup.stepper.accumulate(batch.data, self._window(batch), complete=complete)
        reporter.loss = loss.total.detach()
        if not self._named:
            self._refuse_names(loss)
        if complete:
            self._step_optimizer(where, rates)
        snapshot = self._losses.count(loss, batch.size, progress, batch.index, step)
        progress.count(batch.index, batch.size)
        seconds = time.perf_counter() - began
        self._whole_steps = complete
        self._reach_when(snapshot, TrainBatchEnd, **where, step=progress.step, lr=rates, seconds=seconds)
        self._losses.check()

    def _refuse_names(self, loss: Loss) -> None:
        self._named = True
        if self._setup.evaluator is not None:
            self._setup.evaluator.refuse_names(loss)

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
        """At the end of a window: stand still while paused, then say whether the epoch ends here."""
        if not complete:
            return False
        wish = self._heed(self._limits.after_window())
        return wish is not Wish.GO_ON or self._limits.steps_done(self._progress)

    # ---- the end of an epoch

    def _close_training(self, duration: float) -> None:
        """The batches of the epoch are done."""
        self._whole_steps = False  # until it is noted that they are
        self._losses.check(wait=True)
        progress = self._progress
        self._trained = self._draw_state()
        progress.trained = self._whole
        self._whole_steps = True
        self._losses.conclude(progress)
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
        wish = self._heed(self._limits.between())
        if self._ending is not None or evaluator is None or not self._validation_due(last=wish is Wish.TIME_UP):
            return None
        try:
            evaluation = self._evaluate(evaluator, self._setup.stepper.evaluated, self._progress.epoch)
            self._setup.schedule.refuse_other(None if evaluation is None else evaluation.direction)
        except Exception as error:
            self._keep_despite(error)
            raise
        return evaluation

    def _evaluate(self, evaluator: Evaluator, model: nn.Module, epoch: int) -> Evaluation | None:
        evaluation = evaluator.evaluate(model, self._limits.breaks_off, self._note, epoch)
        if not evaluation.complete:
            self._heed(Wish.STOP)
            return None
        return evaluation

    def _note(self, evaluation: Evaluation) -> None:
        self._progress.metrics, self._progress.fitness = evaluation.scores, evaluation.fitness

    def _validation_due(self, *, last: bool) -> bool:
        epoch, config = self._progress.epoch + 1, self._config
        last = last or epoch == config.epochs or self._limits.steps_done(self._progress)
        return last or epoch % config.validate_every == 0

    def _close_epoch(self, evaluation: Evaluation | None, began: float) -> None:
        progress, epoch = self._progress, self._progress.epoch
        improved, fitness = False, None
        if evaluation is not None:
            fitness = evaluation.fitness
            improved = progress.validated(fitness)
        if progress.trained:  # else a limit came before the epoch's end, and a run with more to do goes on there
            self._setup.schedule.after_epoch(fitness if self._setup.evaluator else -progress.loss)
            progress.next_epoch()
            self._opened = self._trained = None
        self._save(epoch, fitness, best=improved)
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
        self._reach(
            FitEpochEnd,
            epoch=epoch,
            epochs=self._config.epochs,
            final=final,
            losses=losses,
            metrics={} if evaluation is None else evaluation.scores,
            fitness=None if evaluation is None else evaluation.fitness,
            **self._setup.keeper.standing(self._progress),
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
        with self._lending(model, weights):
            evaluation = self._evaluate(evaluator, model, progress.best_epoch)
        if evaluation is None:
            return
        duration = time.perf_counter() - began
        self._reach_fit_epoch_end(progress.best_epoch, evaluation, progress.best_losses, duration, final=True)

    def _end(self, duration: float) -> None:
        progress = self._progress
        self._reach(
            TrainEnd,
            epochs=progress.epoch,
            step=progress.step,
            metrics=progress.metrics,
            **self._setup.keeper.standing(progress),
            duration=duration,
        )

    # ---- checkpoints

    def _keep_every_steps(self) -> None:
        every = self._config.save_every_steps
        if every is not None and self._progress.step - self._kept_step >= every:
            self._keep_unsaved()

    def _keep_unsaved(self) -> None:
        """Save where the run stands within an epoch, unless that is on disk already, or worth nothing."""
        self._losses.check(wait=True)
        if self._progress.position == self._kept or any(self._setup.group.gather(self._losses.diverged)):
            return
        self._save(self._progress.epoch, None, best=False)

    def _keep_despite(self, error: Exception) -> None:
        """Save a trained epoch that cannot be validated; `error` is what ends the run."""
        if self._setup.group.size > 1:
            return  # it takes all processes, and the others may have met no error
        try:
            self._keep_unsaved()
        except Exception as another:  # not to hide the first one
            error.add_note(f"and the epoch could not be saved: {another}")

    def _save(self, epoch: int, fitness: float | None, *, best: bool) -> None:
        if not self._config.save:
            return
        began, keeper, progress = time.perf_counter(), self._setup.keeper, self._progress
        size = keeper.save(progress, self._note_draws(), best=best)
        self._kept, self._kept_step = progress.position, progress.step
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

    def _note_draws(self) -> Draws:
        """Note what a checkpoint holds of the losses; return what it holds of the generators."""
        if self._resumed is not None:  # nothing was drawn yet
            return self._resumed
        if self._progress.batch:
            self._losses.note(self._progress)
        return Draws(self._trained or self._draw_state(), None if self._progress.trained else self._opened)

    # ---- what somebody asks for in between

    @property
    def epoch(self) -> int:
        """The epoch whose stages are being reached."""
        return self._progress.at_hand

    def obstacle(self, path: Path | None) -> str | None:
        """Say why the run cannot be saved to `path`, or as ``last.pt``, at this moment; None: it can."""
        if not self._whole_steps:
            return (
                "it is within a batch, or a window of batches, where a resumed run could not go on; "
                "ask at TrainBatchEnd of a batch that completes a step, or at a stage between two batches"
            )
        if self._losses.diverged:
            return "its loss is not finite, and it is being stopped for that"
        return None if self._setup.group.size == 1 else self._together.obstacle(path)

    def save_aside(self, path: Path | None) -> Saved:
        """Save where the run stands, to `path` or as ``last.pt``; return the path and what ``ModelSave`` says of it."""
        if self._setup.group.size > 1:
            return self._together.saved(path)
        return self._write_aside(path, self._setup.keeper.gather(self._note_draws()))

    def _where_all_stand(self) -> Random | None:
        if any(self._setup.group.gather(self._losses.diverged)):
            return None
        return self._setup.keeper.gather(self._note_draws())

    def _write_aside(self, path: Path | None, random: Random) -> Saved:
        began, keeper, progress = time.perf_counter(), self._setup.keeper, self._progress
        with self.own_weights():
            saved, size = keeper.save_aside(progress, random, path)
        facts = {"epoch": progress.at_hand, "step": progress.step, "path": saved, "best": None, "fitness": None}
        return saved, {**facts, "bytes": size, "duration": time.perf_counter() - began}

    @contextmanager
    def own_weights(self) -> Generator[nn.Module]:
        """Give the module that is validated; in the block it has its own weights, whatever it was lent."""
        with nullcontext() if self._lent is None else self._lent.returned():
            yield self._setup.stepper.evaluated

    @contextmanager
    def _lending(self, model: nn.Module, weights: Mapping[str, Any]) -> Generator[None]:
        with _Loan(model, weights) as self._lent:
            try:
                yield
            finally:
                self._lent = None

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
        return self._heed(self._limits.between()) is Wish.STOP

    def _heed(self, wish: Wish) -> Wish:
        """Note how the run ends if the wish is to stop; return it."""
        if wish is Wish.STOP:
            self._ending = self._limits.stopped()
        return wish


def _norm_field(values: Sequence[float]) -> Mapping[str, object]:
    return {"grad_norm": values[0]}


class _Loan:
    """Lets `model` have other weights for the length of a block."""

    def __init__(self, model: nn.Module, weights: Mapping[str, Any]) -> None:
        self._model = model
        self._weights = weights
        self._own: Mapping[str, Any] = {}

    def __enter__(self) -> Self:
        self._own = copy.deepcopy(self._model.state_dict())
        self._model.load_state_dict(self._weights)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model.load_state_dict(self._own)

    @contextmanager
    def returned(self) -> Generator[None]:
        """Let it have its own again for the length of a block within."""
        self._model.load_state_dict(self._own)
        try:
            yield
        finally:
            self._model.load_state_dict(self._weights)
