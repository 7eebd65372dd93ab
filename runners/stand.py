"""`Stand`: the run's thread stands still until somebody else is done, and does meanwhile what is asked of the run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from .awaited import Stay
from .control import Control
from .loops import LOOK_SECONDS

logger = logging.getLogger("lineside.runners")

PATIENCE_SECONDS = 30.0
"""Seconds after which it is said whom a run waits for; then after twice as many, and so on."""


class Stand:
    """A stand of the run's thread.

    Args:
        control: What is asked of the run.
        stay: Whom it waits for.
        seconds: The longest it may take; None: any time.
    """

    def __init__(self, control: Control, stay: Stay, seconds: float | None = None) -> None:
        self._control = control
        self._stay = stay
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._complaint = stay.since + PATIENCE_SECONDS
        stay.serves = True

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def until(self, over: Callable[[], bool], loop: asyncio.AbstractEventLoop | None = None) -> bool:
        """Wait for ``over()``, which `loop` is to bring about, and whoever does then calls `Control.wake`.

        Return false when the time is up, or the loop was closed.
        """
        while not self._control.stand(over, self._next_look(loop)):
            if self.late or (loop is not None and loop.is_closed()):
                return over()
            self._complain()
        return True

    def _next_look(self, loop: asyncio.AbstractEventLoop | None) -> float:
        now = time.monotonic()
        looks = [self._complaint - now] if loop is None else [self._complaint - now, LOOK_SECONDS]
        if self._deadline is not None:
            looks.append(self._deadline - now)
        return max(min(looks), 0.0)

    def _complain(self) -> None:
        now = time.monotonic()
        if now < self._complaint:
            return
        stay, waits = self._stay, self._stay.awaited.waits
        seconds = now - stay.since
        self._complaint = now + max(seconds, PATIENCE_SECONDS)
        others = "" if not waits else f"; waiting for the run: {', '.join(waits)}"
        logger.warning("run %s has been waiting for %s for %.0f s%s", stay.awaited.run, stay.what, seconds, others)
