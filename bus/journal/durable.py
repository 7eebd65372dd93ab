"""Durable subscriptions: their positions are kept with the journal, so that they go on where they were after a crash.

A bus makes a new file each time it begins, and writes to no other. So the position that a subscription has in the file
of an earlier bus is written into the file of the bus that reads it now: of all that are found, the furthest counts.
"""

from __future__ import annotations

import itertools
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from ...schemas import Event, UndecodableEvent, UnknownEvent, decode
from ...schemas.event import find_wire_type
from .claim import Claim, Hand, InHand, in_hand, is_claimed
from .errors import JournalUnreadable, ProcessDied
from .file import SUFFIX, JournalFile

logger = logging.getLogger("lineside.bus")

CRASHES = 5
"""How often a process may die with an event in hand before it is set aside."""
LOOK_SECONDS = 10.0
"""How often a subscription looks for what others of its name have left whose process died."""


class Bookmark(NamedTuple):
    """How far a durable subscription is in a file."""

    name: str
    file: str
    position: int


class Unread(NamedTuple):
    """A durable subscription that has not dealt with all of a file."""

    name: str
    position: int
    last: int


class SetAside(NamedTuple):
    """An event that a durable subscription failed on until it was given up."""

    name: str
    file: str
    position: int
    type: str
    error: str


class Reader(Protocol):
    """The subscription, as far as its position is concerned."""

    name: str
    open: bool
    types: tuple[type[Event], ...]

    @property
    def begun(self) -> bool:
        """Whether it has got its position."""
        ...

    @property
    def settled(self) -> int:
        """Position up to which there is nothing that it has not dealt with."""
        ...

    @property
    def behind(self) -> bool:
        """Whether something it has not dealt with lies ahead."""
        ...

    def fail(self, event: type[Event], seq: int, error: BaseException) -> None:
        """Note that an event could not be dealt with."""
        ...

    def nudge(self) -> None:
        """Have it look whether something was left for it. From any thread."""
        ...


class _Known(NamedTuple):
    """What the file of an ended bus tells of a durable subscription."""

    last: int
    """Position of its newest event."""
    positions: list[tuple[str, int]]
    in_hand: InHand | None


