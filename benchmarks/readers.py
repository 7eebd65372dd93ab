"""Payloads, counters and the events of the benchmarks' own, importable in a process lane too."""

from __future__ import annotations

import struct
from pathlib import Path
from time import perf_counter_ns
from typing import Any, BinaryIO

from lineside.schemas import Event, TrainBatchEnd

BATCH: dict[str, Any] = {
    "epoch": 1,
    "batch": 7,
    "batches": 100,
    "batch_size": 64,
    "step": 107,
    "loss": 0.25,
    "losses": {"loss": 0.25},
    "lr": {"group_0": 0.001},
    "seconds": 0.01,
}
"""The fields of one `TrainBatchEnd`, as a trainer publishes it."""


def batch_end() -> TrainBatchEnd:
    return TrainBatchEnd(**BATCH)


class Small(Event, urgent=False):
    """An event of two fields, as a user may define one, besides the envelope that all events have."""

    step: int
    loss: float


SMALL: dict[str, Any] = {"step": 107, "loss": 0.25}


class Counter:
    """A subscriber that does nothing but count, as an async callback or a plain one."""

    def __init__(self) -> None:
        self.seen = 0

    async def receive(self, event: Event) -> None:
        self.seen += 1

    def count(self, event: Event) -> None:
        self.seen += 1


# ------------------------------------------------------------------------------------------------ latency.py


class Ping(Event):
    """Wakes its readers at once."""

    sent: int


class BatchPing(Event, urgent=False):
    """Travels with others of its kind."""

    sent: int


class Stopwatch:
    """Notes how long each event took to reach the callback, in ns."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.seqs: list[int] = []

    async def receive(self, event: Ping | BatchPing) -> None:
        self.handle(event)

    def handle(self, event: Ping | BatchPing) -> None:
        self.times.append(perf_counter_ns() - event.sent)
        self.seqs.append(event.seq)


class RemoteStopwatch:
    """The same in another process, whose clock is the same on Linux: it writes what it notes to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def __call__(self, event: Ping | BatchPing) -> None:
        took = perf_counter_ns() - event.sent
        if self._file is None:
            self._file = self.path.open("wb", buffering=0)
        self._file.write(struct.pack("<q", took))

    def times(self) -> list[int]:
        """Return what was noted so far; called where the file was named, not where it was written."""
        data = self.path.read_bytes() if self.path.exists() else b""
        return [took for (took,) in struct.iter_unpack("<q", data)]


# -------------------------------------------------------------------------------------------------- order.py


class Tick(Event, urgent=False):
    """The `number`-th event of one of several publishers."""

    publisher: int
    number: int


class OrderCheck:
    """Counts events that come out of order: by position in the log, and by number within each publisher."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.seen = 0
        self.inversions = 0
        self._seq = 0
        self._numbers: dict[int, int] = {}

    async def receive(self, event: Tick) -> None:
        self.handle(event)

    def handle(self, event: Tick) -> None:
        self.seen += 1
        if event.seq <= self._seq or event.number <= self._numbers.get(event.publisher, -1):
            self.inversions += 1
            self._report(event)
        self._seq = event.seq
        self._numbers[event.publisher] = event.number

    def _report(self, event: Tick) -> None:
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(f"{event.seq} after {self._seq}\n")
