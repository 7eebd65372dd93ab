"""`Validator`: evaluates a module on validation data, and reports every stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from ..bus import Bus
from ..schemas import ValEvent
from ..schemas.run import Kind
from .config import ValConfig
from .feed import Feed
from .identity import Identity
from .inference import check_model, precision, resolve_device
from .objective import LossFunction, Objective, StepFunction
from .results import ValResult
from .runner import ReadyRunner
from .scalars import scalars_of
from .val.evaluation import Evaluation, Evaluator, Setting
from .val.metrics import Fitness, Meters

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection


class Validator(ReadyRunner[ValConfig, ValResult]):
    """Evaluates a module.

    Args:
        model: Any module. It is moved to the device and stays there; every submodule gets back the mode it had.
        data: Any iterable of batches, e.g. a DataLoader.
        loss: ``loss(outputs, targets)``, a scalar tensor or a mapping of them. A batch is then a pair of inputs and
            targets, and the outputs are ``model(inputs)``.
        step: Instead of `loss`: ``step(model, batch)``, which returns the same, for batches of any form.
        metrics: A torchmetrics Metric, a MetricCollection or a mapping of metrics by name.
        bus: Where to publish. Default: a bus of its own.
        config: The settings.
        overrides: Settings that replace those of `config`.

    Raises:
        InvalidConfig: a setting does not exist or cannot have that value.
        InvalidArgument: one of the other arguments is not what is described here; the message says which.
    """

    kind: ClassVar[Kind] = "val"
    stages = (ValEvent,)

    def __init__(
        self,
        model: nn.Module,
        data: Iterable[Any],
        *,
        loss: LossFunction | None = None,
        step: StepFunction | None = None,
        metrics: Metric | MetricCollection | Mapping[str, Metric] | None = None,
        bus: Bus | None = None,
        config: ValConfig | None = None,
        **overrides: object,
    ) -> None:
        super().__init__((config or ValConfig()).with_(**overrides), bus=bus)
        self.model = check_model(model)
        self.device = torch.device("cpu")
        self._data = data
        self._meters = Meters(metrics)
        self._objective = Objective(loss, step, needed=not self._meters)
        self._feed = Feed(data, self.device, "validation")

    def _prepare(self) -> Identity:
        self.device = resolve_device(self.config.device)
        self._feed = Feed(self._data, self.device, "validation")
        self._feed.refuse_empty()
        return super()._prepare()

    def _facts(self) -> Mapping[str, object]:
        return {"model": type(self.model).__qualname__, "device": str(self.device)}

    def _body(self) -> ValResult:
        self.model.to(self.device)
        self._objective.to(self.device)
        return self._result(self._evaluator().evaluate(self.model, self._interrupted))

    def _evaluator(self) -> Evaluator:
        forward = partial(precision, self.device, self.config.amp)
        setting = Setting(self.device, scalars_of(self.device), forward, add_up=list)
        fitness = Fitness(self.config.fitness, self.config.mode)
        return Evaluator(self, setting, self._feed, self._objective, self._meters, fitness)

    def _result(self, found: Evaluation | None) -> ValResult:
        return ValResult(
            run=self._identity.run,
            outcome="stopped" if found is None else "completed",
            reason=self._control.reason if found is None else None,
            duration=self._source.elapsed(),
            metrics={} if found is None else found.metrics,
            losses={} if found is None else found.losses,
            fitness=None if found is None else found.fitness,
            batches=0 if found is None else found.batches,
            samples=0 if found is None else found.samples,
            speed={} if found is None else found.speed,
        )
