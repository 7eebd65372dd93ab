"""`EpochLosses`: the losses of the epoch in work, on their way from the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from ...schemas import NonFinite
from ..errors import NonFiniteLoss
from ..objective import Loss
from ..reporter import Reporter
from ..scalars import Scalars, Snapshot
from ..val.losses import MeanLosses
from .progress import Progress


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
        reporter: The runner that reaches `NonFinite`.
        on_nonfinite: What to do then, beyond that.
        stop: Asks the run to stop.
    """

    def __init__(
        self,
        scalars: Scalars,
        reporter: Reporter,
        on_nonfinite: Literal["continue", "stop", "fail"],
        stop: Callable[[str], None],
    ) -> None:
        self._scalars = scalars
        self._reporter = reporter
        self._on_nonfinite = on_nonfinite
        self._stop = stop
        self._mean = MeanLosses(scalars, total=True)
        self._unchecked: deque[_Unchecked] = deque()
        self.diverged = False
        """Whether a stop was asked for because of a value that is not finite."""

    def open(self, progress: Progress) -> None:
        """Begin an epoch, or go on with one that was interrupted."""
        self._mean = MeanLosses(self._scalars, total=True)
        if progress.loss_sums:
            self._mean.restore(progress.loss_names, progress.reported, progress.loss_sums, progress.samples)

    def count(self, loss: Loss, size: int, progress: Progress, batch: int, step: int) -> Snapshot:
        """Count the loss of a batch of `size` samples, begun after `step` optimizer steps; return it on its way."""
        snapshot = self._mean.count(loss, size)
        self._unchecked.append(_Unchecked(snapshot, progress.epoch, batch, step))
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
        losses: dict[str, float] = fields["losses"]  # type: ignore[assignment]  # made by MeanLosses
        total: float = fields["loss"]  # type: ignore[assignment]  # so is this: what is only reported is not in it
        if batch.snapshot.lost or math.isfinite(total):
            return
        self._reporter.reach(NonFinite, epoch=batch.epoch, batch=batch.batch, step=batch.step, losses=losses)
        if self._on_nonfinite == "fail":
            raise NonFiniteLoss(batch.epoch, batch.batch, losses)
        if self._on_nonfinite == "stop":
            self.diverged = True
            self._stop(f"the loss of batch {batch.batch} in epoch {batch.epoch} is not finite")

    def conclude(self, progress: Progress) -> None:
        """Wait for the means of the epoch, and note them."""
        progress.losses, progress.reported = self._mean.means(), list(self._mean.reported)

    def note(self, progress: Progress) -> None:
        """Wait for what `open` goes on from, and note it for a checkpoint."""
        progress.loss_names, progress.reported = list(self._mean.names), list(self._mean.reported)
        progress.loss_sums = self._mean.sums()
