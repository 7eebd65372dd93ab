"""A batch of a prediction, and what is done with one unless the user says otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from pathlib import PurePath
from typing import Any, NamedTuple, TypeGuard, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .errors import InputUnusable, OutputUnusable, ResultMismatch
from .pictures import Named, read


class PredictBatch(NamedTuple):
    """What ``predictor.batch`` is during a batch: ``names, images, source, strings = predictor.batch``."""

    names: list[str]
    """A name for each input: its path where it is or has one, else its position in the source."""
    images: list[object]
    """The inputs as the source gave them, before preprocessing; images or anything else."""
    source: object
    """The source they came from."""
    strings: list[str]
    """A line about each input, e.g. ``input 3 of 10``."""


def describe(inputs: list[object], first: int, total: int | None, source: object) -> PredictBatch:
    """Return the batch of `inputs`, the first of which is at position `first` of `total`."""
    positions = enumerate(inputs, first)
    names = [str(position) if type(value) in _NAMELESS else _name(value, position) for position, value in positions]
    values = [value.value if isinstance(value, Named) else value for value in inputs]
    of = "" if total is None else f" of {total}"
    return PredictBatch(
        names, values, source, [f"input {number}{of}" for number in range(first + 1, first + 1 + len(inputs))]
    )


_NAMELESS = frozenset((np.ndarray, bytes, int, float, list, tuple, dict))
"""Types of inputs of which none has a name, so that none need be looked for."""


def _name(value: object, position: int) -> str:
    if isinstance(value, Named):
        return value.name
    path = value if isinstance(value, (str, PurePath)) else getattr(value, "filename", None)
    return str(path) if path and isinstance(path, (str, PurePath)) else str(position)


def stack(inputs: list[object]) -> Tensor:
    """The default preprocessing: inputs of one shape, anything NumPy or torch understands, as one float32 tensor.

    Paths are those of pictures, which are read as arrays of shape (height, width, 3), RGB.

    Raises:
        InputUnusable: they are no numbers, or of different shapes.
        PictureUnreadable: what a path leads to is no picture.
        PillowMissing: what reads pictures is not installed.
    """
    try:
        return torch.stack([_as_float(value) for value in inputs])
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputUnusable(inputs, error) from error


def _as_float(value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to(torch.float32)
    array: np.ndarray[Any, Any] = read(value) if isinstance(value, PurePath) else np.asarray(value)
    if array.dtype.kind in "biuf":  # a copy, of any strides and order of bytes
        with np.errstate(over="ignore"):  # what is too large becomes infinite, as torch has it
            return torch.as_tensor(np.array(array, dtype=np.float32, order="C"))
    return torch.tensor(array, dtype=torch.float32)


def rows(outputs: object, batch: PredictBatch) -> list[Tensor]:
    """The default postprocessing: the rows of the output tensor, on the CPU.

    Raises:
        OutputUnusable: the model returned something other than one tensor of shape (batch, ...).
    """
    size = len(batch.names)
    if not isinstance(outputs, Tensor) or outputs.dim() == 0 or len(outputs) != size:
        raise OutputUnusable(outputs, f"a tensor of shape ({size}, ...), a row for each input of the batch")
    return list(outputs.to("cpu", copy=True).unbind())


def check_results(results: object, batch: PredictBatch) -> list[Any]:
    """Return `results`, whatever a user's function gave, as a list.

    Raises:
        ResultMismatch: it is no sequence, or does not have one result for each input of `batch`.
    """
    expected = len(batch.names)
    if not _is_sequence(results):
        raise ResultMismatch(expected, f"a {type(results).__qualname__}")
    found = list(results)
    if len(found) != expected:
        raise ResultMismatch(expected, f"{len(found)} results")
    return found


def _is_sequence(results: object) -> TypeGuard[Iterable[Any]]:
    if isinstance(results, list):  # which most are
        return True
    sized = isinstance(results, Sized) and isinstance(results, Iterable)
    return sized and not isinstance(results, (str, bytes, Mapping))


def forward(model: nn.Module, batch: object) -> object:
    """Call `model` with a preprocessed batch: a tuple as its arguments, a mapping as its keywords."""
    if isinstance(batch, Tensor):  # which most are
        return model(batch)
    if isinstance(batch, tuple) and not isinstance(batch, PackedSequence):
        return model(*cast("tuple[object, ...]", batch))
    if isinstance(batch, Mapping):
        return model(**cast("Mapping[str, object]", batch))
    return model(batch)
