"""The log: the newest events in memory, numbered from 1, and the cursors that read it.

One thread appends (the sequencer); any thread reads. Readers take no lock to read, because the
writer never changes what they can see: it appends to the open chunk, and replaces the tuple of
chunks as a whole.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol, cast

from ..schemas import Event
from .entry import Entry, Item, kind

CHUNK_EVENTS = 64
FLAT_BYTES = 1500
"""Weight of an event that holds numbers only, as measured with its objects."""


class Chunk:
    """A run of consecutive items; `first` is the position of the first one."""

    __slots__ = ("before", "first", "items", "kinds", "weight")

    def __init__(self, first: int, before: int = 0) -> None:
        self.first = first
        self.before = before
        """Weight of all that was appended before it."""
        self.items: list[Item] = []
        self.kinds: frozenset[type] = frozenset()
        """Classes of the items, so that a reader who wants them all need not look at each."""
        self.weight = 0

    @property
    def last(self) -> int:
        """Position of the last item."""
        return self.first + len(self.items) - 1


class Archived(NamedTuple):
    """What a cursor read back from disk."""

    items: list[tuple[int, Event | None]]
    """Wanted events with their positions; None in place of one that cannot be read any more."""
    reached: int
    """Position up to which it looked."""


class Backlog(Protocol):
    """The way of one cursor through an archive."""

    def take(self, after: int, upto: int, limit: int, wanted: frozenset[type]) -> Archived:
        """Return up to `limit` events of the classes `wanted` between `after` and `upto`, the last included."""
        ...


class Archive(Protocol):
    """What of the log is on disk."""

    begin: int
    """Position after which it begins."""
    temporary: bool
    """Whether it lasts only while somebody reads it."""
    position: int
    """Position up to which it has what there was."""

    @property
    def healthy(self) -> bool:
        """Whether what is missing will come soon."""
        ...

    def reading(self) -> Backlog:
        """Return a way through it for one cursor."""
        ...

    def position_at(self, when: datetime) -> int:
        """Return the position of the last event before `when`."""
        ...


class Log:
    """A window over the newest events, bounded in events and in bytes."""

    def __init__(self, window: int, window_bytes: int) -> None:
        self.window = window
        self.window_bytes = window_bytes
        self.head = 0
        self.weight = 0
        self.sealed = False
        """Whether nothing will be appended any more."""
        self.chunks: tuple[Chunk, ...] = (Chunk(1),)
        self.archive: Archive | None = None
        """Where what leaves memory is read back from."""
        self.packed: dict[int, bytes] = {}
        """Rows of the events that go to other processes, by position."""

    def widen(self, window: int, window_bytes: int) -> None:
        """Hold at least so much from now on."""
        self.window, self.window_bytes = max(self.window, window), max(self.window_bytes, window_bytes)

    @property
    def tail(self) -> int:
        """Position of the oldest item in memory."""
        return self.chunks[0].first

    @property
    def oldest(self) -> int:
        """Position of the oldest item that can be read, in memory or on disk."""
        return self.tail if self.archive is None else min(self.archive.begin + 1, self.tail)

    @property
    def full(self) -> bool:
        """Whether the oldest chunk has to go. The newest event stays, however much it weighs."""
        oldest = self.chunks[0]
        return oldest.last < self.head and (self.head - oldest.last >= self.window or self.weight > self.window_bytes)

    @property
    def overfull(self) -> bool:
        """Whether it holds twice what it should: the disk is behind."""
        return self.full and (self.head - self.chunks[0].last >= 2 * self.window or self.weight > 2 * self.window_bytes)

    @property
    def room(self) -> int:
        """How many items the open chunk has room for, at least one."""
        return CHUNK_EVENTS - len(self.chunks[-1].items)

    @property
    def room_bytes(self) -> int:
        """Weight that a chunk may have, about."""
        return self.window_bytes // 16

    def crowd(self, share: float) -> float:
        """Return the position before which more than `share` of the window lies unread."""
        position = self.head - self.window * share
        if self.weight > self.window_bytes * share:
            newest = self.chunks[-1]
            heavier = newest.before + newest.weight - self.window_bytes * share
            place = bisect_left(self.chunks, heavier, key=_before) - 1  # the last one that is so much from the end
            return max(position, self.chunks[place].last)
        return position

    def extend(self, items: Sequence[Item], weight: int) -> None:
        """Append `items`, no more than there is `room` for, which weigh `weight` bytes together."""
        chunk = self.chunks[-1]
        chunk.kinds |= {item.__class__ for item in items}  # before the items: a reader looks after it has read them
        chunk.items += items
        chunk.weight += weight
        self.weight += weight
        self.head += len(items)
        if len(chunk.items) >= CHUNK_EVENTS or chunk.weight > self.room_bytes:
            self.chunks = (*self.chunks, Chunk(self.head + 1, chunk.before + chunk.weight))

    def evict(self) -> Iterator[Chunk]:
        """Let go of the oldest chunks that the window has no room for.

        Yields each while it can still be read, so that cursors are moved before it is gone.
        """
        while self.full:
            oldest, *rest = self.chunks
            yield oldest
            self.chunks = tuple(rest)
            self.weight -= oldest.weight
            if self.packed:
                for seq in range(oldest.first, oldest.last + 1):
                    self.packed.pop(seq, None)

    def build(self, position: int, event: Item) -> None:
        """Put the event in place of the entry at `position`."""
        chunk = self._chunk(position)
        chunk.kinds |= {event.__class__}
        chunk.items[position - chunk.first] = event

    def read(self, after: int, limit: int) -> tuple[list[Item], frozenset[type]]:
        """Return up to `limit` items that follow position `after`, fewer where a chunk ends, and their classes.

        `after` must not be before the window: whoever holds a cursor is told when that happens.
        """
        chunk = self._chunk(after + 1)
        start = after + 1 - chunk.first
        items = chunk.items[start : start + limit]
        return items, chunk.kinds

    def _chunk(self, position: int) -> Chunk:
        chunks = self.chunks
        return chunks[max(bisect_right(chunks, position, key=_first) - 1, 0)]


def _first(chunk: Chunk) -> int:
    return chunk.first


def _before(chunk: Chunk) -> int:
    return chunk.before


def weigh(value: object) -> int:
    """Estimate the bytes that a field's value holds."""
    kind = type(value)  # most are of these very types, and to look for a class takes several times as long
    if kind in _NUMBERS:
        return 32
    if kind is str:
        return len(cast("str", value)) + 50
    if kind is tuple or kind is list:
        return 56 + sum(map(weigh, cast("Sequence[object]", value)))
    if kind is dict:
        return _weigh_items(cast("dict[object, object]", value))
    return _weigh_other(value)


