"""`Reporter`: what the parts of a run need of the runner whose stages they reach."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from ..schemas import Event
from .scalars import Snapshot


class Reporter(Protocol):
    """A runner, as the loops of training and of validation see it."""

    batch: Any
    """The batch in work, for hooks and callbacks."""
    loss: Tensor | None
    """Its loss, where the device has it, without history."""

    def reach(self, event: type[Event], /, **fields: object) -> None:
        """Say that a stage is reached."""
        ...

    def reach_when(self, snapshot: Snapshot, event: type[Event], /, **fields: object) -> None:
        """Say so, with fields that are on their way."""
        ...
