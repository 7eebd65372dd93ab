"""What the tests of the journal share."""

from __future__ import annotations

from pathlib import Path

from lineside.bus import Bus
from lineside.bus.journal import Journal
from lineside.schemas import Event


class Step(Event, name="tests.journal.Step", urgent=False):
    n: int


class Done(Event, name="tests.journal.Done"):
    n: int


def written(folder: Path, count: int = 1000, run: str = "run") -> Path:
    """Return the file of a bus that has published `count` steps and closed."""
    with Bus(folder) as bus:
        source = bus.source(run)
        for n in range(1, count + 1):
            source.publish(Step, n=n)
        path = bus.journal
    assert path is not None
    return path


def steps(folder: Path, run: str | None = None) -> list[int]:
    return [event.n for event in Journal(folder).events(Step, run=run)]
