"""`Limits`: when a training run is over, and whether its processes agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

from ..config import TrainConfig
from ..control import Control
from ..runner import Ending
from .distributed import Group
from .progress import Progress
from .together import Together


class Wish(IntEnum):
    """What a process would like to do next. The processes of a run agree on the strongest, the largest number."""

    GO_ON = 0
    TIME_UP = 1
    """Close the epoch: the time is up."""
    STOP = 2
    """Stop where the run is: somebody asked for it."""


class Limits:
    """Decides whether to go on, at the ends of windows and of epochs; done there, too, is what somebody asked for.

    Args:
        config: The limits.
        control: What is asked of the run.
        elapsed: Gives the seconds since the run began.
        group: The processes of the run.
        together: What they save together.
    """

    def __init__(
        self, config: TrainConfig, control: Control, elapsed: Callable[[], float], group: Group, together: Together
    ) -> None:
        self._config = config
        self._control = control
        self._elapsed = elapsed
        self._group = group
        self._together = together

    def breaks_off(self) -> bool:
        """Whether a validation is to be broken off: in a distributed run it goes on, as the others do."""
        return self._group.size == 1 and self._control.interrupted()

    def after_window(self) -> Wish:
        """Return what all processes do after this window; none waits for the others."""
        return self._follow(self._group.agree(self._wishes()))

    def between(self) -> Wish:
        """Return what all processes do after this stage."""
        return self._follow(self._group.agree_now(self._wishes()))

    def _wishes(self) -> tuple[int, int]:
        """Return what this process would like to do next, and whether it wants all to save first."""
        saves = self._together.attend()
        return self._wish(), int(saves)

    def _follow(self, agreed: Sequence[int]) -> Wish:
        wish, saves = agreed
        if saves:
            self._together.save()
        return Wish(wish)

    def _wish(self) -> Wish:
        limit = self._config.max_seconds
        if self._control.stopping:
            return Wish.STOP
        return Wish.TIME_UP if limit is not None and self._elapsed() >= limit else Wish.GO_ON

    def stopped(self) -> Ending:
        """Return the ending after a stop, with the reason of the process that was asked."""
        reasons = [reason for reason in self._group.gather(self._control.reason) if reason is not None]
        return Ending("stopped", reasons[0] if reasons else None)

    def steps_done(self, progress: Progress) -> bool:
        """Return whether the optimizer has done its steps."""
        return self._config.max_steps is not None and progress.step >= self._config.max_steps

    def reached(self, progress: Progress, wish: Wish) -> Ending | None:
        """Return how the run ends between two epochs, None if it goes on."""
        config = self._config
        if wish is Wish.STOP:
            return self.stopped()
        if config.epochs is not None and progress.epoch >= config.epochs:
            return Ending("completed")
        if self.steps_done(progress):
            return Ending("completed", f"max_steps={config.max_steps} reached")
        if wish is Wish.TIME_UP:
            return Ending("completed", f"max_seconds={config.max_seconds} reached")
        if config.patience is not None and progress.stale >= config.patience:
            return Ending("completed", f"no improvement in {progress.stale} validations")
        return None
