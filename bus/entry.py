"""Entries: what publishers append, what the log holds until somebody reads it, and how an event is signed.

They are plain tuples because one is made for every publish: a class would double its price.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeAlias

from ..schemas import Event
from .pending import Pending


class Signer(Protocol):
    """What signs an event: a source, or its copy in another process."""

    @property
    def run(self) -> str:
        """Id of the run."""
        ...

    @property
    def attempt(self) -> int:
        """Attempt of the run, from 1."""
        ...

    @property
    def rank(self) -> int:
        """Rank of the process."""
        ...

    @property
    def started(self) -> int:
        """Begin of the run on the monotonic clock, in ns."""
        ...


Entry: TypeAlias = tuple[type[Event] | Event, dict[str, Any], Signer, int]
"""What was published: class or instance, raw fields, who published, when (monotonic, ns)."""

LateEntry: TypeAlias = tuple[type[Event] | Event, dict[str, Any], Signer, int, Pending]
"""An entry some of whose fields are still on their way."""

Command: TypeAlias = Callable[[], None]
"""Something for the sequencer to do between two events: subscribe, drain, seal."""

Item: TypeAlias = Event | Entry | None
"""What the log holds at a position: an event, an entry nobody had built, or nothing (it was invalid)."""


class Signature(NamedTuple):
    """What a source writes on its events, without the source."""

    run: str
    attempt: int
    rank: int
    started: int


def class_of(what: type[Event] | Event) -> type[Event]:
    """Return the class of what was published."""
    return what if isinstance(what, type) else what.__class__


def kind(item: Item) -> type:
    """Return the event class of `item`; of what was invalid, no event's."""
    return class_of(item[0]) if isinstance(item, tuple) else item.__class__


class WallClock:
    """Tells the UTC wall clock of moments on the monotonic clock, to the millisecond.

    Events of the same millisecond share one object: making one costs half as much as validating a payload.
    """

    __slots__ = ("_label", "_millisecond", "_offset")

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()
        self._millisecond = -1
        self._label = datetime.fromtimestamp(0, UTC)

    def at(self, when: int) -> datetime:
        """Return the time at `when` (monotonic, ns)."""
        millisecond = (when + self._offset) // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._label = datetime.fromtimestamp(millisecond / 1000, UTC)
        return self._label


def time_of(item: Event | Entry, clock: WallClock) -> datetime:
    """Return when `item` was published."""
    return clock.at(item[3]) if isinstance(item, tuple) else item.time


def sign(event: Event, signer: Signer, seq: int, when: int, clock: WallClock) -> None:
    """Fill in the envelope of an event that nobody has seen yet and that was published at `when` (monotonic, ns)."""
    envelope: dict[str, Any] = event.__dict__  # pyright: ignore[reportAssignmentType]
    envelope["seq"] = seq
    envelope["time"] = clock.at(when)
    if signer.run or not envelope["run"]:
        envelope["run"] = signer.run
        envelope["attempt"] = signer.attempt
        envelope["rank"] = signer.rank
        envelope["elapsed"] = (when - signer.started) / 1e9
