"""A source: one publisher's pen, which signs what it writes with its run."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from ..schemas import Event, NotAnEvent
from .entry import Command
from .errors import RunIdRefused
from .inbox import ForkedInbox, Inbox
from .pending import Pending

E = TypeVar("E", bound=Event)

_monotonic = time.monotonic_ns
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_run_id(run: str) -> str:
    """Return `run`.

    Raises:
        RunIdRefused: it could not be part of a path or an address.
    """
    if not _RUN_ID.fullmatch(run):
        raise RunIdRefused(run)
    return run


class Source:
    """Publishes the events of one run (or of none), from any thread.

    Publishing appends and returns: it takes no lock, builds and validates nothing and waits for no
    subscriber, unless one asked for ``overflow="wait"``.
    """

    __slots__ = ("_inbox", "attempt", "rank", "run", "started")

    def __init__(self, inbox: Inbox, run: str = "", attempt: int = 1, rank: int = 0) -> None:
        if run:
            check_run_id(run)
        self._inbox = inbox
        self.run = run
        self.attempt = attempt
        self.rank = rank
        self.started = _monotonic()

    def elapsed(self) -> float:
        """Return the seconds since this source began."""
        return (_monotonic() - self.started) / 1e9

    @property
    def forked(self) -> bool:
        """Whether its bus was inherited by a forked child."""
        return isinstance(self._inbox, ForkedInbox)

    def relieve(self) -> None:
        """Say that a subscription has moved on, in case publishers wait for it."""
        if self._inbox.stalled:
            self._inbox.ring()

    def call(self, command: Command) -> None:
        """Have the sequencer call `command`."""
        self._inbox.command(command)

    def publish(self, event: Event | type[Event], /, **fields: Any) -> None:
        """Publish an event: an instance, or a class and its raw fields.

        Raw fields are validated later, on the sequencer's thread and only if somebody reads the
        event; fields that do not fit are logged and announced as `EventsMissed`.

        Raises:
            NotAnEvent: `event` is neither an event nor an event class.
        """
        inbox = self._inbox
        try:
            urgent = event.urgent
        except AttributeError:
            raise NotAnEvent(event, "an event, or an event class and its fields") from None
        entry = (event, fields, self, _monotonic())
        inbox.append(entry)  # made before: no other thread, closing the bus, comes between the look-up and the call
        if (urgent and inbox.read) or inbox.asleep:
            inbox.ring()
        if len(inbox) > inbox.limit:
            inbox.give_way()

    def announce(self, event: type[Event], /, **fields: Any) -> None:
        """Publish for a subscription, which must not wait: publishers may be waiting for it."""
        entry = (event, fields, self, _monotonic())
        self._inbox.append(entry)
        self._inbox.ring()

    def publish_when(self, pending: Pending, event: type[Event], /, **fields: Any) -> None:
        """Publish `event` now, in order, to be built once `pending` knows the rest of its fields.

        Raises:
            NotAnEvent: `event` is no event class.
        """
        inbox = self._inbox
        what = cast("object", event)  # users may give anything
        if not (isinstance(what, type) and issubclass(what, Event)):
            raise NotAnEvent(event, "an event class")
        entry = (event, fields, self, _monotonic(), pending)
        inbox.append(entry)
        if (event.urgent and inbox.read) or inbox.asleep:
            inbox.ring()
        if len(inbox) > inbox.limit:
            inbox.give_way()

    def stamp(self, event: E) -> E:
        """Return a copy of `event` that carries this source's run and the present time; `seq` stays 0."""
        return event.model_copy(
            update={
                "run": self.run,
                "attempt": self.attempt,
                "rank": self.rank,
                "time": datetime.now(UTC),
                "elapsed": self.elapsed(),
            }
        )
