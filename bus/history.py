"""History: what a bus remembers, read at once. It is no subscription: nothing waits for it, and it waits for nobody."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import NamedTuple

from pydantic import ValidationError

from ..schemas import Event, UndecodableEvent, UnknownEvent, decode
from ..schemas.event import find_wire_type
from .entry import Entry, WallClock, kind, sign
from .errors import BusForked
from .inbox import ClosedInbox, ForkedInbox, Inbox
from .journal.archive import Archive
from .journal.errors import JournalUnreadable
from .journal.file import JournalFile
from .log import Chunk, Log
from .policy import Mark

NUMBERED_SECONDS = 1.0
"""Longest wait until what was published has its number: some milliseconds, unless a publisher is held up itself."""


class Remembered(NamedTuple):
    """What a bus remembers of what was asked for."""

    events: Iterator[Event]
    missing: int
    """Positions from the beginning on of which nothing can be told any more, whatever there was."""


def recall(log: Log, inbox: Inbox, types: tuple[type[Event], ...], run: str, since: Mark | None) -> Remembered:
    """Return the events of `types` and `run` since a mark, in memory and in the journal, published before the call.

    Those that nobody had asked for until now are built here, in the thread that iterates over them.

    Raises:
        BusForked: the bus belongs to the parent process.
    """
    _settle(inbox)
    begin = 0 if since is None else since.position
    chunks = log.chunks  # which stay as they are, whatever leaves memory meanwhile
    first = chunks[0].first
    archive = log.archive if isinstance(log.archive, Archive) and not log.archive.temporary else None
    known = begin if archive is None else max(archive.position, begin)
    return Remembered(_told(types, run, begin, log.head, chunks, archive), max(first - 1 - known, 0))


def _settle(inbox: Inbox) -> None:
    """Wait until everything that was published before has its number; not for ever, and not for oneself."""
    if isinstance(inbox, ForkedInbox):
        raise BusForked
    if isinstance(inbox, ClosedInbox) or inbox.owner == threading.get_ident():
        return
    numbered: Future[None] = Future()
    inbox.command(lambda: numbered.set_result(None))
    concurrent.futures.wait([numbered], NUMBERED_SECONDS)


def _told(
    types: tuple[type[Event], ...],
    run: str,
    begin: int,
    head: int,
    chunks: tuple[Chunk, ...],
    archive: Archive | None,
) -> Iterator[Event]:
    if archive is not None and begin < chunks[0].first - 1:
        yield from _archived(archive, types, run, begin, chunks[0].first)
    clock = WallClock()
    for chunk in chunks:
        for position, item in enumerate(list(chunk.items), chunk.first):
            if not begin < position <= head or item is None or not issubclass(kind(item), types):
                continue
            if isinstance(item, tuple):
                item = _built(item, position, clock) if item[2].run in ("", run) else None
            if item is not None and item.run == run:
                yield item


def _built(entry: Entry, position: int, clock: WallClock) -> Event | None:
    """Return the event of `entry`; None if its fields do not fit."""
    what, fields, source, when = entry
    try:
        # A copy, because the sequencer may be building it, too. Given a time, the model does not look at the clock.
        event = what.model_validate({**fields, "time": clock.at(when)}) if isinstance(what, type) else what.model_copy()
    except ValidationError:
        return None
    sign(event, source, position, when, clock)
    return event


def _archived(archive: Archive, types: tuple[type[Event], ...], run: str, begin: int, end: int) -> Iterator[Event]:
    """Yield what the journal has between the positions `begin` and `end`, neither included."""
    try:
        opened = JournalFile.open(archive.writer.path)
    except JournalUnreadable:  # it was removed, or the disk refuses: what memory has is told all the same
        return
    with closing(opened) as file:
        names = [name for name in file.kinds().values() if issubclass(find_wire_type(name) or UnknownEvent, types)]
        for record in file.records(begin, names=names, runs=(run,)):
            if record.seq >= end:
                return
            try:
                yield decode(record.body)
            except UndecodableEvent:
                continue
