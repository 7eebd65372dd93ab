"""The recorder: the reader that writes to disk what the bus publishes. Its callback is a commit."""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import cast

from ...schemas import Event, JournalDegraded, JournalRecovered, UnencodableEvent, encode
from ..entry import Entry
from ..log import NOWHERE
from ..subscription import Subscription
from .archive import Archive
from .durable import LOOK_SECONDS
from .file import Lines, Origin

logger = logging.getLogger("lineside.bus")

COMMIT_SECONDS = 0.02
"""Longest time that events wait for one another before they are committed, if there are not enough of them."""
UNENCODABLE = b"null"
"""Stands for an event that JSON cannot hold, so that who reads it back learns that there was one."""
BOOKMARK_SECONDS = 0.1
"""Longest time that a durable subscription is further than its position says."""
RETRY_SECONDS = 0.5
"""Pause before the next try after a disk has refused."""


class Recorder:
    """The worker of the journal's subscription."""

    def __init__(self, subscription: Subscription, archive: Archive) -> None:
        self._subscription = subscription
        self._archive = archive
        self._lines: Lines | None = None
        self._time = 0
        self._upto = NOWHERE
        self._last_origin = Origin("", 1, 0)
        self._degraded_since: float | None = None
        self._missed = 0

    @property
    def patience(self) -> float | None:
        """See `Worker.patience`."""
        if self._lines is not None:
            return RETRY_SECONDS
        durables = self._archive.durables
        if any(durable.unsaved for durable in durables):
            return BOOKMARK_SECONDS
        return LOOK_SECONDS if durables else None

    def serve(self) -> bool:
        """Commit the next batch; return whether there was any and it went well."""
        begin = time.perf_counter()
        try:
            return self._serve()
        finally:
            self._subscription.seconds += time.perf_counter() - begin

    def _serve(self) -> bool:
        if self._lines is None:
            items = self._subscription.take_items()
            if not self._subscription.open:  # what is published since may not be built any more
                return False
            self._upto = self._subscription.cursor.position
            self._lines = self._encode(items) if items else None
        for durable in list(self._archive.durables):
            durable.look()
        self._save_bookmarks()  # first: an event that is on disk has to be found again by who did not get it
        lines = self._lines
        if lines is not None:
            if not self._commit(lines):
                return False
            self._subscription.delivered += len(lines.seqs)
            self._lines = None
        self._settle()
        return lines is not None

    def _encode(self, items: list[tuple[int, Event | Entry]]) -> Lines:
        # The sequencer builds what a reader in this process wants.
        events = cast("list[Event]", [event for _, event in items])
        self._time = int(events[0].time.timestamp() * 1000)
        return Lines(
            [seq for seq, _ in items],
            [event.type for event in events],
            [self._origin(event.run, event.attempt, event.rank) for event in events],
            [self._body(event) for event in events],
        )

    def _body(self, event: Event) -> bytes:
        try:
            return encode(event)
        except UnencodableEvent as error:
            self._subscription.fail(event.__class__, event.seq, error)
            return UNENCODABLE

    def _origin(self, run: str, attempt: int, rank: int) -> Origin:
        if (run, attempt, rank) != self._last_origin:
            self._last_origin = Origin(run, attempt, rank)
        return self._last_origin

    def _save_bookmarks(self) -> None:
        for durable in list(self._archive.durables):
            marks, given_up = durable.news()
            if marks or given_up:
                try:
                    self._archive.writer.save(marks, given_up)
                except sqlite3.Error as error:
                    logger.warning("the position of %s could not be saved, and is tried again: %s", durable.name, error)
                    return
                durable.saved(marks, given_up)

    def _commit(self, lines: Lines) -> bool:
        try:
            self._archive.commit(lines, self._time)
        except sqlite3.Error as error:
            if self._degraded_since is None:
                self._degraded_since, self._missed = time.monotonic(), self._subscription.missed
                logger.warning("the journal %s is degraded, the run goes on: %s", self._archive, error)
                self._subscription.announce(JournalDegraded, path=self._archive.path, error=str(error))
            self._subscription.give_up_waiting()
            return False
        if self._degraded_since is not None:
            duration, missed = time.monotonic() - self._degraded_since, self._subscription.missed - self._missed
            self._degraded_since = None
            logger.warning("the journal %s goes on after %.1f s, without %d events", self._archive, duration, missed)
            self._subscription.announce(JournalRecovered, path=self._archive.path, duration=duration, missed=missed)
        return True

    def _settle(self) -> None:
        if self._upto != NOWHERE:
            self._archive.position = self._upto
            self._subscription.settle(self._upto)

    def close(self) -> None:
        """Close the file."""
        self._save_bookmarks()
        for durable in list(self._archive.durables):
            durable.close()
        self._archive.close()

    def abandon(self) -> None:
        """Nothing to do: the thread is a daemon, and what it commits is complete."""
