"""Values that are still on their way, such as a device scalar being copied to the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Pending(Protocol):
    """Fields of an event that will be known soon. The bus waits for them; the runner does not."""

    def ready(self) -> bool:
        """Return whether `result` can be had at once. Must never block."""
        ...

    def result(self) -> Mapping[str, object]:
        """Return the fields. Called once, after `ready` returned true."""
        ...
