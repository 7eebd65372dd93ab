"""Feeds: what is told to many clients is read once.

A feed reads for all its streams together. The newest of what it read stays in a window; a stream is a cursor there,
and wherever it is behind the window, a cursor in the journal. So a slow client costs nothing but its own delay.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, contextmanager
from typing import TypeVar

import anyio
import anyio.to_thread
from pydantic_core import to_json
from typing_extensions import TypeVarTuple, Unpack

from ..errors import BusError
from ..journal import Journal
from ..journal.runs import RunSummary
from ..journal.tail import Tail
from .errors import Crowded
from .frames import BYE, EVERYTHING, HEARTBEAT, OPEN, Batch, Choice, Item
from .limits import Limits

T = TypeVar("T")
Args = TypeVarTuple("Args")

logger = logging.getLogger("lineside.service")

PAGE = 1000
"""Events that are read at once."""
PAST = 250
"""The same for one client alone: it is kept for as long as that one does not take it."""
UNPROVEN = 8
"""Such pages after which a client is known to read, as buffers hold less. Before, nothing is read ahead for it."""
READERS = 4
"""Clients that are read for from the journal at the same time."""

Seen = Mapping[str, int]
"""A position of a `Tail` as numbers: up to where each file was read, by its key."""


def parse(position: str) -> Seen:
    """Return a position of a `Tail` as numbers."""
    parts = (part.split(".") for part in position.split("-") if part)
    return {key: int(seq) for key, seq in parts}


def text(seen: Seen) -> str:
    """Return `seen` as a `Tail` takes it."""
    return "-".join(f"{key}.{seq}" for key, seq in seen.items())


def covers(seen: Seen, other: Seen) -> bool:
    """Return whether all that `other` has read, `seen` has."""
    return all(seen.get(key, 0) >= seq for key, seq in other.items())


def together(seen: Seen, other: Seen) -> Seen:
    """Return the position where all is read that either has."""
    return {key: max(seen.get(key, 0), other.get(key, 0)) for key in {**seen, **other}}


def unseen(batch: Batch, seen: Seen) -> Batch:
    """Return what `seen` lacks of `batch`, with positions that say so.

    `seen` covers the position that `batch` begins at. Beyond that, two ways of reading several files may have gone
    through them in different orders.
    """
    items: list[Item] = []
    end = together(seen, batch.end)
    for item in batch.items:
        if item.told is not None:
            after = parse(item.id)
            if covers(seen, after):
                continue
            seen = together(seen, after)
        items.append(item._replace(id=text(seen)) if item.id else item)
    return Batch(items, end)


def told(tail: Tail, limit: int = PAGE) -> Batch:
    """Read on, and return what came, with a word at every place where something is missing."""
    before = tail.position
    events = tail.read(limit)
    gaps = deque(tail.gaps())
    items: list[Item] = []
    for event in events:
        while gaps and (gaps[0].file, gaps[0].first) < (event.file, event.seq):
            items.append(_gap(before, *gaps.popleft()))
        items.append(Item(event.position, event.name, event.body, event))
        before = event.position
    items += [_gap(before, *gap) for gap in gaps]
    return Batch(items, parse(tail.position))


def _gap(position: str, file: str, first: int, last: int) -> Item:
    return Item(position, "gap", to_json({"file": file, "first": first, "last": last}))


class Feed(ABC):
    """Something that is read as long as anybody follows it, for all of them together."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.over = False
        """Whether its streams shall end."""
        self.followers = 0
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def followed(self) -> Generator[None]:
        """Keep it being read for the length of the block."""
        self.followers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._read_on())
        try:
            yield
        finally:
            self.followers -= 1
            if not self.followers:
                self.end()

    @abstractmethod
    def begin(self) -> None:
        """Find where it begins. Called in a thread, as are the next two."""

    @abstractmethod
    def read(self) -> bool:
        """Read what is new; return whether there may be more of it at once."""

    @abstractmethod
    def tell(self, beat: bool) -> bool:
        """On the event loop: take over what was read, with a heartbeat if it is time; return whether there is news."""

    @abstractmethod
    def pause(self) -> float:
        """Return the seconds until the next look."""

    def close(self) -> None:
        """Give back what it holds."""
        return

    async def _read_on(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            await in_thread(self.begin)
            if self.tell(False):
                self.wake()
            beat = clock()
            while not self.hub.leaving():
                more = await in_thread(self.read)
                due = clock() - beat >= self.hub.limits.heartbeat
                beat = clock() if due else beat
                if self.tell(due):
                    self.wake()
                await asyncio.sleep(0 if more else self.pause())
        except (BusError, sqlite3.Error, OSError):
            logger.exception("the journal cannot be read on; its streams end, and clients may try again")
        finally:
            self.end()
            await in_thread(self.close)

    def wake(self) -> None:
        """Tell all who wait for news that there is some."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def news(self) -> None:
        """Wait for the next news."""
        await self._news.wait()

    def end(self) -> None:
        """End all streams, with a word. Who comes later gets another feed."""
        self.over = True
        self.hub.forget(self)
        self.wake()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()


class RunFeed(Feed):
    """The events of one run, from now on."""

    def __init__(self, hub: Hub, run: str) -> None:
        super().__init__(hub)
        self.run = run
        self.window: deque[Batch] = deque()
        self.first = 0
        """Number of the first batch in the window."""
        self.start: Seen = {}
        """Position that the window begins at."""
        self.position: Seen = {}
        """Position that the window ends at."""
        self.begun = asyncio.Event()
        self._size = 0
        self._new: Batch | None = None
        self._tail: Tail | None = None

    def tail(self, after: str, choice: Choice = EVERYTHING) -> Tail:
        """Return a way through the journal.

        Raises:
            InvalidPosition: `after` is none.
        """
        return Tail(self.hub.journal.path, run=self.run, names=choice.names, ranks=choice.ranks, after=after)

    def begin(self) -> None:
        """Begin with what is published from now on."""
        end = Tail(self.hub.journal.path, run=self.run, names=())  # which passes over everything
        try:
            end.read()
            self.start = self.position = parse(end.position)
        finally:
            end.close()
        self._tail = self.tail(text(self.start))

    def read(self) -> bool:
        """Read the next events."""
        assert self._tail is not None
        self._new = told(self._tail)
        return len(self._new.items) >= PAGE

    def tell(self, beat: bool) -> bool:
        """Take them into the window."""
        self.begun.set()
        new, self._new = self._new, None
        if new is None or not (new.items or beat):
            return False
        if beat:
            new = Batch([*new.items, HEARTBEAT], new.end)
        self.window.append(new)
        self._size += new.size
        self.position = new.end
        while self._size > self.hub.limits.window and len(self.window) > 1:
            old = self.window.popleft()
            self._size -= old.size
            self.first += 1
            self.start = old.end
        return True

    def pause(self) -> float:
        """With many streams, longer."""
        return self.hub.limits.poll + self.followers * self.hub.limits.fan_out

    def close(self) -> None:
        """Close the journal."""
        if self._tail is not None:
            self._tail.close()

    def end(self) -> None:
        """End all streams."""
        self.begun.set()
        super().end()

    async def follow(self, past: Tail | None, choice: Choice) -> AsyncGenerator[Batch]:
        """Yield what comes after the position of `past` (None: from now on), each once, until it is over.

        A batch may hold more than `choice`, which only says what need not be read from the journal. Nothing at all is
        yielded from now on where it is over before it knows where that is.
        """
        with self.followed():
            await self.begun.wait()
            if past is None and self._tail is None:
                return
            seen = self.position if past is None else parse(past.position)
            yield Batch([Item(text(seen), OPEN, b"")], seen)
            while not self.over:
                way = self._live(seen) if covers(seen, self.start) else self._past(past, seen, choice)
                past = None
                async with aclosing(way):
                    async for batch in way:
                        seen = batch.end
                        yield batch
            yield Batch([BYE], seen)

    async def _past(self, tail: Tail | None, seen: Seen, choice: Choice) -> AsyncGenerator[Batch]:
        """Yield what is in the journal after `seen`, until the window is reached."""
        held = deque([tail] if tail is not None else [])
        del tail  # what it read ahead is not to be kept
        pages = 0

        def release() -> None:
            while held:
                held.pop().close()

        try:
            while not self.over:
                if not held:
                    held.append(await in_thread(self.tail, text(seen), choice))
                async with self.hub.readers:
                    batch = await in_thread(told, held[0], PAST)
                seen = batch.end
                batch.release = release
                pages += 1
                if pages <= UNPROVEN:
                    release()
                yield batch
                if covers(seen, self.start):
                    return
                if not batch.items:  # the window went on in between
                    await asyncio.sleep(self.hub.limits.poll)
        finally:
            release()

    async def _live(self, seen: Seen) -> AsyncGenerator[Batch]:
        """Yield what comes into the window, as long as it has all that comes after `seen`."""
        number = self.first
        start = self.start
        while not self.over and number >= self.first:
            if number == self.first + len(self.window):
                await self.news()
                continue
            batch = self.window[number - self.first]
            number += 1
            if covers(start, seen):
                yield batch
            elif not covers(seen, batch.end) or any(item.told is None for item in batch.items):
                yield unseen(batch, seen)
            seen = together(seen, batch.end)
            start = batch.end


class RunsFeed(Feed):
    """The summaries of all runs, each whenever it has changed. Who is slow gets the newest only."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.version = 0
        self._new: list[RunSummary] = []
        self._known: dict[str, tuple[RunSummary, int]] = {}
        self._newest = Batch([])
        self._seconds = 0.0

    def begin(self) -> None:
        """Read them a first time."""
        self.read()

    def read(self) -> bool:
        """Read them again."""
        began = time.monotonic()
        self._new = self.hub.summaries()
        self._seconds = time.monotonic() - began
        return False

    def tell(self, beat: bool) -> bool:
        """See which have changed."""
        changed = [one for one in reversed(self._new) if self._known.get(one.run, (None, 0))[0] != one]
        if not changed and not beat and self.version:
            return False
        self.version += 1
        self._known.update((one.run, (one, self.version)) for one in changed)
        self._newest = Batch([*map(_run, changed), *([HEARTBEAT] if beat else [])])
        return True

    def pause(self) -> float:
        """In a large journal, longer."""
        return max(self.hub.limits.summaries, 4 * self._seconds)  # a large journal shall not keep a core busy

    async def follow(self) -> AsyncGenerator[Batch]:
        """Yield all summaries, then those that change."""
        with self.followed():
            version = 0
            while not self.over:
                if version == self.version:
                    await self.news()
                    continue
                since, version = version, self.version
                yield self._newest if since == version - 1 and since else self._changed(since)
            yield Batch([BYE])

    def _changed(self, since: int) -> Batch:
        return Batch([_run(one) for one, version in self._known.values() if version > since] or [HEARTBEAT])


def _run(summary: RunSummary) -> Item:
    return Item("", "run", to_json(summary, inf_nan_mode="strings"))


class Hub:
    """The feeds of a service.

    Args:
        journal: What they read.
        limits: How much each client gets.
    """

    def __init__(self, journal: Journal, limits: Limits) -> None:
        self.journal = journal
        self.limits = limits
        self.closing = False
        self._streams: set[Callable[[], object]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._feeds: dict[str, RunFeed] = {}
        self._runs: RunsFeed | None = None
        self._lock = threading.Lock()
        self.readers = asyncio.Semaphore(READERS)

    def summaries(self) -> list[RunSummary]:
        """Return the summaries of all runs, the newest first."""
        with self._lock:  # a journal remembers what it has read
            return self.journal.runs()

    def summary(self, run: str) -> RunSummary:
        """Return the summary of `run`.

        Raises:
            UnknownRun: there is none of that id.
        """
        with self._lock:
            return self.journal.run(run)

    def run(self, run: str) -> RunFeed:
        """Return the feed of a run."""
        feed = self._feeds.get(run)
        if feed is None:
            feed = self._feeds[run] = RunFeed(self, run)
        return feed

    def runs(self) -> RunsFeed:
        """Return the feed of the summaries."""
        self._runs = self._runs or RunsFeed(self)
        return self._runs

    @contextmanager
    def opened(self, cut: Callable[[], object]) -> Generator[None]:
        """Count a stream for the length of the block; `cut` ends it at once."""
        self._streams.add(cut)
        self._empty.clear()
        try:
            yield
        finally:
            self._streams.discard(cut)
            if not self._streams:
                self._empty.set()

    def refuse_more(self) -> None:
        """Refuse to open another stream where there are too many.

        Raises:
            Crowded: there are, or the service shuts down.
        """
        if self.closing or self.streams >= self.limits.streams:
            raise Crowded("the service shuts down" if self.closing else f"{self.streams} streams are open already")

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    @property
    def idle(self) -> bool:
        """Whether nothing is read."""
        return not self._feeds and self._runs is None

    def forget(self, feed: Feed) -> None:
        """Give `feed` to nobody any more."""
        if feed is self._runs:
            self._runs = None
        elif isinstance(feed, RunFeed) and self._feeds.get(feed.run) is feed:
            del self._feeds[feed.run]

    def leaving(self) -> bool:
        """Return whether the process is about to end, and the streams with it.

        Uvicorn waits for open streams before it tells an app that it shuts down. A service that is mounted in an app
        of others learns of it from the server's signal handler.
        """
        server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if not self.closing and getattr(server, "should_exit", False):
            self.close()
        return self.closing

    def close(self) -> None:
        """End all streams, with a word; cut those that do not take it in time."""
        if self.closing:
            return
        self.closing = True
        for feed in (*self._feeds.values(), self._runs):
            if feed is not None:
                feed.end()
        asyncio.get_running_loop().call_later(self.limits.grace, self._cut)

    async def emptied(self) -> None:
        """Wait until no stream is open."""
        await self._empty.wait()

    def _cut(self) -> None:
        for cut in tuple(self._streams):
            cut()


async def in_thread(call: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    """Call something that waits for the disk. Who is cancelled waits for it too, before what it reads is closed."""
    work = asyncio.ensure_future(anyio.to_thread.run_sync(call, *args))
    left: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):  # it knows nothing of asyncio's own cancelling
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError as error:
                left = error
    if left is None:
        return work.result()
    if not work.cancelled():
        work.exception()  # nobody is there to hear of it
    raise left
