"""`Threads`: calls that take too long for an event loop, in a few threads that nobody waits for in the end."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from typing_extensions import TypeVarTuple, Unpack

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Threads:
    """Calls functions in up to `most` threads at once. A thread ends when there is nothing more to call.

    Those of anyio and of executors keep the interpreter from its end where a call hangs; these do not.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads = 0

    async def call(self, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        """Return what ``function(*args)`` returns, or raise what it raises.

        Whoever is cancelled waits no longer: a call that has begun goes on, and keeps its thread until it returns.
        """
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append((future, partial(copy_context().run, function, *args)))
            begins = self._threads < self._most
            self._threads += begins
        if begins:
            self._begin()
        return await asyncio.wrap_future(future)

    def _begin(self) -> None:
        try:
            threading.Thread(target=self._work, name="lineside-decode", daemon=True).start()
        except RuntimeError:  # the system has no more of them
            with self._lock:
                self._threads -= 1
            raise

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                future, call = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # whoever called gets it
                    future.set_exception(error)
            del future, call  # while it waits for the lock, nothing is held that somebody else is done with
