"""A stream: a cursor read with ``async for`` or ``for``."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, Self, TypeVar, cast

from ..schemas import Event, RunEnd
from .bell import Bell
from .closing import Closing
from .errors import BusForked
from .interrupts import Watch
from .policy import Overflow
from .portal import Portal
from .serving import read_here
from .subscription import Subscription, SubscriptionStats

E_co = TypeVar("E_co", bound=Event, covariant=True)


class Stream(Closing, Generic[E_co]):
    """The events of a subscription, one after the other, at the reader's own pace.

    It is an async iterator (on any event loop), an iterator, and a context manager of both kinds;
    it begins to collect when it is made, so nothing is lost before the first read. It ends when the
    bus closes, when it is closed, or, where it reads one run, after that run's `RunEnd`. One reader at a time.

    Raises:
        BusForked: it is read in a forked child.
    """

    def __init__(
        self,
        subscription: Subscription,
        types: tuple[type[Event], ...],
        portal: Callable[[asyncio.AbstractEventLoop], Portal],
    ) -> None:
        self._subscription = subscription
        self._types = types
        self._portal_of = portal
        self._portal: Portal | None = None
        self._events: deque[Event] = deque()
        self._sleepers: list[asyncio.Future[None]] = []
        self._bell = Bell()
        self._watch: Watch | None = None
        subscription.attach(_WeakReader(self))

    @property
    def stats(self) -> SubscriptionStats:
        """What became of its events until now."""
        return self._subscription.stats

    @property
    def missed(self) -> int:
        """Events it was too slow for."""
        return self._subscription.missed

    def close(self) -> None:
        """Stop reading. Whoever waits for the next event is told that there is none."""
        self._end_watch()
        self._subscription.cancel()

    def watched(self, watch: Watch) -> Self:
        """Have `watch` told when an interrupt ends the reading, which it watches from the first read to the last."""
        self._watch = watch
        return self

    # -- the reader's side -------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[E_co]:
        return self

    async def __anext__(self) -> E_co:
        loop = asyncio.get_running_loop()
        if self._portal is None or self._portal.loop is not loop:
            self._portal = self._portal_of(loop)  # before the look, or a wake-up in between is lost
        if self._watch is not None and not self._watch.active:
            self._watch.begin()
        while True:
            event = self._pop()
            if event is not None:
                return cast(E_co, event)
            if self._at_end():
                self._end_watch()
                raise StopAsyncIteration
            if self._watch is not None:
                self._watch.begin()  # the task that waits now, with the handler that is in place now
            sleeper = loop.create_future()
            self._sleepers.append(sleeper)
            try:
                await sleeper
            finally:
                self._sleepers.remove(sleeper)

    def __iter__(self) -> Iterator[E_co]:
        return self

    def __next__(self) -> E_co:
        if self._subscription.policy.overflow is Overflow.WAIT:
            read_here(self._subscription)
        while True:
            event = self._pop()
            if event is not None:
                return cast(E_co, event)
            if self._at_end():
                self._end_watch()
                self._bell.ring()  # for another thread that waits, too
                raise StopIteration
            self._wait()

    def _wait(self) -> None:
        if self._watch is None:
            self._bell.wait()
            return
        self._watch.begin(blocking=True)
        try:
            self._bell.wait()
        except KeyboardInterrupt:
            self._watch.interrupt()
            raise
        finally:
            self._watch.blocking = False

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.end()

    def _pop(self) -> Event | None:
        subscription = self._subscription
        if subscription.forked:
            raise BusForked
        while subscription.open:
            if not self._events:
                self._events.extend(subscription.take())
            if not self._events or not subscription.open:
                return None
            event = self._events.popleft()
            wanted = self._wants(event)
            subscription.delivered += wanted
            if not self._events:
                subscription.settle(event.seq)
            if event.__class__ is RunEnd and event.run == subscription.policy.run:
                self.close()
            if wanted and subscription.policy.once:
                subscription.end()
            if wanted:
                return event
        return None

    def _wants(self, event: Event) -> bool:
        subscription = self._subscription
        if not isinstance(event, self._types):  # the end of a run, read only to know of it
            subscription.filtered += 1
            return False
        try:
            return subscription.admits is None or subscription.admits(event)
        except (StopIteration, StopAsyncIteration) as error:
            subscription.failed += 1
            raise RuntimeError(
                f"where= raised {type(error).__name__}, which would end the reading as if there were no more events; "
                "catch it, or give next() a default"
            ) from error
        except BaseException:  # the predicate's error goes to the reader, who wrote it
            subscription.failed += 1
            raise

    def _at_end(self) -> bool:
        subscription, log = self._subscription, self._subscription.cursor.log
        return not subscription.open or (log.sealed and subscription.cursor.position >= log.head)

    # -- the sequencer's side ----------------------------------------------------------------------

    def wake(self) -> None:
        """Continue whoever waits for the next event."""
        if self._portal is not None:
            self._portal.post(self._continue, self._leave)
        self._bell.ring()

    def _leave(self) -> None:
        """The loop it was read on is closed. It may be read on another."""
        if self._portal is not None and self._portal.loop.is_closed():
            self._portal = None

    def _continue(self) -> None:
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    def __del__(self) -> None:
        # ``async for event in bus.stream(...): break`` leaves nobody to close it.
        self.close()

    def __repr__(self) -> str:
        return f"<Stream {self._subscription!r}>"


class _WeakReader:
    """Wakes a stream without keeping it: a stream that nobody holds any more ends its subscription."""

    def __init__(self, stream: Stream[Event]) -> None:
        self._stream = weakref.ref(stream)

    def wake(self) -> None:
        stream = self._stream()
        if stream is not None:
            stream.wake()
