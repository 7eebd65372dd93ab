"""`EpochLosses`: the losses of the epoch in work, on their way from the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from ...schemas import Event, NonFinite
from ..errors import NonFiniteLoss
from ..objective import Loss
from ..scalars import Mean, Scalars, Snapshot
from .progress import Progress


class Reach(Protocol):
    """`Runner.reach`."""

    def __call__(self, event: type[Event], /, **fields: object) -> None:
        """Say that a stage is reached."""
        ...


class _Unchecked(NamedTuple):
    """A batch whose loss was not looked at yet."""

    snapshot: Snapshot
    epoch: int
    batch: int
    step: int


class EpochLosses:
    """Keeps the running mean of the losses, and looks out for values that are not finite.

    Args:
        scalars: The way of the values to the host.
        reach: Publishes `NonFinite`.
        on_nonfinite: What to do then, beyond that.
        stop: Asks the run to stop.
    """

    def __init__(
        self,
        scalars: Scalars,
        reach: Reach,
        on_nonfinite: Literal["continue", "stop", "fail"],
        stop: Callable[[str], None],
    ) -> None:
        self._scalars = scalars
        self._reach = reach
        self._on_nonfinite = on_nonfinite
        self._stop = stop
        self._mean = Mean(scalars)
        self._unchecked: deque[_Unchecked] = deque()
        self.diverged = False
        """Whether a stop was asked for because of a value that is not finite."""

    def open(self, progress: Progress) -> None:
        """Begin an epoch, or go on with one that was interrupted."""
        self._mean = Mean(self._scalars)
        if progress.loss_sums:
            self._mean.restore(progress.loss_sums, progress.samples)

    def count(self, loss: Loss, size: int, progress: Progress, batch: int, step: int) -> Snapshot:
        """Count the loss of a batch of `size` samples, begun after `step` optimizer steps; return it on its way."""
        snapshot = self._scalars.take(loss.scalars, _LossFields(loss.names))
        self._mean.add(snapshot, size)
        self._unchecked.append(_Unchecked(snapshot, progress.epoch, batch, step))
        progress.loss_names = list(loss.names)
        return snapshot

    def check(self, *, wait: bool = False) -> None:
        """Look at the losses that have arrived, in order; with `wait`, at all of them.

        Raises:
            NonFiniteLoss: one is not finite, and the run is to fail then.
        """
        while self._unchecked and (wait or self._unchecked[0].snapshot.ready()):
            self._check(self._unchecked.popleft())

    def _check(self, batch: _Unchecked) -> None:
        fields = batch.snapshot.wait()
        losses: dict[str, float] = fields["losses"]  # type: ignore[assignment]  # made by _LossFields
        if batch.snapshot.lost or all(map(math.isfinite, losses.values())):
            return
        self._reach(NonFinite, epoch=batch.epoch, batch=batch.batch, step=batch.step, losses=losses)
        if self._on_nonfinite == "fail":
            raise NonFiniteLoss(batch.epoch, batch.batch, losses)
        if self._on_nonfinite == "stop":
            self.diverged = True
            self._stop(f"the loss of batch {batch.batch} in epoch {batch.epoch} is not finite")

    def means(self, progress: Progress) -> dict[str, float]:
        """Wait for the means by name. Of several parts the sum comes first; it is no loss of its own."""
        names = progress.loss_names
        return dict(zip(names, self._mean.read()[-len(names) :], strict=True))

    def sums(self) -> list[float]:
        """Wait for what `open` goes on from."""
        return self._mean.sums()


@dataclass(frozen=True, slots=True)
class _LossFields:
    """Makes the fields of `TrainBatchEnd` of the values of `Loss.scalars`."""

    names: tuple[str, ...]

    def __call__(self, values: Sequence[float]) -> Mapping[str, object]:
        return {"loss": values[0], "losses": dict(zip(self.names, values[-len(self.names) :], strict=True))}
