"""One client's request: its inputs on their way in, and what became of them on their way out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

from ...schemas import Transport
from .errors import ServingError


class Given(NamedTuple):
    """An input as a client gave it."""

    value: object
    size: int
    """What it takes of the memory, in bytes."""
    name: str | None = None
    """The client's own name for it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What takes the place of the result of an input that could not be computed."""

    error: str


class Item:
    """An input on its way."""

    __slots__ = ("begun", "filename", "index", "label", "request", "size", "value")

    def __init__(self, request: PredictionRequest, index: int, given: Given) -> None:
        self.request = request
        self.index = index
        self.value = given.value
        self.size = given.size
        self.filename = f"{request.id}/{index}"
        """The name by which the events of its batch tell of it."""
        self.label = given.name or self.filename
        """The name by which its client knows it."""
        self.begun = False
        """Whether its computation has begun. Set by the predictor's thread."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A result, or a `Failure` in its place."""

    index: int
    label: str
    result: object


class PredictionRequest:
    """A request. Everything is called on the service's event loop, but for `over`, which may be read anywhere.

    Args:
        id_: Its id, the client's own or one that was made.
        transport: How the client asked.
    """

    def __init__(self, id_: str, transport: Transport) -> None:
        self.id = id_
        self.transport: Transport = transport
        self.began = monotonic()
        self.taken: float | None = None
        """When the first of its inputs was taken into a batch."""
        self.inputs = 0
        self.results = 0
        """Sent, `errors` left out."""
        self.errors = 0
        self.waiting: deque[Item] = deque()
        """Inputs that are in no batch yet."""
        self.unsent = 0
        """Inputs whose answers were not sent."""
        self.size = 0
        """Bytes of its inputs that are not computed."""
        self.over = False
        """Whether nobody waits for its results any longer."""
        self.cut: Callable[[], object] = _nothing
        """Lets go of its client at once."""
        self.stopped: ServingError | None = None
        """Why it got no more answers, if so."""
        self._complete = False
        self._winding_down: ServingError | None = None
        self._messages = 0
        """What its client said whose inputs are not taken up."""
        self._answers: dict[int, Answer] = {}
        self._next = 0
        self._news = asyncio.Event()

    @property
    def answered(self) -> bool:
        """Whether `more` has returned all that there will be."""
        return self._complete and self._next == self.inputs

    def take_up(self, given: Given) -> Item:
        """Count one input more and return it."""
        item = Item(self, self.inputs, given)
        self.inputs += 1
        self.unsent += 1
        self.size += given.size
        return item

    def complete(self) -> None:
        """No further inputs come."""
        self._complete = True
        self._news.set()

    def stop(self, error: ServingError) -> None:
        """Have whoever waits for answers get those that are there, and then `error`."""
        self.stopped = self.stopped or error
        self._news.set()

    def wind_down(self, error: ServingError) -> None:
        """Have whoever waits for answers get `error` as soon as its client waits for none."""
        self._winding_down = error
        self._news.set()

    def heard(self) -> None:
        """Its client has said something of which inputs will be made."""
        self._messages += 1

    def understood(self) -> None:
        """The inputs of the first thing that it has said are taken up."""
        self._messages -= 1
        self._news.set()

    def answer(self, item: Item, result: object) -> None:
        """Say what became of an input."""
        self._answers[item.index] = Answer(item.index, item.label, result)
        if item.index == self._next:
            self._news.set()

    async def more(self) -> list[Answer]:
        """Wait for the next answers in the order of the inputs, and return those that are there; none: it was all.

        Raises:
            ServingError: there will be no more, see `stop` and `wind_down`.
        """
        while True:
            self._news.clear()
            ready = self._ready()
            if ready or self.answered:
                return ready
            stopped = self.stopped or (self._winding_down if self._idle else None)
            if stopped is not None:
                raise stopped.with_traceback(None)  # it is that of others too
            await self._news.wait()

    @property
    def _idle(self) -> bool:
        return self._next == self.inputs and not self._messages

    def _ready(self) -> list[Answer]:
        found: list[Answer] = []
        while (answer := self._answers.pop(self._next, None)) is not None:
            found.append(answer)
            self._next += 1
        return found


def _nothing() -> None: ...
