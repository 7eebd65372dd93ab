"""What is known of one run that was opened: curves, stages, warnings, and the newest events."""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from lineside.bus.journal import JournalUnreadable
from lineside.bus.journal.chunks import Record
from lineside.bus.subscribers import text, wording
from lineside.schemas import (
    EventsMissed,
    ExportPhase,
    FitEpochEnd,
    JournalDegraded,
    JournalRecovered,
    ModelSave,
    NonFinite,
    SubscriberFailed,
    TrainEpochEnd,
    UndecodableEvent,
    ValEnd,
    decode,
    wire_name,
)

from .curves import Curve
from .following import Follower
from .sampling import Fields, Reader, fields
from .watching import Watched

logger = logging.getLogger("lineside.top")

PLACES = 240
"""Places at which a long run is looked at: a chart has no more columns."""
POINTS = 1024
NEWEST = 64
"""Events, stages and warnings that are kept."""

_SAID: Mapping[str, Callable[[Any], str]] = {
    wire_name(NonFinite): wording.non_finite,
    wire_name(SubscriberFailed): wording.subscriber_failed,
    wire_name(EventsMissed): wording.events_missed,
    wire_name(JournalDegraded): lambda event: f"the disk refuses what is published: {event.error}",
    wire_name(JournalRecovered): lambda event: f"the disk takes what is published again, {event.missed:,} events lost",
}
"""What is said of each event that is a warning."""
_LASTED = {
    wire_name(TrainEpochEnd): "train",
    wire_name(ValEnd): "val",
    wire_name(ModelSave): "save",
    wire_name(ExportPhase): "",
}
"""What is said of each stage that is over."""
_FIT = wire_name(FitEpochEnd)
_ENVELOPE = frozenset({"type", "run", "attempt", "rank", "seq", "time", "elapsed"})


class Happened(NamedTuple):
    """An event, in words."""

    time: datetime
    seq: int
    name: str
    rank: int
    values: str


class Warned(NamedTuple):
    """A warning."""

    time: datetime
    said: str


class Stage(NamedTuple):
    """A stage that is over, as part of what it belongs to."""

    whole: str
    """E.g. an epoch."""
    name: str
    seconds: float


class Details:
    """The details of one run, read on from time to time."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.follower = Follower(run, PLACES, POINTS)
        self.metrics: dict[str, Curve] = {}
        """Series of the epochs, by name."""
        self.stages: deque[Stage] = deque(maxlen=NEWEST)
        self.warnings: deque[Warned] = deque(maxlen=NEWEST)
        self.newest: deque[Happened] = deque(maxlen=NEWEST)
        self._readers: dict[Path, tuple[Reader, Reader, Reader]] = {}
        self._events: dict[Path, int] = {}
        self._validated = -1
        """The epoch that was validated last, from 0."""
        self._attempt = 0

    def read(self, run: Watched) -> None:
        """Read what is new."""
        self.follower.read(run.traces)
        for path, traces in run.traces.items():
            count = sum(trace.events for trace in traces)
            if self._events.get(path) != count:
                self._events[path] = count
                self._read(path, max(trace.newest.seq for trace in traces))
        if len(run.traces) > 1:  # what several processes say is told by its time
            self.newest = deque(sorted(self.newest, key=lambda event: event.time), NEWEST)
            self.warnings = deque(sorted(self.warnings, key=lambda warning: warning.time), NEWEST)

    def _read(self, path: Path, upto: int) -> None:
        if path not in self._readers:
            own = (self.run,)
            self._readers[path] = (
                Reader(path, own, {*_LASTED, _FIT}, PLACES),
                Reader(path, (self.run, ""), _SAID.keys(), PLACES),
                Reader(path, own, None, 1),
            )
        stages, warnings, newest = self._readers[path]
        try:
            for origin, record in stages.read(upto):
                if origin.rank == 0:
                    self._take_stage(origin.attempt, fields(record))
            for _, record in warnings.read()[-NEWEST:]:
                self._take_warning(record)
            self.newest.extend(_happened(fields(record)) for _, record in newest.read(upto)[-NEWEST:])
        except (JournalUnreadable, sqlite3.Error) as error:
            if path.exists():
                logger.warning("%s cannot be read: %s", path.name, error)

    def _take_stage(self, attempt: int, event: Fields) -> None:
        name: str = event["type"]
        if name in _LASTED:
            whole = f"epoch {event['epoch'] + 1}" if "epoch" in event else event["format"]
            self.stages.append(Stage(whole, _LASTED[name] or event["phase"], event["duration"]))
        if attempt > self._attempt:
            self._attempt, self._validated = attempt, -1
            for curve in self.metrics.values():
                curve.cut(event.get("epoch", 0) + 1)
        if name in (wire_name(ValEnd), _FIT) and event["epoch"] <= self._validated:
            return  # told already; and the final evaluation, of the best epoch's weights, is no further point
        if name == wire_name(ValEnd) and not event.get("aside"):
            self._validated = event["epoch"]
            self._extend(event["epoch"], event["metrics"])
            self._extend(event["epoch"], {f"val {name}": value for name, value in event["losses"].items()})
        elif name == _FIT and not event.get("final"):
            # Metrics of a loop of the user's own, which has no events of a validation.
            named = (
                (f"val {name}" if name in event["losses"] else name, value) for name, value in event["metrics"].items()
            )
            self._extend(event["epoch"], dict(named))

    def _extend(self, epoch: int, values: Mapping[str, float | str]) -> None:
        for name, value in values.items():
            self.metrics.setdefault(name, Curve(POINTS)).add(epoch + 1, float(value))

    def _take_warning(self, record: Record) -> None:
        try:
            event = decode(record.body)
        except UndecodableEvent:
            return
        self.warnings.append(Warned(event.time.astimezone(), " ".join(_SAID[event.type](event).split())))


def _happened(event: Fields) -> Happened:
    values = " ".join(f"{name}={_shown(value)}" for name, value in event.items() if name not in _ENVELOPE)
    return Happened(_time(event), event["seq"], event["type"], event["rank"], values)


def _time(event: Fields) -> datetime:
    return datetime.fromisoformat(event["time"]).astimezone()


def _shown(value: object) -> str:
    match value:
        case float():
            return text.number(value)
        case dict():
            return (
                "{"
                + ", ".join(f"{name}: {_shown(item)}" for name, item in cast("dict[str, object]", value).items())
                + "}"
            )
        case _:
            return " ".join(str(value).split())[:60]
