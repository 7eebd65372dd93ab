"""The history of a run, for plots: its series and its stages, read once and then only on.

A long run has more batches than anybody can see. Where there is too much to read, samples are taken from all over the
journal, and the answer says so.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, Field
from pydantic_core import from_json
from typing_extensions import override

from ...schemas import (
    ExportEnd,
    ExportPhase,
    ExportStart,
    FitEpochEnd,
    ModelSave,
    PredictEnd,
    PredictStart,
    RunEnd,
    RunStart,
    TrainBatchEnd,
    TrainEpochEnd,
    TrainEpochStart,
    ValEnd,
    ValStart,
    wire_name,
)
from ..attempts import OfAttempts
from ..journal import Journal, JournalUnreadable
from ..journal.chunks import Record
from ..journal.claim import is_claimed
from ..journal.file import JournalFile

WHOLE = 100_000
"""Positions up to which everything is read."""
CLOSE = 20_000
"""The same for a part of such a run."""
LOOKS = 500
"""Places at which samples are taken of more than that."""
NEAR = 500
"""Positions between which a step is not looked for any closer."""
LAST = 2000
"""Positions at the end in which the last step is looked for: how far a run is, is to be known exactly."""
SAMPLES = 16
"""Samples at each place."""
MOST = 200_000
"""Points of a series that are kept."""
KEPT = 32
"""Runs whose history is kept."""

BATCH = wire_name(TrainBatchEnd)
_LANES: dict[str, tuple[str, str]] = {
    "train": (wire_name(TrainEpochStart), wire_name(TrainEpochEnd)),
    "val": (wire_name(ValStart), wire_name(ValEnd)),
    "predict": (wire_name(PredictStart), wire_name(PredictEnd)),
    "export": (wire_name(ExportStart), wire_name(ExportEnd)),
}
_LASTING = {wire_name(ModelSave): "save", wire_name(ExportPhase): "export"}
"""Lanes of the events that tell of something that is over."""
_START, _END, _FIT = wire_name(RunStart), wire_name(RunEnd), wire_name(FitEpochEnd)
STAGES = frozenset({name for pair in _LANES.values() for name in pair} | _LASTING.keys() | {_START, _END, _FIT})

Lane = Literal["train", "val", "save", "predict", "export"]


class Span(BaseModel, frozen=True):
    """A stage of a run. Times are milliseconds since 1970, UTC."""

    lane: Lane
    begin: float
    end: float | None = Field(description="Null: it goes on.")
    label: str


class Points(BaseModel, frozen=True, ser_json_inf_nan="strings"):
    """A series, down-sampled: of what each point stands for the mean, the smallest and the largest.

    Null is a value that is not finite.
    """

    step: list[int] = Field(description="Optimizer steps completed.")
    time: list[float] = Field(description="Milliseconds since 1970, UTC.")
    value: list[float | None]
    min: list[float | None]
    max: list[float | None]
    newest: float | None = Field(
        description="The last value by itself, however many the last point stands for; `NaN` and `Infinity` as texts."
    )


@dataclass
class Column:
    """A series."""

    step: array[int] = field(default_factory=lambda: array("q"))
    time: array[float] = field(default_factory=lambda: array("d"))
    value: array[float] = field(default_factory=lambda: array("d"))

    def add(self, step: int, time: float, value: float) -> None:
        """Add a point."""
        self.step.append(step)
        self.time.append(time)
        self.value.append(value)

    def cut(self, step: int) -> None:
        """Forget what was from `step` on."""
        first = bisect_left(self.step, step)
        del self.step[first:], self.time[first:], self.value[first:]

    def thin(self) -> None:
        """Forget every other point."""
        del self.step[1::2], self.time[1::2], self.value[1::2]

    def points(self, count: int, begin: float, end: float) -> Points:
        """Return up to `count` points of the steps from `begin` to `end`."""
        first, last = bisect_left(self.step, begin), bisect_right(self.step, end)
        size = max(1, -(-(last - first) // count))
        places = range(first, last, size)
        bands = [_band(self.value[place : min(place + size, last)]) for place in places]
        return Points(
            step=[self.step[place] for place in places],
            time=[self.time[place] for place in places],
            value=[value for value, _, _ in bands],
            min=[low for _, low, _ in bands],
            max=[high for _, _, high in bands],
            newest=self.value[last - 1] if last > first else None,
        )


def _band(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    finite = [value for value in values if isfinite(value)]
    return (sum(finite) / len(finite), min(finite), max(finite)) if finite else (None, None, None)


class Columns(OfAttempts[int]):
    """Series by name, of the newest attempt and of what it built on."""

    def __init__(self) -> None:
        super().__init__()
        self.named: dict[str, Column] = {}
        self.thinned = False

    @property
    def last(self) -> float:
        """The last step of any."""
        return max((column.step[-1] for column in self.named.values() if column.step), default=0)

    @override
    def cut(self, place: int) -> None:
        for column in self.named.values():
            column.cut(place)

    def add(self, step: int, time: float, values: Iterable[tuple[str, object]]) -> None:
        """Add a point to each series of `values`."""
        for name, value in values:
            column = self.named.get(name)
            if column is None:
                column = self.named[name] = Column()
            column.add(step, time, float(cast(float, value)))  # nan and infinity come as words
            if len(column.step) > MOST:
                column.thin()
                self.thinned = True


@dataclass
class _Place:
    """How far a file was read."""

    stages: int = 0
    batches: int = 0
    finished: bool = False
    attempt: int = 0
    """The first attempt of the run in it; 0: it has none."""


class History:
    """What is plotted of one run. Of several ranks, that of rank 0.

    Args:
        journal: Where it is.
        run: Its id.
    """

    def __init__(self, journal: Journal, run: str) -> None:
        self._journal = journal
        self._run = run
        self._lock = threading.Lock()
        self._places: dict[Path, _Place] = {}
        self._stages = Columns()
        self._batches = Columns()
        self._sampled = False
        self._step = 0
        self._validated = -1
        """The epoch that this attempt validated last."""
        self._spans: list[Span] = []
        self._open: dict[str, tuple[float, str]] = {}
        self._newest = 0.0

    def names(self) -> list[str]:
        """Return the names of the series."""
        with self._lock:
            self._read_on()
            return sorted({**self._batches.named, **self._stages.named})

    def series(self, names: Iterable[str], count: int, begin: float, end: float) -> tuple[dict[str, Points], bool]:
        """Return `count` points at most of each of the series `names`, and whether they are from samples.

        Where the whole is known from samples, a part of it is read again, more closely.
        """
        with self._lock:
            self._read_on()
            batches, sampled = self._batches, self._sampled or self._batches.thinned
            if sampled and (isfinite(begin) or isfinite(end)):
                batches, sampled = self._closely(begin, min(end, batches.last))
            columns = {**batches.named, **self._stages.named}
            points = {name: columns[name].points(count, begin, end) for name in names if name in columns}
            return points, sampled or self._stages.thinned

    def spans(self, over: datetime | None) -> list[Span]:
        """Return the stages; those that nothing ended went on until the run was `over`, or go on."""
        with self._lock:
            self._read_on()
            end = None if over is None else over.timestamp() * 1000
            return [*self._spans, *(_span(lane, begin, end, label) for lane, (begin, label) in self._open.items())]

    # -- reading -----------------------------------------------------------------------------------

    def _read_on(self) -> None:
        with ExitStack() as stack:
            found: list[tuple[int, JournalFile, _Place]] = []
            for path in self._journal.files():
                place = self._places.setdefault(path, _Place())
                if place.finished:
                    continue
                place.finished = not is_claimed(path)  # before reading: what the dead have left does not grow
                try:
                    file = stack.enter_context(closing(JournalFile.open(path)))
                except JournalUnreadable:
                    continue  # it is just being made, or the list of runs tells of it
                attempts = [origin.attempt for origin in file.origins().values() if origin.run == self._run]
                if attempts:
                    place.attempt = min(attempts)
                    found.append((place.attempt, file, place))
            for _, file, place in sorted(found, key=itemgetter(0)):
                self._read(file, place)

    def _read(self, file: JournalFile, place: _Place) -> None:
        upto = file.last_readable()
        for record in file.records(place.stages, names=STAGES, runs=(self._run,)):
            place.stages = record.seq
            if file.origin(record).rank == 0:
                self._take_stage(file.origin(record).attempt, _fields(record))
        self._sampled |= upto - place.batches > WHOLE
        for record in self._batches_of(file, place.batches, upto, WHOLE):
            upto = max(upto, record.seq)
            if file.origin(record).rank == 0:
                _take_batch(self._batches, file.origin(record).attempt, _fields(record))
        place.batches = upto

    def _batches_of(self, file: JournalFile, after: int, upto: int, whole: int) -> Iterator[Record]:
        if upto - after <= whole:
            yield from self._records(file, after, upto)
            return
        begin, stride = after, (upto - after) // LOOKS
        for look in range(after, upto, stride):
            if look < after:
                continue  # a large chunk reached further
            records, after = file.read(look, upto, names=(BATCH,), runs=(self._run,), careful=True)
            for record in records[:: max(1, len(records) // SAMPLES)]:
                begin = record.seq
                yield record
        rest = self._records(file, max(begin, upto - LAST), upto)
        yield from deque((record for record in rest if file.origin(record).rank == 0), maxlen=1)

    def _records(self, file: JournalFile, after: int, upto: int) -> Iterator[Record]:
        while after < upto:
            records, after = file.read(after, upto, names=(BATCH,), runs=(self._run,), careful=True)
            yield from records

    def _closely(self, begin: float, end: float) -> tuple[Columns, bool]:
        """Return the batches of the steps from `begin` to `end`, and whether they are samples only."""
        columns, sampled = Columns(), False
        columns.named = {name: Column() for name in self._batches.named}
        places = [(place.attempt, path) for path, place in self._places.items() if place.attempt]
        for _, path in sorted(places):
            with suppress(JournalUnreadable), closing(JournalFile.open(path)) as file:
                after, upto = self._before(file, begin)[0], self._before(file, end + 1)[1]
                sampled |= upto - after > CLOSE
                for record in self._batches_of(file, after, upto, CLOSE):
                    fields = _fields(record)
                    if begin <= fields["step"] <= end and file.origin(record).rank == 0:
                        _take_batch(columns, file.origin(record).attempt, fields)
        return columns, sampled or columns.thinned

    def _before(self, file: JournalFile, step: float) -> tuple[int, int]:
        """Return two positions close together: before the first, all steps are smaller, and behind the second, none."""
        low, high = 0, file.last_readable()
        behind = high
        while high - low > NEAR:
            middle = (low + high) // 2
            first = next(self._records(file, middle, high), None)
            if first is not None and _fields(first)["step"] < step:
                low = first.seq
            else:
                high = middle
                behind = behind if first is None else first.seq
        return low, behind

    def _take_stage(self, attempt: int, event: Mapping[str, Any]) -> None:
        name, time = event["type"], _milliseconds(event)
        if name in (_START, _END):
            # What an attempt left open when it died ended with the last that it said.
            self._close_all(time if name == _END else self._newest)
            self._validated = -1
        elif name in _LASTING:
            self._close(_LASTING[name], time - event["duration"] * 1000, time, _label(event))
        for lane, (begin, end) in _LANES.items():
            if name == begin:
                self._open[lane] = (time, _label(event))
            elif name == end and lane in self._open:
                self._close(lane, *self._open.pop(lane)[:1], time, _label(event))
        found = self._found(event)
        if found and self._stages.admit(attempt, self._step):
            self._stages.add(self._step, time, found)
        self._newest = time

    def _found(self, event: Mapping[str, Any]) -> list[tuple[str, object]]:
        """Return what a stage has found, by series."""
        name = event["type"]
        if name == wire_name(TrainEpochEnd):
            self._step = event["step"]
            return _under("train", event["losses"])
        if name in (wire_name(ValEnd), _FIT) and event["epoch"] <= self._validated:
            return []  # told already; and the final evaluation, of the best epoch's weights, is no further point
        if name == wire_name(ValEnd) and not event.get("aside"):
            self._validated = event["epoch"]
            fitness = [("fitness", event["fitness"])] if event["fitness"] is not None else []
            return [*_under("val", event["metrics"]), *_under("val_loss", event["losses"]), *fitness]
        if name == _FIT and not event.get("final"):
            return _under("val", event["metrics"])  # of a loop of the user's own, which has no events of a validation
        return []

    def _close(self, lane: str, begin: float, end: float, label: str) -> None:
        self._spans.append(_span(lane, begin, end, label))

    def _close_all(self, end: float) -> None:
        for lane, (begin, label) in self._open.items():
            self._close(lane, begin, end, label)
        self._open.clear()


def _take_batch(columns: Columns, attempt: int, event: Mapping[str, Any]) -> None:
    step = event["step"]
    if columns.admit(attempt, step):
        values = [("loss", event["loss"]), ("step_seconds", event["seconds"])]
        columns.add(step, _milliseconds(event), [*values, *_under("loss", event["losses"]), *_under("lr", event["lr"])])


def _under(group: str, values: Mapping[str, object]) -> list[tuple[str, object]]:
    return [(f"{group}/{name}", value) for name, value in values.items()]


def _span(lane: str, begin: float, end: float | None, label: str) -> Span:
    return Span(lane=cast(Lane, lane), begin=begin, end=end, label=label)


def _fields(record: Record) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", from_json(record.body, cache_strings="keys"))


def _milliseconds(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp() * 1000


def _label(event: Mapping[str, Any]) -> str:
    if "phase" in event:
        return str(event["phase"])
    return f"epoch {event['epoch'] + 1}" if "epoch" in event else ""


class Histories:
    """The histories of the runs that were asked for last.

    Args:
        journal: Where they are.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._known: OrderedDict[str, History] = OrderedDict()

    def of(self, run: str) -> History:
        """Return the history of `run`."""
        with self._lock:
            history = self._known.pop(run, None) or History(self._journal, run)
            self._known[run] = history
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
            return history
