"""The queue: inputs of all clients on their way into batches, taken in turns, and never more than there is room for."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Self

from .errors import ServiceOverloaded, ServingError
from .limits import PredictionLimits
from .pace import Pace
from .request import Failure, Given, Item, PredictionRequest

DECODED = 2
"""Messages of WebSockets whose inputs are decoded, while there may be no room for them."""


class RequestQueue:
    """An async iterator over inputs, one of each request in turn. Everything is called on the service's event loop.

    Args:
        limits: How much room there is.
    """

    def __init__(self, limits: PredictionLimits) -> None:
        self._limits = limits
        self.open: set[PredictionRequest] = set()
        """The requests that are not over."""
        self.unsent = 0
        """Inputs whose answers were not sent."""
        self.memory = 0
        """Bytes of bodies that are being read, and of inputs that are not computed."""
        self.unread = 0
        """Bytes that WebSockets brought and that are not decoded."""
        self.begun = asyncio.Event()
        """Whether the predictor has come to take inputs."""
        self.refusing: ServingError | None = None
        """Why no requests are taken up any longer, if so."""
        self._readings: set[asyncio.Timeout] = set()
        """Until when each body is read that is being read."""
        self._turns: deque[PredictionRequest] = deque()
        self._inputs_came = asyncio.Event()
        self._changed = asyncio.Event()
        self.decoding = asyncio.Semaphore(DECODED)
        """For whoever decodes what it takes memory for only then."""
        self._asking = asyncio.Lock()
        """Whose turn it is to take memory: else who needs much would wait for all who need little."""
        self._pace = Pace()

    # ---- what clients bring

    def admit(self, request: PredictionRequest, inputs: Sequence[Given]) -> None:
        """Take up a request with its first inputs.

        Raises:
            NotServing: no requests are taken up.
            ServiceOverloaded: there is no room for it.
        """
        self.check_open()
        self._check_room(len(inputs), sum(given.size for given in inputs))
        self.open.add(request)
        for given in inputs:
            self.add(request, given)

    def check_open(self) -> None:
        """Refuse a request for which there is no place, before anything of it is read.

        Raises:
            NotServing: no requests are taken up.
            ServiceOverloaded: there are too many.
        """
        if self.refusing is not None:
            raise self.refusing.with_traceback(None)  # or each would be kept that was refused by it
        if len(self.open) >= self._limits.requests:
            raise self._overloaded(f"{len(self.open)} requests are open")

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[None]:
        """End the block, which reads a body and makes inputs of it, once no requests are taken up any longer.

        Raises:
            NotServing: that is so.
        """
        until = asyncio.timeout(None)
        try:
            async with until:
                self._readings.add(until)
                yield
        except TimeoutError:
            if self.refusing is not None and until.expired():
                raise self.refusing.with_traceback(None) from None
            raise
        finally:
            self._readings.discard(until)
            self._changed.set()

    def add(self, request: PredictionRequest, given: Given) -> None:
        """Add an input to a request that was taken up."""
        item = request.take_up(given)
        self.unsent += 1
        self.memory += given.size
        if not request.waiting:
            self._turns.append(request)
        request.waiting.append(item)
        self._inputs_came.set()

    async def take_memory(self, request: PredictionRequest, size: int) -> None:
        """Take memory for inputs that `request` will add, once there is enough: in the order of asking."""
        async with self._asking:
            while not self._fits(0, size):
                await self.change()
            self.memory += size
            request.size += size

    async def add_when_there_is_room(self, request: PredictionRequest, given: Given, most: int) -> None:
        """Add an input whose memory was taken, once there is room and `request` has fewer than `most` unanswered."""
        while request.unsent >= most or self.unsent >= self._limits.queue:
            await self.change()
        self.memory -= given.size  # which `add` takes
        request.size -= given.size
        self.add(request, given)

    def fail(self, request: PredictionRequest, name: str | None, error: str) -> None:
        """Add an input that cannot be computed: its error has its place among the answers."""
        item = request.take_up(Given(None, 0, name))
        self.unsent += 1
        request.answer(item, Failure(error))

    def reserve(self, size: int) -> None:
        """Take memory for a part of a body.

        Raises:
            ServiceOverloaded: there is too little.
        """
        self._check_room(0, size)
        self.memory += size

    def release(self, size: int) -> None:
        """Give back what was reserved."""
        self.memory -= size
        self._changed.set()

    async def change(self) -> None:
        """Wait until something was given back."""
        self._changed.clear()
        await self._changed.wait()

    # ---- what clients get

    def sent(self, request: PredictionRequest, answers: int) -> None:
        """Count answers that were handed to the client."""
        request.unsent -= answers
        self.unsent -= answers
        self._changed.set()

    def finish(self, request: PredictionRequest) -> None:
        """Let go of a request: what of it was not computed yet will not be."""
        if request.over:
            return
        request.over = True
        self.open.discard(request)
        with suppress(ValueError):
            self._turns.remove(request)
        request.waiting.clear()
        self.unsent -= request.unsent
        self.memory -= request.size
        request.unsent = request.size = 0
        self._changed.set()

    def refuse(self, error: ServingError) -> None:
        """Take up no more requests; those that are being read end with `error`, as do those that wait for nothing."""
        self.refusing = error
        for until in self._readings:
            if not until.expired():
                until.reschedule(0.0)  # which is long ago
        for request in self.open:
            request.wind_down(error)

    def stop(self, error: ServingError) -> None:
        """Take up no more requests, and have those that are open end with `error`."""
        self.refuse(error)
        for request in list(self.open):
            request.stop(error)

    async def emptied(self) -> None:
        """Wait until no request is open, and none is being read."""
        while self.open or self._readings:
            await self.change()

    # ---- what the predictor takes and brings

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        """Return the next input. Nothing is lost when the waiting task is cancelled."""
        self.begun.set()
        while not self._turns:
            self._inputs_came.clear()
            await self._inputs_came.wait()
        request = self._turns.popleft()
        item = request.waiting.popleft()
        if request.waiting:
            self._turns.append(request)
        if request.taken is None:
            request.taken = self._pace.clock()
        return item

    def deliver(self, items: Sequence[Item], results: Sequence[object]) -> None:
        """Hand the results of a batch to the requests they belong to."""
        self._pace.count(len(items), idle=not self._turns)
        for item, result in zip(items, results, strict=True):
            request = item.request
            item.value = None
            if not request.over:
                request.size -= item.size
                self.memory -= item.size
                request.answer(item, result)
        self._changed.set()

    # ---- room

    def _check_room(self, inputs: int, size: int) -> None:
        if not self._fits(inputs, size):
            raise self._overloaded(f"{self.unsent} inputs wait, {self.memory >> 20} MiB")

    def _fits(self, inputs: int, size: int) -> bool:
        limits = self._limits
        # What comes alone may be larger than all the room: else it would wait for ever.
        fits_memory = self.memory + size <= limits.memory or (self.memory == 0 and inputs <= 1)
        return self.unsent + inputs <= limits.queue and fits_memory

    def _overloaded(self, why: str) -> ServiceOverloaded:
        return ServiceOverloaded(why, math.ceil(self._pace.seconds_for(self.unsent)))
