"""`Validator`: evaluates a module on validation data, and reports every stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..bus import Bus
from ..schemas import ValEvent
from ..schemas.run import Kind
from .config import ValConfig
from .feed import Feed
from .identity import Identity
from .inference import check_model, place, precision, resolve_device
from .objective import LossFunction, Objective, StepFunction
from .results import ValResult
from .runner import ReadyRunner
from .scalars import scalars_of
from .val.evaluation import Evaluation, Evaluator, Setting
from .val.metrics import Fitness, Meters, refuse_same_names

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection


class Validator(ReadyRunner[ValConfig, ValResult]):
    """Evaluates a module.

    Args:
        model: Any module. It is moved to the device and stays there; every submodule gets back the mode it had.
        data: Any iterable of batches, e.g. a DataLoader.
        loss: ``loss(outputs, targets)``, a tensor of one element, the mean over the samples, or a mapping of such
            tensors, the same in every batch. A batch is then a pair of inputs and targets, and the outputs are
            ``model(inputs)``.
        step: Instead of `loss`: ``step(model, batch)``, which returns the same, for batches of any form; or that and a
            mapping of numbers that are only reported, ``(loss, {"accuracy": accuracy})``, means over the samples, too.
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
        super().__init__(ValConfig.of(config, **overrides), bus=bus)
        self.model = check_model(model)
        self.device = torch.device("cpu")
        self.batch: Any = None
        """The batch in work, on the device; None between them."""
        self.loss: Tensor | None = None
        """Its loss, where there is one, as soon as it is computed. Reading its value waits for the device."""
        self._meters = Meters(metrics)
        self._objective = Objective(loss, step, needed=not self._meters)
        self._feed = Feed(data, "validation")
        self._found: Evaluation | None = None
        if self._objective:
            refuse_same_names(self._meters.names, ["loss"])

    # ---- what hooks and callbacks may look at; between two runs, the end of the last one

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics by name, once they are computed: from ``ValEnd`` on."""
        return {} if self._found is None else self._found.metrics

    @property
    def losses(self) -> Mapping[str, float]:
        """The mean losses by name, from ``ValEnd`` on."""
        return {} if self._found is None else self._found.losses

    @property
    def fitness(self) -> float | None:
        """The number that is to be improved, larger is better, from ``ValEnd`` on."""
        return None if self._found is None else self._found.fitness

    # ---- a run

    def _prepare(self) -> Identity:
        self.device = resolve_device(self.config.device)
        self._feed.refuse_empty()
        self._found = None
        return super()._prepare()

    def _facts(self) -> Mapping[str, object]:
        return {"model": type(self.model).__qualname__, "device": str(self.device)}

    def _body(self) -> ValResult:
        place(self.model, self.device)
        self._objective.to(self.device)
        return self._result(self._evaluator().evaluate(self.model, self._interrupted, self._note))

    def _note(self, found: Evaluation) -> None:
        self._found = found

    def _evaluator(self) -> Evaluator:
        forward = partial(precision, self.device, self.config.amp)
        setting = Setting(self.device, scalars_of(self.device), forward, add_up=list)
        fitness = Fitness(self.config.fitness, self.config.mode)
        return Evaluator(self, setting, self._feed, self._objective, self._meters, fitness)

    def _result(self, found: Evaluation) -> ValResult:
        return found.result(self._identity, self._source.elapsed(), self._control.reason)
