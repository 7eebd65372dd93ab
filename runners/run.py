"""`Run`: the handle of a started runner."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import threading
import weakref
from collections.abc import Callable, Generator
from typing import Any, Generic, Literal, TypeVar, overload

from typing_extensions import Unpack

from ..bus import Bus, Mark, PolicyKeywords, Stream
from ..schemas import Event
from .control import Control, Steered
from .errors import RunEnded, StageNotReached
from .hold import Hold, Holds, in_words
from .results import RunResult

R = TypeVar("R", bound=RunResult)
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)

State = Literal["running", "paused", "stopping", "completed", "stopped", "failed"]

logger = logging.getLogger("lineside.runners")

_PATIENCE_AT_EXIT = 3.0
"""Seconds the interpreter waits at its exit for a run to stop at its next batch and save."""


class Run(Steered, Generic[R]):
    """A run in progress, or over. Made by `Runner.start`.

    Awaiting it gives its result or raises the error that ended it; cancelling whoever awaits does not stop the run.
    The error of a failed run that nobody ever asked for is logged.
    """

    def __init__(self, id: str, bus: Bus, begin: Mark, control: Control, holds: Holds) -> None:  # noqa: A002
        self.id = id
        """Id of the run."""
        self._bus = bus
        self._begin = begin
        self._control = control
        self._holds = holds
        self._outcome: concurrent.futures.Future[R] = concurrent.futures.Future()
        self._outcome.set_running_or_notify_cancel()  # from now on a cancelled reader cannot cancel it
        self._unasked = weakref.finalize(self, _report_if_lost, id, self._outcome)

    def work(self, execute: Callable[[], R]) -> None:
        """Begin: have `execute` called in a daemon thread. The interpreter's exit stops it at the next batch."""
        thread = threading.Thread(target=self._work, args=(execute,), name=f"lineside-{self.id}", daemon=True)
        atexit.register(self._stop_at_exit, thread)
        thread.start()

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
        return "paused" if self._control.paused else "running"

    def result(self, timeout: float | None = None) -> R:
        """Wait for the run's end, `timeout` seconds at most, and return its result or raise the error that ended it.

        Raises:
            StageNotReached: the run is still going on after `timeout` seconds.
            WouldDeadlock: the run is waiting for the caller, or for the caller's event loop: use ``await run``.
        """
        if not self.done():
            self._holds.awaited.refuse_blocking("run.result()", "use `await run`")
        if not concurrent.futures.wait([self._outcome], timeout).done:
            raise StageNotReached(self.id, "its end", timeout)
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
            return await asyncio.wrap_future(self._outcome)
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
        return self._bus.stream(*types, **keywords)

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
        """
        self._holds.hooks.reachable(types)
        wanted = in_words(types)
        if self.done():
            raise RunEnded(self.id, wanted)
        self._holds.awaited.refuse(f"run.next({wanted})")
        policy: PolicyKeywords = {"since": "now"} if where is None else {"since": "now", "where": where}
        try:
            with self.stream(*types, **policy) as events:
                async with asyncio.timeout(timeout):
                    async for event in events:
                        return event
        except TimeoutError:
            raise StageNotReached(self.id, wanted, timeout) from None
        raise RunEnded(self.id, wanted)

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
        """
        return Hold(self._holds, types, where, timeout)

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.state}>"


def _report_if_lost(run: str, outcome: concurrent.futures.Future[Any]) -> None:
    error = outcome.exception() if outcome.done() else None
    if error is not None:
        logger.error("run %s failed, and nobody asked for its result", run, exc_info=error)
