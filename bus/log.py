"""The log: the newest events in memory, numbered from 1, and the cursors that read it.

One thread appends (the sequencer); any thread reads. Readers take no lock to read, because the
writer never changes what they can see: it appends to the open chunk, and replaces the tuple of
chunks as a whole.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..schemas import Event
from .entry import Entry, Item, kind

CHUNK_EVENTS = 64
FLAT_BYTES = 1500
"""Weight of an event that holds numbers only, as measured with its objects."""


class Chunk:
    """A run of consecutive items; `first` is the position of the first one."""

    __slots__ = ("first", "items", "kinds", "weight")

    def __init__(self, first: int) -> None:
        self.first = first
        self.items: list[Item] = []
        self.kinds: frozenset[type] = frozenset()
        """Classes of the items, so that a reader who wants them all need not look at each."""
        self.weight = 0

    @property
    def last(self) -> int:
        """Position of the last item."""
        return self.first + len(self.items) - 1


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
        self.packed: dict[int, bytes] = {}
        """Rows of the events that go to other processes, by position."""

    @property
    def tail(self) -> int:
        """Position of the oldest item in memory."""
        return self.chunks[0].first

    @property
    def full(self) -> bool:
        """Whether the oldest chunk has to go."""
        return self.head - self.chunks[0].last >= self.window or self.weight > self.window_bytes

    def extend(self, items: Sequence[Item], weight: int) -> None:
        """Append `items`, which weigh `weight` bytes together."""
        chunk = self.chunks[-1]
        room = CHUNK_EVENTS - len(chunk.items)
        chunk.kinds |= {item.__class__ for item in items}  # before the items: a reader looks after it has read them
        chunk.items += items[:room]
        chunk.weight += weight
        self.weight += weight
        self.head += len(items[:room])
        if len(chunk.items) >= CHUNK_EVENTS or chunk.weight > self.window_bytes // 16:
            self.chunks = (*self.chunks, Chunk(self.head + 1))
        if len(items) > room:
            self.extend(items[room:], 0)

    def evict(self) -> Iterator[Chunk]:
        """Let go of the oldest chunks that the window has no room for.

        Yields each while it can still be read, so that cursors are moved before it is gone.
        """
        while len(self.chunks) > 1 and self.full:
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


def weigh(value: object) -> int:
    """Estimate the bytes that a field's value holds."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value) + 50
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        return 64 + sum(weigh(key) + weigh(item) for key, item in items.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return 56 + sum(map(weigh, cast("Iterable[object]", value)))
    return int(getattr(value, "nbytes", 32))


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

    __slots__ = ("_gap", "_gaps", "_kept", "_lock", "_started", "goal", "keeps", "log", "missed", "position", "wanted")

    def __init__(self, log: Log) -> None:
        self.log = log
        self.wanted: frozenset[type] = frozenset()
        """Classes to look for; grows with the classes that are published."""
        self.position = NOWHERE
        self.goal = 0
        self.missed = 0
        self.keeps = False
        """Whether the newest lost event of each class is kept, instead of counting a gap."""
        self._kept: dict[type, tuple[int, Event | Entry]] = {}
        self._gap: Gap | None = None
        """What is being lost; closed by the next read, so that nothing that was read lies in it."""
        self._gaps: list[Gap] = []
        self._lock = threading.Lock()
        self._started = False

    @property
    def behind(self) -> bool:
        """Whether a wanted event lies ahead."""
        return self.position < self.goal

    def needs(self, chunk: Chunk) -> bool:
        """Whether it may still find something in `chunk`."""
        return self.behind and self.position < chunk.last

    def take(self, limit: int) -> list[Any]:
        """Return the next wanted items, about `limit` at most; none means that the head was reached."""
        while True:
            with self._lock:
                if not self._started:
                    return []
                self._close_gap()
                items, kinds = self.log.read(self.position, limit)
                self.position += len(items)
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
                first = self.position + 1
                items, _ = self.log.read(self.position, limit)
                self.position += len(items)
            if not items:
                break
            found += [
                (first + index, item)
                for index, item in enumerate(items)
                if item is not None and kind(item) in self.wanted
            ]
        return found

    def take_kept(self) -> list[tuple[int, Event | Entry]]:
        """With `keeps`: return the newest lost event of each class, with its position."""
        with self._lock:
            kept, self._kept = self._kept, {}
        return list(kept.values())

    def lose(self, chunk: Chunk, *, counted: bool = True) -> None:
        """Move behind `chunk`, which leaves memory, and count what was not taken of it if somebody still reads."""
        with self._lock:
            if self.position >= chunk.last:
                return
            if self.behind and counted:
                start = max(self.position + 1 - chunk.first, 0)
                lost = [
                    (seq, item)
                    for seq, item in enumerate(chunk.items[start:], chunk.first + start)
                    if item is not None and kind(item) in self.wanted
                ]
                if self.keeps:
                    self._keep(lost)
                elif lost:
                    self._count(len(lost), lost[0][0], lost[-1][0])
            self.position = chunk.last

    def _keep(self, lost: list[tuple[int, Event | Entry]]) -> None:
        for seq, item in lost:
            self.missed += kind(item) in self._kept
            self._kept[kind(item)] = (seq, item)

    def _count(self, count: int, first: int, last: int) -> None:
        self.missed += count
        self._gap = (
            Gap(count, first, last) if self._gap is None else Gap(self._gap.count + count, self._gap.first, last)
        )

    def start(self, position: int) -> None:
        """Begin after `position`; what is no longer in memory counts as missed."""
        with self._lock:
            tail = self.log.tail
            if position < tail - 1:
                self._count(tail - 1 - position, position + 1, tail - 1)
            self.position = max(position, tail - 1)
            self._started = True

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
