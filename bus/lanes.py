"""Lanes: where callbacks run. A loop lane is a task, a thread lane a thread; each serves one subscription."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Protocol

from ..schemas import Event
from .bell import Bell
from .calls import AsyncCall, SyncCall
from .errors import CallbackRefused
from .policy import refuse_generator
from .portal import Portal
from .serving import serve
from .subscription import Subscription

logger = logging.getLogger("lineside.bus")


TURN_SECONDS = 0.002
"""How long a subscription may keep an event loop before the others get their turn."""


class LoopLane:
    """Serves a subscription with a task on an event loop. The task begins with the first event."""

    def __init__(
        self, subscription: Subscription, callback: object, call: AsyncCall, portal: Callable[[], Portal]
    ) -> None:
        self.finished: Future[None] = Future()
        self._callback = callback
        self._subscription = subscription
        self._call = call
        self._portal = portal
        self._bound: Portal | None = None
        self._task: asyncio.Task[None] | None = None
        self._asleep: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Start or continue on the loop; the bus flushes its portals afterwards."""
        if self._bound is None:
            if not self._subscription.open and not hasattr(self._callback, "close"):
                _done(self.finished)
                return
            try:
                self._bound = self._portal()
            except Exception as error:
                self._subscription.die(f"no event loop could be started for it: {error}")
                self._close()
                return
        elif (self._task is None or self._asleep is None) and not self._bound.loop.is_closed():
            return  # it is starting or busy, and looks again before it sleeps
        self._bound.post(self._continue, self._lost)

    def _continue(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve(), name=self._subscription.name)
            self._task.add_done_callback(self._ended)
        elif self._asleep is not None and not self._asleep.done():
            self._asleep.set_result(None)

    def _lost(self) -> None:
        self._subscription.die("the event loop that it ran on was closed")
        self._close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._close()
        if task.cancelled():
            self._subscription.die("its task was cancelled")
        elif error := task.exception():
            self._subscription.die(f"its lane broke: {error!r}")

    def _close(self) -> None:
        if not self.finished.done():
            close_callback(self._callback)
            _done(self.finished)

    def abandon(self) -> None:
        """Cancel the task: the deadline of a close has passed."""
        if self._bound is not None and self._task is not None:
            self._bound.post(self._task.cancel, self._lost)  # type: ignore[arg-type]
            self._bound.flush()

    async def _serve(self) -> None:
        subscription = self._subscription
        loop = asyncio.get_running_loop()
        began = loop.time()
        while subscription.open:
            events = subscription.take() or await self._next(loop)
            if events:
                with serve(subscription):
                    await self._deliver(events)
                if loop.time() - began < TURN_SECONDS:
                    continue
                await asyncio.sleep(0)
            began = loop.time()

    async def _next(self, loop: asyncio.AbstractEventLoop) -> list[Event]:
        """Sleep until woken. Looks once more when it can be woken: what came before that woke nobody."""
        self._asleep = loop.create_future()
        try:
            events: list[Event] = self._subscription.take()
            if not events and self._subscription.open:
                await self._asleep
            return events
        finally:
            self._asleep = None

    async def _deliver(self, events: list[Event]) -> None:
        for event in self._subscription.deliver(events):
            try:
                answer = await self._call(event)
                if answer is not None:
                    if isinstance(answer, Coroutine):  # of a plain function that wraps an async one
                        await answer
                    else:
                        refuse_generator(self._callback, answer)
            except (Exception, SystemExit, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise  # the lane itself is being cancelled
                self._subscription.fail(type(event), event.seq, error)


class Worker(Protocol):
    """What a thread lane does with the events of its subscription."""

    def serve(self) -> bool:
        """Deal with the next batch; return whether there was any."""
        ...

    @property
    def patience(self) -> float | None:
        """Longest sleep until it is asked to serve again, in seconds; None: until it is woken."""
        ...

    def close(self) -> None:
        """The subscription is over. Called in the lane's thread."""
        ...

    def abandon(self) -> None:
        """The deadline has passed; called from another thread."""
        ...


class ThreadLane:
    """Serves a subscription with a daemon thread of its own. The thread begins with the first event."""

    def __init__(self, subscription: Subscription, worker: Worker) -> None:
        self.finished: Future[None] = Future()
        self._subscription = subscription
        self._worker = worker
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._bell = Bell()

    def wake(self) -> None:
        """Start or continue."""
        with self._starting:
            if self._thread is None:
                self._start()
        self._bell.ring()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._serve, name=f"lineside-{self._subscription.name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # there are too many: that must not end the sequencer, whose thread this is
            self._subscription.die(f"no thread could be started for it: {error}")
            self._worker.close()
            _done(self.finished)

    def abandon(self) -> None:
        """Leave it behind: the deadline of a close has passed, and a thread cannot be stopped from outside."""
        self._worker.abandon()

    def _serve(self) -> None:
        subscription = self._subscription
        try:
            while subscription.open:
                if not self._worker.serve() and subscription.open:
                    self._bell.wait(self._worker.patience)
        except BaseException as error:
            subscription.die(f"its lane broke: {error!r}")
            raise
        finally:
            self._worker.close()
            _done(self.finished)


class Caller:
    """The worker for a plain callback: calls it in the lane's own thread."""

    patience = None

    def __init__(self, subscription: Subscription, callback: object, call: SyncCall) -> None:
        self._subscription = subscription
        self._callback = callback
        self._call = call

    def serve(self) -> bool:
        """Take a batch and call back with each event; return whether there was any."""
        events: list[Event] = self._subscription.take()
        if events:
            with serve(self._subscription):
                self._deliver(events)
        return bool(events)

    def _deliver(self, events: list[Event]) -> None:
        for event in self._subscription.deliver(events):
            try:
                answer = self._call(event)
                if answer is not None:
                    self._refuse(answer)
            except BaseException as error:
                self._subscription.fail(type(event), event.seq, error)

    def _refuse(self, answer: object) -> None:
        if isinstance(answer, Coroutine):
            answer.close()
            raise CallbackRefused(
                self._callback,
                "it returned a coroutine, which nobody awaits in a thread; subscribe the async function itself",
            )
        refuse_generator(self._callback, answer)

    def close(self) -> None:
        """Let the callback give back what it holds, and what was made around it."""
        close_callback(self._callback)
        if self._call is not self._callback:
            close_callback(self._call)

    def abandon(self) -> None:
        """Nothing to do: the thread is a daemon."""


def close_callback(callback: object) -> None:
    """Call the ``close()`` of a callback that has one: it has had its last event."""
    close = getattr(callback, "close", None)
    if callable(close):
        try:
            answer = close()
            if isinstance(answer, Coroutine):
                answer.close()
                raise TypeError("close() is called as a plain function; an async one would never be awaited")
        except Exception:
            logger.exception("%r could not be closed", callback)


def _done(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)
