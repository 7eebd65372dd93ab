"""Metrics as the runners see them, and the one number of them that is to be improved."""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from ..errors import InvalidArgument, UnknownFitness
from ..scalars import Scalars

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

Direction = Literal["max", "min"]
"""Which is better: larger or smaller."""


class Meters:
    """The metrics of an evaluation.

    Args:
        metrics: A torchmetrics Metric, a MetricCollection, a mapping of metrics by name, or None.

    Raises:
        InvalidArgument: `metrics` is anything else.
    """

    def __init__(self, metrics: Metric | MetricCollection | Mapping[str, Metric] | None) -> None:
        if isinstance(metrics, Mapping) and not metrics:
            metrics = None
        self._collection = None if metrics is None else _collect(metrics)

    def __bool__(self) -> bool:
        return self._collection is not None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the metrics; the numbers of one that computes several are named after it, or by itself."""
        return () if self._collection is None else tuple(map(str, self._collection.keys()))

    @property
    def names_are_sure(self) -> bool:
        """Whether no metric computes a mapping, whose names only its result tells."""
        metrics = () if self._collection is None else self._collection.values()
        return all(_returned(metric) in (Tensor, "Tensor") for metric in metrics)

    def reset(self, device: torch.device) -> None:
        """Begin anew, on `device`."""
        if self._collection is not None:
            self._collection.to(device)
            self._collection.reset()

    def update(self, outputs: Any, targets: Any) -> None:
        """Count a batch."""
        if self._collection is None:
            return
        try:
            self._collection.update(outputs, targets)
        except Exception as error:
            error.add_note(
                f"raised by metrics=... ({', '.join(self.names)}), which compare what the model returned, "
                f"{_described(outputs)}, with the targets, {_described(targets)}; where these do not fit, pass a "
                f"torchmetrics Metric of your own, whose update(outputs, targets) takes them apart"
            )
            raise

    @contextmanager
    def apart(self) -> Generator[None]:
        """Leave other processes out of what is computed in the block: they would be waited for."""
        modules = () if self._collection is None else self._collection.modules()
        metrics: list[Any] = [module for module in modules if hasattr(module, "distributed_available_fn")]
        before = [metric.distributed_available_fn for metric in metrics]
        for metric in metrics:
            metric.distributed_available_fn = bool  # false
        try:
            yield
        finally:
            for metric, function in zip(metrics, before, strict=True):
                metric.distributed_available_fn = function

    def compute(self, scalars: Scalars) -> dict[str, float]:
        """Return the metrics by name, those of all processes together.

        The items of a vector (one for each class) are named ``name/0``, ``name/1`` ...; matrices are left out.
        """
        if self._collection is None:
            return {}
        named = dict(_flatten(self._collection.compute()))
        return dict(zip(named, scalars.read(list(named.values())), strict=True))


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    name = type(value).__qualname__
    return (
        f"a {name} with {', '.join(map(repr, cast('Mapping[object, object]', value)))}"
        if isinstance(value, Mapping)
        else f"a {name}"
    )


def _collect(metrics: Metric | MetricCollection | Mapping[str, Metric]) -> MetricCollection:
    from torchmetrics import Metric, MetricCollection  # imported on demand: it takes a second

    if isinstance(metrics, MetricCollection):
        return metrics
    for name in metrics if isinstance(metrics, Mapping) else ():
        if not isinstance(cast("object", name), str) or not name or "." in name:  # torch keeps them as submodules
            raise InvalidArgument(f"a metric is named {name!r:.80}", "expected text without a dot")
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


def _returned(metric: Metric) -> object:
    compute: Any = cast("Any", type(metric)).compute
    return getattr(compute, "__annotations__", {}).get("return")


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
    """A metric, a validation loss or what a step reports; None: the first metric, else the loss."""
    mode: Direction | None
    """Which is better; None: ``max`` for a metric, ``min`` for a loss."""

    def of(
        self, metrics: Mapping[str, float], losses: Mapping[str, float], reported: Mapping[str, float]
    ) -> float | None:
        """Return the fitness, larger is better; None where nothing was computed.

        Raises:
            UnknownFitness: nothing of that name was computed.
        """
        known = {**metrics, **reported, **losses}
        if self.name is not None and self.name not in known:
            raise UnknownFitness(self.name, known)
        name = self.name or next(iter(metrics), None)
        value = sum(losses.values()) if name is None else known[name]
        return None if not known else value if self.direction(metrics, losses, reported) == "max" else -value

    def direction(
        self, metrics: Collection[str], losses: Collection[str], reported: Collection[str] = ()
    ) -> Direction | None:
        """Return which is better, given the names of what is computed; None where the fitness is not among them."""
        if self.mode is not None:
            return self.mode
        if self.name is None:
            return "max" if metrics else "min"
        return "max" if _among(self.name, metrics) or self.name in reported else "min" if self.name in losses else None

    def refuse_unknown(self, names: Collection[str]) -> None:
        """Refuse a fitness that will be none of `names`, and no item of a vector of that name.

        Raises:
            UnknownFitness: it will not.
        """
        if self.name is not None and not _among(self.name, names):
            raise UnknownFitness(self.name, names)


def _among(name: str, names: Collection[str]) -> bool:
    return name in names or name.rpartition("/")[0] in names


def refuse_same_names(metrics: Collection[str], losses: Collection[str], reported: Collection[str] = ()) -> None:
    """Refuse a metric with the name of a loss, or of what a step reports: results have one number of a name.

    Raises:
        InvalidArgument: there is one.
    """
    for what, names in (("a loss", losses), ("what the step reports", reported)):
        for name in metrics:
            if name in names:
                raise InvalidArgument(
                    f"a metric and {what} are both named {name!r}", "rename the metric: metrics={'another name': ...}"
                )


def better(fitness: float | None, best: float | None) -> bool:
    """Return whether `fitness` is an improvement; nan never is."""
    return fitness is not None and not math.isnan(fitness) and (best is None or fitness > best)
