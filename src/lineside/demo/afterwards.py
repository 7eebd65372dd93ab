"""What is told when a demo is over."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from lineside.bus import Bus


def program() -> str:
    """Return how this program is called from a shell."""
    if shutil.which("lineside"):
        return "lineside"
    beside = Path(sys.executable).with_name("lineside")
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def counts(bus: Bus) -> dict[str, int]:
    """Return how many events there were, and how many of them the display missed."""
    bus.drain()
    stats = bus.stats()
    missed = sum(subscription.missed for subscription in stats.subscriptions)
    return {"events": stats.published, "missed": missed}
