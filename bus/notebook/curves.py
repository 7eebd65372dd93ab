"""Curves: what the events of a run say over time."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from typing_extensions import override

from ...schemas import Event, FitEpochEnd, NonFinite, RunEnd, TrainBatchEnd
from ..attempts import OfAttempts
from ..losses import SaidLoss
from .series import drawable

DRAWN = (TrainBatchEnd, NonFinite, FitEpochEnd, RunEnd)
"""The events that a figure is made of."""

Place = tuple[int, int]
"""An epoch and a batch, from 0."""


@dataclass
class Curve:
    """The points of one value; x are batches from 1, or epochs from 1."""

    x: list[float] = field(default_factory=list[float])
    y: list[float] = field(default_factory=list[float])
    places: list[Place] = field(default_factory=list[Place])

    def add(self, place: Place, x: float, y: float) -> None:
        """Add a point; what cannot be drawn leaves a gap."""
        self.places.append(place)
        self.x.append(x)
        self.y.append(y if drawable(y) else math.nan)

    def cut(self, place: Place) -> None:
        """Forget what was from `place` on."""
        first = bisect_left(self.places, place)
        del self.places[first:], self.x[first:], self.y[first:]


class Curves(OfAttempts[Place]):
    """Curves by name, of the newest attempt and of what it built on."""

    def __init__(self) -> None:
        super().__init__()
        self.named: dict[str, Curve] = {}

    @property
    def last(self) -> float:
        """The last x of any."""
        return max((curve.x[-1] for curve in self.named.values() if curve.x), default=0)

    @override
    def cut(self, place: Place) -> None:
        for curve in self.named.values():
            curve.cut(place)

    def add(self, place: Place, x: float, values: Mapping[str, float], group: str = "") -> None:
        """Add a point to the curve of each of `values`."""
        for name, value in values.items():
            self.named.setdefault(f"{group}.{name}" if group else name, Curve()).add(place, x, value)


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
        self._attempt = 0
        self._batches, self._epochs = Curves(), Curves()
        self._said_loss = SaidLoss()
        for event in events:
            self._take(event)
        if self._said_loss.known is False:
            self._batches.named.pop("loss", None)
        self.curves = {
            name: curve for curves in (self._batches, self._epochs) for name, curve in curves.named.items() if curve.x
        }

    def _take(self, event: Event) -> None:
        if event.rank:
            return
        if event.attempt > self._attempt:
            self._attempt, self.state = event.attempt, "running"
        self._said_loss.take(event)
        match event:
            case TrainBatchEnd():
                self._take_batch(event)
            case FitEpochEnd(final=False):
                self._take_epoch(event)
            case FitEpochEnd():
                self.best = event.epoch + 1
            case RunEnd() if event.attempt == self._attempt:
                self.state = event.outcome
            case _:
                pass

    def _take_batch(self, event: TrainBatchEnd) -> None:
        place, curves = (event.epoch, event.batch), self._batches
        if not curves.admit(event.attempt, place):
            return
        # Not the optimizer's steps, of which several batches may make one.
        x = curves.last + 1 if event.batches is None else event.epoch * event.batches + event.batch + 1
        curves.add(place, x, {"loss": event.loss})
        curves.add(place, x, event.losses, "losses")
        curves.add(place, x, event.lr, "lr")

    def _take_epoch(self, event: FitEpochEnd) -> None:
        place, x, curves = (event.epoch, 0), event.epoch + 1, self._epochs
        if not curves.admit(event.attempt, place):
            return
        curves.add(place, x, event.losses, "epochs")
        for name, value in event.metrics.items():
            curves.add(place, x, {name: value}, "val" if name in event.losses else "metrics")
        if event.fitness is not None:
            curves.add(place, x, {"fitness": event.fitness})
        if event.best_epoch is not None:
            self.best = event.best_epoch + 1
