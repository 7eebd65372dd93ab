"""A subscription: a cursor, a filter, a callback and a policy; and what became of its events."""

from __future__ import annotations

import itertools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from operator import itemgetter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar, cast

from ..schemas import BusEvent, ErrorInfo, Event, EventsMissed, SubscriberFailed
from ..schemas.event import wire_name
from .entry import Entry, kind
from .log import NOWHERE, Cursor, Gap, Log
from .policy import Overflow, Policy
from .source import Source

if TYPE_CHECKING:  # the journal imports this module: its recorder is a subscription
    from .journal.durable import Durable

T = TypeVar("T")

logger = logging.getLogger("lineside.bus")

BATCH = 64
"""Most events taken at once; between batches other callbacks of the same loop get their turn."""
LARGE_BATCH = 512
"""Most events sent to another process at once."""

QUIET_SECONDS = 10.0
"""After one is logged, the next gaps or failures are logged as details for a while; each is an event all the same."""


class Seldom:
    """Something that is logged at most once in a while."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0.0

    def due(self) -> bool:
        """Return whether it is time again, and note that it was done."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + QUIET_SECONDS
        return True


State = Literal["active", "switched off", "cancelled", "ended"]


class RemoteFailure(Exception):
    """What a callback raised in another process."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(f"{info.type}: {info.message}\n{info.traceback}")
        self.info = info


class Reader(Protocol):
    """What reads a subscription: a lane or a stream."""

    def wake(self) -> None:
        """Something was published for it, or it is over. Called by the sequencer; must not block."""
        ...


@dataclass(frozen=True, slots=True)
class SubscriptionStats:
    """What became of the events of one subscription."""

    name: str
    lane: str
    state: State
    delivered: int
    """Handed to the callback, which returned."""
    failed: int
    """Handed to the callback, which raised, after its retries."""
    filtered: int
    """Left out by `where`, `every`, `once` or `run`."""
    missed: int
    """Lost to overflow (or superseded, with ``overflow="latest"``)."""
    lag: int
    """Positions between the last handled event and the newest of its types."""
    seconds: float
    """Time spent in callbacks, waiting included."""


class Subscription:
    """The handle of a subscription, and a context manager that cancels it.

    Made by `Bus.on` and `Bus.subscribe`.
    """

    def __init__(
        self,
        name: str,
        lane: str,
        types: tuple[type[Event], ...],
        policy: Policy,
        log: Log,
        source: Source,
        forget: Callable[[Subscription], None],
    ) -> None:
        self.name = name
        self.lane = lane
        self.types = types
        self.policy = policy
        self.cursor = Cursor(log)
        self.cursor.keeps = policy.overflow is Overflow.LATEST
        self.cursor.spills = policy.overflow is Overflow.SPILL
        self.state: State = "active"
        self.open = True
        """Whether it may still get events."""
        self.delivered = self.failed = self.filtered = self.superseded = self.invalid = 0
        self.offered = 0
        self.seconds = 0.0
        self.handled = 0
        """Position up to which everything was dealt with."""
        self.latency = 0.0
        self.due = 0.0
        """When it may be woken for events of a batch."""
        self.urgent = False
        self.backlog = policy.backlog or max(log.window // 2, 1)
        """With ``overflow="wait"``: unread events at which publishers wait, until half of them are read."""
        self.waiters: list[tuple[int, Future[bool]]] = []
        """Who waits until `handled` reaches a position. Shared with the sequencer, under the lock."""
        self.admits = _admission(self)
        self.durable: Durable | None = None
        """With ``durable=``: where its position is kept, and what an earlier bus has left for it."""
        self.leftover = False
        """Whether that is being read."""
        self._lock = threading.Lock()
        self._source = source
        self._forget = forget
        self._streak = (0, 0)
        self._gaps_logged = Seldom()
        self._failures_logged = Seldom()
        self._reader: Reader | None = None

    # -- the user's side ---------------------------------------------------------------------------

    def cancel(self) -> None:
        """End the subscription. A call under way is not interrupted; what is unread stays unread."""
        self._finish("cancelled")

    @property
    def stats(self) -> SubscriptionStats:
        """What became of its events until now."""
        return SubscriptionStats(
            name=self.name,
            lane=self.lane,
            state=self.state,
            delivered=self.delivered,
            failed=self.failed,
            filtered=self.filtered,
            missed=self.missed,
            lag=max(self.cursor.goal - self.handled, 0),
            seconds=self.seconds,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"<Subscription {self.name!r} {self.state}, {self.delivered} delivered>"

    # -- the sequencer's side ----------------------------------------------------------------------

    def attach(self, reader: Reader) -> None:
        """Say who reads."""
        self._reader = reader

    def wake(self) -> None:
        """Tell the reader that there is something to do."""
        if self._reader is not None:
            self._reader.wake()

    def keep(self, durable: Durable) -> bool:
        """Keep the position in `durable`; return whether there is something left of an earlier bus."""
        self.durable = durable
        durable.reader = self
        self.admits = durable.watch(self.admits)
        self.leftover = durable.adopt(self.types)
        return self.leftover

    @property
    def begun(self) -> bool:
        """Whether it has got its position."""
        return self.cursor.position != NOWHERE

    @property
    def behind(self) -> bool:
        """Whether something it has not dealt with lies ahead."""
        return self.open and self.handled < self.cursor.goal

    @property
    def settled(self) -> int:
        """Position up to which there is nothing that it has not dealt with. Behind `handled` once nothing follows."""
        log = self.cursor.log
        over = log.sealed and self.handled >= self.cursor.goal  # in that order: then the goal is the last one
        return max(self.handled, log.head) if over else self.handled

    def nudge(self) -> None:
        """Have the sequencer wake the reader. From any thread."""
        self._source.call(self.wake)

    @property
    def forked(self) -> bool:
        """Whether its bus was inherited by a forked child."""
        return self._source.forked

    @property
    def missed(self) -> int:
        """Events that were not and will not be delivered."""
        return self.cursor.missed + self.superseded

    @property
    def unread(self) -> int:
        """With ``overflow="wait"``: matching events that were not dealt with."""
        return self.offered - self.delivered - self.failed - self.filtered - self.invalid - self.missed

    @property
    def crowded(self) -> bool:
        """With ``overflow="wait"``: whether it is too far behind for publishers to go on after they had to stop."""
        return self.unread > self.backlog // 2

    def when_handled(self, position: int) -> Future[bool] | None:
        """Return a future of whether everything up to `position` was dealt with; None if it was.

        It is done once that is so, or once nobody knows when it will be.
        """
        target = min(position, self.cursor.goal)
        if self._has_handled(target) or not self.open:
            return None
        waiter: tuple[int, Future[bool]] = (target, Future())
        with self._lock:
            self.waiters[:] = [other for other in self.waiters if not other[1].cancelled()]
            self.waiters.append(waiter)  # before the look at the position: see `settle`
            if self._has_handled(target) or not self.open:
                self.waiters.remove(waiter)
                return None
        return waiter[1]

    def _has_handled(self, position: int) -> bool:
        return self.handled >= position and not self.leftover

    def end(self) -> None:
        """Nothing will follow: the bus closes, or it has had the one event that it asked for."""
        self._finish("ended")

    # -- the reader's side -------------------------------------------------------------------------

    def take(self) -> list[Any]:
        """Return the next events of its types; none means there are none now. Announces a gap before them."""
        if self.durable is not None and (left := self._take_left(self.durable)):
            return left
        events = self._take(lambda: [event for _, event in self._newest()], self.cursor.take, BATCH)
        if not events:
            self.rest()
            if self.durable is not None:
                self.durable.put_down()
        return events

    def _take_left(self, durable: Durable) -> list[Event]:
        """Return the next of what an ended bus has left for it."""
        if not (self.leftover or durable.found):
            return []
        left = durable.take(BATCH) if self.open else []
        self.leftover = bool(left)
        if not left:
            self._release_waiters()
        return left

    def take_items(self) -> list[tuple[int, Event | Entry]]:
        """Like `take`, with positions and with entries that nobody had built, and filtered already.

        Call `rest` when none are left and all that were taken have been dealt with.
        """
        while items := self._take(self._newest, self.cursor.take_any, LARGE_BATCH):
            admitted = [item for item in items if self.admits is None or self._admits(cast(Event, item[1]))]
            if admitted:
                return admitted
        return []

    def _take(self, newest: Callable[[], list[T]], pull: Callable[[int], list[T]], limit: int) -> list[T]:
        if not self.open:
            return []
        items = newest() if self.cursor.keeps else pull(limit)
        for gap in self.cursor.gaps():
            self._announce(gap)
        return items

    def rest(self) -> None:
        """Say that everything that was taken was dealt with."""
        if self.open and self.begun:
            self.settle(self.cursor.position)

    def _newest(self) -> list[tuple[int, Event | Entry]]:
        newest: dict[type, tuple[int, Event | Entry]] = {}
        while True:
            items = self.cursor.take_any(BATCH)
            for seq, item in (*self.cursor.take_kept(), *items):
                earlier = newest.get(kind(item))
                self.superseded += earlier is not None
                if earlier is None or earlier[0] < seq:
                    newest[kind(item)] = (seq, item)
            if not items:
                return sorted(newest.values(), key=itemgetter(0))

    def deliver(self, events: Sequence[Event]) -> Iterator[Event]:
        """Yield the events to call back with, one at a time, and account for each when the next is asked for."""
        admits, waiters, once = self.admits, self.waiters, self.policy.once
        begin = time.perf_counter()
        try:
            for event in events:
                if not self.open:
                    return
                if admits is None or self._admits(event):
                    failed = self.failed
                    yield event
                    if self.failed == failed:
                        self.delivered += 1
                    if once:
                        self.end()
                if not self.leftover:
                    self.handled = event.seq
                    if waiters and self._awaits(event.seq):
                        self.settle(event.seq)
        finally:
            self.seconds += time.perf_counter() - begin
        if self.leftover and self.durable is not None:
            self.durable.settle(events[-1].seq)
        else:
            self.settle(events[-1].seq)

    def _admits(self, event: Event) -> bool:
        try:
            return self.admits is None or self.admits(event)
        except Exception as error:  # the predicate is the user's too
            self.fail(type(event), event.seq, error)
            return False

    def announce(self, event: type[Event], /, **fields: Any) -> None:
        """Publish something about it, without ever waiting."""
        self._source.announce(event, **fields)

    def give_up_waiting(self) -> None:
        """Let those go on who wait until everything was dealt with: nobody knows when that will be."""
        with self._lock:
            waiting = [(future, self._has_handled(target)) for target, future in self.waiters]
            self.waiters.clear()
        _release(waiting)

    def _announce(self, gap: Gap) -> None:
        level = logging.WARNING if self._gaps_logged.due() else logging.DEBUG
        logger.log(level, "%s missed %d events (%d to %d)", self.name, gap.count, gap.first, gap.last)
        self.announce(
            EventsMissed,
            subscription=self.name,
            count=gap.count,
            first=gap.first,
            last=gap.last,
            reason="overflow",
        )

    def settle(self, position: int) -> None:
        """Say that everything up to `position` was dealt with."""
        self.handled = max(self.handled, position)
        if self.waiters:  # after the position: `when_handled` looks in the opposite order, so one of the two sees it
            self._release_waiters()
        if self.policy.overflow is Overflow.WAIT and not self.crowded:
            self._source.relieve()

    def _awaits(self, position: int) -> bool:
        first = self.waiters[:1]  # a copy: the sequencer may take one away between two looks
        return bool(first) and position >= first[0][0]

    def _release_waiters(self) -> None:
        with self._lock:
            done = [waiter for waiter in self.waiters if self._has_handled(waiter[0])]
            self.waiters[:] = [waiter for waiter in self.waiters if waiter not in done]
        _release((future, True) for _, future in done)

    def fail(self, event: type[Event], seq: int, error: BaseException) -> None:
        """Note that the callback failed: log it once, count it, announce it, and maybe switch off."""
        self.failed += 1
        since, failures = self._streak
        failures = failures + 1 if since == self.delivered else 1
        self._streak = (self.delivered, failures)
        off = failures >= self.policy.max_failures
        logger.log(
            logging.ERROR if self._failures_logged.due() or off else logging.DEBUG,
            "%s failed on %s (seq %d)%s",
            self.name,
            event.__name__,
            seq,
            f"; switched off after {failures} failures in a row" if off else "",
            exc_info=error,
        )
        if not issubclass(event, BusEvent):  # or a failing reader of failures would feed itself
            self.announce(
                SubscriberFailed,
                subscription=self.name,
                event=wire_name(event) or event.__name__,
                event_seq=seq,
                error=_describe(error),
                failures=failures,
                switched_off=off,
            )
        if self.durable is not None:
            self.durable.give_up(seq, event.__name__, str(error))
        if off:
            self._finish("switched off")

    def die(self, reason: str) -> None:
        """Switch it off because nobody can serve it any more."""
        if self.open:
            logger.error("%s was switched off: %s", self.name, reason)
            self._finish("switched off")

    def _finish(self, state: State) -> None:
        if self._source.forked:  # the lock may have been inherited in any state
            self.open = False
            return
        with self._lock:
            if not self.open:
                return
            self.state = state
            self.open = False
        self.give_up_waiting()
        self._forget(self)


def _release(waiting: Iterable[tuple[Future[bool], bool]]) -> None:
    for future, handled in waiting:
        if future.set_running_or_notify_cancel():  # False: whoever waited has given up
            future.set_result(handled)


def _describe(error: BaseException) -> ErrorInfo:
    if isinstance(error, RemoteFailure):
        return error.info
    return ErrorInfo(
        type=type(error).__qualname__,
        message=_message(error),
        traceback="".join(traceback.format_exception(error)),
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as worse:  # an exception of the user's may not even be printable
        return f"<unprintable: {type(worse).__qualname__}>"


def _admission(subscription: Subscription) -> Callable[[Event], bool] | None:
    """Return the test that an event of the right type must pass, or None where all pass."""
    policy = subscription.policy
    if policy.where is None and policy.every == 1 and not policy.once and policy.run is None:
        return None
    nth = itertools.count()
    first = itertools.count()

    def admit(event: Event) -> bool:
        passed = (
            (policy.run is None or event.run == policy.run)
            and (policy.where is None or bool(policy.where(event)))
            and next(nth) % policy.every == 0
            and not (policy.once and next(first))
        )
        if not passed:
            subscription.filtered += 1
        return passed

    return admit
