"""What can be predicted on, and how inputs are taken from it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, cast

from torch.utils.data import DataLoader, Dataset

from ..feed import iterate, length
from .errors import SourceUnusable
from .loaders import Loader, count_inputs, input_of, inputs_in
from .pictures import Pictures

AnySource = Iterable[Any] | AsyncIterable[Any] | Dataset[Any] | PurePath
"""What a predictor takes."""
AnyPlainSource = Iterable[Any] | Dataset[Any] | PurePath
"""The same, but for what can only be read on an event loop."""
Source = Iterable[object] | AsyncIterable[object]


def check_source(source: object) -> Source:
    """Return what inputs can be taken from: `source` itself, or the pictures that a path leads to.

    Raises:
        SourceUnusable: it is one input rather than several, or nothing that can be iterated.
        NoPictures: it is the path of a folder without pictures.
        PillowMissing: it is a path, and what reads pictures is not installed.
    """
    if isinstance(source, (str, PurePath)):
        return Pictures.at(source)
    if isinstance(source, (bytes, Mapping)):
        raise SourceUnusable(cast("object", source), _EXPECTED)
    if getattr(source, "ndim", 1) == 0:
        raise SourceUnusable(source, "it has no dimension; expected the batch as the first: value[None]")
    # A map-style dataset has no __iter__; it is iterated by position. Not tried out: iterating may start workers.
    if isinstance(source, (AsyncIterable, Iterable)) or hasattr(source, "__getitem__"):
        return cast("Source", source)
    raise SourceUnusable(source, _EXPECTED)


def check_synchronous(source: Source, instead: str) -> None:
    """Refuse what can only be read on an event loop, for a caller who blocks the thread that it would run in.

    Raises:
        SourceUnusable: `source` is asynchronous, and nothing else; `instead` says what to do.
    """
    if isinstance(source, AsyncIterable) and not isinstance(source, Iterable):
        raise SourceUnusable(source, f"it is asynchronous, and the caller would hold up its event loop; {instead}")


_EXPECTED = "expected an iterable or async iterable of inputs; for a single one give a list of it: [value]"


def inputs_of(source: Iterable[object]) -> Iterator[object]:
    """Return an iterator over the inputs that `source` gives: the rows of a loader's batches, a dataset's samples."""
    if isinstance(source, DataLoader):
        return inputs_in(cast("Loader", source))
    return _samples(source) if isinstance(cast("object", source), Dataset) else iterate(source)


def _samples(dataset: Iterable[object]) -> Iterator[object]:
    samples = iterate(dataset)
    try:
        yield from map(input_of, samples)
    finally:
        if inspect.isgenerator(samples):  # whoever closes this one means that
            samples.close()


def total_of(source: object) -> int | None:
    """Return how many inputs `source` gives; None where it does not know."""
    return count_inputs(cast("Loader", source)) if isinstance(source, DataLoader) else length(source)
