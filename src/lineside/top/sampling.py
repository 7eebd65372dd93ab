"""Reading a journal file no further than a screen can show: what is new, and of much that is new, samples."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from pydantic_core import from_json

from lineside.bus.journal.chunks import Record
from lineside.bus.journal.file import UNKNOWN, JournalFile, Origin

WHOLE = 4096
"""Positions up to which everything is read."""
LAST = 512
"""Positions at the end of more than that, of which everything is read."""
SAMPLES = 4
"""Samples at each place of the rest."""

Fields = Mapping[str, Any]
"""What is in the JSON of an event."""


class Reader:
    """Reads the events of one run and of some types in one file, and each time only on.

    Args:
        path: The file.
        runs: The run; with ``""``, what belongs to no run too.
        names: The types, by their names on the wire; None: all.
        places: Places at which samples are taken where much is new.
    """

    def __init__(self, path: Path, runs: Collection[str], names: Collection[str] | None, places: int) -> None:
        self._path = path
        self._runs = runs
        self._names = names
        self._places = places
        self._after = 0

    def read(self, upto: int | None = None) -> list[tuple[Origin, Record]]:
        """Return what came since the last call, or samples of it and all of its end.

        Args:
            upto: The last position to read; None: that of the file, in which other runs may have gone on for long.

        Raises:
            JournalUnreadable: it is no journal file any more.
            sqlite3.Error: the disk refused.
        """
        with closing(JournalFile.open(self._path)) as file:
            upto = max(file.last_readable() if upto is None else upto, self._after)
            found = [(file.origin(record), record) for record in self._records(file, upto)]
        self._after = upto
        return found

    def _records(self, file: JournalFile, upto: int) -> Iterator[Record]:
        after = self._after
        if upto - after > WHOLE and upto != UNKNOWN:  # else nobody knows where to look
            end = upto - LAST
            for place in range(after, end, max(1, (upto - after) // self._places)):
                if place < after:
                    continue  # a large chunk reached further
                records, after = self._some(file, place, end)
                yield from records[:: max(1, len(records) // SAMPLES)]
            after = end
        while after < upto:
            records, after = self._some(file, after, upto)
            yield from records

    def _some(self, file: JournalFile, after: int, upto: int) -> tuple[list[Record], int]:
        return file.read(after, upto, names=self._names, runs=self._runs, careful=True)


def fields(record: Record) -> Fields:
    """Return what the event of `record` says."""
    return cast("Fields", from_json(record.body, cache_strings="keys"))
