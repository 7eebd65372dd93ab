"""What shows a run in a notebook. Nothing that draws is imported before something is displayed."""

from .errors import BeginForgotten, FrameLibraryMissing, FrameLibraryUnknown, MatplotlibMissing, NothingToPlot
from .recorded import Recorded
from .shown import Shown

__all__ = [
    "BeginForgotten",
    "FrameLibraryMissing",
    "FrameLibraryUnknown",
    "MatplotlibMissing",
    "NothingToPlot",
    "Recorded",
    "Shown",
]
