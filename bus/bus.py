"""The bus: a log and its subscriptions, behind one face."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, cast, overload

import anyio
from typing_extensions import Unpack

from ..schemas import Event, RunEnd, find_events
from .calls import async_call, sync_call
from .cells import did
from .closing import Closing
from .ending import CloseReport, Ending
from .errors import BusClosed, BusForked, NextTimeout, PolicyRefused, WouldDeadlock
from .history import Remembered, recall
from .importable import import_callback, pickle_callback
from .inbox import ClosedInbox, ForkedInbox, Inbox
from .journal import Journal
from .journal.archive import Archive
from .journal.durable import Durable
from .journal.errors import JournalDegraded
from .journal.recorder import COMMIT_SECONDS, Recorder
from .journal.writer import JournalWriter
from .lanes import Caller, LoopLane, ThreadLane
from .log import Log
from .policy import Lane, Mark, Overflow, Policy, PolicyKeywords, check_callback, check_policy, choose_lane
from .portal import Portals
from .process import Feeder
from .sequencer import Sequencer
from .serving import serving
from .source import Source
from .steering import Steering
from .stream import Stream
from .subscription import Subscription, SubscriptionStats
from .tracking import Tracked, tracked_runs
from .waiting import Waits, adrive, drive, left

E = TypeVar("E", bound=Event)
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
R = TypeVar("R")

logger = logging.getLogger("lineside.bus")

CLOSE_SECONDS = 4.0
"""Deadline of a close, unless it is told otherwise: whatever hangs, a program ends within five seconds."""
FOREVER = 1 << 62
"""More failures than there will be: the recorder is never switched off."""


class Register(Protocol[E]):
    """What `Bus.on` returns: a decorator for callbacks that take such an event."""

    def __call__(self, callback: Callable[[E], R], /) -> Callable[[E], R]:
        """Subscribe `callback` and return it."""
        ...


@dataclass(frozen=True, slots=True)
class BusStats:
    """What the bus has done until now."""

    published: int
    """Events numbered, and those waiting for their number."""
    waiting: int
    """Events waiting for their number."""
    invalid: int
    """Published fields that did not fit their event."""
    refused: int
    """Published after the close."""
    memory: int
    """Events in the memory window."""
    seconds: float
    """CPU time of the sequencer."""
    subscriptions: tuple[SubscriptionStats, ...]


class Bus(Closing):
    """Carries events from publishers to subscriptions.

    Publishing appends to a log and returns; each subscription reads the log at its own pace, in
    order, one event at a time. Works as ``Bus()``, ``with Bus() as bus`` and ``async with Bus() as bus``;
    in the last form, async callbacks run on the loop it was entered on, else on a thread's of its own.

    Args:
        journal: The folder (or `Journal`) to keep everything in that is published; None keeps nothing.
        window: Events kept in memory for readers that fall behind or begin in the past.
        window_bytes: Bytes they may hold, estimated.
        latency: Seconds that events of a batch may wait for one another on their way to subscribers.
        close_timeout: Seconds that subscribers have to handle what was published when the bus is closed: at the end of
            a ``with`` block, by `close`, or at the interpreter's exit.

    Raises:
        PolicyRefused: a size or a time is out of range.
        JournalRefused: no journal can be kept in that folder.
    """

    def __init__(
        self,
        journal: str | os.PathLike[str] | Journal | None = None,
        *,
        window: int = 4096,
        window_bytes: int = 64 << 20,
        latency: float = 0.05,
        close_timeout: float = CLOSE_SECONDS,
    ) -> None:
        if not (_are_sizes(window, window_bytes) and _are_seconds(latency, close_timeout)):
            raise PolicyRefused(
                f"window={window!r}, window_bytes={window_bytes!r}, latency={latency!r}, "
                f"close_timeout={close_timeout!r}: expected positive sizes and times of 0 or more seconds",
                "make a bus",
            )
        self._close_timeout = close_timeout
        self._inbox = Inbox(limit=window)
        self._log = Log(window, window_bytes)
        self._source = Source(self._inbox)
        self._portals = Portals()
        self._sequencer = Sequencer(
            self._log, self._inbox, self._source, latency, self._portals.flush, self._spilling()
        )
        self._thread = threading.Thread(target=self._sequencer.run, name="lineside-sequencer", daemon=True)
        self._lanes: dict[Subscription, LoopLane | ThreadLane] = {}
        self._names = itertools.count(1)
        self._ending = Ending(self._inbox, self._sequencer, self._thread, self._lanes, self._portals)
        self._guard = threading.Lock()
        self._pid = os.getpid()
        self.steering = Steering()
        """The runs that go on here."""
        if journal is not None:
            journal = journal if isinstance(journal, Journal) else Journal(journal)
            self._sequencer.record(*self._recorded(0, journal.begin()))
        self._thread.start()
        # The same without a call in between: fields are passed on once.
        self.publish = self._source.publish  # type: ignore[method-assign]
        _at_exit(self)

    def _recorded(self, begin: int, archive: Archive | None = None) -> tuple[Archive, Subscription]:
        """Return an archive, a temporary one if none is given, and the subscription that writes to it."""
        archive = archive or Archive(JournalWriter.temporary(), begin)
        policy = Policy(
            name="journal", overflow=Overflow.DROP, since=begin, latency=COMMIT_SECONDS, max_failures=FOREVER
        )
        subscription = self._subscription(policy, "journal", Lane.THREAD.value, (Event,))
        self._serve(subscription, ThreadLane(subscription, Recorder(subscription, archive)))
        return archive, subscription

    def _spilling(self) -> Callable[[int], tuple[Archive, Subscription]]:
        """Return what makes a temporary archive, without keeping the bus: its thread holds on to it."""
        reference = weakref.ref(self)

        def spill(begin: int) -> tuple[Archive, Subscription]:
            bus = reference()
            if bus is None:
                raise BusClosed("nobody will read it")
            return bus._recorded(begin)

        return spill

    # -- publishing --------------------------------------------------------------------------------

    def publish(self, event: Event | type[Event], /, **fields: Any) -> None:
        """Publish an event: an instance, or a class and its raw fields. See `Source.publish`."""
        self._source.publish(event, **fields)

    def source(self, run: str, *, attempt: int = 1, rank: int = 0) -> Source:
        """Return a publisher whose events belong to `run`.

        Raises:
            RunIdRefused: `run` could not be part of a path or an address.
        """
        if self._ending.report is not None:
            logger.warning("nobody will hear of run %r: this bus is closed. Make the runner with another one", run)
        return Source(self._inbox, run, attempt, rank)

    def run(
        self,
        name: str = "train",
        *,
        id: str | None = None,  # noqa: A002
        rank: int = 0,
        attempt: int | None = None,
        config: Mapping[str, object] | None = None,
    ) -> Tracked:
        """Return a run for a training loop of your own: ``with bus.run("digits") as run: ...``, see `Tracked`.

        Args:
            name: What the id of the run begins with.
            id: The id itself, where several processes tell of one run, or one that was begun goes on; None makes one of
                name, time and chance.
            rank: Rank of this process in the run.
            attempt: Number of this attempt at the run, from 1 on; None: the one after those that the bus remembers or
                has in its journal.
            config: What to note with it: settings, as JSON.

        Raises:
            RunsUnavailable: the runners cannot be imported: they need ``lineside[train]``.
            TrackingRefused: `config` cannot be written as JSON (it is within itself, say), or `attempt` is below 1.
            RunIdRefused: `name` or `id` could not be part of a path or an address.
        """
        return tracked_runs()(self, name, id=id, rank=rank, attempt=attempt, config=config)

    # -- reading -----------------------------------------------------------------------------------

    @overload
    def on(self, t1: type[E1], /, **policy: Unpack[PolicyKeywords]) -> Register[E1]: ...
    @overload
    def on(self, t1: type[E1], t2: type[E2], /, **policy: Unpack[PolicyKeywords]) -> Register[E1 | E2]: ...
    @overload
    def on(
        self, t1: type[E1], t2: type[E2], t3: type[E3], /, **policy: Unpack[PolicyKeywords]
    ) -> Register[E1 | E2 | E3]: ...
    @overload
    def on(self, *types: type[Event] | str, **policy: Unpack[PolicyKeywords]) -> Register[Any]: ...
    def on(self, *types: type[Event] | str, **policy: Unpack[PolicyKeywords]) -> Register[Any]:
        """Subscribe the decorated function to `types`: classes, families or names; none means every event.

        Raises:
            UnknownEventName: no event has that name.
            CallbackRefused: the function cannot be called with one event.
            PolicyRefused: a keyword is unknown or its value impossible.
        """

        def register(callback: Callable[[Any], R], /) -> Callable[[Any], R]:
            self.subscribe(callback, *types, **policy)
            return callback

        find_events(types)
        check_policy(policy)
        return register

    @overload
    def subscribe(
        self, callback: Callable[[E1], object], t1: type[E1], /, **policy: Unpack[PolicyKeywords]
    ) -> Subscription: ...
    @overload
    def subscribe(
        self, callback: Callable[[E1 | E2], object], t1: type[E1], t2: type[E2], /, **policy: Unpack[PolicyKeywords]
    ) -> Subscription: ...
    @overload
    def subscribe(
        self, callback: Callable[[Any], object] | str, *types: type[Event] | str, **policy: Unpack[PolicyKeywords]
    ) -> Subscription: ...
    def subscribe(
        self, callback: Callable[[Any], object] | str, *types: type[Event] | str, **policy: Unpack[PolicyKeywords]
    ) -> Subscription:
        """Call `callback` with every event of `types` published from now on (or from ``since``).

        With ``lane="process"``, `callback` may be a name, ``"package.module:function"``. A callback
        that has a ``close`` method is closed after its last event.

        Raises:
            UnknownEventName: no event has that name.
            CallbackRefused: the callback cannot be called with one event, or not in that lane.
            PolicyRefused: a keyword is unknown or its value impossible.
            BusClosed: there will be no events any more.
            BusForked: the bus belongs to the parent process.
        """
        self._refuse_late_readers()
        found, checked = find_events(types), check_policy(policy)
        if isinstance(callback, str):
            callback = import_callback(callback)
        check_callback(callback)
        lane = choose_lane(callback, checked)
        pickled = pickle_callback(callback) if lane is Lane.PROCESS else None
        subscription = self._subscription(checked, _name(callback), lane.value, found)
        if checked.durable is not None:
            self._keep(subscription, checked.durable)
        self._attach(subscription, callback, lane, pickled)
        self._inbox.command(lambda: self._sequencer.add(subscription))
        did(subscription, Subscription.cancel)
        return subscription

    def _keep(self, subscription: Subscription, name: str) -> None:
        """Keep the position of `subscription` with the journal."""
        archive = self._archive
        if archive is None:
            raise PolicyRefused(f"durable={name!r} is kept with the journal, and this bus has none; use Bus('runs/')")
        with self._guard:
            if any(other.name == name for other in archive.durables):
                raise PolicyRefused(f"durable={name!r} is taken by another subscription of this bus")
            durable = Durable(name, archive.writer.path)
            archive.durables.append(durable)
        subscription.keep(durable)

    def _attach(
        self, subscription: Subscription, callback: Callable[[Any], object], lane: Lane, pickled: bytes | None
    ) -> None:
        policy = subscription.policy
        made: LoopLane | ThreadLane
        if pickled is not None:
            made = ThreadLane(subscription, Feeder(subscription, pickled, self._sequencer.refuse))
        elif lane is Lane.LOOP:
            call = async_call(callback, policy, subscription.name)
            made = LoopLane(subscription, callback, call, self._portals.default)
        else:
            plain = sync_call(callback, policy, subscription.name)
            made = ThreadLane(subscription, Caller(subscription, callback, plain))
        self._serve(subscription, made)

    def _serve(self, subscription: Subscription, lane: LoopLane | ThreadLane) -> None:
        subscription.attach(lane)
        self._lanes[subscription] = lane

    def _subscription(self, policy: Policy, name: str, lane: str, types: tuple[type[Event], ...]) -> Subscription:
        sequencer, inbox, lanes = self._sequencer, self._inbox, self._lanes

        def forget(subscription: Subscription) -> None:
            inbox.command(lambda: sequencer.remove(subscription))
            lane = lanes.get(subscription)
            if lane is not None:
                lane.finished.add_done_callback(lambda _: lanes.pop(subscription, None))

        return Subscription(
            policy.name or f"{name}-{next(self._names)}", lane, types, policy, self._log, self._source, forget
        )

    def _refuse_late_readers(self) -> None:
        if isinstance(self._inbox, ForkedInbox):
            raise BusForked
        if self._ending.report is not None or isinstance(self._inbox, ClosedInbox):
            raise BusClosed("it takes no new subscriptions or streams")

    @overload
    def stream(self, t1: type[E1], /, **policy: Unpack[PolicyKeywords]) -> Stream[E1]: ...
    @overload
    def stream(self, t1: type[E1], t2: type[E2], /, **policy: Unpack[PolicyKeywords]) -> Stream[E1 | E2]: ...
    @overload
    def stream(
        self, t1: type[E1], t2: type[E2], t3: type[E3], /, **policy: Unpack[PolicyKeywords]
    ) -> Stream[E1 | E2 | E3]: ...
    @overload
    def stream(self, *types: type[Event] | str, **policy: Unpack[PolicyKeywords]) -> Stream[Event]: ...
    def stream(self, *types: type[Event] | str, **policy: Unpack[PolicyKeywords]) -> Stream[Any]:
        """Return the events of `types` as an async iterator and an iterator, collected from now on.

        With ``run=``, it ends with that run.

        Raises:
            UnknownEventName: no event has that name.
            PolicyRefused: a keyword is unknown, impossible or meant for callbacks.
            BusClosed: there will be no events any more.
            BusForked: the bus belongs to the parent process.
        """
        self._refuse_late_readers()
        found, checked = find_events(types), check_policy(policy)
        for keyword in ("lane", "durable", "timeout", "retries", "max_failures"):
            if keyword in policy:
                raise PolicyRefused(f"{keyword}= is for callbacks; a stream has none")
        routed: tuple[type[Event], ...] = found if checked.run is None else (*found, RunEnd)
        subscription = self._subscription(checked, "stream", "stream", routed)
        stream: Stream[Any] = Stream(subscription, found, self._portals.of)
        self._inbox.command(lambda: self._sequencer.add(subscription))
        did(stream, lambda reader: reader.close())
        return stream

    async def next(
        self,
        *types: type[E],
        where: Callable[[E], bool] | None = None,
        timeout: float | None = None,
        run: str | None = None,
    ) -> E:
        """Return the next event of `types` for which `where` is true.

        Only events published after the call count: for a sequence of them, read a `stream`.

        Raises:
            NextTimeout: none came within `timeout` seconds.
            BusClosed: the bus was closed, or the run ended, before one came.
        """
        keywords: PolicyKeywords = {"run": run} if where is None else {"run": run, "where": where}
        found: tuple[type[Event], ...] = find_events(types)
        names = [cls.__name__ for cls in found]
        with self.stream(*found, **keywords) as stream:
            with anyio.move_on_after(timeout):
                async for event in stream:
                    return cast(E, event)
                raise BusClosed(f"no {' or '.join(names)} will come", run)
        raise NextTimeout(timeout or 0.0, names)

    def remember(self, window: int, window_bytes: int) -> None:
        """Keep at least so many newest events in memory from now on, and so many bytes."""
        self._log.widen(window, window_bytes)

    def remembered(self, *types: type[Event] | str, run: str, since: Mark | None = None) -> Remembered:
        """Return what it still knows of `run`: the events of `types` published before the call, and how many it lacks.

        They are read from memory and, where the bus keeps one, the journal, while they are iterated over; it is no
        subscription, waits for no reader, and works on a closed bus, too.

        Raises:
            UnknownEventName: no event has that name.
            BusForked: the bus belongs to the parent process.
        """
        return recall(self._log, self._inbox, find_events(types), run, since)

    @property
    def position(self) -> int:
        """Position of the newest numbered event; ``since=bus.position`` begins after it."""
        return self._log.head

    def mark(self) -> Mark:
        """Return a mark behind everything published before the call: ``since=mark`` begins there.

        Unlike `position`, it knows of events that were published and not numbered yet.
        """
        mark = Mark()
        self._inbox.command(lambda: self._sequencer.note(mark))
        return mark

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that async callbacks run on; a thread with one is started on demand."""
        return self._portals.default().loop

    def serves(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Return whether async callbacks run on `loop`. Unlike asking for `loop`, this starts none."""
        return self._portals.serves(loop)

    # -- the journal ------------------------------------------------------------------------------

    @property
    def journal(self) -> Path | None:
        """The file that it is kept in; None where it keeps no journal."""
        archive = self._archive
        return None if archive is None else archive.path

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything published before the call is committed to the journal.

        What was lost before, to a disk that refused for longer than memory lasts, is in `stats` and in the journal.

        Raises:
            JournalDegraded: the disk refuses it. It is tried again.
            DrainTimeout: it was not committed within `timeout` seconds.
            PolicyRefused: the bus keeps no journal.
            WouldDeadlock: called where the wait could only end after itself.
        """
        recorder = self._recorder("flush")
        self._refuse_deadlock("flush", "await bus.aflush()")
        drive(self._flushing(timeout, recorder))

    async def aflush(self, timeout: float | None = None) -> None:
        """Like `flush`, and raises the same, without stopping the event loop."""
        recorder = self._recorder("aflush")
        self._refuse_own_callback("aflush")
        await adrive(self._flushing(timeout, recorder))

    @property
    def _archive(self) -> Archive | None:
        archive = self._log.archive
        return archive if isinstance(archive, Archive) and not archive.temporary else None

    def _recorder(self, what: str) -> Subscription:
        if self._archive is None or self._sequencer.recorder is None:
            raise PolicyRefused("it waits for the journal, and this bus keeps none; make it as Bus('runs/')", what)
        return self._sequencer.recorder

    def _flushing(self, timeout: float | None, recorder: Subscription) -> Waits[None]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (yield from self._ending.draining(left(deadline), recorder)):
            self._refuse_degraded()  # or it came round meanwhile, and what it took since need not be all
        if not recorder.open:
            self._refuse_degraded()  # the close gave up what the disk still refused

    def _refuse_degraded(self) -> None:
        archive = self._archive
        if archive is not None and archive.error is not None:
            raise JournalDegraded(archive.writer.path, archive.error)

    # -- waiting and closing -----------------------------------------------------------------------

    def drain(self, timeout: float | None = None) -> None:
        """Wait until every callback has handled what was published before the call. Streams do not count.

        Raises:
            DrainTimeout: they had not within `timeout` seconds.
            WouldDeadlock: called where the wait could only end after itself.
        """
        self._refuse_deadlock("drain", "await bus.adrain()")
        drive(self._ending.draining(timeout))

    async def adrain(self, timeout: float | None = None) -> None:
        """Like `drain`, and raises the same, without stopping the event loop."""
        self._refuse_own_callback("adrain")
        await adrive(self._ending.draining(timeout))

    def _refuse_deadlock(self, what: str, instead: str) -> None:
        self._refuse_own_callback(what)
        if threading.current_thread() is self._thread:
            raise WouldDeadlock(f"{what}() inside a validator or a pending value would wait for the caller")
        if self.serves(asyncio._get_running_loop()):
            raise WouldDeadlock(f"{what}() would stop the event loop that it waits for; use {instead}")

    def _refuse_own_callback(self, what: str) -> None:
        subscription = serving()
        if subscription is not None and subscription in self._lanes:
            raise WouldDeadlock(
                f"{what}() inside the callback of {subscription.name} would wait for that callback; "
                "call it outside, or publish an event that another subscription acts on"
            )

    def close(self, timeout: float | None = None) -> CloseReport:
        """Deliver what was published, then end all subscriptions, streams and threads.

        What publishers send afterwards is counted and ignored. Callbacks that have not returned after `timeout`
        seconds, by default the bus's `close_timeout`, are left behind. Closing twice is fine.

        Raises:
            WouldDeadlock: called on the event loop that has to do the work, or inside a callback.
        """
        if self._ending.report is None:
            self._refuse_deadlock("close", "await bus.aclose()")
            drive(self._ending.closing(self._close_timeout if timeout is None else timeout))
        return cast(CloseReport, self._ending.report)

    async def aclose(self, timeout: float | None = None) -> CloseReport:
        """Like `close`, without stopping the event loop. Cancelled, it closes without waiting for callbacks."""
        if self._ending.report is None:
            self._refuse_own_callback("aclose")
            closing = self._ending.closing(self._close_timeout if timeout is None else timeout)
            try:
                with anyio.CancelScope(shield=True):
                    await adrive(closing)
            finally:
                for _ in closing:
                    pass  # a plain task's cancellation is stopped by no shield: end everything all the same
        return cast(CloseReport, self._ending.report)

    def stats(self) -> BusStats:
        """What the bus and each subscription have done until now."""
        waiting = self._inbox.waiting
        return BusStats(
            published=self._log.head + waiting,
            waiting=waiting,
            invalid=self._sequencer.invalid,
            refused=self._inbox.refused,
            memory=self._log.head - self._log.tail + 1,
            seconds=self._sequencer.seconds,
            subscriptions=tuple(subscription.stats for subscription in self._sequencer.subscriptions),
        )

    async def __aenter__(self) -> Self:
        self._portals.enter(asyncio.get_running_loop())
        return self

    def __del__(self) -> None:
        ending = getattr(self, "_ending", None)
        if ending is not None and not ending.silent and self._pid == os.getpid():
            warnings.warn(f"{self!r} was not closed; use it as a context manager", ResourceWarning, stacklevel=2)
            ending.dissolve()

    def __repr__(self) -> str:
        state = "closed" if self._ending.report is not None else f"{self._log.head} events"
        return f"<Bus {state}, {len(self._sequencer.subscriptions)} subscriptions>"


def _name(callback: object) -> str:
    inner = getattr(callback, "func", callback)
    return getattr(inner, "__qualname__", type(inner).__qualname__).rpartition("<locals>.")[2]


def _at_exit(bus: Bus) -> None:
    """Close `bus` when the interpreter exits, unless it is gone by then."""
    reference = weakref.ref(bus)

    def close() -> None:
        bus = reference()
        if bus is not None:
            bus.close()

    atexit.register(close)
    weakref.finalize(bus, atexit.unregister, close).atexit = False


def _are_sizes(*values: object) -> bool:
    return all(isinstance(value, int) and value > 0 for value in values)


def _are_seconds(*values: object) -> bool:
    return all(isinstance(value, (int, float)) and 0 <= value <= threading.TIMEOUT_MAX for value in values)
