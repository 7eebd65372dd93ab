"""`Between`: what a training run does in between when somebody asks, so that it goes on as if nothing had been."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...bus import Source
from ...schemas import Event, ModelSave
from ..control import Control
from ..errors import JobRefused
from ..feed import Feed
from ..identity import Identity
from ..objective import Objective
from ..results import ValResult
from ..scalars import Snapshot
from ..val.evaluation import Evaluator, Setting
from ..val.metrics import Fitness, Meters
from . import random_state
from .training import Training

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection


class Aside:
    """Reaches stages aside of the run's own: they are published, no hook is called, the runner does not notice."""

    def __init__(self, source: Source) -> None:
        self.batch: Any = None
        self.loss: Tensor | None = None
        self._source = source

    def reach(self, event: type[Event], /, **fields: object) -> None:
        """Publish that a stage is reached."""
        self._source.publish(event, **fields, aside=True)

    def reach_when(self, snapshot: Snapshot, event: type[Event], /, **fields: object) -> None:
        """Publish it with fields that are on their way from the device."""
        if snapshot.known:
            self.reach(event, **fields, **snapshot.wait())
        else:
            self._source.publish_when(snapshot, event, **fields, aside=True)


_NOT_TRAINING = "it has not begun to train yet, or has ended; ask from TrainStart to TrainEnd"


class Between:
    """Saves and evaluates in between. Used in the run's thread, while its loop stands.

    Args:
        identity: The run.
        source: Where it publishes.
        control: What else is asked of it.
        saves: Whether it has a folder for its checkpoints.
    """

    def __init__(self, identity: Identity, source: Source, control: Control, *, saves: bool) -> None:
        self._identity = identity
        self._source = source
        self._control = control
        self._saves = saves
        self._training: Training | None = None
        self._own: Own | None = None

    @contextmanager
    def during(self, training: Training, own: Own) -> Generator[None]:
        """Let it be asked for the length of the block."""
        self._training, self._own = training, own
        try:
            yield
        finally:
            self._training = self._own = None

    def cannot_evaluate(self) -> str | None:
        """Say why it cannot be done at this moment; None: it can."""
        return _NOT_TRAINING if self._training is None else None

    def cannot_save(self, path: Path | None) -> str | None:
        """Say why it cannot be done at this moment; None: it can, or will never be."""
        if self._training is None:
            return _NOT_TRAINING
        return None if self._never_saves(path) else self._training.obstacle(path)

    def _never_saves(self, path: Path | None) -> str | None:
        if path is None and not self._saves:
            return "it has save=False and so no folder; say where: checkpoint(path=...)"
        if path is not None and path.is_dir():
            return f"{path} is a folder; name a file in it, e.g. {path / 'asked.pt'}"
        return None

    def checkpoint(self, path: Path | None) -> Path:
        """Save where the run stands, and publish ``ModelSave``."""
        training = self._training
        assert training is not None  # else there was an obstacle
        if obstacle := self._never_saves(path):
            self._refuse("run.checkpoint()", obstacle)
        saved, facts = training.save_aside(path)
        self._source.publish(ModelSave, **facts)
        return saved

    def evaluate(
        self,
        data: Iterable[Any],
        metrics: Metric | MetricCollection | Mapping[str, Metric] | None,
        unwanted: Callable[[], bool],
    ) -> ValResult:
        """Evaluate the model as it is on `data`, and publish that with ``aside=True``."""
        training, own = self._training, self._own
        assert training is not None  # else there was an obstacle
        assert own is not None
        if own.reads(data):
            self._refuse("run.evaluate()", "it is reading that data itself, and has one iterator of it; pass another")
        begin = time.perf_counter()
        evaluator = own.evaluator(Aside(self._source), Feed(data, "evaluation"), metrics)
        with training.own_weights() as model, own.draws_kept():
            found = evaluator.evaluate(
                model, lambda: unwanted() or self._control.stopping, lambda _: None, training.epoch
            )
        broken_off = self._control.reason or "nobody wanted it any more"
        return found.result(self._identity, time.perf_counter() - begin, broken_off)

    def _refuse(self, what: str, obstacle: str) -> None:
        raise JobRefused(self._identity.run, what, obstacle)


class Own:
    """What the run itself trains and validates with.

    Args:
        feeds: Training and validation data.
        setting: Where and how to compute.
        objective: What is minimised.
        meters: The metrics of validation.
        fitness: What of them is to be improved.
    """

    def __init__(
        self,
        feeds: tuple[Feed, Feed | None],
        setting: Setting,
        objective: Objective,
        meters: Meters,
        fitness: Fitness,
    ) -> None:
        self._feeds = [feed for feed in feeds if feed is not None]
        self._setting = setting
        self._objective = objective
        self._meters = meters
        self._fitness = fitness

    def reads(self, data: Iterable[Any]) -> bool:
        """Whether iterating `data` would take something from the run: there is only one iterator of it."""
        alone = isinstance(data, Iterator) or getattr(data, "persistent_workers", False)
        return alone and any(feed.has(data) for feed in self._feeds)

    def evaluator(
        self, reporter: Aside, feed: Feed, metrics: Metric | MetricCollection | Mapping[str, Metric] | None
    ) -> Evaluator:
        """Return what evaluates on `feed`, with `metrics` or a copy of the run's own."""
        meters = copy.deepcopy(self._meters) if metrics is None else Meters(metrics)
        fitness = self._fitness if metrics is None else Fitness(None, None)
        setting = replace(self._setting, add_up=list, alone=True)
        return Evaluator(reporter, setting, feed, self._objective, meters, fitness)

    @contextmanager
    def draws_kept(self) -> Generator[None]:
        """Give every random generator that the run draws from its state back after the block."""
        generators = [generator for feed in self._feeds for generator in feed.generators()]
        state = random_state.capture(generators)
        try:
            yield
        finally:
            random_state.restore(state, generators)
