"""The inbox: where publishers append, without a lock, from any thread, signal handler or finalizer."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

from .bell import Bell
from .entry import Command, Entry, LateEntry
from .serving import reading, serving

logger = logging.getLogger("lineside.bus")

GIVE_WAY_SECONDS = 0.05
"""Longest wait of one publish while the sequencer, which waits for nobody, catches up with a flood."""
LONG_SECONDS = 10.0
"""Wait of a publish for a subscription after which a warning says who waits for whom."""


class Inbox(deque[Entry | LateEntry | Command]):
    """A deque that knows whether its reader sleeps.

    ``append`` is atomic and takes no lock, so a publish inside a signal handler that interrupted a
    publish is safe, and so is a fork in the middle of one.
    """

    __slots__ = ("asleep", "bell", "late", "limit", "overlong", "owner", "read", "refused", "stalled")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.asleep = True
        self.read = False
        """Whether there are subscriptions: where nobody reads, nothing is urgent."""
        self.limit = self.overlong = limit
        self.stalled: Sequence[str] = ()
        """Names of the subscriptions that publishers wait for; none if they may go on."""
        self.late = False
        """Whether the sequencer waits for a value that is on its way: it cannot catch up, and nobody waits for it."""
        self.refused: int = 0
        self.owner: int | None = None
        self.bell = Bell()
        _live.append(weakref.ref(self, _live.remove))

    @property
    def waiting(self) -> int:
        """How many events wait for their number; commands wait there too."""
        # A list, because making a tuple may collect garbage half-way, which lets others in.
        return sum(not callable(entry) for entry in list(self))

    def command(self, command: Command) -> None:
        """Have the sequencer call `command` after everything published so far."""
        super().append(command)  # even into a closed inbox
        self.ring()

    def ring(self) -> None:
        """Wake the sequencer."""
        self.bell.ring()

    def stall(self, readers: Sequence[str]) -> None:
        """Have publishers wait for the subscriptions of these names, which asked for it; with none, let them go on."""
        self.stalled = readers
        self.limit = 0 if readers else self.overlong

    def give_way(self) -> None:
        """Wait until the sequencer has caught up. Called by a publisher that found the inbox overlong.

        It polls, because it must be safe inside a signal handler, where no condition variable is.
        """
        if self.owner == threading.get_ident():
            return
        # A loop must not be stopped for a subscription that may live on it, nor a reader for itself.
        may_block = serving() is None and not reading() and not _on_a_loop()
        begin = time.monotonic()
        warned = False
        while len(self) > self.limit // 2 and not self.late:  # half: or it would wait again at the next publish
            waited = time.monotonic() - begin
            if not (self.stalled and may_block) and (self.stalled or waited > GIVE_WAY_SECONDS):
                return
            if waited > LONG_SECONDS and not warned:
                warned = True
                logger.warning(
                    "thread %r has waited %.0f s to publish: %s asked for it with overflow='wait' and did not read on",
                    threading.current_thread().name,
                    waited,
                    " or ".join(self.stalled),
                )
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


_live: list[weakref.ref[Inbox]] = []


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def retire(inbox: Inbox, into: type[ClosedInbox]) -> None:
    """Turn `inbox` into one that keeps nothing more, and counts what it refused."""
    inbox.__class__ = into
    inbox.limit = inbox.overlong = 1 << 62


def _disarm() -> None:
    for reference in tuple(_live):
        inbox = reference()
        if inbox is not None:
            inbox.clear()
            inbox.refused = 0
            inbox.asleep = False
            retire(inbox, ForkedInbox)


os.register_at_fork(after_in_child=_disarm)
