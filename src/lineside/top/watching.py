"""Watching a journal folder: its runs, as they are now. What is over is not read again."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from lineside.bus.journal import Journal, JournalRefused, RunSummary
from lineside.bus.journal.runs import Trace, summarize
from lineside.bus.subscribers import wording
from lineside.schemas import FitEpochEnd, PretrainRoutineEnd, RunStart, TrainStart, ValEnd

from .following import TRAINED, VALIDATED, Follower

FILL_SECONDS = 0.1
"""Time of a look that is spent on reading the batches of runs that are over; the rest of them come with the next."""

logger = logging.getLogger("lineside.top")

Traces = Mapping[Path, Sequence[Trace]]
"""What each file tells of one run."""


class _Limit(NamedTuple):
    """Something that ends a run when all of it is done."""

    done: float
    total: float
    before: float = 0
    """How much was done before this attempt."""


@dataclass
class Watched:
    """A run."""

    summary: RunSummary
    traces: Traces
    follower: Follower
    followed: bool = False
    """Whether its batches were read."""
    start: RunStart | None = field(init=False)
    prepared: PretrainRoutineEnd | None = field(init=False)
    """Of a trainer, which has settings whose meaning is known."""
    begin: TrainStart | None = field(init=False)
    fit: FitEpochEnd | None = field(init=False)
    evaluated: ValEnd | None = field(init=False)
    """How a validation that is the whole run came out."""

    def __post_init__(self) -> None:
        lead = self._lead()
        self.start, self.prepared = lead.get(RunStart), lead.get(PretrainRoutineEnd)
        self.begin, self.fit = lead.get(TrainStart), lead.get(FitEpochEnd)
        self.evaluated = lead.get(ValEnd) if self.summary.kind == "val" else None

    def _lead(self) -> Trace:
        """Return what the first rank says of the newest attempt."""
        now = [one for found in self.traces.values() for one in found if one.origin.attempt == self.summary.attempt]
        return min(now, key=lambda trace: (trace.origin.rank, -trace.newest.time.timestamp()))

    @property
    def live(self) -> bool:
        """Whether it is going on."""
        return self.summary.state in ("running", "stalled")

    @property
    def processes(self) -> int:
        """How many it has."""
        return max(self.start.world_size if self.start else 1, self.summary.ranks)

    @property
    def done(self) -> tuple[float, float] | None:
        """How much is done, and of how much: epochs, steps, seconds, batches or phases; None: nobody knows."""
        nearest = max(self._limits(), key=lambda limit: limit.done / limit.total, default=None)
        return None if nearest is None else (nearest.done, nearest.total)

    def _limits(self) -> Iterator[_Limit]:
        """Give what ends it: the first of them that is reached."""
        batch, begin = self.follower.batch, self.begin
        if self.summary.kind == "train":
            if self.summary.epochs:
                yield _Limit(self._epochs(), self.summary.epochs, begin.epoch if begin else 0)
            settings = self.start.config if self.start and self.prepared else {}
            steps, seconds = settings.get("max_steps"), settings.get("max_seconds")
            if isinstance(steps, int) and steps > 0:
                yield _Limit(self.follower.step, steps, begin.step if begin else 0)
            if isinstance(seconds, (int, float)) and seconds > 0 and batch:
                yield _Limit(batch.elapsed, seconds, begin.elapsed if begin else 0.0)
        elif self.summary.kind == "export":
            phases = len(wording.phases_of(self.follower.format))
            yield _Limit(phases if self.summary.outcome == "completed" else len(self.follower.phases), phases)
        elif batch and batch.batches:
            yield _Limit(batch.batch + 1, batch.batches)

    def _epochs(self) -> float:
        """Return the epochs that are done, the current one in part."""
        batch, whole = self.follower.batch, self.fit.epoch + 1 if self.fit and not self.fit.final else 0
        if batch is None or self.summary.outcome == "completed":
            begun = self.summary.epoch
            return max(whole, 0 if begun is None else begun + (self.summary.state == "finished"))
        if batch.name == VALIDATED:
            return max(whole, batch.epoch + 1)
        share = (batch.batch + 1) / batch.batches if batch.batches else 0.0
        return max(whole, batch.epoch + share)

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest takes if it goes on as it did; None where nobody knows."""
        batch = self.follower.batch
        if self.summary.state != "running" or batch is None:
            return None
        took = batch.elapsed - (self.begin.elapsed if self.begin else 0.0)
        parts = ((max(limit.total - limit.done, 0), limit.done - limit.before) for limit in self._limits())
        return min((took * rest / part for rest, part in parts if part > 0), default=None)

    @property
    def loss(self) -> float | None:
        """The newest loss, of a validation that is over its mean; None where it says none."""
        if self.evaluated is not None:
            return next(iter(self.evaluated.losses.values()), None)
        losses = self.fit.losses if self.fit else {}
        if not (self.prepared or self.follower.says_loss or "loss" in losses):
            return None
        return next(iter(losses.values()), None) if self.follower.loss is None else self.follower.loss

    @property
    def best(self) -> tuple[str, float] | None:
        """Name and value of the best metric; of a run without epochs, of the metric. None where nobody knows."""
        fitness = self.fit.best_fitness if self.fit else self.summary.fitness
        if fitness is None:  # of several epochs of a loop of the user's own, nobody knows which is the best
            return None if self.fit else next(iter(self.summary.metrics.items()), None)
        names = (name for name, value in self.summary.metrics.items() if value == self.summary.fitness)
        return next(names, "fitness"), fitness

    @property
    def validating(self) -> bool:
        """Whether it validates within training."""
        batch = self.follower.batch
        return self.summary.kind == "train" and batch is not None and batch.name != TRAINED

    def elapsed(self, now: datetime) -> float | None:
        """Return the seconds that it took, or has been taking."""
        if self.live and self.summary.started is not None:
            return max(0.0, (now - self.summary.started).total_seconds())
        return self.summary.duration

    def silence(self, now: datetime) -> float:
        """Return the seconds since something was heard of it."""
        return max(0.0, (now - self.summary.updated).total_seconds())


