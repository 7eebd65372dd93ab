"""`Trainer`: trains any module on any batches, reports every stage, and can be resumed exactly."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..bus import Bus
from ..schemas import PretrainRoutineEnd, PretrainRoutineStart, Teardown, TrainEvent, ValEvent
from ..schemas.run import Kind
from .config import TrainConfig
from .errors import CheckpointMismatch, InvalidArgument
from .feed import Feed
from .identity import Identity
from .inference import check_model, place, precision
from .objective import LossFunction, Objective, StepFunction
from .results import TrainResult
from .runner import Ending, ReadyRunner
from .scalars import scalars_of
from .train.between import Between, Own
from .train.distributed import Group, join
from .train.fitting import Parts, Saved, read_fitting
from .train.keeper import Keeper, refuse_other_run
from .train.plain import refuse_unsavable
from .train.progress import Progress
from .train.random_state import deterministic, seed_everything
from .train.schedule import Schedule
from .train.stepper import Stepper
from .train.training import Setup, Training
from .val.evaluation import Evaluator, Setting
from .val.metrics import Fitness, Meters, refuse_same_names

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection


class Trainer(ReadyRunner[TrainConfig, TrainResult]):
    """Trains a module.

    Args:
        model: Any module. It is moved to the device, and holds the last weights at the end.
        train: Any iterable of batches, e.g. a DataLoader; iterated once every epoch. A batch has as many samples as its
            first tensor is long, or as its ``batch_size`` says.
        loss: ``loss(outputs, targets)``, a tensor of one element, the mean over the samples, or a mapping of such
            tensors, the same in every batch, which are added up. A batch is then a pair of inputs and targets, and the
            outputs are ``model(inputs)``.
        step: Instead of `loss`: ``step(model, batch)``, which returns the same, for batches of any form; or that and a
            mapping of numbers that are only reported, ``(loss, {"accuracy": accuracy})``, means over the samples, too.
        optimizer: An optimizer, or a function that makes one of the model's parameters.
        val: Validation batches; None: no validation.
        metrics: A torchmetrics Metric, a MetricCollection or a mapping of metrics by name, computed in validation.
        scheduler: A learning rate scheduler, or a function that makes one of the optimizer.
        bus: Where to publish. Default: a bus of its own.
        config: The settings.
        overrides: Settings that replace those of `config`, e.g. ``epochs=3``.

    Raises:
        InvalidConfig: a setting does not exist or cannot have that value.
        InvalidArgument: one of the other arguments is not what is described here; the message says which.
    """

    kind: ClassVar[Kind] = "train"
    stages = (TrainEvent, ValEvent)

    def __init__(
        self,
        model: nn.Module,
        train: Iterable[Any],
        *,
        optimizer: Optimizer | Callable[[Iterable[nn.Parameter]], Optimizer],
        loss: LossFunction | None = None,
        step: StepFunction | None = None,
        val: Iterable[Any] | None = None,
        metrics: Metric | MetricCollection | Mapping[str, Metric] | None = None,
        scheduler: LRScheduler | Callable[[Optimizer], LRScheduler] | None = None,
        bus: Bus | None = None,
        config: TrainConfig | None = None,
        **overrides: object,
    ) -> None:
        super().__init__(TrainConfig.of(config, **overrides), bus=bus)
        self.model = check_model(model)
        self.optimizer = _make_optimizer(optimizer, model)
        self.progress = Progress()
        self.device = torch.device("cpu")
        self.batch: Any = None
        """The batch in work, of training or validation, on the device; None between them."""
        self.loss: Tensor | None = None
        """Its loss, as soon as it is computed, without history. Reading its value waits for the device."""
        self._feed = Feed(train, "training")
        self._val_feed = None if val is None else Feed(val, "validation")
        self._objective = Objective(loss, step)
        self._meters = Meters(metrics)
        self._schedule = Schedule(scheduler, self.optimizer, self.config.schedule)
        self._group = Group()
        self._fitness = Fitness(self.config.fitness, self.config.mode)
        self._saved: Saved | None = None
        self._resumed_from: Path | None = None
        self._stepper: Stepper | None = None
        self._keeper: Keeper | None = None
        self._folder = Path()
        self._between: Between
        self._held = ExitStack()
        self._check_arguments()

    def _check_arguments(self) -> None:
        needs = {"metrics": bool(self._meters), "patience": self.config.patience, "fitness": self.config.fitness}
        for name, given in needs.items():
            if given and self._val_feed is None:
                raise InvalidArgument(f"{name} needs validation data", f"pass val=..., or leave {name} out")
        metrics = self._meters.names
        refuse_same_names(metrics, ["loss"])
        self._schedule.refuse_other(self._fitness.direction(metrics, ["loss"]) if self._val_feed else "min")

    # ---- what hooks and callbacks may look at; between two runs, the end of the last one

    @property
    def scheduler(self) -> LRScheduler | None:
        """The learning rate scheduler."""
        return self._schedule.scheduler

    @property
    def ema(self) -> nn.Module | None:
        """The module with the moving average of the weights, once the run has made it."""
        return None if self._stepper is None or self._stepper.ema is None else self._stepper.ema.module

    @property
    def epoch(self) -> int:
        """The epoch in work, from 0; while it is saved and closed, too."""
        return self.progress.at_hand

    @property
    def losses(self) -> Mapping[str, float]:
        """Mean losses of the last epoch, by name, and what the step only reports."""
        return self.progress.losses

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics and losses of the last validation, by name."""
        return self.progress.metrics

    @property
    def fitness(self) -> float | None:
        """Fitness of the last validation, larger is better."""
        return self.progress.fitness

    @property
    def best_fitness(self) -> float | None:
        """The best fitness so far."""
        return self.progress.best_fitness

    @property
    def best(self) -> Path | None:
        """The best checkpoint."""
        return None if self._keeper is None else self._keeper.best

    @property
    def last(self) -> Path | None:
        """The latest checkpoint."""
        return None if self._keeper is None else self._keeper.last

    # ---- a run

    def _prepare(self) -> Identity:
        self._group, self.device = join(self.config.device)
        self._stepper = self._keeper = None
        self._held = ExitStack()
        self._held.callback(self._group.close)
        try:
            return self._check()
        except BaseException:
            self._held.close()
            raise

    def _check(self) -> Identity:
        """Check data, state, checkpoint and folder before anything is touched; return the run's identity."""
        for feed in (self._feed, self._val_feed):
            if feed is not None:
                feed.refuse_empty()
        if self.config.save:
            refuse_unsavable(self._parts.state())
        self._saved = self._read_checkpoint()
        self._resumed_from = None if self._saved is None else self._saved.path
        identity = replace(self._group.share(self._made()), rank=self._group.rank)
        beside = Path("runs", identity.run) if self._saved is None else self._saved.path.parent
        self._folder = self.config.directory or beside
        own = self._saved is not None and self._folder.resolve() == beside.resolve()
        if self.config.save and not self.config.overwrite and not own:
            refuse_other_run(self._folder)
        if self._saved is not None and identity.rank == 0:
            self._saved.note(identity)
        return identity

    def _made(self) -> Identity:
        """Return the identity of the run that begins or goes on; the bus may know more attempts than the checkpoint."""
        if self._saved is None:
            return super()._prepare()
        saved = self._saved.identity
        return replace(saved, attempt=max(saved.attempt, self._next_attempt(saved.run)))

    def _read_checkpoint(self) -> Saved | None:
        if self.config.resume is None:
            return None
        averaged, generators = self.config.ema_decay is not None, len(self._feed.generators())
        saved = read_fitting(self.config.resume, self._parts, self._group, averaged=averaged, generators=generators)
        name = self.config.name
        if name is not None and name != saved.identity.run:
            problem = f"it belongs to run {saved.identity.run!r}, but name={name!r} was given"
            raise CheckpointMismatch(saved.path, [problem], "a resumed run keeps its name: leave name out")
        return saved

    @property
    def _parts(self) -> Parts:
        return Parts(self.model, self.optimizer, self._schedule.scheduler)

    def _facts(self) -> Mapping[str, object]:
        return {
            "model": type(self.model).__qualname__,
            "device": str(self.device),
            "world_size": self._group.size,
            "resumed_from": self._resumed_from,
        }

    def _body(self) -> TrainResult:
        with deterministic(self.config.deterministic):
            setup, training = self._make_ready()
            own = Own((self._feed, self._val_feed), setup.setting, self._objective, self._meters, self._fitness)
            with self._between.during(training, own):
                ending = training.run()
        return self._result(ending)

    def _able(self) -> Between:
        return self._between

    def _begin(self, loop: asyncio.AbstractEventLoop | None) -> None:
        super()._begin(loop)
        self._between = Between(self._identity, self._source, self._control, saves=self.config.save)

    def _make_ready(self) -> tuple[Setup, Training]:
        self.reach(PretrainRoutineStart, epochs=self.config.epochs)
        setup, resumed = self._set_up(), None
        saved, self._saved = self._saved, None  # as large as the model: nobody needs it any more
        if saved is None:
            self.progress = Progress()
            self._schedule.begin()
        else:
            self.progress, resumed = setup.keeper.load(saved)
        self.model.train()
        self.optimizer.zero_grad()
        self._reach_ready(setup)
        return setup, Training(self, self._control, self._source.elapsed, setup, self.progress, resumed)

    def _set_up(self) -> Setup:
        config, device, group = self.config, self.device, self._group
        if config.seed is not None and self._saved is None:
            seed_everything(config.seed + group.rank)
        place(self.model, device)
        self._objective.to(device)
        scalars = scalars_of(device)
        self._stepper = stepper = Stepper(self.model, self.optimizer, self._objective, config, device, group)
        self._held.callback(stepper.close)
        new = self._saved is None
        self._keeper = keeper = Keeper(self._folder, self._identity, self._parts, stepper, group, replaces=new)
        if config.save:
            keeper.open()
        setting = Setting(device, scalars, partial(precision, device, config.amp), group.add_up)
        return Setup(
            config=config,
            device=device,
            group=group,
            scalars=scalars,
            feed=self._feed,
            stepper=stepper,
            schedule=self._schedule,
            keeper=keeper,
            setting=setting,
            evaluator=self._evaluator(setting),
        )

    def _evaluator(self, setting: Setting) -> Evaluator | None:
        if self._val_feed is None:
            return None
        return Evaluator(self, setting, self._val_feed, self._objective, self._meters, self._fitness)

    def _reach_ready(self, setup: Setup) -> None:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.model.parameters()]
        self.reach(
            PretrainRoutineEnd,
            parameters=sum(size for size, _ in sizes),
            trainable=sum(size for size, trained in sizes if trained),
            batches=setup.feed.batches,
            val_batches=None if self._val_feed is None else self._val_feed.batches,
            resumed_from=self._resumed_from,
        )

    def _result(self, ending: Ending) -> TrainResult:
        progress, keeper = self.progress, self._keeper
        assert keeper is not None  # made before the loop that has ended
        return TrainResult(
            run=self._identity.run,
            attempt=self._identity.attempt,
            outcome="stopped" if ending.outcome == "stopped" else "completed",
            reason=ending.reason,
            duration=self._source.elapsed(),
            epochs=progress.epoch,
            step=progress.step,
            losses=progress.losses,
            metrics=progress.metrics,
            **keeper.standing(progress),
        )

    def _teardown(self, ending: Ending) -> None:
        try:
            self.reach(Teardown, **vars(ending))
        finally:
            self._held.close()


def _make_optimizer(
    optimizer: Optimizer | Callable[[Iterable[nn.Parameter]], Optimizer], model: nn.Module
) -> Optimizer:
    made: object = optimizer
    if not isinstance(optimizer, Optimizer) and callable(optimizer):
        made = optimizer(model.parameters())
    if not isinstance(made, Optimizer):
        raise InvalidArgument(
            f"the optimizer is {made!r:.80} of type {type(made).__qualname__}",
            "expected a torch Optimizer, or a function that makes one of the parameters",
        )
    closure = inspect.signature(type(made).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise InvalidArgument(
            f"{type(made).__qualname__} calls for the loss several times a step",
            "use one whose step() needs no closure, e.g. Adam",
        )
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in own for group in made.param_groups for parameter in group["params"]):
        raise InvalidArgument("the optimizer has none of the model's parameters", "make it of model.parameters()")
    return made
