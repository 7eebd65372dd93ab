"""The archive: the part of the log that is on disk, for cursors that are further back than memory."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import cast

from pydantic_core import from_json

from ...schemas import Event, UndecodableEvent, UnknownEvent, decode
from ...schemas.event import wire_name
from ..log import Archived, Backlog
from .chunks import Record
from .claim import Claim
from .durable import Durable
from .file import JournalFile, Lines
from .writer import JournalWriter

logger = logging.getLogger("lineside.bus")

STALLED_SECONDS = 5.0
"""Time of one commit after which the log waits for the disk no longer."""


class Archive:
    """A journal file with its writer, and what reads behind memory.

    The recorder writes to it; any number of cursors read. A temporary one has no name and no other readers.
    """

    def __init__(self, writer: JournalWriter, begin: int = 0, claim: Claim | None = None) -> None:
        self.writer = writer
        self._claim = claim
        self.temporary = not writer.path.name
        self.begin = begin
        """Position after which it begins."""
        self.position = begin
        """Position up to which it has what there was."""
        self.error: str | None = None
        """What the disk said, while it refuses what is published."""
        self.closed = False
        self.durables: list[Durable] = []
        """Positions of subscriptions that are kept with it."""
        self._busy_since: float | None = None
        self._reader: JournalFile | None = writer if self.temporary else None
        self._lock = threading.Lock()

    @property
    def path(self) -> Path | None:
        """The file; None for a temporary one."""
        return None if self.temporary else self.writer.path

    @property
    def healthy(self) -> bool:
        """Whether what is missing will come soon."""
        busy = self._busy_since
        stalled = busy is not None and time.monotonic() - busy > STALLED_SECONDS
        return self.error is None and not stalled and not self.closed

    def reading(self) -> Backlog:
        """Return a way through it for one cursor."""
        return ArchiveBacklog(self)

    def read(self, after: int, upto: int, names: frozenset[str] | None) -> tuple[list[Record], int]:
        """See `JournalFile.read`."""
        with self._opened() as file:
            return file.read(after, upto, names=names)

    def position_at(self, when: datetime) -> int:
        """Return the position of the last event before `when`."""
        with self._opened() as file:
            position = file.position_at(int(when.timestamp() * 1000))
            records, _ = file.read(position, file.last)
        for record in records:
            if datetime.fromisoformat(cast(str, from_json(record.body)["time"])) >= when:
                break
            position = record.seq
        return position

    def __str__(self) -> str:
        return "in a temporary file" if self.temporary else str(self.writer.path)

    @contextmanager
    def _opened(self) -> Generator[JournalFile]:
        """Give the file to read in, which is not closed before the end of the block."""
        with self._lock:
            if self._reader is None:
                self._reader = JournalFile.open(self.writer.path)
            try:
                yield self._reader
            finally:
                self._close_reader_once_closed()

    def _close_reader_once_closed(self) -> None:
        """Leave nothing open behind a closed bus: who still reads opens the file for each read."""
        if self.closed and not self.temporary and self._reader is not None:
            self._reader.close()
            self._reader = None

    def commit(self, lines: Lines, time_: int) -> None:
        """See `JournalWriter.commit`."""
        self._busy_since = time.monotonic()
        try:
            self.writer.commit(lines, time_)
        except sqlite3.Error as error:
            self.error = str(error)
            raise
        else:
            self.error = None
        finally:
            self._busy_since = None

    def close(self) -> None:
        """Nothing more will be written. A temporary file stays as long as somebody may read it."""
        self.closed = True
        if self.temporary:
            return
        with self._lock:
            self._close_reader_once_closed()
        self.writer.close()
        if self._claim is not None:
            self._claim.release()


class ArchiveBacklog:
    """The way of one cursor through an archive: it keeps what is left of the chunk that the cursor is in."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._records: deque[Record] = deque()
        self._after = self._reached = 0
        self._wanted: frozenset[type] = frozenset()
        self._names: frozenset[str] | None = frozenset()

    def take(self, after: int, upto: int, limit: int, wanted: frozenset[type]) -> Archived:
        """Return up to `limit` events of the classes `wanted` between `after` and `upto`, the last included."""
        if after != self._after or wanted != self._wanted:
            self._records.clear()
            self._wanted, self._names = wanted, _names(wanted)
        if not self._records:
            records, self._reached = self._archive.read(after, upto, self._names)
            self._records.extend(records)
        taken = [self._records.popleft() for _ in range(min(limit, len(self._records)))]
        self._after = taken[-1].seq if self._records else self._reached
        items = [(record.seq, self._decode(record)) for record in taken]
        if self._names is None:
            items = [(seq, item) for seq, item in items if item is None or item.__class__ in wanted]
        return Archived(items, self._after)

    def _decode(self, record: Record) -> Event | None:
        try:
            event = decode(record.body)
        except UndecodableEvent as error:
            logger.error("event %d cannot be read back from disk: %s", record.seq, error)
            return None
        if self._names is not None and event.__class__ not in self._wanted:
            logger.error("event %d cannot be read back from disk: %s was defined anew", record.seq, event.type)
            return None
        return event


def _names(wanted: frozenset[type]) -> frozenset[str] | None:
    """Return the names that the events of `wanted` have on disk; None where they may have any."""
    return None if UnknownEvent in wanted else frozenset(map(wire_name, wanted))
