"""The reader's end of a prediction: an iterator and an async iterator over results."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Generic, Self, TypeVar

from ...bus.closing import Closing
from ...bus.interrupts import Watch
from ..loops import running_loop
from ..run import Run
from .channel import End
from .config import PredictResult
from .errors import StreamBusy
from .session import StreamedPrediction

R = TypeVar("R")

CLOSE_TIMEOUT = 5.0
"""Seconds that closing, and a run after an abandoned one, wait for the batch that is being computed."""


class PredictStream(Closing, Generic[R]):
    """The results of a prediction, one for each input and in their order.

    Read it with ``for`` or with ``async for``, on any event loop, by one reader at a time. Nothing happens before
    the first result is asked for. The predictor stays at most ``prefetch`` batches ahead of the one its reader is at.
    Without overlap, whoever reads with ``for`` computes each batch in his own thread; with it, only the first.

    A reader who leaves (``break``, an error, a cancelled task, the last reference gone) releases the predictor: it
    finishes the batch at hand and ends its run as ``stopped``. As a context manager, ``with`` or ``async with``, the
    stream also waits for that. Cancelling a read, e.g. by a timeout, loses no result: read on. An interrupt (SIGINT) of
    its reader stops the run; while he waits it is raised when the batch at hand is through, a second one at once.

    An error of the source, the model or the postprocessing is raised after the results before it.
    """

    def __init__(
        self,
        prediction: StreamedPrediction[R],
        begin: Callable[[], Run[PredictResult[R]]],
        abegin: Callable[[], Awaitable[Run[PredictResult[R]]]],
        before_blocking: Callable[[], None],
    ) -> None:
        self._prediction = prediction
        self._begin = begin
        self._abegin = abegin
        self._before_blocking = before_blocking
        self._run: Run[PredictResult[R]] | None = None
        self._results: Iterator[R] = iter(())
        self._asked = self._ended = False
        self._one_reader = _OneReader()
        self._watch = Watch(prediction.stop)
        """From the first read to the last."""
        # Not a method of the stream, which it would keep alive. At exit it is the run that sees to its thread.
        weakref.finalize(self, _let_go, prediction, self._watch).atexit = False

    @property
    def run(self) -> Run[PredictResult[R]] | None:
        """The run, to steer it and to read its events; None before the first result is asked for."""
        return self._run

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        while True:
            for result in self._results:  # of what is there nobody gets anything twice: only who waits has to be alone
                return result
            if self._ended:
                raise StopIteration
            self._fetch()

    def _fetch(self) -> None:
        """Have the results of a batch more. An interrupt stops the run, and is raised when that batch is through."""
        watch = self._watch
        watch.defer()
        try:
            with self._one_reader:
                if not self._ended:
                    run = self._run = self._run or self._begin()
                    if watch.in_task or not watch.active:
                        watch.begin()  # in plain code once: a small batch would feel it
                    if running_loop() is None:
                        self._ask()
                        self._prediction.carry_on()
                    else:  # which is not for hooks and a model to run on
                        self._before_blocking()
                        self._ask()
                        self._prediction.leave()
                    if self._is_end(self._prediction.channel.get()):
                        run.ended()
        finally:
            watch.deliver()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        for result in self._results:
            return result
        with self._one_reader:
            while not self._ended:
                run = self._run = self._run or await self._abegin()
                self._prediction.leave()
                self._ask()
                self._watch.begin()  # the task that waits now, with the handler that is in place now
                if self._is_end(await self._prediction.channel.aget()):
                    await run
                for result in self._results:
                    return result
        raise StopAsyncIteration

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Release the predictor and wait until its run is over, at most `timeout` seconds. Closing twice is fine.

        Results that were not read are gone. In a coroutine use `aclose`: this one holds up the loop.
        """
        self._let_go()
        if self._run is not None:
            concurrent.futures.wait([self._prediction.over], timeout)
            self._warn_if_busy(timeout)

    async def aclose(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Like `close`, without holding up the loop."""
        self._let_go()
        if self._run is not None:
            await asyncio.wait([asyncio.wrap_future(self._prediction.over)], timeout=timeout)
            self._warn_if_busy(timeout)

    def _ask(self) -> None:
        if not self._asked:  # a read that was cancelled has asked already
            self._asked = True
            self._prediction.demand.ask()

    def _is_end(self, item: Sequence[R] | End) -> bool:
        self._asked = False
        if isinstance(item, End):
            self._ended = True
            self._watch.end()
        else:
            self._results = iter(item)
        return self._ended

    def _let_go(self) -> None:
        self._ended = True
        self._results = iter(())
        _let_go(self._prediction, self._watch)

    def _warn_if_busy(self, timeout: float) -> None:
        if not self._prediction.over.done():
            message = f"the predictor was not released within {timeout} s: its source, model or postprocessing hangs"
            warnings.warn(message, ResourceWarning, stacklevel=3)


def _let_go(prediction: StreamedPrediction[Any], watch: Watch) -> None:
    prediction.abandon()
    watch.end()


class _OneReader:
    """Refuses a second reader while one waits for results."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise StreamBusy

    def __exit__(self, *_: object) -> None:
        self._lock.release()
