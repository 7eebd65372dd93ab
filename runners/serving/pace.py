"""The pace of a service: how long what waits is going to take."""

from __future__ import annotations

from time import monotonic

_LONGEST = 60.0
_WEIGHT = 0.2
"""Of the newest batch in the mean."""


class Pace:
    """Inputs a second, over the last batches that came without a pause in between."""

    def __init__(self) -> None:
        self.clock = monotonic
        self._rate = 0.0
        self._last: float | None = None

    def count(self, inputs: int, *, idle: bool) -> None:
        """Count a batch; `idle`: no input waits, so the time to the next one says nothing."""
        now = self.clock()
        if self._last is not None and now > self._last:
            rate = inputs / (now - self._last)
            self._rate = rate if self._rate == 0.0 else (1 - _WEIGHT) * self._rate + _WEIGHT * rate
        self._last = None if idle else now

    def seconds_for(self, inputs: int) -> float:
        """Return the seconds that `inputs` are going to take, from 1 to 60; 1 where nothing is known yet."""
        return min(max(inputs / self._rate if self._rate else 1.0, 1.0), _LONGEST)
