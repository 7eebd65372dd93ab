"""Whether a run says a loss: what tells a loss that is lost from one that nobody logged."""

from __future__ import annotations

import math

from ..schemas import Event, FitEpochEnd, NonFinite, TrainBatchEnd, TrainEpochEnd


class SaidLoss:
    """Finds out from its events whether a run says a loss.

    A loop of one's own that logs other values only has ``loss=nan`` in its events, like one whose loss is lost.
    """

    def __init__(self) -> None:
        self.known: bool | None = None
        """Whether it does; None while it has said nothing at all."""

    def take(self, event: Event) -> None:
        """Take in `event`: a loss that was a number, or was counted or reported by its name, is one."""
        match event:
            case TrainBatchEnd():
                if not math.isnan(event.loss) or "loss" in event.losses:
                    self.known = True
                elif event.losses and self.known is None:
                    self.known = False
            case TrainEpochEnd() | FitEpochEnd(final=False):
                if "loss" in event.losses:
                    self.known = True
                elif not event.losses and self.known is None:  # nothing was logged in the epoch
                    self.known = False
            case NonFinite():
                self.known = True
            case _:
                pass

    def numbers(self, event: TrainBatchEnd) -> dict[str, float]:
        """Return the loss of a batch, where the run says one, and what else it says of it."""
        return {**({} if self.known is False else {"loss": event.loss}), **event.losses}
