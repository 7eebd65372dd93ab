"""One prediction: what is read, how much of it is wanted, and where the results go."""

from __future__ import annotations

import concurrent.futures
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Generic, TypeVar

from ..control import Control
from .channel import Channel, Demand, End

R = TypeVar("R")

Source = Iterable[object] | AsyncIterable[object]


class PredictControl(Control):
    """The control of a prediction: a stop also ends the wait for a reader, or for an asynchronous source."""

    def __init__(self, demand: Demand) -> None:
        super().__init__()
        self._demand = demand

    def stop(self, reason: str, signal: int | None = None) -> None:
        """See `Control.stop`."""
        super().stop(reason, signal)
        self._demand.end()


class Prediction(Generic[R]):
    """A prediction that collects its results, all there are, unless told not to."""

    abandoned = "the event loop of the source is closed"
    """The reason of a run that ended before its source did, though nobody stopped it."""
    blocks = False
    """Whether whoever reads the results blocks his thread, and an event loop in it."""

    def __init__(self, source: Source, *, collect: bool = True) -> None:
        self.source = source
        self.demand = Demand.unlimited()
        self._collect = collect
        self.control: PredictControl | None = None
        """What steers the run, once there is one."""
        self.results: list[R] = []

    @property
    def ending(self) -> concurrent.futures.Future[None] | None:
        """What a new run has to wait for, because this one is being abandoned."""
        return None

    def deliver(self, results: Sequence[R]) -> None:
        """Take the results of a batch."""
        if self._collect:
            self.results.extend(results)

    def end(self) -> None:
        """The run is over and the predictor is free."""

    def forget(self) -> None:
        """Keep nothing alive any longer."""
        self.source, self.results = (), []


class StreamedPrediction(Prediction[R]):
    """A prediction whose results go to a reader as they are asked for."""

    abandoned = "the stream was abandoned"

    def __init__(self, source: Source, prefetch: int) -> None:
        super().__init__(source)
        self.demand = Demand(prefetch)
        self.channel: Channel[R] = Channel()
        self.over: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done once the run is over and the predictor is free."""
        self.over.set_running_or_notify_cancel()  # from now on nobody who waits can cancel it

    @property
    def ending(self) -> concurrent.futures.Future[None] | None:
        """See `Prediction.ending`."""
        return self.over if self.demand.over else None

    def abandon(self) -> None:
        """Nobody reads any longer. May be called from anywhere, a finalizer too."""
        self.demand.end()
        if self.control is not None:  # a stop, because the run may be paused
            self.control.stop(self.abandoned)

    def deliver(self, results: Sequence[R]) -> None:
        """Hand the results of a batch to the reader."""
        self.channel.put(results)

    def end(self) -> None:
        """Tell the reader, and whoever waits for the predictor."""
        self.channel.put(End())
        self.over.set_result(None)
