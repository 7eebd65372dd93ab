"""Steering: how whoever has the bus reaches the runs that are going on there."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol


class Steerable(Protocol):
    """A run that goes on. Every method may be called from any thread, and returns at once."""

    @property
    def paused(self) -> bool:
        """Whether it stands still, or will at the next batch."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        ...

    def stop(self, reason: str) -> None:
        """Ask it to stop at the next batch, and save."""
        ...

    def pause(self) -> None:
        """Ask it to stand still at the next batch until `resume` or `stop`."""
        ...

    def resume(self) -> None:
        """Let it go on."""
        ...


class Steering:
    """The runs that are going on."""

    def __init__(self) -> None:
        self._runs: dict[str, Steerable] = {}

    def get(self, run: str) -> Steerable | None:
        """Return what `run` is steered by; None where it does not go on."""
        return self._runs.get(run)

    @contextmanager
    def within(self, run: str, steerable: Steerable) -> Generator[None]:
        """Let `run` be steered for the length of the block."""
        self._runs[run] = steerable
        try:
            yield
        finally:
            if self._runs.get(run) is steerable:
                del self._runs[run]
