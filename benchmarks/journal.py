"""Events a second that a journal takes, and how long a flush takes.

    python benchmarks/journal.py [--quick] [--json FILE] [--folder DIR]

The first table is the writer alone: events that are validated and numbered already are encoded and committed, 512 at a
time, as the bus does it; beside it the same events as lines of JSON in a file, and as rows of a SQLite table, one each.
The second is the whole way: published by one thread and committed, against the same without a journal; and the flush
after each event.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

from harness import Report, Spread, Table, arguments, interleave, paired
from readers import BATCH

from lineside import Bus
from lineside.bus.journal import Durability, Journal
from lineside.bus.journal.file import Lines, Origin
from lineside.bus.journal.writer import JournalWriter
from lineside.schemas import Event, TrainBatchEnd, encode

COMMIT = 512
_names = count()


def fresh(folder: Path) -> Path:
    return folder / f"{next(_names)}.sqlite"


def journal(events: list[TrainBatchEnd], folder: Path, durability: Durability) -> float:
    writer = JournalWriter.create(fresh(folder), durability, {})
    begin = time.perf_counter()
    for start in range(0, len(events), COMMIT):
        batch = events[start : start + COMMIT]
        origin = Origin("benchmark", 1, 0)
        names, origins = [event.type for event in batch], [origin for _ in batch]
        writer.commit(Lines([event.seq for event in batch], names, origins, [encode(event) for event in batch]), 0)
    took = time.perf_counter() - begin
    writer.close()
    return len(events) / took


def json_lines(events: list[TrainBatchEnd], folder: Path) -> float:
    begin = time.perf_counter()
    with fresh(folder).open("wb") as file:
        for start in range(0, len(events), COMMIT):
            file.write(b"".join([encode(event) + b"\n" for event in events[start : start + COMMIT]]))
            file.flush()
    return len(events) / (time.perf_counter() - begin)


def rows(events: list[TrainBatchEnd], folder: Path) -> float:
    db = sqlite3.connect(fresh(folder), isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, type TEXT, run TEXT, body BLOB)")
    begin = time.perf_counter()
    for start in range(0, len(events), COMMIT):
        batch = [(event.seq, event.type, event.run, encode(event)) for event in events[start : start + COMMIT]]
        db.execute("BEGIN")
        db.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", batch)
        db.execute("COMMIT")
    took = time.perf_counter() - begin
    db.close()
    return len(events) / took


def published(number: int, keep: Path | None) -> float:
    """Return events a second from the first publish until all are handled, or on disk."""
    with Bus(keep) as bus:
        bus.subscribe(_nothing, TrainBatchEnd, overflow="drop")
        publish = partial(bus.source("benchmark").publish, TrainBatchEnd, **BATCH)
        begin = time.perf_counter()
        for _ in range(number):
            publish()
        bus.drain()
        return number / (time.perf_counter() - begin)


def _nothing(_: Event) -> None: ...


def flushes(number: int, folder: Path, durability: Durability) -> float:
    """Return microseconds from a publish to the end of the flush after it."""
    with Bus(Journal(folder, durability=durability)) as bus:
        publish = partial(bus.source("benchmark").publish, TrainBatchEnd, **BATCH)
        publish()
        bus.flush()
        begin = time.perf_counter()
        for _ in range(number):
            publish()
            bus.flush()
        return (time.perf_counter() - begin) / number * 1e6


def show(report: Report, title: str, unit: str, contenders: dict[str, Callable[[], float]], rounds: int) -> None:
    found = interleave(contenders, rounds)
    base = next(iter(found.values()))
    table = Table(title, {"contender": "{}", unit: "{:,.0f}", "ratio to the first": "{:.2f}x"})
    for name, values in found.items():
        table.add(name, Spread.of(values), paired(values, base))
    report.show(table)


def main() -> None:
    options = arguments("the journal", folder={"type": Path, "default": None, "help": "where to write; on a disk"})
    report = Report("journal", options)
    rounds = options.rounds or (1 if options.quick else 5)
    number, flushed = (2_000, 5) if options.quick else (100_000, 200)
    events = [TrainBatchEnd(run="benchmark", seq=seq, **BATCH) for seq in range(1, number + 1)]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        writers: dict[str, Callable[[], float]] = {
            "journal": partial(journal, events, folder, Durability.PROCESS),
            'journal, durability="power"': partial(journal, events, folder, Durability.POWER),
            "lines of JSON in a file": partial(json_lines, events, folder),
            "a row each in SQLite": partial(rows, events, folder),
        }
        show(report, f"{number:,} events, encoded and written", "events/s", writers, rounds)
        ways: dict[str, Callable[[], float]] = {
            "without a journal": partial(published, number, None),
            "with a journal": partial(published, number, folder / "bus"),
        }
        show(report, f"{number:,} events, published, handled and on disk", "events/s", ways, rounds)
        waits: dict[str, Callable[[], float]] = {
            "process": partial(flushes, flushed, folder / "process", Durability.PROCESS),
            "power": partial(flushes, flushed, folder / "power", Durability.POWER),
        }
        show(report, "publish and flush", "µs", waits, rounds)
    report.finish()


if __name__ == "__main__":
    main()
