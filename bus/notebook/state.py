"""What is shown of a run: its events, reduced to something small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from ...schemas import (
    BatchEnd,
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
    RunEnd,
    RunStart,
    TrainBatchEnd,
    TrainEnd,
    TrainEpochEnd,
    TrainEpochStart,
    TrainEvent,
    TrainStart,
    ValBatchEnd,
    ValEnd,
    ValEvent,
    ValStart,
)
from ..losses import SaidLoss
from ..progress import Progress
from ..subscribers import text, wording
from .series import Series

SHOWN: tuple[type[Event], ...] = (
    RunStart,
    PretrainRoutineEnd,
    TrainStart,
    TrainEpochStart,
    TrainBatchEnd,
    NonFinite,
    TrainEpochEnd,
    FitEpochEnd,
    TrainEnd,
    ValStart,
    ValBatchEnd,
    ValEnd,
    PredictStart,
    PredictBatchEnd,
    PredictEnd,
    ExportStart,
    ExportPhase,
    ExportEnd,
    RunEnd,
)
"""What is read. What merely begins says nothing that its end does not."""

MOST_CURVES = 40
"""A run with hundreds of losses is drawn in part."""


class Curve(Series):
    """A `Series` and where it is drawn: in the chart of that name, as the line of that label."""

    def __init__(self, chart: str, label: str, dense: bool) -> None:
        super().__init__()
        self.about = {"chart": chart, "label": label, "dense": dense}
        """`dense`: it has a point for each batch, not for each epoch."""
        self.epoch: int | None = None
        """The epoch of the newest point, where it has a point for each."""

    @override
    def cut(self, x: int) -> None:
        before = len(self)
        super().cut(x)
        if len(self) < before:
            self.epoch = None


class RunState:
    """What the events of a run come to. `take` them in their order."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.kind = self.model = self.device = ""
        self.outcome = ""
        """How it ended; nothing while it goes on."""
        self.reason: str | None = None
        self.error: dict[str, str] | None = None
        self.begun = False
        """Whether anything was heard of it."""
        self.partial = False
        """Whether its first events could not be read any more."""
        self.progress = Progress()
        self.numbers: dict[str, float] = {}
        """The newest numbers by name."""
        self.metrics: dict[str, float] = {}
        """What the newest epoch, or the validation, came to."""
        self.best: int | None = None
        """The best epoch, from 1."""
        self.facts = ""
        """More of what is computed, in words."""
        self.warning = ""
        self.all_phases = wording.phases_of("")
        """The phases of an export, in order."""
        self.phases: list[tuple[str, float]] = []
        """The phases of an export that are done, and their seconds."""
        self.duration: float | None = None
        self.elapsed = 0.0
        self.curves: dict[str, Curve] = {}
        self.left_out = 0
        """Curves that are not drawn, because there are too many."""
        self._attempt = 0
        self._step = 0
        self._said_loss = SaidLoss()
        self._lost: NonFinite | None = None  # the first batch whose loss was lost
        self._lost_more = 0  # batches since
        self._left_out: set[str] = set()

    def take(self, event: Event) -> None:
        """Take in `event`. Those of other runs, of ranks other than 0 and of evaluations in between are left out."""
        if event.run != self.run or event.rank or (isinstance(event, ValEvent) and event.aside):
            return
        if not self.begun:
            self.begun, self.partial = True, not isinstance(event, RunStart)
            self.kind = _kind(event)
        if self.partial and isinstance(event, TrainEvent):  # what was taken for a validation is part of a training
            self.kind = "train"
        if event.attempt > self._attempt > 0:  # it was resumed: what it was before does not hold any more
            self.outcome, self.reason, self.error = "", None, None
        self._attempt, self.elapsed = event.attempt, event.elapsed
        self.progress.take(event)
        self._said_loss.take(event)
        if self._said_loss.known is False:
            self.numbers.pop("loss", None)
        self._note(event)

    def _note(self, event: Event) -> None:
        match event:
            case BatchEnd():
                self._note_batch(event)
            case TrainStart():
                self._go_back(event.step)
            case TrainEpochEnd():
                self._step = event.step
                self._extend(event.epoch, event.losses, "train")
            case FitEpochEnd():
                self._note_epoch(event)
            case NonFinite():
                self._note_lost(event)
            case ValEnd() | PredictEnd():
                self._note_pass(event)
            case ExportStart() | ExportPhase() | ExportEnd():
                self._note_export(event)
            case PretrainRoutineEnd():
                self.facts = wording.preparation(event)
            case RunStart():
                self.kind, self.model, self.device = event.kind, event.model, event.device
            case RunEnd():
                self._note_end(event)
            case _:
                pass

    def _go_back(self, step: int) -> None:
        """Forget what came after `step`: it is done again."""
        for curve in list(self.curves.values()):
            curve.cut(step + 1)
        if self._lost is not None and self._lost.step >= step:
            self._lost, self.warning = None, ""

    def _note_lost(self, event: NonFinite) -> None:
        self._lost_more = 0 if self._lost is None else self._lost_more + 1
        self._lost = self._lost or event
        since = f", and in {text.plural(self._lost_more, 'batch', 'batches')} since" if self._lost_more else ""
        self.warning = f"the loss was lost in {wording.non_finite(self._lost)}{since}"

    def _note_batch(self, event: BatchEnd) -> None:
        match event:
            case TrainBatchEnd():
                self._step = event.step
                numbers = self._said_loss.numbers(event)
                for name, value in numbers.items():
                    if name != "loss" or self._said_loss.known:
                        self._add(name if name == "loss" else f"loss {name}", name, "each step", value)
                for name, value in event.lr.items():
                    self._add(f"lr {name}", "learning rate", name, value)
                rates = dict.fromkeys(event.lr.values())  # equal ones once
                lr = {"lr" if len(rates) == 1 else f"lr {name}": value for name, value in event.lr.items()}
                self.numbers = {**numbers, **lr}
            case ValBatchEnd() if self.kind == "val":
                self.numbers = dict(event.losses)
            case PredictBatchEnd():
                self.numbers = {f"{part} ms": value for part, value in event.speed.items()}
                self._step = event.batch + 1
                if event.speed:
                    self._add("ms", "ms an input", "each batch", sum(event.speed.values()))
            case _:
                pass

    def _note_epoch(self, event: FitEpochEnd) -> None:
        self.metrics = wording.numbers(event)
        self.best = None if event.best_epoch is None else event.best_epoch + 1
        if not event.final:
            self._extend(event.epoch, event.losses, "train")
            self._extend(event.epoch, event.metrics, "val")

    def _note_pass(self, event: ValEnd | PredictEnd) -> None:
        if isinstance(event, ValEnd):
            if self.kind == "val":
                self.metrics = event.scores
                self.facts = wording.evaluated(event)
        else:
            self.facts = wording.predicted(event)

    def _note_export(self, event: ExportStart | ExportPhase | ExportEnd) -> None:
        match event:
            case ExportStart():
                self.facts, self.phases = f"{event.format} to {event.path}", []
                self.all_phases = wording.phases_of(event.format)
            case ExportPhase():
                self.phases.append((event.phase, event.duration))
            case ExportEnd():
                self.facts = f"{event.path}: {wording.exported(event)}"

    def _note_end(self, event: RunEnd) -> None:
        self.kind, self.outcome, self.duration = event.kind, event.outcome, event.duration
        self.reason = event.reason
        if event.error is not None:
            self.error = {"type": event.error.type.rpartition(".")[2], "message": event.error.message}

    def _extend(self, epoch: int, values: Mapping[str, float], label: str) -> None:
        """Add what an epoch came to; a number of both kinds is drawn in one chart."""
        for name, value in values.items():
            self._add(f"{label} {name}", name, label, value, epoch)

    def _add(self, key: str, chart: str, label: str, value: float, epoch: int | None = None) -> None:
        """Add a point to the curve `key`, of a batch or of an `epoch`."""
        curve = self.curves.get(key)
        if curve is None:
            if len(self.curves) >= MOST_CURVES:
                self._left_out.add(key)
                self.left_out = len(self._left_out)
                return
            curve = self.curves[key] = Curve(chart, label, epoch is None)
        if epoch is not None and curve.epoch == epoch:
            return  # it was told at the end of the batches already
        curve.epoch = epoch
        curve.add(self._step, value)

    def head(self) -> dict[str, Any]:
        """Return everything but the curves, as JSON; what is not finite is a string."""
        progress = self.progress
        return {
            "run": self.run,
            "kind": self.kind,
            "model": self.model,
            "device": self.device,
            "reason": self.reason,
            "error": self.error,
            "partial": self.partial,
            "epoch": progress.epoch if progress.has_epochs else None,
            "current": progress.current,
            "epochs": progress.epochs,
            "doing": progress.doing,
            "batch": progress.batch,
            "batches": progress.batches,
            "step": progress.step,
            "steps": progress.steps,
            "share": progress.share,
            "left": progress.left,
            "speed": progress.speed,
            "numbers": {name: number(value) for name, value in self.numbers.items()},
            "metrics": {name: number(value) for name, value in self.metrics.items()},
            "best": self.best,
            "facts": self.facts,
            "warning": self.warning,
            "allPhases": list(self.all_phases),
            "phases": [list(phase) for phase in self.phases],
            "duration": self.duration,
            "elapsed": self.elapsed,
            "leftOut": self.left_out,
        }


def number(value: float) -> float | str:
    """Return `value` as JSON can hold it."""
    return value if value - value == 0 else str(value)


def _kind(event: Event) -> str:
    """Return the kind of a run whose begin is not remembered."""
    family = type(event).__name__
    return next((kind for kind in ("val", "predict", "export") if family.lower().startswith(kind)), "train")
