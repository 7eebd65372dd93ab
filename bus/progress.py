"""How far a run is, and how long it will still take."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from ..schemas import (
    BatchEnd,
    Event,
    FitEpochEnd,
    PredictStart,
    PretrainRoutineEnd,
    RunStart,
    TrainBatchEnd,
    TrainEpochStart,
    TrainStart,
    ValStart,
)

EPOCHS_REMEMBERED = 3
"""Later epochs tell more of what comes than early ones."""
BATCHES_REMEMBERED = 50


class Progress:
    """Where a run stands: in which epoch and batch, how fast it goes, what is left."""

    def __init__(self) -> None:
        self.epoch = 0
        """Epochs that are over."""
        self.current = 0
        """The epoch that began last, from 1; 0: none did."""
        self.epochs: int | None = None
        """Epochs in all, where that is known."""
        self.has_epochs = False
        self.step = 0
        """Optimizer steps that are done, those of earlier attempts included."""
        self.steps: int | None = None
        """Steps after which the run ends, if not before; None where they do not limit it."""
        self.seconds: float | None = None
        """The same in seconds since the run began."""
        self.doing = ""
        """``training``, ``validating``, ``predicting``; nothing where it does none of them."""
        self.batch = 0
        """Batches done of the current pass."""
        self.batches: int | None = None
        self.speed: float | None = None
        """Samples a second over the newest batches."""
        self._within = 0.0  # share of the current epoch's batches that is done
        self._settings: Mapping[str, object] = {}
        self._origin: tuple[float, int] | None = None  # when this attempt began to train, and after how many steps
        self._begun = 0.0  # when the current epoch, or a run without epochs, began
        self._newest = 0.0
        self._lengths: deque[float] = deque(maxlen=EPOCHS_REMEMBERED)
        self._ends: deque[tuple[float, int]] = deque(maxlen=BATCHES_REMEMBERED)

    def take(self, event: Event) -> None:
        """Take in `event`."""
        self._newest = event.elapsed
        match event:
            case RunStart():
                self._settings, self._origin, self.steps, self.seconds = event.config, None, None, None
            case PretrainRoutineEnd():
                self._take_limits()
            case TrainStart():
                self.has_epochs, self.epoch, self.epochs, self.current = True, event.epoch, event.epochs, event.epoch
                self.step, self._begun, self._origin = event.step, event.elapsed, (event.elapsed, event.step)
            case TrainEpochStart():
                self.has_epochs, self.epoch, self.epochs = True, event.epoch, event.epochs
                self.current, self._begun, self._within = event.epoch + 1, event.elapsed, 0.0
                self._begin("training", event.batches)
            case ValStart():
                self._begin("validating", event.batches)
            case PredictStart():
                self._begin("predicting", event.batches)
            case BatchEnd():
                self._advance(event)
            case FitEpochEnd(final=False):
                self._lengths.append(event.duration)
                self.current = event.epoch + 1
                if event.epoch >= self.epoch:  # a loop of the user's own says so only when the next one is to begin
                    self.epoch, self._begun, self._within = event.epoch + 1, event.elapsed, 0.0
                self._begin("", None)
            case _:
                pass

    def _take_limits(self) -> None:
        """Take the limits from the settings of a trainer: in those of other loops a name may mean anything."""
        steps, seconds = self._settings.get("max_steps"), self._settings.get("max_seconds")
        self.steps = steps if isinstance(steps, int) else None
        self.seconds = seconds if isinstance(seconds, (int, float)) else None

    def _begin(self, doing: str, batches: int | None) -> None:
        if not self.has_epochs:
            self._begun = self._newest
        self.doing, self.batch, self.batches = doing, 0, batches
        self._ends.clear()

    def _advance(self, event: BatchEnd) -> None:
        self.batch, self.batches = event.batch + 1, event.batches
        self._ends.append((event.elapsed, event.batch_size))
        seconds = self._ends[-1][0] - self._ends[0][0]
        if seconds > 0:
            self.speed = (sum(size for _, size in self._ends) - self._ends[0][1]) / seconds
        if isinstance(event, TrainBatchEnd):  # it may be the first that is heard of
            self.has_epochs, self.epoch, self.current, self.doing = True, event.epoch, event.epoch + 1, "training"
            self._within = self.batch / event.batches if event.batches else 0.0
            self.step, self._origin = event.step, self._origin or (event.elapsed, event.step)

    @property
    def share(self) -> float | None:
        """How much of the whole is done, from 0 to 1; None where the whole is not known."""
        return max((share for share, _ in self._limits()), default=None)

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes if it goes on like this; None where that cannot be said."""
        limits = list(self._limits())
        if not limits or max(limits, key=lambda limit: limit[0])[1] is None:  # another would promise too much time
            return None
        return min(left for _, left in limits if left is not None)

    def _limits(self) -> Iterator[tuple[float, float | None]]:
        """Yield, of all that will end the run, how much of it is done, and the seconds until then where it is known."""
        if not self.has_epochs:
            if self.batches:
                yield min(self.batch / self.batches, 1.0), self._until_last_batch(self.batches)
            return
        if self.epochs:
            yield min((self.epoch + self._within) / self.epochs, 1.0), self._until_epoch(self.epochs)
        if self.steps:
            yield min(self.step / self.steps, 1.0), self._until_step(self.steps)
        if self.seconds:
            yield min(self._newest / self.seconds, 1.0), max(self.seconds - self._newest, 0.0)

    def _until_last_batch(self, batches: int) -> float | None:
        return (self._newest - self._begun) / self.batch * (batches - self.batch) if self.batch else None

    def _until_step(self, steps: int) -> float | None:
        began, before = self._origin or (0.0, self.step)
        done = self.step - before
        return (self._newest - began) / done * max(steps - self.step, 0) if done else None

    def _until_epoch(self, epochs: int) -> float | None:
        since = self._newest - self._begun
        if self._lengths:
            mean = sum(self._lengths) / len(self._lengths)
        elif self._within > 0.02:
            mean = since / self._within
        else:
            return None
        # By the clock, not by the batches: an epoch has a validation, too, of which they say nothing.
        return max(mean - since, 0.0) + max(epochs - self.epoch - 1, 0) * mean if self.epoch < epochs else 0.0
