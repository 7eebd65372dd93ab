"""`Run`: the handle of a started runner."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from typing_extensions import Unpack, override

from ..bus import Bus, Mark, PolicyKeywords, Stream
from ..bus.cells import AGAIN, did
from ..bus.interrupts import Watch
from ..bus.notebook import Recorded, Shown
from ..schemas import Event, RunEnd
from .control import Control, Steered
from .errors import JobRefused, RunEnded, StageNotReached, WouldDeadlock
from .hold import Hold, Holds, in_words
from .hooks import check_wait
from .jobs import Able, Asked, Job
from .loops import outcome_of
from .results import RunResult, ValResult

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

R = TypeVar("R", bound=RunResult)
T = TypeVar("T")
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)

State = Literal["running", "held", "paused", "stopping", "completed", "stopped", "failed"]

logger = logging.getLogger("lineside.runners")

_PATIENCE_AT_EXIT = 3.0
"""Seconds the interpreter waits at its exit for a run to stop at its next batch and save."""


class Run(Steered, Shown, Recorded, Generic[R]):
    """A run in progress, or over. Made by `Runner.start`.

    Awaiting it gives its result or raises the error that ended it; cancelling whoever awaits does not stop the run.
    The error of a failed run that nobody ever asked for is logged.
    """

    def __init__(
        self,
        id: str,  # noqa: A002
        bus: Bus,
        begin: Mark,
        control: Control,
        holds: Holds,
        able: Able | None = None,
    ) -> None:
        self.id = id
        """Id of the run."""
        self._bus = bus
        self._begin = begin
        self._control = control
        self._holds = holds
        self._able = able
        self._outcome: concurrent.futures.Future[R] = concurrent.futures.Future()
        self._outcome.set_running_or_notify_cancel()  # from now on a cancelled reader cannot cancel it
        self._unasked = weakref.finalize(self, _report_if_lost, id, self._outcome)

    def work(self, execute: Callable[[], R]) -> None:
        """Begin: have `execute` called in a daemon thread. The interpreter's exit stops it at the next batch."""
        thread = threading.Thread(target=self._work, args=(execute,), name=f"lineside-{self.id}", daemon=True)
        atexit.register(self._stop_at_exit, thread)
        thread.start()
        did(self, lambda run: run.stop(AGAIN), lambda run, seconds: concurrent.futures.wait([run._outcome], seconds))

    def _work(self, execute: Callable[[], R]) -> None:
        try:
            result = execute()
        except BaseException as error:
            outcome = self._over()
            del self  # the error's traceback has this frame: it must not keep a handle alive that nobody holds any more
            outcome.set_exception(error)
            del outcome  # nor, by a cycle, all that the run had
        else:
            self._over().set_result(result)

    def _over(self) -> concurrent.futures.Future[R]:
        atexit.unregister(self._stop_at_exit)
        self._holds.end()
        self._able = None  # it has the model: a handle that is kept must not keep that
        return self._outcome

    def _stop_at_exit(self, thread: threading.Thread) -> None:
        self.stop("the interpreter exits")
        thread.join(_PATIENCE_AT_EXIT)

    # ---- the result

    def done(self) -> bool:
        """Return whether the run is over."""
        return self._outcome.done()

    @property
    def state(self) -> State:
        """What the run is doing, or how it ended."""
        if self.done():
            return "failed" if self._outcome.exception() is not None else self._outcome.result().outcome
        if self._control.stopping:
            return "stopping"
        if self._held():
            return "held"
        return "paused" if self._control.paused else "running"

    @override
    def _held(self) -> bool:
        return self._holds.awaited.held

    def result(self, timeout: float | None = None) -> R:
        """Wait for the run's end, `timeout` seconds at most, and return its result or raise the error that ended it.

        Raises:
            StageNotReached: the run is still going on after `timeout` seconds.
            WouldDeadlock: the run is waiting for the caller, or for the caller's event loop: use ``await run``.
            InvalidArgument: `timeout` is no time.
        """
        check_wait("run.result()", timeout)
        if not self.done():
            self._holds.awaited.refuse_blocking("run.result()", "use `await run`")
        with self._holds.awaited.waiting("run.result()"), Watch(self._control.stop, blocking=True):
            # Not the set: a future that this frame held would be a cycle with its error.
            done = bool(concurrent.futures.wait([self._outcome], timeout).done)
        if not done:
            raise StageNotReached(self.id, "its end", timeout)
        try:
            return self.ended()
        finally:
            del self  # as in `_work`

    def ended(self) -> R:
        """Like `result`, for who knows that the run waits for nobody any more: nothing is refused."""
        self._unasked.detach()
        try:
            return self._outcome.result()
        finally:
            del self  # as in `_work`

    def __await__(self) -> Generator[Any, None, R]:
        if not self.done():
            self._holds.awaited.refuse("await run")
        return self._wait().__await__()

    async def _wait(self) -> R:
        try:
            with self._holds.awaited.waiting("await run"), Watch(self._control.stop):
                return await outcome_of(self._outcome)
        finally:
            if self.done():
                self._unasked.detach()
            del self  # as in `_work`

    # ---- reading

    @overload
    def stream(self, t1: type[E1], /, **policy: Unpack[PolicyKeywords]) -> Stream[E1]: ...
    @overload
    def stream(self, t1: type[E1], t2: type[E2], /, **policy: Unpack[PolicyKeywords]) -> Stream[E1 | E2]: ...
    @overload
    def stream(self, *types: type[Event] | str, **policy: Unpack[PolicyKeywords]) -> Stream[Event]: ...
    def stream(self, *types: type[Event] | str, **policy: Unpack[PolicyKeywords]) -> Stream[Any]:
        """Return the events of this run, from its first one (as far as the bus remembers) to its ``RunEnd``.

        An iterator, an async iterator and a context manager; the keywords are those of `Bus.stream`.
        """
        keywords: PolicyKeywords = {"since": self._begin, **policy, "run": self.id}
        return self._bus.stream(*types, **keywords).watched(Watch(self._control.stop))

    @overload
    async def next(
        self, t1: type[E1], /, *, where: Callable[[E1], bool] | None = None, timeout: float | None = None
    ) -> E1: ...
    @overload
    async def next(
        self, *types: type[Event] | str, where: Callable[[Any], bool] | None = None, timeout: float | None = None
    ) -> Event: ...
    async def next(
        self,
        *types: type[Event] | str,
        where: Callable[[Any], bool] | None = None,
        timeout: float | None = None,
    ) -> Event:
        """Wait for the next event of this run among `types` for which `where` is true, and return it.

        Raises:
            UnreachableStage: this runner never reaches one of `types`.
            RunEnded: the run was over before.
            StageNotReached: it did not come within `timeout` seconds.
            WouldDeadlock: the run is waiting for the caller.
            InvalidArgument: `timeout` is no time; `where` is async, or cannot be called with one event.
        """
        classes = self._holds.hooks.reachable(types)
        wanted = in_words(types)
        check_wait(f"run.next({wanted})", timeout, where)
        if self.done():
            raise RunEnded(self.id, wanted)
        self._holds.awaited.refuse(f"run.next({wanted})")
        policy: PolicyKeywords = {"since": "now"} if where is None else {"since": "now", "where": where}
        limit = asyncio.timeout(timeout)
        try:
            with self._holds.awaited.waiting(f"run.next({wanted})"):
                async with limit:
                    event = await self._first(types, classes, policy)
        except TimeoutError:
            if not limit.expired():  # the predicate's own
                raise
            raise StageNotReached(self.id, wanted, timeout) from None
        if event is None:
            raise RunEnded(self.id, wanted)
        return event

    async def _first(
        self, types: Iterable[type[Event] | str], classes: tuple[type[Event], ...], policy: PolicyKeywords
    ) -> Event | None:
        """Return the first event of `types` that comes; None if the run ends before."""
        with self.stream(*types, **policy) as events:
            if not self._control.said_end:  # asked behind the beginning of the stream, which then sees the end
                async for event in events:
                    return event
                return None
        if not issubclass(RunEnd, classes):
            return None
        begun: PolicyKeywords = {**policy, "since": self._begin}  # it may be behind us
        ends: Stream[RunEnd] = self.stream(RunEnd, **begun)
        with ends:
            async for end in ends:
                return end
        return None

    @overload
    def hold(
        self, t1: type[E1], /, *, where: Callable[[E1], bool] | None = None, timeout: float | None = None
    ) -> Hold[E1]: ...
    @overload
    def hold(
        self, *types: type[Event] | str, where: Callable[[Any], bool] | None = None, timeout: float | None = None
    ) -> Hold[Any]: ...
    def hold(
        self, *types: type[Event] | str, where: Callable[[Any], bool] | None = None, timeout: float | None = None
    ) -> Hold[Any]:
        """Wait for the next of `types` for which `where` is true, and keep the run there for the length of the block.

        A context manager, async and sync, that gives the event; inside the block the runner's model, optimizer and
        everything else stand still. Entering it raises:

            UnreachableStage: this runner never reaches one of `types`.
            RunEnded: the run was over before.
            StageNotReached: the stage was not reached within `timeout` seconds.
            WouldDeadlock: the run is waiting for the caller.

        Raises:
            InvalidArgument: `timeout` is no time; `where` is async, or cannot be called with one event.
        """
        return Hold(self._holds, types, where, timeout, Watch(self._control.stop))

    # ---- what the run itself does in between

    def checkpoint(self, path: str | os.PathLike[str] | None = None) -> Asked[Path]:
        """Save where the run stands, as a stop would, and go on: ``await run.checkpoint()``, or ``.result()`` of it.

        It is done between two batches, at the end of an accumulation window, or at once where the run is paused, held
        or inside a hook, and gives the path of the checkpoint: ``last.pt`` in the run's folder unless `path` names
        another file, which is replaced. ``ModelSave`` is published; hooks and holds there are not called. Of several
        processes one is asked, and all of them save: between two batches only, the first process writing.

        Raises:
            JobRefused: it is no training run, or it is held within a batch, or is one of several processes and held;
                the message says more.
            RunEnded: training was over before.
            CheckpointUnwritable: it could not be written.
            WouldDeadlock: the run is waiting for the caller and cannot do anything.
        """
        file = None if path is None else Path(path)
        return self._ask(
            "run.checkpoint()",
            lambda able, _: able.checkpoint(file),
            lambda able: able.cannot_save(file),
        )

    def evaluate(
        self,
        data: Iterable[Any],
        metrics: Metric | MetricCollection | Mapping[str, Metric] | None = None,
    ) -> Asked[ValResult]:
        """Evaluate the model as it is on other data: ``await run.evaluate(loader)``, or ``.result()`` of it.

        The run stands meanwhile: it is done between two batches, or at once where the run is paused, held or inside a
        hook. The moving average is evaluated where there is one, as in validation. Training goes on as if nothing had
        been: modes, gradients, random generators and the trainer's own metrics are as before. The events of validation
        are published with ``aside=True``; hooks and holds there are not called. A stop breaks it off, and gives a
        result with the outcome ``stopped``.

        Args:
            data: Batches, as for validation.
            metrics: What to compute besides the loss. Default: a copy of what validation computes.

        Raises:
            JobRefused: it is no training run, or `data` is what the run itself is reading; the message says more.
            RunEnded: training was over before.
            WouldDeadlock: the run is waiting for the caller and cannot do anything.
        """
        return self._ask(
            "run.evaluate()",
            lambda able, unwanted: able.evaluate(data, metrics, unwanted),
            lambda able: able.cannot_evaluate(),
        )

    def _ask(
        self,
        what: str,
        work: Callable[[Able, Callable[[], bool]], T],
        obstacle: Callable[[Able], str | None],
    ) -> Asked[T]:
        able, awaited = self._able, self._holds.awaited
        if self.done():
            raise RunEnded(self.id, what)
        if able is None:
            raise JobRefused(self.id, what, "only the run of a Trainer trains a model that it could save or evaluate")
        stay, own = awaited.within(), awaited.in_own_thread
        if stay is not None and not stay.serves and not own:
            because = f"run {self.id} waits for {stay.what} in its own thread, which would have to do it"
            raise WouldDeadlock(what, because, "call it in the hook itself, or make the hook an `async def`")
        if stay is None and own:
            raise JobRefused(self.id, what, "its data or its model asks, in the middle of a batch; ask in a hook")
        job = Job(
            self.id, what, lambda unwanted: work(able, unwanted), lambda: obstacle(able), inside=own or bool(stay)
        )
        if own:
            job.attempt()
        else:
            self._control.ask(job)
        return Asked(job, awaited, lambda: Watch(self._control.stop))

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.state}>"


def _report_if_lost(run: str, outcome: concurrent.futures.Future[Any]) -> None:
    error = outcome.exception() if outcome.done() else None
    if error is not None:
        logger.error("run %s failed, and nobody asked for its result", run, exc_info=error)
