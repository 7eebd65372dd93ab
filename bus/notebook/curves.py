"""Curves: what the events of a run say over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...schemas import Event, FitEpochEnd, RunEnd, TrainBatchEnd

DRAWN = (TrainBatchEnd, FitEpochEnd, RunEnd)
"""The events that a figure is made of."""


@dataclass
class Curve:
    """The points of one value; x are batches from 1, or epochs from 1."""

    x: list[float] = field(default_factory=list[float])
    y: list[float] = field(default_factory=list[float])

    def add(self, x: float, y: float | None) -> None:
        """Add a point; what is not finite leaves a gap."""
        self.x.append(x)
        self.y.append(y if y is not None and math.isfinite(y) else math.nan)


class Story:
    """What the curves of one run are, by name.

    ``loss`` and ``losses.box`` have a point a batch, ``epochs.loss`` and ``epochs.box`` the mean of an epoch,
    ``val.loss`` a loss in validation, ``metrics.accuracy``, ``fitness`` and ``lr.all`` what they say.

    Args:
        run: Its id.
        events: Those of `DRAWN`, in order.
    """

    def __init__(self, run: str, events: Iterable[Event]) -> None:
        self.run = run
        self.state = "running"
        """How it ended; ``running`` where it did not yet, as far as its events say."""
        self.best: int | None = None
        """The epoch, from 1, of the best weights."""
        self.curves: dict[str, Curve] = {}
        self._batches = 0
        for event in events:
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case TrainBatchEnd():
                # Not the optimizer's steps, of which several batches may make one.
                batch = self._batches + 1 if event.batches is None else event.epoch * event.batches + event.batch + 1
                self._batches = max(batch, self._batches)
                self._add(batch, {"loss": event.loss})
                self._add(batch, event.losses, "losses")
                self._add(batch, event.lr, "lr")
            case FitEpochEnd(final=False):
                self._take_epoch(event)
            case FitEpochEnd():
                self.best = event.epoch + 1
            case RunEnd():
                self.state = event.outcome
            case _:
                pass

    def _take_epoch(self, event: FitEpochEnd) -> None:
        x = event.epoch + 1
        self._add(x, event.losses, "epochs")
        self._add(x, {name: value for name, value in event.metrics.items() if name in event.losses}, "val")
        self._add(x, {name: value for name, value in event.metrics.items() if name not in event.losses}, "metrics")
        if event.fitness is not None:
            self._add(x, {"fitness": event.fitness})
        if event.best_epoch is not None:
            self.best = event.best_epoch + 1

    def _add(self, x: float, values: Mapping[str, float], group: str = "") -> None:
        for name, value in values.items():
            self.curves.setdefault(f"{group}.{name}" if group else name, Curve()).add(x, value)
