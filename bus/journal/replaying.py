"""Replay: what a journal has of a run, published again at its own pace or another."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from ...schemas import Event
from .errors import InvalidSpeed
from .folder import Journal


def replay(
    journal: Journal,
    run: str,
    publish: Callable[[Event], object],
    speed: float = 1.0,
    *,
    wait: Callable[[float], object] = time.sleep,
) -> int:
    """Call `publish` with every event of `run`, in the order and with the pauses they had, divided by `speed`.

    ``replay(Journal("runs/"), "digits", Progress(), speed=10)`` feeds a subscriber as if the run were live. The pause
    between two attempts of a run is left out.

    Args:
        journal: Where the run is.
        run: Its id.
        publish: Takes each event; what it takes of the time is made up for.
        speed: How many times as fast as it was; ``float("inf")`` waits for nothing.
        wait: Waits the seconds it is given.

    Returns:
        How many events there were.

    Raises:
        InvalidSpeed: `speed` is not more than 0.
        UnknownRun: the journal has no such run.
        JournalRefused: there is no such folder.
    """
    if not speed > 0:
        raise InvalidSpeed(speed)
    journal.run(run)
    count = attempt = 0
    begin, first = 0.0, datetime.min
    for event in journal.events(run=run):
        if event.attempt != attempt:
            attempt, begin, first = event.attempt, time.monotonic(), event.time
        ahead = begin + (event.time - first).total_seconds() / speed - time.monotonic()
        if ahead > 0:
            wait(ahead)
        publish(event)
        count += 1
    return count
