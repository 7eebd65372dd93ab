"""In which order, and in which thread, the batches of a prediction are read and computed."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from .batches import PredictBatch, describe
from .channel import Demand
from .inputs import Inputs
from .threads import GRACE, Helper
from .work import Steps, Work, WorkAhead, nothing

R = TypeVar("R")

DEPTH = 3
"""Batches that are on their way at most: one being prepared, one computed, one becoming results."""


class Schedule(ABC, Generic[R]):
    """Gives the run's own thread one batch after the other. All methods are called by that thread.

    Args:
        inputs: Where the inputs come from.
        sizes: The largest number of inputs of each batch.
        steps: What is done with them.
        demand: How many batches are wanted.
        interrupted: Stands still while the run is paused, then says whether to stop.
    """

    exhausted = False
    """Whether the source came to its end."""

    def __init__(
        self, inputs: Inputs, sizes: Iterator[int], steps: Steps[R], demand: Demand, interrupted: Callable[[], bool]
    ) -> None:
        self._inputs = inputs
        self._sizes = sizes
        self._steps = steps
        self._demand = demand
        self._interrupted = interrupted
        self._gathered = 0

    @abstractmethod
    def next(self) -> Work[R] | None:
        """Return the next batch once it is wanted and gathered; None: there is none, or none is wanted any longer."""

    @abstractmethod
    def close(self) -> None:
        """End all that works ahead, and the source."""

    def _gather(self) -> PredictBatch | None:
        """Take the inputs of a batch; None: the source has no more."""
        taken = self._inputs.take(next(self._sizes), self._demand)
        if not taken:
            return None
        batch = describe(taken, self._gathered, self._inputs.total, self._inputs.given)
        self._gathered += len(taken)
        return batch


class InOrder(Schedule[R]):
    """One thread does everything, batch by batch."""

    def next(self) -> Work[R] | None:
        """See `Schedule.next`."""
        if not self._demand.wait() or self._interrupted():
            return None
        batch = self._gather()
        if self._demand.over:
            return None
        self.exhausted = batch is None
        return None if batch is None else Work(batch, self._steps)

    def close(self) -> None:
        """See `Schedule.close`."""
        self._inputs.close()


class Ahead(Schedule[R]):
    """Batches are read and prepared in a second thread and computed in a third, while results are made of the first.

    Every batch is begun only when it is wanted, and there are at most `DEPTH` on their way. One that others must not
    compute ahead is left to the run's own thread, and the others stand until that is done with it. So is the first:
    whoever waits for it has all there is to compute with.

    Args:
        in_step: Whether a batch must not be computed before the run has come to it.
        caller: Makes the block in which a thread counts as one that the run waits for.
    """

    def __init__(
        self,
        inputs: Inputs,
        sizes: Iterator[int],
        steps: Steps[R],
        demand: Demand,
        interrupted: Callable[[], bool],
        in_step: Callable[[], bool],
        caller: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__(inputs, sizes, steps, demand, interrupted)
        self._in_step = in_step
        self._caller = caller
        self._works: queue.SimpleQueue[Work[R] | BaseException | None] = queue.SimpleQueue()
        self._prepared: queue.SimpleQueue[WorkAhead[R] | None] = queue.SimpleQueue()
        self._passed: queue.SimpleQueue[None] = queue.SimpleQueue()
        """For each batch that was left to the run's own thread: others may go on."""
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(DEPTH):
            self._room.put(None)
        self._at_hand: Work[R] | None = None
        self._closed = threading.Event()
        self._error_of_source: BaseException | None = None
        self._reader: Helper | None = None
        self._computer: Helper | None = None

    def next(self) -> Work[R] | None:
        """See `Schedule.next`."""
        self._begin_reading()
        self._leave_at_hand()
        found = None if self._demand.over else self._works.get()
        self._at_hand = found if isinstance(found, Work) else None
        if self._demand.over or self._interrupted():
            return None
        if isinstance(found, BaseException):
            raise found
        self.exhausted = found is None
        return found

    def close(self) -> None:
        """End the threads: a forward pass is waited for, a source or preprocessing that hangs is left behind."""
        self._closed.set()
        self._at_hand = None  # which may know this
        if self._reader is None:
            self._inputs.close()
        else:
            self._end_helpers(self._reader)
        if self._error_of_source is not None:
            raise self._error_of_source

    def _begin_reading(self) -> None:
        if self._reader is None:
            works = self._works  # the end wakes the run's thread there; who waits for demand is woken by that
            self._demand.on_end = lambda: works.put(None)
            self._reader = Helper("inputs", self._read)

    def _begin_computing(self) -> None:
        self._computer = Helper("forward", self._compute)
        self._passed.put(None)

    def _end_helpers(self, reader: Helper) -> None:
        self._demand.end()
        self._demand.on_end = nothing
        for waited in (self._passed, self._prepared, self._room):
            waited.put(None)
        if self._computer is not None:
            self._computer.join(None)
        reader.join(2 * GRACE)  # which may itself have to wait for the source

    def _leave_at_hand(self) -> None:
        if self._at_hand is not None:
            self._at_hand.left()
            self._at_hand = None
            self._room.put(None)

    # ---- in the thread that reads

    def _read(self) -> None:
        with self._caller():
            try:
                self._read_on()
            except BaseException as error:
                self._works.put(error)
            self._closed.wait()  # closing an asynchronous source ends the demand, and with it what is under way
            try:
                self._inputs.close()
            except BaseException as error:
                self._error_of_source = error

    def _read_on(self) -> None:
        while self._wanted():
            batch = self._gather()
            if self._demand.over:
                return
            if batch is None:
                self._works.put(None)
                return
            self._begin(batch)

    def _wanted(self) -> bool:
        self._room.get()
        return not self._closed.is_set() and self._demand.wait()

    def _begin(self, batch: PredictBatch) -> None:
        if self._in_step():
            self._leave_to_run(Work(batch, self._steps, left=lambda: self._passed.put(None)))
        elif self._computer is None:
            self._leave_to_run(Work(batch, self._steps, left=self._begin_computing))
        else:
            self._work_ahead(WorkAhead(batch, self._steps))

    def _leave_to_run(self, work: Work[R]) -> None:
        self._works.put(work)
        self._passed.get()

    def _work_ahead(self, work: WorkAhead[R]) -> None:
        self._works.put(work)
        if not self._closed.is_set() and work.prepare():
            self._prepared.put(work)

    # ---- in the thread that computes

    def _compute(self) -> None:
        with self._caller():
            while (work := self._prepared.get()) is not None:
                if not self._closed.is_set():
                    work.compute()
