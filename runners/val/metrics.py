"""Metrics as the runners see them, and the one number of them that is to be improved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from ..errors import InvalidArgument, UnknownFitness
from ..scalars import Scalars

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

Metrics = "Metric | MetricCollection | Mapping[str, Metric]"


class Meters:
    """The metrics of an evaluation.

    Args:
        metrics: A torchmetrics Metric, a MetricCollection, a mapping of metrics by name, or None.

    Raises:
        InvalidArgument: `metrics` is anything else.
    """

    def __init__(self, metrics: Metric | MetricCollection | Mapping[str, Metric] | None) -> None:
        self._collection = None if metrics is None else _collect(metrics)

    def __bool__(self) -> bool:
        return self._collection is not None

    def reset(self, device: torch.device) -> None:
        """Begin anew, on `device`."""
        if self._collection is not None:
            self._collection.to(device)
            self._collection.reset()

    def update(self, outputs: Any, targets: Any) -> None:
        """Count a batch."""
        if self._collection is not None:
            self._collection.update(outputs, targets)

    def compute(self, scalars: Scalars) -> dict[str, float]:
        """Return the metrics by name, those of all processes together.

        The items of a vector (one for each class) are named ``name/0``, ``name/1`` ...; matrices are left out.
        """
        if self._collection is None:
            return {}
        named = dict(_flatten(self._collection.compute()))
        return dict(zip(named, scalars.read(list(named.values())), strict=True))


def _collect(metrics: Metric | MetricCollection | Mapping[str, Metric]) -> MetricCollection:
    from torchmetrics import Metric, MetricCollection  # imported on demand: it takes a second

    if isinstance(metrics, MetricCollection):
        return metrics
    given = list(metrics.values()) if isinstance(metrics, Mapping) else [metrics]
    for metric in cast("list[object]", given):
        if not isinstance(metric, Metric):
            raise InvalidArgument(
                f"{metric!r:.80} of type {type(metric).__qualname__} is no metric",
                "expected a torchmetrics Metric, a MetricCollection or a mapping of metrics by name",
            )
    return MetricCollection(
        cast("dict[str, Metric | MetricCollection]", dict(metrics)) if isinstance(metrics, Mapping) else given
    )


def _flatten(computed: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, value in computed.items():
        tensor = torch.as_tensor(value)
        if tensor.numel() == 1:
            found.append((name, tensor))
        elif tensor.dim() == 1:
            found.extend((f"{name}/{index}", item) for index, item in enumerate(tensor))
    return found


@dataclass(frozen=True)
class Fitness:
    """Which number is to be improved, and in which direction."""

    name: str | None
    """A metric or a validation loss; None: the first metric, else the loss."""
    mode: Literal["max", "min"] | None
    """Which is better; None: ``max`` for a metric, ``min`` for a loss."""

    def of(self, metrics: Mapping[str, float], losses: Mapping[str, float]) -> float | None:
        """Return the fitness, larger is better; None where nothing was computed.

        Raises:
            UnknownFitness: nothing of that name was computed.
        """
        if self.name is not None and self.name not in {**losses, **metrics}:
            raise UnknownFitness(self.name, [*metrics, *losses])
        name = self.name or next(iter(metrics), None)
        if name is None:
            return self._signed(sum(losses.values()), "min") if losses else None
        return self._signed(metrics[name], "max") if name in metrics else self._signed(losses[name], "min")

    def _signed(self, value: float, default: Literal["max", "min"]) -> float:
        return value if (self.mode or default) == "max" else -value


def better(fitness: float | None, best: float | None) -> bool:
    """Return whether `fitness` is an improvement; nan never is."""
    return fitness is not None and not math.isnan(fitness) and (best is None or fitness > best)
