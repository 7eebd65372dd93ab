"""What looking back at a run raises, and warns of."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import BusError

ADVICE = "pip install 'lineside[notebook]'"


class FrameLibraryMissing(BusError, ImportError):
    """A frame was asked for, and the library that it would be of is not installed."""

    def __init__(self, library: str | None) -> None:
        which = "pandas or polars, and neither is" if library is None else f"{library}, which is not"
        super().__init__(f"frame() needs {which} installed here: {ADVICE}, or pip install {library or 'polars'}")


class FrameLibraryUnknown(BusError, ValueError):
    """A frame was asked for of a library that there are no frames of."""

    def __init__(self, library: str, known: Iterable[str]) -> None:
        super().__init__(f"frame(library={library!r}): expected one of {', '.join(map(repr, known))}")


class MatplotlibMissing(BusError, ImportError):
    """A figure was asked for, and matplotlib is not installed."""

    def __init__(self) -> None:
        super().__init__(f"plot() needs matplotlib, which is not installed here: {ADVICE}")


class NothingToPlot(BusError, LookupError):
    """A curve was asked for that none of the runs has."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        there = ", ".join(known)
        super().__init__(
            f"plot({name!r}): there is no such curve; "
            + (f"there are {there}" if there else "the run has told of nothing yet that could be drawn")
        )


class NoRun(BusError, TypeError):
    """A figure was to compare something that is no run."""

    def __init__(self, given: object) -> None:
        super().__init__(
            f"plot(against=...) was given {given!r:.80} of type {type(given).__qualname__}: expected a run, or a list "
            "of runs; by their ids, a journal compares them: Journal('runs/').plot('one', 'another')"
        )


class BeginForgotten(UserWarning):
    """The begin of a run is in nobody's memory any more, so that a frame or a figure of it begins later."""

    def __init__(self, run: str, missing: int) -> None:
        super().__init__(
            f"the first {missing} events since run {run} began are not remembered any more: "
            "a bus keeps the newest in memory, and all of them in a journal, with Bus('runs/')"
        )
