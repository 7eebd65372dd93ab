"""The sequencer: the one thread that numbers what was published, builds it once and tells the readers.

It takes entries and commands from the inbox in the order they came, so that a subscription made
between two publishes gets exactly the second. While events flow it looks into the inbox
periodically; when they stop it sleeps until it is woken. Each time it wakes, the training loop pays
for the hand-over of the interpreter lock: that is why batch events wait for one another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

from ..schemas import Event, EventsMissed
from .entry import Entry, Item, LateEntry, WallClock, class_of, kind, sign, time_of
from .inbox import ClosedInbox, Inbox, retire
from .log import FLAT_BYTES, Archive, Chunk, Log, weigh
from .parcel import Names, explain, raw_row
from .policy import Mark, Overflow
from .route import Route
from .source import Source
from .subscription import Seldom, Subscription

logger = logging.getLogger("lineside.bus")

PENDING_SECONDS = 0.001
"""Pause before asking again for pending values, when somebody waits."""
SHORTEST_SECONDS = 0.0005
"""Shortest sleep: below it, sleeping costs the other threads more than it spares them."""
UNREAD = 4
"""How many times as far apart its looks into the inbox are while nobody reads."""
CROWDED = 0.25
"""Share of the memory window, in events or bytes, that may pile up unread before its readers are woken early."""


NOT_YET = datetime.fromtimestamp(0, UTC)
REFUSED = "is refused"
"""Marks fields that were found not to fit; no keyword of a publish, which has no space."""


class Sequencer:
    """Owns the log, the routes and the subscriptions; everything below `run` happens in its thread."""

    def __init__(
        self,
        log: Log,
        inbox: Inbox,
        source: Source,
        latency: float,
        flush: Callable[[], None],
        spill: Callable[[int], tuple[Archive, Subscription]],
    ) -> None:
        self.log = log
        self.inbox = inbox
        self.latency = latency
        self.invalid = 0
        self.seconds = 0.0
        self.subscriptions: tuple[Subscription, ...] = ()
        self._source = source
        self._flush = flush
        self._make_spill = spill
        self.recorder: Subscription | None = None
        """The subscription that writes to the archive."""
        self._routes: dict[type, Route] = {}
        self._published: set[type[Event]] = set()
        """Classes of which there ever was an event: on disk there may be some that memory has forgotten."""
        self._touched: dict[type, Route] = {}
        self._hungry: dict[Subscription, None] = {}
        self._patient: tuple[Subscription, ...] = ()
        self._allowance = 0
        """Events that the readers publishers wait for have room for at least: they only gain room by reading."""
        self._period = latency * UNREAD
        self._blocked = False
        self._hurried = False
        self._running = True
        self._rang = False
        self._refusing = threading.Lock()
        self._spill_logged = Seldom()
        self._invalid_logged: defaultdict[type, Seldom] = defaultdict(Seldom)

    # -- commands, called from the inbox -----------------------------------------------------------

    def add(self, subscription: Subscription) -> None:
        """Begin to serve `subscription` with what is published from here on, or from its `since`."""
        since = subscription.policy.since
        since = since.position if isinstance(since, Mark) else since
        if isinstance(since, timedelta):
            since = self._position_at(datetime.now(UTC) - since)
        subscription.latency = self.latency if subscription.policy.latency is None else subscription.policy.latency
        self._serve((*self.subscriptions, subscription))
        head, tail = self.log.head, self.log.tail - 1
        oldest = tail if subscription.policy.overflow in (Overflow.LATEST, Overflow.WAIT) else self.log.oldest - 1
        position = head if since == "now" else oldest if since == "start" else min(since, head)
        subscription.handled = max(position, oldest)
        if since != "now":
            wanted = (cls for cls in self._published if issubclass(cls, subscription.types))
            subscription.cursor.wanted |= frozenset(wanted)
            subscription.offered = max(tail - position, 0) + self._build_history(subscription, position)
            subscription.cursor.goal = head
            self._hungry[subscription] = None
        if subscription.leftover:
            subscription.urgent = True
            self._hungry[subscription] = None
        if subscription.durable is not None and self.recorder is not None:
            self._hungry[self.recorder] = None  # which keeps its position from now on
        subscription.cursor.start(position, oldest)  # last: a stream may be read by another thread at once

    def _position_at(self, when: datetime) -> int:
        """Return the position of the last event before `when`, of those that can still be read."""
        clock, position = WallClock(), self.log.tail - 1
        for chunk in self.log.chunks:
            for item in chunk.items:
                if item is not None and time_of(item, clock) >= when:
                    older = position < self.log.tail and self.log.archive is not None
                    return self.log.archive.position_at(when) if older and self.log.archive else position
                position += 1
        return position

    def note(self, mark: Mark) -> None:
        """Say where `mark` is: here."""
        mark.position = self.log.head

    def remove(self, subscription: Subscription) -> None:
        """Serve `subscription` no more."""
        self._serve(tuple(other for other in self.subscriptions if other is not subscription))
        self._hungry.pop(subscription, None)
        subscription.wake()

    def _serve(self, subscriptions: tuple[Subscription, ...]) -> None:
        self.subscriptions = subscriptions
        self.inbox.read = bool(subscriptions)
        self._patient = tuple(reader for reader in subscriptions if reader.policy.overflow is Overflow.WAIT)
        periods = [self.latency, *(reader.latency for reader in subscriptions)]
        self._period = min(periods) if subscriptions else self.latency * UNREAD
        self._routes.clear()
        self._allowance = 0

    def seal(self, future: Future[None]) -> None:
        """Take nothing more, and seal the log behind what was taken: also what was published since the command."""
        retire(self.inbox, ClosedInbox)
        self.inbox.command(lambda: self._seal(future))

    def _seal(self, future: Future[None]) -> None:
        self.log.sealed = True
        for subscription in self.subscriptions:
            self._hungry[subscription] = None
            subscription.urgent = True
        future.set_result(None)

    def drain(self, future: Future[list[Future[bool]]], only: Subscription | None = None) -> None:
        """Answer with what has to happen until all that was published so far is handled, by all or by one."""
        head = self.log.head
        self._note_goals()
        waits: list[Future[bool]] = []
        for subscription in self.subscriptions if only is None else (only,):
            wait = subscription.when_handled(head) if subscription.lane != "stream" else None
            if wait is not None:
                waits.append(wait)
                self._hungry[subscription] = None  # also one that has read everything and not heard what became of it
                subscription.urgent = True
        future.set_result(waits)

    def hurry(self) -> None:
        """Wait no more for late fields and for readers that publishers wait for: the deadline of a close has passed."""
        self._hurried = True
        self.inbox.ring()

    def dissolve(self) -> None:
        """End everything and wait for nothing: the bus was left open and is gone."""
        self.seal(Future())
        for subscription in self.subscriptions:
            subscription.end()
        self.inbox.command(self.stop)

    def stop(self) -> None:
        """End the thread. Whoever still reads finds the end of the log."""
        if not self.log.sealed:
            self._seal(Future())
        self._running = False

    # -- the thread --------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until stopped."""
        self.inbox.owner = threading.get_ident()
        quiet = False
        while self._running:
            worked = self._step()
            timeout = self._pause(quiet and not worked)
            quiet = not worked
            self._rang = self._sleep(timeout)

    def _sleep(self, timeout: float | None) -> bool:
        if timeout is not None and timeout <= 0:
            return False
        until_rung = timeout is None or (self._period == 0 and not self._blocked)
        self.inbox.asleep = until_rung
        try:
            return not (until_rung and self.inbox) and self.inbox.bell.wait(timeout)
        finally:
            self.inbox.asleep = False

    def _pause(self, idle: bool) -> float | None:
        """Return how long to sleep, in seconds; None until something is published."""
        if not self._running:
            return 0
        if self._blocked:
            return PENDING_SECONDS if self._rang or self._hungry else max(self.latency, PENDING_SECONDS)
        if self._hungry:
            due = max(min(reader.due for reader in self._hungry) - time.monotonic(), SHORTEST_SECONDS)
            return min(due, self._period) if self._period else due
        return None if idle or self._period == 0 else self._period

    def _step(self) -> bool:
        """Sequence everything in the inbox and wake whoever is due. Return whether there was anything."""
        begin = time.thread_time()
        worked = False
        self._blocked = self.inbox.late = False
        while self.inbox and not self._blocked and self._running:
            worked = True
            self._work()
        self._wake()
        self.seconds += time.thread_time() - begin
        return worked

    def _work(self) -> None:
        head = self.inbox[0]
        try:
            self._sequence()
        except Exception:  # a fault of ours: better to lose one event than all that follow
            logger.exception("the bus could not sequence %r", head)
            if self.inbox and self.inbox[0] is head:
                self.invalid += 1
                self.inbox.popleft()
        self._note_goals()
        self._wake()
        self._make_room()

    def _sequence(self) -> None:
        """Carry out the command at the head of the inbox, or move as many entries as a chunk holds to the log."""
        head = self.inbox[0]
        if callable(head):
            self.inbox.popleft()
            self._obey(head)
            return
        if self.log.overfull:
            self._make_room()
            if self.log.overfull:  # the disk will have caught up soon
                self._blocked = True
                return
        room = self._room() if self._patient else self.log.room
        if room > 0:
            before = self.log.head
            self._move(room)
            self._allowance -= self.log.head - before

    def _move(self, room: int) -> None:
        """Number and build what a chunk has room for, `room` of it for readers that publishers wait for."""
        inbox, routes, touched = self.inbox, self._routes, self._touched
        items: list[Item] = []
        weight, heavy, seq = 0, self.log.room_bytes, self.log.head
        clock = WallClock()
        try:
            for _ in range(min(len(inbox), self.log.room)):
                entry = inbox[0]
                if callable(entry):
                    break
                if len(entry) == 5:
                    resolved = self._resolve(entry)
                    if resolved is None:
                        break
                    entry = resolved
                what, fields = entry[0], entry[1]
                cls = what if isinstance(what, type) else what.__class__
                route = routes.get(cls)
                if route is None:
                    route = routes[cls] = self._route(cls)
                    self._published.add(cls)
                if route.waiting:
                    if room == 0:
                        break
                    room -= 1
                inbox.popleft()
                seq += 1
                if route.names and cls is what:
                    weight += self._pack(route.names, seq, entry)
                item = self._build(route, entry, seq, clock) if route.build else entry
                items.append(item)
                if route.waiting and item is not None:
                    route.offered += 1
                for name in route.heavy:
                    weight += weigh((fields or what.__dict__).get(name))
                route.last = seq
                touched[cls] = route
                if weight > heavy:
                    break
        finally:
            self.log.extend(items, weight + FLAT_BYTES * len(items))

    def _pack(self, names: Names, seq: int, entry: Entry) -> int:
        """Keep what goes to other processes, while the fields are raw; return its weight."""
        _, fields, source, when = entry
        try:
            row = self.log.packed[seq] = raw_row(names, seq, fields, source, when)
        except Exception:  # they may be picklable once they are validated
            return 0
        return len(row)

    def _obey(self, command: Callable[[], None]) -> None:
        try:
            command()
        except Exception:  # a fault of ours must not silence the bus
            logger.exception("the bus could not carry out %r", command)

    def _resolve(self, entry: LateEntry) -> Entry | None:
        """Return `entry` with its late fields, or None while they are on their way."""
        what, fields, source, when, pending = entry
        try:
            if not pending.ready():
                if self._hurried:
                    raise TimeoutError("they had not come when the bus was closed")
                self._blocked = True
                self.inbox.late = True
                return None
            fields = {**fields, **pending.result()}
        except BaseException as error:  # the user's code too
            logger.error("the late fields of %s are lost: %r", what, error)
            fields = {**fields, "late fields": repr(error)}
        # In place, so that `result` is called once even if the entry has to wait for room.
        self.inbox[0] = resolved = (what, fields, source, when)
        return resolved

    def _route(self, cls: type[Event]) -> Route:
        readers = [reader for reader in self.subscriptions if issubclass(cls, reader.types)]
        for reader in readers:
            reader.cursor.wanted |= {cls}
        return Route(cls, readers)

    def _build(self, route: Route, entry: Entry, seq: int, clock: WallClock) -> Item:
        """Return the event of `entry`, numbered and signed; None if its fields do not fit."""
        what, fields, source, when = entry
        try:
            if isinstance(what, type):
                fields["time"] = NOT_YET  # spares the default's look at the clock
                event: Event = route.validate(fields) if route.last else route.validate_first(fields)
            else:
                event = what.model_copy()
        except BaseException as error:  # a validator is the user's code
            self.refuse(seq, entry, explain(error))
            return None
        sign(event, source, seq, when, clock)
        return event

    def refuse(self, seq: int, entry: Entry, detail: str) -> None:
        """Announce that the fields of `entry` do not fit. From any thread: another process may be the first to know."""
        what, fields, _, _ = entry
        with self._refusing:
            if REFUSED in fields:
                return
            fields[REFUSED] = True
            self.invalid += 1
            cls = class_of(what)
            level = logging.ERROR if self._invalid_logged[cls].due() else logging.DEBUG
        logger.log(level, "a published %s is not delivered, because its fields do not fit: %s", cls.__name__, detail)
        if cls is not EventsMissed:
            self._source.announce(
                EventsMissed, subscription=None, count=1, first=seq, last=seq, reason="invalid", detail=detail
            )

    def _room(self) -> int:
        """Return how many events the readers that publishers wait for have room for; none stalls the publishers."""
        stalled, readers = self.inbox.stalled, self._waited_for()
        if self._allowance < self.log.room or stalled:
            self._allowance = min([self.log.window, *(reader.backlog - reader.unread for reader in readers)])
        room = self._allowance
        if self.log.full and any(reader.cursor.needs(self.log.chunks[0]) for reader in readers):
            room = 0  # the window is full of what one of them has not read
        if stalled and any(reader.crowded for reader in readers):
            room = 0  # or each event that is read would let one in, at the price of three wake-ups
        self._blocked = room <= 0
        if self._blocked or stalled:
            self.inbox.stall([reader.name for reader in readers] if self._blocked else ())
        for reader in readers if self._blocked else ():
            reader.urgent = True  # somebody waits for it now
        return room

    def _waited_for(self) -> list[Subscription]:
        return [reader for reader in self._patient if reader.open and not self._hurried]

    def _note_goals(self) -> None:
        for route in self._touched.values():
            for reader in route.waiting:
                reader.offered += route.offered
            route.offered = 0
            for reader in route.readers:
                reader.cursor.goal = max(reader.cursor.goal, route.last)
                reader.urgent = reader.urgent or route.cls.urgent
                self._hungry[reader] = None
        self._touched.clear()

    def _make_room(self) -> None:
        for chunk in self.log.evict():
            if any(reader.cursor.needs(chunk) for reader in self._waited_for()):
                return  # then there is no more room until it was read
            archived = self._archived(chunk)
            if archived is None:
                return
            for subscription in self.subscriptions:
                subscription.cursor.lose(chunk, archived=archived, counted=subscription.open)

    def _archived(self, chunk: Chunk) -> int | None:
        """Return the position up to which `chunk`, which is to leave memory, is on disk; None: it will be soon."""
        needed = any(reader.open and reader.cursor.needs_disk(chunk) for reader in self.subscriptions)
        archive = self.log.archive
        if archive is None and needed:
            archive = self._spill(chunk.first - 1)
        if archive is None:
            return 0
        if archive.temporary and not needed:
            self._end_spill()
            return 0
        if archive.position >= chunk.last or not archive.healthy:
            return archive.position
        if self.recorder is not None:
            self.recorder.urgent = True
            self._hungry[self.recorder] = None
        return None

    def _spill(self, begin: int) -> Archive | None:
        """Begin to keep on disk what follows position `begin`, because somebody who falls behind wants it."""
        try:
            self.record(*self._make_spill(begin))
        except Exception as error:
            if self._spill_logged.due():
                logger.warning("those who fall behind miss events, for want of a temporary file: %s", error)
        return self.log.archive

    def _end_spill(self) -> None:
        """Let the temporary file go: all have caught up."""
        if self.recorder is not None:
            self.recorder.cancel()
        self.log.archive = self.recorder = None

    def record(self, archive: Archive, recorder: Subscription) -> None:
        """Have `recorder` keep in `archive` what is published."""
        self.log.archive, self.recorder = archive, recorder
        self.add(recorder)

    def _wake(self) -> None:
        """Wake the readers that are due: at once for urgent events, else when their latency has passed."""
        now = time.monotonic()
        crowded = self.log.crowd(CROWDED)
        awake: list[Subscription] = []
        for reader in self._hungry:
            if reader.urgent or now >= reader.due or reader.cursor.position < crowded:
                reader.urgent = False
                reader.due = now + reader.latency
                reader.wake()
                awake.append(reader)
        for reader in awake:
            del self._hungry[reader]
        self._flush()

    def _build_history(self, subscription: Subscription, position: int) -> int:
        """Build what nobody had asked for until now, for a reader that begins in the past; return how much it finds."""
        clock = WallClock()
        found = 0
        for chunk in self.log.chunks:
            for index, item in enumerate(chunk.items):
                cls = kind(item)
                if chunk.first + index <= position or not issubclass(cls, subscription.types):
                    continue
                route = self._route(cls)
                if isinstance(item, tuple) and route.build:
                    item = self._build(route, item, chunk.first + index, clock)
                    self.log.build(chunk.first + index, item)
                found += item is not None
        return found
