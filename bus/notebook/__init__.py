"""What shows a run in a notebook. Nothing that draws is imported before something is displayed."""

from .errors import (
    BeginForgotten,
    FrameLibraryMissing,
    FrameLibraryUnknown,
    MatplotlibMissing,
    NoRun,
    NothingToPlot,
)
from .recorded import Recorded
from .shown import Shown

__all__ = [
    "BeginForgotten",
    "FrameLibraryMissing",
    "FrameLibraryUnknown",
    "MatplotlibMissing",
    "NoRun",
    "NothingToPlot",
    "Recorded",
    "Shown",
]
