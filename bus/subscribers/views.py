"""How a run of each kind looks on a terminal: lines that stay, and a region that changes until the run is over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from rich.console import Group, RenderableType
from rich.text import Text

from ...schemas import (
    Event,
    ExportEnd,
    ExportPhase,
    ExportStart,
    FitEpochEnd,
    NonFinite,
    PredictBatchEnd,
    PredictEnd,
    PredictStart,
    PretrainRoutineEnd,
    TrainBatchEnd,
    TrainEpochEnd,
    TrainStart,
    ValBatchEnd,
    ValEnd,
    ValStart,
)
from ..losses import SaidLoss
from ..progress import Progress
from . import text, wording
from .drawing import DIM, LABEL, bar, labelled

Lines = Iterator[RenderableType]

GAP = 3
"""Space before a column of the table of epochs."""


class View(Protocol):
    """How one run looks."""

    def update(self, event: Event) -> Lines:
        """Take in `event` and give the lines that it leaves behind."""
        ...

    def region(self) -> RenderableType:
        """Return what is drawn now and drawn over later."""
        ...


class TrainView:
    """A table that grows by a row an epoch; below it the bars of the epochs, the steps that end it, and the batches."""

    def __init__(self) -> None:
        self._header = ""
        self._lr = ""
        self._progress = Progress()
        self._said_loss = SaidLoss()
        self._epochs: RenderableType = Group()
        self._batches: RenderableType = Group()

    def update(self, event: Event) -> Lines:
        """Take in `event`."""
        self._progress.take(event)
        self._said_loss.take(event)
        match event:
            case PretrainRoutineEnd():
                yield labelled("", Text(wording.preparation(event), DIM))
            case TrainStart():
                self._epochs = self._whole(event.epoch)
            case TrainBatchEnd():
                self._advance(event)
            case ValEnd(aside=True):
                yield labelled("aside", text.scalars(event.scores))
            case ValBatchEnd():
                self._batches = bar("validate", event.batch + 1, event.batches, text.scalars(event.losses))
            case TrainEpochEnd():
                self._lr = text.rates(event.lr)
            case NonFinite():
                yield labelled("warning", wording.non_finite(event), "bold yellow")
            case FitEpochEnd():
                yield from self._row(event)
            case _:
                pass

    def region(self) -> RenderableType:
        """Return the bars."""
        return Group(self._epochs, self._batches)

    def _advance(self, event: TrainBatchEnd) -> None:
        losses = text.scalars(self._said_loss.numbers(event))
        lr = f"lr {text.rates(event.lr)}" if event.lr else ""
        speed = f"{event.batch_size / event.seconds:,.0f}/s" if event.seconds else ""
        self._batches = bar("batches", event.batch + 1, event.batches, losses, lr, speed)
        self._epochs = self._whole(event.epoch + (event.batch + 1) / (event.batches or event.batch + 2))

    def _whole(self, epochs: float) -> RenderableType:
        progress = self._progress
        left = "" if progress.left is None else f"{text.clock(progress.left)} left"
        if not progress.steps:
            return bar("epochs", epochs, progress.epochs, left)
        return Group(bar("epochs", epochs, progress.epochs), bar("steps", progress.step, progress.steps, left))

    def _row(self, event: FitEpochEnd) -> Lines:
        if event.final:
            yield labelled(
                "final", f"{text.scalars(wording.numbers(event))}  (best weights, of epoch {event.epoch + 1})", "green"
            )
            return
        cells = {"epoch": f"{event.epoch + 1}/{event.epochs or '?'}"}
        cells |= {name: text.number(value) for name, value in wording.numbers(event).items()}
        cells |= {"lr": self._lr, "time": text.duration(event.duration)}
        header = _cells({name: name for name in cells}, cells)
        if header != self._header:
            self._header = header
            yield Text(header, DIM, no_wrap=True, overflow="ellipsis")
        best = (" ★", "green") if wording.is_best(event) else ""
        yield Text.assemble(_cells(cells, cells), best, no_wrap=True, overflow="ellipsis")


def _cells(values: Mapping[str, str], columns: Mapping[str, str]) -> str:
    """Return a row: `values` right-aligned, each as wide as the number or the name of its column."""
    return "".join(f"{values[name]:>{max(len(name), 6) + GAP}}" for name in columns)


class ValView:
    """A bar; then the metrics."""

    def __init__(self) -> None:
        self._bar: RenderableType = Group()

    def update(self, event: Event) -> Lines:
        """Take in `event`."""
        match event:
            case ValStart():
                self._bar = bar("batches", 0, event.batches)
            case ValBatchEnd():
                self._bar = bar("batches", event.batch + 1, event.batches, text.scalars(event.losses))
            case ValEnd():
                yield labelled("metrics", text.scalars(event.scores), "green")
                yield labelled("", Text(wording.evaluated(event), DIM))
            case _:
                pass

    def region(self) -> RenderableType:
        """Return the bar."""
        return self._bar


class ExportView:
    """The phases as they are done; then the file."""

    def __init__(self) -> None:
        self._format = ""
        self._done: list[ExportPhase] = []

    def update(self, event: Event) -> Lines:
        """Take in `event`."""
        match event:
            case ExportStart():
                self._format, self._done = event.format, []
            case ExportPhase():
                self._done.append(event)
            case ExportEnd():
                yield labelled(event.format, str(event.path), "green")
                yield labelled("", Text(wording.exported(event), DIM))
            case _:
                pass

    def region(self) -> RenderableType:
        """Return the phases: those that are done with their times, and the one that is not."""
        done = [f"{phase.phase} {text.duration(phase.duration)}" for phase in self._done]
        rest = wording.phases_of(self._format)[len(done) :]
        return labelled(self._format, "  ".join([*done, *(f"{phase} …" for phase in rest[:1])]))


class PredictView:
    """The predictions, one a line, over a bar."""

    def __init__(self) -> None:
        self._inputs = 0
        self._bar: RenderableType = Group()

    def update(self, event: Event) -> Lines:
        """Take in `event`."""
        match event:
            case PredictStart():
                self._bar = bar("batches", 0, event.batches)
            case PredictBatchEnd():
                self._inputs += event.batch_size
                speed = f"{sum(event.speed.values()):.2f} ms an input" if event.speed else ""
                self._bar = bar("batches", event.batch + 1, event.batches, speed)
                yield from self.results(event)
            case PredictEnd():
                yield labelled("", Text(wording.predicted(event), DIM))
            case _:
                pass

    def results(self, event: PredictBatchEnd) -> Lines:
        """Give the lines that show the results of a batch. For subclasses to override."""
        for name, result in zip(event.inputs, event.results, strict=False):
            shown = result if isinstance(result, str) else json.dumps(result)
            yield Text.assemble((f" {name:<{LABEL}}", DIM), shown, no_wrap=True, overflow="ellipsis")

    def region(self) -> RenderableType:
        """Return the bar."""
        return self._bar


VIEWS: Mapping[str, Callable[[], View]] = {
    "train": TrainView,
    "val": ValView,
    "predict": PredictView,
    "export": ExportView,
}
"""What makes the view of each kind of run."""
