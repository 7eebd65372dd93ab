"""The bounded way from a predictor's thread to the one who reads its results."""

from __future__ import annotations

import asyncio
import math
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from ..loops import wait_while_open

R = TypeVar("R")


class Demand:
    """How many batches the predictor may still compute: its thread waits here for the reader.

    Everything but the waiting may be called from any thread, a signal handler or a finalizer: it appends to a
    `queue.SimpleQueue`, which needs no lock that the interrupted code might hold.
    """

    def __init__(self, prefetch: float) -> None:
        self.prefetch = prefetch
        """Batches that are wanted before they are asked for."""
        self._credit = prefetch
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.over = False
        """Whether nobody wants anything any longer."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that the inputs come from, if any: when it is closed, there is nothing to want."""
        self.on_end: Callable[[], object] = _nothing
        """Called at the end, from wherever it comes: whoever waits elsewhere for what is wanted is woken by it."""

    @classmethod
    def unlimited(cls) -> Demand:
        """Return a demand for all there is."""
        return cls(math.inf)

    def ask(self) -> None:
        """Ask for one batch more."""
        self._signals.put(1)

    def end(self) -> None:
        """Say that nothing is wanted any longer, and wake whoever waits."""
        self.over = True
        self._signals.put(0)
        self.on_end()

    def wait(self) -> bool:
        """Wait until a batch is wanted and count it; False: nothing is wanted any longer."""
        while not self.over and self._credit < 1:
            self._receive()
        self._credit -= 1
        return not self.over

    def wait_for(self, other: Future[Any], seconds: float | None = None) -> bool:
        """Wait until `other` is done, or at most `seconds`; False: nothing is wanted any longer."""

        def wake(_: object) -> None:
            self._signals.put(0)

        other.add_done_callback(wake)
        end = None if seconds is None else time.monotonic() + seconds
        while not self.over and not other.done():
            if end is None:
                self._receive()
            elif not self._receive_within(max(0.0, end - time.monotonic())):
                break
        return not self.over

    def _receive(self) -> None:
        """Wait for the next signal and count the credit that it brings."""
        if self.loop is None:
            self._credit += self._signals.get()
        elif not wait_while_open(self.loop, self._receive_within):
            self.end()

    def _receive_within(self, seconds: float) -> bool:
        with suppress(queue.Empty):
            self._credit += self._signals.get(timeout=seconds)
            return True
        return False


def _nothing() -> None: ...


class End:
    """What comes after the last results: the run is over."""


class Channel(Generic[R]):
    """Batches of results, from the predictor's thread to a reader, who may be synchronous or on any event loop.

    It holds what the reader's `Demand` allows: it is the predictor that does not compute more. Neither side takes a
    lock, and an event loop is woken once for a batch and only when its reader waits.
    """

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Sequence[R] | End] = queue.SimpleQueue()
        self._waiting: deque[_Waiter] = deque()

    def put(self, item: Sequence[R] | End) -> None:
        """Hand over the results of a batch, or the end. Never waits."""
        self._items.put(item)
        for _ in range(len(self._waiting)):  # not those who come to wait meanwhile: they have seen the item
            with suppress(IndexError):  # one of them has left by itself
                _wake(*self._waiting.popleft())

    def get(self) -> Sequence[R] | End:
        """Wait for the next item. Once the end has come, it is the end for ever."""
        return self._keep_end(self._items.get())

    def clear(self) -> None:
        """Forget what nobody will get any more."""
        with suppress(queue.Empty):
            while True:
                self._items.get_nowait()

    async def aget(self) -> Sequence[R] | End:
        """Like `get`, without holding up the loop. Nothing is lost when the waiting task is cancelled."""
        await asyncio.sleep(0)  # results that are always there must not keep other tasks from running
        while True:
            with suppress(queue.Empty):
                return self._keep_end(self._items.get_nowait())
            await self._change()

    async def _change(self) -> None:
        """Wait until something was put."""
        loop = asyncio.get_running_loop()
        waiter = loop, loop.create_future()
        self._waiting.append(waiter)
        try:
            if self._items.empty():  # asked after the line above: what comes later wakes us
                await waiter[1]
        finally:
            with suppress(ValueError, IndexError):  # taken off already, or just being taken off
                self._waiting.remove(waiter)

    def _keep_end(self, item: Sequence[R] | End) -> Sequence[R] | End:
        if isinstance(item, End):
            self.put(item)
        return item


_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> None:
    # A closed loop took its waiting task with it; the items stay for another reader.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_resolve, woken)


def _resolve(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
