"""The inbox: where publishers append, without a lock, from any thread, signal handler or finalizer."""

from __future__ import annotations

import os
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..schemas import Event
from .bell import Bell

if TYPE_CHECKING:
    from .pending import Pending
    from .source import Source

Entry = tuple["type[Event] | Event", dict[str, Any], "Source", int]
"""What was published: class or instance, raw fields, who published, when (monotonic, ns)."""

LateEntry = tuple["type[Event] | Event", dict[str, Any], "Source", int, "Pending"]
"""An entry some of whose fields are still on their way."""

Command = Callable[[], None]
"""Something for the sequencer to do between two events: subscribe, drain, seal."""

GIVE_WAY_SECONDS = 0.05
"""Longest wait of one publish while the sequencer, which waits for nobody, catches up with a flood."""


class Inbox(deque["Entry | LateEntry | Command"]):
    """A deque that knows whether its reader sleeps.

    ``append`` is atomic and takes no lock, so a publish inside a signal handler that interrupted a
    publish is safe, and so is a fork in the middle of one.
    """

    __slots__ = ("asleep", "bell", "limit", "overlong", "owner", "refused", "stalled")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.asleep = True
        self.limit = self.overlong = limit
        self.stalled = False
        self.refused = 0
        self.owner: int | None = None
        self.bell = Bell()
        _live[id(self)] = weakref.ref(self, lambda _, key=id(self): _live.pop(key, None))

    __hash__ = object.__hash__

    def command(self, command: Command) -> None:
        """Have the sequencer call `command` after everything published so far."""
        deque.append(self, command)  # even into a closed inbox
        self.ring()

    def ring(self) -> None:
        """Wake the sequencer."""
        self.bell.ring()

    def stall(self, stalled: bool) -> None:
        """Have publishers wait (`stalled`) for a subscription that asked for it, or let them go on."""
        self.stalled = stalled
        self.limit = 0 if stalled else self.overlong

    def give_way(self, may_block: bool) -> None:
        """Wait until the sequencer has caught up. Called by a publisher that found the inbox overlong.

        It polls, because it must be safe inside a signal handler, where no condition variable is.
        """
        if self.owner == threading.get_ident():
            return
        deadline = time.monotonic() + GIVE_WAY_SECONDS
        while len(self) > self.limit:
            if not (self.stalled and may_block) and (self.stalled or time.monotonic() > deadline):
                return
            self.ring()
            time.sleep(0.0005)


class ClosedInbox(Inbox):
    """The inbox of a closed bus: counts what comes too late."""

    __slots__ = ()

    def append(self, _entry: Any, /) -> None:
        """Count it, and keep nothing."""
        self.refused += 1


class ForkedInbox(ClosedInbox):
    """The inbox of a bus inherited by a forked child: its sequencer stayed in the parent."""

    __slots__ = ()

    def append(self, _entry: Any, /) -> None:
        """Warn at the first publish, then ignore silently."""
        self.refused += 1
        if self.refused == 1:
            warnings.warn(
                f"process {os.getpid()} inherited a bus by fork: what it publishes there is ignored. "
                "Make a Bus() in this process, or start it with 'spawn'.",
                RuntimeWarning,
                stacklevel=3,
            )

    def ring(self) -> None:
        """Nobody listens, and the bell may have been inherited in any state."""


_live: dict[int, weakref.ref[Inbox]] = {}


def retire(inbox: Inbox, into: type[ClosedInbox]) -> None:
    """Turn `inbox` into one that keeps nothing more, and counts what it refused."""
    inbox.__class__ = into
    inbox.limit = inbox.overlong = 1 << 62


def _disarm() -> None:
    for reference in list(_live.values()):
        inbox = reference()
        if inbox is not None:
            inbox.clear()
            inbox.refused = 0
            inbox.asleep = False
            retire(inbox, ForkedInbox)


os.register_at_fork(after_in_child=_disarm)
