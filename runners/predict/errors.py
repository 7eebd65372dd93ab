"""Errors of prediction.

::

    RunnerError
    └── PredictError
        ├── SourceUnusable  (also TypeError)     what was given cannot be predicted on
        ├── NoPictures      (also FileNotFoundError)  a folder without pictures
        ├── PictureUnreadable (also OSError)     a picture that is damaged or none
        ├── PillowMissing   (also ImportError)   what reads pictures is not installed
        ├── InputUnusable   (also TypeError)     an input that the default preprocessing cannot stack
        ├── OutputUnusable  (also TypeError)     outputs that the default postprocessing cannot split
        ├── ResultMismatch  (also ValueError)    not one result for each input
        ├── NoBatch         (also LookupError)   `predictor.batch` or `.results` outside a batch
        └── StreamBusy      (also RuntimeError)  a stream has one reader at a time
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath

from ..errors import RunnerError


class PredictError(RunnerError):
    """A prediction that could not be done."""


class SourceUnusable(PredictError, TypeError):
    """The source is not something to take inputs from."""

    def __init__(self, source: object, instead: str) -> None:
        super().__init__(f"cannot predict on {type(source).__qualname__}: {instead}")


class NoPictures(PredictError, FileNotFoundError):
    """The folder has no pictures in it."""

    def __init__(self, folder: Path, suffixes: Iterable[str]) -> None:
        super().__init__(
            f"{folder} has no pictures in it, nor in its subfolders; expected files whose names end in "
            f"{', '.join(suffixes)}: give another folder, or an iterable of what you read yourself"
        )


class PictureUnreadable(PredictError, OSError):
    """A picture of the source is damaged, is none, or cannot be read."""

    def __init__(self, file: PurePath, error: Exception) -> None:
        super().__init__(
            f"{file} cannot be read as a picture: {error}; expected what Pillow reads: mend or remove the file, or "
            f"give an iterable of what you read yourself"
        )


class PillowMissing(PredictError, ImportError):
    """Pictures cannot be read, because Pillow is not installed."""

    def __init__(self, path: PurePath) -> None:
        super().__init__(
            f"predicting on the pictures at {path} needs Pillow: pip install 'lineside[images]'", name="PIL"
        )


class InputUnusable(PredictError, TypeError):
    """The default preprocessing, which stacks inputs to a tensor, does not fit the inputs."""

    def __init__(self, inputs: Iterable[object], error: Exception) -> None:
        kinds = ", ".join(dict.fromkeys(type(value).__qualname__ for value in inputs))
        super().__init__(
            f"the inputs, of type {kinds}, cannot be stacked to a float tensor: {error}; pass preprocess=..., a "
            f"function that takes the list of a batch's inputs and returns what the model takes"
        )


class ResultMismatch(PredictError, ValueError):
    """The postprocessing returned another number of results than there are inputs in the batch."""

    def __init__(self, inputs: int, found: str) -> None:
        super().__init__(
            f"postprocess returned {found} for a batch of {inputs} inputs; expected a sequence of one result each"
        )


class StreamBusy(PredictError, RuntimeError):
    """Two readers at once, e.g. two tasks in ``async for`` over one stream."""

    def __init__(self) -> None:
        super().__init__(
            "this stream is being read by another task or thread: a stream has one reader at a time; to have several "
            "consumers, subscribe them to the bus (bus.stream(PredictBatchEnd)), each at its own pace"
        )


class OutputUnusable(PredictError, TypeError):
    """The postprocessing, by default that which takes the rows of a tensor, does not fit the model's output."""

    def __init__(self, outputs: object, expected: str = "a tensor of shape (batch, ...)") -> None:
        shape = getattr(outputs, "shape", None)
        of = "" if shape is None else f" of shape {tuple(shape)}"
        super().__init__(
            f"the model returned {type(outputs).__qualname__}{of}, not {expected}; "
            f"pass postprocess=..., a function of (outputs, batch) that returns one result for each input"
        )


class NoBatch(PredictError, LookupError):
    """The batch, or its results, were asked for while there is none."""

    def __init__(self) -> None:
        super().__init__(
            "there is no batch now: predictor.batch and predictor.results are for hooks and callbacks, from "
            "on_predict_batch_start to on_predict_batch_end"
        )
