"""The source: what the routes of a service get their answers from."""

from __future__ import annotations

from contextlib import closing
from typing import Literal

from ..bus import Bus
from ..journal.file import JournalFile
from ..journal.runs import RunSummary
from ..steering import Steerable
from .cost import Cost
from .errors import OutOfReach
from .feed import Hub
from .history import Histories

Going = Literal["running", "paused", "stopping"]


class Source:
    """The journal of a service, and the live bus where there is one.

    Args:
        hub: The journal's feeds.
        bus: The bus of this process that writes there, if one does.
        steered: Whether clients may steer its runs.
    """

    def __init__(self, hub: Hub, bus: Bus | None, *, steered: bool) -> None:
        self.hub = hub
        self.journal = hub.journal
        self.histories = Histories(hub.journal)
        self.steered = steered
        self._bus = bus
        self._cost = None if bus is None else Cost(bus)

    def summaries(self) -> list[RunSummary]:
        """Return the summaries of all runs, the newest first."""
        return self.hub.summaries()

    def summary(self, run: str) -> RunSummary:
        """Return the summary of `run`.

        Raises:
            UnknownRun: there is none of that id.
        """
        return self.hub.summary(run)

    def bus(self, run: str) -> Bus | None:
        """Return the bus that `run` is published on, if it is in reach.

        Raises:
            UnknownRun: there is none of that id.
        """
        self.summary(run)
        if self._bus is None or self._bus.journal is None:
            return None
        with closing(JournalFile.open(self._bus.journal)) as file:
            here = any(origin.run == run for origin in file.origins().values())
        return self._bus if here else None

    def cost(self, run: str) -> float | None:
        """Return the CPU seconds of the bus for each step that `run` did on it; None: it is none of its runs."""
        return None if self._cost is None else self._cost.of_step(run)

    def going(self, run: str) -> Going | None:
        """Return what a run does that clients may steer; None of any other."""
        wheel = self._bus.steering.get(run) if self._bus is not None and self.steered else None
        if wheel is None:
            return None
        return "stopping" if wheel.stopping else "paused" if wheel.paused else "running"

    def wheel(self, run: str, what: str) -> Steerable:
        """Return what `run` is steered by.

        Raises:
            UnknownRun: there is none of that id.
            OutOfReach: it is over, or one of another process.
        """
        wheel = None if self._bus is None else self._bus.steering.get(run)
        if wheel is None:
            raise OutOfReach(run, what, over=self.summary(run).state in ("finished", "failed"))
        return wheel
