"""The journal: a folder with a file for every bus that writes there, and what can be read from it."""

from __future__ import annotations

import heapq
import logging
import os
import secrets
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, overload

from ...schemas import Event, UndecodableEvent, UnknownEvent, decode, find_events
from ...schemas.event import find_wire_type
from .archive import Archive
from .claim import Claim
from .durable import SetAside
from .errors import JournalRefused, JournalUnreadable
from .file import Durability, JournalFile, JournalWriter
from .filesystem import network_filesystem

E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)

logger = logging.getLogger("lineside.bus")

SUFFIX = ".sqlite"


class Journal:
    """A folder of journal files: one for each bus that writes there, on any process of this machine.

    Args:
        path: The folder; made if it is not there.
        durability: What a commit survives: ``"process"``, the death of the process, or ``"power"``, a power failure.
    """

    def __init__(self, path: str | os.PathLike[str], *, durability: Durability | str = Durability.PROCESS) -> None:
        self.path = Path(path)
        self.durability = Durability(durability)

    def begin(self) -> Archive:
        """Make a new file for a bus to write to.

        Raises:
            JournalRefused: it cannot be made there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            kind = network_filesystem(self.path)
            if kind is not None:
                raise JournalRefused(
                    self.path,
                    f"it is on a network filesystem ({kind}), where SQLite may damage it; name a folder on a local one",
                )
            path = self.path / self._name()
            claim = Claim(path)  # before the file: whoever finds one without thinks that its writer is dead
            return Archive(JournalWriter.create(path, self.durability, self._about()), claim=claim)
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, JournalRefused):
                raise
            raise JournalRefused(self.path, str(error)) from None

    def _name(self) -> str:
        return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"

    def _about(self) -> dict[str, str]:
        return {
            "host": socket.gethostname(),
            "pid": str(os.getpid()),
            "time": datetime.now(UTC).isoformat(),
            "durability": self.durability.value,
        }

    def set_aside(self) -> list[SetAside]:
        """Return the events that durable subscriptions failed on until they were given up."""
        found: list[SetAside] = []
        for path in self._existing():
            with suppress(JournalUnreadable), closing(JournalFile.open(path)) as file:
                found += [SetAside(*row) for row in file.set_aside()]
        return found

    # -- reading -----------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        """Return the journal files in the folder, the oldest first."""
        return sorted(self.path.glob(f"*{SUFFIX}"))

    @overload
    def events(self, t1: type[E1], /, *, run: str | None = None, since: timedelta | None = None) -> Iterator[E1]: ...
    @overload
    def events(
        self, t1: type[E1], t2: type[E2], /, *, run: str | None = None, since: timedelta | None = None
    ) -> Iterator[E1 | E2]: ...
    @overload
    def events(
        self, *types: type[Event] | str, run: str | None = None, since: timedelta | None = None
    ) -> Iterator[Event]: ...
    def events(
        self, *types: type[Event] | str, run: str | None = None, since: timedelta | None = None
    ) -> Iterator[Any]:
        """Yield what is on disk: events of `types` (none: all), of one run or of all, of the time `since` or ever.

        Those of one bus come in their order; those of several buses, such as the ranks of one run, by their time.
        What cannot be read any more is left out, with a warning; see `check`.

        Raises:
            UnknownEventName: no event has that name.
            JournalRefused: there is no such folder.
        """
        wanted = find_events(types)
        begin = None if since is None else datetime.now(UTC) - since
        readings = [self._events(path, wanted, run, begin) for path in self._existing()]
        return heapq.merge(*readings, key=lambda event: event.time)

    def _events(
        self, path: Path, wanted: tuple[type[Event], ...], run: str | None, begin: datetime | None
    ) -> Iterator[Event]:
        try:
            opened = JournalFile.open(path)
        except JournalUnreadable as error:
            logger.warning("%s; it is left out", error)
            return
        with closing(opened) as file:
            names = [name for name in file.kinds().values() if issubclass(find_wire_type(name) or UnknownEvent, wanted)]
            after = 0 if begin is None else file.position_at(int(begin.timestamp() * 1000))
            for record in file.records(after, names=names, runs=None if run is None else (run,)):
                try:
                    event = decode(record.body)
                except UndecodableEvent as error:
                    logger.warning("event %d in %s cannot be read: %s", record.seq, path, error)
                    continue
                if begin is None or event.time >= begin:
                    yield event

    def _existing(self) -> list[Path]:
        if not self.path.is_dir():
            raise JournalRefused(self.path, "there is no such folder; name the one that Bus('...') was given")
        return self.files()