class Folder(Journal):
    """A journal folder that is looked at again and again, and need not be there yet."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.runs_now: list[Watched] = []
        """The runs, the newest first, as of the last look."""

    def refuse_absence(self) -> None:
        """Insist on a folder that is there.

        Raises:
            JournalRefused: there is none.
        """
        self._existing()

    def look(self) -> None:
        """Look what has come. Of runs that are over nothing is read again."""
        try:
            found = self.traces()
        except (JournalRefused, FileNotFoundError) as error:
            found = {}
            if not isinstance(error.__cause__ or error, FileNotFoundError):  # else there is none, yet or any more
                logger.warning("%s", error)
        by_run: dict[str, dict[Path, Sequence[Trace]]] = {}
        for path, traces in found.items():
            for trace in traces:
                files = by_run.setdefault(trace.origin.run, {})
                files[path] = [*files.get(path, ()), trace]
        known = {one.summary.run: one for one in self.runs_now}
        runs = [_watched(run, traces, known.get(run)) for run, traces in by_run.items()]
        # Of two that began in the same millisecond the one that was written later comes first.
        self.runs_now = sorted(runs, key=lambda one: one.summary.started or one.summary.updated)[::-1]

    def follow(self, runs: Collection[Watched], seconds: float = FILL_SECONDS) -> None:
        """Read on in `runs`: in those that go on, and, for so many seconds, in those that are over."""
        for one in runs:
            if one.live:
                one.follower.read(one.traces)
        until = monotonic() + seconds
        for one in runs:
            if not one.live and not one.followed:
                one.follower.read(one.traces)
                one.followed = True
                if monotonic() > until:
                    return


def _watched(run: str, traces: Traces, before: Watched | None) -> Watched:
    if before is None:
        return Watched(summarize(_all(traces)), traces, Follower(run))
    if not before.live and _events(traces) == _events(before.traces):
        return before
    return Watched(summarize(_all(traces)), traces, before.follower)


def _all(traces: Traces) -> list[Trace]:
    return [trace for found in traces.values() for trace in found]


def _events(traces: Traces) -> list[int]:
    return [trace.events for trace in _all(traces)]


def now() -> datetime:
    """Return the time by which everything on a screen is told."""
    return datetime.now(UTC)
