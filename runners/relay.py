"""A run that several threads carry out, one after the other."""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from typing import Generic, TypeVar, cast

R = TypeVar("R")


class Relay(Generic[R]):
    """Lets whoever wants what a run makes carry it out, part by part, until the rest is left to the run's own thread.

    So there is always one to end the run, whoever stops or forgets it, and no thread hands over to another before.

    Args:
        parts: The run.
        caller: The block in which a thread counts as one of the run's.
        shared: How many parts, at most, are not left to its own thread from the outset.
        alike: Calls what it is given under the settings of those who carry out the others.
    """

    def __init__(
        self,
        parts: Generator[None, None, R],
        caller: AbstractContextManager[None],
        shared: float = 0,
        alike: Callable[[Callable[[], R]], R] | None = None,
    ) -> None:
        self._parts = parts
        self._caller = caller
        self._shared = shared
        self._alike = alike
        self._turn = threading.Lock()
        self._outcome: Future[R] = Future()
        self._is_left = False
        self._left: queue.SimpleQueue[None] = queue.SimpleQueue()
        if not shared:
            self.leave()

    def carry_on(self) -> None:
        """Carry out the next part in the calling thread, unless the rest is left to the run's own."""
        if self._is_left:
            return
        with self._turn:
            if self._is_left:
                return
            self._shared -= 1
            try:
                with self._caller:
                    next(self._parts)
            except StopIteration as end:
                self._outcome.set_result(end.value)
                self.leave()
            except BaseException as error:
                if inspect.getgeneratorstate(self._parts) != inspect.GEN_CLOSED:  # it was not the run that raised
                    raise
                self._outcome.set_exception(error)
                self.leave()
            if self._shared <= 0:
                self.leave()

    def leave(self) -> None:
        """Leave the rest to the run's own thread. May be called from anywhere, a finalizer too."""
        if not self._is_left:
            self._is_left = True
            self._left.put(None)

    def finish(self) -> R:
        """In the run's own thread: carry out the rest once it is left, and return the result or raise the error."""
        self._left.get()
        with self._turn:
            if self._outcome.done():
                return self._outcome.result()
            with self._caller:
                rest = partial(complete, self._parts)
                return rest() if self._alike is None else self._alike(rest)


def complete(parts: Generator[None, None, R]) -> R:
    """Carry out what is left of `parts` and return what they return."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return cast("R", end.value)