class Durable:
    """The position of one durable subscription, and what buses that ended have left for it."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.reader: Reader | None = None
        self.found = False
        """Whether something was left that the reader does not know of yet."""
        self._path = path
        self._known: dict[str, _Known] = {}
        self._left: Iterator[tuple[str, Event]] = iter(())
        self._next: list[tuple[str, Event]] = []
        self._tries: dict[tuple[str, int], int] = {}
        self._ends: dict[str, int] = {}
        self._claim: Claim | None = None
        self._over = False
        """Whether what was left is dealt with."""
        self._look_at = math.inf
        self._file = path.name
        self._positions: dict[str, int] = {}
        self._given_up: list[SetAside] = []
        self._saved: dict[str, int] = {}
        try:
            self._hand: Hand | None = Hand(path, name)
        except OSError as error:  # then an event that kills the process is tried for ever
            logger.warning("what %s has in hand cannot be noted beside %s: %s", name, path, error)
            self._hand = None

    def watch(self, admits: Callable[[Event], bool] | None) -> Callable[[Event], bool]:
        """Return `admits`, which is asked before each event, so that the event is noted as the one in hand."""
        hand, tries = self._hand, self._tries

        def admit(event: Event) -> bool:
            if hand is not None:
                hand.take(self._file, event.seq, tries.get((self._file, event.seq), 0) + 1)
            return admits is None or admits(event)

        return admit

    def put_down(self) -> None:
        """Nothing is in hand any more."""
        if self._hand is not None:
            self._hand.empty()

    def look(self) -> None:
        """From time to time, look for what others of its name have left whose process died since."""
        reader = self.reader
        if reader is not None and reader.open and self._claim is None and time.monotonic() >= self._look_at:
            try:
                self.found = self.adopt(reader.types)
            except OSError as error:  # in the thread of the journal, which goes on whatever the folder says
                logger.warning("what others have left for %s cannot be looked for: %s", self.name, error)
            if self.found:
                reader.nudge()

    def adopt(self, types: tuple[type[Event], ...]) -> bool:
        """Look for what buses that ended have left of events of `types`; return whether there is any."""
        try:
            return self._adopt(types)
        finally:
            self._look_at = time.monotonic() + LOOK_SECONDS

    def _adopt(self, types: tuple[type[Event], ...]) -> bool:
        folder = self._path.parent
        if not self._find(folder):
            return False
        self._claim = Claim.attempt(folder / f"durable-{self.name}{SUFFIX}")
        if self._claim is None:
            return False  # a subscription of that name in another process sees to it
        left = self._find(folder)  # again: it may just have done so
        self._ends = {file: self._known[file].last for file in left}
        self._left = ((file, event) for file in sorted(left) for event in _events(folder / file, left[file], types))
        return True

    def _find(self, folder: Path) -> dict[str, int]:
        """Return the files of ended buses in which something lies ahead, each with the position reached."""
        positions = dict(self._positions)
        there: set[str] = set()
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if path == self._path:
                continue
            alive = is_claimed(path)  # before reading: whoever has ended since may have said more
            known = self._known.get(path.name) or _known(path, self.name)
            if known is None:
                continue
            if not alive:
                self._known[path.name] = known
                there.add(path.name)
            for file, position in known.positions:
                positions[file] = max(positions.get(file, 0), position)
            if known.in_hand is not None and not alive:
                file, position, tries = known.in_hand
                self._tries[file, position] = max(self._tries.get((file, position), 0), tries)
                positions.setdefault(file, position - 1)  # it was killed before it could say so
        return {file: at for file, at in positions.items() if file in there and at < self._known[file].last}

    def take(self, limit: int) -> list[Event]:
        """Return the next of what was left, all of one file; none means that there is no more."""
        self.found = False
        events: list[Event] = []
        for file, event in itertools.chain(self._next, self._left):
            if events and file != self._file:
                self._next = [(file, event)]
                return events
            self._file, self._next = file, []
            tries = self._tries.get((file, event.seq), 0)
            if tries >= CRASHES and self.reader is not None:
                self.reader.fail(event.__class__, event.seq, ProcessDied(self.name, tries))
                if not events:
                    self.settle(event.seq)
                continue
            events.append(event)
            if len(events) == limit:
                return events
        if not events:
            self._end()
        return events

    def _end(self) -> None:
        """What was left is dealt with: from here on it is about the present file."""
        self._positions.update(self._ends)
        self._file, self._ends = self._path.name, {}
        self._over = True

    def settle(self, position: int) -> None:
        """Say that everything up to `position` was dealt with, in the file that `take` is at."""
        self._positions[self._file] = position

    def give_up(self, position: int, type_: str, error: str) -> None:
        """Set the event aside that could not be dealt with."""
        self._given_up.append(SetAside(self.name, self._file, position, type_, error))

    @property
    def unsaved(self) -> bool:
        """Whether there is something to save, or will be soon."""
        reader = self.reader
        ahead = reader is not None and (reader.behind or bool(self._ends))
        return ahead or bool(self._given_up) or self._now() != self._saved

    def _now(self) -> dict[str, int]:
        reader = self.reader
        own = {self._path.name: reader.settled} if reader is not None and reader.begun else {}
        return {**self._positions, **own}

    def news(self) -> tuple[list[Bookmark], list[SetAside]]:
        """Return what has changed since `saved` was told."""
        now = self._now()
        marks = [Bookmark(self.name, file, at) for file, at in now.items() if self._saved.get(file) != at]
        return marks, list(self._given_up)

    def saved(self, marks: list[Bookmark], given_up: list[SetAside]) -> None:
        """Note that this is on disk."""
        self._saved.update((mark.file, mark.position) for mark in marks)
        del self._given_up[: len(given_up)]
        if self._over and self._now() == self._saved:  # not before: whoever comes next has to know
            self.close()

    def close(self) -> None:
        """Let others see to what is left."""
        self._over = False
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()


def _known(path: Path, name: str) -> _Known | None:
    try:
        with closing(JournalFile.open(path)) as file:
            positions = [(one, position) for owner, one, position in file.bookmarks() if owner == name]
            return _Known(file.last_readable(), positions, in_hand(path, name))
    except (JournalUnreadable, sqlite3.DatabaseError) as error:
        logger.debug("the position of %s in %s cannot be read: %s", name, path, error)
        return None


def unread(paths: Iterable[Path]) -> dict[Path, list[Unread]]:
    """Return which durable subscriptions have not dealt with all of which of the files at `paths`."""
    positions: dict[str, dict[str, int]] = {}
    lasts: dict[Path, int] = {}
    for path in paths:
        with suppress(JournalUnreadable, sqlite3.DatabaseError), closing(JournalFile.open(path)) as file:
            lasts[path] = file.last_readable()
            for name, other, position in file.bookmarks():
                found = positions.setdefault(other, {})
                found[name] = max(found.get(name, 0), position)
    return {
        path: [Unread(name, at, last) for name, at in positions.get(path.name, {}).items() if at < last]
        for path, last in lasts.items()
    }


def _events(path: Path, after: int, types: tuple[type[Event], ...]) -> Iterator[Event]:
    try:
        file = JournalFile.open(path)
    except JournalUnreadable as error:
        logger.warning("what was left after position %d is lost: %s", after, error)
        return
    with closing(file):
        names = [name for name in file.kinds().values() if issubclass(find_wire_type(name) or UnknownEvent, types)]
        for record in file.records(after, names=names):
            try:
                yield decode(record.body)
            except UndecodableEvent as error:
                logger.error("event %d in %s cannot be read: %s", record.seq, path, error)
