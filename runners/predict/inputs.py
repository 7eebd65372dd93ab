"""Where inputs come from, as lists of at most a batch."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice

from .channel import Demand
from .pictures import Pictures
from .sources import inputs_of, total_of
from .threads import Helper


class Inputs(ABC):
    """A source that is being read. All methods are called by one thread."""

    total: int | None
    """Inputs to come, as far as the source knows."""
    name: str
    """What it is, in a word or two."""

    given: object
    """The source as it was given."""

    @abstractmethod
    def take(self, size: int, demand: Demand) -> list[object]:
        """Return the next `size` inputs, fewer at the end or when nothing is wanted any longer, in the end none.

        An error of the source is raised once the inputs before it have been returned.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish a generator that was not read to its end: how far it was read ahead is nothing to go on from."""


class SyncInputs(Inputs):
    """Reads an iterable in the thread that calls."""

    def __init__(self, source: Iterable[object]) -> None:
        self.total = total_of(source)
        self.name = str(source.path) if isinstance(source, Pictures) else type(source).__qualname__
        self.given = source.path if isinstance(source, Pictures) else source
        self._source: Iterable[object] = source
        self._iterator: Iterator[object] | None = None
        self._ended = False
        self._error: BaseException | None = None

    def take(self, size: int, demand: Demand) -> list[object]:
        """Iterate; see `Inputs.take`."""
        inputs: list[object] = []
        if not self._ended:
            try:
                self._gather(inputs, size, demand)
            except Exception as error:
                self._ended, self._error = True, error
        if self._error is not None and not inputs:
            raise self._error
        return inputs

    def _gather(self, inputs: list[object], size: int, demand: Demand) -> None:
        for value in islice(self._begun(), size):
            inputs.append(value)
            if demand.over:
                return
        self._ended = len(inputs) < size  # and is not asked again: an iterator may begin anew

    def _begun(self) -> Iterator[object]:
        if self._iterator is None:
            self._iterator = inputs_of(self._source)
        return self._iterator

    def close(self) -> None:
        """Close a generator; see `Inputs.close`."""
        for iterator in (self._iterator, self._source):
            if inspect.isgenerator(iterator):
                iterator.close()


class PromptInputs(SyncInputs):
    """Reads an iterable in a thread of its own, so that a batch can go without what is being read.

    What is being read is then the first of the next batch. No more is read than that.
    """

    def __init__(self, source: Iterable[object], max_wait: float) -> None:
        super().__init__(source)
        self._max_wait = max_wait
        self._early: list[object] = []
        self._reads: queue.SimpleQueue[_Read | None] = queue.SimpleQueue()
        self._helper: Helper | None = None

    def take(self, size: int, demand: Demand) -> list[object]:
        """Have the thread iterate, for as long as a batch waits; see `Inputs.take`."""
        read = _Read(size)
        if not self._ended:
            self._helper = self._helper or Helper("source", self._serve)
            self._reads.put(read)
            if demand.wait_for(read.begun):
                demand.wait_for(read.done, self._max_wait)
            read.finish()
            if demand.over:
                return []
        if self._error is not None and not read.inputs:
            raise self._error
        return read.inputs

    def close(self) -> None:
        """End the thread, which closes a generator; a source that hangs is left alone."""
        self._ended = True
        self._reads.put(None)
        if self._helper is not None:
            self._helper.join()

    # -- in the thread of the source ---------------------------------------------------------------

    def _serve(self) -> None:
        while (read := self._reads.get()) is not None:
            self._fill(read)
            read.finish()
        super().close()

    def _fill(self, read: _Read) -> None:
        if self._early:
            read.add(self._early.pop())
        try:
            while not (self._ended or read.complete):
                value = next(self._begun())
                if not read.add(value):
                    self._early.append(value)
        except StopIteration:
            self._ended = True
        except BaseException as error:  # the end of this thread would be told to nobody
            self._error, self._ended = error, True


class AsyncInputs(Inputs):
    """Reads an async iterable on an event loop, for the predictor's thread, which waits for it.

    One task does all the reading, so that a loop that ends, which cancels its tasks, ends the inputs. A batch that
    has waited long enough goes without what is being read: that is the first of the next one.

    Args:
        source: The async iterable.
        loop: The event loop to read it on.
        max_wait: Seconds after its first input that a batch waits for more; None: until it is full.
    """

    def __init__(
        self, source: AsyncIterable[object], loop: asyncio.AbstractEventLoop, max_wait: float | None = None
    ) -> None:
        self.total = None
        self.name = type(source).__qualname__
        self.given = source
        self._source = source
        self._loop = loop
        self._max_wait = max_wait
        self._iterator: AsyncIterator[object] | None = None
        self._early: list[object] = []
        """What came after the batch that it was read for had gone."""
        self._ended = False
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        """When the batch that is being read goes as it is."""
        self._reads: asyncio.Queue[_Read] = asyncio.Queue()

    def take(self, size: int, demand: Demand) -> list[object]:
        """Have the loop iterate; see `Inputs.take`. A loop that is closed, or cancels the read, wants nothing more."""
        read = _Read(size)
        if not self._ended:
            demand.loop = self._loop
            self._post(lambda: self._begin(read, demand))
            if not demand.wait_for(read.done):
                return []
        if self._error is not None and not read.inputs:
            raise self._error
        return read.inputs

    def close(self) -> None:
        """Have the loop cancel a read in progress and close an async generator, without waiting for it."""
        self._post(self._end)

    def _post(self, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(callback)

    # -- on the loop -------------------------------------------------------------------------------

    def _begin(self, read: _Read, demand: Demand) -> None:
        if self._task is None and not demand.over:
            self._task = self._loop.create_task(self._serve(demand))
        self._reads.put_nowait(read)

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _serve(self, demand: Demand) -> None:
        """Carry out reads until cancelled."""
        try:
            while True:
                read = await self._reads.get()
                try:
                    await self._gather(read)
                finally:
                    self._forget_deadline()
                read.finish()
        except asyncio.CancelledError:  # not where a closed loop drops the task: nothing can be awaited there
            demand.end()
            if inspect.isasyncgen(self._iterator):
                await self._iterator.aclose()
            raise
        finally:
            demand.end()

    async def _gather(self, read: _Read) -> None:
        """Read on until `read` is full or has gone, or the source is at its end."""
        if self._early:
            self._add(read, self._early.pop())
        try:
            while not (self._ended or read.complete):
                self._add(read, await self._next())
        except StopAsyncIteration:
            self._ended = True
        except asyncio.CancelledError as error:
            if self._task is None or self._task.cancelling():
                raise
            self._ended, self._error = True, error  # the source has awaited what somebody cancelled
        except Exception as error:
            self._ended, self._error = True, error

    async def _next(self) -> object:
        if self._iterator is None:
            self._iterator = aiter(self._source)
        return await anext(self._iterator)

    def _add(self, read: _Read, value: object) -> None:
        if not read.add(value):
            self._early.append(value)
        elif self._max_wait is not None and not read.complete:
            self._set_deadline(read, self._max_wait)

    def _set_deadline(self, read: _Read, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, read.finish)
        elif seconds and self._loop.time() >= self._timer.when():  # of a source that never lets the loop turn
            read.finish()

    def _forget_deadline(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Read:
    """A batch of inputs that is asked of whoever reads the source; it is gone once it is done."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.inputs: list[object] = []
        self.begun: Future[None] = Future()
        """Done when there is an input, or never will be one."""
        self.done: Future[None] = Future()
        self._lock = threading.Lock()

    @property
    def complete(self) -> bool:
        """Whether it takes no more."""
        return self.done.done() or len(self.inputs) >= self.size

    def add(self, value: object) -> bool:
        """Take an input; False: it has gone."""
        with self._lock:
            if self.done.done():
                return False
            self.inputs.append(value)
        if len(self.inputs) == 1:
            self.begun.set_result(None)
        return True

    def finish(self) -> None:
        """Let it go with what is there."""
        with self._lock:
            if self.done.done():
                return
            self.done.set_result(None)
        if not self.inputs:
            self.begun.set_result(None)
