"""The journal: a folder with a file for every bus that writes there, and what can be read from it."""

from __future__ import annotations

import heapq
import logging
import os
import secrets
import socket
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, overload

from ...schemas import Event, FitEpochEnd, UndecodableEvent, UnknownEvent, decode, find_events
from ...schemas.event import find_wire_type
from .archive import Archive
from .chunks import Record
from .claim import Claim, is_claimed
from .durable import SetAside, unread
from .errors import JournalError, JournalRefused, JournalUnreadable, PruneFailed, UnknownRun
from .file import SUFFIX, Check, Durability, JournalFile, opens
from .filesystem import network_filesystem, refuse_unreadable
from .pruning import UNREAD, Retention, choose, remove
from .runs import Look, RunSummary, Trace, look, summarize
from .tail import Gap, Tail
from .writer import JournalWriter

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from ..notebook.plot import RunFigure

E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)

logger = logging.getLogger("lineside.bus")


class Journal:
    """A folder of journal files: one for each bus that writes there, on any process of this machine.

    Args:
        path: The folder; made if it is not there.
        durability: What a commit survives: ``"process"``, the death of the process, or ``"power"``, a power failure.
        max_age: Each time a bus begins, remove what is older; None: however old.
        max_bytes: Remove the oldest where the files have more bytes; None: however many.
        max_runs: Remove the oldest where there are more runs; None: however many.
        max_unread: Keep longer, up to this age, what a durable subscription has not dealt with; None: however old.

    Raises:
        InvalidRetention: a limit is below 0.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability | str = Durability.PROCESS,
        max_age: timedelta | None = None,
        max_bytes: int | None = None,
        max_runs: int | None = None,
        max_unread: timedelta | None = UNREAD,
    ) -> None:
        self.path = Path(path)
        self.durability = Durability(durability)
        self._retention = Retention.of(max_age, max_bytes, max_runs, max_unread)
        self._known: dict[Path, Look] = {}

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
            archive = self._made(self.path / self._name())
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, JournalRefused):
                raise
            raise JournalRefused(self.path, str(error)) from None
        if self._retention.limited:
            threading.Thread(target=self._prune_quietly, name="lineside-prune", daemon=True).start()
        return archive

    def _made(self, path: Path) -> Archive:
        claim = Claim(path)  # before the file: whoever finds one without thinks that its writer is dead
        try:
            return Archive(JournalWriter.create(path, self.durability, self._about()), claim=claim)
        except (OSError, sqlite3.Error):
            with suppress(PruneFailed):
                remove(path)
            claim.release()
            raise

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
        found: dict[tuple[str, str, int], SetAside] = {}  # who was killed before it went on gave it up again
        for path in self._existing():
            with suppress(JournalUnreadable), closing(JournalFile.open(path)) as file:
                found.update((row[:3], SetAside(*row)) for row in file.set_aside())
        return list(found.values())

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
            try:
                for record in self._records(file, wanted, run, begin):
                    try:
                        event = decode(record.body)
                    except UndecodableEvent as error:
                        logger.warning("event %d in %s cannot be read: %s", record.seq, path, error)
                        continue
                    if begin is None or event.time >= begin:
                        yield event
            except sqlite3.DatabaseError as error:  # the names of its types, say, without which nothing can be read
                logger.warning("%s; the rest of it is left out", JournalUnreadable(path, str(error)))

    def _records(
        self, file: JournalFile, wanted: tuple[type[Event], ...], run: str | None, begin: datetime | None
    ) -> Iterator[Record]:
        names = [name for name in file.kinds().values() if issubclass(find_wire_type(name) or UnknownEvent, wanted)]
        after = 0 if begin is None else file.position_at(int(begin.timestamp() * 1000))
        return file.records(after, names=names, runs=None if run is None else (run,))

    @overload
    def frame(
        self,
        *types: type[Event] | str,
        run: str | None = None,
        since: timedelta | None = None,
        library: Literal["polars"],
    ) -> pl.DataFrame: ...
    @overload
    def frame(
        self,
        *types: type[Event] | str,
        run: str | None = None,
        since: timedelta | None = None,
        library: Literal["pandas"] | None = None,
    ) -> pd.DataFrame: ...
    def frame(
        self,
        *types: type[Event] | str,
        run: str | None = None,
        since: timedelta | None = None,
        library: Literal["pandas", "polars"] | None = None,
    ) -> pd.DataFrame | pl.DataFrame:
        """Return what `events` yields as a data frame, a row each; without `types` the epochs (`FitEpochEnd`).

        Raises:
            FrameLibraryMissing: the library, or any of them, is not installed.
            FrameLibraryUnknown: there are no frames of that library.
            UnknownEventName: no event has that name.
            JournalRefused: there is no such folder.
        """
        from ..notebook.frame import chosen, frame

        library = chosen(library)
        found = find_events(types) if types else (FitEpochEnd,)
        return frame(self.events(*found, run=run, since=since), library, found)

    def plot(self, *runs: str, curves: Sequence[str] = ()) -> RunFigure:
        """Draw `runs` into the same axes: a matplotlib figure, which a notebook shows and ``savefig`` saves.

        Args:
            runs: Their ids. None: the newest.
            curves: What to draw, as for the ``plot`` of a run.

        Raises:
            MatplotlibMissing: matplotlib is not installed.
            NothingToPlot: no run has a curve of that name.
            UnknownRun: there is none of that id.
            JournalRefused: there is no such folder.
        """
        from ..notebook.curves import DRAWN, Story
        from ..notebook.plot import draw

        chosen = [self.run(run).run for run in runs] or [summary.run for summary in self.runs()[:1]]
        return draw([Story(run, self.events(*DRAWN, run=run)) for run in chosen], curves)

    # -- runs ----------------------------------------------------------------------------------------

    def runs(self) -> list[RunSummary]:
        """Return what the journal tells of each run, the newest first. Quick: events of batches are not read.

        Raises:
            JournalRefused: there is no such folder.
        """
        by_run: dict[str, list[Trace]] = {}
        for found in self.traces().values():
            for trace in found:
                by_run.setdefault(trace.origin.run, []).append(trace)
        summaries = [summarize(found) for found in by_run.values()]
        return sorted(summaries, key=lambda summary: summary.started or summary.updated, reverse=True)

    def run(self, run: str) -> RunSummary:
        """Return what the journal tells of one run.

        Raises:
            UnknownRun: there is none of that id; the message says which there are.
            JournalRefused: there is no such folder.
        """
        found = [trace for told in self.traces().values() for trace in told if trace.origin.run == run]
        if not found:
            raise UnknownRun(run, self.path, [summary.run for summary in self.runs()])
        return summarize(found)

    def types(self) -> set[str]:
        """Return the names of all types of events in it.

        Raises:
            JournalRefused: there is no such folder.
        """
        names: set[str] = set()
        for path in self._existing():
            with suppress(JournalUnreadable, sqlite3.DatabaseError), closing(JournalFile.open(path)) as file:
                names.update(file.kinds().values())
        return names

    def traces(self) -> dict[Path, Sequence[Trace]]:
        """Return what each journal file tells, reading only what has come since it was read last."""
        known, self._known = self._known, {}
        found: dict[Path, Sequence[Trace]] = {}
        for path in self._existing():
            seen = known.get(path)
            if seen is None or seen.alive:
                seen = self._look(path, seen)
            if seen is not None:
                self._known[path] = seen
                if seen.traces is not None:
                    found[path] = seen.traces
        return found

    def _look(self, path: Path, before: Look | None) -> Look | None:
        alive = is_claimed(path)
        try:
            return look(path, before)
        except JournalUnreadable as error:
            if alive or not path.exists():  # it is being made, or was removed
                return None
            logger.warning("%s; it is left out", error)
            return Look(alive) if opens(path) else None

    # -- care ----------------------------------------------------------------------------------------

    def check(self) -> list[Check]:
        """Read everything, and say of each file what is there and what is not.

        Raises:
            JournalRefused: there is no such folder.
        """
        checks: list[Check] = []
        for path in self._existing():
            alive = is_claimed(path)
            try:
                with closing(JournalFile.open(path)) as file:
                    checks.append(file.check())
            except (JournalUnreadable, sqlite3.DatabaseError) as error:
                if not alive:  # else it is just being made
                    checks.append(Check(path, 0, [], [], str(error)))
        return checks

    def export(self, file: BinaryIO, *, run: str | None = None) -> tuple[int, list[Gap]]:
        """Write the events of `run`, or all, to `file`, each as a line of JSON; `lineside.schemas.decode` reads them.

        Returns:
            How many there were, and the positions that nothing can be told of.

        Raises:
            JournalRefused: there is no such folder.
        """
        count, gaps = 0, list[Gap]()
        with Tail(self.path, run=run) as tail:
            while told := tail.read():
                file.writelines(one.body + b"\n" for one in told)
                count += len(told)
                gaps += tail.gaps()
            gaps += tail.gaps()
        return count, gaps

    def prune(
        self,
        max_age: timedelta | None = None,
        max_bytes: int | None = None,
        max_runs: int | None = None,
        *,
        max_unread: timedelta | None = UNREAD,
        dry_run: bool = False,
    ) -> list[Path]:
        """Remove the oldest files until the limits are met, and return them; with `dry_run` only say which.

        A file goes as a whole, and with it the other files of its runs. Files whose writer is alive stay, with all of
        their runs; so do files that are no journals. What a durable subscription has not dealt with stays for a week,
        or `max_unread`; if it goes after all, a warning names the subscription.

        Args:
            max_age: Remove what ended longer ago.
            max_bytes: Bytes that all files together may have.
            max_runs: Runs that may be kept.
            max_unread: Age up to which stays what a durable subscription has not dealt with; None: however old.
            dry_run: Remove nothing.

        Raises:
            InvalidRetention: a limit is below 0.
            JournalRefused: there is no such folder.
            PruneFailed: a file cannot be removed.
        """
        return self._prune(Retention.of(max_age, max_bytes, max_runs, max_unread), dry_run)

    def _prune(self, keep: Retention, dry_run: bool = False) -> list[Path]:
        found = self.traces()
        behind = unread(self.files())
        chosen = choose(found, behind, keep)
        if not dry_run:
            for path in chosen:
                remove(path)
                for name, position, last in behind.get(path, ()):
                    logger.warning(
                        "%s was removed with events that the durable subscription %s had not dealt with: "
                        "it was at position %d of %d",
                        *(path, name, position, last),
                    )
        return chosen

    def _prune_quietly(self) -> None:
        try:
            for path in self._prune(self._retention):
                logger.info("%s was removed: the journal keeps %s", path, self._retention)
        except JournalError as error:
            logger.warning("the journal could not be pruned: %s", error)

    def _existing(self) -> list[Path]:
        refuse_unreadable(self.path)
        return self.files()
