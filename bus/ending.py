"""The ending: how what was published is waited for, and how everything that a bus runs comes to its end."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from .errors import DrainTimeout
from .inbox import ClosedInbox, ForkedInbox, Inbox, retire
from .lanes import LoopLane, ThreadLane
from .portal import Portals
from .sequencer import Sequencer
from .subscription import Subscription
from .waiting import Waits

logger = logging.getLogger("lineside.bus")

END_SECONDS = 0.1
"""Time to end for a lane that has handled everything, also where the process stood still until the deadline."""


@dataclass(frozen=True, slots=True)
class CloseReport:
    """What a close had to leave behind."""

    left: dict[str, int]
    """Positions not handled, by subscription."""
    hung: tuple[str, ...]
    """Subscriptions whose callback had not returned, or whose process had not ended, at the deadline."""
    waiting: int = 0
    """Events that had not got their number."""

    @property
    def complete(self) -> bool:
        """Whether everything was handled."""
        return not self.left and not self.hung and not self.waiting


class Ending:
    """Drains and closes one bus, as procedures that plain code and event loops can carry out."""

    def __init__(
        self,
        inbox: Inbox,
        sequencer: Sequencer,
        thread: threading.Thread,
        lanes: Mapping[Subscription, LoopLane | ThreadLane],
        portals: Portals,
    ) -> None:
        self.report: CloseReport | None = None
        """What the close had to leave behind; None before it."""
        self._inbox = inbox
        self._sequencer = sequencer
        self._thread = thread
        self._lanes = lanes
        self._portals = portals
        self._guard = threading.Lock()
        self._under_way: Future[None] | None = None

    @property
    def silent(self) -> bool:
        """Whether nobody will answer any more."""
        return self.report is not None or isinstance(self._inbox, ForkedInbox) or not self._thread.is_alive()

    def draining(self, timeout: float | None, only: Subscription | None = None) -> Waits[bool]:
        """Wait until all callbacks, or only that of one subscription, have handled what was published so far.

        Returns whether they have: one whose disk refuses, or that was cancelled, is not waited for.

        Raises:
            DrainTimeout: they had not within `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.silent:
            return True
        answer: Future[list[Future[bool]]] = Future()
        self._inbox.command(lambda: self._sequencer.drain(answer, only))
        yield [answer], deadline
        unanswered: Future[bool] = Future()
        waits = answer.result() if answer.done() else [unanswered]
        yield waits, deadline
        if not all(wait.done() for wait in waits):
            for wait in waits:
                wait.cancel()
            raise DrainTimeout(timeout or 0.0, self._late())
        return all(wait.result() for wait in waits)

    def _late(self) -> dict[str, int]:
        late: Counter[str] = Counter()
        for subscription in list(self._lanes):
            late[subscription.name] += subscription.stats.lag if subscription.open else 0
        return {name: lag for name, lag in late.items() if lag}

    def closing(self, timeout: float) -> Waits[None]:
        """Deliver what was published, then end everything, within `timeout` seconds; `report` says how it went."""
        if self.silent:
            self.report = self.report or CloseReport({}, ())
            return
        mine = Future[None]()
        while True:
            with self._guard:
                other = self._under_way
                self._under_way = other or mine
            if other is None:
                break
            yield [other], None  # which is done within the time limit of whoever came first
            if self.report is not None:
                return
        try:
            yield from self._closing_alone(timeout)
        finally:
            self._under_way = None  # interrupted, it can be tried again
            mine.set_result(None)

    def _closing_alone(self, timeout: float) -> Waits[None]:
        began = time.monotonic()
        with suppress(DrainTimeout):  # before anything is sealed: what fails now is still announced
            yield from self.draining(0.6 * timeout)
        sealed: Future[None] = Future()
        self._inbox.command(lambda: self._sequencer.seal(sealed))
        yield [sealed], began + 0.7 * timeout
        if not sealed.done():
            self._sequencer.hurry()
            yield [sealed], began + 0.75 * timeout
            retire(self._inbox, ClosedInbox)
        with suppress(DrainTimeout):
            yield from self.draining(max(began + 0.8 * timeout - time.monotonic(), 0))
        left = self._late()
        lanes = dict(self._lanes)
        for subscription in lanes:
            subscription.end()
        if not sealed.done():  # then nobody else wakes them
            for lane in lanes.values():
                lane.wake()
            self._portals.flush()
        yield [lane.finished for lane in lanes.values()], max(began + 0.9 * timeout, time.monotonic() + END_SECONDS)
        hung = [subscription for subscription, lane in lanes.items() if not lane.finished.done()]
        for subscription in hung:
            lanes[subscription].abandon()
        self._inbox.command(self._sequencer.stop)
        self.report = CloseReport(left, tuple(subscription.name for subscription in hung), self._inbox.waiting)
        if left:
            logger.warning(
                "the bus was closed before everything was handled: %s. They do not get the rest, unless they are "
                "durable. Call bus.drain() before, or give them more than %g s: Bus(close_timeout=...)",
                ", ".join(f"{name} is {lag} positions behind" for name, lag in left.items()),
                timeout,
            )
        self._end_threads(began + timeout)

    def _end_threads(self, deadline: float) -> None:
        """End what this bus started, waiting no longer than `deadline`; what hangs is left behind, as a daemon."""
        if threading.current_thread() is not self._thread:
            self._thread.join(max(deadline - time.monotonic(), 0.01))
        self._portals.close(max(deadline - time.monotonic(), 0.01))

    def dissolve(self) -> None:
        """End everything and wait for nothing: the bus was left open and is gone."""
        self._sequencer.hurry()
        self._inbox.command(self._sequencer.dissolve)
        for lane in list(self._lanes.values()):
            lane.abandon()
        self._portals.close(0.01)
