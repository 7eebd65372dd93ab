"""Events a second that are read back from a journal, and how long its list of runs takes.

    python benchmarks/replay.py [--quick] [--json FILE] [--folder DIR] [--runs N] [--each N]

The first table reads one run: as JSON, with `Tail`, and as events, with `Journal.events`; beside each the same events
from a file of lines of JSON, read and decoded. The second lists many runs, on first sight and again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from harness import Report, Spread, Table, arguments, interleave, paired
from readers import BATCH

from lineside import Bus
from lineside.bus.journal import Journal, Tail
from lineside.schemas import Event, RunEnd, RunStart, TrainBatchEnd, TrainEpochStart, ValEnd, decode

EPOCHS = 10
EPOCH: dict[str, Any] = {"epochs": EPOCHS, "batches": None, "lr": {"all": 0.1}}
VALIDATION: dict[str, Any] = {"batches": 1, "samples": 1, "losses": {}, "fitness": 0.5, "duration": 1.0, "speed": {}}


def written(folder: Path, number: int, run: str) -> None:
    """Keep a run of `number` batches."""
    with Bus(folder) as bus:
        source = bus.source(run)
        source.publish(RunStart, kind="train", model="Net", device="cpu")
        for epoch in range(EPOCHS):
            source.publish(TrainEpochStart, epoch=epoch, **EPOCH)
            for _ in range(number // EPOCHS):
                source.publish(TrainBatchEnd, **BATCH)
            source.publish(ValEnd, epoch=epoch, metrics={"accuracy": 0.5}, **VALIDATION)
        source.publish(RunEnd, kind="train", outcome="completed", duration=1.0)


def tail(folder: Path) -> Iterator[bytes]:
    reading = Tail(folder, run="run")
    while told := reading.read():
        for one in told:
            yield one.body
    reading.close()


def lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        yield from opened


def events(folder: Path) -> Iterator[Event]:
    return Journal(folder).events(run="run")


def decoded(file: Path) -> Iterator[Event]:
    return map(decode, lines(file))


def rate(read: Callable[[], Iterator[object]], number: int) -> float:
    begin = time.perf_counter()
    found = sum(1 for _ in read())
    took = time.perf_counter() - begin
    assert found == number, f"{found} events were read of {number}"
    return number / took


def reading(folder: Path, number: int, rounds: int) -> Table:
    written(folder / "run", number, "run")
    file = folder / "run.jsonl"
    with file.open("wb") as opened:
        count, _ = Journal(folder / "run").export(opened)
    contenders = {
        "JSON: lines of a file": partial(lines, file),
        "JSON: Tail": partial(tail, folder / "run"),
        "events: lines of a file": partial(decoded, file),
        "events: Journal.events": partial(events, folder / "run"),
    }
    found = interleave({name: partial(rate, read, count) for name, read in contenders.items()}, rounds)
    table = Table(
        f"{count:,} events, read back", {"contender": "{}", "events/s": "{:,.0f}", "ratio to the lines": "{:.2f}x"}
    )
    for name, values in found.items():
        table.add(name, Spread.of(values), paired(values, found[f"{name.partition(':')[0]}: lines of a file"]))
    return table


def listing(folder: Path, runs: int, each: int, rounds: int) -> Table:
    for index in range(runs):  # each in a file of its own
        written(folder, each, f"run-{index}")
    journal = Journal(folder)

    def seconds(journal: Journal) -> float:
        begin = time.perf_counter()
        found = journal.runs()
        took = time.perf_counter() - begin
        assert len(found) == runs, f"{len(found)} runs were found of {runs}"
        return took * 1000

    journal.runs()
    contenders = {"on first sight": lambda: seconds(Journal(folder)), "again": lambda: seconds(journal)}
    table = Table(f"the list of {runs:,} runs of {each:,} batches each", {"contender": "{}", "ms": "{:,.1f}"})
    for name, values in interleave(contenders, rounds).items():
        table.add(name, Spread.of(values))
    return table


def main() -> None:
    options = arguments(
        "reading a journal back",
        folder={"type": Path, "default": None, "help": "where to write; on a disk"},
        runs={"type": int, "default": 100},
        each={"type": int, "default": 10_000},
    )
    report = Report("replay", options)
    rounds = options.rounds or (1 if options.quick else 5)
    number, runs, each = (2_000, 5, 100) if options.quick else (100_000, options.runs, options.each)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        report.show(reading(Path(name), number, rounds))
        report.show(listing(Path(name) / "runs", runs, each, rounds))
    report.finish()


if __name__ == "__main__":
    main()
