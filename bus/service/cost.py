"""The cost: what a bus takes for each step of the runs on it."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing

from pydantic_core import from_json

from ...schemas import TrainBatchEnd, wire_name
from ..bus import Bus
from ..journal.chunks import Record
from ..journal.file import JournalFile

BATCH = wire_name(TrainBatchEnd)


class Cost:
    """What a bus takes for each step of the runs on it. Its journal file says how many steps and events each had there.

    Args:
        bus: One that keeps a journal.
    """

    def __init__(self, bus: Bus) -> None:
        assert bus.journal is not None
        self._bus = bus
        self._path = bus.journal
        self._lock = threading.Lock()
        self._upto = 0
        self._events = Counter[int]()
        self._steps: dict[int, range] = {}

    def of_step(self, run: str) -> float | None:
        """Return the CPU seconds of the bus for each optimizer step that `run` did there; None: it did none.

        Of several runs on one bus, each costs as much as its share of the events.
        """
        with self._lock, closing(JournalFile.open(self._path)) as file:
            self._read_on(file)
            mine = [number for number, origin in file.origins().items() if origin.run == run]
            steps = sum(len(self._steps.get(number, ())) for number in mine)
            events = sum(self._events[number] for number in mine)
            return self._bus.stats().seconds * events / self._events.total() / steps if steps else None

    def _read_on(self, file: JournalFile) -> None:
        before, self._upto = self._upto, file.last
        counts = file.counts(before, self._upto)
        self._events.update(counts)
        for kind in [number for number, name in file.kinds().items() if name == BATCH]:
            for origin in counts:
                newest = file.newest(before, self._upto, origin, [kind]).get(kind)
                if newest is not None:
                    begun = self._steps.get(origin)
                    first = begun.start if begun else _first(file, before, newest)
                    self._steps[origin] = range(first, _step(newest) + 1)


def _first(file: JournalFile, after: int, newest: Record) -> int:
    """Return the first step behind a position of whoever did the `newest`."""
    while after < newest.seq:
        records, after = file.read(after, newest.seq, names=(BATCH,))
        for record in records:
            if record.origin == newest.origin:
                return _step(record)
    return _step(newest)


def _step(record: Record) -> int:
    return int(from_json(record.body)["step"])
