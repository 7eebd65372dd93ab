"""Durable subscriptions: their positions are kept with the journal, so that they go on where they were after a crash.

A bus makes a new file each time it begins, and writes to no other. So the position that a subscription has in the file
of an earlier bus is written into the file of the bus that reads it now: of all that are found, the furthest counts.
"""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from ...schemas import Event, UndecodableEvent, UnknownEvent, decode
from ...schemas.event import find_wire_type
from .claim import Claim, is_claimed
from .errors import JournalUnreadable
from .file import SUFFIX, JournalFile

logger = logging.getLogger("lineside.bus")


class Bookmark(NamedTuple):
    """How far a durable subscription is in a file."""

    name: str
    file: str
    position: int


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
    handled: int
    types: tuple[type[Event], ...]

    @property
    def begun(self) -> bool:
        """Whether it has got its position."""
        ...

    @property
    def behind(self) -> bool:
        """Whether something it has not dealt with lies ahead."""
        ...


class Durable:
    """The position of one durable subscription, and what an earlier bus has left for it."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.reader: Reader | None = None
        self._path = path
        self._left: Iterator[tuple[str, Event]] = iter(())
        self._next: list[tuple[str, Event]] = []
        self._claim: Claim | None = None
        self._file = path.name
        self._positions: dict[str, int] = {}
        self._given_up: list[SetAside] = []
        self._saved: dict[str, int] = {}

    def adopt(self, types: tuple[type[Event], ...]) -> bool:
        """Look for what earlier buses have left of events of `types`; return whether there is any."""
        folder = self._path.parent
        positions: dict[str, int] = {}
        files: dict[str, Path] = {}
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if path != self._path:
                files[path.name] = path
                for file, position in _positions(path, self.name):
                    positions[file] = max(positions.get(file, 0), position)
        left = {file: position for file, position in positions.items() if file in files and not is_claimed(files[file])}
        if not left:
            return False
        self._claim = Claim.attempt(folder / f"durable-{self.name}{SUFFIX}")
        if self._claim is None:
            return False  # a subscription of that name in another process sees to it
        self._left = ((file, event) for file in sorted(left) for event in _events(files[file], left[file], types))
        return True

    def take(self, limit: int) -> list[Event]:
        """Return the next of what was left, all of one file; none means that there is no more."""
        events: list[Event] = []
        for file, event in itertools.chain(self._next, self._left):
            if events and file != self._file:
                self._next = [(file, event)]
                return events
            self._file, self._next = file, []
            events.append(event)
            if len(events) == limit:
                return events
        if not events:
            self._end()
        return events

    def _end(self) -> None:
        """What was left is dealt with: from here on it is about the present file."""
        self._file = self._path.name
        if self._claim is not None:
            self._claim.release()
            self._claim = None

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
        ahead = reader is not None and (reader.behind or self._claim is not None)
        return ahead or bool(self._given_up) or self._now() != self._saved

    def _now(self) -> dict[str, int]:
        reader = self.reader
        own = {self._path.name: reader.handled} if reader is not None and reader.begun else {}
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


def _positions(path: Path, name: str) -> list[tuple[str, int]]:
    try:
        file = JournalFile.open(path)
    except JournalUnreadable:
        return []
    try:
        return file.bookmarks(name)
    except sqlite3.DatabaseError as error:
        logger.warning("the position of %s in %s cannot be read: %s", name, path, error)
        return []
    finally:
        file.close()


def _events(path: Path, after: int, types: tuple[type[Event], ...]) -> Iterator[Event]:
    file = JournalFile.open(path)
    try:
        names = [name for name in file.kinds().values() if issubclass(find_wire_type(name) or UnknownEvent, types)]
        for record in file.records(after, names=names):
            try:
                yield decode(record.body)
            except UndecodableEvent as error:
                logger.error("event %d in %s cannot be read: %s", record.seq, path, error)
    finally:
        file.close()
