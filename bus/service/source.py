"""The source: what the routes of a service get their answers from."""

from __future__ import annotations

from contextlib import closing

from ..bus import Bus
from ..journal.file import JournalFile
from ..journal.runs import RunSummary
from ..steering import Steerable
from .errors import OutOfReach
from .feed import Hub
from .history import Histories


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

    def wheel(self, run: str, what: str) -> Steerable:
        """Return what `run` is steered by.

        Raises:
            UnknownRun: there is none of that id.
            OutOfReach: it is over, or one of another process.
        """
        wheel = None if self._bus is None else self._bus.steering.get(run)
        if wheel is None:
            self.summary(run)
            raise OutOfReach(run, what)
        return wheel
