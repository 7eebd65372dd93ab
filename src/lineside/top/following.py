"""Following one run: how far it is, how fast, and its loss, out of what its batches say."""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import NamedTuple

from lineside.bus.journal import JournalUnreadable, Origin
from lineside.bus.journal.runs import Trace
from lineside.schemas import ExportPhase, PredictBatchEnd, TrainBatchEnd, ValBatchEnd, wire_name

from .curves import Curve
from .sampling import Fields, Reader, fields

logger = logging.getLogger("lineside.top")

TRAINED, VALIDATED, PREDICTED = wire_name(TrainBatchEnd), wire_name(ValBatchEnd), wire_name(PredictBatchEnd)
PHASE = wire_name(ExportPhase)
NAMES = frozenset({TRAINED, VALIDATED, PREDICTED, PHASE})

PLACES = 32
"""Places at which a long run is looked at first."""
PARTS = 16
"""Other values of the batches that are followed."""
POINTS = 256
"""Points of the loss that are kept."""
WINDOW = 64
"""Marks that the speed is measured between: each a batch, or more of them where they are quick."""
MARK_SECONDS = 0.05
"""Time between two marks, at least."""


class Batch(NamedTuple):
    """The newest batch."""

    name: str
    """Type of the event that told of it."""
    epoch: int
    batch: int
    """From 0."""
    batches: int | None
    elapsed: float
    """Seconds since the run began."""


class _Mark(NamedTuple):
    """When how much was done."""

    elapsed: float
    step: int
    batches: int
    samples: int


class Follower:
    """What the batches of one run say. Of several ranks, those of the first."""

    def __init__(self, run: str, places: int = PLACES, points: int = POINTS) -> None:
        self._run = run
        self._places = places
        self._readers: dict[Path, Reader] = {}
        self._events: dict[Path, int] = {}
        self._marks: deque[_Mark] = deque(maxlen=WINDOW)
        self._mark_now: _Mark | None = None
        self._attempt = 0
        self._rank = 0
        self.loss: float | None = None
        """The newest loss; may be nan."""
        self.says_loss = False
        """Whether that is one: nan alone is also what a loop of the user's own says that logs none."""
        self.curve = Curve(points)
        """The loss, over optimizer steps; of a validation over batches."""
        self.parts: dict[str, Curve] = {}
        """What training says besides, by name."""
        self._points = points
        self.batch: Batch | None = None
        self.step = 0
        """Optimizer steps that are done."""
        self.format = ""
        """What an export writes."""
        self.phases: list[str] = []
        """Phases of an export that are done."""

    def read(self, traces: Mapping[Path, Sequence[Trace]]) -> None:
        """Read what is new in the files that `traces` are of."""
        self._rank = min(trace.origin.rank for found in traces.values() for trace in found)
        by_attempt = sorted(
            (trace.origin.attempt, path, trace.events, trace.newest.seq)
            for path, found in traces.items()
            for trace in found
            if trace.origin.rank == self._rank
        )
        for _, path, events, newest in by_attempt:
            if self._events.get(path) != events:
                self._events[path] = events
                self._read(path, newest)

    def _read(self, path: Path, upto: int) -> None:
        reader = self._readers.setdefault(path, Reader(path, (self._run,), NAMES, self._places))
        try:
            found = reader.read(upto)
        except (JournalUnreadable, sqlite3.Error) as error:
            if path.exists():
                logger.warning("%s cannot be read: %s", path.name, error)
            return
        for origin, record in found:
            self._take(origin, fields(record))

    def _take(self, origin: Origin, event: Fields) -> None:
        if origin.rank != self._rank or origin.attempt < self._attempt or event.get("aside"):
            return
        if origin.attempt > self._attempt:
            self._begin(origin.attempt, event.get("step", 0))
        name: str = event["type"]
        if name == PHASE:
            self.format = event["format"]
            self.phases.append(event["phase"])
            return
        self.batch = Batch(name, event["epoch"], event["batch"], event["batches"], event["elapsed"])
        if name == TRAINED:
            self.step = event["step"]
            self._take_loss(event["step"], float(event["loss"]), named="loss" in event["losses"])
            self._take_parts(event["step"], event["losses"])
            self._mark(event, event["step"])
        elif name == PREDICTED:
            self._mark(event, 0)
        elif not self.trained:
            for loss in list(event["losses"].values())[:1]:
                self._take_loss(event["batch"], float(loss))
            self._mark(event, 0)

    def _begin(self, attempt: int, step: int) -> None:
        self._attempt = attempt
        for curve in (self.curve, *self.parts.values()):
            curve.cut(step)
        self._marks.clear()
        self._mark_now = None
        self.batch = None
        self.phases.clear()

    def _take_loss(self, step: int, loss: float, named: bool = True) -> None:
        self.loss, self.says_loss = loss, self.says_loss or named or not isnan(loss)
        self.curve.add(step, loss)

    def _take_parts(self, step: int, losses: Mapping[str, float | str]) -> None:
        for name, value in losses.items():
            if name in self.parts or (name != "loss" and len(self.parts) < PARTS):
                self.parts.setdefault(name, Curve(self._points)).add(step, float(value))

    def _mark(self, event: Fields, step: int) -> None:
        number: int = event["epoch"] * (event["batches"] or 0) + event["batch"]
        self._mark_now = _Mark(event["elapsed"], step, number, event["batch_size"])
        if not self._marks or self._mark_now.elapsed - self._marks[-1].elapsed >= MARK_SECONDS:
            self._marks.append(self._mark_now)

    # -- what follows from it ------------------------------------------------------------------------

    @property
    def trained(self) -> bool:
        """Whether a batch was trained: what is validated then is a part of it."""
        return any(mark.step for mark in self._marks)

    @property
    def steps_a_second(self) -> float | None:
        """Optimizer steps a second, of the last batches; None where nobody knows."""
        first, last, seconds = self._window()
        return (last.step - first.step) / seconds if first and last and seconds and last.step > first.step else None

    @property
    def samples_a_second(self) -> float | None:
        """Samples a second, of the last batches; None where nobody knows."""
        first, last, seconds = self._window()
        if not first or not last or not seconds or last.batches <= first.batches:
            return None
        size = sum(mark.samples for mark in self._marks) / len(self._marks)
        return (last.batches - first.batches) * size / seconds

    def _window(self) -> tuple[_Mark | None, _Mark | None, float]:
        if not self._marks or self._mark_now is None:
            return None, None, 0.0
        first, last = self._marks[0], self._mark_now
        return first, last, last.elapsed - first.elapsed
