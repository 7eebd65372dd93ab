"""Which attempt of a run counts, where several of them are drawn as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

P = TypeVar("P")


class OfAttempts(ABC, Generic[P]):
    """Something that is told by the attempts of a run, each going on from a place before the end of the last.

    What counts is the newest attempt and what it built on.
    """

    def __init__(self) -> None:
        self._attempt = 0

    def admit(self, attempt: int, place: P) -> bool:
        """Return whether what `attempt` says of `place` counts: what it does again, an earlier one did in vain."""
        if attempt > self._attempt:
            self._attempt = attempt
            self.cut(place)
        return attempt == self._attempt

    @abstractmethod
    def cut(self, place: P) -> None:
        """Forget what was from `place` on."""
