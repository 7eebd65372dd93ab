"""One prediction: what is read, how much of it is wanted, and where the results go."""

from __future__ import annotations

import concurrent.futures
from collections.abc import AsyncIterable, Callable, Sequence
from typing import Generic, TypeVar

from ..control import Control
from ..relay import Relay
from .channel import Channel, Demand, End
from .config import PredictResult
from .sources import Source, check_synchronous

R = TypeVar("R")


class PredictControl(Control):
    """The control of a prediction: a stop also ends the wait for a reader, or for an asynchronous source.

    Args:
        release: Ends what the run waits for.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        super().__init__()
        self._release = release

    def stop(self, reason: str, signal: int | None = None) -> None:
        """See `Control.stop`."""
        super().stop(reason, signal)
        self._release()


class Prediction(Generic[R]):
    """A prediction that collects its results, all there are, unless told not to."""

    abandoned = "the event loop of the source is closed"
    """The reason of a run that ended before its source did, though nobody stopped it."""
    blocks = False
    """Whether whoever reads the results blocks his thread, and an event loop in it."""
    shared: float = 0
    """Batches that whoever reads the results may compute himself, in his own thread."""

    def __init__(self, source: Source, *, collect: bool = True) -> None:
        self.source = source
        self.asynchronous = isinstance(source, AsyncIterable)
        """Whether the source is read on an event loop."""
        self.demand = Demand.unlimited()
        self._collect = collect
        self.control: PredictControl | None = None
        """What steers the run, once there is one."""
        self.relay: Relay[PredictResult[R]] | None = None
        """The way of the run through its threads, once there is one."""
        self.results: list[R] = []

    @property
    def ending(self) -> concurrent.futures.Future[None] | None:
        """What a new run has to wait for, because this one is being abandoned."""
        return None

    def release(self) -> None:
        """Let the run come to its end: nothing is wanted of it any longer. May be called from anywhere."""
        self.demand.end()
        self.leave()

    def read_synchronously(self, instead: str) -> None:
        """Read a source that can be read in both ways without an event loop; `SourceUnusable`: it needs one."""
        check_synchronous(self.source, instead)
        self.asynchronous = False

    def leave(self) -> None:
        """Have the run's own thread compute all that is asked for from now on."""
        relay = self.relay
        if relay is not None:
            relay.leave()

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
        self._is_abandoned = False
        self.over: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done once the run is over and the predictor is free."""
        self.over.set_running_or_notify_cancel()  # from now on nobody who waits can cancel it

    @property
    def ending(self) -> concurrent.futures.Future[None] | None:
        """See `Prediction.ending`."""
        return self.over if self.demand.over else None

    def abandon(self) -> None:
        """Nobody reads any longer. May be called from anywhere, a finalizer too."""
        self._is_abandoned = True
        self.release()
        self.stop(self.abandoned)  # a stop, because the run may be paused

    def stop(self, reason: str) -> None:
        """Ask the run for a stop, if there is one. May be called from anywhere."""
        if self.control is not None:
            self.control.stop(reason)

    def carry_on(self) -> None:
        """Compute the next batch for the reader, in his thread, where that is for him to do."""
        relay = self.relay
        if relay is not None:
            relay.carry_on()

    def deliver(self, results: Sequence[R]) -> None:
        """Hand the results of a batch to the reader."""
        self.channel.put(results)

    def end(self) -> None:
        """Tell the reader, and whoever waits for the predictor."""
        self.relay = None  # it will have the error, and with it all that the reader has
        if self._is_abandoned:
            self.channel.clear()
        self.channel.put(End())
        self.over.set_result(None)