_NUMBERS = frozenset((int, float, bool, type(None)))


def _weigh_items(mapping: Mapping[object, object]) -> int:
    return 64 + sum(map(weigh, mapping)) + sum(map(weigh, mapping.values()))


def _weigh_other(value: object) -> int:
    nbytes: object = getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    if isinstance(value, (str, bytes, bytearray)):
        return len(value) + 50
    if isinstance(value, (list, tuple, set, frozenset)):
        return 56 + sum(map(weigh, cast("Iterable[object]", value)))
    return _weigh_items(cast("Mapping[object, object]", value)) if isinstance(value, Mapping) else 32


NOTHING: tuple[list[Item], frozenset[type]] = ([], frozenset())
NOWHERE = 1 << 62
"""Position of a cursor that has not begun: a reader that is quicker than the sequencer finds nothing."""


@dataclass(slots=True)
class Gap:
    """Events a cursor was too late for."""

    count: int
    first: int
    last: int


class Cursor:
    """A reader's position in the log, and what it looks for.

    The lock guards the position against the sequencer, which moves it when it pushes a chunk out of
    the window, and so decides for each event whether it was taken or missed: never both, never neither.
    """

    __slots__ = (
        "_archive",
        "_backlog",
        "_gap",
        "_gaps",
        "_holes",
        "_kept",
        "_lock",
        "_rereads",
        "goal",
        "keeps",
        "log",
        "missed",
        "position",
        "spills",
        "wanted",
    )

    def __init__(self, log: Log) -> None:
        self.log = log
        self.wanted: frozenset[type] = frozenset()
        """Classes to look for; grows with the classes that are published."""
        self.position = NOWHERE
        self.goal = 0
        self.missed = 0
        self.spills = False
        """Whether what it has not taken when it leaves memory is read back from disk, instead of counting a gap."""
        self.keeps = False
        """Whether the newest lost event of each class is kept, instead of counting a gap."""
        self._kept: dict[type, tuple[int, Event | Entry]] = {}
        self._gap: Gap | None = None
        """What is being lost; closed by the next read, so that nothing that was read lies in it."""
        self._gaps: list[Gap] = []
        self._archive: Archive | None = None
        self._backlog: Backlog | None = None
        self._holes: list[tuple[int, int]] = []
        """First and last positions that were counted as missed while it was further back, on disk."""
        self._rereads = False
        """Whether it began further back than memory and is not there yet."""
        self._lock = threading.Lock()

    @property
    def behind(self) -> bool:
        """Whether a wanted event lies ahead."""
        return self.position < self.goal

    def needs(self, chunk: Chunk) -> bool:
        """Whether it may still find something in `chunk`."""
        return self.behind and self.position < chunk.last

    def needs_disk(self, chunk: Chunk) -> bool:
        """Whether it reads from disk, or would miss something if `chunk` were not there when it leaves memory."""
        return self.behind and (self._is_behind_memory() or (self.spills and self.position < chunk.last))

    def take(self, limit: int) -> list[Any]:
        """Return the next wanted items, about `limit` at most; none means that the head was reached."""
        while True:
            with self._lock:
                self._close_gap()
                back = self._is_behind_memory()
                items, kinds = NOTHING if back else self.log.read(self.position, limit)
                self.position += len(items)
            if back:
                archived = self._read_back(limit)
                if archived:
                    return [event for _, event in archived]
                continue
            if not items:
                return items
            wanted = self.wanted  # after the items: a class is wanted before its first event is appended
            found = items if kinds <= wanted else [item for item in items if item.__class__ in wanted]
            if found:
                return found

    def take_any(self, limit: int) -> list[tuple[int, Event | Entry]]:
        """Like `take`, with positions and with entries that nobody had built, and gathered over several chunks."""
        found: list[tuple[int, Event | Entry]] = []
        while len(found) < limit:
            with self._lock:
                self._close_gap()
                back = self._is_behind_memory()
                first = self.position + 1
                items, _ = NOTHING if back else self.log.read(self.position, limit)
                self.position += len(items)
            if back:
                found += self._read_back(limit)
                continue
            if not items:
                break
            found += [
                (first + index, item)
                for index, item in enumerate(items)
                if item is not None and kind(item) in self.wanted
            ]
        return found

    def _is_behind_memory(self) -> bool:
        return self.position < self.log.tail - 1

    def _read_back(self, limit: int) -> list[tuple[int, Event]]:
        """Take the next wanted events from disk; there may be none before the position that was reached."""
        archive = self.log.archive
        if archive is not self._archive:  # a temporary one may have gone and another come
            self._archive, self._backlog = archive, None if archive is None else archive.reading()
        upto = self.log.tail - 1  # before the look at what is wanted: that grows before a class's first event
        found = self._backlog.take(self.position, upto, limit, self.wanted) if self._backlog else Archived([], upto)
        items, reached = found
        with self._lock:
            # What was not found there had been counted as missed when it left memory.
            self.position = reached
            holes = self._holes
            self._holes = [hole for hole in holes if hole[1] > reached]
            items = [item for item in items if not any(first <= item[0] <= last for first, last in holes)]
            for seq in (seq for seq, event in items if event is None):
                self._count(1, seq, seq)
            if not self._is_behind_memory():
                self._archive = self._backlog = None
                self._rereads = False
        return [(seq, event) for seq, event in items if event is not None]

    def take_kept(self) -> list[tuple[int, Event | Entry]]:
        """With `keeps`: return the newest lost event of each class, with its position."""
        with self._lock:
            kept, self._kept = self._kept, {}
        return list(kept.values())

    def lose(self, chunk: Chunk, *, archived: int, counted: bool = True) -> None:
        """Move behind `chunk`, which leaves memory, and count what was not taken of it if somebody still reads.

        What is on disk, up to position `archived`, is not lost to a cursor that spills or is further back already.
        """
        with self._lock:
            if self.position >= chunk.last:
                return
            from_disk = self.spills or self._rereads
            begin = max(self.position, archived, chunk.first - 1) if from_disk else self.position
            lost = self._wanted_of(chunk, begin, chunk.last) if self.behind and counted else []
            waits = from_disk and (self.position < chunk.first - 1 or self._wanted_of(chunk, self.position, archived))
            if self.keeps:
                self._keep(lost)
            elif lost:
                if waits:
                    self._dig(begin + 1, chunk.last)
                self._count(len(lost), lost[0][0], lost[-1][0])
            if not waits:
                self.position = chunk.last

    def _wanted_of(self, chunk: Chunk, after: int, upto: int) -> list[tuple[int, Event | Entry]]:
        start = max(after + 1 - chunk.first, 0)
        return [
            (seq, item)
            for seq, item in enumerate(chunk.items[start : upto + 1 - chunk.first], chunk.first + start)
            if item is not None and kind(item) in self.wanted
        ]

    def _dig(self, first: int, last: int) -> None:
        """Note that these positions were counted as missed, should the disk have them later after all."""
        if self._holes and self._holes[-1][1] + 1 == first:
            first = self._holes.pop()[0]
        else:
            self._close_gap()
        self._holes.append((first, last))

    def _keep(self, lost: list[tuple[int, Event | Entry]]) -> None:
        for seq, item in lost:
            self.missed += kind(item) in self._kept
            self._kept[kind(item)] = (seq, item)

    def _count(self, count: int, first: int, last: int) -> None:
        self.missed += count
        self._gap = (
            Gap(count, first, last) if self._gap is None else Gap(self._gap.count + count, self._gap.first, last)
        )

    def start(self, position: int, oldest: int) -> None:
        """Begin after `position`; what cannot be read any more, up to position `oldest`, counts as missed."""
        with self._lock:
            if position < oldest:
                self._count(oldest - position, position + 1, oldest)
            self.position = max(position, oldest)
            self._rereads = self._is_behind_memory()

    def _close_gap(self) -> None:
        if self._gap is not None:
            self._gaps.append(self._gap)
            self._gap = None

    def gaps(self) -> list[Gap]:
        """Return the gaps that lie before or in what was taken last, once. For the thread that takes."""
        if not self._gaps:
            return self._gaps
        gaps, self._gaps = self._gaps, []
        return gaps
