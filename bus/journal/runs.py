"""Runs: what a journal folder tells of each, from the few events that say it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from pydantic import Field

from ...schemas import (
    Count,
    ErrorInfo,
    Event,
    FitEpochEnd,
    FrozenDict,
    Kind,
    Outcome,
    Part,
    PretrainRoutineEnd,
    RunEnd,
    RunStart,
    Scalars,
    Seconds,
    TrainEpochStart,
    TrainStart,
    UndecodableEvent,
    ValEnd,
    decode,
    wire_name,
)
from .chunks import Record
from .claim import is_claimed
from .errors import JournalUnreadable
from .file import JournalFile, Origin

E = TypeVar("E", bound=Event)

logger = logging.getLogger("lineside.bus")

STALLED_SECONDS = 60.0
"""Silence after which a run that has not ended counts as stalled."""

State = Literal["running", "stalled", "finished", "failed"]

TELLING: tuple[type[Event], ...] = (
    RunStart,
    RunEnd,
    PretrainRoutineEnd,
    TrainStart,
    TrainEpochStart,
    FitEpochEnd,
    ValEnd,
)
"""The events that tell how far a run is: none of a batch."""


class RunSummary(Part):
    """A run in a few figures. Where it was resumed, they are those of the newest attempt."""

    run: str = Field(description="Id of the run.")
    kind: Kind | None = Field(description="Which runner; null: none, somebody else published.")
    model: str | None = Field(description="Class of the model.")
    state: State = Field(
        description="`running`, `stalled` (silent for a minute), `finished`, or `failed`: with an error, or without a "
        "word, when its process is gone."
    )
    outcome: Outcome | None = Field(description="How it ended; null: it has not, or without a word.")
    reason: str | None = Field(description="Why it ended, where not obvious.")
    error: ErrorInfo | None = Field(description="The error of a failed run.")
    started: datetime | None = Field(description="When the attempt began.")
    ended: datetime | None = Field(description="When it ended.")
    updated: datetime = Field(description="Time of the newest event.")
    duration: Seconds | None = Field(description="Seconds from its begin to its end, or to the newest event.")
    attempt: int = Field(description="The newest attempt, from 1.")
    ranks: Count = Field(description="Processes that published in that attempt.")
    epoch: int | None = Field(description="Epoch that began last, from 0.")
    epochs: int | None = Field(description="Epochs asked for.")
    fitness: float | None = Field(description="Fitness of the last validation, larger is better.")
    metrics: Scalars = Field(description="Metrics and losses of the last validation by name.")
    host: str = Field(description="Name of the machine.")
    pid: Count = Field(description="Id of the process.")
    events: Count = Field(description="Events in the journal, of all attempts and ranks.")


class Trace(NamedTuple):
    """What one file tells of one attempt of a run on one rank."""

    alive: bool
    """Whether its writer was alive before it was read."""
    origin: Origin
    events: int
    """How many there are."""
    newest: Event
    told: Mapping[type[Event], Event]
    """The newest of each type of `TELLING`."""
    about: Mapping[str, str]
    """What the writer said of itself."""

    def get(self, cls: type[E]) -> E | None:
        """Return the newest event of `cls`."""
        event = self.told.get(cls)
        return event if isinstance(event, cls) else None


class Look(NamedTuple):
    """What was found in a file."""

    alive: bool
    """Whether its writer was alive before: more may come."""
    upto: int = 0
    """Position up to which it was read, where more need not be read again."""
    traces: Sequence[Trace] | None = None
    """What it tells of each run, attempt and rank in it; None of what is no journal."""


def look(path: Path, before: Look | None = None) -> Look:
    """Look into the file at `path`, of which `before` is known.

    Raises:
        JournalUnreadable: it is no journal file.
    """
    alive = is_claimed(path)  # before reading: whoever ended since may have said more
    known = {trace.origin: trace for trace in before.traces or ()} if before else {}
    with closing(JournalFile.open(path)) as file:
        about: Mapping[str, str] = {}
        try:
            about, upto = file.about(), file.last
            news = _look_up(file, before.upto if before else 0, upto)
        except sqlite3.DatabaseError as error:
            logger.warning("%s is damaged (%s): of its runs is told what can still be read", path, error)
            known, upto = {}, 0
            news = _go_through(file)
    for origin, count, newest, told in news:
        if not origin.run:
            continue
        earlier = known.get(origin)
        telling = {event.__class__: event for record in told if (event := _decode(record))}
        if earlier is not None:
            count, telling = count + earlier.events, {**earlier.told, **telling}
        last = _decode(newest) or max(telling.values(), key=lambda event: event.seq, default=None)
        if last is not None:
            known[origin] = Trace(alive, origin, count, last, telling, about)
    return Look(alive, upto, [trace._replace(alive=alive) for trace in known.values()])


class _Found(NamedTuple):
    origin: Origin
    events: int
    newest: Record | None
    told: Collection[Record]


def _look_up(file: JournalFile, after: int, upto: int) -> list[_Found]:
    """Find the few events that are wanted by what the chunks say of themselves.

    Raises:
        sqlite3.DatabaseError: the file is damaged.
    """
    kinds = {name: number for number, name in file.kinds().items()}
    wanted = [kinds[name] for name in map(wire_name, TELLING) if name in kinds]
    origins = file.origins()
    found: list[_Found] = []
    for number, count in file.counts(after, upto).items():
        if number not in origins:  # damaged
            continue
        told = dict(file.newest(after, upto, number, wanted))
        if not told:  # where pages are cut or empty, SQLite ends early and says nothing
            raise sqlite3.DatabaseError("events are counted in it that are not found")
        found.append(_Found(origins[number], count, told.pop(None, None), told.values()))
    return found


def _go_through(file: JournalFile) -> list[_Found]:
    """Find them by reading everything: what can be read of a damaged file.

    Raises:
        JournalUnreadable: nothing can.
    """
    counts: dict[int, int] = {}
    newest: dict[int, Record] = {}
    told: dict[tuple[int, int], Record] = {}
    try:
        kinds, origins, names = file.kinds(), file.origins(), set(map(wire_name, TELLING))
        for record in file.records():
            if record.origin in origins:
                counts[record.origin] = counts.get(record.origin, 0) + 1
                newest[record.origin] = record
                if kinds.get(record.kind) in names:
                    told[record.origin, record.kind] = record
    except sqlite3.DatabaseError as error:
        raise JournalUnreadable(file.path, str(error)) from None
    return [
        _Found(origins[number], count, newest[number], [r for (one, _), r in told.items() if one == number])
        for number, count in counts.items()
    ]


def _decode(record: Record | None) -> Event | None:
    try:
        return None if record is None else decode(record.body)
    except UndecodableEvent:
        return None


def summarize(found: Sequence[Trace]) -> RunSummary:
    """Return the summary of the run that `found` are all the traces of."""
    attempt = max(trace.origin.attempt for trace in found)
    now = [trace for trace in found if trace.origin.attempt == attempt]
    now.sort(key=lambda trace: (trace.origin.rank, -trace.newest.time.timestamp()))
    lead = now[0]  # the rank that speaks for all
    newest = max((trace.newest for trace in found), key=lambda event: event.time)
    start, end = lead.get(RunStart), _end(now)
    state, error = _state(now, start, end, newest)
    epoch = lead.get(TrainEpochStart) or lead.get(TrainStart)
    judged = _judged(lead)
    return RunSummary(
        run=lead.origin.run,
        kind=start.kind if start else None,
        model=start.model if start else None,
        state=state,
        outcome=end.outcome if end else None,
        reason=end.reason if end else None,
        error=error,
        started=start.time if start else None,
        ended=end.time if end else None,
        updated=newest.time,
        duration=end.duration if end else lead.newest.elapsed,
        attempt=attempt,
        ranks=len({trace.origin.rank for trace in now}),
        epoch=epoch.epoch if epoch else None,
        epochs=epoch.epochs if epoch else None,
        fitness=judged.fitness if judged else None,
        metrics=FrozenDict(_scores(judged) if judged else {}),
        host=start.host if start and start.host else lead.about.get("host", ""),
        pid=start.pid if start and start.pid else int(lead.about.get("pid", 0)),
        events=sum(trace.events for trace in found),
    )


def _end(now: Sequence[Trace]) -> RunEnd | None:
    """Return how the attempt ended: any rank's failure is that of all."""
    ends = [end for trace in now if (end := trace.get(RunEnd))]
    failed = next((end for end in ends if end.outcome == "failed"), None)
    return failed or now[0].get(RunEnd)


def _state(
    now: Sequence[Trace], start: RunStart | None, end: RunEnd | None, newest: Event
) -> tuple[State, ErrorInfo | None]:
    if end is not None:
        return ("failed" if end.outcome == "failed" else "finished"), end.error
    if any(trace.alive for trace in now):
        silence = (datetime.now(UTC) - newest.time).total_seconds()
        return ("stalled" if silence > STALLED_SECONDS else "running"), None
    if start is None:
        return "finished", None  # not of a runner, which would have said so
    message = f"its process ended without a word; the last that it published is {newest.type}, at {newest.time}"
    return "failed", ErrorInfo(type="ProcessGone", message=message)


def _judged(lead: Trace) -> FitEpochEnd | ValEnd | None:
    """Return the newest event that says how good the model is; an epoch without validation does not."""
    found: tuple[FitEpochEnd | ValEnd | None, ...] = lead.get(FitEpochEnd), lead.get(ValEnd)
    both = [event for event in found if event and _scores(event) and not getattr(event, "aside", False)]
    return max(both, key=lambda event: event.seq, default=None)


def _scores(event: FitEpochEnd | ValEnd) -> Mapping[str, float]:
    return event.scores if isinstance(event, ValEnd) else event.metrics
