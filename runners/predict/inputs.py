"""Where inputs come from, as lists of at most a batch."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeGuard, cast

from torch.utils.data import DataLoader

from ..feed import iterate, length
from .channel import Demand
from .errors import SourceUnusable


class Inputs(ABC):
    """A source that is being read. All methods are called by the predictor's thread."""

    total: int | None
    """Inputs to come, as far as the source knows."""
    name: str
    """What it is, in a word or two."""

    @abstractmethod
    def take(self, size: int, demand: Demand) -> list[object]:
        """Return the next `size` inputs, fewer at the end or when nothing is wanted any longer, in the end none.

        An error of the source is raised once the inputs before it have been returned.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish a generator that was not read to its end: how far it was read ahead is nothing to go on from."""


class SyncInputs(Inputs):
    """Reads an iterable in the predictor's thread."""

    def __init__(self, source: Iterable[object]) -> None:
        self.total = _total(source)
        self.name = type(source).__qualname__
        self._source: Iterable[object] = source
        self._iterator: Iterator[object] | None = None
        self._error: Exception | None = None

    def take(self, size: int, demand: Demand) -> list[object]:
        """Iterate; see `Inputs.take`."""
        inputs: list[object] = []
        if self._error is None:
            try:
                self._gather(inputs, size, demand)
            except Exception as error:
                self._error = error
        if self._error is not None and not inputs:
            raise self._error
        return inputs

    def _gather(self, inputs: list[object], size: int, demand: Demand) -> None:
        if self._iterator is None:
            self._iterator = _inputs(self._source)
        while len(inputs) < size and not demand.over:
            try:
                inputs.append(next(self._iterator))
            except StopIteration:
                return

    def close(self) -> None:
        """Close a generator; see `Inputs.close`."""
        for iterator in (self._iterator, self._source):
            if inspect.isgenerator(iterator):
                iterator.close()


class AsyncInputs(Inputs):
    """Reads an async iterable on an event loop, for the predictor's thread, which waits for it.

    One task does all the reading, so that a loop that ends, which cancels its tasks, ends the inputs.
    """

    def __init__(self, source: AsyncIterable[object], loop: asyncio.AbstractEventLoop) -> None:
        self.total = None
        self.name = type(source).__qualname__
        self._source = source
        self._loop = loop
        self._iterator: AsyncIterator[object] | None = None
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self._reads: asyncio.Queue[_Read] = asyncio.Queue()

    def take(self, size: int, demand: Demand) -> list[object]:
        """Have the loop iterate; see `Inputs.take`. A loop that is closed, or cancels the read, wants nothing more."""
        read = _Read(size)
        if self._error is None:
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
                await self._gather(read)
                read.done.set_result(None)
        except asyncio.CancelledError:  # not where a closed loop drops the task: nothing can be awaited there
            demand.end()
            if inspect.isasyncgen(self._iterator):
                await self._iterator.aclose()
            raise
        finally:
            demand.end()

    async def _gather(self, read: _Read) -> None:
        try:
            if self._iterator is None:
                self._iterator = aiter(self._source)
            while len(read.inputs) < read.size:
                read.inputs.append(await anext(self._iterator))
        except StopAsyncIteration:
            return
        except Exception as error:
            self._error = error


class _Read:
    """A read that is asked of the loop."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.inputs: list[object] = []
        self.done: Future[None] = Future()


def check_source(source: object) -> Iterable[object] | AsyncIterable[object]:
    """Return `source` if inputs can be taken from it.

    Raises:
        SourceUnusable: it is one input rather than several, or nothing that can be iterated.
    """
    if isinstance(source, (str, bytes, Mapping)):
        raise SourceUnusable(cast("object", source), _EXPECTED)
    if getattr(source, "ndim", 1) == 0:
        raise SourceUnusable(source, "it has no dimension; expected the batch as the first: value[None]")
    # A map-style dataset has no __iter__; it is iterated by position. Not tried out: iterating may start workers.
    if isinstance(source, (AsyncIterable, Iterable)) or hasattr(source, "__getitem__"):
        return cast("Iterable[object] | AsyncIterable[object]", source)
    raise SourceUnusable(source, _EXPECTED)


def check_synchronous(source: object, instead: str) -> Iterable[object]:
    """Like `check_source`, for a caller who blocks the thread that an async iterable would be read in.

    Raises:
        SourceUnusable: see `check_source`; or `source` is asynchronous: `instead` says what to do.
    """
    checked = check_source(source)
    if isinstance(checked, AsyncIterable):
        raise SourceUnusable(source, f"it is asynchronous, and the caller would hold up its event loop; {instead}")
    return checked


_EXPECTED = "expected an iterable or async iterable of inputs; for a single one give a list of it: [value]"


def _inputs(source: Iterable[object]) -> Iterator[object]:
    return _rows(source) if _makes_batches(source) else iterate(source)


def _makes_batches(source: object) -> TypeGuard[DataLoader[object]]:
    """Return whether `source` is a loader of batches; without a batch sampler one gives what the dataset gives."""
    if not isinstance(source, DataLoader):
        return False
    loader = cast("DataLoader[object]", source)
    return loader.batch_sampler is not None  # pyright: ignore[reportUnknownMemberType]


def _rows(loader: DataLoader[object]) -> Iterator[object]:
    """Yield the rows of the first element of each of a loader's batches, which is the inputs."""
    for batch in loader:
        rows = _rows_of(_first(batch))
        if rows is None:
            raise SourceUnusable(loader, f"a batch, {batch!r:.80} of type {type(batch).__qualname__}, {_NO_ROWS}")
        yield from rows


def _first(batch: object) -> object:
    if not isinstance(batch, (tuple, list)):
        return batch
    items = cast("Sequence[object]", batch)
    return items[0] if items and not isinstance(items[0], str) else items  # strings are collated to a list of them


def _rows_of(value: object) -> Sequence[object] | None:
    """Return the samples that were collated to `value`: those of a mapping are mappings. None: it is not such a one."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        columns = [_rows_of(column) for column in mapping.values()]
        known = [column for column in columns if column is not None]
        if len({len(column) for column in known}) != 1 or len(known) < len(columns):
            return None
        return [dict(zip(mapping, row, strict=True)) for row in zip(*known, strict=True)]
    if isinstance(value, (str, bytes)) or getattr(value, "ndim", 1) == 0 or not isinstance(value, Iterable):
        return None
    return list(cast("Iterable[object]", value))


_NO_ROWS = (
    "has no rows; expected a tensor, a list, or a mapping of such of one length; "
    "a loader with batch_size=None gives the samples as they are"
)


def _total(source: object) -> int | None:
    return _total_rows(cast("DataLoader[object]", source)) if isinstance(source, DataLoader) else length(source)


def _total_rows(loader: DataLoader[object]) -> int | None:
    rows = length(cast("object", loader.sampler))  # pyright: ignore[reportUnknownMemberType]
    if rows is None or loader.batch_size is None:
        return None
    return rows - rows % loader.batch_size if loader.drop_last else rows
