"""`Recorded`: a run that can be looked back at, as a frame and as a figure."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, cast, overload

from ...schemas import (
    Event,
    ExportPhase,
    FitEpochEnd,
    PredictBatchEnd,
    RunStart,
    ValEnd,
    find_events,
)
from .errors import BeginForgotten, NoRun
from .frame import Library, chosen, frame

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from ..bus import Bus
    from ..policy import Mark
    from .plot import RunFigure

ROWS: dict[str, type[Event]] = {
    "train": FitEpochEnd,
    "val": ValEnd,
    "predict": PredictBatchEnd,
    "export": ExportPhase,
}
"""What the rows of a frame are if nobody says, by the kind of the run."""


class Recorded:
    """A run whose events the bus remembers, during the run and after it, also once the bus is closed.

    A mixin. Of its owner it needs an id, the bus, and where it began there.
    """

    id: str
    """Id of the run."""
    _bus: Bus
    _begin: Mark

    @overload
    def frame(self, *types: type[Event] | str, library: Literal["polars"]) -> pl.DataFrame: ...
    @overload
    def frame(self, *types: type[Event] | str, library: Literal["pandas"] | None = None) -> pd.DataFrame: ...
    def frame(self, *types: type[Event] | str, library: Library | None = None) -> pd.DataFrame | pl.DataFrame:
        """Return the run's events of `types` as a data frame: a row each, in their order, everything until now.

        The columns are the fields of the event, ``losses.box`` for what is within one. Times are UTC. It waits for
        nothing and may be called anywhere, while the run goes on or in a hook; where the begin of the run is not
        remembered any more, a `BeginForgotten` warns.

        Args:
            types: Classes, families or names. None: a row an epoch (`FitEpochEnd`); of a run that does not train, what
                it does instead (`ValEnd`, `PredictBatchEnd`, `ExportPhase`).
            library: Whose frame it is. Default: pandas where it is installed, else polars.

        Raises:
            FrameLibraryMissing: the library, or any of them, is not installed.
            FrameLibraryUnknown: there are no frames of that library.
            UnknownEventName: no event has that name.
            BusForked: the bus belongs to the parent process.
        """
        library = chosen(library)
        found = find_events(types) if types else (self._rows(),)
        return frame(self._recall(*found), library, found)

    def plot(self, *curves: str, against: Recorded | Sequence[Recorded] = ()) -> RunFigure:
        """Draw the run as far as it is: a matplotlib figure, which a notebook shows and ``savefig`` saves.

        Args:
            curves: What to draw, in that order: ``loss``, ``losses``, ``losses.box``, ``metrics``,
                ``metrics.accuracy``, ``fitness``, ``lr``. Default: the losses of steps and epochs, the metrics and the
                learning rate.
            against: Another run, or several, to draw into the same axes.

        Raises:
            MatplotlibMissing: matplotlib is not installed.
            NothingToPlot: no run has a curve of that name.
            NoRun: `against` is, or has, something else than a run.
            BusForked: the bus belongs to the parent process.
        """
        from .curves import DRAWN, Story
        from .plot import draw

        others = cast("list[object]", [*against] if isinstance(against, (list, tuple)) else [against])
        runs: list[Recorded] = [self]
        for run in others:
            if not isinstance(run, Recorded):
                raise NoRun(run)
            runs.append(run)
        return draw([Story(run.id, run._recall(*DRAWN)) for run in runs], curves)

    def _rows(self) -> type[Event]:
        starts = self._bus.remembered(RunStart, run=self.id, since=self._begin).events
        return next((ROWS.get(start.kind, FitEpochEnd) for start in starts if isinstance(start, RunStart)), FitEpochEnd)

    def _recall(self, *types: type[Event]) -> Iterator[Event]:
        events, missing = self._bus.remembered(*types, run=self.id, since=self._begin)
        if missing:
            warnings.warn(BeginForgotten(self.id, missing), stacklevel=3)
        return events
